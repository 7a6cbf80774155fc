//! The model card `models/<name>.json`: everything the node needs to know of a model, and the seam between training
//! and node. The ONNX file lies beside it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{MadeFor, Sequence, StudyRule};
use triaged_imaging::Transform;

/// The card's format; a card of another format is refused.
pub const CARD_FORMAT: u32 = 1;

/// A model card. Fields that only people and training read ride along in `about` (architecture, metrics with
/// intervals, data with licence and citation, split seed, training commit).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// [`CARD_FORMAT`].
    pub format: u32,
    /// The model's name, as in `slice_results.model`, e.g. `m10`.
    pub name: String,
    /// The model's own version, e.g. `1`.
    pub version: String,
    /// The finding that a positive means, e.g. `intracranial hemorrhage`.
    pub finding: String,
    /// The ONNX file, relative to the card's folder.
    pub file: String,
    /// SHA-256 of the ONNX file, 64 lower-case hex digits.
    pub sha256: String,
    /// The graph's input, shape `[batch, channels, height, width]`, float32.
    pub input: String,
    /// The graph's output, shape `[batch, 1]`, float32: the probability of the finding, 0 to 1.
    pub output: String,
    /// The graph's output that says where the finding is, where it has one: float32, shape `[batch, rows, columns]`, rows and
    /// columns fixed, probabilities 0 to 1 that cover the input image evenly, row by row. See [`HeatMap`](crate::HeatMap).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_map: Option<String>,
    /// From DICOM object to input tensor.
    pub transform: Transform,
    /// A slice is positive when its probability is at least this.
    pub slice_threshold: f64,
    /// How the slices' probabilities become the study's verdict.
    pub study_rule: StudyRule,
    /// The network that reads a whole series and gives the verdict on it, where the model has one. The study rule then gives early
    /// alerts, and the verdict where that network fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// The acquisitions it was made for.
    #[serde(default, skip_serializing_if = "MadeFor::is_default")]
    pub made_for: MadeFor,
    /// For people and for training; the node only shows it.
    #[serde(default)]
    pub about: serde_json::Value,
}

/// Why a card or its model file was refused.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error("cannot read the model card {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the model card {path} is not one this version implements: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("the model card {path} is wrong: {why}")]
    Invalid { path: PathBuf, why: String },
    #[error("cannot read the model file {path} that the card names: {source}")]
    ReadModel { path: PathBuf, source: std::io::Error },
    #[error(
        "the model file {path} has SHA-256 {found}, the card says {expected}: one of the two is not what was shipped"
    )]
    Digest { path: PathBuf, expected: String, found: String },
}

impl ModelCard {
    /// The terms of use of the data that the model was trained on, each once, behind the names of the sources that have them: what
    /// `about.data[]` of the card says in `source` and `terms`. A network is made of its data, so whoever runs it asks whether they
    /// allow that. Empty where the card says nothing.
    pub fn data_terms(&self) -> Vec<String> {
        let data = self.about.get("data").and_then(|data| data.as_array());
        let mut terms: Vec<(&str, Vec<&str>)> = Vec::new();
        for source in data.into_iter().flatten() {
            let text = |key| source.get(key).and_then(|value| value.as_str());
            let Some(said) = text("terms") else { continue };
            let place = terms.iter().position(|(known, _)| *known == said).unwrap_or_else(|| {
                terms.push((said, Vec::new()));
                terms.len() - 1
            });
            terms[place].1.extend(text("source"));
        }
        let words = |(said, sources): (&str, Vec<&str>)| match sources.is_empty() {
            true => said.to_owned(),
            false => format!("{}: {said}", sources.join(", ")),
        };
        terms.into_iter().map(words).collect()
    }

    /// Reads and checks a card, then reads the ONNX file it names and checks its SHA-256.
    /// Returns the card and the model's bytes.
    pub fn load(path: &Path) -> Result<(ModelCard, Vec<u8>), CardError> {
        let text = std::fs::read_to_string(path).map_err(|source| CardError::Read { path: path.into(), source })?;
        let card: ModelCard =
            serde_json::from_str(&text).map_err(|source| CardError::Parse { path: path.into(), source })?;
        card.check().map_err(|why| CardError::Invalid { path: path.into(), why })?;
        let bytes = read_beside(path, &card.file, &card.sha256)?;
        Ok((card, bytes))
    }

    /// Reads the file of the sequence network, which lies beside the card at `path`, and checks its SHA-256. None where the card
    /// has none.
    pub fn load_sequence(&self, path: &Path) -> Result<Option<Vec<u8>>, CardError> {
        self.sequence.as_ref().map(|sequence| read_beside(path, &sequence.file, &sequence.sha256)).transpose()
    }

