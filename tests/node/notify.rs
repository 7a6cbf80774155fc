//! Promise 6: one alarm, and it arrives. The webhook against a receiver on a real socket.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::ledgers::{Fixture, Study, study_event};
use crate::support::receivers::{Request, Running, any_port, from_file, next, receiver};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use triaged::config;
use triaged::event::{Event, Kind, StudyEvent};
use triaged::ledger::{Actor, Ledger, NewMessage, Outbox};
use triaged::notify::{Links, Surroundings, Worker, channels};

const SECRET: &str = "a shared secret";

fn settings(url: String) -> config::Notify {
    let webhook = config::Webhook {
        url,
        secret: SECRET.to_owned().into(),
        timeout_seconds: 10.0,
        include_patient_id: false,
        include_accession_number: None,
        format: config::WebhookFormat::Triaged,
        routing_key: String::new().into(),
        template_file: String::new(),
        content_type: "application/json".into(),
    };
    config::Notify {
        first_retry_seconds: 0.01,
        longest_retry_seconds: 5.0,
        max_attempts: 30,
        dead_first_retry_minutes: 10.0,
        dead_longest_retry_minutes: 360.0,
        dead_retry_days: 7.0,
        undelivered_minutes: 5.0,
        failures: true,
        events: vec![Kind::Flagged],
        time_zone: "UTC".into(),
        webhook,
        channels: vec![],
        routes: vec![],
    }
}

/// The node's part: the webhook's worker, running.
fn start(ledger: &Ledger, settings: &config::Notify) -> (CancellationToken, JoinHandle<()>) {
    let channel = channels(settings, &Surroundings::default()).unwrap().remove(0);
    let stop = CancellationToken::new();
    let worker = Worker::new(Arc::new(ledger.clone()), channel, settings, Arc::new(Links::none()));
    (stop.clone(), tokio::spawn(worker.run(stop)))
}

/// HMAC as RFC 2104 writes it, so that the signature is not checked by what made it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    let mut block = [0u8; 64];
    assert!(key.len() <= 64, "longer keys would have to be hashed first");
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    hex::encode(Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize())
}

fn assert_signed(request: &Request) {
    let mut signed = format!("{}.", request.header("x-triaged-timestamp")).into_bytes();
    signed.extend_from_slice(&request.body);
    let expected = format!("sha256={}", hmac_sha256(SECRET.as_bytes(), &signed));
    assert_eq!(request.header("x-triaged-signature"), expected);
    let age = jiff::Timestamp::now().as_second() - request.header("x-triaged-timestamp").parse::<i64>().unwrap();
    assert!((0..30).contains(&age), "{age} s old");
}

#[tokio::test]
async fn a_failed_delivery_is_repeated_with_the_same_key_and_body_and_ends_delivered_once() {
    let fixture = Fixture::new();
    let refusal = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    let (address, _, mut requests) = receiver(any_port(), vec![refusal], true).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/hook")));
    fixture.judge(&Study::new("1.2.3", &[0.2, 0.9]), "webhook").await;

    let first = next(&mut requests).await;
    let second = next(&mut requests).await;
    let row = fixture.until(|row| row.state == "delivered").await;
    assert_eq!((row.attempts, row.last_error), (2, None));
    assert!(row.delivered_at.is_some());
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("idempotency-key"), second.header("idempotency-key"));
    for request in [&first, &second] {
        assert_signed(request);
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("x-triaged-event"), "alert");
        assert!(request.header("user-agent").starts_with("triaged/"));
        assert_eq!(request.json()["id"], request.header("idempotency-key"));
    }
    stop.cancel();
    worker.await.unwrap();
    assert!(requests.try_recv().is_err(), "it was delivered once");
}

