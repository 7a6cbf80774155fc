//! The changes of an ablation's rows, and how the rows are shortened.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use triaged_imaging::Window;

use crate::candidates::candidate;
use crate::data::{Augment, SplitBy};
use crate::recipe::Recipe;

/// Whether a source's name is one of those that the sources of `synthesize` have: "synthetic", or that and more.
pub fn is_synthetic(source: &str) -> bool {
    source.starts_with("synthetic")
}

/// Brain, subdural and soft tissue.
const THREE_WINDOWS: [Window; 3] = [
    Window { center: 40.0, width: 80.0 },
    Window { center: 75.0, width: 215.0 },
    Window { center: 40.0, width: 380.0 },
];

/// The change of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Nothing: the recipe as it is, with which the others are compared
    Recipe,
    /// Stored values as in the study, instead of windows
    WindowsRaw,
    /// The slices as they are
    NoAugment,
    /// Every slice once an epoch with class weights, for as many draws in all
    NoBalance,
    /// Folds by image as in the study, so that one patient's slices are trained on and tested
    SplitImage,
    /// Fresh weights
    NoPretrained,
    /// Without the sources that are only trained on
    NoExtraSets,
    /// Brain, subdural and soft tissue windows as three channels
    ThreeWindows,
    /// The slices before and after each one as further channels
    Context,
    /// Brain and subdural windows as two channels
    TwoWindows,
    /// The whole field of view instead of the head
    NoCrop,
    /// Sources drawn as they come, so that a source's look can say something of the label
    NoLevel,
    /// Without the loss on single positions that masks of blood teach
    NoLocalization,
    /// The last weights instead of their average
    NoAveraging,
    /// Without drawn bleeds
    NoSynthetic,
    /// A tenth of each label spread over both classes
    LabelSmoothing,
    /// Three times as many epochs
    Longer,
    /// Images of 224 pixels
    #[value(name = "size-224")]
    #[serde(rename = "size-224")]
    Size224,
    /// Images of 320 pixels
    #[value(name = "size-320")]
    #[serde(rename = "size-320")]
    Size320,
    /// The larger EfficientNet-Lite1 in place of Lite0
    #[value(name = "network-lite1")]
    #[serde(rename = "network-lite1")]
    NetworkLite1,
    /// The larger EfficientNet-Lite2 in place of Lite0
    #[value(name = "network-lite2")]
    #[serde(rename = "network-lite2")]
    NetworkLite2,
    /// The network m10, trained by the same recipe
    #[value(name = "network-m10")]
    #[serde(rename = "network-m10")]
    NetworkM10,
}

/// A training that a row asks for: the recipe, how patients are split, whether sources that are only trained on take part, and
/// whether those of them with drawn bleeds do ([`is_synthetic`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    pub recipe: Recipe,
    pub split: SplitBy,
    pub extra_sets: bool,
    pub synthetic: bool,
}

impl Row {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// In words, for the table.
    pub fn text(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        let text = help.unwrap_or_default();
        let mut letters = text.chars();
        letters.next().map_or(String::new(), |first| first.to_lowercase().collect::<String>() + letters.as_str())
    }

