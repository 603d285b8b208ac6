//! One npy array: a header that is a Python literal, then numbers.

use std::io::{Cursor, Read, Write};

use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout};

use super::broken;
use crate::format::float::Float;
use crate::{Element, Error, Result};

/// The longest header that is read; NumPy's own limit.
const MAX_HEADER: usize = 10_000;
/// A dictionary, a list of fields, a field: as deep as headers go.
const MAX_DEPTH: usize = 3;
/// Bytes that are converted at a time.
const BUFFER: usize = 1 << 16;

/// What an npy file holds.
pub(super) enum Content<F> {
    /// Weights.
    Array(ArrayD<F>),
    /// Something else, of this type.
    Other(String),
}

/// What a header says of the numbers that follow.
pub(super) struct Head {
    pub(super) dtype: String,
    shape: Vec<usize>,
    by_columns: bool,
    /// how long the header is
    len: usize,
}

impl Head {
    pub(super) fn read(name: &str, member: &mut impl Read) -> Result<Self> {
        let text = header_bytes(name, member)?;
        let header = Header::from_reader(&mut Cursor::new(&text))
            .map_err(|e| Error::format(format!("array `{name}`: {e}")))?;
        let dtype = header.type_descriptor.to_string().trim_matches('\'').to_owned();
        let by_columns = header.layout.is_fortran();
        Ok(Self { dtype, shape: header.shape, by_columns, len: text.len() })
    }

    /// How many numbers of so many bytes there are, in a member that claims to be `size` bytes long.
    pub(super) fn elements(&self, name: &str, bytes_each: usize, size: u64) -> Result<usize> {
        let (dtype, shape) = (&self.dtype, &self.shape);
        let fail = |what: String| Err(Error::format(format!("array `{name}`: {what}")));
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = elements.and_then(|n| n.checked_mul(bytes_each));
        let claimed = size.saturating_sub(self.len as u64);
        let (Some(elements), Some(bytes)) = (elements, bytes) else {
            return fail(format!("{dtype} of shape {shape:?} is more than memory could hold"));
        };
        if bytes as u64 != claimed {
            return fail(format!("{dtype} of shape {shape:?} takes {bytes} bytes, and there are {claimed}"));
        }
        Ok(elements)
    }

    /// The array of these numbers, when the member ends after them.
    pub(super) fn array<T: Clone>(
        &self,
        name: &str,
        values: Vec<T>,
        member: &mut impl Read,
        size: u64,
    ) -> Result<ArrayD<T>> {
        let fail = |what: String| Err(Error::format(format!("array `{name}`: {what}")));
        // Past the end stands the checksum, which is compared when the end is met.
        if member.read(&mut [0]).map_err(|e| broken(&format!("array `{name}`: "), &e))? != 0 {
            return fail(format!("there are more than the {size} bytes that it claims"));
        }
        let shape = &self.shape;
        match ArrayD::from_shape_vec(IxDyn(shape).set_f(self.by_columns), values) {
            Ok(array) if array.is_standard_layout() => Ok(array),
            Ok(array) => Ok(array.as_standard_layout().into_owned()),
            Err(e) => fail(format!("shape {shape:?}: {e}")),
        }
    }
}

/// Reads an array from a member that claims to be `size` bytes long.
pub(super) fn read<F: Element>(name: &str, mut member: impl Read, size: u64) -> Result<Content<F>> {
    let head = Head::read(name, &mut member)?;
    read_after(name, &head, member, size)
}

/// Reads the numbers after a header.
pub(super) fn read_after<F: Element>(
    name: &str,
    head: &Head,
    mut member: impl Read,
    size: u64,
) -> Result<Content<F>> {
    let dtype = &head.dtype;
    let (float, swap) = match number(dtype) {
        Number::Float(float, swap) => (float, swap),
        Number::NoWeight => return Ok(Content::Other(dtype.clone())),
        Number::Unread => {
            return Err(Error::unsupported(format!("array `{name}`: numbers of type {dtype} are not read")));
        }
    };
    let mut values = vec![F::zero(); head.elements(name, float.bytes(), size)?];
    fill(name, &mut member, float, swap, &mut values)?;
    head.array(name, values, &mut member, size).map(Content::Array)
}

