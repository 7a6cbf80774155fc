//! `recalibrate`: a site's labelled studies in, a card with its own threshold out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Folder, data_set, error_line, program, text};
use triaged_model::ModelCard;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/m11.json")
}

/// A worklist as `triaged results --format csv` writes it, of 20 bleeding studies at 0.301 to 0.377 and 40 others at 0.01 to 0.205, all
/// decided by m11's card; and labels by accession number. The column names are those of the view `worklist`.
fn site(folder: &Path) -> (PathBuf, PathBuf) {
    let (card, _) = ModelCard::load(&shipped()).expect("a card");
    let threshold = card.study_rule.threshold();
    let mut worklist =
        String::from("study_uid,accession_number,patient_id,state,flagged,score,threshold,verdict,missing\n");
    let mut labels = String::from("\u{feff}accession_number,label\r\n");
    for i in 0..60_u32 {
        let bleeds = i < 20;
        let score = if bleeds { 0.301 + 0.004 * f64::from(i) } else { 0.01 + 0.005 * f64::from(i - 20) };
        let flagged = u8::from(score >= threshold);
        let verdict = if flagged == 1 { "flagged" } else { "not flagged" };
        worklist += &format!("1.2.{i},A{i},P{i},decided,{flagged},{score},{threshold},{verdict},\n");
        labels += &format!("A{i},{}\r\n", u8::from(bleeds));
    }
    // Not of this card, not decided, not complete, not labelled: none of them counts.
    worklist += &format!("1.3.1,A60,P60,decided,1,0.9,0.5,flagged,\n1.3.2,A61,P61,receiving,,0.1,{threshold},,\n");
    worklist += &format!("1.3.3,A62,P62,decided,,0.1,{threshold},incomplete,2 slices failed\n");
    worklist += &format!("1.3.4,A63,P63,decided,0,0.1,{threshold},not flagged,\n1.3.5,A64,P64,decided,,,,,\n");
    labels += "A60,0\r\nA61,1\r\nA62,1\r\nA64,1\r\n";
    let (table, list) = (folder.join("worklist.csv"), folder.join("labels.csv"));
    fs::write(&table, worklist).expect("a table");
    fs::write(&list, labels).expect("labels");
    (table, list)
}

/// A model whose card is content with six slices, which the made-up studies have.
pub fn of_few_slices(card: &Path, folder: &Path) -> PathBuf {
    let (read, onnx) = ModelCard::load(card).expect("a card");
    let sequence = read.load_sequence(card).expect("its second network");
    let made_for = triaged_model::MadeFor { min_slices: 6, ..read.made_for.clone() };
    let read = ModelCard { made_for, ..read };
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join(&read.file), onnx).expect("written");
    if let (Some(named), Some(bytes)) = (&read.sequence, sequence) {
        fs::write(folder.join(&named.file), bytes).expect("written");
    }
    let path = folder.join(format!("{}.json", read.name));
    fs::write(&path, serde_json::to_string(&read).expect("JSON")).expect("written");
    path
}

