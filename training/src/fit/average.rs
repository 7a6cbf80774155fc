//! Weights averaged over a training's steps: each step the average moves a little towards the network's own weights.
//!
//! The last steps of a training differ by which slices they happened to see. Their average (B. T. Polyak, A. B. Juditsky:
//! Acceleration of Stochastic Approximation by Averaging, 1992) is the network that is kept, scored and exported; the
//! training itself goes on with its own weights. BatchNorm's running statistics are averaged alike.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The average of a network's numbers, in the order in which its module shows them.
#[derive(Debug)]
pub struct Average<B: Backend> {
    /// The share of itself that the average keeps at a step.
    decay: f64,
    steps: usize,
    values: Vec<Tensor<B, 1>>,
}

impl<B: Backend> Average<B> {
    /// Begins with a network's numbers, after `steps` steps.
    pub fn new<M: Module<B>>(network: &M, decay: f64, steps: usize) -> Self {
        Self { decay, steps, values: numbers(network) }
    }

    /// Moves towards the network after a further step. In the first steps it keeps less of itself, so that where it began
    /// is soon forgotten.
    pub fn follow<M: Module<B>>(&mut self, network: &M) {
        self.steps += 1;
        let keep = self.decay.min(self.steps as f64 / (self.steps as f64 + 10.0));
        for (average, now) in self.values.iter_mut().zip(numbers(network)) {
            *average = average.clone() * keep + now * (1.0 - keep);
        }
    }

    /// A network like the one it followed with the averaged numbers.
    pub fn network<M: Module<B>>(&self, like: M) -> M {
        like.map(&mut Put { values: self.values.iter() })
    }
}

/// All numbers of a network, BatchNorm's running statistics among them.
pub(super) fn numbers<B: Backend, M: Module<B>>(network: &M) -> Vec<Tensor<B, 1>> {
    let mut seen = Seen(Vec::new());
    network.visit(&mut seen);
    seen.0
}

struct Seen<B: Backend>(Vec<Tensor<B, 1>>);

impl<B: Backend> ModuleVisitor<B> for Seen<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push(param.val().flatten(0, D - 1));
    }
}

/// Puts numbers, in the order of [`numbers`], into a network like theirs.
pub(super) struct Put<'a, B: Backend> {
    pub values: std::slice::Iter<'a, Tensor<B, 1>>,
}

impl<B: Backend> ModuleMapper<B> for Put<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let value = self.values.next().expect("a network like the one that was averaged").clone();
        param.map(|tensor| value.reshape(tensor.dims()))
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::Flex;
    use burn::module::RunningState;
    use burn::tensor::TensorData;

    use super::*;
    use crate::candidates::candidate;
    use crate::network::Network;

    fn network(seed: u64) -> Network<Flex> {
        let layers = candidate("m12").expect("m12").layers;
        Network::new(&layers, [1, 32, 32], seed, &Default::default()).expect("a network")
    }

    /// All numbers of a network, its running statistics among them.
    fn all(network: &Network<Flex>) -> Vec<f32> {
        numbers(network).into_iter().flat_map(|tensor| tensor.into_data().to_vec::<f32>().expect("f32")).collect()
    }

    #[test]
    fn an_average_follows_the_weights_and_the_running_statistics() {
        let [first, mut second] = [1, 2].map(network);
        let mean = Tensor::from_data(TensorData::new(vec![0.5f32; 32], [32]), &Default::default());
        second.blocks[0].norm.running_mean = RunningState::new(mean);
        let mut average = Average::new(&first, 0.9, 100);
        average.follow(&second);
        let found = average.network(network(3));
        let expected = all(&first).iter().zip(all(&second)).map(|(a, b)| 0.9 * a + 0.1 * b).collect::<Vec<f32>>();
        let worst = all(&found).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
        let statistic = found.blocks[0].norm.running_mean.value().into_data().to_vec::<f32>().expect("f32");
        assert!(statistic.iter().all(|value| (value - 0.05).abs() < 1e-6), "{statistic:?}");
    }

    #[test]
    fn where_an_average_began_is_soon_forgotten() {
        let [first, second] = [1, 2].map(network);
        let mut average = Average::new(&first, 0.99, 0);
        (0..60).for_each(|_| average.follow(&second));
        let found = average.network(network(3));
        let worst = all(&found).iter().zip(all(&second)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{worst}");
        // The network that it was made from keeps nothing of it, and the one that it followed is left as it was.
        assert_eq!(all(&second), all(&network(2)));
    }
}
