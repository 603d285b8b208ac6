//! Reading tensors, one after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use super::header::{Header, Info};
use super::kind::Meaning;
use super::value::Value;
use crate::format::float::Float;
use crate::format::source::Source;
use crate::format::{Skipped, Tensors, io};
use crate::kernel::par::{self, CHUNK};
use crate::quantize::QuantizedTensor;
use crate::{Element, Error, Result};

/// An open file whose header is sound. Errors after opening do not name the file: the caller knows it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    source: Source<'a>,
    pub(super) header: Header,
}

impl<'a> Reader<'a> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| io(path, &e))?;
        let (source, len) = Source::file(file).map_err(|e| io(path, &e))?;
        Self::new(source, len).map_err(|e| e.context(path.display()))
    }

    pub(super) fn bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::new(Source::Bytes(bytes), bytes.len() as u64)
    }

    fn new(source: Source<'a>, len: u64) -> Result<Self> {
        let header = Header::read(&source, len)?;
        Ok(Self { source, header })
    }

    /// The bytes of one tensor.
    pub(super) fn data(&self, info: &Info) -> Result<Vec<u8>> {
        let mut bytes = vec![0; info.len];
        self.source.read_at(self.header.start + info.begin, &mut bytes)?;
        Ok(bytes)
    }

    /// All tensors of numbers, decoded.
    pub(super) fn tensors<F: Element>(&self) -> Result<Tensors<F>> {
        let (mut arrays, mut skipped) = (Vec::new(), Vec::new());
        for info in &self.header.tensors {
            if info.kind.meaning() == Meaning::Integer {
                skipped.push(Skipped { name: info.name.clone(), dtype: info.kind.to_string() });
                continue;
            }
            let array = decode(info.kind.meaning(), &info.shape, self.data(info)?);
            arrays.push((
                info.name.clone(),
                array.map_err(|e| e.context(format_args!("tensor `{}`", info.name)))?,
            ));
        }
        Tensors::new(arrays, self.words(), skipped)
    }

    /// What of the metadata is one value.
    fn words(&self) -> BTreeMap<String, String> {
        let single = self.header.metadata.iter().filter(|(_, value)| !matches!(value, Value::List(_)));
        single.map(|(key, value)| (key.to_owned(), value.to_string())).collect()
    }
}

/// The numbers of a tensor's bytes.
pub(super) fn decode<F: Element>(meaning: Meaning, shape: &[usize], bytes: Vec<u8>) -> Result<ArrayD<F>> {
    match meaning {
        // Of no rows at all nothing is a block.
        Meaning::Float(_) | Meaning::Blocks(_) if bytes.is_empty() => shaped(shape, Vec::new()),
        Meaning::Float(float) => shaped(shape, numbers(float, &bytes)?),
        Meaning::Blocks(format) => {
            Ok(QuantizedTensor::read_blocks(shape, format, bytes).map_err(Error::format)?.decode())
        }
        Meaning::Integer | Meaning::Opaque => {
            Err(Error::unsupported("numbers of its type are not decoded here; `Gguf` keeps them as they are"))
        }
    }
}

fn shaped<F>(shape: &[usize], values: Vec<F>) -> Result<ArrayD<F>> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| Error::format(format!("shape {shape:?}: {e}")))
}

fn numbers<F: Element>(float: Float, bytes: &[u8]) -> Result<Vec<F>> {
    let mut values = vec![F::zero(); bytes.len() / float.bytes()];
    let tasks = values.chunks_mut(CHUNK).zip(bytes.chunks(CHUNK * float.bytes()));
    let mut tasks: Vec<_> = tasks.map(|(values, bytes)| (values, bytes, Ok(()))).collect();
    par::for_chunks_mut(&mut tasks, 1, |k, task| {
        for (values, bytes, done) in task {
            *done = float.decode(bytes, values).map_err(|at| k * CHUNK + at);
        }
    });
    let past = |at| Error::format(format!("the value at flat index {at} is past the range of {}", F::DTYPE));
    tasks.into_iter().try_for_each(|(_, _, done)| done.map_err(past))?;
    Ok(values)
}
