//! Some rows of a student: weights, codes and scales, side by side.

use ndarray::{Array2, Zip};

/// Rows that are learned together. They share one Gram matrix.
#[derive(Clone, Debug)]
pub(super) struct Chunk<'a> {
    /// The teacher's weights, [rows, columns].
    pub(super) weights: Array2<f64>,
    /// Codes less the zero point, whole numbers.
    pub(super) steps: Array2<f64>,
    /// [rows, scales of a row].
    pub(super) scales: Array2<f64>,
    /// The lowest and highest step for each scale.
    pub(super) ends: Array2<(f64, f64)>,
    /// The scale of each column.
    pub(super) scale_of: &'a [usize],
}

impl Chunk<'_> {
    /// What a learned weight and its teacher differ by.
    pub(super) fn errors(&self) -> Array2<f64> {
        let mut errors = self.weights.clone();
        for ((mut errors, steps), scales) in
            errors.rows_mut().into_iter().zip(self.steps.rows()).zip(self.scales.rows())
        {
            for ((error, &step), &k) in errors.iter_mut().zip(steps).zip(self.scale_of) {
                *error -= step * scales[k];
            }
        }
        errors
    }

    /// δ·G·δᵀ of each row.
    pub(super) fn losses(&self, gram: &Array2<f64>) -> Vec<f64> {
        let errors = self.errors();
        let products = errors.dot(gram);
        errors.rows().into_iter().zip(products.rows()).map(|(error, product)| error.dot(&product)).collect()
    }

    /// Codes that are nearest to the weights.
    pub(super) fn round(&mut self) {
        for row in 0..self.weights.nrows() {
            for (column, &k) in self.scale_of.iter().enumerate() {
                let (low, high) = self.ends[[row, k]];
                let step = (self.weights[[row, column]] / self.scales[[row, k]]).round_ties_even();
                self.steps[[row, column]] = step.clamp(low, high);
            }
        }
    }

    /// The scales at which the largest weight of each gets the last code.
    pub(super) fn widest(&self) -> Array2<f64> {
        let mut widest = Array2::zeros(self.scales.raw_dim());
        for row in 0..self.weights.nrows() {
            for (&k, &w) in self.scale_of.iter().zip(self.weights.row(row)) {
                let (low, high) = self.ends[[row, k]];
                let end = if w < 0.0 { low } else { high };
                let scale = if end == 0.0 { 0.0 } else { w / end };
                widest[[row, k]] = scale.max(widest[[row, k]]);
            }
        }
        Zip::from(&mut widest).and(&self.scales).for_each(|widest, &scale| {
            if *widest <= 0.0 {
                *widest = scale;
            }
        });
        widest
    }

    /// Takes the rows of another chunk in which it leaves less.
    pub(super) fn take_better(&mut self, losses: &mut [f64], other: &Self, theirs: &[f64]) {
        for (row, (loss, &other_loss)) in losses.iter_mut().zip(theirs).enumerate() {
            if other_loss < *loss {
                *loss = other_loss;
                self.steps.row_mut(row).assign(&other.steps.row(row));
                self.scales.row_mut(row).assign(&other.scales.row(row));
            }
        }
    }
}
