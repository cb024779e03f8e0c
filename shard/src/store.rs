//! Files that are either whole or not there: every write of a dataset goes through these functions.
//!
//! A name appears only after its bytes are on disk (`fsync`, then link or rename, then `fsync` of the folder).
//! A failed `fsync` is final for that file: the kernel may have thrown the pages away, so it is never tried again
//! (Rebello et al. 2021).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Creates `folder` and the folders above it.
///
/// # Errors
/// When the file system refuses.
pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))
}

/// Returns a name in `folder` that no other writer uses, for bytes that are not visible yet.
#[must_use]
pub fn aside(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{ASIDE}{}-{n}", std::process::id()))
}

/// How names of [`aside`] begin; readers skip them and [`crate::Dataset::clean`] removes them.
pub const ASIDE: &str = ".tmp-";

/// Writes `bytes` to `path` unless it is there already; returns whether it was written.
///
/// # Errors
/// When the file system refuses, except for "already there".
pub fn put_if_absent(path: &Path, bytes: &[u8]) -> Result<bool> {
    let folder = folder_of(path);
    let temporary = aside(folder);
    write_synced(&temporary, bytes)?;
    // A hard link fails when the name is taken, on every POSIX file system; a rename would replace it.
    let linked = fault::around("link", || fs::hard_link(&temporary, path));
    fault::around("remove", || fs::remove_file(&temporary))
        .map_err(Error::io("remove", &temporary))?;
    match linked {
        Ok(()) => {
            sync_folder(folder)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// Writes `bytes` to `path`, replacing what is there in one step.
///
/// # Errors
/// When the file system refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    create_folder(folder)?;
    let temporary = aside(folder);
    write_synced(&temporary, bytes)?;
    publish(&temporary, path)
}

/// Gives the synced file at `temporary` its final name.
///
/// # Errors
/// When the file system refuses.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    fault::around("rename", || fs::rename(temporary, path)).map_err(Error::io("rename", path))?;
    sync_folder(folder_of(path))
}

/// Makes the names in `folder` durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    fault::around("sync_folder", || File::open(folder).and_then(|file| file.sync_all()))
        .map_err(Error::io("sync folder", folder))
}

/// Returns the BLAKE3 hash of a file's bytes, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Returns the names in `folder`, sorted; none when it does not exist.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(Error::io("list", folder))?;
    names.sort_unstable();
    Ok(names)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.sync()
}

/// A file that is being written, under a name that no reader looks at.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = fault::around("create", || File::create(path));
        let file = file.map_err(Error::io("create", path))?;
        Ok(Self { file, path: path.to_owned(), bytes: 0 })
    }

    /// Waits until the bytes are on disk.
    pub(crate) fn sync(self) -> Result<()> {
        fault::around("sync", || self.file.sync_all()).map_err(Error::io("sync", &self.path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = fault::write(bytes, |bytes| self.file.write_all(bytes));
        if let Err(error) = written {
            let is_full = error.kind() == io::ErrorKind::StorageFull;
            let (wanted, before) = (bytes.len(), self.bytes);
            return Err(match is_full {
                true => io::Error::new(
                    error.kind(),
                    format!("{error}: {wanted} more bytes after {before} need room"),
                ),
                false => error,
            });
        }
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
pub(crate) mod fault;
#[cfg(not(test))]
mod fault {
    //! Where tests break things: in other builds, nothing but the operations themselves.

    use std::io;

    pub(super) fn around<T>(_: &str, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        run()
    }

    pub(super) fn write(bytes: &[u8], run: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        run(bytes)
    }
}

#[cfg(test)]
mod tests;
