//! Networks, inputs, rules and settings in words, for cards, reports and comparisons.

use triaged_imaging::Transform;
use triaged_model::StudyRule;

use crate::candidates::{PUBLISHED, candidate};
use crate::fit::{FitConfig, Schedule};
use crate::network::Layer;

/// Optimizer, schedule and what else the loss is of.
pub fn rate(config: &FitConfig) -> String {
    let optimizer = match config.weight_decay {
        0.0 => "Adam".into(),
        decay => format!("AdamW with weight decay {decay}"),
    };
    let schedule = match config.schedule {
        Schedule::Constant => "at",
        Schedule::OneCycle => "in one cycle up to",
    };
    let half = match config.half_size_epochs {
        0 => String::new(),
        epochs => format!("; the first {epochs} epochs on images of half the edge"),
    };
    let localization = match config.localization {
        0.0 => String::new(),
        weight => format!(
            "; beside it, weighted {weight}, a loss on single positions of the last image, shown masks of blood where there are \
             any"
        ),
    };
    let grid = config.position_grid.map_or(String::new(), |edge| {
        format!(
            "; in training the first dense layer's weights were interpolated from {edge}×{edge} positions (written out, \
             the network is the study's)"
        )
    });
    format!("{optimizer} {schedule} {}{grid}{half}{localization}", config.learning_rate)
}

/// Describes the kind of network that a candidate is.
pub fn architecture(name: &str) -> String {
    match candidate(name).and_then(|candidate| candidate.original()) {
        None if PUBLISHED.contains(&name) => format!("The study's architecture {name}"),
        None => format!("Architecture {name}"),
        Some(original) => format!("Architecture {name}, {} with a single output unit", original.network),
    }
}

/// A text that begins with a capital.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// A list of layers, in their order.
pub fn layers(layers: &[Layer]) -> String {
    let name = |layer: &Layer| match layer {
        Layer::BatchNorm => "batch normalization".into(),
        Layer::Conv { filters, kernel } => format!("{filters} convolutions {kernel}×{kernel} with ReLU"),
        Layer::MaxPool { size } => format!("max pool {size}"),
        Layer::Dropout { rate } => format!("dropout {rate}"),
        Layer::Stem { filters, kernel } => {
            format!("{filters} convolutions {kernel}×{kernel} at every second position with ReLU6")
        }
        Layer::InvertedResidual { filters, kernel, stride, expansion, repeats } => {
            let step = if *stride == 1 { String::new() } else { format!(" in steps of {stride}") };
            format!(
                "{repeats} inverted residual block(s) of {filters} channels, widened {expansion} times, depthwise \
                 {kernel}×{kernel}{step}"
            )
        }
        Layer::Head { filters } => format!("{filters} convolutions 1×1 with ReLU6"),
        Layer::GlobalAveragePool => "the mean of each channel".into(),
        Layer::Flatten => "flatten".into(),
        Layer::Dense { units } => format!("dense {units} with ReLU"),
        Layer::Output => "one sigmoid unit".into(),
    };
    layers.iter().map(name).collect::<Vec<String>>().join(", ")
}

/// A model's input.
pub fn input(transform: &Transform) -> String {
    let [channels, height, width] = transform.shape();
    match transform {
        Transform::StoredValues { .. } => format!("stored pixel values, {height}×{width}"),
        Transform::HounsfieldWindows { windows, normalization, crop_to_head, .. } => {
            let windows: Vec<String> =
                windows.iter().map(|w| format!("center {} width {} HU", w.center, w.width)).collect();
            let normalized = normalization.map_or(String::new(), |normalization| {
                format!(", normalized by mean {} and deviation {}", normalization.mean, normalization.deviation)
            });
            let cropped = crop_to_head.map_or("", |_| ", cropped to the head");
            format!(
                "{channels} channel(s) of {height}×{width}{cropped}, window {}, 0 to 1{normalized}",
                windows.join(" and ")
            )
        }
    }
}

/// When a study is flagged.
pub fn rule(rule: &StudyRule) -> String {
    match rule {
        StudyRule::TopKMean { k, threshold } => {
            format!("a study is flagged when the mean of its {k} highest probabilities is at least {threshold:.4}.")
        }
        StudyRule::KthHighest { k, threshold } => {
            format!("a study is flagged when at least {k} slices have a probability of at least {threshold:.4}.")
        }
        StudyRule::NoisyOr { threshold } => {
            format!(
                "a study is flagged when the chance that any of its slices is positive, were they independent, is at least \
                 {threshold:.6}."
            )
        }
    }
}
