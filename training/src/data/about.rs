//! What a folder says of itself: how to cite it, under which terms it may be used, and what to know of its images.

use std::path::Path;

use serde::Deserialize;

/// The file of a labelled folder that says it.
pub const ABOUT: &str = "source.toml";

/// Its keys; what is left out is not recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub citation: Option<String>,
    pub terms: Option<String>,
    pub note: Option<String>,
}

impl About {
    /// Of a folder; none where it has no such file.
    ///
    /// # Errors
    /// A file that cannot be read, in words: a model would be given away under no terms.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        match std::fs::read_to_string(folder.join(ABOUT)) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| error.to_string().trim().replace('\n', " ")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_its_terms_and_a_wrong_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(About::read(folder.path()), Ok(None));
        std::fs::write(folder.path().join(ABOUT), "terms = \"research only\"\n").expect("written");
        let about = About::read(folder.path()).expect("an about").expect("is there");
        assert_eq!((about.terms.as_deref(), about.citation), (Some("research only"), None));
        std::fs::write(folder.path().join(ABOUT), "licence = \"none\"\n").expect("written");
        assert!(About::read(folder.path()).expect_err("no such key").contains("licence"));
    }
}
