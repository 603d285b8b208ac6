//! Which files are read and written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::ValueEnum;
use niwaki::format::{gguf, npz, safetensors};
use niwaki::{Compressed, Error, ErrorKind, Model, Result};

use crate::out;

/// Words that a file says of itself.
pub(crate) type Words = BTreeMap<String, String>;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Onnx,
    Safetensors,
    Npz,
    Gguf,
}

impl Format {
    /// By the end of a name.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("onnx") => Ok(Self::Onnx),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("json") if name.ends_with(".safetensors.index.json") => Ok(Self::Safetensors),
            Some("npz") => Ok(Self::Npz),
            Some("gguf") => Ok(Self::Gguf),
            _ => Err(fail(path, "the name should end in .onnx, .safetensors, .npz or .gguf")),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Safetensors => "safetensors",
            Self::Npz => "npz",
            Self::Gguf => "gguf",
        }
    }
}

/// Errors unless `path` can be written when all work is done: a folder that is there, and no file that is read.
pub(crate) fn check_target(path: &Path, reads: &[&Path]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::new(
            ErrorKind::Io,
            format!("{}: there is no folder {}", path.display(), folder.display()),
        ));
    }
    if path.is_dir() {
        return Err(fail(path, "is a folder"));
    }
    let Ok(target) = fs::canonicalize(path) else { return Ok(()) };
    match reads.iter().find(|read| fs::canonicalize(read).is_ok_and(|read| read == target)) {
        Some(_) => Err(fail(path, "is a file that is read; write to another one")),
        None => Ok(()),
    }
}

/// Bytes of a file.
pub(crate) fn bytes(path: &Path) -> Result<u64> {
    fs::metadata(path)
        .map(|file| file.len())
        .map_err(|error| Error::new(ErrorKind::Io, format!("{}: {error}", path.display())))
}

/// A model of arrays without couplings; one that was compressed is decoded.
pub(crate) fn read_arrays(path: &Path, format: Format, quiet: bool) -> Result<Model<f32>> {
    read_with_words(path, format, quiet).map(|(model, _)| model)
}

/// As [`read_arrays`], with the file's own words, unless they are about how it was compressed.
pub(crate) fn read_with_words(path: &Path, format: Format, quiet: bool) -> Result<(Model<f32>, Words)> {
    let tensors = match format {
        Format::Npz => npz::read::<f32>(path)?,
        Format::Gguf => gguf::read::<f32>(path)?,
        _ => safetensors::read::<f32>(path)?,
    };
    if format == Format::Safetensors && tensors.metadata().contains_key("niwaki") {
        return Ok((Compressed::<f32>::load(path)?.decode()?, Words::new()));
    }
    if tensors.is_empty() {
        return Err(fail(path, "holds no floating-point arrays"));
    }
    let skipped: Vec<String> =
        tensors.skipped().iter().map(|skipped| format!("{} ({})", skipped.name, skipped.dtype)).collect();
    if !skipped.is_empty() {
        let text = format!("{}: not read, for they hold no weights: {}", path.display(), skipped.join(", "));
        out::note(quiet, &text);
    }
    let words = tensors.metadata().clone();
    let model = Model::builder().tensors(tensors).build().map_err(|error| error.context(path.display()))?;
    Ok((model, words))
}

pub(crate) fn fail(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Setting, format!("{}: {what}", path.display()))
}

/// An error with the file's name, once.
pub(crate) fn named(path: &Path, error: &Error) -> Error {
    let path = path.display().to_string();
    if error.to_string().contains(&path) { error.clone() } else { error.context(path) }
}
