//! The parts that the integration tests share: a node of their own, real senders, and where the real data lie.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod browser;
pub mod http;
pub mod ledgers;
pub mod oracle;
pub mod phantoms;
pub mod raw_store;
pub mod receivers;

pub use phantoms::phantom;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rusqlite::types::FromSql;

/// Longer than anything here takes on a slow machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running `triaged serve` on ports of the system's choice, with a data folder of its own.
pub struct Node {
    child: Child,
    pub dimse: SocketAddr,
    pub web: SocketAddr,
    pub folder: Arc<tempfile::TempDir>,
    settings: Vec<(String, String)>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Node {
    /// Starts a node with `TRIAGED__…` settings over the test defaults.
    pub fn start(settings: &[(&str, &str)]) -> Node {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Node::start_in(folder, settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    /// Starts a node with a configuration file, for what the environment cannot say: lists of tables.
    pub fn start_with_file(file: &str, settings: &[(&str, &str)]) -> Node {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join(CONFIGURATION), file).unwrap();
        Node::start_in(folder, settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    /// Starts a node on a folder that is there, such as that of a small file system.
    pub fn start_on(folder: Arc<tempfile::TempDir>, settings: &[(&str, &str)]) -> Node {
        Node::start_in(folder, settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    fn start_in(folder: Arc<tempfile::TempDir>, settings: Vec<(String, String)>) -> Node {
        let mut child = command(folder.path(), &settings)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let log = Arc::new(Log::default());
        let (stderr, lines) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lines.lock().unwrap().push(line);
                lines.grown.notify_all();
            }
            lines.lines.lock().unwrap().push("(end of the log)".into());
            lines.grown.notify_all();
        });
        let address = |what: &str| -> SocketAddr {
            let line = log.wait_for(what);
            let address = line.split(what).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
            address.rsplit('/').next().unwrap().parse().unwrap()
        };
        let (web, dimse) = (address("web on "), address("DICOM on "));
        Node { child, dimse, web, folder, settings, log }
    }

    /// SIGKILL: what a power loss leaves, but for the disk's own cache.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how the node ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal_term();
        self.wait()
    }

    pub fn signal_term(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node did not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts again on the same data folder with the same settings.
    pub fn restart(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.kill();
        }
        *self = Node::start_in(self.folder.clone(), self.settings.clone());
    }

    /// Starts again on the same data folder with these settings changed.
    pub fn restart_with(&mut self, settings: &[(&str, &str)]) {
        for (key, value) in settings {
            self.settings.retain(|(known, _)| known != key);
            self.settings.push((key.to_string(), value.to_string()));
        }
        self.restart();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line of the log that contains `what`.
    pub fn wait_for_log(&self, what: &str) -> String {
        self.log.wait_for(what)
    }

    /// A connection that may write, as an administrator's.
    pub fn meddle(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.folder.path().join("triaged.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }

    pub fn database(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(self.folder.path().join("triaged.db"), flags).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }

    /// The first column of the first row.
    pub fn query<T: FromSql>(&self, sql: &str) -> T {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a query says 1; NULL, of a verdict that is not there yet, says no.
    pub fn wait_until(&self, sql: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.query::<Option<i64>>(sql) != Some(1) {
            assert!(Instant::now() < deadline, "never came: {sql}\n{}\nthe log:\n{}", self.states(), self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until there are this many slices and none of them is queued.
    pub fn wait_for_slices(&self, slices: usize) {
        self.wait_until(&format!("SELECT count(*) = {slices} AND total(state = 'queued') = 0 FROM slice_results"));
    }

    /// Waits until `/metrics` has a line that begins so: what is counted is counted after it is committed.
    pub fn wait_for_metric(&self, begin: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, metrics) = self.get("/metrics");
            if metrics.lines().any(|line| line.starts_with(begin)) {
                return;
            }
            assert!(Instant::now() < deadline, "never came: {begin}\n{metrics}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn states(&self) -> String {
        let database = self.database();
        let mut statement = database
            .prepare("SELECT state || ' ' || coalesce(reason, '') || ': ' || count(*) FROM slice_results GROUP BY state, reason")
            .unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|row| row.unwrap()).collect::<Vec<_>>().join("\n")
    }

    /// Runs one of the program's other commands on this node's data folder.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        command(self.folder.path(), &self.settings).args(arguments).output().unwrap()
    }

    /// GET from the node's web server: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(self.web).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.web).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn wait_for(&self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(what)) {
                return line.clone();
            }
            let ended = lines.last().is_some_and(|line| line == "(end of the log)");
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!ended && !left.is_zero(), "the node never logged {what:?}:\n{}", lines.join("\n"));
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// Starts a node that must not start, as a person has to mend something: exit code 2, and the last line it says is the reason.
pub fn refused(settings: &[(&str, &str)]) -> String {
    refused_with(2, settings)
}

/// Starts a node that must not start, with this exit code: 1 where the service manager should try again.
pub fn refused_with(code: i32, settings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<_> = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let output = command(folder.path(), &settings).arg("serve").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("DICOM on"), "it accepted nothing: {said}");
    said.lines().last().unwrap_or_default().to_owned()
}

/// A network that finds phantoms' blood in next to no time, which the tests' nodes score by: `tests/models/spot.py` made it. A test of a
/// shipped model names that one.
pub const SPOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/spot.json");

/// A node's configuration file, in its data folder.
const CONFIGURATION: &str = "triaged.toml";

/// The program under test, with the settings of the tests' nodes.
pub fn command(data_dir: &Path, settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIAGED__")) {
        command.env_remove(name);
    }
    command
        .env("TRIAGED__DATA_DIR", data_dir)
        .env("TRIAGED__DIMSE__LISTEN", "127.0.0.1")
        .env("TRIAGED__DIMSE__PORT", "0")
        .env("TRIAGED__WEB__LISTEN", "127.0.0.1:0")
        .env("TRIAGED__TRIAGE__QUIET_SECONDS", "0.5")
        .env("TRIAGED__INFERENCE__DEVICE", "cpu")
        .env("TRIAGED__INFERENCE__MODEL", SPOT)
        .env("TRIAGED__ARCHIVE__MIN_FREE_MIB", "16")
        .envs(settings.iter().map(|(k, v)| (k, v)))
        .env("NO_COLOR", "1");
    let file = data_dir.join(CONFIGURATION);
    if file.is_file() {
        command.arg("--config").arg(file);
    }
    command
}

/// A program that must be there for this test; without it the test says so and passes over itself.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        eprintln!("SKIP {program} is not installed (make test-deps)");
    }
    found
}

/// A folder of the real data, or the word that it is absent.
pub fn real_data(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIP {} is not here", path.display());
    None
}

/// The Python of the tests' own packages, or the word that it is absent.
pub fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    if python.is_file() {
        return Some(python);
    }
    eprintln!("SKIP {} is not here (make test-deps)", python.display());
    None
}

/// A port for a program that must be told one, or that keeps it over a restart. It lies below those that the system gives to sockets that
/// ask for any: of those, another test's socket may take one between its choice and its use.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u32 = range.split_whitespace().next().and_then(|first| first.parse().ok()).expect("a range of ports");
    assert!(end > FIRST + 1_000, "the system gives ports from {end} on");
    loop {
        // Tests are processes of their own, mostly: their numbers keep them apart.
        let number = std::process::id().wrapping_mul(7_919).wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + number % (end - FIRST)) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The DICOM files of a folder, in order of name.
pub fn dicom_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|e| e == "dcm") && path.is_file())
        .filter(|path| std::fs::read(path).unwrap().get(128..132) == Some(b"DICM"))
        .collect();
    files.sort();
    files
}

