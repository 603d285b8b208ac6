//! The rows that share a Gram matrix, chunk by chunk.

use std::cmp::Ordering;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1};

use super::codes::{Codes, Scales};
use super::learn::{Chunk, Start, Sums};
use super::polish::Task;
use super::{Gptq, Thin};
use crate::Element;
use crate::evidence::objective::{Objective, Rows};
use crate::kernel::par;
use crate::kernel::sweep::{self, Feedback, LANES, Pattern, Thinning};
use crate::model::Sparsity;
use crate::quantize::grid::{self, Fit, Grid};

/// How clear the difference between two rows must be before the rest of it is left out.
const MARGIN: f64 = 1.01;
/// Multiplications that the errors of a report may take.
const REPORTED: usize = 1 << 31;
/// Ranges that a search tries: 100 % to 40 %.
const TRIES: usize = 16;

/// The rows of one group of a convolution; of all else there is one.
pub(super) struct Group<'a, F> {
    gptq: Gptq,
    start: &'a Start<'a, F>,
    gram: &'a Array2<f64>,
    rows: Rows,
    own: std::ops::Range<usize>,
    order: Vec<usize>,
    /// Mean squares of the inputs, in the order of the sweep.
    importance: Vec<f64>,
    /// The first column of each scale of a row, and the scale of each column in the order of the sweep.
    columns: Vec<usize>,
    slots: Vec<usize>,
    /// Whether each row has scales of its own, and whether the sweep finds them.
    owned: bool,
    found: bool,
}

/// Codes for a chunk of rows, [columns in the order of the sweep, lanes].
pub(super) struct Rounded<F> {
    pub(super) codes: Vec<u8>,
    /// [slots, lanes]
    pub(super) fits: Vec<Fit>,
    pub(super) errors: Vec<F>,
    /// 1 or 0: whether a weight may have a code other than that of 0.
    pub(super) keeps: Vec<F>,
    /// δ·H·δᵀ of each row.
    pub(super) losses: Vec<f64>,
}

impl<'a, F: Element> Group<'a, F> {
    pub(super) fn new(
        gptq: Gptq,
        objective: &'a Objective<'_>,
        group: usize,
        start: &'a Start<'a, F>,
    ) -> Self {
        let (gram, rows) = (objective.grams[group].as_ref(), objective.rows);
        let own = rows.of_group(group);
        let of = if let Thin::NOfM { of, .. } = gptq.thin { of } else { 1 };
        let order = sweep::order(&gram.diag().to_vec(), gptq.act_order, start.taps, of);
        let scale = |row: usize, column: usize| start.blocks.scale_of(rows.at(row, column));
        let owned = rows.count == 1 || scale(1, 0) != scale(0, 0);
        let (mut columns, mut slots) = (Vec::new(), vec![0; rows.width]);
        let mut known = std::collections::HashMap::new();
        for (column, slot) in slots.iter_mut().enumerate() {
            *slot = *known.entry(scale(own.start, column)).or_insert_with(|| {
                columns.push(column);
                columns.len() - 1
            });
        }
        let natural = order.iter().enumerate().all(|(k, &column)| k == column);
        let whole = start.blocks.size.is_multiple_of(of);
        let found = owned && columns.len() > 1 && natural && whole && !gptq.act_order && !gptq.static_groups;
        let slots = order.iter().map(|&column| slots[column]).collect();
        let importance = order.iter().map(|&column| gram[[column, column]]).collect();
        Self { gptq, start, gram, rows, own, order, importance, columns, slots, owned, found }
    }

    pub(super) fn sweep(&self) -> (Vec<Chunk>, Option<String>) {
        let (feedback, note) = match Feedback::damped(self.gram, &self.order, self.gptq.damp) {
            Some((feedback, None)) => (feedback, None),
            Some((feedback, Some(damp))) => {
                (feedback, Some(format!("its Gram matrix cannot be factored: damping raised to {damp}")))
            }
            None => {
                let note = "its inputs are all 0, or no damping is enough: rounded to nearest";
                (Feedback::none(self.rows.width), Some(note.to_owned()))
            }
        };
        let chunks = self.own.len().div_ceil(LANES);
        let chunk = |k: usize| {
            let first = self.own.start + k * LANES;
            self.chunk(&feedback, first, LANES.min(self.own.end - first))
        };
        (par::map(chunks, chunk), note)
    }

    /// The weights of some rows, [columns in the order of the sweep, lanes].
    fn weights(&self, first: usize, lanes: usize) -> Vec<F> {
        let of_column = |&column: &usize| {
            (0..lanes).map(move |lane| self.start.values[self.rows.at(first + lane, column)])
        };
        self.order.iter().flat_map(of_column).collect()
    }

