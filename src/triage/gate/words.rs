//! Words for the head in the languages that scanners and sites speak, and words that say nothing.
//!
//! Body Part Examined (0018,0015) is free text in practice: protocol names, site languages, with or without diacritics,
//! sometimes decoded by the wrong character set.

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The part of the body that a text names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It names the head.
    Head,
    /// It is a placeholder, as good as absent.
    Nothing,
    /// It names a phantom for quality checks.
    Phantom,
    /// It names something else, or is a word that is not known here.
    Other,
}

/// Parts of words that name the head, upper case, without diacritics (see [`fold`]).
const HEAD: [&str; 77] = [
    // English, Latin
    "HEAD",
    "BRAIN",
    "SKULL",
    "CRANI",
    "CEREBR",
    "CEREBELL",
    "ENCEPHAL",
    "ENCEFAL",
    "CALVARI",
    "POSTERIOR FOSSA",
    // German, Dutch
    "KOPF",
    "SCHAEDEL",
    "SCHADEL",
    "HIRN",
    "HOOFD",
    "SCHEDEL",
    "HERSEN",
    // French, Spanish, Portuguese, Italian, Romanian
    "TETE",
    "CRANE",
    "CERVEAU",
    "CABEZA",
    "CABECA",
    "CERVELLO",
    "CREIER",
    // Swedish, Norwegian, Danish, Icelandic, Finnish
    "HUVUD",
    "SKALLE",
    "HJARN",
    "HJERNE",
    "HODE",
    "HOVED",
    "KRANI",
    "HOFUD",
    "AIVO",
    "KALLO",
    // Polish, Czech, Slovak, Croatian, Serbian, Slovene, Hungarian
    "GLOWA",
    "GLOWY",
    "CZASZK",
    "MOZG",
    "MOZEK",
    "MOZKU",
    "MOZOK",
    "MOZAK",
    "HLAVA",
    "HLAVY",
    "LEBKA",
    "GLAVA",
    "LUBANJA",
    "KOPONYA",
    // Turkish, Indonesian, Malay, Lithuanian, Latvian, Estonian
    "KAFA",
    "BEYIN",
    "KRANY",
    "KEPALA",
    "OTAK",
    "GALVA",
    "SMEGEN",
    "SMADZEN",
    "KOLJU",
    // Russian, Ukrainian, Bulgarian, Greek
    "ГОЛОВ",
    "МОЗГ",
    "МОЗОК",
    "МОЗЪК",
    "ЧЕРЕП",
    "ГЛАВА",
    "ΚΕΦΑΛ",
    "ΚΡΑΝΙ",
    // Chinese, Japanese, Korean
    "头",
    "頭",
    "颅",
    "顱",
    "脑",
    "腦",
    "脳",
    "머리",
    "두부",
    "두개",
    "뇌",
    // Hebrew
    "ראש",
];

/// Further ones, of scripts whose marks folding removes; they are folded like the text.
const HEAD_IN_OTHER_SCRIPTS: [&str; 9] = ["مغز", "رأس", "دماغ", "جمجمة", "جمجمه", "מוח", "गुरु मस्तिष्क", "ศีรษะ", "สมอง"];

/// Whole words that name the head and are too short to be looked for within others.
const HEAD_ALONE: [&str; 13] =
    ["CCT", "NCCT", "CTH", "CTB", "TESTA", "CAPO", "BAS", "PAA", "FEJ", "AGY", "NAO", "トウブ", "アタマ"];

/// Parts of words with which HEAD, KOPF or TETE mean the end of a bone or of the pancreas.
const HEADS_OF_OTHER_THINGS: [&str; 15] = [
    "FEMUR",
    "FEMOR",
    "HUMER",
    "RADIAL",
    "RADIUS",
    "FIBUL",
    "PANCREA",
    "PANKREA",
    "METATARS",
    "METACARP",
    "OBERSCHENKEL",
    "HUEFT",
    "HUFT",
    "SPEICHE",
    "SCHENKEL",
];

