//! The two cards of a trained model: `<name>.json` that the node reads, `<name>.md` that people read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use triaged_imaging::Transform;
use triaged_model::StudyRule;
use triaged_model::{CARD_FORMAT, ModelCard};

use crate::ablation::Ablation;
use crate::calibration::{Calibrated, Platt};
use crate::candidates::{Layer, STUDY, parameters};
use crate::cross_validation::CrossValidation;
use crate::data::{self, Index, Side, Slice, Split};
use crate::evaluate::{Beside, Decision, Evaluation, HeldOut};
use crate::export;
use crate::fit::{FitConfig, Monitor, Schedule, State};
use crate::parity::Parity;
use crate::pretrained;
use crate::quantize::Quantized;
use crate::rules;

/// What the model finds.
pub const FINDING: &str = "intracranial hemorrhage";

/// The folder that `phantoms` is told to write in the documentation: its heads are no patients.
const PHANTOMS: &str = "phantoms";

/// What is known of a data source: how to cite it, under which terms it may be used, and what to know of its images.
struct Known {
    citation: &'static str,
    terms: &'static str,
    note: &'static str,
}

/// Sources by the name of their folder.
fn known(source: &str) -> Option<Known> {
    Some(match source {
        "ct-ich" => Known {
            citation: "M. Hssayeni, M. S. Croock, A. D. Salman, H. F. Al-khafaji, Z. A. Yahya, B. Ghoraani: Intracranial \
                       Hemorrhage Segmentation Using a Deep Convolutional Model. Data 5(1):14, 2020; PhysioNet, CT-ICH \
                       version 1.0.0.",
            terms: "Creative Commons Attribution 4.0, as the data descriptor has it; versions from 1.3.1 on are restricted",
            note: "reconstructed HU: published as windowed 8-bit images, brain and bone windows fused back into about \
                   2 HU steps between -20 and 104 HU, coarser outside; 650×650 resampled to 512×512",
        },
        "rsna-png" => Known {
            citation: "A. E. Flanders et al.: Construction of a Machine Learning Dataset through Collaboration: The RSNA \
                       2019 Brain CT Hemorrhage Challenge. Radiology: Artificial Intelligence 2(3), 2020.",
            terms: "RSNA challenge data: non-commercial use, with citation of the challenge",
            note: "reconstructed HU: 224×224 brain-window PNG enlarged to 512×512, clipped to 0 to 80 HU",
        },
        "head-ct-200" => Known {
            citation: "F. Kitamura: Head CT - hemorrhage. Kaggle, 2018.",
            terms: "as published on Kaggle",
            note: "reconstructed HU: web figures of all sizes with burned-in marks, clipped to 0 to 80 HU",
        },
        PHANTOMS => Known {
            citation: "Synthetic head CT made by this project's own phantom generator.",
            terms: "as this project",
            note: "no patients; trained on, with masks of their blood where the training has witnesses, so that filters learn \
                   what blood is and the demonstration's phantoms are judged; never part of a figure about patients",
        },
        _ => return None,
    })
}

/// One source's part in a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SourceAbout {
    source: String,
    patients: usize,
    slices: usize,
    positive_slices: usize,
    role: String,
    citation: String,
    terms: String,
    note: String,
}

/// Where decision and figures come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Patients held back from training.
    HeldOut(HeldOut),
    /// Networks trained as this one, each on all patients but its fold's; this one on all of them.
    Crossed(CrossValidation),
}

impl Measured {
    /// What the card says of when to flag, and how the exported network is calibrated.
    pub fn decision(&self) -> &Decision {
        match self {
            Measured::HeldOut(held) => &held.decision,
            Measured::Crossed(crossed) => &crossed.decision,
        }
    }

    /// For the card that the node reads.
    fn about(&self) -> serde_json::Value {
        match self {
            Measured::HeldOut(held) => json!({ "validation": held.validation, "test": held.test }),
            // What stands beside the figures has its own places in the card.
            Measured::Crossed(crossed) => {
                json!({ "cross_validation": CrossValidation { beside: Beside::default(), ..crossed.clone() } })
            }
        }
    }

    fn beside(&self) -> &Beside {
        match self {
            Measured::HeldOut(held) => &held.beside,
            Measured::Crossed(crossed) => &crossed.beside,
        }
    }

