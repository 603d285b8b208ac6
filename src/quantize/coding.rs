//! [`Coding`]: rounding to steps whose scales move.

use crate::kernel::round::{clamp, half_even};
use crate::quantize::blocks::{Blocks, Segment};
use crate::quantize::grid::{Fit, Grid, stored};
use crate::quantize::{QuantizedTensor, Scheme, Scope, encode};
use crate::{Element, Error, Result};

/// The integer steps of a weight: which scale belongs to which value, and the scales and zero points themselves.
///
/// It rounds as [`Uniform`](crate::quantize::Uniform) does, bit for bit, and says what a loss would gain from other
/// values and other scales.
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    shape: Vec<usize>,
    scheme: Scheme,
    blocks: Blocks,
    grid: Grid,
    fits: Vec<Fit>,
}

impl Coding {
    /// The steps of this tensor.
    ///
    /// # Errors
    /// It does not hold integers of one step size with scales of its own.
    pub(crate) fn of(tensor: &QuantizedTensor) -> Result<Self> {
        let scheme = tensor.scheme().clone();
        let Scheme::Int { bits, symmetry, scope, scales } = scheme else {
            return Err(Error::unsupported(format!("codes `{scheme}` have no steps to be learned")));
        };
        if scope == Scope::Model {
            return Err(Error::unsupported("one scale for the whole model is not learned"));
        }
        let zero_points = tensor.zero_points().unwrap_or_default();
        let zero = |at: usize| zero_points.get(at).copied().unwrap_or(0);
        let fits = tensor.scales().iter().enumerate().map(|(at, &scale)| Fit { scale, zero: zero(at) });
        Ok(Self {
            shape: tensor.shape().to_vec(),
            blocks: Blocks::new(tensor.shape(), scope)?,
            grid: Grid { bits, symmetry, scales },
            fits: fits.collect(),
            scheme,
        })
    }

    /// All scales.
    pub(crate) fn scales(&self) -> impl Iterator<Item = f32> {
        self.fits.iter().map(|fit| fit.scale)
    }

    /// Moves a scale, rounded as it is stored.
    ///
    /// # Errors
    /// It is past what its type holds, or what it decodes to is past f32.
    pub(crate) fn set_scale(&mut self, at: usize, scale: f64) -> Result<()> {
        let scale = stored(scale as f32, self.grid.scales)?;
        let (low, high) = self.grid.ends(self.fits[at].zero);
        if scale < f32::MIN_POSITIVE || !(high.max(-low) as f32 * scale).is_finite() {
            return Err(Error::unsupported(format!("scale {scale} is past the limits of f32")));
        }
        self.fits[at].scale = scale;
        Ok(())
    }

    /// What the nearest codes of these values decode to.
    pub(crate) fn round<F: Element>(&self, values: &[F], rounded: &mut [F]) {
        self.pairs(values.len(), |range, steps: &Steps<F>| {
            let pairs = rounded[range.clone()].iter_mut().zip(&values[range]);
            pairs.for_each(|(rounded, &value)| *rounded = steps.round(value));
        });
    }

    /// From the gradient in the rounded values those in the values and in the logarithms of the scales.
    ///
    /// Rounding counts as the identity within its range and as a constant outside. With ŵ = s·q, dŵ/ds is q − w/s
    /// inside and q outside, so that dŵ/d(ln s) is ŵ − w and ŵ.
    pub(crate) fn pull<F: Element>(&self, values: &[F], gradient: &mut [F], scales: &mut [f64]) {
        scales.fill(0.0);
        self.blocks.segments(0..values.len(), |segment| {
            let mut one = |range: std::ops::Range<usize>, at: usize| {
                let steps = Steps::<F>::of(self.grid, self.fits[at]);
                let mut sum = 0.0;
                for (gradient, &value) in gradient[range.clone()].iter_mut().zip(&values[range]) {
                    let rounded = steps.round(value);
                    if steps.holds(value) {
                        sum += gradient.widen() * (rounded - value).widen();
                    } else {
                        sum += gradient.widen() * rounded.widen();
                        *gradient = F::zero();
                    }
                }
                scales[at] += sum;
            };
            match segment {
                Segment::One(range, at) => one(range, at),
                Segment::Each(range, first) => {
                    range.zip(first..).for_each(|(k, at)| one(k..k + 1, at));
                }
            }
        });
    }

    /// The nearest codes of these values.
    pub(crate) fn encode<F: Element>(&self, values: &[F]) -> QuantizedTensor {
        let encoded = encode::with_fits(values, self.blocks, self.grid, Vec::new(), self.fits.clone());
        let zero_points =
            if self.grid.is_symmetric() { Vec::new() } else { self.fits.iter().map(|f| f.zero).collect() };
        let (bytes, nonzero) = (vec![encoded.bytes], encoded.nonzero);
        QuantizedTensor::assemble(
            &self.shape,
            self.scheme.clone(),
            bytes,
            self.scales().collect(),
            zero_points,
            nonzero,
        )
    }

