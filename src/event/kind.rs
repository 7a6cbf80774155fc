//! The kinds of event, by the names that configuration, ledger and metrics use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Flagged,
    Revised,
    Incomplete,
    NotFlagged,
    Acknowledged,
    DeliveryFailed,
    NodeTrouble,
    /// Sent by hand, to try a channel.
    Test,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Flagged,
        Kind::Revised,
        Kind::Incomplete,
        Kind::NotFlagged,
        Kind::Acknowledged,
        Kind::DeliveryFailed,
        Kind::NodeTrouble,
        Kind::Test,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Flagged => "flagged",
            Kind::Revised => "revised",
            Kind::Incomplete => "incomplete",
            Kind::NotFlagged => "not_flagged",
            Kind::Acknowledged => "acknowledged",
            Kind::DeliveryFailed => "delivery_failed",
            Kind::NodeTrouble => "node_trouble",
            Kind::Test => "test",
        }
    }

    /// Whether it tells a verdict on a study, of which documents can be made.
    pub fn is_verdict(self) -> bool {
        matches!(self, Kind::Flagged | Kind::Revised | Kind::Incomplete | Kind::NotFlagged)
    }

    /// Whether a person has to do something about it: these can be escalated, and a failed delivery of one is an event.
    pub fn is_urgent(self) -> bool {
        matches!(self, Kind::Flagged | Kind::Revised | Kind::Incomplete)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
