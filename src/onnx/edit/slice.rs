//! Positions of one axis of a constant of any type.

use crate::onnx::proto::{AttributeProto, TensorProto, dtype};
use crate::{Error, Result};

/// Leaves only these positions of an axis.
///
/// # Errors
/// The tensor has another shape than its data, or a type of less than a byte.
pub(super) fn select(tensor: &mut TensorProto, axis: usize, kept: &[usize]) -> Result<()> {
    let name = tensor.name.clone().unwrap_or_default();
    let wrong = |what: &str| Error::unsupported(format!("constant `{name}`: {what}, so it cannot be cut"));
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let dims = dims.filter(|dims| axis < dims.len()).ok_or_else(|| wrong("its shape is unknown"))?;
    if kept.iter().any(|&at| at >= dims[axis]) {
        return Err(wrong("its axis is shorter than the graph says"));
    }
    let cut = Cut {
        outer: dims[..axis].iter().product(),
        len: dims[axis],
        inner: dims[axis + 1..].iter().product(),
        kept,
    };
    let width =
        width(tensor.data_type.unwrap_or_default()).ok_or_else(|| wrong("elements are no whole bytes"))?;
    let fits = if let Some(raw) = &tensor.raw_data {
        let bytes = Cut { inner: cut.inner * width, ..cut }.of(raw);
        let fits = bytes.is_some();
        tensor.raw_data = bytes.map(Into::into);
        fits
    } else {
        // One of them holds the data, the others are empty.
        typed(&cut, &mut tensor.float_data)
            || typed(&cut, &mut tensor.int32_data)
            || typed(&cut, &mut tensor.int64_data)
            || typed(&cut, &mut tensor.double_data)
            || typed(&cut, &mut tensor.uint64_data)
    };
    if !fits {
        return Err(wrong("its data is not as long as its shape says"));
    }
    tensor.dims[axis] = kept.len() as i64;
    Ok(())
}

/// As [`select`], of a list in an attribute.
pub(super) fn select_attribute(attribute: &mut AttributeProto, kept: &[usize]) -> Result<()> {
    let len = attribute.floats.len().max(attribute.ints.len());
    let cut = Cut { outer: 1, len, inner: 1, kept };
    if typed(&cut, &mut attribute.floats) || typed(&cut, &mut attribute.ints) {
        return Ok(());
    }
    Err(Error::unsupported("the value of a `Constant` node cannot be cut"))
}

/// [outer, len, inner] elements.
#[derive(Clone, Copy)]
struct Cut<'k> {
    outer: usize,
    len: usize,
    inner: usize,
    kept: &'k [usize],
}

impl Cut<'_> {
    fn of<T: Copy>(&self, all: &[T]) -> Option<Vec<T>> {
        let slab = self.len.checked_mul(self.inner)?;
        if all.is_empty() || slab.checked_mul(self.outer)? != all.len() {
            return None;
        }
        let mut left = Vec::with_capacity(self.outer * self.kept.len() * self.inner);
        for slab in all.chunks_exact(slab) {
            for &at in self.kept {
                left.extend_from_slice(slab.get(at * self.inner..(at + 1) * self.inner)?);
            }
        }
        Some(left)
    }
}

fn typed<T: Copy>(cut: &Cut<'_>, all: &mut Vec<T>) -> bool {
    let left = cut.of(all);
    let fits = left.is_some();
    if let Some(left) = left {
        *all = left;
    }
    fits
}

/// Bytes of an element in raw data; none where elements share bytes.
fn width(data_type: i32) -> Option<usize> {
    dtype::bits(data_type).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::file::floats;

    #[test]
    fn bytes_and_typed_fields_are_cut_alike() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let shape =
            TensorProto { dims: vec![2, 3, 2], data_type: Some(dtype::FLOAT), ..TensorProto::default() };
        let mut typed = TensorProto { float_data: values, ..shape.clone() };
        let mut raw = TensorProto { raw_data: Some(raw.into()), ..shape };
        select(&mut typed, 1, &[0, 2]).unwrap();
        select(&mut raw, 1, &[0, 2]).unwrap();
        assert_eq!(typed.float_data, [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0]);
        assert_eq!(floats(&raw, None).unwrap(), floats(&typed, None).unwrap());
        assert!(select(&mut typed, 1, &[2]).is_err());
        assert!(select(&mut raw, 5, &[0]).is_err());
    }

    #[test]
    fn halves_keep_their_bits_and_nibbles_are_refused() {
        let mut half = TensorProto {
            dims: vec![3],
            data_type: Some(dtype::FLOAT16),
            raw_data: Some(vec![1, 2, 3, 4, 5, 6].into()),
            ..TensorProto::default()
        };
        select(&mut half, 0, &[1]).unwrap();
        assert_eq!(half.raw_data.as_deref(), Some(&[3u8, 4][..]));
        half.data_type = Some(dtype::INT4);
        assert!(select(&mut half, 0, &[0]).is_err());
    }
}
