//! The port between the node and what keeps its objects. The local disk does it now (`archive`); an object store that
//! several machines share can stand in its place.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A file from which an object is read.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    size: u64,
    /// Set where the file is a copy that was fetched: it is removed after use.
    is_copy: bool,
}

impl LocalFile {
    /// The object's own file.
    pub fn own(path: PathBuf, size: u64) -> LocalFile {
        LocalFile { path, size, is_copy: false }
    }

    /// A copy of the object, which is removed when this is dropped.
    pub fn copy(path: PathBuf, size: u64) -> LocalFile {
        LocalFile { path, size, is_copy: true }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if self.is_copy {
            // A file that stays costs space and no more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Keeps objects under names. A name is parts of letters, digits, `-`, `_` and `.`, with a slash between them, such as
/// `archive/0a/0a1b/2c3d.dcm`; no part is `.` or `..`. All calls block.
pub trait Objects: Send + Sync {
    /// Keeps an object. Once this returns `Ok`, no power loss takes it; a former object of this name is replaced as a whole.
    fn put(&self, name: &str, content: &mut dyn Read) -> io::Result<()>;

    /// The object as a file. `NotFound` where there is none.
    fn get(&self, name: &str) -> io::Result<LocalFile>;

    /// Removes objects for good; one that is not there is no error.
    fn remove(&self, names: &[&str]) -> io::Result<()>;

    /// Names all objects below a folder, such as `archive`, in no order, until `each` breaks: there may be millions.
    fn list(&self, folder: &str, each: &mut dyn FnMut(String) -> ControlFlow<()>) -> io::Result<()>;
}

/// An error where a name is not one that [`Objects`] allows, so that no name leads out of what keeps the objects.
pub fn check_name(name: &str) -> io::Result<()> {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
    };
    match name.split('/').all(is_part) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of an object"))),
    }
}

/// The tests that every implementation of [`Objects`] must pass.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs all tests on an empty implementation.
    pub(crate) fn all(objects: &dyn Objects) {
        what_is_put_can_be_read_listed_and_removed(objects);
        no_name_leads_out(objects);
    }

    fn put(objects: &dyn Objects, name: &str, content: &[u8]) {
        objects.put(name, &mut &content[..]).unwrap();
    }

    fn read(objects: &dyn Objects, name: &str) -> Vec<u8> {
        std::fs::read(objects.get(name).unwrap().path()).unwrap()
    }

    fn list(objects: &dyn Objects, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        objects.list(folder, &mut |name| {
            names.push(name);
            ControlFlow::Continue(())
        })?;
        names.sort();
        Ok(names)
    }

    fn what_is_put_can_be_read_listed_and_removed(objects: &dyn Objects) {
        assert!(list(objects, "archive").unwrap().is_empty());
        put(objects, "archive/ab/one.dcm", b"first");
        put(objects, "archive/ab/two.dcm", &vec![7; 300_000]);
        put(objects, "archive/cd/three.dcm", b"");
        put(objects, "archive/ab/one.dcm", b"again");
        assert_eq!(read(objects, "archive/ab/one.dcm"), b"again");
        assert_eq!(objects.get("archive/ab/two.dcm").unwrap().size(), 300_000);
        assert_eq!(
            list(objects, "archive").unwrap(),
            ["archive/ab/one.dcm", "archive/ab/two.dcm", "archive/cd/three.dcm"]
        );
        assert_eq!(list(objects, "archive/cd").unwrap(), ["archive/cd/three.dcm"]);
        assert_eq!(list(objects, "archive/cd/three.dcm").unwrap(), ["archive/cd/three.dcm"]);
        assert!(list(objects, "archive/ef").unwrap().is_empty());
        let mut named = 0;
        let first = &mut |_| {
            named += 1;
            ControlFlow::Break(())
        };
        objects.list("archive", first).unwrap();
        assert_eq!(named, 1, "it ends where it is told to");
        objects.remove(&["archive/ab/one.dcm", "archive/ab/two.dcm", "archive/never/was.dcm"]).unwrap();
        assert_eq!(objects.get("archive/ab/one.dcm").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(list(objects, "archive").unwrap(), ["archive/cd/three.dcm"]);
        put(objects, "archive/ab/one.dcm", b"back");
        assert_eq!(read(objects, "archive/ab/one.dcm"), b"back");
        objects.remove(&["archive/ab/one.dcm", "archive/cd/three.dcm"]).unwrap();
    }

    fn no_name_leads_out(objects: &dyn Objects) {
        for name in ["", "/", "/etc/passwd", "..", "archive/../../x", "archive//x", "archive/./x", "a\0b", "archive/é"]
        {
            let invalid = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
            };
            invalid(objects.put(name, &mut &b"x"[..]));
            invalid(objects.get(name).map(drop));
            invalid(objects.remove(&[name]));
            invalid(list(objects, name).map(drop));
        }
    }
}
