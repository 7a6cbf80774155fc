//! The label file of the RSNA 2019 layout: `ID,Label`, a row `ID_xxx_any` for each slice and one for each kind of hemorrhage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::IndexError;
use super::problems::Problems;
use crate::files::LineEnds;

/// The label file of a folder.
pub const LABELS: &str = "stage_2_train.csv";
/// How the names of the rows end that tell of hemorrhage of any kind.
pub const ANY: &str = "any";
/// How those of the kinds end.
const KINDS: [&str; 5] = ["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"];

/// A row of a label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// `ID_xxx_kind`.
    pub name: String,
    pub positive: bool,
}

impl LabelRow {
    /// Takes one row after the other, in their order: a file of millions is not held as a whole.
    ///
    /// # Errors
    /// A file that cannot be read, and a row that is none.
    pub fn each(path: &Path, mut take: impl FnMut(Self)) -> Result<(), IndexError> {
        let failed = |source| IndexError::Labels { path: path.into(), source };
        let ends = LineEnds::of(path).map_err(|error| failed(error.into()))?;
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_path(path).map_err(failed)?;
        for row in reader.records() {
            let row = row.map_err(failed)?;
            let wrong = |why: String| IndexError::Row { path: path.into(), line: ends.line_of(&row), why };
            let Some(name) = row.get(0) else { return Err(wrong("needs an ID and a Label".into())) };
            let Some(label) = row.get(1) else {
                let semicolon =
                    if name.contains(';') { "; the columns must be set apart by commas, not semicolons" } else { "" };
                return Err(wrong(format!("needs an ID and a Label{semicolon}")));
            };
            let positive = match label {
                "0" => false,
                "1" => true,
                "0.0" | "1.0" => {
                    return Err(wrong(format!("the label is {label:?}, not 0 or 1: write it without a fraction")));
                }
                other => return Err(wrong(format!("the label is {other:?}, not 0 or 1"))),
            };
            take(Self { name: name.into(), positive });
        }
        Ok(())
    }

    /// The slice's id and the kind, of which `any` is one.
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.name.rsplit_once('_')
    }
}

/// The `any` label of each id. What contradicts itself is left out and listed: both labels, or a kind of hemorrhage and none of any kind.
pub(super) fn read_labels(path: &Path, problems: &mut Problems) -> Result<BTreeMap<String, bool>, IndexError> {
    let mut labels = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut contradictory, mut with_a_kind) = (BTreeSet::new(), BTreeSet::new());
    LabelRow::each(path, |row| match row.parts() {
        _ if !seen.insert((row.name.clone(), row.positive)) => problems.duplicate_rows += 1,
        Some((id, ANY)) => {
            let before = labels.insert(id.to_owned(), row.positive);
            contradictory.extend(before.map(|_| id.to_owned()));
        }
        Some((id, kind)) if row.positive && KINDS.contains(&kind) => {
            with_a_kind.insert(id.to_owned());
        }
        _ => {}
    })?;
    contradictory.extend(with_a_kind.into_iter().filter(|id| labels.get(id) == Some(&false)));
    for id in &contradictory {
        labels.remove(id);
    }
    problems.contradictory = contradictory.into_iter().collect();
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> (Result<BTreeMap<String, bool>, String>, Problems) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LABELS);
        std::fs::write(&path, text).expect("written");
        let mut problems = Problems::default();
        let read = read_labels(&path, &mut problems).map_err(|error| error.to_string());
        (read, problems)
    }

    #[test]
    fn a_kind_of_hemorrhage_without_any_is_a_contradiction() {
        let (read, problems) =
            labels("ID,Label\n\"ID_a_subdural\",\"1\"\nID_a_any,0\nID_b_subdural,1\nID_b_any,1\nID_c_any,0\n");
        assert_eq!(
            read.expect("labels").into_iter().collect::<Vec<_>>(),
            [("ID_b".into(), true), ("ID_c".into(), false)]
        );
        assert_eq!(problems.contradictory, ["ID_a"]);
    }

    #[test]
    fn a_wrong_row_is_named_by_its_line_whatever_ends_it_and_with_the_remedy() {
        for end in ["\n", "\r\n"] {
            let (read, _) = labels(&["ID,Label", "ID_a_any,1", "ID_b_any,1.0", ""].join(end));
            let why = read.expect_err("no label");
            assert!(why.contains("line 3") && why.contains("without a fraction"), "{why}");
        }
        let (read, _) = labels("ID;Label\nID_a_any;1\n");
        assert!(read.expect_err("no label").contains("commas, not semicolons"));
    }
}
