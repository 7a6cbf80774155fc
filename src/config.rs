//! Layered settings: built-in defaults < file < `TRIAGED__SECTION__KEY` < flags.
//!
//! `conf/triaged.toml` is compiled in as the defaults, so the documented default and the real one are the same text.

mod notify;
mod outgoing;
mod peers;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use serde::{Deserialize, Serialize};

pub use notify::{
    Channel, ChannelKind, Email, EscalationStep, MailSecurity, Notify, Route, WEBHOOK, Webhook, WebhookFormat,
};
pub use outgoing::{Forward, ForwardStudies, OutgoingPeer, Pacs};
pub use peers::{CertificateRule, DicomUser, KnownPeer, Network, STORAGE, STORAGE_COMMITMENT, VERIFICATION};

/// The defaults, as documented.
pub const DEFAULTS: &str = include_str!("../conf/triaged.toml");

/// Every setting; `conf/triaged.toml` says what each means.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub dimse: Dimse,
    pub archive: Archive,
    pub inference: Inference,
    pub triage: Triage,
    pub privacy: Privacy,
    pub notify: Notify,
    /// The peers that images go on to.
    #[serde(default)]
    pub forward: Vec<Forward>,
    pub web: Web,
    pub audit: Audit,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dimse {
    pub ae_title: String,
    pub listen: IpAddr,
    pub port: u16,
    pub check_called_ae_title: bool,
    pub calling_ae_titles: Vec<String>,
    pub max_associations: usize,
    pub max_associations_of_source: usize,
    /// GiB that one address may bring in an hour; 0: no bound.
    pub max_gib_of_source_per_hour: f64,
    pub max_pdu_bytes: u32,
    pub max_object_mib: u64,
    pub association_request_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
    pub other_storage_classes: Vec<String>,
    pub tls: Tls,
    pub storage_commitment: StorageCommitment,
    /// Who may associate; empty: anybody.
    #[serde(default)]
    pub peers: Vec<KnownPeer>,
}

impl Dimse {
    /// The peer of this name.
    pub fn peer(&self, name: &str) -> Option<&KnownPeer> {
        self.peers.iter().find(|peer| peer.name == name)
    }
}

/// `dimse.storage_commitment`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageCommitment {
    pub enabled: bool,
    pub min_days: f64,
}

/// `dimse.tls`. An empty path means that it is not set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Further ones, of other names or of keys of another kind.
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
    pub client_ca: PathBuf,
    pub require_client_certificate: bool,
    pub peer_ca: PathBuf,
}

/// A certificate with its chain, and its private key: files in PEM.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `web.tls`. An empty path means that it is not set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
}

impl WebTls {
    /// Whether the page is served over TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty() || !self.certificates.is_empty()
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    pub min_free_mib: u64,
    pub retention_days: f64,
    pub max_gib: f64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    pub model: String,
    pub device: Device,
    pub gpu: i32,
    pub onnxruntime: String,
    pub threads: usize,
    pub batch_size: usize,
    pub batch_wait_ms: u64,
    pub max_queue: u64,
    pub max_queue_of_source: u64,
    pub decode_threads: usize,
    pub decode_seconds: u64,
    pub decode_memory_mib: u64,
    pub max_attempts: u32,
    pub shadow: String,
    pub shadow_days: u32,
    pub cuda: Cuda,
}

impl Inference {
    /// The settings of a second model that is to run in shadow: the same device, a slice at a time, and one
    /// thread, so that it never takes more than one core from the model that counts.
    pub fn of_shadow(&self) -> Option<Inference> {
        let cuda = Cuda { lanes: 1, binding: Binding::Plain, ..self.cuda.clone() };
        let shadow = Inference { model: self.shadow.clone(), threads: 1, batch_size: 1, cuda, ..self.clone() };
        (!self.shadow.is_empty()).then_some(shadow)
    }
}

/// `inference.device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Auto,
    Cuda,
    Tensorrt,
    Cpu,
}

