//! Promises 8 and 10: bad input gets the answer the standard defines, and the node lives on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use triaged::ledger::Instances;

use crate::support::{Node, PATIENCE, dicom_files, has, phantom, python, real_data, run, storescu};

fn connect(node: &Node) -> TcpStream {
    let socket = TcpStream::connect(node.dimse).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The node's answer to these bytes until it closes.
fn answer(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(node);
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// A-ABORT by the service provider with this reason (PS3.8 9.3.8).
fn abort(reason: u8) -> Vec<u8> {
    vec![7, 0, 0, 0, 0, 4, 0, 0, 2, reason]
}

fn assert_lives(node: &Node) {
    if has("echoscu") {
        run("echoscu", &["127.0.0.1", &node.dimse.port().to_string()]).unwrap();
    }
}

/// An A-ASSOCIATE-RQ for CT Image Storage in Implicit VR Little Endian, context 1.
fn associate_request() -> Vec<u8> {
    fn item(kind: u8, content: &[u8]) -> Vec<u8> {
        [&[kind, 0][..], &(content.len() as u16).to_be_bytes(), content].concat()
    }
    let context =
        [&[1, 0, 0, 0][..], &item(0x30, b"1.2.840.10008.5.1.4.1.1.2"), &item(0x40, b"1.2.840.10008.1.2")].concat();
    let user = [item(0x51, &16384u32.to_be_bytes()), item(0x52, b"1.2.3")].concat();
    let body = [
        &[0, 1, 0, 0][..],
        b"TRIAGED         ",
        b"TEST            ",
        &[0; 32],
        &item(0x10, b"1.2.840.10008.3.1.1.1"),
        &item(0x20, &context),
        &item(0x50, &user),
    ]
    .concat();
    [&[1, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

#[test]
fn http_tls_and_garbage_on_the_dicom_port_are_named_and_aborted() {
    let node = Node::start(&[]);
    assert_eq!(answer(&node, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), abort(1));
    node.wait_for_log("HTTP client");
    assert_eq!(answer(&node, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), abort(1));
    node.wait_for_log("TLS client");
    assert_eq!(answer(&node, &[0xff; 4096]), abort(1));
    // An association request that states four gigabytes; a data PDU, and a release, before any association.
    assert_eq!(answer(&node, &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 1]), abort(6));
    assert_eq!(answer(&node, &[4, 0, 0, 0, 0, 6, 0, 0, 0, 2, 1, 3]), abort(2));
    assert_eq!(answer(&node, &[5, 0, 0, 0, 0, 4, 0, 0, 0, 0]), abort(2));
    assert_lives(&node);
}

#[test]
fn stated_lengths_take_no_memory() {
    let node = Node::start(&[("TRIAGED__DIMSE__MAX_ASSOCIATIONS_OF_SOURCE", "64")]);
    let resident = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = resident();
    let mut sockets = Vec::new();
    for _ in 0..40 {
        let mut socket = connect(&node);
        socket.write_all(&associate_request()).unwrap();
        let mut header = [0; 6];
        socket.read_exact(&mut header).unwrap();
        assert_eq!(header[0], 2, "accepted");
        // A P-DATA-TF of 4 GiB with a command of 4 GiB, of which four bytes come.
        socket.write_all(&[4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 1, 1, 0, 0, 0, 0]).unwrap();
        sockets.push(socket);
    }
    assert_lives(&node);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more for 40 associations that state 4 GiB each");
}

#[test]
fn a_message_that_breaks_the_protocol_aborts_its_association_alone() {
    let node = Node::start(&[]);
    let association = associate_request();
    let p_data = |context: u8, control: u8, data: &[u8]| {
        let value = [&(data.len() as u32 + 2).to_be_bytes()[..], &[context, control], data].concat();
        [&[4, 0][..], &(value.len() as u32).to_be_bytes(), &value].concat()
    };
    for (what, message) in [
        ("presentation context 5 was not accepted", p_data(5, 3, b"x")),
        ("a data set without its command", p_data(1, 2, b"x")),
        ("the command set cannot be read", p_data(1, 3, &[0xff; 40])),
        ("more than", p_data(1, 1, &[0; 20_000])),
        ("unexpected PDU", association.clone()),
    ] {
        let all = answer(&node, &[&association[..], &message].concat());
        assert_eq!(all[all.len() - 10..], abort(2), "{what}");
        node.wait_for_log(what);
    }
    assert_lives(&node);
}

#[test]
fn half_open_connections_do_not_keep_scanners_out() {
    let node = Node::start(&[
        ("TRIAGED__DIMSE__MAX_ASSOCIATIONS", "2"),
        ("TRIAGED__DIMSE__ASSOCIATION_REQUEST_TIMEOUT_SECONDS", "1"),
    ]);
    let silent: Vec<TcpStream> = (0..6).map(|_| connect(&node)).collect();
    assert_lives(&node);
    drop(silent);
}

#[test]
fn past_the_limit_of_associations_the_peer_is_told_to_come_back() {
    let node = Node::start(&[("TRIAGED__DIMSE__MAX_ASSOCIATIONS", "1")]);
    let mut first = connect(&node);
    first.write_all(&associate_request()).unwrap();
    let mut header = [0; 6];
    first.read_exact(&mut header).unwrap();
    assert_eq!(header[0], 2);
    // A-ASSOCIATE-RJ, transient, service provider (presentation), local limit exceeded (PS3.8 9.3.4).
    assert_eq!(answer(&node, &associate_request()), [3, 0, 0, 0, 0, 4, 0, 2, 3, 2]);
    drop(first);
    node.wait_for_log("association ended");
    assert_lives(&node);
}

#[test]
fn who_may_not_call_is_rejected_with_the_standards_reason() {
    let node = Node::start(&[
        ("TRIAGED__DIMSE__CALLING_AE_TITLES", "CT1,CT2"),
        ("TRIAGED__DIMSE__CHECK_CALLED_AE_TITLE", "true"),
    ]);
    assert_eq!(answer(&node, &associate_request()), [3, 0, 0, 0, 0, 4, 0, 1, 1, 3]);
    if has("echoscu") {
        let port = node.dimse.port().to_string();
        run("echoscu", &["-aet", "CT2", "-aec", "TRIAGED", "127.0.0.1", &port]).unwrap();
        let said = run("echoscu", &["-aet", "CT2", "-aec", "OTHER", "127.0.0.1", &port]).unwrap_err();
        assert!(said.contains("Called AE Title Not Recognized"), "{said}");
    }
}

/// A peer that is rejected and does not close does not keep a scanner out meanwhile.
#[test]
fn who_is_rejected_takes_no_place() {
    let node =
        Node::start(&[("TRIAGED__DIMSE__MAX_ASSOCIATIONS", "1"), ("TRIAGED__DIMSE__CALLING_AE_TITLES", "SCANNER")]);
    let mut rejected = connect(&node);
    rejected.write_all(&associate_request()).unwrap();
    let mut answer = [0; 10];
    rejected.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [3, 0, 0, 0, 0, 4, 0, 1, 1, 3]);
    let mut request = associate_request();
    // The calling AE title (PS3.8 9.3.2) is in bytes 27 to 42.
    request[26..42].copy_from_slice(b"SCANNER         ");
    let mut scanner = connect(&node);
    scanner.write_all(&request).unwrap();
    scanner.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 2, "not accepted: {answer:?}");
    drop(rejected);
}

#[test]
fn an_association_that_falls_silent_is_aborted() {
    let node = Node::start(&[("TRIAGED__DIMSE__IDLE_TIMEOUT_SECONDS", "1")]);
    let all = answer(&node, &associate_request());
    assert_eq!(all[all.len() - 10..], abort(0));
    node.wait_for_log("nothing was received for 1s");
}

#[test]
fn one_bad_object_gets_its_status_and_the_others_go_on() {
    let (Some(ge), Some(python)) = (real_data("ge-head"), python()) else { return };
    let node = Node::start(&[("TRIAGED__DIMSE__MAX_OBJECT_MIB", "1")]);
    let script = r#"
import sys
from io import BytesIO
import pydicom
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import *
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, PatientRootQueryRetrieveInformationModelFind, Verification
good = pydicom.dcmread(sys.argv[2])
ae = AE()
ae.add_requested_context(CTImageStorage, good.file_meta.TransferSyntaxUID)
ae.add_requested_context(PatientRootQueryRetrieveInformationModelFind)
ae.add_requested_context('1.2.3.4.5')
ae.add_requested_context(Verification)
a = ae.associate('127.0.0.1', int(sys.argv[1]))
assert a.is_established
assert len(a.accepted_contexts) == 2 and len(a.rejected_contexts) == 2
context = next(c for c in a.accepted_contexts if c.abstract_syntax == CTImageStorage)
number = 100
def store(uid, data, sop_class=CTImageStorage):
    global number
    number += 1
    r = C_STORE()
    r.MessageID = number
    r.AffectedSOPClassUID = sop_class
    r.AffectedSOPInstanceUID = uid
    r.Priority = 0
    r.DataSet = BytesIO(data)
    a._reactor_checkpoint.clear()
    a.dimse.send_msg(r, context.context_id)
    _, answer = a.dimse.get_msg(block=True)
    a._reactor_checkpoint.set()
    assert answer.MessageIDBeingRespondedTo == number, (answer.MessageIDBeingRespondedTo, number)
    print(f'{answer.Status:04X} {answer.ErrorComment}', flush=True)
def encoded(**changes):
    one = pydicom.dcmread(sys.argv[2])
    for name, value in changes.items():
        delattr(one, name) if value is None else setattr(one, name, value)
    fp = pydicom.filebase.DicomBytesIO()
    fp.is_little_endian, fp.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(fp, one)
    return fp.getvalue()
store(generate_uid(), b'this is no data set at all, not even a little')
store(good.SOPInstanceUID, encoded(StudyInstanceUID=None))
store(generate_uid(), encoded())
store(good.SOPInstanceUID, encoded(PixelData=bytes(3 << 20)))
store(good.SOPInstanceUID, encoded(), '1.2.840.10008.5.1.4.1.1.4')
store(good.SOPInstanceUID, encoded())
assert a.send_c_echo().Status == 0
a.release()
"#;
    let port = node.dimse.port().to_string();
    let file = dicom_files(&ge)[5].to_str().unwrap().to_owned();
    let said = run(python.to_str().unwrap(), &["-c", script, &port, &file]).unwrap();
    let statuses: Vec<&str> = said.lines().map(|line| &line[..4]).collect();
    assert_eq!(statuses, ["C000", "A900", "A900", "A700", "0122", "0000"], "{said}");
    assert!(said.contains("no Study Instance UID"), "the comment says what is missing: {said}");
    assert!(!said.contains("/incoming/"), "and nothing of where we keep things: {said}");
    // Nothing is lost: what could be named at all is in quarantine.
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 3);
    node.wait_for_slices(1);
    assert_eq!(node.query::<String>("SELECT state FROM slice_results"), "scored");
}

#[test]
fn objects_that_cannot_be_triaged_are_kept_with_the_reason() {
    let Some(ge) = real_data("ge-head").filter(|_| has("dcmodify") && has("storescu")) else { return };
    let node = Node::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let source = &dicom_files(&ge)[14];
    let changes: [(&str, &[&str]); 9] = [
        ("localizer", &["-i", "(0008,0008)=ORIGINAL\\PRIMARY\\LOCALIZER"]),
        ("screenshot", &["-i", "(0008,0008)=DERIVED\\SECONDARY"]),
        (
            "chest",
            &["-i", "(0008,2218)[0].(0008,0100)=51185008", "-i", "(0008,2218)[0].(0008,0102)=SCT", "-e", "(0018,0015)"],
        ),
        ("no-pixels", &["-e", "(7fe0,0010)"]),
        ("no-rows", &["-i", "(0028,0010)=0"]),
        ("absurd", &["-i", "(0028,0010)=65535", "-i", "(0028,0011)=65535"]),
        ("short", &["-i", "(0028,0010)=600"]),
        ("colour", &["-i", "(0028,0002)=3", "-i", "(0028,0004)=RGB"]),
        ("frames", &["-i", "(0028,0008)=2000000000"]),
    ];
    for (name, options) in changes {
        let file = folder.path().join(name);
        std::fs::copy(source, &file).unwrap();
        let mut arguments = vec!["-nb", "-gin"];
        arguments.extend(options);
        arguments.push(file.to_str().unwrap());
        run("dcmodify", &arguments).unwrap();
        storescu(&node, &[], &[file]).unwrap();
    }
    node.wait_for_slices(changes.len());
    let odd = "SELECT count(*) FROM slice_results WHERE state IN ('ineligible', 'failed') AND length(reason) > 10";
    assert_eq!(node.query::<i64>(odd), changes.len() as i64);
    // Promise 7: a study without a scored slice is not triaged, which is not "not flagged".
    node.wait_until("SELECT state = 'decided' FROM worklist");
    assert_eq!(node.query::<i64>("SELECT flagged IS NULL FROM worklist"), 1);
    // Promise 9: patient data stays out of the log.
    assert!(!node.log().contains("QMNx85rKkkg"));
    assert_lives(&node);
}

#[test]
fn a_slow_sender_is_served_while_others_are() {
    let node = Node::start(&[]);
    let request = associate_request();
    let mut slow = connect(&node);
    for piece in request.chunks(50) {
        slow.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        assert_lives(&node);
    }
    let mut header = [0; 6];
    slow.read_exact(&mut header).unwrap();
    assert_eq!(header[0], 2);
}

/// A slice as the ledger has it, without its file: it is tried again and again, and so it waits.
fn without_file(number: i64) -> triaged::ledger::NewInstance {
    triaged::ledger::NewInstance {
        sop_uid: format!("1.2.3.{number}"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study_uid: "1.2.3".into(),
        series_uid: "1.2.3.0".into(),
        instance_number: Some(number),
        accession_number: None,
        patient_id: None,
        digest: format!("{number:064x}"),
        path: format!("archive/{number}"),
        size: 1,
        calling_ae: "CT".into(),
        peer: "127.0.0.1".into(),
        received_at: triaged::ledger::now(),
        slices: vec![triaged::ledger::SliceStart::Queued.into()],
        stat: false,
        about: Default::default(),
        concatenation: None,
        images_in_acquisition: None,
        resumes: true,
        is_taken_in_again: false,
    }
}

#[test]
fn a_queue_that_is_full_is_told_and_takes_again_when_it_is_not() {
    if !has("storescu") {
        return;
    }
    let mut node = Node::start(&[("TRIAGED__INFERENCE__MAX_QUEUE", "2"), ("TRIAGED__INFERENCE__MAX_ATTEMPTS", "4")]);
    let phantom = phantom(&["--slices", "1"]);
    let files = dicom_files(phantom.path());
    node.kill();
    let ledger = triaged::ledger::Ledger::open(&node.folder.path().join("triaged.db")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for number in [1, 2] {
        runtime.block_on(ledger.store(without_file(number))).unwrap();
    }
    drop(ledger);
    node.restart();
    let said = storescu(&node, &["-d"], &files).unwrap_or_else(|said| said);
    assert!(said.to_lowercase().contains("a700"), "{said}");
    node.wait_for_log("2 slices wait to be scored (inference.max_queue)");
    node.wait_until("SELECT total(state = 'failed') = 2 FROM slice_results");
    let deadline = std::time::Instant::now() + PATIENCE;
    while node.query::<i64>("SELECT count(*) FROM instances WHERE sop_uid NOT LIKE '1.2.3.%'") == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "the queue is empty, and still nothing is taken:\n{}",
            node.log()
        );
        let _ = storescu(&node, &[], &files);
    }
    node.wait_until("SELECT total(state = 'scored') = 1 FROM slice_results");
}
