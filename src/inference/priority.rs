//! Receiving before scoring: a scanner that waits for its success holds an association and may give up, a slice that
//! waits for its score is only late by milliseconds. On a CPU both want all cores.

use tracing::debug;

/// Steps of niceness that decoding and scoring threads stand back: about a third of the weight of a receiving thread.
const STEPS: i32 = 5;

/// Steps of niceness for work that nobody waits for: about a tenth of the weight of a scoring thread.
const FAR_STEPS: i32 = 15;

/// Makes this thread, and those that it starts from now on, stand back behind the node's others.
pub(super) fn stand_back() {
    lower(STEPS);
}

/// Makes this thread, and those that it starts from now on, stand back behind those, too.
pub(super) fn stand_far_back() {
    lower(FAR_STEPS);
}

fn lower(steps: i32) {
    // On Linux, a niceness is a thread's own, and "the calling process" is the calling thread (setpriority(2)).
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now + steps));
    if let Err(error) = lowered {
        debug!("the priority of a thread stays as it is: {error}");
    }
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
}
