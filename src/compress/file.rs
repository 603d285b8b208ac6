//! A compressed network in one safetensors file; docs/formats.md shows the layout.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use serde_json::{Value, json};

use crate::compress::kind;
use crate::compress::{Compressed, Entry, SparseTensor, Stored};
use crate::format::compressed::{self as layout, Form, Record, VALUES};
use crate::format::container::{Data, Dtype, Tensor};
use crate::format::float::Float;
use crate::model::Mask;
use crate::quantize::{Part, QuantizedTensor};
use crate::{Block, Element, Error, Result};

/// The part of a sparse parameter that says which values there are.
const SUPPORT: &str = "support";
/// The metadata keys of masks of output maps, and of blocks.
const MAPS: &str = "niwaki.maps";
const BLOCKS: &str = "niwaki.blocks";

impl<F: Element> Compressed<F> {
    /// Writes the file, whole or not at all; gives its length, which is [`Report::bytes`](crate::Report::bytes).
    ///
    /// # Errors
    /// The system refuses, or two tensors would get one name; the message names the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64> {
        layout::save(path.as_ref(), &self.records(), &self.metadata())
    }

    /// Reads a file back: equal to what was saved, bit for bit.
    ///
    /// # Errors
    /// The file is not there, or does not hold what its layout promises; the message names the path and the
    /// parameter.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (records, metadata) = layout::load(path)?;
        let read = || {
            let entries = records.iter().map(entry).collect::<Result<Vec<_>>>()?;
            Ok(Self::from_parts(entries, read_blocks(&metadata)?, read_maps(&metadata)?))
        };
        read().map_err(|e: Error| e.context(path.display()))
    }

    /// Bytes of the file; without its tensors where they cannot be laid out, which [`save`](Self::save) reports.
    pub(super) fn encoded_len(&self) -> usize {
        layout::encoded_len(&self.records(), &self.metadata()).map_or(0, |len| len as usize)
    }

    fn records(&self) -> Vec<Record<'_>> {
        self.entries.iter().map(record).collect()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::new();
        if !self.maps.is_empty() {
            let map = |(name, mask): &(String, Mask)| json!([name, mask.shape(), hex(mask.words())]);
            metadata.insert(MAPS.to_owned(), self.maps.iter().map(map).collect::<Value>().to_string());
        }
        if !self.blocks.is_empty() {
            let block = |b: &Block| json!([b.name(), b.pairs()]);
            metadata.insert(BLOCKS.to_owned(), self.blocks.iter().map(block).collect::<Value>().to_string());
        }
        metadata
    }
}

fn record<F: Element>(entry: &Entry<F>) -> Record<'_> {
    let (form, parts) = match &entry.stored {
        Stored::Dense(array) => (Form::Dense, vec![Tensor::array(VALUES, array.view(), Float::of::<F>())]),
        Stored::Sparse(sparse) => (Form::Sparse, sparse_parts(sparse)),
        Stored::Quantized(tensor) => {
            let form = Form::Quantized { scheme: tensor.scheme().to_string() };
            (form, tensor.parts().into_iter().map(Tensor::from).collect())
        }
    };
    let kind = kind::write(&entry.kind, entry.out_axis, entry.in_axis);
    Record { name: entry.name.clone(), shape: entry.stored.shape().to_vec(), form, parts, kind }
}

fn sparse_parts<F: Element>(sparse: &SparseTensor<F>) -> Vec<Tensor<'_>> {
    let bitmap: Vec<u8> = sparse.support().words().iter().flat_map(|word| word.to_le_bytes()).collect();
    let values = ndarray::ArrayView1::from(sparse.values()).into_dyn();
    let shape = vec![bitmap.len()];
    let support = Tensor { name: SUPPORT.into(), dtype: Dtype::U8, shape, data: Data::Bytes(bitmap.into()) };
    vec![support, Tensor::array(VALUES, values, Float::of::<F>())]
}

fn entry<F: Element>(record: &Record<'_>) -> Result<Entry<F>> {
    let name = &record.name;
    let read = || {
        let stored = match &record.form {
            Form::Dense => Stored::Dense(part(record, VALUES)?.to_array()?),
            Form::Sparse => Stored::Sparse(read_sparse(record)?),
            Form::Quantized { scheme } => {
                let parts = record.parts.iter().map(Part::try_from).collect::<Result<Vec<_>>>()?;
                Stored::Quantized(QuantizedTensor::from_parts(&record.shape, scheme.parse()?, &parts)?)
            }
        };
        let axes = stored.shape().len();
        let (kind, out_axis, in_axis) = kind::read(&record.kind, axes)?;
        Ok(Entry { name: name.clone(), kind, out_axis, in_axis, stored })
    };
    read().map_err(|e: Error| e.context(format_args!("parameter `{name}`")))
}

fn part<'a, 'b>(record: &'a Record<'b>, name: &str) -> Result<&'a Tensor<'b>> {
    let found = record.parts.iter().find(|part| part.name == name);
    found.ok_or_else(|| Error::format(format!("it has no part `{name}`")))
}

fn read_sparse<F: Element>(record: &Record<'_>) -> Result<SparseTensor<F>> {
    let bytes = part(record, SUPPORT)?.bytes()?;
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let support = Mask::from_words(&record.shape, words).filter(|_| rest.is_empty());
    let shape = &record.shape;
    let support = support.ok_or_else(|| {
        Error::format(format!("a bitmap of {} bytes is not that of the shape {shape:?}", bytes.len()))
    })?;
    let values: ArrayD<F> = part(record, VALUES)?.to_array()?;
    SparseTensor::from_parts(support, values.into_iter().collect())
}

fn read_blocks(metadata: &BTreeMap<String, String>) -> Result<Vec<Block>> {
    let Some(text) = metadata.get(BLOCKS) else { return Ok(Vec::new()) };
    let blocks: Vec<(String, Vec<(String, String)>)> = parse(BLOCKS, text)?;
    Ok(blocks.into_iter().map(|(name, pairs)| Block::from_pairs(name, pairs)).collect())
}

fn read_maps(metadata: &BTreeMap<String, String>) -> Result<Vec<(String, Mask)>> {
    let Some(text) = metadata.get(MAPS) else { return Ok(Vec::new()) };
    let maps: Vec<(String, Vec<usize>, String)> = parse(MAPS, text)?;
    let map = |(name, shape, bits): (String, Vec<usize>, String)| {
        let mask = unhex(&bits).and_then(|words| Mask::from_words(&shape, words));
        let mask = mask.ok_or_else(|| {
            Error::format(format!("metadata `{MAPS}`: the mask of `{name}` is not {shape:?}"))
        })?;
        Ok((name, mask))
    };
    maps.into_iter().map(map).collect()
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::format(format!("metadata `{key}`: {e}")))
}

/// Sixteen digits a word.
fn hex(words: &[u64]) -> String {
    words.iter().map(|word| format!("{word:016x}")).collect::<Vec<_>>().concat()
}

fn unhex(digits: &str) -> Option<Vec<u64>> {
    let (words, rest) = digits.as_bytes().as_chunks::<16>();
    let word = |digits: &[u8; 16]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    if rest.is_empty() { words.iter().map(word).collect() } else { None }
}
