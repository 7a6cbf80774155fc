//! The command line as a person uses it: the real program on a data folder.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::support::ledgers::study_event;
use crate::support::{Node, phantom};
use triaged::event::Event;
use triaged::ledger::{
    Delivery, Instances, Ledger, NewInstance, NewMessage, Outbox, Queue, Score, SliceStart, Studies, Verdict,
    WorklistRow, now,
};

/// A data folder with a ledger in it.
struct Site {
    folder: tempfile::TempDir,
    ledger: Ledger,
    runtime: tokio::runtime::Runtime,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// The program with no settings from the environment of whoever runs the tests.
fn program(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRIAGED") {
            command.env_remove(name);
        }
    }
    command.env("TRIAGED__DATA_DIR", data_dir).stdin(Stdio::null());
    command
}

fn run(data_dir: &Path, args: &[&str]) -> Ran {
    let output = program(data_dir).args(args).output().unwrap();
    Ran {
        code: output.status.code().expect("the program is not killed by a signal"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// It could not be tried, and said so in one line.
    #[track_caller]
    fn refused(&self, word: &str) {
        assert_eq!(self.code, 2, "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("triaged: "), "{}", self.err);
        assert!(self.err.contains(word), "{}", self.err);
        assert_eq!(self.out, "");
    }

    #[track_caller]
    fn done(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (0, ""));
        &self.out
    }
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
        Site { folder, ledger, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.folder.path(), args)
    }

    fn instance(&self, study: &str, number: i64, accession: &str, slice: SliceStart) {
        let instance = NewInstance {
            sop_uid: format!("{study}.1.{number}"),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            study_uid: study.into(),
            series_uid: format!("{study}.1"),
            instance_number: Some(number),
            accession_number: Some(accession.into()),
            patient_id: Some("PAT".into()),
            digest: format!("{number:064}"),
            path: format!("archive/{study}/{number}"),
            size: 1,
            calling_ae: "CT".into(),
            peer: "127.0.0.1".into(),
            received_at: now(),
            slices: vec![slice.into()],
            stat: false,
            about: Default::default(),
            concatenation: None,
            images_in_acquisition: None,
            resumes: true,
            is_taken_in_again: false,
        };
        self.runtime.block_on(self.ledger.store(instance)).unwrap();
    }

    /// Scores what waits, with the probabilities in order, then judges all open studies: flagged from 0.5.
    fn score_and_judge(&self, probabilities: &[f64]) {
        let claims = self.runtime.block_on(crate::support::ledgers::lease(&self.ledger, 1000));
        assert_eq!(claims.len(), probabilities.len());
        let scores = claims.iter().zip(probabilities).map(|(claim, &probability)| Score {
            shows: triaged_imaging::Shows::Head,
            lease: claim.lease,
            probability,
            positive: probability >= 0.5,
            location: None,
            threshold: 0.5,
            model: "m10".into(),
            model_sha256: "ab".repeat(32),
            provider: "CPUExecutionProvider".into(),
            claimed_at: now(),
            decoded_at: now(),
            scored_at: now(),
        });
        self.runtime.block_on(self.ledger.complete(scores.collect())).unwrap();
        for study in self.ledger.open_studies(&"ab".repeat(32)).unwrap() {
            let score = study.highest_probability();
            let flagged = score.map(|score| score >= 0.5);
            let verdict = Verdict {
                study_uid: study.study_uid.clone(),
                revision: study.revision,
                provisional: false,
                flagged,
                score,
                threshold: 0.5,
                rule: r#"{"kind":"kth_highest","k":1,"threshold":0.5}"#.into(),
                model: "m10".into(),
                model_sha256: "ab".repeat(32),
                slices_received: study.slices_received,
                slices_scored: study.slices_scored(),
                slices_ineligible: study.slices_ineligible,
                slices_failed: study.slices_failed,
                refused: 0,
                is_broken_off: false,
                decided_at: now(),
                last_received_at: now(),
                evidence: Default::default(),
            };
            let (channel, event) = ("webhook".into(), Arc::new(Event::Flagged(study_event(&study.study_uid))));
            let alerts = flagged.filter(|&flagged| flagged).map(|_| NewMessage { channel, event, escalation: None });
            assert!(self.runtime.block_on(self.ledger.decide(verdict, alerts.into_iter().collect())).unwrap());
        }
    }

    /// Three studies: flagged (UID 1.2.10), not flagged (1.2.20), and one whose only slice is ineligible (1.2.30).
    fn with_three_studies() -> Site {
        let site = Site::new();
        site.instance("1.2.10", 1, "ACC10", SliceStart::Queued);
        site.instance("1.2.10", 2, "ACC10", SliceStart::Queued);
        site.instance("1.2.20", 1, "ACC20", SliceStart::Queued);
        site.instance("1.2.30", 1, "ACC30", SliceStart::Ineligible("image type is LOCALIZER".into()));
        site.score_and_judge(&[0.1, 0.93, 0.2]);
        site
    }

    fn row(&self, study: &str) -> WorklistRow {
        self.ledger.study(study).unwrap().unwrap()
    }

    fn kill_the_only_notification(&self) -> i64 {
        let row = self.ledger.due("webhook", 10, Duration::from_secs(3600)).unwrap().remove(0);
        self.runtime
            .block_on(self.ledger.settle(row.id, Delivery::Dead { at: now(), error: "HTTP 404".into() }))
            .unwrap();
        row.id
    }
}

#[test]
fn the_worklist_puts_flagged_studies_first_and_never_clears_one() {
    let site = Site::with_three_studies();
    let ran = site.run(&["results"]);
    let lines: Vec<&str> = ran.done().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("verdict"));
    assert!(lines[1].starts_with("FLAGGED ") && lines[1].ends_with("1.2.10"), "{}", lines[1]);
    assert!(lines[2].starts_with("not triaged ") && lines[2].ends_with("1.2.30"), "{}", lines[2]);
    assert!(lines[3].starts_with("not flagged ") && lines[3].ends_with("1.2.20"), "{}", lines[3]);
    assert!(!ran.out.to_lowercase().contains("normal"));

    assert_eq!(site.run(&["results", "--flagged"]).done().lines().count(), 2);
    assert_eq!(site.run(&["results", "--since", "1h"]).done(), site.run(&["results"]).done());
    assert_eq!(site.run(&["results", "--since", "2999-01-01"]).done(), "no study has been received since 2999-01-01\n");
    site.run(&["results", "--since", "soon"]).refused("--since soon");
    let limited = site.run(&["results", "--limit", "1"]);
    assert_eq!(limited.done().lines().count(), 3);
    assert!(limited.out.contains("and more"));
}

