//! Blocks as ggml lays them out: what GGUF files hold and llama.cpp runs.

mod format;
mod lanes;
mod q4_0;
mod q4_1;
mod q4_k;
mod q6_k;
mod q8_0;
mod tensor;

#[cfg(test)]
mod tests;

use crate::kernel::par::{self, CHUNK};
use crate::quantize::ranges::Columns;
use crate::quantize::{ElementWise, Outcome, QuantizedTensor, Quantizer};
use crate::{Element, Error, Layer, Result};

pub use format::BlockFormat;

/// Values that are encoded at a time: with their importance they stay in the fastest cache.
const PIECE: usize = 2048;

/// The block types of ggml, which GGUF files hold ([`format::gguf`](crate::format)): a weight's rows, along its last axis,
/// in blocks of 32 or 256 with scales of their own.
///
/// | format | w ≈ | bits a weight |
/// |---|---|---|
/// | [`q8_0`](Self::q8_0) | d·q, q in −127 … 127 | 8.5 |
/// | [`q4_0`](Self::q4_0) | d·(q − 8), q in 0 … 15 | 4.5 |
/// | [`q4_1`](Self::q4_1) | d·q + m, q in 0 … 15 | 5 |
/// | [`q5_0`](Self::q5_0) | d·(q − 16), q in 0 … 31 | 5.5 |
/// | [`q4_k`](Self::q4_k) | d·s·q − e·m, q in 0 … 15, s and m of 6 bits for each 32 | 4.5 |
/// | [`q6_k`](Self::q6_k) | d·s·(q − 32), q in 0 … 63, s of 8 bits for each 16 | 6.5625 |
///
/// d, m and e are half precision. The first four are prescribed to the bit, rounding included, and come out as ggml's
/// own. The last two leave the search for scales free: here it lowers Σ h·(w − Q(w))², with h from E\[x²\] of the input
/// that a weight multiplies where the evidence has inputs ([`Evidence::record_input`](crate::Evidence::record_input), what
/// llama.cpp calls an importance matrix), else from the weight's own size as ggml has it.
///
/// **Fallbacks.** A weight gets another format where the asked one cannot hold it, and its
/// [`Outcome`](crate::quantize::Outcome)'s notes say so:
///
/// - rows that are no multiple of 256: `q5_0` for `q4_k`, `q8_0` for `q6_k` (as in llama.cpp);
/// - rows that are no multiple of 32 (kernels of convolutions): f16;
/// - a weight of 0 that `q4_1` or `q4_k`, whose codes start at a minimum, would bring back as another value: `q5_0`. So
///   what was pruned stays 0.
///
/// Layouts and rounding: ggml, as in the GGUF specification and the Python package `gguf` 0.19 (2026).
///
/// ```
/// use ndarray::Array;
/// use niwaki::quantize::{Ggml, Quantizer};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let wave = |columns| Array::from_shape_fn((2, columns), |(i, j)| ((1 + 3 * i + 5 * j) as f32).sin());
/// let weight = Parameter::linear("fc", wave(512));
/// let tensor = Ggml::q4_k().quantize(&Layer::new(&weight))?;
/// assert_eq!(tensor.scheme().to_string(), "ggml q4-k");
/// assert_eq!(tensor.bytes(), 4 * 144); // a block of 144 bytes for each 256 weights
///
/// let narrow = Parameter::linear("narrow", wave(96));
/// let tensor = Ggml::q4_k().quantize(&Layer::new(&narrow))?;
/// assert_eq!(tensor.scheme().to_string(), "ggml q5-0");
/// let notes = &tensor.outcome().unwrap().notes;
/// assert_eq!(notes[0], "its rows of 96 are no multiple of 256: stored as q5-0, not q4-k");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ggml {
    format: BlockFormat,
}

impl Ggml {
    /// Blocks of this format.
    pub fn new(format: BlockFormat) -> Self {
        Self { format }
    }

    /// 8 bits around 0: [`BlockFormat::Q8_0`].
    pub fn q8_0() -> Self {
        Self::new(BlockFormat::Q8_0)
    }

    /// 4 bits around 0: [`BlockFormat::Q4_0`].
    pub fn q4_0() -> Self {
        Self::new(BlockFormat::Q4_0)
    }

    /// 4 bits from a minimum on: [`BlockFormat::Q4_1`].
    pub fn q4_1() -> Self {
        Self::new(BlockFormat::Q4_1)
    }

    /// 5 bits around 0: [`BlockFormat::Q5_0`].
    pub fn q5_0() -> Self {
        Self::new(BlockFormat::Q5_0)
    }

    /// 4 bits with scales and minima of their own for each 32 of 256: [`BlockFormat::Q4K`].
    pub fn q4_k() -> Self {
        Self::new(BlockFormat::Q4K)
    }

    /// 6 bits with scales of their own for each 16 of 256: [`BlockFormat::Q6K`].
    pub fn q6_k() -> Self {
        Self::new(BlockFormat::Q6K)
    }
}

