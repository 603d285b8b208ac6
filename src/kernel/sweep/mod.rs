//! Columns of a weight chosen one after another, the error of each fed forward into the columns that come after it.
//!
//! A row's objective is δ·H·δᵀ for the error δ that its chosen values q leave, column by column in a fixed order. With
//! H = R·Rᵀ, R upper triangular,
//!
//! ```text
//! δ·H·δᵀ = Σ_j R_jj²·(w′_j − q_j)²        w′_j = w_j + Σ_{i<j} δ_i·R_ij / R_jj
//! ```
//!
//! where w′ is a weight after its compensation. So one factorization of H takes the place of the two factorizations
//! and the inverse of the usual form (whose triangle is R⁻¹): the chosen values are the same.

mod thinning;

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Slice};

use crate::kernel::{linalg, par};
use crate::{Element, Error, Result};

pub(crate) use thinning::{Pattern, Thinning, Values};

/// Rows that are swept together: their weights of a column lie side by side.
pub(crate) const LANES: usize = 256;
/// Columns whose errors are fed forward by one product of matrices, and by smaller ones within it: what a product packs
/// serves all of its columns.
const LARGE: usize = 512;
const BLOCK: usize = 128;
const SMALL: usize = 16;
/// Columns whose losses are added up at a time.
const WIDE: usize = 512;

/// A damping as settings take it, a share of the mean diagonal.
///
/// # Errors
/// Not above 0, or not finite.
pub(crate) fn damping(damp: f64) -> Result<f64> {
    if damp > 0.0 && damp.is_finite() {
        return Ok(damp);
    }
    Err(Error::setting(format!("a damping of {damp} must be above 0 and finite")))
}

/// How often a damping that does not make a matrix positive definite is raised tenfold.
const RAISES: i32 = 6;

/// Columns in the order of a sweep: as they are, or by falling importance. Units of `of` channels stay together, tap by
/// tap; `taps` are the neighbours of a channel.
pub(crate) fn order(importance: &[f64], falling: bool, taps: usize, of: usize) -> Vec<usize> {
    let channels = importance.len() / taps.max(1);
    let unit = |unit: usize| {
        let (first, tap) = (unit / taps * of, unit % taps);
        (first..(first + of).min(channels)).map(move |channel| channel * taps + tap)
    };
    let mut units: Vec<usize> = (0..channels.div_ceil(of) * taps).collect();
    if falling {
        let total: Vec<f64> = units.iter().map(|&k| unit(k).map(|c| importance[c]).sum()).collect();
        units.sort_by(|&a, &b| total[b].total_cmp(&total[a]));
    }
    units.into_iter().flat_map(unit).collect()
}

/// How errors are fed forward.
#[derive(Debug)]
pub(crate) struct Feedback<F> {
    /// `R_ij` / `R_jj`, used above the diagonal.
    triangle: Array2<F>,
    /// `R_jj`²: what the square of an error costs that no later column can take.
    pub(crate) costs: Vec<f64>,
    /// What was added to the diagonal.
    pub(crate) ridge: f64,
}

/// Chooses the values of a chunk of rows. Columns are counted in the order of the sweep.
pub(crate) trait Choice<F> {
    /// Columns that are looked at together before the first of them is chosen; 0 for none.
    fn section(&self) -> usize {
        0
    }

    /// The weights of a section as they would be, were none of them changed: [columns, lanes].
    fn look(&mut self, _columns: Range<usize>, _weights: &[F]) {}

    /// Chooses the values of one column for its weights after compensation.
    fn choose(&mut self, column: usize, weights: &[F], values: &mut [F]);
}

