//! The database as administrators use it: docs/database.md says what is there, and its questions are answered.

use std::collections::BTreeSet;

use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use triaged_imaging::phantom::{PhantomSpec, series};

use crate::support::{Node, dicom_files, has, storescu};

fn documentation() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/database.md")).unwrap()
}

/// The words of a text that stand in backticks.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The column names of a view.
fn columns(node: &Node, view: &str) -> Vec<String> {
    let database = node.database();
    let statement = database.prepare(&format!("SELECT * FROM {view}")).unwrap();
    statement.column_names().into_iter().map(str::to_owned).collect()
}

/// A node with one bleeding phantom, whose header has names.
fn with_one_study(settings: &[(&str, &str)]) -> Node {
    let node = Node::start(settings);
    let folder = tempfile::tempdir().unwrap();
    for (index, mut object) in series(&PhantomSpec { slices: 12, ..Default::default() }).enumerate() {
        for (tag, vr, value) in [
            (tags::PATIENT_NAME, VR::PN, "Private^Person"),
            (tags::PATIENT_BIRTH_DATE, VR::DA, "19511213"),
            (tags::PATIENT_SEX, VR::CS, "F"),
            (tags::REFERRING_PHYSICIAN_NAME, VR::PN, "Private^Physician"),
            (tags::STUDY_DATE, VR::DA, "20261127"),
            (tags::STUDY_DESCRIPTION, VR::LO, "Private study"),
            (tags::SERIES_DESCRIPTION, VR::LO, "Private series"),
            (tags::STATION_NAME, VR::SH, "PRIVATE-ROOM"),
            (tags::INSTITUTION_NAME, VR::LO, "Private hospital"),
        ] {
            object.put(DataElement::new(tag, vr, value));
        }
        object.write_to_file(folder.path().join(format!("{index}.dcm"))).unwrap();
    }
    storescu(&node, &["-aet", "CT1"], &dicom_files(folder.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
    node
}

#[test]
fn every_column_of_every_view_is_documented_and_every_question_is_answered() {
    if !has("storescu") {
        return;
    }
    let node = with_one_study(&[]);
    let text = documentation();
    let views: Vec<String> = {
        let database = node.database();
        let mut statement = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'view'").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert!(views.len() >= 7, "{views:?}");
    for view in &views {
        let section = text
            .split("\n## ")
            .find(|section| section.lines().next().is_some_and(|title| title.contains(view.as_str())))
            .unwrap_or_else(|| panic!("docs/database.md has no section on {view}"));
        // One section says of the shadow's view that it is like that of the slices.
        let like = if view == "shadow_results" { text.as_str() } else { section };
        let known = quoted(like);
        let absent: Vec<_> = columns(&node, view).into_iter().filter(|c| !known.contains(c.as_str())).collect();
        assert!(absent.is_empty(), "docs/database.md does not say what {absent:?} of {view} are");
    }
    let mut questions = 0;
    for sql in text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let database = node.database();
        let mut statement = database.prepare(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"));
        let mut rows = statement.query([]).unwrap();
        while rows.next().unwrap_or_else(|error| panic!("{sql}\n{error}")).is_some() {}
        questions += 1;
    }
    assert!(questions >= 5, "{questions}");
}

#[test]
fn what_privacy_switches_off_is_stored_nowhere_in_the_database() {
    if !has("storescu") {
        return;
    }
    let kept = [
        ("patient_name", "keep_patient_name"),
        ("birth_date", "keep_birth_date"),
        ("sex", "keep_sex"),
        ("referring_physician", "keep_referring_physician"),
        ("study_date", "keep_study_date"),
        ("study_description", "keep_descriptions"),
        ("station_name", "keep_station"),
        ("institution_name", "keep_station"),
    ];
    let value = |node: &Node, column: &str| node.query::<Option<String>>(&format!("SELECT {column} FROM worklist"));
    let node = with_one_study(&[]);
    for (column, _) in kept {
        assert!(value(&node, column).is_some_and(|value| !value.is_empty()), "{column} is kept by default");
    }
    assert_eq!(node.query::<String>("SELECT description FROM series_results"), "Private series");

    let settings: Vec<(String, &str)> =
        kept.iter().map(|(_, key)| (format!("TRIAGED__PRIVACY__{}", key.to_uppercase()), "false")).collect();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let mut node = with_one_study(&settings);
    for (column, _) in kept {
        assert_eq!(value(&node, column), None, "{column}");
    }
    node.terminate();
    // Not in the views, and not in a table or a log that the views do not show.
    for file in ["triaged.db", "triaged.db-wal"] {
        let Ok(bytes) = std::fs::read(node.folder.path().join(file)) else { continue };
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        for word in ["private", "19511213"] {
            assert!(!text.contains(word), "{word} stands in {file}");
        }
    }
}
