//! Promise 8: no host keeps the others out, and a node that cannot do its work says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::raw_store::{EXPLICIT, Sender, associate_request, element, head_ct};
use crate::support::{Node, PATIENCE, Receiver, refused_with};

fn store_one(node: &Node, calling: &str, uid: &str) -> u16 {
    let object = [head_ct(uid, 1, 64, &[]), element(0x7FE0_0010, "OW", &vec![0; 64 * 64 * 2])].concat();
    Sender::associate(node, calling, EXPLICIT).store(uid, &object)
}

#[test]
fn idle_associations_of_one_sender_keep_no_other_out() {
    let node = Node::start(&[]);
    let mut refused = 0;
    let idle: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut socket = TcpStream::connect(node.dimse).unwrap();
            socket.write_all(&associate_request("GREEDY", EXPLICIT)).unwrap();
            let mut answer = [0; 10];
            socket.read_exact(&mut answer).unwrap();
            // Transient, by the presentation service provider: local limit exceeded (PS3.8 9.3.4).
            refused += usize::from(answer == [3, 0, 0, 0, 0, 4, 0, 2, 3, 2]);
            socket
        })
        .collect();
    assert_eq!(refused, 32);
    assert_eq!(store_one(&node, "SCANNER", "2.25.1"), 0);
    drop(idle);
}

#[test]
fn thousands_of_half_open_connections_keep_no_scanner_out() {
    let node = Node::start(&[]);
    let mut half_open: Vec<TcpStream> = Vec::new();
    for number in 0..1500 {
        let mut socket = TcpStream::connect(node.dimse).unwrap();
        if number % 2 == 0 {
            let _ = socket.write_all(&associate_request("DRIP", EXPLICIT)[..20]);
        }
        half_open.push(socket);
    }
    let began = Instant::now();
    assert_eq!(store_one(&node, "SCANNER", "2.25.1"), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn dripping_http_connections_do_not_silence_the_page() {
    let node = Node::start(&[]);
    let mut dripping: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut socket = TcpStream::connect(node.web).unwrap();
            let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
            socket
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        for socket in &mut dripping {
            let _ = socket.write_all(b"x");
        }
        let began = Instant::now();
        assert_eq!(node.get(path).0, 200, "{path}");
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: {:?}", began.elapsed());
    }
}

/// An archive that does not keep what it is given makes the node not ready, and is told to people; so is its end.
#[test]
fn an_archive_that_fails_makes_the_node_not_ready_and_is_told() {
    let receiver = Receiver::start(&[]);
    let node = Node::start(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    assert_eq!(node.get("/readyz").0, 200);
    let (archive, aside) = (node.folder.path().join("archive"), node.folder.path().join("aside"));
    std::fs::rename(&archive, &aside).unwrap();
    std::fs::write(&archive, b"no folder").unwrap();
    let (status, said) = until(&node, 503);
    assert!(status == 503 && said.contains("\"archive\""), "{said}");
    assert_ne!(store_one(&node, "SCANNER", "2.25.1"), 0);
    let told: serde_json::Value = serde_json::from_slice(&receiver.wait_for(1)[0].body).unwrap();
    assert_eq!((told["kind"].as_str(), told["ready"].as_bool()), (Some("node_trouble"), Some(false)), "{told}");
    assert!(told["reasons"].to_string().contains("archive"), "{told}");
    node.wait_for_metric("triaged_check_ok{check=\"archive\"} 0");
    std::fs::remove_file(&archive).unwrap();
    std::fs::rename(&aside, &archive).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while store_one(&node, "SCANNER", "2.25.2") != 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(200));
    }
    until(&node, 200);
    let told: serde_json::Value = serde_json::from_slice(&receiver.wait_for(2)[1].body).unwrap();
    assert_eq!((told["kind"].as_str(), told["ready"].as_bool()), (Some("node_trouble"), Some(true)), "{told}");
}

fn until(node: &Node, status: u16) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = node.get("/readyz");
        if answer.0 == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.1);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_page_without_login_is_not_opened_to_the_network_by_mistake() {
    let said = refused_with(2, &[("TRIAGED__WEB__LISTEN", "0.0.0.0:0")]);
    assert!(said.contains("web.allow_insecure"), "{said}");
    drop(Node::start(&[("TRIAGED__WEB__LISTEN", "0.0.0.0:0"), ("TRIAGED__WEB__ALLOW_INSECURE", "true")]));
}

#[test]
fn the_data_folder_is_for_its_owner_alone() {
    let mut node = Node::start(&[]);
    std::fs::set_permissions(node.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    node.restart();
    let mode = |name: &str| std::fs::metadata(node.folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("triaged.db"), mode("archive")), (0o700, 0o600, 0o700));
}

