//! The places where bytes that nobody has vouched for come in, each as a function of bytes that returns, whatever they are, and does not panic.
//! The fuzz targets call them, and so does a test of the workspace (`tests/node/fuzz.rs`), with the seeds and mutations of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use triaged::archive::Archive;
use triaged::config::{self, Settings, WebhookFormat};
use triaged::decoding::Frames;
use triaged::dimse::command::{Message, Response};
use triaged::dimse::negotiation::negotiate;
use triaged::dimse::pdu::{Event, Pdu, PduStream};
use triaged::dimse::service::Service;
use triaged::dimse::service::echo::Echo;
use triaged::dimse::status::Status;
use triaged::event::{Event as Told, StudyEvent};
use triaged::ledger::{Instances, Ledger, NewInstance, SliceStart};
use triaged::notify::{Channel, Links, Message as Notification, Outcome, Routing, Webhook};
use triaged::rendering::Renderer;
use triaged::report::Reports;
use triaged::triage::ShadowJudge;
use triaged::web::{Check, Door, Readiness, Site};
use triaged_imaging::{Transform, Window, frame_count, model_input, most_frames, read_bytes, read_header_bytes};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the system gives what a runtime needs")
});

/// Any bytes on an association. The first byte chooses which reader sees the rest, so that a short input reaches each of them.
pub fn pdu(bytes: &[u8]) {
    let Some((reader, rest)) = bytes.split_first() else { return };
    match reader % 3 {
        0 => {
            let Some((pdu_type, body)) = rest.split_first() else { return };
            if let Ok(Pdu::AssociateRequest(request)) = Pdu::parse(*pdu_type, body) {
                let services: [Arc<dyn Service>; 1] = [Arc::new(Echo)];
                let negotiated = negotiate(&request, &services, None);
                assert_eq!(negotiated.results.len(), request.contexts.len());
            }
        }
        1 => command_set(rest),
        _ => RUNTIME.block_on(async {
            let (mut peer, node) = tokio::io::duplex(rest.len().max(1));
            peer.write_all(rest).await.expect("the pipe has room for all");
            drop(peer);
            let mut stream = PduStream::new(Box::new(node));
            let mut pieces = 0;
            loop {
                match stream.next(Duration::from_secs(5)).await {
                    Ok(Event::Piece(piece)) => pieces += piece.data.len(),
                    Ok(Event::Control(_)) => {}
                    Ok(Event::Closed) | Err(_) => break,
                }
            }
            assert!(pieces <= rest.len());
        }),
    }
}

/// Any bytes as a command set (PS3.7 section 6.3): whoever is answered can read the answer.
pub fn command_set(bytes: &[u8]) {
    if let Ok(Message::Request(request)) = Message::parse(bytes.to_vec()) {
        let response = request.response(&Response::from(Status::new(Status::OUT_OF_RESOURCES, "full")));
        assert!(Message::parse(response).is_ok());
    }
}

/// Any bytes as a Part 10 file, meta information and data set: an object that is assessed, or an error.
pub fn data_set(bytes: &[u8]) {
    if let Ok(object) = read_header_bytes(bytes) {
        let frames = most_frames(&object);
        let slices = triaged::triage::Gate::default().assess(&object, Some(frames));
        assert!(slices.len() <= frames.max(1) as usize, "no more slices than there can be frames");
    }
}

/// Any bytes as a file, all the way to the model's input.
pub fn pixels(bytes: &[u8]) {
    let Ok(object) = read_bytes(bytes) else { return };
    let windows = vec![Window { center: 40.0, width: 80.0 }];
    let transforms = [
        Transform::HounsfieldWindows { height: 32, width: 32, windows, normalization: None, crop_to_head: None },
        Transform::StoredValues { height: 32, width: 32 },
    ];
    for frame in 0..frame_count(&object).unwrap_or(1).min(2) {
        for transform in &transforms {
            if let Ok(tensor) = model_input(&object, frame, transform) {
                assert_eq!(tensor.data.len(), 32 * 32);
            }
        }
    }
}

