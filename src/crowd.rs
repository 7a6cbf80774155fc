//! Connections that have not yet shown what they are for. There is room for so many; when it is taken, the one that was silent for longest,
//! of the address that has most, makes room; strangers before known peers. So a host that opens thousands, or lets bytes drip, does not keep the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

/// The room.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    members: Mutex<Members>,
}

/// Whose connections make room only where there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Known,
    Stranger,
}

#[derive(Debug, Default)]
struct Members {
    /// Grows with everything that somebody does.
    moment: u64,
    by_id: HashMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    address: IpAddr,
    standing: Standing,
    active: u64,
    made_room: CancellationToken,
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    id: u64,
    made_room: CancellationToken,
}

impl Crowd {
    pub fn new(most: usize) -> Arc<Crowd> {
        Arc::new(Crowd { most: most.max(1), members: Mutex::default() })
    }

    /// Takes a place. There always is one.
    pub fn enter(self: &Arc<Crowd>, address: IpAddr, standing: Standing) -> Place {
        let mut members = self.members();
        while members.by_id.len() >= self.most {
            let Some(id) = members.least() else { break };
            if let Some(member) = members.by_id.remove(&id) {
                member.made_room.cancel();
                metrics::counter!("triaged_connections_displaced_total").increment(1);
            }
        }
        members.moment += 1;
        let (id, made_room) = (members.moment, CancellationToken::new());
        members.by_id.insert(id, Member { address, standing, active: id, made_room: made_room.clone() });
        Place { crowd: self.clone(), id, made_room }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("nobody panics while holding it")
    }
}

impl Members {
    /// Who makes room.
    fn least(&self) -> Option<u64> {
        let has_stranger = self.by_id.values().any(|member| member.standing == Standing::Stranger);
        let may_go = |member: &Member| !has_stranger || member.standing == Standing::Stranger;
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for member in self.by_id.values().filter(|member| may_go(member)) {
            *of_address.entry(member.address).or_default() += 1;
        }
        let most = of_address.values().copied().max()?;
        let is_of_most = |member: &Member| may_go(member) && of_address.get(&member.address) == Some(&most);
        let candidates = self.by_id.iter().filter(|(_, member)| is_of_most(member));
        candidates.min_by_key(|(_, member)| member.active).map(|(id, _)| *id)
    }
}

impl Place {
    /// The connection did what it is for.
    pub fn touch(&self) {
        let mut members = self.crowd.members();
        members.moment += 1;
        let moment = members.moment;
        if let Some(member) = members.by_id.get_mut(&self.id) {
            member.active = moment;
        }
    }

    /// Cancelled once the connection must make room.
    pub fn made_room(&self) -> &CancellationToken {
        &self.made_room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.members().by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_makes_room() {
        let crowd = Crowd::new(4);
        let scanner = crowd.enter(host(1), Standing::Stranger);
        let others: Vec<Place> = (0..3).map(|_| crowd.enter(host(2), Standing::Stranger)).collect();
        others[0].touch();
        let next = crowd.enter(host(3), Standing::Stranger);
        let displaced = |place: &Place| place.made_room().is_cancelled();
        assert_eq!(others.iter().map(displaced).collect::<Vec<_>>(), [false, true, false]);
        assert!(!displaced(&scanner) && !displaced(&next));
    }

    #[test]
    fn who_leaves_gives_the_place_back() {
        let crowd = Crowd::new(1);
        drop(crowd.enter(host(1), Standing::Stranger));
        let first = crowd.enter(host(1), Standing::Stranger);
        let second = crowd.enter(host(1), Standing::Stranger);
        assert!(first.made_room().is_cancelled() && !second.made_room().is_cancelled());
    }

    #[test]
    fn strangers_make_room_before_known_peers() {
        let crowd = Crowd::new(3);
        let known = [crowd.enter(host(1), Standing::Known), crowd.enter(host(1), Standing::Known)];
        let stranger = crowd.enter(host(2), Standing::Stranger);
        let next = crowd.enter(host(3), Standing::Stranger);
        assert!(stranger.made_room().is_cancelled() && !next.made_room().is_cancelled());
        assert!(known.iter().all(|place| !place.made_room().is_cancelled()));
    }
}
