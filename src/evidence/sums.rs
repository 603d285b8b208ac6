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

/// Σ x and Σ x² of each column of a row-major matrix.
pub(super) fn of_columns<F: Element>(values: &[F], width: usize) -> (Vec<f64>, Vec<f64>) {
    let parts = tiles(values, width, sums_of_tile, |(sums, squares), (more, more_squares)| {
        sums.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
        squares.iter_mut().zip(more_squares).for_each(|(sum, x)| *sum += x);
    });
    let (sums, squares): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    (sums.concat(), squares.concat())
}

fn sums_of_tile<F: Element>(tile: &Tile<'_, F>) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut squares) = (vec![0.0; tile.columns.len()], vec![0.0; tile.columns.len()]);
    let mut add = |upper: &[F], lower: Option<&[F]>| {
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
    (sums, squares)
}
