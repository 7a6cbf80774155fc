//! Which files have no row, and which rows no file. Millions of both take some megabytes: names are compared by digests of 64 bits.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use crate::archive::Archive;
use crate::ledger::Reader;
use crate::objects::Objects;

use super::is_temporary;

/// What is not as it should be. Paths are relative to the data folder.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files of the archive without a row.
    pub orphans: Vec<String>,
    /// Files in quarantine without a row.
    pub set_aside: Vec<String>,
    /// Files that a crash left on the way to another name.
    pub temporary: Vec<String>,
    /// Instances whose file is gone, and is not marked so.
    pub lost: Vec<(i64, String)>,
    /// Instances that are marked, and whose file is there.
    pub back: Vec<(i64, String)>,
}

/// Two names have one digest with a chance of one in millions of millions; then one orphan stays where it is.
fn sorted(mut digests: Vec<u64>) -> Vec<u64> {
    digests.sort_unstable();
    digests.dedup();
    digests
}

/// Holds files and rows against each other, until `is_stopped`.
pub(super) fn survey(archive: &Archive, ledger: Option<&Reader>, is_stopped: &dyn Fn() -> bool) -> io::Result<Survey> {
    let hashing = RandomState::new();
    let digest = |name: &str| hashing.hash_one(name);
    // Rows before files: a file that comes between has its row soon, and to take it in again changes nothing.
    let mut named = Vec::new();
    if let Some(ledger) = ledger {
        ledger.each_file(|row| named.push(digest(row.path))).map_err(io::Error::other)?;
    }
    let named = sorted(named);
    let mut survey = Survey::default();
    let mut there = Vec::new();
    for folder in ["archive", "quarantine"] {
        for part in archive.parts(folder)? {
            archive.list(&part, &mut |name| {
                there.push(digest(&name));
                if is_temporary(Path::new(&name)) {
                    survey.temporary.push(name);
                } else if named.binary_search(&digest(&name)).is_err() && !is_hidden(&name) {
                    let kind = if folder == "archive" { &mut survey.orphans } else { &mut survey.set_aside };
                    kind.push(name);
                }
                if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if is_stopped() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the node stops"));
            }
        }
    }
    // In the order of their names, whatever order the disk has.
    for found in [&mut survey.orphans, &mut survey.set_aside, &mut survey.temporary] {
        found.sort();
    }
    let Some(ledger) = ledger else { return Ok(survey) };
    let there = sorted(there);
    let rows = ledger.each_file(|row| {
        let Some(instance) = row.instance.filter(|_| !row.is_removed) else { return };
        match (there.binary_search(&digest(row.path)).is_ok(), row.is_lost) {
            (false, false) => survey.lost.push((instance, row.path.to_owned())),
            (true, true) => survey.back.push((instance, row.path.to_owned())),
            _ => {}
        }
    });
    rows.map_err(io::Error::other)?;
    Ok(survey)
}

/// The archive's own file, and those of file systems (`.nfs…`, `.snapshot`).
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_row_are_found_in_order_and_a_stop_does_not_wait_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        for name in ["archive/cd/three.dcm", "archive/ab/two.dcm", "archive/ab/one.dcm", "quarantine/four.dcm"] {
            archive.put(name, &mut &b"x"[..]).unwrap();
        }
        let found = survey(&archive, None, &|| false).unwrap();
        assert_eq!(found.orphans, ["archive/ab/one.dcm", "archive/ab/two.dcm", "archive/cd/three.dcm"]);
        assert_eq!(found.set_aside, ["quarantine/four.dcm"]);
        let looks = std::cell::Cell::new(0);
        let stopped = survey(&archive, None, &|| {
            looks.set(looks.get() + 1);
            true
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(looks.get(), 2, "after the first file, and once more to say so");
    }
}
