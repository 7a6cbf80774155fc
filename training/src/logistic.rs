//! Logistic regression, for the few features of a calibration or of a study's scores.

/// Newton steps at most; it takes five or six.
const STEPS: usize = 50;

/// Weights of the features, the constant's last: those with the highest likelihood of targets from 0 to 1, less
/// `ridge`/2 times the sum of the features' squared weights. None where there is none: no rows, or separable ones
/// without a ridge.
pub fn fit(rows: &[Vec<f64>], targets: &[f64], ridge: f64) -> Option<Vec<f64>> {
    let features = rows.first()?.len();
    let size = features + 1;
    let mut weights = vec![0.0; size];
    let mut value = objective(rows, targets, ridge, &weights);
    for _ in 0..STEPS {
        let mut gradient = vec![0.0; size];
        let mut curvature = vec![vec![0.0; size]; size];
        for (row, target) in rows.iter().zip(targets) {
            let found = sigmoid(linear(row, &weights));
            let bend = found * (1.0 - found);
            let row: Vec<f64> = row.iter().copied().chain([1.0]).collect();
            for ((value, gradient), curvature) in row.iter().zip(&mut gradient).zip(&mut curvature) {
                *gradient += (target - found) * value;
                curvature.iter_mut().zip(&row).for_each(|(cell, other)| *cell += bend * value * other);
            }
        }
        for i in 0..features {
            gradient[i] -= ridge * weights[i];
            curvature[i][i] += ridge;
        }
        let step = solve(curvature, gradient)?;
        // A whole step may go too far where the curve is flat.
        let mut share = 1.0;
        let next = loop {
            let next: Vec<f64> = weights.iter().zip(&step).map(|(weight, step)| weight + share * step).collect();
            let there = objective(rows, targets, ridge, &next);
            if there >= value || share < 1e-6 {
                value = there;
                break next;
            }
            share /= 2.0;
        };
        let moved = weights.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        weights = next;
        if moved < 1e-9 {
            return weights.iter().all(|weight| weight.is_finite()).then_some(weights);
        }
    }
    None
}

/// The weighted sum of a row, the constant included.
pub fn linear(row: &[f64], weights: &[f64]) -> f64 {
    let (constant, weights) = weights.split_last().expect("a constant");
    constant + row.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>()
}

pub fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn objective(rows: &[Vec<f64>], targets: &[f64], ridge: f64, weights: &[f64]) -> f64 {
    let of = |(row, target): (&Vec<f64>, &f64)| {
        let logit = linear(row, weights);
        // ln(1 + exp(logit)) without overflow.
        target * logit - logit.max(0.0) - (-logit.abs()).exp().ln_1p()
    };
    let squares: f64 = weights[..weights.len() - 1].iter().map(|weight| weight * weight).sum();
    rows.iter().zip(targets).map(of).sum::<f64>() - ridge / 2.0 * squares
}

/// Gaussian elimination with partial pivoting. None where the matrix is singular.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        if matrix[pivot][column].is_nan() || matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (done, below) = matrix.split_at_mut(column + 1);
        for (place, row) in below.iter_mut().enumerate() {
            let factor = row[column] / done[column][column];
            row.iter_mut().zip(&done[column]).for_each(|(cell, above)| *cell -= factor * above);
            right[column + 1 + place] -= factor * right[column];
        }
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|i| matrix[row][i] * right[i]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_weights_are_found_again() {
        let known = [1.5, -0.7, 0.3];
        let rows: Vec<Vec<f64>> =
            (0..400).map(|i| vec![f64::from(i % 20) / 4.0 - 2.5, f64::from(i / 20) / 4.0 - 2.5]).collect();
        // Soft targets: the model's own probabilities have their maximum at its weights.
        let targets: Vec<f64> = rows.iter().map(|row| sigmoid(linear(row, &known))).collect();
        let found = fit(&rows, &targets, 0.0).expect("a maximum");
        for (found, known) in found.iter().zip(known) {
            assert!((found - known).abs() < 1e-6, "{found} for {known}");
        }
        // A ridge draws the features' weights towards 0.
        let drawn = fit(&rows, &targets, 50.0).expect("a maximum");
        assert!(drawn[0] < known[0] && drawn[0] > 0.0 && drawn[1] > known[1]);
    }

    #[test]
    fn what_has_no_maximum_has_no_weights() {
        assert_eq!(fit(&[], &[], 0.0), None);
        let separable = [vec![-1.0], vec![-2.0], vec![1.0], vec![2.0]];
        assert_eq!(fit(&separable, &[0.0, 0.0, 1.0, 1.0], 0.0), None);
        assert!(fit(&separable, &[0.0, 0.0, 1.0, 1.0], 1.0).is_some());
        // Two features that are one.
        assert_eq!(fit(&[vec![1.0, 1.0], vec![2.0, 2.0], vec![3.0, 3.0]], &[0.0, 1.0, 0.0], 0.0), None);
    }
}
