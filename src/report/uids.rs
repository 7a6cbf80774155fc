//! UIDs of documents. They follow from the verdict, so that a document that is made or sent again is the same instance.

use sha2::{Digest, Sha256};

use crate::ledger::ReportedVerdict;

/// A UID below 2.25 (PS3.5 annex B.2) that depends on all parts. Its UUID has version 8 of RFC 9562: by a rule of one's own.
pub(super) fn uid(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in ["triaged document"].iter().chain(parts) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest = digest.finalize();
    let bytes: [u8; 16] = digest[..16].try_into().expect("SHA-256 has 32 bytes");
    format!("2.25.{}", uuid::Builder::from_custom_bytes(bytes).into_uuid().as_u128())
}

/// A text that tells this verdict from every other, on this node and on others.
pub(super) fn identity(verdict: &ReportedVerdict) -> String {
    let ReportedVerdict { study_uid, revision, provisional, model_sha256, decided_at, .. } = verdict;
    format!("{study_uid}\n{revision}\n{provisional}\n{model_sha256}\n{decided_at}")
}

/// The instance of a kind of document that tells a verdict.
pub(super) fn instance(kind: &str, verdict: &ReportedVerdict) -> String {
    uid(&["instance", kind, &identity(verdict)])
}

/// The series that all documents of a kind about one study share. `first` is the study's first verdict, by which two nodes have
/// two series.
pub(super) fn series(kind: &str, first: &ReportedVerdict) -> String {
    uid(&["series", kind, &identity(first)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_valid_differ_by_every_part_and_are_the_same_again() {
        let one = uid(&["a", "b"]);
        assert_eq!(one, uid(&["a", "b"]));
        let root = one.strip_prefix("2.25.").unwrap();
        assert!(one.len() <= 64 && root.bytes().all(|b| b.is_ascii_digit()) && !root.starts_with('0'), "{one}");
        for other in [&["a", "c"][..], &["ab"], &["ab", ""], &["", "ab"]] {
            assert_ne!(one, uid(other));
        }
    }
}
