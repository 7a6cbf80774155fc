//! What a person saw before a deed about a verdict.

/// What was shown to whoever acts on a verdict. A deed that says nothing of it is about whatever the verdict is by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// The verdict's id; 0 where the study had none yet.
    pub verdict: Option<i64>,
    /// Else the revision of the study: its last verdict was seen. A provisional verdict and the final one may share it.
    pub revision: Option<i64>,
    /// What the deed was offered as.
    pub kind: Option<DeedKind>,
}

/// What a person's deed about a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeedKind {
    /// A flagged or incomplete study is taken care of.
    Acknowledged,
    /// The others can only be marked as seen.
    Seen,
}

impl DeedKind {
    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            DeedKind::Acknowledged => "acknowledged",
            DeedKind::Seen => "seen",
        }
    }
}

impl Shown {
    /// One verdict.
    pub fn verdict(id: i64) -> Shown {
        Shown { verdict: Some(id), ..Shown::default() }
    }

    /// A revision, as messages name it.
    pub fn revision(revision: i64) -> Shown {
        Shown { revision: Some(revision), ..Shown::default() }
    }
}

impl From<i64> for Shown {
    fn from(revision: i64) -> Shown {
        Shown::revision(revision)
    }
}
