//! Finds the files that come with the program: the ONNX Runtime library and the models.

use std::path::{Path, PathBuf};

/// The library's name without its version, as `make` and the system's packages install it.
const LIBRARY: &str = "libonnxruntime.so";

/// The model used where `inference.model` is empty.
const DEFAULT_MODEL: &str = "m11";

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

/// The model card that `setting` means: a path, or a model's name such as `m11`, whose card is looked for in `models/`
/// beside the program, in `../share/triaged/models/`, and then in `./models/`.
pub fn model_card(setting: &str) -> PathBuf {
    let name = if setting.is_empty() { DEFAULT_MODEL } else { setting };
    if name.contains('/') || name.ends_with(".json") {
        return name.into();
    }
    let card = format!("{name}.json");
    let beside = beside_program(&["models", "../models", "../share/triaged/models"]).map(|folder| folder.join(&card));
    beside.into_iter().find(|path| path.exists()).unwrap_or_else(|| Path::new("models").join(card))
}

/// Folders relative to the program's; tests run from `target/<profile>/deps`, one folder deeper, hence the `../`.
fn beside_program<const N: usize>(folders: &[&'static str; N]) -> [PathBuf; N] {
    let program = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
    folders.map(|folder| program.join(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_or_its_card_is() {
        assert_eq!(model_card("/srv/models/m11.json"), Path::new("/srv/models/m11.json"));
        assert_eq!(model_card("m11.json"), Path::new("m11.json"), "a file in the current folder");
        assert_eq!(model_card("models/other"), Path::new("models/other"));
        assert!(model_card("m11-trial").ends_with("models/m11-trial.json"));
        assert_eq!(model_card(""), model_card("m11"));
    }
}
