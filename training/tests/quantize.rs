//! Eight-bit copies through the command: what they are made of, and that they say what the network says.

mod support;

use std::fs;
use std::path::Path;

use prost::Message;
use support::{Folder, data_set, error_line, program, text};
use triaged::imaging;
use triaged::inference::ModelCard;
use triaged_training::onnx::{INT8, ModelProto};
use triaged_training::quantize::{FLOAT_CONVOLUTIONS, QuantizeError, quantized};
use triaged_training::runtime::{LIBRARY, OnnxModel};

/// A cross-validated m11 on small images.
fn trained(data: &Path, run: &Path) {
    data_set(data, 12);
    #[rustfmt::skip]
    let output = program(&[
        "train", "--data", text(data), "--out", text(run), "--candidate", "m11", "--size", "64", "--batch", "8", "--epochs",
        "1", "--folds", "2", "--schedule", "constant", "--pretrained", "none",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_copy_in_eight_bits_says_what_the_network_says_and_tells_how_far_it_does() {
    if std::env::var_os(LIBRARY).is_none() {
        eprintln!("SKIP a_copy_in_eight_bits_says_what_the_network_says: {LIBRARY} is not set");
        return;
    }
    let folder = Folder::new();
    let (data, run, out) = (folder.path().join("data"), folder.path().join("run"), folder.path().join("int8"));
    trained(&data, &run);
    let quantize = |out: &Path| {
        let output = program(&["quantize", "--run", text(&run), "--out", text(out), "--calibration-slices", "24"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    quantize(&out);
    let (card, onnx) = ModelCard::load(&out.join("m11-int8.json")).expect("a card that the node takes");
    assert_eq!((card.name.as_str(), card.file.as_str()), ("m11-int8", "m11-int8.onnx"));

    // All convolutions but the first have weights of 7 bits, and a 16-bit sum of two products cannot saturate.
    let graph = ModelProto::decode(onnx.as_slice()).expect("a model").graph.expect("a graph");
    let convolutions = graph.node.iter().filter(|node| node.op_type() == "Conv").count();
    let bytes: Vec<_> = graph.initializer.iter().filter(|t| t.data_type() == INT8 && t.dims.len() == 4).collect();
    assert_eq!(bytes.len(), convolutions - FLOAT_CONVOLUTIONS);
    let weights = bytes.iter().flat_map(|tensor| tensor.raw_data()).map(|byte| i16::from(*byte as i8));
    let largest = weights.map(i16::abs).max().expect("weights");
    assert!(largest == 64 && 2 * 255 * i32::from(largest) <= i32::from(i16::MAX), "{largest}");

    // The same calibration for both files: what is left is what the bytes lose.
    let (float_card, float) = ModelCard::load(&run.join("model/m11.json")).expect("the network's card");
    let platt = |card: &ModelCard| (card.about["calibration"]["a"].as_f64(), card.about["calibration"]["b"].as_f64());
    let logits = |card: &ModelCard, onnx: &[u8]| -> Vec<f64> {
        let (a, b) = match platt(card) {
            (Some(a), Some(b)) => (a, b),
            _ => (1.0, 0.0),
        };
        let mut model = OnnxModel::load(onnx).expect("a model that ONNX Runtime reads");
        let mut files: Vec<_> = fs::read_dir(data.join("stage_2_train")).expect("slices").flatten().collect();
        files.sort_by_key(fs::DirEntry::path);
        files
            .iter()
            .map(|file| {
                let object = imaging::read_file(file.path()).expect("a slice");
                let input = imaging::model_input(&object, 0, &card.transform).expect("an input");
                let p = f64::from(model.probabilities(&input.data, [1, 1, 64, 64]).expect("a probability")[0]);
                ((p / (1.0 - p)).ln() - b) / a
            })
            .collect()
    };
    let (floats, copies) = (logits(&float_card, &float), logits(&card, &onnx));
    let correlation = correlation(&floats, &copies);
    assert!((0.8..1.0).contains(&correlation), "{correlation}: {floats:?} became {copies:?}");

    let about = &card.about["quantized"];
    assert_eq!((about["weight_bits"].as_u64(), about["calibration_slices"].as_u64()), (Some(7), Some(24)));
    assert_eq!(about["slices"], 72);
    assert!(about["slice_auc_difference"]["value"].is_number() && about["float_slice_auc"]["value"].is_number());
    assert_eq!(card.about["cross_validation"]["pooled"]["patients"], 12);
    let people = fs::read_to_string(out.join("m11-int8.md")).expect("a card");
    assert!(people.starts_with("# m11-int8") && people.contains("An eight-bit copy"), "{people}");

    let again = folder.path().join("again");
    quantize(&again);
    let (_, repeated) = ModelCard::load(&again.join("m11-int8.json")).expect("a card");
    assert!(repeated == onnx, "the same slices give the same bytes");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| f(a - of_a, b - of_b)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// A network that has learned something loses less than one that has not.
#[test]
fn the_shipped_network_in_eight_bits_says_nearly_the_same_of_real_slices() {
    let slices = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/ct-ich/stage_2_train");
    if std::env::var_os(LIBRARY).is_none() || !slices.exists() {
        eprintln!("SKIP the_shipped_network_in_eight_bits: {LIBRARY} is not set, or {} is absent", slices.display());
        return;
    }
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let (card, float) = ModelCard::load(&models.join("m11.json")).expect("the shipped card");
    let shape = card.transform.shape();
    let mut files: Vec<_> = fs::read_dir(slices).expect("slices").flatten().map(|file| file.path()).collect();
    files.sort();
    let inputs: Vec<Vec<f32>> = (files.iter().step_by(files.len() / 64))
        .map(|file| {
            let object = imaging::read_file(file).expect("a slice");
            imaging::model_input(&object, 0, &card.transform).expect("an input").data
        })
        .collect();
    let (calibration, others) = inputs.split_at(inputs.len() / 2);
    let images = calibration.iter().map(|image| Ok::<_, QuantizeError>(image.clone()));
    let copy = quantized(&float, images, shape).expect("a copy");
    assert!(3 * copy.len() < float.len(), "{} bytes of {}", copy.len(), float.len());
    let logits = |onnx: &[u8]| -> Vec<f64> {
        let mut model = OnnxModel::load(onnx).expect("a model that ONNX Runtime reads");
        let mut say = |image: &Vec<f32>| {
            let p = model.probabilities(image, [1, shape[0], shape[1], shape[2]]).expect("a probability")[0];
            f64::from(p / (1.0 - p)).ln()
        };
        others.iter().map(&mut say).collect()
    };
    let correlation = correlation(&logits(&float), &logits(&copy));
    assert!((0.95..1.0).contains(&correlation), "{correlation}");
}

#[test]
fn what_would_be_no_faster_is_not_quantized() {
    let folder = Folder::new();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 10);
    #[rustfmt::skip]
    let output = program(&[
        "fit", "--data", text(&data), "--out", text(&run), "--candidate", "m4", "--size", "32", "--epochs", "1",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = program(&["quantize", "--run", text(&run), "--out", text(&folder.path().join("out"))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("only m11 is quantized"), "{}", error_line(&output));
    assert!(!folder.path().join("out").exists());
}
