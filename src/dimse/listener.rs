//! The listener: accepts connections under limits and gives each a task of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::crowd::Standing;
use crate::tls::{HandshakeError, TlsServer};

use super::association;
use super::pdu::AbortReason;
use super::scp::Scp;
use super::transport::Connection;

/// The type of the PDU that a plain DICOM client begins with.
const ASSOCIATE_RQ: u8 = 0x01;
const PLAIN_DICOM: &str =
    "a plain DICOM client spoke to the TLS port (dimse.tls.port): turn TLS on at the sender, or use dimse.port";

/// How often the certificate's files are looked at while nobody connects.
const REFRESH: Duration = Duration::from_secs(60);

/// A bound port. Connections wait in the backlog until [`Listener::run`].
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<TlsServer>>,
}

impl Listener {
    /// A port for plain TCP.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A node that restarts must not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Listener { socket: socket.listen(1024)?, tls: None })
    }

    /// The port, for TLS alone.
    pub fn with_tls(self, tls: TlsServer) -> Listener {
        Listener { tls: Some(Arc::new(tls)), ..self }
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; then refuses new connections and returns once the associations have finished the object
    /// each has in flight.
    pub async fn run(self, scp: Arc<Scp>, stop: CancellationToken) {
        let associations = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
                () = tokio::time::sleep(REFRESH), if self.tls.is_some() => {
                    self.tls.iter().for_each(|tls| tls.refresh());
                    continue;
                }
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The connection was reset before it was accepted, or no descriptors are left: neither ends the node.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // A listener on :: sees IPv4 peers within IPv6.
            let address = address.ip().to_canonical();
            let standing = if scp.policy.knows(address) { Standing::Known } else { Standing::Stranger };
            let place = scp.crowd.enter(address, standing);
            let (scp, tls, stop) = (scp.clone(), self.tls.clone(), stop.clone());
            let task = async move {
                let connection = tokio::select! {
                    connection = connect(socket, address, tls.as_deref(), &scp) => connection,
                    () = place.made_room().cancelled() => None,
                    () = stop.cancelled() => None,
                };
                if let Some(connection) = connection {
                    association::serve(connection, place, scp, stop).await;
                }
            };
            associations.spawn(async move {
                if let Err(panic) = tokio::spawn(task).await {
                    error!(%address, %panic, "an association ended by a bug; the node goes on");
                }
            });
        }
        drop(self.socket);
        associations.close();
        associations.wait().await;
    }
}

/// Makes a connection of a socket: with TLS after the handshake, within the time for the association request. What fails is logged here.
async fn connect(socket: TcpStream, address: IpAddr, tls: Option<&TlsServer>, scp: &Scp) -> Option<Connection> {
    let Some(tls) = tls else {
        let connection = Connection::plain(socket, address);
        return connection
            .inspect_err(|error| debug!(%address, %error, "the connection was gone before it could be served"))
            .ok();
    };
    let patience = scp.association_request_timeout;
    let why = match tokio::time::timeout(patience, tls.accept(socket)).await {
        Ok(Ok(session)) => return Some(Connection::over_tls(session, address)),
        // Load balancers and port scanners: nothing to answer.
        Ok(Err(HandshakeError::Closed)) => return None,
        Ok(Err(HandshakeError::NotTls(first, mut socket))) => {
            // The peer is told in its own words, if they are DICOM.
            let _ = tokio::time::timeout(patience, socket.write_all(&AbortReason::NotSpecified.encode())).await;
            match first {
                ASSOCIATE_RQ => PLAIN_DICOM.to_owned(),
                _ => "an HTTP client or something else than TLS spoke to the TLS port (dimse.tls.port)".to_owned(),
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the TLS handshake took longer than {patience:?}"),
    };
    scp.garbage(address, &why);
    None
}
