//! Codes and scales made better one at a time.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1};

use super::group::{Rounded, decoded, steps};
use crate::Element;
use crate::quantize::grid::{self, Fit, Grid};

/// What all rows of a group have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) grid: Grid,
    pub(super) gram: &'a Array2<f64>,
    /// Columns in the order of the sweep, and the scale of each.
    pub(super) order: &'a [usize],
    pub(super) slots: &'a [usize],
    /// Whether each row has one scale, which may move.
    pub(super) scaled: bool,
}

/// One row, its columns in their own order.
struct Row {
    /// Steps from 0.
    steps: Vec<f64>,
    /// Weights times H.
    target: Vec<f64>,
    free: Vec<bool>,
    fits: Vec<Fit>,
}

impl Task<'_> {
    /// Up to `rounds` rounds: the scale that serves the codes best, then for each column the code that serves the others
    /// best. Rows of which δ·H·δᵀ does not fall stay as they are.
    pub(super) fn polish<F: Element>(
        &self,
        rounds: usize,
        ridge: f64,
        weights: &[F],
        rounded: &mut Rounded<F>,
        lanes: usize,
    ) {
        let mut all = Array2::zeros((lanes, self.order.len()));
        for (&column, weights) in self.order.iter().zip(weights.chunks(lanes)) {
            all.column_mut(column).iter_mut().zip(weights).for_each(|(to, w)| *to = w.widen());
        }
        let targets = self.product(&all, ridge);
        let mut rows: Vec<Row> =
            (0..lanes).map(|lane| self.row(lane, lanes, &targets.row(lane).to_vec(), rounded)).collect();
        let before: Vec<f64> = self.losses(&rows, &all, ridge);
        for _ in 0..rounds {
            let mut moved = 0;
            let products = self.products(&rows, ridge);
            for (row, product) in rows.iter_mut().zip(products.rows()) {
                if self.scaled {
                    row.refit(self.grid, &product);
                }
                moved += self.descend(row, &product, ridge);
            }
            if moved == 0 {
                break;
            }
        }
        if self.scaled {
            let products = self.products(&rows, ridge);
            rows.iter_mut().zip(products.rows()).for_each(|(row, product)| row.refit(self.grid, &product));
        }
        let after = self.losses(&rows, &all, ridge);
        for (lane, row) in rows.iter().enumerate().filter(|(lane, _)| after[*lane] < before[*lane]) {
            self.put(lane, lanes, row, weights, rounded);
            rounded.losses[lane] = after[lane];
        }
    }

    fn row<F: Element>(&self, lane: usize, lanes: usize, target: &[f64], rounded: &Rounded<F>) -> Row {
        let n = self.order.len();
        let mut row = Row {
            steps: vec![0.0; n],
            target: target.to_vec(),
            free: vec![false; n],
            fits: vec![Fit::NONE; n],
        };
        for (k, &column) in self.order.iter().enumerate() {
            let at = k * lanes + lane;
            let fit = rounded.fits[self.slots[k] * lanes + lane];
            row.fits[column] = fit;
            row.steps[column] = f64::from(steps(self.grid, fit, rounded.codes[at]));
            row.free[column] = !rounded.keeps[at].is_zero();
        }
        row
    }

    fn put<F: Element>(&self, lane: usize, lanes: usize, row: &Row, weights: &[F], rounded: &mut Rounded<F>) {
        for (k, &column) in self.order.iter().enumerate() {
            let (at, fit) = (k * lanes + lane, row.fits[column]);
            rounded.fits[self.slots[k] * lanes + lane] = fit;
            rounded.codes[at] = (row.steps[column] as i16 as u8).wrapping_add(fit.zero);
            rounded.errors[at] = weights[at] - decoded(self.grid, fit, rounded.codes[at]);
        }
    }

    /// Moves each code in turn by (δ·H)ⱼ / (s·Hⱼⱼ), as far as the range goes. How many moved.
    fn descend(&self, row: &mut Row, product: &ArrayView1<'_, f64>, ridge: f64) -> usize {
        let mut gradient: Vec<f64> = row.target.iter().zip(*product).map(|(w, q)| w - q).collect();
        if self.scaled {
            // The product is that of the steps.
            let scale = f64::from(row.fits[0].scale);
            gradient
                .iter_mut()
                .zip(row.target.iter().zip(product))
                .for_each(|(g, (w, q))| *g = w - scale * q);
        }
        let mut moved = 0;
        for j in 0..gradient.len() {
            let (scale, curvature) = (f64::from(row.fits[j].scale), self.gram[[j, j]] + ridge);
            if !row.free[j] || curvature <= 0.0 {
                continue;
            }
            let (low, high) = self.grid.ends(row.fits[j].zero);
            let best = (row.steps[j] + gradient[j] / (curvature * scale)).clamp(low, high).round_ties_even();
            let change = (best - row.steps[j]) * scale;
            if change != 0.0 && best.is_finite() {
                let line = self.gram.row(j);
                gradient.iter_mut().zip(line).for_each(|(g, h)| *g -= change * h);
                gradient[j] -= change * ridge;
                row.steps[j] = best;
                moved += 1;
            }
        }
        moved
    }

    /// What the rows decode to, times H; their steps where each has one scale.
    fn products(&self, rows: &[Row], ridge: f64) -> Array2<f64> {
        let value = |lane: usize, column: usize| {
            let scale = if self.scaled { 1.0 } else { f64::from(rows[lane].fits[column].scale) };
            rows[lane].steps[column] * scale
        };
        self.product(&Array2::from_shape_fn((rows.len(), self.order.len()), |(l, c)| value(l, c)), ridge)
    }

    /// δ·H·δᵀ of each row.
    fn losses(&self, rows: &[Row], weights: &Array2<f64>, ridge: f64) -> Vec<f64> {
        let error = |(lane, column): (usize, usize)| {
            weights[[lane, column]] - rows[lane].steps[column] * f64::from(rows[lane].fits[column].scale)
        };
        let errors = Array2::from_shape_fn(weights.raw_dim(), error);
        let products = self.product(&errors, ridge);
        let dot =
            |(a, b): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| a.iter().zip(&b).map(|(a, b)| a * b).sum();
        errors.rows().into_iter().zip(products.rows()).map(dot).collect()
    }

    /// Rows times H.
    fn product(&self, rows: &Array2<f64>, ridge: f64) -> Array2<f64> {
        let mut product = rows.clone();
        general_mat_mul(1.0, rows, self.gram, ridge, &mut product);
        product
    }
}

impl Row {
    /// The scale with the lowest error for these steps.
    fn refit(&mut self, grid: Grid, product: &ArrayView1<'_, f64>) {
        let above: f64 = self.steps.iter().zip(&self.target).map(|(q, t)| q * t).sum();
        let below: f64 = self.steps.iter().zip(product).map(|(q, p)| q * p).sum();
        let scale = grid::stored((above / below) as f32, grid.scales).unwrap_or(0.0);
        // The ends of the range must stay numbers.
        if below > 0.0 && scale >= f32::MIN_POSITIVE && (scale * grid.levels() as f32).is_finite() {
            self.fits.iter_mut().for_each(|fit| fit.scale = scale);
        }
    }
}
