//! [`Element`]: the two number types that weights come in.

use std::fmt::{Debug, Display};
use std::iter::Sum;

use ndarray::{LinalgScalar, ScalarOperand};
use num_traits::{Float, NumAssign};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A weight's number type: `f32` or `f64`. Sealed.
///
/// Files may hold f16 and bf16; they widen on reading. Statistics accumulate in `f64` whatever the element.
pub trait Element:
    sealed::Sealed
    + Float
    + NumAssign
    + LinalgScalar
    + ScalarOperand
    + Sum
    + Default
    + Debug
    + Display
    + Send
    + Sync
    + 'static
{
    /// The name in files: `F32` or `F64`.
    const DTYPE: &'static str;
    /// Bytes of one element.
    const BYTES: usize;
    /// Bits of the magnitude: all but the sign.
    const MAGNITUDE_BITS: u32;

    /// The nearest element to `value`.
    fn narrow(value: f64) -> Self;

    /// The same number as `f64`, exactly.
    fn widen(self) -> f64;

    /// The bits of |self|: an integer that orders as the magnitude does.
    fn magnitude_key(self) -> u64;

    /// The lowest 32 bits of the number as it is stored.
    fn low_bits(self) -> u32;

    /// An integer that orders as the number does (as `total_cmp`).
    fn order_key(self) -> u64;

    /// Writes the little-endian bytes; `bytes` holds [`BYTES`](Self::BYTES).
    fn write_le(self, bytes: &mut [u8]);

    /// Reads little-endian bytes; `bytes` holds [`BYTES`](Self::BYTES).
    fn read_le(bytes: &[u8]) -> Self;

    /// The numbers as they are, if they are `f32`.
    fn singles(values: &[Self]) -> Option<&[f32]>;
}

macro_rules! element {
    ($float:ty, $bits:ty, $name:literal, $singles:expr) => {
        impl Element for $float {
            const DTYPE: &'static str = $name;
            const BYTES: usize = size_of::<$float>();
            const MAGNITUDE_BITS: u32 = <$bits>::BITS - 1;

            fn narrow(value: f64) -> Self {
                value as $float
            }

            fn widen(self) -> f64 {
                f64::from(self)
            }

            fn magnitude_key(self) -> u64 {
                u64::from(self.to_bits() & (<$bits>::MAX >> 1))
            }

            fn low_bits(self) -> u32 {
                self.to_bits() as u32
            }

            fn order_key(self) -> u64 {
                let bits = self.to_bits();
                let sign = <$bits>::MAX / 2 + 1;
                u64::from(if bits & sign == 0 { bits | sign } else { !bits })
            }

            fn write_le(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn read_le(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(<$float>::NAN, Self::from_le_bytes)
            }

            fn singles(values: &[Self]) -> Option<&[f32]> {
                $singles(values)
            }
        }
    };
}

element!(f32, u32, "F32", Some);
element!(f64, u64, "F64", |_| None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_numbers_do() {
        let values = [f32::NEG_INFINITY, -2.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, 2.0, f32::INFINITY];
        assert!(values.windows(2).all(|w| w[0].order_key() < w[1].order_key()));
        assert!((-3.0f64).magnitude_key() > 2.0f64.magnitude_key());
        assert_eq!((-2.5f32).magnitude_key(), 2.5f32.magnitude_key());
    }
}
