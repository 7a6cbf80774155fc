//! The ledger's records, in the words of the domain. Nothing here knows a database.

mod audit;
mod commitment;
mod evidence;
mod fields;
mod instance;
mod location;
mod login;
mod notification;
mod operation;
mod outgoing;
mod removal;
mod report;
mod shadow;
mod shown;
mod slice;
mod study;

pub use audit::{Actor, ActorKind, AuditFilter, AuditRow, Chain, Deed};
pub use commitment::{CommitmentEnd, CommitmentRow, DueCommitment, KeptInstance, NewCommitment, PendingCommitments};
pub use evidence::{EvidenceSlice, ReportedVerdict};
pub use fields::{Field, FieldError, Record};
pub use instance::{
    About, Concatenation, ImageFile, InstanceFile, NewInstance, NewSlice, Quarantined, Refused, SliceFacts, SliceStart,
    Stored, source,
};
pub(super) use location::pixel_box;
pub use location::{Location, StoredMap};
pub use login::{Permission, Role, Scope, StoredUser, TokenRow, UserRow};
pub use notification::{
    Delivery, LinkUse, NewMessage, NotificationRow, OutboxRow, Revival, Step, Telling, Undelivered, Waiting,
};
pub use operation::{Measurement, Sender, SliceTimes, Traffic};
pub use outgoing::{DocumentState, DueForward, ForwardEnd, ForwardRow, ForwardRule, ForwardedCopy, SentDocument};
pub use removal::{ArchivedFile, FileOwner, FileRow, MarkedFile, RemovalRule};
pub use report::{
    AcknowledgementRow, FeedbackRow, Opinion, Order, SeriesRow, SetAsideRow, SliceRow, StandingCounts, VerdictFilter,
    VerdictRow, WorklistFilter, WorklistRow,
};
pub use shadow::{
    JudgedStudy, NewShadowModel, ScoredTwice, ShadowEnd, ShadowModel, ShadowOutcome, ShadowRow, ShadowSlices,
};
pub use shown::{DeedKind, Shown};
pub use slice::{Claim, Ended, Lease, LeaseRequest, Score, SliceId, WorkerId};
pub use study::{Evidence, Finding, OpenStudy, SeriesVerdict, SliceEvidence, SliceState, Verdict};
