//! The range with the smallest sum of errors to a power below 1, by half-quadratic splitting.

use super::{Piece, chunks, min_max};
use crate::Element;
use crate::kernel::round::{clamp, half_even};
use crate::quantize::grid::Grid;

/// The norm's exponent.
const POWER: f64 = 0.7;
/// What holds the split to the weights, in steps, and how it grows.
const BETA: f64 = 10.0;
const GROWTH: f64 = 1.01;
const ROUNDS: usize = 20;
/// Rounds without a better range that end the search.
const PATIENCE: usize = 3;

pub(super) fn find<F: Element>(grid: Grid, pieces: &[Piece<'_, F>]) -> (f64, f64) {
    let (low, high) = min_max(pieces);
    let Ok(first) = grid.fit(low, high) else { return (low, high) };
    // A block without width.
    if (high - low) / grid.levels() < f64::from(f32::MIN_POSITIVE) {
        return (low, high);
    }
    // A search that starts where nearly all codes are 0 stays there.
    let full = Candidate { scale: f64::from(first.scale), zero: f64::from(first.zero) };
    let mut best = (full.sums(grid, BETA, pieces).error, (low, high));
    let mut now = full;
    for tenths in 2..10 {
        let start = Candidate { scale: full.scale * f64::from(tenths) / 10.0, ..full };
        let error = start.sums(grid, BETA, pieces).error;
        if error < best.0 {
            best = (error, start.range(grid));
            now = start;
        }
    }
    let (mut beta, mut misses) = (BETA, 0);
    for _ in 0..ROUNDS {
        let Some(next) = now.solved(grid, &now.sums(grid, beta, pieces)) else { break };
        now = next;
        let coded = now.coded(grid);
        let error = coded.sums(grid, beta, pieces).error;
        if error < best.0 && coded.is_sound(low, high) {
            (best, misses) = ((error, coded.range(grid)), 0);
        } else {
            misses += 1;
        }
        if misses == PATIENCE {
            break;
        }
        beta *= GROWTH;
    }
    best.1
}

/// w ≈ scale · (code − zero).
#[derive(Clone, Copy, Debug)]
struct Candidate {
    scale: f64,
    zero: f64,
}

/// Over weights that are not 0, codes q and what is left of the weights t, in steps of the scale.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    codes: f64,
    left: f64,
    codes_squared: f64,
    both: f64,
    /// Σ |error|^p in units of the weights
    error: f64,
}

