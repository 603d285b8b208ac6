//! [`Precision`]: the number type of plain weights in a file.

use crate::format::float::Float;

/// The number type of weights in a file.
///
/// ```
/// use niwaki::format::Precision;
/// assert_ne!(Precision::F16, Precision::BF16);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// Half precision: 11 significant bits, up to 65504.
    F16,
    /// The upper half of a single: 8 significant bits, the range of [`F32`](Self::F32).
    BF16,
}

impl Precision {
    pub(crate) fn float(self) -> Float {
        match self {
            Self::F64 => Float::F64,
            Self::F32 => Float::F32,
            Self::F16 => Float::F16,
            Self::BF16 => Float::BF16,
        }
    }
}
