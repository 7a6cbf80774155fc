//! Bounded connections: so many at one time, and none that is silent, or lets its request drip, for ever.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::warn;

use crate::crowd::{Crowd, Place, Standing};
use crate::ledger::{Actor, Permission};
use crate::log_limit::LogLimit;
use crate::tls::{HandshakeError, TlsServer};

/// How often the certificate's files are looked at while nobody connects.
const REFRESH: Duration = Duration::from_secs(60);

/// A listener whose connections are limited in number and in silence, over TLS where it has certificates.
pub(super) struct Bounded {
    listener: TcpListener,
    crowd: Arc<Crowd>,
    idle: Duration,
    tls: Option<Arc<Tls>>,
}

/// TLS for a listener. Handshakes run beside each other: one that drags on keeps nobody waiting.
struct Tls {
    server: TlsServer,
    done: mpsc::Sender<(Connection, SocketAddr)>,
    /// Only [`Bounded::accept`] takes from it.
    ready: Mutex<mpsc::Receiver<(Connection, SocketAddr)>>,
    log_limit: LogLimit,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, most: usize, idle: Duration) -> Bounded {
        Bounded { listener, crowd: Crowd::new(most), idle, tls: None }
    }

    /// The listener, for TLS alone.
    pub(super) fn with_tls(self, server: TlsServer) -> Bounded {
        let (done, ready) = mpsc::channel(1);
        let tls = Tls { server, done, ready: Mutex::new(ready), log_limit: LogLimit::default() };
        Bounded { tls: Some(Arc::new(tls)), ..self }
    }
}

impl Tls {
    /// Makes a TLS session of a connection and hands it to whoever accepts.
    async fn shake_hands(&self, stream: TcpStream, peer: SocketAddr, idle: Duration, place: Place) {
        let made_room = place.made_room().clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(idle, self.server.accept(stream)) => shaken,
            () = made_room.cancelled() => return,
        };
        let why = match shaken {
            Ok(Ok(session)) => {
                let _ = self.done.send((Connection::new(Box::new(session), idle, place), peer)).await;
                return;
            }
            Ok(Err(HandshakeError::Closed)) | Err(_) => return,
            Ok(Err(HandshakeError::NotTls(_, mut stream))) => {
                let _ = tokio::time::timeout(idle, stream.write_all(PLAIN_ANSWER)).await;
                "a client without TLS spoke to the HTTPS port (web.listen with web.tls)".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
        };
        let address = peer.ip().to_canonical();
        if let Some(kept_back) = self.log_limit.admit(address, &why) {
            warn!(%address, kept_back, "no web connection: {why}");
        }
    }
}

/// The answer to a client that speaks HTTP to the HTTPS port.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 37\r\n\r\nthis port speaks HTTPS: use https://\n";

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let tls = self.tls.clone();
            let listener = &mut self.listener;
            let secured = async {
                match &tls {
                    Some(tls) => tls.ready.lock().await.recv().await.expect("the sender is beside the receiver"),
                    None => std::future::pending().await,
                }
            };
            let (stream, peer) = tokio::select! {
                secured = secured => return secured,
                accepted = Listener::accept(listener) => accepted,
                () = tokio::time::sleep(REFRESH), if tls.is_some() => {
                    tls.iter().for_each(|tls| tls.server.refresh());
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (idle, place) = (self.idle, self.crowd.enter(peer.ip().to_canonical(), Standing::Stranger));
            match tls {
                None => return (Connection::new(Box::new(stream), idle, place), peer),
                Some(tls) => _ = tokio::spawn(async move { tls.shake_hands(stream, peer, idle, place).await }),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The address that a request comes from, and who was recognized.
#[derive(Debug, Clone)]
pub(super) struct PeerAddress {
    address: SocketAddr,
    /// For whom a trusted proxy asks.
    client: Option<IpAddr>,
    /// Who was recognized, where there is a login.
    known: Option<Actor>,
    /// What they may do.
    rights: Option<Vec<Permission>>,
}

impl PeerAddress {
    /// Who does what the request asks for: whoever was recognized; without a login the peer, behind a proxy whom it names, if it is trusted.
    pub(super) fn actor(&self) -> Actor {
        self.known.clone().unwrap_or_else(|| Actor::peer(format!("web {}", self.ip())))
    }

    /// Where the request comes from: the client's address, where a trusted proxy names it.
    pub(super) fn ip(&self) -> IpAddr {
        self.client.unwrap_or_else(|| self.connected())
    }

    /// Who has connected, which may be a proxy.
    pub(super) fn connected(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// The peer as one that asks for somebody else.
    pub(super) fn asking_for(self, client: Option<IpAddr>) -> PeerAddress {
        PeerAddress { client, ..self }
    }

    /// The peer as somebody who was recognized.
    pub(super) fn known_as(self, known: Actor) -> PeerAddress {
        PeerAddress { known: Some(known), ..self }
    }

    /// The peer as somebody who may do these things alone.
    pub(super) fn who_may(self, rights: Vec<Permission>) -> PeerAddress {
        PeerAddress { rights: Some(rights), ..self }
    }

    /// Whether pages offer this: without a login everything.
    pub(super) fn may(&self, permission: Permission) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.contains(&permission))
    }

    /// Who uses an acknowledge link that was sent to a channel: whoever has the link, which is a token.
    pub(super) fn actor_with_link(&self, channel: &str) -> Actor {
        Actor::token(format!("link sent to {channel}, used from web {}", self.ip()))
    }
}

impl Connected<IncomingStream<'_, Bounded>> for PeerAddress {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> PeerAddress {
        PeerAddress { address: *stream.remote_addr(), client: None, known: None, rights: None }
    }
}

/// A connection that fails with `TimedOut` when nothing was written for a while: a request, with its headers and body, must have come and
/// been answered within that time. It fails with `ConnectionAborted` when it must make room for another.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    made_room: Pin<Box<WaitForCancellationFutureOwned>>,
    place: Place,
}

/// Bytes in both directions: TCP, or a TLS session over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connection {
    fn new(stream: Box<dyn Stream>, idle: Duration, place: Place) -> Connection {
        let made_room = Box::pin(place.made_room().clone().cancelled_owned());
        Connection { stream, idle, deadline: Box::pin(tokio::time::sleep(idle)), made_room, place }
    }

    /// Fails where the connection took too long, or must make room, and else gives what was read or written.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.made_room.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match polled {
            Poll::Ready(Ok(moved)) if self.deadline.deadline() > Instant::now() => return Poll::Ready(Ok(moved)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            _ => {}
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Something was answered: the next request has its time from now on.
    fn answered(&mut self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.deadline.as_mut().reset(Instant::now() + self.idle);
            self.place.touch();
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
        self.answered(&polled);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.answered(&polled);
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
    async fn a_connection_that_drips_ends_though_it_is_never_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, 2, Duration::from_millis(100));
        let mut dripping = TcpStream::connect(address).await.unwrap();
        let (mut accepted, _) = bounded.accept().await;
        let drip = tokio::spawn(async move {
            while dripping.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let failed = loop {
            if let Err(error) = accepted.read_u8().await {
                break error.kind();
            }
        };
        assert_eq!(failed, io::ErrorKind::TimedOut);
        drip.abort();
    }

    #[tokio::test]
    async fn the_one_that_is_silent_for_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, 1, Duration::from_secs(60));
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut first, _) = bounded.accept().await;
        let mut talking = TcpStream::connect(address).await.unwrap();
        let (mut second, _) = bounded.accept().await;
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        talking.write_all(b"x").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'x');
    }
}
