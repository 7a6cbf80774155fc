//! PDUs from and to a transport (PS3.8 9.3).
//!
//! P-DATA-TF is not gathered: its presentation data values are handed on in the pieces in which they arrive, so memory
//! does not depend on any length the peer states. All other PDUs are small and bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dimse::transport::Transport;

use super::error::{LARGEST_CONTROL_PDU, PduError};
use super::incoming::Pdu;
use super::pace::Pace;
use super::types::P_DATA_TF;

const READ_BUFFER: usize = 128 * 1024;

/// A thing that arrived.
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
    /// It belongs to the command set; otherwise to the data set.
    pub command: bool,
    pub data: &'b [u8],
    /// The command set or data set is complete with this piece.
    pub last: bool,
}

/// A transport that speaks PDUs.
pub struct PduStream {
    transport: Box<dyn Transport>,
    buffer: Box<[u8]>,
    /// `buffer[start..end]` was read and is not yet handed on.
    start: usize,
    end: usize,
    /// Bytes left of the P-DATA-TF PDU being read.
    pdata_left: u32,
    /// The presentation data value being read, and the bytes left of it.
    value: Option<Value>,
    /// The PDU other than P-DATA-TF being read. Its length is only a claim, so this grows as bytes arrive.
    control: Option<Control>,
    /// How the peer keeps up with the rate that it must send at.
    pace: Pace,
}

struct Control {
    pdu_type: u8,
    length: usize,
    body: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Value {
    context: u8,
    command: bool,
    last: bool,
    left: u32,
}

impl PduStream {
    pub fn new(transport: Box<dyn Transport>) -> PduStream {
        PduStream {
            transport,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            pdata_left: 0,
            value: None,
            control: None,
            pace: Pace::default(),
        }
    }

    /// The next piece or PDU. `patience` is how long the peer may be silent. Nothing is lost if the future is dropped: the next
    /// call goes on with what has arrived.
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
            if let Some(control) = &self.control {
                if control.body.len() < control.length {
                    self.gather(patience).await?;
                    continue;
                }
                let Some(Control { pdu_type, body, .. }) = self.control.take() else { continue };
                return Ok(Event::Control(Pdu::parse(pdu_type, &body)?));
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
            if pdu_type != P_DATA_TF && length > LARGEST_CONTROL_PDU {
                return Err(PduError::TooLarge { pdu_type, length });
            }
            self.start += 6;
            if pdu_type == P_DATA_TF {
                self.pdata_left = length;
            } else {
                self.control = Some(Control { pdu_type, length: length as usize, body: Vec::new() });
            }
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

    /// Adds what has arrived to the PDU other than P-DATA-TF that is being read.
    async fn gather(&mut self, patience: Duration) -> Result<(), PduError> {
        if self.start == self.end && !self.fill(patience).await? {
            return Err(PduError::Truncated);
        }
        if let Some(Control { length, body, .. }) = &mut self.control {
            let n = (self.end - self.start).min(*length - body.len());
            body.extend_from_slice(&self.buffer[self.start..self.start + n]);
            self.start += n;
        }
        Ok(())
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
        self.transport.before_read();
        // Between two PDUs a peer may be silent; within one it must go on.
        let within = self.value.is_some() || self.control.is_some() || self.pdata_left > 0 || self.end > self.start;
        self.pace.begin(within);
        let read = self.transport.read(&mut self.buffer[self.end..]);
        let n = tokio::time::timeout(patience, read).await.map_err(|_| PduError::Timeout(patience))??;
        self.pace.arrived(n, patience)?;
        self.end += n;
        Ok(n > 0)
    }

    /// Sends encoded PDUs. A peer that does not read is not waited for longer than `patience`.
    pub async fn send(&mut self, pdus: &[u8], patience: Duration) -> Result<(), PduError> {
        let send = async {
            self.transport.write_all(pdus).await?;
            // A TLS session may hold back what a TCP connection sends at once.
            self.transport.flush().await
        };
        tokio::time::timeout(patience, send).await.map_err(|_| PduError::Timeout(patience))??;
        Ok(())
    }

    /// Says goodbye properly: after an A-RELEASE-RP or A-ABORT the peer closes (PS3.8 9.2, ARTIM). Closing first, with
    /// unread bytes, would reset the connection and could take our last PDU with it.
    pub async fn finish(mut self, patience: Duration) {
        let _ = self.transport.shutdown().await;
        let drain = async {
            let mut left = 4 << 20;
            while left > 0
                && let Ok(n @ 1..) = self.transport.read(&mut self.buffer).await
            {
                left -= n.min(left);
            }
        };
        let _ = tokio::time::timeout(patience, drain).await;
    }
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
    use tokio::net::{TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn pair() -> (TcpStream, PduStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, PduStream::new(Box::new(server)))
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
