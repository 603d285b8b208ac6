//! Several scales for each weight, the finer ones for what the coarser ones leave.

use crate::kernel::par;
use crate::kernel::round::{clamp, half_even};
use crate::quantize::blocks::Blocks;
use crate::quantize::encode;
use crate::quantize::grain::Grain;
use crate::quantize::grid::stored;
use crate::quantize::parts::check_reach;
use crate::quantize::planes::{Nested, join, pack_digits, pack_nested};
use crate::quantize::{Bits, GroupSize, QuantizedTensor, Quantizer, ScaleType, Scheme, Scope};
use crate::{Element, Error, Layer, Result};

/// W ≈ Σ s·q, one scale s and one code q a plane: each scale codes the residual that the coarser ones left.
///
/// **Nested**: the scale of a plane of b bits is that of the plane before over 2^b. The codes are the bits of sign
/// and magnitude cut into planes: the first plane of b bits holds the sign and b − 1 magnitude bits, its scale is
/// max |w| / 2^(b−1), and magnitudes are |w| / s cut to integers. A code that is not 0 decodes to the middle of its interval,
/// ±(N + ½)·s with s the scale of the last plane read, and 0 to 0. So one stored model serves several precisions:
/// [`QuantizedTensor::at_precision`] reads the first planes and gives exactly what quantizing with only those
/// planes gives. The error is at most s/2, and at most s for |w| < s: a quantizer whose interval around 0 is as
/// wide as the others cannot be cut in halves that are such quantizers again, so the nested one has an interval
/// of two steps there (as in embedded wavelet coding: Shapiro 1993; Taubman and Marcellin 2002).
///
/// **Refitted**: starts as one symmetric integer of all the bits, cut into planes; then the scale of each plane in
/// turn is solved again by least squares, and its codes are rounded again, on the residual that the other planes
/// leave, for [`SWEEPS`](Self::SWEEPS) sweeps. No step makes the squared error larger, so it stays at or below
/// that of the plain integer (up to the rounding of scales). Each plane keeps scales of its own, and lower
/// precisions cannot be read.
///
/// Defaults: per channel, f32 scales. Planes have 1 to 8 bits, the first at least 2, all together at most 16.
///
/// ```
/// use ndarray::Array;
/// use niwaki::quantize::{MultiScale, Quantizer};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weight = Parameter::linear("fc", Array::from_shape_fn((4, 8), |(i, j)| (i * 8 + j) as f32 - 13.0));
/// let layer = Layer::new(&weight);
/// let tensor = MultiScale::nested(&[2, 2, 4])?.quantize(&layer)?;
/// assert_eq!(tensor.scheme().to_string(), "planes 2+2+4 nested channel:0");
/// let coarse = tensor.at_precision(4)?;
/// assert_eq!(coarse, MultiScale::nested(&[2, 2])?.quantize(&layer)?);
/// assert!(tensor.at_precision(3).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiScale {
    bits: Vec<Bits>,
    nested: bool,
    grain: Grain,
    scales: ScaleType,
}

impl MultiScale {
    /// Sweeps over the planes that refitting makes.
    pub const SWEEPS: usize = 6;

    /// Nested planes of these bits, the coarsest first.
    ///
    /// # Errors
    /// No plane, a plane not of 1 to 8 bits, the first of 1 bit, or more than 16 bits together.
    pub fn nested(bits: &[u32]) -> Result<Self> {
        Self::new(bits, true)
    }

    /// Planes of these bits with scales refitted to the residual.
    ///
    /// # Errors
    /// As [`nested`](Self::nested).
    pub fn refitted(bits: &[u32]) -> Result<Self> {
        Self::new(bits, false)
    }

    fn new(bits: &[u32], nested: bool) -> Result<Self> {
        let bits = bits.iter().map(|&b| Bits::new(b)).collect::<Result<Vec<_>>>()?;
        let new = Self { bits, nested, grain: Grain::Channel, scales: ScaleType::F32 };
        new.scheme(Scope::Tensor).check()?;
        Ok(new)
    }

    /// One set of scales a tensor.
    pub fn per_tensor(self) -> Self {
        Self { grain: Grain::Tensor, ..self }
    }

    /// One set of scales for each position of the parameter's output axis (default).
    pub fn per_channel(self) -> Self {
        Self { grain: Grain::Channel, ..self }
    }

    /// One set of scales a group, as in [`Uniform::per_group`](crate::quantize::Uniform::per_group).
    pub fn per_group(self, size: GroupSize) -> Self {
        Self { grain: Grain::Group(size), ..self }
    }

    /// Stores scales in half precision.
    pub fn f16_scales(self) -> Self {
        Self { scales: ScaleType::F16, ..self }
    }

    fn scheme(&self, scope: Scope) -> Scheme {
        Scheme::Planes { bits: self.bits.clone(), nested: self.nested, scope, scales: self.scales }
    }