/// Runs a program to its end, with what it said as the error where it fails.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(format!("{program}: {}\n{said}", output.status)) }
}

/// DCMTK's storescu, with the node as its peer.
pub fn storescu(node: &Node, options: &[&str], paths: &[PathBuf]) -> Result<String, String> {
    let port = node.dimse.port().to_string();
    let mut arguments: Vec<&OsStr> = ["-aec", "TRIAGED", "-v"].iter().map(OsStr::new).collect();
    arguments.extend(options.iter().map(OsStr::new));
    arguments.extend([OsStr::new("127.0.0.1"), OsStr::new(&port)]);
    arguments.extend(paths.iter().map(|p| p.as_os_str()));
    run("storescu", &arguments)
}

/// [`SPOT`] under a card of the test's own: `change` edits the card's JSON. Returns the card's path.
pub fn card(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let spot = Path::new(SPOT);
    let mut card: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(spot).unwrap()).unwrap();
    let file = card["file"].as_str().unwrap().to_owned();
    std::os::unix::fs::symlink(spot.with_file_name(&file), folder.join(&file)).unwrap();
    change(&mut card);
    let path = folder.join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A web server that notes what is POSTed to it and answers with the statuses it was given, in turn, then 200.
pub struct Receiver {
    pub url: String,
    requests: Arc<(Mutex<Vec<Request>>, Condvar)>,
}

/// A POST that came: headers with lower-case names, and the body.
#[derive(Clone)]
pub struct Request {
    pub headers: std::collections::HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Receiver {
    pub fn start(statuses: &[u16]) -> Receiver {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let requests: Arc<(Mutex<Vec<Request>>, Condvar)> = Arc::default();
        let (noted, mut statuses) = (requests.clone(), std::collections::VecDeque::from(statuses.to_vec()));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(socket);
                let mut headers = std::collections::HashMap::new();
                for line in (&mut reader).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    if let Some((name, value)) = line.split_once(": ") {
                        headers.insert(name.to_lowercase(), value.to_owned());
                    }
                }
                let Some(length) = headers.get("content-length").and_then(|l| l.parse().ok()) else { continue };
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let status = statuses.pop_front().unwrap_or(200);
                noted.0.lock().unwrap().push(Request { headers, body });
                noted.1.notify_all();
                let _ =
                    write!(reader.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Receiver { url, requests }
    }

    /// Waits for this many requests.
    pub fn wait_for(&self, count: usize) -> Vec<Request> {
        let requests = self.requests.0.lock().unwrap();
        let (requests, out) =
            self.requests.1.wait_timeout_while(requests, PATIENCE, |requests| requests.len() < count).unwrap();
        assert!(!out.timed_out(), "{} of {count} requests came", requests.len());
        requests.clone()
    }

    /// Those that came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.0.lock().unwrap().clone()
    }
}
