//! The two cards of a trained model: `<name>.json` that the node reads, `<name>.md` that people read.

mod ensemble;
mod measured;
mod sources;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sha2::{Digest, Sha256};
use triaged_model::{CARD_FORMAT, MadeFor, ModelCard};

use crate::ablation::Ablation;
use crate::calibration::Platt;
use crate::data::{self, Index, Side, Slice, Split, SplitBy, TRAINING_ONLY};
use crate::evaluate::{Evaluation, OperatingPoint};
use crate::export;
use crate::fit::{FitConfig, State};
use crate::heat_map;
use crate::network::parameters;
use crate::parity::Parity;
use crate::quantize::Quantized;
pub use ensemble::Ensemble;
pub use measured::Measured;
use sources::{PHANTOMS, Source, facts, synthetic, terms_of_origins};
pub use text::MAP;

/// The finding of the model.
pub const FINDING: &str = "intracranial hemorrhage";

/// How the intervals of a card were come by.
const INTERVALS: &str = "95 %, percentile bootstrap over patients; of shares the wider of that and exact limits (Clopper–Pearson) with \
                         patients as cases, which also bound an area or F2 of 1";

/// Said of a split by image.
pub const FRAGMENTS: &str = "the split is by image: a patient's slices stand on several sides, so all figures are too good, and the studies below \
                             are fragments of studies: their figures, the study rule and its threshold say nothing of whole ones";

/// All that a card is written from.
pub struct Trained<'a> {
    /// The model's name, and its files'.
    pub name: &'a str,
    pub config: &'a FitConfig,
    pub state: &'a State,
    pub index: &'a Index,
    pub split: &'a Split,
    pub measured: &'a Measured,
    /// Figures on other sets, by name, that `evaluate --on` has left with the run.
    pub others: &'a BTreeMap<String, Evaluation>,
    pub parity: Option<&'a Parity>,
    /// An eight-bit copy's figures beside those of the network it was made from.
    pub quantized: Option<&'a Quantized>,
    /// The networks, where one file holds several.
    pub ensemble: Option<&'a Ensemble>,
    /// A table that `ablate` made.
    pub ablation: Option<&'a Ablation>,
    /// The commit of this program's sources.
    pub commit: &'a str,
    pub device: &'a str,
    pub version: &'a str,
}

