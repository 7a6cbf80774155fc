//! PDUs from and to a socket (PS3.8 9.3).
//!
//! P-DATA-TF is not gathered: its presentation data values are handed on in the pieces in which they arrive, so memory
//! does not depend on any length the peer states. All other PDUs are small, bounded, and made by dicom-ul.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, MAXIMUM_PDU_SIZE, Pdu, read_pdu, write_pdu};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Of a PDU other than P-DATA-TF. An A-ASSOCIATE-RQ with 128 presentation contexts of forty transfer syntaxes each is
/// about 340 KB.
const LARGEST_CONTROL_PDU: u32 = 512 * 1024;

const READ_BUFFER: usize = 128 * 1024;

/// What arrived.
#[derive(Debug)]
pub enum Event<'b> {
    /// A PDU other than P-DATA-TF.
    Control(Pdu),
    /// A piece of a presentation data value.
    Piece(Piece<'b>),
    /// The peer closed the connection between PDUs.
    Closed,
}

/// A piece of a presentation data value (PS3.8 9.3.5.1, message control header PS3.8 E.2).
#[derive(Debug)]
pub struct Piece<'b> {
    pub context: u8,
    /// Of the command set; otherwise of the data set.
    pub command: bool,
    pub data: &'b [u8],
    /// The command set or data set is complete with this piece.
    pub last: bool,
}

/// Why nothing further can be read from this connection.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed in the middle of a PDU")]
    Truncated,
    #[error("nothing was received for {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    NotDicom(&'static str),
    #[error("unknown PDU type {0:02X}H")]
    UnknownType(u8),
    #[error(
        "a PDU of type {pdu_type:02X}H states a length of {length} bytes, at most {LARGEST_CONTROL_PDU} are sensible"
    )]
    TooLarge { pdu_type: u8, length: u32 },
    #[error("malformed PDU: {0}")]
    Malformed(String),
}

impl PduError {
    /// The A-ABORT that answers it (PS3.8 9.3.8), if the peer can still be told.
    pub fn abort(&self) -> Option<Pdu> {
        let reason = match self {
            PduError::Io(_) | PduError::Truncated => return None,
            PduError::Timeout(_) => AbortRQServiceProviderReason::ReasonNotSpecified,
            PduError::NotDicom(_) | PduError::UnknownType(_) => AbortRQServiceProviderReason::UnrecognizedPdu,
            PduError::TooLarge { .. } | PduError::Malformed(_) => AbortRQServiceProviderReason::InvalidPduParameter,
        };
        Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) })
    }
}

/// A socket that speaks PDUs.
pub struct PduStream {
    socket: TcpStream,
    buffer: Box<[u8]>,
    /// What was read and not yet handed on is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes left of the P-DATA-TF PDU being read.
    pdata_left: u32,
    /// The presentation data value being read, and the bytes left of it.
    value: Option<Value>,
}

#[derive(Clone, Copy)]
struct Value {
    context: u8,
    command: bool,
    last: bool,
    left: u32,
}

impl PduStream {
    pub fn new(socket: TcpStream) -> io::Result<PduStream> {
        // Our replies are small and waited for.
        socket.set_nodelay(true)?;
        Ok(PduStream {
            socket,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            pdata_left: 0,
            value: None,
        })
    }