impl<F: Element> Quantizer<F> for Ggml {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        let parameter = layer.parameter();
        let (values, row) = (parameter.values(), parameter.shape().last().copied().unwrap_or(0));
        let columns = Columns::of(layer)?;
        let (mut format, mut notes) = (self.format, Vec::new());
        let tensor = loop {
            let Some(len) = format.len(values.len(), row) else {
                let next = narrower(format);
                let name = next.map_or_else(|| "f16".to_owned(), |next| next.to_string());
                notes.push(format!(
                    "its rows of {row} are no multiple of {}: stored as {name}, not {format}",
                    format.weights()
                ));
                match next {
                    Some(next) => format = next,
                    None => break ElementWise::f16().quantize(layer)?,
                }
                continue;
            };
            let (blocks, found) = encode(values, columns.as_ref(), format, len);
            if !found.zeros_stay {
                notes.push(format!("a weight of 0 would not stay 0: stored as {KEEPS_ZEROS}, not {format}"));
                format = KEEPS_ZEROS;
                continue;
            }
            if let Some(block) = found.flaw {
                let (name, at) = (layer.name(), block * format.weights());
                return Err(Error::unsupported(format!(
                    "layer `{name}`: the weights from flat index {at} on are too large for {format}, whose scales are \
                     at most 65504"
                )));
            }
            break QuantizedTensor::wrap_blocks(parameter.shape(), format, blocks);
        };
        if notes.is_empty() {
            return Ok(tensor);
        }
        Ok(tensor.with_outcome(Outcome { notes, ..Outcome::default() }))
    }
}

/// What holds zeros in place of a format that does not.
const KEEPS_ZEROS: BlockFormat = BlockFormat::Q5_0;

/// What llama.cpp takes where a row is no multiple of 256; nothing smaller than 32 is there.
fn narrower(format: BlockFormat) -> Option<BlockFormat> {
    match format {
        BlockFormat::Q4K => Some(BlockFormat::Q5_0),
        BlockFormat::Q6K => Some(BlockFormat::Q8_0),
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 => None,
    }
}

/// What blocks turned out to be.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Every weight of 0 decodes to 0.
    zeros_stay: bool,
    /// The first block that has no meaning.
    flaw: Option<usize>,
}

impl Found {
    const GOOD: Self = Self { zeros_stay: true, flaw: None };

    /// With what was found in blocks further on, of which the first has this number.
    fn and(self, next: Self, first: usize) -> Self {
        let flaw = self.flaw.or(next.flaw.map(|block| first + block));
        Self { zeros_stay: self.zeros_stay && next.zeros_stay, flaw }
    }
}

/// All blocks, `len` bytes.
fn encode<F: Element>(
    values: &[F],
    columns: Option<&Columns<F>>,
    format: BlockFormat,
    len: usize,
) -> (Vec<u8>, Found) {
    let mut blocks = vec![0; len];
    let [chunk, piece] = [CHUNK, PIECE].map(|weights| weights / format.weights() * format.bytes());
    let tasks = values.chunks(CHUNK).zip(blocks.chunks_mut(chunk));
    let mut tasks: Vec<_> = tasks.map(|(values, blocks)| (values, blocks, Found::GOOD)).collect();
    par::for_chunks_mut(&mut tasks, 1, |k, task| {
        for (values, blocks, found) in task {
            let mut scratch = Scratch::default();
            for (p, (values, blocks)) in values.chunks(PIECE).zip(blocks.chunks_mut(piece)).enumerate() {
                let next = scratch.encode(values, columns, k * CHUNK + p * PIECE, format, blocks);
                *found = found.and(next, p * (PIECE / format.weights()));
            }
        }
    });
    let all = tasks
        .iter()
        .enumerate()
        .fold(Found::GOOD, |all, (k, (_, _, found))| all.and(*found, k * (CHUNK / format.weights())));
    (blocks, all)
}

/// A piece of the weights in single precision.
#[derive(Debug, Default)]
struct Scratch<F> {
    values: Vec<f32>,
    importance: Vec<F>,
    narrow: Vec<f32>,
}

impl<F: Element> Scratch<F> {
    /// Encodes values of which the first has this flat index.
    fn encode(
        &mut self,
        values: &[F],
        columns: Option<&Columns<F>>,
        first: usize,
        format: BlockFormat,
        blocks: &mut [u8],
    ) -> Found {
        let codec = format.codec();
        let singles = F::singles(values).unwrap_or_else(|| {
            self.values.clear();
            self.values.extend(values.iter().map(|x| x.widen() as f32));
            &self.values
        });
        let importance = columns.map(|columns| {
            self.importance.resize(values.len(), F::zero());
            columns.fill(first, &mut self.importance);
            self.narrow.clear();
            self.narrow.extend(self.importance.iter().map(|h| h.widen() as f32));
            &self.narrow[..]
        });
        codec.encode(singles, importance, blocks);
        let zeros_stay = format.keeps_zeros() || !values.iter().any(F::is_zero) || {
            self.values.resize(values.len(), 0.0);
            codec.decode(blocks, &mut self.values);
            values.iter().zip(&self.values).all(|(x, back)| !x.is_zero() || *back == 0.0)
        };
        Found { zeros_stay, flaw: format.flaw(blocks) }
    }
}
