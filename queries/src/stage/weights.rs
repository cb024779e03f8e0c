//! How often a document counts that was kept in place of copies: FineWeb-2's weights by the size of its cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, UInt32Array};
use shard::dataset::Snapshot;

use super::tokens::{Id, id, read_columns};
use crate::Result;

/// FineWeb-2's table (its dataset card, "Deduplication"; Penedo et al. 2025): the weight from each size on.
const FINEWEB2: [(u64, u32); 6] = [(1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1)];

/// The weight of a cluster from each size on; the first size is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<u64, u32>);

impl Table {
    /// FineWeb-2's.
    pub(super) fn fineweb2() -> Self {
        Self(FINEWEB2.into())
    }

    /// Reads sizes from text.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(weights: &BTreeMap<String, u32>) -> Result<Self, String> {
        let mut table = BTreeMap::new();
        for (size, weight) in weights {
            let size: u64 = size.parse().ok().filter(|size| *size > 0).ok_or_else(|| {
                format!("`{size}` is no size of a cluster, it must be a number from 1")
            })?;
            table.insert(size, *weight);
        }
        match table.contains_key(&1) {
            true => Ok(Self(table)),
            false => Err("no weight is given for documents without copies, size 1".to_owned()),
        }
    }

    /// The sizes and weights.
    pub(super) fn weights(&self) -> &BTreeMap<u64, u32> {
        &self.0
    }

    fn of(&self, size: u32) -> u32 {
        let below = self.0.range(..=u64::from(size)).next_back();
        *below.expect("a cluster has a member, and there is a weight from 1 on").1
    }
}

/// The size and weight of each document's cluster. Memory: an entry for each document that was kept in place of others.
#[derive(Debug)]
pub(super) struct Weights {
    sizes: HashMap<Id, u32>,
    table: Table,
}

impl Weights {
    /// Counts the documents that were removed for each kept one, by whatever method.
    ///
    /// # Errors
    /// When `duplicates` cannot be read.
    pub(super) fn count(duplicates: Option<&Snapshot>, table: Table) -> Result<Self> {
        let mut sizes = HashMap::new();
        for (duplicates, shard) in
            duplicates.into_iter().flat_map(|d| d.manifest.shards.iter().map(move |s| (d, s)))
        {
            read_columns(duplicates, shard, &["kept_id"], |batch| {
                for kept in batch.column(0).as_fixed_size_binary().iter().flatten() {
                    *sizes.entry(id(kept)).or_insert(1) += 1;
                }
                Ok(())
            })?;
        }
        Ok(Self { sizes, table })
    }

    /// The columns of [`shard::schema::weight_fields`] for some documents.
    pub(super) fn columns(&self, ids: &FixedSizeBinaryArray) -> [ArrayRef; 2] {
        let size = |row| self.sizes.get(ids.value(row)).copied().unwrap_or(1);
        let sizes = UInt32Array::from_iter_values((0..ids.len()).map(size));
        let weights = sizes.values().iter().map(|size| self.table.of(*size));
        let weights = UInt32Array::from_iter_values(weights);
        [Arc::new(sizes), Arc::new(weights)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_that_fineweb2_publishes() {
        // "no duplicates: 1 time; N = 2 or 3: N times; N = 4: 3 times; 5 <= N < 100: 5 times; N >= 100: 8 times;
        // N >= 1000: 1 time".
        let table = Table::fineweb2();
        for (size, weight) in [
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 3),
            (5, 5),
            (99, 5),
            (100, 8),
            (999, 8),
            (1000, 1),
            (1_000_000, 1),
        ] {
            assert_eq!(table.of(size), weight, "a cluster of {size}");
        }
    }

    #[test]
    fn tables_without_a_weight_for_every_size_are_refused() {
        let read = |sizes: &[(&str, u32)]| {
            let sizes = sizes.iter().map(|(size, weight)| ((*size).to_owned(), *weight));
            Table::read(&sizes.collect())
        };
        assert_eq!(read(&[("1", 1), ("10", 4)]).unwrap().of(12), 4);
        assert!(read(&[("2", 2)]).unwrap_err().contains("size 1"));
        assert!(read(&[("0", 2)]).unwrap_err().contains("`0`"));
        assert!(read(&[("many", 2)]).unwrap_err().contains("`many`"));
    }
}
