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

pub mod config;
pub mod imaging;
pub mod inference;
pub mod ledger;
pub mod metrics;
pub mod notify;
pub mod triage;
pub mod web;

/// What every result row names as the software that made it.
pub const SOFTWARE: &str = concat!("triaged ", env!("CARGO_PKG_VERSION"));