#[test]
fn a_sites_worklist_and_labels_give_a_card_that_the_node_takes() {
    let folder = Folder::new();
    let (worklist, labels) = site(folder.path());
    let out = folder.path().join("models");
    let card = shipped();
    #[rustfmt::skip]
    let output = program(&[
        "recalibrate", "--card", text(&card), "--scores", text(&worklist), "--labels", text(&labels), "--sensitivity", "0.9",
        "--name", "m11-here", "--out", text(&out),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for left in [
        "1 left out: studies that were judged by another",
        "2 left out: studies that are incomplete",
        "1 left out: without a label",
        "1 left out: studies without a score",
    ] {
        assert!(said.contains(left), "{said}");
    }
    // Twenty are no proof of 0.9, and that is said.
    assert!(said.contains("20 patients with hemorrhage give a sensitivity of 0.9 in the mean"), "{said}");

    let (before, model) = ModelCard::load(&card).expect("a card");
    let (after, copied) = ModelCard::load(&out.join("m11-here.json")).expect("a card that the node takes");
    assert!(model == copied, "the model's file goes with the card");
    assert_eq!((after.name.as_str(), after.sha256.as_str()), ("m11-here", before.sha256.as_str()));
    assert_eq!((after.slice_threshold, &after.transform), (before.slice_threshold, &before.transform));
    // (20 + 1) · 0.1 = 2.1: the second lowest, 0.305, decides, and the next lower score is 0.301.
    assert!((after.study_rule.threshold() - 0.303).abs() < 1e-9, "{:?}", after.study_rule);
    let made = &after.about["recalibrated"];
    assert_eq!((made["of"].as_str(), made["choice"]["studies"].as_u64()), (Some("m11"), Some(60)));
    assert_eq!(made["threshold_before"].as_f64(), Some(before.study_rule.threshold()));
    assert_eq!(made["source_sha256"].as_str().map(str::len), Some(64));
    assert!(made["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{made}");
    // m11's own threshold, 0.3361, flags the eleven highest.
    let before = made["choice"]["sensitivity_before"]["value"].as_f64().expect("a share");
    assert!((before - 11.0 / 20.0).abs() < 1e-9, "{before}");
    let people = fs::read_to_string(out.join("m11-here.md")).expect("a card for people");
    assert!(people.contains("## The site's threshold") && people.contains("exact 95 % limits"), "{people}");
}

#[test]
fn what_cannot_be_chosen_is_refused_and_nothing_is_written() {
    let folder = Folder::new();
    let (worklist, labels) = site(folder.path());
    let (card, out) = (shipped(), folder.path().join("models"));
    let run = |more: &[&str]| {
        let output = program(&[&["recalibrate", "--card", text(&card), "--out", text(&out)], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!out.exists(), "nothing is written");
        (error_line(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let given = ["--scores", text(&worklist), "--labels", text(&labels)];
    let (few, _) = run(&[&given[..], &["--sensitivity", "0.99"]].concat());
    assert!(few.contains("20 patients with hemorrhage are too few") && few.contains("at least 99"), "{few}");
    let (_, nothing) = run(&given);
    assert!(nothing.contains("--sensitivity"), "{nothing}");
    let (no_label, _) = run(&["--scores", text(&worklist), "--sensitivity", "0.9"]);
    assert!(no_label.contains("no column label") && no_label.contains("--labels"), "{no_label}");
    let (_, share) = run(&[&given[..], &["--sensitivity", "95"]].concat());
    assert!(share.contains("a share above 0 and below 1"), "{share}");
    let (own_name, _) = run(&[&given[..], &["--sensitivity", "0.9", "--name", "m11"]].concat());
    assert!(own_name.contains("another name than the card's own"), "{own_name}");
    let broken = folder.path().join("broken.csv");
    for (rows, words) in [
        ("study_uid,score,label\n1.2,0.5,yes\n", "line 2: the label is \"yes\"; it must be 1 or 0"),
        ("study_uid,score,label\n1.2,1.5,1\n", "line 2: score is \"1.5\", not a number from 0 to 1"),
        ("study_uid,label\n1.2,1\n", "neither a column score"),
        ("study_uid,score,label\n", "no labelled study"),
    ] {
        fs::write(&broken, rows).expect("a table");
        let (line, _) = run(&["--scores", text(&broken), "--sensitivity", "0.5"]);
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }
    fs::write(&broken, "study_uid,label\n1.2,1\n1.2,0\n").expect("labels");
    let (twice, _) = run(&["--scores", text(&worklist), "--labels", text(&broken), "--sensitivity", "0.5"]);
    assert!(twice.contains("line 3: study_uid 1.2 is labelled 1 and 0"), "{twice}");
}

#[test]
fn a_labelled_folder_is_scored_by_the_cards_own_model_series_by_series() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("SKIP a_labelled_folder_is_scored: ORT_DYLIB_PATH is not set");
        return;
    }
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("models"));
    data_set(&data, 8);
    // The card asks for eight slices: the node would call all these studies incomplete.
    let output = program(&["recalibrate", "--card", text(&shipped()), "--data", text(&data), "--sensitivity", "0.75"]);
    assert!(error_line(&output).contains("has no whole study"), "{}", error_line(&output));
    let card = of_few_slices(&shipped(), &folder.path().join("original"));
    #[rustfmt::skip]
    let output = program(&[
        "recalibrate", "--card", text(&card), "--data", text(&data), "--sensitivity", "0.75", "--out", text(&out),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (made, _) = ModelCard::load(&out.join("m11-site.json")).expect("a card that the node takes");
    let choice = &made.about["recalibrated"]["choice"];
    assert_eq!((choice["studies"].as_u64(), choice["positive_patients"].as_u64()), (Some(8), Some(4)));
    assert_eq!(made.about["recalibrated"]["source"].as_str(), Some("data"));
}

#[test]
fn slices_of_the_database_and_of_a_training_are_taken_as_what_they_are() {
    let folder = Folder::new();
    let (card, out) = (shipped(), folder.path().join("models"));
    let (read, _) = ModelCard::load(&card).expect("a card");
    let sha256 = &read.sha256;
    // m11's rule takes the second highest of a series. Two series of one high slice each are none of two.
    let mut slices = String::from("study_uid,series_uid,sop_uid,probability,model_sha256,label\n");
    for study in 0..4 {
        for slice in 0..3 {
            let probability = if study < 2 { 0.8 } else { 0.1 };
            slices += &format!("S{study},a,{slice},{probability},{sha256},{}\n", u8::from(study < 2 && slice == 0));
        }
    }
    slices += &format!("S3,a,9,0.95,{sha256},0\nS3,b,9,0.95,{sha256},0\nS3,b,10,0.1,{sha256},0\n");
    slices += &format!("S3,c,1,0.99,{},0\nS3,c,2,0.99,{},0\n", "0".repeat(64), "0".repeat(64));
    let file = folder.path().join("slices.csv");
    fs::write(&file, slices).expect("a table");
    let choose = |file: &Path| {
        #[rustfmt::skip]
        let output = program(&[
            "recalibrate", "--card", text(&card), "--scores", text(file), "--sensitivity", "0.5", "--out", text(&out),
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ModelCard::load(&out.join("m11-site.json")).expect("a card").0
    };
    let made = choose(&file);
    assert!((made.study_rule.threshold() - 0.45).abs() < 1e-9, "between 0.1 and 0.8: {:?}", made.study_rule);
    assert_eq!(made.about["recalibrated"]["choice"]["auc"].as_f64(), Some(1.0));

    // A training's scores are before calibration: the card's is applied to them.
    let (a, b) = (&read.about["calibration"]["a"], &read.about["calibration"]["b"]);
    let (a, b) = (a.as_f64().expect("a"), b.as_f64().expect("b"));
    let mut scores = String::from("side,source,patient,id,label,probability,mirrored\n");
    for (patient, label) in [("p", 1), ("q", 0)] {
        for slice in 0..2 {
            let probability = if label == 1 { 0.9 } else { 0.5 };
            scores += &format!("fold-1,s,{patient},{slice},{label},{probability},\n");
        }
    }
    let file = folder.path().join("scores.csv");
    fs::write(&file, scores).expect("a table");
    let platt = |logit: f64| 1.0 / (1.0 + (-(a * logit + b)).exp());
    let between = (platt(0.0) + platt((0.9_f64 / 0.1).ln())) / 2.0;
    let found = choose(&file).study_rule.threshold();
    assert!((found - between).abs() < 1e-9, "{found} and {between}");
}

/// m12, whose verdicts its sequence network gives.
fn with_sequence() -> PathBuf {
    shipped().with_file_name("m12.json")
}

#[test]
fn a_worklist_of_a_card_with_a_sequence_network_gives_that_networks_threshold() {
    let folder = Folder::new();
    let (before, _) = ModelCard::load(&with_sequence()).expect("a card");
    let old = before.sequence.clone().expect("m12 has one");
    // A study whose sequence network failed was judged by the study rule, at that threshold: it says nothing of this one.
    let rule = before.study_rule.threshold();
    let mut rows = String::from("study_uid,patient_id,state,flagged,score,threshold,verdict,missing,label\n");
    rows += &format!("1.9,P99,decided,1,0.9,{rule},flagged,,0\n");
    for i in 0..40_u32 {
        let (score, label) = (0.01 * f64::from(i + 1), u8::from(i >= 20));
        let flagged = u8::from(score >= old.threshold);
        let verdict = if flagged == 1 { "flagged" } else { "not flagged" };
        rows += &format!("1.2.{i},P{i},decided,{flagged},{score},{},{verdict},,{label}\n", old.threshold);
    }
    let worklist = folder.path().join("worklist.csv");
    fs::write(&worklist, rows).expect("a table");
    let choose = |wanted: [&str; 2], out: &str| {
        let out = folder.path().join(out);
        let card = with_sequence();
        #[rustfmt::skip]
        let output = program(&[
            "recalibrate", "--card", text(&card), "--scores", text(&worklist), wanted[0], wanted[1], "--out", text(&out),
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 left out: studies that were judged by another"), "{said}");
        let (card, _) = ModelCard::load(&out.join("m12-site.json")).expect("a card that the node takes");
        card.load_sequence(&out.join("m12-site.json")).expect("its second network goes with it");
        let people = fs::read_to_string(out.join("m12-site.md")).expect("a card for people");
        (card, said, people)
    };
    // Twenty bleed, at 0.21 to 0.40: (20 + 1) · 0.1 = 2.1, so the second lowest decides. That is above 0.178.
    let (higher, said, people) = choose(["--sensitivity", "0.9"], "higher");
    let sequence = higher.sequence.as_ref().expect("it keeps it");
    assert!((sequence.threshold - 0.215).abs() < 1e-9, "{sequence:?}");
    assert_eq!((sequence.early_threshold, higher.study_rule), (Some(1.0), before.study_rule));
    assert!(said.contains("early alerts are off"), "{said}");
    assert_eq!(higher.about["recalibrated"]["threshold_before"].as_f64(), Some(old.threshold));
    assert!(higher.about.get("sequence").is_none(), "its figures are by the former threshold");
    assert!(people.contains("a series is flagged from probability 0.2150. Early alerts are off: "), "{people}");
    assert!(people.contains("sequence network gives it a probability of at least 0.2150"), "{people}");
    // Of the others at 0.01 to 0.20 half may be flagged: the threshold falls, and whatever was confirmed still is.
    let (lower, said, _) = choose(["--specificity", "0.5"], "lower");
    let sequence = lower.sequence.expect("it keeps it");
    assert!(sequence.threshold < old.threshold && sequence.early_threshold == old.early_threshold, "{sequence:?}");
    assert!(!said.contains("early alerts"), "{said}");
    // Slices alone do not say where they lie.
    let slices = folder.path().join("slices.csv");
    fs::write(&slices, "study_uid,series_uid,sop_uid,probability,label\nS,a,1,0.5,1\n").expect("a table");
    let card = with_sequence();
    let output = program(&["recalibrate", "--card", text(&card), "--scores", text(&slices), "--sensitivity", "0.5"]);
    assert!(!output.status.success() && error_line(&output).contains("--data FOLDER"), "{}", error_line(&output));
}

#[test]
fn a_labelled_folder_is_read_by_the_sequence_network_and_early_alerts_get_their_threshold() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("SKIP a_labelled_folder_is_read_by_the_sequence_network: ORT_DYLIB_PATH is not set");
        return;
    }
    let folder = Folder::new();
    let (data, out) = (folder.path().join("rsna-png"), folder.path().join("models"));
    data_set(&data, 8);
    let card = of_few_slices(&with_sequence(), &folder.path().join("original"));
    #[rustfmt::skip]
    let output = program(&[
        "recalibrate", "--card", text(&card), "--data", text(&data), "--sensitivity", "0.75", "--out", text(&out),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    // The card names such a folder among those that its network was trained on.
    assert!(said.contains("was trained on a folder called rsna-png"), "{said}");
    let (before, _) = ModelCard::load(&card).expect("a card");
    let (made, _) = ModelCard::load(&out.join("m12-site.json")).expect("a card that the node takes");
    let choice = &made.about["recalibrated"]["choice"];
    assert_eq!((choice["studies"].as_u64(), choice["positive_patients"].as_u64()), (Some(8), Some(4)));
    let (old, new) = (before.sequence.expect("a network"), made.sequence.expect("a network"));
    assert!(new.threshold != old.threshold && (new.file, new.sha256) == (old.file, old.sha256));
    // Not below the study rule's own threshold, which judges where the sequence network fails.
    let early = new.early_threshold.expect("one of its own");
    assert!(early >= made.study_rule.threshold() && made.about["recalibrated"]["early_threshold"] == early, "{early}");
}

#[test]
fn rows_count_once_and_unfinished_studies_not_at_all() {
    let folder = Folder::new();
    let (card, out, file) = (shipped(), folder.path().join("models"), folder.path().join("scores.csv"));
    let sha256 = ModelCard::load(&card).expect("a card").0.sha256;
    let choose = |rows: &str| {
        fs::write(&file, rows).expect("a table");
        #[rustfmt::skip]
        let output = program(&[
            "recalibrate", "--card", text(&card), "--scores", text(&file), "--sensitivity", "0.5", "--out", text(&out),
        ]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let header = "study_uid,series_uid,sop_uid,frame,state,probability,model_sha256,label\n";
    let slice = |study: &str, sop: u32, state: &str, probability: &str, label: u8| {
        format!("{study},a,{sop},1,{state},{probability},{sha256},{label}\n")
    };
    let mut rows = String::from(header);
    for (study, label) in [("S1", 1), ("S2", 1), ("S3", 0), ("S4", 0)] {
        rows += &slice(study, 1, "scored", if label == 1 { "0.9" } else { "0.1" }, label);
        rows += &slice(study, 2, "scored", if label == 1 { "0.8" } else { "0.1" }, label);
    }
    let again = slice("S1", 2, "scored", "0.8", 1);
    let (done, said) = choose(&format!("{rows}{again}{}", slice("S4", 3, "failed", "", 0)));
    assert!(done && said.contains("1 left out: rows that repeat another"), "{said}");
    assert!(said.contains("1 left out: studies with slices that failed"), "{said}");
    let (done, said) = choose(&format!("{rows}{}", slice("S1", 2, "scored", "0.7", 1)));
    assert!(!done && said.contains("line 10: the slice 2 has another row in line 3"), "{said}");

    let threshold = ModelCard::load(&card).expect("a card").0.study_rule.threshold();
    let header = "study_uid,score,threshold,revision,label\r\n";
    let study =
        |uid: &str, score: f64, revision: &str, label: u8| format!("{uid},{score},{threshold},{revision},{label}\r\n");
    let rows =
        format!("{header}{}{}{}", study("1.1", 0.9, "1", 1), study("1.2", 0.1, "1", 0), study("1.3", 0.8, "1", 1));
    let (done, said) = choose(&format!("{rows}{}", study("1.1", 0.7, "2", 1)));
    assert!(done && said.contains("1 left out: rows of an earlier revision"), "{said}");
    let (done, said) = choose(&format!("{rows}{}", study("1.1", 0.7, "1", 1)));
    assert!(!done && said.contains("line 5: the study 1.1 has another row in line 2"), "{said}");
    // None was below the former threshold: only flagged studies were labelled.
    let flagged = format!("{header}{}{}", study("1.1", 0.9, "1", 1), study("1.2", 0.8, "1", 0));
    let (_, said) = choose(&flagged);
    assert!(said.contains("none of these studies lies below the former threshold"), "{said}");
    for (table, remedy) in [
        (header.replace("label", "Label"), "rename the column Label to label"),
        (rows.replace(',', ";"), "save it with commas"),
        (format!("{header}{}", study("1.1", 0.9, "1", 1).replace(",1\r", ",1.0\r")), "without a fraction"),
    ] {
        let (done, said) = choose(&table);
        assert!(!done && said.contains(remedy), "{remedy}: {said}");
    }
}
