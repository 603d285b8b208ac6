//! The dense linear algebra that Gram matrices need, in f64.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice};

use crate::kernel::par;
use crate::kernel::simd::vectorized;

/// Columns factored at a time, and rows that one task updates: what a product packs serves all of them.
const PANEL: usize = 128;
const ROWS: usize = 256;
/// Columns and rows solved at a time.
const BLOCK: usize = 64;

/// The lower factor L of A = L·Lᵀ; `None` when A is not positive definite.
pub(crate) fn cholesky(a: Array2<f64>) -> Option<Array2<f64>> {
    let mut l = cholesky_of_lower(a)?;
    let n = l.nrows();
    for (i, row) in l.as_slice_mut()?.chunks_exact_mut(n.max(1)).enumerate() {
        row[i + 1..].fill(0.0);
    }
    Some(l)
}

/// As [`cholesky`], of a matrix of which only the lower triangle is read, and only that of the answer means anything.
///
/// Panels of [`PANEL`] columns: the square on the diagonal is factored, the rows below are solved with it, and what is
/// right of them takes its update, the last two in chunks of rows on all threads.
pub(crate) fn cholesky_of_lower(a: Array2<f64>) -> Option<Array2<f64>> {
    // Panels are factored on slices of rows.
    let mut a = if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() };
    let n = a.nrows();
    let all = a.as_slice_mut()?;
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        let (above, below) = all.split_at_mut(end * n);
        let square = &mut above[start * n..];
        factor_square(square, n, start)?;
        par::for_chunks_mut(below, ROWS * n, |_, rows| {
            vectorized(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact_mut(n) {
                        for (j, done) in (start..end).zip(square.chunks_exact(n)) {
                            row[j] = (row[j] - dot(&row[start..j], &done[start..j])) / done[j];
                        }
                    }
                },
            );
        });
        let panel: Vec<f64> = below.chunks_exact(n).flat_map(|row| &row[start..end]).copied().collect();
        let panel = ArrayView2::from_shape((n - end, end - start), &panel).ok()?;
        par::for_chunks_mut(below, ROWS * n, |k, rows| {
            // Up to the diagonal of the last row, and a little more.
            let (first, count) = (k * ROWS, rows.len() / n);
            let Ok(rows) = ArrayViewMut2::from_shape((count, n), rows) else { return };
            let mut rest = rows;
            rest.slice_axis_inplace(Axis(1), Slice::from(end..end + first + count));
            let left = panel.slice_axis(Axis(0), Slice::from(first..first + count));
            let right = panel.slice_axis(Axis(0), Slice::from(..first + count));
            general_mat_mul(-1.0, &left, &right.t(), 1.0, &mut rest);
        });
    }
    Some(a)
}

/// Factors the square of rows of length n whose first column is `start`.
fn factor_square(rows: &mut [f64], n: usize, start: usize) -> Option<()> {
    for at in 0..rows.len() / n {
        let j = start + at;
        let (above, below) = rows.split_at_mut((at + 1) * n);
        let row = &mut above[at * n..];
        let pivot = row[j] - square_sum(&row[start..j]);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        let pivot = pivot.sqrt();
        row[j] = pivot;
        let done = &row[start..j];
        for other in below.chunks_exact_mut(n) {
            other[j] = (other[j] - dot(&other[start..j], done)) / pivot;
        }
    }
    Some(())
}

/// Σ a·b in independent lanes.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

fn square_sum(a: &[f64]) -> f64 {
    dot(a, a)
}

/// Solves L·Lᵀ·x = b in place, for one right side: what [`cholesky_solve_rows`] is tested against.
#[cfg(test)]
pub(crate) fn cholesky_solve(l: &Array2<f64>, b: &mut ndarray::Array1<f64>) {
    let n = l.nrows();
    for i in 0..n {
        let row = l.row(i);
        let done: f64 = (0..i).map(|k| row[k] * b[k]).sum();
        b[i] = (b[i] - done) / row[i];
    }
    for i in (0..n).rev() {
        let x = b[i] / l[[i, i]];
        b[i] = x;
        let row = l.row(i);
        (0..i).for_each(|k| b[k] -= row[k] * x);
    }
}

