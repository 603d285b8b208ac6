//! Sums over the rows of a matrix, a tile of it at a time.

use std::ops::Range;

use crate::Element;
use crate::kernel::par;

/// Columns and elements of one tile.
const COLUMNS: usize = 1 << 10;
const ELEMENTS: usize = 1 << 16;

/// Some columns of some rows of a row-major matrix.
pub(super) struct Tile<'a, F> {
    values: &'a [F],
    width: usize,
    columns: Range<usize>,
}

impl<'a, F> Tile<'a, F> {
    pub(super) fn rows(&self) -> impl Iterator<Item = &'a [F]> {
        self.values.chunks_exact(self.width).map(|row| &row[self.columns.clone()])
    }
}

/// `of` each tile on all threads, those below each other joined in order: a result for each range of columns.
pub(super) fn tiles<F: Element, T: Send>(
    values: &[F],
    width: usize,
    of: impl Fn(&Tile<'_, F>) -> T + Sync + Send,
    join: impl Fn(&mut T, T),
) -> Vec<T> {
    let columns = COLUMNS.min(width.max(1));
    let deep = ELEMENTS / columns * width;
    let (across, down) = (width.div_ceil(columns), values.len().div_ceil(deep.max(1)));
    let parts = par::map(across * down, |k| {
        let (start, values) =
            (k / down * columns, &values[k % down * deep..values.len().min((k % down + 1) * deep)]);
        of(&Tile { values, width, columns: start..width.min(start + columns) })
    });
    let mut joined: Vec<T> = Vec::with_capacity(across);
    for (k, part) in parts.into_iter().enumerate() {
        match joined.last_mut().filter(|_| k % down > 0) {
            Some(whole) => join(whole, part),
            None => joined.push(part),
        }
    }
    joined
}

/// Of each column of a row-major matrix.
#[derive(Default)]
pub(super) struct Sums {
    /// Σ x
    pub(super) totals: Vec<f64>,
    /// Σ x²
    pub(super) squares: Vec<f64>,
    /// largest |x|
    pub(super) peaks: Vec<f64>,
}

pub(super) fn of_columns<F: Element>(values: &[F], width: usize) -> Sums {
    let parts = tiles(values, width, sums_of_tile, |all, more| {
        all.totals.iter_mut().zip(more.totals).for_each(|(sum, x)| *sum += x);
        all.squares.iter_mut().zip(more.squares).for_each(|(sum, x)| *sum += x);
        all.peaks.iter_mut().zip(more.peaks).for_each(|(peak, x)| *peak = peak.max(x));
    });
    parts.into_iter().fold(Sums::default(), |mut all, part| {
        all.totals.extend(part.totals);
        all.squares.extend(part.squares);
        all.peaks.extend(part.peaks);
        all
    })
}

fn sums_of_tile<F: Element>(tile: &Tile<'_, F>) -> Sums {
    let (mut sums, mut squares) = (vec![0.0; tile.columns.len()], vec![0.0; tile.columns.len()]);
    let mut peaks = vec![F::zero(); tile.columns.len()];
    let mut add = |upper: &[F], lower: Option<&[F]>| {
        for (peak, x) in peaks.iter_mut().zip(upper) {
            *peak = larger(*peak, x.abs());
        }
        for (peak, x) in peaks.iter_mut().zip(lower.unwrap_or_default()) {
            *peak = larger(*peak, x.abs());
        }
        let at = sums.iter_mut().zip(&mut squares).zip(upper);
        // Two rows at a time: half the traffic of the sums.
        match lower {
            Some(lower) => at.zip(lower).for_each(|(((sum, square), x), y)| {
                let (x, y) = (x.widen(), y.widen());
                *sum += x + y;
                *square += x * x + y * y;
            }),
            None => at.for_each(|((sum, square), x)| {
                let x = x.widen();
                *sum += x;
                *square += x * x;
            }),
        }
    };
    let mut rows = tile.rows();
    while let Some(upper) = rows.next() {
        add(upper, rows.next());
    }
    Sums { totals: sums, squares, peaks: peaks.into_iter().map(F::widen).collect() }
}

/// One instruction, where `max` would also look for NaN.
fn larger<F: Element>(a: F, b: F) -> F {
    if a > b { a } else { b }
}
