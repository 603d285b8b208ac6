//! Halves by the bits of an f32, without branches: [`minifloat`](super::minifloat) has the rule, this is fast.

/// 65520, from which on f32 rounds past f16's largest number, 65504.
pub(crate) const F16_END: u32 = 0x477f_f000;
/// All bits of an f32 but its sign.
pub(crate) const MAGNITUDE: u32 = u32::MAX >> 1;

/// The value of a half.
#[inline]
pub(crate) fn widen_f16(code: u16) -> f32 {
    let magnitude = u32::from(code & 0x7fff) << 13;
    // The exponents' biases differ by 112; the product also makes subnormals normal.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if magnitude >= 0x7c00 << 13 { 0xff << 23 } else { 0 };
    f32::from_bits(scaled | special | u32::from(code & 0x8000) << 16)
}

/// The half nearest to an f32 below [`F16_END`], ties to even.
#[inline]
pub(crate) fn narrow_f16(bits: u32) -> u16 {
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & MAGNITUDE);
    // One step of a subnormal half is 2^-24, which is the last place of a number near 0.5.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let rounded = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
    (sign | if magnitude < 113 << 23 { subnormal } else { rounded }) as u16
}
