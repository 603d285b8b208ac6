//! `q8-0`: f16 d, i8\[32\]; x = d·q.
//!
//! d = max |x| / 127, q = round(x · (1/d)), half away from zero, 1/d of the d that is not yet rounded.

use super::format::{Codec, half, inverse, unhalf};
use crate::kernel::half::MAGNITUDE;
use crate::kernel::round::integer;
use crate::kernel::simd::vectorized;

pub(super) const BYTES: usize = 34;

#[derive(Debug)]
pub(super) struct Q8_0;

impl Codec for Q8_0 {
    fn halves(&self) -> &'static [usize] {
        &[0]
    }

    fn encode(&self, values: &[f32], _: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                for (x, block) in values.as_chunks::<32>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
                    // As integers, whose maximum has no order.
                    let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits() & MAGNITUDE));
                    let d = f32::from_bits(most) / 127.0;
                    let inverse = inverse(d);
                    let mut words = [0u16; 32];
                    words.iter_mut().zip(x).for_each(|(word, &x)| *word = integer((x * inverse).round()));
                    block[..2].copy_from_slice(&half(d));
                    block[2..].iter_mut().zip(&words).for_each(|(code, &word)| *code = word as u8);
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<32>().0) {
            let d = unhalf([block[0], block[1]]);
            x.iter_mut().zip(&block[2..]).for_each(|(x, &code)| *x = d * f32::from(code as i8) + 0.0);
        }
    }
}
