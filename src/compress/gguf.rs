//! A compressed network in a GGUF file.

use std::path::Path;

use crate::compress::{Compressed, Entry, Stored};
use crate::format::data::Data;
use crate::format::float::Float;
use crate::format::gguf::{self, Draft, TensorType, WriteOptions};
use crate::quantize::{BlockFormat, FloatFormat, QuantizedTensor, ScaleType, Scheme, Scope, Symmetry};
use crate::{Element, Error, Result};

/// Weights that share a scale in the blocks that hold integers of one step size.
const GROUP: usize = 32;

impl<F: Element> Compressed<F> {
    /// Writes a GGUF file, whole or not at all; gives its length in bytes.
    ///
    /// | stored as | becomes |
    /// |---|---|
    /// | dense, sparse | plain numbers |
    /// | `ggml …` | its blocks, as they are |
    /// | `f16`, `bf16` | F16, BF16 |
    /// | `int8 symmetric group:32 f16-scales` | `Q8_0`, to the same values |
    /// | `int4 symmetric group:32 f16-scales` | `Q4_0`, to the same values |
    ///
    /// Kinds, couplings and blocks stay behind: the format has no place for them.
    ///
    /// # Errors
    /// As [`format::gguf::write`](crate::format::gguf::write()); [`Unsupported`](crate::ErrorKind::Unsupported), before
    /// anything is written, for every other scheme (unless [`WriteOptions::decoded`] says what becomes of it), for rows
    /// that are no multiple of 32 in a scheme of groups, and for masks of output maps.
    pub fn save_gguf(&self, path: impl AsRef<Path>, options: &WriteOptions) -> Result<u64> {
        let path = path.as_ref();
        let drafts = || {
            if let Some((layer, _)) = self.maps.first() {
                let why = "masks of output maps have no place in a GGUF file";
                return Err(Error::unsupported(format!("layer `{layer}`: {why}")));
            }
            self.entries.iter().map(|entry| draft(entry, options)).collect::<Result<Vec<_>>>()
        };
        let drafts = drafts().map_err(|e| e.context(path.display()))?;
        gguf::save(path, &drafts, &gguf::completed(options.pairs(), &drafts))
    }
}

fn draft<'a, F: Element>(entry: &'a Entry<F>, options: &WriteOptions) -> Result<Draft<'a>> {
    let name = entry.name();
    match entry.stored() {
        Stored::Dense(array) => Ok(Draft::array(name, array.view(), options.float::<F>(array.ndim()))),
        Stored::Sparse(sparse) => {
            let float = options.float::<F>(sparse.shape().len());
            let write = move |out: &mut dyn std::io::Write| float.write(name, &sparse.decode().view(), out);
            let (shape, kind) = (sparse.shape().to_vec(), float.into());
            Ok(Draft { name: name.into(), shape, kind, data: Data::Stream(Box::new(write)) })
        }
        Stored::Quantized(tensor) => quantized::<F>(name, tensor, options),
    }
}

fn quantized<'a, F: Element>(
    name: &'a str,
    tensor: &'a QuantizedTensor,
    options: &WriteOptions,
) -> Result<Draft<'a>> {
    let draft =
        |kind: TensorType, data| Draft { name: name.into(), shape: tensor.shape().to_vec(), kind, data };
    let plain = |float: Float| {
        let write = move |out: &mut dyn std::io::Write| float.write(name, &tensor.decode::<F>().view(), out);
        draft(float.into(), Data::Stream(Box::new(write)))
    };
    if let Some((format, blocks)) = tensor.blocks_of_ggml() {
        return Ok(draft(format.into(), Data::Bytes(blocks.into())));
    }
    let refused = match tensor.scheme() {
        Scheme::Float(FloatFormat::F16) => return Ok(plain(Float::F16)),
        Scheme::Float(FloatFormat::Bf16) => return Ok(plain(Float::BF16)),
        scheme => match same_blocks(scheme, tensor.shape()) {
            Ok(format) => return Ok(draft(format.into(), Data::Bytes(regrouped(tensor, format)?.into()))),
            Err(why) => why,
        },
    };
    if let Some(float) = options.decoded_float() {
        return Ok(plain(float));
    }
    let scheme = tensor.scheme();
    Err(Error::unsupported(format!("layer `{name}`: no GGUF type holds `{scheme}`: {refused}")))
}

/// The blocks that hold a scheme exactly, or why none do.
fn same_blocks(scheme: &Scheme, shape: &[usize]) -> Result<BlockFormat, &'static str> {
    let Scheme::Int { bits, symmetry, scope, scales } = scheme else {
        return Err(match scheme {
            Scheme::Planes { .. } => "sums of planes have no blocks",
            _ => "of small floats there are f16 and bf16",
        });
    };
    if !matches!(scope, Scope::Group { size, axis: 1 } if size.get() == GROUP) {
        return Err("blocks have one scale for each 32 weights of a row: group:32");
    }
    if *symmetry == Symmetry::Affine || *scales == ScaleType::F32 {
        return Err("their scales are halves and codes lie around 0: symmetric, f16-scales");
    }
    if shape.last().is_none_or(|row| !row.is_multiple_of(GROUP)) {
        return Err("its rows are no multiple of 32");
    }
    match bits.get() {
        8 => Ok(BlockFormat::Q8_0),
        4 => Ok(BlockFormat::Q4_0),
        _ => Err("such blocks have 4 or 8 bits"),
    }
}

/// Scales and codes of groups of 32 in one.
fn regrouped(tensor: &QuantizedTensor, format: BlockFormat) -> Result<Vec<u8>> {
    let codes = tensor.codes()?;
    let mut blocks = Vec::with_capacity(codes.len() / GROUP * format.bytes());
    for (codes, &scale) in codes.as_chunks::<GROUP>().0.iter().zip(tensor.scales()) {
        let mut half = [0; 2];
        // A scale in half precision is one.
        Float::F16
            .encode(&[scale], &mut half)
            .map_err(|_| Error::unsupported("a scale is past half precision"))?;
        blocks.extend(half);
        if format == BlockFormat::Q8_0 {
            blocks.extend(codes);
        } else {
            let (low, high) = codes.split_at(GROUP / 2);
            blocks
                .extend(low.iter().zip(high).map(|(&a, &b)| a.wrapping_add(8) & 15 | b.wrapping_add(8) << 4));
        }
    }
    Ok(blocks)
}