/// Any bytes from a decoder process, which its object may have taken over.
pub fn decoder_answers(bytes: &[u8]) {
    assert!(triaged::decoding::read_answers(bytes).iter().all(|why| why.chars().count() <= 1000));
}

/// Any bytes as a configuration file: settings or a line that says what is wrong.
pub fn configuration(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(file.path(), bytes).expect("a temporary file can be written");
    if let Err(error) = triaged::config::Settings::load(Some(file.path()), &[]) {
        assert!(!error.to_string().is_empty());
    }
}

/// Any bytes as a model card, without its model: an error in words, or that the model is not there.
pub fn model_card(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let card = folder.path().join("card.json");
    std::fs::write(&card, bytes).expect("a temporary file can be written");
    let error = triaged_model::ModelCard::load(&card).expect_err("its model is not there");
    assert!(!error.to_string().is_empty());
}

/// A web server of the node: the sockets' addresses without a login, and with one.
static WEB: LazyLock<[SocketAddr; 2]> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for temporary files").keep();
    let ledger = Ledger::open(&folder.join("triaged.db")).expect("a new ledger can be opened");
    let archive = Arc::new(Archive::open(&folder).expect("a new archive can be opened").0);
    let settings = Settings::load(None, &[("web.login.enabled", "true")].map(|(key, value)| (key, value.to_owned())));
    let settings = settings.expect("the defaults are settings");
    // Nothing can be decoded, so no process is needed.
    let frames = Frames::start("/nonexistent".into(), &settings.inference);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("the system gives what a runtime needs");
    let instance = NewInstance {
        sop_uid: "1.2.3.1.1".into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study_uid: "1.2.3".into(),
        series_uid: "1.2.3.1".into(),
        instance_number: Some(1),
        accession_number: Some("ACC-1".into()),
        patient_id: Some("PAT-1".into()),
        digest: "0".repeat(64),
        path: "archive/none".into(),
        size: 1,
        calling_ae: "CT1".into(),
        peer: "127.0.0.1".into(),
        received_at: triaged::ledger::now(),
        slices: vec![SliceStart::Ineligible("a localizer".into()).into(), SliceStart::Queued.into()],
        stat: false,
        about: Default::default(),
        concatenation: None,
        images_in_acquisition: None,
        resumes: true,
        is_taken_in_again: false,
    };
    runtime.block_on(ledger.store(instance)).expect("a new ledger takes an instance");
    let doors = [Door::none(), Door::new(&settings.web.login, "", false).expect("there is no provider")];
    let addresses = doors.map(|door| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("the socket is open");
        let address = listener.local_addr().expect("it is bound");
        let site = Site {
            ledger: ledger.clone(),
            shadow: ShadowJudge::default(),
            readiness: Arc::new(|| Readiness { checks: vec![Check::ok("disk", "9000 MiB free")] }),
            metrics: triaged::metrics::install().expect("metrics are installed once"),
            links: Arc::new(Links::new("http://localhost", vec![7; 32]).expect("an address and a key")),
            reports: Reports::new(&folder, "intracranial hemorrhage", jiff::tz::TimeZone::UTC, frames.clone()),
            door,
            renderer: Renderer::new(frames.clone(), archive.clone()),
            viewer_url: "https://pacs.example/viewer?StudyInstanceUIDs={study_uid}".into(),
            settings: Arc::new(serde_json::json!({})),
            card: Arc::new(serde_json::json!({})),
            terms: Arc::new([]),
            routing: Arc::new(Routing::silent()),
        };
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the socket is open");
            triaged::web::serve(listener, None, site, CancellationToken::new()).await;
        });
        address
    });
    std::mem::forget(runtime);
    addresses
});

/// The longest answer that is read: pages are shorter.
const LONGEST: usize = 1 << 20;