impl<F: Element> Feedback<F> {
    /// For H = gram + ridge·I with its columns in this order; `None` when that is not positive definite.
    pub(crate) fn new(gram: &Array2<f64>, order: &[usize], ridge: f64) -> Option<Self> {
        let n = order.len();
        // The usual lower factor of the columns turned around is R turned around.
        let mut turned = Array2::zeros((n, n));
        let place = |k: usize| order[n - 1 - k];
        par::for_chunks_mut(turned.as_slice_mut()?, n.max(1), |k, row| {
            let source = gram.row(place(k));
            row.iter_mut().enumerate().take(k + 1).for_each(|(j, to)| *to = source[place(j)]);
            row[k] += ridge;
        });
        let lower = linalg::cholesky_of_lower(turned)?;
        let diagonal: Vec<f64> = (0..n).map(|j| lower[[n - 1 - j, n - 1 - j]]).collect();
        let inverse: Vec<f64> = diagonal.iter().map(|d| d.recip()).collect();
        let mut triangle = Array2::zeros((n, n));
        par::for_chunks_mut(triangle.as_slice_mut()?, n.max(1), |i, row| {
            let source = lower.row(n - 1 - i);
            for j in i + 1..n {
                row[j] = F::narrow(source[n - 1 - j] * inverse[j]);
            }
        });
        let costs: Vec<f64> = diagonal.iter().map(|d| d * d).collect();
        costs.iter().all(|c| c.is_finite() && *c > 0.0).then_some(Self { triangle, costs, ridge })
    }

    /// For H = I: nothing is fed forward.
    pub(crate) fn none(columns: usize) -> Self {
        Self { triangle: Array2::zeros((columns, columns)), costs: vec![1.0; columns], ridge: 1.0 }
    }

    /// As [`new`](Self::new), with a ridge of `damp` times the mean of the diagonal, which is raised until it is enough.
    /// The damping that was, where it was raised.
    pub(crate) fn damped(gram: &Array2<f64>, order: &[usize], damp: f64) -> Option<(Self, Option<f64>)> {
        let mean = gram.diag().sum() / order.len().max(1) as f64;
        if mean.is_nan() || mean <= 0.0 {
            return None;
        }
        (0..=RAISES).find_map(|raise| {
            let damp = damp * 10f64.powi(raise);
            let feedback = Self::new(gram, order, damp * mean)?;
            Some((feedback, (raise > 0).then_some(damp)))
        })
    }

    /// δ·H·δᵀ of each row of errors [columns, lanes]; where every row is past its limit, a part of it that is too.
    pub(crate) fn losses(&self, errors: &[F], lanes: usize, limits: &[f64]) -> Vec<f64> {
        let mut losses = vec![0.0; lanes];
        let mut left = vec![F::zero(); WIDE * lanes];
        for columns in parts(&(0..self.costs.len()), WIDE) {
            let left = &mut left[..columns.len() * lanes];
            left.copy_from_slice(&errors[columns.start * lanes..columns.end * lanes]);
            if let Ok(mut left) = ArrayViewMut2::from_shape((columns.len(), lanes), left) {
                let factors = part(&self.triangle, 0..columns.end, columns.clone());
                let errors = matrix(&errors[..columns.end * lanes], lanes);
                general_mat_mul(F::one(), &factors.t(), &errors, F::one(), &mut left);
            }
            for (left, &cost) in left.chunks_exact(lanes).zip(&self.costs[columns]) {
                losses.iter_mut().zip(left).for_each(|(loss, x)| *loss += cost * x.widen() * x.widen());
            }
            if losses.iter().zip(limits).all(|(loss, limit)| loss > limit) {
                break;
            }
        }
        losses
    }

    /// Sweeps over the weights of a chunk of rows, [columns, lanes], and leaves their errors δ in their place; δ·H·δᵀ
    /// of each row.
    pub(crate) fn sweep(&self, weights: &mut [F], lanes: usize, choice: &mut impl Choice<F>) -> Vec<f64> {
        let (columns, section) = (self.costs.len(), choice.section());
        let mut run = Run {
            feedback: self,
            lanes,
            errors: weights,
            losses: vec![0.0; lanes],
            added: vec![F::zero(); columns * lanes],
            values: vec![F::zero(); lanes],
            weights: vec![F::zero(); lanes],
        };
        if section == 0 {
            run.plain(0..columns, &[LARGE, BLOCK, SMALL], choice);
        } else {
            // Blocks hold whole sections.
            let whole = |size: usize| section * (size / section).max(1);
            run.nested(0..columns, &[LARGE, BLOCK, section].map(whole), choice);
        }
        run.losses
    }
}

/// One chunk's sweep.
struct Run<'a, F> {
    feedback: &'a Feedback<F>,
    lanes: usize,
    /// Errors of the columns that are done, weights of the others.
    errors: &'a mut [F],
    /// What errors so far add to each column.
    added: Vec<F>,
    losses: Vec<f64>,
    values: Vec<F>,
    weights: Vec<F>,
}