    fn total_bits(&self) -> u32 {
        self.bits.iter().map(|b| b.get()).sum()
    }

    /// Planes, scales, and how many codes are not 0.
    fn encode_nested<F: Element>(&self, values: &[F], blocks: Blocks) -> Result<(Coded, usize)> {
        let half = f64::from(1u32 << (self.bits[0].get() - 1));
        let scale = |&(low, high): &(F, F)| self.scale(high.widen().max(-low.widen()) / half);
        let scales = encode::extremes(values, blocks).iter().map(scale).collect::<Result<Vec<f32>>>()?;
        let below = self.total_bits() - self.bits[0].get();
        let (fine, most) = (
            F::narrow(f64::from(1u32 << below)),
            F::narrow(f64::from((1u32 << (self.total_bits() - 1)) - 1)),
        );
        let parts = par::map_chunks(values, par::CHUNK, |k, values| {
            let mut codes = vec![Nested::default(); values.len()];
            each(blocks, k * par::CHUNK, values.len(), |i, at| {
                // The quotient is rounded once, in the coarsest scale; the rest is exact, so that a prefix is the same.
                let steps = values[i].abs() / F::narrow(f64::from(scales[at])) * fine;
                let magnitude = clamp(steps, F::zero(), most).widen() as u16;
                codes[i] = Nested { negative: values[i] < F::zero() && magnitude > 0, magnitude };
            });
            let nonzero = codes.iter().filter(|code| code.magnitude > 0).count();
            (pack_nested(&codes, &self.bits), nonzero)
        });
        let (planes, nonzero) = join(parts, self.bits.len());
        Ok((Coded { planes, scales }, nonzero))
    }

    fn encode_refitted<F: Element>(&self, values: &[F], blocks: Blocks) -> Result<(Coded, usize)> {
        let fitted = par::map(blocks.scales, |scale| {
            let weights: Vec<F> = blocks.runs(scale).flat_map(|run| values[run].iter().copied()).collect();
            self.refit(&weights)
        });
        let mut scales = vec![0.0; blocks.scales * self.bits.len()];
        let mut digits = vec![vec![0u8; values.len()]; self.bits.len()];
        let mut nonzero = 0;
        for (at, fit) in fitted.into_iter().enumerate() {
            let fit = fit?;
            let any = |i: &usize| fit.digits.iter().any(|plane| plane[*i] != 0);
            nonzero += (0..fit.digits[0].len()).filter(any).count();
            for (plane, (own, fitted)) in digits.iter_mut().zip(&fit.digits).enumerate() {
                scales[plane * blocks.scales + at] = fit.scales[plane];
                let mut from = 0;
                for run in blocks.runs(at) {
                    let len = run.len();
                    own[run].copy_from_slice(&fitted[from..from + len]);
                    from += len;
                }
            }
        }
        let planes =
            digits.iter().zip(&self.bits).map(|(plane, bits)| pack_digits(plane, bits.get())).collect();
        Ok((Coded { planes, scales }, nonzero))
    }

    /// Digits and scales of one block.
    fn refit<F: Element>(&self, weights: &[F]) -> Result<Refit> {
        let reach = weights.iter().fold(F::zero(), |a, w| if w.abs() > a { w.abs() } else { a }).widen();
        let most = f64::from((1u32 << (self.total_bits() - 1)) - 1);
        let finest = reach / most;
        if finest < f64::from(f32::MIN_POSITIVE) {
            let none = vec![0; weights.len()];
            return Ok(Refit { digits: vec![none; self.bits.len()], scales: vec![1.0; self.bits.len()] });
        }
        // Where each plane's digit lies in the whole integer; the first digit is signed, the others are not.
        let mut below = self.total_bits();
        let planes: Vec<Plane> = (0..self.bits.len())
            .map(|k| {
                let bits = self.bits[k].get();
                below -= bits;
                let levels = 1i32 << bits;
                let (low, high) = if k == 0 { (-levels / 2, levels / 2 - 1) } else { (0, levels - 1) };
                Plane { below, low, high }
            })
            .collect();
        let scales = planes.iter().map(|p| stored((finest * f64::from(1u32 << p.below)) as f32, self.scales));
        let mut scales: Vec<f64> = scales.map(|s| s.map(f64::from)).collect::<Result<_>>()?;
        let mut digits = vec![vec![0u8; weights.len()]; planes.len()];
        for (i, w) in weights.iter().enumerate() {
            let whole = half_even(clamp(w.widen() / finest, -most, most)) as i32;
            for (plane, digits) in planes.iter().zip(&mut digits) {
                digits[i] = (whole >> plane.below) as u8 & plane.mask();
            }
        }
        for _ in 0..Self::SWEEPS {
            for k in 0..planes.len() {
                let solved = solve(weights, &planes, &digits, &scales, k);
                scales[k] = self.better(scales[k], solved)?;
                round_again(weights, &planes, &mut digits, &scales, k);
            }
        }
        Ok(Refit { digits, scales: scales.into_iter().map(|s| s as f32).collect() })
    }

