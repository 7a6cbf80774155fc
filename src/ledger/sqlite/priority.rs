//! What a slice waits as: the values of `slices.priority`.

pub(super) const STAT: i64 = -1;
pub(super) const NEW: i64 = 0;
/// It has a score, and is scored again because somebody asked for it.
pub(super) const SCORED_AGAIN: i64 = 1;
/// Its file lay in the archive without a row.
pub(super) const TAKEN_IN_AGAIN: i64 = 2;
/// It failed, and somebody asked for another attempt. It is the only evidence of its place, so it waits as new ones do.
pub(super) const FAILED_AGAIN: i64 = 3;
pub(super) const FAILED_STAT_AGAIN: i64 = -2;

/// The kinds of slices that take turns, those that go first in front, each with the priorities that it has.
pub(super) const KINDS: [[i64; 2]; 3] =
    [[STAT, FAILED_STAT_AGAIN], [NEW, FAILED_AGAIN], [SCORED_AGAIN, TAKEN_IN_AGAIN]];

/// Whether a slice fills the room that new arrivals have. Work that is done again keeps no new patient out.
pub(super) fn is_new(priority: i64) -> bool {
    matches!(priority, STAT | NEW)
}
