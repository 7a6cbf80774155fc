//! What the node and training know of a model: its card ([`ModelCard`]) and the rule by which the probabilities of a
//! study's slices become a verdict ([`StudyRule`]).

mod card;
mod rule;

pub use card::{CARD_FORMAT, CardError, ModelCard};
pub use rule::{Judgement, StudyRule};
