//! An ablation on a small made-up data set: rows that differ in one thing, resumed, and carried by a card.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::{Folder, data_set, data_set_from, error_line, program, text};

const RECIPE: &str = "candidate = \"m4\"\nsize = 32\nwindows = [{ center = 40, width = 80 }]\nepochs = 3\nbatch = 8\n\
                      learning_rate = 1e-3\nschedule = \"constant\"\nmonitor = \"last\"\nbalance = 40\n\
                      [augmentation]\nflip = true\nwindow = 0.1\n";

fn ablate(folder: &Path, rows: &str, more: &[&str]) -> Output {
    let (data, extra, recipe, out) =
        (folder.join("data"), folder.join("extra"), folder.join("mine.toml"), folder.join("out"));
    #[rustfmt::skip]
    let fixed = [
        "ablate", "--data", text(&data), "--train-only", text(&extra), "--recipe", text(&recipe), "--out", text(&out),
        "--folds", "3", "--only-folds", "2", "--epochs", "2", "--rows", rows,
    ];
    program(&[fixed.as_slice(), more].concat())
}

/// The table's rows by their names, each as column to cell.
fn rows(path: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let rows = reader.deserialize::<BTreeMap<String, String>>().map(|row| row.expect("a row"));
    rows.map(|row| (row["row"].clone(), row)).collect()
}

