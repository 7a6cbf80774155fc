//! Nobody acknowledged, or a message does not arrive: the next channels are told, over restarts, until somebody acknowledges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::http::ask;
use crate::support::ledgers::{Fixture, Study, study_event};
use crate::support::receivers::{Running, any_port, from_file, next, receiver};
use crate::support::{Node, Receiver, phantom, storescu};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use triaged::event::Event;
use triaged::ledger::{Actor, Ledger, LinkUse, NewMessage, NotificationRow, Outbox, Step};
use triaged::notify::Links;

/// Two channels, and an escalation from the first to the second after `minutes`.
fn two_channels(first: impl std::fmt::Display, second: impl std::fmt::Display, minutes: f64) -> String {
    format!(
        r#"
        [[notify.channels]]
        name = "first"
        kind = "webhook"
        url = "http://{first}/"
        [[notify.channels]]
        name = "second"
        kind = "webhook"
        url = "http://{second}/"
        [[notify.routes]]
        events = ["flagged"]
        channels = ["first"]
        escalation = [{{ after_minutes = {minutes}, channels = ["second"] }}]
        [[notify.routes]]
        events = ["delivery_failed"]
        channels = ["first", "second"]
        "#
    )
}

#[tokio::test]
async fn who_does_not_acknowledge_in_time_is_followed_by_the_next_channel_over_a_restart() {
    let fixture = Fixture::new();
    let (first, _, mut at_first) = receiver(any_port(), vec![], true).await;
    let (second, _, mut at_second) = receiver(any_port(), vec![], true).await;
    // 1.2 seconds.
    let settings = from_file(&two_channels(first, second, 0.02));
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    fixture.judge_and_route(&Study::new("1.2.2", &[0.9]), &running.routing).await;
    let told = [next(&mut at_first).await.json(), next(&mut at_first).await.json()];
    assert!(told.iter().all(|body| body.get("escalation_step").is_none()), "{told:?}");
    // One is acknowledged in time; then the node is gone while the other becomes due.
    let ledger = fixture.ledger.clone();
    let acknowledge = move || ledger.acknowledge("1.2.1", &Actor::person("Dr A"), None).unwrap();
    let acknowledged = tokio::task::spawn_blocking(acknowledge).await.unwrap();
    assert_eq!(acknowledged, triaged::ledger::Acknowledged::First);
    running.stop().await;
    let Fixture { folder, ledger } = fixture;
    drop(ledger);
    let fixture = Fixture { ledger: Ledger::open(&folder.path().join("triaged.db")).unwrap(), folder };
    let running = Running::start(&fixture.ledger, &settings);
    let escalated = next(&mut at_second).await.json();
    assert_eq!((&escalated["study_uid"], &escalated["escalation_step"]), (&json!("1.2.2"), &json!(1)));
    assert_eq!(escalated["kind"], "alert");
    // Two rounds later it was not raised again, nor was what is acknowledged.
    let more = tokio::time::timeout(Duration::from_millis(2500), at_second.recv()).await;
    assert!(more.is_err(), "each step is told once");
    running.stop().await;
    let steps: Vec<(String, i64)> =
        fixture.notifications().into_iter().filter(|row| row.step > 0).map(|row| (row.state, row.step)).collect();
    assert_eq!(steps, [("delivered".to_owned(), 1)]);
}

#[tokio::test]
async fn other_channels_hear_of_an_alert_that_does_not_arrive() {
    let fixture = Fixture::new();
    let refused = || StatusCode::NOT_FOUND.into_response();
    let (first, _, mut at_first) = receiver(any_port(), (0..100).map(|_| refused()).collect(), true).await;
    let (second, _, mut at_second) = receiver(any_port(), vec![], true).await;
    let text = format!("notify.undelivered_minutes = 0.005\n{}", two_channels(first, second, 1000.0));
    let running = Running::start(&fixture.ledger, &from_file(&text));
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    next(&mut at_first).await;
    let failed = next(&mut at_second).await.json();
    assert_eq!((&failed["kind"], &failed["channel"]), (&json!("delivery_failed"), &json!("first")));
    assert_eq!((&failed["study_uid"], &failed["undelivered"]), (&json!("1.2.1"), &json!("alert")));
    let more = tokio::time::timeout(Duration::from_millis(2500), at_second.recv()).await;
    assert!(more.is_err(), "it is told once");
    running.stop().await;
}

