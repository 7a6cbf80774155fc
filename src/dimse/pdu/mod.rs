//! Protocol data units (PS3.8 9.3): what the acceptor of an association reads and writes.
//!
//! This layer is the node's own, because it has to bound what a peer states, answer what the standard lets it answer, and
//! echo fields byte for byte. The requestor's side ([`super::scu`]) uses the library dicom-ul.

mod associate;
mod error;
mod incoming;
mod outgoing;
mod pace;
mod stream;
mod types;

pub use associate::{
    AssociateAccept, AssociateRequest, ContextResult, ContextResultReason, ProposedContext, RoleSelection,
    SopClassExtendedNegotiation, Titles, UserIdentity, UserIdentityType,
};
pub use error::PduError;
pub use incoming::Pdu;
pub use outgoing::{AbortReason, Rejection, push_p_data, release_response};
pub use stream::{Event, PduStream, Piece};
