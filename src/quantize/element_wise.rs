//! Each value on its own.

use crate::kernel::par::{self, CHUNK};
use crate::kernel::round::{clamp, integer};
use crate::quantize::planes::{join, pack_digits};
use crate::quantize::{FloatFormat, QuantizedTensor, Quantizer, Scheme};
use crate::{Element, Error, Layer, Result};

/// What happens to a value past the largest that a format holds.
///
/// ```
/// use niwaki::quantize::{ElementWise, OnOverflow};
/// assert_eq!(ElementWise::f16().on_overflow(OnOverflow::Saturate), ElementWise::f16().saturate());
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnOverflow {
    /// An error that names the layer, the value and the limit.
    Error,
    /// The largest value of its sign.
    Saturate,
}

/// Each weight rounded by itself to a number format; nothing is shared, nothing is learned from the others.
///
/// Rounding is half to even in every format. A negative zero, and a negative value that rounds to zero, are stored
/// as +0. Past the range: fixed point saturates, as such hardware does; floats are an error, because a weight
/// that does not fit says that the format is the wrong one ([`saturate`](Self::saturate) asks for less).
/// Infinities and NaN are never stored.
///
/// Formats: IEEE 754-2019 (binary16); OCP 8-bit Floating Point Specification 1.0 (2023); bfloat16 as the upper
/// half of binary32.
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{ElementWise, Quantizer};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weight = Parameter::linear("fc", array![[0.3f32, -1.6, 500.0]]);
/// let layer = Layer::new(&weight);
/// // A sign, 2 bits before the point and 5 behind it: steps of 1/32 up to 3.97.
/// let fixed = ElementWise::fixed(2, 5)?.quantize(&layer)?;
/// assert_eq!(fixed.decode::<f32>(), array![[0.3125, -1.59375, 3.96875]].into_dyn());
/// let error = ElementWise::f8_e4m3().quantize(&layer).unwrap_err();
/// assert_eq!(error.to_string(), "layer `fc`: value 500 at flat index 2 is past the limit of f8-e4m3, 448");
/// let small = ElementWise::f8_e4m3().saturate().quantize(&layer)?;
/// assert_eq!(small.decode::<f32>(), array![[0.3125, -1.625, 448.0]].into_dyn());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ElementWise {
    scheme: Scheme,
    on_overflow: OnOverflow,
}

impl ElementWise {
    /// Fixed point Qm.f: a sign, `integer_bits` before the point and `fraction_bits` behind it, two's complement,
    /// from −2^m to 2^m − 2^−f in steps of 2^−f. Saturates.
    ///
    /// # Errors
    /// With the sign not 2 to 16 bits in all.
    pub fn fixed(integer_bits: u32, fraction_bits: u32) -> Result<Self> {
        let scheme = Scheme::Fixed { integer: integer_bits, fraction: fraction_bits };
        scheme.check()?;
        Ok(Self { scheme, on_overflow: OnOverflow::Saturate })
    }

    /// IEEE half precision.
    pub fn f16() -> Self {
        Self::float(FloatFormat::F16)
    }

    /// The upper half of an f32.
    pub fn bf16() -> Self {
        Self::float(FloatFormat::Bf16)
    }

    /// 8-bit float with 4 exponent bits, up to 448.
    pub fn f8_e4m3() -> Self {
        Self::float(FloatFormat::F8E4M3)
    }

    /// 8-bit float with 5 exponent bits, up to 57344.
    pub fn f8_e5m2() -> Self {
        Self::float(FloatFormat::F8E5M2)
    }

    /// A small float; overflow is an error.
    pub fn float(format: FloatFormat) -> Self {
        Self { scheme: Scheme::Float(format), on_overflow: OnOverflow::Error }
    }

    /// Values past the range become the largest of their sign.
    pub fn saturate(self) -> Self {
        self.on_overflow(OnOverflow::Saturate)
    }

    /// What happens to values past the range.
    pub fn on_overflow(self, on_overflow: OnOverflow) -> Self {
        Self { on_overflow, ..self }
    }

    /// Codes of a chunk and whether any value was past the range.
    fn codes<F: Element>(&self, values: &[F]) -> (Vec<u16>, bool) {
        let mut over = false;
        let codes = match &self.scheme {
            Scheme::Fixed { integer: whole, fraction } => {
                let steps = F::narrow(f64::from(1u32 << fraction));
                let end = F::narrow(f64::from(1u32 << (whole + fraction)));
                let (low, high) = (-end, end - F::one());
                let half = F::narrow(0.5);
                let code = |&w: &F| {
                    let x = w * steps;
                    // Halfway behind an end: to even is inside below, outside above.
                    over |= x < low - half || x >= high + half;
                    integer(clamp(x, low, high)) & (u32::MAX >> (31 - whole - fraction)) as u16
                };
                values.iter().map(code).collect()
            }
            Scheme::Float(format) => {
                let format = format.kernel();
                let negative_zero = 1 << (format.bits() - 1);
                let code = |w: &F| {
                    let code = format.encode(w.widen()).unwrap_or_else(|largest| {
                        over = true;
                        largest
                    });
                    if code == negative_zero { 0 } else { code as u16 }
                };
                values.iter().map(code).collect()
            }
            Scheme::Int { .. } | Scheme::Planes { .. } | Scheme::Ggml(_) => Vec::new(),
        };
        (codes, over)
    }

