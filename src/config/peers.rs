//! Settings of the peers that the node knows: who may associate, for what, and whom the node calls.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Secret, Tls, ae_title_is_valid};

/// Words for SOP classes in `sop_classes`.
pub const VERIFICATION: &str = "verification";
pub const STORAGE: &str = "storage";
pub const STORAGE_COMMITMENT: &str = "storage-commitment";
const GROUPS: [&str; 3] = [VERIFICATION, STORAGE, STORAGE_COMMITMENT];

/// An entry of `[[dimse.peers]]`. What is empty asks for nothing.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPeer {
    /// Unique; in logs, metrics and the audit log.
    pub name: String,
    /// The calling AE titles that it uses.
    #[serde(default)]
    pub ae_titles: Vec<String>,
    #[serde(default)]
    pub networks: Vec<Network>,
    #[serde(default)]
    pub certificates: Vec<CertificateRule>,
    /// Associations with it, in both directions, are over TLS.
    #[serde(default)]
    pub tls: bool,
    #[serde(default)]
    pub sop_classes: Vec<String>,
    #[serde(default)]
    pub max_associations: usize,
    /// Associations that it may have even while all others of the node are taken.
    #[serde(default = "reserved_associations")]
    pub reserved_associations: usize,
    #[serde(default)]
    pub max_object_mib: u64,
    /// Its objects are scored before others.
    #[serde(default)]
    pub stat: bool,
    /// Names of which a user must give one (user identity).
    #[serde(default)]
    pub users: Vec<DicomUser>,
    /// `host:port` at which the node calls it.
    #[serde(default)]
    pub address: String,
    /// The title at which the node calls it; empty: the first of `ae_titles`.
    #[serde(default)]
    pub called_ae_title: String,
    /// The name in its certificate; empty: the host of `address`.
    #[serde(default)]
    pub tls_name: String,
    /// The user as whom the node calls it.
    #[serde(default)]
    pub call_as: Option<DicomUser>,
}

fn reserved_associations() -> usize {
    2
}

impl KnownPeer {
    /// Whether the entry is for somebody in particular. One that asks for nothing is for anybody.
    pub fn names_somebody(&self) -> bool {
        !(self.ae_titles.is_empty()
            && self.networks.is_empty()
            && self.certificates.is_empty()
            && self.users.is_empty())
    }

    /// The AE title at which the node calls it.
    pub fn called(&self) -> Option<&str> {
        let first = self.ae_titles.first().map(|title| title.trim());
        Some(self.called_ae_title.trim()).filter(|title| !title.is_empty()).or(first)
    }

    /// Why the entry cannot be meant, if it cannot.
    fn check(&self, tls: &Tls) -> Result<(), String> {
        let is_class = |entry: &str| GROUPS.contains(&entry) || entry.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if let Some(entry) = self.sop_classes.iter().find(|entry| entry.trim().is_empty() || !is_class(entry.trim())) {
            return Err(format!("{entry:?} is neither the UID of a SOP class nor one of {}", GROUPS.join(", ")));
        }
        // A peer that the node only calls needs no port of the node's own.
        if self.address.is_empty() {
            if self.tls && tls.port == 0 {
                return Err("it has to come over TLS, and dimse.tls.port is 0".into());
            }
            if !self.certificates.is_empty() && tls.client_ca.as_os_str().is_empty() {
                return Err(
                    "it has to show a certificate, and dimse.tls.client_ca is not set: none is asked for".into()
                );
            }
        }
        if self.name.trim().is_empty() || self.name.len() > 64 {
            return Err("a peer has a name of 1 to 64 bytes".into());
        }
        let titles = self.ae_titles.iter().chain((!self.called_ae_title.is_empty()).then_some(&self.called_ae_title));
        if let Some(title) = titles.into_iter().find(|title| !ae_title_is_valid(title)) {
            return Err(format!("{title:?} is no AE title: 1 to 16 printable ASCII characters, no backslash"));
        }
        if self.users.iter().chain(&self.call_as).any(|user| user.name.is_empty()) {
            return Err("a user has a name".into());
        }
        if self.address.is_empty() {
            return Ok(());
        }
        if !self.address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return Err(format!("address = {:?}: host:port is expected, such as 10.1.2.3:104", self.address));
        }
        match self.called() {
            Some(_) => Ok(()),
            None => Err("a peer with an address has an AE title to call: ae_titles or called_ae_title".into()),
        }
    }
}

/// Checks all entries.
pub(super) fn check(peers: &[KnownPeer], tls: &Tls) -> Result<(), (String, String)> {
    let mut names = HashSet::new();
    for (number, peer) in peers.iter().enumerate() {
        let entry = if peer.name.is_empty() { format!("entry {}", number + 1) } else { peer.name.clone() };
        peer.check(tls).map_err(|why| (entry.clone(), why))?;
        if !names.insert(&peer.name) {
            return Err((entry, "two peers have this name".into()));
        }
    }
    Ok(())
}