/// `inference.cuda`: how the model runs on a GPU. Of no effect on a CPU.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cuda {
    pub lanes: usize,
    pub binding: Binding,
    pub batch_ms: f64,
    pub tf32: bool,
    pub channels_last: bool,
}

/// `inference.cuda.binding`: how a batch gets to the GPU and its probabilities back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// The faster one of plain and pinned, as measured at start.
    Auto,
    /// ONNX Runtime copies from and to ordinary memory.
    Plain,
    /// Memory that the GPU reads and writes by itself, bound once for each batch size.
    Pinned,
    /// As pinned, and the launches of a batch size are recorded once and replayed (a CUDA graph).
    Graph,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Triage {
    pub quiet_seconds: f64,
    pub hard_cap_seconds: f64,
    pub provisional_alerts: bool,
    pub stat_calling_ae_titles: Vec<String>,
    pub stat_attributes: Vec<AttributeValue>,
    pub gate: Gate,
}

/// `[triage.gate]`: which slices are triaged, where the model card does not say it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub max_tilt_degrees: f64,
    pub localizer_words: Vec<String>,
    pub image_types_out: Vec<String>,
    pub derived_words: Vec<String>,
    pub reformat_words: Vec<String>,
    pub other_plane_words: Vec<String>,
    pub head_words: Vec<String>,
    pub contrast_words: Vec<String>,
    pub plain_words: Vec<String>,
    pub sharp_kernels: Vec<String>,
    pub sharp_series_words: Vec<String>,
    pub quality_phrases: Vec<String>,
}

impl Default for Gate {
    /// As in `conf/triaged.toml`.
    fn default() -> Gate {
        let defaults = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build();
        defaults.and_then(|defaults| defaults.get("triage.gate")).expect("the defaults are tested to be valid")
    }
}

/// `[privacy]`: what the ledger keeps of persons beside patient ID and accession number.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    pub keep_patient_name: bool,
    pub keep_birth_date: bool,
    pub keep_sex: bool,
    pub keep_referring_physician: bool,
    pub keep_study_date: bool,
    pub keep_descriptions: bool,
    pub keep_station: bool,
}

/// An attribute with a value, written `Keyword=VALUE` or `gggg,eeee=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttributeValue {
    pub tag: Tag,
    pub value: String,
}

impl TryFrom<String> for AttributeValue {
    type Error = String;

    fn try_from(entry: String) -> Result<AttributeValue, String> {
        let parse = || {
            let (name, value) = entry.split_once('=')?;
            let name = name.trim();
            let tag = match name.split_once(',') {
                Some((group, element)) => {
                    let number = |digits: &str| (digits.len() == 4).then(|| u16::from_str_radix(digits, 16).ok())?;
                    Tag(number(group)?, number(element)?)
                }
                None => StandardDataDictionary.by_name(name)?.tag(),
            };
            Some(AttributeValue { tag, value: value.trim().to_owned() })
        };
        parse().ok_or_else(|| {
            format!(
                "{entry:?} is not an attribute with a value, such as RequestedProcedurePriority=STAT or 0040,1003=STAT"
            )
        })
    }
}

impl From<AttributeValue> for String {
    fn from(entry: AttributeValue) -> String {
        let Tag(group, element) = entry.tag;
        format!("{group:04x},{element:04x}={}", entry.value)
    }
}

/// A value that no log and no error shows.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Secret {
        Secret(secret)
    }
}

impl Secret {
    /// The shown form of a secret: whether there is one.
    fn masked(&self) -> &'static str {
        if self.0.is_empty() { "(none)" } else { "(secret)" }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.masked())
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.masked())
    }
}

impl Settings {
    /// The configuration in force, key by key as in the file, for an administrator: secrets are masked.
    pub fn in_force(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|error| format!("it cannot be shown: {error}").into())
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    pub listen: String,
    pub public_url: String,
    pub tls: WebTls,
    pub allow_insecure: bool,
    pub viewer_url: String,
    pub login: Login,
}

/// `web.login`. The default is none.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub enabled: bool,
    pub session_hours: f64,
    pub idle_minutes: f64,
    pub max_failures: u32,
    pub lockout_minutes: f64,
    pub trusted_proxies: Vec<Network>,
    pub proxy_address_header: String,
    pub proxy_user_header: String,
    pub proxy_role: String,
    pub oidc: Oidc,
}

