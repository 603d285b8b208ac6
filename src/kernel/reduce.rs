//! Sums, norms and extremes of contiguous slices.
//!
//! A short run is summed in the element type in [`LANES`] independent lanes, which the compiler turns into vector
//! code; the runs are then added in f64, so the error does not grow with the length.

use crate::Element;
use crate::kernel::par;
use crate::kernel::simd::vectorized;

const LANES: usize = 16;
/// Elements summed in the element type before the sum moves to f64.
const RUN: usize = 32 * LANES;

/// Σ f(x) over a slice, f applied in the element type; f(0) is 0.
#[expect(clippy::inline_always, reason = "the closure has to end up in the loop for vector code")]
#[inline(always)]
fn sum_by<F: Element>(values: &[F], f: impl Fn(F) -> F) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut total = [0.0; LANES];
            for run in values.chunks(RUN) {
                let (chunks, rest) = run.as_chunks::<LANES>();
                // Zeros in place of what is missing: with a second loop the lanes would not stay in registers.
                let mut last = [F::zero(); LANES];
                last.iter_mut().zip(rest).for_each(|(to, &x)| *to = x);
                let mut lanes = last.map(&f);
                for chunk in chunks {
                    for lane in 0..LANES {
                        lanes[lane] += f(chunk[lane]);
                    }
                }
                for lane in 0..LANES {
                    total[lane] += lanes[lane].widen();
                }
            }
            total.iter().sum()
        },
    )
}

/// Σ |x|
pub(crate) fn abs_sum<F: Element>(values: &[F]) -> f64 {
    sum_by(values, F::abs)
}

/// Σ x²
pub(crate) fn square_sum<F: Element>(values: &[F]) -> f64 {
    sum_by(values, |x| x * x)
}

/// Σ x
pub(crate) fn sum<F: Element>(values: &[F]) -> f64 {
    sum_by(values, |x| x)
}

/// max |x|; 0 for an empty slice.
pub(crate) fn abs_max<F: Element>(values: &[F]) -> F {
    let larger = |a: F, b: F| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let lanes = vectorized(
        #[inline(always)]
        || {
            let mut lanes = [F::zero(); LANES];
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane = larger(*lane, x.abs());
                }
            }
            lanes
        },
    );
    lanes.iter().copied().chain(rest.iter().map(|x| x.abs())).fold(F::zero(), larger)
}

