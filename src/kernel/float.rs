//! Powers of 2 and logarithms without a library call, so that loops over them fill whole vectors, and the same on every
//! machine.

/// 1.5 · 2^23: adding it rounds to an integer, which then is in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// 2^x within 3·10⁻⁷ of itself, for x cut to ±126.
#[inline]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = if x > -126.0 { x } else { -126.0 };
    let x = if x < 126.0 { x } else { 126.0 };
    let whole = x + MAGIC;
    let part = x - (whole - MAGIC);
    // The series of e^(part · ln 2), for |part| ≤ 1/2.
    let p = 1.540_353e-4;
    let p = p * part + 1.333_355_8e-3;
    let p = p * part + 9.618_129e-3;
    let p = p * part + 5.550_411e-2;
    let p = p * part + 0.240_226_5;
    let p = p * part + std::f32::consts::LN_2;
    let p = p * part + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(whole.to_bits() << 23))
}

/// The logarithm of x to base 2 within 2·10⁻⁶, for normal positive x; about −127 for 0.
#[inline]
pub(crate) fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    // log₂ m = 2 / ln 2 · artanh((m − 1) / (m + 1)), with m between √½ and √2.
    let large = mantissa > std::f32::consts::SQRT_2;
    let m = if large { 0.5 * mantissa } else { mantissa };
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square * (1.0 / 9.0))));
    exponent as f32 + if large { 1.0 } else { 0.0 } + t * series * (2.0 * std::f32::consts::LOG2_E)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_library() {
        for i in -120_000..=120_000 {
            let x = i as f32 * 1e-3;
            assert!((f64::from(exp2(x)) / f64::from(x).exp2() - 1.0).abs() < 3e-7, "{x}");
            let y = x.exp2();
            assert!(
                (f64::from(log2(y)) - f64::from(y).log2()).abs() < 2e-6 + 1e-7 * f64::from(x.abs()),
                "{y}"
            );
        }
        assert!(exp2(-1e9) < 2e-38 && exp2(1e9) > 8e37 && log2(0.0) < -126.0);
    }
}
