//! Models in [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) files, which llama.cpp and others built
//! on ggml run.
//!
//! [`read`] decodes floats and the blocks of [`Ggml`](crate::quantize::Ggml) to the asked element type. [`write()`] and
//! [`write_model`] write plain numbers; a compressed network with its codes is written by
//! [`Compressed::save_gguf`](crate::Compressed::save_gguf). [`Gguf`] is a file as it is, undecoded: read and saved again
//! it has the same bytes.
//!
//! ```
//! use ndarray::Array;
//! use niwaki::format::gguf::{self, WriteOptions};
//! use niwaki::quantize::Ggml;
//! use niwaki::{Compressor, Model, Parameter};
//!
//! # fn main() -> niwaki::Result<()> {
//! # let path = std::env::temp_dir().join(format!("niwaki-doc-{}.gguf", std::process::id()));
//! let weights = Array::from_shape_fn((8, 256), |(i, j)| ((1 + 3 * i + 5 * j) as f32).sin());
//! let model = Model::builder().parameter(Parameter::linear("fc.weight", weights)).build()?;
//! let compressor = Compressor::builder().quantizer(Ggml::q4_k()).build()?;
//! let compressed = compressor.compress(&model, &compressor.evidence(&model))?;
//! compressed.save_gguf(&path, &WriteOptions::new().metadata("general.architecture", "mine"))?;
//!
//! let tensors = gguf::read::<f32>(&path)?;
//! assert_eq!(tensors.array("fc.weight")?, &compressed.array("fc.weight")?);
//! assert_eq!(tensors.metadata()["general.architecture"], "mine");
//! # std::fs::remove_file(path)?;
//! # Ok(())
//! # }
//! ```

mod cursor;
mod header;
mod kind;
mod read;
mod value;
mod write;

use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};

use crate::format::data::Data;
use crate::format::float::Float;
use crate::format::{Precision, Tensors};
use crate::{Element, Model, Result};

use read::Reader;

pub use kind::TensorType;
pub use value::{List, Metadata, Value};
pub(crate) use write::{Draft, completed, save};

/// How a file is written. Defaults: the arrays' own precision; no metadata but the architecture `unknown` and, where
/// there are blocks, the version of their rules, both of which readers ask for; what no GGUF type holds is refused.
///
/// ```
/// use niwaki::format::Precision;
/// use niwaki::format::gguf::WriteOptions;
/// let options = WriteOptions::new().precision(Precision::F16).metadata("general.name", "small");
/// assert_ne!(options, WriteOptions::new());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOptions {
    precision: Option<Precision>,
    decoded: Option<Precision>,
    metadata: Metadata,
}

impl WriteOptions {
    /// The arrays' own precision, no metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes plain numbers in this type, each the nearest to its value, ties to even. Vectors stay at single precision
    /// where it is a smaller one, as in llama.cpp's files.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision: Some(precision), ..self }
    }

    /// Writes codes that no GGUF type holds as plain numbers of this type, in place of refusing them.
    pub fn decoded(self, precision: Precision) -> Self {
        Self { decoded: Some(precision), ..self }
    }

    /// Adds a value, in place of an earlier one of the same key. `general.alignment`, a power of two, says what tensors
    /// are aligned to.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.set(key, value);
        self
    }

    /// Takes over the metadata of another file, in its order.
    pub fn all_metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// The type that an array of so many axes is written in.
    pub(crate) fn float<F: Element>(&self, axes: usize) -> Float {
        let float = self.precision.map_or(Float::of::<F>(), Precision::float);
        if axes < 2 && float.bytes() < 4 { Float::F32 } else { float }
    }

    /// The type of what no GGUF type holds.
    pub(crate) fn decoded_float(&self) -> Option<Float> {
        self.decoded.map(Precision::float)
    }

    pub(crate) fn pairs(&self) -> &Metadata {
        &self.metadata
    }
}

/// Reads all tensors of numbers, in the order of the file. Integers are left out and listed by [`Tensors::skipped`].
/// Values of the metadata that are no arrays are there as words; [`read_metadata`] has all.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the file cannot be read;
/// [`Format`](crate::ErrorKind::Format) when it does not hold what it promises, or a number is past the range of `F`;
/// [`Unsupported`](crate::ErrorKind::Unsupported) for big-endian files, version 1, and blocks of other formats than
/// [`BlockFormat`](crate::quantize::BlockFormat)'s. The message names the file, and the tensor or key whose fault it is.
pub fn read<F: Element>(path: impl AsRef<Path>) -> Result<Tensors<F>> {
    let path = path.as_ref();
    Reader::open(path)?.tensors().map_err(|e| e.context(path.display()))
}

