//! Which slices an epoch sees, and in which order. All are seeded and repeat.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A random sample of `size` of the cases, with the share of positives that all have; all of them where there are no
/// more. Returns their places, in order.
pub fn stratified(positive: &[bool], size: usize, seed: u64) -> Vec<usize> {
    if size >= positive.len() {
        return (0..positive.len()).collect();
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let [mut yes, mut no] = classes(positive);
    let wanted = (size as f64 * yes.len() as f64 / positive.len() as f64).round() as usize;
    yes.shuffle(&mut rng);
    no.shuffle(&mut rng);
    yes.truncate(wanted);
    no.truncate(size - wanted);
    let mut sample = [yes, no].concat();
    sample.sort_unstable();
    sample
}

/// All cases, shuffled.
pub fn plain(positive: &[bool], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..positive.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    order
}

/// `size` draws, half of them positive, shuffled. Within its class a case is drawn as often as its weight is large: each
/// comes as often as the weights make it expected, rounded up or down, so that of equal weights every case is drawn once
/// before any is drawn again. A case of weight 0 is never drawn.
pub fn balanced(positive: &[bool], weights: &[f64], size: usize, seed: u64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order = Vec::with_capacity(size);
    for (mut class, share) in classes(positive).into_iter().zip([size / 2, size - size / 2]) {
        class.retain(|&i| weights[i] > 0.0);
        class.shuffle(&mut rng);
        let total: f64 = class.iter().map(|&i| weights[i]).sum();
        // Systematic sampling: marks at equal distances along the weights laid end to end, the first placed at random.
        let first: f64 = rng.random();
        let (mut end, mut marks) = (0.0, 0);
        for (place, &i) in class.iter().enumerate() {
            end += weights[i];
            let last = place + 1 == class.len();
            let before = if last { share } else { ((end / total * share as f64 - first).ceil().max(0.0)) as usize };
            let before = before.min(share);
            order.extend(std::iter::repeat_n(i, before.saturating_sub(marks)));
            marks = marks.max(before);
        }
    }
    order.shuffle(&mut rng);
    order
}

/// The places of the positives, and of the negatives.
fn classes(positive: &[bool]) -> [Vec<usize>; 2] {
    let (yes, no) = (0..positive.len()).partition(|&i| positive[i]);
    [yes, no]
}

/// A seed for one use out of many: of run, epoch and place.
pub fn epoch_seed(seed: u64, epoch: usize, place: usize) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed ^ (epoch as u64).rotate_left(32) ^ (place as u64).rotate_left(8));
    rng.random()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<bool> {
        (0..1000).map(|i| i % 10 == 0).collect()
    }

    #[test]
    fn a_stratified_sample_keeps_the_share_of_positives() {
        let labels = labels();
        let sample = stratified(&labels, 200, 3);
        assert_eq!(sample.len(), 200);
        assert_eq!(sample.iter().filter(|&&i| labels[i]).count(), 20);
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]), "no case twice");
        assert_eq!(sample, stratified(&labels, 200, 3));
        assert_ne!(sample, stratified(&labels, 200, 4));
        assert_eq!(stratified(&labels, 5000, 3).len(), 1000);
    }

    #[test]
    fn a_balanced_epoch_is_half_positive_and_repeats_positives_evenly() {
        let labels = labels();
        let order = balanced(&labels, &[1.0; 1000], 500, 1);
        assert_eq!(order.len(), 500);
        assert_eq!(order.iter().filter(|&&i| labels[i]).count(), 250);
        let times = |i: usize| order.iter().filter(|&&drawn| drawn == i).count();
        assert!((0..1000).filter(|&i| labels[i]).all(|i| (2..=3).contains(&times(i))));
        assert!((0..1000).filter(|&i| !labels[i]).all(|i| times(i) <= 1));
    }

    #[test]
    fn a_case_is_drawn_by_its_weight_within_its_class() {
        let labels = labels();
        // In each class the first half weighs 1, then half of it 0.25, the rest nothing.
        let weight = |i: usize| match i {
            0..500 => 1.0,
            500..750 => 0.25,
            _ => 0.0,
        };
        let weights: Vec<f64> = (0..1000).map(weight).collect();
        for (size, seed) in [(2000, 1), (1001, 2), (90, 3), (1, 4)] {
            let order = balanced(&labels, &weights, size, seed);
            assert_eq!(order.len(), size);
            assert_eq!(order.iter().filter(|&&i| labels[i]).count(), size / 2);
            for class in [true, false] {
                let of = |range: std::ops::Range<usize>| range.filter(|&i| labels[i] == class).collect::<Vec<usize>>();
                let drawn = |cases: &[usize]| order.iter().filter(|i| cases.contains(i)).count() as f64;
                let (whole, quarter) = (of(0..500), of(500..750));
                let all = if class { size / 2 } else { size - size / 2 } as f64;
                // 1 · 2 beside 0.25 · 1: eight of nine draws. Each case comes as expected, rounded either way.
                let each = all * 8.0 / 9.0 / whole.len() as f64;
                assert_eq!(drawn(&of(750..1000)), 0.0);
                for i in &whole {
                    assert!((drawn(&[*i]) - each).abs() < 1.0 + 1e-9, "{size}: {} for {each}", drawn(&[*i]));
                }
                for i in &quarter {
                    assert!((drawn(&[*i]) - each / 4.0).abs() < 1.0 + 1e-9, "{size}: {}", drawn(&[*i]));
                }
            }
        }
        // Over many epochs the shares are those of the weights.
        let draws: Vec<usize> = (0..200).flat_map(|seed| balanced(&labels, &weights, 20, seed)).collect();
        let heavy = draws.iter().filter(|&&i| i < 500).count() as f64 / draws.len() as f64;
        assert!((heavy - 8.0 / 9.0).abs() < 0.02, "{heavy}");
    }

    #[test]
    fn a_plain_epoch_has_every_case_once() {
        let mut order = plain(&labels(), 9);
        assert_ne!(order, plain(&labels(), 10));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
