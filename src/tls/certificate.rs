//! A certificate's fields about its owner (X.509, RFC 5280): names, and when it ends. rustls verifies certificates; this only reads
//! the few fields that settings and metrics are about, of certificates that rustls has verified or that are the node's own.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::config::CertificateRule;

/// Tags of DER (X.690).
mod tag {
    pub const BIT_STRING_OR_BOOLEAN: [u8; 2] = [0x03, 0x01];
    pub const OCTET_STRING: u8 = 0x04;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const VERSION: u8 = 0xA0;
    pub const EXTENSIONS: u8 = 0xA3;
    /// `dNSName` of a GeneralName (RFC 5280 4.2.1.6).
    pub const DNS_NAME: u8 = 0x82;
}

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// Whether a certificate is the one that a rule names.
pub fn meets(certificate: &CertificateDer<'_>, rule: &CertificateRule) -> bool {
    match rule {
        CertificateRule::Digest(digest) => Sha256::digest(certificate)[..] == digest[..],
        CertificateRule::Name(name) => names(certificate).contains(name),
    }
}

/// The DNS names and the common names of a certificate, in lower case; none where it cannot be read.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Some(fields) = Fields::of(certificate) else { return Vec::new() };
    let alternative = fields.alternative_names().unwrap_or_default();
    let names = alternative.into_iter().chain(fields.common_names());
    names.filter_map(|name| std::str::from_utf8(name).ok()).map(str::to_lowercase).collect()
}

/// The moment after which a certificate is no longer valid; `None` where it cannot be read.
pub fn expires(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let validity = Fields::of(certificate)?.validity;
    let (kind, end) = Elements(validity).nth(1)?;
    let digits = std::str::from_utf8(end).ok()?.strip_suffix('Z')?;
    let digits = match kind {
        // Years 50 to 99 are of the last century (RFC 5280 4.1.2.5.1).
        tag::UTC_TIME => format!("{}{digits}", if digits.get(..1)? >= "5" { "19" } else { "20" }),
        tag::GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    let number = |at: std::ops::Range<usize>| digits.get(at)?.parse::<i8>().ok();
    let year = digits.get(..4)?.parse().ok()?;
    let time = DateTime::new(year, number(4..6)?, number(6..8)?, number(8..10)?, number(10..12)?, number(12..14)?, 0);
    TimeZone::UTC.to_timestamp(time.ok()?).ok()
}

/// The fields of a certificate that are read here.
struct Fields<'c> {
    validity: &'c [u8],
    subject: &'c [u8],
    extensions: Option<&'c [u8]>,
}

impl<'c> Fields<'c> {
    fn of(certificate: &'c CertificateDer<'_>) -> Option<Fields<'c>> {
        let (_, certificate) = Elements(certificate.as_ref()).next()?;
        let (_, to_be_signed) = Elements(certificate).next()?;
        // Serial number, signature, issuer, validity, subject, key.
        let mut fields = Elements(to_be_signed).filter(|(kind, _)| *kind != tag::VERSION);
        let validity = fields.nth(3)?.1;
        let subject = fields.next()?.1;
        let extensions = fields.find(|(kind, _)| *kind == tag::EXTENSIONS).map(|(_, value)| value);
        Some(Fields { validity, subject, extensions })
    }

    fn common_names(&self) -> impl Iterator<Item = &'c [u8]> {
        // A set of pairs of type and value for each part of the name.
        let pairs = Elements(self.subject).flat_map(|(_, part)| Elements(part)).map(|(_, pair)| Elements(pair));
        pairs.filter_map(|mut pair| (pair.next()?.1 == COMMON_NAME).then(|| pair.next())?.map(|(_, value)| value))
    }

    fn alternative_names(&self) -> Option<Vec<&'c [u8]>> {
        let (_, extensions) = Elements(self.extensions?).next()?;
        let value = Elements(extensions).find_map(|(kind, extension)| {
            let mut parts = Elements(extension);
            let named =
                kind == tag::SEQUENCE && parts.next() == Some((tag::OBJECT_IDENTIFIER, SUBJECT_ALTERNATIVE_NAME));
            // Whether it is critical stands before the value, if it does.
            parts
                .find(|(kind, _)| named && !tag::BIT_STRING_OR_BOOLEAN.contains(kind))
                .filter(|(kind, _)| *kind == tag::OCTET_STRING)
        })?;
        let (_, names) = Elements(value.1).next()?;
        Some(Elements(names).filter(|(kind, _)| *kind == tag::DNS_NAME).map(|(_, name)| name).collect())
    }
}

/// Elements of DER, tag and value, one after the other; ends at the first that is cut off.
struct Elements<'d>(&'d [u8]);

impl<'d> Iterator for Elements<'d> {
    type Item = (u8, &'d [u8]);

    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (&[kind, short], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match short {
            0..=0x7F => (usize::from(short), rest),
            // How many bytes of the length follow; four are more than a certificate has.
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    /// `openssl req -x509 -newkey ed25519 -nodes -days 36500 -subj "/O=Ward/CN=CT1" -addext "subjectAltName=critical,IP:10.1.2.3,DNS:ct1.Example.org"`
    const CERTIFICATE: &[u8] = include_bytes!("certificate_test.pem");

    #[test]
    fn names_and_end_are_read() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        assert_eq!(names(&certificate), ["ct1.example.org", "ct1"]);
        assert!(meets(&certificate, &CertificateRule::Name("ct1".into())));
        assert!(!meets(&certificate, &CertificateRule::Name("ward".into())), "the organisation is no name of it");
        let digest = Sha256::digest(&certificate).into();
        assert!(meets(&certificate, &CertificateRule::Digest(digest)));
        assert!(!meets(&certificate, &CertificateRule::Digest([0; 32])));
        assert_eq!(expires(&certificate).unwrap().to_string()[..4], *"2126");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..400, to in any::<u8>()) {
            let any = CertificateDer::from(bytes);
            let _ = (names(&any), expires(&any));
            let mut changed = CertificateDer::from_pem_slice(CERTIFICATE).unwrap().to_vec();
            if let Some(byte) = changed.get_mut(at) { *byte = to; }
            let changed = CertificateDer::from(changed);
            let _ = (names(&changed), expires(&changed));
        }
    }
}
