//! Storage commitment: pynetdicom and Orthanc ask, and hear on the same association or on one of the node's own, over a restart too.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::support::{Node, dicom_files, free_port, phantom, python, run, storescu};

/// Asks for the commitment of files, and prints what was reported: event type, then a line for each instance.
///
/// `same`: the report is awaited on the same association. `new`: the association is released, and the report comes to a port of the
/// requestor's own; the answer to it is success only when a line came on standard input. Further instances are named by
/// `CLASS=INSTANCE`.
const REQUESTOR: &str = r#"
import os, sys, threading, pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel as PUSH, StorageCommitmentPushModelInstance as INSTANCE
mode, port, own, title, transaction, *what = sys.argv[1:]
heard, accept = threading.Event(), threading.Event()
def report(event):
    if mode == 'new' and not accept.is_set():
        return 0x0110, None
    info = event.event_information
    print('event', event.request.EventTypeID, info.TransactionUID, event.assoc.requestor.ae_title, event.assoc.acceptor.ae_title)
    for item in info.get('ReferencedSOPSequence', []):
        print('committed', item.ReferencedSOPInstanceUID)
    for item in info.get('FailedSOPSequence', []):
        print('failed', item.ReferencedSOPInstanceUID, f'{item.FailureReason:04X}')
    print('end', flush=True)
    heard.set()
    return 0x0000, None
ae = AE(ae_title=title)
handlers = [(evt.EVT_N_EVENT_REPORT, report)]
if mode == 'new':
    ae.add_supported_context(PUSH, scu_role=False, scp_role=True)
    server = ae.start_server(('127.0.0.1', int(own)), block=False, evt_handlers=handlers)
data = Dataset()
data.TransactionUID = transaction
data.ReferencedSOPSequence = []
for entry in what:
    item = Dataset()
    if '=' in entry:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = entry.split('=')
    else:
        file = pydicom.dcmread(entry, stop_before_pixels=True)
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = file.SOPClassUID, file.SOPInstanceUID
    data.ReferencedSOPSequence.append(item)
ae.add_requested_context(PUSH)
a = ae.associate('127.0.0.1', int(port), ae_title='TRIAGED', evt_handlers=handlers if mode == 'same' else [])
assert a.is_established
status, _ = a.send_n_action(data, 1, PUSH, INSTANCE)
print('status', f'{status.Status:04X}', flush=True)
if mode == 'same':
    # An exception would leave the association's thread, and this process with it.
    if not heard.wait(60):
        print('nothing was reported within a minute', flush=True)
        os._exit(1)
    a.release()
else:
    a.release()
    for line in sys.stdin:
        accept.set()
        break
    assert heard.wait(100)
    server.shutdown()
"#;

