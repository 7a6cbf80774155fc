//! Associations over TLS: DCMTK and pynetdicom with certificates of an authority made for the test by openssl.

use std::path::{Path, PathBuf};

use crate::support::{Node, free_port, has, python, run};

/// A certificate authority in a folder of its own, and what it signed.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority { folder: tempfile::tempdir().unwrap() };
        let (key, certificate) = (authority.path("ca.key"), authority.path("ca.pem"));
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Test Authority"];
        run("openssl", &[&request[..], &["-keyout", text(&key), "-out", text(&certificate)]].concat()).unwrap();
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Key and certificate of this name for 127.0.0.1.
    pub fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_for(name, "rsa:2048", "IP:127.0.0.1", 2)
    }

    /// Key of this kind and certificate for these alternative names, that ends after some days.
    fn sign_for(&self, name: &str, kind: &str, alternative: &str, days: u32) -> (PathBuf, PathBuf) {
        let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pem")));
        let (request, extensions) = (self.path(&format!("{name}.csr")), self.path("extensions"));
        std::fs::write(&extensions, format!("subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let subject = format!("/CN={name}");
        let mut ask = vec!["req", "-newkey", kind, "-nodes", "-subj", &subject];
        if kind == "ec" {
            ask.extend(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        }
        run("openssl", &[&ask[..], &["-keyout", text(&key), "-out", text(&request)]].concat()).unwrap();
        let (ca_key, ca) = (self.path("ca.key"), self.path("ca.pem"));
        let days = days.to_string();
        let sign = ["x509", "-req", "-days", &days, "-CAcreateserial", "-in", text(&request), "-CA", text(&ca)];
        let out = ["-CAkey", text(&ca_key), "-extfile", text(&extensions), "-out", text(&certificate)];
        run("openssl", &[&sign[..], &out].concat()).unwrap();
        (key, certificate)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Settings for a TLS port with a certificate of this authority.
fn settings<'s>(port: &'s str, key: &'s Path, certificate: &'s Path) -> Vec<(&'s str, &'s str)> {
    vec![
        ("TRIAGED__DIMSE__TLS__PORT", port),
        ("TRIAGED__DIMSE__TLS__KEY", text(key)),
        ("TRIAGED__DIMSE__TLS__CERTIFICATE", text(certificate)),
    ]
}

pub fn skipped() -> bool {
    !has("openssl") || !has("echoscu")
}

#[test]
fn dcmtk_and_pynetdicom_associate_over_tls() {
    if skipped() {
        return;
    }
    let authority = Authority::new();
    let (key, certificate) = authority.sign("node");
    let (client_key, client) = authority.sign("scanner");
    let (port, ca) = (free_port().to_string(), authority.path("ca.pem"));
    let node = Node::start(&settings(&port, &key, &certificate));
    let plain = node.dimse.port().to_string();
    let with_tls = ["+tls", text(&client_key), text(&client), "+cf", text(&ca)];
    run("echoscu", &[&with_tls[..], &["127.0.0.1", &port]].concat()).unwrap();
    if has("storescu") {
        let phantom = crate::support::phantom(&["--slices", "2"]);
        let folder = text(phantom.path()).to_owned();
        run("storescu", &[&with_tls[..], &["+sd", "127.0.0.1", &port, &folder]].concat()).unwrap();
        node.wait_for_slices(2);
    }
    // Each protocol on the other's port is named in the log, and the node goes on.
    run("echoscu", &["127.0.0.1", &port]).unwrap_err();
    node.wait_for_log("a plain DICOM client spoke to the TLS port");
    run("echoscu", &[&with_tls[..], &["127.0.0.1", &plain]].concat()).unwrap_err();
    node.wait_for_log("a TLS client spoke to the plain DICOM port");
    run("echoscu", &["127.0.0.1", &plain]).unwrap();
    if let Some(python) = python() {
        let script = r#"
import ssl, sys
from pynetdicom import AE
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.minimum_version = context.maximum_version = version
    ae = AE()
    ae.add_requested_context('1.2.840.10008.1.1')
    a = ae.associate('127.0.0.1', int(sys.argv[1]), tls_args=(context, '127.0.0.1'))
    assert a.is_established, version
    assert a.send_c_echo().Status == 0
    a.release()
"#;
        run(python.to_str().unwrap(), &["-c", script, &port, text(&ca)]).unwrap();
    }
}

#[test]
fn a_sender_without_the_certificate_that_is_required_is_refused() {
    if skipped() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (key, certificate) = authority.sign("node");
    let (client_key, client) = authority.sign("scanner");
    let (strange_key, strange) = stranger.sign("scanner");
    let (port, ca) = (free_port().to_string(), authority.path("ca.pem"));
    let mut settings = settings(&port, &key, &certificate);
    settings.push(("TRIAGED__DIMSE__TLS__CLIENT_CA", text(&ca)));
    settings.push(("TRIAGED__DIMSE__TLS__REQUIRE_CLIENT_CERTIFICATE", "true"));
    let node = Node::start(&settings);
    let echo = |key: &Path, certificate: &Path| {
        run("echoscu", &["+tls", text(key), text(certificate), "+cf", text(&ca), "127.0.0.1", &port])
    };
    echo(&client_key, &client).unwrap();
    echo(&strange_key, &strange).unwrap_err();
    node.wait_for_log("the TLS handshake failed");
    run("echoscu", &["+tla", "+cf", text(&ca), "127.0.0.1", &port]).unwrap_err();
    echo(&client_key, &client).unwrap();
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    if skipped() {
        return;
    }
    let (first, second) = (Authority::new(), Authority::new());
    let (key, certificate) = first.sign("node");
    let (port, node_key, node_certificate) = (free_port().to_string(), first.path("used.key"), first.path("used.pem"));
    let install = |from: &(PathBuf, PathBuf)| {
        std::fs::copy(&from.0, &node_key).unwrap();
        std::fs::copy(&from.1, &node_certificate).unwrap();
    };
    install(&(key.clone(), certificate.clone()));
    let node = Node::start(&settings(&port, &node_key, &node_certificate));
    let trusts = |authority: &Authority| {
        let (client_key, client) = authority.sign("client");
        let ca = authority.path("ca.pem");
        run("echoscu", &["+tls", text(&client_key), text(&client), "+cf", text(&ca), "127.0.0.1", &port])
    };
    trusts(&first).unwrap();
    trusts(&second).unwrap_err();
    std::fs::write(&node_certificate, "not a certificate").unwrap();
    trusts(&first).unwrap();
    node.wait_for_log("the TLS certificate of before stays in use");
    install(&second.sign("node"));
    trusts(&second).unwrap();
    trusts(&first).unwrap_err();
    node.wait_for_log("a changed certificate, key or authority is in use");
}

/// The certificate that the node shows to a client that asks for this name and knows keys of this kind.
fn shown(port: &str, options: &[&str]) -> String {
    let connect = format!("127.0.0.1:{port}");
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &connect, "-showcerts"])
        .args(options)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().find(|line| line.starts_with("subject=")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_peer_is_bound_to_its_certificate_and_is_called_over_tls() {
    if skipped() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (key, certificate) = authority.sign("node");
    let (ct_key, ct) = authority.sign_for("ct1", "ec", "DNS:ct1.example.org,IP:127.0.0.1", 2);
    let (other_key, other) = authority.sign("other");
    let (port, ca) = (free_port().to_string(), authority.path("ca.pem"));
    let file = format!(
        r#"
[[dimse.peers]]
name = "ct1"
ae_titles = ["CT1"]
tls = true
certificates = ["ct1.example.org"]

[[dimse.peers]]
name = "itself"
ae_titles = ["TRIAGED"]
address = "127.0.0.1:{port}"
tls = true
certificates = ["node"]

[[dimse.peers]]
name = "impostor"
ae_titles = ["ELSE"]
address = "127.0.0.1:{port}"
tls = true
certificates = ["pacs"]
"#
    );
    let mut settings = settings(&port, &key, &certificate);
    settings.push(("TRIAGED__DIMSE__TLS__CLIENT_CA", text(&ca)));
    let node = Node::start_with_file(&file, &settings);
    let echo = |title: &str, key: &Path, certificate: &Path| {
        let tls = ["-v", "-aet", title, "+tls", text(key), text(certificate), "+cf", text(&ca), "127.0.0.1", &port];
        run("echoscu", &tls)
    };
    echo("CT1", &ct_key, &ct).unwrap();
    // Another's certificate, though it is of the same authority; none; and no TLS.
    assert!(echo("CT1", &other_key, &other).unwrap_err().contains("Rejected Permanent"));
    node.wait_for_log("shows another certificate");
    run("echoscu", &["-aet", "CT1", "+tla", "+cf", text(&ca), "127.0.0.1", &port]).unwrap_err();
    node.wait_for_log("shows no certificate");
    run("echoscu", &["-aet", "CT1", "127.0.0.1", &node.dimse.port().to_string()]).unwrap_err();
    node.wait_for_log("not over TLS");
    // The node calls a peer over TLS, with its own certificate, and is called by itself here.
    let called = node.cli(&["echo", "--peer", "itself"]);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    let refused = node.cli(&["echo", "--peer", "impostor"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("shows another certificate"), "{said}");
    let unknown = node.cli(&["echo", "--peer", "nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
    // An authority that the node does not trust.
    let strange = stranger.path("ca.pem");
    let mut changed = vec![("TRIAGED__DIMSE__TLS__PEER_CA", text(&strange))];
    changed.extend([("TRIAGED__DIMSE__PORT", "0")]);
    let distrust = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"))
        .args(["--config", text(&node.folder.path().join("triaged.toml")), "echo", "--peer", "itself"])
        .envs(settings.iter().chain(&changed).copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&distrust.stderr).into_owned();
    assert!(distrust.status.code() == Some(1) && said.contains("no TLS with"), "{said}");
}

#[test]
fn several_certificates_are_shown_by_name_and_kind_of_key_and_their_end_is_told() {
    if skipped() {
        return;
    }
    let authority = Authority::new();
    let (key, certificate) = authority.sign_for("first", "ec", "DNS:first.example.org", 90);
    let (rsa_key, rsa) = authority.sign_for("second", "rsa:2048", "DNS:*.second.org", 10);
    let port = free_port().to_string();
    let file = format!("[[dimse.tls.certificates]]\ncertificate = {:?}\nkey = {:?}\n", text(&rsa), text(&rsa_key));
    let node = Node::start_with_file(&file, &settings(&port, &key, &certificate));
    assert!(shown(&port, &["-servername", "first.example.org"]).contains("first"));
    assert!(shown(&port, &["-servername", "node.second.org"]).contains("second"));
    assert!(shown(&port, &["-noservername"]).contains("first"));
    assert!(shown(&port, &["-noservername", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"]).contains("second"));
    let metrics = node.get("/metrics").1;
    assert_eq!(metrics.matches("triaged_certificate_expiry_timestamp_seconds{").count(), 2, "{metrics}");
    let check = String::from_utf8(node.cli(&["check"]).stdout).unwrap();
    let line = check.lines().find(|line| line.contains("DICOM over TLS")).unwrap();
    assert!(line.starts_with("warn") && line.contains("second.pem ends in 9 days"), "{line}");
}

#[test]
fn the_page_is_served_over_https() {
    if !has("openssl") || !has("curl") {
        return;
    }
    let authority = Authority::new();
    let (key, certificate) = authority.sign("node");
    let ca = authority.path("ca.pem");
    let node =
        Node::start(&[("TRIAGED__WEB__TLS__CERTIFICATE", text(&certificate)), ("TRIAGED__WEB__TLS__KEY", text(&key))]);
    let get = |scheme: &str, version: &str| {
        let url = format!("{scheme}://{}/healthz", node.web);
        run("curl", &["-sS", "--max-time", "20", "--cacert", text(&ca), version, &url])
    };
    assert_eq!(get("https", "--tlsv1.3").unwrap(), "ok\n");
    assert!(get("http", "--http1.1").unwrap().contains("https://"));
    // A renewed certificate is shown without a restart: one of an authority that this client does not know.
    let stranger = Authority::new();
    let other = stranger.sign("node");
    let first = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
    std::fs::copy(&other.1, &certificate).unwrap();
    std::fs::copy(&other.0, &key).unwrap();
    get("https", "--tlsv1.3").unwrap_err();
    std::fs::write(&certificate, first.0).unwrap();
    std::fs::write(&key, first.1).unwrap();
    assert_eq!(get("https", "--tlsv1.3").unwrap(), "ok\n");
    node.wait_for_log("a client without TLS spoke to the HTTPS port");
    // One that says nothing keeps nobody waiting.
    let _silent: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(node.web).unwrap()).collect();
    assert_eq!(get("https", "--tlsv1.2").unwrap(), "ok\n");
}
