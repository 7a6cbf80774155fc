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
        give_name(&partial, to).map_err(|error| cannot(to, &error))?;
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

/// Gives the copy the name that was asked for, unless a file has appeared there meanwhile. What a network share or a memory stick cannot do is
/// done in another way.
fn give_name(partial: &Path, to: &Path) -> io::Result<()> {
    // A hard link fails where there is a file; a plain rename would overwrite it.
    named_by([
        &|| fs::hard_link(partial, to),
        &|| {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            Ok(rustix::fs::renameat_with(rustix::fs::CWD, partial, rustix::fs::CWD, to, flags)?)
        },
        &|| match to.try_exists()? {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::rename(partial, to),
        },
    ])
}

/// Does the first of these that the file system can do.
fn named_by(ways: [&dyn Fn() -> io::Result<()>; 3]) -> io::Result<()> {
    let [link, rename_to_none, rename] = ways;
    link().or_else(unless_unable(rename_to_none)).or_else(unless_unable(rename))
}

/// Does `other` where an error says that the file system cannot do such a thing. EPERM is what FAT says to a hard link.
fn unless_unable(other: &dyn Fn() -> io::Result<()>) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| match rustix::io::Errno::from_io_error(&error) {
        Some(
            rustix::io::Errno::OPNOTSUPP
            | rustix::io::Errno::PERM
            | rustix::io::Errno::NOSYS
            | rustix::io::Errno::MLINK
            | rustix::io::Errno::INVAL,
        ) => other(),
        _ => Err(error),
    }
}

fn sync_folder_of(file: &Path) {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The copy is there either way; not every file system can sync a folder.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::wrong(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_hard_links_gets_its_copy_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, to) = (folder.path().join("copy.partial"), folder.path().join("copy"));
        let unable = |errno: rustix::io::Errno| move || Err(io::Error::from(errno));
        for errno in [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::PERM, rustix::io::Errno::MLINK] {
            fs::write(&partial, b"copy").unwrap();
            let no_link = unable(errno);
            named_by([&no_link, &unable(rustix::io::Errno::INVAL), &|| fs::rename(&partial, &to)]).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"copy");
            fs::remove_file(&to).unwrap();
        }
        // What is wrong otherwise is said.
        let full = unable(rustix::io::Errno::NOSPC);
        let said = named_by([&full, &|| Ok(()), &|| Ok(())]).unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn no_file_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, to) = (folder.path().join("copy.partial"), folder.path().join("copy"));
        fs::write(&partial, b"copy").unwrap();
        fs::write(&to, b"another's").unwrap();
        assert_eq!(give_name(&partial, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"another's");
        fs::remove_file(&to).unwrap();
        give_name(&partial, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"copy");
    }
}