    /// For people, in Markdown; with a sentence on when the share of studies to flag was chosen.
    fn text(&self, when_chosen: &str) -> String {
        match self {
            Measured::HeldOut(HeldOut { decision, validation, test, .. }) => format!(
                "The slice threshold has the highest F2 on the validation slices; the study rule's threshold flags at least \
                 {:.0} % of the validation studies with hemorrhage. {}\n\n\
                 On {} test patients, unseen in training and in choosing thresholds:\n\n{}\n\
                 On the {} validation patients, on which epoch, thresholds and rule were chosen, and so too good:\n\n{}\n",
                100.0 * decision.wanted_sensitivity,
                when_chosen,
                test.patients,
                test.table(),
                validation.patients,
                validation.table()
            ),
            Measured::Crossed(crossed) => format!(
                "By {}-fold cross-validation: the {} patients in {} parts, each scored by a network that was trained on the \
                 others as this one was, and judged by thresholds and a rule that were chosen on the others. The network here \
                 is trained on all of them; its slice threshold has the highest F2 over all folds' slices, its study rule's \
                 threshold flags at least {:.0} % of all folds' studies with hemorrhage, as each fold's own did of the others'. \
                 {} The studies' AUC over all folds is that of the rule chosen on all of them, so on the patients themselves that \
                 it is taken on; all other figures are by what the other folds chose.\n\n{}\n",
                crossed.folds.len(),
                crossed.pooled.patients,
                crossed.folds.len(),
                100.0 * crossed.decision.wanted_sensitivity,
                when_chosen,
                crossed.table()
            ),
        }
    }
}

/// All that a card is written from.
pub struct Trained<'a> {
    pub config: &'a FitConfig,
    pub state: &'a State,
    pub index: &'a Index,
    pub split: &'a Split,
    pub measured: &'a Measured,
    /// Figures on other sets, by name, that `evaluate --on` has left with the run.
    pub others: &'a BTreeMap<String, Evaluation>,
    pub parity: Option<&'a Parity>,
    /// Of an eight-bit copy: how it stands to the network it was made from.
    pub quantized: Option<&'a Quantized>,
    /// A table that `ablate` made.
    pub ablation: Option<&'a Ablation>,
    /// Of this program's sources, as git names it.
    pub commit: &'a str,
    pub device: &'a str,
    pub version: &'a str,
}