impl Trained<'_> {
    fn sources(&self) -> Vec<Source> {
        let names: BTreeSet<&str> = self.index.slices.iter().map(|slice| slice.source.as_str()).collect();
        let about = |name: &str| {
            let slices: Vec<_> = self.index.slices.iter().filter(|slice| slice.source == name).collect();
            let train_only = self.split.train_only.iter().any(|source| source == name);
            let is_synthetic = slices.iter().all(|slice| slice.origin.is_some());
            let known = if is_synthetic { Some(synthetic()) } else { facts(name, &slices) };
            let text = |of: fn(&sources::Known) -> &String| {
                known.as_ref().map_or(sources::NOT_RECORDED.into(), |known| of(known).clone())
            };
            Source {
                source: name.into(),
                patients: data::patients(&slices).len(),
                slices: slices.len(),
                positive_slices: slices.iter().filter(|slice| slice.positive).count(),
                role: if train_only { TRAINING_ONLY.into() } else { self.role(name) },
                citation: text(|known| &known.citation),
                terms: [vec![text(|known| &known.terms)], terms_of_origins(&slices)].concat().join("; "),
                note: text(|known| &known.note),
            }
        };
        names.into_iter().map(about).collect()
    }

    /// The role of a source that is measured.
    fn role(&self, source: &str) -> String {
        if let Measured::Crossed(_) = self.measured {
            return "training, and measured out of fold".into();
        }
        let sides = [(Side::Train, "training"), (Side::Validation, "validation"), (Side::Test, "test")];
        let has = |side| self.split.slices(self.index, side).iter().any(|slice| slice.source == source);
        let names: Vec<&str> = sides.into_iter().filter(|(side, _)| has(*side)).map(|(_, name)| name).collect();
        match names.as_slice() {
            [] => "no part".into(),
            [one] => (*one).into(),
            [most @ .., last] => format!("{} and {last}", most.join(", ")),
        }
    }

    /// Whom the network was trained on.
    fn trained_on(&self) -> String {
        let train = self.split.slices(self.index, Side::Train);
        let (synthetic, others): (Vec<&Slice>, Vec<&Slice>) =
            train.into_iter().partition(|slice| slice.origin.is_some());
        let (phantoms, patients): (Vec<&Slice>, Vec<&Slice>) =
            others.into_iter().partition(|slice| slice.source == PHANTOMS);
        let trained = match (data::patients(&patients).len(), data::patients(&phantoms).len()) {
            (patients, 0) => format!("{patients} patients"),
            (0, phantoms) => format!("{phantoms} phantoms and no patient"),
            (patients, phantoms) => format!("{patients} patients and {phantoms} phantoms"),
        };
        match data::patients(&synthetic).len() {
            0 => trained,
            synthetic => format!("{trained}, and {synthetic} synthetic studies drawn into patients' heads"),
        }
    }

    /// When the share of studies that the study rule must flag was chosen, as far as the run knows.
    fn when_chosen(&self) -> String {
        if self.config.operating_point != OperatingPoint::Sensitivity {
            return "Nothing here records whether those shares, a setting of the recipe, were chosen before any figures on these \
                    data were seen."
                .into();
        }
        match self.state.first_sensitivity.filter(|first| *first != self.config.study_sensitivity) {
            Some(first) => format!(
                "The run was begun asking for {:.0} %: this share was chosen later, when figures could have been seen.",
                100.0 * first
            ),
            None => "Nothing here records whether that share, a setting of the recipe, was chosen before any figures on these \
                     data were seen."
                .into(),
        }
    }

    /// How many patients or images stand on which side.
    fn sides(&self) -> String {
        let [train, validation, test] = [Side::Train, Side::Validation, Side::Test].map(|side| self.split.count(side));
        match self.measured {
            Measured::Crossed(crossed) => format!(
                "all {train} in training; for the figures those that are not only trained on were divided into {} folds",
                crossed.folds.len()
            ),
            Measured::HeldOut(_) => format!("{train} in training, {validation} for validation, {test} for the test"),
        }
    }

    /// What figures of studies, and the rule that is chosen on them, are worth where the split is by image.
    fn fragments(&self) -> Option<&'static str> {
        (self.split.by == SplitBy::Image).then_some(FRAGMENTS)
    }

    fn seconds(&self) -> f64 {
        self.state.epochs.iter().map(|row| row.seconds).sum()
    }

    /// The number of parameters of all networks in the file.
    fn parameters(&self) -> usize {
        let networks = self.ensemble.map_or(1, |ensemble| ensemble.members.len());
        networks * parameters(&self.config.candidate.layers, self.config.shape()).unwrap_or(0)
    }

    /// The card that the node reads, for these ONNX bytes.
    pub fn card(&self, onnx: &[u8]) -> ModelCard {
        let config = self.config;
        let patients = |side| self.split.count(side);
        let mut about = json!({
            "intended_use": "research and demonstration; not for clinical use",
            "architecture": {
                "name": config.candidate.name,
                "layers": config.candidate.layers,
                "parameters": self.parameters(),
                "networks": self.ensemble.map(|ensemble| ensemble.members.len()),
            },
            "training": {
                "pretrained": config.pretrained.as_ref().map(|file| {
                    json!({ "sha256": file.sha256, "source": file.source() })
                }),
                "epochs": self.state.epochs.len(),
                "epochs_allowed": config.epochs,
                "best_epoch": self.state.best,
                "draws_per_epoch": config.balance,
                "sample_of_training_slices": config.sample,
                "batch": config.batch,
                "learning_rate": config.learning_rate,
                "schedule": config.schedule,
                "weight_decay": config.weight_decay,
                "position_grid": config.position_grid,
                "half_size_epochs": config.half_size_epochs,
                "localization": config.localization,
                "augmentation": config.augment,
                "source_weights": config.sources,
                "level_sources": config.level_sources,
                "averaging": config.averaging,
                "operating_point": config.operating_point,
                "monitor": config.monitor,
                "study_sensitivity": config.study_sensitivity,
                "seconds": self.seconds().round(),
                "device": self.device,
                "seed": config.seed,
                "commit": self.commit,
                "history": self.state.epochs,
            },
            "data": self.sources(),
            "split": {
                "by": self.split.by,
                "seed": self.split.seed,
                "train": patients(Side::Train),
                "validation": patients(Side::Validation),
                "test": patients(Side::Test),
                "training_only_sources": self.split.train_only,
                "warning": self.fragments(),
            },
            "warning": self.measured.warning(),
            "intervals": INTERVALS,
            "study_threshold_reached": self.measured.decision().reached,
            "other_sets": self.others,
            "parity_with_onnx_runtime": self.parity,
            "quantized": self.quantized,
            "ensemble": self.ensemble,
            "mean_of": Some(&self.state.mean_of).filter(|members| !members.is_empty()),
            "calibration": self.measured.decision().calibration.map(|Platt { a, b }| json!({
                "method": "Platt scaling, within the model: sigmoid(a · logit + b) of the network as it was trained",
                "a": a,
                "b": b,
                "slices": self.measured.supplement().reliability,
            })),
            "study_rules": self.measured.supplement().study_rules,
            "sources": self.measured.supplement().sources,
            "department": self.measured.supplement().department,
            "strata": self.measured.supplement().strata,
            // The node scores a slice once: these figures are not those of the model it runs.
            "with_test_time_flip": self.measured.supplement().test_time_flip,
            "ablation": self.ablation,
        });
        if let (Some(about), serde_json::Value::Object(measured)) = (about.as_object_mut(), self.measured.about()) {
            about.extend(measured);
            about.retain(|_, value| !value.is_null());
        }
        ModelCard {
            format: CARD_FORMAT,
            name: self.name.into(),
            version: self.version.into(),
            finding: FINDING.into(),
            file: format!("{}.onnx", self.name),
            sha256: hex::encode(Sha256::digest(onnx)),
            input: export::INPUT.into(),
            output: export::OUTPUT.into(),
            // An export that cannot be read back is refused when the card is.
            heat_map: heat_map::is_in(onnx).unwrap_or(false).then(|| heat_map::HEAT_MAP.into()),
            transform: config.transform.clone(),
            slice_threshold: self.measured.decision().slice_threshold,
            study_rule: self.measured.decision().study_rule,
            // The command `sequence` adds one.
            sequence: None,
            made_for: MadeFor::default(),
            about,
        }
    }
}
