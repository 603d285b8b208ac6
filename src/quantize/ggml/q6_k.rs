//! `q6-k`: u8 low\[128\], u8 top\[64\], i8 s\[16\] for 16 runs of 16, f16 d; x = d·s·(q − 32).
//!
//! Each half of the block has 64 bytes of low bits, byte l holding those of q\[l\] and above them of q\[l + 64\], and 32
//! bytes of top bits, byte l holding two each of q\[l\], q\[l + 32\], q\[l + 64\] and q\[l + 96\].
//!
//! The layout is ggml's; the search is as ggml's at first, and goes on: a scale for each run by least squares for the
//! codes of 19 step sizes around max |x| / 32, then the 8-bit scales one by one, then d by least squares, [`ROUNDS`]
//! times.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use super::format::{Codec, half, inverse, unhalf};
use super::lanes::{LANES, Lanes, Sums, code, sums, turn};
use crate::kernel::round::integer;
use crate::kernel::simd::vectorized;

pub(super) const BYTES: usize = 210;
/// Weights of a block, and of a run with its own scale.
const LEN: usize = 256;
const RUN: usize = 16;
/// Codes around 0, and 8-bit scales.
const CODES: (f32, f32) = (-32.0, 31.0);
const SCALES: (f32, f32) = (-128.0, 127.0);
/// Where scales begin in a block, and where d is.
const SCALES_AT: usize = 192;
const D_AT: usize = 208;
/// How often scales and d are settled in turn.
const ROUNDS: usize = 2;
/// Below this largest scale all is 0.
const LEAST: f32 = 1e-15;

type Rows = [Lanes; RUN];

#[derive(Debug)]
pub(super) struct Q6K;

impl Codec for Q6K {
    fn halves(&self) -> &'static [usize] {
        &[D_AT]
    }

    fn encode(&self, values: &[f32], importance: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                for (at, block) in blocks.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
                    let own = at * LEN..(at + 1) * LEN;
                    let x: Rows = turn(&values[own.clone()]);
                    let w = importance.map_or_else(|| squares(&x), |all| turn(&all[own]));
                    encode(&x, &w, block);
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<LEN>().0) {
            let d = unhalf([block[D_AT], block[D_AT + 1]]);
            for (i, x) in x.iter_mut().enumerate() {
                let (part, l) = (i / 128, i % 128);
                let low = block[64 * part + l % 64] >> (l / 64 * 4) & 15;
                let top = block[128 + 32 * part + l % 32] >> (l / 32 * 2) & 3;
                let scale = block[SCALES_AT + i / RUN] as i8;
                *x = d * f32::from(scale) * f32::from((low | top << 4) as i8 - 32) + 0.0;
            }
        }
    }
}

/// What an error of each value counts where nothing is known of the inputs.
#[inline(always)]
fn squares(x: &Rows) -> Rows {
    x.map(|row| row.map(|x| x * x))
}

#[inline(always)]
fn encode(x: &Rows, w: &Rows, block: &mut [u8; BYTES]) {
    let scales = search(x, w);
    let most = scales.iter().fold(0.0, |most: f32, &s| if s.abs() > most.abs() { s } else { most });
    // NaN is no reason to store zeros: it makes d infinite, which the caller sees.
    let d = if most.abs() < LEAST { 0.0 } else { most / SCALES.0 };
    let by_d = inverse(d);
    let mut whole = scales.map(|scale| code(scale * by_d, SCALES.0, SCALES.1));
    let mut d = unhalf(half(d));
    for round in 0..ROUNDS {
        let sums = refine(x, w, d, &mut whole);
        if round + 1 < ROUNDS {
            d = solve(&sums, &whole, d);
        }
    }
    let steps = whole.map(|scale| inverse(scale * d));
    let mut codes = [[0; LANES]; RUN];
    for (codes, x) in codes.iter_mut().zip(x) {
        for k in 0..LANES {
            codes[k] = (integer(code(x[k] * steps[k], CODES.0, CODES.1)) as u8).wrapping_add(32);
        }
    }
    write(block, d, &whole, &codes);
}

