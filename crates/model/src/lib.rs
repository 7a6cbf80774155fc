//! What the node and training know of a model: its card ([`ModelCard`]), the rule by which the probabilities of a series'
//! slices become a verdict ([`StudyRule`]), and the acquisitions it was made for ([`MadeFor`]).

mod card;
mod made_for;
mod rule;

pub use card::{CARD_FORMAT, CardError, ModelCard};
pub use made_for::{MadeFor, Tolerance};
pub use rule::{Judgement, StudyRule};
