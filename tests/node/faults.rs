//! A node that cannot do its work says so while it lasts, and goes on when it is over: a full disk, a database that somebody locks, a model
//! that gives no probabilities, an object that takes a decoder's time.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::raw_store::{EXPLICIT, JPEG_2000, Sender, element, encapsulated, head_ct};
use crate::support::{Node, PATIENCE, Receiver, SPOT, command, free_port, phantom, python, run};

fn store_one(node: &Node, uid: &str) -> u16 {
    let object = [head_ct(uid, 1, 64, &[]), element(0x7FE0_0010, "OW", &vec![0; 64 * 64 * 2])].concat();
    Sender::associate(node, "SCANNER", EXPLICIT).store(uid, &object)
}

/// Waits until `/readyz` has this status, and, where it is not ready, gives this reason.
fn until(node: &Node, status: u16, reason: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, said) = node.get("/readyz");
        if found == status && said.contains(reason) {
            return;
        }
        assert!(Instant::now() < deadline, "{found}: {said}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The message number `number` that people got is about the node, and says this.
fn told(receiver: &Receiver, number: usize, ready: bool, reason: &str) {
    let message: Value = serde_json::from_slice(&receiver.wait_for(number)[number - 1].body).unwrap();
    let found = (message["kind"].as_str(), message["ready"].as_bool());
    assert_eq!(found, (Some("node_trouble"), Some(ready)), "{message}");
    assert!(message["reasons"].to_string().contains(reason), "{message}");
}

/// A small file system of its own, as long as this lives.
struct SmallDisk(Arc<tempfile::TempDir>);

impl SmallDisk {
    fn of_mebibytes(size: u32) -> Option<SmallDisk> {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let size = format!("size={size}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            _ => {
                eprintln!("SKIP a file system of its own cannot be mounted here (root alone may)");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_while_it_lasts_and_costs_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::of_mebibytes(48) else { return };
    let receiver = Receiver::start(&[]);
    let settings = [("TRIAGED__NOTIFY__WEBHOOK__URL", receiver.url.as_str()), ("TRIAGED__ARCHIVE__MIN_FREE_MIB", "1")];
    let node = Node::start_on(disk.0.clone(), &settings);
    assert_eq!(store_one(&node, "2.25.1"), 0);
    // To the last byte: the ledger has no room either.
    let filler = node.folder.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    for piece in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
    drop(file);
    assert_eq!(store_one(&node, "2.25.2"), 0xA700);
    until(&node, 503, "\"disk\"");
    told(&receiver, 1, false, "disk");
    fs::remove_file(&filler).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while store_one(&node, "2.25.3") != 0 {
        assert!(Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    until(&node, 200, "");
    told(&receiver, 2, true, "");
    node.wait_for_slices(2);
    assert_eq!(node.query::<String>("PRAGMA integrity_check"), "ok");
    drop(node);
}

#[test]
fn a_database_that_somebody_locks_for_long_is_told_while_it_lasts() {
    let receiver = Receiver::start(&[]);
    let node = Node::start(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    assert_eq!(store_one(&node, "2.25.1"), 0);
    node.wait_for_slices(1);
    let database = node.meddle();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    until(&node, 503, "\"ledger\"");
    // Past the ledger, which cannot keep a message now.
    told(&receiver, 1, false, "ledger");
    assert_eq!(node.get("/healthz").0, 200, "to start it again would not help");
    database.execute_batch("ROLLBACK").unwrap();
    until(&node, 200, "");
    assert_eq!(store_one(&node, "2.25.2"), 0);
    told(&receiver, 2, true, "");
    node.wait_for_slices(2);
}

/// The square root of what the mean of a slice is below zero: not a number, but for a black slice, with which a start tries the model.
fn not_a_number(folder: &Path) -> PathBuf {
    const MEAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean");
    let mean = fs::read(format!("{MEAN}.onnx")).unwrap();
    let field = |key: u8, value: &[u8]| [&[key, u8::try_from(value.len()).unwrap()], value].concat();
    // NodeProto: input 1, output 2, op_type 4; GraphProto: node 1.
    let node = |input: &str, output: &str, operation: &str| {
        let parts = [field(0x0A, input.as_bytes()), field(0x12, output.as_bytes()), field(0x22, operation.as_bytes())];
        field(0x0A, &parts.concat())
    };
    let graph = mean.windows(3).position(|bytes| bytes == [0x3A, 0x8A, 0x01]).expect("the graph, of 138 bytes") + 3;
    let rest =
        graph + mean[graph..].windows(7).position(|bytes| bytes == b"\x12\x04meanZ").expect("its name and input");
    let end = graph + 138;
    let nodes = [
        node("image", "mean", "GlobalAveragePool"),
        node("mean", "below", "Neg"),
        node("below", "root", "Sqrt"),
        node("root", "probability", "Flatten"),
        mean[rest..end].to_vec(),
    ]
    .concat();
    let length = [(nodes.len() & 0x7F) as u8 | 0x80, (nodes.len() >> 7) as u8];
    let model = [&mean[..graph - 2], &length, &nodes, &mean[end..]].concat();
    let mut card: Value = serde_json::from_str(&fs::read_to_string(format!("{MEAN}.json")).unwrap()).unwrap();
    card["file"] = "nan.onnx".into();
    card["sha256"] = hex::encode(Sha256::digest(&model)).into();
    card["slice_threshold"] = 0.5.into();
    card["study_rule"] = json!({ "kind": "kth_highest", "k": 1, "threshold": 0.5 });
    fs::write(folder.join("nan.onnx"), model).unwrap();
    let path = folder.join("nan.json");
    fs::write(&path, card.to_string()).unwrap();
    path
}

#[test]
fn a_model_that_gives_no_probabilities_is_told_and_its_studies_can_be_scored_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = not_a_number(folder.path());
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__INFERENCE__MODEL", model.to_str().unwrap()),
        ("TRIAGED__NOTIFY__FAILURES", "false"),
    ]);
    let slices = phantom(&["--slices", "5"]);
    let sent = node.cli(&["send", slices.path().to_str().unwrap(), "--to", &node.dimse.to_string()]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    until(&node, 503, "slices are not scored");
    told(&receiver, 1, false, "model");
    node.wait_for_slices(5);
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE verdict = 'incomplete'");
    node.restart_with(&[("TRIAGED__INFERENCE__MODEL", SPOT)]);
    until(&node, 200, "");
    assert!(node.cli(&["rescore", "--all"]).status.success());
    node.wait_until("SELECT total(state = 'scored') = 5 FROM slice_results");
}

#[test]
fn an_object_that_takes_a_decoders_time_is_given_up_at_once_and_for_good() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("noise.j2k");
    let script = "import sys, numpy; from PIL import Image; noise = numpy.random.default_rng(1).integers(0, 4096, (4096, 4096), \
                  dtype=numpy.uint16); Image.fromarray(noise).save(sys.argv[1], 'JPEG2000', no_jp2=True, irreversible=False)";
    run(python.to_str().unwrap(), &["-c", script, file.to_str().unwrap()]).unwrap();
    let codestream = fs::read(&file).unwrap();
    let node = Node::start(&[("TRIAGED__INFERENCE__DECODE_SECONDS", "1"), ("TRIAGED__INFERENCE__DECODE_THREADS", "1")]);
    // Nobody's head by its header, so that the pixels are looked at first: it is decoded twice.
    let object = [head_ct("2.25.1", 1, 4096, &[]), encapsulated(&[&codestream])].concat();
    let object = replace(&object, b"HEAD", b"FOOT");
    assert_eq!(Sender::associate(&node, "ATTACKER", JPEG_2000).store("2.25.1", &object), 0);
    assert_eq!(store_one(&node, "2.25.2"), 0);
    node.wait_for_slices(2);
    let state: String = node.query("SELECT state || ': ' || reason FROM slice_results WHERE sop_uid = '2.25.1'");
    assert!(state.starts_with("failed: decoding took more than 1 s of processor time"), "{state}");
    assert_eq!(node.query::<String>("SELECT state FROM slice_results WHERE sop_uid = '2.25.2'"), "scored");
    assert_eq!(node.query::<i64>("SELECT max(attempts) FROM slices"), 1);
    node.wait_for_metric("triaged_decoder_ends_total{why=\"time\"} 1");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

/// Whoever was told that the node is not ready hears of its end, also where that came with a restart: a pager's incident stays open else.
#[test]
fn that_a_node_is_ready_again_is_told_over_a_restart() {
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__ARCHIVE__MIN_FREE_MIB", "900000000"),
    ]);
    told(&receiver, 1, false, "disk");
    assert!(node.terminate().success());
    node.restart_with(&[("TRIAGED__ARCHIVE__MIN_FREE_MIB", "16")]);
    told(&receiver, 2, true, "");
    // The next start has nothing to tell.
    assert!(node.terminate().success());
    assert!(!node.folder.path().join(".told-not-ready").exists());
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let port = [("TRIAGED__DIMSE__PORT".to_owned(), free_port().to_string())];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut node = command(folder.path(), &port).arg("serve").stderr(full).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Each echo is an association, which the node logs.
    for answered in 0..3 {
        loop {
            let mut echo = command(folder.path(), &port);
            if echo.arg("echo").output().unwrap().status.success() {
                break;
            }
            assert_eq!(node.try_wait().unwrap(), None, "ended after {answered} echoes");
            assert!(Instant::now() < deadline, "no answer after {answered}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&node), rustix::process::Signal::TERM).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
}