impl<F: Element> Run<'_, F> {
    /// Blocks of sections: the last size is that of a section, which is looked at first.
    fn nested(&mut self, columns: Range<usize>, sizes: &[usize], choice: &mut impl Choice<F>) {
        let Some((&size, smaller)) = sizes.split_first() else {
            self.look(columns.clone(), choice);
            return self.plain(columns, &[BLOCK, SMALL], choice);
        };
        for part in parts(&columns, size) {
            self.feed(columns.start..part.start, part.clone());
            self.nested(part, smaller, choice);
        }
    }

    fn plain(&mut self, columns: Range<usize>, sizes: &[usize], choice: &mut impl Choice<F>) {
        let Some((&size, smaller)) = sizes.split_first() else { return self.one_by_one(columns, choice) };
        for part in parts(&columns, size) {
            self.feed(columns.start..part.start, part.clone());
            self.plain(part, smaller, choice);
        }
    }

    /// Adds what the errors of some columns do to later ones.
    fn feed(&mut self, from: Range<usize>, to: Range<usize>) {
        if from.is_empty() {
            return;
        }
        let lanes = self.lanes;
        let factors = part(&self.feedback.triangle, from.clone(), to.clone());
        let errors = matrix(&self.errors[from.start * lanes..from.end * lanes], lanes);
        let added = &mut self.added[to.start * lanes..to.end * lanes];
        if let Ok(mut added) = ArrayViewMut2::from_shape((to.len(), lanes), added) {
            general_mat_mul(F::one(), &factors.t(), &errors, F::one(), &mut added);
        }
    }

    /// Shows the section as it would be with none of its columns changed: each takes all that errors so far ask.
    fn look(&mut self, columns: Range<usize>, choice: &mut impl Choice<F>) {
        let lanes = self.lanes;
        let at = columns.start * lanes..columns.end * lanes;
        // δ of a column left as it is: minus what was added, which its neighbours then see.
        let mut moves = self.added[at.clone()].to_vec();
        for j in 0..columns.len() {
            let (done, rest) = moves.split_at_mut((j + 1) * lanes);
            let own = &done[j * lanes..];
            let row = self.feedback.triangle.row(columns.start + j);
            for (k, later) in rest.chunks_exact_mut(lanes).enumerate() {
                let factor = row[columns.start + j + 1 + k];
                later.iter_mut().zip(own).for_each(|(x, &m)| *x -= m * factor);
            }
        }
        moves.iter_mut().zip(&self.errors[at]).for_each(|(x, &w)| *x += w);
        choice.look(columns, &moves);
    }

    fn one_by_one(&mut self, columns: Range<usize>, choice: &mut impl Choice<F>) {
        let lanes = self.lanes;
        for j in columns.clone() {
            let at = j * lanes..(j + 1) * lanes;
            let own = &mut self.errors[at.clone()];
            let compensated = self.weights.iter_mut().zip(own.iter()).zip(&self.added[at]);
            compensated.for_each(|((to, &w), &added)| *to = w + added);
            choice.choose(j, &self.weights, &mut self.values);
            own.iter_mut().zip(&self.values).for_each(|(w, &q)| *w -= q);
            let cost = self.feedback.costs[j];
            for (loss, (&w, &q)) in self.losses.iter_mut().zip(self.weights.iter().zip(&self.values)) {
                let left = (w - q).widen();
                *loss += cost * left * left;
            }
            let row = self.feedback.triangle.row(j);
            for k in j + 1..columns.end {
                let factor = row[k];
                let later = &mut self.added[k * lanes..(k + 1) * lanes];
                later.iter_mut().zip(own.iter()).for_each(|(x, &error)| *x += error * factor);
            }
        }
    }
}

/// A range in parts of this size, the last of which may be short.
fn parts(range: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size.max(1)).map(move |start| start..(start + size).min(end))
}

fn part<F>(matrix: &Array2<F>, rows: Range<usize>, columns: Range<usize>) -> ArrayView2<'_, F> {
    let mut view = matrix.view();
    view.slice_axis_inplace(Axis(0), Slice::from(rows));
    view.slice_axis_inplace(Axis(1), Slice::from(columns));
    view
}

fn matrix<F>(values: &[F], lanes: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / lanes.max(1), lanes), values)
        .unwrap_or_else(|_| ArrayView2::from(&[[]; 0]))
}
