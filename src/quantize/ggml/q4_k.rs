//! `q4-k`: f16 d, f16 e, 12 bytes of 6-bit scales s and minima m for 8 runs of 32, u8\[128\]; x = d·s·q − e·m.
//!
//! The layout is ggml's; the search is as ggml's at first, and goes on: scales and minima of each run by least squares
//! for the codes of 21 step sizes around (max − min) / 15, then the 6-bit numbers one by one (each run takes the best of
//! three scales, with the minimum that is best for its codes), then d and e by least squares, [`ROUNDS`] times.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]
#![expect(clippy::needless_range_loop, reason = "lanes go by one number through several arrays")]

use super::format::{Codec, half, inverse, unhalf};
use super::lanes::{LANES, Lanes, Sums, code, sums, turn};
use crate::kernel::simd::vectorized;

pub(super) const BYTES: usize = 144;
/// Weights of a block, and of a run with its own scale.
const LEN: usize = 256;
const RUN: usize = 32;
const RUNS: usize = LEN / RUN;
/// The largest code, and the largest 6-bit scale.
const MOST: f32 = 15.0;
const MOST_SCALE: f32 = 63.0;
/// Step sizes that are tried: (max − min) / (14 + k / 10).
const STEPS: usize = 21;
/// How often scales and the two halves are settled in turn.
const ROUNDS: usize = 2;

type Rows = [Lanes; RUN];

#[derive(Debug)]
pub(super) struct Q4K;

/// x ≈ scale · q − min in each run.
#[derive(Clone, Copy, Debug)]
struct Fit {
    scale: Lanes,
    min: Lanes,
}

/// The numbers of one block: its halves, and each run's 6-bit scale and minimum.
#[derive(Clone, Copy, Debug)]
struct Head {
    d: f32,
    e: f32,
}

impl Codec for Q4K {
    fn halves(&self) -> &'static [usize] {
        &[0, 2]
    }

    fn encode(&self, values: &[f32], importance: Option<&[f32]>, blocks: &mut [u8]) {
        vectorized(
            #[inline(always)]
            || {
                // Two blocks fill the lanes.
                for (at, blocks) in blocks.chunks_mut(2 * BYTES).enumerate() {
                    let pair = at * 2 * LEN..(at * 2 * LEN + 2 * LEN).min(values.len());
                    let x: Rows = turn(&values[pair.clone()]);
                    let importance = importance.map(|all| turn(&all[pair.clone()]));
                    encode(&x, &weights(&x, importance.as_ref()), blocks);
                }
            },
        );
    }

    fn decode(&self, blocks: &[u8], values: &mut [f32]) {
        for (block, x) in blocks.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<LEN>().0) {
            let (d, e) = (unhalf([block[0], block[1]]), unhalf([block[2], block[3]]));
            for (pair, (bytes, x)) in
                block[16..].as_chunks::<32>().0.iter().zip(x.as_chunks_mut::<64>().0).enumerate()
            {
                for (high, x) in x.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
                    let (scale, min) = unpack_scale(&block[4..16], 2 * pair + high);
                    let (d, e) = (d * f32::from(scale), e * f32::from(min));
                    for (x, &byte) in x.iter_mut().zip(bytes) {
                        *x = d * f32::from(byte >> (4 * high) & 15) - e + 0.0;
                    }
                }
            }
        }
    }
}

/// What an error of each value counts: its run's root mean square and its own magnitude, where nothing is known of the
/// inputs; with E\[a²\] of the input it reads, that times the root of twice the block's mean square and its own.
#[inline(always)]
fn weights(x: &Rows, importance: Option<&Rows>) -> Rows {
    let mut squares = [0.0; LANES];
    for x in x {
        for k in 0..LANES {
            squares[k] += x[k] * x[k];
        }
    }
    let mut weights = [[0.0; LANES]; RUN];
    if let Some(importance) = importance {
        let mut block = [0.0; LANES];
        for (all, squares) in block.chunks_exact_mut(RUNS).zip(squares.chunks_exact(RUNS)) {
            all.fill(2.0 * squares.iter().sum::<f32>() / LEN as f32);
        }
        for ((w, x), h) in weights.iter_mut().zip(x).zip(importance) {
            for k in 0..LANES {
                w[k] = h[k] * (block[k] + x[k] * x[k]).sqrt();
            }
        }
        return weights;
    }
    let size = squares.map(|square| (square / RUN as f32).sqrt());
    for (w, x) in weights.iter_mut().zip(x) {
        for k in 0..LANES {
            w[k] = size[k] + x[k].abs();
        }
    }
    weights
}

