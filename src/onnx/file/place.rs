//! Where the values of a tensor are, and whether there are as many as its dimensions say.

use std::path::Path;

use buffa::bytes::Bytes;

use crate::format::io;
use crate::format::source::Source;
use crate::onnx::file::external::External;
use crate::onnx::proto::{EXTERNAL, TensorProto, dtype};
use crate::{Error, Result};

/// Bytes of a piece of [`Place::pieces`]; a multiple of every element's size.
const PIECE: usize = 1 << 16;

/// Where the values of a tensor are. To have one is to know that they fit the dimensions.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// Little-endian bytes in the message.
    Raw(&'a Bytes),
    /// One of the lists of numbers in the message.
    Typed,
    /// A part of another file.
    External(External),
}

/// The shape of a tensor.
///
/// # Errors
/// A dimension is negative, or no memory could hold as many elements.
pub(crate) fn dims(tensor: &TensorProto) -> Result<Vec<usize>> {
    let wrong = || Error::format(format!("{}: {:?} is no shape", title(tensor), tensor.dims));
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let dims = dims.ok_or_else(wrong)?;
    // An axis of length 0 does not excuse the others.
    let product = dims.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d));
    match product {
        Some(n) if isize::try_from(n).is_ok() => Ok(dims),
        _ => Err(wrong()),
    }
}

/// What to call a tensor in a message.
pub(super) fn title(tensor: &TensorProto) -> String {
    match tensor.name.as_deref() {
        None | Some("") => "a tensor without a name".to_owned(),
        Some(name) => format!("tensor `{name}`"),
    }
}

/// Elements, and the bytes that they take where the type's size is known.
pub(super) fn size(tensor: &TensorProto) -> Result<(usize, Option<usize>)> {
    let dims = dims(tensor)?;
    let n: usize = dims.iter().product();
    let Some(bits) = dtype::bits(data_type(tensor)) else { return Ok((n, None)) };
    let bytes = n.checked_mul(bits).map(|bits| bits.div_ceil(8));
    let bytes = bytes.ok_or_else(|| Error::format(format!("{}: {dims:?} is no shape", title(tensor))))?;
    Ok((n, Some(bytes)))
}

pub(super) fn data_type(tensor: &TensorProto) -> i32 {
    tensor.data_type.unwrap_or_default()
}

impl<'a> Place<'a> {
    /// Finds the values and counts them; nothing is read or allocated.
    pub(super) fn of(tensor: &'a TensorProto, folder: Option<&Path>) -> Result<Self> {
        let (n, bytes) = size(tensor)?;
        match tensor.data_location.unwrap_or_default() {
            0 => {}
            EXTERNAL if data_type(tensor) == dtype::STRING => {
                return Err(Error::format(format!("{}: strings cannot be in another file", title(tensor))));
            }
            EXTERNAL => return Ok(Self::External(External::of(tensor, bytes, folder)?)),
            other => {
                return Err(Error::format(format!(
                    "{}: data location {other} is none of 0 and 1",
                    title(tensor)
                )));
            }
        }
        let Some(raw) = &tensor.raw_data else {
            return typed(tensor, n).map(|()| Self::Typed);
        };
        if data_type(tensor) == dtype::STRING {
            return Err(Error::format(format!("{}: strings cannot be raw bytes", title(tensor))));
        }
        match bytes {
            Some(bytes) if bytes != raw.len() => Err(few(tensor, &format!("{bytes} bytes"), raw.len())),
            _ => Ok(Self::Raw(raw)),
        }
    }

    /// How many bytes the values take, little-endian and packed.
    pub(super) fn len(&self, tensor: &TensorProto) -> Result<u64> {
        match self {
            Self::Raw(raw) => Ok(raw.len() as u64),
            Self::External(external) => Ok(external.len),
            Self::Typed => size(tensor)?.1.map(|n| n as u64).ok_or_else(|| not_bytes(tensor)),
        }
    }

    /// Gives the values to `take` as little-endian bytes, piece after piece: whole elements each, unless the last
    /// byte is shared.
    pub(super) fn pieces(
        &self,
        tensor: &TensorProto,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Raw(raw) => raw.chunks(PIECE).try_for_each(take),
            Self::External(external) => external.pieces(PIECE, take).map_err(|e| e.context(title(tensor))),
            Self::Typed => typed_pieces(tensor, take),
        }
    }
}