/// Any bytes on a connection of the web server: addresses, parameters, cookies, forms, JSON. The first byte chooses whether there is a login.
pub fn http(bytes: &[u8]) {
    let Some((server, request)) = bytes.split_first() else { return };
    let panics = panics();
    let mut socket = TcpStream::connect(WEB[usize::from(server % 2)]).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("the socket is open");
    // It may answer, and close, before all has been written.
    let _ = socket.write_all(request).and_then(|()| socket.shutdown(Shutdown::Write));
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = socket.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
        // Events go on for ever.
        if answer.len() > LONGEST || answer.windows(17).any(|part| part == b"text/event-stream") {
            break;
        }
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ").map(|rest| &rest[..rest.len().min(3)]);
    assert!(status != Some(b"500"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(panics, self::panics(), "a request panicked");
}

/// Panics of all threads so far. Those of the server's threads end a connection, and nothing else.
fn panics() -> usize {
    use std::sync::Once;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNTED: Once = Once::new();
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    COUNTED.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            hook(panic);
        }));
    });
    PANICS.load(Ordering::SeqCst)
}

/// A server on loopback that reads each request to its end and answers with what this makes of its first line.
fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = socket.read(&mut piece) {
                request.extend_from_slice(&piece[..length]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break;
                }
            }
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            let _ = socket.write_all(&answer(&line));
        }
    });
    address
}

/// What is answered next, by all servers of the entries below.
static NEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn answer_next(bytes: Vec<u8>) {
    *NEXT.lock().expect("nobody panics while holding it") = bytes;
}

fn next() -> Vec<u8> {
    NEXT.lock().expect("nobody panics while holding it").clone()
}

fn webhook(address: SocketAddr, format: WebhookFormat, template: &str) -> Result<Webhook, String> {
    let settings = config::Webhook {
        url: format!("http://{address}/hook"),
        secret: String::from("secret of the site").into(),
        timeout_seconds: 5.0,
        include_patient_id: true,
        include_accession_number: Some(true),
        format,
        routing_key: String::from("key of the pager").into(),
        template_file: template.to_owned(),
        content_type: "application/json".into(),
    };
    Webhook::new("webhook", &settings, &jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())
}

/// A message about a study with this text wherever a peer's text may stand.
fn notification(text: &str) -> Notification {
    let study = StudyEvent {
        study_uid: "1.2.3".into(),
        accession_number: Some(text.into()),
        patient_id: Some(text.into()),
        calling_ae_titles: vec![text.into()],
        station_name: Some(text.into()),
        finding: "intracranial hemorrhage".into(),
        revision: 1,
        provisional: false,
        score: Some(0.9),
        threshold: 0.5,
        model: "m10".into(),
        model_sha256: "ab".repeat(32),
        slices_received: 1,
        slices_scored: 1,
        slices_ineligible: 0,
        slices_failed: 0,
        remarks: vec![text.into()],
        top_slices: vec![],
        first_received_at: "2026-11-23T15:42:07.100Z".into(),
        last_received_at: text.into(),
        decided_at: "2026-11-23T15:42:09.100Z".into(),
        software: triaged::SOFTWARE.into(),
    };
    Notification {
        id: 1,
        idempotency_key: "key".into(),
        created_at: "2026-11-23T15:42:09.100Z".into(),
        step: 0,
        event: Told::Flagged(study),
        study_url: None,
        acknowledge_url: None,
    }
}

/// Any bytes as the answer of a webhook's receiver: status, headers and body. What is kept of it is short, on one line, and without secrets.
pub fn webhook_reply(bytes: &[u8]) {
    static SERVER: LazyLock<(SocketAddr, Webhook)> = LazyLock::new(|| {
        let address = answering(|_| next());
        (address, webhook(address, WebhookFormat::Triaged, "").expect("a webhook on loopback"))
    });
    answer_next(bytes.to_vec());
    let kept = match RUNTIME.block_on(SERVER.1.deliver(&notification("ACC-1"))) {
        Outcome::Delivered => return,
        Outcome::DeliveredExcept { error } | Outcome::Retry { error, .. } | Outcome::Reject { error } => error,
    };
    let reply = kept.reply.unwrap_or_default();
    assert!(reply.chars().count() <= 200 && !reply.chars().any(char::is_control), "{reply:?}");
    assert!(!kept.text.is_empty() && !reply.contains("secret of the site"));
}

