//! Who does what a request asks for. Without a login a reader may say who he is, and the audit log names the peer too.

use super::connection::PeerAddress;
use crate::ledger::{Actor, ActorKind};
use crate::outside;

/// Characters of a name.
pub(super) const MOST_NAME: usize = 64;

/// Characters of a note.
pub(super) const MOST_NOTE: usize = 500;

/// The actor of a request: whoever was recognized, whatever is said. `named` is what a reader says of himself where there is no login.
pub(super) fn actor(peer: PeerAddress, named: Option<&str>) -> Actor {
    if peer.actor().kind != ActorKind::Peer {
        return peer.actor();
    }
    let named = named.map(|name| line(name, MOST_NAME)).filter(|name| !name.is_empty());
    match named {
        // As in the timeline, so in the audit log: a name that looks like another is kept as one that does not.
        Some(name) => Actor::person(outside::shown(&name).into_owned()).by_way_of(&peer.actor()),
        None => peer.actor(),
    }
}

/// A text of one line, of at most so many characters.
pub(super) fn line(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    text.trim().to_owned()
}