    /// What nearest rounding makes of some rows.
    fn nearest(&self, weights: &[F], first: usize, lanes: usize) -> Rounded<F> {
        let Start { grid, blocks, ref codes, ref fits, .. } = *self.start;
        let at = |lane: usize, column: usize| self.rows.at(first + lane, column);
        let fits: Vec<Fit> = self
            .columns
            .iter()
            .flat_map(|&column| (0..lanes).map(move |lane| fits[blocks.scale_of(at(lane, column))]))
            .collect();
        let codes: Vec<u8> = self
            .order
            .iter()
            .flat_map(|&column| (0..lanes).map(move |lane| codes[at(lane, column)]))
            .collect();
        let mut errors = weights.to_vec();
        for ((errors, codes), &slot) in errors.chunks_mut(lanes).zip(codes.chunks(lanes)).zip(&self.slots) {
            let fits = &fits[slot * lanes..(slot + 1) * lanes];
            let each = errors.iter_mut().zip(codes).zip(fits);
            each.for_each(|((error, &code), &fit)| *error -= decoded(grid, fit, code));
        }
        Rounded { codes, fits, errors, keeps: Vec::new(), losses: Vec::new() }
    }

    fn chunk(&self, feedback: &Feedback<F>, first: usize, lanes: usize) -> Chunk {
        let (weights, grid) = (self.weights(first, lanes), self.start.grid);
        let mut nearest = self.nearest(&weights, first, lanes);
        let mut best = self.rounded(feedback, &weights, &nearest.fits, first, lanes);
        if self.gptq.polish > 0 {
            let scaled = self.owned && self.columns.len() == 1;
            let task = Task { grid, gram: self.gram, order: &self.order, slots: &self.slots, scaled };
            task.polish(self.gptq.polish, feedback.ridge, &weights, &mut best, lanes);
        }
        nearest.thin(&weights, &best.keeps, grid, &self.slots, lanes);
        let (kept, sums) = self.compare(feedback, &weights, &nearest, &mut best, lanes, first);
        let mut codes = vec![0; best.codes.len()];
        for (&column, chosen) in self.order.iter().zip(best.codes.chunks(lanes)) {
            let to = codes[column..].iter_mut().step_by(self.rows.width);
            to.zip(chosen).for_each(|(to, &code)| *to = code);
        }
        // Scales that rows share are as they were.
        let columns = if self.owned { self.columns.clone() } else { Vec::new() };
        Chunk { lanes, codes, fits: best.fits, columns, nearest: kept, sums }
    }

    /// Codes by the sweep, in the range that serves each row best where that is asked for.
    fn rounded(
        &self,
        feedback: &Feedback<F>,
        weights: &[F],
        fits: &[Fit],
        first: usize,
        lanes: usize,
    ) -> Rounded<F> {
        let before = first * self.rows.width;
        let sparsity =
            if let Thin::Share(sparsity) = self.gptq.thin { sparsity } else { Sparsity::default() };
        let quota = move |cells: usize| sparsity.of(cells);
        let pattern = match self.gptq.thin {
            Thin::Nothing => Pattern::Zeros,
            Thin::Share(_) => Pattern::Share { quota: &quota, before },
            Thin::NOfM { keep, of } => Pattern::NOfM { keep, of },
        };
        let costs = &feedback.costs;
        let mut best =
            self.once(feedback, weights, fits, 1.0, Thinning::new(pattern, costs, weights, lanes), lanes);
        let tries = if self.gptq.search && self.owned { TRIES } else { 1 };
        for k in 1..tries {
            let share = 1.0 - 0.6 * k as f64 / (TRIES - 1) as f64;
            let thinning = Thinning::known(best.keeps.clone(), lanes);
            let other = self.once(feedback, weights, fits, share, thinning, lanes);
            for lane in 0..lanes {
                if other.losses[lane] < best.losses[lane] {
                    best.take(&other, lane, lanes);
                    best.losses[lane] = other.losses[lane];
                }
            }
        }
        best
    }

    /// One sweep, in this share of the range.
    fn once(
        &self,
        feedback: &Feedback<F>,
        weights: &[F],
        fits: &[Fit],
        share: f64,
        thinning: Thinning<'_, F>,
        lanes: usize,
    ) -> Rounded<F> {
        let Start { grid, blocks, range, .. } = *self.start;
        let part = |fit: &Fit| match grid::stored((f64::from(fit.scale) * share) as f32, grid.scales) {
            Ok(scale) if scale >= f32::MIN_POSITIVE => Fit { scale, ..*fit },
            _ => *fit,
        };
        let fits = if share < 1.0 { fits.iter().map(part).collect() } else { fits.to_vec() };
        let found = self.found.then_some((range, share, blocks.size));
        let scales = Scales { fits, slots: &self.slots, found, importance: &self.importance };
        let mut choice = Codes::new(grid, lanes, scales, thinning, self.gptq.block);
        let mut errors = weights.to_vec();
        let losses = feedback.sweep(&mut errors, lanes, &mut choice);
        let Codes { chosen, scales, thinning, .. } = choice;
        Rounded { codes: chosen, fits: scales.fits, errors, keeps: thinning.keeps, losses }
    }