    /// The solved scale as it is stored, or the old one where it is none.
    fn better(&self, old: f64, solved: f64) -> Result<f64> {
        if solved >= f64::from(f32::MIN_POSITIVE) && solved.is_finite() {
            return Ok(f64::from(stored(solved as f32, self.scales)?));
        }
        Ok(old)
    }

    fn scale(&self, scale: f64) -> Result<f32> {
        if scale < f64::from(f32::MIN_POSITIVE) { Ok(1.0) } else { stored(scale as f32, self.scales) }
    }
}

/// Packed planes and their scales.
#[derive(Debug)]
struct Coded {
    planes: Vec<Vec<u8>>,
    scales: Vec<f32>,
}

/// Digits of one block by plane, in the low bits of a byte.
#[derive(Debug)]
struct Refit {
    digits: Vec<Vec<u8>>,
    scales: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Plane {
    below: u32,
    low: i32,
    high: i32,
}

impl Plane {
    fn mask(self) -> u8 {
        (self.high - self.low) as u8
    }

    fn value(self, digit: u8) -> f64 {
        let digit = i32::from(digit);
        f64::from(if digit > self.high { digit - (self.high - self.low + 1) } else { digit })
    }
}

/// What the planes other than `k` leave of weight `i`.
fn residual<F: Element>(
    w: F,
    planes: &[Plane],
    digits: &[Vec<u8>],
    scales: &[f64],
    k: usize,
    i: usize,
) -> f64 {
    let others = (0..planes.len()).filter(|&other| other != k);
    others.fold(w.widen(), |rest, other| rest - scales[other] * planes[other].value(digits[other][i]))
}

/// The scale of plane `k` with the smallest squared error: Σ r·q / Σ q².
fn solve<F: Element>(weights: &[F], planes: &[Plane], digits: &[Vec<u8>], scales: &[f64], k: usize) -> f64 {
    let (mut dot, mut square) = (0.0, 0.0);
    for (i, &w) in weights.iter().enumerate() {
        let q = planes[k].value(digits[k][i]);
        dot += residual(w, planes, digits, scales, k, i) * q;
        square += q * q;
    }
    if square > 0.0 { dot / square } else { 0.0 }
}

/// The digits of plane `k` nearest to the residual. A weight that is 0 keeps its digits of 0.
fn round_again<F: Element>(
    weights: &[F],
    planes: &[Plane],
    digits: &mut [Vec<u8>],
    scales: &[f64],
    k: usize,
) {
    let plane = planes[k];
    for (i, &w) in weights.iter().enumerate().filter(|(_, w)| !w.is_zero()) {
        let steps = residual(w, planes, digits, scales, k, i) / scales[k];
        let nearest = half_even(clamp(steps, f64::from(plane.low), f64::from(plane.high)));
        digits[k][i] = nearest as i32 as u8 & plane.mask();
    }
}

/// Calls `f` with each index of a chunk, counted from its start, and its block.
fn each(blocks: Blocks, start: usize, len: usize, mut f: impl FnMut(usize, usize)) {
    use crate::quantize::blocks::Segment;
    blocks.segments(start..start + len, |segment| match segment {
        Segment::One(range, at) => range.for_each(|i| f(i - start, at)),
        Segment::Each(range, at) => range.zip(at..).for_each(|(i, at)| f(i - start, at)),
    });
}

impl<F: Element> Quantizer<F> for MultiScale {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        let parameter = layer.parameter();
        let scope = self.grain.scope(parameter);
        let coded = Blocks::new(parameter.shape(), scope).and_then(|blocks| {
            let values = parameter.values();
            if self.nested {
                self.encode_nested(values, blocks)
            } else {
                self.encode_refitted(values, blocks)
            }
        });
        let (coded, nonzero) = coded.map_err(|error| error.context(format!("layer `{}`", layer.name())))?;
        let (scheme, Coded { planes, scales }) = (self.scheme(scope), coded);
        let tensor =
            QuantizedTensor::assemble(parameter.shape(), scheme, planes, scales, Vec::new(), nonzero);
        check_reach(&tensor).map_err(|why| Error::unsupported(format!("layer `{}`: {why}", layer.name())))?;
        Ok(tensor)
    }