    /// The whole training with this one thing changed; `train` slices are trained on an epoch where each comes once. None
    /// where the row changes nothing.
    pub fn change(self, whole: &Variant, train: usize) -> Option<Variant> {
        let mut variant = whole.clone();
        let recipe = &mut variant.recipe;
        match self {
            Row::Recipe => return Some(variant),
            Row::WindowsRaw => {
                recipe.feed_stored_values();
                recipe.augmentation.window = 0.0;
            }
            Row::NoAugment => recipe.augmentation = Augment::NONE,
            Row::NoBalance => {
                // Both are of draws.
                (recipe.sources, recipe.level_sources) = (BTreeMap::new(), false);
                if let Some(draws) = recipe.balance.take() {
                    let epochs = (recipe.epochs * draws) as f64 / train.max(1) as f64;
                    shorten(recipe, (epochs.round() as usize).max(1));
                }
            }
            Row::SplitImage => variant.split = SplitBy::Image,
            Row::NoPretrained => recipe.pretrained = None,
            Row::NoExtraSets => variant.extra_sets = false,
            Row::ThreeWindows => recipe.windows = THREE_WINDOWS.to_vec(),
            Row::Context => recipe.context = true,
            Row::TwoWindows => recipe.windows = THREE_WINDOWS[..2].to_vec(),
            Row::NoCrop => recipe.crop_to_head = None,
            Row::NoLevel => recipe.level_sources = false,
            Row::NoLocalization => recipe.localization = 0.0,
            Row::NoAveraging => recipe.averaging = 0.0,
            Row::NoSynthetic => variant.synthetic = false,
            Row::LabelSmoothing => recipe.label_smoothing = 0.1,
            Row::Longer => shorten(recipe, 3 * recipe.epochs),
            Row::Size224 => recipe.size = 224,
            Row::Size320 => recipe.size = 320,
            Row::NetworkLite1 => relative(recipe, "m12-lite1"),
            Row::NetworkLite2 => relative(recipe, "m12-lite2"),
            Row::NetworkM10 => (recipe.candidate, recipe.pretrained) = ("m10".into(), None),
        }
        (variant != *whole).then_some(variant)
    }
}

/// A larger relative of a recipe's network, begun as that is; a network of another family has none, and stays.
fn relative(recipe: &mut Recipe, name: &str) {
    let original = |name: &str| candidate(name).and_then(|candidate| candidate.original());
    if original(&recipe.candidate).is_some()
        && let Some(weights) = original(name)
    {
        recipe.candidate = name.into();
        recipe.pretrained = recipe.pretrained.take().map(|_| weights.file.into());
    }
}

/// Fewer epochs, or more: those on images of half the edge keep their share.
pub fn shorten(recipe: &mut Recipe, epochs: usize) {
    let share = recipe.half_size_epochs as f64 / recipe.epochs.max(1) as f64;
    // At least one epoch sees whole images.
    recipe.half_size_epochs = ((share * epochs as f64).round() as usize).min(epochs.saturating_sub(1));
    recipe.epochs = epochs;
}

