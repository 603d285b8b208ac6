//! The metadata document: what the parts cannot say, in few bytes.

use serde_json::{Map, Value, json};

use super::{Form, Record};
use crate::{Error, Result};

/// The version of the layout that is written, and the only one that is read.
const VERSION: u64 = 1;

/// The document of these parameters.
pub(super) fn write(records: &[Record<'_>]) -> String {
    let document = Value::Object(Map::from_iter([
        ("parameters".to_owned(), records.iter().map(describe).collect()),
        ("version".to_owned(), VERSION.into()),
    ]));
    document.to_string()
}

/// The document's parameters, without their parts.
pub(super) fn read(document: &str) -> Result<Vec<Record<'static>>> {
    let document: Value = serde_json::from_str(document).map_err(|e| Error::format(e.to_string()))?;
    match document.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(version) => {
            let text = format!("the layout is of version {version}, and this crate reads version {VERSION}");
            return Err(Error::unsupported(text));
        }
        None => return Err(Error::format("it has no number named `version`")),
    }
    let Some(parameters) = document.get("parameters").and_then(Value::as_array) else {
        return Err(Error::format("it has no list named `parameters`"));
    };
    parameters.iter().map(|line| parameter(line).ok_or_else(|| unread(line))).collect()
}

fn unread(line: &Value) -> Error {
    let name = line.get(0).and_then(Value::as_str);
    Error::format(match name {
        Some(name) => format!("parameter `{name}` is not described as it should be"),
        None => "a parameter has no name".to_owned(),
    })
}

/// One line of the document; `None` where it is not as [`describe`] writes it.
fn parameter(line: &Value) -> Option<Record<'static>> {
    let (name, line) = match line {
        Value::String(name) => (name.as_str(), &[][..]),
        Value::Array(line) => line.split_first().and_then(|(name, rest)| Some((name.as_str()?, rest)))?,
        _ => return None,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (kind, shape, form) = match line {
        [] => (String::new(), Vec::new(), Form::Dense),
        [kind] => (text(kind)?, Vec::new(), Form::Dense),
        [kind, shape] => (text(kind)?, axes(shape)?, Form::Sparse),
        [kind, shape, scheme] => (text(kind)?, axes(shape)?, Form::Quantized { scheme: text(scheme)? }),
        _ => return None,
    };
    Some(Record { name: name.to_owned(), shape, form, parts: Vec::new(), kind })
}

/// A shape whose elements can be counted.
fn axes(shape: &Value) -> Option<Vec<usize>> {
    let axis = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let shape = shape.as_array()?.iter().map(axis).collect::<Option<Vec<_>>>()?;
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).map(|_| shape)
}

/// A parameter's line of the document: name, kind, shape, scheme, as far as they say something.
fn describe(record: &Record<'_>) -> Value {
    let (name, kind) = (&record.name, &record.kind);
    let shape = || record.shape.iter().copied().collect::<Value>();
    match &record.form {
        Form::Dense if kind.is_empty() => json!(name),
        Form::Dense => json!([name, kind]),
        Form::Sparse => json!([name, kind, shape()]),
        Form::Quantized { scheme } => json!([name, kind, shape(), scheme]),
    }
}
