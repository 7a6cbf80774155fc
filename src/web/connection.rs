//! Bounded connections: so many at one time, and none that is silent for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::ledger::Actor;

/// A listener whose connections are limited in number and in silence.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle: Duration,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, most: usize, idle: Duration) -> Bounded {
        Bounded { listener, places: Arc::new(Semaphore::new(most)), idle }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        let idle = self.idle;
        (Connection { stream, idle, deadline: Box::pin(tokio::time::sleep(idle)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(SocketAddr);

impl PeerAddress {
    /// Who does what the request asks for. There is no login yet, so it is the peer, behind a proxy the proxy.
    pub(super) fn actor(self) -> Actor {
        Actor::peer(format!("web {}", self.0.ip()))
    }

    /// Who uses an acknowledge link that was sent to a channel: whoever has the link, which is a token.
    pub(super) fn actor_with_link(self, channel: &str) -> Actor {
        Actor::token(format!("link sent to {channel}, used from web {}", self.0.ip()))
    }
}

impl Connected<IncomingStream<'_, Bounded>> for PeerAddress {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> PeerAddress {
        PeerAddress(*stream.remote_addr())
    }
}

/// A connection that fails with `TimedOut` when nothing was read or written for a while.
pub(super) struct Connection {
    stream: TcpStream,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Starts the silence anew when something moved, else fails when it has lasted too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline.as_mut().reset(Instant::now() + self.idle);
            return polled;
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_silent_connection_ends_and_gives_its_place_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, 1, Duration::from_millis(50));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut talking = TcpStream::connect(address).await.unwrap();
        let (mut first, _) = bounded.accept().await;
        let refused = tokio::time::timeout(Duration::from_millis(10), bounded.accept()).await;
        assert!(refused.is_err(), "there is one place");
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(first);
        let (mut second, _) = bounded.accept().await;
        talking.write_all(b"x").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'x');
    }
}
