//! Associations over TLS: DCMTK and pynetdicom with certificates of an authority made for the test by openssl.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::{Node, has, python, run};

/// A certificate authority in a folder of its own, and what it signed.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let authority = Authority { folder: tempfile::tempdir().unwrap() };
        let (key, certificate) = (authority.path("ca.key"), authority.path("ca.pem"));
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Test Authority"];
        run("openssl", &[&request[..], &["-keyout", text(&key), "-out", text(&certificate)]].concat()).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Key and certificate of this name for 127.0.0.1.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pem")));
        let (request, extensions) = (self.path(&format!("{name}.csr")), self.path("extensions"));
        std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        let subject = format!("/CN={name}");
        let ask = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject];
        run("openssl", &[&ask[..], &["-keyout", text(&key), "-out", text(&request)]].concat()).unwrap();
        let (ca_key, ca) = (self.path("ca.key"), self.path("ca.pem"));
        let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", text(&request), "-CA", text(&ca)];
        let out = ["-CAkey", text(&ca_key), "-extfile", text(&extensions), "-out", text(&certificate)];
        run("openssl", &[&sign[..], &out].concat()).unwrap();
        (key, certificate)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Settings for a TLS port with a certificate of this authority.
fn settings<'s>(port: &'s str, key: &'s Path, certificate: &'s Path) -> Vec<(&'s str, &'s str)> {
    vec![
        ("TRIAGED__DIMSE__TLS__PORT", port),
        ("TRIAGED__DIMSE__TLS__KEY", text(key)),
        ("TRIAGED__DIMSE__TLS__CERTIFICATE", text(certificate)),
    ]
}

fn skipped() -> bool {
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
    let (port, ca) = (free_port(), authority.path("ca.pem"));
    let node = Node::start(&settings(&port, &key, &certificate));
    let plain = node.dimse.port().to_string();
    let with_tls = ["+tls", text(&client_key), text(&client), "+cf", text(&ca)];
    run("echoscu", &[&with_tls[..], &["127.0.0.1", &port]].concat()).unwrap();
    if has("storescu") {
        let phantom = crate::support::phantom(&node, &["--slices", "2"]);
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
    let (port, ca) = (free_port(), authority.path("ca.pem"));
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
    let (port, node_key, node_certificate) = (free_port(), first.path("used.key"), first.path("used.pem"));
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
