//! Who did what.

use super::fields::record;

/// The kind of actor that did a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorKind {
    Person,
    /// An access token, that is a program that was given one.
    Token,
    /// A peer on the network that nobody has logged in.
    Peer,
    /// The node itself.
    System,
}

/// Who does a deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub kind: ActorKind,
    pub name: String,
    /// Who did it for the actor, where it was somebody else: the audit log names both.
    pub by_way_of: Option<String>,
}

impl Actor {
    pub fn person(name: impl Into<String>) -> Actor {
        Actor { kind: ActorKind::Person, name: name.into(), by_way_of: None }
    }

    pub fn token(name: impl Into<String>) -> Actor {
        Actor { kind: ActorKind::Token, name: name.into(), by_way_of: None }
    }

    pub fn peer(name: impl Into<String>) -> Actor {
        Actor { kind: ActorKind::Peer, name: name.into(), by_way_of: None }
    }

    pub fn system() -> Actor {
        Actor { kind: ActorKind::System, name: "triaged".into(), by_way_of: None }
    }

    /// The same actor, for whom `other` does it.
    pub fn by_way_of(self, other: &Actor) -> Actor {
        Actor { by_way_of: Some(other.name.clone()), ..self }
    }
}

/// A deed to be written into the audit log.
#[derive(Debug, Clone)]
pub struct Deed {
    pub actor: Actor,
    /// The deed's name, such as `study.acknowledge`: the kind of thing, a full stop, a verb.
    pub name: &'static str,
    pub study_uid: Option<String>,
    /// Further facts about it: a JSON object without patient data.
    pub details: serde_json::Value,
}

record! {
    /// A row of the audit log.
    pub struct AuditRow {
        pub id: i64,
        pub at: String,
        pub actor_kind: String,
        pub actor: String,
        pub deed: String,
        pub study_uid: Option<String>,
        pub details: String,
        /// The hash over this row and the one before; none in rows of earlier versions.
        pub hash: Option<String>,
    }
}

/// The hash chain of the audit log, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub rows: u64,
    /// The last row's.
    pub last_id: i64,
    pub hash: String,
    /// The first row that is not as it was written, or that is missing; `None` where all are right.
    pub broken_at: Option<i64>,
}

/// Which rows of the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub study_uid: Option<String>,
    /// At this moment, as the ledger writes it, or later.
    pub since: Option<String>,
    /// The newest, at most so many.
    pub limit: Option<u32>,
}
