//! What the ledger keeps, in the words of the domain. Nothing here knows a database.

mod fields;
mod instance;
mod notification;
mod removal;
mod report;
mod shadow;
mod slice;
mod study;

pub use fields::{Field, FieldError, Record};
pub use instance::{NewInstance, NewSlice, Quarantined, Stored};
pub use notification::{Alert, Delivery, NotificationRow, OutboxRow};
pub use removal::{ArchivedFile, MarkedFile, RemovalRule};
pub use report::{SliceRow, VerdictRow, WorklistFilter, WorklistRow};
pub use shadow::{
    JudgedStudy, NewShadowModel, ScoredTwice, ShadowEnd, ShadowModel, ShadowOutcome, ShadowRow, ShadowSlices,
};
pub use slice::{Claim, Score, SliceId, TopSlice};
pub use study::{OpenStudy, Verdict};
