//! Tensors of a file as arrays, and back.

use std::path::Path;

use ndarray::ArrayD;

use crate::format::float::Float;
use crate::onnx::file::place::{Place, data_type, dims, title};
use crate::onnx::proto::{TensorProto, dtype};
use crate::{Error, Result};

/// Numbers that are converted at a time.
const STEP: usize = 1 << 15;

/// A tensor of f32, f16, bf16 or f64 as an array of f32; external data is in `folder`.
///
/// # Errors
/// Another type, fewer or more values than the dimensions say, an f64 past the range of f32, a data file that
/// cannot be read.
pub(crate) fn floats(tensor: &TensorProto, folder: Option<&Path>) -> Result<ArrayD<f32>> {
    let float = float_type(tensor)?;
    let place = Place::of(tensor, folder)?;
    let shape = dims(tensor)?;
    // The place knows that the file holds as many.
    let mut values = vec![0f32; shape.iter().product()];
    let mut at = 0;
    place.pieces(tensor, &mut |bytes| {
        let n = bytes.len() / float.bytes();
        let decoded = float.decode(bytes, &mut values[at..at + n]);
        decoded.map_err(|k| past_range(tensor, at + k, "f32"))?;
        at += n;
        Ok(())
    })?;
    ArrayD::from_shape_vec(shape, values).map_err(|e| Error::format(format!("{}: {e}", title(tensor))))
}

/// A tensor of integers of any width, or of booleans as 0 and 1, in row-major order; external data is in `folder`.
///
/// # Errors
/// Another type, fewer or more values than the dimensions say, a u64 past the range of i64, a data file that cannot
/// be read.
pub(crate) fn integers(tensor: &TensorProto, folder: Option<&Path>) -> Result<Vec<i64>> {
    use dtype::{BOOL, INT2, INT4, INT8, INT16, INT32, INT64, UINT2, UINT4, UINT8, UINT16, UINT32, UINT64};
    let kind = data_type(tensor);
    if !matches!(
        kind,
        BOOL | INT2 | INT4 | INT8 | INT16 | INT32 | INT64 | UINT2 | UINT4 | UINT8 | UINT16 | UINT32 | UINT64
    ) {
        let kind = dtype::name(kind);
        return Err(Error::unsupported(format!("{}: {kind} are no integers", title(tensor))));
    }
    let place = Place::of(tensor, folder)?;
    let n: usize = dims(tensor)?.iter().product();
    let mut values: Vec<i64> = Vec::with_capacity(n);
    place.pieces(tensor, &mut |bytes| {
        match kind {
            BOOL => values.extend(bytes.iter().map(|&b| i64::from(b != 0))),
            UINT8 => values.extend(bytes.iter().map(|&b| i64::from(b))),
            INT8 => values.extend(bytes.iter().map(|&b| i64::from(b as i8))),
            UINT16 => values.extend(bytes.as_chunks().0.iter().map(|b| i64::from(u16::from_le_bytes(*b)))),
            INT16 => values.extend(bytes.as_chunks().0.iter().map(|b| i64::from(i16::from_le_bytes(*b)))),
            UINT32 => values.extend(bytes.as_chunks().0.iter().map(|b| i64::from(u32::from_le_bytes(*b)))),
            INT32 => values.extend(bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b)))),
            INT64 => values.extend(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b))),
            UINT64 => {
                for b in bytes.as_chunks().0 {
                    let value = i64::try_from(u64::from_le_bytes(*b));
                    values.push(value.map_err(|_| past_range(tensor, values.len(), "i64"))?);
                }
            }
            _ => {
                let bits = if matches!(kind, INT4 | UINT4) { 4 } else { 2 };
                let signed = matches!(kind, INT4 | INT2);
                values.extend(bytes.iter().flat_map(|&b| parts(b, bits, signed)));
            }
        }
        Ok(())
    })?;
    // The last byte may have room for more elements than there are.
    values.truncate(n);
    Ok(values)
}