    /// Takes the rows that nearest rounding serves better: how many, and what the sampled rows are worth. Sampled rows
    /// and those that are close are decided by exact sums, others by what the sweep lost.
    fn compare(
        &self,
        feedback: &Feedback<F>,
        weights: &[F],
        nearest: &Rounded<F>,
        best: &mut Rounded<F>,
        lanes: usize,
        first: usize,
    ) -> (usize, Sums) {
        let step = stride(self.rows);
        let sampled = |lane: &usize| (first + lane).is_multiple_of(step);
        let rows: Vec<usize> = if step == 1 {
            (0..lanes).collect()
        } else {
            let close = close(feedback, nearest, best, lanes);
            (0..lanes).filter(|lane| sampled(lane) || close.contains(lane)).collect()
        };
        let [before, after, whole] = self.costs([&nearest.errors, &best.errors, weights], lanes, &rows);
        let (mut kept, mut sums) = (0, Sums::default());
        for (k, &lane) in rows.iter().enumerate() {
            let worse = after[k].is_nan() || before[k] < after[k];
            if worse {
                best.take(nearest, lane, lanes);
                kept += 1;
            }
            if sampled(&lane) {
                sums.error += if worse { before[k] } else { after[k] };
                sums.nearest += before[k];
                sums.weights += whole[k];
            }
        }
        (kept, sums)
    }

    /// x·G·xᵀ of some rows of each x, [columns in the order of the sweep, lanes].
    fn costs<const N: usize>(&self, all: [&[F]; N], lanes: usize, rows: &[usize]) -> [Vec<f64>; N] {
        // One product for all of them: to bring the Gram matrix in order for it takes longer than a few rows do.
        let mut x_rows = Array2::zeros((N * rows.len(), self.rows.width));
        for (k, &column) in self.order.iter().enumerate() {
            let values = all.iter().flat_map(|x| rows.iter().map(|&lane| x[k * lanes + lane].widen()));
            x_rows.column_mut(column).iter_mut().zip(values).for_each(|(to, x)| *to = x);
        }
        let mut products = Array2::zeros(x_rows.raw_dim());
        general_mat_mul(1.0, &x_rows, self.gram, 0.0, &mut products);
        let dot =
            |(a, b): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| a.iter().zip(&b).map(|(a, b)| a * b).sum();
        let mut costs = x_rows.rows().into_iter().zip(products.rows()).map(dot);
        all.map(|_| costs.by_ref().take(rows.len()).collect())
    }
}

/// One row in so many stands for all where the errors of a report would take too long.
pub(super) fn stride(rows: Rows) -> usize {
    (rows.count * rows.width).div_ceil(REPORTED / rows.width.clamp(1, REPORTED)).max(1)
}

impl<F: Element> Rounded<F> {
    /// Takes over a row of another.
    fn take(&mut self, other: &Self, lane: usize, lanes: usize) {
        let own = |k: &usize| k * lanes + lane;
        for at in (0..self.codes.len() / lanes).map(|k| own(&k)) {
            (self.codes[at], self.errors[at]) = (other.codes[at], other.errors[at]);
        }
        for at in (0..self.fits.len() / lanes).map(|k| own(&k)) {
            self.fits[at] = other.fits[at];
        }
    }

    /// Gives weights that do not stay the code of 0.
    fn thin(&mut self, weights: &[F], keeps: &[F], grid: Grid, slots: &[usize], lanes: usize) {
        for (k, (&keep, &weight)) in keeps.iter().zip(weights).enumerate() {
            if keep.is_zero() {
                let fit = self.fits[slots[k / lanes] * lanes + k % lanes];
                self.codes[k] = if grid.is_symmetric() { 0 } else { fit.zero };
                self.errors[k] = weight;
            }
        }
    }
}

/// The rows of which sums in the precision of the weights do not show that the sweep serves them better.
fn close<F: Element>(
    feedback: &Feedback<F>,
    nearest: &Rounded<F>,
    learned: &Rounded<F>,
    lanes: usize,
) -> Vec<usize> {
    // δ·G·δᵀ = δ·H·δᵀ − λ·‖δ‖². Once the part of it that was added up is past the other's, the rest need not be.
    let squares = |errors: &[F]| {
        let mut sums = vec![0.0; lanes];
        for errors in errors.chunks(lanes) {
            sums.iter_mut().zip(errors).for_each(|(sum, e)| *sum += e.widen() * e.widen());
        }
        sums
    };
    let (ours, theirs) = (squares(&learned.errors), squares(&nearest.errors));
    let limits: Vec<f64> = (0..lanes)
        .map(|k| (learned.losses[k] - feedback.ridge * ours[k]) * MARGIN + feedback.ridge * theirs[k])
        .collect();
    let losses = feedback.losses(&nearest.errors, lanes, &limits);
    (0..lanes).filter(|&k| losses[k].partial_cmp(&limits[k]) != Some(Ordering::Greater)).collect()
}

/// What a code stands for.
pub(super) fn decoded<F: Element>(grid: Grid, fit: Fit, code: u8) -> F {
    F::narrow(f64::from(steps(grid, fit, code))) * F::narrow(f64::from(fit.scale))
}

/// How many steps from 0 a code is.
pub(super) fn steps(grid: Grid, fit: Fit, code: u8) -> i16 {
    if !grid.is_symmetric() {
        return i16::from(code) - i16::from(fit.zero);
    }
    let shift = 8 - grid.bits.get();
    i16::from((code << shift) as i8 >> shift)
}
