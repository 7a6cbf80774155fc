//! Login, roles, tokens, and the audit log that nobody can change unseen; audit messages reach a real rsyslog.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::http::{Answer, ask};
use crate::support::{Node, PATIENCE, dicom_files, free_port, has, phantom, storescu};
use crate::tls::Authority;

const LOGIN: &[(&str, &str)] = &[("TRIAGED__WEB__LOGIN__ENABLED", "true"), ("TRIAGED__WEB__LOGIN__MAX_FAILURES", "3")];

/// Adds a user, and returns the password that was made.
fn user(node: &Node, name: &str, role: &str) -> String {
    let output = node.cli(&["user", "add", name, "--role", role]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().find_map(|line| line.strip_prefix("password: ")).unwrap().to_owned()
}

fn log_in(node: &Node, name: &str, password: &str) -> Answer {
    let origin = format!("http://{}", node.web);
    let form = [("Origin", origin.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    ask(node, "POST", "/login", &form, &format!("name={name}&password={password}&next=/studies/x"))
}

fn flagged_study(node: &Node) -> String {
    let series = phantom(&["--lesion", "epidural"]);
    storescu(node, &["-aet", "CT1"], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
    node.query("SELECT study_uid FROM worklist")
}

#[test]
fn each_role_may_do_its_own_and_the_audit_log_names_who_did() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(LOGIN);
    let study = flagged_study(&node);
    // Nobody: people are led to the login, programs hear 401, health answers.
    let worklist = ask(&node, "GET", "/", &[], "");
    assert_eq!((worklist.status, worklist.header("location")), (303, Some("/login?next=/")));
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[], "").status, 401);
    assert_eq!(ask(&node, "GET", "/metrics", &[], "").status, 401);
    assert_eq!(ask(&node, "GET", "/healthz", &[], "").status, 200);
    assert_eq!(ask(&node, "GET", "/login", &[], "").status, 200);
    let passwords = ["viewer", "reader", "operator"].map(|role| user(&node, role, role));
    let [viewer, reader, operator] = ["viewer", "reader", "operator"].map(|name| {
        let at = ["viewer", "reader", "operator"].iter().position(|other| *other == name).unwrap();
        let answer = log_in(&node, name, &passwords[at]);
        assert_eq!((answer.status, answer.header("location")), (303, Some("/studies/x")));
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        answer.session()
    });
    let json = ("Content-Type", "application/json");
    let acknowledge = format!("/api/v1/studies/{study}/acknowledge");
    let page = ask(&node, "GET", &format!("/studies/{study}"), &[("Cookie", &viewer)], "");
    assert_eq!(page.status, 200);
    assert_eq!(ask(&node, "GET", "/metrics", &[("Cookie", &viewer)], "").status, 200);
    assert_eq!(ask(&node, "POST", &acknowledge, &[json, ("Cookie", &viewer)], "").status, 403);
    assert_eq!(ask(&node, "POST", "/api/v1/notifications/1/requeue", &[json, ("Cookie", &reader)], "").status, 403);
    // Another site's page cannot use the session of whoever looks at it.
    let foreign = [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Cookie", &reader)];
    assert_eq!(ask(&node, "POST", &acknowledge, &foreign, "").status, 403);
    assert_eq!(ask(&node, "POST", &acknowledge, &[json, ("Cookie", &reader)], "").status, 200);
    assert_eq!(node.query::<String>("SELECT actor FROM audit WHERE deed = 'study.acknowledge'"), "reader");
    assert_eq!(node.query::<String>("SELECT actor_kind FROM audit WHERE deed = 'study.acknowledge'"), "person");
    let requeue = ask(&node, "POST", "/api/v1/notifications/1/requeue", &[json, ("Cookie", &operator)], "");
    assert_ne!(requeue.status, 403, "{}", requeue.body);
    node.wait_until(&format!(
        "SELECT count(*) = 1 FROM audit WHERE deed = 'study.view' AND actor = 'viewer' AND study_uid = '{study}'"
    ));
    node.wait_until(&format!(
        "SELECT count(*) = 1 FROM audit WHERE deed = 'study.receive' AND actor LIKE 'CT1 %' AND study_uid = '{study}'"
    ));
    // The page names who is logged in, and has a button that logs out; a node's page without a login has none.
    let page = ask(&node, "GET", "/", &[("Cookie", &viewer)], "");
    assert!(page.body.contains("action=\"/logout\"") && page.body.contains("<bdi>viewer</bdi>"), "{}", page.body);
    // A session ends with the logout, and with the user.
    let origin = format!("http://{}", node.web);
    let out = ask(&node, "POST", "/logout", &[("Origin", &origin), ("Cookie", &viewer)], "");
    assert_eq!(out.status, 303);
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("Cookie", &viewer)], "").status, 401);
    assert!(node.cli(&["user", "remove", "reader"]).status.success());
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("Cookie", &reader)], "").status, 401);
    // A token does what its scopes say, and no more.
    let made = node.cli(&["token", "add", "prometheus", "--scopes", "metrics"]);
    let bearer = format!("Bearer {}", String::from_utf8(made.stdout).unwrap().trim());
    assert_eq!(ask(&node, "GET", "/metrics", &[("Authorization", &bearer)], "").status, 200);
    let lower_case = bearer.replace("Bearer", "bearer");
    assert_eq!(ask(&node, "GET", "/metrics", &[("Authorization", &lower_case)], "").status, 200, "RFC 9110, 11.1");
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("Authorization", &bearer)], "").status, 403);
    assert_eq!(ask(&node, "GET", "/metrics", &[("Authorization", "Bearer guess")], "").status, 401);
    assert!(node.cli(&["token", "remove", "prometheus"]).status.success());
    assert_eq!(ask(&node, "GET", "/metrics", &[("Authorization", &bearer)], "").status, 401);
    // Neither a password nor a secret is in the database or the log.
    let dump = format!(
        "{:?}",
        std::fs::read(node.folder.path().join("triaged.db")).map(|b| String::from_utf8_lossy(&b).into_owned())
    );
    assert!(passwords.iter().all(|password| !dump.contains(password) && !node.log().contains(password)));
    // Sessions outlive a restart, and the start and the stop are on record.
    let mut node = node;
    node.terminate();
    node.restart();
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("Cookie", &operator)], "").status, 200);
    node.wait_until("SELECT count(*) = 2 FROM audit WHERE deed = 'node.start'");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM audit WHERE deed = 'node.stop'"), 1);
}

