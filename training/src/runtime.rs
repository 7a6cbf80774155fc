//! Exported models in ONNX Runtime, on the CPU.

use std::path::PathBuf;
use std::sync::Mutex;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use triaged_model::SeriesInput;

/// The environment variable that names ONNX Runtime's library; without it, `lib/libonnxruntime.so` beside the program is
/// taken, which `make onnxruntime` leaves in `target/release`.
pub const LIBRARY: &str = "ORT_DYLIB_PATH";

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "no exported model can be run without ONNX Runtime's library: there is no lib/libonnxruntime.so beside this program \
         (`make onnxruntime` leaves one in target/release) and {LIBRARY} is not set"
    )]
    NoLibrary,
    #[error("cannot load ONNX Runtime from {path}: {why}")]
    Library { path: PathBuf, why: String },
    #[error("ONNX Runtime refuses the exported model: {0}")]
    Model(#[from] ort::Error),
}

/// Whether models can be run.
///
/// # Errors
/// [`RuntimeError::NoLibrary`] or [`RuntimeError::Library`].
pub fn check() -> Result<(), RuntimeError> {
    environment().map(drop)
}

/// A model in ONNX Runtime.
pub struct OnnxModel {
    session: Session,
}

impl OnnxModel {
    /// # Errors
    /// [`RuntimeError::NoLibrary`] where there is no library, others where the library or the model does not load.
    pub fn load(model: &[u8]) -> Result<Self, RuntimeError> {
        // As in the node: threads that spin while they wait take the cores from whatever else runs.
        let mut builder = Session::builder(&environment()?)?.with_intra_op_spinning(false).map_err(ort::Error::from)?;
        Ok(Self { session: builder.commit_from_memory(model)? })
    }

    /// The graph's first output for images in `[batch, channels, height, width]` order: probabilities, of an exported model.
    pub fn output(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>, RuntimeError> {
        let outputs = self.session.run(ort::inputs![TensorRef::from_array_view((shape, images))?])?;
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(values.to_vec())
    }

    /// Its output of that name; none where the graph has no such output.
    pub fn output_named(
        &mut self,
        name: &str,
        images: &[f32],
        shape: [usize; 4],
    ) -> Result<Option<Output>, RuntimeError> {
        let outputs = self.session.run(ort::inputs![TensorRef::from_array_view((shape, images))?])?;
        let Some(output) = outputs.get(name) else { return Ok(None) };
        let (shape, values) = output.try_extract_tensor::<f32>()?;
        Ok(Some(Output { shape: shape.to_vec(), values: values.to_vec() }))
    }

    /// The values of a sequence network's two outputs, of one series.
    pub fn of_series(&mut self, input: &SeriesInput, outputs: [&str; 2]) -> Result<[Vec<f32>; 2], RuntimeError> {
        let values = input.values();
        let said = self.session.run(ort::inputs![TensorRef::from_array_view(([1, 2, input.len()], &values[..]))?])?;
        let values = |name: &str| match said.get(name) {
            Some(output) => Ok(output.try_extract_tensor::<f32>()?.1.to_vec()),
            None => Err(ort::Error::new(format!("the graph has no output {name}"))),
        };
        Ok([values(outputs[0])?, values(outputs[1])?])
    }

    /// The shape of each of the graph's outputs, by name; of one image, and of outputs that are images themselves.
    pub fn spans(&mut self, image: &[f32], shape: [usize; 4]) -> Result<Vec<(String, Span)>, RuntimeError> {
        let outputs = self.session.run(ort::inputs![TensorRef::from_array_view((shape, image))?])?;
        let mut found = Vec::with_capacity(outputs.len());
        for (name, output) in outputs.iter() {
            let (shape, values) = output.try_extract_tensor::<f32>()?;
            let channels = shape.get(1).map_or(1, |&channels| channels.max(1) as usize);
            found.push((name.to_owned(), Span::of(values, channels)));
        }
        Ok(found)
    }
}

/// A tensor that came out of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub shape: Vec<i64>,
    pub values: Vec<f32>,
}

/// A tensor's smallest and largest value, neither of them a number where one value is none, and the mean of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub low: f32,
    pub high: f32,
    pub means: Vec<f64>,
}

impl Span {
    /// Makes it of values with their channels outermost.
    fn of(values: &[f32], channels: usize) -> Self {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        let size = (values.len() / channels).max(1);
        let mean = |values: &[f32]| {
            let mut sum = 0.0;
            for value in values {
                // `min` and `max` would pass over what is not a number.
                low = if low < *value { low } else { *value };
                high = if high > *value { high } else { *value };
                sum += f64::from(*value);
            }
            sum / values.len() as f64
        };
        let means: Vec<f64> = values.chunks(size).map(mean).collect();
        let sound = means.iter().all(|mean| mean.is_finite());
        Self { low: if sound { low } else { f32::NAN }, high: if sound { high } else { f32::NAN }, means }
    }
}

/// The path of ONNX Runtime's library.
fn library() -> Option<PathBuf> {
    let named = std::env::var_os(LIBRARY).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| {
        let program = std::env::current_exe().ok()?;
        Some(program.parent()?.join("lib/libonnxruntime.so")).filter(|path| path.exists())
    })
}

/// ONNX Runtime allows one environment in a process.
fn environment() -> Result<Environment, RuntimeError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let path = library().ok_or(RuntimeError::NoLibrary)?;
    let made = ort::init_from(&path)
        .map_err(|error| RuntimeError::Library { path: path.clone(), why: error.to_string() })?
        .build()?;
    Ok(environment.insert(made).clone())
}
