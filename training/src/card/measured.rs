//! The figures of a card, and how they were come by.

use serde_json::json;

use crate::cross_validation::CrossValidation;
use crate::evaluate::{Decision, HeldOut, Supplement};

/// The source of decision and figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Patients held back from training.
    HeldOut(HeldOut),
    /// Networks trained as this one, each on all patients but its fold's; this one on all of them.
    Crossed(CrossValidation),
}

impl Measured {
    /// The card's rules for flagging, and the calibration of the exported network.
    pub fn decision(&self) -> &Decision {
        match self {
            Measured::HeldOut(held) => &held.decision,
            Measured::Crossed(crossed) => &crossed.decision,
        }
    }

    /// For the card that the node reads.
    pub(super) fn about(&self) -> serde_json::Value {
        match self {
            Measured::HeldOut(held) => json!({ "validation": held.validation, "test": held.test }),
            // Figures beside the main ones have their own places in the card.
            Measured::Crossed(crossed) => {
                json!({ "cross_validation": CrossValidation { supplement: Supplement::default(), ..crossed.clone() } })
            }
        }
    }

    pub(super) fn supplement(&self) -> &Supplement {
        match self {
            Measured::HeldOut(held) => &held.supplement,
            Measured::Crossed(crossed) => &crossed.supplement,
        }
    }

    /// That the network tells nothing, or the wrong way round.
    pub fn warning(&self) -> Option<String> {
        let (figures, whose) = match self {
            Measured::HeldOut(held) => (&held.test.slices, "the test patients"),
            Measured::Crossed(crossed) => (&crossed.pooled.slices, "patients that its folds' networks have not seen"),
        };
        let auc = figures.auc.filter(|auc| auc.value <= 0.5)?;
        Some(format!(
            "the network orders the slices of {whose} no better than chance (AUC {:.3}): it is not to be used, and nothing below is of worth",
            auc.value
        ))
    }

    /// What the threshold reaches of both shares, as a sentence with a space before it; empty where nothing was noted.
    fn reached(&self) -> String {
        self.decision().reached.map_or(String::new(), |reached| format!(" {}", reached.text()))
    }

    /// For people, in Markdown; with a sentence on when the share of studies to flag was chosen.
    pub(super) fn text(&self, when_chosen: &str) -> String {
        match self {
            Measured::HeldOut(HeldOut { decision, validation, test, .. }) => format!(
                "The slice threshold has the highest F2 on the validation slices; the {}, over the validation patients. {}{}\n\n\
                 On {} test patients, unseen in training and in choosing thresholds:\n\n{}\n\
                 On the {} validation patients, on which epoch, thresholds and rule were chosen, and so too good:\n\n{}\n",
                decision.choosing().text(),
                when_chosen,
                self.reached(),
                test.patients,
                test.table(),
                validation.patients,
                validation.table()
            ),
            Measured::Crossed(crossed) => format!(
                "By {}-fold cross-validation: the {} patients in {} parts, each scored by a network that was trained on the \
                 others as this one was, and judged by thresholds and a rule that were chosen on the others. The network here \
                 is trained on all of them; its slice threshold has the highest F2 over all folds' slices, its \
                 {}, over all folds, as each fold's own over the others. {}{} The AUC over all folds is of the scores on \
                 one scale, {}, which changes no order within a fold; the studies' is that of the rule chosen on all \
                 folds, so on the patients themselves that it is taken on. All other figures are by what the other folds chose.\n\n{}\n",
                crossed.folds.len(),
                crossed.pooled.patients,
                crossed.folds.len(),
                crossed.decision.choosing().text(),
                when_chosen,
                self.reached(),
                // Where the scores order nothing, or the wrong way round, there is none to give.
                if crossed.decision.calibration.is_some() {
                    "the shipped calibration's"
                } else {
                    "the networks' own, for they are not calibrated"
                },
                crossed.table()
            ),
        }
    }
}