impl Trained<'_> {
    /// The model's, and its files'.
    pub fn name(&self) -> String {
        let network = &self.config.candidate.name;
        if self.quantized.is_some() { format!("{network}-int8") } else { network.clone() }
    }

    fn sources(&self) -> Vec<SourceAbout> {
        let names: BTreeSet<&str> = self.index.slices.iter().map(|slice| slice.source.as_str()).collect();
        let about = |name: &str| {
            let slices: Vec<_> = self.index.slices.iter().filter(|slice| slice.source == name).collect();
            let train_only = self.split.train_only.iter().any(|source| source == name);
            let known = known(name);
            let text = |of: fn(&Known) -> &'static str| known.as_ref().map_or("not recorded", of).to_owned();
            SourceAbout {
                source: name.into(),
                patients: data::patients(&slices).len(),
                slices: slices.len(),
                positive_slices: slices.iter().filter(|slice| slice.positive).count(),
                role: if train_only { TRAINING_ONLY.into() } else { self.role(name) },
                citation: text(|known| known.citation),
                terms: text(|known| known.terms),
                note: text(|known| known.note),
            }
        };
        names.into_iter().map(about).collect()
    }

    /// What a source that is measured was used for.
    fn role(&self, source: &str) -> String {
        if let Measured::Crossed(_) = self.measured {
            return "training, and measured out of fold".into();
        }
        let sides = [(Side::Train, "training"), (Side::Validation, "validation"), (Side::Test, "test")];
        let has = |side| self.split.slices(self.index, side).iter().any(|slice| slice.source == source);
        let names: Vec<&str> = sides.into_iter().filter(|(side, _)| has(*side)).map(|(_, name)| name).collect();
        match names.as_slice() {
            [] => "no part".into(),
            [one] => (*one).into(),
            [most @ .., last] => format!("{} and {last}", most.join(", ")),
        }
    }

    /// Whom the network was trained on.
    fn trained_on(&self) -> String {
        let train = self.split.slices(self.index, Side::Train);
        let (phantoms, patients): (Vec<&Slice>, Vec<&Slice>) =
            train.into_iter().partition(|slice| slice.source == PHANTOMS);
        match (data::patients(&patients).len(), data::patients(&phantoms).len()) {
            (patients, 0) => format!("{patients} patients"),
            (0, phantoms) => format!("{phantoms} phantoms and no patient"),
            (patients, phantoms) => format!("{patients} patients and {phantoms} phantoms"),
        }
    }

    /// When the share of studies that the study rule must flag was chosen, as far as the run knows.
    fn when_chosen(&self) -> String {
        match self.state.first_sensitivity.filter(|first| *first != self.config.study_sensitivity) {
            Some(first) => format!(
                "The run was begun asking for {:.0} %: this share was chosen later, when figures could have been seen.",
                100.0 * first
            ),
            None => "Nothing here records whether that share, a setting of the recipe, was chosen before any figures on these \
                     data were seen."
                .into(),
        }
    }

    /// How many patients or images stand on which side.
    fn sides(&self) -> String {
        let [train, validation, test] = [Side::Train, Side::Validation, Side::Test].map(|side| self.split.count(side));
        match self.measured {
            Measured::Crossed(crossed) => format!(
                "all {train} in training; for the figures those that are not only trained on were divided into {} folds",
                crossed.folds.len()
            ),
            Measured::HeldOut(_) => format!("{train} in training, {validation} for validation, {test} for the test"),
        }
    }

    fn seconds(&self) -> f64 {
        self.state.epochs.iter().map(|row| row.seconds).sum()
    }

    /// The card that the node reads, for these ONNX bytes.
    pub fn card(&self, onnx: &[u8]) -> ModelCard {
        let config = self.config;
        let patients = |side| self.split.count(side);
        let mut about = json!({
            "intended_use": "research and demonstration; not for clinical use",
            "architecture": {
                "name": config.candidate.name,
                "layers": config.candidate.layers,
                "parameters": parameters(&config.candidate.layers, config.shape()).unwrap_or(0),
            },
            "training": {
                "pretrained": config.pretrained.as_ref().map(|file| {
                    json!({ "sha256": file.sha256, "source": pretrained::SOURCE })
                }),
                "epochs": self.state.epochs.len(),
                "epochs_allowed": config.epochs,
                "best_epoch": self.state.best,
                "draws_per_epoch": config.balance,
                "batch": config.batch,
                "learning_rate": config.learning_rate,
                "schedule": config.schedule,
                "weight_decay": config.weight_decay,
                "position_grid": config.position_grid,
                "half_size_epochs": config.half_size_epochs,
                "witness": config.witness,
                "augmentation": config.augment,
                "source_weights": config.sources,
                "monitor": config.monitor,
                "study_sensitivity": config.study_sensitivity,
                "seconds": self.seconds().round(),
                "device": self.device,
                "seed": config.seed,
                "commit": self.commit,
                "history": self.state.epochs,
            },
            "data": self.sources(),
            "split": {
                "by": self.split.by,
                "seed": self.split.seed,
                "train": patients(Side::Train),
                "validation": patients(Side::Validation),
                "test": patients(Side::Test),
                "training_only_sources": self.split.train_only,
            },
            "intervals": "95 %, percentile bootstrap over patients",
            "other_sets": self.others,
            "parity_with_onnx_runtime": self.parity,
            "quantized": self.quantized,
            "calibration": self.measured.decision().calibration.map(|Platt { a, b }| json!({
                "method": "Platt scaling, within the model: sigmoid(a · logit + b) of the network as it was trained",
                "a": a,
                "b": b,
                "slices": self.measured.beside().reliability,
            })),
            "study_rules": self.measured.beside().study_rules,
            "sources": self.measured.beside().sources,
            // The node scores a slice once: these figures are not those of the model it runs.
            "with_test_time_flip": self.measured.beside().test_time_flip,
            "ablation": self.ablation,
        });
        if let (Some(about), serde_json::Value::Object(measured)) = (about.as_object_mut(), self.measured.about()) {
            about.extend(measured);
            about.retain(|_, value| !value.is_null());
        }
        ModelCard {
            format: CARD_FORMAT,
            name: self.name(),
            version: self.version.into(),
            finding: FINDING.into(),
            file: format!("{}.onnx", self.name()),
            sha256: hex::encode(Sha256::digest(onnx)),
            input: export::INPUT.into(),
            output: export::OUTPUT.into(),
            transform: config.transform.clone(),
            slice_threshold: self.measured.decision().slice_threshold,
            study_rule: self.measured.decision().study_rule,
            about,
        }
    }

    /// The card that people read, in Markdown.
    pub fn text(&self) -> String {
        let config = self.config;
        let name = self.name();
        let count = parameters(&config.candidate.layers, config.shape()).unwrap_or(0);
        let mut data = String::new();
        for source in self.sources() {
            data += &format!(
                "- **{}**: {} patients, {} slices, {} with hemorrhage; {}. {}. {} Terms: {}.\n",
                source.source,
                source.patients,
                source.slices,
                source.positive_slices,
                source.role,
                capital(&source.note),
                source.citation,
                source.terms
            );
        }
        let mut others = String::new();
        for (name, evaluation) in self.others {
            others += &format!("On all of {name}, by the same decision:\n\n{}\n", evaluation.table());
        }
        let epochs = match self.state.best {
            Some(_) if config.monitor == Monitor::Last && self.split.count(Side::Validation) == 0 => {
                format!("{} epochs, the last of them kept", self.state.epochs.len())
            }
            Some(_) if config.monitor == Monitor::Last => {
                format!("{} epochs, the last of them kept whatever the validation said", self.state.epochs.len())
            }
            Some(best) => format!("{} epochs, the best of them epoch {best}", self.state.epochs.len()),
            None => "no epoch: **untrained**".into(),
        };
        let draws = match config.balance {
            Some(draws) => format!("{draws} draws an epoch, half of them with hemorrhage"),
            None => "every training slice once an epoch, classes weighted".into(),
        };
        let augment = config.augment;
        let weights = match config.sources.is_empty() {
            true => String::new(),
            false => {
                let weight = |(source, weight): (&String, &f64)| format!("{source} {weight}");
                let weights: Vec<String> = config.sources.iter().map(weight).collect();
                format!(" (slices weighted within their class: {})", weights.join(", "))
            }
        };
        let parity = match (self.parity, self.quantized) {
            (_, Some(_)) => String::new(),
            (Some(parity), None) => format!(
                "\n\nOn {} slices the network in Burn and the file in ONNX Runtime differ by at most {:.1e}.",
                parity.slices, parity.largest_difference
            ),
            (None, None) => "\n\nNot checked against ONNX Runtime.".into(),
        };
        let quantized = self.quantized.map_or(String::new(), |quantized| format!("{}\n\n", quantized.text()));
        format!(
            "# {name}, version {version}\n\n\
             Scores a head CT slice for {FINDING}. **Not for clinical use.**\n\n\
             ## For whom\n\n\
             For those who try out triaged, and for machine-learning staff as the model to beat. Not for patients' care, \
             not for any decision about a person: it is trained on {trained_on}, with hospital, scanner and \
             reconstruction unlike yours, and nobody has tested it on yours. \"Not flagged\" never means \"normal\".\n\n\
             ## The model\n\n\
             {quantized}{architecture}, {count} parameters: {layers}. Input: {input}. A slice is positive from \
             probability {slice:.4}; {rule}\n\n\
             ## Training\n\n\
             {pretrained}{epochs}; {draws}{weights}; batch {batch}, {rate}; {seconds:.0} s on {device}. Augmentation: flip \
             {flip}, shift ±{shift} of the edge, rotation ±{rotate}°, zoom ±{zoom}, window ±{window}. Seed {seed}, sources at \
             commit {commit}.\n\n\
             ## Data\n\n\
             {data}\n\
             Split by {by}, seed {split_seed}: {sides}.\n\n\
             ## Figures\n\n\
             In brackets 95 % intervals, bootstrap over patients. What the m10 study calls \"specificity\" is precision \
             here. {measured}{others}{beside}\
             ## Limits\n\n\
             {limits}{parity}\n",
            version = self.version,
            trained_on = self.trained_on(),
            layers = layers(&config.candidate.layers),
            architecture = architecture(&config.candidate.name),
            pretrained = config.pretrained.as_ref().map_or(String::new(), |file| {
                format!("Begun with pretrained weights: {}; SHA-256 {}. ", pretrained::SOURCE, file.sha256)
            }),
            input = input(&config.transform),
            slice = self.measured.decision().slice_threshold,
            rule = rule(&self.measured.decision().study_rule),
            batch = config.batch,
            rate = rate(config),
            seconds = self.seconds(),
            device = self.device,
            flip = if augment.flip { "yes" } else { "no" },
            shift = augment.shift,
            rotate = augment.rotate,
            zoom = augment.zoom,
            window = augment.window,
            seed = config.seed,
            commit = self.commit,
            by = match self.split.by {
                data::SplitBy::Patient => "patient",
                data::SplitBy::Image => "image (one patient's slices stand on several sides)",
            },
            split_seed = self.split.seed,
            sides = self.sides(),
            measured = self.measured.text(&self.when_chosen()),
            beside = self.beside(),
            limits = self.limits(),
        )
    }

    /// What stands beside the figures, in Markdown: sources, mirror images, rules, calibration, ablations.
    fn beside(&self) -> String {
        let Beside { sources, reliability, study_rules, test_time_flip } = self.measured.beside();
        let mut text = String::new();
        for (source, evaluation) in sources {
            text += &format!("Of these, the {} patients of {source}:\n\n{}\n", evaluation.patients, evaluation.table());
        }
        if let Some(flipped) = test_time_flip {
            text += &format!(
                "The same patients, each slice scored as the mean of itself and its mirror image, by thresholds and a rule \
                 chosen on such scores. The node does not do that: **these are not the figures of the model it runs**.\n\n{}\n",
                flipped.table()
            );
        }
        if !study_rules.is_empty() {
            text += &format!("### Study rules\n\n{}\n\n{}\n", rules::EXPLAINED, rules::table(study_rules));
        }
        if let (Some(Platt { a, b }), Some(Calibrated { before, after })) =
            (self.measured.decision().calibration, reliability)
        {
            text += &format!(
                "### Calibration\n\n\
                 The probability is sigmoid({a:.3} · logit {b:+.3}) of what the network was trained to say (Platt scaling, \
                 fitted on the patients that thresholds were chosen on; the file contains it). On slices it was not fitted on: \
                 Brier score {:.4} before and {:.4} after, expected calibration error over ten bins {:.4} before and {:.4} \
                 after. It holds for slices among which as many have hemorrhage as here; where fewer have, it says too \
                 much.\n\n",
                before.brier, after.brier, before.ece, after.ece
            );
        }
        if let Some(ablation) = self.ablation {
            text += &ablation.section();
        }
        text
    }

    /// What the model must not be trusted in, as far as its data tell.
    fn limits(&self) -> String {
        let sources = self.sources();
        let measured = |source: &&SourceAbout| source.role != TRAINING_ONLY;
        let patients: usize = sources.iter().filter(measured).map(|source| source.patients).sum();
        let names: Vec<&str> = sources.iter().filter(measured).map(|source| source.source.as_str()).collect();
        let from = match names.as_slice() {
            [one] => {
                format!("one source, {one}: no figure here says how it does on another hospital's or scanner's images")
            }
            many => format!("{}: no figure here says how it does on those of others", many.join(", ")),
        };
        let handful = if patients < 500 { "A handful of patients: read the intervals. " } else { "" };
        let reconstructed = match sources.iter().any(|source| source.note.contains("reconstructed HU")) {
            true => {
                " It was trained on Hounsfield units that were reconstructed from 8-bit pictures; a scanner's own are finer \
                 and wider."
            }
            false => "",
        };
        format!(
            "{handful}The {patients} patients that it is measured on are of {from}.{reconstructed} Subtypes are not told apart; \
             thin subdural and small subarachnoid blood is what such networks miss first. Thresholds, rule and calibration \
             chosen on these data need not hold on yours. Artefacts, calcification, post-operative heads and contrast medium \
             are hardly or not in the training data."
        )
    }
}