#[test]
fn the_worklist_as_json_and_csv_has_the_columns_of_the_view() {
    let site = Site::with_three_studies();
    let json: serde_json::Value = serde_json::from_str(site.run(&["results", "--format", "json"]).done()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["study_uid"], "1.2.10");
    assert_eq!(json[0]["flagged"], true);
    assert_eq!(json[1]["flagged"], serde_json::Value::Null);

    let ran = site.run(&["results", "--format", "csv"]);
    let mut reader = csv::Reader::from_reader(ran.done().as_bytes());
    let connection = rusqlite::Connection::open(site.folder.path().join("triaged.db")).unwrap();
    let statement = connection.prepare("SELECT * FROM worklist").unwrap();
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), statement.column_names());
    let first = reader.records().next().unwrap().unwrap();
    assert_eq!(&first[0], "1.2.10");
    assert_eq!(&first[4], "1");
}

#[test]
fn a_study_is_shown_slice_by_slice() {
    let site = Site::with_three_studies();
    let ran = site.run(&["results", "show", "1.2.10"]);
    let page = ran.done();
    assert!(page.contains("FLAGGED, score 0.930, threshold 0.500, revision 1"), "{page}");
    assert!(page.contains("webhook") && page.contains("pending"), "{page}");
    let bars: Vec<&str> = page.lines().filter(|line| line.contains('┊') || line.contains('┃')).collect();
    assert!(bars[0].ends_with("0.100") && bars[1].ends_with("0.930 positive"), "{page}");

    let ineligible = site.run(&["results", "show", "ACC30"]);
    assert!(ineligible.done().contains("ineligible: image type is LOCALIZER"), "{}", ineligible.out);
    assert!(ineligible.out.contains("not triaged"));

    let json: serde_json::Value =
        serde_json::from_str(site.run(&["results", "show", "1.2.10", "--format", "json"]).done()).unwrap();
    assert_eq!(json["slices"][1]["probability"], 0.93);
    assert_eq!(json["verdicts"][0]["model"], "m10");
    assert_eq!(json["notifications"][0]["state"], "pending");

    let ran = site.run(&["results", "show", "1.2.10", "--format", "csv"]);
    let mut reader = csv::Reader::from_reader(ran.done().as_bytes());
    let connection = rusqlite::Connection::open(site.folder.path().join("triaged.db")).unwrap();
    let statement = connection.prepare("SELECT * FROM slice_results").unwrap();
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), statement.column_names());
    assert_eq!(reader.records().count(), 2);
}

