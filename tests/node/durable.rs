//! Promises 1 and 2: success means stored, and nothing vanishes, whatever is killed when.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Node, PATIENCE, dicom_files, has, phantom, python, real_data, run, storescu};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use sha2::{Digest, Sha256};
use triaged_imaging::phantom::{PhantomSpec, series};

/// Every row of the ledger has its file, whose bytes after the file meta information have the digest of the row.
fn assert_files_are_whole(node: &Node) {
    let database = node.database();
    let mut statement = database.prepare("SELECT path, digest, size FROM instances").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let rows: Vec<(String, String, i64)> = rows.map(|row| row.unwrap()).collect();
    for (path, digest, size) in rows {
        let bytes = std::fs::read(node.folder.path().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(bytes.len() as i64, size, "{path}");
        // (0002,0000) UL, 12 bytes: its value counts the bytes of the group that follow it.
        let group = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        assert_eq!(hex::encode(Sha256::digest(&bytes[144 + group..])), digest, "{path}");
    }
}

#[test]
fn kill_9_during_ingest_loses_nothing_that_was_acknowledged() {
    let (Some(folder), Some(python)) = (real_data("ct-ich/stage_2_train"), python()) else { return };
    let mut node = Node::start(&[]);
    let files = &dicom_files(&folder)[..120];
    let mut acknowledged = HashSet::new();
    // Three times: the moment differs.
    for after in [5, 30, 60] {
        let mut sender = Command::new(&python)
            .args(["tests/peers/send.py", &node.dimse.port().to_string(), "--associations=4"])
            .args(files)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = 0;
        for line in BufReader::new(sender.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let [uid, "0000", ..] = line.split(' ').collect::<Vec<_>>()[..] {
                acknowledged.insert(uid.to_owned());
                said += 1;
            }
            if said == after {
                node.kill();
            }
        }
        sender.wait().unwrap();
        node.restart();
        let database = node.database();
        for uid in &acknowledged {
            let kept: i64 = database
                .query_row("SELECT count(*) FROM instances WHERE sop_uid = ?1", [uid], |row| row.get(0))
                .unwrap();
            assert_eq!(kept, 1, "{uid} was acknowledged and is not there");
        }
        assert_files_are_whole(&node);
        assert_eq!(std::fs::read_dir(node.folder.path().join("incoming")).unwrap().count(), 0);
    }
    assert!(acknowledged.len() >= 60, "the sender was cut off too early to prove anything");
    // Re-sends after a cut association: all arrive, none twice.
    storescu(&node, &["-xv", "-R"], files).unwrap();
    node.wait_for_slices(120);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 120);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 0);
}

#[test]
fn a_queue_is_taken_up_again_after_kill_9() {
    let Some(folder) = real_data("ct-ich/stage_2_train").filter(|_| has("storescu")) else { return };
    let mut node = Node::start(&[]);
    storescu(&node, &["-xv", "-R"], &dicom_files(&folder)[..60]).unwrap();
    node.kill();
    let left = node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'queued'");
    let scores = node.query::<i64>("SELECT count(*) FROM scores");
    node.restart();
    node.wait_for_slices(60);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 60);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM scores"), scores + left, "what was scored is not scored again");
    node.wait_until("SELECT count(*) > 0 AND total(state = 'decided') = count(*) FROM worklist");
}

