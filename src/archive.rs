//! Part 10 files on disk: streamed, digested, synced, and named by a rule that no UID can escape from.
//!
//! ```text
//! <data_dir>/incoming/<uuid>.part                          while it comes in; never acknowledged, removed at start
//! <data_dir>/archive/ab/<study>/<instance>-<digest>.dcm    acknowledged
//! <data_dir>/quarantine/<instance>-<digest>.dcm            kept, but not taken in
//! <data_dir>/archive/.identity                             what the archive was told of its ledger
//! ```
//! `<study>` and `<instance>` are the first 24 hexadecimal digits of the SHA-256 of the UID, `<digest>` the first 16 of the
//! data set's, `ab` the first two of `<study>`.

mod digest;
mod lineage;
mod objects;
mod reopen;

pub use digest::sha256;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dicom_object::meta::FileMetaTableBuilder;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// The folders of the archive below the data folder.
#[derive(Debug, Clone)]
pub struct Archive {
    root: PathBuf,
    min_free: u64,
    /// Device and number of the folder `archive` when it was opened.
    home: Option<(u64, u64)>,
    /// Held to read from before an object is placed until its row is committed, to write while files are removed.
    placing: Arc<RwLock<()>>,
}

/// The file meta information (PS3.10 7.1) of an incoming object.
#[derive(Debug, Clone)]
pub struct Meta {
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    pub transfer_syntax: String,
    pub source_ae_title: String,
}

impl Meta {
    /// The beginning of a file: preamble, prefix and file meta information.
    pub fn head(&self) -> io::Result<Vec<u8>> {
        let group = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(&self.sop_class_uid)
            .media_storage_sop_instance_uid(&self.sop_instance_uid)
            .transfer_syntax(&self.transfer_syntax)
            .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
            .implementation_version_name(IMPLEMENTATION_VERSION_NAME)
            .source_application_entity_title(&self.source_ae_title)
            .build()
            .map_err(io::Error::other)?;
        let mut head = vec![0; 128];
        head.extend_from_slice(b"DICM");
        group.write(&mut head).map_err(io::Error::other)?;
        Ok(head)
    }
}

/// An object that is coming in. Dropped before it is in its place, its file is removed.
pub struct Incoming {
    file: File,
    path: PathBuf,
    size: u64,
    kept: bool,
}

/// An object whose bytes have all come in, on their way to the disk.
pub enum Arrived {
    /// Small enough to have been gathered: the whole file, from [`Meta::head`] on.
    Whole(Vec<u8>),
    /// A file that was written while the object came in, and what it still lacks at its end.
    Streamed(Incoming, Vec<u8>),
}

/// An object whose bytes are all on disk and synced, not yet in its place.
pub struct Received {
    incoming: Incoming,
    /// SHA-256 of the data set as it came, hexadecimal.
    digest: String,
}

impl Archive {
    /// Opens the archive, making its folders, and removes what was never acknowledged: the parts a crash left behind.
    /// Returns how many those were.
    pub fn open(data_dir: &Path) -> io::Result<(Archive, usize)> {
        let mut archive = Archive::at(data_dir);
        for folder in ["incoming", "archive", "quarantine"] {
            create_synced(&data_dir.join(folder))?;
            // Also those that an earlier version made by the umask.
            fs::set_permissions(data_dir.join(folder), fs::Permissions::from_mode(0o700))?;
        }
        let mut parts = 0;
        for entry in fs::read_dir(data_dir.join("incoming"))? {
            let path = entry?.path();
            // Nothing else is ever kept there.
            if path.is_file() {
                fs::remove_file(path)?;
                parts += 1;
            }
        }
        one_file_system(data_dir)?;
        let about = fs::metadata(data_dir.join("archive"))?;
        archive.home = Some((about.dev(), about.ino()));
        Ok((archive, parts))
    }

    /// The archive as it is, to read from: nothing is made or removed.
    pub fn at(data_dir: &Path) -> Archive {
        Archive { root: data_dir.to_owned(), min_free: 0, home: None, placing: Arc::default() }
    }

    /// The archive, refusing to begin files below so many free bytes.
    pub fn with_min_free(self, min_free: u64) -> Archive {
        Archive { min_free, ..self }
    }

    /// Begins a file with these bytes: [`Meta::head`] alone, more, or the whole file. Blocks.
    pub fn begin(&self, bytes: &[u8]) -> io::Result<Incoming> {
        self.room()?;
        let path = self.root.join("incoming").join(format!("{}.part", uuid::Uuid::new_v4()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut incoming = Incoming { file, path, size: 0, kept: false };
        incoming.write(bytes)?;
        Ok(incoming)
    }

    /// Adds to a file that was begun. An object of some GiB may be what fills the disk, on which the ledger is too. Blocks.
    pub fn append(&self, incoming: &mut Incoming, bytes: &[u8]) -> io::Result<()> {
        self.room()?;
        incoming.write(bytes)
    }

    /// Whether as much is free as the archive leaves free: an error says that it is not.
    pub fn room(&self) -> io::Result<()> {
        match self.free_bytes()? < self.min_free {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "less than archive.min_free_mib is free")),
            false => Ok(()),
        }
    }

