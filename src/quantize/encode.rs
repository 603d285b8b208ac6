//! Weights to packed codes, in the order of memory.

use crate::kernel::pack::{self, Code};
use crate::kernel::par::{self, CHUNK};
use crate::kernel::reduce;
use crate::kernel::round::{self, Step};
use crate::quantize::blocks::{Blocks, Segment};
use crate::quantize::grid::{Fit, Grid};
use crate::{Element, Result};

/// Columns whose extremes are found together.
const COLUMNS: usize = 1024;

/// Packed codes, the step of each block, and how many codes are not those of 0.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fits: Vec<Fit>,
    pub(crate) nonzero: usize,
}

/// Memory for the packed codes of `n` weights: what is given, where it is large enough. All of it is to be written.
fn bytes_for(n: usize, bits: u32, mut memory: Vec<u8>) -> Vec<u8> {
    memory.resize(pack::len(n, bits).unwrap_or(0), 0);
    memory
}

/// Fits each block and codes it while it is in the cache. For contiguous blocks only.
///
/// `fit` gets the flat index of the block's first weight.
pub(crate) fn fused<F: Element>(
    values: &[F],
    blocks: Blocks,
    grid: Grid,
    memory: Vec<u8>,
    fit: impl Fn(usize, &[F]) -> Result<Fit> + Sync + Send,
) -> Result<Encoded> {
    let bits = grid.bits.get();
    let mut bytes = bytes_for(values.len(), bits, memory);
    let mut fits = vec![Fit::NONE; blocks.scales];
    // A task is whole rows, or whole blocks of a single row, and starts at a whole byte.
    let (unit, per_unit) = match blocks.outer {
        1 => (blocks.size, 1),
        _ => (blocks.len, blocks.len.div_ceil(blocks.size)),
    };
    let whole = if (unit * bits as usize).is_multiple_of(8) { 1 } else { 8 };
    let units = (CHUNK / unit).max(1).next_multiple_of(whole);
    let mut tasks: Vec<_> = values
        .chunks(units * unit)
        .zip(bytes.chunks_mut(units * unit * bits as usize / 8))
        .zip(fits.chunks_mut(units * per_unit))
        .map(|((values, bytes), fits)| (values, bytes, fits, Ok(0)))
        .collect();
    par::for_chunks_mut(&mut tasks, 1, |k, task| {
        for (values, bytes, fits, outcome) in task {
            *outcome = with_codes(values.len(), bits, bytes, |codes| {
                let mut fits = fits.iter_mut();
                let (mut at, mut nonzero) = (0, 0);
                while let Some(slot) = fits.next().filter(|_| at < values.len()) {
                    // Blocks end with their row.
                    let stop = (at + blocks.size).min(at / blocks.len * blocks.len + blocks.len);
                    let stop = stop.min(values.len());
                    *slot = fit(k * units * unit + at, &values[at..stop])?;
                    nonzero += round::codes(&values[at..stop], grid.step(*slot), &mut codes[at..stop]);
                    at = stop;
                }
                Ok(nonzero)
            });
        }
    });
    let mut nonzero = 0;
    for (_, _, _, outcome) in tasks {
        nonzero += outcome?;
    }
    Ok(Encoded { bytes, fits, nonzero })
}

/// Codes weights whose steps are known.
pub(crate) fn with_fits<F: Element>(
    values: &[F],
    blocks: Blocks,
    grid: Grid,
    memory: Vec<u8>,
    fits: Vec<Fit>,
) -> Encoded {
    let bits = grid.bits.get();
    let steps: Vec<Step<F>> = fits.iter().map(|&fit| grid.step(fit)).collect();
    let mut bytes = bytes_for(values.len(), bits, memory);
    let tasks = values.chunks(CHUNK).zip(bytes.chunks_mut(CHUNK / 8 * bits as usize));
    let mut tasks: Vec<_> = tasks.map(|(values, bytes)| (values, bytes, 0)).collect();
    par::for_chunks_mut(&mut tasks, 1, |k, task| {
        for (values, bytes, nonzero) in task {
            let start = k * CHUNK;
            let coded = with_codes(values.len(), bits, bytes, |codes| {
                let mut nonzero = 0;
                blocks.segments(start..start + values.len(), |segment| match segment {
                    Segment::One(range, at) => {
                        let range = range.start - start..range.end - start;
                        nonzero += round::codes(&values[range.clone()], steps[at], &mut codes[range]);
                    }
                    Segment::Each(range, at) => {
                        let range = range.start - start..range.end - start;
                        let steps = &steps[at..at + range.len()];
                        nonzero += round::codes_each(&values[range.clone()], steps, &mut codes[range]);
                    }
                });
                Ok(nonzero)
            });
            *nonzero = coded.unwrap_or(0);
        }
    });
    let nonzero = tasks.iter().map(|task| task.2).sum();
    Encoded { bytes, fits, nonzero }
}