/// Puts an array in a tensor as raw bytes of the tensor's own type, each value rounded to the nearest, ties to
/// even; the shape is the array's. Name and unknown fields stay, values that were elsewhere go.
///
/// # Errors
/// The tensor's type is none of f32, f16, bf16 and f64, or a value is past its range; the tensor is as before.
pub(crate) fn put_floats(tensor: &mut TensorProto, array: &ArrayD<f32>) -> Result<()> {
    let float = float_type(tensor)?;
    let mut bytes = vec![0; array.len() * float.bytes()];
    let own: Vec<f32>;
    let values = if let Some(values) = array.as_slice() {
        values
    } else {
        own = array.iter().copied().collect();
        &own
    };
    for (k, (values, bytes)) in values.chunks(STEP).zip(bytes.chunks_mut(STEP * float.bytes())).enumerate() {
        if float.encode(values, bytes).is_err() {
            let name = tensor.name.as_deref().unwrap_or_default();
            encode_any(float, values, bytes).map_err(|at| float.refusal(name, values[at], k * STEP + at))?;
        }
    }
    clear_values(tensor);
    tensor.dims = array.shape().iter().map(|&d| d as i64).collect();
    tensor.raw_data = Some(bytes.into());
    Ok(())
}

/// Takes the values away, wherever they are.
pub(super) fn clear_values(tensor: &mut TensorProto) {
    tensor.raw_data = None;
    tensor.float_data = Vec::new();
    tensor.int32_data = Vec::new();
    tensor.string_data = Vec::new();
    tensor.int64_data = Vec::new();
    tensor.double_data = Vec::new();
    tensor.uint64_data = Vec::new();
    tensor.external_data = Vec::new();
    tensor.data_location = None;
}

fn float_type(tensor: &TensorProto) -> Result<Float> {
    match data_type(tensor) {
        dtype::FLOAT => Ok(Float::F32),
        dtype::FLOAT16 => Ok(Float::F16),
        dtype::BFLOAT16 => Ok(Float::BF16),
        dtype::DOUBLE => Ok(Float::F64),
        other => {
            let kind = dtype::name(other);
            Err(Error::unsupported(format!("{}: {kind} is none of f32, f16, bf16 and f64", title(tensor))))
        }
    }
}

fn past_range(tensor: &TensorProto, at: usize, limit: &str) -> Error {
    Error::format(format!("{}: the value at flat index {at} is past the range of {limit}", title(tensor)))
}

/// Values among which are NaN or infinities, which masks of attention hold; `Err` is the place of the first finite
/// one that does not fit.
fn encode_any(float: Float, values: &[f32], bytes: &mut [u8]) -> Result<(), usize> {
    for (at, (&value, bytes)) in values.iter().zip(bytes.chunks_mut(float.bytes())).enumerate() {
        let special = |code: [u8; 2], bytes: &mut [u8]| bytes.copy_from_slice(&code);
        match float {
            Float::F16 if !value.is_finite() => special(half::f16::from_f32(value).to_le_bytes(), bytes),
            Float::BF16 if !value.is_finite() => special(half::bf16::from_f32(value).to_le_bytes(), bytes),
            _ => float.encode(&[value], bytes).map_err(|_| at)?,
        }
    }
    Ok(())
}

