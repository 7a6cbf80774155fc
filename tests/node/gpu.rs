//! `gpu-check` and the bundle that carries it, as far as a machine without a card can tell: the same steps on a processor,
//! with little of each.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_triaged");

fn python(arguments: &[&str]) -> Output {
    let output = Command::new("python3").args(arguments).current_dir(ROOT).env("PYTHONDONTWRITEBYTECODE", "1").output();
    output.expect("python3 is there: building needs it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_gpu_check_and_bundle_are_made_of() {
    let output = python(&["-m", "unittest", "discover", "gpu/tests"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn without_a_card_gpu_check_says_so() {
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIP this machine has a GPU");
        return;
    }
    let output = python(&["gpu/check"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("there is no NVIDIA card here"), "{}", text(&output.stderr));
}

#[test]
fn every_step_of_gpu_check_runs_on_a_processor() {
    let trainer = PathBuf::from(PROGRAM).with_file_name("triaged-training");
    if !trainer.is_file() {
        eprintln!("SKIP every_step_of_gpu_check_runs_on_a_processor: {} was not built", trainer.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (slices, out) = (folder.path().join("slices"), folder.path().join("out"));
    let made = Command::new(PROGRAM).args(["phantom", "--slices", "4", "--out"]).arg(&slices).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let shown = |path: &Path| path.to_str().unwrap().to_owned();
    let models = shown(&Path::new(ROOT).join("models"));
    let output = python(&[
        "gpu/check",
        "--device",
        "cpu",
        "--tiny",
        "--seconds",
        "900",
        "--program",
        PROGRAM,
        "--training-program",
        &shown(&trainer),
        "--models",
        &models,
        "--slices",
        &shown(&slices),
        "--out",
        &shown(&out),
    ]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", text(&output.stderr));
    let results: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("gpu-check.json")).unwrap()).unwrap();
    let steps = &results["steps"];
    for (name, step) in steps.as_object().unwrap() {
        assert_eq!(step["ok"], true, "{name}: {step}");
    }
    let found = |name: &str| &steps[name]["found"];
    // Two sessions of the same library on the same slices.
    let agreement = &found("agreement with the processor")["m11"];
    assert_eq!(agreement["provider"], "CPUExecutionProvider");
    assert!(agreement["largest"].as_f64().unwrap() < 1e-5, "{agreement}");
    let whole = found("end to end");
    assert_eq!(whole["states"], serde_json::json!({ "scored": 16 }), "{whole}");
    assert!(whole["slices_a_second"].as_f64().unwrap() > 0.0 && whole["lone_ms"].as_f64().unwrap() > 0.0, "{whole}");
    // As many of the twelve slices as there was time for, two in a step.
    let epoch = &found("burn step m11")["epoch"];
    let (steps, slices) = (epoch["steps"].as_u64().unwrap(), epoch["slices"].as_u64().unwrap());
    assert!((1..=6).contains(&steps) && slices == 2 * steps, "{epoch}");
    assert_eq!(found("short training")["card"]["losses"].as_array().unwrap().len(), 2);
    let page = std::fs::read_to_string(out.join("gpu-check.txt")).unwrap();
    assert!(page.contains("ONNX Runtime plain") && page.contains("m11, Burn"), "{page}");
}

#[test]
fn bench_model_measures_with_the_nodes_own_code() {
    let card = Path::new(ROOT).join("benches/mean/mean.json");
    let bench = |options: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["bench-model", "--device", "cpu", "--seconds", "0.1", "--slices", "5", "--model"]).arg(&card);
        command.args(options).output().unwrap()
    };
    let output = bench(&["--batch", "2", "--threads", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["provider"], "CPUExecutionProvider");
    assert_eq!((&measured["lanes"], &measured["batch"]), (&2.into(), &1.into()), "{measured}");
    assert_eq!(measured["probabilities"].as_array().unwrap().len(), 5);
    for pointer in ["/slices_a_second", "/batch_ms", "/sizes/0/ms", "/decode/slices_a_second"] {
        assert!(measured.pointer(pointer).unwrap().as_f64().unwrap() > 0.0, "{pointer}: {measured}");
    }
    // The mean of a phantom's slice, as a probability: other slices, other means.
    let probabilities = measured["probabilities"].as_array().unwrap();
    assert!(probabilities.iter().all(|p| (0.0..1.0).contains(&p.as_f64().unwrap())), "{measured}");
    assert_ne!(probabilities[0], probabilities[4]);

    let refused = bench(&["--binding", "graph", "--lanes", "2"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("inference.cuda.lanes"), "{}", text(&refused.stderr));
    let nowhere = bench(&["/nowhere/slice.dcm"]);
    assert_eq!(nowhere.status.code(), Some(1), "{}", text(&nowhere.stderr));
    assert!(text(&nowhere.stderr).contains("/nowhere/slice.dcm"), "{}", text(&nowhere.stderr));
}

#[test]
fn check_says_what_a_gpu_would_take() {
    let folder = tempfile::tempdir().unwrap();
    let check = |device: &str| {
        let mut command = Command::new(PROGRAM);
        command.arg("check").env("TRIAGED__DATA_DIR", folder.path()).env("TRIAGED__INFERENCE__DEVICE", device);
        command.env("TRIAGED__DIMSE__PORT", "0").env("TRIAGED__WEB__LISTEN", "").current_dir(ROOT).output().unwrap()
    };
    let library = std::env::var_os("ORT_DYLIB_PATH").unwrap_or_default();
    if Path::new(&library).with_file_name("libonnxruntime_providers_cuda.so").exists() {
        eprintln!("SKIP check_says_what_a_gpu_would_take: this ONNX Runtime is a GPU build");
        return;
    }
    let (asked, free, processor) = (check("cuda"), check("auto"), check("cpu"));
    assert_eq!(asked.status.code(), Some(1));
    let line = |output: &Output, begin: &str| {
        text(&output.stdout).lines().any(|line| line.starts_with(begin) && line.contains("make onnxruntime-cuda"))
    };
    assert!(line(&asked, "FAIL  GPU library"), "{}", text(&asked.stdout));
    assert!(line(&free, "warn  GPU library"), "{}", text(&free.stdout));
    assert_eq!((free.status.code(), processor.status.code()), (Some(0), Some(0)), "{}", text(&free.stdout));
    assert!(!text(&processor.stdout).contains("GPU"), "{}", text(&processor.stdout));
}
