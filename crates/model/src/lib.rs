//! Everything that the node and training know of a model: its card ([`ModelCard`]), the rule by which the probabilities of a series'
//! slices become a verdict ([`StudyRule`]), the acquisitions it was made for ([`MadeFor`]), and its map of where the finding is
//! ([`HeatMap`]).

mod card;
mod heat_map;
mod made_for;
mod rule;

pub use card::{CARD_FORMAT, CardError, ModelCard};
pub use heat_map::{HeatMap, MAX_HEAT_MAP_SIDE};
pub use made_for::{MadeFor, Tolerance};
pub use rule::{Judgement, StudyRule};
