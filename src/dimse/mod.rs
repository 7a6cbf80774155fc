//! DICOM over TCP: the upper layer (PS3.8), DIMSE messages (PS3.7), Verification and Storage (PS3.4 A and B).
//!
//! [`listener`] accepts under limits; [`association`] negotiates and speaks messages; [`pdu`] makes PDUs of bytes;
//! each service has a file: [`echo`](association), [`store`]. [`scu`] is the other side.

pub mod association;
pub mod command;
pub mod listener;
pub mod pdu;
pub mod policy;
pub mod scp;
pub mod scu;
pub mod status;
mod store;

pub use listener::Listener;
pub use scp::Scp;
pub use status::Status;
