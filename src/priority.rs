//! Receiving before scoring: a scanner that waits for its success holds an association and may give up, a slice that
//! waits for its score is only late by milliseconds. On a CPU both want all cores.

use std::io;

use tracing::debug;

/// Steps of niceness that decoding and scoring threads stand back: about a fifth of the weight of a receiving thread.
const STEPS: i32 = 7;

/// Steps of niceness for work that nobody waits for: about a tenth of the weight of a scoring thread.
const FAR_STEPS: i32 = 17;

/// The time slice that decoding and scoring threads ask for, in nanoseconds. Linux (6.12 and later) gives a thread that wakes
/// the core at once where the slice it asks for is the shorter one, by default 1 to 3 ms: so a receiving thread does not wait
/// for the end of a scoring thread's turn each time that its object has waited for the socket, the disk or the ledger. Shares
/// of the cores stay as they are.
const SLICE: u64 = 10_000_000;

/// Makes this thread, and those that it starts from now on, stand back behind the node's others.
pub(crate) fn stand_back() {
    lower(STEPS);
}

/// Makes this thread, and those that it starts from now on, stand back behind those, too.
pub(crate) fn stand_far_back() {
    lower(FAR_STEPS);
}

fn lower(steps: i32) {
    // On Linux, a niceness is a thread's own, and "the calling process" is the calling thread (setpriority(2)).
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now + steps));
    if let Err(error) = lowered {
        debug!("the priority of a thread stays as it is: {error}");
    }
    if let Err(error) = ask_for_slice(SLICE) {
        debug!("the time slice of a thread stays as it is: {error}");
    }
}

/// Asks for a time slice for this thread, leaving all else of its scheduling as it is. Older systems ignore it.
fn ask_for_slice(nanoseconds: u64) -> io::Result<()> {
    let mut attributes = scheduling()?;
    // Whoever runs the node under another policy (real time, idle) has a reason.
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = nanoseconds;
    // SAFETY: sched_setattr(2) reads `size` bytes of the structure, which is initialised and of that size, and keeps no pointer to
    // it. Thread 0 is the calling one.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The scheduling of this thread.
fn scheduling() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_getattr(2) writes at most `size` bytes, the size of the structure, any bytes of which are a value of it.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_thread_and_its_children_stand_back() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (own, child) = std::thread::spawn(move || {
            stand_back();
            (niceness(), std::thread::spawn(niceness).join().unwrap())
        })
        .join()
        .unwrap();
        let expected = (before + STEPS).min(19);
        assert_eq!((own, child, niceness()), (expected, expected, before));
        let far = std::thread::spawn(move || {
            stand_far_back();
            niceness()
        });
        assert_eq!((far.join().unwrap(), niceness()), ((before + FAR_STEPS).min(19), before));
    }

    #[test]
    fn a_longer_slice_changes_nothing_else() {
        let of =
            |attributes: libc::sched_attr| (attributes.sched_policy, attributes.sched_nice, attributes.sched_flags);
        let before = scheduling().unwrap();
        let (own, child) = std::thread::spawn(|| {
            ask_for_slice(SLICE).unwrap();
            (scheduling().unwrap(), std::thread::spawn(|| scheduling().unwrap()).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((of(own), of(child), of(scheduling().unwrap())), (of(before), of(before), of(before)));
        if before.sched_policy != libc::SCHED_OTHER as u32 {
            eprintln!("SKIP the slice: this test runs under another policy");
        } else if own.sched_runtime == 0 {
            eprintln!("SKIP the slice: this system tells none");
        } else {
            assert_eq!((own.sched_runtime, child.sched_runtime), (SLICE, SLICE));
            assert_ne!(scheduling().unwrap().sched_runtime, SLICE);
        }
    }
}