    /// `f` of every run that shares its steps.
    fn pairs<F: Element>(&self, len: usize, mut f: impl FnMut(std::ops::Range<usize>, &Steps<F>)) {
        self.blocks.segments(0..len, |segment| match segment {
            Segment::One(range, at) => f(range, &Steps::of(self.grid, self.fits[at])),
            Segment::Each(range, first) => {
                range.zip(first..).for_each(|(k, at)| f(k..k + 1, &Steps::of(self.grid, self.fits[at])));
            }
        });
    }
}

/// Steps from `low` to `high` of one size.
struct Steps<F> {
    scale: F,
    low: F,
    high: F,
}

impl<F: Element> Steps<F> {
    fn of(grid: Grid, fit: Fit) -> Self {
        let step = grid.step(fit);
        Self { scale: step.scale, low: step.low, high: step.high }
    }

    #[inline]
    fn round(&self, value: F) -> F {
        half_even(clamp(value / self.scale, self.low, self.high)) * self.scale
    }

    #[inline]
    fn holds(&self, value: F) -> bool {
        let steps = value / self.scale;
        steps >= self.low && steps <= self.high
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::quantize::{Bits, GroupSize, MultiScale, Quantizer, Uniform};
    use crate::{Layer, Parameter};

    fn wave(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| {
            ((7 * i + 3 * j) as f32 * 0.37).sin() * (1 + i % 3) as f32
        })
    }

    fn quantizers() -> Vec<Uniform> {
        let four = Uniform::new(Bits::FOUR);
        let groups = GroupSize::new(5).unwrap();
        vec![
            four,
            four.affine(),
            four.per_tensor(),
            four.per_axis(1).affine(),
            four.per_group(groups),
            Uniform::int8().per_group(groups).f16_scales(),
        ]
    }

    #[test]
    fn rounds_as_the_codes_decode() {
        for quantizer in quantizers() {
            for parameter in [
                Parameter::linear("fc", wave(6, 11)),
                Parameter::linear("fc", wave(6, 11)).axes(1, 0),
                Parameter::embedding("e", wave(6, 11)),
            ] {
                let tensor = quantizer.quantize(&Layer::new(&parameter)).unwrap();
                let mut coding = Coding::of(&tensor).unwrap();
                assert_eq!(coding.encode(parameter.values()), tensor, "{}", tensor.scheme());
                let scales: Vec<f32> = coding.scales().collect();
                for (at, scale) in scales.iter().enumerate() {
                    coding.set_scale(at, f64::from(*scale) * 0.8).unwrap();
                }
                let mut rounded = vec![0.0; parameter.values().len()];
                coding.round(parameter.values(), &mut rounded);
                let decoded = coding.encode(parameter.values()).decode::<f32>();
                assert_eq!(decoded.as_slice().unwrap(), rounded, "{}", tensor.scheme());
            }
        }
    }

    /// Against differences: with the codes fixed inside the range, ŵ − w stays, so the chain is exact there only for
    /// the scale; the values are compared at the ends of the range.
    #[test]
    fn gradients_are_those_of_the_steps() {
        let parameter = Parameter::linear("fc", wave(3, 8));
        let values: Vec<f64> = parameter.values().iter().map(|&v| f64::from(v)).collect();
        let tensor = Uniform::new(Bits::FOUR).quantize(&Layer::new(&parameter)).unwrap();
        let mut coding = Coding::of(&tensor).unwrap();
        for (at, scale) in tensor.scales().iter().enumerate() {
            coding.set_scale(at, f64::from(*scale) * 0.6).unwrap();
        }
        let mut scales = vec![0.0; 3];
        let upstream: Vec<f64> = (0..24).map(|k| f64::from(k % 5) - 1.5).collect();
        let mut gradient = upstream.clone();
        coding.pull(&values, &mut gradient, &mut scales);
        let mut outside = 0;
        for (k, scale) in coding.scales().enumerate() {
            let mut sum = 0.0;
            for i in 8 * k..8 * (k + 1) {
                let steps = values[i] / f64::from(scale);
                let inside = steps.abs() <= 7.0;
                outside += usize::from(!inside);
                assert_eq!(gradient[i], if inside { upstream[i] } else { 0.0 });
                let slope = if inside { steps.round_ties_even() - steps } else { 7.0 * steps.signum() };
                sum += upstream[i] * slope * f64::from(scale);
            }
            assert!((scales[k] - sum).abs() < 1e-9, "{} {sum}", scales[k]);
        }
        assert!((1..24).contains(&outside));
    }

    #[test]
    fn what_has_no_steps() {
        let parameter = Parameter::linear("fc", wave(3, 8));
        let planes = MultiScale::nested(&[2, 2]).unwrap().quantize(&Layer::new(&parameter)).unwrap();
        assert!(Coding::of(&planes).is_err());
        let tensor = Uniform::int8().quantize(&Layer::new(&parameter)).unwrap();
        let mut coding = Coding::of(&tensor).unwrap();
        for scale in [0.0, f64::NAN, f64::INFINITY, 1e38, 1e-42] {
            assert!(coding.set_scale(0, scale).is_err(), "{scale}");
        }
    }
}
