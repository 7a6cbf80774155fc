//! `step-time`: how long a training step takes on a device, as JSON.

use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use triaged_kernels::ConvBackend;

use super::arguments::Device;
use crate::data::{Cache, Index, OtherSizes};
use crate::recipe::Recipe;
use crate::step_time::{Amount, draws, step_time};

#[derive(Clone, Args)]
pub struct StepTimeArgs {
    /// How to train: m10, m11 or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "m11")]
    pub recipe: String,
    /// Slices a step [default: the recipe's]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Option<u16>,
    /// Edge of the input image [default: the recipe's]
    #[arg(long)]
    pub size: Option<u32>,
    /// Steps that are measured, at most
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Seconds that they may take together
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pub seconds: f64,
    /// Also measure steps on slices from disk: a folder with stage_2_train.csv and stage_2_train/*.dcm
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Seconds that those may take together
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pub epoch_seconds: f64,
    /// The processor to compute on
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    (0.0..=3600.0).contains(&value).then_some(value).ok_or_else(|| "between 0 and 3600".into())
}

pub fn do_step_time<B>(args: &StepTimeArgs, device: &B::Device, device_name: &str) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let mut recipe = Recipe::open(&args.recipe)?;
    if let Some(size) = args.size {
        recipe.size = size;
    }
    // The values of the weights make no difference to how long a step takes.
    recipe.pretrained = None;
    let mut config = recipe.config(2019)?;
    if let Some(batch) = args.batch {
        config.batch = batch.into();
    }
    let (cache, slices) = match &args.data {
        Some(folder) => {
            let index = Index::read_sized(folder, OtherSizes::Resize)?;
            (config.cache(None, &index)?, draws(&config, &index.slices))
        }
        None => (Cache::new(config.transform.clone(), None)?, Vec::new()),
    };
    let amount = Amount {
        steps: args.steps,
        time: Duration::from_secs_f64(args.seconds),
        epoch_time: Duration::from_secs_f64(args.epoch_seconds),
    };
    let measured = step_time::<B>(&config, slices, &cache, amount, device, device_name)?;
    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(())
}
