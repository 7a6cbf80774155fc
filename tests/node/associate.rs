//! Association requests and messages that are odd and still right, or wrong in one part (PS3.8 9.3, PS3.7 D.3.3): the node
//! answers what the standard says, as DCMTK does.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Node, PATIENCE, python, run};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const VERIFICATION: &str = "1.2.840.10008.1.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";

fn item(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn context(id: u8, abstract_syntax: &str) -> Vec<u8> {
    let items = [item(0x30, abstract_syntax.as_bytes()), item(0x40, IMPLICIT.as_bytes())].concat();
    item(0x20, &[&[id, 0, 0, 0][..], &items].concat())
}

fn counted(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn maximum_length(length: u32) -> Vec<u8> {
    item(0x51, &length.to_be_bytes())
}

fn pdu(pdu_type: u8, body: &[u8]) -> Vec<u8> {
    [&[pdu_type, 0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// An A-ASSOCIATE-RQ with these presentation contexts, sub-items of the user information, and items behind it.
fn request(contexts: &[Vec<u8>], user: &[Vec<u8>], tail: &[u8]) -> Vec<u8> {
    let fixed = [&[0, 1, 0, 0][..], b"TRIAGED         TEST            ", &[0; 32]].concat();
    let application = item(0x10, b"1.2.840.10008.3.1.1.1");
    pdu(1, &[&fixed[..], &application, &contexts.concat(), &item(0x50, &user.concat()), tail].concat())
}

/// A P-DATA-TF with one value.
fn p_data(context: u8, control: u8, data: &[u8]) -> Vec<u8> {
    pdu(4, &value(context, control, data))
}

fn value(context: u8, control: u8, data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32 + 2).to_be_bytes()[..], &[context, control], data].concat()
}

/// A C-ECHO-RQ.
fn echo(message_id: u16) -> Vec<u8> {
    let mut command = Vec::new();
    let uid = format!("{VERIFICATION}\0");
    for (element, value) in [
        (0x0002_u16, uid.as_bytes()),
        (0x0100, &[0x30, 0]),
        (0x0110, &message_id.to_le_bytes()),
        (0x0800, &[0x01, 0x01]),
    ] {
        command.extend([0, 0]);
        command.extend(element.to_le_bytes());
        command.extend((value.len() as u32).to_le_bytes());
        command.extend(value);
    }
    command
}

struct Peer(TcpStream);

impl Peer {
    fn connect(node: &Node, bytes: &[u8]) -> Peer {
        let mut socket = TcpStream::connect(node.dimse).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        Peer(socket)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 6];
        self.0.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize];
        self.0.read_exact(&mut body).unwrap();
        (header[0], body)
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }

    /// The results of the presentation contexts, once the association is accepted.
    fn accepted(&mut self) -> Vec<(u8, u8)> {
        let (pdu_type, body) = self.read();
        assert_eq!(pdu_type, 2, "not accepted: {body:?}");
        let (mut at, mut results) = (68, Vec::new());
        while at < body.len() {
            if body[at] == 0x21 {
                results.push((body[at + 4], body[at + 6]));
            }
            at += 4 + usize::from(u16::from_be_bytes([body[at + 2], body[at + 3]]));
        }
        results
    }

    /// Status of the response that comes, and the length of the longest P-DATA-TF that it came in.
    fn response(&mut self) -> (u16, usize) {
        let (mut command, mut longest) = (Vec::new(), 0);
        loop {
            let (pdu_type, body) = self.read();
            assert_eq!(pdu_type, 4, "{body:?}");
            longest = longest.max(body.len());
            command.extend(&body[6..]);
            if body[5] & 2 != 0 {
                break;
            }
        }
        let status = command.windows(8).position(|w| w == [0, 0, 0, 9, 2, 0, 0, 0]).expect("a status") + 8;
        (u16::from_le_bytes([command[status], command[status + 1]]), longest)
    }

    fn release(mut self) {
        self.send(&pdu(5, &[0; 4]));
        assert_eq!(self.read().0, 6);
        assert!(self.rest().is_empty());
    }
}

#[test]
fn an_item_that_can_be_passed_over_does_not_end_the_association() {
    let node = Node::start(&[]);
    let no_abstract_syntax = item(0x20, &[&[5, 0, 0, 0][..], &item(0x40, IMPLICIT.as_bytes())].concat());
    let role = item(0x54, &[&counted(CT)[..], &[1, 1, 0]].concat());
    let length = maximum_length(16384);
    let ct = context(1, CT);
    for (what, bytes, expected) in [
        (
            "an unknown item",
            request(std::slice::from_ref(&ct), std::slice::from_ref(&length), &item(0x60, b"abcd")),
            vec![(1, 0)],
        ),
        (
            "a context without abstract syntax",
            request(&[ct.clone(), no_abstract_syntax], &[], &[]),
            vec![(1, 0), (5, 2)],
        ),
        (
            "a role sub-item with a byte too many",
            request(std::slice::from_ref(&ct), &[length.clone(), role], &[]),
            vec![(1, 0)],
        ),
        (
            "an unknown sub-item",
            request(std::slice::from_ref(&ct), &[item(0x9f, b"x"), length.clone()], &[]),
            vec![(1, 0)],
        ),
        (
            "stray bytes at the end",
            request(std::slice::from_ref(&ct), std::slice::from_ref(&length), &[0, 0]),
            vec![(1, 0)],
        ),
        ("no user information", request(std::slice::from_ref(&ct), &[], &[]), vec![(1, 0)]),
        ("no context at all", request(&[], std::slice::from_ref(&length), &[]), vec![]),
        ("an even context id", request(&[context(2, CT)], std::slice::from_ref(&length), &[]), vec![(2, 0)]),
    ] {
        let mut peer = Peer::connect(&node, &bytes);
        assert_eq!(peer.accepted(), expected, "{what}");
        peer.release();
    }
    // An item that reaches beyond its PDU spoils the request.
    let mut peer = Peer::connect(&node, &request(&[ct], &[], &[0x60, 0, 0xff, 0xff]));
    assert_eq!(peer.rest(), [7, 0, 0, 0, 0, 4, 0, 0, 2, 6]);
}

#[test]
fn no_pdu_is_longer_than_the_peer_takes() {
    let node = Node::start(&[]);
    for length in [8, 9, 16, 100, 128, 16384, u32::MAX, 0] {
        let mut peer = Peer::connect(&node, &request(&[context(1, VERIFICATION)], &[maximum_length(length)], &[]));
        peer.accepted();
        peer.send(&p_data(1, 3, &echo(1)));
        let (status, longest) = peer.response();
        assert_eq!(status, 0);
        assert!(length == 0 || longest as u64 <= u64::from(length), "{longest} bytes to a peer that takes {length}");
        peer.release();
    }
    // Not even the header of a value and two bytes: nothing could be answered.
    let mut peer = Peer::connect(&node, &request(&[context(1, VERIFICATION)], &[maximum_length(7)], &[]));
    assert_eq!(peer.rest(), [3, 0, 0, 0, 0, 4, 0, 1, 2, 1]);
    node.wait_for_log("takes PDUs of at most 7 bytes");
}

#[test]
fn a_message_is_put_together_from_any_values() {
    let node = Node::start(&[]);
    let mut peer =
        Peer::connect(&node, &request(&[context(1, VERIFICATION), context(3, CT)], &[maximum_length(0)], &[]));
    peer.accepted();
    let command = echo(1);
    let (first, rest) = command.split_at(13);
    // Two values in one PDU, an empty PDU, an empty value, and two messages in one PDU.
    peer.send(&pdu(4, &[value(1, 1, first), value(1, 1, b"")].concat()));
    peer.send(&pdu(4, b""));
    peer.send(&pdu(4, &[value(1, 3, rest), value(1, 3, &echo(2))].concat()));
    assert_eq!(peer.response().0, 0);
    assert_eq!(peer.response().0, 0);
    // C-ECHO is answered in every context.
    peer.send(&p_data(3, 3, &echo(3)));
    assert_eq!(peer.response().0, 0);
    peer.release();
}

#[test]
fn an_abort_ends_every_state_without_an_answer() {
    let node = Node::start(&[]);
    let association = request(&[context(1, VERIFICATION)], &[], &[]);
    let abort = pdu(7, &[0, 0, 0, 0]);
    // Before the association; between messages; within one; after the release was answered.
    let mut peer = Peer::connect(&node, &abort);
    assert!(peer.rest().is_empty());
    for messages in [vec![], p_data(1, 1, &echo(1)[..9])] {
        let mut peer = Peer::connect(&node, &association);
        peer.accepted();
        peer.send(&[messages, abort.clone()].concat());
        assert!(peer.rest().is_empty());
        node.wait_for_log("the peer aborted the association");
    }
    let mut peer = Peer::connect(&node, &association);
    peer.accepted();
    // A second release, and whatever else comes after the first, is not answered.
    peer.send(&[pdu(5, &[0; 4]), pdu(5, &[0; 4]), abort].concat());
    assert_eq!(peer.read().0, 6);
    assert!(peer.rest().is_empty());
    // A release response that answers nothing, and an association within the association.
    for unexpected in [pdu(6, &[0; 4]), association.clone()] {
        let mut peer = Peer::connect(&node, &association);
        peer.accepted();
        peer.send(&unexpected);
        assert_eq!(peer.rest(), [7, 0, 0, 0, 0, 4, 0, 0, 2, 2]);
    }
    // A release within a message.
    let mut peer = Peer::connect(&node, &association);
    peer.accepted();
    peer.send(&[p_data(1, 1, &echo(1)[..9]), pdu(5, &[0; 4])].concat());
    assert_eq!(peer.rest(), [7, 0, 0, 0, 0, 4, 0, 0, 2, 2]);
}

/// pynetdicom proposes roles, extended negotiation and a user identity, and reads the answers.
#[test]
fn pynetdicom_reads_what_was_negotiated() {
    let Some(python) = python() else { return };
    let node = Node::start(&[]);
    let script = r#"
import sys
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation, AsynchronousOperationsWindowNegotiation
from pynetdicom.sop_class import CTImageStorage, Verification
ae = AE()
ae.add_requested_context(CTImageStorage)
ae.add_requested_context(Verification)
extended = SOPClassExtendedNegotiation()
extended.sop_class_uid = CTImageStorage
extended.service_class_application_information = b'\x02\x00\x03\x00\x01\x00'
identity = UserIdentityNegotiation()
identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b'ali', False
window = AsynchronousOperationsWindowNegotiation()
window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
items = [build_role(CTImageStorage, scu_role=True, scp_role=True), extended, identity, window]
a = ae.associate('127.0.0.1', int(sys.argv[1]), ext_neg=items)
assert a.is_established
role = a.acceptor.role_selection[CTImageStorage]
assert (role.scu_role, role.scp_role) == (True, False), role
assert a.acceptor.sop_class_extended[CTImageStorage] == b'\x02\x00\x00\x00\x00\x00', a.acceptor.sop_class_extended
assert a.acceptor.user_identity is None
assert a.acceptor.asynchronous_operations == (1, 1)
assert a.send_c_echo().Status == 0
a.release()
"#;
    run(python.to_str().unwrap(), &["-c", script, &node.dimse.port().to_string()]).unwrap();
}
