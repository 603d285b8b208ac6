//! The header of a GGUF file: what is where, and whether that can be.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::kind::TensorType;
use super::value::{Metadata, Value};
use crate::format::source::Source;
use crate::{Error, Result};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
pub(super) const VERSION: u32 = 3;
/// The key that says what offsets are multiples of, and what they are where it is not there.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
pub(super) const ALIGNMENT: u32 = 32;
/// The most axes that ggml's tensors have.
pub(super) const MOST_AXES: usize = 4;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Info {
    pub(super) name: String,
    /// In row-major order: the last axis is the one whose numbers are neighbours, which the file has first.
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorType,
    /// Where its bytes begin, from the data's start.
    pub(super) begin: u64,
    pub(super) len: usize,
}

/// All that stands before the data.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// In the order of the file.
    pub(super) tensors: Vec<Info>,
    /// Where the data begins.
    pub(super) start: u64,
}

impl Header {
    pub(super) fn read(source: &Source<'_>, len: u64) -> Result<Self> {
        let mut cursor = Cursor::new(source, len);
        check_start(&mut cursor)?;
        // A name's length, axes, type and offset; a key's length, type and one byte.
        let tensors = cursor.count("tensors", 24)?;
        let pairs = cursor.count("pairs of metadata", 13)?;
        let metadata = read_metadata(&mut cursor, pairs)?;
        let alignment = alignment(&metadata)?;
        let (mut infos, mut names) = (Vec::new(), HashSet::new());
        for at in 0..tensors {
            let info =
                read_info(&mut cursor, alignment).map_err(|e| e.context(format_args!("tensor {at}")))?;
            if !names.insert(info.name.clone()) {
                return Err(Error::format(format!("two tensors are named `{}`", info.name)));
            }
            infos.push(info);
        }
        let start = cursor.at().next_multiple_of(u64::from(alignment));
        check_places(&infos, len.saturating_sub(start))?;
        Ok(Self { metadata, tensors: infos, start })
    }
}

fn check_start(cursor: &mut Cursor<'_, '_>) -> Result<()> {
    let magic: [u8; 4] = cursor.bytes()?;
    if magic != MAGIC {
        return Err(Error::format(format!("no GGUF file: it begins with {magic:02x?}")));
    }
    match cursor.u32()? {
        // Version 2 differs in nothing that is read here.
        2 | VERSION => Ok(()),
        other if other.swap_bytes() <= VERSION => {
            Err(Error::unsupported("a GGUF file of big-endian numbers is not read"))
        }
        other => Err(Error::unsupported(format!("GGUF version {other}; versions 2 and {VERSION} are read"))),
    }
}

fn read_metadata(cursor: &mut Cursor<'_, '_>, count: u64) -> Result<Metadata> {
    let (mut pairs, mut keys) = (Vec::new(), HashSet::new());
    for at in 0..count {
        let key = cursor.text().map_err(|e| e.context(format_args!("key {at}")))?;
        let value = cursor.value().map_err(|e| e.context(format_args!("key `{key}`")))?;
        if !keys.insert(key.clone()) {
            return Err(Error::format(format!("the key `{key}` is there twice")));
        }
        pairs.push((key, value));
    }
    Ok(Metadata::of(pairs))
}

/// What offsets must be multiples of.
pub(super) fn alignment(metadata: &Metadata) -> Result<u32> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(*alignment),
        Some(other) => {
            Err(Error::format(format!("key `{ALIGNMENT_KEY}`: {other} is no power of two of type U32")))
        }
    }
}

fn read_info(cursor: &mut Cursor<'_, '_>, alignment: u32) -> Result<Info> {
    let name = cursor.text()?;
    let rest = read_rest(cursor, alignment).map_err(|e| e.context(format_args!("`{name}`")));
    rest.map(|(shape, kind, begin, len)| Info { name, shape, kind, begin, len })
}

fn read_rest(cursor: &mut Cursor<'_, '_>, alignment: u32) -> Result<(Vec<usize>, TensorType, u64, usize)> {
    let axes = cursor.u32()? as usize;
    if axes > MOST_AXES {
        return Err(Error::format(format!("{axes} axes, and at most {MOST_AXES} can be")));
    }
    let mut shape = Vec::with_capacity(axes);
    for _ in 0..axes {
        let dim = cursor.u64()?;
        let dim = usize::try_from(dim)
            .map_err(|_| Error::format(format!("an axis of {dim} is longer than memory could hold")))?;
        shape.push(dim);
    }
    shape.reverse();
    let id = cursor.u32()?;
    let kind =
        TensorType::by_id(id).ok_or_else(|| Error::format(format!("tensors of type {id} are not known")))?;
    let begin = cursor.u64()?;
    if !begin.is_multiple_of(u64::from(alignment)) {
        return Err(Error::format(format!("its offset {begin} is no multiple of the alignment {alignment}")));
    }
    let len = kind.len(&shape).map_err(Error::format)?;
    Ok((shape, kind, begin, len))
}

/// Tensors lie within the data and share none of it.
fn check_places(tensors: &[Info], data: u64) -> Result<()> {
    let mut order: Vec<&Info> = tensors.iter().filter(|info| info.len > 0).collect();
    order.sort_by_key(|info| info.begin);
    let mut before: Option<(&Info, u64)> = None;
    for info in order {
        let Info { name, begin, len, .. } = info;
        let end = begin.checked_add(*len as u64).filter(|&end| end <= data).ok_or_else(|| {
            Error::format(format!(
                "tensor `{name}`: {len} bytes from {begin} on are past the end of the data, {data}"
            ))
        })?;
        if let Some((other, _)) = before.filter(|(_, end)| end > begin) {
            return Err(Error::format(format!("tensors `{}` and `{name}` share bytes", other.name)));
        }
        before = Some((info, end));
    }
    Ok(())
}
