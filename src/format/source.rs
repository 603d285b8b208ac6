//! Bytes to read from: a file or memory, at any place and from many threads.

use std::fs::File;
use std::io;

/// What a reader reads.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// A byte string.
    #[cfg_attr(
        not(any(feature = "safetensors", feature = "gguf")),
        expect(dead_code, reason = "only files are read by position")
    )]
    Bytes(&'a [u8]),
    /// A file that is read by position.
    #[cfg(unix)]
    File(File),
    /// Elsewhere the file's cursor is shared, so readers take turns.
    #[cfg(not(unix))]
    File(std::sync::Mutex<File>),
}

impl Source<'_> {
    /// A file, with its length.
    pub(crate) fn file(file: File) -> io::Result<(Self, u64)> {
        let len = file.metadata()?.len();
        #[cfg(unix)]
        return Ok((Self::File(file), len));
        #[cfg(not(unix))]
        Ok((Self::File(std::sync::Mutex::new(file)), len))
    }

    /// Fills the buffer from this offset on.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            #[cfg(unix)]
            Self::File(file) => std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset),
            #[cfg(not(unix))]
            Self::File(file) => {
                use std::io::{Read, Seek, SeekFrom};
                let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(buffer)
            }
        }
    }
}
