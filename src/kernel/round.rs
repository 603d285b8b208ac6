//! Values to integer codes, half to even, without a library call: adding 1.5 · 2^m (m the mantissa's bits) leaves
//! no room for a fraction, so the addition itself rounds, and the low bits of the sum are the integer.

use crate::Element;
use crate::kernel::simd::vectorized;

/// Codes that are made together.
const RUN: usize = 256;

/// 1.5 · 2^23 or 1.5 · 2^52.
#[inline]
fn magic<F: Element>() -> F {
    F::narrow(if F::MAGNITUDE_BITS < 32 { 12_582_912.0 } else { 6_755_399_441_055_744.0 })
}

/// The nearest integer, ties to even, for |x| < 2^22.
#[inline]
pub(crate) fn half_even<F: Element>(x: F) -> F {
    x + magic::<F>() - magic::<F>()
}

/// x between two bounds, in a form that compiles to two vector instructions.
#[inline]
pub(crate) fn clamp<F: Element>(x: F, low: F, high: F) -> F {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// The low 16 bits, in two's complement, of the nearest integer to x, for |x| < 2^15.
#[inline]
pub(crate) fn integer<F: Element>(x: F) -> u16 {
    (x + magic::<F>()).low_bits() as u16
}

/// Integer steps from `low` to `high` around a zero point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<F> {
    pub(crate) scale: F,
    pub(crate) low: F,
    pub(crate) high: F,
    /// Added to the steps; the sum's low byte is the code.
    pub(crate) zero: u8,
}

impl<F: Element> Step<F> {
    /// A word whose low byte is the number of steps.
    #[inline]
    fn word(self, x: F) -> u32 {
        (clamp(x / self.scale, self.low, self.high) + magic::<F>()).low_bits()
    }

    #[inline]
    fn code(self, x: F) -> u8 {
        (self.word(x) as u8).wrapping_add(self.zero)
    }
}

/// Codes of values that share a step; returns how many are not the code of 0.
pub(crate) fn codes<F: Element>(values: &[F], step: Step<F>, codes: &mut [u8]) -> usize {
    // A division is exact at ties where a product with the reciprocal is not, and memory is slower than it.
    // Words first and bytes after: each loop fills whole vectors, one loop for both would not.
    vectorized(
        #[inline(always)]
        || {
            let mut words = [0u32; RUN];
            for (codes, values) in codes.chunks_mut(RUN).zip(values.chunks(RUN)) {
                words.iter_mut().zip(values).for_each(|(word, &x)| *word = step.word(x));
                let bytes = codes.iter_mut().zip(&words);
                bytes.for_each(|(code, &word)| *code = (word as u8).wrapping_add(step.zero));
            }
        },
    );
    count_other(codes, step.zero)
}

/// Codes of values that each have a step of their own, as [`codes`].
pub(crate) fn codes_each<F: Element>(values: &[F], steps: &[Step<F>], codes: &mut [u8]) -> usize {
    let mut other = 0;
    for ((code, &x), step) in codes.iter_mut().zip(values).zip(steps) {
        *code = step.code(x);
        other += usize::from(*code != step.zero);
    }
    other
}

/// How many codes differ from `zero`.
pub(crate) fn count_other(codes: &[u8], zero: u8) -> usize {
    // Counts of at most 240 stay in bytes, which are added 16 at a time.
    let run = |run: &[u8]| run.iter().fold(0u8, |n, &code| n.wrapping_add(u8::from(code != zero)));
    codes.chunks(240).map(|codes| usize::from(run(codes))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees<F: Element>() {
        for i in -2048..=2048 {
            let x = f64::from(i) / 16.0;
            assert_eq!(half_even(F::narrow(x)).widen(), x.round_ties_even());
            assert_eq!(integer(F::narrow(x)), (x.round_ties_even() as i16) as u16);
        }
    }

    #[test]
    fn rounds_half_to_even() {
        agrees::<f32>();
        agrees::<f64>();
        assert_eq!(half_even(4_194_302.5f32), 4_194_302.0);
    }

    #[test]
    fn codes_equal_the_obvious_way() {
        let values: Vec<f32> = (0..1000).map(|i| ((i * 37) % 201) as f32 * 0.37 - 37.0).collect();
        let step = Step { scale: 0.29f32, low: -100.0, high: 155.0, zero: 100 };
        let mut fast = vec![0; 1000];
        let other = codes(&values, step, &mut fast);
        let plain = |x: &f32| ((x / 0.29).round_ties_even() + 100.0).clamp(0.0, 255.0) as u8;
        let slow: Vec<u8> = values.iter().map(plain).collect();
        assert_eq!(fast, slow);
        assert_eq!(other, slow.iter().filter(|&&c| c != 100).count());
        let mut each = vec![0; 1000];
        assert_eq!(codes_each(&values, &[step; 1000], &mut each), other);
        assert_eq!(each, slow);
    }
}
