//! The network as Burn computes it: parameters, statistics, grid, learning.

use super::*;
use crate::candidates::{NAMES, candidate};
use burn::backend::autodiff::Autodiff;
use burn::backend::flex::Flex;
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::Tolerance;

/// Large enough for every candidate's three pools, small enough for a test.
const SMALL: [usize; 3] = [1, 64, 64];

#[test]
fn the_module_has_the_parameters_the_description_counts() {
    let device = Default::default();
    for name in NAMES {
        let layers = candidate(name).expect("a candidate").layers;
        let network = Network::<Flex>::new(&layers, SMALL, 1, &device).expect("a network");
        assert_eq!(network.num_params(), parameters(&layers, SMALL).expect("a network"), "{name}");
        let logits = network.forward(Tensor::ones([3, 1, 64, 64], &device));
        assert_eq!(logits.dims(), [3, 1], "{name}");
    }
}

#[test]
fn settled_statistics_are_those_of_the_batches() {
    let device = Default::default();
    let layers = candidate("m1").expect("m1").layers;
    let network = Network::<Autodiff<Flex>>::new(&layers, [1, 2, 2], 1, &device).expect("a network");
    // Mean 2, variance 1.25.
    let batch = Tensor::<Autodiff<Flex>, 1>::from_floats([0.5, 1.5, 2.5, 3.5], &device).reshape([1, 1, 2, 2]);
    for _ in 0..5 {
        network.forward(batch.clone());
    }
    let norm = &network.valid().settled(5, false).norms[0];
    let value = |state: &RunningState<Tensor<Flex, 1>>| state.value().into_scalar();
    assert!((value(&norm.running_mean) - 2.0).abs() < 1e-4, "{}", value(&norm.running_mean));
    assert!((value(&norm.running_var) - 1.25).abs() < 1e-3, "{}", value(&norm.running_var));
}

#[test]
fn a_network_on_a_grid_spreads_to_a_plain_one_that_says_the_same() {
    let device = Default::default();
    for (name, edge) in [("m10", 1), ("m10", 2), ("m2", 5), ("m1", 4)] {
        let layers = candidate(name).expect("a candidate").layers;
        let input = [1, 64, 70];
        let network = Network::<Flex>::on_grid(&layers, input, edge, 5, &device).expect("a network");
        let images: Vec<f32> = (0..2 * 64 * 70).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let images = Tensor::<Flex, 4>::from_data(TensorData::new(images, [2, 1, 64, 70]), &device);
        let before = network.forward(images.clone()).into_data();
        let spread = network.clone().spread(input).expect("a network");
        assert!(network.num_params() < parameters(&layers, input).expect("a network"), "{name}");
        assert_eq!(spread.num_params(), parameters(&layers, input).expect("a network"), "{name}");
        spread.forward(images).into_data().assert_approx_eq::<f32>(&before, Tolerance::absolute(1e-4));
    }
    let layers = candidate("m10").expect("m10").layers;
    assert!(Network::<Flex>::on_grid(&layers, SMALL, 0, 5, &device).is_err());
    assert!(Network::<Flex>::on_grid(&layers, SMALL, 4, 5, &device).is_err(), "m10 flattens 3 by 3 here");
    let pooled = candidate("m11").expect("m11").layers;
    let refused = Network::<Flex>::on_grid(&pooled, SMALL, 2, 5, &device);
    assert_eq!(refused.err(), Some(LayerError::NoPositions));
}

