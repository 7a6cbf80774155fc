//! Orthanc as the PACS that pushes to the node, a modality in its configuration.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Node, PATIENCE, dicom_files, free_port, phantom};

/// A running Orthanc that knows the node as the modality `triaged`.
pub struct Orthanc {
    child: Child,
    http: u16,
    pub dicom: u16,
    folder: tempfile::TempDir,
}

impl Orthanc {
    /// `None`, said aloud, where it is not installed.
    fn start(node: &Node) -> Option<Orthanc> {
        Orthanc::start_on(node, free_port())
    }

    fn start_on(node: &Node, dicom: u16) -> Option<Orthanc> {
        let triaged = serde_json::json!({"triaged": {
            "AET": "TRIAGED", "Host": "127.0.0.1", "Port": node.dimse.port(), "AllowStorageCommitment": true,
        }});
        Orthanc::start_with(&triaged, dicom)
    }

    /// With these modalities in its configuration.
    pub fn start_with(modalities: &serde_json::Value, dicom: u16) -> Option<Orthanc> {
        // Debian puts it where an ordinary user's PATH does not reach.
        let program = ["/usr/sbin/Orthanc", "/usr/bin/Orthanc", "/usr/local/sbin/Orthanc"];
        let Some(program) = program.iter().map(PathBuf::from).find(|path| path.is_file()) else {
            eprintln!("SKIP Orthanc is not installed (make test-deps)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let http = free_port();
        let configuration = serde_json::json!({
            "StorageDirectory": folder.path().join("store"),
            "IndexDirectory": folder.path().join("index"),
            "HttpPort": http,
            "DicomPort": dicom,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomAet": "ORTHANC",
            "DicomModalities": modalities,
            "DicomAlwaysAllowStore": true,
            "DicomCheckCalledAet": false,
            "Plugins": [],
        });
        let file = folder.path().join("orthanc.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut orthanc = Orthanc { child, http, dicom, folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", http)).is_err() {
            let ended = orthanc.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Orthanc did not start: {ended:?}\n{}",
                orthanc.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(orthanc)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// GET from its REST interface; the body of a 200.
    pub fn get(&self, path: &str) -> serde_json::Value {
        self.ask("GET", path, b"")
    }

    /// POST to its REST interface; the body of a 200.
    fn post(&self, path: &str, body: &[u8]) -> serde_json::Value {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> serde_json::Value {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(socket, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n").unwrap();
        socket.write_all(body).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.split(' ').nth(1) == Some("200"), "{method} {path}: {answer}\n{}", self.log());
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn orthanc_pushes_a_study() {
    let node = Node::start(&[]);
    let Some(orthanc) = Orthanc::start(&node) else { return };
    orthanc.post("/modalities/triaged/echo", b"{}");
    let series = phantom(&["--slices", "6"]);
    let uploaded: Vec<String> = dicom_files(series.path())
        .iter()
        .map(|file| orthanc.post("/instances", &std::fs::read(file).unwrap())["ID"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(uploaded.len(), 6);
    let said = orthanc.post("/modalities/triaged/store", serde_json::json!(uploaded).to_string().as_bytes());
    assert_eq!(said["FailedInstancesCount"], 0, "{said}");
    node.wait_for_slices(6);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 6);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances WHERE calling_ae = 'ORTHANC'"), 6);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
}

/// Orthanc releases its association after the request, and takes the report on one that the node opens.
#[test]
fn orthanc_is_told_what_is_committed_after_a_restart_of_the_node() {
    let port = free_port();
    let peers =
        format!("[[dimse.peers]]\nname = \"orthanc\"\nae_titles = [\"ORTHANC\"]\naddress = \"127.0.0.1:{port}\"\n");
    // A port that stays the same over the restart: Orthanc knows the node by it.
    let own = free_port().to_string();
    let mut node = Node::start_with_file(&peers, &[("TRIAGED__DIMSE__PORT", &own)]);
    let Some(orthanc) = Orthanc::start_on(&node, port) else { return };
    let series = phantom(&["--slices", "4"]);
    let files = dicom_files(series.path());
    let uploaded: Vec<String> = files
        .iter()
        .map(|file| orthanc.post("/instances", &std::fs::read(file).unwrap())["ID"].as_str().unwrap().to_owned())
        .collect();
    // One is never sent.
    let sent = &uploaded[..3];
    let said = orthanc.post("/modalities/triaged/store", serde_json::json!(sent).to_string().as_bytes());
    assert_eq!(said["FailedInstancesCount"], 0, "{said}");
    node.wait_for_slices(3);
    let ask = |resources: &[String]| {
        let body = serde_json::json!({ "Resources": resources }).to_string();
        orthanc.post("/modalities/triaged/storage-commitment", body.as_bytes())["ID"].as_str().unwrap().to_owned()
    };
    let outcome = |id: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = orthanc.get(&format!("/storage-commitment/{id}"));
            if answer["Status"] != "Pending" {
                return answer;
            }
            assert!(Instant::now() < deadline, "no report: {answer}\n{}", orthanc.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let all = outcome(&ask(sent));
    assert_eq!((&all["Status"], all["Success"].as_array().unwrap().len()), (&serde_json::json!("Success"), 3), "{all}");
    // The node is killed with the request on disk and answers after its restart.
    let id = ask(&uploaded);
    node.restart();
    let some = outcome(&id);
    assert_eq!(some["Status"], "Failure", "{some}");
    assert_eq!(
        (some["Success"].as_array().unwrap().len(), some["Failures"].as_array().unwrap().len()),
        (3, 1),
        "{some}"
    );
    node.wait_until("SELECT count(*) = 2 AND total(state = 'delivered') = 2 FROM commitment_log");
}
