//! The answers of a peer to objects.

/// An object that the peer has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of the data set as sent.
    pub bytes: u64,
    /// The transfer syntax it was sent in.
    pub transfer_syntax: String,
    /// Status (0000,0900): success or a warning.
    pub status: u16,
    /// Error Comment (0000,0902), or empty.
    pub comment: String,
}

/// Why one object was not stored; the others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It was never sent.
    #[error("{0}")]
    Unsendable(String),
    /// The peer answered with a failure status.
    #[error("refused with status {status:04X}H, {}{}", meaning(*.status), quoted(.comment))]
    Refused { status: u16, comment: String },
}

fn quoted(comment: &str) -> String {
    if comment.is_empty() { String::new() } else { format!(": {comment}") }
}

/// A C-STORE status in words (PS3.4 table B.2-1, PS3.7 annex C).
pub fn meaning(status: u16) -> &'static str {
    match status {
        0x0000 => "success",
        0x0110 => "processing failure",
        0x0111 => "duplicate SOP instance",
        0x0112 => "no such SOP instance",
        0x0117 => "invalid SOP instance",
        0x0118 => "no such SOP class",
        0x0119 => "class-instance conflict",
        0x0122 => "SOP class not supported",
        0x0124 => "not authorized",
        0x0210 => "duplicate invocation",
        0x0211 => "unrecognized operation",
        0x0212 => "mistyped argument",
        0x0213 => "resource limitation",
        0x0107 => "attribute list error",
        0x0116 => "attribute value out of range",
        0xA700..=0xA7FF => "out of resources",
        0xA900..=0xA9FF => "data set does not match SOP class",
        0xB000 => "coercion of data elements",
        0xB006 => "elements discarded",
        0xB007 => "data set does not match SOP class",
        0xB001..=0xBFFF => "warning",
        0xC000..=0xCFFF => "cannot understand",
        _ => "failure",
    }
}

/// Whether a C-STORE status means that the object is stored: success or a warning.
pub fn is_stored(status: u16) -> bool {
    matches!(status, 0x0000 | 0xB000..=0xBFFF | 0x0107 | 0x0116)
}

/// Whether a peer may take the same instance later without anybody's doing (PS3.4 table B.2-1).
pub fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused { status: 0xA700..=0xA7FF | 0x0110 | 0x0210 | 0x0213, .. })
}
