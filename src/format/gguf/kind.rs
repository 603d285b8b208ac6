//! [`TensorType`]: the types of ggml's tensors, by their numbers.

use std::fmt::{self, Debug, Display};

use crate::format::float::Float;
use crate::quantize::BlockFormat;

/// The type of a tensor's numbers in a GGUF file: floats, blocks, integers, and types that are kept as bytes.
///
/// ```
/// use niwaki::format::gguf::TensorType;
/// use niwaki::quantize::BlockFormat;
/// assert_eq!(TensorType::from(BlockFormat::Q4K).to_string(), "Q4_K");
/// assert_eq!(TensorType::F32.to_string(), "F32");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    id: u32,
    name: &'static str,
    /// Numbers in a block, and its bytes.
    block: (usize, usize),
}

/// What a type is to this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Float(Float),
    Blocks(BlockFormat),
    Integer,
    /// Weights in a form that is not decoded here.
    Opaque,
}

impl TensorType {
    /// Single precision.
    pub const F32: Self = Self::new(0, "F32", 1, 4);
    /// Half precision.
    pub const F16: Self = Self::new(1, "F16", 1, 2);
    /// The upper half of a single.
    pub const BF16: Self = Self::new(30, "BF16", 1, 2);
    /// Double precision.
    pub const F64: Self = Self::new(28, "F64", 1, 8);

    const fn new(id: u32, name: &'static str, numbers: usize, bytes: usize) -> Self {
        Self { id, name, block: (numbers, bytes) }
    }

    pub(super) fn by_id(id: u32) -> Option<Self> {
        TYPES.iter().copied().find(|t| t.id == id)
    }

    pub(super) fn id(self) -> u32 {
        self.id
    }

    pub(super) fn meaning(self) -> Meaning {
        match self.name {
            "F32" => Meaning::Float(Float::F32),
            "F16" => Meaning::Float(Float::F16),
            "BF16" => Meaning::Float(Float::BF16),
            "F64" => Meaning::Float(Float::F64),
            "I8" | "I16" | "I32" | "I64" => Meaning::Integer,
            name => {
                BLOCKS.iter().find(|(_, n)| *n == name).map_or(Meaning::Opaque, |(f, _)| Meaning::Blocks(*f))
            }
        }
    }

    /// Bytes of an array of this shape, whose rows must be whole blocks; the error says what is wrong.
    pub(super) fn len(self, shape: &[usize]) -> Result<usize, String> {
        let (numbers, bytes) = self.block;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(numbers) {
            return Err(format!(
                "rows of {row} are no multiple of the {numbers} numbers of a block of {self}"
            ));
        }
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let len = elements.and_then(|n| (n / numbers).checked_mul(bytes));
        len.ok_or_else(|| format!("{self} of shape {shape:?} is no number of bytes that memory could hold"))
    }
}

impl From<BlockFormat> for TensorType {
    fn from(format: BlockFormat) -> Self {
        let name = BLOCKS.iter().find(|(f, _)| *f == format).map_or("", |(_, name)| name);
        TYPES.iter().copied().find(|t| t.name == name).unwrap_or(Self::F32)
    }
}

impl From<Float> for TensorType {
    fn from(float: Float) -> Self {
        match float {
            Float::F64 => Self::F64,
            Float::F16 => Self::F16,
            Float::BF16 => Self::BF16,
            // 8-bit floats are not among ggml's types, and nobody asks for them here.
            Float::F32 | Float::E4M3 | Float::E5M2 => Self::F32,
        }
    }
}

/// As ggml calls it.
impl Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const BLOCKS: [(BlockFormat, &str); 6] = [
    (BlockFormat::Q8_0, "Q8_0"),
    (BlockFormat::Q4_0, "Q4_0"),
    (BlockFormat::Q4_1, "Q4_1"),
    (BlockFormat::Q5_0, "Q5_0"),
    (BlockFormat::Q4K, "Q4_K"),
    (BlockFormat::Q6K, "Q6_K"),
];

/// Numbers and sizes of ggml's types, as the Python package `gguf` 0.19 lists them.
const TYPES: [TensorType; 34] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::new(2, "Q4_0", 32, 18),
    TensorType::new(3, "Q4_1", 32, 20),
    TensorType::new(6, "Q5_0", 32, 22),
    TensorType::new(7, "Q5_1", 32, 24),
    TensorType::new(8, "Q8_0", 32, 34),
    TensorType::new(9, "Q8_1", 32, 40),
    TensorType::new(10, "Q2_K", 256, 84),
    TensorType::new(11, "Q3_K", 256, 110),
    TensorType::new(12, "Q4_K", 256, 144),
    TensorType::new(13, "Q5_K", 256, 176),
    TensorType::new(14, "Q6_K", 256, 210),
    TensorType::new(15, "Q8_K", 256, 292),
    TensorType::new(16, "IQ2_XXS", 256, 66),
    TensorType::new(17, "IQ2_XS", 256, 74),
    TensorType::new(18, "IQ3_XXS", 256, 98),
    TensorType::new(19, "IQ1_S", 256, 50),
    TensorType::new(20, "IQ4_NL", 32, 18),
    TensorType::new(21, "IQ3_S", 256, 110),
    TensorType::new(22, "IQ2_S", 256, 82),
    TensorType::new(23, "IQ4_XS", 256, 136),
    TensorType::new(24, "I8", 1, 1),
    TensorType::new(25, "I16", 1, 2),
    TensorType::new(26, "I32", 1, 4),
    TensorType::new(27, "I64", 1, 8),
    TensorType::F64,
    TensorType::new(29, "IQ1_M", 256, 56),
    TensorType::BF16,
    TensorType::new(34, "TQ1_0", 256, 54),
    TensorType::new(35, "TQ2_0", 256, 66),
    TensorType::new(39, "MXFP4", 32, 17),
    TensorType::new(40, "NVFP4", 64, 36),
    TensorType::new(41, "Q1_0", 128, 18),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_large_as_their_formats() {
        for (format, name) in BLOCKS {
            let kind = TensorType::from(format);
            assert_eq!((kind.name, kind.block), (name, (format.weights(), format.bytes())));
            assert_eq!((kind.meaning(), TensorType::by_id(kind.id())), (Meaning::Blocks(format), Some(kind)));
        }
        assert_eq!(TensorType::F32.len(&[]), Ok(4));
        assert_eq!(TensorType::from(BlockFormat::Q4K).len(&[3, 512]), Ok(3 * 2 * 144));
        assert!(TensorType::from(BlockFormat::Q8_0).len(&[32, 8]).is_err());
        assert!(TensorType::F64.len(&[usize::MAX, 2]).is_err());
    }
}
