//! The three ways in which a data set can be encoded (PS3.5 section 7.1).

use dicom_core::VR;
use dicom_dictionary_std::uids;

/// How elements are written: with or without VR, in which byte order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    /// From the first element header of a data set; `None` if the bytes are too few or the group is not a data
    /// set's first (0008, or any other below 0100).
    pub fn sniff(head: &[u8]) -> Option<Encoding> {
        let [g0, g1, _, _, v0, v1, ..] = *head else { return None };
        let explicit = VR::from_binary([v0, v1]).is_some();
        match (g0, g1) {
            (0, 0) => None,
            (_, 0) if explicit => Some(Encoding::ExplicitLittle),
            (_, 0) => Some(Encoding::ImplicitLittle),
            (0, _) if explicit => Some(Encoding::ExplicitBig),
            _ => None,
        }
    }

    /// The encoding that a transfer syntax declares. All but two declare explicit VR little endian (PS3.5 section 10).
    pub fn of(transfer_syntax: &str) -> Encoding {
        #[expect(deprecated, reason = "retired from the standard, not from archives")]
        match transfer_syntax {
            uids::IMPLICIT_VR_LITTLE_ENDIAN => Encoding::ImplicitLittle,
            uids::EXPLICIT_VR_BIG_ENDIAN => Encoding::ExplicitBig,
            _ => Encoding::ExplicitLittle,
        }
    }

    /// The transfer syntax of uncompressed objects in this encoding.
    pub fn uid(self) -> &'static str {
        match self {
            Encoding::ImplicitLittle => uids::IMPLICIT_VR_LITTLE_ENDIAN,
            Encoding::ExplicitLittle => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            #[expect(deprecated, reason = "retired from the standard, not from archives")]
            Encoding::ExplicitBig => uids::EXPLICIT_VR_BIG_ENDIAN,
        }
    }

    pub fn big(self) -> bool {
        self == Encoding::ExplicitBig
    }
}
