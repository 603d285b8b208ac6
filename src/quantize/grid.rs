//! The scale and zero point of one block of weights.

use crate::kernel::minifloat::MiniFloat;
use crate::kernel::round::Step;
use crate::quantize::{Bits, ScaleType, Symmetry};
use crate::{Element, Error, Result};

/// What the codes of all blocks of a tensor have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) bits: Bits,
    pub(crate) symmetry: Symmetry,
    pub(crate) scales: ScaleType,
}

/// A scale and the code of 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Fit {
    pub(crate) scale: f32,
    pub(crate) zero: u8,
}

impl Fit {
    /// What a block that holds only zeros gets.
    pub(crate) const NONE: Self = Self { scale: 1.0, zero: 0 };
}

impl Grid {
    pub(crate) fn is_symmetric(self) -> bool {
        self.symmetry == Symmetry::Symmetric
    }

    /// Steps between 0 and the end of a symmetric range, or from end to end of an affine one.
    pub(crate) fn levels(self) -> f64 {
        let bits = self.bits.get();
        f64::from(if self.is_symmetric() { (1u32 << (bits - 1)) - 1 } else { (1 << bits) - 1 })
    }

    /// The steps that codes can take around 0: lowest and highest.
    pub(crate) fn ends(self, zero: u8) -> (f64, f64) {
        match self.symmetry {
            Symmetry::Symmetric => (-self.levels(), self.levels()),
            Symmetry::Affine => (-f64::from(zero), self.levels() - f64::from(zero)),
        }
    }

    pub(crate) fn step<F: Element>(self, fit: Fit) -> Step<F> {
        let (low, high) = self.ends(fit.zero);
        Step {
            scale: F::narrow(f64::from(fit.scale)),
            low: F::narrow(low),
            high: F::narrow(high),
            zero: fit.zero,
        }
    }

    /// Scale and zero point for values in [min, max].
    ///
    /// Both are settled: what the end codes decode to in f32 leads to the same scale again.
    ///
    /// # Errors
    /// The scale, or what it decodes to, is past its number type.
    pub(crate) fn fit(self, min: f64, max: f64) -> Result<Fit> {
        let fit = match self.symmetry {
            Symmetry::Symmetric => self.symmetric(max.max(-min))?,
            Symmetry::Affine => self.affine(min.min(0.0), max.max(0.0))?,
        };
        let (low, high) = self.ends(fit.zero);
        let reach = high.max(-low) as f32;
        if (reach * fit.scale).is_finite() {
            return Ok(fit);
        }
        // A scale that was rounded up may carry the largest f32 past the end.
        let scale = fit.scale.next_down();
        if self.scales == ScaleType::F32 && (reach * scale).is_finite() {
            return Ok(Fit { scale, ..fit });
        }
        Err(Error::unsupported(format!("range {min} to {max} decodes past the limit of f32, {}", f32::MAX)))
    }

    fn symmetric(self, reach: f64) -> Result<Fit> {
        let levels = self.levels();
        let mut scale = reach / levels;
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Ok(Fit::NONE);
        }
        // Two neighbours may both decode the end to the same f32; take the one nearest to that f32 over `levels`.
        let end = f64::from((scale as f32) * levels as f32);
        scale = if end.is_finite() { end / levels } else { scale };
        Ok(Fit { scale: stored(scale as f32, self.scales)?, zero: 0 })
    }

    fn affine(self, min: f64, max: f64) -> Result<Fit> {
        let nearest = ((max - min) / self.levels()) as f32;
        if nearest < f32::MIN_POSITIVE {
            return Ok(Fit::NONE);
        }
        let scale = stored(nearest, self.scales)?;
        let zero = |scale: f32| (-min / f64::from(scale)).round_ties_even().clamp(0.0, self.levels()) as u8;
        if self.scales == ScaleType::F16 {
            return Ok(Fit { scale, zero: zero(scale) });
        }
        // Rounding may cost the range a hair of its width, and an end its code; a neighbouring scale then has both.
        let (down, up) = (scale.next_down(), scale.next_up());
        let tries = [scale, down, up, down.next_down(), up.next_up(), down.next_down().next_down()];
        let mut fits = tries.iter().map(|&scale| Fit { scale, zero: zero(scale) });
        let settled = fits.find(|fit| self.is_settled(*fit, min, max));
        Ok(settled.unwrap_or(Fit { scale, zero: zero(scale) }))
    }

    /// Whether both ends of the range get the end codes, and those decode to a range of the same scale.
    fn is_settled(self, fit: Fit, min: f64, max: f64) -> bool {
        let (low, high) = self.ends(fit.zero);
        let scale = fit.scale;
        let reaches = |x: f64, end: f64| {
            let (wide, narrow) = (x / f64::from(scale), x as f32 / scale);
            let least = wide.abs().round_ties_even().min(f64::from(narrow).abs().round_ties_even());
            least >= end.abs()
        };
        let decoded = |steps: f64| f64::from(steps as f32 * scale);
        let again = ((decoded(high) - decoded(low)) / self.levels()) as f32;
        reaches(min, low) && reaches(max, high) && again.to_bits() == scale.to_bits()
    }
}