/// The parts of the recipe that were left out to save time; empty where none were.
pub fn shortened(written: &Recipe, used: &Recipe, folds: usize, only: usize) -> String {
    let mut texts = Vec::new();
    let mut note = |used: usize, written: usize, of: &str| {
        if used != written {
            texts.push(format!("{used} of {written} {of}"));
        }
    };
    note(used.epochs, written.epochs, "epochs");
    if let (Some(used), Some(written)) = (used.balance, written.balance) {
        note(used, written, "draws an epoch");
    }
    note(used.size as usize, written.size as usize, "pixels");
    note(only, folds, "folds");
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Variant {
        Variant {
            recipe: Recipe::open("m10").expect("m10's recipe"),
            split: SplitBy::Patient,
            extra_sets: true,
            synthetic: true,
        }
    }

    #[test]
    fn each_row_changes_one_thing() {
        let whole = whole();
        let changed = |row: Row| row.change(&whole, 2000);
        assert_eq!(changed(Row::Recipe).as_ref(), Some(&whole));
        assert_eq!(changed(Row::NoPretrained), None, "m10 begins with fresh weights");
        assert_eq!(changed(Row::NetworkM10), None);
        let of = |row| changed(row).unwrap_or_else(|| panic!("{row:?} changes something"));
        let recipe = |row| of(row).recipe;
        assert_eq!((recipe(Row::WindowsRaw).windows.len(), recipe(Row::ThreeWindows).windows.len()), (0, 3));
        assert_eq!(recipe(Row::NoAugment), Recipe { augmentation: Augment::NONE, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::Size224), Recipe { size: 224, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::Size320), Recipe { size: 320, ..whole.recipe.clone() });
        assert_eq!(of(Row::SplitImage), Variant { split: SplitBy::Image, ..whole.clone() });
        assert_eq!(of(Row::NoExtraSets), Variant { extra_sets: false, ..whole.clone() });
        assert_eq!(recipe(Row::TwoWindows).windows, THREE_WINDOWS[..2]);
        assert_eq!(recipe(Row::NoCrop), Recipe { crop_to_head: None, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::NoLevel), Recipe { level_sources: false, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::NoLocalization), Recipe { localization: 0.0, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::NoAveraging), Recipe { averaging: 0.0, ..whole.recipe.clone() });
        assert_eq!(recipe(Row::LabelSmoothing), Recipe { label_smoothing: 0.1, ..whole.recipe.clone() });
        // 33 epochs, of which 9/11 at half size.
        assert_eq!((recipe(Row::Longer).epochs, recipe(Row::Longer).half_size_epochs), (33, 27));
        assert_eq!(of(Row::NoSynthetic), Variant { synthetic: false, ..whole.clone() });
        let none_drawn = Variant { synthetic: false, ..whole.clone() };
        assert_eq!(Row::NoSynthetic.change(&none_drawn, 2000), None, "there are none");
        assert!(is_synthetic("synthetic") && is_synthetic("synthetic-b") && !is_synthetic("ct-ich"));
        assert_eq!(changed(Row::NetworkLite2), None, "m10 has no such relative");
        // As many draws in all: 11 epochs of 2,000 are 22 of 1,000, of which 9/11 at half size.
        let unbalanced = Row::NoBalance.change(&whole, 1000).expect("m10 is balanced").recipe;
        assert_eq!((unbalanced.balance, unbalanced.epochs, unbalanced.half_size_epochs), (None, 22, 18));
        for row in Row::value_variants() {
            assert!(!row.text().is_empty() && serde_json::to_value(row).expect("a name") == row.name(), "{row:?}");
        }
    }

    #[test]
    fn a_larger_relative_begins_with_its_own_weights() {
        let whole = Variant { recipe: Recipe::open("m12").expect("m12's recipe"), ..whole() };
        for (row, name, file) in [
            (Row::NetworkLite1, "m12-lite1", "efficientnet-lite1"),
            (Row::NetworkLite2, "m12-lite2", "efficientnet-lite2"),
        ] {
            let Some(Variant { recipe, .. }) = row.change(&whole, 2000) else { panic!("{name} is another network") };
            assert_eq!(recipe.candidate, name);
            assert!(recipe.pretrained.is_some_and(|path| path.to_string_lossy().contains(file)));
        }
    }

    /// A row that is refused after its hours of neighbours would be found out late.
    #[test]
    fn every_row_of_every_shipped_recipe_is_a_training() {
        for name in ["m10", "m11", "m12"] {
            // The weights are not in the repository.
            let recipe = Recipe { pretrained: None, ..Recipe::open(name).expect("a shipped recipe") };
            let whole = Variant { recipe, split: SplitBy::Patient, extra_sets: true, synthetic: true };
            for row in Row::value_variants() {
                let Some(changed) = row.change(&whole, 2000) else { continue };
                if let Err(error) = changed.recipe.config(1) {
                    panic!("{name}, {row:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn what_was_shortened_is_said() {
        let written = whole().recipe;
        let mut used = written.clone();
        assert_eq!(shortened(&written, &used, 5, 5), "");
        shorten(&mut used, 2);
        used.balance = Some(100);
        used.size = 128;
        assert_eq!(used.half_size_epochs, 1, "one epoch sees whole images");
        let text = shortened(&written, &used, 5, 2);
        assert_eq!(text, "2 of 11 epochs, 100 of 2000 draws an epoch, 128 of 512 pixels, 2 of 5 folds");
    }
}
