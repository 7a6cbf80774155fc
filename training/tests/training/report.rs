//! A run's report: read from the run's files, whole in one page, honest about what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use triaged_imaging::{Transform, Window};
use triaged_model::StudyRule;
use triaged_training::candidates::candidate;
use triaged_training::data::{Augment, Index, Side, Slice, Split, SplitBy, phantoms};
use triaged_training::evaluate::{Decision, Evaluation, HeldOut, Study, Supplement};
use triaged_training::files::{read_json, write_json};
use triaged_training::fit::{Epoch, FitConfig, Monitor, Schedule, State};
use triaged_training::metrics::auc;
use triaged_training::report::{self, ReportError};
use triaged_training::run::{Run, RunError};

const HOSTILE: &str = "phantoms/<script>alert(\"&'\")</script>";
const SLICES: u32 = 6;

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// Phantoms in the RSNA layout; every second one bleeds.
fn data(folder: &Path, studies: u64) -> PathBuf {
    let out = folder.join("phantoms");
    phantoms::write(&out, studies, SLICES, 7).expect("phantoms");
    out
}

/// Which patients stand on the test side of [`made`].
#[derive(Clone, Copy, PartialEq)]
enum Tested {
    BothClasses,
    WithHemorrhageOnly,
}

/// The files of a held-out run that nobody trained: six phantoms, two a side. Positives score 0.9 and negatives 0.1, but
/// of the test's slices the first positive scores 0.2 and the first negative 0.8; thresholds are 0.5.
fn made(folder: &Path, tested: Tested, change: impl FnOnce(&mut Vec<Slice>)) -> PathBuf {
    let mut index = Index::read(&data(folder, 6)).expect("an index");
    let bleeding = |index: &Index, patient: &str| index.slices.iter().any(|s| s.patient == patient && s.positive);
    let (with, without): (Vec<String>, Vec<String>) =
        index.patients().keys().map(|&patient| patient.to_owned()).partition(|patient| bleeding(&index, patient));
    assert_eq!((with.len(), without.len()), (3, 3));
    let sides = [Side::Train, Side::Validation, Side::Test];
    let mut side_of: Vec<(String, Side)> = with.iter().cloned().zip(sides).collect();
    if tested == Tested::BothClasses {
        side_of.extend(without.into_iter().zip(sides));
    } else {
        index.slices.retain(|slice| slice.patient != with[2] || slice.positive);
        side_of.extend(without.into_iter().zip([Side::Train, Side::Validation, Side::Train]));
    }
    // A patient called otherwise in the images would be called so in the index.
    for slice in index.slices.iter_mut().filter(|slice| slice.patient == with[2]) {
        slice.patient = HOSTILE.into();
    }
    side_of.iter_mut().filter(|(patient, _)| *patient == with[2]).for_each(|(patient, _)| *patient = HOSTILE.into());
    change(&mut index.slices);
    let split = Split { by: SplitBy::Patient, seed: 1, train_only: vec![], sides: side_of.into_iter().collect() };

    let run = folder.join("run");
    fs::create_dir_all(&run).expect("a folder");
    let decision = Decision {
        slice_threshold: 0.5,
        study_rule: StudyRule::TopKMean { k: 1, threshold: 0.5 },
        calibration: None,
        wanted_sensitivity: 0.9,
        operating_point: Default::default(),
        reached: None,
    };
    let mut rows = String::from("side,source,patient,id,label,probability\n");
    let [validation, test] = [(Side::Validation, "validation"), (Side::Test, "test")].map(|(side, name)| {
        let slices = split.slices(&index, side);
        let mut scores: Vec<f64> = slices.iter().map(|s| if s.positive { 0.9 } else { 0.1 }).collect();
        if side == Side::Test {
            for (positive, score) in [(true, 0.2), (false, 0.8)] {
                if let Some(first) = slices.iter().position(|slice| slice.positive == positive) {
                    scores[first] = score;
                }
            }
        }
        for (slice, score) in slices.iter().zip(&scores) {
            let patient = slice.patient.replace('"', "\"\"");
            let (source, id, label) = (&slice.source, &slice.id, u8::from(slice.positive));
            rows += &format!("{name},{source},\"{patient}\",{id},{label},{score}\n");
        }
        Evaluation::of(&Study::group(&slices, &scores), &decision, 1)
    });
    fs::write(run.join("scores.csv"), rows).expect("scores");
    let epoch = |epoch: usize| Epoch {
        epoch,
        loss: 0.7 / epoch as f64,
        validation_loss: Some(0.8 / epoch as f64),
        validation_auc: Some(0.9),
        seconds: 1.0,
    };
    let state = State {
        epochs: (1..=4).map(epoch).collect(),
        best: Some(3),
        nan: None,
        first_sensitivity: None,
        mean_of: Vec::new(),
    };
    let windows = vec![Window { center: 40.0, width: 80.0 }];
    let config = FitConfig {
        candidate: candidate("m4").expect("a candidate"),
        transform: Transform::HounsfieldWindows {
            height: 32,
            width: 32,
            windows,
            normalization: None,
            crop_to_head: None,
        },
        seed: 1,
        epochs: 4,
        batch: 8,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        position_grid: None,
        half_size_epochs: 0,
        localization: 0.0,
        augment: Augment::NONE,
        balance: None,
        patience: 9,
        monitor: Monitor::Loss,
        pretrained: None,
        test_time_flip: false,
        study_sensitivity: 0.9,
        sources: Default::default(),
        level_sources: false,
        averaging: 0.0,
        statistics: 0,
        label_smoothing: 0.0,
        operating_point: Default::default(),
        sample: None,
        context: false,
    };
    write_json(&run.join("config.json"), &config).expect("written");
    write_json(&run.join("state.json"), &state).expect("written");
    write_json(&run.join("index.json"), &index).expect("written");
    write_json(&run.join("split.json"), &split).expect("written");
    write_json(
        &run.join("evaluation.json"),
        &HeldOut { decision, validation, test, supplement: Supplement::default() },
    )
    .expect("written");
    run
}