#[inline(always)]
fn encode(x: &Rows, w: &Rows, blocks: &mut [u8]) {
    let total = totals(x, w);
    let fit = search(x, w, &total);
    let mut heads = [Head { d: 0.0, e: 0.0 }; 2];
    let mut whole = Fit { scale: [0.0; LANES], min: [0.0; LANES] };
    for (b, head) in heads.iter_mut().enumerate() {
        let runs = b * RUNS..(b + 1) * RUNS;
        let most = |all: &[f32]| all.iter().fold(0.0, |most: f32, &x| if x > most { x } else { most });
        let (d, e) = (most(&fit.scale[runs.clone()]) / MOST_SCALE, most(&fit.min[runs.clone()]) / MOST_SCALE);
        *head = Head { d: rounded(d), e: rounded(e) };
        let (by_d, by_e) = (inverse(d), inverse(e));
        for k in runs {
            whole.scale[k] = code(fit.scale[k] * by_d, 0.0, MOST_SCALE);
            whole.min[k] = code(fit.min[k] * by_e, 0.0, MOST_SCALE);
        }
    }
    for round in 0..ROUNDS {
        let sums = refine(x, w, &total, &heads, &mut whole);
        if round + 1 < ROUNDS {
            solve(&total, &sums, &whole, &mut heads);
        }
    }
    let codes = codes(x, &heads, &whole);
    for (b, block) in blocks.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
        write(block, heads[b], &whole, &codes, b * RUNS);
    }
}

/// A number as its half has it.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    unhalf(half(x))
}

/// Sums over each run that do not depend on codes: Σ w and Σ w·x, and its ends with 0 between them.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    w: Lanes,
    x: Lanes,
    low: Lanes,
    range: Lanes,
}

#[inline(always)]
fn totals(x: &Rows, w: &Rows) -> Totals {
    let mut total = Totals::default();
    let mut high = x[0];
    for (x, w) in x.iter().zip(w) {
        for k in 0..LANES {
            total.w[k] += w[k];
            total.x[k] += w[k] * x[k];
            total.low[k] = if x[k] < total.low[k] { x[k] } else { total.low[k] };
            high[k] = if x[k] > high[k] { x[k] } else { high[k] };
        }
    }
    for k in 0..LANES {
        total.range[k] = high[k] - total.low[k];
    }
    total
}

/// Scale and minimum of each run, not rounded yet.
#[inline(always)]
fn search(x: &Rows, w: &Rows, total: &Totals) -> Fit {
    let shift = total.low.map(|low| -low);
    // What serves where nothing better is found: all of the range.
    let mut fit = Fit { scale: total.range.map(|range| range / MOST), min: shift };
    let mut best = [f32::NEG_INFINITY; LANES];
    for step in 0..STEPS {
        let levels = MOST - 1.0 + 0.1 * step as f32;
        let steps = total.range.map(|range| if range > 0.0 { levels / range } else { 0.0 });
        let sums = sums((x, w), &shift, &steps, (0.0, MOST));
        for k in 0..LANES {
            let det = total.w[k] * sums.ll[k] - sums.l[k] * sums.l[k];
            let scale = (total.w[k] * sums.xl[k] - total.x[k] * sums.l[k]) / det;
            let min = (total.x[k] * sums.ll[k] - sums.l[k] * sums.xl[k]) / det;
            // A minimum above 0 cannot be stored.
            let positive = min > 0.0;
            let scale = if positive { sums.xl[k] / sums.ll[k] } else { scale };
            let min = if positive { 0.0 } else { min };
            // How much of Σ w·x² these explain.
            let gain = scale * sums.xl[k] + min * total.x[k];
            let better = det > 0.0 && gain > best[k];
            best[k] = if better { gain } else { best[k] };
            fit.scale[k] = if better { scale } else { fit.scale[k] };
            fit.min[k] = if better { -min } else { fit.min[k] };
        }
    }
    fit
}

/// What the 6-bit numbers of each run stand for, and the inverse of its scale.
#[inline(always)]
fn values(heads: &[Head; 2], whole: &Fit) -> (Fit, Lanes) {
    let (mut fit, mut inverses) = (*whole, [0.0; LANES]);
    for k in 0..LANES {
        let head = heads[k / RUNS];
        fit.scale[k] *= head.d;
        fit.min[k] *= head.e;
        inverses[k] = inverse(fit.scale[k]);
    }
    (fit, inverses)
}

