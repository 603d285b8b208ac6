//! The header: what is where, and whether that can be.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{METADATA, size};
use crate::{Error, Result};

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Where its bytes begin, from the data's start.
    pub(crate) begin: usize,
    /// How many there are.
    pub(crate) len: usize,
}

/// All tensors of a file in the order of their bytes, which follow each other without a hole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) entries: Vec<Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Parses the JSON of a file that has `data` bytes after it.
    pub(crate) fn parse(json: &[u8], data: u64) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(json).map_err(|e| Error::format(format!("the header: {e}")))?;
        let mut tensors = raw.tensors;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut entries: Vec<Entry> = Vec::with_capacity(tensors.len());
        for (name, info) in tensors {
            let entry = entry(name, info, entries.last())?;
            entries.push(entry);
        }
        check_end(entries.last(), data)?;
        check_names(&entries)?;
        Ok(Self { entries, metadata: raw.metadata })
    }
}

/// One tensor of the header, after the one whose bytes precede it.
fn entry(name: String, info: TensorInfo, before: Option<&Entry>) -> Result<Entry> {
    let TensorInfo { dtype, shape, data_offsets: (begin, end) } = info;
    let fail = |what: String| Err(Error::format(format!("tensor `{name}`: {what}")));
    let Some(len) = size(dtype, &shape) else {
        return fail(format!("{dtype} of shape {shape:?} is no number of bytes that memory could hold"));
    };
    if end < begin {
        return fail(format!("its bytes begin at {begin} and end before that, at {end}"));
    }
    if end - begin != len {
        return fail(format!(
            "{dtype} of shape {shape:?} takes {len} bytes, and its offsets span {}",
            end - begin
        ));
    }
    let (last, expected) = before.map_or(("", 0), |b| (b.name.as_str(), b.begin + b.len));
    if begin < expected {
        return fail(format!(
            "its bytes begin at {begin}, inside those of `{last}`, which end at {expected}"
        ));
    }
    if begin > expected {
        return fail(format!("its bytes begin at {begin}, and those from {expected} on belong to no tensor"));
    }
    Ok(Entry { name, dtype, shape, begin, len })
}

/// The data must hold the last tensor and nothing after it.
fn check_end(last: Option<&Entry>, data: u64) -> Result<()> {
    let (name, end) = last.map_or(("", 0), |e| (e.name.as_str(), e.begin as u64 + e.len as u64));
    if end > data {
        let text = format!("tensor `{name}`: its bytes end at {end}, and the file has only {data}");
        return Err(Error::format(text));
    }
    if end < data {
        let text = format!("the tensors end at byte {end} of the data, and the file has {data}");
        return Err(Error::format(text));
    }
    Ok(())
}

fn check_names(entries: &[Entry]) -> Result<()> {
    let mut names = HashSet::with_capacity(entries.len());
    match entries.iter().find(|e| !names.insert(e.name.as_str())) {
        Some(twice) => Err(Error::format(format!("two tensors are named `{}`", twice.name))),
        None => Ok(()),
    }
}

/// The JSON as it stands: unlike a map it keeps a name that is there twice, so that this is noticed.
struct Raw {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw { tensors: Vec::new(), metadata: BTreeMap::new() };
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                let metadata: Option<_> =
                    map.next_value().map_err(|e| A::Error::custom(format!("metadata: {e}")))?;
                raw.metadata = metadata.unwrap_or_default();
            } else {
                let info = map.next_value().map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
                raw.tensors.push((name, info));
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn error(json: &str, data: u64) -> String {
        let error = Header::parse(json.as_bytes(), data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Format, "{error}");
        error.to_string()
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        let json = r#"{"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},"__metadata__":{"k":"v"},
                       "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
                       "none":{"dtype":"F32","shape":[0,3],"data_offsets":[6,6]}}   "#;
        let header = Header::parse(json.as_bytes(), 6).unwrap();
        let names: Vec<_> = header.entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "none"]);
        assert_eq!(header.metadata["k"], "v");
        assert_eq!(Header::parse(b"{}", 0).unwrap().entries, []);
    }

    #[test]
    fn offsets_are_checked() {
        let two = |a: &str, b: &str| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
            )
        };
        assert_eq!(
            error(&two("[0,4]", "[2,6]"), 6),
            "tensor `b`: its bytes begin at 2, inside those of `a`, which end at 4"
        );
        assert_eq!(
            error(&two("[0,4]", "[5,9]"), 9),
            "tensor `b`: its bytes begin at 5, and those from 4 on belong to no tensor"
        );
        assert_eq!(
            error(&two("[0,4]", "[4,8]"), 7),
            "tensor `b`: its bytes end at 8, and the file has only 7"
        );
        assert_eq!(
            error(&two("[0,4]", "[4,8]"), 9),
            "the tensors end at byte 8 of the data, and the file has 9"
        );
        assert_eq!(
            error(&two("[0,4]", "[8,4]"), 8),
            "tensor `b`: its bytes begin at 8 and end before that, at 4"
        );
        assert_eq!(
            error(&two("[0,5]", "[5,9]"), 9),
            "tensor `a`: U8 of shape [4] takes 4 bytes, and its offsets span 5"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let one = |dtype: &str, shape: &str| {
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,4]}}}}"#)
        };
        let huge = format!("[{},{}]", usize::MAX, 3);
        assert!(error(&one("F32", &huge), 4).starts_with("tensor `w`: F32 of shape ["));
        assert!(error(&one("F32", &format!("[{}]", usize::MAX / 2)), 4).contains("no number of bytes"));
        assert!(error(&one("F4", "[9]"), 4).contains("F4 of shape [9]"));
        assert!(error(&one("F33", "[1]"), 4).contains("tensor `w`: unknown variant `F33`"));
        assert!(error(&one("F32", "[-1]"), 4).contains("tensor `w`: invalid value"));
        assert!(error(r#"{"__metadata__":{"k":1}}"#, 0).contains("metadata: invalid type"));
        assert!(error(r#"{"w":{"dtype":"U8","shape":[0]}}"#, 0).contains("missing field `data_offsets`"));
        let twice = r#""w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        assert_eq!(error(&format!("{{{twice},{twice}}}"), 0), "two tensors are named `w`");
        assert!(error("[1]", 0).contains("a map of tensors"));
        assert!(error(&"[".repeat(100_000), 0).starts_with("the header: "));
        // Deep nesting, where a value is expected and where one is ignored.
        assert!(error(&format!("{{\"w\":{}", "{\"x\":".repeat(100_000)), 0).starts_with("the header: "));
        assert!(error(&format!("{{\"w\":{}", "[".repeat(100_000)), 0).starts_with("the header: "));
    }
}
