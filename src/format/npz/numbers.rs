//! Arrays of any type, from an archive or from one npy file: what a network reads.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ndarray::ArrayD;
use zip::ZipArchive;

use crate::format::io;
use crate::format::npz::npy::{self, Content, Head};
use crate::format::npz::{broken, check_members, failed};
use crate::{Error, Result};

/// An array.
#[derive(Debug)]
pub(crate) enum Numbers {
    Float(ArrayD<f32>),
    /// Integers of all widths.
    Int(ArrayD<i64>),
    Bool(ArrayD<bool>),
}

/// The arrays of an npz archive by their names, or that of an npy file, whose name is empty.
///
/// # Errors
/// As [`read`](super::read); also for an array of text, dates or objects, or an integer past i64.
pub(crate) fn read_numbers(path: &Path) -> Result<Vec<(String, Numbers)>> {
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let len = file.metadata().map_err(|e| io(path, &e))?.len();
    collect(BufReader::new(file), len).map_err(|e| e.context(path.display()))
}

fn collect(mut reader: impl Read + Seek, len: u64) -> Result<Vec<(String, Numbers)>> {
    let mut start = [0; 6];
    if reader.read_exact(&mut start).is_ok() && &start == b"\x93NUMPY" {
        reader.seek(SeekFrom::Start(0))?;
        return Ok(vec![(String::new(), array("", reader, len)?)]);
    }
    let mut archive = ZipArchive::new(reader).map_err(|e| failed("", e))?;
    check_members(&mut archive, len)?;
    let mut arrays = Vec::with_capacity(archive.len());
    for k in 0..archive.len() {
        let member = archive.by_index(k).map_err(|e| failed(&format!("#{k}"), e))?;
        let (file, size) = (member.name().to_owned(), member.size());
        if let Some(name) = file.strip_suffix(".npy").filter(|_| member.is_file()) {
            arrays.push((name.to_owned(), array(name, member, size)?));
        }
    }
    Ok(arrays)
}

fn array(name: &str, mut member: impl Read, size: u64) -> Result<Numbers> {
    let head = Head::read(name, &mut member)?;
    let swap = head.dtype.starts_with('>');
    let kind = head.dtype.trim_start_matches(['<', '>', '|', '=']).to_owned();
    let width = match kind.as_str() {
        "b1" | "i1" | "u1" => 1,
        "i2" | "u2" => 2,
        "i4" | "u4" => 4,
        "i8" | "u8" => 8,
        _ => {
            return match npy::read_after::<f32>(name, &head, member, size)? {
                Content::Array(array) => Ok(Numbers::Float(array)),
                Content::Other(dtype) => {
                    Err(Error::unsupported(format!("array `{name}`: {dtype} is no number")))
                }
            };
        }
    };
    let count = head.elements(name, width, size)?;
    let mut bytes = vec![0; count * width];
    member.read_exact(&mut bytes).map_err(|e| broken(&format!("array `{name}`: "), &e))?;
    if kind == "b1" {
        let values = bytes.into_iter().map(|b| b != 0).collect();
        return head.array(name, values, &mut member, size).map(Numbers::Bool);
    }
    let signed = kind.starts_with('i');
    let values: Option<Vec<i64>> = bytes.chunks_exact(width).map(|b| integer(b, swap, signed)).collect();
    let values = values
        .ok_or_else(|| Error::format(format!("array `{name}`: an integer is past the range of i64")))?;
    head.array(name, values, &mut member, size).map(Numbers::Int)
}

/// A number of at most eight bytes.
fn integer(bytes: &[u8], swap: bool, signed: bool) -> Option<i64> {
    let mut wide = [0; 8];
    for (at, byte) in bytes.iter().enumerate() {
        wide[if swap { bytes.len() - 1 - at } else { at }] = *byte;
    }
    if signed {
        let rest = 64 - 8 * bytes.len() as u32;
        return Some(i64::from_le_bytes(wide) << rest >> rest);
    }
    i64::try_from(u64::from_le_bytes(wide)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Numbers> {
        let len = bytes.len() as u64;
        collect(Cursor::new(bytes), len).map(|mut arrays| arrays.remove(0).1)
    }

    #[test]
    fn integers_of_all_widths_and_orders_are_read() {
        let cases = [
            npy("|i1", "(2,)", &[0xff, 2]),
            npy("<i2", "(2,)", &[0xff, 0xff, 2, 0]),
            npy(">i4", "(2,)", &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2]),
        ];
        for case in cases {
            assert!(matches!(read(case).unwrap(), Numbers::Int(a) if a.as_slice() == Some(&[-1, 2])));
        }
        let scalar = read(npy("<i8", "()", &16_000i64.to_le_bytes())).unwrap();
        assert!(matches!(scalar, Numbers::Int(a) if a.ndim() == 0 && a.sum() == 16_000));
        assert!(matches!(read(npy("|u1", "(1,)", &[200])).unwrap(), Numbers::Int(a) if a[0] == 200));
        assert!(matches!(read(npy("|b1", "(2,)", &[1, 0])).unwrap(), Numbers::Bool(a) if a[0] && !a[1]));
        assert!(
            matches!(read(npy("<f8", "(1,)", &1.5f64.to_le_bytes())).unwrap(), Numbers::Float(a) if a[0] == 1.5)
        );
    }

    #[test]
    fn what_is_no_number_or_claims_too_much_is_refused() {
        assert!(read(npy("<u8", "(1,)", &[0xff; 8])).is_err());
        assert!(read(npy("<U4", "(1,)", &[0; 16])).is_err());
        assert!(read(npy("<i4", "(1000000000,)", &[0; 4])).is_err());
        assert!(read(npy("<i4", "(1,)", &[0; 8])).is_err());
        assert!(read(b"no array".to_vec()).is_err());
    }
}
