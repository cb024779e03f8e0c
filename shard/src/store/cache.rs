//! Local copies of objects, by their content: bounded in size, shared by processes, least recently used out first.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::object::Object;
use super::{ASIDE, aside, create_folder, folder_of, remove};
use crate::{Error, Result};

/// Copies by the BLAKE3 of their content.
const SHARDS: &str = "shards";
/// Copies by address and version.
const OBJECTS: &str = "objects";
/// Files on their way to a store.
const OUTBOX: &str = "outbox";
/// Characters of an object's name that its copy keeps, from the end: with the hash, shorter than any file system's limit.
const NAME_CHARS: usize = 48;
/// The variable that names the folder of local copies.
pub const CACHE: &str = "GRISTMILL_CACHE";
/// The variable that bounds their bytes.
pub const CACHE_BYTES: &str = "GRISTMILL_CACHE_BYTES";
/// Their bytes, at most, unless the variable says otherwise.
const BYTES_MAX: u64 = 32 << 30;
/// A copy that was asked for within this time stays, whatever the bound: somebody is about to open it.
const IN_USE: Duration = Duration::from_secs(300);
/// A half-written file that is older belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A folder of local copies.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
}

/// The folder of this user's local copies, and of jobs that write to a store.
#[must_use]
pub fn cache_folder() -> PathBuf {
    if cfg!(test) {
        return std::env::temp_dir().join("gristmill-tests");
    }
    let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    variable(CACHE)
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("gristmill")))
        .or_else(|| Some(variable("HOME")?.join(".cache/gristmill")))
        .unwrap_or_else(|| std::env::temp_dir().join("gristmill"))
}

/// Where files are written before they are sent to a store.
pub(super) fn outbox() -> PathBuf {
    cache_folder().join(OUTBOX)
}

fn bytes_max() -> Result<u64> {
    match std::env::var(CACHE_BYTES) {
        Err(_) => Ok(BYTES_MAX),
        Ok(text) => text.parse().map_err(|_| Error::Config {
            place: CACHE_BYTES.to_owned(),
            message: format!("`{text}` is not a number of bytes"),
            hint: Some(format!("the default is {BYTES_MAX}")),
        }),
    }
}

/// How a copy is told to be the right one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    /// BLAKE3 of the bytes, as a manifest has it.
    Content(&'a str),
    /// What the store says of the object: its version, or when it was written.
    Version(&'a str),
}

impl Cache {
    /// The one that the environment names.
    pub(super) fn of_user() -> Result<Self> {
        Ok(Self { folder: cache_folder(), bytes_max: bytes_max()? })
    }

    /// Returns the local copy of `object`, which has `bytes` bytes; it is fetched unless it is there.
    ///
    /// # Errors
    /// When the store or the file system refuses, or what comes is not what is known of it.
    pub(super) fn fetch(&self, object: &Object, bytes: u64, known: Known<'_>) -> Result<PathBuf> {
        let path = match known {
            Known::Content(hash) => self.shard(hash),
            Known::Version(version) => {
                let url = object.url();
                let name = blake3::hash(format!("{url} {bytes} {version}").as_bytes()).to_hex();
                // Readers may look at the end of the name.
                let last = url.rsplit('/').next().unwrap_or_default();
                let end: Vec<char> = last.chars().rev().take(NAME_CHARS).collect();
                let end: String = end.into_iter().rev().collect();
                self.folder.join(OBJECTS).join(format!("{}-{end}", &name.as_str()[..32]))
            }
        };
        let busy = busy(&path);
        let _turn = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if is_kept(&path, bytes)? {
            return Ok(path);
        }
        let folder = folder_of(&path);
        create_folder(folder)?;
        let temporary = aside(folder);
        let fetched = download(object, bytes, known, &temporary);
        let placed = fetched.and_then(|()| {
            // Another process may have been faster: both copies are the same.
            fs::rename(&temporary, &path).map_err(Error::io("rename", &path))
        });
        if let Err(error) = placed {
            remove(&temporary)?;
            return Err(error);
        }
        self.make_room(&path)?;
        Ok(path)
    }

    /// Keeps `file`, whose bytes have this hash and are in the store now, as the local copy.
    pub(super) fn keep(&self, file: &Path, hash: &str) -> Result<()> {
        let path = self.shard(hash);
        create_folder(folder_of(&path))?;
        fs::rename(file, &path).map_err(Error::io("rename", &path))?;
        self.make_room(&path)
    }

    /// Forgets the copy of what has this hash: its bytes are not what they were.
    pub(super) fn forget(&self, hash: &str) -> Result<()> {
        remove(&self.shard(hash))
    }

    fn shard(&self, hash: &str) -> PathBuf {
        self.folder.join(SHARDS).join(hash)
    }

    /// Removes the copies that were asked for longest ago until the bound holds; `newest` stays.
    fn make_room(&self, newest: &Path) -> Result<()> {
        let now = SystemTime::now();
        let age = |modified: SystemTime| now.duration_since(modified).unwrap_or_default();
        let mut copies = Vec::new();
        let mut total = 0;
        for folder in [SHARDS, OBJECTS, OUTBOX].map(|name| self.folder.join(name)) {
            for name in super::list(&folder)? {
                let path = folder.join(&name);
                // Another process may have removed it.
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let modified = metadata.modified().map_err(Error::io("read", &path))?;
                if name.starts_with(ASIDE) {
                    if age(modified) > ABANDONED {
                        remove(&path)?;
                    }
                    continue;
                }
                total += metadata.len();
                copies.push((modified, metadata.len(), path));
            }
        }
        copies.sort();
        for (modified, bytes, path) in copies {
            if total <= self.bytes_max || age(modified) < IN_USE {
                break;
            }
            if path != newest {
                remove(&path)?;
                total -= bytes;
            }
        }
        Ok(())
    }
}

fn download(object: &Object, bytes: u64, known: Known<'_>, path: &Path) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    let mut hasher = blake3::Hasher::new();
    object.stream(bytes, |part| {
        hasher.update(part);
        file.write_all(part).map_err(Error::io("write", path))
    })?;
    let found = hasher.finalize().to_hex();
    match known {
        Known::Content(hash) if found.as_str() != hash => Err(Error::Corrupt {
            what: format!("shard `{}`", object.url()),
            why: format!("its blake3 is {found}, manifest says {hash}"),
            hint: "remove it and run the job again: complete shards are kept".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether the copy is there; notes that it was asked for.
fn is_kept(path: &Path, bytes: u64) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let found = file.metadata().map_err(Error::io("read", path))?.len();
    // A computer that lost its power may have kept the name and not the bytes.
    if found != bytes {
        return Ok(false);
    }
    let now = FileTimes::new().set_modified(SystemTime::now());
    file.set_times(now).map_err(Error::io("touch", path))?;
    Ok(true)
}

/// The turn of one copy: two threads that want it fetch it once.
fn busy(path: &Path) -> Arc<Mutex<()>> {
    type Turns = BTreeMap<PathBuf, Arc<Mutex<()>>>;
    static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    Arc::clone(turns.entry(path.to_owned()).or_default())
}

#[cfg(test)]
mod tests;