/// (min, max); (+∞, −∞) for an empty slice.
pub(crate) fn min_max<F: Element>(values: &[F]) -> (F, F) {
    let less = |a: F, b: F| if b < a { b } else { a };
    let more = |a: F, b: F| if b > a { b } else { a };
    let (mut lows, mut highs) = ([F::infinity(); LANES], [F::neg_infinity(); LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    // One extreme after the other over runs that stay in the cache: of both at once the compiler makes shuffles.
    for run in chunks.chunks(RUN / LANES) {
        pick_lanes(run, &mut lows, less);
        pick_lanes(run, &mut highs, more);
    }
    let low = lows.iter().chain(rest).copied().fold(F::infinity(), less);
    (low, highs.iter().chain(rest).copied().fold(F::neg_infinity(), more))
}

fn pick_lanes<F: Element>(run: &[[F; LANES]], lanes: &mut [F; LANES], pick: impl Fn(F, F) -> F) {
    vectorized(
        #[inline(always)]
        || {
            let mut own = *lanes;
            for chunk in run {
                own.iter_mut().zip(chunk).for_each(|(lane, &x)| *lane = pick(*lane, x));
            }
            *lanes = own;
        },
    );
}

/// (min, max) of a long slice, on all threads.
pub(crate) fn par_min_max<F: Element>(values: &[F]) -> (F, F) {
    let parts = par::map_chunks(values, par::CHUNK, |_, chunk| min_max(chunk));
    let both = |(a, b): (F, F), (c, d): (F, F)| (a.min(c), b.max(d));
    parts.into_iter().fold((F::infinity(), F::neg_infinity()), both)
}

/// Index of the first value that is NaN or infinite.
pub(crate) fn first_not_finite<F: Element>(values: &[F]) -> Option<usize> {
    // x · 0 is 0 for what is finite and NaN for all else, and sums as fast as memory delivers.
    let bad = |chunk: &[F]| sum_by(chunk, |x| x * F::zero()) != 0.0;
    let parts = par::map_chunks(values, par::CHUNK, |_, chunk| bad(chunk));
    let chunk = parts.iter().position(|&bad| bad)?;
    let rest = &values[chunk * par::CHUNK..];
    rest.iter().position(|x| !x.is_finite()).map(|at| chunk * par::CHUNK + at)
}

/// `f` of each row of a row-major matrix, on all threads.
pub(crate) fn rows<F: Element, T: Send>(
    values: &[F],
    width: usize,
    f: impl Fn(&[F]) -> T + Sync + Send,
) -> Vec<T> {
    let per_task = (par::CHUNK / width.max(1)).max(1);
    let parts = par::map_chunks(values, per_task * width.max(1), |_, chunk| {
        chunk.chunks(width.max(1)).map(&f).collect::<Vec<_>>()
    });
    parts.into_iter().flatten().collect()
}

/// How the scores of a slice become one number.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norm {
    /// How many are not 0.
    L0,
    /// Sum of absolute values.
    L1,
    /// Root of the sum of squares (default).
    #[default]
    L2,
    /// Largest absolute value (L∞).
    Max,
    /// Plain sum: keeps the sign.
    Sum,
}

impl Norm {
    /// The part of the norm that joins: for L2 the sum of squares.
    pub(crate) fn partial<F: Element>(self, values: &[F]) -> f64 {
        match self {
            Self::L0 => values.iter().filter(|v| !v.is_zero()).count() as f64,
            Self::L1 => abs_sum(values),
            Self::L2 => square_sum(values),
            Self::Max => abs_max(values).widen(),
            Self::Sum => sum(values),
        }
    }

    /// Joins the partials of each column of a row-major matrix to those in `total`.
    fn columns<F: Element>(self, values: &[F], total: &mut [f64]) {
        let larger = |a: F, b: F| if b > a { b } else { a };
        let count = |x: F| if x.is_zero() { F::zero() } else { F::one() };
        match self {
            Self::L0 => columns_by(values, total, count, F::add, self),
            Self::L1 => columns_by(values, total, F::abs, F::add, self),
            Self::L2 => columns_by(values, total, |x| x * x, F::add, self),
            Self::Max => columns_by(values, total, F::abs, larger, self),
            Self::Sum => columns_by(values, total, |x| x, F::add, self),
        }
    }

    /// Joins two partials.
    pub(crate) fn join(self, a: f64, b: f64) -> f64 {
        if self == Self::Max { a.max(b) } else { a + b }
    }

    /// The norm from its joined partials.
    pub(crate) fn finish(self, partial: f64) -> f64 {
        if self == Self::L2 { partial.sqrt() } else { partial }
    }
}

/// Joins `each` value to its column's partial: a few rows in the element type, which the compiler turns into vector
/// code, and these in f64.
#[expect(clippy::inline_always, reason = "the closure has to end up in the loop for vector code")]
#[inline(always)]
fn columns_by<F: Element>(
    values: &[F],
    total: &mut [f64],
    each: impl Fn(F) -> F,
    join: impl Fn(F, F) -> F,
    norm: Norm,
) {
    let width = total.len();
    let mut partial = vec![F::zero(); width];
    vectorized(
        #[inline(always)]
        || {
            for run in values.chunks(width * (RUN / LANES)) {
                partial.fill(F::zero());
                // Two rows at a time: half the traffic of the partials.
                let pairs = run.chunks_exact(2 * width);
                for (at, &x) in partial.iter_mut().zip(pairs.remainder()) {
                    *at = each(x);
                }
                for pair in pairs {
                    let (upper, lower) = pair.split_at(width);
                    for ((at, &x), &y) in partial.iter_mut().zip(upper).zip(lower) {
                        *at = join(*at, join(each(x), each(y)));
                    }
                }
                total.iter_mut().zip(&partial).for_each(|(sum, &p)| *sum = norm.join(*sum, p.widen()));
            }
        },
    );
}

/// Rows that one task takes at the least, so that the partials of its columns are few beside what it reads.
const ROWS: usize = 64;

/// The partial norm of each position of one axis, over all other axes of a row-major array.
pub(crate) fn along<F: Element>(values: &[F], dims: &[usize], axis: usize, norm: Norm) -> Vec<f64> {
    let (n, inner): (usize, usize) = (dims[axis], dims[axis + 1..].iter().product());
    if axis == 0 {
        return rows(values, inner, |row| norm.partial(row));
    }
    let slab = (n * inner).max(1);
    let narrow = inner < LANES;
    let parts = par::map_chunks(values, (par::CHUNK / slab).max(ROWS) * slab, |_, chunk| {
        let mut sums = vec![0.0; if narrow { slab } else { n }];
        if narrow {
            norm.columns(chunk, &mut sums);
            return sums;
        }
        for slab in chunk.chunks(slab) {
            for (sum, run) in sums.iter_mut().zip(slab.chunks(inner)) {
                *sum = norm.join(*sum, norm.partial(run));
            }
        }
        sums
    });
    let total = parts.into_iter().reduce(|mut total, part| {
        total.iter_mut().zip(part).for_each(|(t, p)| *t = norm.join(*t, p));
        total
    });
    let total = total.unwrap_or_else(|| vec![0.0; n]);
    if !narrow || inner == 1 {
        return total;
    }
    total.chunks(inner).map(|run| run.iter().fold(0.0, |a, &b| norm.join(a, b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_the_obvious_way() {
        let values: Vec<f32> = (0..1003).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        assert_eq!(abs_sum(&values), values.iter().map(|x| f64::from(x.abs())).sum::<f64>());
        assert_eq!(square_sum(&values), values.iter().map(|x| f64::from(x * x)).sum::<f64>());
        assert_eq!(sum(&values), values.iter().map(|&x| f64::from(x)).sum::<f64>());
        assert_eq!(abs_max(&values), 50.0);
        assert_eq!(min_max(&values), (-50.0, 50.0));
        assert_eq!(par_min_max(&values), (-50.0, 50.0));
        assert_eq!(rows(&values, 1003, sum), [sum(&values)]);
    }

    /// The partial of one value.
    fn each(norm: Norm, value: f64) -> f64 {
        match norm {
            Norm::L0 => f64::from(u8::from(value != 0.0)),
            Norm::L1 | Norm::Max => value.abs(),
            Norm::L2 => value * value,
            Norm::Sum => value,
        }
    }

    #[test]
    fn norms_along_every_axis() {
        for dims in [[3, 4, 20], [3, 4, 5], [131, 7, 3], [300, 301, 1], [1, 2, 1]] {
            norms_agree(dims);
        }
    }

    fn norms_agree(dims: [usize; 3]) {
        let array =
            ndarray::Array3::from_shape_fn(dims, |(i, j, k)| ((i * 7 + j * 5 + k * 3) % 11) as f32 - 5.0);
        let values = array.as_slice().unwrap();
        for axis in 0..3 {
            for norm in [Norm::L0, Norm::L1, Norm::L2, Norm::Max, Norm::Sum] {
                let slices = array.axis_iter(ndarray::Axis(axis));
                let one = |s: ndarray::ArrayView2<'_, f32>| {
                    s.iter().fold(0.0, |a, &x| norm.join(a, each(norm, f64::from(x))))
                };
                assert_eq!(along(values, &dims, axis, norm), slices.map(one).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn finds_what_is_not_finite() {
        let mut values = vec![1.0f32; 200_000];
        assert_eq!(first_not_finite(&values), None);
        values[170_000] = f32::NEG_INFINITY;
        values[180_000] = f32::NAN;
        assert_eq!(first_not_finite(&values), Some(170_000));
        assert_eq!(first_not_finite::<f64>(&[]), None);
    }
}
