//! Promises 1 and 2 where somebody meddles with what is on the disk: archive and ledger belong to each other, what is exchanged under the
//! node is noticed, and what a restored database does not know is taken in again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::raw_store::{EXPLICIT, Sender, element, head_ct};
use crate::support::{Node, PATIENCE, Receiver};

fn store_one(node: &Node, uid: &str, more: &[u8]) -> u16 {
    let object = [head_ct(uid, 1, 64, more), element(0x7FE0_0010, "OW", &vec![0; 64 * 64 * 2])].concat();
    Sender::associate(node, "SCANNER", EXPLICIT).store(uid, &object)
}

fn store(node: &Node, uids: &[&str]) {
    for uid in uids {
        assert_eq!(store_one(node, uid, &[]), 0, "{uid}");
    }
}

fn database(node: &Node) -> PathBuf {
    node.folder.path().join("triaged.db")
}

fn backup(node: &Node, name: &str) -> PathBuf {
    let to = node.folder.path().join(name);
    let said = node.cli(&["backup", to.to_str().unwrap()]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    to
}

/// All files below a folder, by their path relative to it.
fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => walk(&entry, below, found),
                false => found.push(entry.strip_prefix(below).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

fn check_of<'v>(ready: &'v serde_json::Value, name: &str) -> &'v serde_json::Value {
    let checks = ready["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {ready}"))
}

