//! Exported models in ONNX Runtime, on the CPU.

use std::path::PathBuf;
use std::sync::Mutex;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;

/// The environment variable that names ONNX Runtime's library; `make` sets it.
pub const LIBRARY: &str = "ORT_DYLIB_PATH";

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{LIBRARY} is not set: without ONNX Runtime's library no exported model can be run")]
    NoLibrary,
    #[error("cannot load ONNX Runtime from {path}: {why}")]
    Library { path: PathBuf, why: String },
    #[error("ONNX Runtime refuses the exported model: {0}")]
    Model(#[from] ort::Error),
}

/// A model in ONNX Runtime.
pub struct OnnxModel {
    session: Session,
}

impl OnnxModel {
    /// # Errors
    /// [`RuntimeError::NoLibrary`] where [`LIBRARY`] is unset, others where the library or the model does not load.
    pub fn load(model: &[u8]) -> Result<Self, RuntimeError> {
        Ok(Self { session: Session::builder(&environment()?)?.commit_from_memory(model)? })
    }

    /// Probabilities of images in `[batch, channels, height, width]` order.
    pub fn probabilities(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>, RuntimeError> {
        let outputs = self.session.run(ort::inputs![TensorRef::from_array_view((shape, images))?])?;
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(values.to_vec())
    }

    /// The smallest and the largest value of each of the graph's outputs, by name. What is not a number is in neither.
    pub fn extremes(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<(String, [f32; 2])>, RuntimeError> {
        let outputs = self.session.run(ort::inputs![TensorRef::from_array_view((shape, images))?])?;
        let mut found = Vec::with_capacity(outputs.len());
        for (name, output) in outputs.iter() {
            let (_, values) = output.try_extract_tensor::<f32>()?;
            let wider = |[low, high]: [f32; 2], value: &f32| [low.min(*value), high.max(*value)];
            found.push((name.to_owned(), values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], wider)));
        }
        Ok(found)
    }
}

/// ONNX Runtime allows one environment in a process.
fn environment() -> Result<Environment, RuntimeError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let path = PathBuf::from(std::env::var_os(LIBRARY).ok_or(RuntimeError::NoLibrary)?);
    let made = ort::init_from(&path)
        .map_err(|error| RuntimeError::Library { path: path.clone(), why: error.to_string() })?
        .build()?;
    Ok(environment.insert(made).clone())
}
