//! Mobile networks' layers as the convolutions that they are made of.
//!
//! Burn's module, its parameters, the import of pretrained weights ([`crate::pretrained`]) and the ONNX graph
//! ([`crate::export`]) all walk what [`steps`] gives.

use super::layer::Layer;

/// The part of a layer that a convolution is. Its kernel reads all channels at one position, but for the stem's, which reads all
/// channels of a neighbourhood, and the depthwise one's, which reads a neighbourhood of its own channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Stem,
    /// Opens a block: more channels.
    Expand,
    Depthwise,
    /// Ends a block: back to few channels, without ReLU6.
    Project,
    Head,
}

/// One convolution with its batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub role: Role,
    /// Channels of its input.
    pub channels: usize,
    /// Channels of its output.
    pub filters: usize,
    /// Edge of its kernel; padded as TensorFlow's "SAME" ([`triaged_kernels::mobile::same_padding`]).
    pub kernel: usize,
    pub stride: usize,
    /// It reads the input of an inverted residual block.
    pub opens: bool,
    /// That input is added to its output.
    pub shortcut: bool,
}

impl Step {
    /// ReLU6 follows.
    pub fn rectified(&self) -> bool {
        self.role != Role::Project
    }

    /// `[filters, channels of a kernel, kernel, kernel]`.
    pub fn weight(&self) -> [usize; 4] {
        let channels = if self.role == Role::Depthwise { 1 } else { self.channels };
        [self.filters, channels, self.kernel, self.kernel]
    }

    /// Parameters, the normalisation's running mean and variance among them.
    pub fn parameters(&self) -> usize {
        self.weight().iter().product::<usize>() + 4 * self.filters
    }
}

/// The convolutions that a layer is made of, where it gets so many channels; none for a layer of another kind.
pub fn steps(layer: &Layer, channels: usize) -> Vec<Step> {
    let plain =
        |role, channels, filters| Step { role, channels, filters, kernel: 1, stride: 1, opens: false, shortcut: false };
    match *layer {
        Layer::Stem { filters, kernel } => vec![Step { kernel, stride: 2, ..plain(Role::Stem, channels, filters) }],
        Layer::Head { filters } => vec![plain(Role::Head, channels, filters)],
        Layer::InvertedResidual { filters, kernel, stride, expansion, repeats } => {
            let mut steps = Vec::new();
            let (mut channels, mut stride) = (channels, stride);
            for _ in 0..repeats {
                let wide = channels * expansion;
                let expands = expansion != 1;
                if expands {
                    steps.push(Step { opens: true, ..plain(Role::Expand, channels, wide) });
                }
                steps.push(Step { kernel, stride, opens: !expands, ..plain(Role::Depthwise, wide, wide) });
                let shortcut = stride == 1 && channels == filters;
                steps.push(Step { shortcut, ..plain(Role::Project, wide, filters) });
                (channels, stride) = (filters, 1);
            }
            steps
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_two_blocks_is_six_convolutions_and_one_shortcut() {
        let layer = Layer::InvertedResidual { filters: 24, kernel: 5, stride: 2, expansion: 6, repeats: 2 };
        let steps = steps(&layer, 16);
        let roles: Vec<Role> = steps.iter().map(|step| step.role).collect();
        let block = [Role::Expand, Role::Depthwise, Role::Project];
        assert_eq!(roles, [block, block].concat());
        assert_eq!(
            steps.iter().map(|step| step.weight()).collect::<Vec<_>>(),
            [[96, 16, 1, 1], [96, 1, 5, 5], [24, 96, 1, 1], [144, 24, 1, 1], [144, 1, 5, 5], [24, 144, 1, 1]]
        );
        assert_eq!(steps.iter().map(|step| step.stride).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 1]);
        assert_eq!(steps.iter().map(|step| step.opens).collect::<Vec<_>>(), [true, false, false, true, false, false]);
        assert_eq!(
            steps.iter().map(|step| step.shortcut).collect::<Vec<_>>(),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn a_block_that_does_not_expand_begins_with_its_depthwise_convolution() {
        let layer = Layer::InvertedResidual { filters: 32, kernel: 3, stride: 1, expansion: 1, repeats: 1 };
        let steps = steps(&layer, 32);
        assert_eq!(steps.len(), 2);
        assert!(steps[0].role == Role::Depthwise && steps[0].opens && steps[1].shortcut);
        assert_eq!(steps[0].parameters() + steps[1].parameters(), 9 * 32 + 128 + 32 * 32 + 128);
    }
}