#[test]
fn a_study_is_found_by_uid_accession_number_or_unique_beginning() {
    let site = Site::with_three_studies();
    for name in ["1.2.20", "ACC20", "1.2.2", " 1.2.20 "] {
        let ran = site.run(&["results", "show", name]);
        assert!(ran.done().starts_with("study         1.2.20\n"), "{}", ran.out);
    }
    site.run(&["results", "show", "1.2"]).refused("could be several studies");
    let ran = site.run(&["results", "show", "9"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "triaged: there is no study 9; `triaged results` lists them\n"));
    // A name is text, not a pattern.
    assert_eq!(site.run(&["results", "show", "%"]).code, 1);
}

#[test]
fn what_a_scanner_sent_can_neither_command_the_terminal_nor_be_a_formula() {
    let site = Site::new();
    site.instance("1.2.40", 1, "=cmd|'/c calc'!A1", SliceStart::Ineligible("\x1b]0;x\x07\u{9b}31m".into()));
    for args in [
        &["results"] as &[&str],
        &["results", "--format", "json"],
        &["results", "--format", "csv"],
        &["results", "show", "1.2.40"],
        &["results", "show", "1.2.40", "--format", "json"],
        &["results", "show", "1.2.40", "--format", "csv"],
    ] {
        let ran = site.run(args);
        assert!(!ran.done().chars().any(|c| c.is_control() && c != '\n'), "{args:?}: {:?}", ran.out);
    }
    let ran = site.run(&["results", "--format", "csv"]);
    let record = csv::Reader::from_reader(ran.done().as_bytes()).records().next().unwrap().unwrap();
    assert_eq!(&record[1], "'=cmd|'/c calc'!A1");
}

#[test]
fn an_acknowledgement_is_noted_once() {
    let site = Site::with_three_studies();
    assert_eq!(site.run(&["ack", "ACC10"]).done(), "acknowledged 1.2.10\n");
    let first = site.row("1.2.10").acknowledged_at;
    assert!(first.is_some());
    assert_eq!(site.run(&["ack", "1.2.10"]).done(), "was acknowledged before: 1.2.10\n");
    assert_eq!(site.row("1.2.10").acknowledged_at, first);
    assert_eq!(site.run(&["ack", "7"]).code, 1);
}

