//! The safetensors layout, below arrays: named byte strings with a type and a shape.
//!
//! ```text
//! u64 N, little-endian │ N bytes of JSON, padded with spaces to 8 │ data, without holes
//! ```

mod header;
mod read;
mod write;

pub(crate) use header::{Entry, Header};
pub(crate) use read::Reader;
pub(crate) use write::{Tensor, encoded_len, save};

pub(crate) use crate::format::data::Data;

pub(crate) use ::safetensors::Dtype;

use crate::format::float::Float;

/// The most bytes of JSON that readers of the format accept.
pub(crate) const MAX_HEADER: u64 = 100_000_000;
/// The key of the metadata among the tensors' names.
pub(crate) const METADATA: &str = "__metadata__";

/// The floating-point type that a file's type is, where this crate reads it.
pub(crate) fn float(dtype: Dtype) -> Option<Float> {
    match dtype {
        Dtype::F64 => Some(Float::F64),
        Dtype::F32 => Some(Float::F32),
        Dtype::F16 => Some(Float::F16),
        Dtype::BF16 => Some(Float::BF16),
        Dtype::F8_E5M2 => Some(Float::E5M2),
        Dtype::F8_E4M3 => Some(Float::E4M3),
        _ => None,
    }
}

/// The file's type for a floating-point type.
pub(crate) fn dtype(float: Float) -> Dtype {
    match float {
        Float::F64 => Dtype::F64,
        Float::F32 => Dtype::F32,
        Float::F16 => Dtype::F16,
        Float::BF16 => Dtype::BF16,
        Float::E5M2 => Dtype::F8_E5M2,
        Float::E4M3 => Dtype::F8_E4M3,
    }
}

/// Bytes of an array of this type and shape; `None` where there is no such number or it ends within a byte.
fn size(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
