//! The e-mail channel: SMTP with STARTTLS or TLS from the start, plain text and HTML.
//!
//! Each recipient has a transaction of their own, so that one address which the server refuses keeps nobody else from being
//! told. The subject holds nothing about a patient: it shows on locked telephones.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use askama::Template;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use triaged_imaging::attributes::text;

use super::words::Words;
use super::{Attempt, Channel, ChannelError, Failure, Include, Message, Outcome, Recipients, StudyFiles, Surroundings};
use crate::config::{self, MailSecurity};
use crate::person;

/// How many characters of a server's answer are kept for the administrator.
const MOST_REPLY_CHARS: usize = 200;

/// Messages of which some recipients have theirs and others not yet; the oldest are forgotten past this.
const MOST_PARTLY_SENT: usize = 1000;

/// Sends mail through one server.
pub struct Email {
    name: String,
    /// Blocks. Opens a connection for each mail.
    transport: SmtpTransport,
    from: Mailbox,
    to: Vec<Mailbox>,
    timeout: Duration,
    include: Include,
    include_patient_name: bool,
    zone: TimeZone,
    files: Arc<dyn StudyFiles>,
    /// Who has which message, over restarts.
    recipients: Arc<dyn Recipients>,
    /// The same of this process, by idempotency key: for messages that are not in the ledger, and while it ails.
    partly_sent: Mutex<PartlySent>,
}

/// The addresses that have a message, by its idempotency key, the oldest message first.
#[derive(Default)]
struct PartlySent {
    told: HashMap<String, HashSet<String>>,
    order: VecDeque<String>,
}

impl PartlySent {
    fn note(&mut self, key: &str, address: &str) {
        if !self.told.contains_key(key) {
            self.order.push_back(key.to_owned());
            if self.order.len() > MOST_PARTLY_SENT
                && let Some(oldest) = self.order.pop_front()
            {
                self.told.remove(&oldest);
            }
        }
        self.told.entry(key.to_owned()).or_default().insert(address.to_owned());
    }

    fn forget(&mut self, key: &str) {
        self.told.remove(key);
        self.order.retain(|known| known != key);
    }
}

#[derive(Template)]
#[template(path = "mail/text.txt")]
struct Text<'a> {
    words: &'a Words,
}

#[derive(Template)]
#[template(path = "mail/page.html")]
struct Page<'a> {
    words: &'a Words,
}

