//! The file in which an archive keeps what it was told of its ledger.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::Archive;
use crate::lineage::Lineage;

/// Below the data folder, within the archive: whoever moves the archive to another disk moves it, too.
const FILE: &str = "archive/.identity";

impl Archive {
    /// What the archive was told last; none where it never was, or the file is gone. Blocks.
    ///
    /// # Errors
    /// The file cannot be read. One that is not whole counts as gone: it is replaced as a whole, so that no crash of the node leaves it so.
    pub fn told(&self) -> io::Result<Option<Lineage>> {
        match fs::read(self.file(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        }
    }

    /// Tells the archive of its ledger, synced, and reads it again. Blocks.
    pub fn tell(&self, lineage: &Lineage) -> io::Result<()> {
        self.at_home()?;
        let (path, partial) = (self.file(FILE), self.file(&format!("{FILE}.new")));
        let text = serde_json::to_vec(lineage)?;
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        match fs::read(&path)? == text {
            true => Ok(()),
            false => Err(io::Error::other("other bytes are read than were written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_knows_what_it_was_told_last_and_nothing_of_a_file_that_is_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        assert_eq!(archive.told().unwrap(), None);
        let told = |generation| Lineage { identity: "us".into(), generation, in_file: 1 };
        archive.tell(&told(1)).unwrap();
        archive.tell(&told(2)).unwrap();
        assert_eq!(archive.told().unwrap(), Some(told(2)));
        fs::write(archive.file(FILE), b"{").unwrap();
        assert_eq!(archive.told().unwrap(), None);
    }
}
