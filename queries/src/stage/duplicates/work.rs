//! Documents that have a key in common, joined into clusters partition by partition.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use dedup::buckets::{Key, Scatter};
use dedup::{Buckets, UnionFind};
use serde_json::Value;
use shard::dataset::Snapshot;

use super::SHARE;
use super::earlier::Earlier;
use super::order::Order;
use super::removals::Gone;
use super::rows::{read_rows, sorted};
use crate::Result;
use crate::stage::tokens::{Id, read_columns};
use crate::stage::{Run, for_each};

/// What the stage works on.
pub(super) struct Work<'a> {
    pub(super) run: &'a Run,
    pub(super) documents: Snapshot,
    pub(super) signatures: Snapshot,
    pub(super) order: Order,
    /// What an earlier run found among the first documents.
    pub(super) earlier: Option<Earlier>,
    /// For files of this run alone.
    pub(super) folder: PathBuf,
    /// How many documents had an embedding, once they are read.
    pub(super) embeddings: OnceLock<Value>,
}

impl Work<'_> {
    pub(super) fn n_rows(&self) -> u64 {
        self.documents.manifest.n_rows()
    }

    /// Joins the documents that have a key in common, and returns the members of clusters: (rank, root), sorted by (root, rank).
    ///
    /// `keys` calls its second argument with every row of a batch of the column `column`, and each of its keys, of which
    /// there are `n_keys` at most.
    pub(super) fn clusters<K: Key>(
        &self,
        removed: &BooleanBuffer,
        n_keys: u64,
        keys: impl Fn(&RecordBatch, &mut dyn FnMut(usize, K) -> Result<()>) -> Result<()> + Sync,
        column: &str,
    ) -> Result<Vec<(u32, u32)>> {
        let threads = self.run.limits.threads.max(1) as u64;
        let memory = self.run.limits.memory / SHARE / threads;
        let n_left = self.n_rows() - removed.count_set_bits() as u64;
        let buckets = Buckets::<K>::create(&self.folder, n_left * n_keys, memory)?;
        let shards = self.signatures.shards_with_first_rows();
        for_each(self.run, shards.len(), |index| {
            let (shard, mut first) = shards[index];
            let mut scatter: Scatter<'_, K> = buckets.scatter();
            read_columns(&self.signatures, shard, &[column], |batch| {
                let mut add = |row: usize, key: K| {
                    let row = u32::try_from(first + row as u64).expect("rows are below 2^32");
                    let rank = self.order.rank(row);
                    match removed.value(rank as usize) {
                        true => Ok(()),
                        false => Ok(scatter.push(key, rank)?),
                    }
                };
                keys(batch, &mut add)?;
                first += batch.num_rows() as u64;
                Ok(())
            })?;
            Ok(scatter.finish()?)
        })?;
        let clusters = UnionFind::new(self.n_rows());
        for_each(self.run, buckets.n_partitions(), |index| Ok(buckets.join(index, &clusters)?))?;
        let narrow = |row: u64| u32::try_from(row).expect("rows are below 2^32");
        Ok(clusters.into_members().map(|(row, root)| (narrow(row), narrow(root))).collect())
    }

    /// Takes what an earlier run found in a cluster of earlier documents alone; false for any other cluster.
    pub(super) fn take_over(&self, cluster: &[(u32, u32)], found: &mut Vec<Gone>) -> bool {
        let Some(earlier) = &self.earlier else { return false };
        let (last, root) = *cluster.last().expect("a cluster has members");
        if last >= earlier.n_rows {
            return false;
        }
        let gone = &earlier.gone[earlier.gone.partition_point(|gone| gone.cluster < root)..];
        found.extend(&gone[..gone.partition_point(|gone| gone.cluster == root)]);
        true
    }

    /// Bytes of text of the given rows, which are sorted.
    pub(super) fn text_bytes(&self, rows: &[u32]) -> Result<Vec<u64>> {
        let mut sizes = Vec::with_capacity(rows.len());
        self.visit(&self.signatures, "text_bytes", rows, |_, column, index| {
            sizes.push(column.as_primitive::<UInt64Type>().value(index));
            Ok(())
        })?;
        Ok(sizes)
    }

    /// Ids by row.
    pub(super) fn ids(&self, rows: impl Iterator<Item = u32>) -> Result<HashMap<u32, Id>> {
        let rows = sorted(rows);
        let mut ids = HashMap::with_capacity(rows.len());
        self.visit(&self.documents, "id", &rows, |row, column, index| {
            let id = column.as_fixed_size_binary().value(index);
            ids.insert(row, id.try_into().expect("ids have 16 bytes"));
            Ok(())
        })?;
        Ok(ids)
    }

    /// Visits one column of the given rows, which are sorted.
    fn visit(
        &self,
        snapshot: &Snapshot,
        column: &str,
        rows: &[u32],
        mut visit: impl FnMut(u32, &ArrayRef, usize) -> Result<()>,
    ) -> Result<()> {
        for (shard, first) in snapshot.shards_with_first_rows() {
            let wanted = &rows[rows.partition_point(|row| u64::from(*row) < first)..];
            let end = first + shard.rows;
            let wanted = &wanted[..wanted.partition_point(|row| u64::from(*row) < end)];
            let in_shard: Vec<u64> = wanted.iter().map(|row| u64::from(*row) - first).collect();
            let mut rows = wanted.iter();
            read_rows(snapshot, shard, column, &in_shard, |column, index| {
                visit(*rows.next().expect("one for each row"), column, index)
            })?;
        }
        Ok(())
    }
}
