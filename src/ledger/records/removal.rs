//! Files of the archive: what is there, and what may be removed.

/// A file that the archive keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedFile {
    /// Relative to the data folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// The row that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOwner {
    Instance(i64),
    /// An object that was set aside.
    SetAside(i64),
}

/// A row that names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRow<'r> {
    /// None: the object is set aside.
    pub instance: Option<i64>,
    /// Relative to the data folder.
    pub path: &'r str,
    /// Retention is about to remove the file.
    pub is_removed: bool,
    /// The file was found to be gone.
    pub is_lost: bool,
}

/// A file that is marked as removed, and is to be removed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedFile {
    pub row: FileOwner,
    /// Relative to the data folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Which studies may lose their files. A study that is not decided never does, nor one with a slice in the queue or a
/// notification that is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalRule {
    /// `archive.retention_days`: those for which nothing came since a given time.
    Age,
    /// `archive.max_gib`: of those, the ones that were not flagged, or that somebody acknowledged.
    Space,
}
