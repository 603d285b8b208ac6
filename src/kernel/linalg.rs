//! The dense linear algebra that Gram matrices need, in f64.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};

use crate::kernel::par;

/// Columns factored or updated at a time.
const BLOCK: usize = 64;

/// gram += Xᵀ·X, by column blocks on all threads.
pub(crate) fn add_gram(gram: &mut Array2<f64>, x: ArrayView2<'_, f64>) {
    let d = x.ncols();
    let blocks = par::map(d.div_ceil(BLOCK), |k| {
        let columns = x.slice_axis(Axis(1), Slice::from(k * BLOCK..((k + 1) * BLOCK).min(d)));
        x.t().dot(&columns)
    });
    for (k, block) in blocks.iter().enumerate() {
        let mut target = gram.slice_axis_mut(Axis(1), Slice::from(k * BLOCK..((k + 1) * BLOCK).min(d)));
        target += block;
    }
}

/// The lower factor L of A = L·Lᵀ; `None` when A is not positive definite.
pub(crate) fn cholesky(mut a: Array2<f64>) -> Option<Array2<f64>> {
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
    for j in start..end {
        let done: f64 = (start..j).map(|k| a[[j, k]] * a[[j, k]]).sum();
        let pivot = a[[j, j]] - done;
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        let pivot = pivot.sqrt();
        a[[j, j]] = pivot;
        for i in j + 1..a.nrows() {
            let done: f64 = (start..j).map(|k| a[[i, k]] * a[[j, k]]).sum();
            a[[i, j]] = (a[[i, j]] - done) / pivot;
        }
    }
    Some(())
}

/// Solves L·Lᵀ·x = b in place.
pub(crate) fn cholesky_solve(l: &Array2<f64>, b: &mut Array1<f64>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_and_solves() {
        let n = 150;
        let x = Array2::from_shape_fn((200, n), |(i, j)| {
            (((i * 31 + j * 17) % 97) as f64 / 97.0 - 0.5) + f64::from(u8::from(i == j))
        });
        let mut gram = Array2::zeros((n, n));
        add_gram(&mut gram, x.view());
        assert!((&gram - &x.t().dot(&x)).iter().all(|d| d.abs() < 1e-9));
        let l = cholesky(gram.clone()).unwrap();
        assert!((l.dot(&l.t()) - &gram).iter().all(|d| d.abs() < 1e-9));
        let truth = Array1::from_shape_fn(n, |i| i as f64 - 7.0);
        let mut b = gram.dot(&truth);
        cholesky_solve(&l, &mut b);
        assert!((b - truth).iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn refuses_what_is_not_positive_definite() {
        assert!(cholesky(Array2::zeros((3, 3))).is_none());
        assert!(cholesky(Array2::from_diag(&Array1::from(vec![1.0, -1.0]))).is_none());
    }
}
