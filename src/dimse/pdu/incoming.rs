//! PDUs as they are received (PS3.8 9.3), other than P-DATA-TF.

use super::associate::AssociateRequest;
use super::error::PduError;
use super::types;

/// A PDU that was received, other than P-DATA-TF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pdu {
    AssociateRequest(Box<AssociateRequest>),
    ReleaseRequest,
    /// A-ABORT with its source and reason as they came.
    Abort {
        source: u8,
        reason: u8,
    },
    /// A PDU that only the requestor of an association may receive, by its type.
    Unexpected(u8),
}

impl Pdu {
    /// Reads a PDU of this type from what follows its length. Any bytes give a PDU or an error.
    pub fn parse(pdu_type: u8, body: &[u8]) -> Result<Pdu, PduError> {
        match pdu_type {
            types::ASSOCIATE_RQ => Ok(Pdu::AssociateRequest(Box::new(AssociateRequest::parse(body)?))),
            types::RELEASE_RQ => Ok(Pdu::ReleaseRequest),
            types::ABORT => {
                let field = |at| body.get(at).copied().unwrap_or_default();
                Ok(Pdu::Abort { source: field(2), reason: field(3) })
            }
            types::ASSOCIATE_AC | types::ASSOCIATE_RJ | types::RELEASE_RP => Ok(Pdu::Unexpected(pdu_type)),
            other => Err(PduError::UnknownType(other)),
        }
    }

    /// The PDU's name in PS3.8.
    pub fn name(&self) -> &'static str {
        match self {
            Pdu::AssociateRequest(_) => "A-ASSOCIATE-RQ",
            Pdu::ReleaseRequest => "A-RELEASE-RQ",
            Pdu::Abort { .. } => "A-ABORT",
            Pdu::Unexpected(types::ASSOCIATE_AC) => "A-ASSOCIATE-AC",
            Pdu::Unexpected(types::ASSOCIATE_RJ) => "A-ASSOCIATE-RJ",
            Pdu::Unexpected(_) => "A-RELEASE-RP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_abort_is_one_whatever_its_length_and_codes() {
        assert_eq!(Pdu::parse(7, &[0, 0, 2, 6]).unwrap(), Pdu::Abort { source: 2, reason: 6 });
        assert_eq!(Pdu::parse(7, &[]).unwrap(), Pdu::Abort { source: 0, reason: 0 });
        assert_eq!(Pdu::parse(7, &[0, 0, 99, 99, 1]).unwrap(), Pdu::Abort { source: 99, reason: 99 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_pdu_or_an_error(pdu_type in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Pdu::parse(pdu_type, &body);
        }
    }
}
