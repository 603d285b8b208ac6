//! Models in NumPy's npz archives: a zip file of one npy array per name.
//!
//! [`read`] takes what `numpy.savez` and `numpy.savez_compressed` write: f2, f4 and f8 arrays of either byte order,
//! by rows or by columns. [`write()`] writes what `numpy.load` reads, not deflated, and the same input gives the same
//! bytes.
//!
//! ```
//! use ndarray::arr2;
//! use niwaki::format::npz;
//!
//! # fn main() -> niwaki::Result<()> {
//! # let path = std::env::temp_dir().join(format!("niwaki-doc-{}.npz", std::process::id()));
//! let weight = arr2(&[[1.0f32, 2.0], [3.0, 4.0]]).into_dyn();
//! npz::write(&path, [("fc_w", weight.view())])?;
//! let tensors = npz::read::<f64>(&path)?;
//! assert_eq!(tensors.array("fc_w")?.as_slice(), Some(&[1.0, 2.0, 3.0, 4.0][..]));
//! # std::fs::remove_file(path)?;
//! # Ok(())
//! # }
//! ```

mod npy;
#[cfg(feature = "rten")]
mod numbers;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::format::{Skipped, Tensors, atomic, io};
use crate::{Element, Error, ErrorKind, Model, Result};

#[cfg(feature = "rten")]
pub(crate) use numbers::{Numbers, read_numbers};

/// Deflate makes at most 1032 bytes of one.
const MAX_RATIO: u64 = 1032;

/// Reads all floating-point arrays of an archive, in the order of its directory.
///
/// Names lose their `.npy`. Integers, booleans, text, dates and objects are left out and listed by
/// [`Tensors::skipped`], as are members that are no npy files.
///
/// # Errors
/// [`ErrorKind::Io`] when the file cannot be read;
/// [`Format`](crate::ErrorKind::Format) when it does not hold what it promises, or a number of a double is past
/// the range of `F`; [`Unsupported`](crate::ErrorKind::Unsupported) for complex, long double, void and structured
/// arrays, and for members that are encrypted or packed in another way than deflate. The message names the file,
/// and the array where it is one's fault.
pub fn read<F: Element>(path: impl AsRef<Path>) -> Result<Tensors<F>> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let len = file.metadata().map_err(|e| io(path, &e))?.len();
    collect(BufReader::new(file), len).map_err(|e| e.context(path.display()))
}

/// Reads all floating-point arrays of an archive in memory.
///
/// # Errors
/// As [`read`].
///
/// ```
/// use niwaki::ErrorKind;
/// let error = niwaki::format::npz::read_bytes::<f32>(b"PK\x03\x04").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Format);
/// ```
pub fn read_bytes<F: Element>(bytes: &[u8]) -> Result<Tensors<F>> {
    collect(Cursor::new(bytes), bytes.len() as u64)
}

/// Writes named arrays in their own precision; gives the file's length in bytes.
///
/// The file is written beside its target and renamed, so that the target is either as before or complete.
///
/// # Errors
/// [`ErrorKind::Io`] when the file cannot be written; [`Name`](crate::ErrorKind::Name) when
/// a name is there twice or is empty.
pub fn write<'a, F: Element>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, ArrayViewD<'a, F>)>,
) -> Result<u64> {
    let mut names = HashSet::new();
    atomic::write(path.as_ref(), |file| {
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 16, file));
        for (name, array) in tensors {
            if name.is_empty() || !names.insert(name) {
                return Err(Error::name(format!("two tensors are named `{name}`, or it is empty")));
            }
            // Nothing but sizes past 4 GiB asks for the wider fields.
            let large = array.len() as u64 * F::BYTES as u64 >= u64::from(u32::MAX) - (1 << 20);
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .large_file(large);
            zip.start_file(format!("{name}.npy"), options).map_err(|e| failed(name, e))?;
            npy::write(name, &array, &mut zip)?;
        }
        zip.finish().map_err(|e| failed("", e))?.flush()?;
        Ok(())
    })
}

/// Writes a model's parameters; gives the file's length in bytes.
///
/// # Errors
/// As [`write()`].
pub fn write_model<F: Element>(path: impl AsRef<Path>, model: &Model<F>) -> Result<u64> {
    write(path, model.parameters().iter().map(|p| (p.name(), p.array().view())))
}

/// The arrays of an archive of `len` bytes.
fn collect<F: Element>(reader: impl Read + Seek, len: u64) -> Result<Tensors<F>> {
    let mut archive = ZipArchive::new(reader).map_err(|e| failed("", e))?;
    check_members(&mut archive, len)?;
    let (mut arrays, mut skipped): (Vec<(String, ArrayD<F>)>, _) = (Vec::new(), Vec::new());
    for k in 0..archive.len() {
        let member = archive.by_index(k).map_err(|e| failed(&format!("#{k}"), e))?;
        let (file, size) = (member.name().to_owned(), member.size());
        let Some(name) = file.strip_suffix(".npy").filter(|_| member.is_file()) else {
            skipped.push(Skipped { name: file, dtype: "not npy".to_owned() });
            continue;
        };
        match npy::read(name, member, size)? {
            npy::Content::Array(array) => arrays.push((name.to_owned(), array)),
            npy::Content::Other(dtype) => skipped.push(Skipped { name: name.to_owned(), dtype }),
        }
    }
    Tensors::new(arrays, BTreeMap::new(), skipped)
}

/// What members claim must be possible: their bytes lie in the file, are nobody else's, and can unpack to the size
/// that is claimed. All arrays together are then at most [`MAX_RATIO`] times the file.
fn check_members(archive: &mut ZipArchive<impl Read + Seek>, len: u64) -> Result<()> {
    let mut spans = Vec::with_capacity(archive.len());
    for k in 0..archive.len() {
        let member = archive.by_index_raw(k).map_err(|e| failed(&format!("#{k}"), e))?;
        let (name, start) = (member.name().to_owned(), member.data_start());
        let (packed, size) = (member.compressed_size(), member.size());
        let Some(end) = start.checked_add(packed).filter(|&end| end <= len) else {
            let text =
                format!("member `{name}`: {packed} bytes from {start} on are past the file's end, {len}");
            return Err(Error::format(text));
        };
        let most = if member.compression() == CompressionMethod::Stored { 1 } else { MAX_RATIO };
        if size > packed.saturating_mul(most) {
            return Err(Error::format(format!(
                "member `{name}`: {packed} bytes cannot hold the {size} it claims"
            )));
        }
        spans.push((start, end, name));
    }
    spans.sort();
    match spans.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some([a, b]) => Err(Error::format(format!("members `{}` and `{}` share bytes", a.2, b.2))),
        _ => Ok(()),
    }
}

fn failed(name: &str, error: ZipError) -> Error {
    let place = if name.is_empty() { String::new() } else { format!("member `{name}`: ") };
    match error {
        ZipError::Io(error) => broken(&place, &error),
        ZipError::UnsupportedArchive(what) => Error::unsupported(format!("{place}{what}")),
        other => Error::format(format!("{place}{other}")),
    }
}

/// An I/O error while bytes were unpacked: most say that the bytes are wrong, not that they could not be read.
fn broken(place: &str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let kind = match error.kind() {
        UnexpectedEof | InvalidData | InvalidInput | Other => ErrorKind::Format,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{place}{error}"))
}

#[cfg(test)]
mod tests;
