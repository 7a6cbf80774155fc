//! A network with a heat map, from the card to the box in the frame. `tests/models/spot.py` made the networks.

use std::path::PathBuf;

use super::bound::Memory;
use super::engine::Engine;
use super::error::EngineError;
use crate::config::{self, Device, Settings};
use triaged_imaging::phantom::{Lesion, PhantomSpec, SIDE, slices};
use triaged_imaging::{Tensor, placed_input};

fn settings(model: &str) -> config::Inference {
    let mut settings = Settings::load(None, &[]).expect("the defaults").inference;
    settings.model = format!("{}/tests/models/{model}.json", env!("CARGO_MANIFEST_DIR"));
    settings.device = Device::Cpu;
    settings
}

/// None where ONNX Runtime is absent.
fn load(model: &str) -> Option<Result<Engine, EngineError>> {
    match Engine::load(&settings(model)) {
        Err(error @ EngineError::Library { .. }) => {
            eprintln!("SKIP a network with a heat map: {error}");
            None
        }
        loaded => Some(loaded),
    }
}

#[test]
fn the_box_of_a_positive_slice_holds_the_blood() {
    let Some(engine) = load("spot") else { return };
    let mut engine = engine.expect("an engine");
    let transform = engine.info().card.transform;
    let (mut positive, mut hits) = (0, 0);
    for lesion in [None].into_iter().chain(Lesion::ALL.map(Some)) {
        for slice in slices(&PhantomSpec { slices: 10, lesion, seed: 1 }) {
            let (tensor, placement) = placed_input(&slice.object, 0, &transform).expect("an input");
            let answer = engine.first_lane().answer(&[&tensor]).expect("an answer").remove(0);
            let map = answer.heat_map.expect("a map");
            let highest = map.values().iter().copied().fold(0.0, f32::max);
            assert!((f64::from(highest) - answer.probability).abs() < 1e-6, "the map is this slice's own");
            if answer.probability < 0.3 {
                continue;
            }
            let found = map.locate(&placement).expect("a box");
            let bleeds = |row: u32, column: u32| slice.blood[(row * SIDE as u32 + column) as usize];
            let rows = found.top..found.top + found.height;
            let in_box = rows
                .flat_map(|row| (found.left..found.left + found.width).map(move |column| (row, column)))
                .filter(|&(row, column)| bleeds(row, column))
                .count();
            positive += 1;
            hits += usize::from(in_box > 0 && 4 * in_box > (found.width * found.height) as usize);
        }
    }
    println!("{hits} of {positive} boxes are a quarter of blood or more");
    assert!(positive >= 10 && 10 * hits >= 9 * positive, "{hits} of {positive}");
}

#[test]
fn bound_and_filled_up_batches_give_each_slice_its_own_map() {
    let Some(engine) = load("spot") else { return };
    let engine = engine.expect("an engine");
    let transform = engine.info().card.transform;
    let mut lane = engine.into_lanes().swap_remove(0);
    let tensors: Vec<Tensor> = slices(&PhantomSpec { slices: 7, lesion: Some(Lesion::Intraparenchymal), seed: 3 })
        .map(|slice| placed_input(&slice.object, 0, &transform).expect("an input").0)
        .collect();
    let alone: Vec<_> = tensors.iter().map(|tensor| lane.answer(&[tensor]).expect("an answer").remove(0)).collect();
    lane.set_memory(Some(Memory::Host));
    lane.set_batch_size(5);
    for count in [1, 3, 5] {
        let batch: Vec<&Tensor> = tensors.iter().take(count).collect();
        assert_eq!(lane.answer(&batch).expect("answers"), alone[..count], "{count} slices");
    }
}

#[test]
fn a_map_of_another_shape_is_refused_by_name() {
    for (model, why) in [("spot-wrong-shape", "[-1, 1, 16, 16]"), ("spot-dynamic", "[-1, -1, -1]")] {
        let Some(engine) = load(model) else { return };
        let error = engine.err().expect("an error").to_string();
        assert!(error.contains(model) && error.contains("heat_map \"where\"") && error.contains(why), "{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let from = PathBuf::from(settings("spot").model);
    std::fs::copy(from.with_extension("onnx"), folder.path().join("spot.onnx")).expect("a copy");
    let card = std::fs::read_to_string(from).expect("a card");
    for (named, why) in
        [("attention", "none of that name but probability, where"), ("probability", "output of its own")]
    {
        let path = folder.path().join("spot.json");
        std::fs::write(&path, card.replace("\"heat_map\": \"where\"", &format!("\"heat_map\": \"{named}\"")))
            .expect("a card");
        let settings = config::Inference { model: path.display().to_string(), ..settings("spot") };
        let error = Engine::load(&settings).err().expect("an error").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn values_that_are_no_map_cost_the_box_and_fail_the_trial() {
    let Some(engine) = load("spot-wrong-values") else { return };
    let mut engine = engine.expect("an engine");
    let error = engine.trial().expect_err("the trial").to_string();
    assert!(error.contains("heat map"), "{error}");
    let shape = engine.info().card.transform.shape();
    let mut bright = Tensor { shape, data: vec![0.0; shape.iter().product()] };
    bright.data[..shape[1] * shape[2]].fill(1.0);
    let answer = engine.first_lane().answer(&[&bright]).expect("an answer").remove(0);
    assert_eq!((answer.probability, answer.heat_map), (1.0, None));
}
