//! A dataset that grows while it is read: each new version continues the order where the one before it ended.
//!
//! A version must extend the one before: its shards of the split, in order, begin with the older one's. The sequences
//! that it adds come after all older ones, permuted among themselves. Which versions were taken up is part of the
//! state, because a reader that looks later skips some: a replay takes up the same versions at the same samples.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::epoch::{Blocks, Epoch};
use super::{ReaderConfig, Samples, Sequence, SequenceReader};
use crate::dataset::{Dataset, Snapshot};
use crate::{Error, Result};

/// A version that a reader took up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStart {
    /// Its number.
    pub version: u64,
    /// BLAKE3 of its manifest.
    pub manifest_hash: String,
    /// The first sample that it adds.
    pub first_sample: u64,
}

/// Where a reader of a growing dataset stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowState {
    /// The versions taken up, oldest first.
    pub versions: Vec<VersionStart>,
    /// The first sample that no step has seen.
    pub next_sample: u64,
}

/// Reads each sequence of a growing dataset once.
#[derive(Debug)]
pub struct FollowReader {
    path: PathBuf,
    /// Reads the newest version taken up.
    reader: SequenceReader,
    versions: Vec<VersionStart>,
    /// What each version adds, and in which order.
    added: Vec<(Blocks, Epoch)>,
}

impl FollowReader {
    /// Opens the newest version of the dataset in the folder `dataset`.
    ///
    /// # Errors
    /// As [`SequenceReader::open`].
    pub fn open(dataset: &Path, config: ReaderConfig) -> Result<Self> {
        Self::begin(Dataset::at(dataset).open(None)?, config)
    }

    /// Opens the versions of `state`, and no newer ones.
    ///
    /// # Errors
    /// When a version is not there or not what it was.
    pub fn resume(dataset: &Path, config: ReaderConfig, state: &FollowState) -> Result<Self> {
        let (first, later) = state.versions.split_first().ok_or_else(|| Error::Missing {
            what: format!("a version of `{}` in the checkpoint", dataset.display()),
            hint: "begin a new run".to_owned(),
        })?;
        let mut follow = Self::begin(snapshot_of(dataset, first)?, config)?;
        for version in later {
            follow.take_up(snapshot_of(dataset, version)?)?;
        }
        if follow.versions != state.versions {
            return Err(Error::Corrupt {
                what: format!("the order of `{}`", dataset.display()),
                why: format!(
                    "its versions begin at {:?}, the checkpoint says {:?}",
                    follow.versions, state.versions
                ),
                hint: "resume with the sequence length, split and packing of the run".to_owned(),
            });
        }
        Ok(follow)
    }

    /// Takes up the newest version, if it adds sequences; returns whether it does.
    ///
    /// # Errors
    /// When the newest version does not extend the one that is read, or cannot be opened.
    pub fn extend(&mut self) -> Result<bool> {
        let newest = Dataset::at(&self.path).versions()?.pop().unwrap_or(0);
        if newest <= self.reader.version() {
            return Ok(false);
        }
        self.take_up(Dataset::at(&self.path).open(Some(newest))?)
    }

    /// Returns what a checkpoint keeps when `next_sample` is the first sample not seen.
    #[must_use]
    pub fn state(&self, next_sample: u64) -> FollowState {
        FollowState { versions: self.versions.clone(), next_sample }
    }

    fn begin(snapshot: Snapshot, config: ReaderConfig) -> Result<Self> {
        let path = snapshot.path.clone();
        let reader = SequenceReader::of(snapshot, config)?;
        let mut follow = Self { path, reader, versions: Vec::new(), added: Vec::new() };
        follow.record(0);
        Ok(follow)
    }

    fn take_up(&mut self, newer: Snapshot) -> Result<bool> {
        check_extends(&self.reader, &newer)?;
        let first = self.reader.n_sequences();
        let reader = SequenceReader::of(newer, self.reader.config().clone())?;
        if reader.n_sequences() == first {
            return Ok(false);
        }
        self.reader = reader;
        self.record(first);
        Ok(true)
    }

    /// Notes that the reader's version adds the sequences from `first` on.
    fn record(&mut self, first: u64) {
        let blocks = self.reader.blocks.from(first);
        let index = self.added.len() as u64;
        let epoch = Epoch::new(&blocks, self.reader.config().seed, index);
        self.added.push((blocks, epoch));
        self.versions.push(VersionStart {
            version: self.reader.version(),
            manifest_hash: self.reader.manifest_hash().to_owned(),
            first_sample: first,
        });
    }
}

impl Samples for FollowReader {
    fn seq_len(&self) -> usize {
        self.reader.seq_len()
    }

    /// Samples of the versions taken up so far.
    fn n_samples(&self) -> Option<u64> {
        Some(self.reader.n_sequences())
    }

    fn read_sequence(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        let n = self.reader.n_sequences();
        assert!(sample < n, "sample {sample} of {n}");
        let at = self.versions.partition_point(|version| version.first_sample <= sample) - 1;
        let (blocks, epoch) = &self.added[at];
        let index = epoch.sequence(blocks, sample - self.versions[at].first_sample);
        self.reader.fill(index, out)
    }
}

fn snapshot_of(dataset: &Path, wanted: &VersionStart) -> Result<Snapshot> {
    let snapshot = Dataset::at(dataset).open(Some(wanted.version))?;
    if snapshot.manifest_hash == wanted.manifest_hash {
        return Ok(snapshot);
    }
    Err(Error::Corrupt {
        what: format!("version {} of `{}`", wanted.version, dataset.display()),
        why: format!(
            "its manifest is {}, the checkpoint was made with {}",
            snapshot.manifest_hash, wanted.manifest_hash
        ),
        hint: "give the dataset that the run began with".to_owned(),
    })
}

fn check_extends(reader: &SequenceReader, newer: &Snapshot) -> Result<()> {
    let ReaderConfig { split, partition, .. } = reader.config();
    let mut added = newer.manifest.part(split, partition.as_deref());
    for shard in reader.manifest().part(split, partition.as_deref()) {
        let found = added.next();
        if found.is_none_or(|found| found.blake3 != shard.blake3) {
            let found = found.map_or("nothing", |found| found.path.as_str());
            return Err(Error::Corrupt {
                what: format!(
                    "version {} of `{}` as more of the same",
                    newer.version,
                    newer.path.display()
                ),
                why: format!(
                    "version {} has `{}` where it has {found}",
                    reader.version(),
                    shard.path
                ),
                hint: "follow only datasets that grow, or begin a new run".to_owned(),
            });
        }
    }
    let tokenizer = |manifest: &crate::Manifest| {
        manifest.tokenizer.as_ref().map_or("none".to_owned(), |info| info.fingerprint.clone())
    };
    let (old, new) = (tokenizer(reader.manifest()), tokenizer(&newer.manifest));
    if old != new {
        return Err(Error::Corrupt {
            what: format!(
                "version {} of `{}` as more of the same",
                newer.version,
                newer.path.display()
            ),
            why: format!("its tokenizer is {new}, that of version {} is {old}", reader.version()),
            hint: "follow only datasets that grow, or begin a new run".to_owned(),
        });
    }
    Ok(())
}
