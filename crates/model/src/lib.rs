//! Everything that the node and training know of a model: its card ([`ModelCard`]), the rule by which the probabilities of a series'
//! slices become a verdict ([`StudyRule`]), the second network that reads a whole series ([`Sequence`]), the acquisitions it was made
//! for ([`MadeFor`]), and its map of where the finding is ([`HeatMap`]).

mod card;
mod heat_map;
mod made_for;
mod rule;
mod sequence;
mod verdict_rule;

pub use card::{CARD_FORMAT, CardError, ModelCard};
pub use heat_map::{HeatMap, MAX_HEAT_MAP_SIDE};
pub use made_for::{MadeFor, Tolerance};
pub use rule::{Judgement, StudyRule};
pub use sequence::{
    MAX_LOGIT, MOST_EMPTY, SAME_PLACE_MM, Sequence, SeriesInput, SeriesNetwork, SeriesPlace, SeriesScores,
};
pub use verdict_rule::{SequenceRule, VerdictRule};
