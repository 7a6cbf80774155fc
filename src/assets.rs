//! Where the files lie that come with the program: the ONNX Runtime library and the models.

use std::path::{Path, PathBuf};

/// What the library is called without its version, as `make` and the system's packages install it.
const LIBRARY: &str = "libonnxruntime.so";

/// The model used where `inference.model` is empty.
const DEFAULT_CARD: &str = "m10.json";

/// The ONNX Runtime library: `setting` if given, `$ORT_DYLIB_PATH`, `lib/` beside the program, `../lib/triaged/`, else
/// its bare name for the system's loader to find.
pub fn onnxruntime(setting: &str) -> PathBuf {
    if !setting.is_empty() {
        return setting.into();
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let beside = beside_program(&["lib", "../lib", "../lib/triaged"]).map(|folder| folder.join(LIBRARY));
    beside.into_iter().find(|path| path.exists()).unwrap_or_else(|| LIBRARY.into())
}

/// The model card: `setting` if given, `models/` beside the program, `../share/triaged/models/`, else `./models/`.
pub fn model_card(setting: &str) -> PathBuf {
    if !setting.is_empty() {
        return setting.into();
    }
    let beside = beside_program(&["models", "../models", "../share/triaged/models"]).map(|f| f.join(DEFAULT_CARD));
    beside.into_iter().find(|path| path.exists()).unwrap_or_else(|| Path::new("models").join(DEFAULT_CARD))
}

/// Folders relative to the program's; tests run from `target/<profile>/deps`, one folder deeper, hence the `../`.
fn beside_program<const N: usize>(folders: &[&'static str; N]) -> [PathBuf; N] {
    let program = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
    folders.map(|folder| program.join(folder))
}
