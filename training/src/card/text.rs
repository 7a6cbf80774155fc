//! The card that people read.

use super::ensemble::mean_of;
use super::sources::Source;
use super::{Ensemble, FINDING, Trained};
use crate::calibration::{Calibrated, Platt};
use crate::data::{self, Side, TRAINING_ONLY};
use crate::describe::{architecture, capital, input, layers, rate, rule};
use crate::evaluate::{Supplement, rules, strata};
use crate::fit::Monitor;
use crate::network::has_position_logits;
use crate::quantize::Quantized;

/// Said of a model with a heat map.
pub const MAP: &str = " Beside the probability it says where: a heat map that covers the input, made of the very logits whose mean the \
                       slice's logit is; it was not trained to outline a bleed, and is as coarse as those positions.";

impl Trained<'_> {
    /// The card that people read, in Markdown.
    pub fn text(&self) -> String {
        let config = self.config;
        let name = self.name;
        let count = self.parameters();
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
        let sample = config.sample.map_or(String::new(), |size| {
            format!("; trained on a stratified random sample of {size} of the training side's slices")
        });
        let augment = config.augment;
        let weights = match config.sources.is_empty() {
            true => String::new(),
            false => {
                let weight = |(source, weight): (&String, &f64)| format!("{source} {weight}");
                let weights: Vec<String> = config.sources.iter().map(weight).collect();
                format!(" (slices weighted within their class: {})", weights.join(", "))
            }
        };
        let level = match config.level_sources {
            true => ", those without weighted so that each source has the same share of either class",
            false => "",
        };
        let averaged = match config.averaging {
            0.0 => String::new(),
            decay => format!("; kept is the average of the weights, which keeps {decay} of itself at a step"),
        };
        let averaged = match config.statistics {
            0 => averaged,
            draws => format!(
                "{averaged}; the statistics that layers normalise by were taken anew at the end, from {draws} draws"
            ),
        };
        let parity = match (self.parity, self.quantized) {
            (_, Some(_)) => String::new(),
            (Some(parity), None) => {
                let map = parity.heat_map_difference.map_or(String::new(), |d| format!(", their heat maps by {d:.1e}"));
                format!(
                    "\n\nOn {} slices the network in Burn and the file in ONNX Runtime differ by at most {:.1e}{map}.",
                    parity.slices, parity.largest_difference
                )
            }
            (None, None) => "\n\nNot checked against ONNX Runtime.".into(),
        };
        let mean_of = Some(&self.state.mean_of).filter(|members| !members.is_empty()).map(|members| mean_of(members));
        let made_of = [self.ensemble.map(Ensemble::text), mean_of, self.quantized.map(Quantized::text)];
        let made_of: String = made_of.into_iter().flatten().map(|text| format!("{text}\n\n")).collect();
        format!(
            "# {name}, version {version}\n\n\
             Scores a head CT slice for {FINDING}. **Not for clinical use.**\n\n\
             ## For whom\n\n\
             For those who try out triaged, and for machine-learning staff as the model to beat. Not for patients' care, \
             not for any decision about a person: it is trained on {trained_on}, with hospital, scanner and \
             reconstruction unlike yours, and nobody has tested it on yours. \"Not flagged\" never means \"normal\".\n\n\
             ## The model\n\n\
             {made_of}{architecture}, {count} parameters: {layers}. Input: {input}. A slice is positive from \
             probability {slice:.4}; {rule}{map}\n\n\
             ## Training\n\n\
             {pretrained}{epochs}; {draws}{weights}{level}{sample}; batch {batch}, {rate}{averaged}; {seconds:.0} s on {device}. Augmentation: flip \
             {flip}, shift ±{shift} of the edge, rotation ±{rotate}°, zoom ±{zoom}, window ±{window}. Seed {seed}, sources at \
             commit {commit}.\n\n\
             ## Data\n\n\
             {data}\n\
             Split by {by}, seed {split_seed}: {sides}.\n\n\
             ## Figures\n\n\
             In brackets 95 % intervals, bootstrap over patients; of shares the wider of that and exact limits (Clopper–Pearson) with \
             patients as cases. What the m10 study calls \"specificity\" is precision \
             here. {worthless}{fragments}{measured}{others}{supplement}\
             ## Limits\n\n\
             {limits}{parity}\n",
            version = self.version,
            trained_on = self.trained_on(),
            layers = layers(&config.candidate.layers),
            map = if has_position_logits(&config.candidate.layers) { MAP } else { "" },
            architecture = architecture(&config.candidate.name),
            pretrained = config.pretrained.as_ref().map_or(String::new(), |file| {
                format!("Begun with pretrained weights: {}; SHA-256 {}. ", file.source(), file.sha256)
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
            worthless =
                self.measured.warning().map_or(String::new(), |warning| format!("**{}.**\n\n", capital(&warning))),
            fragments = self.fragments().map_or(String::new(), |warning| format!("**{}.**\n\n", capital(warning))),
            sides = self.sides(),
            measured = self.measured.text(&self.when_chosen()),
            supplement = self.supplement(),
            limits = self.limits(),
        )
    }

    /// The sections beside the figures, in Markdown: sources, mirror images, rules, calibration, ablations.
    fn supplement(&self) -> String {
        let Supplement { sources, reliability, study_rules, test_time_flip, department, strata } =
            self.measured.supplement();
        let mut text = String::new();
        if let Some(department) = department {
            text += &format!("### In a department\n\n{}\n\n", department.text());
        }
        if !strata.is_empty() {
            text += &format!(
                "### By kind and size of the bleed\n\n\
                 Of the same verdicts: the share of slices with hemorrhage of a kind that are positive, and of studies with such \
                 slices that are flagged. A slice or study with several kinds counts in each.\n\n{}\n",
                strata::table(strata)
            );
        }
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

    /// The limits of the model, as far as its data tell.
    fn limits(&self) -> String {
        let sources = self.sources();
        let measured = |source: &&Source| source.role != TRAINING_ONLY;
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
        let chosen = match self.measured.decision().calibration {
            Some(_) => "Thresholds, rule and calibration",
            None => "There is no calibration: what the network says is no probability. Thresholds and rule",
        };
        format!(
            "{handful}The {patients} patients that it is measured on are of {from}.{reconstructed} Subtypes are not told apart; \
             thin subdural and small subarachnoid blood is what such networks miss first. {chosen} \
             chosen on these data need not hold on yours. Artefacts, calcification, post-operative heads and contrast medium \
             are hardly or not in the training data."
        )
    }
}