#[test]
fn the_audit_log_says_who_did_what() {
    let site = Site::with_three_studies();
    assert_eq!(site.run(&["audit"]).done(), "nothing has been done\n");
    let by = |user: &str, args: &[&str]| {
        let mut command = program(site.folder.path());
        command.env("USER", user).env_remove("SUDO_USER").args(args);
        assert!(command.output().unwrap().status.success(), "{args:?}");
    };
    by("ann", &["ack", "ACC10"]);
    let id = site.kill_the_only_notification().to_string();
    by("=bob\x1b[31m", &["requeue", &id]);
    let json: serde_json::Value = serde_json::from_str(site.run(&["audit", "--format", "json"]).done()).unwrap();
    let of = |row: usize| {
        let text = |key: &str| json[row][key].as_str().unwrap().to_owned();
        (text("actor_kind"), text("deed"), text("study_uid"))
    };
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(of(0), ("person".into(), "study.acknowledge".into(), "1.2.10".into()));
    assert_eq!(json[0]["actor"], "ann");
    assert_eq!(of(1), ("person".into(), "notification.requeue".into(), "1.2.10".into()));
    let csv = site.run(&["audit", "--format", "csv", "--limit", "1"]);
    let mut reader = csv::Reader::from_reader(csv.done().as_bytes());
    let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header, ["id", "at", "actor_kind", "actor", "deed", "study_uid", "details", "hash"]);
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!((records.len(), &records[0][4]), (1, "notification.requeue"));
    assert!(records[0][3].starts_with("'=bob"), "{}", csv.out);
    let table = site.run(&["audit", "--study", "ACC10"]);
    assert!(table.done().contains("ann") && table.out.contains("study.acknowledge"), "{}", table.out);
    assert!(!table.out.chars().any(|c| c.is_control() && c != '\n'), "{:?}", table.out);
    assert_eq!(site.run(&["audit", "--since", "2999-01-01"]).done(), "nothing has been done\n");
    site.run(&["audit", "--since", "tomorrow"]).refused("--since tomorrow");
}

#[test]
fn who_runs_a_command_is_known_without_a_login_of_the_shell() {
    let site = Site::with_three_studies();
    let mut command = program(site.folder.path());
    for name in ["USER", "LOGNAME", "SUDO_USER"] {
        command.env_remove(name);
    }
    assert!(command.args(["ack", "ACC10"]).output().unwrap().status.success());
    let json: serde_json::Value = serde_json::from_str(site.run(&["audit", "--format", "json"]).done()).unwrap();
    let name = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert_eq!(json[0]["actor"], name.trim());
}

#[test]
fn a_name_that_reads_otherwise_than_it_is_is_no_name() {
    let site = Site::with_three_studies();
    site.run(&["user", "add", "ad\u{202e}a"]).refused("no name");
    let help = site.run(&["user", "add", "--help"]);
    assert!(help.done().contains("name to log in with"), "{}", help.out);
    let help = site.run(&["feedback", "--help"]);
    assert!(help.done().contains("yesterday, or 2h"), "{}", help.out);
    let backup = site.folder.path().join("copy.db");
    assert!(site.run(&["backup", backup.to_str().unwrap()]).done().contains(": 3 studies, "));
}

