//! The listener: accepts connections under limits and gives each a task of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::association;
use super::scp::Scp;
use super::tls::{HandshakeError, TlsServer};
use super::transport::Connection;

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
            let Ok(permit) = scp.connections.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
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
            let address = address.ip();
            let (scp, tls, stop) = (scp.clone(), self.tls.clone(), stop.clone());
            let task = async move {
                let patience = scp.association_request_timeout;
                let connection = tokio::select! {
                    connection = connect(socket, address, tls.as_deref(), patience) => connection,
                    () = stop.cancelled() => None,
                };
                if let Some(connection) = connection {
                    association::serve(connection, scp, stop).await;
                }
            };
            associations.spawn(async move {
                if let Err(panic) = tokio::spawn(task).await {
                    error!(%address, %panic, "an association ended by a bug; the node goes on");
                }
                drop(permit);
            });
        }
        drop(self.socket);
        associations.close();
        associations.wait().await;
    }
}

/// Makes a connection of a socket: with TLS after the handshake, which may take `patience`. What fails is logged here.
async fn connect(
    socket: TcpStream,
    address: IpAddr,
    tls: Option<&TlsServer>,
    patience: Duration,
) -> Option<Connection> {
    let Some(tls) = tls else {
        let connection = Connection::plain(socket, address);
        return connection
            .inspect_err(|error| debug!(%address, %error, "the connection was gone before it could be served"))
            .ok();
    };
    let why = match tokio::time::timeout(patience, tls.accept(socket, address)).await {
        Ok(Ok(connection)) => return Some(connection),
        // Load balancers and port scanners: nothing to answer.
        Ok(Err(HandshakeError::Closed)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the TLS handshake took longer than {patience:?}"),
    };
    warn!(%address, "no association: {why}");
    metrics::counter!("triaged_associations_total", "result" => "garbage").increment(1);
    None
}