    fn check(&self) -> Result<()> {
        self.scheme(Scope::Tensor).check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameter;
    use crate::quantize::Uniform;
    use crate::quantize::testing::{error, weights};

    fn nested(bits: &[u32]) -> MultiScale {
        MultiScale::nested(bits).unwrap()
    }

    #[test]
    fn a_prefix_is_the_model_of_that_precision() {
        for zeros in [0.0, 0.9] {
            let parameter = Parameter::linear("w", weights(33, 70, zeros));
            let layer = Layer::new(&parameter);
            let group = GroupSize::new(16).unwrap();
            for all in [&[2, 2, 4][..], &[3, 1, 1, 1, 1, 1], &[8, 8], &[4, 4]] {
                for shape in [
                    |m: MultiScale| m,
                    |m: MultiScale| m.per_tensor(),
                    |m: MultiScale| m.per_group(GroupSize::new(16).unwrap()),
                    |m: MultiScale| m.f16_scales(),
                ] {
                    let whole = shape(nested(all)).quantize(&layer).unwrap();
                    for planes in 1..=all.len() {
                        let prefix = whole.at_precision(all[..planes].iter().sum()).unwrap();
                        assert_eq!(prefix, shape(nested(&all[..planes])).quantize(&layer).unwrap());
                    }
                }
            }
            let refitted = MultiScale::refitted(&[2, 2]).unwrap().per_group(group).quantize(&layer).unwrap();
            assert!(refitted.at_precision(2).is_err());
        }
    }

    #[test]
    fn the_error_falls_with_each_scale_and_stays_within_bounds() {
        let parameter = Parameter::linear("w", weights(16, 300, 0.2));
        let layer = Layer::new(&parameter);
        let whole = nested(&[2, 1, 1, 1, 3, 8]).quantize(&layer).unwrap();
        let errors = [2, 3, 4, 5, 8, 16].map(|bits| error(&parameter, &whole.at_precision(bits).unwrap()));
        assert!(errors.windows(2).all(|e| e[1] < 0.5 * e[0]), "{errors:?}");
        let (coarse, values) = (whole.at_precision(4).unwrap(), parameter.array());
        for ((index, &w), back) in values.indexed_iter().zip(&coarse.decode::<f32>()) {
            let step = coarse.scales()[index[0]] / 4.0;
            let bound = if w.abs() < step { step } else { step / 2.0 };
            assert!((w - back).abs() <= bound * 1.00001);
        }
    }

    #[test]
    fn refitting_lowers_the_error() {
        let parameter = Parameter::linear("w", weights(16, 300, 0.0));
        let layer = Layer::new(&parameter);
        for bits in [&[2, 2][..], &[3, 3], &[2, 2, 4], &[4, 1, 1]] {
            let total = Bits::new(bits.iter().sum()).unwrap();
            let refitted = MultiScale::refitted(bits).unwrap().quantize(&layer).unwrap();
            let plain = Uniform::new(total).quantize(&layer).unwrap();
            let nested = nested(bits).quantize(&layer).unwrap();
            let [ours, plain, nested] = [&refitted, &plain, &nested].map(|t| error(&parameter, t));
            assert!(ours < plain * 1.000_001 && ours < nested, "{bits:?}: {ours} {plain} {nested}");
        }
        let errors = [&[2][..], &[2, 2], &[2, 2, 4]]
            .map(|bits| error(&parameter, &MultiScale::refitted(bits).unwrap().quantize(&layer).unwrap()));
        assert!(errors.windows(2).all(|e| e[1] < e[0]), "{errors:?}");
    }

    #[test]
    fn zeros_stay_and_codes_come_back() {
        let parameter = Parameter::linear("w", weights(12, 64, 0.4));
        for quantizer in [nested(&[2, 2, 4]), nested(&[3, 8]), MultiScale::refitted(&[2, 3]).unwrap()] {
            let tensor = quantizer.quantize(&Layer::new(&parameter)).unwrap();
            let back = tensor.decode::<f32>();
            let zeros = parameter.values().iter().zip(&back).filter(|(w, _)| **w == 0.0);
            assert!(zeros.map(|(_, b)| b.to_bits()).all(|bits| bits == 0));
            if quantizer.nested {
                let again = quantizer.quantize(&Layer::new(&Parameter::linear("w", back))).unwrap();
                assert_eq!(again.planes, tensor.planes);
            }
            let parts = tensor.parts();
            let read = QuantizedTensor::from_parts(tensor.shape(), tensor.scheme().clone(), &parts).unwrap();
            assert_eq!(read, tensor);
        }
    }

    #[test]
    fn settings_out_of_range() {
        for bits in [&[][..], &[1, 4], &[9], &[8, 8, 1], &[0]] {
            assert!(MultiScale::nested(bits).is_err(), "{bits:?}");
            assert!(MultiScale::refitted(bits).is_err(), "{bits:?}");
        }
        let huge = Parameter::linear("w", ndarray::array![[1e300f64, 1.0]]);
        let error = nested(&[4]).quantize(&Layer::new(&huge)).unwrap_err();
        assert!(error.to_string().starts_with("layer `w`: scale"), "{error}");
    }
}
