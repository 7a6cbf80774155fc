//! TLS for associations and for the page (PS3.15 B.9 to B.12, BCP 195): TLS 1.2 and 1.3 by rustls, whose cipher suites all have
//! forward secrecy. [`server`] accepts sessions, [`client`] opens them, [`certificate`] reads names and ends.

pub mod certificate;
pub mod client;
mod error;
mod files;
pub mod server;

pub use client::{TlsClient, TlsSession};
pub use error::{HandshakeError, TlsError, advice};
pub use files::{TlsFiles, expiries};
pub use server::TlsServer;
