//! A fault at start is told in one line, before anything is accepted (promises 3 and 5): with exit code 2 where a person has to
//! mend it, with 1 where it may pass by itself and the service manager should try again.

use std::net::TcpListener;
use std::path::Path;

use crate::support::{Node, card, refused, refused_with};
use std::process::Command;

#[test]
fn a_device_that_is_not_there_is_no_silent_fallback() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIP this machine has a GPU");
        return;
    }
    for device in ["cuda", "tensorrt"] {
        // A library without the device stays without it; a driver may come later than the node.
        let (code, words) = if library_is_for_gpus() { (1, "docs/gpu.md") } else { (2, "make onnxruntime-cuda") };
        let said = refused_with(code, &[("TRIAGED__INFERENCE__DEVICE", device)]);
        let begins = format!("inference.device = \"{device}\" cannot run here");
        assert!(said.contains(&begins) && said.contains(words), "{said}");
    }
    // "auto" falls back, and says so where an administrator looks.
    let node = Node::start(&[("TRIAGED__INFERENCE__DEVICE", "auto")]);
    assert!(node.log().contains("falls back to the CPU"));
    let (status, ready) = node.get("/readyz");
    assert_eq!(status, 200);
    assert!(ready.contains("CPUExecutionProvider; fell back"), "{ready}");
}

fn library_is_for_gpus() -> bool {
    std::env::var_os("ORT_DYLIB_PATH")
        .is_some_and(|library| Path::new(&library).with_file_name("libonnxruntime_providers_cuda.so").exists())
}

#[test]
fn a_card_that_is_not_its_models_or_not_this_versions_is_refused() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 5] = [
        ("has SHA-256", |card| card["sha256"] = "0".repeat(64).into()),
        ("unknown variant `wavelets`", |card| card["transform"]["name"] = "wavelets".into()),
        ("unknown variant `vote`", |card| card["study_rule"]["kind"] = "vote".into()),
        ("format 99", |card| card["format"] = 99.into()),
        ("the graph has none of that name", |card| card["input"] = "elsewhere".into()),
    ];
    for (words, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let said = refused(&[("TRIAGED__INFERENCE__MODEL", &card(folder.path(), change))]);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_missing_library_model_or_port_is_named() {
    let said = refused(&[("TRIAGED__INFERENCE__ONNXRUNTIME", "/nowhere/libonnxruntime.so")]);
    assert!(said.contains("/nowhere/libonnxruntime.so") && said.contains("make onnxruntime"), "{said}");
    let said = refused(&[("TRIAGED__INFERENCE__MODEL", "/nowhere/m10.json")]);
    assert!(said.contains("/nowhere/m10.json"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refused(&[("TRIAGED__DIMSE__PORT", &port)]);
    assert!(said.contains("dimse.port") && said.contains(&port), "{said}");
    let said = refused(&[("TRIAGED__DIMSE__PROT", "104")]);
    assert!(said.contains("prot"), "{said}");
}

#[test]
fn a_disk_that_is_not_there_yet_is_tried_again_and_a_ledger_that_is_none_is_not() {
    let said = refused_with(1, &[("TRIAGED__DATA_DIR", "/proc/nowhere")]);
    assert!(said.contains("/proc/nowhere"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("triaged.db");
    let data_dir = [("TRIAGED__DATA_DIR", folder.path().to_str().unwrap())];
    // SQLite sees a missing mount, or missing rights, like this.
    std::fs::create_dir(&database).unwrap();
    let said = refused_with(1, &data_dir);
    assert!(said.contains("triaged.db"), "{said}");
    std::fs::remove_dir(&database).unwrap();
    std::fs::write(&database, "a text of more than a few bytes, which is no database").unwrap();
    let said = refused_with(2, &data_dir);
    assert!(said.contains("triaged.db"), "{said}");
}

#[test]
fn an_address_that_comes_late_is_waited_for() {
    // The address is of TEST-NET-1 (RFC 5737), which no machine has.
    let said = refused_with(1, &[("TRIAGED__DIMSE__LISTEN", "192.0.2.1")]);
    assert!(said.contains("dimse.port") && said.contains("192.0.2.1"), "{said}");
}

/// `triaged check` would be of no use if it said of settings that they are in order and the node refused them.
#[test]
fn what_a_start_refuses_of_the_settings_check_finds() {
    let cases = [
        ("TRIAGED__WEB__PUBLIC_URL", "triaged.example.org", "web.public_url"),
        ("TRIAGED__LOG__LEVEL", "verbose", "log.level"),
        ("TRIAGED__AUDIT__SYSLOG__CA", "/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("TRIAGED__WEB__VIEWER_URL", "https://pacs.example.org/{study}", "web.viewer_url"),
        ("TRIAGED__WEB__VIEWER_URL", "javascript:alert(1)", "web.viewer_url"),
    ];
    for (key, value, words) in cases {
        let settings =
            [("TRIAGED__AUDIT__SYSLOG__ADDRESS", "127.0.0.1:6514"), ("TRIAGED__AUDIT__SYSLOG__PROTOCOL", "tls")];
        let mut settings = if key.contains("SYSLOG") { settings.to_vec() } else { Vec::new() };
        settings.push((key, value));
        let said = refused(&settings);
        assert!(said.contains(words), "{words}: {said}");
        let folder = tempfile::tempdir().unwrap();
        let check = Command::new(env!("CARGO_BIN_EXE_triaged"))
            .arg("check")
            .env("TRIAGED__DATA_DIR", folder.path())
            .env("TRIAGED__DIMSE__PORT", "0")
            .env("TRIAGED__WEB__LISTEN", "127.0.0.1:0")
            .env("TRIAGED__INFERENCE__MODEL", crate::support::SPOT)
            .env("TRIAGED__INFERENCE__DEVICE", "cpu")
            .env("TRIAGED__ARCHIVE__MIN_FREE_MIB", "16")
            .env("NO_COLOR", "1")
            .envs(settings)
            .output()
            .unwrap();
        let lines = String::from_utf8(check.stdout).unwrap();
        let line = lines.lines().find(|line| line.starts_with("FAIL  settings ")).unwrap_or_default();
        assert!(line.contains(words), "{words}: {lines}");
        assert_eq!(check.status.code(), Some(1));
    }
}

#[test]
fn signals_that_are_no_wish_to_end_it_do_not_end_the_node() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut node = Node::start(&[]);
    let pid = Pid::from_raw(node.pid() as i32).expect("a process");
    // A terminal that closes, a rotation of logs, "read your settings again", and strays.
    for (signal, name) in
        [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2"), (Signal::ALARM, "SIGALRM")]
    {
        kill_process(pid, signal).expect("sent");
        node.wait_for_log(&format!("{name} is taken for nothing"));
    }
    kill_process(pid, Signal::PIPE).expect("sent");
    assert_eq!(node.get("/readyz").0, 200);
    assert!(node.terminate().success());
}
