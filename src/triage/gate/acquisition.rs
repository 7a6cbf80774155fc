//! How a slice was acquired, against what the model's card says it was made for.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use triaged_imaging::attributes::{text, values};
use triaged_model::{MadeFor, Tolerance};

use super::frame::Frame;
use super::words::{Part, fold, has_phrase, part};
use super::{CONTRAST, Notes, SHARP, shown};
use crate::config;

/// Applies the card's tolerance to what was found: nothing, a mark that lets another series of the study go first, or out.
fn tolerate(tolerance: Tolerance, notes: &mut Notes, said: String, not_made_for: &str) -> Option<String> {
    match tolerance {
        Tolerance::Allowed => None,
        Tolerance::Doubtful => {
            notes.substitute(said);
            None
        }
        Tolerance::Excluded => Some(format!("{said}, and the model was not made for {not_made_for}")),
    }
}

/// A contrast agent was given, by its attributes or because the series is an angiography.
pub(super) fn contrast(frame: &Frame, card: &MadeFor, rules: &config::Gate, notes: &mut Notes) -> Option<String> {
    let object = frame.object();
    let agent = text(object, tags::CONTRAST_BOLUS_AGENT).filter(|agent| {
        let folded = fold(agent);
        let letters: String = folded.chars().filter(|c| c.is_alphanumeric()).collect();
        !letters.is_empty() && letters.chars().any(|c| c != '0' && c != 'X') && !denies(&folded, &letters)
    });
    let volume = frame.number(tags::CONTRAST_BOLUS_USAGE_SEQUENCE, tags::CONTRAST_BOLUS_VOLUME);
    let administered = frame.text(tags::CONTRAST_BOLUS_USAGE_SEQUENCE, tags::CONTRAST_BOLUS_AGENT_ADMINISTERED);
    let has_items = |tag: Tag| object.get(tag).and_then(|e| e.items()).is_some_and(|items| !items.is_empty());
    let series = text(object, tags::SERIES_DESCRIPTION);
    // `HEAD NC PRE CTA` is the plain scan before the angiography.
    let angiography = (series.as_deref())
        .filter(|series| has_phrase(series, &rules.plain_words).is_none())
        .and_then(|series| has_phrase(series, &rules.contrast_words));
    let said = if let Some(agent) = agent {
        format!("{CONTRAST} {}", shown(&agent))
    } else if administered.is_some_and(|said| said.eq_ignore_ascii_case("YES"))
        || volume.is_some_and(|volume| volume > 0.0)
        || has_items(tags::CONTRAST_BOLUS_AGENT_SEQUENCE)
    {
        format!("{CONTRAST} given")
    } else if angiography.is_some() {
        format!("{CONTRAST}, by the series description {}", shown(&series.unwrap_or_default()))
    } else {
        return None;
    };
    tolerate(card.contrast, notes, said, "contrast agent")
}

/// `NONE`, `no`, `W/O CONTRAST`, `ohne KM`, `nativ`, `sans injection` …
fn denies(folded: &str, letters: &str) -> bool {
    const WHOLE: [&str; 11] = ["NO", "NON", "N", "NA", "NONE", "NIL", "UNKNOWN", "NULL", "NEIN", "NATIV", "NATIVE"];
    const BEGIN: [&str; 12] =
        ["NO ", "NON", "NONE", "WITHOUT", "W/O", "WO ", "OHNE", "SANS", "SIN ", "SEM ", "SENZA", "ZONDER"];
    WHOLE.contains(&letters) || BEGIN.iter().any(|begin| folded.trim_start().starts_with(begin))
}

/// A reconstruction kernel for bone or lung makes noise of the brain.
pub(super) fn kernel(frame: &Frame, card: &MadeFor, rules: &config::Gate, notes: &mut Notes) -> Option<String> {
    let kernel = frame.text(tags::CT_RECONSTRUCTION_SEQUENCE, tags::CONVOLUTION_KERNEL);
    let series = text(frame.object(), tags::SERIES_DESCRIPTION);
    let said = match (kernel, series) {
        (Some(kernel), _) if is_sharp(&kernel, rules) => format!("{SHARP} {}", shown(&kernel)),
        (_, Some(series)) if has_phrase(&series, &rules.sharp_series_words).is_some() => {
            format!("{SHARP}, by the series description {}", shown(&series))
        }
        _ => return None,
    };
    tolerate(card.sharp_kernel, notes, said, "sharp kernels")
}