#[test]
fn a_login_without_users_is_told_and_behind_https_the_cookie_is_secure() {
    let public = [LOGIN, &[("TRIAGED__WEB__PUBLIC_URL", "https://triaged.example.org")]].concat();
    let node = Node::start(&public);
    node.wait_for_log("there is no user");
    let password = user(&node, "ali", "admin");
    let answer = log_in(&node, "ali", &password);
    assert!(answer.header("set-cookie").unwrap().ends_with("; Secure"), "{}", answer.head);
    // Nobody is led elsewhere after the login, and what was typed is not shown unescaped.
    let origin = format!("http://{}", node.web);
    let form = [("Origin", origin.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("name=ali&password={password}&next=%2F%2Fevil.example");
    assert_eq!(ask(&node, "POST", "/login", &form, &body).header("location"), Some("/"));
    let twice = ask(&node, "GET", "/login?next=/a&next=/b", &[], "");
    assert_eq!((twice.status, twice.header("content-type")), (400, Some("text/html; charset=utf-8")), "{}", twice.body);
    let page = ask(&node, "GET", "/login?next=/%22%3E%3Cscript%3E", &[], "");
    assert!(page.status == 200 && !page.body.contains("<script>"), "{}", page.body);
}

#[test]
fn wrong_passwords_lock_out_and_the_right_one_does_not_help_meanwhile() {
    let node = Node::start(LOGIN);
    let password = user(&node, "ali", "reader");
    assert_eq!(log_in(&node, "ali", "wrong").status, 401);
    assert_eq!(log_in(&node, "ali", &password).status, 303);
    for _ in 0..3 {
        assert_eq!(log_in(&node, "ali", "wrong").status, 401);
    }
    assert_eq!(log_in(&node, "ali", &password).status, 401, "locked out");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM users WHERE locked_until IS NOT NULL"), 1);
    // An administrator lets in again.
    let changed = String::from_utf8(node.cli(&["user", "passwd", "ali"]).stdout).unwrap();
    let password = changed.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    assert_eq!(log_in(&node, "ali", password).status, 303);
    // Somebody who tries a name again and again is made to wait, and nobody else is.
    let statuses: Vec<u16> = (0..22).map(|_| log_in(&node, "guess", "wrong").status).collect();
    assert_eq!(statuses[19..], [401, 429, 429], "{statuses:?}");
    assert_eq!(log_in(&node, "ali", password).status, 303);
    assert_eq!(
        node.query::<i64>("SELECT count(*) FROM audit WHERE details LIKE '%guess%'"),
        0,
        "what is no user may be a password"
    );
    assert!(node.query::<i64>("SELECT count(*) FROM audit WHERE deed = 'login.fail'") >= 20);
}

#[test]
fn behind_a_trusted_proxy_the_client_waits_and_is_named_and_not_everybody() {
    let trusting = [LOGIN, &[("TRIAGED__WEB__LOGIN__TRUSTED_PROXIES", "127.0.0.1")]].concat();
    let node = Node::start(&trusting);
    let origin = format!("http://{}", node.web);
    let try_from = |forwarded: &str| {
        let form = [
            ("Origin", origin.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Forwarded-For", forwarded),
        ];
        ask(&node, "POST", "/login", &form, "name=guess&password=wrong&next=/").status
    };
    for _ in 0..20 {
        // What the client itself wrote into the header is before what the proxy adds.
        assert_eq!(try_from("198.51.100.9, 192.0.2.1"), 401);
    }
    assert_eq!(try_from("198.51.100.10, 192.0.2.1"), 429);
    assert_eq!(try_from("192.0.2.2"), 401);
    assert_eq!(
        node.query::<i64>("SELECT count(*) FROM audit WHERE deed = 'login.fail' AND actor = 'web 192.0.2.1'"),
        20
    );
}

/// Percent signs hide a UID from whoever reads the path as it came, not from the handler.
#[test]
fn the_audit_log_names_the_study_however_its_path_is_written() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(LOGIN);
    let study = flagged_study(&node);
    let hidden: String = study.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let [series, sop] = ["series_uid", "sop_uid"]
        .map(|column| node.query::<String>(&format!("SELECT {column} FROM slice_results LIMIT 1")));
    let routes = [
        ("study.view", format!("/studies/{hidden}")),
        ("study.view", format!("/studies/{hidden}/thumbnail")),
        ("study.view", format!("/studies/{hidden}/series/{series}/slices/{sop}/1")),
        ("study.view", format!("/api/v1/studies/{hidden}")),
        ("study.export", format!("/api/v1/studies/{hidden}/report.dcm")),
        ("study.export", format!("/api/v1/studies/{hidden}/key-image.dcm")),
    ];
    for (number, (deed, route)) in routes.iter().enumerate() {
        let made = node.cli(&["token", "add", &format!("looker{number}"), "--scopes", "read"]);
        let bearer = format!("Bearer {}", String::from_utf8(made.stdout).unwrap().trim());
        // A document's body is no text.
        let mut socket = std::net::TcpStream::connect(node.web).unwrap();
        std::io::Write::write_all(
            &mut socket,
            format!(
                "GET {route} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: {bearer}\r\n\r\n",
                node.web
            )
            .as_bytes(),
        )
        .unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{route}: {}", String::from_utf8_lossy(&answer));
        node.wait_until(&format!(
            "SELECT count(*) = 1 FROM audit WHERE deed = '{deed}' AND actor = 'looker{number}' AND study_uid = '{study}'"
        ));
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM audit WHERE study_uid LIKE '%\\%%' ESCAPE '\\'"), 0);
    let listed = String::from_utf8(node.cli(&["audit", "--study", &study]).stdout).unwrap();
    assert!(listed.contains("looker0") && listed.contains("looker5"), "{listed}");
}

/// A screen that nobody sits at does not keep its session by keeping itself up to date.
#[test]
fn a_page_that_is_only_open_keeps_no_session_and_one_that_is_used_keeps_it() {
    let node = Node::start(&[LOGIN, &[("TRIAGED__WEB__LOGIN__IDLE_MINUTES", "0.1")]].concat());
    let password = user(&node, "ali", "viewer");
    let [open, used] = [(); 2].map(|()| log_in(&node, "ali", &password).session());
    std::thread::scope(|scope| {
        // The events end with the session, and the page is led to the login.
        let events = scope.spawn(|| ask(&node, "GET", "/events", &[("Cookie", &open)], ""));
        let begun = Instant::now();
        let mut ended = None;
        while begun.elapsed() < Duration::from_secs(9) {
            let refresh = ask(&node, "GET", "/", &[("Cookie", &open), ("Triaged-Background", "1")], "");
            if refresh.status != 200 {
                ended.get_or_insert(begun.elapsed());
            }
            assert_eq!(ask(&node, "GET", "/", &[("Cookie", &used)], "").status, 200, "{:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(300));
        }
        let ended = ended.expect("the session ends while its page is open");
        assert!(ended > Duration::from_secs(4), "{ended:?}");
        assert!(events.join().unwrap().body.contains("hello"));
    });
    assert_eq!(ask(&node, "GET", "/", &[("Cookie", &open)], "").status, 303);
}

#[test]
fn a_proxy_is_believed_only_where_it_is_trusted() {
    let header =
        [("TRIAGED__WEB__LOGIN__PROXY_USER_HEADER", "X-Remote-User"), ("TRIAGED__WEB__LOGIN__PROXY_ROLE", "viewer")];
    let trusting = [LOGIN, &header, &[("TRIAGED__WEB__LOGIN__TRUSTED_PROXIES", "127.0.0.1")]].concat();
    let node = Node::start(&trusting);
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("X-Remote-User", "dr.who")], "").status, 200);
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[], "").status, 401);
    let json = ("Content-Type", "application/json");
    let acknowledge = [json, ("X-Remote-User", "dr.who")];
    assert_eq!(ask(&node, "POST", "/api/v1/studies/1.2/acknowledge", &acknowledge, "").status, 403);
    let elsewhere = [LOGIN, &header, &[("TRIAGED__WEB__LOGIN__TRUSTED_PROXIES", "10.0.0.1")]].concat();
    let node = Node::start(&elsewhere);
    assert_eq!(ask(&node, "GET", "/api/v1/studies", &[("X-Remote-User", "dr.who")], "").status, 401);
}

