//! A dataset as a folder: versions, commit, verification, clean-up.
//!
//! The folder is a local one, or one in an object store, named `s3://bucket/folder`: see [`crate::store`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::manifest::{Manifest, Shard, hash};
use crate::{Error, Result, store};

mod origin;
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
    /// The place in a store that the folder is a working copy of.
    origin: Option<PathBuf>,
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
        Self { path: path.into(), origin: None }
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
        let folder = self.path.join(MANIFESTS);
        if store::is_web(&folder) {
            return self.web_versions();
        }
        let names = store::list(&folder)?;
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
        let Some(bytes) = store::read(&path)? else {
            return Err(Error::Missing {
                what: format!("version {version} of dataset `{}`", self.path.display()),
                hint: format!("it has the versions {:?}", self.versions()?),
            });
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
        self.commit_to_origin(base, &manifest)?;
        if let Some(newest) = self.same_as(base, &manifest_hash)? {
            // Whoever made it may have died before its name was durable.
            store::sync_folder(&self.path.join(MANIFESTS))?;
            return Ok(newest);
        }
        let sizes = self.sizes()?;
        for shard in &manifest.shards {
            let path = self.path.join(&shard.path);
            let found = sizes.of(&shard.path)?.ok_or_else(|| store::not_found(&path))?;
            assert_eq!(found, shard.bytes, "shard `{}` changed before its commit", path.display());
        }
        let version = base + 1;
        store::create_folder(&self.path.join(MANIFESTS))?;
        store::check_conditional(&self.path.join(MANIFESTS))?;
        if !store::put_if_absent(&self.manifest_path(version), &bytes)? {
            // An earlier try of this commit may have gone through, and others have come after it.
            let newest = self.newest()?.filter(|it| it.manifest_hash == manifest_hash);
            return newest.ok_or_else(|| Error::Conflict { dataset: self.path.clone(), version });
        }
        Ok(Snapshot { path: self.path.clone(), version, manifest_hash, manifest })
    }

    /// The newest version, if its manifest has this hash; in a store, where each look costs a request, the version `base`.
    fn same_as(&self, base: u64, manifest_hash: &str) -> Result<Option<Snapshot>> {
        let found = match (store::is_object(&self.path), base) {
            (true, 0) => None,
            (true, base) => match store::read(&self.manifest_path(base))? {
                Some(bytes) if hash(&bytes) == manifest_hash => Some(self.open(Some(base))?),
                _ => None,
            },
            (false, _) => self.newest()?,
        };
        Ok(found.filter(|found| found.manifest_hash == manifest_hash))
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
        if store::is_object(&self.path) {
            return self.clean_objects(&named);
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
        // Objects are whole or not there.
        if store::is_object(&self.path) {
            return Ok(());
        }
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

    fn clean_objects(&self, named: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for (name, _) in store::list_objects(&self.path)? {
            let file = name.rsplit('/').next().unwrap_or_default();
            let is_ours = name.starts_with(&format!("{DATA}/"))
                || file.starts_with(store::ASIDE)
                || name.starts_with("tokenizer-");
            if is_ours && !named.contains(&name) {
                let path = self.path.join(&name);
                store::remove(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// The versions of a dataset on the web, which lists no folders: 1, 2 and so on, as far as they go.
    fn web_versions(&self) -> Result<Vec<u64>> {
        let is_there = |version: u64| Ok(store::size(&self.manifest_path(version))?.is_some());
        let mut above = 1;
        while is_there(above)? {
            above *= 2;
        }
        let mut newest = above / 2;
        while above - newest > 1 {
            let middle = newest.midpoint(above);
            match is_there(middle)? {
                true => newest = middle,
                false => above = middle,
            }
        }
        Ok((1..=newest).collect())
    }

    /// What tells the sizes of the files that a manifest names.
    fn sizes(&self) -> Result<Sizes> {
        if !store::is_object(&self.path) || store::is_web(&self.path) {
            return Ok(Sizes { folder: self.path.clone(), listed: None });
        }
        // One answer for a thousand objects, instead of one for each.
        let listed = store::list_objects(&self.path.join(DATA))?;
        let named = listed.into_iter().map(|(name, size)| (format!("{DATA}/{name}"), size));
        Ok(Sizes { folder: self.path.clone(), listed: Some(named.collect()) })
    }

    pub(crate) fn manifest_path(&self, version: u64) -> PathBuf {
        self.path.join(MANIFESTS).join(format!("{version:08}.json"))
    }
}

/// Sizes of the files of a dataset.
struct Sizes {
    folder: PathBuf,
    /// Those of the shards of a dataset in a store.
    listed: Option<BTreeMap<String, u64>>,
}

impl Sizes {
    fn of(&self, path: &str) -> Result<Option<u64>> {
        match self.listed.as_ref().filter(|_| path.starts_with(DATA)) {
            Some(listed) => Ok(listed.get(path).copied()),
            None => store::size(&self.folder.join(path)),
        }
    }
}

impl Snapshot {
    /// Where a shard lies.
    #[must_use]
    pub fn shard_path(&self, shard: &Shard) -> PathBuf {
        self.path.join(&shard.path)
    }

    /// Where a shard can be opened: where it lies, or its local copy, which is fetched and checked unless it is there.
    ///
    /// # Errors
    /// When the store refuses, or has other bytes than the manifest says.
    pub fn local_shard(&self, shard: &Shard) -> Result<PathBuf> {
        store::local(&self.shard_path(shard), shard.bytes, &shard.blake3)
    }

    /// The same with bytes that are those of the manifest now, whatever a copy has suffered since it came.
    ///
    /// # Errors
    /// As [`Snapshot::verify`] and [`Snapshot::local_shard`].
    pub(crate) fn verified_shard(&self, shard: &Shard) -> Result<PathBuf> {
        let path = self.local_shard(shard)?;
        if !store::is_object(&self.path) {
            self.verify(shard)?;
        } else if store::hash_file(&path)? != shard.blake3 {
            store::forget(&shard.blake3)?;
            return self.local_shard(shard);
        }
        Ok(path)
    }

    /// As [`Snapshot::local_shard`], for the tokenizer of this version, if it names one.
    ///
    /// # Errors
    /// As [`Snapshot::local_shard`].
    pub fn local_tokenizer(&self) -> Result<Option<PathBuf>> {
        let Some(tokenizer) = &self.manifest.tokenizer else { return Ok(None) };
        let path = self.path.join(&tokenizer.path);
        let bytes = store::size(&path)?.ok_or_else(|| store::not_found(&path))?;
        store::local(&path, bytes, &tokenizer.fingerprint).map(Some)
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
        let sizes = Dataset::at(&self.path).sizes()?;
        for (path, bytes) in shards.chain(tokenizer) {
            match sizes.of(path)? {
                Some(found) if bytes.is_none_or(|bytes| bytes == found) => {}
                _ => return Ok(false),
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
        let bytes = store::size(&path)?.ok_or_else(|| store::not_found(&path))?;
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
