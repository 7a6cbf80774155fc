//! The search by name, patient ID and accession number: each study has words, and a search is for studies that have, for each
//! word of the question, one that begins with it.

use rusqlite::{Connection, OptionalExtension, params};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::ledger::{NewInstance, Result};

/// Words that are kept of one value, and the characters of each.
const MOST_WORDS: usize = 16;
const MOST_CHARACTERS: usize = 64;

/// The words of a text as they are compared: without case, accents and width.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut folded = String::new();
    for character in text.nfkd().filter(|character| !is_combining_mark(*character)).flat_map(char::to_lowercase) {
        match character {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'þ' => folded.push_str("th"),
            'ı' => folded.push('i'),
            other => folded.push(other),
        }
    }
    let words = folded.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.chars().take(MOST_CHARACTERS).collect()).take(MOST_WORDS).collect()
}

/// The words of a number that people type: also as one, and without the zeros at its beginning.
fn number_words(text: &str) -> Vec<String> {
    let mut all = words(text);
    if all.len() > 1 {
        all.push(all.concat().chars().take(MOST_CHARACTERS).collect());
    }
    let shorter: Vec<String> = (all.iter())
        .map(|word| word.trim_start_matches('0'))
        .zip(&all)
        .filter(|(shorter, word)| !shorter.is_empty() && shorter.len() < word.len())
        .map(|(shorter, _)| shorter.to_owned())
        .collect();
    all.extend(shorter);
    all
}

/// Whether an instance may bring words that its study does not have yet: it says otherwise than the study, or is its first. One
/// look at a row, so that the hundreds that follow cost no more.
pub(super) fn has_new_words(connection: &Connection, instance: &NewInstance) -> Result<bool> {
    let known: Option<bool> = connection
        .prepare_cached(
            "SELECT patient_name IS ?2 AND patient_id IS ?3 AND accession_number IS ?4 FROM studies WHERE study_uid = ?1",
        )?
        .query_row(
            params![
                instance.study_uid,
                instance.about.patient_name,
                instance.patient_id,
                instance.accession_number
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(known != Some(true))
}

/// Writes the words of a study's name, patient ID and accession number beside those that it has.
pub(super) fn add_words(
    connection: &Connection,
    study_uid: &str,
    patient_name: Option<&str>,
    patient_id: Option<&str>,
    accession_number: Option<&str>,
) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare_cached("INSERT INTO study_words (word, study_uid) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    let numbers = patient_id.into_iter().chain(accession_number).flat_map(number_words);
    for word in patient_name.map(words).unwrap_or_default().into_iter().chain(numbers) {
        insert.execute(params![word, study_uid])?;
    }
    Ok(())
}

/// For the migration: the words of all studies that are there.
pub(super) fn add_all_words(connection: &Connection) -> rusqlite::Result<()> {
    let mut studies =
        connection.prepare("SELECT study_uid, patient_name, patient_id, accession_number FROM studies")?;
    let mut rows = studies.query([])?;
    while let Some(row) = rows.next()? {
        let (uid, name): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        let (id, accession): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        add_words(connection, &uid, name.as_deref(), id.as_deref(), accession.as_deref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_without_case_accents_and_width() {
        assert_eq!(words("MÜLLER^Änne"), ["muller", "anne"]);
        assert_eq!(
            words("Yamada^Tarou=山田^太郎=やまだ^たろう"),
            ["yamada", "tarou", "山田", "太郎", "やまた", "たろう"]
        );
        assert_eq!(words("Straße Łódź ＡＢＣ"), ["strasse", "lodz", "abc"]);
        assert!(words("^^= ").is_empty());
        assert_eq!(words(&"x ".repeat(100)).len(), MOST_WORDS);
    }

    #[test]
    fn a_number_is_found_without_its_zeros_and_hyphens() {
        assert_eq!(number_words("0012345"), ["0012345", "12345"]);
        assert_eq!(number_words("CT-2026-007"), ["ct", "2026", "007", "ct2026007", "7"]);
        assert_eq!(number_words("000"), ["000"]);
    }
}