#[test]
fn a_ledger_that_refuses_scores_costs_no_slice_its_score() {
    let node = Node::start(&[]);
    let database = node.meddle();
    database
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON scores BEGIN SELECT RAISE(ABORT, 'refused'); END")
        .unwrap();
    let phantom = phantom(&["--slices", "1"]);
    let sent = node.cli(&["send", "--to", &node.dimse.to_string(), phantom.path().to_str().unwrap()]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let refusals = || node.log().matches("scores could not be recorded").count();
    let deadline = Instant::now() + PATIENCE;
    // Oftener than a slice may take the process with it.
    while refusals() < 6 {
        assert!(Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(node.query::<i64>("SELECT claims - attempts FROM slices"), 1, "one process has claimed it");
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    node.wait_until("SELECT total(state = 'scored') = 1 FROM slice_results");
    node.wait_until("SELECT total(state = 'decided') = 1 FROM worklist");
}

#[test]
fn a_file_that_is_cut_off_is_not_tried_again_and_one_that_is_missing_is() {
    let mut node = Node::start(&[("TRIAGED__INFERENCE__MAX_ATTEMPTS", "2")]);
    // Nothing is scored meanwhile.
    let phantom = phantom(&["--slices", "2"]);
    node.meddle()
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON scores BEGIN SELECT RAISE(ABORT, 'refused'); END")
        .unwrap();
    let sent = node.cli(&["send", "--to", &node.dimse.to_string(), phantom.path().to_str().unwrap()]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    node.kill();
    node.meddle().execute_batch("DROP TRIGGER refuse").unwrap();
    let file = |number: i64| {
        let path: String = node.query(&format!("SELECT path FROM instances ORDER BY id LIMIT 1 OFFSET {number}"));
        node.folder.path().join(path)
    };
    let whole = std::fs::metadata(file(0)).unwrap().len();
    std::fs::File::options().write(true).open(file(0)).unwrap().set_len(whole / 2).unwrap();
    std::fs::remove_file(file(1)).unwrap();
    node.restart();
    node.wait_until("SELECT total(state = 'failed') = 2 FROM slice_results");
    let attempts =
        |number| node.query::<i64>(&format!("SELECT attempts FROM slices ORDER BY id LIMIT 1 OFFSET {number}"));
    assert_eq!((attempts(0), attempts(1)), (1, 2));
}

#[test]
fn sigterm_finishes_the_object_in_flight_and_ends_with_0() {
    let (Some(folder), Some(python)) = (real_data("ct-ich/stage_2_train"), python()) else { return };
    let mut node = Node::start(&[]);
    let mut sender = Command::new(python)
        .args(["tests/peers/send.py", &node.dimse.port().to_string(), "--associations=2"])
        .args(&dicom_files(&folder)[..80])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    let mut signalled = false;
    for line in BufReader::new(sender.stdout.take().unwrap()).lines().map_while(Result::ok) {
        acknowledged += i64::from(line.contains(" 0000"));
        if acknowledged == 10 && !signalled {
            signalled = true;
            node.signal_term();
        }
    }
    sender.wait().unwrap();
    assert!(node.wait().success(), "{}", node.log());
    assert!(node.log().contains("stopped"));
    assert!(!node.folder.path().join("triaged.db-wal").exists(), "the ledger was flushed and closed");
    let stored = node.query::<i64>("SELECT count(*) FROM instances");
    assert!(stored >= acknowledged && acknowledged >= 10, "{acknowledged} acknowledged, {stored} stored");
    assert_files_are_whole(&node);
}

/// Small objects are gathered in memory, large ones stream to their file; the sizes here lie around the limit between.
#[test]
fn objects_of_any_size_arrive_whole_over_one_association() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let spec = PhantomSpec { slices: 9, lesion: None, seed: 1 };
    let sizes = [0, 500_000, 521_000, 522_000, 523_000, 800_000, 100, 3 << 20, 9_000_001];
    let mut files = Vec::new();
    for (mut object, size) in series(&spec).zip(sizes) {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        object.put(DataElement::new(Tag(0x0011, 0x0010), VR::LO, "TRIAGED TEST"));
        object.put(DataElement::new(Tag(0x0011, 0x1000), VR::OB, PrimitiveValue::from(bytes)));
        let path = folder.path().join(format!("{}.dcm", files.len()));
        object.write_to_file(&path).unwrap();
        files.push(path);
    }
    assert!(
        std::fs::metadata(&files[1]).unwrap().len() < 1 << 20 && std::fs::metadata(&files[5]).unwrap().len() > 1 << 20
    );
    for _ in 0..2 {
        storescu(&node, &[], &files).unwrap();
        assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), files.len() as i64);
        assert_files_are_whole(&node);
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 0, "the same bytes have the same digest");
    assert_eq!(std::fs::read_dir(node.folder.path().join("incoming")).unwrap().count(), 0);
    node.wait_for_slices(files.len());
}

#[test]
fn the_same_object_again_changes_nothing_and_other_bytes_are_set_aside() {
    let Some(folder) = real_data("ge-head").filter(|_| has("storescu") && has("dcmodify")) else { return };
    let node = Node::start(&[]);
    let file = dicom_files(&folder).remove(3);
    storescu(&node, &[], std::slice::from_ref(&file)).unwrap();
    storescu(&node, &[], std::slice::from_ref(&file)).unwrap();
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), 1);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 0);
    let folder = tempfile::tempdir().unwrap();
    let other: PathBuf = folder.path().join("other.dcm");
    std::fs::copy(&file, &other).unwrap();
    run("dcmodify", &["-nb", "-i", "(0020,4000)=other bytes", other.to_str().unwrap()]).unwrap();
    for _ in 0..2 {
        let said = storescu(&node, &[], std::slice::from_ref(&other)).unwrap();
        assert!(said.contains("Success"), "{said}");
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), 1);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 1);
    let aside: String = node.query("SELECT path FROM quarantine");
    assert!(node.folder.path().join(aside).is_file());
    assert_files_are_whole(&node);
    node.wait_for_log("received before with other content");
    node.wait_for_slices(1);
}
