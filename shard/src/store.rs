//! Files that are either whole or not there: every write of a dataset goes through these functions.
//!
//! A path that begins with `s3://`, `gs://` or `az://` is in an object store, one that begins with `https://` is on the web
//! and only read. There, an object appears whole when its last byte has come, and "unless it is there already" is a condition
//! that the store decides ([`put_if_absent`]). Files on their way to a store wait in [`cache_folder`], and so do copies of
//! what is read from it ([`local`]).
//!
//! A name appears only after its bytes are on disk (`fsync`, then link or rename, then `fsync` of the folder).
//! A failed `fsync` is final for that file: the kernel may have thrown the pages away, so it is never tried again
//! (Rebello et al. 2021).

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use object_store::ObjectStore;

use crate::{Error, Result};

mod cache;
mod object;

pub use cache::{CACHE, CACHE_BYTES, cache_folder};
use cache::{Cache, Known};
use object::Object;

/// Whether `path` is in an object store or on the web.
#[must_use]
pub fn is_object(path: &Path) -> bool {
    object::is_object(path)
}

/// Whether `path` is on the web: it is read, never written, and its folders cannot be listed.
#[must_use]
pub fn is_web(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

/// Returns `path` as seen from `folder`; a place in a store is one from everywhere.
#[must_use]
pub fn join(folder: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    if is_object(path) { path.to_owned() } else { folder.join(path) }
}

/// Creates `folder` and the folders above it; in a store, folders are but names.
///
/// # Errors
/// When the file system refuses.
pub fn create_folder(folder: &Path) -> Result<()> {
    if is_object(folder) {
        return create_folder(&cache::outbox());
    }
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))
}

/// Returns a name that no other writer uses, for bytes that are not visible yet: in `folder`, or where files on their way
/// to a store wait.
#[must_use]
pub fn aside(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Machines that share a folder may give their processes the same numbers: in containers most are 1.
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = if is_object(folder) { cache::outbox() } else { folder.to_owned() };
    folder.join(format!("{ASIDE}{}-{:016x}-{n}", std::process::id(), *PROCESS))
}

/// How names of [`aside`] begin; readers skip them and [`crate::Dataset::clean`] removes them.
pub const ASIDE: &str = ".tmp-";

/// Writes `bytes` to `path` unless it is there already; returns whether it was written.
///
/// In a store, an equal object counts as written: the answer to the first try may have been lost.
///
/// # Errors
/// When the file system or the store refuses, except for "already there".
pub fn put_if_absent(path: &Path, bytes: &[u8]) -> Result<bool> {
    if let Some(object) = Object::at(path)? {
        return object.create(bytes);
    }
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
    if let Some(object) = Object::at(path)? {
        return object.write(bytes);
    }
    let folder = folder_of(path);
    create_folder(folder)?;
    let temporary = aside(folder);
    write_synced(&temporary, bytes)?;
    publish(&temporary, path)
}

/// Gives the synced file at `temporary` its final name; one in a store is sent there first.
///
/// # Errors
/// When the file system or the store refuses.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    if is_object(path) {
        send(temporary, path)?;
        return fs::remove_file(temporary).map_err(Error::io("remove", temporary));
    }
    fault::around("rename", || fs::rename(temporary, path)).map_err(Error::io("rename", path))?;
    sync_folder(folder_of(path))
}

/// Sends the bytes of `file` to `path` in a store, in parts where they are many.
///
/// # Errors
/// When the file cannot be read, or the store refuses or has another size afterwards.
pub fn send(file: &Path, path: &Path) -> Result<()> {
    let object = in_store(path)?;
    let mut opened = File::open(file).map_err(Error::io("open", file))?;
    let bytes = opened.metadata().map_err(Error::io("read", file))?.len();
    object.upload(&mut opened, bytes)?;
    match object.head()?.map(|head| head.size) {
        Some(found) if found == bytes => Ok(()),
        found => Err(Error::Corrupt {
            what: format!("`{}`", object.url()),
            why: format!("{bytes} bytes were sent, the store has {found:?}"),
            hint: "run again: the store did not keep what it said it had".to_owned(),
        }),
    }
}

/// As [`publish`] into a store, for a shard whose bytes have the hash `blake3`; the file becomes the local copy.
pub(crate) fn publish_shard(temporary: &Path, path: &Path, blake3: &str) -> Result<()> {
    if !is_object(path) {
        return publish(temporary, path);
    }
    send(temporary, path)?;
    Cache::of_user()?.keep(temporary, blake3)
}

/// Asks the store of `folder` once per process whether it honours the condition of [`put_if_absent`].
///
/// # Errors
/// When it does not: two writers could commit one version.
pub(crate) fn check_conditional(folder: &Path) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if !is_object(folder) {
        return Ok(());
    }
    // Unique among machines: a probe that another one removes would answer for the wrong reason.
    let unique = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{ASIDE}{}-{n}-{unique}", std::process::id());
    in_store(&folder.join(name))?.check_conditional()
}

