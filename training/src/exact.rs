//! Exact (Clopper–Pearson) limits of a share that was counted: C. J. Clopper, E. S. Pearson: The Use of Confidence or
//! Fiducial Limits Illustrated in the Case of the Binomial. Biometrika 26, 1934.
//!
//! A bootstrap of patients none of whom was missed says "1.000 (1.000 to 1.000)", as if a thousand had been seen. These limits
//! know how many there were.

/// Both limits leave out half of it.
const LEFT_OUT: f64 = 0.05;

/// The exact 95 % limits of the share `hits` of `all`, the lower first. None of nothing.
pub fn limits(hits: usize, all: usize) -> Option<[f64; 2]> {
    if all == 0 {
        return None;
    }
    let misses = all - hits;
    let low = if hits == 0 { 0.0 } else { lower(hits, all) };
    // The upper limit of the hits is what the misses' lower limit leaves.
    let high = if misses == 0 { 1.0 } else { 1.0 - lower(misses, all) };
    Some([low, high])
}

/// The share at which `hits` or more of `all` have a chance of half of what is left out. `hits` is at least 1.
fn lower(hits: usize, all: usize) -> f64 {
    let (mut below, mut above) = (0.0, 1.0);
    // The chance rises with the share; halving ends at the last bit of a double.
    for _ in 0..60 {
        let middle = f64::midpoint(below, above);
        if at_least(hits, all, middle) < LEFT_OUT / 2.0 { below = middle } else { above = middle }
    }
    f64::midpoint(below, above)
}

/// The chance of `hits` or more of `all`, each with the chance `share`, which lies between 0 and 1.
fn at_least(hits: usize, all: usize, share: f64) -> f64 {
    let (log_share, log_rest) = (share.ln(), (-share).ln_1p());
    // The logarithm of `all` over `k`, from one k to the next.
    let mut binomial = 0.0;
    let mut sum = 0.0;
    for k in 0..=all {
        if k > 0 {
            binomial += ((all - k + 1) as f64).ln() - (k as f64).ln();
        }
        if k >= hits {
            sum += (binomial + k as f64 * log_share + (all - k) as f64 * log_rest).exp();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn limits_are_those_of_published_tables() {
        // Quantiles of the beta distribution, summed up in Python's whole numbers.
        for (hits, all, low, high) in [
            (8, 13, 0.315_777_6, 0.861_420_7),
            (22, 23, 0.780_513_4, 0.998_899_8),
            (0, 10, 0.0, 0.308_497_1),
            (10, 10, 0.691_502_9, 1.0),
            (950, 1000, 0.934_609_5, 0.962_664_6),
        ] {
            let [lowest, highest] = super::limits(hits, all).expect("some");
            assert!(
                (lowest - low).abs() < 1e-6 && (highest - high).abs() < 1e-6,
                "{hits} of {all}: {lowest} to {highest}"
            );
        }
        assert_eq!(super::limits(0, 0), None);
    }
}
