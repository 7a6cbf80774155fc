//! An ablation's figures, a row each, as a table and in a card.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use triaged_imaging::Transform;
use triaged_model::ModelCard;

use super::rows::Row;
use crate::data::{SplitBy, TRAINING_ONLY};
use crate::metrics::{Case, Interval, auc_difference};
use crate::network::Layer;
use crate::run::{Run, Scored};

/// Bootstrap samples behind the interval of a difference.
const ROUNDS: usize = 1000;
/// The heading of the card's section.
const HEADING: &str = "### Ablations";

/// A row's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub row: Row,
    pub changed: String,
    pub patients: usize,
    pub slices: usize,
    pub slice_auc: Option<Interval>,
    /// The difference of the slices' area to the recipe's own on the same slices; none for the recipe itself.
    pub difference: Option<Interval>,
    /// This and what follows: none with one class only.
    pub f2: Option<Interval>,
    pub sensitivity: Option<Interval>,
    pub specificity: Option<Interval>,
    /// None with one class only, and where a patient's slices stand in several folds.
    pub study_auc: Option<Interval>,
    /// How the row was shortened, or empty.
    pub shortened: String,
    /// Epochs, and slices an epoch.
    pub epochs: usize,
}

/// All rows that are finished, the recipe's first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// The recipe's name or file.
    pub recipe: String,
    pub folds: usize,
    pub seed: u64,
    pub outcomes: Vec<Outcome>,
    /// What the recipe's own row was trained as; none in tables of before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Subject>,
}

/// What a table is about: it says nothing of another network, input or patients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    pub layers: Vec<Layer>,
    pub transform: Transform,
    /// The sources that are measured, in the order of their names.
    pub measured: Vec<String>,
}

impl Subject {
    /// In what a card is of something else, in words; none where it is not.
    pub fn difference(&self, card: &ModelCard) -> Option<String> {
        if card.transform != self.transform {
            return Some("the model has another input".into());
        }
        // A card that others wrote names no layers.
        let layers = Vec::<Layer>::deserialize(&card.about["architecture"]["layers"]);
        if layers.is_ok_and(|layers| layers != self.layers) {
            return Some("the model is another network".into());
        }
        let sources = card.about["data"].as_array().into_iter().flatten();
        let measured = sources.filter(|data| data["role"] != TRAINING_ONLY).filter_map(|data| data["source"].as_str());
        let measured: BTreeSet<&str> = measured.collect();
        let own: BTreeSet<&str> = self.measured.iter().map(String::as_str).collect();
        let list = |of: BTreeSet<&str>| of.into_iter().collect::<Vec<_>>().join(", ");
        (measured != own).then(|| format!("the model was measured on {}, these rows on {}", list(measured), list(own)))
    }
}

impl Outcome {
    /// From a row's finished cross-validation, and that of the recipe itself.
    pub fn of(row: Row, run: &Run, recipe: &Run, shortened: &str, seed: u64) -> Self {
        let measured = run.first();
        let figures = &measured.evaluation;
        Self {
            row,
            changed: row.text(),
            patients: figures.patients,
            slices: figures.slices.cases,
            slice_auc: figures.slices.auc,
            difference: (row != Row::Recipe)
                .then(|| difference(&measured.slices, &recipe.first().slices, seed))
                .flatten(),
            f2: figures.slices.f2,
            sensitivity: figures.slices.sensitivity,
            specificity: figures.slices.specificity,
            study_auc: figures.studies.auc.filter(|_| run.by == SplitBy::Patient),
            shortened: shortened.into(),
            epochs: run.config.epochs,
        }
    }
}

/// How much larger the area of `ours` is than that of `theirs`, over the slices that both scored; the interval is 95 %,
/// by bootstrap over patients, both on the same ones. None where they have no slices of both classes in common.
fn difference(ours: &[Scored], theirs: &[Scored], seed: u64) -> Option<Interval> {
    let key = |scored: &Scored| (scored.slice.source.clone(), scored.slice.id.clone());
    let known: BTreeMap<_, Case> = theirs.iter().map(|scored| (key(scored), scored.case())).collect();
    let mut patients: BTreeMap<&str, Vec<(Case, Case)>> = BTreeMap::new();
    for scored in ours {
        if let Some(&other) = known.get(&key(scored)) {
            patients.entry(&scored.slice.patient).or_default().push((scored.case(), other));
        }
    }
    auc_difference(&patients.into_values().collect::<Vec<_>>(), ROUNDS, seed)
}

