//! What a ledger and its archive both know of each other, so that one which was lost, restored or exchanged is noticed.

use serde::{Deserialize, Serialize};

/// The state of a ledger, as the ledger has it and as its archive was last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// A UUID that the ledger and its archive share.
    pub identity: String,
    /// Every transaction counts it up. An archive that was told of more than the ledger has belongs to a later state of it.
    pub generation: u64,
    /// The generation that the database file has without its write-ahead log; 0: not known. The file never has less later.
    pub in_file: u64,
}
