//! Models in [safetensors](https://github.com/huggingface/safetensors) files.
//!
//! [`read`] takes a file, or the index of a model that is cut into shards, and gives [`Tensors`]; F64, F32, F16,
//! BF16, `F8_E4M3` and `F8_E5M2` become the asked element type. [`write()`] and [`write_model`] write F64, F32, F16 or
//! BF16, in the order and with the padding of the reference writer, so that the same input gives the same bytes.
//!
//! ```
//! use ndarray::Array;
//! use niwaki::format::safetensors::{self, Precision, WriteOptions};
//! use niwaki::{Model, Parameter};
//!
//! # fn main() -> niwaki::Result<()> {
//! # let path = std::env::temp_dir().join(format!("niwaki-doc-{}.safetensors", std::process::id()));
//! let model = Model::<f32>::builder().parameter(Parameter::linear("fc.weight", Array::ones((4, 8)))).build()?;
//! let half = WriteOptions::new().precision(Precision::F16).metadata("format", "pt");
//! let bytes = safetensors::write_model(&path, &model, &half)?;
//! assert_eq!(bytes, std::fs::metadata(&path)?.len());
//!
//! let tensors = safetensors::read::<f32>(&path)?;
//! assert_eq!(tensors.array("fc.weight")?, model.parameter("fc.weight")?.array());
//! # std::fs::remove_file(path)?;
//! # Ok(())
//! # }
//! ```

mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayViewD;

use crate::format::container::{self, Dtype, Reader, Tensor};
use crate::format::float::Float;
use crate::format::{Skipped, Tensors};
use crate::{Element, Error, Model, Result};

pub use crate::format::Precision;

/// How a file is written. Defaults: the arrays' own precision, no metadata.
///
/// ```
/// use niwaki::format::safetensors::{Precision, WriteOptions};
/// let options = WriteOptions::new().precision(Precision::BF16).metadata("format", "pt");
/// assert_ne!(options, WriteOptions::new());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    precision: Option<Precision>,
    metadata: BTreeMap<String, String>,
}

impl WriteOptions {
    /// The arrays' own precision, no metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes numbers of this type, each the nearest to its value, ties to even.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision: Some(precision), ..self }
    }

    /// Adds a word of metadata, in place of an earlier one of the same key. The transformers library asks for
    /// `format` = `pt`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}

/// Reads all floating-point tensors of a file, in the order of their bytes.
///
/// A path that ends in `.json` is the index of a model in shards (`model.safetensors.index.json`): the shards it
/// names are read from its folder, in order of their names. Integer and boolean tensors are left out and listed
/// by [`Tensors::skipped`].
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the file cannot be read;
/// [`Format`](crate::ErrorKind::Format) when it does not hold what it promises, or a number of a double is past
/// the range of `F`; [`Unsupported`](crate::ErrorKind::Unsupported) for floating-point types other than the six
/// above. The message names the file, and the tensor where it is one's fault.
pub fn read<F: Element>(path: impl AsRef<Path>) -> Result<Tensors<F>> {
    let path = path.as_ref();
    if path.extension().is_some_and(|e| e == "json") {
        return shards::read(path);
    }
    collect(&Reader::open(path)?).map_err(|e| e.context(path.display()))
}

/// Reads all floating-point tensors of a file in memory.
///
/// # Errors
/// As [`read`].
///
/// ```
/// use niwaki::ErrorKind;
/// use niwaki::format::safetensors::read_bytes;
///
/// let json = br#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
/// let file = [&(json.len() as u64).to_le_bytes()[..], json, &[0x00, 0x3c, 0x00, 0xc0]].concat();
/// let tensors = read_bytes::<f32>(&file).unwrap();
/// assert_eq!(tensors.array("w").unwrap().as_slice(), Some(&[1.0, -2.0][..]));
/// assert_eq!(read_bytes::<f32>(&file[..60]).unwrap_err().kind(), ErrorKind::Format);
/// ```
pub fn read_bytes<F: Element>(bytes: &[u8]) -> Result<Tensors<F>> {
    collect(&Reader::bytes(bytes)?)
}

/// Writes named arrays; gives the file's length in bytes.
///
/// The file is written beside its target and renamed, so that the target is either as before or complete.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the file cannot be written;
/// [`Name`](crate::ErrorKind::Name) when a name is there twice;
/// [`Unsupported`](crate::ErrorKind::Unsupported) or [`NotFinite`](crate::ErrorKind::NotFinite) when a smaller
/// precision cannot hold a value.
pub fn write<'a, F: Element>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, ArrayViewD<'a, F>)>,
    options: &WriteOptions,
) -> Result<u64> {
    let float = options.precision.map_or(Float::of::<F>(), Precision::float);
    let tensors: Vec<_> =
        tensors.into_iter().map(|(name, array)| Tensor::array(name, array, float)).collect();
    container::save(path.as_ref(), &tensors, &options.metadata)
}

/// Writes the parameters of a model; gives the file's length in bytes.
///
/// # Errors
/// As [`write()`].
pub fn write_model<F: Element>(
    path: impl AsRef<Path>,
    model: &Model<F>,
    options: &WriteOptions,
) -> Result<u64> {
    write(path, model.parameters().iter().map(|p| (p.name(), p.array().view())), options)
}

/// The floating-point tensors of an open file.
fn collect<F: Element>(reader: &Reader<'_>) -> Result<Tensors<F>> {
    let (mut wanted, mut skipped) = (Vec::new(), Vec::new());
    for entry in reader.entries() {
        match container::float(entry.dtype) {
            Some(float) => wanted.push((entry, float)),
            None if holds_no_weights(entry.dtype) => {
                skipped.push(Skipped { name: entry.name.clone(), dtype: entry.dtype.to_string() });
            }
            None => {
                let (name, dtype) = (&entry.name, entry.dtype);
                return Err(Error::unsupported(format!(
                    "tensor `{name}`: numbers of type {dtype} are not read"
                )));
            }
        }
    }
    let arrays = reader.arrays(&wanted)?;
    let named = wanted.iter().zip(arrays).map(|((entry, _), array)| (entry.name.clone(), array));
    Tensors::new(named.collect(), reader.metadata().clone(), skipped)
}

fn holds_no_weights(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, BOOL | U8 | I8 | I16 | U16 | I32 | U32 | I64 | U64)
}

#[cfg(test)]
mod tests;
