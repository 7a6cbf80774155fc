//! `average`: the mean of several trainings' weights as one network.

use std::path::{Path, PathBuf};

use crate::ensemble::{scores, succeeds, train};
use crate::support::{Folder, data_set, error_line, program, text};
use triaged_model::ModelCard;
use triaged_training::calibration::logit;

fn average(runs: &[&Path], out: &Path) -> std::process::Output {
    let mut arguments = vec!["average", "--out", text(out)];
    runs.iter().for_each(|run| arguments.extend(["--run", text(run)]));
    program(&arguments)
}

#[test]
fn the_mean_of_two_trainings_weights_is_a_run_that_is_measured_and_exported_as_any_other() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    data_set(&data, 12);
    let run = |name: &str| -> PathBuf { folder.path().join(name) };
    let (short, long, both, same) = (run("short"), run("long"), run("both"), run("same"));
    train(&data, &short, &["--epochs", "1", "--seed", "5"]);
    train(&data, &long, &["--epochs", "2", "--seed", "5"]);

    // The mean of a network and itself is that network, once the statistics are those of the weights.
    succeeds(&average(&[&long, &long], &same));
    let again = run("again");
    succeeds(&average(&[&same, &same], &again));
    let (own, once, twice) = (scores(&long.join("folds")), scores(&same.join("folds")), scores(&again.join("folds")));
    assert_eq!((once.len(), twice.len()), (72, 72));
    assert!(own != once, "few steps leave the training's own statistics a matter of chance");
    let moved = |(a, b): (&(String, f64), &(String, f64))| {
        assert_eq!(a.0, b.0);
        (logit(a.1) - logit(b.1)).abs()
    };
    let moved = once.iter().zip(&twice).map(moved).fold(0.0, f64::max);
    assert!(moved < 1e-4, "{moved}");

    let alone = run("alone");
    succeeds(&average(&[&long], &alone));
    let alone = scores(&alone.join("folds"));
    assert!(once.iter().zip(&alone).map(|(a, b)| (logit(a.1) - logit(b.1)).abs()).all(|moved| moved < 1e-4));

    succeeds(&average(&[&short, &long], &both));
    let mixed = scores(&both.join("folds"));
    assert!(mixed.len() == 72 && mixed != own && mixed != scores(&short.join("folds")));
    let out = run("model");
    #[rustfmt::skip]
    succeeds(&program(&[
        "export", "--run", text(&both), "--cross-validation", text(&both.join("folds")), "--name", "mean", "--out", text(&out),
    ]));
    let (card, _) = ModelCard::load(&out.join("mean.json")).expect("a card that the node takes");
    let members = card.about["mean_of"].as_array().expect("members");
    assert_eq!(members.iter().map(|member| member["epochs"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(card.about["architecture"]["networks"].is_null(), "one network, not two");
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        let largest = card.about["parity_with_onnx_runtime"]["largest_difference"].as_f64().expect("a parity check");
        assert!(largest <= 1e-4, "{largest}");
    } else {
        eprintln!("SKIP parity of the average with ONNX Runtime: ORT_DYLIB_PATH is not set");
    }
    let people = std::fs::read_to_string(out.join("mean.md")).expect("a card for people");
    assert!(people.contains("the mean of the weights of 2 networks") && people.contains("2-fold"), "{people}");

    for (runs, out, why) in [
        (vec![short.as_path()], both.clone(), "is there already"),
        (vec![&short, &long], both.clone(), "is there already"),
        (vec![&short, &long.join("folds/fold-1")], run("none"), "name the training that saw all"),
    ] {
        let refused = average(&runs, &out);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error_line(&refused).contains(why), "{}", error_line(&refused));
    }
    // Another seed: other folds, and another beginning.
    let apart = run("apart");
    train(&data, &apart, &["--epochs", "1", "--seed", "6"]);
    let refused = average(&[&short, &apart], &run("none"));
    assert!(error_line(&refused).contains("did not begin with the same weights"), "{}", error_line(&refused));
    assert!(!run("none").exists());
}

/// What a recipe asks for at the end of a training is what `average` does to a training that had not asked.
#[test]
fn a_recipe_takes_the_statistics_anew_when_the_training_is_done() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    data_set(&data, 12);
    let plain = "candidate = \"m4\"\nsize = 32\nwindows = [{ center = 40, width = 80 }]\nepochs = 2\nbatch = 8\nbalance = 40\n\
                 learning_rate = 1e-3\nschedule = \"constant\"\nmonitor = \"last\"\n";
    let trained = |name: &str, recipe: String| -> PathBuf {
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, recipe).expect("written");
        let out = folder.path().join(name);
        #[rustfmt::skip]
        succeeds(&program(&["train", "--recipe", text(&file), "--data", text(&data), "--out", text(&out), "--folds", "2"]));
        out
    };
    let left = trained("left", plain.into());
    let anew = trained("anew", format!("{plain}statistics = 2048\n"));
    let by_hand = folder.path().join("by-hand");
    succeeds(&average(&[&left], &by_hand));
    let [left, anew, by_hand] = [left, anew.clone(), by_hand].map(|run| scores(&run.join("folds")));
    assert!(left != anew, "few steps leave the training's own statistics a matter of chance");
    for (asked, done) in anew.iter().zip(&by_hand) {
        assert!(asked.0 == done.0 && (logit(asked.1) - logit(done.1)).abs() < 1e-4, "{asked:?} {done:?}");
    }
    let people = std::fs::read_to_string(folder.path().join("anew/model/m4.md")).expect("a card for people");
    assert!(people.contains("taken anew at the end, from 2048 draws"), "{people}");
}