fn is_sharp(kernel: &str, rules: &config::Gate) -> bool {
    let folded = fold(kernel);
    let listed = rules.sharp_kernels.iter().any(|word| match word.strip_suffix('*') {
        Some(begin) => folded.starts_with(&fold(begin)),
        None => folded == fold(word),
    });
    // Siemens: a letter or two, two digits of sharpness from 10 to 99, a letter. H31s is soft, H60s and Hr64h are sharp.
    let letters = folded.chars().take_while(char::is_ascii_alphabetic).count();
    let digits: String = folded.chars().skip(letters).take_while(char::is_ascii_digit).collect();
    let siemens = (1..=2).contains(&letters) && digits.len() == 2 && !folded.starts_with("FC");
    listed || siemens && digits.parse::<u32>().is_ok_and(|sharpness| sharpness >= 55)
}

/// KVP (0018,0060). Zero and absent say nothing.
pub(super) fn tube_voltage(frame: &Frame, card: &MadeFor, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let kvp = frame.number(tags::CTX_RAY_DETAILS_SEQUENCE, tags::KVP).filter(|kvp| *kvp > 0.0)?;
    let wrong = kvp < card.min_kvp || kvp > card.max_kvp;
    wrong.then(|| format!("{kvp} kV, and the model was made for {} to {} kV", card.min_kvp, card.max_kvp))
}

/// The patient's age in years, by Patient's Age (0010,1010) or by the date of birth, against the card's least age.
pub(super) fn age(frame: &Frame, card: &MadeFor, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let age = stated_age(frame).or_else(|| age_by_dates(frame))?;
    (age < card.min_age_years)
        .then(|| format!("the patient is younger than {} years, for whom the model was not made", card.min_age_years))
}

/// Patient's Age, VR AS: `045Y`, `018M`, `006W`, `012D`.
fn stated_age(frame: &Frame) -> Option<f64> {
    let text = text(frame.object(), tags::PATIENT_AGE)?;
    let (number, unit) = text.split_at(text.len().checked_sub(1).filter(|end| text.is_char_boundary(*end))?);
    let number: f64 = number.trim().parse().ok()?;
    let years = match unit.to_ascii_uppercase().as_str() {
        "Y" => number,
        "M" => number / 12.0,
        "W" => number / 52.18,
        "D" => number / 365.25,
        _ => return None,
    };
    (0.0..150.0).contains(&years).then_some(years)
}

fn age_by_dates(frame: &Frame) -> Option<f64> {
    let date = |tag| {
        let text = text(frame.object(), tag)?;
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<f64>().ok();
        Some(number(0..4)? + (number(4..6)? - 1.0) / 12.0 + (number(6..8)? - 1.0) / 365.25)
    };
    let years = date(tags::STUDY_DATE)? - date(tags::PATIENT_BIRTH_DATE)?;
    // A date of birth of 1900 or after the study is a placeholder.
    (0.0..120.0).contains(&years).then_some(years)
}

/// Images of phantoms for quality checks: Quality Control Image (0028,0300), and what their series are called. A description that names the
/// head, too, leaves it to the pixels ([`perhaps_quality_check`]).
pub(super) fn quality_check(frame: &Frame, rules: &config::Gate) -> Option<String> {
    let object = frame.object();
    if text(object, tags::QUALITY_CONTROL_IMAGE).is_some_and(|said| said.eq_ignore_ascii_case("YES")) {
        return Some("a phantom for quality checks: quality control image".into());
    }
    let said = quality_phrases(frame, rules)
        .find(|said| part(said, &rules.head_words) != Part::Head || is_of_phantom(said))?;
    Some(format!("a phantom for quality checks: {}", shown(&said)))
}

/// A description that names the head and a check of quality: `CT CEREBRAL - CHU QUEBEC, QC` is a hospital's, `HEAD QA` is a phantom's.
pub(super) fn perhaps_quality_check(frame: &Frame, rules: &config::Gate) -> Option<String> {
    let said = quality_phrases(frame, rules).next()?;
    Some(format!("perhaps a phantom for quality checks: {}", shown(&said)))
}

fn quality_phrases<'f>(frame: &'f Frame, rules: &'f config::Gate) -> impl Iterator<Item = String> + use<'f> {
    [tags::SERIES_DESCRIPTION, tags::STUDY_DESCRIPTION, tags::PROTOCOL_NAME]
        .into_iter()
        .flat_map(|tag| values(frame.object(), tag))
        .filter(|said| has_phrase(said, &rules.quality_phrases).is_some())
}

fn is_of_phantom(said: &str) -> bool {
    fold(said).contains("PHANTOM")
}
