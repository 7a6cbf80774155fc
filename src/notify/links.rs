//! Links into the node's pages: to a study, and to acknowledge it once without logging in.
//!
//! An acknowledge link carries the study, its revision, the channel it was sent to, its expiry and a nonce, with an
//! HMAC-SHA256 over all of them. The nonce follows from the message's idempotency key, so that every attempt sends the same link.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::ledger::OutboxRow;

/// How long after its message a link works.
const VALID: Duration = Duration::from_secs(72 * 3600);

/// Makes and checks links.
#[derive(Clone)]
pub struct Links {
    /// Ends with a slash.
    public_url: Option<Url>,
    key: Vec<u8>,
}

/// The signed content of an acknowledge link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeLink {
    pub study: String,
    pub revision: i64,
    /// The channel that the link was sent to.
    pub channel: String,
    /// Unix seconds.
    pub expires: i64,
    /// 32 hexadecimal digits.
    pub nonce: String,
    /// 64 hexadecimal digits.
    pub signature: String,
}

/// Why a link does not acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("this link is not one of this node's, or was changed on its way")]
    Forged,
    #[error("this link has expired")]
    Expired,
}

impl Links {
    /// `public_url`: where readers reach the web server; empty: messages carry no links.
    pub fn new(public_url: &str, key: Vec<u8>) -> Result<Links, String> {
        if public_url.is_empty() {
            return Ok(Links { public_url: None, key });
        }
        let with_slash = format!("{}/", public_url.trim_end_matches('/'));
        let url = Url::parse(&with_slash).map_err(|error| format!("{public_url:?} is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{public_url:?} is not an http or https address without query"));
        }
        Ok(Links { public_url: Some(url), key })
    }

    /// For a process whose messages carry no links.
    pub fn none() -> Links {
        Links { public_url: None, key: Vec::new() }
    }

    /// The origin of `public_url`, as browsers write it: scheme, host, and the port where it is not the scheme's own.
    pub fn origin(&self) -> Option<String> {
        Some(self.public_url.as_ref()?.origin().ascii_serialization())
    }

    /// The page of a study.
    pub fn study(&self, study_uid: &str) -> Option<String> {
        let mut url = self.public_url.clone()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(["studies", study_uid]);
        Some(url.into())
    }

    /// The link that acknowledges a study, for one message.
    pub fn acknowledge(&self, row: &OutboxRow, channel: &str, study_uid: &str, revision: i64) -> Option<String> {
        let mut url = self.public_url.clone()?;
        let expires = row.created_at.parse::<Timestamp>().ok()?.checked_add(VALID).ok()?.as_second();
        let nonce = hex::encode(&self.mac(&["nonce", &row.idempotency_key])[..16]);
        let mut link = AcknowledgeLink {
            study: study_uid.into(),
            revision,
            channel: channel.into(),
            expires,
            nonce,
            signature: String::new(),
        };
        link.signature = hex::encode(self.sign(&link));
        url.path_segments_mut().ok()?.pop_if_empty().push("acknowledge");
        url.query_pairs_mut()
            .append_pair("study", &link.study)
            .append_pair("revision", &link.revision.to_string())
            .append_pair("channel", &link.channel)
            .append_pair("expires", &link.expires.to_string())
            .append_pair("nonce", &link.nonce)
            .append_pair("signature", &link.signature);
        Some(url.into())
    }

    /// Whether a link is this node's and still works. Whether it was used before, the ledger knows.
    pub fn check(&self, link: &AcknowledgeLink) -> Result<(), LinkError> {
        if self.key.is_empty() {
            return Err(LinkError::Forged);
        }
        let signature = hex::decode(&link.signature).map_err(|_| LinkError::Forged)?;
        self.start(&self.fields(link)).verify_slice(&signature).map_err(|_| LinkError::Forged)?;
        if Timestamp::now().as_second() > link.expires {
            return Err(LinkError::Expired);
        }
        Ok(())
    }

    fn fields(&self, link: &AcknowledgeLink) -> [String; 6] {
        let (revision, expires) = (link.revision.to_string(), link.expires.to_string());
        ["acknowledge".into(), link.study.clone(), revision, link.channel.clone(), expires, link.nonce.clone()]
    }

    fn sign(&self, link: &AcknowledgeLink) -> Vec<u8> {
        self.start(&self.fields(link)).finalize().into_bytes().to_vec()
    }

    fn mac(&self, parts: &[&str]) -> Vec<u8> {
        self.start(parts).finalize().into_bytes().to_vec()
    }

    /// Each part with its length, so that no two lists of parts give the same bytes.
    fn start(&self, parts: &[impl AsRef<str>]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for part in parts {
            let part = part.as_ref().as_bytes();
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{format_time, now};

    fn links() -> Links {
        Links::new("https://triaged.example.org/base", vec![7; 32]).unwrap()
    }

    fn row(created_at: String) -> OutboxRow {
        OutboxRow {
            id: 1,
            study_uid: Some("1.2/?&3".into()),
            idempotency_key: "k".into(),
            event: String::new(),
            step: 0,
            attempts: 0,
            created_at,
            dead: false,
            is_alert: true,
        }
    }

    fn parse(url: &str) -> AcknowledgeLink {
        let pairs: std::collections::HashMap<String, String> =
            Url::parse(url).unwrap().query_pairs().into_owned().collect();
        AcknowledgeLink {
            study: pairs["study"].clone(),
            revision: pairs["revision"].parse().unwrap(),
            channel: pairs["channel"].clone(),
            expires: pairs["expires"].parse().unwrap(),
            nonce: pairs["nonce"].clone(),
            signature: pairs["signature"].clone(),
        }
    }

    #[test]
    fn a_link_holds_for_what_it_was_made_for_and_nothing_else() {
        let row = row(now());
        let url = links().acknowledge(&row, "mail", "1.2/?&3", 2).unwrap();
        assert!(url.starts_with("https://triaged.example.org/base/acknowledge?study=1.2%2F%3F%263&"), "{url}");
        assert_eq!(url, links().acknowledge(&row, "mail", "1.2/?&3", 2).unwrap(), "every attempt sends the same");
        let link = parse(&url);
        assert_eq!(links().check(&link), Ok(()));
        for forged in [
            AcknowledgeLink { study: "1.2".into(), ..link.clone() },
            AcknowledgeLink { revision: 3, ..link.clone() },
            AcknowledgeLink { channel: "pager".into(), ..link.clone() },
            AcknowledgeLink { expires: link.expires + 1, ..link.clone() },
            AcknowledgeLink { nonce: "00".repeat(16), ..link.clone() },
            AcknowledgeLink { signature: "00".repeat(32), ..link.clone() },
            AcknowledgeLink { signature: String::new(), ..link.clone() },
        ] {
            assert_eq!(links().check(&forged), Err(LinkError::Forged), "{forged:?}");
        }
        let other = Links::new("https://triaged.example.org", vec![8; 32]).unwrap();
        assert_eq!(other.check(&link), Err(LinkError::Forged), "another node's key");
        assert_eq!(Links::none().check(&link), Err(LinkError::Forged));
    }

    #[test]
    fn a_link_expires() {
        let old = format_time(Timestamp::now().checked_sub(VALID + Duration::from_secs(5)).unwrap());
        let link = parse(&links().acknowledge(&row(old), "mail", "1.2", 1).unwrap());
        assert_eq!(links().check(&link), Err(LinkError::Expired));
    }

    #[test]
    fn a_studys_link_escapes_its_uid_and_needs_a_public_url() {
        let url = links().study("1.2/../3?x#y").unwrap();
        assert_eq!(url, "https://triaged.example.org/base/studies/1.2%2F..%2F3%3Fx%23y");
        assert_eq!(Links::none().study("1.2"), None);
        assert_eq!(links().origin().as_deref(), Some("https://triaged.example.org"));
        for wrong in ["triaged.example.org", "ftp://x/", "https://x/?a=b"] {
            assert!(Links::new(wrong, vec![]).is_err(), "{wrong}");
        }
    }
}