#[tokio::test]
async fn a_channel_keeps_its_quiet_hours_and_the_others_do_not_wait() {
    let fixture = Fixture::new();
    let (quiet, _, mut at_quiet) = receiver(any_port(), vec![], true).await;
    let (loud, _, mut at_loud) = receiver(any_port(), vec![], true).await;
    let text = |hours: &str| {
        format!(
            "notify.time_zone = 'UTC'\nnotify.webhook.url = 'http://{loud}/'\n[[notify.channels]]\nname = 'quiet'\n\
             kind = 'webhook'\nurl = 'http://{quiet}/'\nquiet_hours = '{hours}'\n"
        )
    };
    // Two hours of the day that hold now, whenever this runs, and two that do not.
    let hour = jiff::Timestamp::now().as_second() / 3600;
    let hours =
        |from: i64| format!("{:02}:00-{:02}:00", (hour + from).rem_euclid(24), (hour + from + 2).rem_euclid(24));
    let running = Running::start(&fixture.ledger, &from_file(&text(&hours(0))));
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    next(&mut at_loud).await;
    assert!(tokio::time::timeout(Duration::from_millis(1500), at_quiet.recv()).await.is_err());
    running.stop().await;
    // The hours end.
    let running = Running::start(&fixture.ledger, &from_file(&text(&hours(12))));
    assert_eq!(next(&mut at_quiet).await.json()["study_uid"], "1.2.1");
    running.stop().await;
}

#[tokio::test]
async fn a_link_acknowledges_once_and_only_what_was_alerted() {
    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![], true).await;
    let key = vec![9; 32];
    let links = Links::new("https://triaged.example.org", key).unwrap();
    let settings = from_file(&format!("notify.webhook.url = 'http://{address}/'\n"));
    let running = Running::start_with(&fixture.ledger, &settings, links);
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    let body = next(&mut requests).await.json();
    assert_eq!(body["study_url"], "https://triaged.example.org/studies/1.2.1");
    assert!(body["acknowledge_url"].as_str().unwrap().contains("study=1.2.1"));
    running.stop().await;
    let ledger = fixture.ledger.clone();
    let uses = tokio::task::spawn_blocking(move || {
        let expires = "2999-01-01T00:00:00.000Z";
        [
            // Nobody has been shown the present verdict: the link is not used up by that.
            ledger.use_link("n", "1.2.1", 0, expires, &Actor::token("link")).unwrap(),
            ledger.use_link("n", "1.2.1", 1, expires, &Actor::token("link")).unwrap(),
            ledger.use_link("n", "1.2.1", 1, expires, &Actor::token("link")).unwrap(),
        ]
    });
    let [unseen, first, second] = uses.await.unwrap();
    assert_eq!(unseen, LinkUse::JudgedAgain);
    assert_eq!(first, LinkUse::Acknowledged { first: true });
    assert!(matches!(second, LinkUse::UsedBefore { .. }));
}