    /// To be held from before [`Archive::keep`] until the object's row is committed: no file is removed meanwhile, so an object that
    /// comes again is not removed for what the row of its first time says.
    pub async fn placing(&self) -> OwnedRwLockReadGuard<()> {
        self.placing.clone().read_owned().await
    }

    /// To be held while rows are marked as losing their files and the files are removed.
    pub async fn removing(&self) -> OwnedRwLockWriteGuard<()> {
        self.placing.clone().write_owned().await
    }

    /// Removes files that no row needs, with folders that become empty, and syncs what remains. Blocks.
    fn remove_files(&self, paths: &[&str]) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for path in paths {
            let file = self.root.join(path);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => folders.extend(file.parent().map(Path::to_owned)),
            }
        }
        for folder in folders {
            // It stays where it still has files; that is no error.
            let remains = match fs::remove_dir(&folder) {
                Ok(()) => folder.parent(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(_) => Some(folder.as_path()),
            };
            if let Some(remains) = remains {
                File::open(remains)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Puts an object in its place, synced with the folders that lead to it. Returns its path below the data folder.
    pub fn keep(&self, received: Received, study_uid: &str, sop_uid: &str) -> io::Result<String> {
        let place = place_of(study_uid, sop_uid, &received.digest);
        self.place_as(received, &place)?;
        Ok(place)
    }

    /// Sets an object aside. Returns its path below the data folder.
    pub fn quarantine(&self, received: Received, sop_uid: &str) -> io::Result<String> {
        let place = format!("quarantine/{}", name_of(sop_uid, &received.digest));
        self.place_as(received, &place)?;
        Ok(place)
    }

    fn place_as(&self, mut received: Received, relative: &str) -> io::Result<()> {
        let file = self.root.join(relative);
        let folder = file.parent().unwrap_or(&self.root);
        self.at_home()?;
        create_synced(folder)?;
        fs::rename(&received.incoming.path, &file)?;
        received.incoming.kept = true;
        File::open(folder)?.sync_all()?;
        // Where the folder went meanwhile, the file went with it, or is in none that anybody will look into.
        self.at_home()
    }

    /// An error where the folder of the archive is another than the one that was opened: it was taken away, or a disk was mounted over it or
    /// unmounted. What is put there then is not there when it is back.
    fn at_home(&self) -> io::Result<()> {
        let Some(home) = self.home else { return Ok(()) };
        let is_home = fs::metadata(self.root.join("archive")).is_ok_and(|about| (about.dev(), about.ino()) == home);
        match is_home {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the folder of the archive was removed or exchanged while the node runs; put it back, or start the node again on the one that \
                 is there",
            )),
        }
    }

    /// Moves a file of the archive to the place that its identity gives it, where it is elsewhere. Returns its path. Blocks.
    pub fn to_its_place(&self, relative: &str, study_uid: &str, sop_uid: &str, digest: &str) -> io::Result<String> {
        let to = place_of(study_uid, sop_uid, digest);
        let file = self.root.join(&to);
        let folder = file.parent().unwrap_or(&self.root);
        create_synced(folder)?;
        if to != relative {
            fs::rename(self.root.join(relative), &file)?;
        }
        // The crash that left it without a row may have come before this.
        File::open(folder)?.sync_all()?;
        Ok(to)
    }

    /// The folders right below one of the archive's, and the folder itself where it has files: each is to be listed by itself, as all of
    /// them at one time may be millions of names. Blocks.
    pub fn parts(&self, folder: &str) -> io::Result<Vec<String>> {
        if folder == "quarantine" {
            return Ok(vec![folder.to_owned()]);
        }
        let mut parts = Vec::new();
        for entry in fs::read_dir(self.root.join(folder))? {
            // A name of another kind is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                let part = format!("{folder}/{name}");
                if crate::objects::check_name(&part).is_ok() {
                    parts.push(part);
                }
            }
        }
        parts.sort();
        Ok(parts)
    }

    /// Moves a file to quarantine: its identity turned out to be taken, or it is no object. The name there is by its content, so that only
    /// equal bytes take the place of each other.
    pub fn move_to_quarantine(&self, relative: &str, sop_uid: &str, digest: &str) -> io::Result<String> {
        let to = format!("quarantine/{}", name_of(sop_uid, digest));
        if to == relative {
            return Ok(to);
        }
        match fs::rename(self.root.join(relative), self.root.join(&to)) {
            // Two associations brought the same bytes at once, and the other has moved them.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.join(&to).is_file() => {}
            moved => moved?,
        }
        File::open(self.root.join("quarantine"))?.sync_all()?;
        Ok(to)
    }

    /// Removes a file that no row names: what it has is in another one.
    pub fn discard(&self, relative: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(relative)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The file of a path that the ledger names.
    pub fn file(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Free bytes on the archive's file system, for an unprivileged user.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Incoming {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.size += piece.len() as u64;
        Ok(())
    }

    /// Bytes of the file so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The present path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file; `digest` is the SHA-256 of the data set as it came, hexadecimal. Blocks.
    pub fn finish(self, digest: String) -> io::Result<Received> {
        self.file.sync_all()?;
        Ok(Received { digest, incoming: self })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An error where the folders of the data folder that are there lie on different file systems: an object is moved from one into the other, at once
/// or not at all, and between two file systems that is not possible.
pub fn one_file_system(data_dir: &Path) -> io::Result<()> {
    let device = |folder: &str| match fs::metadata(data_dir.join(folder)) {
        Ok(about) => Ok(Some(about.dev())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(incoming) = device("incoming")? else { return Ok(()) };
    for folder in ["archive", "quarantine"] {
        if device(folder)?.is_some_and(|device| device != incoming) {
            let why = format!(
                "its folder {folder} lies on another disk than its folder incoming, so that no object can be moved there; mount the disk where the \
                 whole data folder is (data_dir)"
            );
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, why));
        }
    }
    Ok(())
}

/// The place of an instance's file, relative to the data folder.
fn place_of(study_uid: &str, sop_uid: &str, digest: &str) -> String {
    let study = hashed(study_uid);
    format!("archive/{}/{study}/{}", &study[..2], name_of(sop_uid, digest))
}

fn name_of(sop_uid: &str, digest: &str) -> String {
    format!("{}-{}.dcm", hashed(sop_uid), &digest[..16])
}

fn hashed(uid: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(uid.as_bytes()));
    digits.truncate(24);
    digits
}

/// Makes a folder and its parents, syncing each parent that gained one, so that the folder itself survives a power loss.
pub fn create_synced(folder: &Path) -> io::Result<()> {
    // One at a time: whoever finds a folder there finds it synced, and may acknowledge what it puts into it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    create_all(folder)
}

fn create_all(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_all(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // Another association may have made it meanwhile; the sync below is still ours to do.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            sop_instance_uid: "../../etc/passwd".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
            source_ae_title: "CT".into(),
        }
    }

    #[test]
    fn no_uid_leads_out_of_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        for uid in ["../../../etc/passwd", "/etc/passwd", "", "a\0b", "..", "con.", "é💥"] {
            let mut incoming = archive.begin(&meta().head().unwrap()).unwrap();
            archive.append(&mut incoming, b"data").unwrap();
            let received = incoming.finish("0".repeat(64)).unwrap();
            let path = archive.keep(received, uid, uid).unwrap();
            let real = archive.file(&path).canonicalize().unwrap();
            assert!(real.starts_with(folder.path().canonicalize().unwrap().join("archive")), "{uid:?}: {real:?}");
        }
    }

    #[test]
    fn folders_on_two_file_systems_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!(
                "SKIP folders_on_two_file_systems_are_refused: no second file system: /dev/shm cannot be written"
            );
            return;
        };
        if fs::metadata(elsewhere.path()).unwrap().dev() == fs::metadata(folder.path()).unwrap().dev() {
            eprintln!(
                "SKIP folders_on_two_file_systems_are_refused: no second file system: /dev/shm is on the one of temporary files"
            );
            return;
        }
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("archive")).unwrap();
        let said = Archive::open(folder.path()).unwrap_err();
        assert!(said.to_string().contains("its folder archive lies on another disk"), "{said}");
        assert!(one_file_system(&folder.path().join("new")).is_ok(), "nothing is there yet");
    }

    #[test]
    fn a_file_stops_growing_where_the_disk_becomes_too_full() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        let mut incoming = archive.begin(&meta().head().unwrap()).unwrap();
        archive.append(&mut incoming, b"first").unwrap();
        let refused = archive.with_min_free(u64::MAX).append(&mut incoming, b"more").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_is_given_up_leaves_no_file_and_what_a_crash_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        let mut incoming = archive.begin(&meta().head().unwrap()).unwrap();
        archive.append(&mut incoming, b"half").unwrap();
        drop(incoming);
        assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
        std::mem::forget(archive.begin(&meta().head().unwrap()).unwrap());
        let (_, parts) = Archive::open(folder.path()).unwrap();
        assert_eq!(parts, 1);
        assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    }
}
