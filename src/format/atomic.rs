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

/// A file that removes itself unless it was renamed.
struct Draft {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Draft {
    fn create(target: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("{}: the path names no file", target.display()))
        })?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let path = target.with_file_name(beside);
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