/// Placeholders, upper case, without diacritics, letters and digits only.
const PLACEHOLDERS: [&str; 38] = [
    "UNKNOWN",
    "UNKOWN",
    "UNK",
    "OTHER",
    "OTHERS",
    "NONE",
    "NA",
    "NOTAPPLICABLE",
    "NOTAVAILABLE",
    "UNDEFINED",
    "UNDEF",
    "UNSPECIFIED",
    "NOTSPECIFIED",
    "NOTASSIGNED",
    "DEFAULT",
    "NULL",
    "NIL",
    "EMPTY",
    "TBD",
    "ANY",
    "MISC",
    "GENERAL",
    "STANDARD",
    "BODYPART",
    "CT",
    "UNBEKANNT",
    "KEINE",
    "INCONNU",
    "DESCONOCIDO",
    "DESCONHECIDO",
    "SCONOSCIUTO",
    "ONBEKEND",
    "OKAND",
    "UKENDT",
    "NIEZNANY",
    "BILINMIYOR",
    "НЕИЗВЕСТНО",
    "알수없음",
];

/// The same in scripts that are not folded.
const PLACEHOLDERS_HAN: [&str; 4] = ["不明", "未知", "其他", "その他"];

/// Words of Study Description, Series Description and Protocol Name that name other parts of the body. They exclude
/// nothing: where no head is named beside them, the pixels are looked at.
const OTHER_PARTS: [&str; 40] = [
    "CHEST",
    "THORAX",
    "THORAC",
    "TORAX",
    "TORACE",
    "LUNG",
    "LUNGE",
    "POUMON",
    "PULMON",
    "HEART",
    "HERZ",
    "CARDIAC",
    "CORONARY",
    "ABDOMEN",
    "ABDOM",
    "ABD",
    "PELVIS",
    "PELVI",
    "BECKEN",
    "BASSIN",
    "LIVER",
    "LEBER",
    "KIDNEY",
    "NIERE",
    "UROGRAM",
    "COLON",
    "SPINE",
    "LSPINE",
    "TSPINE",
    "CSPINE",
    "WIRBEL",
    "LWS",
    "BWS",
    "HWS",
    "KNEE",
    "KNIE",
    "ANKLE",
    "FEMUR",
    "SHOULDER",
    "EXTREMITY",
];

/// The lists above as texts are compared with them. Folded once: every object that arrives is compared with all of them.
static HEAD_FOLDED: LazyLock<Vec<String>> =
    LazyLock::new(|| HEAD.iter().chain(&HEAD_IN_OTHER_SCRIPTS).map(|word| fold(word)).collect());
static HEAD_ALONE_FOLDED: LazyLock<Vec<String>> = LazyLock::new(|| HEAD_ALONE.iter().map(|word| fold(word)).collect());
static PLACEHOLDERS_FOLDED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let letters = PLACEHOLDERS.iter().map(|word| fold(word).replace(' ', ""));
    letters.chain(PLACEHOLDERS_HAN.iter().map(|word| fold(word))).collect()
});

/// Says what a text means, as far as these words go. `more`: further words for the head, of the site.
pub(super) fn part(text: &str, more: &[String]) -> Part {
    let readings = readings(text);
    if readings.iter().any(|reading| names_head(reading, more)) {
        return Part::Head;
    }
    if readings.iter().any(|reading| says_nothing(reading)) {
        return Part::Nothing;
    }
    match readings.iter().any(|reading| fold(reading).contains("PHANTOM")) {
        true => Part::Phantom,
        false => Part::Other,
    }
}

/// Whether a description names a part of the body that is not the head, and no head.
pub(super) fn names_another_part(description: &str, more: &[String]) -> bool {
    let folded = fold(description);
    !names_head(description, more) && tokens(&folded).any(|token| OTHER_PARTS.contains(&token))
}

/// Whether one of `words` stands in a text as a whole word or as a phrase of whole words; case and diacritics aside.
pub(super) fn has_phrase(text: &str, words: &[String]) -> Option<String> {
    let spaced = |text: &str| format!(" {} ", tokens(&fold(text)).collect::<Vec<_>>().join(" "));
    let text = spaced(text);
    words.iter().find(|word| !word.trim().is_empty() && text.contains(&spaced(word))).cloned()
}

fn names_head(text: &str, more: &[String]) -> bool {
    let folded = fold(text);
    if HEADS_OF_OTHER_THINGS.iter().any(|word| folded.contains(word)) {
        return false;
    }
    HEAD_FOLDED.iter().any(|word| folded.contains(word))
        || tokens(&folded).any(|token| HEAD_ALONE_FOLDED.iter().any(|word| word == token))
        || has_phrase(text, more).is_some()
}

fn says_nothing(text: &str) -> bool {
    let folded = fold(text);
    let letters: String = folded.chars().filter(|c| c.is_alphanumeric()).collect();
    letters.chars().all(|c| c == 'X' || c.is_ascii_digit()) || PLACEHOLDERS_FOLDED.contains(&letters)
}