impl Email {
    pub fn new(
        name: &str,
        settings: &config::Email,
        zone: &TimeZone,
        surroundings: &Surroundings,
    ) -> Result<Email, ChannelError> {
        let wrong = |key: &str, why: String| ChannelError::new(format!("notify.channels, channel {name:?}.{key}"), why);
        let mailbox = |key: &str, text: &str| -> Result<Mailbox, ChannelError> {
            text.parse().map_err(|error| wrong(key, format!("{text:?} is not an e-mail address: {error}")))
        };
        let to: Vec<Mailbox> = settings.to.iter().map(|to| mailbox("to", to)).collect::<Result<_, _>>()?;
        if to.is_empty() {
            return Err(wrong("to", "is empty: the mail goes to nobody".into()));
        }
        if !(settings.timeout_seconds > 0.0 && settings.timeout_seconds <= 3600.0) {
            return Err(wrong("timeout_seconds", "must be more than 0, and at most 3600".into()));
        }
        if settings.server.is_empty() {
            return Err(wrong("server", "is empty".into()));
        }
        let timeout = Duration::from_secs_f64(settings.timeout_seconds);
        let tls = || -> Result<TlsParameters, ChannelError> {
            let mut tls = TlsParameters::builder(settings.server.clone());
            if !settings.ca_file.is_empty() {
                let pem = std::fs::read(&settings.ca_file)
                    .map_err(|error| wrong("ca_file", format!("cannot read {}: {error}", settings.ca_file)))?;
                let certificate = Certificate::from_pem(&pem).map_err(|error| {
                    wrong("ca_file", format!("{} is not a PEM certificate: {error}", settings.ca_file))
                })?;
                tls = tls.add_root_certificate(certificate);
            }
            tls.build().map_err(|error| wrong("security", format!("TLS cannot start: {error}")))
        };
        let (tls, port) = match settings.security {
            MailSecurity::Starttls => (Tls::Required(tls()?), 587),
            MailSecurity::Tls => (Tls::Wrapper(tls()?), 465),
            MailSecurity::None => (Tls::None, 25),
        };
        let mut transport = SmtpTransport::builder_dangerous(&settings.server)
            .port(if settings.port == 0 { port } else { settings.port })
            .tls(tls)
            .timeout(Some(timeout));
        if !settings.username.is_empty() {
            if settings.security == MailSecurity::None && !is_loopback(&settings.server) {
                return Err(wrong(
                    "security",
                    "a password is not sent over an open connection; security is \"starttls\" or \"tls\"".into(),
                ));
            }
            let password = settings.read_password().map_err(|why| wrong("password_file", why))?;
            transport = transport.credentials(Credentials::new(settings.username.clone(), password));
        }
        Ok(Email {
            name: name.to_owned(),
            transport: transport.build(),
            from: mailbox("from", &settings.from)?,
            to,
            timeout,
            include: Include {
                patient_id: settings.include_patient_id,
                accession_number: settings.include_accession_number,
            },
            include_patient_name: settings.include_patient_name,
            zone: zone.clone(),
            files: surroundings.files.clone(),
            recipients: surroundings.recipients.clone(),
            partly_sent: Mutex::default(),
        })
    }

