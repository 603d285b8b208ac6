//! Σ x·xᵀ over many rows x, a triangle of it computed and the other copied.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, Slice};

use crate::Element;
use crate::evidence::unfold::{Places, Planes, Unfold};
use crate::kernel::par;

/// Rows multiplied at a time, in the type of the products; what comes out is added in f64.
pub(super) const RUN: usize = 512;
/// Columns of the matrix that one task takes.
const BLOCK: usize = 64;
/// As many columns are multiplied one by one.
const FEW: usize = 16;
const LANES: usize = 16;
/// Rows that one task takes where there is a single block of columns.
const PIECE: usize = 16 * RUN;

/// A tall matrix X that is not in memory as such.
pub(super) trait Columns: Sync {
    /// How many columns and rows it has.
    fn size(&self) -> (usize, usize);

    /// The columns from `start` on of these rows, as [columns, rows].
    fn fill<'a, T: Element>(
        &self,
        start: usize,
        rows: Range<usize>,
        buffer: &'a mut Vec<T>,
    ) -> ArrayView2<'a, T>;
}

/// gram += Xᵀ·X, with products in T.
pub(super) fn add_gram<T: Element>(gram: &mut Array2<f64>, x: &impl Columns) {
    if !gram.is_standard_layout() {
        *gram = gram.as_standard_layout().into_owned();
    }
    let (d, rows) = x.size();
    if d <= BLOCK {
        // There is no second block for a second thread: pieces of rows instead.
        let pieces = par::map(rows.div_ceil(PIECE), |k| {
            let mut piece = vec![0.0; d * d];
            add_upper::<T>(&mut piece, 0, x, k * PIECE..((k + 1) * PIECE).min(rows));
            piece
        });
        for piece in pieces {
            gram.iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
        }
    } else if let Some(gram) = gram.as_slice_mut() {
        par::for_chunks_mut(gram, BLOCK * d, |k, block| add_upper::<T>(block, k * BLOCK, x, 0..rows));
    }
    mirror(gram);
}

/// gram += Xᵀ·X for rows in memory, one after another.
#[cfg(feature = "rten")]
pub(crate) fn add_rows(gram: &mut Array2<f64>, values: &[f64]) {
    let width = gram.ncols();
    add_gram::<f64>(gram, &Plain { values, width });
}

/// Adds to the rows of the Gram matrix from `start` on what is right of there.
fn add_upper<T: Element>(block: &mut [f64], start: usize, x: &impl Columns, rows: Range<usize>) {
    let d = x.size().0;
    let (mut buffer, mut product) = (Vec::new(), Array2::zeros((block.len() / d, d - start)));
    for first in rows.clone().step_by(RUN) {
        let all = x.fill::<T>(start, first..(first + RUN).min(rows.end), &mut buffer);
        if let Some(all) = all.as_slice().filter(|_| d <= FEW) {
            few(block, d, all);
            continue;
        }
        let own = all.slice_axis(Axis(0), Slice::from(..block.len() / d));
        general_mat_mul(T::one(), &own, &all.t(), T::zero(), &mut product);
        for (sums, product) in block.chunks_exact_mut(d).zip(product.rows()) {
            sums[start..].iter_mut().zip(product).for_each(|(sum, x)| *sum += x.widen());
        }
    }
}

/// Adds the products of a few columns, as [columns, rows]: too few for a matrix product to be worth its packing.
fn few<T: Element>(sums: &mut [f64], d: usize, columns: &[T]) {
    let rows = columns.len() / d;
    for (i, a) in columns.chunks_exact(rows).enumerate() {
        for (j, b) in columns.chunks_exact(rows).enumerate().skip(i) {
            let (mut lanes, (a, a_rest), (b, b_rest)) =
                ([T::zero(); LANES], a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
            for (a, b) in a.iter().zip(b) {
                for lane in 0..LANES {
                    lanes[lane] += a[lane] * b[lane];
                }
            }
            let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| a * b).sum::<T>().widen();
            sums[i * d + j] += lanes.iter().map(|x| x.widen()).sum::<f64>() + rest;
        }
    }
}

/// Copies the upper triangle to the lower.
fn mirror(gram: &mut Array2<f64>) {
    let d = gram.ncols();
    let Some(all) = gram.as_slice_mut() else { return };
    for start in (0..d).step_by(BLOCK) {
        let (above, below) = all.split_at_mut(start * d);
        let rows = &mut below[..BLOCK.min(d - start) * d];
        // Within the block on the diagonal.
        for i in 1..rows.len() / d {
            for j in 0..i {
                rows[i * d + start + j] = rows[j * d + start + i];
            }
        }
        // A few rows and columns at a time, which stay in the cache.
        par::for_chunks_mut(rows, 8 * d, |k, rows| {
            for (column, above) in above.chunks_exact(d).enumerate() {
                for (row, &x) in above[start + 8 * k..].iter().take(rows.len() / d).enumerate() {
                    rows[row * d + column] = x;
                }
            }
        });
    }
}

/// Rows as they are in memory.
pub(super) struct Plain<'a, F> {
    pub(super) values: &'a [F],
    pub(super) width: usize,
}

impl<F: Element> Columns for Plain<'_, F> {
    fn size(&self) -> (usize, usize) {
        (self.width, self.values.len() / self.width)
    }

    fn fill<'a, T: Element>(
        &self,
        start: usize,
        rows: Range<usize>,
        buffer: &'a mut Vec<T>,
    ) -> ArrayView2<'a, T> {
        buffer.clear();
        for row in self.values[rows.start * self.width..rows.end * self.width].chunks_exact(self.width) {
            buffer.extend(row[start..].iter().map(|x| T::narrow(x.widen())));
        }
        view([rows.len(), self.width - start], buffer).reversed_axes()
    }
}

/// Patches of neighbouring channels: a row for each output position, a column for each (channel, tap).
pub(super) struct Patches<'a, F> {
    pub(super) planes: Planes<'a, F>,
    pub(super) unfold: &'a Unfold,
    /// those of the unfolding
    pub(super) places: &'a [Places],
    pub(super) channels: usize,
    pub(super) samples: usize,
}

impl<F: Element> Columns for Patches<'_, F> {
    fn size(&self) -> (usize, usize) {
        (self.channels * self.unfold.taps(), self.samples * self.unfold.positions)
    }

    fn fill<'a, T: Element>(
        &self,
        start: usize,
        rows: Range<usize>,
        buffer: &'a mut Vec<T>,
    ) -> ArrayView2<'a, T> {
        let (taps, height) = (self.unfold.taps(), rows.len());
        let step = self.unfold.strides().last().copied().unwrap_or(1);
        let runs: Vec<_> = self.places.iter().map(|tap| self.planes.runs(tap, rows.clone())).collect();
        buffer.clear();
        buffer.resize((self.channels * taps - start) * height, T::zero());
        for (column, to) in (start..).zip(buffer.chunks_exact_mut(height)) {
            self.planes.copy(column / taps, &runs[column % taps], step, to);
        }
        view([self.channels * taps - start, height], buffer)
    }
}

/// A buffer as a matrix.
pub(super) fn view<T>(shape: [usize; 2], buffer: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape(shape, buffer).unwrap_or_else(|_| ArrayView2::from(&[[]; 0]))
}