/// Returns where the bytes of a shard with this size and hash can be opened: `path` itself, or a copy of the object there.
///
/// Copies stay in [`cache_folder`] until others need the room; one that was asked for in the last minutes stays.
///
/// # Errors
/// When the store or the file system refuses, or what comes has another hash.
pub fn local(path: &Path, bytes: u64, blake3: &str) -> Result<PathBuf> {
    match Object::at(path)? {
        None => Ok(path.to_owned()),
        Some(object) => Cache::of_user()?.fetch(&object, bytes, Known::Content(blake3)),
    }
}

/// The same for an object of which nothing is known but what the store says now.
///
/// # Errors
/// When there is none, or the store or the file system refuses.
pub fn local_copy(path: &Path) -> Result<PathBuf> {
    let Some(object) = Object::at(path)? else { return Ok(path.to_owned()) };
    let head = object.head()?.ok_or_else(|| not_found(path))?;
    let version = head.e_tag.unwrap_or_else(|| head.last_modified.to_rfc3339());
    Cache::of_user()?.fetch(&object, head.size, Known::Version(&version))
}

/// Removes the local copy of a shard whose bytes turned out wrong.
pub(crate) fn forget(blake3: &str) -> Result<()> {
    Cache::of_user()?.forget(blake3)
}

/// Reads all bytes of `path`; `None` where it is not there.
///
/// # Errors
/// When the file system or the store refuses.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if let Some(object) = Object::at(path)? {
        return object.read();
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Reads the bytes `range` of an object, or of a file.
///
/// # Errors
/// When it is not there or shorter, or the file system or the store refuses.
pub fn read_range(path: &Path, range: Range<u64>) -> Result<Vec<u8>> {
    if let Some(object) = Object::at(path)? {
        return object.read_range(range);
    }
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(range.start)).map_err(Error::io("read", path))?;
    let n = usize::try_from(range.end - range.start).expect("a range is in memory");
    let mut bytes = vec![0; n];
    file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Returns the size of the file at `path`; `None` where it is not there.
///
/// # Errors
/// When the file system or the store refuses.
pub fn size(path: &Path) -> Result<Option<u64>> {
    if let Some(object) = Object::at(path)? {
        return Ok(object.head()?.map(|head| head.size));
    }
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Removes the file at `path`; one that is not there is as good.
///
/// # Errors
/// When the file system or the store refuses.
pub fn remove(path: &Path) -> Result<()> {
    if let Some(object) = Object::at(path)? {
        return object.remove();
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the names in `folder` durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if is_object(folder) {
        return Ok(());
    }
    fault::around("sync_folder", || File::open(folder).and_then(|file| file.sync_all()))
        .map_err(Error::io("sync folder", folder))
}

/// Returns the BLAKE3 hash of a file's bytes, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    if let Some(object) = Object::at(path)? {
        let bytes = object.head()?.ok_or_else(|| not_found(path))?.size;
        let mut hasher = blake3::Hasher::new();
        object.stream(bytes, |part| {
            hasher.update(part);
            Ok(())
        })?;
        return Ok(hasher.finalize().to_hex().to_string());
    }
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

/// Returns the names in `folder`, sorted; none when it does not exist, or is on the web, where folders are not listed.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<String>> {
    if is_web(folder) {
        return Ok(Vec::new());
    }
    if let Some(object) = Object::at(folder)? {
        return Ok(object.list()?.into_iter().map(|(name, _)| name).collect());
    }
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

/// Returns the objects below `folder` in a store, at any depth, by name relative to it and size, sorted.
///
/// # Errors
/// When the store refuses, or `folder` is not in one.
pub fn list_objects(folder: &Path) -> Result<Vec<(String, u64)>> {
    in_store(folder)?.list_all()
}

/// Returns the store that `path` is in (`s3://bucket`) with a client for it, and the key inside of it.
///
/// # Errors
/// When the store cannot be used, or `path` is not in one.
pub fn client(path: &Path) -> Result<(String, Arc<dyn ObjectStore>, object_store::path::Path)> {
    let object = in_store(path)?;
    let (root, client) = object.root();
    Ok((root, client, object.key().clone()))
}

fn in_store(path: &Path) -> Result<Object> {
    Object::at(path)?.ok_or_else(|| Error::Missing {
        what: format!("an object store in `{}`", path.display()),
        hint: "write it as `s3://bucket/folder`".to_owned(),
    })
}

/// What reading `path` gives when nothing is there.
pub(crate) fn not_found(path: &Path) -> Error {
    Error::io("read", path)(io::ErrorKind::NotFound.into())
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