    async fn send(&self, message: &Message) -> Outcome {
        let mail = match self.mail(message).await {
            Ok(mail) => mail,
            Err(why) => return Outcome::Reject { error: why.into() },
        };
        let told_before = self.told_before(message).await;
        let mut told = Vec::new();
        let (mut temporary, mut permanent) = (None, None);
        for to in self.to.iter().filter(|to| !told_before.contains::<str>(to.email.as_ref())) {
            let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]);
            let envelope = envelope.expect("an envelope needs a recipient, and has one");
            let (transport, mail) = (self.transport.clone(), mail.clone());
            let send = tokio::task::spawn_blocking(move || transport.send_raw(&envelope, &mail));
            // Each step of a transaction has the transport's timeout; a server that drips keeps its thread, not this channel.
            let attempt = tokio::time::timeout(self.timeout * 4, send).await;
            match attempt {
                Ok(Ok(Ok(_))) => {
                    let address: &str = to.email.as_ref();
                    self.partly_sent().note(&message.idempotency_key, address);
                    told.push(address.to_owned());
                }
                Ok(Ok(Err(error))) => {
                    let failure = failure(&error, to.email.as_ref());
                    let lasting = error.is_permanent() || error.is_tls() || error.is_client();
                    if lasting {
                        permanent.get_or_insert(failure)
                    } else {
                        temporary.get_or_insert(failure)
                    };
                }
                Ok(Err(_)) => {
                    permanent.get_or_insert_with(|| Failure::from("sending panicked; this is a bug"));
                }
                Err(_) => {
                    temporary.get_or_insert_with(|| Failure::from("the mail server did not answer in time"));
                }
            }
        }
        let somebody_has_it = !told.is_empty() || !told_before.is_empty();
        match (temporary, permanent) {
            (None, None) => {
                self.partly_sent().forget(&message.idempotency_key);
                Outcome::Delivered
            }
            // Those who are to be tried again soon go first; the others' refusal is told at the end.
            (Some(error), _) => {
                self.note_told(message, told).await;
                Outcome::Retry { error, after: None }
            }
            (None, Some(error)) if somebody_has_it => {
                self.partly_sent().forget(&message.idempotency_key);
                Outcome::DeliveredExcept { error }
            }
            (None, Some(error)) => Outcome::Reject { error },
        }
    }

    /// The addresses that have a message.
    async fn told_before(&self, message: &Message) -> HashSet<String> {
        let mut told = self.partly_sent().told.get(&message.idempotency_key).cloned().unwrap_or_default();
        if message.id > 0 {
            let (recipients, id) = (self.recipients.clone(), message.id);
            match tokio::task::spawn_blocking(move || recipients.told(id)).await {
                Ok(Ok(known)) => told.extend(known),
                Ok(Err(why)) => tracing::warn!(channel = self.name, why, "who has a message already cannot be read"),
                Err(_) => {}
            }
        }
        told
    }

    /// Keeps who has a message while others have not.
    async fn note_told(&self, message: &Message, told: Vec<String>) {
        if message.id == 0 || told.is_empty() {
            return;
        }
        let (recipients, id) = (self.recipients.clone(), message.id);
        if let Ok(Err(why)) = tokio::task::spawn_blocking(move || recipients.note(id, told)).await {
            tracing::warn!(
                channel = self.name,
                why,
                "who has a message cannot be kept: they may get it again after a restart"
            );
        }
    }

    /// The whole message, the same at every attempt.
    async fn mail(&self, message: &Message) -> Result<Vec<u8>, String> {
        let mut words = Words::of(message, self.include, &self.zone);
        if self.include_patient_name
            && let Some(study) = message.event.study_uid()
            && let Some(name) = self.patient_name(study.to_owned()).await
        {
            words.name_patient(&name);
        }
        let render =
            |result: askama::Result<String>| result.map_err(|error| format!("the mail cannot be made: {error}"));
        let plain = render(Text { words: &words }.render())?;
        let page = render(Page { words: &words }.render())?;
        let domain = self.from.email.domain();
        let created = message.created_at.parse::<Timestamp>().map_or(0, |created| created.as_second());
        let created = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or(0));
        let header =
            |name: &'static str, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .date(created)
            .message_id(Some(format!("<{}@{domain}>", message.idempotency_key)))
            .subject(&words.title)
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Triaged-Event", message.event.kind().as_str()));
        if words.urgent {
            builder = builder.raw_header(header("Importance", "high")).raw_header(header("X-Priority", "1"));
        }
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        // A boundary of lettre's is random, which would make each attempt another message.
        let parts = MultiPart::alternative()
            .boundary(format!("triaged-{}", message.idempotency_key))
            .singlepart(SinglePart::plain(plain))
            .singlepart(SinglePart::html(page));
        let mail = builder.multipart(parts).map_err(|error| format!("the mail cannot be made: {error}"))?;
        Ok(mail.formatted())
    }

    /// From the first of the study's files that can be read.
    async fn patient_name(&self, study_uid: String) -> Option<String> {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || {
            let files = files.files(&study_uid).ok()?;
            files.iter().take(3).find_map(|file| {
                let object = triaged_imaging::read_header(&file.path).ok()?;
                let name = text(&object, dicom_dictionary_std::tags::PATIENT_NAME)?;
                person::name(&name)
            })
        });
        read.await.ok().flatten()
    }

    fn partly_sent(&self) -> std::sync::MutexGuard<'_, PartlySent> {
        self.partly_sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel for Email {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, message: &'a Message) -> Attempt<'a> {
        Box::pin(self.send(message))
    }
}

/// The server's words may repeat the subject or a recipient, so they go to the ledger only.
fn failure(error: &lettre::transport::smtp::Error, to: &str) -> Failure {
    match error.status() {
        Some(code) => {
            let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            let said: String =
                said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_REPLY_CHARS).collect();
            Failure { text: format!("the mail server answered {code}"), reply: Some(format!("for {to}: {said}")) }
        }
        None => Failure { text: error.to_string(), reply: None },
    }
}

fn is_loopback(server: &str) -> bool {
    server == "localhost" || server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
