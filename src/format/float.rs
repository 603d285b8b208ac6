//! Floating-point numbers of files to elements and back, many at a time.

use std::io::Write;

use ndarray::ArrayViewD;

use crate::kernel::half::{F16_END, MAGNITUDE, narrow_f16, widen_f16};
use crate::kernel::minifloat::MiniFloat;
use crate::{Element, Error, ErrorKind, Result};

/// A floating-point type of a file, little-endian.
#[cfg_attr(not(feature = "safetensors"), expect(dead_code, reason = "other files hold no 8-bit floats"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    F64,
    F32,
    F16,
    BF16,
    E5M2,
    E4M3,
}

/// Numbers that are converted at a time when an array is written.
const STEP: usize = 1 << 15;
/// Rounds past bf16's largest number.
const BF16_END: u32 = 0x7f7f_8000;

impl Float {
    /// Bytes of one number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::E5M2 | Self::E4M3 => 1,
        }
    }

    /// The type that holds an element as it is.
    #[cfg_attr(
        not(any(feature = "safetensors", feature = "npz", feature = "gguf")),
        expect(dead_code, reason = "an ONNX file takes a tensor's bytes whole")
    )]
    pub(crate) const fn of<F: Element>() -> Self {
        if F::BYTES == 4 { Self::F32 } else { Self::F64 }
    }

    /// Reads `values.len()` numbers. `Err` is the place of the first finite number that is past the element's range.
    pub(crate) fn decode<F: Element>(self, bytes: &[u8], values: &mut [F]) -> Result<(), usize> {
        match self {
            Self::F64 => {
                each(bytes, values, |b| F::narrow(f64::from_le_bytes(b)));
                let (numbers, _) = bytes.as_chunks();
                let past = |(v, b): (&F, &[u8; 8])| v.is_infinite() && f64::from_le_bytes(*b).is_finite();
                // Nothing is past the range of f64.
                let lost = if F::BYTES < 8 { values.iter().zip(numbers).position(past) } else { None };
                return lost.map_or(Ok(()), Err);
            }
            Self::F32 => each(bytes, values, |b| F::narrow(f64::from(f32::from_le_bytes(b)))),
            Self::F16 => each(bytes, values, |b| F::narrow(f64::from(widen_f16(u16::from_le_bytes(b))))),
            Self::BF16 => each(bytes, values, |b| {
                F::narrow(f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)))
            }),
            Self::E5M2 => decode_bytes(MiniFloat::E5M2, bytes, values),
            Self::E4M3 => decode_bytes(MiniFloat::E4M3, bytes, values),
        }
        Ok(())
    }

    /// Writes the numbers nearest to the values, ties to even. A type as wide as the element's takes every value;
    /// `Err` is the place of the first that a narrower one cannot hold.
    pub(crate) fn encode<F: Element>(self, values: &[F], bytes: &mut [u8]) -> Result<(), usize> {
        let fits = match self {
            Self::F64 => put(values, bytes, |v| (v.widen().to_le_bytes(), true)),
            Self::F32 => put(values, bytes, |v| {
                let number = v.widen() as f32;
                (number.to_le_bytes(), F::BYTES == 4 || number.is_finite())
            }),
            Self::F16 if F::BYTES == 4 => put(values, bytes, |v| {
                let bits = (v.widen() as f32).to_bits();
                (narrow_f16(bits).to_le_bytes(), bits & MAGNITUDE < F16_END)
            }),
            Self::BF16 if F::BYTES == 4 => put(values, bytes, |v| {
                let bits = (v.widen() as f32).to_bits();
                (narrow_bf16(bits).to_le_bytes(), bits & MAGNITUDE < BF16_END)
            }),
            Self::F16 => put(values, bytes, |v| narrow(MiniFloat::F16, v.widen())),
            Self::BF16 => put(values, bytes, |v| narrow(MiniFloat::BF16, v.widen())),
            Self::E5M2 | Self::E4M3 => false,
        };
        if fits { Ok(()) } else { Err(values.iter().position(|v| !self.holds(*v)).unwrap_or(0)) }
    }

    /// Converts an array, by rows, and writes it piece after piece.
    #[cfg_attr(
        not(any(feature = "safetensors", feature = "npz", feature = "gguf")),
        expect(dead_code, reason = "an ONNX file takes a tensor's bytes whole")
    )]
    pub(crate) fn write<F: Element>(
        self,
        tensor: &str,
        array: &ArrayViewD<'_, F>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut bytes = vec![0; STEP.min(array.len()) * self.bytes()];
        let mut put = |at: usize, values: &[F]| {
            let bytes = &mut bytes[..values.len() * self.bytes()];
            self.encode(values, bytes).map_err(|k| self.refusal(tensor, values[k], at + k))?;
            Ok(out.write_all(bytes)?)
        };
        if let Some(values) = array.as_slice() {
            return values.chunks(STEP).enumerate().try_for_each(|(k, values)| put(k * STEP, values));
        }
        let mut values = array.iter().copied();
        (0..array.len()).step_by(STEP).try_for_each(|at| {
            let some: Vec<F> = values.by_ref().take(STEP).collect();
            put(at, &some)
        })
    }

    /// What to say of a value that [`encode`](Self::encode) could not write.
    pub(crate) fn refusal(self, tensor: &str, value: impl Element, at: usize) -> Error {
        let place = format!("tensor `{tensor}`: value {value} at flat index {at}");
        if !value.is_finite() {
            return Error::new(ErrorKind::NotFinite, format!("{place} is not finite"));
        }
        Error::unsupported(format!("{place} is past the largest {self:?}, {}", self.max()))
    }

    fn holds<F: Element>(self, value: F) -> bool {
        let number = value.widen();
        if F::BYTES <= self.bytes() || !value.is_finite() {
            return F::BYTES <= self.bytes();
        }
        match self {
            Self::F64 => true,
            Self::F32 => (number as f32).is_finite(),
            Self::F16 => MiniFloat::F16.encode(number).is_ok(),
            Self::BF16 => MiniFloat::BF16.encode(number).is_ok(),
            Self::E5M2 | Self::E4M3 => false,
        }
    }

    fn max(self) -> f64 {
        match self {
            Self::F64 => f64::MAX,
            Self::F32 => f64::from(f32::MAX),
            Self::F16 => MiniFloat::F16.max(),
            Self::BF16 => MiniFloat::BF16.max(),
            Self::E5M2 => MiniFloat::E5M2.max(),
            Self::E4M3 => MiniFloat::E4M3.max(),
        }
    }
}

