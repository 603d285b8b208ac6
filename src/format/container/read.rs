//! Reading tensors straight to where they stay.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use super::{Entry, Header, MAX_HEADER, Tensor, float};
use crate::format::float::Float;
use crate::format::io;
use crate::format::source::Source;
use crate::kernel::par;
use crate::{Element, Error, Result};

/// Elements that one task reads.
const PIECE: usize = 1 << 18;
/// Bytes of a task's buffer: they stay in a core's cache between the read and the conversion.
const BUFFER: usize = 1 << 16;

/// An open file whose header is sound. Errors after opening do not name the file: the caller knows it.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    /// Where the data begins.
    start: u64,
    header: Header,
}

impl<'a> Reader<'a> {
    /// Opens a file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| io(path, &e))?;
        let (source, len) = Source::file(file).map_err(|e| io(path, &e))?;
        Self::new(source, len).map_err(|e| e.context(path.display()))
    }

    /// Checks the header of a byte string.
    pub(crate) fn bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::new(Source::Bytes(bytes), bytes.len() as u64)
    }

    fn new(source: Source<'a>, len: u64) -> Result<Self> {
        let mut prefix = [0; 8];
        let Some(rest) = len.checked_sub(8) else {
            return Err(Error::format(format!(
                "{len} bytes cannot hold a safetensors file, which begins with 8 bytes of length"
            )));
        };
        source.read_at(0, &mut prefix)?;
        let n = u64::from_le_bytes(prefix);
        if n > MAX_HEADER {
            return Err(Error::format(format!("the header's length {n} is past the limit of {MAX_HEADER}")));
        }
        if n > rest {
            return Err(Error::format(format!(
                "the header's length {n} is past the end of the file: {rest} bytes are left"
            )));
        }
        let mut json = vec![0; n as usize];
        source.read_at(8, &mut json)?;
        let header = Header::parse(&json, rest - n)?;
        Ok(Self { source, start: 8 + n, header })
    }

    /// The tensors in the order of their bytes.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.header.entries
    }

    /// The metadata.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The bytes of one tensor.
    pub(crate) fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.len];
        self.source.read_at(self.start + entry.begin as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// Tensors of floating-point types as arrays, in order. All are read at once, by pieces of a fixed size.
    pub(crate) fn arrays<F: Element>(&self, wanted: &[(&Entry, Float)]) -> Result<Vec<ArrayD<F>>> {
        let lengths = wanted.iter().map(|(entry, float)| entry.len / float.bytes());
        let mut values: Vec<Vec<F>> = lengths.map(|n| vec![F::zero(); n]).collect();
        let mut pieces = Vec::new();
        for (values, &(entry, float)) in values.iter_mut().zip(wanted) {
            let pieces_of = values.chunks_mut(PIECE).enumerate();
            pieces.extend(pieces_of.map(|(k, values)| Piece {
                entry,
                float,
                at: k * PIECE,
                values,
                done: Ok(()),
            }));
        }
        par::for_chunks_mut(&mut pieces, 1, |_, piece| {
            for piece in piece {
                piece.done = self.fill(piece);
            }
        });
        pieces.into_iter().try_for_each(|piece| piece.done)?;
        values
            .into_iter()
            .zip(wanted)
            .map(|(values, (entry, _))| shaped(&entry.name, &entry.shape, values))
            .collect()
    }

    fn fill<F: Element>(&self, piece: &mut Piece<'_, F>) -> Result<()> {
        let size = piece.float.bytes();
        let mut buffer = vec![0; BUFFER.min(piece.values.len() * size)];
        let step = BUFFER / size;
        for (k, values) in piece.values.chunks_mut(step).enumerate() {
            let at = piece.at + k * step;
            let buffer = &mut buffer[..values.len() * size];
            let offset = self.start + (piece.entry.begin + at * size) as u64;
            self.source.read_at(offset, buffer)?;
            piece.float.decode(buffer, values).map_err(|k| past_range::<F>(&piece.entry.name, at + k))?;
        }
        Ok(())
    }
}

/// Numbers of one tensor that one task reads.
struct Piece<'a, F> {
    entry: &'a Entry,
    float: Float,
    /// The flat index of its first number.
    at: usize,
    values: &'a mut [F],
    done: Result<()>,
}

impl Tensor<'_> {
    /// Its numbers as an array.
    pub(crate) fn to_array<F: Element>(&self) -> Result<ArrayD<F>> {
        let (name, dtype, shape) = (&*self.name, self.dtype, &*self.shape);
        let Some(float) = float(dtype) else {
            return Err(Error::unsupported(format!("tensor `{name}`: numbers of type {dtype} are not read")));
        };
        let bytes = self.bytes()?;
        if super::size(dtype, shape) != Some(bytes.len()) {
            let len = bytes.len();
            return Err(Error::format(format!(
                "tensor `{name}`: {len} bytes are not {dtype} of shape {shape:?}"
            )));
        }
        let mut values = vec![F::zero(); bytes.len() / float.bytes()];
        float.decode(&bytes, &mut values).map_err(|at| past_range::<F>(name, at))?;
        shaped(name, shape, values)
    }
}

fn shaped<F>(name: &str, shape: &[usize], values: Vec<F>) -> Result<ArrayD<F>> {
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|e| Error::format(format!("tensor `{name}`: shape {shape:?}: {e}")))
}

fn past_range<F: Element>(name: &str, at: usize) -> Error {
    Error::format(format!("tensor `{name}`: the value at flat index {at} is past the range of {}", F::DTYPE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::container::{Data, Dtype};

    fn error(bytes: &[u8]) -> String {
        Reader::bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn the_length_is_checked_first() {
        assert!(error(b"").starts_with("0 bytes cannot hold"));
        assert!(error(b"1234567").starts_with("7 bytes cannot hold"));
        assert_eq!(
            error(&[&2u64.to_le_bytes()[..], b"{"].concat()),
            "the header's length 2 is past the end of the file: 1 bytes are left"
        );
        assert_eq!(
            error(&u64::MAX.to_le_bytes()),
            format!("the header's length {} is past the limit of 100000000", u64::MAX)
        );
        assert!(error(&[&2u64.to_le_bytes()[..], b"\xff\xfe"].concat()).starts_with("the header: "));
        assert!(Reader::bytes(&[&2u64.to_le_bytes()[..], b"{}"].concat()).is_ok());
    }

    #[test]
    fn bytes_must_fit_the_shape() {
        let tensor = |dtype, shape: &[usize], bytes: &'static [u8]| Tensor {
            name: "w".into(),
            dtype,
            shape: shape.to_vec(),
            data: Data::Bytes(bytes.into()),
        };
        let error = |tensor: Tensor<'_>| tensor.to_array::<f32>().unwrap_err().to_string();
        let halves = tensor(Dtype::BF16, &[2], &[0x80, 0x3f, 0, 0]).to_array::<f32>().unwrap();
        assert_eq!(halves.as_slice().unwrap(), [1.0, 0.0]);
        assert!(error(tensor(Dtype::F32, &[2], &[0; 4])).contains("4 bytes are not F32 of shape [2]"));
        assert!(error(tensor(Dtype::I32, &[1], &[0; 4])).contains("I32 are not read"));
        // An empty array whose other axes no memory could hold.
        assert!(error(tensor(Dtype::F32, &[0, usize::MAX, usize::MAX], &[])).contains("tensor `w`: shape"));
    }
}
