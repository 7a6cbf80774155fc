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

/// `size` draws, half of them positive, shuffled: every case of a class is drawn once before any is drawn again.
pub fn balanced(positive: &[bool], size: usize, seed: u64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order = Vec::with_capacity(size);
    for (class, share) in classes(positive).into_iter().zip([size / 2, size - size / 2]) {
        let mut drawn = Vec::with_capacity(share + class.len());
        while drawn.len() < share && !class.is_empty() {
            let mut round = class.clone();
            round.shuffle(&mut rng);
            drawn.extend(round);
        }
        drawn.truncate(share);
        order.extend(drawn);
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
        let order = balanced(&labels, 500, 1);
        assert_eq!(order.len(), 500);
        assert_eq!(order.iter().filter(|&&i| labels[i]).count(), 250);
        let times = |i: usize| order.iter().filter(|&&drawn| drawn == i).count();
        assert!((0..1000).filter(|&i| labels[i]).all(|i| (2..=3).contains(&times(i))));
        assert!((0..1000).filter(|&i| !labels[i]).all(|i| times(i) <= 1));
    }

    #[test]
    fn a_plain_epoch_has_every_case_once() {
        let mut order = plain(&labels(), 9);
        assert_ne!(order, plain(&labels(), 10));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
