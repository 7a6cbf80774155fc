//! Eight-bit copies through the command: what they are made of, and that they say what the network says.

use std::fs;
use std::path::Path;

use crate::support::{Folder, data_set, error_line, program, text};
use prost::Message;
use triaged_imaging as imaging;
use triaged_imaging::Transform;
use triaged_model::ModelCard;
use triaged_training::cross_validation::CrossValidation;
use triaged_training::files::read_json;
use triaged_training::onnx::{INT8, INT32, ModelProto, UINT8};
use triaged_training::quantize::{FLOAT_CONVOLUTIONS, QuantizeError, logits, quantized};
use triaged_training::runtime::{LIBRARY, OnnxModel};

/// A cross-validated m11 on small images.
fn trained(data: &Path, run: &Path) {
    data_set(data, 12);
    #[rustfmt::skip]
    let output = program(&[
        "train", "--data", text(data), "--out", text(run), "--candidate", "m11", "--size", "32", "--batch", "8", "--epochs",
        "1", "--balance", "300", "--folds", "2", "--schedule", "constant", "--pretrained", "none",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_copy_of_several_trainings_keeps_each_networks_first_convolutions_and_has_figures_of_their_mean() {
    if std::env::var_os(LIBRARY).is_none() {
        eprintln!("SKIP a_copy_of_several_trainings: {LIBRARY} is not set");
        return;
    }
    let folder = Folder::new();
    let [data, a, b, both, out] = ["data", "a", "b", "both", "int8"].map(|name| folder.path().join(name));
    data_set(&data, 10);
    for (run, draws) in [(&a, "120"), (&b, "160")] {
        #[rustfmt::skip]
        let output = program(&[
            "train", "--data", text(&data), "--out", text(run), "--candidate", "m11", "--size", "32", "--batch", "8", "--epochs",
            "1", "--balance", draws, "--folds", "2", "--schedule", "constant", "--pretrained", "none",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    #[rustfmt::skip]
    let runs = ["--run", text(&a), "--run", text(&b)];
    for (command, name, out) in [("ensemble", "both", &both), ("quantize", "both-int8", &out)] {
        let output = program(&[&[command, "--name", name, "--out", text(out)][..], &runs].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (card, onnx) = ModelCard::load(&out.join("both-int8.json")).expect("a card that the node takes");
    let (float_card, float) = ModelCard::load(&both.join("both.json")).expect("a card that the node takes");
    assert_eq!((card.name.as_str(), card.heat_map.as_deref()), ("both-int8", Some("heat_map")));
    assert_eq!(card.about["architecture"], float_card.about["architecture"]);
    assert_eq!(card.about["ensemble"]["members"], float_card.about["ensemble"]["members"]);
    assert!(card.about["strata"].is_array() && card.about["quantized"]["slices"] == 60);

    // Both networks alike: the stem and the first block of each are floats, and nothing else is.
    let graph = ModelProto::decode(onnx.as_slice()).expect("a model").graph.expect("a graph");
    let convolutions =
        graph.node.iter().filter(|node| node.op_type() == "Conv" && !node.name().starts_with("heat_map"));
    let floats = convolutions.clone().filter(|node| !node.input[1].ends_with("_dequantized")).count();
    assert_eq!((convolutions.count() % 2, floats), (0, 2 * FLOAT_CONVOLUTIONS));

    let uncalibrated = |card: &ModelCard, onnx: &[u8]| -> Vec<f64> {
        let platt = |of: &str| card.about["calibration"][of].as_f64();
        let (a, b) = (platt("a").unwrap_or(1.0), platt("b").unwrap_or(0.0));
        let inputs = inputs(&data.join("stage_2_train"), &card.transform, 1);
        say(onnx, &inputs, [1, 1, 32, 32]).iter().map(|logit| (logit - b) / a).collect()
    };
    let (floats, copies) = (uncalibrated(&float_card, &float), uncalibrated(&card, &onnx));
    let correlation = correlation(&floats, &copies);
    assert!((0.8..1.0).contains(&correlation), "{correlation}: {floats:?} became {copies:?}");
    let people = fs::read_to_string(out.join("both-int8.md")).expect("a card");
    assert!(people.contains("The file holds 2 networks") && people.contains("This is an eight-bit copy"), "{people}");

    // A fold's network has patients that it has not seen: not what is shipped.
    let fold = a.join("folds/fold-1");
    let output = program(&["quantize", "--run", text(&fold), "--out", text(&folder.path().join("none"))]);
    assert!(output.status.code() == Some(2) && error_line(&output).contains("name the training that saw all"));
}

#[test]
fn a_copy_of_a_card_alone_keeps_its_figures_and_says_how_far_it_lies_from_them() {
    let folder = Folder::new();
    let [data, out, none] = ["phantoms", "int8", "none"].map(|name| folder.path().join(name));
    let card_of = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../models/{name}.json"));
    let card = card_of("m12");
    let lacks_data = program(&["quantize", "--card", text(&card), "--out", text(&none)]);
    assert!(lacks_data.status.code() == Some(2) && !none.exists());
    if std::env::var_os(LIBRARY).is_none() {
        eprintln!("SKIP a_copy_of_a_card_alone: {LIBRARY} is not set");
        return;
    }
    let drawn = program(&["phantoms", "--out", text(&data), "--studies", "4", "--slices", "8"]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    #[rustfmt::skip]
    let output = program(&[
        "quantize", "--card", text(&card), "--data", text(&data), "--calibration-slices", "8", "--out", text(&out),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    #[rustfmt::skip]
    let replaces = program(&[
        "quantize", "--card", text(&card), "--data", text(&data), "--name", "m12", "--out", text(&none),
    ]);
    assert!(error_line(&replaces).contains("does not replace") && !none.exists());
    for (card, words) in [("m12-int8", "m12-int8.json is an eight-bit copy already"), ("m10", "m10 is no faster")] {
        let card = card_of(card);
        let refused = program(&["quantize", "--card", text(&card), "--data", text(&data), "--out", text(&none)]);
        assert!(error_line(&refused).contains(words) && !none.exists(), "{}", error_line(&refused));
    }
    let refused = program(&["half", "--card", text(&card_of("m11-fp16")), "--data", text(&data), "--out", text(&none)]);
    assert!(error_line(&refused).contains("a half-precision copy already") && !none.exists());
    let (of, float) = ModelCard::load(&card).expect("the shipped card");
    let copied = out.join("m12-int8.json");
    let (copy, onnx) = ModelCard::load(&copied).expect("a card that the node takes");
    assert!(copy.name == "m12-int8" && 3 * onnx.len() < float.len(), "{} bytes", onnx.len());
    assert_eq!((copy.slice_threshold, copy.study_rule), (of.slice_threshold, of.study_rule));
    assert_eq!(copy.about["cross_validation"], of.about["cross_validation"]);
    let sequence = copy.load_sequence(&copied).expect("beside the card");
    assert!(sequence.is_some() && sequence == of.load_sequence(&card).expect("beside the card"));
    let about = &copy.about["quantized"];
    assert_eq!((about["of"].as_str(), about["of_sha256"].as_str()), (Some("m12"), Some(of.sha256.as_str())));
    // The slices that ranges were taken from are not compared.
    let compared = &about["comparisons"][0];
    assert_eq!((compared["slices"].as_u64(), compared["was_trained_on"].as_bool()), (Some(32 - 8), Some(true)));
    assert!(compared["mean_difference"].as_f64().is_some_and(|mean| mean > 0.0 && mean < 0.05), "{compared}");
    let people = fs::read_to_string(out.join("m12-int8.md")).expect("a card");
    assert!(people.starts_with("# m12-int8,") && people.contains("is an eight-bit copy of m12"), "{people}");
    assert!(people.contains("On the 24 slices of phantoms") && people.contains("the model was trained on that folder"));
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
    // The heat map's stays one of floats, as the output unit does.
    let mut graph = ModelProto::decode(onnx.as_slice()).expect("a model").graph.expect("a graph");
    let all = graph.node.len();
    graph.node.retain(|node| !node.name().starts_with("heat_map"));
    assert!(graph.node.len() < all && card.heat_map.as_deref() == Some("heat_map"));
    let convolutions = graph.node.iter().filter(|node| node.op_type() == "Conv").count();
    let bytes: Vec<_> = graph.initializer.iter().filter(|t| t.data_type() == INT8 && t.dims.len() == 4).collect();
    assert_eq!(bytes.len(), convolutions - FLOAT_CONVOLUTIONS);
    let weights = bytes.iter().flat_map(|tensor| tensor.raw_data()).map(|byte| i16::from(*byte as i8));
    let largest = weights.map(i16::abs).max().expect("weights");
    assert!(largest == 64 && 2 * 255 * i32::from(largest) <= i32::from(i16::MAX), "{largest}");

    // Each of them reads bytes, weights of bytes and sums of bytes, and what comes out of it, limited or not, is made bytes.
    let maker = |name: &str| graph.node.iter().find(|node| node.output[0] == name).expect("a tensor that a node makes");
    let of_bytes = |name: &str, kind: i32| {
        let dequantize = maker(name);
        let bytes = &dequantize.input[0];
        let stored = graph.initializer.iter().find(|tensor| tensor.name() == bytes);
        let kind_of_zero = graph.initializer.iter().find(|tensor| tensor.name() == dequantize.input[2]);
        dequantize.op_type() == "DequantizeLinear"
            && kind_of_zero.is_some_and(|zero| zero.data_type() == kind)
            && (stored.is_some() || maker(bytes).op_type() == "QuantizeLinear")
    };
    for convolution in graph.node.iter().filter(|node| node.op_type() == "Conv").skip(FLOAT_CONVOLUTIONS) {
        for (input, kind) in convolution.input.iter().zip([UINT8, INT8, INT32]) {
            assert!(of_bytes(input, kind), "{input} of {}", convolution.name());
        }
        let readers = |name: &str| -> Vec<_> { graph.node.iter().filter(|node| node.input[0] == name).collect() };
        let mut after = readers(&convolution.output[0]);
        if after[0].op_type() == "Clip" {
            after = readers(&after[0].output[0]);
        }
        assert!(matches!(after.as_slice(), [only] if only.op_type() == "QuantizeLinear"), "{}", convolution.name());
    }
    for sum in graph.node.iter().filter(|node| node.op_type() == "Add") {
        assert!(sum.input.iter().all(|input| of_bytes(input, UINT8)), "{}", sum.name());
    }

    // Each card's own calibration is undone: what is left is what the bytes lose.
    let (float_card, float) = ModelCard::load(&run.join("model/m11.json")).expect("the network's card");
    let uncalibrated = |card: &ModelCard, onnx: &[u8]| -> Vec<f64> {
        let platt = |of: &str| card.about["calibration"][of].as_f64();
        let (a, b) = (platt("a").unwrap_or(1.0), platt("b").unwrap_or(0.0));
        let inputs = inputs(&data.join("stage_2_train"), &card.transform, 1);
        say(onnx, &inputs, [1, 1, 32, 32]).iter().map(|logit| (logit - b) / a).collect()
    };
    let (floats, copies) = (uncalibrated(&float_card, &float), uncalibrated(&card, &onnx));
    let correlation = correlation(&floats, &copies);
    assert!((0.8..1.0).contains(&correlation), "{correlation}: {floats:?} became {copies:?}");

    let about = &card.about["quantized"];
    assert_eq!((about["weight_bits"].as_u64(), about["calibration_slices"].as_u64()), (Some(7), Some(24)));
    assert_eq!(about["slices"], 72);
    // The float networks' figure is that of the cross-validation in Burn, and the difference is of the same patients.
    let found: CrossValidation = read_json(&run.join("folds/cross-validation.json")).expect("the folds' figures");
    let value = |value: &serde_json::Value| value["value"].as_f64().expect("a figure");
    let float_auc = value(&about["float_slice_auc"]);
    let in_burn = found.pooled.slices.auc.expect("both classes").value;
    // A pair of slices whose order rounding decides is a thousandth.
    assert!((float_auc - in_burn).abs() < 0.02, "{float_auc} in ONNX Runtime, {in_burn} in Burn");
    let copy_auc = value(&card.about["cross_validation"]["pooled"]["slices"]["auc"]);
    // The folds of so small a network are calibrated very differently: with each fold on its own scale this was not so.
    assert!((copy_auc - float_auc - value(&about["slice_auc_difference"])).abs() < 1e-9);
    // `sequence` reads the figures beside the scores.
    let crossed: CrossValidation = read_json(&out.join("cross-validation.json")).expect("figures");
    assert!((crossed.decision.slice_threshold - card.slice_threshold).abs() < 1e-6);
    let rows = fs::read_to_string(out.join("scores.csv")).expect("scores");
    assert_eq!(rows.lines().count(), 73);
    assert_eq!(card.about["cross_validation"]["pooled"]["patients"], 12);
    let people = fs::read_to_string(out.join("m11-int8.md")).expect("a card");
    assert!(people.starts_with("# m11-int8") && people.contains("This is an eight-bit copy"), "{people}");

    let again = folder.path().join("again");
    quantize(&again);
    let (_, repeated) = ModelCard::load(&again.join("m11-int8.json")).expect("a card");
    assert!(repeated == onnx, "the same slices give the same bytes");
}

/// Every so many-th slice of a folder as a model's input.
fn inputs(folder: &Path, transform: &Transform, step: usize) -> Vec<Vec<f32>> {
    let mut files: Vec<_> = fs::read_dir(folder).expect("slices").flatten().map(|file| file.path()).collect();
    files.sort();
    (files.iter().step_by(step))
        .map(|file| {
            let object = imaging::read_file(file).expect("a slice");
            imaging::model_input(&object, 0, transform).expect("an input").data
        })
        .collect()
}

/// A model's logits.
fn say(onnx: &[u8], inputs: &[Vec<f32>], shape: [usize; 4]) -> Vec<f64> {
    let onnx = logits(onnx).expect("a model that ends in a sigmoid");
    let mut model = OnnxModel::load(&onnx).expect("a model that ONNX Runtime reads");
    inputs.iter().map(|image| f64::from(model.output(image, shape).expect("a logit")[0])).collect()
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
    let inputs = inputs(&slices, &card.transform, 24);
    let (calibration, others) = inputs.split_at(inputs.len() / 2);
    let images = calibration.iter().map(|image| Ok::<_, QuantizeError>(image.clone()));
    let copy = quantized(&float, images, shape).expect("a copy");
    assert!(3 * copy.len() < float.len(), "{} bytes of {}", copy.len(), float.len());
    let shape = [1, shape[0], shape[1], shape[2]];
    let correlation = correlation(&say(&float, others, shape), &say(&copy, others, shape));
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
    assert!(error_line(&output).contains("only m11, m12 and their relatives"), "{}", error_line(&output));
    assert!(!folder.path().join("out").exists());
}

#[test]
fn folds_of_another_training_are_not_measured() {
    if std::env::var_os(LIBRARY).is_none() {
        eprintln!("SKIP folds_of_another_training_are_not_measured: {LIBRARY} is not set");
        return;
    }
    let folder = Folder::new();
    let (data, run, out) = (folder.path().join("data"), folder.path().join("run"), folder.path().join("out"));
    data_set(&data, 10);
    let train = |command: &str, out: &Path, more: &[&str]| {
        #[rustfmt::skip]
        let common = [
            command, "--data", text(&data), "--out", text(out), "--candidate", "m11", "--size", "32", "--batch", "16",
            "--pretrained", "none", "--monitor", "last", "--balance", "160", "--epochs",
        ];
        let output = program(&[&common, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let refused = |words: &[&str]| {
        let output = program(&["quantize", "--run", text(&run), "--out", text(&out)]);
        assert_eq!(output.status.code(), Some(2));
        let line = error_line(&output);
        assert!(words.iter().all(|word| line.contains(word)) && !out.exists(), "{line}");
    };
    train("fit", &run, &["1"]);
    refused(&["folds is no finished cross-validation", "`cross-validate`"]);
    train("cross-validate", &run.join("folds"), &["2", "--folds", "2"]);
    refused(&["fold-1 was not trained as", "something else"]);
}
