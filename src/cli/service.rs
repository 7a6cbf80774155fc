//! The node that was installed as a service: where its settings are.

use std::io;
use std::path::{Path, PathBuf};

use triaged::config::Settings;

/// The folders into which `make install` lays them, as systemd's unit names them.
const CONFIG: &str = "/etc/triaged/triaged.toml";

/// The service's settings, unless a node has run in this folder with the built-in ones: then that is the one to ask.
pub fn config() -> Option<PathBuf> {
    // Whatever is wrong with the environment is said when the settings are read.
    let ran_here = Settings::load(None, &[]).is_ok_and(|settings| is_there(&settings.database()));
    let is_chosen = ran_here || std::env::var_os("TRIAGED__DATA_DIR").is_some();
    (!is_chosen && is_there(Path::new(CONFIG))).then(|| CONFIG.into())
}

/// A file that this user may not look at is there: its message says more than that of an absent one.
fn is_there(path: &Path) -> bool {
    match path.try_exists() {
        Ok(there) => there,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}
