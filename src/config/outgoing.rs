//! Settings of a node that images and documents are sent to.

use std::collections::HashMap;
use std::time::Duration;

use config::Value;
use serde::{Deserialize, Serialize};

use super::{Dimse, KnownPeer, ae_title_is_valid};

/// A peer by C-STORE. In `[[notify.channels]]` of kind `pacs` and in `[[forward]]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OutgoingPeer {
    /// The name of a peer of `[[dimse.peers]]`; or empty, and the others say how to call it.
    #[serde(default)]
    pub peer: String,
    /// `host:port`.
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub called_ae_title: String,
    /// Over TLS, with the certificates and authorities of `[dimse.tls]`.
    #[serde(default)]
    pub tls: bool,
    /// The name in the peer's certificate; empty: the host of `address`.
    #[serde(default)]
    pub tls_name: String,
    /// For the connection, and for each answer.
    #[serde(default = "thirty")]
    pub timeout_seconds: f64,
}

/// The keys of [`OutgoingPeer`], which stand beside those of what is sent there.
const PEER_KEYS: [&str; 6] = ["peer", "address", "called_ae_title", "tls", "tls_name", "timeout_seconds"];

/// `[[notify.channels]]` of kind `pacs`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "HashMap<String, Value>")]
pub struct Pacs {
    pub peer: OutgoingPeer,
    /// Send the structured report of every verdict that is routed here.
    pub report: bool,
    /// Send the key image of flagged studies.
    pub key_image: bool,
}

/// `[[forward]]`: a destination of images.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "HashMap<String, Value>")]
pub struct Forward {
    /// Unique among destinations.
    pub name: String,
    pub peer: OutgoingPeer,
    pub studies: ForwardStudies,
    /// One of them sent the instance; empty: any.
    pub calling_ae_titles: Vec<String>,
    /// Attempts on an instance that the peer refuses for a reason that may pass.
    pub max_attempts: u32,
    pub first_retry_seconds: f64,
    pub longest_retry_seconds: f64,
}

/// The keys of a channel of kind `pacs` but for the peer's.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PacsKeys {
    #[serde(default = "yes")]
    report: bool,
    #[serde(default = "yes")]
    key_image: bool,
}

/// The keys of a destination but for the peer's.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ForwardKeys {
    name: String,
    #[serde(default)]
    studies: ForwardStudies,
    #[serde(default)]
    calling_ae_titles: Vec<String>,
    #[serde(default = "thirty_attempts")]
    max_attempts: u32,
    #[serde(default = "two")]
    first_retry_seconds: f64,
    #[serde(default = "three_hundred")]
    longest_retry_seconds: f64,
}

/// Reads a table whose keys are a peer's and others. Each unknown key is an error.
fn beside_peer<'de, T: Deserialize<'de>>(
    mut table: HashMap<String, Value>,
) -> Result<(OutgoingPeer, T), config::ConfigError> {
    let peer: HashMap<String, Value> =
        PEER_KEYS.into_iter().filter_map(|key| Some((key.to_owned(), table.remove(key)?))).collect();
    let value = |table| Value::new(None, config::ValueKind::Table(table));
    Ok((value(peer).try_deserialize()?, value(table).try_deserialize()?))
}

impl TryFrom<HashMap<String, Value>> for Pacs {
    type Error = config::ConfigError;

    fn try_from(table: HashMap<String, Value>) -> Result<Pacs, config::ConfigError> {
        let (peer, PacsKeys { report, key_image }) = beside_peer(table)?;
        Ok(Pacs { peer, report, key_image })
    }
}

impl TryFrom<HashMap<String, Value>> for Forward {
    type Error = config::ConfigError;

    fn try_from(table: HashMap<String, Value>) -> Result<Forward, config::ConfigError> {
        let (peer, keys): (OutgoingPeer, ForwardKeys) = beside_peer(table)?;
        let ForwardKeys { name, studies, calling_ae_titles, max_attempts, .. } = keys;
        let (first_retry_seconds, longest_retry_seconds) = (keys.first_retry_seconds, keys.longest_retry_seconds);
        Ok(Forward { name, peer, studies, calling_ae_titles, max_attempts, first_retry_seconds, longest_retry_seconds })
    }
}

/// `studies` of `[[forward]]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardStudies {
    /// Every instance, as it comes.
    #[default]
    All,
    /// Those of studies that are flagged.
    Flagged,
}

fn yes() -> bool {
    true
}

fn two() -> f64 {
    2.0
}

fn thirty() -> f64 {
    30.0
}

fn thirty_attempts() -> u32 {
    30
}

fn three_hundred() -> f64 {
    300.0
}

impl OutgoingPeer {
    /// The peer as an entry of `[[dimse.peers]]`, and for how long the node waits for it.
    ///
    /// # Errors
    /// The key that cannot be meant, and why.
    pub fn resolve(&self, dimse: &Dimse) -> Result<(KnownPeer, Duration), (&'static str, String)> {
        if !(self.timeout_seconds >= 1.0 && self.timeout_seconds <= 3600.0) {
            return Err(("timeout_seconds", "between 1 and 3600".into()));
        }
        let timeout = Duration::from_secs_f64(self.timeout_seconds);
        if !self.peer.is_empty() {
            if !self.address.is_empty() || !self.called_ae_title.is_empty() {
                return Err(("peer", "says how to call it; address and called_ae_title are then left out".into()));
            }
            let known = dimse.peers.iter().find(|known| known.name == self.peer);
            let known = known.ok_or_else(|| ("peer", format!("{:?} is no name of dimse.peers", self.peer)))?;
            return Ok((known.clone(), timeout));
        }
        let parts = self.address.rsplit_once(':');
        if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err((
                "address",
                format!("{:?}: host:port is expected, such as pacs.example.org:104", self.address),
            ));
        }
        if !ae_title_is_valid(&self.called_ae_title) {
            let title = "an AE title has 1 to 16 printable ASCII characters, no backslash";
            return Err(("called_ae_title", format!("{:?}: {title}", self.called_ae_title)));
        }
        let known = KnownPeer {
            name: self.called_ae_title.clone(),
            ae_titles: Vec::new(),
            networks: Vec::new(),
            certificates: Vec::new(),
            tls: self.tls,
            sop_classes: Vec::new(),
            max_associations: 0,
            reserved_associations: 0,
            max_object_mib: 0,
            stat: false,
            users: Vec::new(),
            address: self.address.clone(),
            called_ae_title: self.called_ae_title.clone(),
            tls_name: self.tls_name.clone(),
            call_as: None,
        };
        Ok((known, timeout))
    }
}
