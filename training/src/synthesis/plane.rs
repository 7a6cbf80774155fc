//! Images as rows of numbers, and what the drawing needs of them: blurs, distances, components.

use std::collections::VecDeque;

/// One number a pixel, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Plane {
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * columns, "an image has a value for each pixel");
        Self { rows, columns, values }
    }

    /// All of one value.
    pub fn of(rows: usize, columns: usize, value: f32) -> Self {
        Self::new(rows, columns, vec![value; rows * columns])
    }

    /// Another image of this size, each pixel by its row and column.
    pub fn map(&self, value: impl Fn(usize, usize) -> f32) -> Self {
        let places = (0..self.rows).flat_map(|y| (0..self.columns).map(move |x| (y, x)));
        Self::new(self.rows, self.columns, places.map(|(y, x)| value(y, x)).collect())
    }

    pub fn at(&self, y: usize, x: usize) -> f32 {
        self.values[y * self.columns + x]
    }

    /// Between pixels, linear; beyond the border as at it.
    pub fn between(&self, y: f32, x: f32) -> f32 {
        let (y, x) = (y.clamp(0.0, self.rows as f32 - 1.0), x.clamp(0.0, self.columns as f32 - 1.0));
        let (top, left) = (y as usize, x as usize);
        let (bottom, right) = ((top + 1).min(self.rows - 1), (left + 1).min(self.columns - 1));
        let (down, across) = (y - top as f32, x - left as f32);
        let upper = self.at(top, left) + across * (self.at(top, right) - self.at(top, left));
        let lower = self.at(bottom, left) + across * (self.at(bottom, right) - self.at(bottom, left));
        upper + down * (lower - upper)
    }

    /// A Gaussian blur of `sigma` pixels; beyond the border as at it.
    pub fn blurred(&self, sigma: f32) -> Self {
        if sigma <= 0.0 {
            return self.clone();
        }
        let reach = (3.0 * sigma).ceil() as i64;
        let mut kernel: Vec<f32> = (-reach..=reach).map(|d| (-0.5 * (d as f32 / sigma).powi(2)).exp()).collect();
        let sum: f32 = kernel.iter().sum();
        kernel.iter_mut().for_each(|weight| *weight /= sum);
        let mut across = Vec::with_capacity(self.values.len());
        for row in self.values.chunks_exact(self.columns) {
            let place = |x: i64| row[x.clamp(0, self.columns as i64 - 1) as usize];
            let padded: Vec<f32> = (-reach..self.columns as i64 + reach).map(place).collect();
            across.extend(
                padded.windows(kernel.len()).map(|near| near.iter().zip(&kernel).map(|(v, w)| v * w).sum::<f32>()),
            );
        }
        let mut blurred = Self::of(self.rows, self.columns, 0.0);
        for (y, row) in blurred.values.chunks_exact_mut(self.columns).enumerate() {
            for (d, weight) in (-reach..=reach).zip(&kernel) {
                let from = (y as i64 + d).clamp(0, self.rows as i64 - 1) as usize * self.columns;
                row.iter_mut().zip(&across[from..]).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        blurred
    }

    /// The mean of the pixels `within`, weighted by a Gaussian of `sigma`; 0 where none is near.
    pub fn blurred_within(&self, within: &[bool], sigma: f32) -> Self {
        let weight = self.map(|y, x| f32::from(u8::from(within[y * self.columns + x])));
        let sum = self.map(|y, x| self.at(y, x) * weight.at(y, x)).blurred(sigma);
        let weight = weight.blurred(sigma);
        sum.map(|y, x| if weight.at(y, x) > 1e-4 { sum.at(y, x) / weight.at(y, x) } else { 0.0 })
    }
}

/// The Euclidean distance of each pixel inside to the nearest one outside, in pixels; 0 outside. (P. F. Felzenszwalb, D. P.
/// Huttenlocher: Distance Transforms of Sampled Functions, 2012.)
pub fn depth(inside: &[bool], rows: usize, columns: usize) -> Plane {
    const FAR: f32 = 1e12;
    let mut squares = Plane::new(rows, columns, inside.iter().map(|&inside| if inside { FAR } else { 0.0 }).collect());
    for x in 0..columns {
        let column: Vec<f32> = (0..rows).map(|y| squares.at(y, x)).collect();
        for (y, value) in lower_envelope(&column).into_iter().enumerate() {
            squares.values[y * columns + x] = value;
        }
    }
    for row in squares.values.chunks_exact_mut(columns) {
        let values = lower_envelope(row);
        row.copy_from_slice(&values);
    }
    squares.values.iter_mut().for_each(|value| *value = value.min(FAR).sqrt());
    squares
}

fn lower_envelope(values: &[f32]) -> Vec<f32> {
    let (mut places, mut borders): (Vec<usize>, Vec<f32>) = (vec![0], vec![f32::NEG_INFINITY]);
    let square = |place: usize| values[place] + (place * place) as f32;
    for place in 1..values.len() {
        loop {
            let last = places[places.len() - 1];
            let border = (square(place) - square(last)) / (2 * (place - last)) as f32;
            if border > borders[borders.len() - 1] {
                places.push(place);
                borders.push(border);
                break;
            }
            places.pop();
            borders.pop();
            if places.is_empty() {
                places.push(place);
                borders.push(f32::NEG_INFINITY);
                break;
            }
        }
    }
    let mut at = 0;
    (0..values.len())
        .map(|place| {
            while at + 1 < places.len() && borders[at + 1] < place as f32 {
                at += 1;
            }
            let away = place as f32 - places[at] as f32;
            away * away + values[places[at]]
        })
        .collect()
}

/// The connected components (up, down, left, right) of the pixels that are set, each with its pixels.
pub fn components(set: &[bool], columns: usize) -> Vec<Vec<usize>> {
    let mut seen = vec![false; set.len()];
    let mut all = Vec::new();
    for start in 0..set.len() {
        if !set[start] || seen[start] {
            continue;
        }
        let (mut component, mut ahead) = (Vec::new(), VecDeque::from([start]));
        seen[start] = true;
        while let Some(place) = ahead.pop_front() {
            component.push(place);
            let x = place % columns;
            let near = [
                place.checked_sub(columns),
                Some(place + columns).filter(|place| *place < set.len()),
                (x > 0).then(|| place - 1),
                (x + 1 < columns).then(|| place + 1),
            ];
            for next in near.into_iter().flatten().filter(|&next| set[next]) {
                if !std::mem::replace(&mut seen[next], true) {
                    ahead.push_back(next);
                }
            }
        }
        all.push(component);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_the_distances_to_what_is_outside() {
        let (rows, columns) = (23, 31);
        let inside: Vec<bool> = (0..rows * columns)
            .map(|i| {
                let (y, x) = (i / columns, i % columns);
                (3..20).contains(&y) && (4..27).contains(&x) && (y, x) != (11, 9)
            })
            .collect();
        let found = depth(&inside, rows, columns);
        for (i, value) in found.values.iter().enumerate() {
            let (y, x) = ((i / columns) as f32, (i % columns) as f32);
            let away = |j: usize| (y - (j / columns) as f32).hypot(x - (j % columns) as f32);
            let nearest = (0..inside.len()).filter(|&j| !inside[j]).map(away).fold(f32::INFINITY, f32::min);
            assert!((value - nearest).abs() < 1e-3, "{i}: {value} for {nearest}");
        }
    }

    #[test]
    fn a_blur_keeps_the_sum_and_a_blur_within_sees_only_that() {
        let mut plane = Plane::of(40, 40, 0.0);
        plane.values[20 * 40 + 20] = 1.0;
        let blurred = plane.blurred(2.0);
        assert!((blurred.values.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!((blurred.at(20, 20) - 1.0 / (2.0 * std::f32::consts::PI * 4.0)).abs() < 2e-3);
        let halves = plane.map(|_, x| if x < 20 { 30.0 } else { 1000.0 });
        let left: Vec<bool> = (0..1600).map(|i| i % 40 < 20).collect();
        assert!((halves.blurred_within(&left, 3.0).at(20, 19) - 30.0).abs() < 1e-3);
    }

    #[test]
    fn components_are_joined_by_their_sides() {
        let set = [true, false, true, true, false, false, false, true, false].map(|set| set);
        let mut sizes: Vec<usize> = components(&set, 3).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, 2]);
    }
}