#[test]
fn rows_differ_in_one_thing_and_an_ablation_goes_on_where_it_stopped() {
    let folder = Folder::new();
    let out = folder.path().join("out");
    data_set(&folder.path().join("data"), 12);
    data_set_from(&folder.path().join("extra"), 100, 4);
    fs::write(folder.path().join("mine.toml"), RECIPE).expect("a recipe");
    let first = ablate(folder.path(), "no-augment", &[]);
    assert!(first.status.success(), "{}", error_line(&first));
    assert_eq!(rows(&out.join("ablation.csv")).len(), 2, "the recipe itself and one row");
    let made = |row: &str| fs::metadata(out.join(row).join("scores.csv")).and_then(|m| m.modified()).expect("scores");
    let before = made("recipe");

    let second = ablate(folder.path(), "windows-raw,no-augment,no-extra-sets,split-image,no-balance,context", &[]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success(), "{said}");
    assert!(said.contains("recipe: finished before") && said.contains("no-augment: finished before"), "{said}");
    assert_eq!(made("recipe"), before, "a finished row is not scored again");
    let table = rows(&out.join("ablation.csv"));
    assert_eq!(table.len(), 7);
    for (name, row) in &table {
        assert!(row["slice_auc"].parse::<f64>().is_ok_and(|auc| (0.0..=1.0).contains(&auc)), "{name}");
        assert_eq!(row["difference"].is_empty(), name == "recipe", "{name}");
        assert_eq!(row["study_auc"].is_empty(), name == "split-image", "{name}");
    }
    assert_eq!(table["recipe"]["shortened"], "2 of 3 epochs, 2 of 3 folds");
    // Twice 40 draws, over some 50 slices that are trained on.
    assert_eq!((table["no-balance"]["epochs"].as_str(), table["recipe"]["epochs"].as_str()), ("1", "2"));
    // Two of three folds of twelve patients.
    assert_eq!(table["recipe"]["patients"], "8");
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(out.join(path)).expect("a file")).expect("JSON")
    };
    // The same patients in the same folds, but for the split by image; one thing changed in the configuration.
    let sides = |row: &str| json(&format!("{row}/fold-2/split.json"))["sides"].clone();
    assert_eq!(sides("recipe"), sides("windows-raw"));
    assert_ne!(sides("recipe"), sides("split-image"));
    assert_eq!(json("windows-raw/fold-1/config.json")["transform"]["name"], "stored_values");
    assert_eq!(json("context/fold-1/config.json")["context"], true);
    assert_eq!(json("no-augment/fold-1/config.json")["augment"]["flip"], false);
    let trained = |row: &str| json(&format!("{row}/fold-1/index.json"))["slices"].as_array().map(Vec::len);
    assert_eq!((trained("recipe"), trained("no-extra-sets")), (Some(96), Some(72)));
    let text = fs::read_to_string(out.join("ablation.md")).expect("a table");
    assert!(
        text.contains("| split-image |") && text.contains("not by image") && text.contains("2 of 3 epochs"),
        "{text}"
    );
    let networks = fs::read_dir(out.join("recipe/fold-1")).expect("a run").filter_map(Result::ok);
    assert!(networks.map(|e| e.file_name()).all(|name| !name.to_string_lossy().starts_with("best-")));

    // A table of before it said what it is of is taken for any model.
    let earlier = folder.path().join("earlier");
    fs::create_dir(&earlier).expect("a folder");
    let mut table = json("ablation.json");
    assert!(table.as_object_mut().and_then(|table| table.remove("of")).is_some());
    fs::write(earlier.join("ablation.json"), table.to_string()).expect("written");
    put_into_cards(folder.path(), &out, &earlier);

    // What would change nothing, and what is another ablation, is refused.
    let nothing = ablate(folder.path(), "no-pretrained", &[]);
    assert!(error_line(&nothing).contains("the row no-pretrained changes nothing"), "{}", error_line(&nothing));
    let other = ablate(folder.path(), "no-augment", &["--seed", "4"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(error_line(&other).contains("another recipe, seed or other data"), "{}", error_line(&other));
    let labels = folder.path().join("data/stage_2_train.csv");
    let relabelled = fs::read_to_string(&labels).expect("labels").replace("ID_008_any,0", "ID_008_any,1");
    fs::write(&labels, relabelled).expect("labels");
    let other = ablate(folder.path(), "no-augment", &[]);
    assert_eq!(other.status.code(), Some(2));
    assert!(error_line(&other).contains("slices labelled otherwise: 1"), "{}", error_line(&other));
}

/// A shipped model's cards with the table in `ablation` put in: in place of their own, or as their first. That in `foreign` is of another
/// network.
fn put_into_cards(folder: &Path, foreign: &Path, ablation: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    for name in ["m11", "m11-int8"] {
        let file = |extension: &str| format!("{name}.{extension}");
        let read = |path: &Path| fs::read_to_string(path).expect("a card");
        for extension in ["json", "md", "onnx"] {
            fs::copy(shipped.join(file(extension)), folder.join(file(extension))).expect("a copy");
        }
        let card = folder.join(file("json"));
        let put = |ablation: &Path| program(&["put-ablation", "--card", text(&card), "--ablation", text(ablation)]);
        let refused = put(foreign);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error_line(&refused).contains("the model has another input"), "{}", error_line(&refused));
        let output = put(ablation);
        assert!(output.status.success(), "{}", error_line(&output));
        // Once more is the same.
        let once = (read(&card), read(&folder.join(file("md"))));
        assert!(put(ablation).status.success());
        assert!(once == (read(&card), read(&folder.join(file("md")))), "{name}");

        let (old, new) = (read(&shipped.join(file("md"))), once.1);
        assert_eq!(new.matches("### Ablations").count(), 1, "{new}");
        assert!(new.contains("| split-image |") && !new.contains("| three-windows |"), "{new}");
        let around = |card: &str| -> (String, String) {
            let (before, limits) = card.split_once("## Limits").expect("limits");
            (before.split("### Ablations").next().unwrap_or_default().into(), limits.into())
        };
        assert_eq!(around(&old), around(&new), "nothing else changes");

        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        let (mut old, mut new) = (json(&read(&shipped.join(file("json")))), json(&once.0));
        assert_eq!(new["about"]["ablation"]["outcomes"].as_array().map(Vec::len), Some(7));
        for card in [&mut old, &mut new] {
            card["about"].as_object_mut().expect("an object").remove("ablation");
        }
        assert_eq!(old, new, "nothing else changes");

        let none = put(&folder.join("data"));
        assert_eq!(none.status.code(), Some(2));
        assert!(error_line(&none).contains("is no folder of `ablate`"), "{}", error_line(&none));
    }
}
