//! External data: the values of a tensor in a file beside the model.
//!
//! ONNX names the file, the place in it and the length as text. The file must be in the model's folder or below,
//! links followed, and must hold the bytes. They are read by position, those of one tensor at a time; a memory map
//! would need `unsafe`, which this crate does without.

use std::path::{Component, Path, PathBuf};

use crate::onnx::file::place::title;
use crate::onnx::proto::TensorProto;
use crate::{Error, ErrorKind, Result};

/// A part of a file. It was there when this was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    /// Links followed.
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl External {
    /// The part that holds a tensor's values; `bytes` is what its dimensions say, where the type is known.
    pub(super) fn of(tensor: &TensorProto, bytes: Option<usize>, folder: Option<&Path>) -> Result<Self> {
        let fail = |what: String| Error::format(format!("{}: {what}", title(tensor)));
        let location = entry(tensor, "location").filter(|location| !location.is_empty());
        let location = location.ok_or_else(|| fail("external data without a location".into()))?;
        let offset = number(tensor, "offset")?.unwrap_or_default();
        let path = resolve(location, folder).map_err(|e| e.context(title(tensor)))?;
        let whole = std::fs::metadata(&path).map_err(|e| {
            Error::new(ErrorKind::Io, format!("{}: data file `{location}`: {e}", title(tensor)))
        })?;
        if !whole.is_file() {
            return Err(fail(format!("data file `{location}` is no file")));
        }
        let whole = whole.len();
        let Some(rest) = whole.checked_sub(offset) else {
            return Err(fail(format!(
                "offset {offset} is past the end of `{location}`, which has {whole} bytes"
            )));
        };
        let want = bytes.map(|bytes| bytes as u64);
        let len = number(tensor, "length")?.or(want).unwrap_or(rest);
        if let Some(want) = want.filter(|&want| want != len) {
            let dims = &tensor.dims;
            return Err(fail(format!("shape {dims:?} takes {want} bytes, and its external data are {len}")));
        }
        if len > rest {
            return Err(fail(format!(
                "{len} bytes at offset {offset} are past the end of `{location}`, which has {whole} bytes"
            )));
        }
        Ok(Self { path, offset, len })
    }
}

/// The folder of a model's file.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
    found.map(|entry| entry.value.as_deref().unwrap_or_default())
}

fn number(tensor: &TensorProto, key: &str) -> Result<Option<u64>> {
    let Some(text) = entry(tensor, key) else { return Ok(None) };
    let number = text.trim().parse();
    number.map(Some).map_err(|_| {
        Error::format(format!(
            "{}: the {key} `{text}` of its external data is no number of bytes",
            title(tensor)
        ))
    })
}

/// The real path of a data file, which must be within the folder.
fn resolve(location: &str, folder: Option<&Path>) -> Result<PathBuf> {
    let Some(folder) = folder else {
        return Err(Error::format(format!(
            "its values are in the file `{location}`, and no folder was given"
        )));
    };
    let outside = || Error::format(format!("data file `{location}` is outside the model's folder"));
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(inside) {
        return Err(outside());
    }
    let fail = |e: std::io::Error| Error::new(ErrorKind::Io, format!("data file `{location}`: {e}"));
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let folder = folder.canonicalize().map_err(fail)?;
    let path = folder.join(location).canonicalize().map_err(fail)?;
    if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tensors::scratch;
    use crate::onnx::proto::{EXTERNAL, StringStringEntryProto, dtype};

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value.into()),
            ..StringStringEntryProto::default()
        };
        TensorProto {
            name: Some("w".into()),
            data_type: Some(dtype::FLOAT),
            dims: vec![2],
            data_location: Some(EXTERNAL),
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        }
    }

    #[test]
    fn the_part_must_be_in_the_file() {
        let folder = scratch("onnx-external");
        let values = [5f32, 1.0, -2.0];
        std::fs::write(folder.join("w.data"), values.map(f32::to_le_bytes).concat()).unwrap();
        let read = |entries: &[(&str, &str)]| crate::onnx::file::floats(&tensor(entries), Some(&folder));
        assert_eq!(read(&[("location", "w.data")]).unwrap().as_slice(), Some(&values[..2]));
        let second = [("location", "./w.data"), ("offset", "4"), ("length", "8"), ("checksum", "x")];
        assert_eq!(read(&second).unwrap().as_slice(), Some(&values[1..]));
        let error = |entries: &[(&str, &str)]| read(entries).unwrap_err().to_string();
        let at = |offset| error(&[("location", "w.data"), ("offset", offset)]);
        assert_eq!(
            at("8"),
            "tensor `w`: 8 bytes at offset 8 are past the end of `w.data`, which has 12 bytes"
        );
        assert_eq!(at("13"), "tensor `w`: offset 13 is past the end of `w.data`, which has 12 bytes");
        assert_eq!(at("-4"), "tensor `w`: the offset `-4` of its external data is no number of bytes");
        assert!(at("18446744073709551616").ends_with("is no number of bytes"));
        assert!(at("18446744073709551615").contains("past the end"));
        let long = error(&[("location", "w.data"), ("length", "12")]);
        assert_eq!(long, "tensor `w`: shape [2] takes 8 bytes, and its external data are 12");
        assert_eq!(error(&[]), "tensor `w`: external data without a location");
        assert!(error(&[("location", ".")]).ends_with("is no file"));
        assert!(error(&[("location", "none.data")]).starts_with("tensor `w`: data file `none.data`: "));
        let none = crate::onnx::file::floats(&tensor(&second), None).unwrap_err().to_string();
        assert_eq!(none, "tensor `w`: its values are in the file `./w.data`, and no folder was given");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_file_must_be_in_the_folder() {
        let outer = scratch("onnx-outside");
        let folder = outer.join("model");
        std::fs::create_dir_all(folder.join("parts")).unwrap();
        std::fs::write(outer.join("secret"), [0; 8]).unwrap();
        std::fs::write(folder.join("parts").join("w"), [0; 8]).unwrap();
        let find = |location: &str| External::of(&tensor(&[("location", location)]), Some(8), Some(&folder));
        assert_eq!(find("parts/w").unwrap().len, 8);
        let secret = outer.join("secret");
        for location in ["../secret", "parts/../../secret", secret.to_str().unwrap(), "/etc/hostname"] {
            let error = find(location).unwrap_err().to_string();
            assert_eq!(error, format!("tensor `w`: data file `{location}` is outside the model's folder"));
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
            assert!(find("link").unwrap_err().to_string().ends_with("is outside the model's folder"));
            std::os::unix::fs::symlink(folder.join("parts").join("w"), folder.join("inner")).unwrap();
            assert!(find("inner").is_ok());
        }
        std::fs::remove_dir_all(outer).unwrap();
    }
}
