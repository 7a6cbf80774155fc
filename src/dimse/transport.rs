//! The bytes below the PDUs: a TCP connection, a TLS session over one, or a pipe in memory.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A stream of bytes in both directions that PDUs can be read from and written to.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Called before every read that may have to wait for the peer.
    fn before_read(&self) {}
}

impl Transport for TcpStream {
    /// Senders leave Nagle's algorithm on, so the last segment of an object waits for our ACK, and Linux delays that by some
    /// 40 ms unless told otherwise. TCP_QUICKACK does not stick, so it is set before every read.
    fn before_read(&self) {
        // If the system refuses, the connection only is slower.
        let _ = rustix::net::sockopt::set_tcp_quickack(self.as_fd(), true);
    }
}

impl Transport for TlsStream<TcpStream> {
    fn before_read(&self) {
        self.get_ref().0.before_read();
    }
}

/// A pipe in memory, for tests and fuzzing.
impl Transport for DuplexStream {}

/// A connection from a peer, with what is known of the peer before it has sent a PDU.
pub struct Connection {
    pub transport: Box<dyn Transport>,
    pub address: IpAddr,
    /// Whether it is a TLS session.
    pub tls: bool,
    /// The certificate that the peer proved to own, in a TLS session that asked for one.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Connection {
    /// A TLS session.
    pub fn over_tls(session: TlsStream<TcpStream>, address: IpAddr) -> Connection {
        let certificates = session.get_ref().1.peer_certificates();
        let certificate =
            certificates.and_then(|chain| chain.first()).map(|certificate| certificate.clone().into_owned());
        Connection { transport: Box::new(session), address, tls: true, certificate }
    }

    /// A connection over plain TCP.
    pub fn plain(socket: TcpStream, address: IpAddr) -> std::io::Result<Connection> {
        // Our replies are small and waited for.
        socket.set_nodelay(true)?;
        Ok(Connection { transport: Box::new(socket), address, tls: false, certificate: None })
    }
}