/// A rule on a counter that begins with its first event does not see that event.
#[test]
fn a_fresh_node_has_every_metric_that_the_documents_name() {
    let file = "[[notify.channels]]\nname = \"pager\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9\"\n\
                [[forward]]\nname = \"pacs\"\naddress = \"127.0.0.1:9\"\ncalled_ae_title = \"PACS\"\n";
    let node = Node::start_with_file(file, &[]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(folder.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let text: String = documents
        .chain([folder.join("README.md")])
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let named: std::collections::BTreeSet<&str> = text
        .split('`')
        .flat_map(|part| part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .filter(|word| word.starts_with("triaged_"))
        .collect();
    assert!(named.len() > 5, "{named:?}");
    let metrics = || node.get("/metrics").1;
    let is_there = |metrics: &str, name: &str| {
        metrics.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', '_'])))
    };
    // There are none without certificates.
    let named = named.into_iter().filter(|name| *name != "triaged_certificate_expiry_timestamp_seconds");
    let begun = std::time::Instant::now();
    for name in named {
        while !is_there(&metrics(), name) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is not there:\n{}", metrics());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let metrics = metrics();
    for line in [
        "triaged_notifications_total{channel=\"pager\",outcome=\"delivered\"} 0",
        "triaged_forwards_total{destination=\"pacs\",outcome=\"failed\"} 0",
        "triaged_unrouted_events_total{kind=\"flagged\"} 0",
        "triaged_verdicts_total{flagged=\"incomplete\"} 0",
        "triaged_escalations_total 0",
    ] {
        assert!(metrics.lines().any(|there| there == line), "{line} is not there:\n{metrics}");
    }
}

#[test]
fn dead_notifications_are_listed_and_sent_again() {
    let site = Site::with_three_studies();
    assert_eq!(site.run(&["requeue"]).done(), "no notification is dead\n");
    let id = site.kill_the_only_notification();
    let listed = site.run(&["requeue"]);
    assert!(listed.done().contains("HTTP 404") && listed.out.contains("1.2.10"), "{}", listed.out);
    assert_eq!(site.run(&["requeue", "999"]).code, 1);
    assert_eq!(site.run(&["requeue", &id.to_string()]).done(), "1 notification will be sent again\n");
    assert_eq!(site.ledger.due("webhook", 10, Duration::from_secs(3600)).unwrap().len(), 1);
    site.kill_the_only_notification();
    assert_eq!(site.run(&["requeue", "--all"]).done(), "1 notification will be sent again\n");
    assert_eq!(site.run(&["requeue", "--all"]).done(), "0 notifications will be sent again\n");
}

#[test]
fn a_backup_is_whole_overwrites_nothing_and_says_what_is_not_in_it() {
    let site = Site::with_three_studies();
    let to = site.folder.path().join("copy.db");
    let ran = site.run(&["backup", to.to_str().unwrap()]);
    assert!(ran.done().contains("3 studies"), "{}", ran.out);
    assert!(ran.out.contains(site.folder.path().join("archive").to_str().unwrap()), "{}", ran.out);
    let copy = Ledger::open(&to).unwrap();
    let of_copy = copy.worklist(&Default::default()).unwrap();
    assert_eq!(of_copy.len(), 3);
    drop(copy);
    site.run(&["backup", to.to_str().unwrap()]).refused("is not overwritten");
    site.run(&["backup", "/nowhere/copy.db"]).refused("/nowhere/copy.db");
    let left: Vec<_> = std::fs::read_dir(site.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
}

/// A command tells of another version's tables what they are, not what SQLite misses in them.
#[test]
fn a_database_of_an_earlier_version_can_be_checked_and_copied_and_is_changed_under_no_node() {
    const FORMER: &str = include_str!("../../src/ledger/sqlite/tests/former_schema_4.sql");
    let folder = tempfile::tempdir().unwrap();
    let (database, copy) = (folder.path().join("triaged.db"), folder.path().join("copy.db"));
    let schema = |path: &Path| -> i64 {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    rusqlite::Connection::open(&database).unwrap().execute_batch(FORMER).unwrap();
    let check = || {
        let output = program(folder.path()).env("TRIAGED__DIMSE__PORT", "0").arg("check").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let lines = check();
    let database_line = lines.lines().find(|line| line.contains("  database ")).unwrap();
    assert!(database_line.starts_with("warn") && database_line.contains("schema 4, which an earlier"), "{lines}");
    assert!(!lines.contains("no such"), "{lines}");
    let looks: [&[&str]; 7] = [
        &["results"],
        &["report", "1", "--out", "x.dcm"],
        &["feedback"],
        &["audit"],
        &["requeue"],
        &["rescore", "--all"],
        &["user", "list"],
    ];
    for args in looks {
        run(folder.path(), args).refused("which an earlier triaged made");
    }
    run(folder.path(), &["recover", "--dry-run"]).refused("which an earlier triaged made");
    assert!(run(folder.path(), &["backup", copy.to_str().unwrap()]).done().contains("5 studies"));
    assert_eq!((schema(&database), schema(&copy)), (4, 4));

    // An earlier node that still runs would go on by tables that are others now.
    let lock = triaged::node::try_lock(folder.path()).unwrap().expect("nothing else works on the folder");
    for args in [&["requeue", "--all"] as &[&str], &["ack", "1"], &["user", "remove", "anna"]] {
        run(folder.path(), args).refused("which an earlier triaged made");
    }
    assert_eq!(schema(&database), 4);
    drop(lock);
    run(folder.path(), &["requeue", "--all"]).done();
    assert!(schema(&database) > 4);
    let lines = check();
    assert!(lines.lines().any(|line| line.starts_with("ok    database ")), "{lines}");

    // A file without tables is what a node makes them in.
    std::fs::remove_file(&copy).unwrap();
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(empty.path().join("triaged.db"), "").unwrap();
    let output = program(empty.path()).arg("check").output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains("has schema 0") && !lines.contains("no such"), "{lines}");
}

#[test]
fn without_a_database_a_command_says_so_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    for args in
        [&["results"] as &[&str], &["results", "show", "1"], &["ack", "1"], &["requeue", "--all"], &["backup", "x.db"]]
    {
        run(&missing, args).refused("there is no database");
    }
    assert!(!missing.exists(), "asking makes no folder");
}

#[test]
fn wrong_settings_are_one_line_and_exit_code_2() {
    let site = Site::new();
    let refused = |name: &str, value: &str, word: &str| {
        let output = program(site.folder.path()).env(name, value).arg("results").output().unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        ran.refused(word);
    };
    refused("TRIAGED__DIMSE__PROT", "1", "prot");
    refused("TRIAGED__DIMSE__PORT", "many", "port");
    refused("TRIAGED__DIMSE__MAX_PDU_BYTES", "1", "max_pdu_bytes");
    site.run(&["--config", "/nowhere/triaged.toml", "results"]).refused("/nowhere/triaged.toml");
    let file = site.folder.path().join("site.toml");
    std::fs::write(&file, "[dimse]\nprot = 1\n").unwrap();
    site.run(&["--config", file.to_str().unwrap(), "results"]).refused("prot");
    std::fs::write(&file, "[dimse\n").unwrap();
    site.run(&["--config", file.to_str().unwrap(), "results"]).refused("configuration");
    assert_eq!(site.run(&["--data-dir", "/nowhere", "results"]).code, 2);
    assert_eq!(site.run(&["reslts"]).code, 2);
}

#[test]
fn a_phantom_is_a_series_of_one_study_and_the_same_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut args = vec!["phantom", "--out", out.to_str().unwrap(), "--slices", "3"];
        args.extend(more);
        let study = run(folder.path(), &args).done().trim_end().to_owned();
        let mut files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 3);
        for file in &files {
            let object = triaged_imaging::read_file(file).unwrap();
            let uid = object.element(dicom_dictionary_std::tags::STUDY_INSTANCE_UID).unwrap().to_str().unwrap();
            assert_eq!(uid.trim_end_matches('\0'), study);
        }
        (study, std::fs::read(&files[1]).unwrap())
    };
    let healthy = make("healthy", &[]);
    let bleeding = make("bleeding", &["--lesion", "subdural", "--seed", "7"]);
    let again = make("again", &["--lesion", "subdural", "--seed", "7"]);
    assert_eq!(bleeding, again);
    assert_ne!(healthy.0, bleeding.0);
    let ran = run(folder.path(), &["phantom", "--out", "/proc/nowhere"]);
    ran.refused("/proc/nowhere");
    assert_eq!(run(folder.path(), &["phantom", "--out", "x", "--lesion", "tumour"]).code, 2);
}

#[test]
fn check_reports_settings_that_are_wrong_and_files_that_are_lost() {
    let site = Site::with_three_studies();
    let ran = site.run(&["--config", "/nowhere/triaged.toml", "check"]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 1), "{}", ran.out);
    assert!(ran.out.starts_with("FAIL  configuration "), "{}", ran.out);

    let check = || {
        let output = program(site.folder.path())
            .envs([("TRIAGED__INFERENCE__MODEL", "/nowhere/m10.json"), ("TRIAGED__DIMSE__PORT", "0")])
            .arg("check")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    // It waits for a channel that these settings do not have.
    let lines = check();
    let waiting = lines.lines().find(|line| line.starts_with("warn  dead letters ")).unwrap_or_default();
    assert!(waiting.contains("not configured here: webhook"), "{lines}");
    site.kill_the_only_notification();
    let lines = check();
    for begin in ["ok    database ", "FAIL  archive ", "FAIL  model ", "warn  dead letters "] {
        assert!(lines.lines().any(|line| line.starts_with(begin)), "{begin}: {lines}");
    }
    assert!(lines.contains("4 of 4 files looked at are missing"), "{lines}");
}

#[test]
fn serve_without_its_model_accepts_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path())
        .envs([("TRIAGED__INFERENCE__MODEL", "/nowhere/m10.json"), ("TRIAGED__LOG__LEVEL", "error")])
        .args(["serve", "--port", "0", "--web", "", "--listen", "127.0.0.1"])
        .output()
        .unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    ran.refused("/nowhere/m10.json");
    for level in ["debgu", "info=loud", ""] {
        run(folder.path(), &["serve", "--port", "0", "--web", "", "--log", level]).refused("log.level");
    }
}