#[test]
fn a_changed_audit_log_is_noticed() {
    let node = Node::start(&[]);
    for name in ["a", "b", "c", "d"] {
        user(&node, name, "viewer");
    }
    let verify = || {
        let output = node.cli(&["audit", "--verify"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, said) = verify();
    assert!(code == Some(0) && said.contains("unbroken"), "{said}");
    let database = node.meddle();
    let tampered = |change: &str, undo: &str| {
        database
            .execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_shortened; DROP TRIGGER audit_is_not_replaced;")
            .ok();
        database.execute_batch(change).unwrap();
        let (code, said) = verify();
        assert!(code == Some(1) && said.contains("row"), "{change}: {said}");
        database.execute_batch(undo).unwrap();
    };
    tampered(
        "UPDATE audit SET actor = 'x' || actor WHERE id = 3",
        "UPDATE audit SET actor = substr(actor, 2) WHERE id = 3",
    );
    assert_eq!(verify().0, Some(0));
    database.execute_batch("CREATE TABLE kept AS SELECT * FROM audit").unwrap();
    tampered("DELETE FROM audit WHERE id = 3", "INSERT INTO audit SELECT * FROM kept WHERE id = 3");
    tampered(
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
        "INSERT INTO audit SELECT * FROM kept WHERE id NOT IN (SELECT id FROM audit)",
    );
    tampered(
        "UPDATE audit SET hash = NULL WHERE id >= 3",
        "UPDATE audit SET hash = (SELECT hash FROM kept WHERE kept.id = audit.id)",
    );
    assert_eq!(verify().0, Some(0));
}

/// A running rsyslogd that writes what it receives to a file.
struct Rsyslog {
    child: std::process::Child,
    folder: tempfile::TempDir,
}

impl Rsyslog {
    fn start(module: &str, port: u16) -> Rsyslog {
        Rsyslog::start_with(module, port, "", "")
    }

    /// One that takes TLS alone (RFC 5425), with this authority's certificate of this name, from whoever has its certificate for `node`.
    fn start_with_tls(port: u16, authority: &Authority, name: &str) -> Rsyslog {
        let file = |name: &str| authority.path(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let files = format!(
            "defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{certificate}\" \
             defaultNetstreamDriverKeyFile=\"{key}\""
        );
        let driver = "streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/name\" permittedPeer=[\"node\"]";
        Rsyslog::start_with("imtcp", port, &files, driver)
    }

    fn start_with(module: &str, port: u16, global: &str, of_module: &str) -> Rsyslog {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let configuration = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"64k\" {global})\nmodule(load=\"{module}\" {of_module})\n\
             input(type=\"{module}\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"audit\")\n\
             template(name=\"whole\" type=\"string\" string=\"%pri% %app-name% %msgid% %msg%\\n\")\n\
             ruleset(name=\"audit\") {{ action(type=\"omfile\" file=\"{}\" template=\"whole\") }}\n",
            folder.path().display(),
            path("received")
        );
        std::fs::write(path("rsyslog.conf"), configuration).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .args(["-n", "-f", &path("rsyslog.conf"), "-i", &path("pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Rsyslog { child, folder }
    }

    fn received(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("received")).unwrap_or_default()
    }

    fn wait_for(&self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = self.received();
            if let Some(line) = received.lines().find(|line| line.contains(what)) {
                return line.to_owned();
            }
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what} never came:\n{received}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn audit_messages_reach_rsyslog_and_wait_while_it_is_away() {
    if !std::path::Path::new("/usr/sbin/rsyslogd").is_file() {
        eprintln!("SKIP rsyslog is not installed (make test-deps)");
        return;
    }
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let settings = [("TRIAGED__AUDIT__SYSLOG__ADDRESS", address.as_str()), ("TRIAGED__AUDIT__SYSLOG__PROTOCOL", "tcp")];
    // The collector comes later than the node: nothing is lost.
    let node = Node::start(&settings);
    node.wait_for_log("audit messages do not reach their collector");
    user(&node, "early", "viewer");
    let rsyslog = Rsyslog::start("imtcp", port);
    let start = rsyslog.wait_for("110120");
    assert!(start.starts_with("85 triaged IHE+RFC-3881 ") && start.contains("<AuditMessage>"), "{start}");
    let added = rsyslog.wait_for("110129");
    assert!(added.contains("Security Configuration"), "{added}");
    node.wait_until("SELECT coalesce((SELECT last_id FROM audit_export) = (SELECT max(id) FROM audit), 0)");
    // Each message once, and each is XML.
    let rows: i64 = node.query("SELECT count(*) FROM audit");
    let deadline = Instant::now() + PATIENCE;
    while (rsyslog.received().lines().count() as i64) < rows {
        assert!(Instant::now() < deadline, "{}", rsyslog.received());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rsyslog.received().lines().count() as i64, rows, "{}", rsyslog.received());
    if let Some(python) = crate::support::python() {
        let script = "import sys, xml.etree.ElementTree as tree\nfor line in open(sys.argv[1], encoding='utf-8'):\n    tree.fromstring(line[line.index('<?xml'):].encode())";
        let file = rsyslog.folder.path().join("received");
        crate::support::run(python.to_str().unwrap(), &["-c", script, file.to_str().unwrap()]).unwrap();
    }
    // While it is away, rows wait; afterwards they come.
    drop(rsyslog);
    user(&node, "late", "viewer");
    let rsyslog = Rsyslog::start("imtcp", port);
    rsyslog.wait_for("110129");
    let udp = free_port();
    let address = format!("127.0.0.1:{udp}");
    let rsyslog = Rsyslog::start("imudp", udp);
    let deadline = Instant::now() + Duration::from_secs(10);
    // It says nowhere that it listens; a node that starts too early would send into the void.
    while std::net::UdpSocket::bind(("127.0.0.1", udp)).is_ok() {
        assert!(Instant::now() < deadline, "rsyslogd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _node =
        Node::start(&[("TRIAGED__AUDIT__SYSLOG__ADDRESS", &address), ("TRIAGED__AUDIT__SYSLOG__PROTOCOL", "udp")]);
    rsyslog.wait_for("110120");
}

/// Whether there is a collector that speaks TLS; says aloud if not.
fn has_rsyslog_with_tls() -> bool {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let has_driver = folders.map(|folder| folder.path().join("rsyslog/lmnsd_gtls.so")).any(|driver| driver.is_file());
    if !has_driver || !std::path::Path::new("/usr/sbin/rsyslogd").is_file() {
        eprintln!("SKIP rsyslog with TLS (rsyslog-gnutls) is not installed (make test-deps)");
        return false;
    }
    crate::support::has("openssl")
}

/// RFC 5425: both sides show certificates, and whom the other does not know gets nothing; no row is lost over that.
#[test]
fn audit_messages_over_tls_reach_the_collector_that_is_known_and_from_a_node_that_it_knows() {
    if !has_rsyslog_with_tls() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    for name in ["collector", "node", "another"] {
        authority.sign(name);
    }
    stranger.sign("node");
    let file = |authority: &Authority, name: &str| authority.path(name).display().to_string();
    let (port, ca) = (free_port(), file(&authority, "ca.pem"));
    let address = format!("127.0.0.1:{port}");
    let settings = |ca: &str, key: &str, certificate: &str| -> Vec<(String, String)> {
        let keys = ["ADDRESS", "PROTOCOL", "CA", "KEY", "CERTIFICATE"];
        let values = [address.as_str(), "tls", ca, key, certificate];
        keys.iter()
            .zip(values)
            .map(|(key, value)| (format!("TRIAGED__AUDIT__SYSLOG__{key}"), value.to_owned()))
            .collect()
    };
    let restart = |node: &mut Node, settings: &[(String, String)]| {
        node.restart_with(&settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>());
    };
    let exported = |node: &Node| -> i64 { node.query("SELECT coalesce((SELECT max(last_id) FROM audit_export), 0)") };
    let rsyslog = Rsyslog::start_with_tls(port, &authority, "collector");
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "rsyslogd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }

    let refused = [
        // The node does not know the collector's authority.
        (file(&stranger, "ca.pem"), file(&authority, "node.key"), file(&authority, "node.pem"), "certificate"),
        // The collector does not know the node's authority, does not want this name, and wants a certificate.
        (ca.clone(), file(&stranger, "node.key"), file(&stranger, "node.pem"), "audit.syslog.certificate"),
        (ca.clone(), file(&authority, "another.key"), file(&authority, "another.pem"), "audit.syslog.certificate"),
        (ca.clone(), String::new(), String::new(), "audit.syslog.certificate"),
    ];
    let mut node = Node::start(&[]);
    for (ca, key, certificate, why) in &refused {
        restart(&mut node, &settings(ca, key, certificate));
        let line = node.wait_for_log("audit messages do not reach their collector");
        assert!(line.contains(why), "{line}");
        assert_eq!(exported(&node), 0, "nothing counts as sent: {line}");
    }
    assert_eq!(rsyslog.received(), "");

    let known = settings(&ca, &file(&authority, "node.key"), &file(&authority, "node.pem"));
    restart(&mut node, &known);
    rsyslog.wait_for("110120");
    node.wait_until("SELECT coalesce((SELECT last_id FROM audit_export) = (SELECT max(id) FROM audit), 0)");
    let rows: i64 = node.query("SELECT count(*) FROM audit");
    let deadline = Instant::now() + PATIENCE;
    while (rsyslog.received().lines().count() as i64) < rows {
        assert!(Instant::now() < deadline, "{rows} rows, received:\n{}", rsyslog.received());
        std::thread::sleep(Duration::from_millis(50));
    }

    // While it is away, rows wait; afterwards they come.
    drop(rsyslog);
    user(&node, "late", "viewer");
    let rsyslog = Rsyslog::start_with_tls(port, &authority, "collector");
    rsyslog.wait_for("110129");
}
