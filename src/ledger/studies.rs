//! The port between the ledger and whoever judges studies.

use tokio::sync::Notify;

use super::{NewMessage, OpenStudy, Pending, Result, SliceId, Verdict};
use crate::event::TopSlice;

/// The records of studies and of their verdicts.
///
/// ```text
///              an instance comes
///                     │
///                     ▼   decide(provisional)
///                 receiving ───┐
///                  │  ▲   ▲    │
///           decide │  │   └────┘
///                  ▼  │ a slice comes, or is scored, later: the next revision
///                 decided
/// ```
pub trait Studies: Send + Sync {
    /// The studies whose verdict by this model is due some time. Blocks.
    fn open_studies(&self, model_sha256: &str) -> Result<Vec<OpenStudy>>;

    /// The slices of a study with the highest probabilities, highest first. Blocks.
    fn top_slices(&self, study_uid: &str, most: usize) -> Result<Vec<TopSlice>>;

    /// The AE titles that sent instances of a study. Blocks.
    fn calling_ae_titles(&self, study_uid: &str) -> Result<Vec<String>>;

    /// Station Name (0008,1010) of a study, where it came and is kept. Blocks.
    fn station_name(&self, study_uid: &str) -> Result<Option<String>>;

    /// Writes a verdict with its messages. Returns false, and writes nothing, when the study has gone on since it was
    /// looked at: it will be looked at again.
    fn decide(&self, verdict: Verdict, messages: Vec<NewMessage>) -> Pending<'_, bool>;

    /// Puts slices of an open study that another model scored back into the queue: a verdict is on one model's scores.
    fn requeue_other_models(&self, study_uid: String, model_sha256: String) -> Pending<'_, ()>;

    /// Puts slices of an open study that were declined, for their pixels are not those of a head, into the queue, to be scored all the same.
    fn score_declined(&self, study_uid: String, slices: Vec<SliceId>) -> Pending<'_, ()>;

    /// Wakes when something was received, or a slice came to its end, by this process. Others may write, too: look now and
    /// then.
    fn changed(&self) -> &Notify;
}
