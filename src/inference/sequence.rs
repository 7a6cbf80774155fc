//! A card's sequence network in ONNX Runtime. It runs on the CPU with one thread, wherever slices are scored: a series takes well
//! below a millisecond.

use std::path::Path;
use std::sync::Mutex;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, TensorRef};

use super::error::{EngineError, first_line};
use super::graph::find;
use triaged_model::{ModelCard, Sequence, SeriesInput, SeriesNetwork, SeriesPlace, SeriesScores};

/// The loaded network.
pub(super) struct SequenceSession {
    session: Mutex<Session>,
    names: Sequence,
}

impl SequenceSession {
    /// Loads the network that the card at `path` names, and runs it on series of several lengths. None where it names none.
    ///
    /// # Errors
    /// A file that is missing or another than the card says, and a graph that does not fit: what would fail on each study is
    /// refused here.
    pub fn load(environment: &Environment, card: &ModelCard, path: &Path) -> Result<Option<Self>, EngineError> {
        let (Some(names), Some(model)) = (&card.sequence, card.load_sequence(path)?) else { return Ok(None) };
        let wrong = |why: String| EngineError::Model {
            model: card.name.clone(),
            why: format!("its sequence network {}: {why}", names.file),
        };
        let made = || -> ort::Result<Session> {
            Session::builder(environment)?.with_intra_threads(1)?.commit_from_memory(&model)
        };
        let session = made().map_err(|error| wrong(first_line(&error.to_string())))?;
        check(&session, names).map_err(wrong)?;
        let sequence = Self { session: Mutex::new(session), names: names.clone() };
        for slices in [1, 2, 31] {
            let place = |index| SeriesPlace { position: None, probability: Some(f64::from(index % 5) / 4.0) };
            let input = SeriesInput::new(&[(0..slices).map(place).collect()], names.spacing_mm);
            sequence.read(&input).map_err(|why| wrong(format!("of a series of {slices} slices: {why}")))?;
        }
        Ok(Some(sequence))
    }
}

impl SeriesNetwork for SequenceSession {
    fn read(&self, input: &SeriesInput) -> Result<SeriesScores, String> {
        let failed = |error: ort::Error| first_line(&error.to_string());
        let values = input.values();
        let tensor = TensorRef::from_array_view(([1, 2, input.len()], &values[..])).map_err(failed)?;
        // A panic of an earlier run leaves the session as it was.
        let mut session = self.session.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let outputs = session.run(ort::inputs![self.names.input.as_str() => tensor]).map_err(failed)?;
        let output = |name: &str| Ok::<_, String>(outputs[name].try_extract_tensor::<f32>().map_err(failed)?.1);
        SeriesScores::new(output(&self.names.slice_output)?, output(&self.names.series_output)?, input)
    }
}

/// Whether the graph has what the card names, in the shapes that it must have.
fn check(session: &Session, names: &Sequence) -> Result<(), String> {
    let input = find("sequence input", &names.input, session.inputs())?;
    let fits = |shape: &[i64]| matches!(shape, [_, 2 | -1, -1]);
    if !is_float(input, fits) {
        return Err(format!(
            "the input {:?} must be float32 [series, 2, bins], bins dynamic, and is {:?}",
            names.input,
            input.dtype()
        ));
    }
    for (what, name) in
        [("sequence slice_output", &names.slice_output), ("sequence series_output", &names.series_output)]
    {
        let output = find(what, name, session.outputs())?;
        if !is_float(output, |_| true) {
            return Err(format!("the output {name:?} must be float32, and is {:?}", output.dtype()));
        }
    }
    Ok(())
}

fn is_float(outlet: &Outlet, fits: impl Fn(&[i64]) -> bool) -> bool {
    match (outlet.dtype().tensor_type(), outlet.dtype().tensor_shape()) {
        (Some(TensorElementType::Float32), Some(shape)) => fits(shape),
        _ => false,
    }
}