fn tokens(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|c: char| !c.is_alphanumeric()).filter(|token| !token.is_empty())
}

/// The text as it is, and as it would be had UTF-8 not been taken for Latin-1: `TÃªTE` is `TêTE`.
fn readings(text: &str) -> Vec<String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let utf8 = bytes.filter(|bytes| !bytes.is_ascii()).and_then(|bytes| String::from_utf8(bytes).ok());
    std::iter::once(text.to_owned()).chain(utf8).collect()
}

/// Upper case without diacritics: compatibility decomposition (Unicode NFKD) without combining marks, and the letters that
/// have no decomposition.
pub(super) fn fold(text: &str) -> String {
    // ASCII decomposes into itself, and nearly every text is ASCII.
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let plain = text.nfkd().filter(|&c| !is_combining_mark(c)).flat_map(char::to_uppercase);
    plain.fold(String::new(), |mut folded, c| {
        match c {
            'Ł' => folded.push('L'),
            'Ø' => folded.push('O'),
            'Đ' | 'Ð' => folded.push('D'),
            'Æ' => folded.push_str("AE"),
            'Œ' => folded.push_str("OE"),
            'ẞ' => folded.push_str("SS"),
            c => folded.push(c),
        }
        folded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_known_in_many_languages_and_spellings() {
        for text in [
            "HEAD",
            "Head ",
            "BRAIN",
            "SKULL",
            "HEADNECK",
            "HEAD NECK",
            "HEAD_NECK",
            "CTHEAD",
            "CT HEAD W/O",
            "Kopf",
            "CRANIUM",
            "Schädel",
            "SCHAEDEL",
            "Schadel",
            "Tête",
            "TETE",
            "TÊTE",
            "crâne",
            "Cabeza",
            "CRÁNEO",
            "CABEÇA",
            "CABECA",
            "Crânio",
            "Testa",
            "CRANIO",
            "encefalo",
            "Hoofd",
            "schedel",
            "hersenen",
            "Huvud",
            "hjärna",
            "Głowa",
            "GLOWA",
            "mózg",
            "Beyin",
            "BAŞ",
            "kafa",
            "голова",
            "ГОЛОВНОЙ МОЗГ",
            "череп",
            "頭部",
            "头颅",
            "脳",
            "머리",
            "두부",
            "HEAD RADIOLOGY",
            "Κεφαλή",
            "رأس",
            "ראש",
            "ศีรษะ",
            "CCT",
            "Hlava",
            "KRANIE",
        ] {
            assert_eq!(part(text, &[]), Part::Head, "{text}");
        }
    }

    #[test]
    fn a_head_that_was_decoded_by_the_wrong_character_set_is_one() {
        for text in ["Tête", "SCHÄDEL", "голова", "頭部"] {
            let wrong: String = text.bytes().map(char::from).collect();
            assert_eq!(part(&wrong, &[]), Part::Head, "{text} as {wrong}");
        }
    }

    #[test]
    fn placeholders_say_nothing() {
        for text in
            ["UNKNOWN", "?", "??", "XX", "xxx", "***", "-", "n/a", "N.A.", "Other", "不明", "unbekannt", "0", "CT"]
        {
            assert_eq!(part(text, &[]), Part::Nothing, "{text}");
        }
    }

    #[test]
    fn other_parts_and_other_heads_are_no_head() {
        for text in [
            "CHEST",
            "ABDOMEN",
            "NECK",
            "CSPINE",
            "SINUS",
            "FEMORAL HEAD",
            "RADIAL HEAD",
            "Hüftkopf",
            "tête fémorale",
            "PANCREAS HEAD",
            "WHOLEBODY",
            "TRAUMA",
            "C.A.P.",
            "BASSIN",
            "TESTIS",
        ] {
            assert_eq!(part(text, &[]), Part::Other, "{text}");
        }
        assert_eq!(part("QA PHANTOM", &[]), Part::Phantom);
    }

    #[test]
    fn a_site_adds_words() {
        assert_eq!(part("NC", &[]), Part::Other);
        assert_eq!(part("NC", &["nc".into()]), Part::Head);
    }

    #[test]
    fn descriptions_of_other_parts_are_seen_and_mixed_ones_are_not() {
        assert!(names_another_part("CT Thorax/Abdomen", &[]));
        assert!(!names_another_part("CT HEAD AND CSPINE", &[]));
        assert!(!names_another_part("Routine", &[]));
    }
}
