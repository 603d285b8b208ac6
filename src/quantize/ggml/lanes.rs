//! Sixteen runs of values side by side: each has a lane of its own, so that what is found for one is found for all at
//! once, and sums keep their order.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use crate::kernel::round::half_even;

pub(super) const LANES: usize = 16;
/// A number for each of sixteen runs.
pub(super) type Lanes = [f32; LANES];

/// Value i of each run from row i; what is missing is 0.
#[inline(always)]
pub(super) fn turn<const N: usize>(values: &[f32]) -> [Lanes; N] {
    let mut rows = [[0.0; LANES]; N];
    for (lane, run) in values.as_chunks::<N>().0.iter().enumerate().take(LANES) {
        rows.iter_mut().zip(run).for_each(|(row, &value)| row[lane] = value);
    }
    rows
}

/// The sums over a run that decide how well codes l serve it, each value weighed by w: Σ w·l, Σ w·l², Σ w·x·l.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) l: Lanes,
    pub(super) ll: Lanes,
    pub(super) xl: Lanes,
}

/// Sums for the codes (x + shift) · inverse, rounded and cut to [low, high].
#[inline(always)]
pub(super) fn sums<const N: usize>(
    (x, w): (&[Lanes; N], &[Lanes; N]),
    shift: &Lanes,
    inverse: &Lanes,
    (low, high): (f32, f32),
) -> Sums {
    let mut sums = Sums::default();
    for (x, w) in x.iter().zip(w) {
        for k in 0..LANES {
            let l = code((x[k] + shift[k]) * inverse[k], low, high);
            let wl = w[k] * l;
            sums.l[k] += wl;
            sums.ll[k] += wl * l;
            sums.xl[k] += wl * x[k];
        }
    }
    sums
}

/// The nearest integer within bounds, the upper one for what is no number.
#[inline(always)]
pub(super) fn code(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < high { x } else { high };
    half_even(if x > low { x } else { low })
}
