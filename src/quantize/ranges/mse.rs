//! The range with the smallest weighted squared error.

use super::{Piece, chunks, min_max};
use crate::Element;
use crate::kernel::round::{clamp, half_even};
use crate::quantize::grid::Grid;

/// Tried shares of the full range: 1, 0.99, …, 0.2.
const TRIES: usize = 81;
/// Errors summed in the element type before the sum moves to f64.
const RUN: usize = 256;
const LANES: usize = 8;

pub(super) fn find<F: Element>(grid: Grid, pieces: &[Piece<'_, F>]) -> (f64, f64) {
    let (low, high) = min_max(pieces);
    let range = |k: usize| {
        let share = 1.0 - k as f64 / 100.0;
        (low * share, high * share)
    };
    // A range that has no step is the full range's own problem, which is reported where it is used.
    let steps: Option<Vec<_>> = (0..TRIES).map(|k| grid.fit(range(k).0, range(k).1).ok()).collect();
    let Some(steps) = steps else { return (low, high) };
    let parts = chunks(pieces, |values, importance| {
        let one = |fit: &crate::quantize::grid::Fit| {
            let (low, high) = grid.ends(fit.zero);
            error(values, importance, F::narrow(fit.scale.into()), F::narrow(low), F::narrow(high))
        };
        steps.iter().map(one).collect::<Vec<f64>>()
    });
    let total = |k: usize| parts.iter().map(|part| part[k]).sum::<f64>();
    let best = (0..TRIES).map(|k| (total(k), k)).min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    range(best.map_or(0, |(_, k)| k))
}

/// Σ h·(w − Q(w))².
fn error<F: Element>(values: &[F], importance: &[F], scale: F, low: F, high: F) -> f64 {
    // Ties may fall either way here, so a product with the reciprocal is good enough.
    let inverse = scale.recip();
    let one = |w: F, h: F| {
        let error = w - half_even(clamp(w * inverse, low, high)) * scale;
        h * error * error
    };
    let run = |(values, importance): (&[F], &[F])| {
        let mut lanes = [F::zero(); LANES];
        let (eights, rest) = values.as_chunks::<LANES>();
        let (weights, more) = importance.as_chunks::<LANES>();
        for (w, h) in eights.iter().zip(weights) {
            for lane in 0..LANES {
                lanes[lane] += one(w[lane], h[lane]);
            }
        }
        let rest: f64 = rest.iter().zip(more).map(|(&w, &h)| one(w, h).widen()).sum();
        rest + lanes.iter().map(|lane| lane.widen()).sum::<f64>()
    };
    values.chunks(RUN).zip(importance.chunks(RUN)).map(run).sum()
}
