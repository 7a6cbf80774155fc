//! Syslog: RFC 5424 lines over UDP (RFC 5426), TCP (RFC 6587, counted) or TLS (RFC 5425). Blocks.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use crate::config;
use crate::ledger::AuditRow;
use crate::tls::{TlsClient, TlsError, TlsSession};

use super::message::{Source, xml};

/// Facility 10 (security and authorization), severity 5 (notice), as IHE ITI-20 says.
const PRIORITY: u8 = 10 * 8 + 5;
const MESSAGE_ID: &str = "IHE+RFC-3881";
const PATIENCE: Duration = Duration::from_secs(10);

/// A collector that does not want this node closes a session of TLS 1.3 when this side takes it for open already. What is written in between
/// is lost, so that long is waited.
const SETTLING: Duration = Duration::from_secs(1);

/// A row as a line of syslog.
pub fn line(source: &Source, row: &AuditRow) -> String {
    let Source { host, process, .. } = source;
    // The mark says that UTF-8 follows (RFC 5424 6.4).
    format!("<{PRIORITY}>1 {} {host} triaged {process} {MESSAGE_ID} - \u{feff}{}", row.at, xml(source, row))
}

/// The destination of the lines.
#[derive(Default)]
pub struct Collector {
    address: String,
    way: Way,
    open: Option<Open>,
}

#[derive(Default)]
enum Way {
    #[default]
    Udp,
    Tcp,
    Tls(Box<TlsClient>),
}

enum Open {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsSession>),
}

impl Collector {
    /// # Errors
    /// The authority of the collector's certificate cannot be used.
    pub fn new(settings: &config::Syslog) -> Result<Collector, TlsError> {
        let way = match settings.protocol {
            config::SyslogProtocol::Udp => Way::Udp,
            config::SyslogProtocol::Tcp => Way::Tcp,
            config::SyslogProtocol::Tls => {
                let host = settings.address.rsplit_once(':').map_or(settings.address.as_str(), |(host, _)| host);
                let files = config::Tls {
                    port: 0,
                    certificate: settings.certificate.clone(),
                    key: settings.key.clone(),
                    certificates: Vec::new(),
                    client_ca: PathBuf::new(),
                    require_client_certificate: false,
                    peer_ca: settings.ca.clone(),
                };
                Way::Tls(Box::new(TlsClient::new(&files, host, &[]).map_err(of_collector)?))
            }
        };
        Ok(Collector { address: settings.address.clone(), way, open: None })
    }

    /// Sends a line; a connection that broke is opened anew once.
    pub fn send(&mut self, line: &str) -> Result<(), String> {
        let is_new = self.open.is_none();
        match self.try_send(line) {
            Err(_) if !is_new => self.try_send(line),
            sent => sent,
        }
    }

    fn try_send(&mut self, line: &str) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.address);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let counted = format!("{} {line}", line.len());
        match &mut open {
            Open::Udp(socket) => socket.send(line.as_bytes()).map(drop),
            Open::Tcp(socket) => is_alive(socket).and_then(|()| socket.write_all(counted.as_bytes())),
            Open::Tls(session) => {
                hear(session, None).and_then(|()| session.write_all(counted.as_bytes())).and_then(|()| session.flush())
            }
        }
        .map_err(failed)?;
        self.open = Some(open);
        Ok(())
    }

    fn connect(&self) -> Result<Open, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.address);
        let mut addresses = self.address.to_socket_addrs().map_err(failed)?;
        let address = addresses.next().ok_or_else(|| format!("{}: the name has no address", self.address))?;
        if let Way::Udp = self.way {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).map_err(failed)?;
            socket.connect(address).map_err(failed)?;
            return Ok(Open::Udp(socket));
        }
        let socket = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
        let prepared = socket.set_write_timeout(Some(PATIENCE)).and(socket.set_read_timeout(Some(PATIENCE)));
        prepared.map_err(failed)?;
        match &self.way {
            Way::Tls(client) => {
                let mut session = client.connect(socket).map_err(|error| format!("{}: {error}", self.address))?;
                hear(&mut session, Some(SETTLING)).map_err(|error| {
                    format!(
                        "{}: the collector ended the session at once ({error}): it does not know this node's certificate \
                         (audit.syslog.certificate), or wants one and has none",
                        self.address
                    )
                })?;
                Ok(Open::Tls(Box::new(session)))
            }
            Way::Udp | Way::Tcp => Ok(Open::Tcp(socket)),
        }
    }
}

/// The error with the names of the collector's settings: files are read for it as for peers.
fn of_collector(error: TlsError) -> TlsError {
    let named = |setting: String| {
        setting.replace("dimse.tls.peer_ca", "audit.syslog.ca").replace("dimse.tls.", "audit.syslog.")
    };
    match error {
        TlsError::File { setting, path, source } => TlsError::File { setting: named(setting), path, source },
        TlsError::NoCertificate { setting, path } => TlsError::NoCertificate { setting: named(setting), path },
        TlsError::Unusable { setting, path, source } => TlsError::Unusable { setting: named(setting), path, source },
        TlsError::NotSet(setting) => TlsError::NotSet(named(setting)),
        TlsError::NoPeerCa => TlsError::NotSet("audit.syslog.ca".into()),
        other => other,
    }
}

/// As [`is_alive`], of a session: takes what the collector has sent, which is nothing but what TLS sends by itself, and looks whether it has
/// closed. With patience, waits so long for that.
fn hear(session: &mut TlsSession, patience: Option<Duration>) -> io::Result<()> {
    let TlsSession { conn, sock } = session;
    match patience {
        Some(patience) => sock.set_read_timeout(Some(patience))?,
        None => sock.set_nonblocking(true)?,
    }
    let heard = loop {
        match conn.read_tls(sock) {
            Ok(0) => break Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) => match conn.process_new_packets() {
                Err(error) => break Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Ok(state) if state.peer_has_closed() => break Err(io::ErrorKind::ConnectionReset.into()),
                // A ticket is sent to whom the collector has accepted.
                Ok(_) if patience.is_some() && conn.tls13_tickets_received() > 0 => break Ok(()),
                Ok(state) => {
                    let mut nothing = vec![0; state.plaintext_bytes_to_read()];
                    if let Err(error) = conn.reader().read_exact(&mut nothing) {
                        break Err(error);
                    }
                }
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    sock.set_nonblocking(false)?;
    sock.set_read_timeout(Some(PATIENCE))?;
    heard
}

/// Whether the collector has closed the connection: what is written after that is lost without an error. It sends nothing.
fn is_alive(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let looked = socket.peek(&mut [0]);
    socket.set_nonblocking(false)?;
    match looked {
        Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
