//! Where the bytes of a tensor come from that is to be written.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use crate::Result;

/// A tensor's bytes.
pub(crate) enum Data<'a> {
    /// They are there.
    Bytes(Cow<'a, [u8]>),
    /// They are made when they are written; their number follows from type and shape.
    Stream(Box<Stream<'a>>),
}

/// Writes a tensor's bytes.
pub(crate) type Stream<'a> = dyn Fn(&mut dyn Write) -> Result<()> + 'a;

impl Data<'_> {
    /// Writes them all.
    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<()> {
        match self {
            Self::Bytes(bytes) => Ok(out.write_all(bytes)?),
            Self::Stream(write) => write(out),
        }
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => write!(f, "a stream"),
        }
    }
}

/// Counts what it passes on.
pub(crate) struct Counting<W> {
    pub(crate) out: W,
    pub(crate) bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