/// POST without a body, as a browser's form does it, with these headers.
fn post(node: &Node, path: &str, headers: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(node.web).unwrap();
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n",
        node.web
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn on_a_node_a_link_only_asks_until_its_button_is_pressed() {
    if !crate::support::has("storescu") {
        return;
    }
    let receiver = Receiver::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let flags_all = |card: &mut serde_json::Value| {
        card["study_rule"] = json!({ "kind": "kth_highest", "k": 1, "threshold": 1e-9 });
    };
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &crate::support::card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__WEB__PUBLIC_URL", "https://triaged.example.org"),
    ]);
    let series = phantom(&["--slices", "4"]);
    storescu(&node, &["+sd"], &[series.path().to_path_buf()]).unwrap();
    let alert: serde_json::Value = serde_json::from_slice(&receiver.wait_for(1)[0].body).unwrap();
    node.wait_until("SELECT state = 'decided' FROM worklist");
    let link = alert["acknowledge_url"].as_str().unwrap().strip_prefix("https://triaged.example.org").unwrap();
    let is_acknowledged = || node.query::<i64>("SELECT acknowledged_at IS NOT NULL FROM worklist") == 1;

    let (status, page) = node.get(link);
    assert_eq!(status, 200);
    assert!(page.contains("I have seen this study") && !is_acknowledged(), "mail scanners follow links: {page}");
    let ours = "Sec-Fetch-Site: same-origin\r\n";
    let forged = link.replace("revision=1", "revision=2");
    assert_eq!(post(&node, &forged, ours).0, 403);
    assert_eq!(post(&node, "/acknowledge", ours).0, 403);
    assert_eq!(post(&node, link, "Sec-Fetch-Site: cross-site\r\n").0, 403, "another site's page cannot press it");
    assert!(!is_acknowledged());
    // The study is judged again: who has read the message has not seen that, and is asked again.
    let again = "INSERT INTO verdicts (study_uid, revision, provisional, flagged, score, threshold, rule, model, model_sha256, software,
                                       slices_scored, slices_ineligible, slices_failed, decided_at, verdict)
                 SELECT study_uid, 2, 0, 1, score, threshold, rule, model, model_sha256, software, slices_scored, slices_ineligible,
                        slices_failed, decided_at, verdict
                 FROM verdicts ORDER BY id DESC LIMIT 1";
    assert_eq!(node.meddle().execute(again, []).unwrap(), 1);
    let (status, page) = post(&node, link, ours);
    assert!(status == 200 && page.contains("judged again since") && page.contains("revision 2"), "{page}");
    assert!(page.contains("I have seen this study") && !is_acknowledged(), "{page}");
    let form = [("Sec-Fetch-Site", "same-origin"), ("Content-Type", "application/x-www-form-urlencoded")];
    let answer = ask(&node, "POST", link, &form, "revision=2");
    assert!(answer.status == 200 && answer.body.contains("The study is acknowledged"), "{}", answer.body);
    assert!(is_acknowledged());
    let (status, page) = post(&node, link, ours);
    assert!(status == 410 && page.contains("works once"), "{page}");
    assert!(node.get(link).1.contains("acknowledged before"));
}

