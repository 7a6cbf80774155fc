//! triaged: a DICOM network node that triages head CT for intracranial hemorrhage.
//!
//! ```text
//! scanner ─C-STORE→ dimse ─P-DATA→ archive (file, fsync) ─→ ledger (row, commit) ─→ 0x0000
//!                                                             │ wakes
//! notify ←outbox─ triage (study rule) ←scores─ inference (ONNX Runtime) ←tensor─ imaging (decode, HU, input)
//! ```
//!
//! Each stage is a module that knows only the one before it; [`node`] wires them together, starts them and stops
//! them in order. `ARCHITECTURE.md` is the map of the whole.

pub mod archive;
pub mod assets;
pub mod audit;
mod causes;
pub mod commitment;
pub mod config;
mod crowd;
pub mod decoding;
pub mod dimse;
pub mod event;
pub mod forward;
pub mod inference;
pub mod intake;
pub mod ledger;
pub mod lineage;
pub mod log_limit;
pub mod metrics;
pub mod node;
pub mod notify;
pub mod objects;
pub mod outgoing;
pub mod outside;
pub mod password;
mod person;
pub mod plural;
mod priority;
pub mod recovery;
pub mod rendering;
pub mod report;
pub mod retention;
pub mod since;
pub mod tls;
pub mod triage;
mod trouble;
pub mod web;

/// The software that every result row names as its maker.
pub const SOFTWARE: &str = concat!("triaged ", env!("CARGO_PKG_VERSION"));

/// Implementation Class UID (PS3.7 D.3.3.2): made from a UUID under 2.25 (PS3.5 B.2), for this implementation and for good.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.221847369910387435266137218453901672153";

/// Implementation Version Name (PS3.7 D.3.3.2), at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("TRIAGED_", env!("CARGO_PKG_VERSION"));