impl Candidate {
    fn sums<F: Element>(self, grid: Grid, beta: f64, pieces: &[Piece<'_, F>]) -> Sums {
        let parts = chunks(pieces, |values, _| self.sums_of(grid, beta, values));
        parts.into_iter().fold(Sums::default(), |all, part| Sums {
            count: all.count + part.count,
            codes: all.codes + part.codes,
            left: all.left + part.left,
            codes_squared: all.codes_squared + part.codes_squared,
            both: all.both + part.both,
            error: all.error + part.error,
        })
    }

    fn sums_of<F: Element>(self, grid: Grid, beta: f64, values: &[F]) -> Sums {
        let (inverse, zero) = (F::narrow(self.scale.recip()), F::narrow(self.zero));
        let levels = grid.levels();
        let (low, high) = if grid.is_symmetric() { (-levels, levels) } else { (0.0, levels) };
        let (low, high, power, held) =
            (F::narrow(low), F::narrow(high), F::narrow(POWER - 1.0), F::narrow(beta.recip()));
        let mut sums = Sums::default();
        for &w in values.iter().filter(|w| !w.is_zero()) {
            let x = w * inverse;
            let code = clamp(half_even(x + zero), low, high);
            let off = x - (code - zero);
            // An error of nothing has no power below 0.
            let size = off.abs();
            let steep = if size > F::narrow(1e-12) { size.powf(power) } else { F::zero() };
            let much = size - held * steep;
            let taken = if much > F::zero() { if off > F::zero() { much } else { -much } } else { F::zero() };
            let (code, left) = (code.widen(), (x - taken).widen());
            sums.count += 1.0;
            sums.codes += code;
            sums.left += left;
            sums.codes_squared += code * code;
            sums.both += code * left;
            sums.error += (size * steep).widen();
        }
        // Errors of different scales compare in units of the weights.
        sums.error *= self.scale.powf(POWER);
        sums
    }

    /// Least squares of what is left on its codes; `None` when that gives no scale.
    fn solved(self, grid: Grid, sums: &Sums) -> Option<Self> {
        let (steps, zero) = if grid.is_symmetric() {
            (sums.both / sums.codes_squared, 0.0)
        } else {
            let spread = sums.codes_squared - sums.codes * sums.codes / sums.count;
            let steps = (sums.both - sums.codes * sums.left / sums.count) / spread;
            (steps, (sums.codes - sums.left / steps) / sums.count)
        };
        let fits = steps.is_finite() && steps > 0.0 && zero.is_finite();
        fits.then(|| Self { scale: self.scale * steps, zero: zero.clamp(0.0, grid.levels()) })
    }

    /// With a zero point that is a code.
    fn coded(self, grid: Grid) -> Self {
        Self { zero: self.zero.round_ties_even().clamp(0.0, grid.levels()), ..self }
    }

    /// Whether it stays within the range of the weights' own: farther it can reach only for nothing.
    fn is_sound(self, low: f64, high: f64) -> bool {
        self.scale >= f64::from(f32::MIN_POSITIVE) && self.scale <= 2.0 * high.max(-low)
    }

    fn range(self, grid: Grid) -> (f64, f64) {
        if grid.is_symmetric() {
            return (0.0, self.scale * grid.levels());
        }
        (-self.zero * self.scale, (grid.levels() - self.zero) * self.scale)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::quantize::ranges::Importance;
    use crate::quantize::{Bits, ScaleType, Symmetry};

    fn pieces(values: &[f64]) -> Vec<Piece<'_, f64>> {
        vec![Piece { values: Cow::Borrowed(values), importance: Importance::Equal }]
    }

    fn grid(bits: u32, symmetry: Symmetry) -> Grid {
        Grid { bits: Bits::new(bits).unwrap(), symmetry, scales: ScaleType::F32 }
    }

    /// Nearly normal weights around a mean, every thousandth one eight times as large.
    fn weights(mean: f64) -> Vec<f64> {
        let mut state = 9u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mut one = |k: usize| {
            let sum: f64 = (0..6).map(|_| next()).sum();
            if k % 1000 == 7 { 8.0 * sum } else { sum + mean }
        };
        (0..4000).map(&mut one).collect()
    }

    /// Σ |error|^p of a range.
    fn norm(grid: Grid, (low, high): (f64, f64), values: &[f64]) -> f64 {
        let fit = grid.fit(low, high).unwrap();
        let candidate = Candidate { scale: f64::from(fit.scale), zero: f64::from(fit.zero) };
        candidate.sums(grid, BETA, &pieces(values)).error
    }

    #[test]
    fn the_norm_gets_smaller() {
        for symmetry in [Symmetry::Symmetric, Symmetry::Affine] {
            for bits in [2, 3, 4] {
                for mean in [0.0, 0.4] {
                    let (grid, values) = (grid(bits, symmetry), weights(mean));
                    let found = find(grid, &pieces(&values));
                    let (full, own) = (min_max(&pieces(&values)), norm(grid, found, &values));
                    assert!(own < 0.97 * norm(grid, full, &values), "{symmetry:?} {bits} {mean} {found:?}");
                    assert!(found.1 - found.0 < full.1 - full.0);
                }
            }
        }
    }

    #[test]
    fn exact_codes_stay() {
        let values: Vec<f64> = (0..100).map(|k| f64::from(k % 16) * 0.25 - 1.0).collect();
        let affine = grid(4, Symmetry::Affine);
        assert_eq!(find(affine, &pieces(&values)), (-1.0, 2.75));
        assert_eq!(find(affine, &pieces(&[0.0; 8])), (0.0, 0.0));
        assert_eq!(find(affine, &pieces(&[3.0])), (0.0, 3.0));
        assert_eq!(find(grid(4, Symmetry::Symmetric), &pieces(&[1e-42, -1e-43])), (-1e-43, 1e-42));
    }
}