/// `web.login.oidc`: an OpenID provider. An empty issuer: none.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Secret,
    pub title: String,
    pub scopes: Vec<String>,
    pub name_claim: String,
    pub role_claim: String,
    pub roles: OidcRoles,
    pub default_role: String,
}

/// `web.login.oidc.roles`: the values of the role claim that give each role.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OidcRoles {
    pub viewer: Vec<String>,
    pub reader: Vec<String>,
    pub operator: Vec<String>,
    pub admin: Vec<String>,
}

/// `audit`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub syslog: Syslog,
}

/// `audit.syslog`: the collector of audit messages. An empty address: none.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub address: String,
    pub protocol: SyslogProtocol,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogProtocol {
    Udp,
    Tcp,
    Tls,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Why the settings cannot be used. The node exits with code 2 and this one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not TOML: {}", one_line(.source))]
    Toml { path: PathBuf, source: config::ConfigError },
    #[error("configuration: {}", one_line(.0))]
    Parse(#[from] config::ConfigError),
    #[error("configuration: {key} = {value}: {why}")]
    Value { key: &'static str, value: String, why: &'static str },
    #[error("configuration: dimse.peers, {entry}: {why}")]
    Peer { entry: String, why: String },
}

/// The error of a TOML parser draws the line and points at the place below it; a log has one line.
fn one_line(error: &config::ConfigError) -> String {
    let text = error.to_string();
    let words = text.lines().map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == '|'));
    let words: Vec<&str> = words.map(str::trim).filter(|line| line.chars().any(|c| c != '^')).collect();
    words.join(": ")
}

