//! A dataset as a folder: versions, commit, verification, clean-up.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{Manifest, Shard, hash};
use crate::{Error, Result, store};

mod verify;

pub use verify::{Failure, Verification};

/// The folder that holds the manifests.
const MANIFESTS: &str = "manifest";
/// The folder that holds the shards.
pub(crate) const DATA: &str = "data";
/// The folder that holds what unfinished stages keep for their next run.
pub const STAGING: &str = "staging";

/// A folder of shards with one manifest per version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    path: PathBuf,
}

/// One version of a dataset, as read from disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The dataset's folder.
    pub path: PathBuf,
    /// From 1.
    pub version: u64,
    /// BLAKE3 of the manifest's bytes.
    pub manifest_hash: String,
    /// What is in it.
    pub manifest: Manifest,
}

impl Dataset {
    /// Names the dataset in `path`; nothing is read or created yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder where stages keep finished parts until they are committed.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.path.join(STAGING)
    }

    /// Returns the committed versions, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn versions(&self) -> Result<Vec<u64>> {
        let names = store::list(&self.path.join(MANIFESTS))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Reads a version, the newest without one.
    ///
    /// # Errors
    /// When there is no such version or its manifest cannot be read.
    pub fn open(&self, version: Option<u64>) -> Result<Snapshot> {
        let version = match version {
            Some(version) => version,
            None => self.versions()?.pop().ok_or_else(|| Error::Missing {
                what: format!("a dataset in `{}`", self.path.display()),
                hint: "run the job that makes it, or check the path".to_owned(),
            })?,
        };
        let path = self.manifest_path(version);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing {
                    what: format!("version {version} of dataset `{}`", self.path.display()),
                    hint: format!("it has the versions {:?}", self.versions()?),
                });
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let (manifest, manifest_hash) =
            Manifest::from_bytes_hashed(&bytes, &path.display().to_string())?;
        Ok(Snapshot { path: self.path.clone(), version, manifest_hash, manifest })
    }

    /// Reads the newest version, `None` where nothing was committed yet.
    ///
    /// # Errors
    /// When the newest manifest cannot be read.
    pub fn newest(&self) -> Result<Option<Snapshot>> {
        match self.versions()?.pop() {
            Some(version) => self.open(Some(version)).map(Some),
            None => Ok(None),
        }
    }

    /// Makes `manifest` the version after `base` (0 for the first one), whole or not at all.
    ///
    /// Its shards must be in place already. Committing what the newest version says already changes nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another writer made that version first: read it and try again on top.
    pub fn commit(&self, base: u64, manifest: Manifest) -> Result<Snapshot> {
        manifest.counts.assert_complete(manifest.kind.name());
        let bytes = manifest.to_bytes();
        let manifest_hash = hash(&bytes);
        if let Some(newest) = self.newest()?
            && newest.manifest_hash == manifest_hash
        {
            // Whoever made it may have died before its name was durable.
            store::sync_folder(&self.path.join(MANIFESTS))?;
            return Ok(newest);
        }
        for shard in &manifest.shards {
            let path = self.path.join(&shard.path);
            let found = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
            assert_eq!(found, shard.bytes, "shard `{}` changed before its commit", path.display());
        }
        let version = base + 1;
        store::create_folder(&self.path.join(MANIFESTS))?;
        if !store::put_if_absent(&self.manifest_path(version), &bytes)? {
            return Err(Error::Conflict { dataset: self.path.clone(), version });
        }
        Ok(Snapshot { path: self.path.clone(), version, manifest_hash, manifest })
    }

    /// Removes every file that no version names, and returns them, sorted.
    ///
    /// Must not run while a stage writes to the dataset: its staged parts would go too.
    ///
    /// # Errors
    /// When a manifest cannot be read (nothing is removed then) or a file cannot be removed.
    pub fn clean(&self) -> Result<Vec<PathBuf>> {
        let mut named = BTreeSet::new();
        for version in self.versions()? {
            let manifest = self.open(Some(version))?.manifest;
            named.extend(manifest.shards.into_iter().map(|shard| shard.path));
            named.extend(manifest.tokenizer.map(|tokenizer| tokenizer.path));
        }
        let mut removed = Vec::new();
        let staging = self.staging();
        if staging.is_dir() {
            fs::remove_dir_all(&staging).map_err(Error::io("remove", &staging))?;
            removed.push(staging);
        }
        for folder in [DATA, "."] {
            for name in store::list(&self.path.join(folder))? {
                let relative =
                    if folder == "." { name.clone() } else { format!("{folder}/{name}") };
                let path = self.path.join(&relative);
                let is_ours = folder == DATA
                    || name.starts_with(store::ASIDE)
                    || name.starts_with("tokenizer-");
                if is_ours && path.is_file() && !named.contains(&relative) {
                    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                    removed.push(path);
                }
            }
        }
        Ok(removed)
    }

    /// Removes half-written files of writers that were killed; staged parts stay.
    ///
    /// Must not run while another process writes to the dataset.
    ///
    /// # Errors
    /// When a folder cannot be read or a file cannot be removed.
    pub fn remove_half_written(&self) -> Result<()> {
        for folder in [DATA, MANIFESTS, "."] {
            let folder = self.path.join(folder);
            for name in store::list(&folder)? {
                if name.starts_with(store::ASIDE) {
                    let path = folder.join(name);
                    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn manifest_path(&self, version: u64) -> PathBuf {
        self.path.join(MANIFESTS).join(format!("{version:08}.json"))
    }
}

impl Snapshot {
    /// Where a shard lies.
    #[must_use]
    pub fn shard_path(&self, shard: &Shard) -> PathBuf {
        self.path.join(&shard.path)
    }

    /// The shards, each with the position of its first row in the dataset.
    #[must_use]
    pub fn shards_with_first_rows(&self) -> Vec<(&Shard, u64)> {
        let mut first_row = 0;
        let mut shards = Vec::with_capacity(self.manifest.shards.len());
        for shard in &self.manifest.shards {
            shards.push((shard, first_row));
            first_row += shard.rows;
        }
        shards
    }

    /// Whether every file that the manifest names is there, shards with the right size; nothing is read.
    ///
    /// # Errors
    /// When the file system refuses to tell.
    pub fn is_present(&self) -> Result<bool> {
        let shards = self.manifest.shards.iter();
        let shards = shards.map(|shard| (&shard.path, Some(shard.bytes)));
        let tokenizer = self.manifest.tokenizer.iter().map(|info| (&info.path, None));
        for (path, bytes) in shards.chain(tokenizer) {
            let path = self.path.join(path);
            match fs::metadata(&path) {
                Ok(found) if bytes.is_none_or(|bytes| bytes == found.len()) => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(true)
    }

    /// Checks size and hash of a shard.
    ///
    /// # Errors
    /// When they are not those of the manifest; the message names both hashes.
    pub fn verify(&self, shard: &Shard) -> Result<()> {
        let path = self.shard_path(shard);
        let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        let hint = "remove it and run the job again: complete shards are kept".to_owned();
        let what = format!("shard `{}`", path.display());
        if bytes != shard.bytes {
            let why = format!("it has {bytes} bytes, manifest says {}", shard.bytes);
            return Err(Error::Corrupt { what, why, hint });
        }
        let found = store::hash_file(&path)?;
        if found != shard.blake3 {
            let why = format!("its blake3 is {found}, manifest says {}", shard.blake3);
            return Err(Error::Corrupt { what, why, hint });
        }
        Ok(())
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
pub(crate) mod tests;