/// The page, after a look at whether it is whole: well formed, nothing fetched, nothing run.
fn page(out: &Path) -> String {
    let text = fs::read_to_string(out.join("report.html")).expect("a page");
    for foreign in ["http:", "https:", "url(", "@import", "<link", "<script", "javascript:"] {
        assert!(!text.contains(foreign), "the page has {foreign}");
    }
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    for node in document.descendants().filter(|node| node.is_element()) {
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            assert_ne!(attribute.name(), "href");
            assert!(attribute.name() != "src" || attribute.value().starts_with("data:image/png;base64,"));
        }
    }
    text
}

fn files(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The texts of a chart, after a look at whether it is well-formed XML.
fn texts(chart: &Path) -> Vec<String> {
    let svg = fs::read_to_string(chart).expect("a chart");
    let document = roxmltree::Document::parse(&svg).expect("well-formed XML");
    let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts.filter_map(|node| node.text()).map(|text| text.trim().to_owned()).collect()
}

/// Tiles in the page.
fn tiles(page: &str) -> usize {
    page.matches("<img ").count()
}

#[test]
fn a_held_out_run_becomes_a_page_with_every_figure_beside_it() {
    let folder = folder();
    let run = made(folder.path(), Tested::BothClasses, |_| {});
    let out = folder.path().join("report");
    report::write(&run, &out).expect("a report");
    let figures = ["confusion-slices", "confusion-studies", "precision-recall", "roc", "scores"];
    let mut expected: Vec<String> = figures.iter().map(|name| format!("{name}.svg")).collect();
    expected.extend(figures.iter().map(|name| format!("validation-{name}.svg")));
    expected.extend(["labels.svg", "loss.svg", "report.html"].map(str::to_owned));
    expected.extend(["worst-false-negatives.png", "worst-false-positives.png"].map(str::to_owned));
    expected.sort();
    assert_eq!(files(&out), expected);

    let page = page(&out);
    assert_eq!(page.matches("<svg ").count(), 12, "every chart stands in the page");
    assert_eq!(tiles(&page), 2, "one slice is wrong in each way");
    assert!(page.contains("1 of 1 false negatives") && page.contains("1 of 1 false positives"));
    assert!(!page.contains(HOSTILE) && page.contains("alert("), "the patient is named, escaped");

    let HeldOut { test, .. } = read_json(&run.join("evaluation.json")).expect("figures");
    let counts = test.slices.confusion;
    assert_eq!((counts.fn_, counts.fp), (1, 1));
    let cells = texts(&out.join("confusion-slices.svg"));
    for count in [counts.tn, counts.fp, counts.fn_, counts.tp] {
        assert!(cells.contains(&count.to_string()), "{count} in {cells:?}");
    }
    let roc = texts(&out.join("roc.svg"));
    let wanted = format!(
        "threshold 0.5000: sensitivity {:.3}, specificity {:.3}",
        test.slices.sensitivity.expect("a positive").value,
        test.slices.specificity.expect("a negative").value
    );
    assert!(roc.contains(&wanted), "{wanted} in {roc:?}");
}

#[test]
fn an_image_that_is_gone_is_left_out_and_named() {
    let folder = folder();
    let mut gone = String::new();
    let run = made(folder.path(), Tested::BothClasses, |slices| {
        let first = slices.iter_mut().find(|slice| slice.patient == HOSTILE && slice.positive).expect("a positive");
        first.file = first.file.with_file_name("gone & <away>.dcm");
        gone.clone_from(&first.id);
    });
    let out = folder.path().join("report");
    fs::create_dir_all(&out).expect("a folder");
    fs::write(out.join("worst-false-negatives.png"), "of an earlier report").expect("a file");
    report::write(&run, &out).expect("a report");
    let page = page(&out);
    assert_eq!(tiles(&page), 1, "the false positive");
    assert!(page.contains("0 of 1 false negatives"));
    let said = page.lines().find(|line| line.contains("<li>") && line.contains(&gone)).expect("its line");
    assert!(said.contains("gone &#38; &#60;away&#62;.dcm"), "{said}");
    assert!(!files(&out).contains(&"worst-false-negatives.png".to_owned()), "no sheet of an earlier report is left");
}

#[test]
fn one_class_is_said() {
    let folder = folder();
    let run = made(folder.path(), Tested::WithHemorrhageOnly, |_| {});
    let out = folder.path().join("report");
    report::write(&run, &out).expect("a report");
    let page = page(&out);
    assert!(page.contains("slices are with hemorrhage: they have no AUC and no curves."));
    assert!(page.contains("<td>one class only</td>"));
    for chart in ["roc.svg", "precision-recall.svg"] {
        let texts = texts(&out.join(chart));
        assert!(texts.iter().any(|text| text == "One class only: no curve of these slices."), "{texts:?}");
    }
    assert!(texts(&out.join("scores.svg")).contains(&"None of them: one class only.".to_owned()));
    assert!(page.contains("There are no false positives."));
}

#[test]
fn scores_of_another_run_are_refused() {
    let folder = folder();
    let run = made(folder.path(), Tested::BothClasses, |_| {});
    let scores = run.join("scores.csv");
    let good = fs::read_to_string(&scores).expect("scores");
    let refused = |text: String| {
        fs::write(&scores, text).expect("written");
        report::write(&run, &folder.path().join("report")).expect_err("other scores")
    };
    let other = refused(good.replace(",0.8\n", ",0.3\n"));
    assert!(matches!(other, ReportError::Run(RunError::Apart { .. })) && other.to_string().contains("1 FP"), "{other}");
    let unknown = refused(format!("{good}test,phantoms,x,ID_unknown,0,0.3\n"));
    assert!(unknown.to_string().contains("the index has no slice ID_unknown of phantoms"), "{unknown}");
    let wild = refused(good.replace(",0.8\n", ",NaN\n"));
    assert!(matches!(wild, ReportError::Run(RunError::Row { .. })) && wild.to_string().contains("NaN"), "{wild}");
    fs::remove_file(run.join("evaluation.json")).expect("removed");
    assert!(refused(good).to_string().contains("has no figures yet"));
}

fn program(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_triaged-training")).args(arguments).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn training_leaves_a_report_and_it_can_be_drawn_again_from_the_run() {
    let folder = folder();
    let data = data(folder.path(), 12);
    let run = folder.path().join("run");
    let text = |path: &Path| path.to_str().expect("plain text").to_owned();
    let (data, out) = (text(&data), text(&run));
    #[rustfmt::skip]
    program(&[
        "train", "--data", &data, "--out", &out, "--candidate", "m4", "--size", "32", "--epochs", "2", "--batch", "8",
        "--folds", "3",
    ]);
    let first = page(&run.join("report"));
    assert!(first.contains("3 folds") && first.contains("all patients, out of fold"));
    let legend = texts(&run.join("report/loss.svg"));
    for wanted in ["fold 1", "fold 2", "fold 3", "all patients"] {
        assert!(legend.iter().any(|text| text == wanted), "{wanted} in {legend:?}");
    }

    // Curves are of scores on the scale that the areas beside them are of.
    let crossed = Run::read(&run.join("folds")).expect("the folds");
    let of = crossed.first();
    for (cases, figures) in [(of.slice_cases(), &of.evaluation.slices), (of.study_cases(), &of.evaluation.studies)] {
        let stated = figures.auc.expect("both classes").value;
        assert!((auc(&cases).expect("both classes") - stated).abs() < 1e-12, "{stated}");
    }

    let again = folder.path().join("again");
    program(&["report", "--run", &out, "--out", &text(&again)]);
    assert_eq!(page(&again), first);
    // The cross-validation alone lacks only the network that is trained on all patients.
    program(&["report", "--run", &text(&run.join("folds")), "--out", &text(&again)]);
    assert!(!texts(&again.join("loss.svg")).contains(&"all patients".to_owned()));
    assert_eq!(texts(&again.join("roc.svg")), texts(&run.join("report/roc.svg")));
}