    /// The next piece or PDU. `patience` is how long the peer may be silent.
    pub async fn next(&mut self, patience: Duration) -> Result<Event<'_>, PduError> {
        loop {
            if let Some(value) = self.value {
                if self.start == self.end && value.left > 0 && !self.fill(patience).await? {
                    return Err(PduError::Truncated);
                }
                let n = (self.end - self.start).min(value.left as usize);
                let data = self.start..self.start + n;
                self.start += n;
                let left = value.left - n as u32;
                self.value = (left > 0).then_some(Value { left, ..value });
                return Ok(Event::Piece(Piece {
                    context: value.context,
                    command: value.command,
                    data: &self.buffer[data],
                    last: value.last && left == 0,
                }));
            }
            if self.pdata_left > 0 {
                self.begin_value(patience).await?;
                continue;
            }
            if self.start == self.end && !self.fill(patience).await? {
                return Ok(Event::Closed);
            }
            // The first byte alone tells what never was DICOM, before any length is believed.
            let pdu_type = self.buffer[self.start];
            recognise(pdu_type)?;
            self.require(6, patience).await?;
            let header = &self.buffer[self.start..self.start + 6];
            let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
            if pdu_type == 0x04 {
                self.start += 6;
                self.pdata_left = length;
                continue;
            }
            if length > LARGEST_CONTROL_PDU {
                return Err(PduError::TooLarge { pdu_type, length });
            }
            return Ok(Event::Control(self.control(6 + length as usize, patience).await?));
        }
    }

    /// Reads the header of the next presentation data value.
    async fn begin_value(&mut self, patience: Duration) -> Result<(), PduError> {
        if self.pdata_left < 6 {
            return Err(PduError::Malformed(format!("{} stray bytes at the end of a P-DATA-TF", self.pdata_left)));
        }
        self.require(6, patience).await?;
        let header = &self.buffer[self.start..self.start + 6];
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let (context, control) = (header[4], header[5]);
        if length < 2 || length > self.pdata_left - 4 {
            return Err(PduError::Malformed(format!(
                "a presentation data value of {length} bytes in the {} left of its P-DATA-TF",
                self.pdata_left
            )));
        }
        self.start += 6;
        self.pdata_left -= 4 + length;
        self.value = Some(Value { context, command: control & 1 != 0, last: control & 2 != 0, left: length - 2 });
        Ok(())
    }

    /// Reads a whole PDU of `size` bytes. A copy of its own, grown as bytes arrive: the length is only a claim.
    async fn control(&mut self, size: usize, patience: Duration) -> Result<Pdu, PduError> {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            if self.start == self.end && !self.fill(patience).await? {
                return Err(PduError::Truncated);
            }
            let n = (self.end - self.start).min(size - bytes.len());
            bytes.extend_from_slice(&self.buffer[self.start..self.start + n]);
            self.start += n;
        }
        match read_pdu(&bytes[..], MAXIMUM_PDU_SIZE, false) {
            Ok(Some(pdu)) => Ok(pdu),
            Ok(None) => Err(PduError::Malformed("an item is longer than its PDU".into())),
            Err(error) => Err(PduError::Malformed(error.to_string())),
        }
    }

    /// Makes at least `n` bytes lie in the buffer.
    async fn require(&mut self, n: usize, patience: Duration) -> Result<(), PduError> {
        while self.end - self.start < n {
            if !self.fill(patience).await? {
                return Err(PduError::Truncated);
            }
        }
        Ok(())
    }

    /// Reads what has arrived; false at the end of the stream.
    async fn fill(&mut self, patience: Duration) -> Result<bool, PduError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        acknowledge_at_once(&self.socket);
        let read = self.socket.read(&mut self.buffer[self.end..]);
        let n = tokio::time::timeout(patience, read).await.map_err(|_| PduError::Timeout(patience))??;
        self.end += n;
        Ok(n > 0)
    }

    /// Sends a PDU. A peer that does not read is not waited for longer than `patience`.
    pub async fn send(&mut self, pdu: &Pdu, patience: Duration) -> Result<(), PduError> {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).map_err(|error| PduError::Malformed(error.to_string()))?;
        tokio::time::timeout(patience, self.socket.write_all(&bytes))
            .await
            .map_err(|_| PduError::Timeout(patience))??;
        Ok(())
    }

    /// Says goodbye properly: after an A-RELEASE-RP or A-ABORT the peer closes (PS3.8 9.2, ARTIM). Closing first, with
    /// unread bytes, would reset the connection and could take our last PDU with it.
    pub async fn finish(mut self, patience: Duration) {
        let _ = self.socket.shutdown().await;
        let drain = async {
            let mut left = 4 << 20;
            while left > 0
                && let Ok(n @ 1..) = self.socket.read(&mut self.buffer).await
            {
                left -= n.min(left);
            }
        };
        let _ = tokio::time::timeout(patience, drain).await;
    }
}