/// Waits until the recovery of this start is over; what the check `files` says then.
fn recovered(node: &Node) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready: serde_json::Value = serde_json::from_str(&node.get("/readyz").1).unwrap();
        let files = check_of(&ready, "files");
        let said = files["detail"].as_str().unwrap().to_owned();
        if files["ok"] == true && !said.contains("are held against each other") {
            return said;
        }
        assert!(Instant::now() < deadline, "{ready}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The node notices within seconds, says so on every way that it has, refuses at once, and ends to be started again.
fn notices(node: &mut Node, receiver: &Receiver, uid: &str) {
    let began = Instant::now();
    // From the first moment on: nothing is acknowledged that nobody will see.
    assert_eq!(store_one(node, uid, &[]), 0xA700, "{}", node.log());
    loop {
        let (status, said) = node.get("/readyz");
        if status == 503 && said.contains("was removed or replaced") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(12), "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let told: serde_json::Value = serde_json::from_slice(&receiver.wait_for(1)[0].body).unwrap();
    assert_eq!((told["kind"].as_str(), told["ready"].as_bool()), (Some("node_trouble"), Some(false)), "{told}");
    assert!(told["reasons"].to_string().contains("was removed or replaced"), "{told}");
    assert_eq!(node.wait().code(), Some(1));
}

type Deed = fn(database: &Path, older: &Path);

#[test]
fn a_database_that_is_exchanged_under_the_node_is_noticed_and_loses_no_object() {
    let deeds: [(&str, Deed); 5] = [
        ("overwritten in place by an older backup", |database, older| {
            fs::copy(older, database).unwrap();
        }),
        ("replaced by an older backup", |database, older| fs::rename(older, database).unwrap()),
        ("removed", |database, _| fs::remove_file(database).unwrap()),
        ("emptied", |database, _| fs::write(database, b"").unwrap()),
        ("its log removed", |database, _| fs::remove_file(database.with_extension("db-wal")).unwrap()),
    ];
    // Most of it is waiting.
    std::thread::scope(|scope| {
        for (what, deed) in deeds {
            scope.spawn(move || is_noticed_and_loses_no_object(what, deed));
        }
    });
}

fn is_noticed_and_loses_no_object(what: &str, deed: Deed) {
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    store(&node, &["2.25.1", "2.25.11"]);
    let older = backup(&node, "older.db");
    store(&node, &["2.25.2", "2.25.22"]);
    node.wait_for_slices(4);
    deed(&database(&node), &older);
    println!("{what}");
    notices(&mut node, &receiver, "2.25.3");
    node.restart();
    let said = recovered(&node);
    let uids = "SELECT group_concat(sop_uid, ' ') FROM (SELECT sop_uid FROM instances ORDER BY sop_uid)";
    // The last was refused, after its file was written: it may be there, as after any crash, and comes again.
    let kept: String = node.query(uids);
    assert!(kept.starts_with("2.25.1 2.25.11 2.25.2 2.25.22"), "{what}: {kept}; {said}\n{}", node.log());
    node.wait_until("SELECT count(*) >= 4 AND total(state = 'queued') = 0 FROM slice_results");
    assert_eq!(store_one(&node, "2.25.3", &[]), 0, "{what}");
    assert_eq!(node.query::<String>("PRAGMA integrity_check"), "ok", "{what}");
    if what != "its log removed" {
        // Whoever is told of the node hears what was taken in again.
        // That it is ready again is told as well, before or after.
        let mut told =
            (2..=3).map(|count| String::from_utf8_lossy(&receiver.wait_for(count)[count - 1].body).into_owned());
        assert!(told.any(|told| told.contains("were taken in again")), "{what}");
    }
}

#[test]
fn a_database_that_is_lost_while_the_node_is_off_is_made_of_the_archive() {
    let mut node = Node::start(&[]);
    store(&node, &["2.25.1", "2.25.2", "2.25.3"]);
    // Other content under the same UIDs, and an object that could not be taken in.
    assert_eq!(store_one(&node, "2.25.1", &element(0x0029_1001, "LO", b"other")), 0);
    assert_eq!(Sender::associate(&node, "SCANNER", EXPLICIT).store("2.25.9", b"no data set at all"), 0xC000);
    node.wait_for_slices(3);
    let before = files(node.folder.path()).into_iter().filter(|name| name.ends_with(".dcm")).collect::<Vec<_>>();
    node.terminate();
    fs::remove_file(database(&node)).unwrap();
    node.restart();
    let said = recovered(&node);
    assert!(said.contains("3 files of the archive had no row and were taken in again"), "{said}");
    node.wait_for_slices(3);
    let kinds = "SELECT group_concat(kind) FROM (SELECT kind FROM set_aside ORDER BY kind)";
    assert_eq!(node.query::<String>(kinds), "conflict,unreadable");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances WHERE calling_ae = 'SCANNER'"), 3);
    let after = files(node.folder.path()).into_iter().filter(|name| name.ends_with(".dcm")).collect::<Vec<_>>();
    assert_eq!(before, after, "every file is where it was");
    assert!(node.query::<i64>("SELECT count(*) FROM audit WHERE deed = 'archive.recover'") == 1);
    // Once: the next start finds nothing to do.
    node.terminate();
    node.restart();
    assert_eq!(recovered(&node), "every file has its row, and every row its file");
}

/// What a person has taken in before the node starts is much more than may wait, and keeps no scanner out.
#[test]
fn what_the_command_takes_in_again_keeps_nobody_out_and_is_judged() {
    let bound = [("TRIAGED__INFERENCE__MAX_QUEUE", "4"), ("TRIAGED__INFERENCE__MAX_QUEUE_OF_SOURCE", "4")];
    let mut node = Node::start(&bound);
    let uids = ["2.25.1", "2.25.2", "2.25.3", "2.25.4", "2.25.5", "2.25.6"];
    for uid in uids {
        while store_one(&node, uid, &[]) == 0xA700 {
            node.wait_until("SELECT total(state = 'queued') < 4 FROM slice_results");
        }
    }
    node.wait_for_slices(6);
    node.terminate();
    fs::remove_file(database(&node)).unwrap();
    let said = node.cli(&["recover"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let behind = "SELECT count(*) FROM slices WHERE state = 'queued' AND priority = 2";
    assert_eq!(node.query::<i64>(behind), 6);
    // None of them may be scored before the scanner comes.
    let far = "UPDATE slices SET lease = lease, available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+500 seconds')
               WHERE priority = 2 AND state = 'queued' AND lease_owner IS NULL";
    node.restart();
    node.meddle().execute(far, []).unwrap();
    store(&node, &["2.25.11", "2.25.12", "2.25.13"]);
    node.meddle()
        .execute(
            "UPDATE slices SET available_at = NULL WHERE priority = 2 AND state = 'queued' AND lease_owner IS NULL",
            [],
        )
        .unwrap();
    node.wait_for_slices(9);
    node.wait_until("SELECT total(state <> 'decided') = 0 FROM worklist");
}

/// The usual mistake: the node was killed, and its write-ahead log is left beside the copy that is put in place.
#[test]
fn an_older_copy_with_the_log_of_a_later_state_beside_it_is_restored_whole() {
    let mut node = killed_with_an_older_copy();
    // Whoever looks first changes nothing, whatever there is to see.
    let before = fs::read(database(&node)).unwrap();
    node.cli(&["recover", "--dry-run"]);
    assert_eq!(fs::read(database(&node)).unwrap(), before);
    node.restart();
    let said = recovered(&node);
    assert!(node.log().contains("a write-ahead log of a later state lay beside the database"), "{}", node.log());
    assert_eq!(node.query::<String>("PRAGMA integrity_check"), "ok");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), 4, "{said}");
    node.wait_for_slices(4);
}

#[test]
fn a_command_that_writes_before_the_node_starts_spoils_no_older_copy() {
    let mut node = killed_with_an_older_copy();
    let said = node.cli(&["user", "add", "ada", "--role", "reader"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    node.restart();
    recovered(&node);
    assert_eq!(node.query::<String>("PRAGMA integrity_check"), "ok");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), 4);
    assert_eq!(node.query::<String>("SELECT name FROM users"), "ada");
}

/// A node that was killed, with an older copy in the place of its database and its log beside it: the usual mistake. It had four objects,
/// the copy has one.
fn killed_with_an_older_copy() -> Node {
    let mut node = Node::start(&[]);
    store(&node, &["2.25.1"]);
    node.wait_for_slices(1);
    let older = backup(&node, "older.db");
    store(&node, &["2.25.2", "2.25.22"]);
    node.wait_for_slices(3);
    // Some of what came is in the file, some in the log alone, and the archive was told.
    node.meddle().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    std::thread::sleep(Duration::from_secs(8));
    store(&node, &["2.25.3"]);
    node.kill();
    assert!(fs::metadata(database(&node).with_extension("db-wal")).unwrap().len() > 0);
    fs::copy(&older, database(&node)).unwrap();
    node
}

#[test]
fn the_database_of_another_node_is_refused_and_spoils_nothing() {
    let mut other = Node::start(&[]);
    store(&other, &["2.25.7"]);
    other.wait_for_slices(1);
    other.terminate();
    let mut node = Node::start(&[]);
    store(&node, &["2.25.1"]);
    node.wait_for_slices(1);
    node.terminate();
    let own = fs::read(database(&node)).unwrap();
    let foreign = fs::read(database(&other)).unwrap();
    fs::write(database(&node), &foreign).unwrap();
    let said = node.cli(&["serve"]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(text.contains("not the one of the archive beside it") && text.contains("triaged recover --join"), "{text}");
    assert_eq!(fs::read(database(&node)).unwrap(), foreign, "it is untouched");
    assert_eq!(node.cli(&["recover"]).status.code(), Some(2));
    let said = String::from_utf8(node.cli(&["check"]).stdout).unwrap();
    assert!(said.contains("they do not belong to each other"), "{said}");
    // A person who says so gets both as one.
    let said = node.cli(&["recover", "--join"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("1 file of the archive had no row and was taken in again"), "{text}");
    assert!(text.contains("1 file is gone of which there is a row"), "{text}");
    // And the right one back gets its node back.
    fs::write(database(&node), &own).unwrap();
    node.restart();
    recovered(&node);
    assert_eq!(node.query::<String>("SELECT group_concat(sop_uid) FROM instances"), "2.25.1");
}

#[test]
fn rows_without_files_are_marked_and_told_and_files_without_rows_go_where_they_belong() {
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    store(&node, &["2.25.1", "2.25.2"]);
    node.wait_for_slices(2);
    node.terminate();
    let path = |node: &Node, uid: &str| -> PathBuf {
        let path: String = node.query(&format!("SELECT path FROM instances WHERE sop_uid = '{uid}'"));
        node.folder.path().join(path)
    };
    let (gone, stays) = (path(&node, "2.25.1"), path(&node, "2.25.2"));
    let kept = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    let archive = node.folder.path().join("archive");
    // An object that somebody copied into the archive by hand, a text, what a crash left, and one in quarantine that its row lacks.
    fs::create_dir_all(archive.join("by hand")).unwrap();
    let copied = [head_ct("2.25.5", 1, 64, &[]), element(0x7FE0_0010, "OW", &vec![0; 64 * 64 * 2])].concat();
    let head = &fs::read(&stays).unwrap();
    let group = u32::from_le_bytes(head[140..144].try_into().unwrap()) as usize;
    fs::create_dir_all(archive.join("zz")).unwrap();
    fs::write(archive.join("zz/by-hand.dcm"), [&head[..144 + group], &copied].concat()).unwrap();
    fs::write(archive.join("notes.txt"), b"no object").unwrap();
    fs::write(archive.join("zz/half.part"), b"half").unwrap();
    fs::write(node.folder.path().join("incoming/half"), b"half").unwrap();
    node.restart();
    let said = recovered(&node);
    assert!(said.contains("1 file is gone of which there is a row"), "{said}");
    assert!(node.get("/metrics").1.contains("\ntriaged_files_without_row 0\n"), "{said}");
    assert_eq!(node.query::<String>("SELECT group_concat(sop_uid) FROM lost_files"), "2.25.1");
    let told: serde_json::Value = serde_json::from_slice(&receiver.wait_for(1)[0].body).unwrap();
    assert!(told["reasons"].to_string().contains("1 file is gone"), "{told}");
    // The head of the copy names another object than its data set: it is set aside as it would be if it had come so.
    let aside = "SELECT count(*) FROM quarantine WHERE path LIKE 'quarantine/%'";
    assert_eq!(node.query::<i64>(aside), 2, "{:?}", files(node.folder.path()));
    let left = files(&archive);
    assert_eq!(left.iter().filter(|name| !name.starts_with('.')).count(), 1, "{left:?}");
    assert!(files(&node.folder.path().join("incoming")).is_empty());
    let said = String::from_utf8(node.cli(&["check"]).stdout).unwrap();
    assert!(said.contains("1 instance has lost its file"), "{said}");
    // Back at its place, it is one of the archive's again; so is one that is sent again.
    node.terminate();
    fs::write(&gone, &kept).unwrap();
    node.restart();
    assert!(recovered(&node).contains("1 file that was gone is back"));
    assert_eq!(node.query::<i64>("SELECT count(*) FROM lost_files"), 0);
    node.terminate();
    fs::remove_file(&gone).unwrap();
    node.restart();
    recovered(&node);
    store(&node, &["2.25.1"]);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM lost_files"), 0);
}

#[test]
fn an_archive_that_is_not_there_is_not_begun_anew() {
    let mut node = Node::start(&[]);
    store(&node, &["2.25.1"]);
    node.wait_for_slices(1);
    node.terminate();
    let (archive, away) = (node.folder.path().join("archive"), node.folder.path().join("away"));
    fs::rename(&archive, &away).unwrap();
    let said = node.cli(&["serve"]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    // Exit code 1: whoever starts the node tries again, and a disk that is mounted later is found.
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("is its disk mounted?"), "{text}");
    fs::remove_dir(&archive).unwrap();
    fs::rename(&away, &archive).unwrap();
    node.restart();
    assert_eq!(recovered(&node), "every file has its row, and every row its file");
}

/// An archive that is moved away while the node runs takes nothing in another's place.
#[test]
fn an_archive_that_is_exchanged_under_the_node_is_noticed_and_takes_nothing() {
    let node = Node::start(&[]);
    store(&node, &["2.25.1"]);
    let (archive, away) = (node.folder.path().join("archive"), node.folder.path().join("away"));
    fs::rename(&archive, &away).unwrap();
    fs::create_dir(&archive).unwrap();
    assert_eq!(store_one(&node, "2.25.2", &[]), 0xA700);
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        let (status, said) = node.get("/readyz");
        if status == 503 && said.contains("was removed or exchanged") {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::remove_dir_all(&archive).unwrap();
    fs::rename(&away, &archive).unwrap();
    store(&node, &["2.25.2"]);
    assert_eq!(files(&archive).iter().filter(|name| name.ends_with(".dcm")).count(), 2);
}
