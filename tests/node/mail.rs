//! Alerts by e-mail, against a real mail server (aiosmtpd).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support::ledgers::{Fixture, Study, study_event};
use crate::support::receivers::{Running, from_file};
use crate::support::{dicom_files, has, phantom, python, run};
use serde_json::Value;
use triaged::event::{Event, NodeTrouble, StudyEvent};
use triaged::ledger::NewMessage;
use triaged::notify::{Direct, Links, Message, Outcome, StudyFile, StudyFiles, Surroundings, channels};

/// A mail server and the mails it accepts, one a recipient.
struct MailServer {
    child: Child,
    port: u16,
    mails: mpsc::Receiver<Value>,
}

impl MailServer {
    /// `None`, said aloud, where the server's packages are absent.
    fn start(arguments: &[&str]) -> Option<MailServer> {
        let mut child = Command::new(python()?)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/smtp.py"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else {
            eprintln!("SKIP aiosmtpd does not run here (make test-deps)");
            child.wait().unwrap();
            return None;
        };
        let port = first.strip_prefix("port ").unwrap().parse().unwrap();
        let (accepted, mails) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // A test that has seen enough does not listen any more.
                let _ = accepted.send(serde_json::from_str(&line).unwrap());
            }
        });
        Some(MailServer { child, port, mails })
    }

    async fn next(&self) -> Value {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(mail) = self.mails.try_recv() {
                return mail;
            }
            assert!(std::time::Instant::now() < deadline, "no mail came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate for localhost that nobody signed: its file and its key's.
fn certificate(folder: &Path) -> Option<(String, String)> {
    if !has("openssl") {
        return None;
    }
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key, settings) = (path("cert.pem"), path("key.pem"), path("openssl.conf"));
    let text = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n[name]\nCN = localhost\n\
                [extensions]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical, CA:FALSE\n";
    std::fs::write(&settings, text).unwrap();
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-config",
        &settings,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    run("openssl", &arguments).unwrap();
    Some((certificate, key))
}

fn settings(port: u16, more: &str) -> String {
    format!(
        r#"
        [notify]
        first_retry_seconds = 0.05
        time_zone = "UTC"
        [[notify.channels]]
        name = "mail"
        kind = "email"
        server = "localhost"
        port = {port}
        from = "triaged <triaged@example.org>"
        {more}
        "#
    )
}

/// Quoted-printable undone, as far as these mails need it.
fn readable(mail: &Value) -> String {
    mail["data"]
        .as_str()
        .unwrap()
        .replace("=\r\n", "")
        .replace("=3D", "=")
        .replace("=C2=A0", " ")
        .replace("=EF=BF=BD", "\u{fffd}")
}

#[tokio::test]
async fn a_flag_is_mailed_without_patient_data_in_its_subject_and_the_same_at_every_attempt() {
    let Some(server) = MailServer::start(&["--greylist", "2"]) else { return };
    let fixture = Fixture::new();
    let settings = from_file(&settings(server.port, "security = 'none'\nto = ['a@example.org', 'b@example.org']\n"));
    let links = Links::new("https://triaged.example.org", vec![1; 32]).unwrap();
    let running = Running::start_with(&fixture.ledger, &settings, links);
    let hostile =
        Study { accession_number: Some("ACC-1\r\nBcc: evil@example.org <b>"), ..Study::new("1.2.3", &[0.2, 0.9]) };
    fixture.judge_and_route(&hostile, &running.routing).await;
    let mails = [server.next().await, server.next().await];
    let row = fixture.until(|row| row.state == "delivered").await;
    assert!(row.attempts >= 2, "the first attempt was put off");
    assert_eq!(mails[0]["data"], mails[1]["data"]);
    let mut recipients: Vec<&str> = mails.iter().map(|mail| mail["to"][0].as_str().unwrap()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["a@example.org", "b@example.org"]);
    let text = readable(&mails[0]);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Subject: Study flagged: suspected intracranial hemorrhage"), "{head}");
    assert!(!head.contains("ACC-1") && !head.contains("Bcc"), "{head}");
    for header in ["Auto-Submitted: auto-generated", "X-Triaged-Event: flagged", "Importance: high", "Message-ID: <"] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(body.contains("Accession number: ACC-1\u{fffd}\u{fffd}Bcc: evil@example.org <b>"), "{body}");
    assert!(body.contains("&#60;b&#62;") || body.contains("&lt;b&gt;"), "the page escapes it: {body}");
    assert!(body.contains("https://triaged.example.org/studies/1.2.3"), "{body}");
    assert!(body.contains("/acknowledge?study="), "{body}");
    assert!(body.contains("instance 1") && body.contains("not a diagnosis") && !body.contains("PAT-1"), "{body}");
    running.stop().await;
}

/// A study of one file.
struct OneFile(std::path::PathBuf);

impl StudyFiles for OneFile {
    fn files(&self, _: &str) -> Result<Vec<StudyFile>, String> {
        Ok(vec![StudyFile { series_uid: "1".into(), sop_uid: "1".into(), path: self.0.clone() }])
    }
}

#[tokio::test]
async fn a_patients_name_is_in_the_mail_where_that_is_wanted_and_forges_no_line_of_it() {
    let Some(server) = MailServer::start(&[]) else { return };
    if !has("dcmodify") {
        return;
    }
    let series = phantom(&["--lesion", "epidural"]);
    let file = dicom_files(series.path()).remove(0);
    let name = "(0010,0010)=Doe^Jane\nBcc: evil@example.org\n\nScore: 0.0";
    run("dcmodify", &["-nb", "-m", name, file.to_str().unwrap()]).unwrap();
    let more = "security = 'none'\nto = ['a@example.org']\ninclude_patient_name = true\ninclude_patient_id = true\n";
    let settings = from_file(&settings(server.port, more));
    let surroundings = Surroundings { files: Arc::new(OneFile(file)), ..Surroundings::default() };
    let channel = channels(&settings, &surroundings).unwrap().remove(0);
    let study = StudyEvent { patient_id: Some("12\u{202e}345".into()), ..study_event("1.2.3") };
    let message = Message {
        id: 0,
        idempotency_key: "k".into(),
        created_at: "2026-11-23T15:42:09.100Z".into(),
        step: 0,
        event: Event::Flagged(study),
        study_url: None,
        acknowledge_url: None,
    };
    assert!(matches!(channel.deliver(&message).await, Outcome::Delivered));
    let text = readable(&server.next().await);
    assert!(
        text.contains("\r\nPatient name: Doe, Jane\u{fffd}Bcc: evil@example.org\u{fffd}\u{fffd}Score: 0.0\r\n"),
        "{text}"
    );
    assert!(text.contains("Patient ID: 12\u{fffd}345\r\n"), "{text}");
    assert!(text.lines().all(|line| !line.starts_with("Bcc") && !line.starts_with("Score: 0.0")), "{text}");
}

#[tokio::test]
async fn a_refused_recipient_keeps_nobody_else_from_being_told_and_is_seen() {
    let Some(server) = MailServer::start(&["--refuse", "gone@example.org"]) else { return };
    let fixture = Fixture::new();
    let settings = from_file(&settings(server.port, "security = 'none'\nto = ['gone@example.org', 'b@example.org']\n"));
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.3", &[0.9]), &running.routing).await;
    assert_eq!(server.next().await["to"][0], "b@example.org");
    // Somebody was told, so it is no failed alert; whom it did not reach is said.
    let row = fixture.until(|row| row.state == "delivered").await;
    let error = row.last_error.unwrap();
    assert!(error.contains("550") && error.contains("gone@example.org"), "{error}");
    assert!(fixture.ledger.study("1.2.3").unwrap().unwrap().notified_at.is_some());
    running.stop().await;
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.4", &[0.9]), &running.routing).await;
    let mail = server.next().await;
    assert!(readable(&mail).contains("1.2.4"), "the first is told nobody again: {mail}");
    running.stop().await;
}

#[tokio::test]
async fn who_has_a_mail_does_not_get_it_again_over_a_restart_while_another_is_put_off() {
    let Some(server) = MailServer::start(&["--defer", "full@example.org"]) else { return };
    let fixture = Fixture::new();
    let settings = from_file(&settings(server.port, "security = 'none'\nto = ['a@example.org', 'full@example.org']\n"));
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.3", &[0.9]), &running.routing).await;
    assert_eq!(server.next().await["to"][0], "a@example.org");
    let before = fixture.until(|row| row.attempts > 0).await;
    assert!(before.last_error.unwrap().contains("451"));
    running.stop().await;
    let running = Running::start(&fixture.ledger, &settings);
    // Made due at once: the waits between attempts double.
    fixture.database().execute("UPDATE outbox SET next_attempt_at = created_at", []).unwrap();
    fixture.until(|row| row.attempts > before.attempts).await;
    running.stop().await;
    assert!(server.mails.try_recv().is_err(), "a@example.org has it");
}

#[tokio::test]
async fn news_past_the_ledger_reaches_every_recipient_each_time() {
    let Some(server) = MailServer::start(&["--refuse", "gone@example.org"]) else { return };
    let settings = from_file(&settings(server.port, "security = 'none'\nto = ['a@example.org', 'gone@example.org']\n"));
    let direct = Direct::new(&settings, &Surroundings::default()).unwrap();
    for since in ["2026-11-27T10:00:00.000Z", "2026-11-27T11:00:00.000Z"] {
        let trouble = NodeTrouble {
            ae_title: "TRIAGED".into(),
            ready: false,
            since: since.into(),
            reasons: vec!["ledger: it does not answer".into()],
            software: triaged::SOFTWARE.into(),
        };
        let event = Arc::new(Event::NodeTrouble(trouble));
        let message = NewMessage { channel: "mail".into(), event, escalation: None };
        assert_eq!(direct.tell(&[message], Duration::from_secs(30)).await, 1, "somebody has it");
        assert_eq!(server.next().await["to"][0], "a@example.org");
    }
}

#[tokio::test]
async fn a_password_goes_only_over_tls_that_holds() {
    let folder = tempfile::tempdir().unwrap();
    let Some((certificate, key)) = certificate(folder.path()) else { return };
    for security in ["starttls", "tls"] {
        let login = ["--user", "triaged", "--password", "a secret"];
        let tls = ["--security", security, "--certificate", &certificate, "--key", &key];
        let Some(server) = MailServer::start(&[&tls[..], &login].concat()) else { return };
        let password = folder.path().join("password");
        std::fs::write(&password, "a secret\n").unwrap();
        let account = format!(
            "security = '{security}'\nusername = 'triaged'\npassword_file = '{}'\nto = ['a@example.org']\n",
            password.display()
        );
        // Nobody vouches for the certificate: nothing is sent.
        let fixture = Fixture::new();
        let running = Running::start(&fixture.ledger, &from_file(&settings(server.port, &account)));
        fixture.judge_and_route(&Study::new("1.2.3", &[0.9]), &running.routing).await;
        let row = fixture.until(|row| row.attempts > 0).await;
        assert!(row.last_error.unwrap().contains("certificate"));
        assert!(server.mails.try_recv().is_err());
        running.stop().await;

        let fixture = Fixture::new();
        let trusted = format!("{account}ca_file = '{certificate}'\n");
        let running = Running::start(&fixture.ledger, &from_file(&settings(server.port, &trusted)));
        fixture.judge_and_route(&Study::new("1.2.3", &[0.9]), &running.routing).await;
        let mail = server.next().await;
        assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &"triaged".into()), "{security}");
        fixture.until(|row| row.state == "delivered").await;
        running.stop().await;
    }
}