/// Writes an array, by rows.
pub(super) fn write<F: Element>(name: &str, array: &ArrayViewD<'_, F>, out: &mut impl Write) -> Result<()> {
    let descriptor = if F::BYTES == 4 { "'<f4'" } else { "'<f8'" };
    let failed = |e: &dyn std::fmt::Display| Error::format(format!("array `{name}`: {e}"));
    let header = Header {
        type_descriptor: descriptor.parse().map_err(|e| failed(&e))?,
        layout: Layout::Standard,
        shape: array.shape().to_vec(),
    };
    out.write_all(&header.to_bytes().map_err(|e| failed(&e))?)?;
    Float::of::<F>().write(name, array, out)
}

/// The bytes up to the numbers, as long as they are nothing that a parser of Python literals could choke on.
fn header_bytes(name: &str, member: &mut impl Read) -> Result<Vec<u8>> {
    let fail = |what: String| Err(Error::format(format!("array `{name}`: {what}")));
    let mut more = |text: &mut Vec<u8>, n: usize| {
        let start = text.len();
        text.resize(start + n, 0);
        member
            .read_exact(&mut text[start..])
            .map_err(|e| broken(&format!("array `{name}`: its header: "), &e))
    };
    let mut text = Vec::new();
    more(&mut text, 8)?;
    if &text[..6] != b"\x93NUMPY" {
        return fail("it does not begin as npy files do".into());
    }
    let wide = match text[6] {
        1 => 2,
        2 | 3 => 4,
        version => return fail(format!("npy version {version} is not read")),
    };
    more(&mut text, wide)?;
    let len = text[8..].iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte));
    if len > MAX_HEADER {
        return fail(format!("a header of {len} bytes is past the limit of {MAX_HEADER}"));
    }
    let start = text.len();
    more(&mut text, len)?;
    let mut depth = 0usize;
    for &byte in &text[start..] {
        depth = match byte {
            b'(' | b'[' | b'{' => depth + 1,
            b')' | b']' | b'}' => depth.saturating_sub(1),
            b'\'' | b'"' | b',' | b':' | b'<' | b'>' | b'|' | b'=' | b'_' | b' ' | b'\n' => depth,
            _ if byte.is_ascii_alphanumeric() => depth,
            _ => return fail(format!("its header holds the byte {byte:#04x}")),
        };
        if depth > MAX_DEPTH {
            return fail(format!("its header nests deeper than {MAX_DEPTH} brackets"));
        }
    }
    Ok(text)
}

enum Number {
    /// Weights, and whether their bytes come in big-endian order.
    Float(Float, bool),
    /// Nothing that a network computes with.
    NoWeight,
    /// Numbers that this crate does not know.
    Unread,
}

/// What a type descriptor says: byte order, kind, bytes.
fn number(descriptor: &str) -> Number {
    let swap = descriptor.starts_with('>');
    let rest = descriptor.trim_start_matches(['<', '>', '|', '=']).as_bytes();
    match rest {
        b"f2" => Number::Float(Float::F16, swap),
        b"f4" => Number::Float(Float::F32, swap),
        b"f8" => Number::Float(Float::F64, swap),
        [b'b' | b'i' | b'u' | b'S' | b'U' | b'O' | b'M' | b'm' | b'?' | b'a', ..] => Number::NoWeight,
        _ => Number::Unread,
    }
}

fn fill<F: Element>(
    name: &str,
    member: &mut impl Read,
    float: Float,
    swap: bool,
    values: &mut [F],
) -> Result<()> {
    let size = float.bytes();
    let mut buffer = vec![0; BUFFER.min(values.len() * size)];
    for (k, values) in values.chunks_mut(BUFFER / size).enumerate() {
        let buffer = &mut buffer[..values.len() * size];
        member.read_exact(buffer).map_err(|e| broken(&format!("array `{name}`: "), &e))?;
        if swap {
            buffer.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        float.decode(buffer, values).map_err(|at| {
            let at = k * (BUFFER / size) + at;
            Error::format(format!(
                "array `{name}`: the value at index {at} is past the range of {}",
                F::DTYPE
            ))
        })?;
    }
    Ok(())
}
