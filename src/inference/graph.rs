//! The tensors of a model's graph that its card names, looked for in the loaded session.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType};

use triaged_model::{MAX_HEAT_MAP_SIDE, ModelCard};

/// The input that is filled and the outputs that are read.
pub(super) struct Graph {
    pub input: String,
    /// `[channels, height, width]`.
    pub input_shape: [usize; 3],
    /// The probability first, then the heat map where the card names one.
    pub outputs: Vec<Output>,
}

/// An output of type float32.
pub(super) struct Output {
    pub name: String,
    /// Its shape for one slice: `[1]`, or the `[rows, columns]` of a heat map.
    pub of_slice: Vec<usize>,
}

impl Output {
    /// Its shape for so many slices.
    pub fn shape(&self, slices: usize) -> Vec<usize> {
        [&[slices], &self.of_slice[..]].concat()
    }
}

impl Graph {
    /// Finds what the card names.
    ///
    /// # Errors
    /// The error names an output that the graph lacks, or has in another shape.
    pub fn of(session: &Session, card: &ModelCard) -> Result<Graph, String> {
        find("input", &card.input, session.inputs())?;
        find("output", &card.output, session.outputs())?;
        let mut outputs = vec![Output { name: card.output.clone(), of_slice: vec![1] }];
        if let Some(name) = &card.heat_map {
            let of_slice = heat_map_shape(find("heat_map", name, session.outputs())?)?.to_vec();
            outputs.push(Output { name: name.clone(), of_slice });
        }
        Ok(Graph { input: card.input.clone(), input_shape: card.transform.shape(), outputs })
    }

    /// Rows and columns of the heat map, where there is one.
    pub fn heat_map(&self) -> Option<(usize, usize)> {
        let shape = &self.outputs.get(1)?.of_slice;
        Some((shape[0], shape[1]))
    }
}

/// The graph's input or output of that name.
///
/// # Errors
/// The error names those that there are.
pub(super) fn find<'a>(what: &str, named: &str, there: &'a [Outlet]) -> Result<&'a Outlet, String> {
    there.iter().find(|outlet| outlet.name() == named).ok_or_else(|| {
        let names: Vec<&str> = there.iter().map(Outlet::name).collect();
        format!("the card names the {what} {named:?}, the graph has none of that name but {}", names.join(", "))
    })
}

fn heat_map_shape(outlet: &Outlet) -> Result<[usize; 2], String> {
    let wrong = |is: String| {
        format!(
            "the heat_map {:?} is {is}; it must be float32 [batch, rows, columns], rows and columns fixed and at most \
             {MAX_HEAT_MAP_SIDE}",
            outlet.name()
        )
    };
    let (Some(ty), Some(shape)) = (outlet.dtype().tensor_type(), outlet.dtype().tensor_shape()) else {
        return Err(wrong("no tensor".into()));
    };
    // ONNX Runtime gives an edge that the graph does not fix as -1.
    let edge = |edge: i64| usize::try_from(edge).ok().filter(|edge| (1..=MAX_HEAT_MAP_SIDE).contains(edge));
    match shape[..] {
        [_, rows, columns] if ty == TensorElementType::Float32 => match (edge(rows), edge(columns)) {
            (Some(rows), Some(columns)) => Ok([rows, columns]),
            _ => Err(wrong(format!("{ty} {:?}", &shape[..]))),
        },
        _ => Err(wrong(format!("{ty} {:?}", &shape[..]))),
    }
}