fn requestor(arguments: &[&str]) -> Option<Child> {
    let python = python()?;
    let mut command = Command::new(python);
    command.args(["-c", REQUESTOR]).args(arguments);
    Some(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

fn texts(files: &[std::path::PathBuf]) -> Vec<&str> {
    files.iter().map(|file| file.to_str().unwrap()).collect()
}

#[test]
fn a_report_on_the_same_association_says_what_is_kept_and_what_is_not_and_why() {
    let Some(_) = python() else { return };
    let node = Node::start(&[]);
    let series = phantom(&["--slices", "5"]);
    let files = dicom_files(series.path());
    storescu(&node, &[], &files[..4]).unwrap();
    node.wait_for_slices(4);
    // A file that rotted, one that is gone, and other content that is set aside.
    let path = |number: i64| -> String {
        node.query(&format!("SELECT path FROM instances ORDER BY instance_number LIMIT 1 OFFSET {number}"))
    };
    let rotten = node.folder.path().join(path(0));
    let mut bytes = std::fs::read(&rotten).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&rotten, &bytes).unwrap();
    std::fs::remove_file(node.folder.path().join(path(1))).unwrap();
    let mut other = std::fs::read(&files[2]).unwrap();
    *other.last_mut().unwrap() ^= 1;
    let changed = series.path().join("changed");
    std::fs::write(&changed, &other).unwrap();
    storescu(&node, &[], &[changed]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM set_aside WHERE kind = 'conflict'");
    let uid: String = node.query("SELECT sop_uid FROM instances ORDER BY instance_number LIMIT 1 OFFSET 3");
    let other_class = format!("1.2.840.10008.5.1.4.1.1.4={uid}");
    let port = node.dimse.port().to_string();
    let mut arguments = vec!["same", &port, "0", "CT1", "1.2.3.4"];
    let named = texts(&files);
    arguments.extend(&named);
    arguments.push(&other_class);
    let said = String::from_utf8(requestor(&arguments).unwrap().wait_with_output().unwrap().stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["status 0000", "event 2 1.2.3.4 CT1 TRIAGED"], "{said}\n{}", node.log());
    let count =
        |what: &str, end: &str| lines.iter().filter(|line| line.starts_with(what) && line.ends_with(end)).count();
    assert_eq!(count("committed", ""), 1, "{said}");
    assert_eq!(count("failed", "0110"), 3, "rotten, gone, set aside: {said}");
    assert_eq!(count("failed", "0112"), 1, "never sent: {said}");
    assert_eq!(count("failed", "0119"), 1, "another class: {said}");
    node.wait_until("SELECT count(*) = 1 FROM commitment_log WHERE state = 'delivered' AND committed = 1 AND failed = 5 AND attempts = 1");
}

#[test]
fn a_report_to_the_configured_peer_survives_a_restart_and_refusals() {
    let Some(_) = python() else { return };
    let own = free_port().to_string();
    let peers = format!(
        "[[dimse.peers]]\nname = \"ct1\"\nae_titles = [\"CT1\"]\naddress = \"127.0.0.1:{own}\"\n\
         [[dimse.peers]]\nname = \"storescu\"\nae_titles = [\"STORESCU\", \"NOWHERE\"]\n"
    );
    let mut node = Node::start_with_file(&peers, &[]);
    let series = phantom(&["--slices", "3"]);
    let files = dicom_files(series.path());
    storescu(&node, &[], &files).unwrap();
    node.wait_for_slices(3);
    let port = node.dimse.port().to_string();
    let mut arguments = vec!["new", &port, &own, "CT1", "1.2.3.5"];
    let named = texts(&files);
    arguments.extend(&named);
    let mut asking = requestor(&arguments).unwrap();
    let mut said = BufReader::new(asking.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "status 0000");
    // The requestor refuses the first report; the node is killed, and tries again after its restart.
    node.wait_until(
        "SELECT count(*) = 1 FROM commitment_log WHERE state = 'pending' AND last_error LIKE '%status 0110H%'",
    );
    node.restart();
    writeln!(asking.stdin.as_mut().unwrap(), "now").unwrap();
    let lines: Vec<String> = said.map_while(Result::ok).take_while(|line| line != "end").collect();
    assert_eq!(lines[0], "event 1 1.2.3.5 TRIAGED CT1", "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("committed")).count(), 3, "{lines:?}");
    assert!(asking.wait().unwrap().success());
    node.wait_until(
        "SELECT count(*) = 1 FROM commitment_log WHERE state = 'delivered' AND committed = 3 AND failed = 0",
    );
    // Nobody can call a peer without an address: said once, and not tried for ever.
    let mut nowhere =
        requestor(&["new", &node.dimse.port().to_string(), &free_port().to_string(), "NOWHERE", "1.2.3.6", named[0]])
            .unwrap();
    node.wait_until(
        "SELECT count(*) = 1 FROM commitment_log WHERE state = 'dead' AND last_error LIKE '%has no address%'",
    );
    nowhere.kill().unwrap();
    nowhere.wait().unwrap();
    // The transaction of another request.
    let mut again = requestor(&["same", &node.dimse.port().to_string(), "0", "CT1", "1.2.3.5", named[0]]).unwrap();
    let first = BufReader::new(again.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert_eq!(first, "status 0115");
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn what_retention_will_remove_is_not_committed() {
    let Some(_) = python() else { return };
    // Files are kept for half a day, and a commitment is for a day at least.
    let node = Node::start(&[("TRIAGED__ARCHIVE__RETENTION_DAYS", "0.5")]);
    let series = phantom(&["--slices", "1"]);
    let files = dicom_files(series.path());
    storescu(&node, &[], &files).unwrap();
    node.wait_for_slices(1);
    let port = node.dimse.port().to_string();
    let asked = requestor(&["same", &port, "0", "CT1", "1.2.3.7", texts(&files)[0]]).unwrap();
    let said = String::from_utf8(asked.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        said.contains("event 2") && said.lines().any(|line| line.starts_with("failed") && line.ends_with("0213")),
        "{said}"
    );
}

#[test]
fn a_wrong_request_is_refused_by_status() {
    let Some(python) = python() else { return };
    let node = Node::start(&[]);
    let script = r#"
import sys
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel as PUSH, StorageCommitmentPushModelInstance as INSTANCE
ae = AE()
ae.add_requested_context(PUSH)
a = ae.associate('127.0.0.1', int(sys.argv[1]))
item = Dataset()
item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = '1.2.840.10008.5.1.4.1.1.2', '1.2'
whole = Dataset()
whole.TransactionUID, whole.ReferencedSOPSequence = '1.2.3', [item]
unnamed = Dataset()
unnamed.ReferencedSOPSequence = [item]
empty = Dataset()
empty.TransactionUID = '1.2.3'
for data, action, instance, status in [(whole, 2, INSTANCE, 0x0123), (whole, 1, '1.2.3', 0x0112), (unnamed, 1, INSTANCE, 0x0115), (empty, 1, INSTANCE, 0x0115)]:
    answered, _ = a.send_n_action(data, action, PUSH, instance)
    assert answered.Status == status, (answered, status)
a.release()
"#;
    run(python.to_str().unwrap(), &["-c", script, &node.dimse.port().to_string()]).unwrap();
    assert_eq!(node.query::<i64>("SELECT count(*) FROM commitments"), 0);
}

/// A request is kept on the disk that objects are kept on.
#[test]
fn a_request_that_there_is_no_room_for_is_refused() {
    let Some(_) = python() else { return };
    let node = Node::start(&[("TRIAGED__ARCHIVE__MIN_FREE_MIB", "1000000000000")]);
    let port = node.dimse.port().to_string();
    let mut asked = requestor(&["same", &port, "0", "CT1", "1.2.3.8", "1.2.840.10008.5.1.4.1.1.2=1.2.3"]).unwrap();
    let first = BufReader::new(asked.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert_eq!(first, "status 0213");
    asked.kill().unwrap();
    asked.wait().unwrap();
    assert_eq!(node.query::<i64>("SELECT count(*) FROM commitments"), 0);
}
