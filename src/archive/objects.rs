//! The archive as a store of objects by name.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::{Archive, Incoming};
use crate::objects::{Entry, LocalFile, Objects, check_name};

/// Bytes copied at a time.
const PIECE: usize = 1 << 16;

impl Objects for Archive {
    fn put(&self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        check_name(name)?;
        let mut incoming: Incoming = self.begin(&[])?;
        let mut piece = vec![0; PIECE];
        loop {
            match content.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => self.append(&mut incoming, &piece[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.place_as(incoming.finish(String::new())?, name)
    }

    fn get(&self, name: &str) -> io::Result<LocalFile> {
        check_name(name)?;
        let path = self.file(name);
        let size = fs::metadata(&path)?.len();
        Ok(LocalFile::own(path, size))
    }

    fn remove(&self, names: &[&str]) -> io::Result<()> {
        names.iter().try_for_each(|name| check_name(name))?;
        self.remove_files(names)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        check_name(folder)?;
        let mut entries = Vec::new();
        if let Ok(about) = fs::metadata(self.file(folder))
            && about.is_file()
        {
            return Ok(vec![Entry { name: folder.to_owned(), size: about.len() }]);
        }
        walk(&self.file(folder), folder, &mut entries)?;
        entries.sort();
        Ok(entries)
    }
}

fn walk(folder: &Path, name: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for entry in found {
        let entry = entry?;
        // A file with another kind of name is not ours.
        let Ok(own) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{own}");
        match entry.metadata() {
            Ok(about) if about.is_dir() => walk(&entry.path(), &name, entries)?,
            Ok(about) => entries.push(Entry { name, size: about.len() }),
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_disk_keeps_objects_as_every_store_must() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        crate::objects::tests::all(&archive);
        assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    }
}
