//! Counts as people read them.

/// `1 slice`, `2 slices`; `1 study`, `2 studies`; `1 series`, `2 series`.
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 || what.ends_with("series") {
        return format!("{count} {what}");
    }
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {what}s"),
    }
}

/// What one thing does, or several: `is` or `are`, `has` or `have`.
pub fn verb(count: u64, one: &'static str, several: &'static str) -> &'static str {
    if count == 1 { one } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_singular() {
        for (count, what, said) in [
            (0, "slice", "0 slices"),
            (1, "attempt", "1 attempt"),
            (2, "attempt", "2 attempts"),
            (1, "study", "1 study"),
            (2, "study", "2 studies"),
            (2, "day", "2 days"),
            (2, "series", "2 series"),
        ] {
            assert_eq!(counted(count, what), said);
        }
    }
}
