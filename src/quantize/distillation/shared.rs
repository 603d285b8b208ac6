//! Learning where rows share scales: a scale for the tensor, or for each input.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2};

use crate::Element;
use crate::quantize::Scope;
use crate::quantize::distillation::student::{Lesson, SWEEPS, Student};
use crate::quantize::distillation::{descent, soft};

/// How often scales and codes take turns.
const TURNS: usize = 4;
/// Sweeps over the scales.
const ROUNDS: usize = 50;

impl<F: Element> Student<'_, F> {
    /// As [`learn`](Self::learn), for scales that all rows share. One scale for the whole model is left as it is.
    pub(super) fn learn_shared(&mut self, grams: &[Array2<f64>], lesson: Lesson) {
        let free = !matches!(self.scheme.scope(), Some(Scope::Model));
        let total = |student: &Self| student.losses(grams).iter().sum::<f64>();
        let mut best = (total(self), self.clone());
        let keep = |best: &mut (f64, Self), other: &Self| {
            let loss = total(other);
            if loss < best.0 {
                *best = (loss, other.clone());
            }
        };
        let widest = self.widest();
        for share in self.tries().filter(|_| lesson.search && free) {
            let mut other = self.clone();
            if other.set_scales(&(&widest * share)) {
                other.change(|_, chunk, group| {
                    chunk.round();
                    descent::descend(chunk, &grams[group], 1, false);
                });
                keep(&mut best, &other);
            }
        }
        let mut student = best.1.clone();
        for turn in 0..TURNS {
            student.change(|_, chunk, group| {
                let (gram, mut other) = (&grams[group], chunk.clone());
                descent::descend(chunk, gram, SWEEPS, false);
                if turn == 0 && lesson.steps > 0 {
                    soft::learn(&mut other, gram, lesson.steps, false);
                    descent::descend(&mut other, gram, SWEEPS, false);
                    let mut losses = chunk.losses(gram);
                    chunk.take_better(&mut losses, &other, &other.losses(gram));
                }
            });
            keep(&mut best, &student);
            if !free || !student.refit(grams) {
                break;
            }
            keep(&mut best, &student);
        }
        *self = best.1;
    }

    /// The scales at which the largest weight of each gets the last code.
    fn widest(&self) -> Array1<f64> {
        let mut widest = Array1::zeros(self.firsts.len());
        for rows in self.chunks() {
            for row in self.chunk(rows).widest().rows() {
                widest.zip_mut_with(&row, |most: &mut f64, &scale| *most = most.max(scale));
            }
        }
        widest
    }

    /// Whether all of them can be stored; else nothing changes.
    fn set_scales(&mut self, scales: &Array1<f64>) -> bool {
        let stored: Option<Vec<f64>> = scales
            .iter()
            .enumerate()
            .map(|(k, &scale)| {
                let zero = self.zeros.get(self.scale_at(0, k)).copied().unwrap_or(0);
                self.storable(scale, self.grid.ends(zero))
            })
            .collect();
        for (k, &scale) in stored.iter().flatten().enumerate() {
            let at = self.scale_at(0, k);
            self.scales[at] = scale as f32;
        }
        stored.is_some()
    }

    /// Sets the scales, each while the others stay and again, to where the error is least: where A·s = b with
    /// A = Σ G∘(QᵀQ) and b = Σ G∘(QᵀW) over the columns of two scales, or of one and all.
    fn refit(&mut self, grams: &[Array2<f64>]) -> bool {
        let (width, count) = (self.rows.width, self.firsts.len());
        let (mut a, mut b) = (Array2::<f64>::zeros((count, count)), Array1::<f64>::zeros(count));
        for (group, gram) in grams.iter().enumerate() {
            let (mut qq, mut qw) = (Array2::zeros((width, width)), Array2::zeros((width, width)));
            for rows in self.chunks().into_iter().filter(|rows| self.rows.group(rows.start) == group) {
                let chunk = self.chunk(rows);
                general_mat_mul(1.0, &chunk.steps.t(), &chunk.steps, 1.0, &mut qq);
                general_mat_mul(1.0, &chunk.steps.t(), &chunk.weights, 1.0, &mut qw);
            }
            for ((i, j), &g) in gram.indexed_iter() {
                let k = self.scale_of[i];
                a[[k, self.scale_of[j]]] += g * qq[[i, j]];
                b[k] += g * qw[[i, j]];
            }
        }
        let mut scales = Array1::from_shape_fn(count, |k| f64::from(self.scales[self.scale_at(0, k)]));
        for _ in 0..ROUNDS {
            for k in 0..count {
                let scale = scales[k] + (b[k] - a.row(k).dot(&scales)) / a[[k, k]];
                if scale.is_finite() && scale > 0.0 {
                    scales[k] = scale;
                }
            }
        }
        self.set_scales(&scales)
    }
}
