//! What lies at the start of a file, piece after piece, never more than is there.

use super::value::{List, Value, types};
use crate::format::source::Source;
use crate::{Error, Result};

/// Bytes that are read at a time.
const WINDOW: u64 = 1 << 16;
/// How deep arrays may lie in arrays.
const DEPTH: usize = 8;

/// A place in a file of known length.
pub(super) struct Cursor<'a, 'b> {
    source: &'a Source<'b>,
    len: u64,
    at: u64,
    window: Vec<u8>,
    /// Where the window begins.
    start: u64,
}

impl<'a, 'b> Cursor<'a, 'b> {
    pub(super) fn new(source: &'a Source<'b>, len: u64) -> Self {
        Self { source, len, at: 0, window: Vec::new(), start: 0 }
    }

    /// How many bytes came before.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> u64 {
        self.len - self.at
    }

    /// So many bytes that follow.
    fn take(&mut self, count: u64) -> Result<&[u8]> {
        if count > self.left() {
            let (at, left) = (self.at, self.left());
            return Err(Error::format(format!(
                "{count} bytes from byte {at} on are past the end of the file: {left} are left"
            )));
        }
        let inside = self.at >= self.start && self.at + count <= self.start + self.window.len() as u64;
        if !inside {
            let more = count.max(WINDOW).min(self.left());
            self.window.resize(more as usize, 0);
            self.start = self.at;
            self.source.read_at(self.at, &mut self.window)?;
        }
        let from = (self.at - self.start) as usize;
        self.at += count;
        Ok(&self.window[from..from + count as usize])
    }

    /// A number's bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// How many of something follow, each of at least `least` bytes: an error where so many cannot be there.
    pub(super) fn count(&mut self, what: &str, least: u64) -> Result<u64> {
        let count = self.u64()?;
        if count.checked_mul(least).is_some_and(|bytes| bytes <= self.left()) {
            return Ok(count);
        }
        let left = self.left();
        Err(Error::format(format!("{count} {what} cannot be in the {left} bytes that are left")))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let len = self.count("bytes of a string", 1)?;
        let bytes = self.take(len)?.to_vec();
        String::from_utf8(bytes).map_err(|error| Error::format(format!("a string is no UTF-8: {error}")))
    }

    /// A value behind its type.
    pub(super) fn value(&mut self) -> Result<Value> {
        Ok(match self.u32()? {
            types::U8 => Value::U8(u8::from_le_bytes(self.bytes()?)),
            types::I8 => Value::I8(i8::from_le_bytes(self.bytes()?)),
            types::U16 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            types::I16 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            types::U32 => Value::U32(self.u32()?),
            types::I32 => Value::I32(i32::from_le_bytes(self.bytes()?)),
            types::F32 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            types::BOOL => Value::Bool(truth(u8::from_le_bytes(self.bytes()?))?),
            types::TEXT => Value::Text(self.text()?),
            types::ARRAY => Value::List(self.array(DEPTH)?),
            types::U64 => Value::U64(self.u64()?),
            types::I64 => Value::I64(i64::from_le_bytes(self.bytes()?)),
            types::F64 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            other => return Err(unknown(other)),
        })
    }

    fn array(&mut self, depth: usize) -> Result<List> {
        let kind = self.u32()?;
        Ok(match kind {
            types::U8 => List::U8(self.numbers(u8::from_le_bytes)?),
            types::I8 => List::I8(self.numbers(i8::from_le_bytes)?),
            types::U16 => List::U16(self.numbers(u16::from_le_bytes)?),
            types::I16 => List::I16(self.numbers(i16::from_le_bytes)?),
            types::U32 => List::U32(self.numbers(u32::from_le_bytes)?),
            types::I32 => List::I32(self.numbers(i32::from_le_bytes)?),
            types::F32 => List::F32(self.numbers(f32::from_le_bytes)?),
            types::U64 => List::U64(self.numbers(u64::from_le_bytes)?),
            types::I64 => List::I64(self.numbers(i64::from_le_bytes)?),
            types::F64 => List::F64(self.numbers(f64::from_le_bytes)?),
            types::BOOL => {
                let bytes = self.numbers(u8::from_le_bytes)?;
                List::Bool(bytes.into_iter().map(truth).collect::<Result<_>>()?)
            }
            types::TEXT => {
                let count = self.count("strings", 8)?;
                List::Text((0..count).map(|_| self.text()).collect::<Result<_>>()?)
            }
            types::ARRAY if depth > 0 => {
                let count = self.count("arrays", 12)?;
                List::Lists((0..count).map(|_| self.array(depth - 1)).collect::<Result<_>>()?)
            }
            types::ARRAY => {
                return Err(Error::format(format!("arrays lie in arrays, more than {DEPTH} deep")));
            }
            other => return Err(unknown(other)),
        })
    }

    fn numbers<T, const N: usize>(&mut self, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let count = self.count("numbers", N as u64)?;
        let bytes = self.take(count * N as u64)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect())
    }
}

fn truth(byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::format(format!("a truth value is {other}, neither 0 nor 1"))),
    }
}

fn unknown(kind: u32) -> Error {
    Error::format(format!("values of type {kind} are not known"))
}
