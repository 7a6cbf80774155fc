//! DICOM over the network: the upper layer (PS3.8), DIMSE messages (PS3.7), Verification, Storage and
//! Storage Commitment (PS3.4 A, B and J).
//!
//! From the wire up: [`transport`] (TCP, or TLS by [`crate::tls`]), [`pdu`], [`link`] (messages), [`exchange`] (one request and its
//! responses), [`service`] (what the node does, a file each). [`listener`] accepts under limits; [`association`] asks
//! [`policy`] who may associate and [`negotiation`] for what, and hands each request to its service. [`scp`] is what all
//! associations share. [`scu`] is the other side.

pub mod applicant;
pub mod association;
pub mod command;
pub mod context;
pub mod exchange;
pub mod known;
pub mod link;
pub mod listener;
pub mod negotiation;
pub mod pdu;
pub mod peer;
pub mod policy;
pub mod reporter;
pub mod scp;
pub mod scu;
mod senders;
pub mod service;
pub mod status;
pub mod transport;

#[cfg(test)]
mod tests;

pub use listener::Listener;
pub use scp::Scp;
