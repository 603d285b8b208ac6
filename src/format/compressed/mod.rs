//! A compressed model in one safetensors file.
//!
//! A dense parameter is the tensor of its name. The parts of a sparse or quantized one are the tensors
//! `{parameter}:{part}`; a part's name holds no colon, so that the last one divides. The order of the parameters
//! and what the parts cannot say stand in the metadata under the key `niwaki`, as a JSON document
//! (docs/formats.md shows it).

mod document;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::format::container::{self, Data, Dtype, Entry, Reader, Tensor};
use crate::quantize::{Part, PartType};
use crate::{Error, Result};

/// The metadata key of the document.
const KEY: &str = "niwaki";
/// The part that a dense parameter has.
pub(crate) const VALUES: &str = "values";

/// How a parameter is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One part, [`VALUES`], of the parameter's shape.
    Dense,
    /// A bitmap of what stays, and its values.
    Sparse,
    /// Codes and what decodes them.
    Quantized { scheme: String },
}

/// A parameter as the file holds it.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) name: String,
    /// The shape that it decodes to.
    pub(crate) shape: Vec<usize>,
    pub(crate) form: Form,
    /// Named after the part alone. A file gives them back in its own order.
    pub(crate) parts: Vec<Tensor<'a>>,
    /// A word on what it is to the network; may be empty.
    pub(crate) kind: String,
}

/// Writes a compressed model; gives the file's length in bytes.
pub(crate) fn save(path: &Path, records: &[Record<'_>], metadata: &BTreeMap<String, String>) -> Result<u64> {
    let (tensors, metadata) = lay_out(records, metadata).map_err(|e| e.context(path.display()))?;
    container::save(path, &tensors, &metadata)
}

/// The length of the file that [`save`] would write.
pub(crate) fn encoded_len(records: &[Record<'_>], metadata: &BTreeMap<String, String>) -> Result<u64> {
    let (tensors, metadata) = lay_out(records, metadata)?;
    container::encoded_len(&tensors, &metadata)
}

/// Reads a compressed model, with the metadata that are not the layout's own. The shapes of sparse and quantized
/// parameters are the file's word: whoever decodes the parts checks that they fit.
pub(crate) fn load(path: &Path) -> Result<(Vec<Record<'static>>, BTreeMap<String, String>)> {
    let reader = Reader::open(path)?;
    assemble(&reader).map_err(|e| e.context(path.display()))
}

impl<'a> From<Part<'a>> for Tensor<'a> {
    fn from(part: Part<'a>) -> Self {
        let dtype = match part.dtype {
            PartType::U8 => Dtype::U8,
            PartType::F16 => Dtype::F16,
            PartType::F32 => Dtype::F32,
        };
        Self { name: part.name, dtype, shape: part.shape, data: Data::Bytes(part.bytes) }
    }
}

impl<'a> TryFrom<&'a Tensor<'_>> for Part<'a> {
    type Error = Error;

    fn try_from(tensor: &'a Tensor<'_>) -> Result<Self> {
        let dtype = match tensor.dtype {
            Dtype::U8 => PartType::U8,
            Dtype::F16 => PartType::F16,
            Dtype::F32 => PartType::F32,
            other => {
                return Err(Error::format(format!("part `{}`: no codes are of type {other}", tensor.name)));
            }
        };
        let (name, shape) = (Cow::Borrowed(&*tensor.name), tensor.shape.clone());
        Ok(Self { name, dtype, shape, bytes: tensor.bytes()? })
    }
}

/// The tensors of the file, borrowing every part, and its metadata.
fn lay_out<'b>(
    records: &'b [Record<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<Tensor<'b>>, BTreeMap<String, String>)> {
    if metadata.contains_key(KEY) {
        return Err(Error::name(format!("metadata `{KEY}` is the layout's own")));
    }
    let mut tensors = Vec::new();
    for parameter in records {
        let name = &parameter.name;
        for part in &parameter.parts {
            if part.name.contains(':') {
                return Err(Error::name(format!("parameter `{name}`: part `{}` holds a colon", part.name)));
            }
            let name = match parameter.form {
                Form::Dense => name.clone(),
                _ => format!("{name}:{}", part.name),
            };
            let data = match &part.data {
                Data::Bytes(bytes) => Data::Bytes(Cow::Borrowed(bytes)),
                Data::Stream(write) => Data::Stream(Box::new(write)),
            };
            tensors.push(Tensor { name: name.into(), dtype: part.dtype, shape: part.shape.clone(), data });
        }
        let one_array = matches!(&*parameter.parts, [only] if only.shape == parameter.shape);
        if parameter.form == Form::Dense && !one_array {
            return Err(Error::shape(format!("parameter `{name}`: a dense one is one array of its shape")));
        }
    }
    let mut metadata = metadata.clone();
    metadata.insert(KEY.to_owned(), document::write(records));
    Ok((tensors, metadata))
}

fn assemble(reader: &Reader<'_>) -> Result<(Vec<Record<'static>>, BTreeMap<String, String>)> {
    let mut metadata = reader.metadata().clone();
    let Some(document) = metadata.remove(KEY) else {
        return Err(Error::format(format!("no compressed model: there is no metadata `{KEY}`")));
    };
    let mut records = document::read(&document).map_err(|e| e.context(format_args!("metadata `{KEY}`")))?;
    let mut at = HashMap::new();
    for (k, parameter) in records.iter().enumerate() {
        if at.insert(parameter.name.clone(), k).is_some() {
            return Err(Error::format(format!("two parameters are named `{}`", parameter.name)));
        }
    }
    for entry in reader.entries() {
        let (k, part) = owner(&entry.name, &records, &at)
            .ok_or_else(|| Error::format(format!("tensor `{}` is part of no parameter", entry.name)))?;
        let data = reader.data(entry)?;
        records[k].parts.push(tensor(part, entry, data));
    }
    for parameter in &mut records {
        match (&parameter.form, parameter.parts.first()) {
            (_, None) => return Err(Error::format(format!("parameter `{}` has no tensor", parameter.name))),
            (Form::Dense, Some(values)) => parameter.shape.clone_from(&values.shape),
            _ => {}
        }
    }
    Ok((records, metadata))
}

/// Which parameter a tensor belongs to, and as which part.
fn owner(tensor: &str, records: &[Record<'_>], at: &HashMap<String, usize>) -> Option<(usize, String)> {
    let dense = |k: usize| records[k].form == Form::Dense;
    if let Some(&k) = at.get(tensor).filter(|&&k| dense(k)) {
        return Some((k, VALUES.to_owned()));
    }
    let (parameter, part) = tensor.rsplit_once(':')?;
    let &k = at.get(parameter).filter(|&&k| !dense(k))?;
    Some((k, part.to_owned()))
}

fn tensor(part: String, entry: &Entry, data: Vec<u8>) -> Tensor<'static> {
    let (dtype, shape) = (entry.dtype, entry.shape.clone());
    Tensor { name: part.into(), dtype, shape, data: Data::Bytes(data.into()) }
}

#[cfg(test)]
mod tests;
