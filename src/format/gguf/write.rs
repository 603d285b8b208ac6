//! Writing tensors one after the other, in their order, each from a multiple of the alignment on.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use ndarray::ArrayViewD;

use super::header::{MAGIC, MOST_AXES, VERSION, alignment};
use super::kind::{Meaning, TensorType};
use super::value::{Metadata, Value, write_text};
use crate::format::atomic;
use crate::format::data::{Counting, Data};
use crate::format::float::Float;
use crate::{Element, Error, Result};

/// The most bytes of a tensor's name: ggml keeps 64, the last of them a zero.
const MOST_NAME: usize = 63;
/// Which rules of ggml its blocks follow.
const QUANTIZATION_VERSION: u32 = 2;

/// A tensor to be written.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: TensorType,
    pub(crate) data: Data<'a>,
}

impl<'a> Draft<'a> {
    /// An array, in this floating-point type.
    pub(crate) fn array<F: Element>(name: &'a str, array: ArrayViewD<'a, F>, float: Float) -> Self {
        let (shape, kind) = (array.shape().to_vec(), TensorType::from(float));
        let data = Data::Stream(Box::new(move |out| float.write(name, &array, out)));
        Self { name: name.into(), shape, kind, data }
    }
}

/// The keys that every file should have, where they are missing.
pub(crate) fn completed(metadata: &Metadata, tensors: &[Draft<'_>]) -> Metadata {
    let mut metadata = metadata.clone();
    let blocks = |kind: TensorType| matches!(kind.meaning(), Meaning::Blocks(_) | Meaning::Opaque);
    for (key, value, needed) in [
        ("general.architecture", Value::from("unknown"), true),
        (
            "general.quantization_version",
            Value::from(QUANTIZATION_VERSION),
            tensors.iter().any(|t| blocks(t.kind)),
        ),
    ] {
        if needed && metadata.get(key).is_none() {
            metadata.set(key, value);
        }
    }
    metadata
}

/// Writes the file, whole or not at all; gives its length.
pub(crate) fn save(path: &Path, tensors: &[Draft<'_>], metadata: &Metadata) -> Result<u64> {
    let (header, alignment) = header(tensors, metadata).map_err(|e| e.context(path.display()))?;
    atomic::write(path, |file| {
        let mut out = Counting { out: BufWriter::with_capacity(1 << 16, file), bytes: 0 };
        out.write_all(&header)?;
        for tensor in tensors {
            let start = out.bytes;
            tensor.data.write(&mut out)?;
            let written = out.bytes - start;
            if tensor.kind.len(&tensor.shape).map(|len| len as u64) != Ok(written) {
                let Draft { name, shape, kind, .. } = tensor;
                let what = format!("tensor `{name}`: {written} bytes are not {kind} of shape {shape:?}");
                return Err(Error::format(what));
            }
            pad(&mut out, alignment)?;
        }
        Ok(out.flush()?)
    })
}

fn pad<W: Write>(out: &mut Counting<W>, alignment: u64) -> Result<()> {
    let missing = out.bytes.next_multiple_of(alignment) - out.bytes;
    Ok(std::io::copy(&mut std::io::Read::take(std::io::repeat(0), missing), out).map(drop)?)
}

/// All bytes before the data, and the alignment.
fn header(tensors: &[Draft<'_>], metadata: &Metadata) -> Result<(Vec<u8>, u64)> {
    let alignment = u64::from(alignment(metadata)?);
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_text(key, &mut out);
        value.write(&mut out);
    }
    let (mut begin, mut names) = (0u64, HashSet::new());
    for tensor in tensors {
        check(tensor, &mut names).map_err(|e| e.context(format_args!("tensor `{}`", tensor.name)))?;
        write_text(&tensor.name, &mut out);
        // A single number has an axis too: not all readers know what has none.
        let axes = tensor.shape.iter().rev().copied().chain(tensor.shape.is_empty().then_some(1));
        out.extend((tensor.shape.len().max(1) as u32).to_le_bytes());
        axes.for_each(|dim| out.extend((dim as u64).to_le_bytes()));
        out.extend(tensor.kind.id().to_le_bytes());
        out.extend(begin.to_le_bytes());
        let len = tensor.kind.len(&tensor.shape).map_err(Error::shape)? as u64;
        let end = begin.checked_add(len).and_then(|end| end.checked_next_multiple_of(alignment));
        begin = end.ok_or_else(|| Error::shape(format!("tensor `{}` ends past all offsets", tensor.name)))?;
    }
    out.resize(out.len().next_multiple_of(alignment as usize), 0);
    Ok((out, alignment))
}

fn check<'a>(tensor: &'a Draft<'_>, names: &mut HashSet<&'a str>) -> Result<()> {
    let (len, axes) = (tensor.name.len(), tensor.shape.len());
    if len > MOST_NAME {
        return Err(Error::name(format!("its name has {len} bytes, and at most {MOST_NAME} can be")));
    }
    if axes > MOST_AXES {
        return Err(Error::shape(format!("it has {axes} axes, and at most {MOST_AXES} can be")));
    }
    if !names.insert(&tensor.name) {
        return Err(Error::name("the name is there twice"));
    }
    Ok(())
}