fn each<F: Element, const N: usize>(bytes: &[u8], values: &mut [F], read: impl Fn([u8; N]) -> F) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = read(*bytes);
    }
}

fn decode_bytes<F: Element>(format: MiniFloat, bytes: &[u8], values: &mut [F]) {
    let table: [F; 256] = std::array::from_fn(|code| F::narrow(format.decode(code as u32)));
    for (value, &byte) in values.iter_mut().zip(bytes) {
        *value = table[usize::from(byte)];
    }
}

/// Writes every value and says whether all of them fit; the flags are gathered so that the loop has no branch.
fn put<F: Element, const N: usize>(
    values: &[F],
    bytes: &mut [u8],
    write: impl Fn(F) -> ([u8; N], bool),
) -> bool {
    let mut fits = true;
    for (&value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
        let (number, fit) = write(value);
        *bytes = number;
        fits &= fit;
    }
    fits
}

fn narrow(format: MiniFloat, value: f64) -> ([u8; 2], bool) {
    let code = if value.is_finite() { format.encode(value) } else { Err(0) };
    (code.map_or([0; 2], |code| (code as u16).to_le_bytes()), code.is_ok())
}

/// The bf16 nearest to an f32 below [`BF16_END`], ties to even.
fn narrow_bf16(bits: u32) -> u16 {
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_the_format_rule() {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let codes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (float, format) in [(Float::F16, MiniFloat::F16), (Float::BF16, MiniFloat::BF16)] {
            let (mut narrow, mut wide) = (vec![0f32; 65536], vec![0f64; 65536]);
            float.decode(&codes, &mut narrow).unwrap();
            float.decode(&codes, &mut wide).unwrap();
            for (code, (&n, &w)) in narrow.iter().zip(&wide).enumerate() {
                let value = format.decode(code as u32);
                assert!(same(w, value), "{float:?} {code:#x}: {w} {value}");
                assert!(same(f64::from(n), value), "{float:?} {code:#x}");
                assert_eq!(n.is_sign_negative(), code >= 0x8000, "{float:?} {code:#x}");
            }
        }
        let mut eight = vec![0f32; 256];
        Float::E4M3.decode(&(0..=255).collect::<Vec<u8>>(), &mut eight).unwrap();
        assert_eq!((eight[0x7e], eight[0x81]), (448.0, -(2f32.powi(-9))));
    }

    #[test]
    fn narrowing_is_the_format_rule() {
        // Every f16 and bf16, the points halfway to the next, their neighbours, and a spread of others.
        let around = |v: f32| [v.to_bits().wrapping_sub(1), v.to_bits(), v.to_bits() + 1].map(f32::from_bits);
        let mut values: Vec<f32> = (0..u32::MAX - 40_009).step_by(40_009).map(f32::from_bits).collect();
        for code in (0..0x7bff).chain(0x8001..0xfbff) {
            let (a, b) = (widen_f16(code), widen_f16(code + 1));
            values.extend(around(f32::midpoint(a, b)).into_iter().chain(around(a)));
        }
        values.extend((0..0x7f7f).flat_map(|c: u32| around(f32::from_bits(c << 16 | 0x8000))));
        values.retain(|v| v.is_finite());
        for (float, format) in [(Float::F16, MiniFloat::F16), (Float::BF16, MiniFloat::BF16)] {
            for &value in &values {
                let (mut from32, mut from64) = ([0; 2], [0; 2]);
                let same = float.encode(&[value], &mut from32);
                assert_eq!(same, float.encode(&[f64::from(value)], &mut from64));
                let code = format.encode(f64::from(value));
                assert_eq!(same.is_ok(), code.is_ok(), "{float:?} {value:e}");
                if let Ok(code) = code {
                    assert_eq!(u16::from_le_bytes(from32), code as u16, "{float:?} {value:e}");
                    assert_eq!(from32, from64);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let mut bytes = [0; 32];
        assert_eq!(Float::F16.encode(&[1.0f32, 65520.0, f32::NAN], &mut bytes), Err(1));
        assert_eq!(Float::BF16.encode(&[1.0f32, f32::INFINITY], &mut bytes), Err(1));
        assert_eq!(Float::F32.encode(&[1.0f64, 1e39], &mut bytes), Err(1));
        assert_eq!(Float::F32.encode(&[1.0f32, f32::NAN], &mut bytes), Ok(()));
        assert_eq!(Float::F64.decode(&1e39f64.to_le_bytes(), &mut [0f32]), Err(0));
        assert_eq!(Float::F64.decode(&f64::INFINITY.to_le_bytes(), &mut [0f32]), Ok(()));
        let message = Float::F16.refusal("w", 70000.0f32, 3).to_string();
        assert_eq!(message, "tensor `w`: value 70000 at flat index 3 is past the largest F16, 65504");
    }
}
