//! [`BlockFormat`]: the block types of ggml that are read and written.

#![expect(clippy::inline_always, reason = "loops have to land in the function that names the instructions")]

use std::fmt::{self, Debug, Display};

use super::{q4_0, q4_1, q4_k, q6_k, q8_0};
use crate::kernel::half::{F16_END, MAGNITUDE, narrow_f16, widen_f16};

/// How ggml lays out the weights of a row, block after block; docs/formats.md shows the bytes.
///
/// ```
/// use niwaki::quantize::BlockFormat;
/// assert_eq!((BlockFormat::Q4K.weights(), BlockFormat::Q4K.bytes()), (256, 144));
/// assert_eq!(BlockFormat::Q4K.to_string(), "q4-k");
/// assert_eq!(BlockFormat::Q8_0.bits_per_weight(), 8.5);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 8-bit codes around 0, one scale for 32: 8.5 bits a weight.
    Q8_0,
    /// 4-bit codes around 0, one scale for 32: 4.5 bits.
    Q4_0,
    /// 4-bit codes from a minimum on, one scale and minimum for 32: 5 bits.
    Q4_1,
    /// 5-bit codes around 0, one scale for 32: 5.5 bits.
    Q5_0,
    /// 4-bit codes from a minimum on; each 32 of 256 have a 6-bit scale and a 6-bit minimum: 4.5 bits.
    Q4K,
    /// 6-bit codes around 0; each 16 of 256 have an 8-bit scale: 6.5625 bits.
    Q6K,
}

impl BlockFormat {
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Q8_0, "q8-0"),
        (Self::Q4_0, "q4-0"),
        (Self::Q4_1, "q4-1"),
        (Self::Q5_0, "q5-0"),
        (Self::Q4K, "q4-k"),
        (Self::Q6K, "q6-k"),
    ];

    /// How many weights a block holds. A row is whole blocks.
    pub const fn weights(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// How many bytes it takes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => q8_0::BYTES,
            Self::Q4_0 => q4_0::Q4_BYTES,
            Self::Q5_0 => q4_0::Q5_BYTES,
            Self::Q4_1 => q4_1::BYTES,
            Self::Q4K => q4_k::BYTES,
            Self::Q6K => q6_k::BYTES,
        }
    }

    /// Bits of a block over its weights.
    pub fn bits_per_weight(self) -> f64 {
        8.0 * self.bytes() as f64 / self.weights() as f64
    }

    /// Bits of one code.
    pub(crate) const fn code_bits(self) -> u32 {
        match self {
            Self::Q8_0 => 8,
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q5_0 => 5,
            Self::Q6K => 6,
        }
    }

    /// Whether a weight of 0 always decodes to 0: where codes lie around 0, and not where they start at a minimum.
    pub(crate) const fn keeps_zeros(self) -> bool {
        !matches!(self, Self::Q4_1 | Self::Q4K)
    }

    /// Bytes of so many weights in rows of `row`; `None` where rows are no whole blocks.
    pub(crate) fn len(self, weights: usize, row: usize) -> Option<usize> {
        let whole = row > 0 && row.is_multiple_of(self.weights());
        (weights / self.weights()).checked_mul(self.bytes()).filter(|_| whole)
    }

    pub(super) fn codec(self) -> &'static dyn Codec {
        match self {
            Self::Q8_0 => &q8_0::Q8_0,
            Self::Q4_0 => &q4_0::Q4_0,
            Self::Q5_0 => &q4_0::Q5_0,
            Self::Q4_1 => &q4_1::Q4_1,
            Self::Q4K => &q4_k::Q4K,
            Self::Q6K => &q6_k::Q6K,
        }
    }

    /// The first block whose scale or minimum is no finite number: such a block has no meaning.
    pub(crate) fn flaw(self, blocks: &[u8]) -> Option<usize> {
        let halves = self.codec().halves();
        let finite = |block: &[u8], at: usize| {
            let half = block.get(at..at + 2).and_then(|half| half.try_into().ok());
            half.is_some_and(|half| widen_f16(u16::from_le_bytes(half)).is_finite())
        };
        blocks.chunks_exact(self.bytes()).position(|block| !halves.iter().all(|&at| finite(block, at)))
    }
}

impl Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(other, _)| other == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// What a block format does with values and bytes, any number of whole blocks at a time. A block depends on nothing but
/// its own values.
pub(super) trait Codec: Debug + Sync {
    /// Where a block has f16 numbers.
    fn halves(&self) -> &'static [usize];

    /// Writes the blocks of these values. Where a scale is past f16, its block gets an infinite one. `importance` is
    /// what an error of each value counts; formats whose rounding is prescribed take no notice.
    fn encode(&self, values: &[f32], importance: Option<&[f32]>, blocks: &mut [u8]);

    /// The values of these blocks. A value of 0 is +0.
    fn decode(&self, blocks: &[u8], values: &mut [f32]);
}

/// The nearest half, infinite where there is none.
#[inline(always)]
pub(super) fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let infinite = (bits >> 16 & 0x8000) as u16 | 0x7c00;
    let code = if bits & MAGNITUDE < F16_END { narrow_f16(bits) } else { infinite };
    code.to_le_bytes()
}

/// The value of a half.
#[inline(always)]
pub(super) fn unhalf(bytes: [u8; 2]) -> f32 {
    widen_f16(u16::from_le_bytes(bytes))
}

/// 1 / x, and 0 for 0.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.recip() }
}
