//! Rows that share a key, joined into clusters: keys go to disk by their first bits, then each partition is one table.
//!
//! Time is linear in the number of keys, whatever they are: a million rows of one key are a million look-ups of one slot.
//! Memory is that of the table of one partition, which holds each *distinct* key once.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result, UnionFind};

/// Bytes that a [`Scatter`] collects for a partition before it writes them.
const BUFFER_BYTES: usize = 8 << 10;
/// Files that are open at the same time, at most.
const PARTITIONS_MAX: u64 = 512;
/// What a distinct key takes in a table, at most: its slot, and as much again unused, and half while it grows.
const SLOT_BYTES: u64 = 3 * 24;

/// What rows have in common: bits that are already as good as random.
pub trait Key: Copy + Eq + Send + Sync {
    /// Its bytes on disk.
    const BYTES: usize;
    /// Writes it into `bytes`, which are [`Self::BYTES`] long.
    fn write(self, bytes: &mut [u8]);
    /// Reads what [`Self::write`] wrote.
    fn read(bytes: &[u8]) -> Self;
    /// 64 of its bits.
    fn bits(self) -> u64;
}

impl Key for u64 {
    const BYTES: usize = 8;

    fn write(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("as many bytes as a key has"))
    }

    fn bits(self) -> u64 {
        self
    }
}

/// A hash of 128 bits: equal ones stand for equal things.
impl Key for u128 {
    const BYTES: usize = 16;

    fn write(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("as many bytes as a key has"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
    fn bits(self) -> u64 {
        self as u64
    }
}

/// Keys with their rows on disk, in partitions that are joined one by one, by any number of threads.
///
/// The clusters depend on neither the order of the rows nor the number of partitions or threads.
#[derive(Debug)]
pub struct Buckets<K> {
    partitions: Vec<Partition>,
    key: std::marker::PhantomData<K>,
}

#[derive(Debug)]
struct Partition {
    path: PathBuf,
    file: Mutex<File>,
}

impl<K: Key> Buckets<K> {
    /// Begins in `folder`, which is there, with as many partitions as tables of `n_keys` keys need to stay below `memory` bytes each.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be created.
    pub fn create(folder: &Path, n_keys: u64, memory: u64) -> Result<Self> {
        let n = (n_keys.saturating_mul(SLOT_BYTES) / memory.max(1)).clamp(1, PARTITIONS_MAX);
        let partitions = (0..n.next_power_of_two()).map(|index| {
            let path = folder.join(format!("keys-{index:03}"));
            let file = File::create(&path).map_err(Error::io("create", &path))?;
            Ok(Partition { path, file: Mutex::new(file) })
        });
        Ok(Self { partitions: partitions.collect::<Result<_>>()?, key: std::marker::PhantomData })
    }

    /// Number of partitions.
    #[must_use]
    pub fn n_partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Returns what a thread puts its rows into.
    #[must_use]
    pub fn scatter(&self) -> Scatter<'_, K> {
        Scatter { buckets: self, buffers: self.partitions.iter().map(|_| Vec::new()).collect() }
    }

    /// Joins the rows of each key of a partition, and removes its file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn join(&self, partition: usize, clusters: &UnionFind) -> Result<()> {
        let path = &self.partitions[partition].path;
        let mut reader =
            BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io("open", path))?);
        let mut record = vec![0; K::BYTES + 4];
        let mut table = Table::<K>::new();
        while read_record(&mut reader, &mut record).map_err(Error::io("read", path))? {
            let (key, row) = record.split_at(K::BYTES);
            let row = u32::from_le_bytes(row.try_into().expect("four bytes are left"));
            if let Some(first) = table.first(K::read(key), row) {
                clusters.union(u64::from(first), u64::from(row));
            }
        }
        fs::remove_file(path).map_err(Error::io("remove", path))
    }

    fn partition(&self, key: K) -> usize {
        // The table of a partition looks at the lower bits.
        let n = self.partitions.len() as u64;
        usize::try_from((u128::from(key.bits()) * u128::from(n)) >> 64).expect("below n")
    }
}

/// False at the end of the file, which is between two records.
fn read_record(reader: &mut impl Read, record: &mut [u8]) -> std::io::Result<bool> {
    match reader.read(&mut record[..1])? {
        0 => Ok(false),
        n => reader.read_exact(&mut record[n..]).map(|()| true),
    }
}

/// One thread's way into [`Buckets`].
#[derive(Debug)]
pub struct Scatter<'a, K> {
    buckets: &'a Buckets<K>,
    buffers: Vec<Vec<u8>>,
}

