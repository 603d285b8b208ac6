//! A share of the weights.

use super::Piece;
use crate::Element;
use crate::quantize::grid::Grid;

pub(super) fn find<F: Element>(p: f64, grid: Grid, pieces: &[Piece<'_, F>]) -> (f64, f64) {
    let values = pieces.iter().flat_map(|piece| piece.values.iter()).filter(|w| !w.is_zero());
    let mut values: Vec<F> =
        if grid.is_symmetric() { values.map(|w| w.abs()).collect() } else { values.copied().collect() };
    if values.is_empty() {
        return (0.0, 0.0);
    }
    if grid.is_symmetric() {
        return (0.0, rank(&mut values, p));
    }
    let high = rank(&mut values, f64::midpoint(100.0, p));
    // The same rank counted from the other end.
    for w in &mut values {
        *w = -*w;
    }
    let low = -rank(&mut values, f64::midpoint(100.0, p));
    (low.min(0.0), high.max(0.0))
}

/// The ⌈p / 100 · n⌉-th smallest.
fn rank<F: Element>(values: &mut [F], p: f64) -> f64 {
    let rank = (p / 100.0 * values.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    let at = rank.min(values.len()) - 1;
    values.select_nth_unstable_by_key(at, |w| w.order_key()).1.widen()
}
