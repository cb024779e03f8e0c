//! The shingle sets of candidates on disk, by groups of clusters that are verified one after the other.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Removed, Result, Verifier};

/// Groups that are written at the same time, at most: each is an open file.
pub const GROUPS_MAX: usize = 512;
/// What a group collects before it is written.
const BUFFER_BYTES: usize = 16 << 10;
/// Root, row and number of shingles before each set.
const HEADER_BYTES: usize = 12;
/// Shingles that are written or read at a time.
const CHUNK: usize = 512;

/// Shingle sets of the members of clusters, written in any order and by any number of threads.
///
/// Memory is the buffers of the groups, and while one is verified, 24 bytes for each of its members beside its [`Verifier`].
#[derive(Debug)]
pub struct ClusterSets {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

/// A member of a cluster and where its set lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    root: u32,
    row: u32,
    n_shingles: u32,
    offset: u64,
}

impl ClusterSets {
    /// Begins `n_groups` groups, at most [`GROUPS_MAX`], in `folder`, which is there.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be created.
    pub fn create(folder: &Path, n_groups: usize) -> Result<Self> {
        assert!(n_groups <= GROUPS_MAX, "{n_groups} groups at a time");
        let groups = (0..n_groups).map(|index| {
            let path = folder.join(format!("sets-{index:03}"));
            let file = File::create(&path).map_err(Error::io("create", &path))?;
            Ok(Group { path, file: Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, file)) })
        });
        Ok(Self { groups: groups.collect::<Result<_>>()? })
    }

    /// Adds a member of the cluster of `root`, with its sorted set of shingles; all members of a cluster go into one group.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk takes no more.
    pub fn push(&self, group: usize, root: u32, row: u32, shingles: &[u64]) -> Result<()> {
        let Group { path, file } = &self.groups[group];
        let n_shingles = u32::try_from(shingles.len()).expect("a text has less than 4 G words");
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut write = || {
            for number in [root, row, n_shingles] {
                file.write_all(&number.to_le_bytes())?;
            }
            let mut bytes = [0; 8 * CHUNK];
            for chunk in shingles.chunks(CHUNK) {
                for (bytes, shingle) in bytes.chunks_exact_mut(8).zip(chunk) {
                    bytes.copy_from_slice(&shingle.to_le_bytes());
                }
                file.write_all(&bytes[..8 * chunk.len()])?;
            }
            Ok(())
        };
        write().map_err(Error::io("write", path))
    }

    /// Verifies the clusters of a group at a Jaccard index of `threshold`, tells `found` the root of the cluster of each
    /// document that goes, and removes the group's file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn verify(
        &self,
        group: usize,
        threshold: f64,
        mut found: impl FnMut(u32, Removed),
    ) -> Result<()> {
        let Group { path, file } = &self.groups[group];
        let flushed = file.lock().unwrap_or_else(PoisonError::into_inner).flush();
        flushed.map_err(Error::io("write", path))?;
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut members = index(&file).map_err(Error::io("read", path))?;
        members.sort_unstable();
        let mut verifier = Verifier::new(threshold);
        let (mut bytes, mut shingles) = (Vec::new(), Vec::new());
        for cluster in members.chunk_by(|a, b| a.root == b.root) {
            verifier.clear();
            for member in cluster {
                bytes.resize(8 * member.n_shingles as usize, 0);
                file.seek(SeekFrom::Start(member.offset))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(Error::io("read", path))?;
                shingles.clear();
                shingles.extend(
                    bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight"))),
                );
                if let Some(removed) = verifier.push(u64::from(member.row), &shingles) {
                    found(member.root, removed);
                }
            }
        }
        fs::remove_file(path).map_err(Error::io("remove", path))
    }
}

/// The members of a group, in the order in which they were written.
fn index(file: &File) -> std::io::Result<Vec<Member>> {
    let end = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut members = Vec::new();
    let mut offset = 0;
    while offset < end {
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header)?;
        let number = |at: usize| {
            u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of the header"))
        };
        let (root, row, n_shingles) = (number(0), number(4), number(8));
        offset += HEADER_BYTES as u64;
        members.push(Member { root, row, n_shingles, offset });
        reader.seek_relative(8 * i64::from(n_shingles))?;
        offset += 8 * u64::from(n_shingles);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verify::verify;

    proptest! {
        #[test]
        fn a_group_is_verified_as_its_clusters_are_one_by_one(
            sets in proptest::collection::vec((0u32..5, proptest::collection::btree_set(0u64..30, 0..25)), 0..60)
                .prop_flat_map(|sets| {
                    let order: Vec<usize> = (0..sets.len()).collect();
                    (Just(sets), Just(order).prop_shuffle())
                }),
        ) {
            let (sets, order) = sets;
            let folder = tempfile::tempdir().unwrap();
            let groups = ClusterSets::create(folder.path(), 2).unwrap();
            let shingles = |row: usize| sets[row].1.iter().copied().collect::<Vec<u64>>();
            for row in order {
                let root = sets[row].0;
                let number = u32::try_from(row).unwrap();
                groups.push(root as usize % 2, root, number, &shingles(row)).unwrap();
            }
            let mut found = Vec::new();
            for group in 0..2 {
                groups.verify(group, 0.6, |root, removed| found.push((root, removed))).unwrap();
            }
            found.sort_by_key(|(root, removed)| (*root, removed.row));
            let mut expected = Vec::new();
            for root in 0..5 {
                let members: Vec<(u64, Vec<u64>)> = (0..sets.len())
                    .filter(|&row| sets[row].0 == root)
                    .map(|row| (row as u64, shingles(row)))
                    .collect();
                expected.extend(verify(&members, 0.6).into_iter().map(|removed| (root, removed)));
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        }
    }
}
