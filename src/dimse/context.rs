//! A presentation context that was accepted.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub id: u8,
    /// The SOP class.
    pub abstract_syntax: String,
    pub transfer_syntax: &'static str,
    /// Position of the service that accepted it, among the node's services.
    pub service: usize,
}
