//! `q4-0`: f16 d, u8\[16\], byte j holding q\[j\] and above it q\[j + 16\]; x = d·(q − 8). `q5-0`: a u32 between them
//! whose bit j is the fifth bit of q\[j\]; x = d·(q − 16).
//!
//! d = m / −8 (−16), m the value of largest magnitude with its sign, the first of several; q = trunc(x · (1/d) + 8.5)
//! (16.5), at most 15 (31), 1/d of the d that is not yet rounded.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use super::format::{Codec, half, inverse, unhalf};
use crate::kernel::half::MAGNITUDE;
use crate::kernel::round::integer;
use crate::kernel::simd::vectorized;

pub(super) const Q4_BYTES: usize = 18;
pub(super) const Q5_BYTES: usize = 22;

#[derive(Debug)]
pub(super) struct Q4_0;

#[derive(Debug)]
pub(super) struct Q5_0;

/// The value of largest magnitude, the first of several.
#[inline(always)]
fn largest(x: &[f32; 32]) -> f32 {
    // Magnitudes with the sign in the lowest place, once so that negative numbers win and once so that positive ones do.
    let most = x.iter().fold(0, |most: u32, x| most.max(x.to_bits().rotate_left(1)));
    let other = x.iter().fold(0, |most: u32, x| most.max(x.to_bits().rotate_left(1) ^ 1));
    if most == other {
        // It is there with both signs.
        return x.iter().copied().find(|x| x.to_bits() & MAGNITUDE == most >> 1).unwrap_or(0.0);
    }
    f32::from_bits(most.rotate_right(1))
}

/// The scale, and codes of `2 · half` levels.
#[inline(always)]
fn codes(x: &[f32; 32], half: f32) -> (f32, [u8; 32]) {
    let d = largest(x) / -half;
    let (inverse, most) = (inverse(d), 2.0 * half - 1.0);
    let mut words = [0u16; 32];
    for (word, &x) in words.iter_mut().zip(x) {
        let q = (x * inverse + (half + 0.5)).trunc();
        *word = integer(if q < most { q } else { most });
    }
    (d, words.map(|word| word as u8))
}

/// Two codes a byte.
#[inline(always)]
pub(super) fn pack(codes: &[u8; 32]) -> [u8; 16] {
    let (low, high) = codes.split_at(16);
    let mut bytes = [0; 16];
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
    bytes
}

impl Codec for Q4_0 {
    fn halves(&self) -> &'static [usize] {
        &[0]
    }

    fn encode(&self, values: &[f32], _: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                for (x, block) in values.as_chunks::<32>().0.iter().zip(blocks.as_chunks_mut::<Q4_BYTES>().0)
                {
                    let (d, codes) = codes(x, 8.0);
                    block[..2].copy_from_slice(&half(d));
                    block[2..].copy_from_slice(&pack(&codes));
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<Q4_BYTES>().0.iter().zip(values.as_chunks_mut::<32>().0) {
            let d = unhalf([block[0], block[1]]);
            let (low, high) = x.split_at_mut(16);
            for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
                *low = d * f32::from((byte & 15) as i8 - 8) + 0.0;
                *high = d * f32::from((byte >> 4) as i8 - 8) + 0.0;
            }
        }
    }
}

impl Codec for Q5_0 {
    fn halves(&self) -> &'static [usize] {
        &[0]
    }

    fn encode(&self, values: &[f32], _: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                for (x, block) in values.as_chunks::<32>().0.iter().zip(blocks.as_chunks_mut::<Q5_BYTES>().0)
                {
                    let (d, codes) = codes(x, 16.0);
                    let fifth = |bits, (j, code): (usize, &u8)| bits | u32::from(code >> 4) << j;
                    let fifth = codes.iter().enumerate().fold(0, fifth);
                    block[..2].copy_from_slice(&half(d));
                    block[2..6].copy_from_slice(&fifth.to_le_bytes());
                    block[6..].copy_from_slice(&pack(&codes));
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<Q5_BYTES>().0.iter().zip(values.as_chunks_mut::<32>().0) {
            let d = unhalf([block[0], block[1]]);
            let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
            let code = |low: u8, j: usize| (low | ((fifth >> j & 1) as u8) << 4) as i8 - 16;
            for (j, &byte) in block[6..].iter().enumerate() {
                x[j] = d * f32::from(code(byte & 15, j)) + 0.0;
                x[j + 16] = d * f32::from(code(byte >> 4, j + 16)) + 0.0;
            }
        }
    }
}