#[test]
fn check_tries_each_channel_and_fails_where_one_does() {
    let good = Receiver::start(&[]);
    let bad = Receiver::start(&[403]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("triaged.toml");
    let channels = two_channels("unused", "unused", 1.0).replace("http://unused/", &good.url);
    let channels = channels.replacen(&good.url, &bad.url, 1);
    std::fs::write(&file, format!("dimse.port = 0\nweb.listen = ''\n{channels}")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"))
        .args(["check", "--send-test", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path())
        .env("TRIAGED__ARCHIVE__MIN_FREE_MIB", "16")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("FAIL  first") && said.contains("403"), "{said}");
    assert!(said.contains("ok    second") && said.contains("a test message was delivered"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    let body: serde_json::Value = serde_json::from_slice(&good.wait_for(1)[0].body).unwrap();
    assert_eq!(body["kind"], "test");
}

#[tokio::test]
async fn an_acknowledgement_is_told_in_its_transaction_and_one_that_is_taken_back_escalates_again() {
    let fixture = Fixture::new();
    let (first, _, mut at_first) = receiver(any_port(), vec![], true).await;
    let (second, _, mut at_second) = receiver(any_port(), vec![], true).await;
    // 30 seconds: longer than the first part of the test takes, shorter than the clock is put forward for the second.
    let text = format!(
        "{}[[notify.routes]]\nevents = ['acknowledged']\nchannels = ['second']\n",
        two_channels(first, second, 0.5)
    );
    let running = Running::start(&fixture.ledger, &from_file(&text));
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    next(&mut at_first).await;
    let on_ledger = |call: fn(&Ledger)| {
        let ledger = fixture.ledger.clone();
        tokio::task::spawn_blocking(move || call(&ledger))
    };
    on_ledger(|ledger| assert!(ledger.acknowledge("1.2.1", &Actor::person("Dr A"), None).is_ok())).await.unwrap();
    // Who comes second is no news.
    on_ledger(|ledger| assert!(ledger.acknowledge("1.2.1", &Actor::person("Dr B"), None).is_ok())).await.unwrap();
    let told = next(&mut at_second).await.json();
    assert_eq!(
        (&told["kind"], &told["by"], &told["study_uid"]),
        (&json!("acknowledged"), &json!("Dr A"), &json!("1.2.1"))
    );
    let states = || -> Vec<String> {
        let database = fixture.database();
        let mut states = database.prepare("SELECT state FROM escalations").unwrap();
        states.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(states(), ["cancelled"]);
    on_ledger(|ledger| assert!(ledger.undo_acknowledgement("1.2.1", &Actor::person("Dr A")).unwrap())).await.unwrap();
    assert_eq!(states(), ["waiting"]);
    fixture.database().execute("UPDATE escalations SET due_at = created_at", []).unwrap();
    let escalated = next(&mut at_second).await.json();
    assert_eq!((&escalated["kind"], &escalated["escalation_step"]), (&json!("alert"), &json!(1)));
    running.stop().await;
    assert_eq!(fixture.notifications().len(), 3, "the flag, the acknowledgement, the escalation");
}

/// Waits until a channel has a message as wanted.
async fn message_of(fixture: &Fixture, channel: &str, wanted: impl Fn(&NotificationRow) -> bool) -> NotificationRow {
    let started = Instant::now();
    loop {
        let rows = fixture.notifications();
        if let Some(row) = rows.iter().find(|row| row.channel == channel && wanted(row)) {
            return row.clone();
        }
        assert!(started.elapsed() < Duration::from_secs(30), "still {rows:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_channel_that_is_gone_is_a_dead_letter_of_which_others_hear_and_goes_when_it_is_back() {
    let fixture = Fixture::new();
    let (webhook, _, mut at_webhook) = receiver(any_port(), vec![], true).await;
    let (pager, _, mut at_pager) = receiver(any_port(), vec![], true).await;
    let text = format!("notify.undelivered_minutes = 0.005\nnotify.webhook.url = 'http://{webhook}/'\n");
    // As after a restart with the channel renamed: one message is pending, and an escalation waits.
    fixture.judge(&Study::new("1.2.1", &[0.9]), "pager").await;
    let escalation = Some(Step { number: 1, after: Duration::ZERO });
    let event = Arc::new(Event::Flagged(study_event("1.2.1")));
    fixture.ledger.post(vec![NewMessage { channel: "pager".into(), event, escalation }]).await.unwrap();
    let running = Running::start(&fixture.ledger, &from_file(&text));
    let failed = next(&mut at_webhook).await.json();
    assert_eq!((&failed["kind"], &failed["channel"]), (&json!("delivery_failed"), &json!("pager")));
    assert_eq!(&failed["study_uid"], &json!("1.2.1"));
    let row = message_of(&fixture, "pager", |row| row.state == "dead" && row.step == 0).await;
    assert_eq!(row.attempts, 0);
    assert!(row.last_error.as_ref().unwrap().contains("there is no channel \"pager\""), "{row:?}");
    message_of(&fixture, "pager", |row| row.state == "dead" && row.step == 1).await;
    running.stop().await;
    let back = format!("{text}[[notify.channels]]\nname = 'pager'\nkind = 'webhook'\nurl = 'http://{pager}/'\n");
    let running = Running::start(&fixture.ledger, &from_file(&back));
    assert_eq!(next(&mut at_pager).await.json()["study_uid"], "1.2.1");
    next(&mut at_pager).await;
    running.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_by_a_command_that_does_not_see_the_channels_is_told_by_the_node() {
    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![], true).await;
    // The node has the URL from its environment; whoever gives the command has the file alone.
    let route = "[[notify.routes]]\nevents = ['flagged', 'acknowledged']\nchannels = ['webhook']\n";
    let file = fixture.folder.path().join("triaged.toml");
    std::fs::write(&file, route).unwrap();
    let settings = from_file(&format!("notify.webhook.url = 'http://{address}/'\n{route}"));
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.1", &[0.9]), &running.routing).await;
    next(&mut requests).await;
    let mut ack = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"));
    ack.args(["ack", "1.2.1", "--by", "Dr A", "--config"]).arg(&file).arg("--data-dir").arg(fixture.folder.path());
    let output = tokio::task::spawn_blocking(move || ack.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = next(&mut requests).await.json();
    assert_eq!((&told["kind"], &told["by"]), (&json!("acknowledged"), &json!("Dr A")));
    let more = tokio::time::timeout(Duration::from_millis(2500), requests.recv()).await;
    assert!(more.is_err(), "it is told once");
    running.stop().await;
}
