//! What was refused and could not be noted in the ledger yet: a disk that is full takes neither object nor row.
//!
//! It waits in memory, and in a file that was given its room when there was some. So a node that is started anew while the disk is full, which
//! is what people try first, does not forget it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use tracing::warn;

use crate::ledger::Refused;

/// The file in the data folder: a line of JSON an object, then zeros.
const FILE: &str = "refused.waiting";

/// Its room in bytes, for some four thousand objects.
const ROOM: u64 = 1 << 20;

/// Objects that are kept in memory at most.
const MOST: usize = 10_000;

/// Refused objects that wait to be noted.
#[derive(Default)]
pub struct Unnoted {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    objects: Vec<Refused>,
    /// How many have taken some, and are noting them.
    takers: usize,
    /// None where it cannot be kept: then what waits is forgotten with the process.
    file: Option<File>,
    /// Bytes of it that hold lines.
    written: u64,
}

impl Unnoted {
    /// Reads what waited when the process before this one ended, and gives the file its room.
    pub fn open(data_dir: &Path) -> Unnoted {
        let path = data_dir.join(FILE);
        let waiting = Waiting::open(&path).unwrap_or_else(|error| {
            warn!(path = %path.display(), "what is refused while the disk is full would be forgotten at a restart: {error}");
            Waiting::default()
        });
        Unnoted { waiting: Mutex::new(waiting) }
    }

    pub fn is_empty(&self) -> bool {
        self.lock().objects.is_empty()
    }

    /// Takes all that wait, to note them. They stay in the file. [`Unnoted::give_back`] follows.
    pub fn take(&self) -> Vec<Refused> {
        let mut waiting = self.lock();
        waiting.takers += 1;
        std::mem::take(&mut waiting.objects)
    }

    /// Whoever took some has noted all but these, which wait again. The file is emptied where nobody has any more. Returns whether these are the
    /// first that wait: then nobody sees to them yet. Blocks.
    pub fn give_back(&self, objects: Vec<Refused>) -> bool {
        let mut waiting = self.lock();
        waiting.takers = waiting.takers.saturating_sub(1);
        let is_first = waiting.objects.is_empty() && !objects.is_empty();
        waiting.objects.extend(objects);
        let most = waiting.objects.len().saturating_sub(MOST);
        waiting.objects.drain(..most);
        if waiting.objects.is_empty()
            && waiting.takers == 0
            && let Err(error) = waiting.clear()
        {
            // They are noted once more at the next start, which changes nothing.
            warn!("{FILE} cannot be emptied: {error}");
        }
        is_first
    }

    /// Writes an object into the file, as far as there is room. Blocks.
    pub fn keep(&self, object: &Refused) {
        if let Err(error) = self.lock().keep(object) {
            warn!("that an object was refused would be forgotten at a restart: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nobody panics while holding it")
    }
}

impl Waiting {
    fn open(path: &Path) -> io::Result<Waiting> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(ROOM).read_to_end(&mut bytes)?;
        let written = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let mut known = HashSet::new();
        let lines = bytes[..written].split(|byte| *byte == b'\n');
        // A line that was cut off by a crash is of an object whose sender was not answered.
        let objects: Vec<Refused> = lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .filter(|object: &Refused| known.insert(object.clone()))
            .collect();
        if (bytes.len() as u64) < ROOM {
            let missing = vec![0; ROOM as usize - bytes.len()];
            file.write_all_at(&missing, bytes.len() as u64)?;
            file.sync_all()?;
        }
        Ok(Waiting { objects, takers: 0, file: Some(file), written: written as u64 })
    }

    fn keep(&mut self, object: &Refused) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        // The last byte stays 0.
        if self.written + line.len() as u64 >= ROOM {
            return Err(io::Error::other(format!("{FILE} is full")));
        }
        file.write_all_at(&line, self.written)?;
        file.sync_data()?;
        self.written += line.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        if let (Some(file), true) = (&self.file, self.written > 0) {
            file.write_all_at(&vec![0; self.written as usize], 0)?;
            file.sync_data()?;
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(sop: &str) -> Refused {
        Refused { study_uid: "1".into(), series_uid: "2".into(), sop_uid: sop.into(), reason: "full".into() }
    }

    #[test]
    fn what_waits_is_there_after_a_restart_until_it_is_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = Unnoted::open(folder.path());
        for sop in ["a", "b", "a"] {
            before.take();
            before.keep(&object(sop));
            before.give_back(vec![object(sop)]);
        }
        drop(before);
        let after = Unnoted::open(folder.path());
        assert_eq!(after.take(), [object("a"), object("b")]);
        after.give_back(Vec::new());
        assert!(Unnoted::open(folder.path()).is_empty());
        assert_eq!(std::fs::metadata(folder.path().join(FILE)).expect("a file").len(), ROOM);
    }

    #[test]
    fn a_line_that_was_cut_off_and_a_file_without_room_cost_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let line = serde_json::to_string(&object("a")).expect("JSON");
        std::fs::write(&path, format!("{line}\n{}", &line[..20])).expect("written");
        assert_eq!(Unnoted::open(folder.path()).take(), [object("a")]);
        let full = Unnoted::open(folder.path());
        let long = Refused { reason: "x".repeat(1 << 18), ..object("b") };
        (0..5).for_each(|_| full.keep(&long));
        assert!(Unnoted::open(folder.path()).take().len() >= 2);
        // A folder that is not there keeps nothing, and says so.
        let none = Unnoted::open(&folder.path().join("none"));
        none.keep(&object("a"));
        assert!(none.give_back(vec![object("a")]) && !none.is_empty());
    }

    #[test]
    fn what_one_is_noting_is_not_forgotten_when_another_has_noted_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let unnoted = Unnoted::open(folder.path());
        unnoted.take();
        unnoted.keep(&object("a"));
        // Another object, refused meanwhile, is noted at once.
        assert!(unnoted.take().is_empty());
        unnoted.give_back(Vec::new());
        assert_eq!(Unnoted::open(folder.path()).take(), [object("a")], "its noting has not ended");
        unnoted.give_back(Vec::new());
        assert!(Unnoted::open(folder.path()).is_empty());
    }
}
