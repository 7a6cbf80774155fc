//! Peers that documents are sent to, as a channel sees them: what speaks DICOM stands outside of this module.

use std::sync::Arc;
use std::time::Duration;

use crate::config::OutgoingPeer;
use crate::report::Document;

/// Finds peers by the settings of a channel.
pub trait DocumentPeers: Send + Sync {
    /// # Errors
    /// The key of the setting that cannot be used, and why.
    fn open(&self, settings: &OutgoingPeer) -> Result<Arc<dyn DocumentPeer>, (&'static str, String)>;
}

/// A peer that stores documents. Its calls block, each step within [`DocumentPeer::timeout`].
pub trait DocumentPeer: Send + Sync {
    /// For messages.
    fn address(&self) -> &str;

    fn timeout(&self) -> Duration;

    /// Whether it is there: C-ECHO.
    fn echo(&self) -> Result<(), String>;

    /// C-STORE on one association. `each` hears of every document that was answered or could not be sent.
    ///
    /// # Errors
    /// There is no association, or none any more.
    fn store(
        &self,
        documents: &[Document],
        each: &mut dyn FnMut(&Document, Result<(), NotStored>),
    ) -> Result<(), NotStored>;
}

/// Why a document is not stored, or no association stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStored {
    pub why: String,
    /// It may be gone soon, without anybody's doing.
    pub may_pass: bool,
}

/// For a process that calls nobody.
pub struct NoPeers;

impl DocumentPeers for NoPeers {
    fn open(&self, _: &OutgoingPeer) -> Result<Arc<dyn DocumentPeer>, (&'static str, String)> {
        Err(("peer", "this process sends no documents".into()))
    }
}
