//! PDUs as the acceptor of an association sends them (PS3.8 9.3.4 to 9.3.8).

use super::types;

/// Why an association is aborted by the service provider (PS3.8 table 9-26).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortReason {
    NotSpecified = 0,
    UnrecognizedPdu = 1,
    UnexpectedPdu = 2,
    InvalidParameter = 6,
}

impl AbortReason {
    /// The A-ABORT PDU with this reason, of the source service provider.
    pub fn encode(self) -> Vec<u8> {
        fixed(types::ABORT, [0, 0, 2, self as u8])
    }
}

/// Why an association is rejected (PS3.8 table 9-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// By the service user, for no reason that the standard knows.
    NoReasonGiven,
    ApplicationContextNotSupported,
    CallingAeTitleNotRecognized,
    CalledAeTitleNotRecognized,
    ProtocolVersionNotSupported,
    /// By the service provider, for no reason that the standard knows.
    ProviderNoReasonGiven,
    /// The only one that says: come back later.
    LocalLimitExceeded,
}

impl Rejection {
    /// Result, source and reason.
    pub fn codes(self) -> [u8; 3] {
        match self {
            Rejection::NoReasonGiven => [1, 1, 1],
            Rejection::ApplicationContextNotSupported => [1, 1, 2],
            Rejection::CallingAeTitleNotRecognized => [1, 1, 3],
            Rejection::CalledAeTitleNotRecognized => [1, 1, 7],
            Rejection::ProviderNoReasonGiven => [1, 2, 1],
            Rejection::ProtocolVersionNotSupported => [1, 2, 2],
            Rejection::LocalLimitExceeded => [2, 3, 2],
        }
    }

    /// Result, source and reason in the words of PS3.8 table 9-21.
    pub fn words(self) -> [&'static str; 3] {
        let [result, source, reason] = self.codes();
        let result = if result == 1 { "rejected-permanent" } else { "rejected-transient" };
        match (source, reason) {
            (1, 1) => [result, "service-user", "no-reason-given"],
            (1, 2) => [result, "service-user", "application-context-name-not-supported"],
            (1, 3) => [result, "service-user", "calling-AE-title-not-recognized"],
            (1, _) => [result, "service-user", "called-AE-title-not-recognized"],
            (2, 1) => [result, "service-provider (ACSE)", "no-reason-given"],
            (2, _) => [result, "service-provider (ACSE)", "protocol-version-not-supported"],
            _ => [result, "service-provider (presentation)", "local-limit-exceeded"],
        }
    }

    /// The A-ASSOCIATE-RJ PDU.
    pub fn encode(self) -> Vec<u8> {
        let [result, source, reason] = self.codes();
        fixed(types::ASSOCIATE_RJ, [0, result, source, reason])
    }
}

/// The A-RELEASE-RP PDU.
pub fn release_response() -> Vec<u8> {
    fixed(types::RELEASE_RP, [0; 4])
}

fn fixed(pdu_type: u8, body: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = body;
    vec![pdu_type, 0, 0, 0, 0, 4, a, b, c, d]
}

/// Adds one P-DATA-TF with one presentation data value (PS3.8 9.3.5, annex E). The fragment is shorter than 4 GiB.
pub fn push_p_data(pdus: &mut Vec<u8>, context: u8, command: bool, last: bool, fragment: &[u8]) {
    let length = fragment.len() as u32;
    pdus.extend([types::P_DATA_TF, 0]);
    pdus.extend((length + 6).to_be_bytes());
    pdus.extend((length + 2).to_be_bytes());
    pdus.extend([context, u8::from(command) | u8::from(last) << 1]);
    pdus.extend_from_slice(fragment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_has_both_lengths() {
        let mut pdus = Vec::new();
        push_p_data(&mut pdus, 5, true, true, b"ab");
        assert_eq!(pdus, [4, 0, 0, 0, 0, 8, 0, 0, 0, 4, 5, 3, b'a', b'b']);
    }
}