#[test]
fn m11_learns_in_all_its_layers_and_notes_statistics() {
    type Trained = Autodiff<Flex>;
    let device = Default::default();
    let layers = candidate("m11").expect("m11").layers;
    let layers: Vec<Layer> = layers.into_iter().filter(|layer| !matches!(layer, Layer::Dropout { .. })).collect();
    let mut network = Network::<Trained>::new(&layers, [1, 33, 40], 11, &device).expect("a network");
    // Stripes that stand, and stripes that lie.
    let pixel = |i: usize| {
        let (image, row, column) = (i / (33 * 40), i / 40 % 33, i % 40);
        let along = if image % 2 == 0 { row } else { column };
        (((along + image) / 3 % 2) as f32) * 2.0 - 1.0 + ((i * 7919) % 1009) as f32 / 2000.0
    };
    let images: Vec<f32> = (0..8 * 33 * 40).map(pixel).collect();
    let images = Tensor::<Trained, 4>::from_data(TensorData::new(images, [8, 1, 33, 40]), &device);
    let signs: Vec<f32> = (0..8).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let signs = Tensor::<Trained, 2>::from_data(TensorData::new(signs, [8, 1]), &device);
    let mut adam = AdamWConfig::new().init::<Trained, Network<Trained>>();
    let mut losses = Vec::new();
    for _ in 0..6 {
        let loss = ((network.forward(images.clone()) * signs.clone()).neg().exp() + 1.0).log().mean();
        losses.push(loss.clone().into_scalar());
        let grads = loss.backward();
        for (at, conv) in network.blocks.iter().enumerate() {
            let largest = conv.weight.val().grad(&grads).expect("a gradient").abs().max().into_scalar();
            assert!(largest > 0.0 && largest.is_finite(), "convolution {at}: {largest}");
            let largest = conv.norm.gamma.val().grad(&grads).expect("a gradient").abs().max().into_scalar();
            assert!(largest > 0.0 && largest.is_finite(), "normalization {at}: {largest}");
        }
        let grads = GradientsParams::from_grads(grads, &network);
        network = adam.step(1e-3, network, grads);
    }
    assert!(losses[5] < 0.5 * losses[0], "{losses:?}");
    // Six steps from variance 1 by a hundredth each, and of a pretrained network nothing taken out afterwards. A channel
    // may be constant, and a variance may happen to be 1.
    let settled = network.valid().settled(6, true);
    for (at, conv) in settled.blocks.iter().enumerate() {
        let start = 0.99f32.powi(6);
        let variance = conv.norm.running_var.value().into_data().to_vec::<f32>().expect("f32");
        assert!(variance.iter().all(|&value| value > start - 1e-5), "normalization {at}: {variance:?}");
        let noted = variance.iter().filter(|&&value| value > start + 1e-5 && (value - 1.0).abs() > 1e-6).count();
        assert!(10 * noted > 9 * variance.len(), "normalization {at}: {variance:?}");
    }
    // The starting values of a fresh one are taken out: the rest is the batches' own.
    let fresh = network.valid().settled(6, false);
    for (at, (noted, own)) in settled.blocks.iter().zip(&fresh.blocks).enumerate() {
        let values = |conv: &NormedConv<Flex>, of: fn(&BatchNorm<Flex>) -> Tensor<Flex, 1>| {
            of(&conv.norm).into_data().to_vec::<f32>().expect("f32")
        };
        let start = 0.99f32.powi(6);
        for (place, (noted, own)) in
            values(noted, |n| n.running_var.value()).into_iter().zip(values(own, |n| n.running_var.value())).enumerate()
        {
            assert!((own * (1.0 - start) + start - noted).abs() < 1e-5, "normalization {at}, {place}: {own}");
        }
        for (noted, own) in
            values(noted, |n| n.running_mean.value()).into_iter().zip(values(own, |n| n.running_mean.value()))
        {
            assert!((own * (1.0 - start) - noted).abs() < 1e-5, "normalization {at}: mean {own}");
        }
    }
    // At inference a slice's logit is its own, whatever lies beside it in the batch.
    let images = images.inner();
    let all = settled.forward(images.clone()).narrow(0, 2, 1).into_data();
    settled.forward(images.narrow(0, 2, 1)).into_data().assert_approx_eq::<f32>(&all, Tolerance::absolute(1e-4));
}

#[test]
fn positions_have_logits_and_the_slice_keeps_its_own() {
    let device = Default::default();
    let layers = candidate("m10").expect("m10").layers;
    let network = Network::<Flex>::new(&layers, SMALL, 3, &device).expect("a network");
    let images = Tensor::<Flex, 4>::ones([3, 1, 64, 64], &device);
    let (logits, positions) = network.forward_with_positions(images.clone());
    logits.into_data().assert_eq(&network.forward(images).into_data(), true);
    assert_eq!(positions.dims(), [3, 3, 3]);
    assert!(positions.min().into_scalar() >= POSITION_OFFSET, "filters are not negative");
}

#[test]
fn initial_weights_repeat_with_the_seed_and_stay_within_glorots_limit() {
    let device = Default::default();
    let layers = candidate("m8").expect("m8").layers;
    let weights = |seed| {
        let network = Network::<Flex>::new(&layers, SMALL, seed, &device).expect("a network");
        network.convs[1].weight.val().into_data().to_vec::<f32>().expect("f32")
    };
    assert_eq!(weights(7), weights(7));
    assert_ne!(weights(7), weights(8));
    let limit = (6.0f32 / (9 * 64 + 9 * 64) as f32).sqrt();
    let largest = weights(7).iter().fold(0.0f32, |m, w| m.max(w.abs()));
    assert!(largest <= limit && largest > 0.99 * limit, "{largest} against {limit}");
}