#[test]
fn a_patient_id_of_a_mebibyte_is_kept_cut_and_marked() {
    let node = Node::start(&[]);
    let uid = "2.25.1";
    let long = vec![b'7'; 60_000];
    let object = [
        element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2"),
        element(0x0008_0018, "UI", uid.as_bytes()),
        element(0x0008_0050, "SH", &long),
        element(0x0010_0020, "LO", &long),
        element(0x0020_000D, "UI", b"2.25.2"),
        element(0x0020_000E, "UI", b"2.25.3"),
    ]
    .concat();
    assert_eq!(Sender::associate(&node, "SCANNER", EXPLICIT).store(uid, &object), 0);
    for column in ["patient_id", "accession_number"] {
        let kept: String = node.query(&format!("SELECT {column} FROM worklist"));
        assert_eq!(kept, format!("{}…", "7".repeat(63)), "{column}");
    }
}

#[test]
fn check_says_that_a_database_has_a_newer_schema() {
    let mut node = Node::start(&[]);
    node.terminate();
    node.meddle().execute_batch("PRAGMA user_version = 999").unwrap();
    let said = node.cli(&["check"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!said.status.success() && text.contains("schema 999, which a newer triaged made"), "{text}");
}

/// A database that was restored from before the last objects, or lost, gets them back from the archive.
#[test]
fn recover_takes_in_again_what_a_lost_database_had() {
    let mut node = Node::start(&[]);
    for uid in ["2.25.1", "2.25.11", "2.25.111"] {
        assert_eq!(store_one(&node, "SCANNER", uid), 0);
    }
    node.wait_for_slices(3);
    node.terminate();
    let check = |node: &Node| {
        let said = node.cli(&["check", "--deep"]);
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = check(&node);
    assert!(
        said.contains("3 files read, each as it came") && said.contains("every file of the archive has its row"),
        "{said}"
    );
    let database = node.folder.path().join("triaged.db");
    std::fs::remove_file(&database).unwrap();
    for beside in ["triaged.db-wal", "triaged.db-shm"] {
        let _ = std::fs::remove_file(node.folder.path().join(beside));
    }
    let said = node.cli(&["recover"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success() && text.contains("3 files of the archive had no row and were taken in again"),
        "{text}"
    );
    node.restart();
    let said = node.cli(&["recover"]);
    assert!(!said.status.success(), "not while a node is at work");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances WHERE calling_ae = 'SCANNER'"), 3);
    node.wait_for_slices(3);
    node.terminate();
    // A flipped bit is found.
    let path: String = node.query("SELECT path FROM instances LIMIT 1");
    let file = node.folder.path().join(path);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(check(&node).contains("1 of 3 files is not as it came"));
}

/// A peer of the settings gets in while others hold every place that there is.
#[test]
fn a_listed_peer_gets_in_while_strangers_hold_all_places() {
    let node = Node::start_with_file(
        "[dimse]\nmax_associations = 4\n\n[[dimse.peers]]\nname = \"scanner\"\nae_titles = [\"SCANNER\"]\n\n\
         [[dimse.peers]]\nname = \"anybody\"\n",
        &[],
    );
    let hold = |title: &str| {
        let mut socket = TcpStream::connect(node.dimse).unwrap();
        socket.write_all(&associate_request(title, EXPLICIT)).unwrap();
        let mut answer = [0; 10];
        socket.read_exact(&mut answer).unwrap();
        (answer[0] == 2, socket)
    };
    let held: Vec<_> = (0..4).map(|number| hold(&format!("STRANGER{number}"))).collect();
    assert!(held.iter().all(|(accepted, _)| *accepted));
    assert!(!hold("ANOTHER").0, "strangers have no more");
    assert_eq!(store_one(&node, "SCANNER", "2.25.1"), 0);
    // Its place is free again once the node has noticed that it is gone.
    node.wait_for_log("association ended");
    let own: Vec<_> = (0..2).map(|_| hold("SCANNER")).collect();
    assert!(own.iter().all(|(accepted, _)| *accepted));
    assert!(!hold("SCANNER").0, "its reserve is bounded, too");
    drop(held);
}

/// One that brings too much is refused; who comes from elsewhere is not.
#[test]
fn a_host_does_not_fill_the_disk_for_all() {
    // A tenth of a MiB: a dozen objects of 8 KiB.
    let node = Node::start(&[("TRIAGED__DIMSE__MAX_GIB_OF_SOURCE_PER_HOUR", "0.0001")]);
    let statuses: Vec<u16> =
        (0..20).map(|number| store_one(&node, &format!("AE{number}"), &format!("2.25.{number}"))).collect();
    assert_eq!(statuses[0], 0);
    assert_eq!(statuses.last(), Some(&0xA700), "another AE title is no other host: {statuses:04X?}");
    node.wait_for_log("dimse.max_gib_of_source_per_hour");
    let kept = statuses.iter().filter(|status| **status == 0).count() as i64;
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), kept);
}