/// The role of a source that figures are not about.
const TRAINING_ONLY: &str = "training only";

pub(crate) fn rate(config: &FitConfig) -> String {
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
    let witness = match config.witness {
        0.0 => String::new(),
        weight => format!(
            "; beside it, weighted {weight}, the witnesses' loss on single positions of the last image, shown masks of blood \
             where there are any"
        ),
    };
    let grid = config.position_grid.map_or(String::new(), |edge| {
        format!(
            "; in training the first dense layer's weights were interpolated from {edge}×{edge} positions (written out, \
             the network is the study's)"
        )
    });
    format!("{optimizer} {schedule} {}{grid}{half}{witness}", config.learning_rate)
}

fn architecture(name: &str) -> String {
    match STUDY.contains(&name) {
        true => format!("The study's architecture {name}"),
        false => format!("Architecture {name}, EfficientNet-Lite0 with a single output unit"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

pub(crate) fn layers(layers: &[Layer]) -> String {
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

pub(crate) fn input(transform: &Transform) -> String {
    let [channels, height, width] = transform.shape();
    match transform {
        Transform::StoredValues { .. } => format!("stored pixel values, {height}×{width}"),
        Transform::HounsfieldWindows { windows, normalization, .. } => {
            let windows: Vec<String> =
                windows.iter().map(|w| format!("center {} width {} HU", w.center, w.width)).collect();
            let normalized = normalization.map_or(String::new(), |normalization| {
                format!(", normalized by mean {} and deviation {}", normalization.mean, normalization.deviation)
            });
            format!("{channels} channel(s) of {height}×{width}, window {}, 0 to 1{normalized}", windows.join(" and "))
        }
    }
}

pub(crate) fn rule(rule: &StudyRule) -> String {
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
