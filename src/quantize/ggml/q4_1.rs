//! `q4-1`: f16 d, f16 m, u8\[16\], byte j holding q\[j\] and above it q\[j + 16\]; x = d·q + m.
//!
//! m = min x, d = (max x − m) / 15, q = trunc((x − m) · (1/d) + 0.5), at most 15, of d and m that are not yet rounded.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use super::format::{Codec, half, inverse, unhalf};
use super::q4_0::pack;
use crate::kernel::round::integer;
use crate::kernel::simd::vectorized;

pub(super) const BYTES: usize = 20;

#[derive(Debug)]
pub(super) struct Q4_1;

/// The smallest and the largest.
#[inline(always)]
fn ends(x: &[f32; 32]) -> (f32, f32) {
    // Integers in the order of the numbers: their extremes come from vectors whatever the order.
    let key = |bits: i32| bits ^ ((bits >> 31) as u32 >> 1) as i32;
    let (mut low, mut high) = (i32::MAX, i32::MIN);
    for x in x {
        let key = key(x.to_bits() as i32);
        (low, high) = (low.min(key), high.max(key));
    }
    (f32::from_bits(key(low) as u32), f32::from_bits(key(high) as u32))
}

impl Codec for Q4_1 {
    fn halves(&self) -> &'static [usize] {
        &[0, 2]
    }

    fn encode(&self, values: &[f32], _: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                for (x, block) in values.as_chunks::<32>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
                    let (low, high) = ends(x);
                    let d = (high - low) / 15.0;
                    let inverse = inverse(d);
                    let mut words = [0u16; 32];
                    for (word, &x) in words.iter_mut().zip(x) {
                        let q = ((x - low) * inverse + 0.5).trunc();
                        *word = integer(if q < 15.0 { q } else { 15.0 });
                    }
                    block[..2].copy_from_slice(&half(d));
                    block[2..4].copy_from_slice(&half(low));
                    block[4..].copy_from_slice(&pack(&words.map(|word| word as u8)));
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<32>().0) {
            let (d, m) = (unhalf([block[0], block[1]]), unhalf([block[2], block[3]]));
            let (low, high) = x.split_at_mut(16);
            for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[4..]) {
                *low = d * f32::from(byte & 15) + m + 0.0;
                *high = d * f32::from(byte >> 4) + m + 0.0;
            }
        }
    }
}
