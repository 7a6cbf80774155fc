//! How many associations each sender has open: AE title and address. One that opens too many leaves room for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// The senders that have associations.
#[derive(Debug)]
pub struct Senders {
    most: usize,
    open: Mutex<HashMap<(String, IpAddr), usize>>,
}

/// One association of a sender, until this is dropped.
#[derive(Debug)]
pub struct Seat {
    senders: Arc<Senders>,
    sender: (String, IpAddr),
}

impl Senders {
    pub fn new(most: usize) -> Arc<Senders> {
        Arc::new(Senders { most, open: Mutex::default() })
    }

    /// Takes a seat for an association; `None` where the sender has as many as it may have.
    pub fn take(self: &Arc<Senders>, calling_ae: &str, address: IpAddr) -> Option<Seat> {
        let sender = (calling_ae.to_owned(), address);
        let mut open = self.open.lock().expect("nobody panics while holding it");
        let count = open.entry(sender.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat { senders: self.clone(), sender })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.senders.open.lock().expect("nobody panics while holding it");
        if let Some(count) = open.get_mut(&self.sender) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_its_seats_and_no_more() {
        let senders = Senders::new(2);
        let take = |title: &str, last| senders.take(title, [10, 0, 0, last].into());
        let seats = [take("A", 1), take("A", 1)];
        assert!(seats.iter().all(Option::is_some) && take("A", 1).is_none());
        assert!(take("B", 1).is_some() && take("A", 2).is_some());
        drop(seats);
        assert!(take("A", 1).is_some());
    }
}
