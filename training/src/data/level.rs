//! Draws in which a source says nothing of the label: each source's share among the slices without hemorrhage is made
//! what it is among those with. A network that sees both classes of every source alike cannot take a hospital's look for
//! blood.

use std::collections::BTreeMap;

use super::index::Slice;

/// The weights by which slices are drawn within their class, those of negatives changed so that each source that has
/// both classes has the same share of either. A source of one class keeps its weights.
pub fn levelled(slices: &[&Slice], weights: &[f64]) -> Vec<f64> {
    // For each source: the weight of its negatives and of its positives.
    let mut sums: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for (slice, weight) in slices.iter().zip(weights) {
        sums.entry(&slice.source).or_default()[usize::from(slice.positive)] += weight;
    }
    let both = sums.values().filter(|sums| sums.iter().all(|&sum| sum > 0.0));
    let [negative, positive] = both.fold([0.0, 0.0], |[n, p], sums| [n + sums[0], p + sums[1]]);
    let factor = |slice: &Slice| match sums[slice.source.as_str()] {
        [n, p] if !slice.positive && n > 0.0 && p > 0.0 => (p / positive) / (n / negative),
        _ => 1.0,
    };
    slices.iter().zip(weights).map(|(slice, weight)| weight * factor(slice)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_nothing_of_the_label() {
        let slice = |source: &str, positive: bool| Slice {
            id: "ID".into(),
            source: source.into(),
            patient: "p".into(),
            study: None,
            series: None,
            instance: None,
            positive,
            file: "none".into(),
            mask: None,
            size: None,
            position: None,
            origin: None,
        };
        let many = |source, positive, count| vec![slice(source, positive); count];
        let slices = [
            many("a", true, 10),
            many("a", false, 90),
            many("b", true, 40),
            many("b", false, 60),
            many("only positive", true, 5),
            many("only negative", false, 7),
        ]
        .concat();
        let slices: Vec<&Slice> = slices.iter().collect();
        let before: Vec<f64> = slices.iter().map(|slice| if slice.source == "b" { 0.5 } else { 1.0 }).collect();
        let after = levelled(&slices, &before);
        let sum = |source: &str, positive: bool| -> f64 {
            let of = |slice: &Slice| slice.source == source && slice.positive == positive;
            slices.iter().zip(&after).filter(|(slice, _)| of(slice)).map(|(_, weight)| weight).sum()
        };
        // Among positives a to b is 10 to 20, and so it is among negatives, whose weights have the sum they had: 90 + 30.
        assert!((sum("a", true) - 10.0).abs() < 1e-9 && (sum("b", true) - 20.0).abs() < 1e-9);
        assert!((sum("a", false) - 40.0).abs() < 1e-9 && (sum("b", false) - 80.0).abs() < 1e-9);
        assert_eq!((sum("only positive", true), sum("only negative", false)), (5.0, 7.0));
    }
}