    /// The first value past the range.
    fn overflow<F: Element>(&self, layer: &Layer<'_, F>) -> Error {
        let values = layer.parameter().values();
        let at = values.iter().position(|&w| self.codes(&[w]).1).unwrap_or(0);
        let limit = match &self.scheme {
            Scheme::Fixed { integer, fraction } => {
                f64::from(1u32 << integer) - 1.0 / f64::from(1u32 << fraction)
            }
            Scheme::Float(format) => format.kernel().max(),
            Scheme::Int { .. } | Scheme::Planes { .. } | Scheme::Ggml(_) => 0.0,
        };
        Error::unsupported(format!(
            "layer `{}`: value {} at flat index {at} is past the limit of {}, {limit}",
            layer.name(),
            values[at],
            self.scheme,
        ))
    }
}

impl<F: Element> Quantizer<F> for ElementWise {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        let (parameter, bits) = (layer.parameter(), self.scheme.code_bits());
        let parts = par::map_chunks(parameter.values(), CHUNK, |_, values| {
            let (codes, over) = self.codes(values);
            let nonzero = codes.iter().filter(|&&code| code != 0).count();
            ((vec![pack_digits(&codes, bits)], nonzero), over)
        });
        let (parts, over): (Vec<_>, Vec<bool>) = parts.into_iter().unzip();
        if self.on_overflow == OnOverflow::Error && over.contains(&true) {
            return Err(self.overflow(layer));
        }
        let (planes, nonzero) = join(parts, 1);
        let (scheme, shape) = (self.scheme.clone(), parameter.shape());
        Ok(QuantizedTensor::assemble(shape, scheme, planes, Vec::new(), Vec::new(), nonzero))
    }

    fn check(&self) -> Result<()> {
        self.scheme.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameter;
    use crate::quantize::testing::weights;

    fn all() -> Vec<ElementWise> {
        let fixed = [(0, 7), (2, 5), (3, 12), (0, 1), (4, 6)].map(|(m, f)| ElementWise::fixed(m, f).unwrap());
        let floats =
            [ElementWise::f16(), ElementWise::bf16(), ElementWise::f8_e4m3(), ElementWise::f8_e5m2()];
        fixed.into_iter().chain(floats).collect()
    }

    #[test]
    fn what_was_decoded_stays_and_zeros_stay() {
        for zeros in [0.1, 0.95] {
            let mut array = weights(30, 70, zeros);
            array[[0, 0]] = -0.0;
            array[[0, 1]] = -1e-30;
            let parameter = Parameter::linear("w", array);
            for quantizer in all() {
                let tensor = quantizer.quantize(&Layer::new(&parameter)).unwrap();
                let back = tensor.decode::<f32>();
                let again = quantizer.quantize(&Layer::new(&Parameter::linear("w", back.clone()))).unwrap();
                assert_eq!(again, tensor, "{quantizer:?}");
                for (w, back) in parameter.values().iter().zip(&back) {
                    assert!(*w != 0.0 || back.to_bits() == 0);
                    assert!(*back != 0.0 || back.is_sign_positive());
                }
                let parts = tensor.parts();
                let read = QuantizedTensor::from_parts(&[30, 70], tensor.scheme().clone(), &parts).unwrap();
                assert_eq!(read, tensor);
            }
        }
    }

    #[test]
    fn fixed_point_rounds_half_to_even_and_saturates() {
        let parameter = Parameter::linear("w", ndarray::array![[0.125f32, 0.375, -0.125, 9.0, -9.0, 1.874]]);
        let tensor = ElementWise::fixed(1, 2).unwrap().quantize(&Layer::new(&parameter)).unwrap();
        assert_eq!(tensor.decode::<f32>(), ndarray::array![[0.0, 0.5, 0.0, 1.75, -2.0, 1.75]].into_dyn());
        let strict = ElementWise::fixed(1, 2).unwrap().on_overflow(OnOverflow::Error);
        let error = strict.quantize(&Layer::new(&parameter)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layer `w`: value 9 at flat index 3 is past the limit of fixed q1.2, 1.75"
        );
        assert!(ElementWise::fixed(8, 8).is_err() && ElementWise::fixed(0, 0).is_err());
        assert!(ElementWise::fixed(u32::MAX, 3).is_err());
    }

    #[test]
    fn wide_weights_overflow_or_saturate() {
        let parameter = Parameter::linear("w", ndarray::array![[1.0f64, -1e300]]);
        for quantizer in [ElementWise::f16(), ElementWise::bf16(), ElementWise::f8_e5m2()] {
            assert!(quantizer.quantize(&Layer::new(&parameter)).is_err());
            let tensor = quantizer.saturate().quantize(&Layer::new(&parameter)).unwrap();
            assert!(tensor.decode::<f32>().iter().all(|w| w.is_finite()));
        }
    }
}