#[tokio::test]
async fn the_body_is_as_the_published_schema_says_and_names_the_patient_only_where_configured() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/webhook.schema.json")).unwrap();
    for include_patient_id in [false, true] {
        let fixture = Fixture::new();
        let (address, _, mut requests) = receiver(any_port(), vec![], true).await;
        let mut settings = settings(format!("http://{address}/hook"));
        settings.webhook.include_patient_id = include_patient_id;
        let (stop, worker) = start(&fixture.ledger, &settings);
        fixture.judge(&Study::new("1.2.3", &[0.2, 0.9]), "webhook").await;
        let body = next(&mut requests).await.json();
        assert_conforms(&body, &schema, &schema);
        assert_eq!(body["study_uid"], "1.2.3");
        assert_eq!((&body["score"], &body["slices_scored"]), (&0.9.into(), &2.into()));
        let patient = include_patient_id.then_some("PAT-1");
        assert_eq!(body.get("patient_id").map(|id| id.as_str().unwrap()), patient);
        assert_eq!(body.get("accession_number").is_some(), include_patient_id);
        assert_eq!(body.to_string().contains("PAT-1"), include_patient_id);
        assert!(body["notice"].as_str().unwrap().contains("not a diagnosis"));
        assert!(!body.to_string().contains("normal"));
        stop.cancel();
        worker.await.unwrap();
    }
}

/// The part of JSON Schema 2020-12 that the schema uses; a keyword beyond that part fails the test.
fn assert_conforms(value: &Value, schema: &Value, root: &Value) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let ok = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let target = root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).expect("the reference");
                assert_conforms(value, target, root);
                true
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "allOf" => {
                rule.as_array().unwrap().iter().for_each(|part| assert_conforms(value, part, root));
                true
            }
            "then" => true,
            "if" => {
                // The schema's conditions are on the kind alone.
                let kind = &rule["properties"]["kind"];
                let holds = match kind.get("const") {
                    Some(only) => &value["kind"] == only,
                    None => kind["enum"].as_array().unwrap().contains(&value["kind"]),
                };
                if holds {
                    assert_conforms(value, &schema["then"], root);
                }
                true
            }
            "minimum" => value.as_f64().unwrap() >= rule.as_f64().unwrap(),
            "maximum" => value.as_f64().unwrap() <= rule.as_f64().unwrap(),
            "minLength" => value.as_str().unwrap().chars().count() as u64 >= rule.as_u64().unwrap(),
            "maxLength" => value.as_str().unwrap().chars().count() as u64 <= rule.as_u64().unwrap(),
            "pattern" if rule == "^[0-9a-f]{64}$" => {
                let text = value.as_str().unwrap();
                text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            }
            "pattern" if rule.as_str().unwrap().contains('T') => {
                let text = value.as_str().unwrap();
                text.len() == 24 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
            }
            "required" => rule.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "items" => {
                value.as_array().unwrap().iter().for_each(|item| assert_conforms(item, rule, root));
                true
            }
            "properties" => {
                for (key, item) in value.as_object().unwrap() {
                    assert_conforms(item, rule.get(key).unwrap_or_else(|| panic!("{key} is not described")), root);
                }
                true
            }
            other => panic!("this test does not know the keyword {other}"),
        };
        assert!(ok, "{value} breaks {keyword}: {rule}");
    }
}

