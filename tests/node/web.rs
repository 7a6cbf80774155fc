//! The web server over a real socket: pages, JSON API, metrics, health, and what it refuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::ledgers::{Fixture, Study};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use triaged::archive::Archive;
use triaged::decoding::Frames;
use triaged::ledger::{Delivery, Outbox, now};
use triaged::notify::{Links, Routing};
use triaged::rendering::Renderer;
use triaged::report::Reports;
use triaged::triage::ShadowJudge;
use triaged::web::{Check, Door, Readiness, Site, serve};

/// The web server on a ledger of its own.
pub struct Served {
    fixture: Fixture,
    client: Client,
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Served {
    async fn new() -> Served {
        Served::start(Fixture::new()).await
    }

    pub async fn start(fixture: Fixture) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let asked = ready.clone();
        let readiness = move || Readiness {
            checks: vec![
                Check::ok("provider", "CPU; auto fell back from CUDA: no device"),
                if asked.load(Ordering::SeqCst) {
                    Check::ok("disk", "9000 MiB free")
                } else {
                    Check::failed("disk", "12 MiB free, archive.min_free_mib is 1024")
                },
            ],
        };
        let settings = triaged::config::Settings::load(None, &[]).unwrap();
        let frames = Frames::start(env!("CARGO_BIN_EXE_triaged").into(), &settings.inference);
        let site = Site {
            ledger: fixture.ledger.clone(),
            shadow: ShadowJudge::default(),
            readiness: Arc::new(readiness),
            metrics: triaged::metrics::install().unwrap(),
            links: Arc::new(Links::none()),
            reports: Reports::new(
                fixture.folder.path(),
                "intracranial hemorrhage",
                jiff::tz::TimeZone::UTC,
                frames.clone(),
            ),
            door: Door::none(),
            renderer: Renderer::new(frames, Arc::new(Archive::open(fixture.folder.path()).unwrap().0)),
            viewer_url: "https://pacs.example/viewer?StudyInstanceUIDs={study_uid}".into(),
            settings: Arc::new(json!({ "dimse": { "ae_title": "TRIAGED" } })),
            card: Arc::new(json!({ "name": "m10" })),
            terms: ["non-commercial use <b>".to_owned(), "CC BY 4.0".to_owned()].into(),
            routing: Arc::new(Routing::silent()),
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, site, stop.clone()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([])
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Served { fixture, client, address, ready, stop, server }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    async fn page(&self, path: &str) -> String {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        response.text().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json_of(response).await
    }

    pub fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whatever is at an address.
    pub async fn page_of(&self, path: &str) -> String {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.server).await.expect("it stops").unwrap();
    }

    fn acknowledged(&self, uid: &str) -> bool {
        let row = self.fixture.ledger.study(uid).unwrap().unwrap();
        row.acknowledged_at.is_some()
    }

    /// A flagged study whose notification was given up; the notification's id.
    async fn dead_letter(&self, uid: &str) -> i64 {
        self.fixture.judge(&Study::new(uid, &[0.9]), "webhook").await;
        let id = self.fixture.ledger.due("webhook", 10, Duration::from_secs(3600)).unwrap().pop().unwrap().id;
        let error = "HTTP 404 Not Found: <img src=x onerror=alert(1)>".into();
        self.fixture.ledger.settle(id, Delivery::Dead { at: now(), error }).await.unwrap();
        id
    }
}

async fn json_of(response: Response) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn uids(answer: &Value) -> Vec<&str> {
    answer["studies"].as_array().unwrap().iter().map(|study| study["study_uid"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_worklist_is_in_reading_order_and_calls_nothing_normal() {
    let node = Served::new().await;
    assert!(node.page("/").await.contains("No study was received yet"));
    node.fixture.judge(&Study::new("1.1", &[0.9, 0.1]), "webhook").await;
    node.fixture.judge(&Study::new("1.2", &[0.2]), "webhook").await;
    node.fixture.judge(&Study { ineligible: &["LOCALIZER"], ..Study::new("1.3", &[]) }, "webhook").await;
    node.fixture.receive(&Study::new("1.4", &[0.3])).await;

    let page = node.page("/").await;
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text} in {page}"));
    let order = ["1.1", "1.3", "1.4", "1.2"].map(|uid| place(&format!("data-uid=\"{uid}\"")));
    assert!(order.is_sorted(), "{order:?}");
    for words in
        ["<strong>FLAGGED</strong>", "not flagged", "not triaged", "receiving", "0.900", "not for diagnosis", "not yet"]
    {
        place(words);
    }
    for path in ["/", "/studies/1.1", "/studies/1.2", "/studies/1.3", "/studies/1.4", "/api/v1/studies"] {
        let text = node.get(path).send().await.unwrap().text().await.unwrap().to_lowercase();
        for word in ["normal", "negative study", "no hemorrhage", "cleared study"] {
            assert!(!text.contains(word), "{word} at {path}");
        }
    }

    let answer = node.json("/api/v1/studies").await;
    assert_eq!(uids(&answer), ["1.1", "1.3", "1.4", "1.2"]);
    let verdicts: Vec<&Value> = answer["studies"].as_array().unwrap().iter().map(|study| &study["verdict"]).collect();
    assert_eq!(verdicts, ["FLAGGED", "not triaged", "receiving", "not flagged"]);
    assert_eq!(answer["studies"][0]["flagged"], true);
    assert_eq!(answer["studies"][1]["flagged"], Value::Null);
    assert_eq!(uids(&node.json("/api/v1/studies?flagged=true").await), ["1.1"]);
    assert_eq!(uids(&node.json("/api/v1/studies?state=receiving").await), ["1.4"]);
    assert_eq!(uids(&node.json("/api/v1/studies?state=decided&limit=2").await), ["1.1", "1.3"]);
    node.stop().await;
}

/// What reorders or hides text would make one patient's identifier read as another's.
#[tokio::test]
async fn identifiers_read_as_they_are() {
    let node = Served::new().await;
    let study = Study { accession_number: Some("12\u{202e}345\u{200b}"), ..Study::new("1.1", &[0.9]) };
    node.fixture.judge(&study, "webhook").await;
    for path in ["/", "/studies/1.1"] {
        let page = node.page(path).await;
        assert!(page.contains("12\u{fffd}345\u{fffd}"), "{page}");
        assert!(!page.contains(['\u{202e}', '\u{200b}']), "{page}");
    }
    // Programs get what came.
    let answer = node.json("/api/v1/studies").await;
    assert_eq!(answer["studies"][0]["accession_number"], "12\u{202e}345\u{200b}");
    node.stop().await;
}

#[tokio::test]
async fn a_study_shows_its_slices_verdicts_and_notifications() {
    let node = Served::new().await;
    let study = Study { ineligible: &["body part KNEE"], ..Study::new("1.1", &[0.9, 0.25]) };
    node.fixture.judge(&study, "webhook").await;
    let page = node.page("/studies/1.1").await;
    for text in [
        r#"<rect x="0" y="10" width="9" height="90" class="positive">"#,
        r#"<rect x="10" y="75" width="9" height="25" class="negative">"#,
        r#"class="unscored""#,
        "slice 1, frame 1: 0.900, positive",
        "slice 3, frame 1: ineligible",
        "body part KNEE",
        "m10, CPU",
        "by the highest slice",
        "flagged from 0.500",
        "pending",
    ] {
        assert!(page.contains(text), "no {text} in {page}");
    }
    let answer = node.json("/api/v1/studies/1.1").await;
    assert_eq!(answer["study"]["verdict"], "FLAGGED");
    assert_eq!(answer["slices"].as_array().unwrap().len(), 3);
    assert_eq!((&answer["slices"][0]["probability"], &answer["slices"][0]["positive"]), (&json!(0.9), &json!(true)));
    assert_eq!(
        (&answer["slices"][2]["state"], &answer["slices"][2]["reason"]),
        (&json!("ineligible"), &json!("body part KNEE"))
    );
    assert_eq!(answer["verdicts"][0]["model_sha256"], "ab".repeat(32));
    assert_eq!(answer["notifications"][0]["state"], "pending");
    node.stop().await;
}

#[tokio::test]
async fn what_came_from_outside_is_text_and_never_markup() {
    let node = Served::new().await;
    let uid = r#"1.2/<b>&"'%3C.3?x#y"#;
    let hostile = r#""'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"#;
    node.fixture
        .judge(
            &Study {
                uid,
                accession_number: Some(hostile),
                patient_id: Some(hostile),
                calling_ae: hostile,
                probabilities: &[0.9],
                ineligible: &[hostile],
            },
            "webhook",
        )
        .await;
    let id = node.fixture.notifications()[0].id;
    node.fixture.ledger.settle(id, Delivery::Dead { at: now(), error: hostile.into() }).await.unwrap();

    let worklist = node.page("/").await;
    let link = worklist.split(r#"href="/studies/"#).nth(1).unwrap().split(['"', '#']).next().unwrap();
    assert_eq!(link, "1.2%2F%3Cb%3E%26%22%27%253C.3%3Fx%23y");
    let study = node.page(&format!("/studies/{link}")).await;
    let missing = node.get("/studies/%3Cscript%3E").send().await.unwrap().text().await.unwrap();
    for page in [&worklist, &study, &missing] {
        assert_eq!(page.matches("<script").count(), 1, "the page's own");
        for markup in ["<script>", "<img src=x", "<b>", "\"'>", "onerror=alert(1)>"] {
            assert!(!page.contains(markup), "{markup} in {page}");
        }
    }
    let escaped = "&#60;script&#62;alert(1)&#60;/script&#62;";
    assert!(worklist.contains(escaped), "{worklist}");
    // Accession number, patient ID, the slice's reason, the notification's error.
    assert!(study.matches(escaped).count() >= 4, "{study}");
    assert_eq!(node.json(&format!("/api/v1/studies/{link}")).await["study"]["accession_number"], hostile);
    node.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_bind_the_browser() {
    let node = Served::new().await;
    for path in ["/", "/style.css", "/api/v1/studies", "/metrics", "/healthz", "/readyz", "/nowhere", "/studies/1"] {
        let response = node.get(path).send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; style-src 'self';"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cache-control"), "no-store");
    }
    let page = node.page("/").await;
    assert!(
        !page.contains("style=") && !page.contains("<style") && !page.contains("<script>"),
        "the policy forbids it"
    );
    let linked = |before: &str| {
        let address = page.split(before).nth(1).unwrap();
        address.split('"').next().unwrap().to_owned()
    };
    // Files that are the same for everybody may be kept, under a name that changes with them.
    for address in [linked("rel=\"stylesheet\" href=\""), linked("<script src=\"")] {
        let response = node.get(&address).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable", "{address}");
    }
    let style = node.get("/style.css").send().await.unwrap();
    assert_eq!(style.headers()[CONTENT_TYPE], "text/css; charset=utf-8");
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_askers_language() {
    let node = Served::new().await;
    for (path, status) in [
        ("/api/v1/nowhere", 404),
        ("/api/v1/studies/1.2.3", 404),
        ("/api/v1/studies/%FF%FE", 404),
        ("/api/v1/studies?limit=0", 400),
        ("/api/v1/studies?limit=1000000", 400),
        ("/api/v1/studies?limit=many", 400),
        ("/api/v1/studies?state=normal", 400),
        ("/api/v1/studies?flaged=true", 400),
        ("/api/v1/notifications?state=lost", 400),
        ("/api/v1/studies/1.2.3/acknowledge", 405),
    ] {
        let response = node.get(path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert!(json_of(response).await["error"].as_str().unwrap().len() > 5, "{path}");
    }
    for path in ["/nowhere", "/studies/1.2.3", "/studies/%FF", "/studies/..%2f..%2fetc%2fpasswd"] {
        let response = node.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_alert_is_acknowledged_once_and_a_dead_letter_sent_again() {
    let node = Served::new().await;
    let id = node.dead_letter("1.1").await;
    assert!(node.page("/").await.contains("1 notification could not be delivered so far"));
    assert!(node.page("/studies/1.1").await.contains("<strong>not delivered</strong>"));
    let dead = node.json("/api/v1/notifications?state=dead").await;
    assert_eq!((dead["notifications"].as_array().unwrap().len(), &dead["notifications"][0]["id"]), (1, &json!(id)));

    let post = |path: String| node.post(&path).header(CONTENT_TYPE, "application/json").body("{}").send();
    let answer = json_of(post(format!("/api/v1/notifications/{id}/requeue")).await.unwrap()).await;
    assert_eq!(answer, json!({ "requeued": 1 }));
    assert_eq!(node.json("/api/v1/notifications").await["notifications"][0]["state"], "pending");
    for gone in [format!("/api/v1/notifications/{id}/requeue"), "/api/v1/notifications/abc/requeue".into()] {
        assert_eq!(post(gone).await.unwrap().status(), StatusCode::NOT_FOUND);
    }

    let first = json_of(post("/api/v1/studies/1.1/acknowledge".into()).await.unwrap()).await;
    let second = json_of(post("/api/v1/studies/1.1/acknowledge".into()).await.unwrap()).await;
    let audit = node.fixture.ledger.audit(&Default::default()).unwrap();
    let who: Vec<_> =
        audit.iter().map(|row| (row.deed.as_str(), row.actor_kind.as_str(), row.actor.as_str())).collect();
    let deeds = ["notification.requeue", "study.acknowledge", "study.acknowledge"];
    assert_eq!(who, deeds.map(|deed| (deed, "peer", "web 127.0.0.1")));
    assert_eq!((&first["first"], &second["first"]), (&json!(true), &json!(false)));
    assert_eq!(first["acknowledged_at"], second["acknowledged_at"]);
    assert!(node.acknowledged("1.1"));
    assert_eq!(post("/api/v1/studies/9/acknowledge".into()).await.unwrap().status(), StatusCode::NOT_FOUND);
    let large = node.post("/api/v1/studies/1.1/acknowledge").header(CONTENT_TYPE, "application/json");
    assert_eq!(large.body("x".repeat(20_000)).send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    node.stop().await;
}

/// The value of a form's hidden field.
fn hidden<'a>(page: &'a str, name: &str) -> &'a str {
    page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap()
}

#[tokio::test]
async fn a_deed_is_about_the_verdict_that_was_shown_and_no_other() {
    let node = Served::new().await;
    let own = format!("http://{}", node.address);
    let form = |path: &'static str, fields: String, script: bool| {
        let request = node.post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded").header("origin", &own);
        let request = if script { request.header("accept", "application/json") } else { request };
        request.body(fields).send()
    };
    let api = |deed: &str, body: Value| {
        let request = node.post(&format!("/api/v1/studies/1.1/{deed}"));
        request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send()
    };
    node.fixture.judge(&Study::new("1.1", &[0.2]), "webhook").await;
    let page = node.page("/studies/1.1").await;
    assert!(page.contains("Mark as seen"), "{page}");
    let (old, kind) = (hidden(&page, "verdict").to_owned(), hidden(&page, "kind").to_owned());
    assert_eq!(kind, "seen");

    // Meanwhile the study is flagged.
    node.fixture.judge_again(&Study::new("1.1", &[0.7])).await;
    let fields = format!("verdict={old}&kind={kind}&note=called+%26+told&by=Dr+A&back=/");
    let refused = form("/studies/1.1/acknowledge", fields.clone(), false).await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let page = refused.text().await.unwrap();
    for shown in
        ["FLAGGED</h1>", "Nothing was done: the study was judged since", "called &#38; told</textarea>", "Dr A"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let refused = form("/studies/1.1/acknowledge", fields, true).await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(json_of(refused).await["error"].as_str().unwrap().contains("FLAGGED"));
    let number: i64 = old.parse().unwrap();
    for (deed, said) in [
        ("acknowledge", json!({ "verdict_id": number })),
        ("acknowledge", json!({ "verdict_id": 0 })),
        ("acknowledge", json!({ "revision": 1 })),
        ("acknowledge", json!({ "kind": "seen" })),
        ("acknowledge", json!({ "verdict_id": 999 })),
        ("feedback", json!({ "opinion": "agree", "verdict_id": number })),
        ("unacknowledge", json!({ "verdict_id": number })),
    ] {
        let refused = api(deed, said.clone()).await.unwrap();
        assert_eq!(refused.status(), StatusCode::CONFLICT, "{deed} {said}");
        assert!(json_of(refused).await["error"].is_string());
    }
    assert!(!node.acknowledged("1.1"));
    assert!(node.fixture.ledger.feedback(None, None, 9).unwrap().is_empty());

    // A verdict that says the same is covered, and the log names the one that was seen.
    let row = node.json("/api/v1/studies").await;
    let seen = row["studies"][0]["verdict_id"].as_i64().unwrap();
    assert_eq!(hidden(&page, "verdict"), seen.to_string());
    assert_eq!(hidden(&node.page("/").await, "verdict"), seen.to_string(), "the worklist's rows say it, too");
    node.fixture.judge_again(&Study::new("1.1", &[0.72])).await;
    let done =
        form("/studies/1.1/acknowledge", format!("verdict={seen}&kind=acknowledged&back=/"), true).await.unwrap();
    assert_eq!((done.status(), json_of(done).await), (StatusCode::OK, json!({ "done": true })));
    assert_eq!(node.fixture.ledger.acknowledgements("1.1").unwrap()[0].revision, Some(2));
    let given = api("feedback", json!({ "opinion": "agree", "verdict_id": seen })).await.unwrap();
    assert_eq!(given.status(), StatusCode::OK);
    let undone = json_of(api("unacknowledge", json!({ "verdict_id": seen + 1 })).await.unwrap()).await;
    assert_eq!(undone, json!({ "undone": true }));
    // Materially more evidence is another matter; a script of old that says nothing still may.
    node.fixture.judge_again(&Study::new("1.1", &[0.99])).await;
    let refused = api("acknowledge", json!({ "verdict_id": seen })).await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert_eq!(json_of(api("acknowledge", json!({})).await.unwrap()).await["first"], true);
    node.stop().await;
}

#[tokio::test]
async fn the_list_says_who_is_told_and_who_never_will_be() {
    let node = Served::new().await;
    let told =
        |page: String| page.split("data-label=\"Told\">").nth(1).unwrap().split("</td>").next().unwrap().to_owned();
    node.fixture.judge_and_route(&Study::new("1.1", &[0.9]), &Routing::silent()).await;
    assert!(told(node.page("/?q=1.1").await).contains("nobody"));
    node.dead_letter("1.2").await;
    assert!(told(node.page("/?q=1.2").await).contains("not delivered"));
    node.fixture.judge(&Study::new("1.3", &[0.9]), "webhook").await;
    assert_eq!(told(node.page("/?q=1.3").await), "not yet");
    let acknowledged = node.post("/api/v1/studies/1.3/acknowledge").header(CONTENT_TYPE, "application/json").body("{}");
    assert_eq!(acknowledged.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(told(node.page("/?q=1.3").await), "–");
    let empty = node.page("/?view=all&page=9").await;
    assert!(!empty.contains("0 to ") && empty.contains("There are no more studies"), "{empty}");
    node.stop().await;
}

#[tokio::test]
async fn another_sites_page_can_change_nothing() {
    let node = Served::new().await;
    let id = node.dead_letter("1.1").await;
    let paths = [
        "/studies/1.1/acknowledge".to_owned(),
        "/api/v1/studies/1.1/acknowledge".to_owned(),
        format!("/notifications/{id}/requeue"),
        format!("/api/v1/notifications/{id}/requeue"),
    ];
    let form = "application/x-www-form-urlencoded";
    for path in &paths {
        for dress in [
            vec![],
            vec![("content-type", form)],
            vec![("content-type", "text/plain")],
            vec![("content-type", form), ("origin", "http://evil.example")],
            vec![("content-type", form), ("origin", "null")],
            vec![("content-type", "application/json"), ("origin", "http://evil.example")],
            vec![("content-type", "application/json"), ("sec-fetch-site", "cross-site")],
            vec![("content-type", form), ("sec-fetch-site", "same-site")],
        ] {
            let request = dress.iter().fold(node.post(path), |request, (name, value)| request.header(*name, *value));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {dress:?}");
            assert!(json_of(response).await["error"].is_string());
        }
    }
    assert!(!node.acknowledged("1.1"));
    assert_eq!(node.fixture.notifications()[0].state, "dead");

    // The same forms from this site's own pages.
    let own = format!("http://{}", node.address);
    for path in [&paths[0], &paths[2]] {
        let response = node.post(path).header("content-type", form).header("origin", &own).send().await.unwrap();
        assert_eq!((response.status(), &response.headers()[LOCATION]), (StatusCode::SEE_OTHER, &"/".parse().unwrap()));
    }
    assert!(node.acknowledged("1.1"));
    assert_eq!(node.fixture.notifications()[0].state, "pending");
    node.stop().await;
}

#[tokio::test]
async fn a_name_that_was_pointed_at_the_loopback_address_is_not_answered() {
    let node = Served::new().await;
    node.fixture.judge(&Study::new("1.1", &[0.9]), "webhook").await;
    for path in ["/", "/api/v1/studies", "/metrics"] {
        let response = node.get(path).header("host", "rebound.evil.example:8080").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(!response.text().await.unwrap().contains("1.1"));
        assert_eq!(node.get(path).header("host", "localhost").send().await.unwrap().status(), StatusCode::OK);
    }
    node.stop().await;
}

#[tokio::test]
async fn health_and_readiness_tell_what_is_wrong() {
    let node = Served::new().await;
    assert_eq!(node.get("/healthz").send().await.unwrap().text().await.unwrap(), "ok\n");
    let answer = node.json("/readyz").await;
    assert_eq!((&answer["ready"], &answer["checks"][0]["ok"]), (&json!(true), &json!(true)));
    assert!(answer["checks"][0]["detail"].as_str().unwrap().contains("auto fell back from CUDA"));

    node.ready.store(false, Ordering::SeqCst);
    let response = node.get("/readyz").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let answer = json_of(response).await;
    assert_eq!(
        answer["checks"][1],
        json!({ "name": "disk", "ok": false, "detail": "12 MiB free, archive.min_free_mib is 1024" })
    );
    node.stop().await;

    let node = Served::new().await;
    std::fs::remove_file(node.fixture.path()).unwrap();
    assert_eq!(node.get("/healthz").send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    node.stop().await;
}

#[tokio::test]
async fn the_metrics_are_prometheus_text() {
    let node = Served::new().await;
    node.fixture.judge(&Study::new("1.1", &[0.9]), "webhook").await;
    let response = node.get("/metrics").send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let mut samples = 0;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP triaged_") || comment.starts_with("TYPE triaged_"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with("triaged_") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        assert!(labels.ends_with('}'), "{line}");
        samples += 1;
    }
    assert!(samples > 10, "{text}");
    assert!(text.contains("triaged_ledger_commit_seconds_bucket{le=\"0.0001\"}"), "{text}");
    assert!(text.contains(concat!("triaged_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
    node.stop().await;
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_returns() {
    let node = Served::new().await;
    let mut idle = TcpStream::connect(node.address).await.unwrap();
    assert_eq!(node.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    let headers: HeaderMap = node.get("/").send().await.unwrap().headers().clone();
    assert!(!headers.is_empty());
    let address = node.address;
    node.stop().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), idle.read_to_end(&mut rest)).await.expect("it was closed");
    assert!(rest.is_empty());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_node_page_plots_what_was_measured_and_the_footer_names_the_terms() {
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.9]), "webhook").await;
    fixture
        .database()
        .execute_batch(
            "INSERT INTO measurements VALUES
                 (strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-30 minutes'), 7, 53687091200, 30, 1.5, 4.25),
                 (strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-3 days'), 900, 10737418240, 0, NULL, NULL),
                 ('2001-01-01T00:00:00.000Z', 1, 1, 1, 1, 1)",
        )
        .unwrap();
    let node = Served::start(fixture).await;
    let page = node.page_of("/admin").await;
    for said in [
        "Seconds from received to scored, the last day",
        "30 slices, half of them within 1.50 s, 95 of 100 within 4.25 s",
        "at most 900 slices waited",
        "at least 50.0 GiB free",
        "at least 10.0 GiB free",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    for path in ["/", "/admin", "/studies/1.1", "/login"] {
        let page = node.page_of(path).await;
        assert!(page.contains("Model m10 was trained on data for non-commercial use"), "{path}: {page}");
        assert!(page.contains("non-commercial use &#60;b&#62;") && page.contains("CC BY 4.0"), "{path}: {page}");
        assert!(!page.contains("action=\"/logout\""), "{path}: nobody is logged in");
    }
    node.stop().await;
}