/// As [`read`], of a file in memory.
///
/// # Errors
/// As [`read`].
///
/// ```
/// use niwaki::ErrorKind;
/// let error = niwaki::format::gguf::read_bytes::<f32>(b"GGML").unwrap_err();
/// assert_eq!(error.to_string(), "no GGUF file: it begins with [47, 47, 4d, 4c]");
/// ```
pub fn read_bytes<F: Element>(bytes: &[u8]) -> Result<Tensors<F>> {
    Reader::bytes(bytes)?.tensors()
}

/// Reads the metadata alone, without any tensor.
///
/// # Errors
/// As [`read`].
pub fn read_metadata(path: impl AsRef<Path>) -> Result<Metadata> {
    Reader::open(path.as_ref()).map(|reader| reader.header.metadata)
}

/// Writes named arrays as plain numbers; gives the file's length in bytes.
///
/// The file is written beside its target and renamed, so that the target is either as before or complete.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when the file cannot be written; [`Name`](crate::ErrorKind::Name) when a name
/// is there twice or has more than 63 bytes; [`Shape`](crate::ErrorKind::Shape) for more than 4 axes;
/// [`Unsupported`](crate::ErrorKind::Unsupported) or [`NotFinite`](crate::ErrorKind::NotFinite) when a smaller precision
/// cannot hold a value; [`Format`](crate::ErrorKind::Format) for an alignment that is no power of two.
pub fn write<'a, F: Element>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, ArrayViewD<'a, F>)>,
    options: &WriteOptions,
) -> Result<u64> {
    let draft = |(name, array): (&'a str, ArrayViewD<'a, F>)| {
        let float = options.float::<F>(array.ndim());
        Draft::array(name, array, float)
    };
    let tensors: Vec<Draft<'_>> = tensors.into_iter().map(draft).collect();
    save(path.as_ref(), &tensors, &completed(&options.metadata, &tensors))
}

/// Writes the parameters of a model as plain numbers; gives the file's length in bytes.
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

/// A whole file as it is: metadata in order, tensors undecoded, those of types that are not decoded here included.
///
/// Saved unchanged it is the same file, byte by byte, if it was laid out as the writers of ggml and of the Python package `gguf` do: version 3,
/// tensors in the order of their names in the header, and zeros between them.
///
/// ```
/// use niwaki::format::gguf::{self, Gguf, WriteOptions};
///
/// # fn main() -> niwaki::Result<()> {
/// # let path = std::env::temp_dir().join(format!("niwaki-whole-{}.gguf", std::process::id()));
/// let array = ndarray::arr2(&[[1.0f32, 2.0]]).into_dyn();
/// gguf::write(&path, [("w", array.view())], &WriteOptions::new())?;
/// let before = std::fs::read(&path)?;
/// let file = Gguf::read(&path)?;
/// assert_eq!(file.tensors()[0].decode::<f32>()?, array);
/// file.save(&path)?;
/// assert_eq!(std::fs::read(&path)?, before);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<Tensor>,
}

impl Gguf {
    /// Reads all of a file into memory.
    ///
    /// # Errors
    /// As [`read`], but for types that are not decoded.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::of(&Reader::open(path)?).map_err(|e| e.context(path.display()))
    }

    /// As [`read`](Self::read), of a file in memory.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(bytes: &[u8]) -> Result<Self> {
        Self::of(&Reader::bytes(bytes)?)
    }

    fn of(reader: &Reader<'_>) -> Result<Self> {
        let tensor = |info: &header::Info| {
            let (name, shape, kind) = (info.name.clone(), info.shape.clone(), info.kind);
            Ok(Tensor { name, shape, kind, data: reader.data(info)? })
        };
        let tensors = reader.header.tensors.iter().map(tensor).collect::<Result<_>>()?;
        Ok(Self { metadata: reader.header.metadata.clone(), tensors })
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The file's metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Writes the file; gives its length in bytes.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64> {
        let tensors: Vec<Draft<'_>> = self.tensors.iter().map(Tensor::draft).collect();
        save(path.as_ref(), &tensors, &self.metadata)
    }
}

/// One tensor of a [`Gguf`].
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    data: Vec<u8>,
}

impl Tensor {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape in row-major order, the reverse of the file's.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its numbers.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Its bytes as they are.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Its numbers.
    ///
    /// # Errors
    /// They are integers or blocks of a format that is not decoded, or hold what such blocks cannot.
    pub fn decode<F: Element>(&self) -> Result<ArrayD<F>> {
        let decoded = read::decode(self.kind.meaning(), &self.shape, self.data.clone());
        decoded.map_err(|e| e.context(format_args!("tensor `{}`", self.name)))
    }

    fn draft(&self) -> Draft<'_> {
        let (name, data) = (self.name.as_str().into(), Data::Bytes(self.data.as_slice().into()));
        Draft { name, shape: self.shape.clone(), kind: self.kind, data }
    }
}

#[cfg(test)]
mod tests;