/// Whether the list of numbers that belongs to the type has as many as there are elements.
fn typed(tensor: &TensorProto, n: usize) -> Result<()> {
    let (have, want) = match data_type(tensor) {
        dtype::FLOAT => (tensor.float_data.len(), Some(n)),
        dtype::COMPLEX64 => (tensor.float_data.len(), n.checked_mul(2)),
        dtype::DOUBLE => (tensor.double_data.len(), Some(n)),
        dtype::COMPLEX128 => (tensor.double_data.len(), n.checked_mul(2)),
        dtype::INT64 => (tensor.int64_data.len(), Some(n)),
        dtype::UINT32 | dtype::UINT64 => (tensor.uint64_data.len(), Some(n)),
        dtype::STRING => (tensor.string_data.len(), Some(n)),
        // Elements smaller than half a byte share a number.
        other => match dtype::bits(other) {
            Some(bits) if bits <= 4 => (tensor.int32_data.len(), Some(n.div_ceil(8 / bits))),
            Some(_) => (tensor.int32_data.len(), Some(n)),
            // A type from a newer ONNX: whatever it holds stays.
            None if other > 0 => return Ok(()),
            None => return Err(Error::format(format!("{}: has no type", title(tensor)))),
        },
    };
    match want {
        Some(want) if want == have => Ok(()),
        _ => Err(few(tensor, &format!("{n} values"), have)),
    }
}

fn few(tensor: &TensorProto, want: &str, have: usize) -> Error {
    let (kind, dims) = (dtype::name(data_type(tensor)), &tensor.dims);
    Error::format(format!("{}: {kind} of shape {dims:?} are {want}, and {have} are there", title(tensor)))
}

fn not_bytes(tensor: &TensorProto) -> Error {
    let kind = dtype::name(data_type(tensor));
    Error::unsupported(format!("{}: values of {kind} are not turned into bytes", title(tensor)))
}

fn typed_pieces(tensor: &TensorProto, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let kind = data_type(tensor);
    match kind {
        dtype::FLOAT | dtype::COMPLEX64 => each(&tensor.float_data, |x| x.to_le_bytes(), take),
        dtype::DOUBLE | dtype::COMPLEX128 => each(&tensor.double_data, |x| x.to_le_bytes(), take),
        dtype::INT64 => each(&tensor.int64_data, |x| x.to_le_bytes(), take),
        dtype::UINT64 => each(&tensor.uint64_data, |x| x.to_le_bytes(), take),
        dtype::UINT32 => each(&tensor.uint64_data, |x| (*x as u32).to_le_bytes(), take),
        _ => match dtype::bits(kind) {
            Some(32) => each(&tensor.int32_data, |x| x.to_le_bytes(), take),
            Some(16) => each(&tensor.int32_data, |x| (*x as u16).to_le_bytes(), take),
            // Several small elements are in one number as they are in one byte; those of 6 bits are not.
            Some(2 | 4 | 8) => each(&tensor.int32_data, |x| [*x as u8], take),
            _ => Err(not_bytes(tensor)),
        },
    }
}

fn each<T, const N: usize>(
    numbers: &[T],
    bytes: impl Fn(&T) -> [u8; N],
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = Vec::with_capacity(PIECE.min(numbers.len() * N));
    for numbers in numbers.chunks(PIECE / N) {
        piece.clear();
        piece.extend(numbers.iter().flat_map(&bytes));
        take(&piece)?;
    }
    Ok(())
}

