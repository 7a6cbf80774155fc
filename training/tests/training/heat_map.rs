//! From masks to a heat map: trained with a crop to the head, exported, taken out of the file, put in again, and measured.

use std::fs;

use crate::support::{Folder, error_line, program, text};
use triaged_model::ModelCard;

/// m12's way at a size that a test can train.
const RECIPE: &str = "candidate = \"m12\"
size = 64
windows = [{ center = 40, width = 80 }]
crop_to_head = { threshold = 10.0, margin = 0.05, smallest = 0.5 }
epochs = 1
batch = 8
learning_rate = 1e-3
schedule = \"constant\"
balance = 32
monitor = \"last\"
localization = 0.5
[augmentation]
flip = true
rotate = 20.0
";

#[test]
fn a_network_that_crops_learns_from_masks_and_its_file_says_where() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    let (data, run, recipe) = (path("phantoms"), path("run"), path("m12.toml"));
    let succeeds = |arguments: &[&str]| {
        let output = program(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    succeeds(&["phantoms", "--out", text(&data), "--studies", "12", "--slices", "6"]);
    fs::write(&recipe, RECIPE).expect("a recipe");
    #[rustfmt::skip]
    succeeds(&[
        "train", "--data", text(&data), "--out", text(&run), "--recipe", text(&recipe), "--folds", "0", "--seed", "3",
        "--validation", "0.34", "--test", "0.34",
    ]);
    let model = run.join("model/m12.json");
    let (card, _) = ModelCard::load(&model).expect("a card that the node takes");
    assert_eq!(card.heat_map.as_deref(), Some("heat_map"));
    let people = fs::read_to_string(model.with_extension("md")).expect("a card for people");
    assert_eq!(people.matches("a heat map that covers the input").count(), 1, "{people}");
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("SKIP the heat map's parity and where it points: ORT_DYLIB_PATH is not set");
        return;
    }
    let difference = &card.about["parity_with_onnx_runtime"]["heat_map_difference"];
    assert!(difference.as_f64().is_some_and(|difference| difference <= 1e-4), "{difference}");

    // Given its map a second time, the model is the same file with the same card.
    let again = path("again");
    let told = succeeds(&["heat-map", "--card", text(&model), "--out", text(&again), "--on", text(&data)]);
    assert!(told.contains("slices with a mask") && told.contains("hits the blood"), "{told}");
    for name in ["m12.json", "m12.md", "m12.onnx"] {
        let read = |folder: &std::path::Path| fs::read(folder.join(name)).expect("a file");
        assert!(read(&run.join("model")) == read(&again), "{name}");
    }
}

#[test]
fn a_network_that_flattens_has_no_heat_map() {
    let folder = Folder::new();
    let card = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/m10.json");
    let output = program(&["heat-map", "--card", text(&card), "--out", text(folder.path())]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("a network that pools its image"), "{}", error_line(&output));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is written");
}
