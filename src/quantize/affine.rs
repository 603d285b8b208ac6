//! [`Affine`]: one scale and zero point, and how they come from a range.

use std::ops::RangeInclusive;

use crate::{Element, Error, Result};

/// A map between numbers and integer codes: x ≈ scale · (code − zero point).
///
/// Quantizers choose one for each block of weights; this type states the rule alone, for any range of codes.
///
/// ```
/// use niwaki::quantize::Affine;
///
/// # fn main() -> niwaki::Result<()> {
/// let map = Affine::of_range(-1.0, 2.0, 0..=255)?;
/// assert_eq!(map.zero_point(), 85);
/// assert_eq!((map.code(-1.0f32), map.code(0.0f32), map.code(9.0f32)), (0, 85, 255));
/// assert_eq!(map.value::<f32>(85), 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    scale: f32,
    zero_point: i32,
    low: i32,
    high: i32,
}

impl Affine {
    /// A map with this scale and zero point.
    ///
    /// # Errors
    /// The scale is not finite or not positive, there is no code, or the zero point is none.
    pub fn new(scale: f32, zero_point: i32, codes: RangeInclusive<i32>) -> Result<Self> {
        let (low, high) = codes.into_inner();
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::setting(format!("scale {scale} is not a positive number")));
        }
        if !(low..=high).contains(&zero_point) {
            return Err(Error::setting(format!("zero point {zero_point} is not in {low}..={high}")));
        }
        Ok(Self { scale, zero_point, low, high })
    }

    /// The map that spreads [min, max] over the codes: scale = (max − min) / (highest − lowest code), zero
    /// point = lowest − min / scale, rounded half to even, the scale then to f32.
    ///
    /// The range is first widened to hold 0. A scale below the smallest normal f32 (a range of no width) becomes
    /// scale 1 and zero point 0.
    ///
    /// # Errors
    /// Fewer than two codes, codes without 0 for a range of no width, a range that is not finite, or a scale
    /// that f32 cannot hold.
    pub fn of_range(min: f64, max: f64, codes: RangeInclusive<i32>) -> Result<Self> {
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / levels(&codes)?;
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Self::new(1.0, 0, codes);
        }
        let zero = (f64::from(*codes.start()) - min / scale).round_ties_even();
        Self::new(scale as f32, zero as i32, codes)
    }

    /// [`of_range`](Self::of_range) of ±max(|min|, |max|), each after it was moved to its side of 0.
    ///
    /// # Errors
    /// As [`of_range`](Self::of_range).
    pub fn of_symmetric_range(min: f64, max: f64, codes: RangeInclusive<i32>) -> Result<Self> {
        let reach = max.max(0.0).max(-min.min(0.0));
        Self::of_range(-reach, reach, codes)
    }

    /// The scale.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The code of 0.
    pub fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The code nearest to x: x / scale, in the type of x, rounded half to even, plus the zero point, cut to the
    /// range of codes. NaN gives the zero point.
    pub fn code<F: Element>(&self, x: F) -> i32 {
        let steps = (x / F::narrow(f64::from(self.scale))).widen().round_ties_even();
        (steps as i64).saturating_add(i64::from(self.zero_point)).clamp(self.low.into(), self.high.into())
            as i32
    }

    /// The number that a code stands for.
    pub fn value<F: Element>(&self, code: i32) -> F {
        let steps = i64::from(code) - i64::from(self.zero_point);
        F::narrow(steps as f64) * F::narrow(f64::from(self.scale))
    }
}

fn levels(codes: &RangeInclusive<i32>) -> Result<f64> {
    let levels = i64::from(*codes.end()) - i64::from(*codes.start());
    if levels > 0 { Ok(levels as f64) } else { Err(Error::setting(format!("codes {codes:?} hold no range"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_map() {
        assert!(Affine::new(0.0, 0, 0..=1).is_err() && Affine::new(f32::NAN, 0, 0..=1).is_err());
        assert!(Affine::new(1.0, 2, 0..=1).is_err());
        assert!(Affine::of_range(0.0, 1.0, RangeInclusive::new(3, 3)).is_err());
        assert!(Affine::of_range(0.0, 1e300, 0..=1).is_err());
        assert!(Affine::of_range(0.0, f64::INFINITY, 0..=1).is_err());
        assert!(Affine::of_range(0.0, 0.0, 5..=9).is_err());
        let whole = Affine::new(1.0, 0, i32::MIN..=i32::MAX).unwrap();
        assert_eq!((whole.code(1e300), whole.code(f64::NAN)), (i32::MAX, 0));
    }
}