/// Senders leave Nagle's algorithm on, so the last segment of an object waits for our ACK, and Linux delays that by some
/// 40 ms unless told otherwise. TCP_QUICKACK does not stick, so it is set before every read.
fn acknowledge_at_once(socket: &TcpStream) {
    // Where the system refuses, the connection only is slower.
    let _ = rustix::net::sockopt::set_tcp_quickack(socket.as_fd(), true);
}

fn recognise(pdu_type: u8) -> Result<(), PduError> {
    match pdu_type {
        0x01..=0x07 => Ok(()),
        0x16 => Err(PduError::NotDicom("a TLS client spoke to the plain DICOM port: turn TLS off at the sender")),
        b'G' | b'P' | b'H' | b'O' | b'D' | b'C' => Err(PduError::NotDicom("an HTTP client spoke to the DICOM port")),
        other => Err(PduError::UnknownType(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn pair() -> (TcpStream, PduStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, PduStream::new(server).unwrap())
    }

    /// All that arrives of `bytes`, however it is cut into segments: data by (context, command), until end or error.
    async fn receive(bytes: Vec<u8>) -> (Vec<(u8, bool, Vec<u8>, bool)>, Option<PduError>) {
        let (mut client, mut stream) = pair().await;
        let writer = tokio::spawn(async move {
            let _ = client.write_all(&bytes).await;
        });
        let mut values: Vec<(u8, bool, Vec<u8>, bool)> = Vec::new();
        let error = loop {
            match stream.next(PATIENCE).await {
                Ok(Event::Piece(piece)) => match values.last_mut() {
                    Some((context, command, data, last))
                        if !*last && (*context, *command) == (piece.context, piece.command) =>
                    {
                        data.extend_from_slice(piece.data);
                        *last = piece.last;
                    }
                    _ => values.push((piece.context, piece.command, piece.data.to_vec(), piece.last)),
                },
                Ok(Event::Control(_)) => {}
                Ok(Event::Closed) => break None,
                Err(error) => break Some(error),
            }
        };
        writer.await.unwrap();
        (values, error)
    }

    fn p_data(values: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (context, control, data) in values {
            body.extend((data.len() as u32 + 2).to_be_bytes());
            body.extend([*context, *control]);
            body.extend_from_slice(data);
        }
        [&[4, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    #[tokio::test]
    async fn a_data_set_over_several_values_and_pdus_is_put_together() {
        let large = vec![7; 300_000];
        let bytes =
            [p_data(&[(1, 3, b"cmd"), (1, 0, &large)]), p_data(&[(1, 0, b"")]), p_data(&[(1, 2, b"end")])].concat();
        let (values, error) = receive(bytes).await;
        assert!(error.is_none());
        assert_eq!(values[0], (1, true, b"cmd".to_vec(), true));
        assert_eq!(values[1], (1, false, [&large[..], b"end"].concat(), true));
    }

    #[tokio::test]
    async fn a_stated_length_is_not_believed() {
        let (_, error) = receive(vec![0x01, 0, 0xff, 0xff, 0xff, 0xff]).await;
        assert!(matches!(error, Some(PduError::TooLarge { .. })));
        let (_, error) = receive([&[0x04, 0, 0xff, 0xff, 0xff, 0xff][..], b"\xff\xff\xff\xff\x01\x02"].concat()).await;
        assert!(matches!(error, Some(PduError::Malformed(_))));
        let (_, error) =
            receive([&[0x04, 0, 0xff, 0xff, 0xff, 0xff][..], b"\x00\x00\x10\x00\x01\x02abc"].concat()).await;
        assert!(matches!(error, Some(PduError::Truncated)));
    }

    #[tokio::test]
    async fn http_and_tls_are_told_by_name() {
        let (_, error) = receive(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await;
        assert!(error.unwrap().to_string().contains("HTTP"));
        let (_, error) = receive(b"\x16\x03\x01".to_vec()).await;
        assert!(error.unwrap().to_string().contains("TLS"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_end_in_an_end_or_an_error(pdu_type in 0u8..9, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut all = vec![pdu_type, 0];
            all.extend((bytes.len() as u32).to_be_bytes());
            all.extend(bytes);
            runtime.block_on(receive(all));
        }
    }
}