/// A scale as it is stored. Half precision rounds up, so that the range stays covered.
pub(crate) fn stored(scale: f32, kind: ScaleType) -> Result<f32> {
    let too_large =
        |limit: f64| Error::unsupported(format!("scale {scale} is past the limit of its type, {limit}"));
    if !scale.is_finite() {
        return Err(too_large(f64::from(f32::MAX)));
    }
    if kind == ScaleType::F32 {
        return Ok(scale);
    }
    let format = MiniFloat::F16;
    let code = format.encode(f64::from(scale)).map_err(|_| too_large(format.max()))?;
    let near = format.decode(code);
    let up = if near < f64::from(scale) { format.decode(code + 1) } else { near };
    if up.is_finite() { Ok(up as f32) } else { Err(too_large(format.max())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(bits: u32, symmetry: Symmetry) -> Grid {
        Grid { bits: Bits::new(bits).unwrap(), symmetry, scales: ScaleType::F32 }
    }

    #[test]
    fn symmetric_scales_settle() {
        for bits in 2..=8 {
            let grid = grid(bits, Symmetry::Symmetric);
            for i in 1..20_000 {
                let reach = f64::from(0.37f32 + i as f32 * 1.3e-4);
                let fit = grid.fit(-reach, 0.0).unwrap();
                assert!((f64::from(fit.scale) * grid.levels() / reach - 1.0).abs() < 2e-7);
                let end = f64::from(fit.scale * grid.levels() as f32);
                assert_eq!(grid.fit(-end, 0.0).unwrap(), fit);
            }
        }
    }

    #[test]
    fn affine_scales_settle_and_use_both_ends() {
        for bits in 1..=8 {
            let grid = grid(bits, Symmetry::Affine);
            for i in 0..20_000 {
                let (min, max) = (-f64::from(0.2f32 + i as f32 * 1e-4), f64::from(1.1f32));
                let fit = grid.fit(min, max).unwrap();
                let step = grid.step::<f64>(fit);
                let mut ends = [0; 2];
                crate::kernel::round::codes(&[min, max], step, &mut ends);
                assert_eq!(ends.map(f64::from), [0.0, grid.levels()], "{bits} {min}");
                let value = |code: u8| f64::from((f32::from(code) - f32::from(fit.zero)) * fit.scale);
                assert_eq!(grid.fit(value(ends[0]), value(ends[1])).unwrap(), fit, "{bits} {min}");
            }
        }
    }

    #[test]
    fn extremes() {
        let eight = grid(8, Symmetry::Symmetric);
        assert_eq!(eight.fit(0.0, 0.0).unwrap(), Fit::NONE);
        assert_eq!(eight.fit(-1e-40, 1e-40).unwrap(), Fit::NONE);
        let largest = f64::from(f32::MAX);
        assert!((eight.fit(-largest, 1.0).unwrap().scale * 127.0).is_finite());
        assert!(eight.fit(-1e300, 1.0).is_err());
        assert!(grid(8, Symmetry::Affine).fit(-largest, largest).is_err());
        let half = Grid { scales: ScaleType::F16, ..eight };
        assert!(half.fit(0.0, 1e7).is_err());
        let scale = half.fit(0.0, 1.0).unwrap().scale;
        assert!((1.0 / 127.0..1.001 / 127.0).contains(&scale));
        assert_eq!(half.fit(0.0, f64::from(scale) * 127.0).unwrap().scale, scale);
    }
}
