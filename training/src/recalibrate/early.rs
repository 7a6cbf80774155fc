//! The threshold of early alerts beside a new one of the sequence network.

use triaged_model::ModelCard;

use super::studies::Labelled;
use super::verdict::OFF;
use crate::sequence::{ByBoth, early_threshold};

/// The threshold of early alerts beside a chosen one of the sequence network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Early {
    /// The lowest, not below that of before, from which on the sequence network confirms all early alerts on the site's studies.
    Chosen(f64),
    /// That of before: whatever was confirmed by a higher threshold is confirmed by a lower one.
    Kept,
    /// None are given: the sequence network may not confirm them by the new threshold, and a table of studies does not tell their score.
    Off { unconfirmed: usize },
}

impl Early {
    /// Beside this new threshold of the sequence network. None for a card without one.
    pub fn of(card: &ModelCard, studies: &[Labelled], threshold: f64) -> Option<Early> {
        let sequence = card.sequence.as_ref()?;
        let both = |study: &Labelled| Some(ByBoth { rule: study.early?, flagged: study.score >= threshold });
        let by_both: Option<Vec<ByBoth>> = studies.iter().map(both).collect();
        let unconfirmed = studies.iter().filter(|study| study.unconfirmed && study.score < threshold).count();
        let before = card.early_rule().threshold();
        Some(match by_both {
            // A few studies are no reason for alerts that many others warned of.
            Some(studies) if before < OFF => Early::Chosen(early_threshold(&studies, before)),
            Some(studies) => Early::Chosen(early_threshold(&studies, card.study_rule.threshold())),
            None if threshold <= sequence.threshold && unconfirmed == 0 => Early::Kept,
            None => Early::Off { unconfirmed },
        })
    }

    /// For the card: none where it stays.
    pub fn threshold(self) -> Option<f64> {
        match self {
            Early::Chosen(threshold) => Some(threshold),
            Early::Kept => None,
            Early::Off { .. } => Some(OFF),
        }
    }

    pub fn warning(self, card: &ModelCard) -> Option<String> {
        const HOW: &str = "Flagged studies are told when they are complete. With --data FOLDER early alerts get a threshold of their own";
        match self {
            Early::Kept if card.early_rule().threshold() >= OFF => {
                Some(format!("early alerts are off in {}, and stay so. {HOW}", card.name))
            }
            Early::Off { unconfirmed: 0 } => Some(format!(
                "early alerts are off (early_threshold 1): the new threshold is higher, and a table of studies does not tell which early \
                 alerts the sequence network would still confirm. {HOW}"
            )),
            Early::Off { unconfirmed } => Some(format!(
                "early alerts are off (early_threshold 1): of the studies {unconfirmed} had one that the sequence network does not \
                 confirm, and a table of studies does not tell from which score on it does. {HOW}"
            )),
            Early::Chosen(_) | Early::Kept => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{early_text, with_thresholds};
    use super::*;
    use crate::recalibrate::{Choice, Wanted, threshold};

    /// m12, and a choice on forty studies at 0.01 to 0.40, of which the upper half bleed.
    fn chosen(wanted: Wanted, change: impl Fn(usize, &mut Labelled)) -> (ModelCard, Vec<Labelled>, Choice) {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let (card, _) = ModelCard::load(&models.join("m12.json")).expect("a card");
        let mut studies: Vec<Labelled> = (0..40)
            .map(|i| Labelled {
                patient: i.to_string(),
                score: 0.01 * (i + 1) as f64,
                early: None,
                unconfirmed: false,
                positive: i >= 20,
            })
            .collect();
        studies.iter_mut().enumerate().for_each(|(i, study)| change(i, study));
        let choice = Choice::of(&studies, wanted, threshold(&card)).expect("twenty of each");
        (card, studies, choice)
    }

    const LOWER: Wanted = Wanted { sensitivity: None, specificity: Some(0.5) };

    #[test]
    fn early_alerts_that_nobody_confirmed_are_not_kept() {
        let (card, studies, choice) = chosen(LOWER, |_, _| ());
        assert!(choice.threshold < threshold(&card));
        assert_eq!(Early::of(&card, &studies, choice.threshold), Some(Early::Kept));
        // One healthy study at 0.01 has an early alert, as the worklist says.
        let (card, studies, choice) = chosen(LOWER, |i, study| study.unconfirmed = i == 0);
        let early = Early::of(&card, &studies, choice.threshold).expect("m12 has a sequence network");
        assert_eq!((early, early.threshold()), (Early::Off { unconfirmed: 1 }, Some(OFF)));
        assert!(early.warning(&card).is_some_and(|text| text.contains("of the studies 1 had one")));
        // They stay off, and that is said again.
        let off = with_thresholds(&card, 0.5, Some(OFF));
        assert_eq!(early_text(&off), "early alerts are off");
        assert!(Early::Kept.warning(&off).is_some_and(|text| text.contains("and stay so")));
        assert_eq!(Early::Kept.warning(&card), None);
    }

    #[test]
    fn few_studies_do_not_lower_the_threshold_of_early_alerts() {
        let (card, studies, choice) = chosen(LOWER, |_, study| study.early = Some(study.score));
        // By the rule's scores nothing above the card's threshold is unconfirmed: it stays.
        let before = card.early_rule().threshold();
        assert_eq!(Early::of(&card, &studies, choice.threshold), Some(Early::Chosen(before)));
        // A healthy study with a high score by the rule, which the sequence network does not flag, lifts it.
        let (card, studies, choice) = chosen(LOWER, |i, study| {
            study.early = Some(match i {
                0 => 0.9,
                _ if study.score < 0.15 => 0.1,
                _ => 0.95,
            });
        });
        let Some(Early::Chosen(early)) = Early::of(&card, &studies, choice.threshold) else {
            panic!("the scores are known")
        };
        assert!((early - 0.925).abs() < 1e-9, "{early}");
    }
}