/// Any bytes as a site's template for messages, up to a NUL, and as the text that peers sent, behind it; then that text in each format.
pub fn notification_template(bytes: &[u8]) {
    static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| answering(|_| b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    static FORMATS: LazyLock<[Webhook; 4]> = LazyLock::new(|| {
        [WebhookFormat::Triaged, WebhookFormat::Teams, WebhookFormat::Slack, WebhookFormat::Pagerduty]
            .map(|format| webhook(*SERVER, format, "").expect("a webhook on loopback"))
    });
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let template = parts.next().unwrap_or_default();
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(file.path(), template).expect("a temporary file can be written");
    let message = notification(&text);
    match webhook(*SERVER, WebhookFormat::Template, file.path().to_str().expect("a temporary name is plain")) {
        Ok(webhook) => drop(RUNTIME.block_on(webhook.deliver(&message))),
        Err(why) => assert!(!why.is_empty()),
    }
    for webhook in &*FORMATS {
        assert_eq!(RUNTIME.block_on(webhook.deliver(&message)), Outcome::Delivered);
    }
}

/// Any bytes as an answer of an OpenID provider. The first byte chooses which: its addresses, its keys, or its tokens; the others are sound.
pub fn provider(bytes: &[u8]) {
    static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
        let own = Arc::new(Mutex::new(None::<SocketAddr>));
        let known = own.clone();
        let address = answering(move |line| {
            let issuer = known.lock().expect("nobody panics while holding it").expect("it is told before anybody asks");
            let next = next();
            let (which, fuzzed) = next.split_first().map_or((0, &[][..]), |(which, rest)| (which % 3, rest));
            let sound = match line.split(' ').nth(1).unwrap_or_default() {
                "/jwks" if which != 1 => r#"{"keys":[]}"#.to_owned(),
                "/token" if which != 2 => {
                    r#"{"access_token":"a","token_type":"Bearer","id_token":"e30.e30.AA"}"#.to_owned()
                }
                path if path.starts_with("/.well-known/") && which != 0 => format!(
                    r#"{{"issuer":"http://{issuer}","authorization_endpoint":"http://{issuer}/authorize","token_endpoint":"http://{issuer}/token",
                    "jwks_uri":"http://{issuer}/jwks","response_types_supported":["code"],"subject_types_supported":["public"],
                    "id_token_signing_alg_values_supported":["RS256"]}}"#
                ),
                _ => String::from_utf8_lossy(fuzzed).replace("ISSUER", &format!("http://{issuer}")),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                sound.len()
            );
            [head.into_bytes(), sound.into_bytes()].concat()
        });
        *own.lock().expect("nobody panics while holding it") = Some(address);
        address
    });
    let given = [
        ("web.login.oidc.issuer", format!("http://{}", *SERVER)),
        ("web.login.oidc.client_id", "triaged".to_owned()),
        ("web.public_url", "https://triaged.example.org".to_owned()),
    ];
    let settings = Settings::load(None, &given).expect("settings of a provider");
    answer_next(bytes.to_vec());
    let said = RUNTIME.block_on(triaged::web::try_login(&settings.web.login.oidc, "https://triaged.example.org"));
    assert!(said.is_err_and(|why| !why.is_empty()), "nobody has signed anything");
}

/// A place where bytes come in.
pub type Entry = fn(&[u8]);

/// Every entry, by the name of its target and of the folder of its seeds.
pub const ENTRIES: [(&str, Entry); 11] = [
    ("pdu", pdu),
    ("command_set", command_set),
    ("data_set", data_set),
    ("pixels", pixels),
    ("decoder_answers", decoder_answers),
    ("configuration", configuration),
    ("model_card", model_card),
    ("http", http),
    ("webhook_reply", webhook_reply),
    ("notification_template", notification_template),
    ("provider", provider),
];
