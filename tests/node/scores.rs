//! Promise 3, from the outside: what the node writes into its database is what ONNX Runtime, called from Python, gives
//! for pixels that pydicom decoded and numpy windowed.

use std::path::PathBuf;

use crate::support::oracle::{self, Question};
use crate::support::{Node, dicom_files, has, python, real_data, storescu};
use sha2::{Digest, Sha256};

/// And how far apart two probabilities may lie. A difference in the last bit of an input can turn a byte over in a model of
/// eight bits.
const SHIPPED: [(&str, f64); 7] = [
    ("models/m10.json", 1e-4),
    ("models/m11.json", 1e-4),
    ("models/m11-int8.json", 0.02),
    ("models/m11-fp16.json", 1e-3),
    ("models/m12.json", 1e-4),
    ("models/m12-int8.json", 0.02),
    ("models/m12-open.json", 1e-4),
];

/// A node with this card says of the files, sent with these options, what Python says.
pub fn probabilities_agree((card, tolerance): (&str, f64), sent: &[(&[PathBuf], &[&str])]) {
    if python().is_none() {
        return;
    }
    let files: Vec<PathBuf> = sent.iter().flat_map(|(files, _)| files.iter().cloned()).collect();
    let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", card)]);
    for (files, options) in sent {
        storescu(&node, options, files).unwrap();
    }
    node.wait_for_slices(files.len());
    let card = PathBuf::from(card);
    let text = std::fs::read_to_string(&card).unwrap();
    let named: serde_json::Value = serde_json::from_str(&text).unwrap();
    let network = card.with_file_name(named["file"].as_str().unwrap());
    let said = oracle::said(&Question {
        script: "score.py",
        modules: &["reference_input.py"],
        files: &[vec![card], files.clone()].concat(),
        beside: &[network],
        ..Question::default()
    });
    let mut compared = 0;
    for line in said.expect("there is Python").lines() {
        let (uid, expected) = line.split_once(' ').unwrap();
        let found: f64 = node.query(&format!("SELECT probability FROM slice_results WHERE sop_uid = '{uid}'"));
        let expected: f64 = expected.parse().unwrap();
        assert!((found - expected).abs() < tolerance, "{uid}: the node says {found}, Python {expected}");
        compared += 1;
    }
    assert_eq!(compared, files.len());
}

/// So many of the files, from the first to near the last.
fn every(files: &[PathBuf], count: usize) -> Vec<PathBuf> {
    files.iter().step_by((files.len() / count).max(1)).take(count).cloned().collect()
}

/// Ten slices of a scanner's own series, ten in JPEG 2000.
#[test]
fn of_real_slices_by_each_shipped_model() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let Some(ct_ich) = real_data("ct-ich/stage_2_train") else { return };
    let (ge, ct_ich) = (every(&dicom_files(&ge), 10), every(&dicom_files(&ct_ich), 10));
    for card in SHIPPED {
        probabilities_agree(card, &[(&ge, &[]), (&ct_ich, &["-xv", "-R"])]);
    }
}

/// The mean of the input tells a resampling or a normalization that is another one: both come with pretrained networks.
#[test]
fn of_a_card_that_resamples_and_normalizes() {
    let Some(folder) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let cards = tempfile::tempdir().unwrap();
    let mean = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean");
    // The same graph for images of 224×224: the field dim_value, 512 and 224 as varints.
    let mut model = std::fs::read(format!("{mean}.onnx")).unwrap();
    while let Some(at) = model.windows(3).position(|bytes| bytes == [0x08, 0x80, 0x04]) {
        model[at..at + 3].copy_from_slice(&[0x08, 0xe0, 0x01]);
    }
    std::fs::write(cards.path().join("mean.onnx"), &model).unwrap();
    let mut card: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{mean}.json")).unwrap()).unwrap();
    card["sha256"] = hex::encode(Sha256::digest(&model)).into();
    card["transform"]["height"] = 224.into();
    card["transform"]["width"] = 224.into();
    // Windowed values of 0 to 1 become 0.2 to 0.7.
    card["transform"]["normalization"] = serde_json::json!({ "mean": -0.4, "deviation": 2.0 });
    let path = cards.path().join("mean.json");
    std::fs::write(&path, card.to_string()).unwrap();
    probabilities_agree((path.to_str().unwrap(), 1e-4), &[(&dicom_files(&folder)[..8], &[])]);
    // The mean of the head alone is far from that of the field: a square that is off by some pixels shows.
    card["transform"]["crop_to_head"] = serde_json::json!({ "threshold": 10.0, "margin": 0.05, "smallest": 0.5 });
    std::fs::write(&path, card.to_string()).unwrap();
    let ge = dicom_files(&folder);
    let Some(folder) = real_data("ct-ich/stage_2_train") else { return };
    let ct_ich: Vec<PathBuf> = dicom_files(&folder).into_iter().step_by(40).collect();
    probabilities_agree((path.to_str().unwrap(), 1e-5), &[(&ge, &[]), (&ct_ich, &["-xv", "-R"])]);
}
