//! C-STORE of bytes as they are, and the bytes of data sets that no toolkit writes.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Node, PATIENCE};

pub const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
pub const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// An association for CT Image Storage in one transfer syntax, as presentation context 1.
pub struct Sender {
    socket: TcpStream,
    message: u16,
}

fn item(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(content.len() as u16).to_be_bytes(), content].concat()
}

/// An A-ASSOCIATE-RQ (PS3.8 9.3.2).
pub fn associate_request(calling: &str, syntax: &str) -> Vec<u8> {
    let context = [&[1, 0, 0, 0][..], &item(0x30, CT_IMAGE.as_bytes()), &item(0x40, syntax.as_bytes())].concat();
    let user = [item(0x51, &16384u32.to_be_bytes()), item(0x52, b"1.2.3")].concat();
    let body = [
        &[0, 1, 0, 0][..],
        b"TRIAGED         ",
        format!("{calling:<16}").as_bytes(),
        &[0; 32],
        &item(0x10, b"1.2.840.10008.3.1.1.1"),
        &item(0x20, &context),
        &item(0x50, &user),
    ]
    .concat();
    [&[1, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

impl Sender {
    pub fn associate(node: &Node, calling: &str, syntax: &str) -> Sender {
        let mut socket = TcpStream::connect(node.dimse).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(&associate_request(calling, syntax)).unwrap();
        let (kind, _) = pdu(&mut socket);
        assert_eq!(kind, 2, "the association was not accepted");
        Sender { socket, message: 0 }
    }

    /// Sends a data set and returns the status of the response.
    pub fn store(&mut self, sop_instance: &str, data_set: &[u8]) -> u16 {
        self.store_as(CT_IMAGE, sop_instance, data_set)
    }

    /// The same with this SOP class in the command.
    pub fn store_as(&mut self, class: &str, sop_instance: &str, data_set: &[u8]) -> u16 {
        self.announce(class, sop_instance);
        let mut pieces = data_set.chunks(64 << 10).peekable();
        while let Some(piece) = pieces.next() {
            self.value(if pieces.peek().is_none() { 2 } else { 0 }, piece);
        }
        let (kind, response) = pdu(&mut self.socket);
        assert_eq!(kind, 4, "no response, but PDU {kind}");
        let at = response.windows(8).position(|bytes| bytes == [0, 0, 0, 9, 2, 0, 0, 0]).expect("a status");
        u16::from_le_bytes([response[at + 8], response[at + 9]])
    }

    /// Sends the beginning of a data set, and closes the connection.
    pub fn break_off(mut self, sop_instance: &str, beginning: &[u8]) {
        self.announce(CT_IMAGE, sop_instance);
        self.value(0, beginning);
    }

    /// The C-STORE request before the data set.
    fn announce(&mut self, class: &str, sop_instance: &str) {
        self.message += 1;
        let uid = |text: &str| if text.len() % 2 == 1 { format!("{text}\0") } else { text.to_owned() };
        let command = [
            command_element(0x0002, uid(class).as_bytes()),
            command_element(0x0100, &1_u16.to_le_bytes()),
            command_element(0x0110, &self.message.to_le_bytes()),
            command_element(0x0700, &0_u16.to_le_bytes()),
            command_element(0x0800, &1_u16.to_le_bytes()),
            command_element(0x1000, uid(sop_instance).as_bytes()),
        ]
        .concat();
        let command = [command_element(0x0000, &(command.len() as u32).to_le_bytes()), command].concat();
        self.value(3, &command);
    }

    /// A presentation data value in a PDU of its own.
    fn value(&mut self, control: u8, data: &[u8]) {
        let length = data.len() as u32;
        let head = [&[4, 0][..], &(length + 6).to_be_bytes(), &(length + 2).to_be_bytes(), &[1, control]].concat();
        self.socket.write_all(&[&head, data].concat()).unwrap();
    }
}

fn command_element(element: u16, value: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &element.to_le_bytes(), &(value.len() as u32).to_le_bytes(), value].concat()
}

fn pdu(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    socket.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize];
    socket.read_exact(&mut body).unwrap();
    (head[0], body)
}

/// An element in explicit VR little endian.
pub fn element(tag: u32, vr: &str, value: &[u8]) -> Vec<u8> {
    let padding: &[u8] = if value.len() % 2 == 1 { if vr == "UI" { &[0] } else { b" " } } else { &[] };
    let length = (value.len() + padding.len()) as u32;
    [&element_head(tag, vr, length)[..], value, padding].concat()
}

pub fn element_head(tag: u32, vr: &str, length: u32) -> Vec<u8> {
    let tag = [((tag >> 16) as u16).to_le_bytes(), (tag as u16).to_le_bytes()].concat();
    match vr {
        "OB" | "OW" | "SQ" | "UN" | "UT" => [&tag, vr.as_bytes(), &[0, 0], &length.to_le_bytes()].concat(),
        _ => [&tag, vr.as_bytes(), &(length as u16).to_le_bytes()].concat(),
    }
}

/// A head CT slice without its pixel data, with `more` elements, which have tags between (0028,1054) and (7FE0,0010).
pub fn head_ct(uid: &str, frames: u32, side: u16, more: &[u8]) -> Vec<u8> {
    let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    [
        element(0x0008_0016, "UI", CT_IMAGE.as_bytes()),
        element(0x0008_0018, "UI", uid.as_bytes()),
        element(0x0008_0060, "CS", b"CT"),
        element(0x0018_0015, "CS", b"HEAD"),
        element(0x0020_000D, "UI", format!("{uid}.1").as_bytes()),
        element(0x0020_000E, "UI", format!("{uid}.2").as_bytes()),
        short(0x0028_0002, 1),
        element(0x0028_0004, "CS", b"MONOCHROME2"),
        element(0x0028_0008, "IS", frames.to_string().as_bytes()),
        short(0x0028_0010, side),
        short(0x0028_0011, side),
        short(0x0028_0100, 16),
        short(0x0028_0101, 12),
        short(0x0028_0102, 11),
        short(0x0028_0103, 0),
        element(0x0028_1052, "DS", b"-1024"),
        element(0x0028_1053, "DS", b"1"),
        more.to_vec(),
    ]
    .concat()
}

/// Encapsulated pixel data of these fragments, with an empty offset table (PS3.5 annex A.4).
pub fn encapsulated(fragments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = element_head(0x7FE0_0010, "OB", u32::MAX);
    for fragment in [&[][..]].iter().chain(fragments) {
        let padded = fragment.len().next_multiple_of(2);
        bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
        bytes.extend((padded as u32).to_le_bytes());
        bytes.extend_from_slice(fragment);
        bytes.resize(bytes.len() + padded - fragment.len(), 0);
    }
    bytes.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    bytes
}
