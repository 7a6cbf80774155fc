//! Matrix products of activations and weights by the `gemm` crate (Burn's own CPU products use it too), with strides
//! instead of transposed copies.

use std::ops::Range;

/// A matrix in a slice: `rows` × `columns`, whose element `(r, c)` is at `r · row_step + c · column_step`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row by row without gaps.
    pub fn new(data: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0 && data.len().is_multiple_of(columns), "{} values in rows of {columns}", data.len());
        Self { data, rows: data.len() / columns, columns, row_step: columns, column_step: 1 }
    }

    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_step: self.column_step, column_step: self.row_step, ..self }
    }

    /// Some of its columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start < range.end && range.end <= self.columns, "columns {range:?} of {}", self.columns);
        Self { data: &self.data[range.start * self.column_step..], columns: range.len(), ..self }
    }

    fn fits(&self) -> bool {
        self.rows > 0
            && self.columns > 0
            && (self.rows - 1) * self.row_step + (self.columns - 1) * self.column_step < self.data.len()
    }
}

/// `output = left × right`, or `output += left × right` where `add`; `output` is row by row without gaps. One thread:
/// whoever calls divides the work, in the same way whatever the number of threads.
pub fn multiply(left: Matrix<'_>, right: Matrix<'_>, output: &mut [f32], add: bool) {
    assert_eq!(left.columns, right.rows, "inner dimensions");
    assert_eq!(output.len(), left.rows * right.columns, "output");
    assert!(left.fits() && right.fits(), "a matrix larger than its data");
    // SAFETY: `fits` and the length of `output` were just checked, so every element that the strides reach lies in its
    // slice; `output` is borrowed mutably and so overlaps neither factor.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            output.as_mut_ptr(),
            1,
            right.columns as isize,
            add,
            left.data.as_ptr(),
            left.column_step as isize,
            left.row_step as isize,
            right.data.as_ptr(),
            right.column_step as isize,
            right.row_step as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let (a, at) = (Matrix::new(&a, 3), Matrix::new(&a, 3).transposed());
        let mut output = vec![f32::NAN; 4];
        multiply(a, at, &mut output, false);
        assert_eq!(output, [14.0, 32.0, 32.0, 77.0]);
        multiply(a, at, &mut output, true);
        assert_eq!(output, [28.0, 64.0, 64.0, 154.0]);
        // The last two columns' product with themselves: [2 3; 5 6]ᵀ × [2 3; 5 6].
        let last = a.columns(1..3);
        multiply(last.transposed(), last, &mut output, false);
        assert_eq!(output, [29.0, 36.0, 36.0, 45.0]);
    }
}
