//! The connection of a requestor: TCP or TLS, and PDUs over it. Blocks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use dicom_ul::pdu::{Pdu, read_pdu, write_pdu};

use crate::causes::in_full;
use crate::tls::TlsSession;

use super::error::ScuError;
use super::peer::Peer;

/// The longest PDU that the node takes as a requestor, in bytes of its length field. Responses are short.
pub const LONGEST_RECEIVED: u32 = 64 * 1024;

/// PDUs in both directions.
pub struct Stream {
    address: String,
    timeout: Duration,
    inner: Inner,
    /// Received and not read yet.
    buffer: Vec<u8>,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsSession>),
}

impl Inner {
    fn tcp(&self) -> &TcpStream {
        match self {
            Inner::Plain(socket) => socket,
            Inner::Tls(session) => &session.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Inner::Plain(socket) => socket.read(buffer),
            Inner::Tls(session) => session.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Inner::Plain(socket) => socket.write_all(bytes),
            Inner::Tls(session) => session.write_all(bytes).and_then(|()| session.flush()),
        }
    }
}

impl Stream {
    /// Connects, with TLS where the peer has it.
    pub fn connect(peer: &Peer) -> Result<Stream, ScuError> {
        let (address, timeout) = (peer.address.clone(), peer.timeout);
        let failed = |source: io::Error| {
            let source = match is_timeout(&source) {
                true => io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {} s", timeout.as_secs_f64())),
                false => source,
            };
            ScuError::Connect { address: address.clone(), source }
        };
        let socket = connect(&address, timeout).map_err(failed)?;
        // Each request ends in a short segment that Nagle's algorithm would hold back.
        let prepared = socket.set_nodelay(true).and(socket.set_read_timeout(Some(timeout)));
        prepared.and(socket.set_write_timeout(Some(timeout))).map_err(failed)?;
        let inner = match &peer.tls {
            None => Inner::Plain(socket),
            Some(tls) => match tls.connect(socket) {
                Ok(session) => Inner::Tls(Box::new(session)),
                Err(error) if error.is_timeout() => return Err(ScuError::Timeout { address, after: timeout }),
                Err(error) => return Err(ScuError::Tls { address, why: error.to_string() }),
            },
        };
        Ok(Stream { address, timeout, inner, buffer: Vec::new() })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a PDU.
    pub fn send(&mut self, pdu: &Pdu) -> Result<(), ScuError> {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).map_err(|error| self.protocol(in_full(&error)))?;
        self.write(&bytes)
    }

    /// Sends the bytes of a PDU.
    pub fn write(&mut self, pdu: &[u8]) -> Result<(), ScuError> {
        let Err(error) = self.inner.write_all(pdu) else { return Ok(()) };
        // A peer that aborts closes the connection while we write; its A-ABORT may still be there to be read.
        let gone = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if gone && let Ok(Pdu::AbortRQ { source }) = self.receive() {
            return Err(ScuError::Aborted { address: self.address.clone(), why: super::error::abort(&source) });
        }
        Err(self.failed(error))
    }

    /// The next PDU.
    pub fn receive(&mut self) -> Result<Pdu, ScuError> {
        let mut piece = [0; 16 * 1024];
        loop {
            let mut rest = &self.buffer[..];
            match read_pdu(&mut rest, LONGEST_RECEIVED, true) {
                Ok(Some(pdu)) => {
                    let read = self.buffer.len() - rest.len();
                    self.buffer.drain(..read);
                    return Ok(pdu);
                }
                Ok(None) => {}
                Err(error) => return Err(self.protocol(in_full(&error))),
            }
            // Many peers write a response in two pieces with Nagle's algorithm on: the second waits for our ACK of the
            // first, which the kernel would delay by 40 ms. The option does not stick, hence here.
            let _ = rustix::net::sockopt::set_tcp_quickack(self.inner.tcp(), true);
            match self.inner.read(&mut piece) {
                Ok(0) => return Err(ScuError::Closed { address: self.address.clone() }),
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    pub fn protocol(&self, why: String) -> ScuError {
        ScuError::Protocol { address: self.address.clone(), why }
    }

    fn failed(&self, error: io::Error) -> ScuError {
        let address = self.address.clone();
        match error.kind() {
            _ if is_timeout(&error) => ScuError::Timeout { address, after: self.timeout },
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                ScuError::Closed { address }
            }
            // In TLS 1.3 a certificate is refused only after the handshake.
            _ if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                ScuError::Tls { address, why: error.to_string() }
            }
            _ => ScuError::Protocol { address, why: error.to_string() },
        }
    }
}

/// Connects to the first of the addresses of a name that answers.
fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()?.collect::<Vec<SocketAddr>>() {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