/// Solves L·Lᵀ·x = b in place for each row b of a row-major matrix, [`BLOCK`] rows at a time on all threads.
pub(crate) fn cholesky_solve_rows(l: &Array2<f64>, rows: &mut [f64]) {
    let n = l.nrows();
    par::for_chunks_mut(rows, BLOCK * n.max(1), |_, rows| {
        let Ok(mut b) = ArrayViewMut2::from_shape((rows.len() / n, n), rows) else { return };
        for start in (0..n).step_by(BLOCK) {
            let end = (start + BLOCK).min(n);
            let (done, mut rest) = b.view_mut().split_at(Axis(1), start);
            let mut here = rest.slice_axis_mut(Axis(1), Slice::from(..end - start));
            let across = part(l, start..end, 0..start);
            general_mat_mul(-1.0, &done, &across.t(), 1.0, &mut here);
            solve_lower(&part(l, start..end, start..end), &mut here);
        }
        for start in (0..n).step_by(BLOCK).rev() {
            let end = (start + BLOCK).min(n);
            let (mut rest, done) = b.view_mut().split_at(Axis(1), end);
            let mut here = rest.slice_axis_mut(Axis(1), Slice::from(start..));
            general_mat_mul(-1.0, &done, &part(l, end..n, start..end), 1.0, &mut here);
            solve_upper(&part(l, start..end, start..end), &mut here);
        }
    });
}

/// The diagonal of A⁻¹, from L of A = L·Lᵀ: the squares of the columns of L⁻¹.
pub(crate) fn inverse_diagonal(l: &Array2<f64>) -> Vec<f64> {
    let n = l.nrows();
    let mut inverse = Array2::<f64>::eye(n);
    if let Some(rows) = inverse.as_slice_mut() {
        cholesky_solve_rows(l, rows);
    }
    inverse.diag().to_vec()
}

fn part(l: &Array2<f64>, rows: Range<usize>, columns: Range<usize>) -> ArrayView2<'_, f64> {
    let mut view = l.view();
    view.slice_axis_inplace(Axis(0), Slice::from(rows));
    view.slice_axis_inplace(Axis(1), Slice::from(columns));
    view
}

/// y·Lᵀ = b for each row, in place.
fn solve_lower(l: &ArrayView2<'_, f64>, b: &mut ArrayViewMut2<'_, f64>) {
    for mut b in b.rows_mut() {
        for i in 0..l.nrows() {
            let row = l.row(i);
            let done: f64 = (0..i).map(|k| row[k] * b[k]).sum();
            b[i] = (b[i] - done) / row[i];
        }
    }
}

/// x·L = y for each row, in place.
fn solve_upper(l: &ArrayView2<'_, f64>, b: &mut ArrayViewMut2<'_, f64>) {
    for mut b in b.rows_mut() {
        for i in (0..l.nrows()).rev() {
            let row = l.row(i);
            let x = b[i] / row[i];
            b[i] = x;
            (0..i).for_each(|k| b[k] -= row[k] * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    #[test]
    fn factors_and_solves() {
        let n = 150;
        let x = Array2::from_shape_fn((200, n), |(i, j)| {
            (((i * 31 + j * 17) % 97) as f64 / 97.0 - 0.5) + f64::from(u8::from(i == j))
        });
        let gram = x.t().dot(&x);
        let l = cholesky(gram.clone()).unwrap();
        assert_eq!(cholesky(gram.t().to_owned()), Some(l.clone()));
        assert!((l.dot(&l.t()) - &gram).iter().all(|d| d.abs() < 1e-9));
        let truth = Array1::from_shape_fn(n, |i| i as f64 - 7.0);
        let mut b = gram.dot(&truth);
        cholesky_solve(&l, &mut b);
        assert!((b - truth).iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn solves_many_at_once_as_one_by_one() {
        let (n, rows) = (130, 70);
        let x = Array2::from_shape_fn((200, n), |(i, j)| ((i * 31 + j * 17) % 97) as f64 / 97.0 - 0.5);
        let l = cholesky(x.t().dot(&x) + Array2::<f64>::eye(n)).unwrap();
        let mut all = Array2::from_shape_fn((rows, n), |(i, j)| ((i * 13 + j * 29) % 53) as f64 - 26.0);
        let mut each = all.clone();
        cholesky_solve_rows(&l, all.as_slice_mut().unwrap());
        for mut row in each.rows_mut() {
            let mut b = row.to_owned();
            cholesky_solve(&l, &mut b);
            row.assign(&b);
        }
        assert!((all - each).iter().all(|d| d.abs() < 1e-9));
    }

    #[test]
    fn refuses_what_is_not_positive_definite() {
        assert!(cholesky(Array2::zeros((3, 3))).is_none());
        assert!(cholesky(Array2::from_diag(&Array1::from(vec![1.0, -1.0]))).is_none());
    }
}
