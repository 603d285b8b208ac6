//! A file is written beside its target and renamed, so that nobody sees half of it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::io;
use crate::{Error, ErrorKind, Result};

/// Lets `fill` write a file beside `path` and then puts it in the target's place; gives the file's length in
/// bytes. On any error the new file is removed and the target stays as it was.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<u64> {
    // A link stays a link: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut draft = Draft::create(&target)?;
    // What `fill` reports without a path of its own is about this file.
    fill(&mut draft.file).map_err(|error| error.context(path.display()))?;
    let bytes = draft.file.metadata().map_err(|e| io(path, &e))?.len();
    draft.rename(&target)?;
    Ok(bytes)
}

/// As [`write`], for two files of which the second is of no use without the first: either both are replaced or
/// none. Gives their length together.
#[cfg(feature = "onnx")]
pub(crate) fn write_two(
    first: &Path,
    second: &Path,
    fill: impl FnOnce(&mut File, &mut File) -> Result<()>,
) -> Result<u64> {
    let [a, b] = [first, second].map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    let (mut one, mut two) = (Draft::create(&a)?, Draft::create(&b)?);
    fill(&mut one.file, &mut two.file).map_err(|error| error.context(second.display()))?;
    let len = |draft: &Draft| draft.file.metadata().map_err(|e| io(&draft.path, &e)).map(|m| m.len());
    let bytes = len(&one)? + len(&two)?;
    let old = set_aside(&a)?;
    let done = one.rename(&a);
    let replaced = done.is_ok();
    let done = done.and_then(|()| two.rename(&b));
    // What fails from here on has nobody to be told, and the first error says more.
    if done.is_err() {
        match &old {
            Some(old) => drop(fs::rename(old, &a)),
            None if replaced => drop(fs::remove_file(&a)),
            None => {}
        }
    }
    if let Some(old) = &old {
        let _ = fs::remove_file(old);
    }
    done.map(|()| bytes)
}

/// Gives an existing file a second name beside it, so that it can come back. Where a file cannot have two names it
/// is renamed.
#[cfg(feature = "onnx")]
fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    if !path.is_file() {
        return Ok(None);
    }
    let aside = beside(path, "old")?;
    fs::hard_link(path, &aside).or_else(|_| fs::rename(path, &aside)).map_err(|e| io(path, &e))?;
    Ok(Some(aside))
}

/// A name of its own beside a file.
fn beside(target: &Path, end: &str) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("{}: the path names no file", target.display())))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}-{}.{end}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(target.with_file_name(beside))
}

/// A file that removes itself unless it was renamed.
struct Draft {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Draft {
    fn create(target: &Path) -> Result<Self> {
        let path = beside(target, "tmp")?;
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(&path);
        let draft = Self { file: file.map_err(|e| io(target, &e))?, path, kept: false };
        if let Ok(old) = fs::metadata(target) {
            // Who may read the old file may read the new one, and nobody else.
            draft.file.set_permissions(old.permissions()).map_err(|e| io(target, &e))?;
        }
        Ok(draft)
    }

    fn rename(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|e| io(target, &e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // There is nobody left to tell, and the first error says more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::format::tensors::scratch;

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = scratch("atomic");
        let path = folder.join("a.bin");
        assert_eq!(write(&path, |file| Ok(file.write_all(b"first")?)).unwrap(), 5);
        let error = write(&path, |file| {
            file.write_all(b"second, but")?;
            Err(Error::format("no more"))
        })
        .unwrap_err();
        assert!(error.to_string().ends_with("a.bin: no more"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn errors_name_the_path() {
        let folder = scratch("atomic-errors");
        let missing = folder.join("none").join("a.bin");
        let error = write(&missing, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("a.bin"), "{error}");
        // A folder cannot be replaced by a file; the draft goes.
        fs::create_dir(folder.join("taken")).unwrap();
        assert_eq!(write(&folder.join("taken"), |_| Ok(())).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(feature = "onnx")]
    #[test]
    fn two_files_are_replaced_together_or_not_at_all() {
        let folder = scratch("atomic-two");
        let (first, second) = (folder.join("a.data"), folder.join("a"));
        let put = |a: &'static [u8], b: &'static [u8], second: &Path| {
            write_two(&first, second, |one, two| {
                one.write_all(a)?;
                Ok(two.write_all(b)?)
            })
        };
        assert_eq!(put(b"data", b"model", &second).unwrap(), 9);
        assert_eq!(put(b"newer", b"models", &second).unwrap(), 11);
        assert_eq!(fs::read(&first).unwrap(), b"newer");
        assert_eq!(fs::read(&second).unwrap(), b"models");
        // A folder cannot be replaced: the first file comes back, or goes if it was not there.
        let taken = folder.join("taken");
        fs::create_dir(&taken).unwrap();
        assert_eq!(put(b"newest", b"", &taken).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(fs::read(&first).unwrap(), b"newer");
        fs::remove_file(&first).unwrap();
        assert_eq!(put(b"newest", b"", &taken).unwrap_err().kind(), ErrorKind::Io);
        assert!(!first.exists());
        let error = write_two(&first, &second, |_, _| Err(Error::format("no more"))).unwrap_err();
        assert!(error.to_string().ends_with("a: no more"), "{error}");
        assert_eq!(fs::read(&second).unwrap(), b"models");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_permissions_kept() {
        let folder = scratch("atomic-links");
        fs::write(folder.join("real"), b"old").unwrap();
        std::os::unix::fs::symlink(folder.join("real"), folder.join("link")).unwrap();
        write(&folder.join("link"), |file| Ok(file.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read(folder.join("real")).unwrap(), b"new");
        assert!(fs::symlink_metadata(folder.join("link")).unwrap().is_symlink());
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(folder.join("real"), private).unwrap();
        write(&folder.join("real"), |_| Ok(())).unwrap();
        let mode = fs::metadata(folder.join("real")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }
}
