//! The archive as a store of objects by name.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::{Archive, Incoming};
use crate::objects::{LocalFile, Objects, check_name};

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

    fn list(&self, folder: &str, each: &mut dyn FnMut(String) -> ControlFlow<()>) -> io::Result<()> {
        check_name(folder)?;
        let path = self.file(folder);
        if path.is_file() {
            let _ = each(folder.to_owned());
            return Ok(());
        }
        walk(&path, folder, each).map(drop)
    }
}

fn walk(folder: &Path, name: &str, each: &mut dyn FnMut(String) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
        found => found?,
    };
    for entry in found {
        let entry = entry?;
        // A file with another kind of name is not ours.
        let Ok(own) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{own}");
        // The folder tells which of its entries are folders: a look at each of millions of files takes minutes.
        let went_on = match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &name, each)?,
            Ok(_) => each(name),
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => ControlFlow::Continue(()),
            Err(error) => return Err(error),
        };
        if went_on.is_break() {
            return Ok(went_on);
        }
    }
    Ok(ControlFlow::Continue(()))
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
