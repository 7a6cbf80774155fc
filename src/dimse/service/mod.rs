//! The services that the node provides: one [`Service`] for each DIMSE service, each in a file of its own.

pub mod commitment;
pub mod echo;
pub mod store;

use std::pin::Pin;
use std::sync::Arc;

use dicom_dictionary_std::uids;

use super::command::Operation;
use super::exchange::Exchange;
use super::link::End;
use super::peer::Peer;

/// Retired (PS3.5 2016b), and still sent; the dictionary's constant is marked deprecated.
pub const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// The transfer syntaxes of services without pixels.
pub const UNCOMPRESSED: [&str; 3] =
    [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN];

/// A service that the node provides (PS3.7 chapter 7).
pub trait Service: Send + Sync {
    /// The transfer syntaxes in which it takes this SOP class; `None` if it does not know the class.
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]>;

    /// Whether it performs this operation.
    fn performs(&self, operation: Operation) -> bool;

    /// Whether the requestor of the association may be SCP of this class (PS3.7 D.3.3.4).
    fn lets_the_requestor_be_scp(&self, _sop_class: &str) -> bool {
        false
    }

    /// The answer to a SOP class extended negotiation item (PS3.7 D.3.3.5); `None` for no answer, which means the class's
    /// defaults.
    fn extended_negotiation(&self, _sop_class: &str, _information: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Begins to serve an association, at its first request for this service.
    fn open(&self, peer: &Arc<Peer>) -> Box<dyn Handler>;
}

/// A service on one association. Dropped when the association ends, however it does.
pub trait Handler: Send {
    /// Serves one request: takes its data set from the exchange if it has one, and responds once, or several times with
    /// pending responses before the last one. What it leaves of the data set is read and dropped.
    ///
    /// # Errors
    /// Only if the association has to end. Everything else is a status.
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s>;

    /// The peer has released the association: nothing more comes. Not called where it ends otherwise.
    fn released(&mut self) {}

    /// The peer has said nothing for so long that the association is given up.
    fn fell_silent(&mut self) {}
}

/// The future that [`Handler::serve`] returns.
pub type Served<'s> = Pin<Box<dyn Future<Output = Result<(), End>> + Send + 's>>;