impl Ablation {
    /// A table in Markdown.
    pub fn table(&self) -> String {
        let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
        let signed = |i: Interval| format!("{:+.3} ({:+.3} to {:+.3})", i.value, i.low, i.high);
        let or = |i: Option<Interval>, text: &str| i.map_or(text.to_owned(), cell);
        let mut table = String::from(
            "| row | changed | slice AUC | difference | F2 | sensitivity | specificity | study AUC | shortened |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.outcomes {
            let study = if row.row == Row::SplitImage { "not by image" } else { "one class only" };
            table += &format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                row.row.name(),
                row.changed,
                or(row.slice_auc, "one class only"),
                row.difference.map_or(String::new(), signed),
                or(row.f2, "one class only"),
                or(row.sensitivity, "one class only"),
                or(row.specificity, "one class only"),
                or(row.study_auc, study),
                if row.shortened.is_empty() { "no" } else { &row.shortened },
            );
        }
        table
    }

    /// The card's section, in Markdown.
    pub fn section(&self) -> String {
        format!("{HEADING}\n\n{}\n\n{}\n", self.caption(), self.table())
    }

    /// A card's Markdown with this table in it: in the place of the one it has, else before what the model must not be trusted
    /// in. None where it is not laid out as `export` does.
    pub fn in_text(&self, card: &str) -> Option<String> {
        let limits = card.find("## Limits\n")?;
        let begin = card[..limits].find(HEADING).unwrap_or(limits);
        Some(format!("{}{}{}", &card[..begin], self.section(), &card[limits..]))
    }

    /// The subject of the table, in words.
    pub fn caption(&self) -> String {
        format!(
            "The recipe {} with one thing changed in each row, cross-validated on the same {} folds (seed {}) but for the \
             row that splits by image. Each fold is judged by what the others chose. In brackets 95 % intervals, bootstrap \
             over patients; the difference is of the slice AUC to the recipe's own, on the same slices and patients.",
            self.recipe, self.folds, self.seed
        )
    }

    /// A line a row; the bounds of an interval stand beside its value.
    ///
    /// # Errors
    /// As the writer's.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        let mut heads: Vec<String> = ["row", "changed", "patients", "slices", "epochs"].map(str::to_owned).to_vec();
        for figure in ["slice_auc", "difference", "f2", "sensitivity", "specificity", "study_auc"] {
            heads.extend([figure.to_owned(), format!("{figure}_low"), format!("{figure}_high")]);
        }
        heads.push("shortened".into());
        rows.write_record(&heads)?;
        for row in &self.outcomes {
            let mut cells = vec![row.row.name(), row.changed.clone()];
            cells.extend([row.patients, row.slices, row.epochs].map(|count| count.to_string()));
            let figures = [row.slice_auc, row.difference, row.f2, row.sensitivity, row.specificity, row.study_auc];
            for figure in figures {
                let texts = figure.map(|i| [i.value, i.low, i.high].map(|value| format!("{value:.4}")));
                cells.extend(texts.unwrap_or_default());
            }
            cells.push(row.shortened.clone());
            rows.write_record(&cells)?;
        }
        rows.into_inner().map_err(|error| error.into_error().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Slice;
    use crate::metrics::auc;

    fn scored(patient: usize, number: usize, positive: bool, probability: f64) -> Scored {
        let slice = Slice {
            id: format!("ID_{patient}_{number}"),
            source: "a".into(),
            patient: format!("a/{patient}"),
            study: None,
            series: None,
            instance: None,
            positive,
            file: "none".into(),
            mask: None,
            size: None,
            position: None,
            origin: None,
        };
        Scored { side: "fold-1".into(), slice, probability, on_one_scale: probability, threshold: 0.5 }
    }

    #[test]
    fn a_difference_is_taken_on_the_same_slices_and_patients() {
        // Theirs mistakes patient 0's; ours none. A slice of ours that they have not counts for nothing.
        let set = |wrong: bool| -> Vec<Scored> {
            (0..8)
                .flat_map(|patient| (0..4).map(move |number| (patient, number)))
                .map(|(patient, number)| {
                    let positive = number == 0;
                    let turned = wrong && patient == 0;
                    scored(patient, number, positive, if positive != turned { 0.8 } else { 0.2 })
                })
                .collect()
        };
        let (mut ours, theirs) = (set(false), set(true));
        ours.push(scored(9, 0, true, 0.0));
        let found = difference(&ours, &theirs, 1).expect("both classes");
        // There are 8 · 24 pairs: patient 0's positive below 21 right negatives is a tie (0.2 each), and so on.
        let right = auc(&theirs.iter().map(Scored::case).collect::<Vec<_>>());
        assert!((found.value - (1.0 - right.expect("both classes"))).abs() < 1e-12);
        assert!(
            found.low >= 0.0 && found.low <= found.value && found.value <= found.high && found.high < 1.0,
            "{found:?}"
        );
        // What each fold's own calibration made of them counts for nothing.
        ours.iter_mut().for_each(|scored| scored.probability = 0.0);
        assert_eq!(difference(&ours, &theirs, 1), Some(found));
        assert_eq!(difference(&ours, &ours, 1), Some(Interval { value: 0.0, low: 0.0, high: 0.0 }));
        assert_eq!(difference(&ours, &[], 1), None);
    }
}