/// A scale for each run, not rounded yet.
#[inline(always)]
fn search(x: &Rows, w: &Rows) -> Lanes {
    let mut largest = [0.0; LANES];
    for x in x {
        for k in 0..LANES {
            largest[k] = if x[k].abs() > f32::abs(largest[k]) { x[k] } else { largest[k] };
        }
    }
    // What serves where nothing better is found: the largest gets the lowest code.
    let mut scales = largest.map(|largest| largest / CODES.0);
    let mut best = [0.0; LANES];
    for step in -9i8..=9 {
        let levels = CODES.0 - 0.1 * f32::from(step);
        let steps = largest.map(|largest| if largest == 0.0 { 0.0 } else { levels / largest });
        let sums = sums((x, w), &[0.0; LANES], &steps, CODES);
        for k in 0..LANES {
            let scale = sums.xl[k] / sums.ll[k];
            // How much of Σ w·x² it explains.
            let gain = scale * sums.xl[k];
            let better = sums.ll[k] > 0.0 && gain > best[k];
            best[k] = if better { gain } else { best[k] };
            scales[k] = if better { scale } else { scales[k] };
        }
    }
    scales
}

/// Takes for each run the best of its scale and the two beside it; gives the sums of its codes.
#[inline(always)]
fn refine(x: &Rows, w: &Rows, d: f32, whole: &mut Lanes) -> Sums {
    let start = *whole;
    let (mut best, mut kept) = ([f32::INFINITY; LANES], Sums::default());
    for step in [0.0, -1.0, 1.0] {
        let tried = start.map(|scale| code(scale + step, SCALES.0, SCALES.1));
        let steps = tried.map(|scale| inverse(scale * d));
        let sums = sums((x, w), &[0.0; LANES], &steps, CODES);
        for k in 0..LANES {
            let scale = tried[k] * d;
            // Σ w·(scale·l − x)² without Σ w·x².
            let loss = scale * (scale * sums.ll[k] - 2.0 * sums.xl[k]);
            let better = loss < best[k];
            best[k] = if better { loss } else { best[k] };
            whole[k] = if better { tried[k] } else { whole[k] };
            kept.ll[k] = if better { sums.ll[k] } else { kept.ll[k] };
            kept.xl[k] = if better { sums.xl[k] } else { kept.xl[k] };
        }
    }
    kept
}

/// d by least squares for all codes.
#[inline(always)]
fn solve(sums: &Sums, whole: &Lanes, d: f32) -> f32 {
    let (mut dd, mut dx) = (0.0, 0.0);
    for (&scale, (&ll, &xl)) in whole.iter().zip(sums.ll.iter().zip(&sums.xl)) {
        dd += scale * scale * ll;
        dx += scale * xl;
    }
    if dd > 0.0 && d.is_finite() { unhalf(half(dx / dd)) } else { d }
}

/// The bytes of a block.
#[inline(always)]
fn write(block: &mut [u8; BYTES], d: f32, whole: &Lanes, codes: &[[u8; LANES]; RUN]) {
    let mut q = [0u8; LEN];
    for (lane, run) in q.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
        run.iter_mut().zip(codes).for_each(|(q, codes)| *q = codes[lane]);
    }
    for (part, q) in q.as_chunks::<128>().0.iter().enumerate() {
        for l in 0..64 {
            block[64 * part + l] = q[l] & 15 | q[l + 64] << 4;
        }
        for l in 0..32 {
            block[128 + 32 * part + l] =
                q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 | q[l + 96] >> 4 << 6;
        }
    }
    block[SCALES_AT..D_AT].iter_mut().zip(whole).for_each(|(byte, &scale)| *byte = scale as i8 as u8);
    block[D_AT..].copy_from_slice(&half(d));
}