/// Takes for each run the best of its scale and the two beside it, each with the minimum that is best for its codes;
/// gives the sums of those codes.
#[inline(always)]
fn refine(x: &Rows, w: &Rows, total: &Totals, heads: &[Head; 2], whole: &mut Fit) -> Sums {
    let start = *whole;
    let (mut best, mut kept) = ([f32::INFINITY; LANES], Sums::default());
    for step in [0.0, -1.0, 1.0] {
        let mut tried = start;
        tried.scale.iter_mut().for_each(|scale| *scale = code(*scale + step, 0.0, MOST_SCALE));
        let (fit, inverses) = values(heads, &tried);
        let sums = sums((x, w), &fit.min, &inverses, (0.0, MOST));
        for k in 0..LANES {
            let (s, e) = (fit.scale[k], heads[k / RUNS].e);
            let reach = e * total.w[k];
            let min = code((s * sums.l[k] - total.x[k]) / reach, 0.0, MOST_SCALE);
            let min = if reach > 0.0 { min } else { start.min[k] };
            let m = e * min;
            // Σ w·(s·l − m − x)² without Σ w·x².
            let loss = s * (s * sums.ll[k] - 2.0 * (m * sums.l[k] + sums.xl[k]))
                + m * (m * total.w[k] + 2.0 * total.x[k]);
            let better = loss < best[k];
            best[k] = if better { loss } else { best[k] };
            whole.scale[k] = if better { tried.scale[k] } else { whole.scale[k] };
            whole.min[k] = if better { min } else { whole.min[k] };
            kept.l[k] = if better { sums.l[k] } else { kept.l[k] };
            kept.ll[k] = if better { sums.ll[k] } else { kept.ll[k] };
            kept.xl[k] = if better { sums.xl[k] } else { kept.xl[k] };
        }
    }
    kept
}

/// The two halves of each block by least squares for its codes.
#[inline(always)]
fn solve(total: &Totals, sums: &Sums, whole: &Fit, heads: &mut [Head; 2]) {
    for (b, head) in heads.iter_mut().enumerate() {
        let (mut dd, mut de, mut ee, mut dx, mut ex) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for k in b * RUNS..(b + 1) * RUNS {
            let (s, m) = (whole.scale[k], whole.min[k]);
            dd += s * s * sums.ll[k];
            de += s * m * sums.l[k];
            ee += m * m * total.w[k];
            dx += s * sums.xl[k];
            ex += m * total.x[k];
        }
        let det = dd * ee - de * de;
        let (d, e) = ((dx * ee - ex * de) / det, (dx * de - ex * dd) / det);
        if det > 0.0 && d > 0.0 && e >= 0.0 {
            *head = Head { d: rounded(d), e: rounded(e) };
        }
    }
}

/// The codes, as rounding has them for the scales that are stored.
#[inline(always)]
fn codes(x: &Rows, heads: &[Head; 2], whole: &Fit) -> [[u8; LANES]; RUN] {
    let (fit, inverses) = values(heads, whole);
    let mut codes = [[0; LANES]; RUN];
    for (codes, x) in codes.iter_mut().zip(x) {
        for k in 0..LANES {
            codes[k] =
                crate::kernel::round::integer(code((x[k] + fit.min[k]) * inverses[k], 0.0, MOST)) as u8;
        }
    }
    codes
}

/// The bytes of the block whose runs begin at a lane.
#[inline(always)]
fn write(block: &mut [u8; BYTES], head: Head, whole: &Fit, codes: &[[u8; LANES]; RUN], first: usize) {
    block[..2].copy_from_slice(&half(head.d));
    block[2..4].copy_from_slice(&half(head.e));
    for run in 0..RUNS {
        pack_scale(&mut block[4..16], run, whole.scale[first + run] as u8, whole.min[first + run] as u8);
    }
    for (pair, bytes) in block[16..].as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let lane = first + 2 * pair;
        bytes.iter_mut().zip(codes).for_each(|(byte, codes)| *byte = codes[lane] | codes[lane + 1] << 4);
    }
}

/// 6-bit scales and minima: of runs 0 to 3 in the low bits of bytes 0 to 3 and 4 to 7; of runs 4 to 7 in the two halves
/// of bytes 8 to 11, their top two bits above those of the first.
#[inline(always)]
fn unpack_scale(bytes: &[u8], run: usize) -> (u8, u8) {
    if run < 4 {
        return (bytes[run] & 63, bytes[run + 4] & 63);
    }
    let (low, scale, min) = (bytes[run + 4], bytes[run - 4] >> 6, bytes[run] >> 6);
    (low & 15 | scale << 4, low >> 4 | min << 4)
}

#[inline(always)]
fn pack_scale(bytes: &mut [u8], run: usize, scale: u8, min: u8) {
    if run < 4 {
        (bytes[run], bytes[run + 4]) = (scale, min);
        return;
    }
    bytes[run + 4] = scale & 15 | min << 4;
    bytes[run - 4] |= scale >> 4 << 6;
    bytes[run] |= min >> 4 << 6;
}