/// The elements of a byte, low bits first.
fn parts(byte: u8, bits: u32, signed: bool) -> impl Iterator<Item = i64> {
    (0..8 / bits).map(move |k| {
        let code = byte >> (k * bits) << (8 - bits);
        let kept = 8 - bits;
        if signed { i64::from(code as i8 >> kept) } else { i64::from(code >> kept) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn tensor(kind: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            name: Some("w".into()),
            data_type: Some(kind),
            dims: dims.to_vec(),
            ..TensorProto::default()
        }
    }

    fn raw(kind: i32, dims: &[i64], bytes: &[u8]) -> TensorProto {
        TensorProto { raw_data: Some(bytes.to_vec().into()), ..tensor(kind, dims) }
    }

    fn numbers(tensor: &TensorProto) -> Vec<f32> {
        floats(tensor, None).unwrap().iter().copied().collect()
    }

    #[test]
    fn floats_of_each_type_raw_and_in_lists() {
        let want = [1.0, -2.5];
        let bytes = |of: fn(f32) -> Vec<u8>| want.iter().flat_map(|&x| of(x)).collect::<Vec<u8>>();
        let f32s = raw(dtype::FLOAT, &[2], &bytes(|x| x.to_le_bytes().to_vec()));
        let f64s = raw(dtype::DOUBLE, &[2], &bytes(|x| f64::from(x).to_le_bytes().to_vec()));
        // 1.0 and -2.5 in the two halves: 0x3c00, 0xc100 and 0x3f80, 0xc020.
        let f16s = raw(dtype::FLOAT16, &[2], &[0x00, 0x3c, 0x00, 0xc1]);
        let bf16s = raw(dtype::BFLOAT16, &[2], &[0x80, 0x3f, 0x20, 0xc0]);
        for tensor in [f32s, f64s, f16s, bf16s] {
            assert_eq!(numbers(&tensor), want, "{tensor:?}");
        }
        let listed = TensorProto { float_data: want.to_vec(), ..tensor(dtype::FLOAT, &[2]) };
        assert_eq!(numbers(&listed), want);
        let listed = TensorProto { double_data: vec![1.0, -2.5], ..tensor(dtype::DOUBLE, &[2]) };
        assert_eq!(numbers(&listed), want);
        let listed = TensorProto { int32_data: vec![0x3c00, 0xc100], ..tensor(dtype::FLOAT16, &[2]) };
        assert_eq!(numbers(&listed), want);
        let listed = TensorProto { int32_data: vec![0x3f80, 0xc020], ..tensor(dtype::BFLOAT16, &[2]) };
        assert_eq!(numbers(&listed), want);
        let shaped = floats(&raw(dtype::FLOAT, &[2, 0, 3], &[]), None).unwrap();
        assert_eq!(shaped.shape(), [2, 0, 3]);
        assert_eq!(floats(&raw(dtype::FLOAT, &[], &1f32.to_le_bytes()), None).unwrap().ndim(), 0);
    }

    #[test]
    fn many_values_are_read_by_pieces() {
        let values: Vec<f32> = (0..70_001).map(|x| x as f32).collect();
        let listed = TensorProto { float_data: values.clone(), ..tensor(dtype::FLOAT, &[70_001]) };
        assert_eq!(numbers(&listed), values);
        let bytes: Vec<u8> = (0..100_001).map(|k| (k % 251) as u8).collect();
        let read = integers(&raw(dtype::INT4, &[200_001], &bytes), None).unwrap();
        let nibble =
            |k: usize| i64::from((bytes[k / 2] << if k.is_multiple_of(2) { 4 } else { 0 }) as i8 >> 4);
        assert_eq!(read, (0..200_001).map(nibble).collect::<Vec<_>>());
    }

    #[test]
    fn integers_of_each_type_raw_and_in_lists() {
        let of = |tensor: &TensorProto| integers(tensor, None).unwrap();
        let cases: [(i32, &[u8], &[i64]); 13] = [
            (dtype::BOOL, &[0, 1, 2], &[0, 1, 1]),
            (dtype::UINT8, &[0, 255], &[0, 255]),
            (dtype::INT8, &[1, 255], &[1, -1]),
            (dtype::UINT16, &[1, 0, 254, 255], &[1, 65534]),
            (dtype::INT16, &[1, 0, 254, 255], &[1, -2]),
            (dtype::UINT32, &[255; 4], &[0xffff_ffff]),
            (dtype::INT32, &[255; 4], &[-1]),
            (dtype::INT64, &[254, 255, 255, 255, 255, 255, 255, 255], &[-2]),
            (dtype::UINT64, &[7, 0, 0, 0, 0, 0, 0, 0], &[7]),
            // The low nibble, or pair of bits, is first.
            (dtype::INT4, &[0x8f, 0x07], &[-1, -8, 7]),
            (dtype::UINT4, &[0x8f, 0x07], &[15, 8, 7]),
            (dtype::INT2, &[0b11_10_01_00, 0b01], &[0, 1, -2, -1, 1]),
            (dtype::UINT2, &[0b11_10_01_00, 0b01], &[0, 1, 2, 3, 1]),
        ];
        for (kind, bytes, want) in cases {
            assert_eq!(of(&raw(kind, &[want.len() as i64], bytes)), want, "{kind}");
        }
        let listed = |kind, n, list: &[i32]| TensorProto { int32_data: list.to_vec(), ..tensor(kind, &[n]) };
        assert_eq!(of(&listed(dtype::INT32, 2, &[-5, 6])), [-5, 6]);
        assert_eq!(of(&listed(dtype::INT16, 2, &[-5, 6])), [-5, 6]);
        assert_eq!(of(&listed(dtype::UINT16, 1, &[65535])), [65535]);
        assert_eq!(of(&listed(dtype::INT8, 1, &[-128])), [-128]);
        assert_eq!(of(&listed(dtype::UINT8, 1, &[200])), [200]);
        assert_eq!(of(&listed(dtype::BOOL, 2, &[1, 0])), [1, 0]);
        assert_eq!(of(&listed(dtype::INT4, 3, &[0x8f, 0x07])), [-1, -8, 7]);
        assert_eq!(of(&listed(dtype::UINT2, 5, &[0b11_10_01_00, 1])), [0, 1, 2, 3, 1]);
        assert_eq!(of(&TensorProto { int64_data: vec![-9], ..tensor(dtype::INT64, &[]) }), [-9]);
        assert_eq!(of(&TensorProto { uint64_data: vec![9], ..tensor(dtype::UINT64, &[1]) }), [9]);
        assert_eq!(of(&TensorProto { uint64_data: vec![9], ..tensor(dtype::UINT32, &[1]) }), [9]);
        let large = TensorProto { uint64_data: vec![1, u64::MAX], ..tensor(dtype::UINT64, &[2]) };
        let error = integers(&large, None).unwrap_err().to_string();
        assert_eq!(error, "tensor `w`: the value at flat index 1 is past the range of i64");
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let error = floats(&raw(dtype::INT8, &[1], &[1]), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "tensor `w`: i8 is none of f32, f16, bf16 and f64");
        let error = integers(&raw(dtype::FLOAT, &[0], &[]), None).unwrap_err();
        assert_eq!(error.to_string(), "tensor `w`: f32 are no integers");
        let array = ArrayD::from_elem(vec![1], 1f32);
        assert!(put_floats(&mut raw(dtype::INT8, &[1], &[1]), &array).is_err());
        let error = floats(&raw(dtype::DOUBLE, &[1], &1e300f64.to_le_bytes()), None).unwrap_err();
        assert_eq!(error.to_string(), "tensor `w`: the value at flat index 0 is past the range of f32");
    }

    #[test]
    fn values_are_put_in_the_tensors_own_type() {
        let values = vec![1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
        let array = ArrayD::from_shape_vec(vec![2, 3], values).unwrap();
        for kind in [dtype::FLOAT, dtype::DOUBLE, dtype::FLOAT16, dtype::BFLOAT16] {
            let mut tensor =
                TensorProto { float_data: vec![1.0; 9], int32_data: vec![3; 9], ..tensor(kind, &[9]) };
            let entry = crate::onnx::proto::StringStringEntryProto::default();
            tensor.external_data.push(entry);
            tensor.data_location = Some(crate::onnx::proto::EXTERNAL);
            put_floats(&mut tensor, &array).unwrap();
            assert_eq!(floats(&tensor, None).unwrap(), array);
            assert!(
                tensor.float_data.is_empty()
                    && tensor.int32_data.is_empty()
                    && tensor.external_data.is_empty()
            );
            assert_eq!(
                (tensor.data_location, tensor.data_type, &tensor.dims[..]),
                (None, Some(kind), &[2, 3][..])
            );
            assert_eq!(tensor.name.as_deref(), Some("w"));
            let nan = ArrayD::from_elem(vec![1], f32::NAN);
            put_floats(&mut tensor, &nan).unwrap();
            assert!(floats(&tensor, None).unwrap()[[0]].is_nan());
        }
        // Rows are written in the array's order of axes, not in that of its memory.
        let mut turned = tensor(dtype::FLOAT, &[]);
        put_floats(&mut turned, &array.clone().reversed_axes()).unwrap();
        assert_eq!(floats(&turned, None).unwrap(), array.reversed_axes());
    }

    #[test]
    fn narrowing_is_half_even_and_within_the_range() {
        let put = |kind, values: &[f32]| {
            let mut tensor = tensor(kind, &[]);
            put_floats(&mut tensor, &ArrayD::from_shape_vec(vec![values.len()], values.to_vec()).unwrap())?;
            Ok::<_, Error>(numbers(&tensor))
        };
        // 2049 and 2051 are halfway between two f16; 257 and 259 between two bf16.
        assert_eq!(put(dtype::FLOAT16, &[2049.0, 2051.0]).unwrap(), [2048.0, 2052.0]);
        assert_eq!(
            put(dtype::BFLOAT16, &[257.0, 259.0, f32::INFINITY]).unwrap(),
            [256.0, 260.0, f32::INFINITY]
        );
        let error = put(dtype::FLOAT16, &[f32::NAN, 70000.0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `w`: value 70000 at flat index 1 is past the largest F16, 65504"
        );
        let mut kept = raw(dtype::FLOAT16, &[1], &[0, 0x3c]);
        let before = kept.clone();
        assert!(put_floats(&mut kept, &ArrayD::from_elem(vec![2], 1e6)).is_err());
        assert_eq!(kept, before);
    }
}