/// A user by name and passcode, as PS3.7 D.3.3.7 sends them. An empty passcode: the name alone.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DicomUser {
    pub name: String,
    #[serde(default)]
    pub passcode: Secret,
}

/// A network such as `10.1.2.0/24`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is of this network. An IPv4 address is the same within IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.0.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let text = text.trim();
        let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
        network.map(Network).map_err(|_| {
            format!("{text:?} is neither a network such as 10.1.2.0/24 nor an address; host names are not looked up")
        })
    }
}

/// Which certificate a peer shows: `sha256:` with the digest of the whole certificate, or a name that it carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum CertificateRule {
    /// SHA-256 of the certificate in DER.
    Digest([u8; 32]),
    /// A DNS name among its subject alternative names, or its common name; in lower case.
    Name(String),
}

impl From<CertificateRule> for String {
    fn from(rule: CertificateRule) -> String {
        match rule {
            CertificateRule::Digest(digest) => format!("sha256:{}", hex::encode(digest)),
            CertificateRule::Name(name) => name,
        }
    }
}

impl TryFrom<String> for CertificateRule {
    type Error = String;

    fn try_from(text: String) -> Result<CertificateRule, String> {
        let text = text.trim();
        let Some(digits) = text.strip_prefix("sha256:") else {
            return match text.is_empty() {
                true => Err("a certificate is named by sha256:… or by a name that it carries".into()),
                false => Ok(CertificateRule::Name(text.to_lowercase())),
            };
        };
        // openssl writes colons between the bytes.
        let digits: String = digits.chars().filter(|digit| *digit != ':').collect();
        let digest = hex::decode(&digits).ok().and_then(|bytes| bytes.try_into().ok());
        digest
            .map(CertificateRule::Digest)
            .ok_or_else(|| format!("{text:?}: SHA-256 has 64 hexadecimal digits (openssl x509 -fingerprint -sha256)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_prefixes_or_single_addresses() {
        let network = |text: &str| Network::try_from(text.to_owned());
        let ward = network("10.1.2.0/24").unwrap();
        assert!(ward.contains("10.1.2.200".parse().unwrap()));
        assert!(ward.contains("::ffff:10.1.2.200".parse().unwrap()), "as a listener on :: sees it");
        assert!(!ward.contains("10.1.3.1".parse().unwrap()));
        assert!(network("10.1.2.3").unwrap().contains("10.1.2.3".parse().unwrap()));
        assert!(!network("10.1.2.3").unwrap().contains("10.1.2.4".parse().unwrap()));
        assert!(network("fd00::/8").unwrap().contains("fd12::1".parse().unwrap()));
        for wrong in ["ct1.example.org", "10.1.2.0/33", "", "10.1.2"] {
            assert!(network(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_entry_that_can_let_nobody_in_is_refused() {
        let tls = crate::config::Settings::load(None, &[]).unwrap().dimse.tls;
        let why = |entry: &str, tls: &Tls| {
            let peer: KnownPeer = toml::from_str(&format!("name = \"x\"\n{entry}")).unwrap();
            peer.check(tls).err().unwrap_or_default()
        };
        assert_eq!(why("sop_classes = [\"storage\", \"1.2.840.10008.5.1.4.1.1.2\"]", &tls), "");
        assert!(why("sop_classes = [\"storge\"]", &tls).contains("storge"));
        assert!(why("tls = true", &tls).contains("dimse.tls.port"));
        assert!(why("certificates = [\"ct1\"]", &tls).contains("client_ca"));
        let called = "ae_titles = [\"PACS\"]\naddress = \"10.0.0.1:11112\"\ntls = true";
        assert_eq!(why(called, &tls), "", "a peer that the node calls");
        let open = Tls { port: 2762, client_ca: "ca.pem".into(), ..tls };
        assert_eq!(why("tls = true\ncertificates = [\"ct1\"]", &open), "");
        assert!(why("address = \"10.0.0.1:104\"", &open).contains("AE title"));
        assert!(why("ae_titles = [\"X\"]\naddress = \"10.0.0.1\"", &open).contains("host:port"));
    }

    #[test]
    fn certificates_are_digests_or_names() {
        let rule = |text: &str| CertificateRule::try_from(text.to_owned());
        assert_eq!(rule("CT1.Example.org"), Ok(CertificateRule::Name("ct1.example.org".into())));
        assert_eq!(
            rule(&format!("sha256:{}", "Ab:".repeat(32).trim_end_matches(':'))),
            Ok(CertificateRule::Digest([0xab; 32]))
        );
        assert!(rule("sha256:12").is_err());
        assert!(rule(" ").is_err());
    }
}
