//! A dataset in a store that is made in a local folder: the store's versions are the ones that count.
//!
//! Stages write, read and stage their parts in the folder, as in any other. A commit sends the files first, then creates
//! the manifest in the store, and is whole from then on; the folder learns of it last. A folder that is lost, or another machine's, is
//! filled from the store by [`Dataset::pull`].

use std::fs;
use std::path::{Path, PathBuf};

use super::{DATA, Dataset, MANIFESTS};
use crate::manifest::Manifest;
use crate::{Error, Result, store};

impl Dataset {
    /// Names the dataset in `origin`, a place in a store, that is made in the local folder `path`.
    #[must_use]
    pub fn working_copy(path: impl Into<PathBuf>, origin: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), origin: Some(origin.into()) }
    }

    /// The place in a store that the folder is a working copy of.
    #[must_use]
    pub fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// Makes the folder say what the store says: every manifest, and the files of the newest version; returns how many
    /// files came. Manifests of the folder that the store does not have go. Nothing to do without an origin.
    ///
    /// # Errors
    /// When the store or the file system refuses, or a file is not what its manifest says.
    pub fn pull(&self) -> Result<u64> {
        let Some(origin) = &self.origin else { return Ok(0) };
        let there = Self::at(origin);
        let versions = there.versions()?;
        for version in self.versions()? {
            if !versions.contains(&version) {
                store::remove(&self.manifest_path(version))?;
            }
        }
        let mut came = 0;
        if let Some(newest) = there.newest()? {
            for shard in &newest.manifest.shards {
                let path = self.path.join(&shard.path);
                if store::size(&path)? != Some(shard.bytes) {
                    self.fetch(&newest.local_shard(shard)?, &path)?;
                    came += 1;
                }
            }
        }
        if !versions.is_empty() {
            for (name, bytes) in store::list_objects(origin)? {
                let path = self.path.join(&name);
                let is_page = !name.contains('/') && !name.starts_with('.');
                if is_page && store::size(&path)? != Some(bytes) {
                    self.fetch(&store::local_copy(&origin.join(&name))?, &path)?;
                    came += 1;
                }
            }
        }
        // Manifests last: what they name is there.
        for version in versions {
            let path = self.manifest_path(version);
            let bytes = store::read(&there.manifest_path(version))?;
            let bytes = bytes.ok_or_else(|| Error::Missing {
                what: format!("version {version} of dataset `{}`", origin.display()),
                hint: "it was removed while it was read: try again".to_owned(),
            })?;
            if store::read(&path)?.as_ref() != Some(&bytes) {
                store::replace(&path, &bytes)?;
                came += 1;
            }
        }
        Ok(came)
    }

    /// Sends the files right in the folder, as cards and tokenizers are; they take the place of those in the store.
    ///
    /// # Errors
    /// When the store or the file system refuses.
    pub fn send_pages(&self) -> Result<()> {
        let Some(origin) = &self.origin else { return Ok(()) };
        for name in store::list(&self.path)? {
            let path = self.path.join(&name);
            if !name.starts_with('.') && path.is_file() {
                store::send(&path, &origin.join(&name))?;
            }
        }
        Ok(())
    }

    /// Sends what `manifest` names, and makes it the version after `base` in the store.
    pub(super) fn commit_to_origin(&self, base: u64, manifest: &Manifest) -> Result<()> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let there = Self::at(origin);
        let sizes = there.sizes()?;
        for shard in &manifest.shards {
            // Its name has its hash: what is there with that size is it.
            if sizes.of(&shard.path)? != Some(shard.bytes) {
                store::send(&self.path.join(&shard.path), &origin.join(&shard.path))?;
            }
        }
        self.send_pages()?;
        there.commit(base, manifest.clone()).map(drop)
    }

    /// Copies the local file `from` to `path` in the folder, whole or not at all.
    fn fetch(&self, from: &Path, path: &Path) -> Result<()> {
        store::create_folder(&self.path.join(DATA))?;
        store::create_folder(&self.path.join(MANIFESTS))?;
        let temporary = store::aside(&self.path);
        // Two names of one file, where the file system can do that: the cache gives way later without taking it along.
        if fs::hard_link(from, &temporary).is_err() {
            fs::copy(from, &temporary).map_err(Error::io("copy", from))?;
        }
        store::publish(&temporary, path)
    }
}

#[cfg(test)]
mod tests;
