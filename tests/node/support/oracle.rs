//! What scripts of `tests/peers` say of files that do not change. To ask one takes seconds, most of them for Python's libraries, and its
//! answer depends on nothing but the script, the libraries (pinned in `tests/requirements.txt`) and the files: each is asked once for a
//! build's folder, and again when one of those is another.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SAID: &str = "said.txt";
const MADE: &str = "made";

/// What decides a script's answer.
#[derive(Default)]
pub struct Question<'a> {
    /// Below `tests/peers`.
    pub script: &'a str,
    /// What the script imports, below `tests/peers`.
    pub modules: &'a [&'a str],
    /// The files that are its arguments.
    pub files: &'a [PathBuf],
    /// Files that it reads without being told.
    pub beside: &'a [PathBuf],
    /// Versions of other programs that it calls.
    pub versions: &'a str,
}

/// What the script prints, given the files. `None`, said aloud, where there is no Python.
pub fn said(question: &Question<'_>) -> Option<String> {
    let kept = asked(question, false)?;
    Some(std::fs::read_to_string(kept.join(SAID)).unwrap())
}

/// The folder that the script fills, which is its last argument, and what it prints. `None`, said aloud, where there is no Python.
pub fn made(question: &Question<'_>) -> Option<(PathBuf, String)> {
    let kept = asked(question, true)?;
    let said = std::fs::read_to_string(kept.join(SAID)).unwrap();
    Some((kept.join(MADE), said))
}

/// The folder with the answer.
fn asked(question: &Question<'_>, makes: bool) -> Option<PathBuf> {
    let python = super::python()?;
    let peer = |name: &str| Path::new(ROOT).join("tests/peers").join(name);
    let script = peer(question.script);
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update(bytes.len().to_le_bytes());
        digest.update(bytes);
    };
    add(question.versions.as_bytes());
    let own = [script.clone(), Path::new(ROOT).join("tests/requirements.txt")];
    let modules = question.modules.iter().map(|name| peer(name));
    for file in own.into_iter().chain(modules).chain(question.files.iter().chain(question.beside).cloned()) {
        add(file.file_name().expect("a file").as_encoded_bytes());
        add(&std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    let name = format!("{}-{}", question.script, &hex::encode(digest.finalize())[..24]);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    let kept = all.join(name);
    if !kept.is_dir() {
        std::fs::create_dir_all(&all).unwrap();
        let draft = tempfile::tempdir_in(&all).unwrap();
        let folder = draft.path().join(MADE);
        std::fs::create_dir(&folder).unwrap();
        let mut command = Command::new(python);
        command.current_dir(ROOT).arg(&script).args(question.files).stdin(Stdio::null());
        if makes {
            command.arg(&folder);
        }
        let output = command.output().expect("a Python that runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(draft.path().join(SAID), &output.stdout).unwrap();
        // Another test may have been faster; then this draft goes.
        if std::fs::rename(draft.path(), &kept).is_ok() {
            let _ = draft.keep();
        }
    }
    Some(kept)
}