impl External {
    /// Reads its bytes by position, piece after piece.
    fn pieces(&self, piece: usize, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let file = std::fs::File::open(&self.path).map_err(|e| io(&self.path, &e))?;
        let (source, _) = Source::file(file).map_err(|e| io(&self.path, &e))?;
        let mut buffer = vec![0; self.len.min(piece as u64) as usize];
        let (mut at, end) = (self.offset, self.offset + self.len);
        while at < end {
            let step = (end - at).min(piece as u64) as usize;
            source.read_at(at, &mut buffer[..step]).map_err(|e| io(&self.path, &e))?;
            take(&buffer[..step])?;
            at += step as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(kind: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            name: Some("w".into()),
            data_type: Some(kind),
            dims: dims.to_vec(),
            ..TensorProto::default()
        }
    }

    fn raw(kind: i32, dims: &[i64], bytes: usize) -> TensorProto {
        TensorProto { raw_data: Some(vec![0; bytes].into()), ..tensor(kind, dims) }
    }

    fn error(tensor: &TensorProto) -> String {
        Place::of(tensor, None).unwrap_err().to_string()
    }

    #[test]
    fn raw_bytes_must_fit_the_dimensions() {
        for (kind, n, bytes) in [
            (dtype::FLOAT, 3, 12),
            (dtype::DOUBLE, 3, 24),
            (dtype::FLOAT16, 3, 6),
            (dtype::COMPLEX128, 1, 16),
            (dtype::BOOL, 3, 3),
            (dtype::INT4, 3, 2),
            (dtype::UINT4, 0, 0),
            (dtype::INT2, 5, 2),
            (23, 3, 2),
            (27, 5, 4),
        ] {
            assert!(Place::of(&raw(kind, &[n], bytes), None).is_ok(), "{kind}");
            assert!(Place::of(&raw(kind, &[n], bytes + 1), None).is_err(), "{kind}");
            assert!(Place::of(&raw(kind, &[n + 4], bytes), None).is_err(), "{kind}");
        }
        let message = "tensor `w`: f32 of shape [1000000000, 1000] are 4000000000000 bytes, and 4 are there";
        assert_eq!(error(&raw(dtype::FLOAT, &[1_000_000_000, 1000], 4)), message);
        let message = "tensor `w`: i4 of shape [3] are 2 bytes, and 1 are there";
        assert_eq!(error(&raw(dtype::INT4, &[3], 1)), message);
        assert!(Place::of(&raw(99, &[3], 1), None).is_ok(), "a type that is not known stays as it is");
    }

    #[test]
    fn lists_must_fit_the_dimensions() {
        let two = |kind| TensorProto {
            float_data: vec![0.0; 2],
            int32_data: vec![0; 2],
            int64_data: vec![0; 2],
            double_data: vec![0.0; 2],
            uint64_data: vec![0; 2],
            string_data: vec![vec![b'a']; 2],
            ..tensor(kind, &[])
        };
        for (kind, n) in [
            (dtype::FLOAT, 2),
            (dtype::COMPLEX64, 1),
            (dtype::DOUBLE, 2),
            (dtype::COMPLEX128, 1),
            (dtype::INT64, 2),
            (dtype::UINT32, 2),
            (dtype::UINT64, 2),
            (dtype::STRING, 2),
            (dtype::INT32, 2),
            (dtype::FLOAT16, 2),
            (dtype::BOOL, 2),
            (27, 2),
            (dtype::INT4, 3),
            (dtype::UINT4, 4),
            (dtype::INT2, 5),
            (dtype::UINT2, 8),
        ] {
            for (n, fits) in [(n, true), (n + 4, false), (1 << 40, false)] {
                let tensor = TensorProto { dims: vec![n], ..two(kind) };
                assert_eq!(Place::of(&tensor, None).is_ok(), fits, "{kind} {n}");
            }
        }
        let message = "tensor `w`: string of shape [3] are 3 values, and 2 are there";
        assert_eq!(error(&TensorProto { dims: vec![3], ..two(dtype::STRING) }), message);
        assert_eq!(
            error(&tensor(dtype::INT64, &[2, 2])),
            "tensor `w`: i64 of shape [2, 2] are 4 values, and 0 are there"
        );
        assert_eq!(error(&tensor(0, &[0])), "tensor `w`: has no type");
        assert_eq!(error(&raw(dtype::STRING, &[1], 1)), "tensor `w`: strings cannot be raw bytes");
    }

    #[test]
    fn dimensions_must_be_a_shape() {
        let no_shape = |dims: &[i64]| error(&tensor(dtype::FLOAT, dims));
        assert_eq!(no_shape(&[2, -1]), "tensor `w`: [2, -1] is no shape");
        assert!(no_shape(&[i64::MAX, i64::MAX]).ends_with("is no shape"));
        assert!(no_shape(&[0, i64::MAX, 2]).ends_with("is no shape"));
        assert!(no_shape(&[i64::MAX]).ends_with("is no shape"), "bytes are counted too");
        assert_eq!(dims(&tensor(dtype::FLOAT, &[2, 0])).unwrap(), [2, 0]);
        let nameless = TensorProto { name: None, ..tensor(dtype::FLOAT, &[-1]) };
        assert_eq!(error(&nameless), "a tensor without a name: [-1] is no shape");
        let elsewhere = TensorProto { data_location: Some(2), ..raw(dtype::FLOAT, &[1], 4) };
        assert_eq!(error(&elsewhere), "tensor `w`: data location 2 is none of 0 and 1");
    }

    #[test]
    fn lists_become_the_bytes_of_raw_data() {
        let bytes = |tensor: &TensorProto| {
            let mut all = Vec::new();
            let place = Place::of(tensor, None).unwrap();
            place
                .pieces(tensor, &mut |piece| {
                    all.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert_eq!(place.len(tensor).unwrap(), all.len() as u64);
            all
        };
        let complex = TensorProto { float_data: vec![1.0, 2.0], ..tensor(dtype::COMPLEX64, &[1]) };
        assert_eq!(bytes(&complex), [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
        let nibbles = TensorProto { int32_data: vec![0x21, 0x03], ..tensor(dtype::INT4, &[3]) };
        assert_eq!(bytes(&nibbles), [0x21, 0x03]);
        let short = TensorProto { int32_data: vec![-2], ..tensor(dtype::INT16, &[1]) };
        assert_eq!(bytes(&short), [0xfe, 0xff]);
        let text = TensorProto { string_data: vec![vec![b'a']], ..tensor(dtype::STRING, &[1]) };
        assert!(Place::of(&text, None).unwrap().len(&text).is_err());
    }
}