impl<K: Key> Scatter<'_, K> {
    /// Adds a row that has `key`.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk takes no more.
    pub fn push(&mut self, key: K, row: u32) -> Result<()> {
        let partition = self.buckets.partition(key);
        let buffer = &mut self.buffers[partition];
        let start = buffer.len();
        buffer.resize(start + K::BYTES, 0);
        key.write(&mut buffer[start..]);
        buffer.extend_from_slice(&row.to_le_bytes());
        match buffer.len() >= BUFFER_BYTES {
            true => self.flush(partition),
            false => Ok(()),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self) -> Result<()> {
        (0..self.buffers.len()).try_for_each(|partition| self.flush(partition))
    }

    fn flush(&mut self, partition: usize) -> Result<()> {
        let Partition { path, file } = &self.buckets.partitions[partition];
        let buffer = &mut self.buffers[partition];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(buffer).map_err(Error::io("write", path))?;
        buffer.clear();
        Ok(())
    }
}

/// The first row that came with each key: open addressing, linear probing.
struct Table<K> {
    /// Rows are counted in 32 bits; all ones marks a free slot.
    slots: Vec<(K, u32)>,
    n_keys: usize,
}

/// No row: datasets have less than 2^32.
const FREE: u32 = u32::MAX;

impl<K: Key> Table<K> {
    fn new() -> Self {
        Self { slots: vec![(K::read(&vec![0; K::BYTES]), FREE); 1 << 10], n_keys: 0 }
    }

    /// Returns the row that came with `key` before; none when `row` is the first.
    fn first(&mut self, key: K, row: u32) -> Option<u32> {
        let slot = self.slot(key);
        if self.slots[slot].1 != FREE {
            return Some(self.slots[slot].1);
        }
        self.slots[slot] = (key, row);
        self.n_keys += 1;
        if 4 * self.n_keys > 3 * self.slots.len() {
            self.grow();
        }
        None
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the lower bits are wanted")]
    fn slot(&self, key: K) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = key.bits() as usize & mask;
        while self.slots[slot].1 != FREE && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let twice = vec![(self.slots[0].0, FREE); 2 * self.slots.len()];
        for entry in std::mem::replace(&mut self.slots, twice) {
            if entry.1 != FREE {
                let slot = self.slot(entry.0);
                self.slots[slot] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

    use super::*;

    /// Clusters of `(key, row)` pairs through `memory` bytes and two threads.
    fn join<K: Key>(pairs: &[(K, u32)], n_rows: u64, memory: u64) -> (Vec<(u64, u64)>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let buckets = Buckets::create(folder.path(), pairs.len() as u64, memory).unwrap();
        std::thread::scope(|scope| {
            for half in pairs.chunks(pairs.len().div_ceil(2).max(1)) {
                let mut scatter = buckets.scatter();
                scope.spawn(move || {
                    half.iter().for_each(|(key, row)| scatter.push(*key, *row).unwrap());
                    scatter.finish().unwrap();
                });
            }
        });
        let clusters = UnionFind::new(n_rows);
        for partition in 0..buckets.n_partitions() {
            buckets.join(partition, &clusters).unwrap();
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "files are left");
        (clusters.into_members().collect(), buckets.n_partitions())
    }

    #[test]
    fn a_million_rows_of_one_key_are_one_cluster() {
        let pairs: Vec<(u64, u32)> = (0..1_000_000).map(|row| (7 << 60, row)).collect();
        let (members, n_partitions) = join(&pairs, 1_000_000, 1 << 20);
        assert_eq!(members.len(), 1_000_000);
        assert!(members.iter().all(|(_, root)| *root == 0));
        assert!(n_partitions > 1);
    }

    #[test]
    fn key_zero_and_all_ones_are_keys_like_others() {
        let pairs = [(0u64, 1), (u64::MAX, 2), (0, 3), (u64::MAX, 4), (1, 5)];
        assert_eq!(join(&pairs, 6, 1).0, [(1, 1), (3, 1), (2, 2), (4, 2)]);
    }

    proptest! {
        // Each case makes and removes up to 64 files.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn rows_with_a_common_key_are_in_one_cluster_whatever_the_memory(
            pairs in proptest::collection::vec((0u32..200, 0u32..300), 0..600)
        ) {
            let mut expected = UnionFind::new(300);
            let mut first: HashMap<u32, u32> = HashMap::new();
            for (key, row) in &pairs {
                let root = *first.entry(*key).or_insert(*row);
                expected.extend([(u64::from(root), u64::from(*row))]);
            }
            let expected: Vec<_> = expected.into_members().collect();
            let narrow: Vec<(u64, u32)> =
                pairs.iter().map(|(key, row)| (xxh3_64(&key.to_le_bytes()), *row)).collect();
            let wide: Vec<(u128, u32)> =
                pairs.iter().map(|(key, row)| (xxh3_128(&key.to_le_bytes()), *row)).collect();
            for memory in [1 << 10, 1 << 13, 1 << 30] {
                prop_assert_eq!(&join(&narrow, 300, memory).0, &expected);
                prop_assert_eq!(&join(&wide, 300, memory).0, &expected);
            }
        }
    }
}
