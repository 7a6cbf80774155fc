//! Peers that the node calls by itself: PACS that get documents, and destinations of images.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::uids;

use crate::config::{self, OutgoingPeer};
use crate::dimse::scu::{self, Object, Peer, Priority, ScuError, StoreError, may_pass};
use crate::notify::{DocumentPeer, DocumentPeers, NotStored};
use crate::report::Document;

/// The peer that settings name, with the node's own AE title, TLS files and known peers.
///
/// # Errors
/// The key of the setting that cannot be used, and why.
pub fn peer(settings: &OutgoingPeer, dimse: &config::Dimse) -> Result<Peer, (&'static str, String)> {
    let (known, timeout) = settings.resolve(dimse)?;
    Peer::known(&known, dimse, timeout).map_err(|error| {
        let key = if known.tls { "tls" } else { "peer" };
        (key, error.to_string())
    })
}

/// Peers by C-STORE, for channels that send documents.
pub struct DicomPeers {
    pub dimse: config::Dimse,
}

impl DocumentPeers for DicomPeers {
    fn open(&self, settings: &OutgoingPeer) -> Result<Arc<dyn DocumentPeer>, (&'static str, String)> {
        Ok(Arc::new(DicomPeer(peer(settings, &self.dimse)?)))
    }
}

struct DicomPeer(Peer);

impl DocumentPeer for DicomPeer {
    fn address(&self) -> &str {
        &self.0.address
    }

    fn timeout(&self) -> Duration {
        self.0.timeout
    }

    fn echo(&self) -> Result<(), String> {
        scu::echo(&self.0).map(drop).map_err(|error| error.to_string())
    }

    fn store(
        &self,
        documents: &[Document],
        each: &mut dyn FnMut(&Document, Result<(), NotStored>),
    ) -> Result<(), NotStored> {
        let objects: Vec<Object> = documents.iter().map(object).collect();
        let ended = scu::store(&self.0, &objects, Priority::High, &mut |object, result| {
            let found = documents.iter().find(|document| document.sop_instance_uid == object.sop_instance_uid);
            let document = found.expect("each object was made of a document");
            let result = match result {
                // It is there: sent twice after a crash.
                Ok(_) | Err(StoreError::Refused { status: 0x0111, .. }) => Ok(()),
                Err(error) => Err(NotStored { may_pass: may_pass(&error), why: error.to_string() }),
            };
            each(document, result);
        });
        ended.map_err(|error| {
            let may_pass = !matches!(error, ScuError::NothingAccepted { .. });
            NotStored { may_pass, why: error.to_string() }
        })
    }
}

fn object(document: &Document) -> Object {
    Object {
        path: document.kind.as_str().into(),
        bytes: Some(document.file.as_slice().into()),
        sop_class_uid: document.sop_class_uid.clone(),
        sop_instance_uid: document.sop_instance_uid.clone(),
        transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
    }
}
