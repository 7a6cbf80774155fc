//! `half`: a half-precision copy of an exported model, for GPUs, with what the rounding costs stated in its cards.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::copies::{self, Costs};
use crate::data::{Index, OtherSizes};
use crate::half::{Halved, LARGEST_MOVE, halved, rounded};
use crate::runtime;

#[derive(Clone, Args)]
pub struct HalfArgs {
    /// The float32 model's card, NAME.json; its file and NAME.md lie beside it
    #[arg(long)]
    pub card: PathBuf,
    /// Slices that both are compared on: a folder with stage_2_train.csv and stage_2_train/*.dcm
    #[arg(long)]
    pub data: PathBuf,
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The copy's name [default: NAME-fp16]
    #[arg(long)]
    pub name: Option<String>,
}

/// Writes the copy and its cards, unless it moves the slice AUC too far.
pub fn do_half(args: &HalfArgs) -> anyhow::Result<()> {
    runtime::check()?;
    let (card, onnx) = copies::original(&args.card)?;
    let name = copies::name_of(&card, args.name.as_ref(), "fp16")?;
    let index = Index::read_sized(&args.data, OtherSizes::Resize)?;
    let copy = halved(&onnx)?;
    let slices: Vec<_> = index.slices.iter().collect();
    let comparison = copies::compare(&card, &onnx, &rounded(&onnx)?, &slices, None)?;
    let moved = comparison.slice_auc_difference.value.abs();
    if moved.is_nan() || moved >= LARGEST_MOVE {
        bail!("the slice AUC moves by {moved:.4} in half precision, {LARGEST_MOVE} or more: no copy is written");
    }
    let figures = Halved { of: card.name.clone(), of_sha256: card.sha256.clone(), comparison };
    println!("{}", figures.text());
    let costs = Costs { field: "half", figures: serde_json::to_value(&figures)?, text: figures.text() };
    copies::write(&args.card, card, name, &copy, costs, &args.out)
}
