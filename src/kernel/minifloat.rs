//! Small floating-point formats: f16, bf16, f8 e4m3 and f8 e5m2 by one rule.

use crate::kernel::round;

/// A format of one sign bit, `exponent` and `mantissa` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MiniFloat {
    pub(crate) exponent: u32,
    pub(crate) mantissa: u32,
    /// Whether the highest exponent is kept for infinity and NaN (IEEE); e4m3fn keeps one code for NaN only.
    pub(crate) ieee: bool,
}

impl MiniFloat {
    pub(crate) const F16: Self = Self { exponent: 5, mantissa: 10, ieee: true };
    pub(crate) const BF16: Self = Self { exponent: 8, mantissa: 7, ieee: true };
    pub(crate) const E4M3: Self = Self { exponent: 4, mantissa: 3, ieee: false };
    pub(crate) const E5M2: Self = Self { exponent: 5, mantissa: 2, ieee: true };

    /// Bits of one code.
    pub(crate) const fn bits(self) -> u32 {
        1 + self.exponent + self.mantissa
    }

    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// Code of the largest finite magnitude.
    pub(crate) const fn max_code(self) -> u32 {
        let top = (1 << (self.exponent + self.mantissa)) - 1;
        if self.ieee { top - (1 << self.mantissa) } else { top - 1 }
    }

    /// The largest finite magnitude.
    pub(crate) fn max(self) -> f64 {
        self.decode(self.max_code())
    }

    /// The value of a code.
    pub(crate) fn decode(self, code: u32) -> f64 {
        let magnitude = code & ((1 << (self.exponent + self.mantissa)) - 1);
        let sign = if code >> (self.exponent + self.mantissa) & 1 == 1 { -1.0 } else { 1.0 };
        let (exponent, fraction) = (magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1));
        if magnitude > self.max_code() {
            return if self.ieee && fraction == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        let lowest = 1 - self.bias() - self.mantissa as i32;
        let (steps, power) = match exponent {
            0 => (fraction, lowest),
            _ => (fraction + (1 << self.mantissa), lowest + exponent as i32 - 1),
        };
        sign * f64::from(steps) * exp2(power)
    }

    /// The code nearest to a finite value, ties to even; `Err` holds the signed largest code when the rounded
    /// value is past the range.
    pub(crate) fn encode(self, value: f64) -> Result<u32, u32> {
        let sign = u32::from(value.is_sign_negative()) << (self.exponent + self.mantissa);
        let magnitude = value.abs();
        let lowest = 1 - self.bias();
        let power = (((magnitude.to_bits() >> 52) as i32) - 1023).max(lowest);
        // A power of two multiplies exactly, so the only rounding is to whole steps.
        let steps = round::half_even(magnitude * exp2(self.mantissa as i32 - power));
        // `steps` may have reached the next power of two; the carry into the exponent is the right code.
        let code = ((power - lowest) as u32) * (1 << self.mantissa) + steps as u32;
        if code > self.max_code() { Err(sign | self.max_code()) } else { Ok(sign | code) }
    }
}

/// 2^power for powers that f64 holds as a normal number.
fn exp2(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [MiniFloat; 4] = [MiniFloat::F16, MiniFloat::BF16, MiniFloat::E4M3, MiniFloat::E5M2];

    #[test]
    fn every_finite_code_survives() {
        for format in ALL {
            for code in 0..1u32 << format.bits() {
                let value = format.decode(code);
                if value.is_finite() {
                    assert_eq!(format.encode(value), Ok(code), "{format:?} {code:#x}");
                }
            }
        }
    }

    /// OCP 8-bit Floating Point Specification 1.0, table 1; IEEE 754 binary16.
    #[test]
    fn limits() {
        assert_eq!(
            ALL.map(MiniFloat::max),
            [65504.0, f64::from(f32::from_bits(0x7f7f_0000)), 448.0, 57344.0]
        );
        assert_eq!(MiniFloat::E4M3.decode(1), 2f64.powi(-9));
        assert_eq!(MiniFloat::E5M2.decode(1), 2f64.powi(-16));
        assert!(MiniFloat::E4M3.decode(0x7f).is_nan());
        assert_eq!(MiniFloat::E5M2.decode(0xfc), f64::NEG_INFINITY);
        assert_eq!(MiniFloat::E4M3.encode(-1e9), Err(0xfe));
    }

    #[test]
    fn ties_go_to_even() {
        // 17 and 19 lie halfway between e4m3's 16, 18 and 20.
        assert_eq!(MiniFloat::E4M3.encode(17.0).map(|c| MiniFloat::E4M3.decode(c)), Ok(16.0));
        assert_eq!(MiniFloat::E4M3.encode(19.0).map(|c| MiniFloat::E4M3.decode(c)), Ok(20.0));
        assert_eq!(MiniFloat::F16.encode(65519.0), Ok(0x7bff));
        assert_eq!(MiniFloat::F16.encode(65520.0), Err(0x7bff));
    }
}
