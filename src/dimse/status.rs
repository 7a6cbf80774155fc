//! DIMSE status codes (PS3.7 annex C, PS3.4 B.2.3) with the comment that goes with them.

/// A status of a response: the code for the machine, the comment (0000,0902) and a log line for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    /// The reason in words, without patient data.
    pub comment: String,
}

impl Status {
    pub const SUCCESS: u16 = 0x0000;
    /// A response that others of the same operation follow (PS3.7 annex C).
    pub const PENDING: u16 = 0xFF00;
    /// A pending response of which some optional keys were not matched (PS3.4 C.4.1.1.4).
    pub const PENDING_WITH_WARNING: u16 = 0xFF01;
    /// The peer cancelled the operation (PS3.7 annex C).
    pub const CANCELLED: u16 = 0xFE00;
    /// Processing failure (PS3.7 C.5.16).
    pub const PROCESSING_FAILURE: u16 = 0x0110;
    /// Refused: out of resources (PS3.4 B.2.3).
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// Error: data set does not match SOP Class (PS3.4 B.2.3).
    pub const DATA_SET_DOES_NOT_MATCH: u16 = 0xA900;
    /// Error: cannot understand (PS3.4 B.2.3).
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
    /// Refused: SOP Class not supported (PS3.7 C.5.7).
    pub const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// Invalid SOP Instance (PS3.7 C.5.12).
    pub const INVALID_SOP_INSTANCE: u16 = 0x0117;
    /// No such SOP Instance (PS3.7 C.5.4).
    pub const NO_SUCH_SOP_INSTANCE: u16 = 0x0112;
    /// Invalid argument value (PS3.7 C.5.10).
    pub const INVALID_ARGUMENT_VALUE: u16 = 0x0115;
    /// No such action type (PS3.7 C.5.15).
    pub const NO_SUCH_ACTION: u16 = 0x0123;
    /// Resource limitation (PS3.7 C.5.22).
    pub const RESOURCE_LIMITATION: u16 = 0x0213;
    /// Unrecognized operation (PS3.7 C.5.23).
    pub const UNRECOGNIZED_OPERATION: u16 = 0x0211;

    pub fn success() -> Status {
        Status { code: Status::SUCCESS, comment: String::new() }
    }

    pub fn new(code: u16, comment: impl Into<String>) -> Status {
        Status { code, comment: comment.into() }
    }

    pub fn is_success(&self) -> bool {
        self.code == Status::SUCCESS
    }

    /// Whether other responses of the same operation follow.
    pub fn is_pending(&self) -> bool {
        matches!(self.code, Status::PENDING | Status::PENDING_WITH_WARNING)
    }

    /// The comment as an Error Comment (0000,0902) can carry it: LO, 64 characters of the default repertoire.
    pub fn error_comment(&self) -> String {
        self.comment.chars().map(|c| if (' '..='~').contains(&c) && c != '\\' { c } else { '?' }).take(64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_fits_its_attribute() {
        let comment = Status::new(Status::CANNOT_UNDERSTAND, "é\\".to_owned() + &"x".repeat(100)).error_comment();
        assert_eq!(comment.len(), 64);
        assert!(comment.starts_with("??x"));
    }
}
