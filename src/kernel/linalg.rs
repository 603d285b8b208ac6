//! The dense linear algebra that Gram matrices need, in f64.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice};

use crate::kernel::par;

/// Columns factored or updated at a time.
const BLOCK: usize = 64;

/// The lower factor L of A = L·Lᵀ; `None` when A is not positive definite.
pub(crate) fn cholesky(a: Array2<f64>) -> Option<Array2<f64>> {
    // Panels are factored on slices of rows.
    let mut a = if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() };
    let n = a.nrows();
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        factor_panel(&mut a, start, end)?;
        if end == n {
            break;
        }
        // Trailing update, lower triangle by block columns.
        let panel = a
            .slice_axis(Axis(0), Slice::from(end..n))
            .slice_axis(Axis(1), Slice::from(start..end))
            .to_owned();
        for column in (end..n).step_by(BLOCK) {
            let stop = (column + BLOCK).min(n);
            let left = panel.slice_axis(Axis(0), Slice::from(column - end..));
            let right = panel.slice_axis(Axis(0), Slice::from(column - end..stop - end));
            let mut rest = a.slice_axis_mut(Axis(0), Slice::from(column..n));
            let mut rest = rest.slice_axis_mut(Axis(1), Slice::from(column..stop));
            general_mat_mul(-1.0, &left, &right.t(), 1.0, &mut rest);
        }
    }
    for i in 0..n {
        for j in i + 1..n {
            a[[i, j]] = 0.0;
        }
    }
    Some(a)
}

/// Factors columns start..end of all rows below, assuming earlier columns have been applied.
fn factor_panel(a: &mut Array2<f64>, start: usize, end: usize) -> Option<()> {
    let n = a.nrows();
    let all = a.as_slice_mut()?;
    for j in start..end {
        let (above, below) = all.split_at_mut((j + 1) * n);
        let row = &mut above[j * n..];
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

/// Σ a·b in four independent lanes.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
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
