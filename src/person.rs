//! A patient as people read of one: the name in each of its alphabets, and the age.

use jiff::Unit;
use jiff::civil::Date;

use crate::outside;

/// Characters of a name in a row.
const MOST_NAME: usize = 80;

/// A Person Name (PS3.5 section 6.2.1) for people: `Family, Given Middle (山田 太郎)`, as [`outside::shown`] shows it.
pub fn name(value: &str) -> Option<String> {
    let mut groups = value.split('=');
    let alphabetic = groups.next().map(alphabetic).filter(|name| !name.is_empty());
    let ideographic = groups.next().map(spaced).filter(|name| !name.is_empty());
    let name = match (alphabetic, ideographic) {
        (Some(name), Some(other)) => format!("{name} ({other})"),
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => groups.next().map(spaced).filter(|name| !name.is_empty())?,
    };
    let cut: String = name.chars().take(MOST_NAME).collect();
    Some(outside::shown(&cut).into_owned())
}

fn alphabetic(group: &str) -> String {
    let mut parts = group.split('^').map(str::trim);
    let family = parts.next().unwrap_or_default();
    let given = parts.next().unwrap_or_default();
    let middle = parts.next().unwrap_or_default();
    let (prefix, suffix) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let rest: Vec<&str> = [prefix, given, middle, suffix].into_iter().filter(|part| !part.is_empty()).collect();
    match (family.is_empty(), rest.is_empty()) {
        (_, true) => family.to_owned(),
        (true, _) => rest.join(" "),
        (false, false) => format!("{family}, {}", rest.join(" ")),
    }
}

fn spaced(group: &str) -> String {
    let parts: Vec<&str> = group.split('^').map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// A DICOM date, `YYYYMMDD` or, of old, `YYYY.MM.DD`.
pub fn date(value: &str) -> Option<Date> {
    let digits: String = value.chars().filter(|c| *c != '.' && *c != '-').collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Date::new(digits[..4].parse().ok()?, digits[4..6].parse().ok()?, digits[6..].parse().ok()?).ok()
}

/// The age between two dates: in years from two on, in months below, in days below one month.
pub fn age(birth: Date, at: Date) -> Option<String> {
    if at < birth {
        return None;
    }
    let span = birth.until((Unit::Year, at)).ok()?;
    Some(match (span.get_years(), span.get_months()) {
        (years @ 2.., _) => format!("{years} y"),
        (0, 0) => format!("{} d", span.get_days()),
        (years, months) => format!("{} mo", i32::from(years) * 12 + months),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_several_alphabets() {
        assert_eq!(name("Müller^Änne^Eva^Dr.^MD").unwrap(), "Müller, Dr. Änne Eva MD");
        assert_eq!(name("Yamada^Tarou=山田^太郎=やまだ^たろう").unwrap(), "Yamada, Tarou (山田 太郎)");
        assert_eq!(name("=山田^太郎").unwrap(), "山田 太郎");
        assert_eq!(name("==やまだ^たろう").unwrap(), "やまだ たろう");
        assert_eq!(name("DOE").unwrap(), "DOE");
        assert_eq!(name("^JANE").unwrap(), "JANE");
        assert_eq!(name("^^^"), None);
        assert_eq!(name("Doe\u{202e}^Jane\nScore: 0").unwrap(), "Doe\u{fffd}, Jane\u{fffd}Score: 0");
        assert_eq!(name(&"x".repeat(500)).unwrap().len(), MOST_NAME);
    }

    #[test]
    fn ages_of_the_old_and_of_the_newborn() {
        let age = |birth: &str, at: &str| age(date(birth)?, date(at)?);
        assert_eq!(age("19400229", "20260228").unwrap(), "85 y");
        assert_eq!(age("1940.02.29", "20260301").unwrap(), "86 y");
        assert_eq!(age("20250101", "20260601").unwrap(), "17 mo");
        assert_eq!(age("20260520", "20260601").unwrap(), "12 d");
        assert_eq!(age("20260601", "20260601").unwrap(), "0 d");
        assert_eq!(age("20270101", "20260601"), None);
        assert_eq!(age("19991399", "20260601"), None);
        assert_eq!(age("unknown!", "20260601"), None);
    }
}
