//! The listener: accepts connections under limits and gives each a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::association;
use super::scp::Scp;

/// A bound port. Connections wait in the backlog until [`Listener::run`].
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A node that restarts must not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Listener { socket: socket.listen(1024)? })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; then refuses new connections and returns once the associations have finished the object
    /// each has in flight.
    pub async fn run(self, scp: Arc<Scp>, stop: CancellationToken) {
        let associations = TaskTracker::new();
        let places = Arc::new(Semaphore::new(scp.max_associations));
        // Connections that have not asked for an association are limited on their own, so that half-open ones cannot
        // keep scanners out; past it, new connections wait in the backlog for the request timeout at most.
        let connections = Arc::new(Semaphore::new(scp.max_associations.saturating_mul(2)));
        loop {
            let Ok(connection) = connections.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of one connection (reset before it was accepted), or no descriptors left: neither ends the node.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let task = association::serve(socket, address.ip(), scp.clone(), places.clone(), stop.clone());
            associations.spawn(async move {
                if let Err(panic) = tokio::spawn(task).await {
                    error!(address = %address.ip(), %panic, "an association ended by a bug; the node goes on");
                }
                drop(connection);
            });
        }
        drop(self.socket);
        associations.close();
        associations.wait().await;
    }
}