    /// The study rule as early alerts are given by it: with the sequence network's threshold for them, where the card has one.
    pub fn early_rule(&self) -> StudyRule {
        match self.sequence.as_ref().and_then(|sequence| sequence.early_threshold) {
            Some(threshold) => self.study_rule.with_threshold(threshold),
            None => self.study_rule,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.format != CARD_FORMAT {
            return Err(format!("format {} where this version reads format {CARD_FORMAT}", self.format));
        }
        if self.file.is_empty() || Path::new(&self.file).components().count() != 1 || self.file.contains("..") {
            return Err(format!("file {:?} must be a plain file name in the card's own folder", self.file));
        }
        if !(0.0..=1.0).contains(&self.slice_threshold) {
            return Err(format!("slice_threshold {} is not between 0 and 1", self.slice_threshold));
        }
        if self.heat_map.as_ref() == Some(&self.output) {
            return Err(format!("heat_map and output are both {:?}: the map is an output of its own", self.output));
        }
        if let Some(sequence) = &self.sequence {
            sequence.check(&self.file)?;
        }
        let [channels, height, width] = self.transform.shape();
        if channels == 0 || !(16..=4096).contains(&height) || !(16..=4096).contains(&width) {
            return Err(format!("the transform makes an input of {channels}×{height}×{width}"));
        }
        self.transform.check()?;
        self.made_for.check()?;
        self.study_rule.check()
    }
}

/// A model's file in the folder of the card at `path`.
fn read_beside(path: &Path, file: &str, sha256: &str) -> Result<Vec<u8>, CardError> {
    let model = path.parent().unwrap_or(Path::new(".")).join(file);
    let bytes = std::fs::read(&model).map_err(|source| CardError::ReadModel { path: model.clone(), source })?;
    let found = hex::encode(Sha256::digest(&bytes));
    match found == sha256 {
        true => Ok(bytes),
        false => Err(CardError::Digest { path: model, expected: sha256.into(), found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shipped(name: &str) -> (String, ModelCard) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name);
        let text = std::fs::read_to_string(path).expect("a card");
        let card = serde_json::from_str(&text).expect("a card of this version");
        (text, card)
    }

    #[test]
    fn a_card_that_is_read_and_written_is_the_same_text() {
        for name in
            ["m10.json", "m11.json", "m11-int8.json", "m11-fp16.json", "m12.json", "m12-int8.json", "m12-open.json"]
        {
            let (text, card) = shipped(name);
            let written = serde_json::to_string_pretty(&card).expect("JSON") + "\n";
            // Not assert_eq, which would print both.
            assert!(written == text, "{name} is not what was read");
        }
    }

    #[test]
    fn a_sequence_is_checked_as_the_rest_of_the_card() {
        let (_, card) = shipped("m11.json");
        let sequence = Sequence {
            file: "m11-sequence.onnx".into(),
            sha256: "0".repeat(64),
            input: "series".into(),
            slice_output: "slice_probability".into(),
            series_output: "series_probability".into(),
            spacing_mm: 5.0,
            slice_threshold: 0.2,
            threshold: 0.3,
            early_threshold: None,
        };
        let with = |change: &dyn Fn(&mut Sequence)| {
            let mut sequence = sequence.clone();
            change(&mut sequence);
            ModelCard { sequence: Some(sequence), ..card.clone() }
        };
        assert!(with(&|_| {}).check().is_ok() && card.check().is_ok());
        let text = serde_json::to_string(&with(&|_| {})).expect("JSON");
        assert_eq!(serde_json::from_str::<ModelCard>(&text).expect("a card"), with(&|_| {}));
        assert!(serde_json::from_str::<ModelCard>(&text.replace("spacing_mm", "spacing")).is_err());
        type Change = fn(&mut Sequence);
        let wrong: [(&str, Change); 9] = [
            ("plain file name", |s| s.file = "../m11-sequence.onnx".into()),
            ("plain file name", |s| s.file = String::new()),
            ("a file of its own", |s| s.file = "m11.onnx".into()),
            ("must be names", |s| s.input = String::new()),
            ("the outputs two", |s| s.slice_output = s.series_output.clone()),
            ("spacing_mm", |s| s.spacing_mm = f64::NAN),
            ("slice_threshold", |s| s.slice_threshold = -0.1),
            ("threshold", |s| s.threshold = 0.0),
            ("early_threshold", |s| s.early_threshold = Some(1.5)),
        ];
        for (why, change) in wrong {
            let said = with(&change).check().expect_err(why);
            assert!(said.starts_with("sequence: ") && said.contains(why), "{why}: {said}");
        }
        // Early alerts are by the study rule, with a threshold of their own where the sequence has one.
        assert_eq!((card.early_rule(), with(&|_| {}).early_rule()), (card.study_rule, card.study_rule));
        let early = with(&|s| s.early_threshold = Some(0.875));
        assert_eq!(early.early_rule(), card.study_rule.with_threshold(0.875));
        // Its file is looked for beside the card.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/m11.json");
        assert!(matches!(card.load_sequence(&path), Ok(None)));
        let missing = with(&|_| {}).load_sequence(&path).expect_err("no such file");
        assert!(missing.to_string().contains("m11-sequence.onnx"), "{missing}");
        let other = with(&|s| s.file = "m10.json".into()).load_sequence(&path).expect_err("another digest");
        assert!(matches!(other, CardError::Digest { .. }), "{other}");
    }

    proptest! {
        /// Training chooses a slice's own probability, a float32, as the threshold: read otherwise in the last bit, the node
        /// would not find that slice positive.
        #[test]
        fn a_threshold_is_read_to_the_last_bit(threshold in 0_f32..=1.0) {
            let (_, mut card) = shipped("m11.json");
            (card.slice_threshold, card.about) = (threshold.into(), serde_json::Value::Null);
            let text = serde_json::to_string(&card).expect("JSON");
            let read: ModelCard = serde_json::from_str(&text).expect("a card");
            prop_assert_eq!(read.slice_threshold.to_bits(), card.slice_threshold.to_bits());
        }
    }
}
