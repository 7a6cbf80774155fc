//! `sequence`: trains the network that reads whole series, on the scores that a cross-validation left, and puts it into a card.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use sha2::{Digest, Sha256};
use triaged_model::{ModelCard, Sequence, SeriesInput, SeriesPlace, SeriesScores};

use super::folds::{CROSS_VALIDATION, fold_name};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, OtherSizes, Slice};
use crate::evaluate::Decision;
use crate::files::{read_json, write_json};
use crate::metrics::{Case, Confusion};
use crate::parity::TOLERANCE;
use crate::run::{RunError, out_of_fold, out_of_fold_by};
use crate::runtime::{OnnxModel, RuntimeError};
use crate::sequence::{
    INPUT, Measured, SERIES_OUTPUT, SLICE_OUTPUT, SequenceFigures, SequenceNetwork, Series, Settings, in_text, measure,
    onnx,
};
use burn::backend::flex::Flex;
use burn::tensor::{Tensor, TensorData, activation};

#[derive(Clone, Args)]
pub struct SequenceArgs {
    /// The folder with scores.csv and cross-validation.json: of `cross-validate`, `train`, `ensemble` or `quantize`
    #[arg(long)]
    pub run: PathBuf,
    /// The labelled folders that the scores are of, for the slices' places, where RUN holds no folds with an index
    #[arg(long)]
    pub data: Vec<PathBuf>,
    /// The card of the model that the scores are of, NAME.json, with its file and NAME.md beside it [default: figures only]
    #[arg(long, requires = "out")]
    pub card: Option<PathBuf>,
    /// Write the model, NAME-sequence.onnx and both cards into this folder; the card's own is allowed
    #[arg(long, requires = "card")]
    pub out: Option<PathBuf>,
    /// Write the figures to this file, as JSON
    #[arg(long)]
    pub figures: Option<PathBuf>,
    /// Length of a bin in mm: the distance of the slices that are trained on
    #[arg(long, default_value_t = Settings::default().spacing_mm)]
    pub spacing: f64,
    /// Steps of training
    #[arg(long, default_value_t = Settings::default().steps)]
    pub steps: usize,
    #[arg(long, default_value_t = Settings::default().learning_rate)]
    pub learning_rate: f64,
    /// What the squared distance of the weights to the plain smoothing costs
    #[arg(long, default_value_t = Settings::default().decay)]
    pub decay: f64,
    /// What the series' loss counts beside the slices'
    #[arg(long, default_value_t = Settings::default().series_weight)]
    pub series_weight: f64,
    /// Seed of the intervals
    #[arg(long, default_value_t = 2019)]
    pub seed: u64,
}

pub fn do_sequence(args: &SequenceArgs) -> anyhow::Result<()> {
    let settings = Settings {
        spacing_mm: args.spacing,
        steps: args.steps,
        learning_rate: args.learning_rate,
        decay: args.decay,
        series_weight: args.series_weight,
    };
    let sound = (0.5..=20.0).contains(&settings.spacing_mm)
        && settings.steps > 0
        && settings.learning_rate > 0.0
        && settings.decay >= 0.0
        && settings.series_weight >= 0.0;
    ensure!(sound, "--spacing must be from 0.5 to 20, --steps and --learning-rate above 0, the others not below");
    let folder = match args.run.join("folds") {
        folds if !args.run.join(CROSS_VALIDATION).exists() && folds.join(CROSS_VALIDATION).exists() => folds,
        _ => args.run.clone(),
    };
    let crossed: CrossValidation = read_json(&folder.join(CROSS_VALIDATION))
        .with_context(|| format!("{} is no folder of `cross-validate`, `train` or `ensemble`", args.run.display()))?;
    let folds = folds(&folder, &args.data, &crossed)?;
    // Refused before the training.
    let card = args.card.as_deref().map(|path| card_of(path, &crossed)).transpose()?;
    let Measured { network, figures } = measure(&folds, &crossed, &settings, args.seed)?;
    println!("{} patients in {} folds\n\n{}", figures.patients, folds.len(), figures.table());
    println!("{}", figures.section("The network").lines().last().unwrap_or_default());
    if let Some(path) = &args.figures {
        write_json(path, &figures)?;
    }
    let (Some(card), Some(path), Some(out)) = (card, &args.card, &args.out) else { return Ok(()) };
    let bytes = onnx(&network, &format!("{}-sequence", card.name));
    check(&network, &bytes, &folds, &crossed, &settings)?;
    write(path, card, &bytes, &figures, out)
}

/// The series of each fold, with their out-of-fold scores.
fn folds(folder: &Path, data: &[PathBuf], crossed: &CrossValidation) -> anyhow::Result<Vec<Vec<Series>>> {
    let rows = match data {
        [] => out_of_fold(folder).map_err(|error| match error {
            RunError::File(missing) => anyhow::anyhow!("{missing}; name the labelled folders by --data"),
            error => error.into(),
        })?,
        folders => out_of_fold_by(folder, &Index::read_all(folders, OtherSizes::Resize)?)?,
    };
    check_scores(&rows, crossed).with_context(|| folder.display().to_string())?;
    let of_fold = |number: usize| {
        let name = fold_name(number);
        let own = rows.iter().filter(|(fold, ..)| *fold == name).map(|(_, slice, probability)| (slice, *probability));
        let series = Series::group(own);
        ensure!(!series.is_empty(), "{} has no scores of {name}", folder.display());
        Ok(series)
    };
    (1..=crossed.folds.len()).map(of_fold).collect()
}