#[tokio::test]
async fn a_refused_alert_is_a_dead_letter_that_can_be_requeued() {
    let fixture = Fixture::new();
    let long = format!("no such hook: /T0KEN-IN-PATH?key=T0KEN-IN-QUERY\r\n\u{1b}[31m{}", "x".repeat(1 << 20));
    let (address, _, mut requests) =
        receiver(any_port(), vec![(StatusCode::NOT_FOUND, long).into_response()], true).await;
    let url = format!("http://{address}/T0KEN-IN-PATH?key=T0KEN-IN-QUERY");
    let (stop, worker) = start(&fixture.ledger, &settings(url));
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let row = fixture.until(|row| row.state == "dead").await;
    let error = row.last_error.unwrap();
    assert_eq!(row.attempts, 1);
    assert!(error.starts_with("HTTP 404 Not Found: no such hook: /…?key=… "), "{error}");
    assert!(error.len() < 300 && !error.contains("T0KEN") && !error.contains(['\n', '\u{1b}']), "{error}");
    let first = next(&mut requests).await;

    // By another process, as `triaged requeue` is: no bell rings in this one.
    let path = fixture.path();
    tokio::task::spawn_blocking(move || {
        Ledger::open(&path).unwrap().requeue_dead(Some(row.id), &Actor::system()).unwrap()
    })
    .await
    .unwrap();
    fixture.until(|row| row.state == "delivered").await;
    let again = next(&mut requests).await;
    assert_eq!((first.header("idempotency-key"), &first.body), (again.header("idempotency-key"), &again.body));
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn attempts_are_bounded() {
    let fixture = Fixture::new();
    let busy = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    let (address, ..) = receiver(any_port(), vec![busy(), busy(), busy()], true).await;
    let (stop, worker) =
        start(&fixture.ledger, &config::Notify { max_attempts: 3, ..settings(format!("http://{address}/")) });
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let row = fixture.until(|row| row.state == "dead").await;
    assert_eq!(row.attempts, 3);
    assert_eq!(row.last_error.unwrap(), "given up after 3 attempts: HTTP 503 Service Unavailable");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn an_absent_receiver_is_waited_for() {
    let fixture = Fixture::new();
    let address = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/secret-hook")));
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let row = fixture.until(|row| row.attempts >= 2).await;
    let error = row.last_error.unwrap();
    assert_eq!(row.state, "pending");
    assert!(error.to_lowercase().contains("refused") && !error.contains("secret-hook"), "{error}");
    let (_, _, mut requests) = receiver(address, vec![], true).await;
    fixture.until(|row| row.state == "delivered").await;
    assert_signed(&next(&mut requests).await);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_a_failure_after_the_timeout() {
    let fixture = Fixture::new();
    let (address, receiver, _requests) = receiver(any_port(), vec![], false).await;
    let mut settings = settings(format!("http://{address}/"));
    settings.webhook.timeout_seconds = 0.2;
    let (stop, worker) = start(&fixture.ledger, &settings);
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let row = fixture.until(|row| row.attempts >= 1).await;
    assert!(row.last_error.unwrap().contains("timed out"));
    receiver.gate.add_permits(100);
    fixture.until(|row| row.state == "delivered").await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn the_receivers_retry_after_is_honoured() {
    let fixture = Fixture::new();
    let wait = (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
    let (address, _, mut requests) = receiver(any_port(), vec![wait], true).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let (first, second) = (next(&mut requests).await, next(&mut requests).await);
    let waited = second.at - first.at;
    assert!(waited >= Duration::from_millis(990), "{waited:?}");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let fixture = Fixture::new();
    let (other, _, mut elsewhere) = receiver(any_port(), vec![], true).await;
    for status in [StatusCode::FOUND, StatusCode::PERMANENT_REDIRECT] {
        let moved = (status, [("location", format!("http://{other}/"))]).into_response();
        let (address, ..) = receiver(any_port(), vec![moved], true).await;
        let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
        match status {
            StatusCode::FOUND => fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await,
            _ => {
                let ledger = fixture.ledger.clone();
                assert_eq!(
                    tokio::task::spawn_blocking(move || ledger.requeue_dead(None, &Actor::system()).unwrap())
                        .await
                        .unwrap(),
                    1
                );
            }
        }
        let row =
            fixture.until(|row| row.state == "dead" && row.last_error.as_ref().unwrap().contains(status.as_str()));
        assert!(row.await.last_error.unwrap().contains("redirects are not followed"));
        stop.cancel();
        worker.await.unwrap();
    }
    assert!(elsewhere.try_recv().is_err());
}

#[tokio::test]
async fn what_was_in_flight_at_a_crash_is_sent_again_under_the_same_key() {
    let fixture = Fixture::new();
    let (address, receiver, mut requests) = receiver(any_port(), vec![], false).await;
    let settings = settings(format!("http://{address}/"));
    let (_stop, worker) = start(&fixture.ledger, &settings);
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    let before = next(&mut requests).await;
    // Gone in the middle, without a word; the receiver may or may not have acted on it.
    worker.abort();
    assert!(worker.await.unwrap_err().is_cancelled());
    let Fixture { folder, ledger } = fixture;
    drop(ledger);

    let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
    let fixture = Fixture { folder, ledger };
    let (stop, worker) = start(&fixture.ledger, &settings);
    receiver.gate.add_permits(100);
    let after = next(&mut requests).await;
    assert_eq!((before.header("idempotency-key"), &before.body), (after.header("idempotency-key"), &after.body));
    fixture.until(|row| row.state == "delivered").await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_stop_finishes_the_delivery_in_flight_and_begins_no_other() {
    let fixture = Fixture::new();
    let (address, receiver, mut requests) = receiver(any_port(), vec![], false).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    next(&mut requests).await;
    stop.cancel();
    fixture.judge(&Study::new("1.2.4", &[0.9]), "webhook").await;
    receiver.gate.add_permits(100);
    worker.await.unwrap();
    let states: Vec<String> = fixture.notifications().into_iter().map(|row| row.state).collect();
    assert_eq!(states, ["delivered", "pending"]);
    assert!(requests.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_alerts_go_out_a_few_at_a_time_and_each_once() {
    let fixture = Fixture::new();
    let uids: Vec<String> = (0..40).map(|n| format!("1.2.{n}")).collect();
    for uid in &uids {
        fixture.judge(&Study::new(uid, &[0.9]), "webhook").await;
    }
    let (address, receiver, mut requests) = receiver(any_port(), vec![], false).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    // The receiver sits on the first ones; the others of the few come in beside them.
    let mut got = vec![next(&mut requests).await, next(&mut requests).await];
    receiver.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    while got.len() < uids.len() {
        got.push(next(&mut requests).await);
    }
    stop.cancel();
    worker.await.unwrap();
    let studies: HashSet<String> =
        got.iter().map(|request| request.json()["study_uid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(studies, uids.into_iter().collect());
    assert!(got.iter().all(|request| request.uri == "/"));
    assert!((2..=4).contains(&receiver.most_inside.load(Ordering::SeqCst)));
    assert!(fixture.notifications().iter().all(|row| row.state == "delivered" && row.attempts == 1));
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_delivery_is_measured() {
    let handle = triaged::metrics::install().unwrap();
    let fixture = Fixture::new();
    let (address, ..) = receiver(any_port(), vec![], true).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    fixture.judge(&Study::new("1.2.3", &[0.9]), "webhook").await;
    fixture.until(|row| row.state == "delivered").await;
    stop.cancel();
    worker.await.unwrap();
    let text = handle.render();
    for line in [
        r#"triaged_notifications_total{channel="webhook",outcome="delivered"} "#,
        r#"triaged_last_slice_to_notification_seconds_count{channel="webhook"} "#,
        r#"triaged_notifications_pending{channel="webhook"} "#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn without_a_url_there_is_no_channel() {
    assert!(channels(&settings(String::new()), &Surroundings::default()).unwrap().is_empty());
}

#[tokio::test]
async fn each_channel_hears_what_its_route_says_with_its_own_settings() {
    let fixture = Fixture::new();
    let (plain, _, mut at_plain) = receiver(any_port(), vec![], true).await;
    let (pager, _, mut at_pager) = receiver(any_port(), vec![], true).await;
    let (audit, _, mut at_audit) = receiver(any_port(), vec![], true).await;
    let settings = from_file(&format!(
        r#"
        [notify.webhook]
        url = "http://{plain}/"
        [[notify.channels]]
        name = "pager"
        kind = "webhook"
        url = "http://{pager}/"
        secret = "another secret"
        include_accession_number = true
        [[notify.channels]]
        name = "audit"
        kind = "webhook"
        url = "http://{audit}/"
        include_patient_id = true
        [[notify.routes]]
        channels = ["webhook"]
        [[notify.routes]]
        calling_ae_titles = ["CT1"]
        minimum_score = 0.8
        channels = ["pager"]
        [[notify.routes]]
        events = ["flagged", "not_flagged", "incomplete"]
        channels = ["audit"]
        "#
    ));
    let running = Running::start(&fixture.ledger, &settings);
    for (uid, probabilities) in [("1.2.1", &[0.9][..]), ("1.2.2", &[0.6]), ("1.2.3", &[0.1])] {
        fixture.judge_and_route(&Study::new(uid, probabilities), &running.routing).await;
    }
    let unjudged = Study { ineligible: &["a localizer"], ..Study::new("1.2.4", &[]) };
    fixture.judge_and_route(&unjudged, &running.routing).await;

    let mut audited = Vec::new();
    for _ in 0..4 {
        let body = next(&mut at_audit).await.json();
        assert_eq!(body["patient_id"], "PAT-1");
        audited.push((body["study_uid"].as_str().unwrap().to_owned(), body["wording"].as_str().unwrap().to_owned()));
    }
    audited.sort();
    let expected = [("1.2.1", "flagged"), ("1.2.2", "flagged"), ("1.2.3", "not flagged"), ("1.2.4", "incomplete")];
    assert_eq!(audited, expected.map(|(uid, words)| (uid.to_owned(), words.to_owned())));
    let paged = next(&mut at_pager).await;
    let body = paged.json();
    assert_eq!((&body["study_uid"], &body["accession_number"]), (&"1.2.1".into(), &"ACC-1".into()));
    assert!(body.get("patient_id").is_none(), "each channel has its own settings: {body}");
    let signed = [paged.header("x-triaged-timestamp").as_bytes(), b".", &paged.body].concat();
    let expected = format!("sha256={}", hmac_sha256(b"another secret", &signed));
    assert_eq!(paged.header("x-triaged-signature"), expected);
    let mut plain: Vec<String> = Vec::new();
    for _ in 0..2 {
        plain.push(next(&mut at_plain).await.json()["study_uid"].as_str().unwrap().to_owned());
    }
    plain.sort();
    assert_eq!(plain, ["1.2.1", "1.2.2"]);
    running.stop().await;
    assert!(at_plain.try_recv().is_err() && at_pager.try_recv().is_err() && at_audit.try_recv().is_err());
    let schema: Value = serde_json::from_str(include_str!("../../docs/webhook.schema.json")).unwrap();
    assert_conforms(&body, &schema, &schema);
}

#[tokio::test]
async fn a_flag_is_told_once_a_channel_and_each_revision_once() {
    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![], true).await;
    let settings =
        from_file(&format!("notify.events = ['flagged', 'revised']\nnotify.webhook.url = 'http://{address}/'\n"));
    let running = Running::start(&fixture.ledger, &settings);
    fixture.judge_and_route(&Study::new("1.2.3", &[0.9]), &running.routing).await;
    next(&mut requests).await;
    // The same flag again, and two further revisions of which one is told twice.
    let revised = |revision| Event::Revised(StudyEvent { revision, ..study_event("1.2.3") });
    for event in [Event::Flagged(study_event("1.2.3")), revised(2), revised(2), revised(3)] {
        fixture.ledger.post(running.routing.messages(event)).await.unwrap();
    }
    let mut told: Vec<String> = Vec::new();
    for _ in 0..2 {
        let body = next(&mut requests).await.json();
        told.push(format!("{} {}", body["kind"].as_str().unwrap(), body["revision"]));
    }
    told.sort();
    assert_eq!(told, ["revised 2", "revised 3"]);
    running.stop().await;
    assert!(requests.try_recv().is_err());
    let log: Vec<String> = fixture.notifications().into_iter().map(|row| row.kind).collect();
    assert_eq!(log, ["flagged", "revised", "revised"]);
}

#[tokio::test]
async fn a_dead_letter_is_tried_at_once_when_its_channel_delivers_another_message() {
    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![StatusCode::NOT_FOUND.into_response()], true).await;
    // By itself it would be tried after an hour.
    let text = format!("notify.dead_first_retry_minutes = 60\nnotify.webhook.url = 'http://{address}/'\n");
    let running = Running::start(&fixture.ledger, &from_file(&text));
    fixture.judge(&Study::new("1.2.1", &[0.9]), "webhook").await;
    let dead = fixture.until(|row| row.state == "dead").await;
    assert!(dead.next_attempt_at.unwrap() > dead.created_at);
    next(&mut requests).await;
    // It was tried a while ago; one that was tried just now would not be tried with every other message.
    let rested = "UPDATE outbox SET last_attempt_at = '2026-01-01T00:00:00.000Z'";
    let path = fixture.path();
    tokio::task::spawn_blocking(move || rusqlite::Connection::open(path).unwrap().execute(rested, []).unwrap())
        .await
        .unwrap();
    fixture.judge(&Study::new("1.2.2", &[0.9]), "webhook").await;
    let told = [next(&mut requests).await.json(), next(&mut requests).await.json()];
    assert_eq!([&told[0]["study_uid"], &told[1]["study_uid"]], ["1.2.2", "1.2.1"]);
    running.stop().await;
    assert!(fixture.notifications().iter().all(|row| row.state == "delivered"));
}

#[tokio::test]
async fn a_dead_letter_is_tried_slowly_by_itself_until_it_is_too_old() {
    let fixture = Fixture::new();
    let gone = || StatusCode::FORBIDDEN.into_response();
    let (address, _, mut requests) = receiver(any_port(), vec![gone(), gone()], true).await;
    // 0.6 seconds stand for the ten minutes of the default.
    let text = format!("notify.dead_first_retry_minutes = 0.01\nnotify.webhook.url = 'http://{address}/'\n");
    let running = Running::start(&fixture.ledger, &from_file(&text));
    fixture.judge(&Study::new("1.2.1", &[0.9]), "webhook").await;
    let first = next(&mut requests).await;
    let row = fixture.until(|row| row.state == "delivered").await;
    assert_eq!((row.attempts, row.last_error), (3, None));
    let (second, third) = (next(&mut requests).await, next(&mut requests).await);
    assert_eq!(first.header("idempotency-key"), third.header("idempotency-key"));
    assert!(second.at - first.at >= Duration::from_millis(290), "half of 0.6 seconds at least");
    running.stop().await;

    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![gone()], true).await;
    let text = format!(
        "notify.dead_first_retry_minutes = 0.001\nnotify.dead_retry_days = 0\nnotify.webhook.url = 'http://{address}/'\n"
    );
    let running = Running::start(&fixture.ledger, &from_file(&text));
    fixture.judge(&Study::new("1.2.1", &[0.9]), "webhook").await;
    fixture.until(|row| row.state == "dead").await;
    next(&mut requests).await;
    // The worker looks once a second.
    let more = tokio::time::timeout(Duration::from_millis(2500), requests.recv()).await;
    assert!(more.is_err(), "it was too old at once");
    running.stop().await;
}

#[tokio::test]
async fn a_study_that_is_flagged_is_not_reported_as_incomplete_later() {
    let fixture = Fixture::new();
    let (address, _, mut requests) = receiver(any_port(), vec![], true).await;
    // The message that it could not be judged is held up, and the flag comes meanwhile.
    fixture.receive(&Study::new("1.2.1", &[0.9])).await;
    let event = Arc::new(Event::Incomplete(study_event("1.2.1")));
    fixture.ledger.post(vec![NewMessage { channel: "webhook".into(), event, escalation: None }]).await.unwrap();
    fixture.database().execute("UPDATE studies SET flagged = 1, verdict = 'flagged'", []).unwrap();
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    let withdrawn = "SELECT withdrawn_at IS NOT NULL AND delivered_at IS NULL FROM outbox WHERE kind = 'incomplete'";
    let started = std::time::Instant::now();
    while !fixture.database().query_row(withdrawn, [], |row| row.get::<_, bool>(0)).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still to be sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fixture.judge(&Study::new("1.2.2", &[0.9]), "webhook").await;
    assert_eq!(next(&mut requests).await.json()["study_uid"], "1.2.2");
    stop.cancel();
    worker.await.unwrap();
    assert!(requests.try_recv().is_err());
    assert_eq!(fixture.notifications().len(), 1, "what was not sent is no notification");
}

/// A channel is slow, and hears of much that nobody hurries for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_goes_before_messages_that_wait_however_many_these_are() {
    let fixture = Fixture::new();
    let uids: Vec<String> = (0..20).map(|n| format!("1.2.{n}")).collect();
    for uid in &uids {
        fixture.receive(&Study::new(uid, &[0.9])).await;
        let event = Arc::new(Event::Incomplete(study_event(uid)));
        fixture.ledger.post(vec![NewMessage { channel: "webhook".into(), event, escalation: None }]).await.unwrap();
    }
    let (address, receiver, mut requests) = receiver(any_port(), vec![], false).await;
    let (stop, worker) = start(&fixture.ledger, &settings(format!("http://{address}/")));
    for _ in 0..3 {
        assert_eq!(next(&mut requests).await.json()["kind"], "incomplete");
    }
    // The receiver answers none of these, and has the alert all the same.
    let study = Study::new("1.3", &[0.9]);
    fixture.receive(&study).await;
    let event = Arc::new(Event::Flagged(study_event("1.3")));
    fixture.ledger.post(vec![NewMessage { channel: "webhook".into(), event, escalation: None }]).await.unwrap();
    assert_eq!(next(&mut requests).await.json()["study_uid"], "1.3");
    receiver.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    for _ in 3..uids.len() {
        assert_eq!(next(&mut requests).await.json()["kind"], "incomplete");
    }
    stop.cancel();
    worker.await.unwrap();
}