/// Packs codes of a byte each.
pub(crate) fn packed(codes: &[u8], blocks: Blocks, grid: Grid, fits: Vec<Fit>) -> Encoded {
    let bits = grid.bits.get();
    let mut bytes = bytes_for(codes.len(), bits, Vec::new());
    par::zip_chunks_mut(codes, CHUNK, &mut bytes, CHUNK / 8 * bits as usize, |_, codes, bytes| {
        u8::pack(codes, bits, bytes);
    });
    let nonzero = par::map_chunks(codes, CHUNK, |k, codes| {
        let (start, mut nonzero) = (k * CHUNK, 0);
        blocks.segments(start..start + codes.len(), |segment| match segment {
            Segment::One(range, at) => {
                let codes = &codes[range.start - start..range.end - start];
                nonzero += round::count_other(codes, fits[at].zero);
            }
            Segment::Each(range, at) => {
                let codes = &codes[range.start - start..range.end - start];
                nonzero += codes.iter().zip(&fits[at..]).filter(|(code, fit)| **code != fit.zero).count();
            }
        });
        nonzero
    });
    let nonzero = nonzero.into_iter().sum();
    Encoded { bytes, fits, nonzero }
}

/// Lets `f` write codes: straight into the bytes when a code is one, else beside them, to be packed.
fn with_codes(
    n: usize,
    bits: u32,
    bytes: &mut [u8],
    f: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<usize> {
    if bits == 8 {
        return f(bytes);
    }
    let mut codes = vec![0; n];
    let nonzero = f(&mut codes)?;
    u8::pack(&codes, bits, bytes);
    Ok(nonzero)
}

/// (min, max) of each block.
pub(crate) fn extremes<F: Element>(values: &[F], blocks: Blocks) -> Vec<(F, F)> {
    let both = |(a, b): (F, F), (c, d): (F, F)| (a.min(c), b.max(d));
    if blocks.scales == 1 {
        return vec![reduce::par_min_max(values)];
    }
    if blocks.inner == 1 {
        return par::map(blocks.scales, |scale| {
            let runs = blocks.runs(scale).map(|run| reduce::min_max(&values[run]));
            runs.fold((F::infinity(), F::neg_infinity()), both)
        });
    }
    let strips = blocks.inner.div_ceil(COLUMNS);
    let parts = par::map(blocks.scales / blocks.inner * strips, |task| {
        let (block, strip) = (task / strips, task % strips * COLUMNS);
        let width = COLUMNS.min(blocks.inner - strip);
        let per_outer = blocks.len.div_ceil(blocks.size);
        let first = block / per_outer * blocks.len + block % per_outer * blocks.size;
        let rows = first..(first + blocks.size).min((block / per_outer + 1) * blocks.len);
        let mut ends = vec![(F::infinity(), F::neg_infinity()); width];
        for row in rows {
            let row = &values[row * blocks.inner + strip..][..width];
            ends.iter_mut().zip(row).for_each(|(ends, &w)| {
                *ends = (if w < ends.0 { w } else { ends.0 }, if w > ends.1 { w } else { ends.1 });
            });
        }
        ends
    });
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::{GroupSize, Scope};

    #[test]
    fn extremes_of_blocks() {
        let values: Vec<f32> = (0..7 * 2100).map(|i| ((i * 7919) % 10_007) as f32 - 5000.0).collect();
        let group = |size, axis| Scope::Group { size: GroupSize::new(size).unwrap(), axis };
        for scope in
            [Scope::Channel { axis: 0 }, Scope::Channel { axis: 1 }, group(3, 0), group(64, 1), Scope::Tensor]
        {
            let blocks = Blocks::new(&[7, 2100], scope).unwrap();
            let plain = |scale| {
                let block = blocks.runs(scale).flatten().map(|i| values[i]);
                block.fold((f32::MAX, f32::MIN), |(a, b), w| (a.min(w), b.max(w)))
            };
            assert_eq!(
                extremes(&values, blocks),
                (0..blocks.scales).map(plain).collect::<Vec<_>>(),
                "{scope}"
            );
        }
    }
}