/// That the scores give the counts that the figures state: else decisions and scores are not of one scoring.
fn check_scores(rows: &[(String, Slice, f64)], crossed: &CrossValidation) -> anyhow::Result<()> {
    // Figures of before decisions were kept cannot be checked so.
    if crossed.decisions.is_empty() {
        return Ok(());
    }
    let mut counts = Confusion::default();
    for (number, decision) in (1..).zip(&crossed.decisions) {
        let name = fold_name(number);
        let case = |(_, slice, probability): &(String, Slice, f64)| {
            let score = decision.calibration.map_or(*probability, |platt| platt.apply(*probability));
            Case { score, positive: slice.positive }
        };
        let cases: Vec<Case> = rows.iter().filter(|(fold, ..)| *fold == name).map(case).collect();
        let of_fold = Confusion::at(decision.slice_threshold, &cases);
        counts.tn += of_fold.tn;
        counts.fp += of_fold.fp;
        counts.fn_ += of_fold.fn_;
        counts.tp += of_fold.tp;
    }
    ensure!(
        counts == crossed.pooled.slices.confusion,
        "scores.csv and {CROSS_VALIDATION} are not of the same scoring: the scores make {counts:?}, the figures say {:?}",
        crossed.pooled.slices.confusion
    );
    Ok(())
}

/// The card, which must be of the network whose folds left the scores: of another, scores mean something else.
fn card_of(path: &Path, crossed: &CrossValidation) -> anyhow::Result<ModelCard> {
    let (card, _) = ModelCard::load(path)?;
    let decision = card.about.pointer("/cross_validation/decision").cloned().unwrap_or_default();
    match serde_json::from_value::<Decision>(decision) {
        Ok(decision) if decision.judges_as(&crossed.decision) => Ok(card),
        _ => bail!(
            "{} is not the card that these scores decided: take the scores of its own cross-validation",
            path.display()
        ),
    }
}

/// Compares the network with its file in ONNX Runtime, on all series and on few odd ones.
fn check(
    network: &SequenceNetwork<Flex>,
    bytes: &[u8],
    folds: &[Vec<Series>],
    crossed: &CrossValidation,
    settings: &Settings,
) -> anyhow::Result<()> {
    let mut model = match OnnxModel::load(bytes) {
        Err(error @ RuntimeError::NoLibrary) => {
            eprintln!("{error}; the sequence network was not checked");
            return Ok(());
        }
        model => model?,
    };
    let real = folds.iter().flatten().map(|s| s.input(crossed.decision.calibration.as_ref(), settings.spacing_mm));
    let place = |position: f64| SeriesPlace { position: Some(position), probability: Some(0.9) };
    let odd = [vec![place(0.0)], vec![place(0.0), place(35.0)], (0..200).map(|i| place(f64::from(i))).collect()];
    let odd = odd.map(|places| SeriesInput::new(&[places], settings.spacing_mm));
    let mut worst = 0.0_f64;
    for input in real.chain(odd) {
        let [bins, whole] = model.of_series(&input, [SLICE_OUTPUT, SERIES_OUTPUT])?;
        let file = SeriesScores::new(&bins, &whole, &input).map_err(anyhow::Error::msg)?;
        let values = TensorData::new(input.values(), [1, 2, input.len()]);
        let said = network.forward(Tensor::from_data(values, &Default::default()));
        let probabilities = |logits: Tensor<Flex, 2>| {
            activation::sigmoid(logits).into_data().convert::<f32>().to_vec::<f32>().expect("float32")
        };
        let (own, own_series) = (probabilities(said.bins), probabilities(said.series)[0]);
        for (bin, own) in own.iter().enumerate().filter(|(bin, _)| input.is_present(*bin)) {
            worst = worst.max((f64::from(*own) - file.bins[bin]).abs());
        }
        worst = worst.max((f64::from(own_series) - file.series).abs());
    }
    ensure!(worst <= TOLERANCE, "the sequence network and its ONNX file differ by {worst}, more than {TOLERANCE}");
    eprintln!("ONNX Runtime agrees within {worst:.1e} on all series");
    Ok(())
}

fn write(
    original: &Path,
    card: ModelCard,
    bytes: &[u8],
    figures: &SequenceFigures,
    folder: &Path,
) -> anyhow::Result<()> {
    let text_path = original.with_extension("md");
    let text = std::fs::read_to_string(&text_path).with_context(|| format!("cannot read {}", text_path.display()))?;
    let file = format!("{}-sequence.onnx", card.name);
    let no_card = || format!("{} and {} are no cards as `export` writes them", original.display(), text_path.display());
    let text = in_text(&text, &figures.section(&file)).with_context(no_card)?;
    let (_, onnx) = ModelCard::load(original)?;
    let mut card = ModelCard {
        sequence: Some(Sequence {
            file: file.clone(),
            sha256: hex::encode(Sha256::digest(bytes)),
            input: INPUT.into(),
            slice_output: SLICE_OUTPUT.into(),
            series_output: SERIES_OUTPUT.into(),
            spacing_mm: figures.settings.spacing_mm,
            slice_threshold: figures.slice_threshold,
            threshold: figures.threshold,
            early_threshold: Some(figures.early_threshold),
        }),
        ..card
    };
    let about = card.about.as_object_mut().with_context(no_card)?;
    about.insert("sequence".into(), serde_json::to_value(figures)?);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let out = |name: &str| folder.join(name);
    let cards = original.file_stem().map(PathBuf::from).with_context(no_card)?;
    let put = |name: &Path, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    put(Path::new(&card.file), &onnx)?;
    put(Path::new(&file), bytes)?;
    put(&cards.with_extension("md"), text.as_bytes())?;
    let path = folder.join(cards.with_extension("json"));
    write_json(&path, &card)?;
    // Read back as the node will: what is refused here would stop a node.
    ModelCard::load(&path)?.0.load_sequence(&path)?;
    eprintln!("wrote {}, the cards beside it", out(&file).display());
    Ok(())
}
