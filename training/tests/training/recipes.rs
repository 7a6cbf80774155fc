//! Recipes as files, and runs of before there were any.

use std::fs;

use crate::support::{Folder, data_set, error_line, program, text};
use triaged_training::files::read_json;
use triaged_training::fit::{FitConfig, read_run};
use triaged_training::recipe::Recipe;

/// As version 0.1.0 wrote it for `--shipped`, before recipes were files.
const OLD: &str = r#"{
  "candidate": {
    "name": "m10",
    "layers": [
      "batch_norm", { "conv": { "filters": 64, "kernel": 6 } }, { "max_pool": { "size": 3 } },
      { "conv": { "filters": 64, "kernel": 3 } }, { "max_pool": { "size": 2 } },
      { "conv": { "filters": 64, "kernel": 3 } }, { "max_pool": { "size": 2 } },
      "flatten", { "dense": { "units": 64 } }, { "dense": { "units": 64 } }, "output"
    ],
    "epochs": 5, "batch": 16, "samples": 90000
  },
  "transform": {
    "name": "hounsfield_windows", "height": 512, "width": 512, "windows": [{ "center": 40.0, "width": 80.0 }]
  },
  "seed": 2019,
  "epochs": 11,
  "batch": 4,
  "learning_rate": 0.0005,
  "schedule": "one_cycle",
  "weight_decay": 0.01,
  "position_grid": 5,
  "half_size_epochs": 9,
  "witness": 1.0,
  "augment": { "flip": true, "shift": 0.06, "rotate": 15.0, "zoom": 0.1, "window": 0.1 },
  "balance": 4000,
  "patience": 5,
  "monitor": "last"
}"#;

#[test]
fn a_run_of_before_recipes_is_one_of_m10s_recipe() {
    let folder = Folder::new();
    let path = folder.path().join("config.json");
    fs::write(&path, OLD).expect("written");
    let old: FitConfig = read_json(&path).expect("an old configuration");
    // m10's recipe as it was until the fourth version of the model.
    let then = Recipe {
        balance: Some(4000),
        sources: Default::default(),
        crop_to_head: None,
        level_sources: false,
        averaging: 0.0,
        operating_point: Default::default(),
        ..Recipe::open("m10").expect("m10's recipe")
    };
    assert_eq!(old, then.config(2019).expect("a training"));
}

#[test]
fn a_recipe_file_decides_and_flags_stand_in_its_place() {
    let folder = Folder::new();
    let (data, run, recipe) = (folder.path().join("data"), folder.path().join("run"), folder.path().join("mine.toml"));
    data_set(&data, 10);
    let written = "candidate = \"m4\"\nsize = 32\nwindows = [{ center = 30, width = 60 }, { center = 40, width = 80 }]\n\
                   epochs = 1\nbatch = 8\nlearning_rate = 1e-3\nschedule = \"constant\"\nmonitor = \"last\"\n\
                   balance = 24\ntest_time_flip = true\n[augmentation]\nflip = true\n[sources]\ndata = 2.0\n";
    fs::write(&recipe, written).expect("written");
    let fit = |more: &[&str]| {
        let arguments = ["fit", "--data", text(&data), "--out", text(&run), "--recipe", text(&recipe)];
        program(&[arguments.as_slice(), more].concat())
    };
    let output = fit(&["--epochs", "2", "--seed", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (config, state) = read_run(&run).expect("a run");
    assert_eq!((config.epochs, config.batch, config.balance, state.epochs.len()), (2, 8, Some(24), 2));
    assert_eq!(config.transform.shape(), [2, 32, 32]);
    assert!(config.augment.flip && config.augment.rotate == 0.0 && config.test_time_flip);
    assert_eq!(config.sources.get("data"), Some(&2.0));

    fs::write(&recipe, written.replace("batch", "bach")).expect("written");
    let output = fit(&[]);
    assert_eq!(output.status.code(), Some(2));
    let line = error_line(&output);
    assert!(line.contains("mine.toml, line 5") && line.contains("bach"), "{line}");
    let output = program(&["fit", "--data", text(&data), "--out", text(&run), "--recipe", "m99"]);
    assert!(error_line(&output).contains("there is no recipe m99"), "{}", error_line(&output));
    let output = program(&["fit", "--data", text(&data), "--out", text(&run), "--candidate", "m99"]);
    assert!(error_line(&output).contains("there is no network m99"), "{}", error_line(&output));
}