#[test]
fn a_mistake_in_the_settings_is_one_line_that_names_file_line_and_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("triaged.toml");
    let said = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let ran = run(folder.path(), &["--config", file.to_str().unwrap(), "results"]);
        assert_eq!(ran.code, 2);
        ran.err
    };
    let line = said("[dimse]\nport = \"a b\n");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("triaged.toml") && line.contains("line 2") && !line.contains('\u{fffd}'), "{line}");
    assert!(line.contains("port = \"a b"), "{line}");
    assert!(said("[dimse]\nport = \"abc\"\n").contains("dimse.port"));
    assert!(said("[dimse]\nportt = 1\n").contains("portt"));
}

#[test]
fn echo_and_send_take_port_and_title_from_the_settings() {
    let node = Node::start(&[("TRIAGED__DIMSE__AE_TITLE", "CT_TRIAGE")]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("triaged.toml");
    std::fs::write(&file, format!("[dimse]\nport = {}\nae_title = \"CT_TRIAGE\"\n", node.dimse.port())).unwrap();
    let ran = run(folder.path(), &["--config", file.to_str().unwrap(), "echo"]);
    assert!(ran.out.contains("CT_TRIAGE at 127.0.0.1:"), "{}{}", ran.out, ran.err);
    let phantom = phantom(&["--slices", "2"]);
    let ran = run(folder.path(), &["--config", file.to_str().unwrap(), "send", phantom.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn shells_and_man_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, mark) in [("bash", "_triaged()"), ("zsh", "#compdef triaged"), ("fish", "complete -c triaged")] {
        let script = run(folder.path(), &["completions", shell]).out;
        assert!(script.contains(mark) && script.contains("rescore") && !script.contains("bench_model"), "{shell}");
    }
    assert_eq!(run(folder.path(), &["man", "--out", folder.path().to_str().unwrap()]).code, 0);
    for page in ["triaged.1", "triaged-results-show.1", "triaged-ack.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains(".SH NAME"), "{page}: {text}");
    }
}