impl Settings {
    /// Reads all layers and checks the values. `flags` are pairs of a dotted key and its value.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Settings, ConfigError> {
        Settings::layered(file, flags, Environment::default())
    }

    fn layered(
        file: Option<&Path>,
        flags: &[(&str, String)],
        environment: Environment,
    ) -> Result<Settings, ConfigError> {
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
            let file = File::from_str(&text, FileFormat::Toml);
            let toml = |source| ConfigError::Toml { path: path.into(), source };
            Config::builder().add_source(file.clone()).build().map_err(toml)?;
            builder = builder.add_source(file);
        }
        builder = builder.add_source(
            environment
                .prefix("TRIAGED")
                .prefix_separator("__")
                .separator("__")
                .try_parsing(true)
                .list_separator(",")
                .with_list_parse_key("dimse.calling_ae_titles")
                .with_list_parse_key("dimse.other_storage_classes")
                .with_list_parse_key("triage.stat_calling_ae_titles")
                .with_list_parse_key("triage.stat_attributes")
                .with_list_parse_key("notify.events")
                .with_list_parse_key("web.login.trusted_proxies")
                .with_list_parse_key("web.login.oidc.scopes")
                .with_list_parse_key("web.login.oidc.roles.viewer")
                .with_list_parse_key("web.login.oidc.roles.reader")
                .with_list_parse_key("web.login.oidc.roles.operator")
                .with_list_parse_key("web.login.oidc.roles.admin")
                .with_list_parse_key("triage.gate.localizer_words")
                .with_list_parse_key("triage.gate.image_types_out")
                .with_list_parse_key("triage.gate.derived_words")
                .with_list_parse_key("triage.gate.reformat_words")
                .with_list_parse_key("triage.gate.other_plane_words")
                .with_list_parse_key("triage.gate.head_words")
                .with_list_parse_key("triage.gate.contrast_words")
                .with_list_parse_key("triage.gate.plain_words")
                .with_list_parse_key("triage.gate.sharp_kernels")
                .with_list_parse_key("triage.gate.sharp_series_words")
                .with_list_parse_key("triage.gate.quality_phrases"),
        );
        for (key, value) in flags {
            builder = builder.set_override(*key, value.as_str())?;
        }
        let settings: Settings = builder.build()?.try_deserialize()?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        fn wrong(key: &'static str, value: impl ToString, why: &'static str) -> Result<(), ConfigError> {
            Err(ConfigError::Value { key, value: value.to_string(), why })
        }
        let d = &self.dimse;
        if !ae_title_is_valid(&d.ae_title) {
            return wrong(
                "dimse.ae_title",
                &d.ae_title,
                "an AE title has 1 to 16 printable ASCII characters, no backslash",
            );
        }
        if d.max_associations == 0 {
            return wrong("dimse.max_associations", 0, "at least 1");
        }
        if !(0.0..=1e6).contains(&d.max_gib_of_source_per_hour) {
            return wrong("dimse.max_gib_of_source_per_hour", d.max_gib_of_source_per_hour, "between 0 and 1000000");
        }
        if d.max_associations_of_source == 0 {
            return wrong("dimse.max_associations_of_source", 0, "at least 1");
        }
        if !(4096..=1_048_576).contains(&d.max_pdu_bytes) {
            return wrong("dimse.max_pdu_bytes", d.max_pdu_bytes, "between 4096 and 1048576");
        }
        peers::check(&d.peers, &d.tls).map_err(|(entry, why)| ConfigError::Peer { entry, why })?;
        if !d.peers.is_empty() && !d.calling_ae_titles.is_empty() {
            let why =
                "each of them belongs to an entry of dimse.peers, where there are any; leave this list empty then";
            return wrong("dimse.calling_ae_titles", d.calling_ae_titles.join(","), why);
        }
        if d.max_object_mib == 0 {
            return wrong("dimse.max_object_mib", 0, "at least 1");
        }
        if d.association_request_timeout_seconds == 0 || d.idle_timeout_seconds == 0 {
            return wrong("dimse.*_timeout_seconds", 0, "at least 1");
        }
        for (key, value) in
            [("archive.retention_days", self.archive.retention_days), ("archive.max_gib", self.archive.max_gib)]
        {
            if !(0.0..=100_000.0).contains(&value) {
                return wrong(key, value, "a number from 0 (no limit) to 100000");
            }
        }
        if !(0.0..=100_000.0).contains(&d.storage_commitment.min_days) {
            return wrong(
                "dimse.storage_commitment.min_days",
                d.storage_commitment.min_days,
                "a number from 0 to 100000",
            );
        }
        let i = &self.inference;
        if i.batch_size > 256 {
            return wrong("inference.batch_size", i.batch_size, "at most 256");
        }
        if i.cuda.lanes > 16 {
            return wrong("inference.cuda.lanes", i.cuda.lanes, "at most 16");
        }
        if i.cuda.binding == Binding::Graph && i.cuda.lanes > 1 {
            // CUDA records everything that the process asks of the GPU meanwhile, and fails on what cannot be recorded.
            return wrong("inference.cuda.lanes", i.cuda.lanes, "1 where inference.cuda.binding is \"graph\"");
        }
        if !(i.cuda.batch_ms > 0.0 && i.cuda.batch_ms <= 10_000.0) {
            return wrong("inference.cuda.batch_ms", i.cuda.batch_ms, "above 0, at most 10000");
        }
        if i.max_queue == 0 {
            return wrong("inference.max_queue", 0, "at least 1");
        }
        if i.max_queue_of_source == 0 {
            return wrong("inference.max_queue_of_source", 0, "at least 1");
        }
        if !(1..=250).contains(&i.decode_seconds) {
            return wrong("inference.decode_seconds", i.decode_seconds, "between 1 and 250");
        }
        if !(64..=1_048_576).contains(&i.decode_memory_mib) {
            return wrong("inference.decode_memory_mib", i.decode_memory_mib, "between 64 and 1048576");
        }
        if i.max_attempts == 0 {
            return wrong("inference.max_attempts", 0, "at least 1");
        }
        if !(1..=3650).contains(&i.shadow_days) {
            return wrong("inference.shadow_days", i.shadow_days, "between 1 and 3650");
        }
        let seconds = |v: f64| v.is_finite() && (0.0..=31_536_000.0).contains(&v);
        for (key, value) in [
            ("triage.quiet_seconds", self.triage.quiet_seconds),
            ("triage.hard_cap_seconds", self.triage.hard_cap_seconds),
            ("notify.first_retry_seconds", self.notify.first_retry_seconds),
            ("notify.longest_retry_seconds", self.notify.longest_retry_seconds),
            ("notify.webhook.timeout_seconds", self.notify.webhook.timeout_seconds),
            ("notify.dead_first_retry_minutes", self.notify.dead_first_retry_minutes),
            ("notify.dead_longest_retry_minutes", self.notify.dead_longest_retry_minutes),
            ("notify.dead_retry_days", self.notify.dead_retry_days),
            ("notify.undelivered_minutes", self.notify.undelivered_minutes),
        ] {
            if !seconds(value) {
                return wrong(key, value, "a number of at least 0, and at most 31536000");
            }
        }
        if self.notify.dead_first_retry_minutes == 0.0 {
            return wrong("notify.dead_first_retry_minutes", 0, "more than 0");
        }
        if self.notify.max_attempts == 0 {
            return wrong("notify.max_attempts", 0, "at least 1");
        }
        let url = &self.notify.webhook.url;
        if !(url.is_empty() || url.starts_with("https://") || url.starts_with("http://")) {
            return wrong("notify.webhook.url", url, "starts with https:// or http://");
        }
        let login = &self.web.login;
        for (key, value) in [
            ("web.login.session_hours", login.session_hours),
            ("web.login.idle_minutes", login.idle_minutes),
            ("web.login.lockout_minutes", login.lockout_minutes),
        ] {
            if !(value > 0.0 && value <= 100_000.0) {
                return wrong(key, value, "more than 0, at most 100000");
            }
        }
        if login.max_failures == 0 {
            return wrong("web.login.max_failures", 0, "at least 1");
        }
        if !login.proxy_role.is_empty()
            && !["viewer", "reader", "operator", "admin"].contains(&login.proxy_role.as_str())
        {
            return wrong("web.login.proxy_role", &login.proxy_role, "viewer, reader, operator, admin, or empty");
        }
        let oidc = &login.oidc;
        if !oidc.issuer.is_empty() {
            let is_safe = |url: &str| {
                let near = url.strip_prefix("http://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest));
                let host = near.map(|near| {
                    near.rsplit_once(':')
                        .map_or(near, |(host, port)| if port.parse::<u16>().is_ok() { host } else { near })
                });
                url.starts_with("https://")
                    || host.is_some_and(|host| ["127.0.0.1", "[::1]", "localhost"].contains(&host))
            };
            if !is_safe(&oidc.issuer) {
                return wrong("web.login.oidc.issuer", &oidc.issuer, "an address that begins with https://");
            }
            if !is_safe(&self.web.public_url) {
                let wanted =
                    "where browsers reach this node, beginning with https://, for web.login.oidc leads back there";
                return wrong("web.public_url", &self.web.public_url, wanted);
            }
            if oidc.client_id.is_empty() {
                return wrong("web.login.oidc.client_id", "", "the name that the provider has for this node");
            }
            if !["", "viewer", "reader", "operator", "admin"].contains(&oidc.default_role.as_str()) {
                let wanted = "viewer, reader, operator, admin, or empty";
                return wrong("web.login.oidc.default_role", &oidc.default_role, wanted);
            }
        }
        let syslog = &self.audit.syslog;
        let has_port = |address: &str| address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !syslog.address.is_empty() && !has_port(&syslog.address) {
            return wrong("audit.syslog.address", &syslog.address, "host:port, such as audit.example.org:6514");
        }
        if !syslog.address.is_empty() && syslog.protocol == SyslogProtocol::Tls && syslog.ca.as_os_str().is_empty() {
            return wrong(
                "audit.syslog.ca",
                "",
                "the authority that signed the collector's certificate, for protocol = \"tls\"",
            );
        }
        if !self.web.listen.is_empty() && self.web.listen.parse::<SocketAddr>().is_err() {
            return wrong("web.listen", &self.web.listen, "an IP address and port such as 127.0.0.1:8080, or empty");
        }
        let is_local = |address: SocketAddr| address.ip().is_loopback();
        let is_safe = self.web.allow_insecure || (self.web.login.enabled && self.web.tls.is_on());
        if !is_safe && self.web.listen.parse().is_ok_and(|address| !is_local(address)) {
            let why = "everybody on the network would see patients: set web.login and web.tls, or listen on 127.0.0.1 behind a proxy \
                       that has both, or set web.allow_insecure = true";
            return wrong("web.listen", &self.web.listen, why);
        }
        Ok(())
    }

    /// `<data_dir>/triaged.db`.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("triaged.db")
    }
}

/// PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash, not only spaces.
pub fn ae_title_is_valid(title: &str) -> bool {
    !title.trim().is_empty() && title.len() <= 16 && title.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn with_environment(pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let variables: HashMap<String, String> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::layered(None, &[], Environment::default().source(Some(variables)))
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let settings = with_environment(&[]).unwrap();
        assert_eq!(settings.dimse.ae_title, "TRIAGED");
        assert_eq!(settings.dimse.port, 11112);
        assert_eq!(settings.web.listen, "127.0.0.1:8080");
        assert_eq!(settings.data_dir, PathBuf::from("./var"));
    }

    #[test]
    fn environment_over_file_over_defaults_and_flags_over_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[dimse]\nport = 104\nae_title = \"FILE\"\n").unwrap();
        let environment =
            Environment::default().source(Some(HashMap::from([("TRIAGED__DIMSE__AE_TITLE".into(), "1234".into())])));
        let settings = Settings::layered(Some(file.path()), &[("data_dir", "/srv/x".into())], environment).unwrap();
        assert_eq!(settings.dimse.port, 104);
        assert_eq!(settings.dimse.ae_title, "1234", "a number is still an AE title");
        assert_eq!(settings.data_dir, PathBuf::from("/srv/x"));
    }

    #[test]
    fn lists_and_nested_keys_come_from_the_environment() {
        let settings = with_environment(&[
            ("TRIAGED__DIMSE__CALLING_AE_TITLES", "CT1,CT2"),
            ("TRIAGED__NOTIFY__WEBHOOK__URL", "http://127.0.0.1:1/x"),
            ("TRIAGED__TRIAGE__QUIET_SECONDS", "1"),
            ("TRIAGED__INFERENCE__DEVICE", "cpu"),
            ("TRIAGED__INFERENCE__CUDA__BINDING", "pinned"),
        ])
        .unwrap();
        assert_eq!(settings.dimse.calling_ae_titles, ["CT1", "CT2"]);
        assert_eq!(settings.notify.webhook.url, "http://127.0.0.1:1/x");
        assert_eq!(settings.triage.quiet_seconds, 1.0);
        assert_eq!(settings.inference.device, Device::Cpu);
        assert_eq!(settings.inference.cuda.binding, Binding::Pinned);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let settings = with_environment(&[("TRIAGED__NOTIFY__WEBHOOK__SECRET", "hunter2")]).unwrap();
        assert_eq!(settings.notify.webhook.secret.reveal(), "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_errors_that_name_the_key() {
        for (key, value, word) in [
            ("TRIAGED__DIMSE__PROT", "1", "prot"),
            ("TRIAGED__DIMSE__MAX_PDU_BYTES", "7", "max_pdu_bytes"),
            ("TRIAGED__DIMSE__AE_TITLE", "ABCDEFGHIJKLMNOPQ", "ae_title"),
            ("TRIAGED__INFERENCE__DEVICE", "gpu", "gpu"),
            ("TRIAGED__INFERENCE__CUDA__BINDING", "fast", "fast"),
            ("TRIAGED__INFERENCE__CUDA__BATCH_MS", "0", "batch_ms"),
            ("TRIAGED__INFERENCE__SHADOW_DAYS", "0", "shadow_days"),
            ("TRIAGED__WEB__LISTEN", "everywhere", "web.listen"),
        ] {
            let error = with_environment(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(word), "{key}={value}: {error}");
        }
    }
}
