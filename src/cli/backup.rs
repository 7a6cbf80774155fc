//! `triaged backup`: a copy of the database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::Reader;
use triaged::plural::counted;

use super::{Failure, Result, existing_database, shown};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    // Read-only, so that a backup taken before an upgrade does not bring the database to the new schema.
    let source = Reader::open_former(&existing_database(settings)?)?;
    let to = &args.to;
    if to.try_exists().map_err(|error| cannot(to, &error))? {
        return Err(Failure::wrong(format!("{} exists already and is not overwritten", to.display())));
    }
    // Written under another name first: what has the name asked for is complete.
    let mut partial = to.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    reserve(&partial)?;
    let copied = copy(&source, &partial).and_then(|studies| {
        // A hard link fails where a file has appeared meanwhile; a rename would overwrite it.
        fs::hard_link(&partial, to).map_err(|error| cannot(to, &error))?;
        sync_folder_of(to);
        Ok(studies)
    });
    let _ = fs::remove_file(&partial);
    let studies = copied?;
    let size = fs::metadata(to).map_or(0, |about| about.len());
    let mut out = io::stdout().lock();
    let (studies, mib) = (counted(studies, "study"), size as f64 / 1_048_576.0);
    writeln!(out, "{}: {studies}, {mib:.1} MiB, integrity checked", shown(to))?;
    writeln!(
        out,
        "The DICOM files are not in it: copy the folders {} and {} as well, after this copy, so that every row finds its file.",
        shown(&settings.data_dir.join("archive")),
        shown(&settings.data_dir.join("quarantine"))
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the file, readable by its owner alone: it will hold patient IDs.
fn reserve(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::wrong(format!(
            "{} exists: another backup is being written, or one was interrupted; delete it and try again",
            path.display()
        ))),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// Copies as of one moment, checks and syncs the copy; returns how many studies it holds.
fn copy(source: &Reader, to: &Path) -> Result<u64> {
    let copy = source.copy_to(to)?;
    if let Some(problem) = copy.problem {
        return Err(Failure::failed(format!("the copy is not sound, so the database may not be: {problem}")));
    }
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| cannot(to, &error))?;
    Ok(copy.studies)
}

fn sync_folder_of(file: &Path) {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The copy is there either way; not every file system can sync a folder.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::wrong(format!("cannot write {}: {error}", path.display()))
}
