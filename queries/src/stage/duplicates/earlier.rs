//! What an earlier run made of the shards that documents begin with.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, UInt64Type};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;

use super::Methods;
use super::removals::Gone;
use crate::Result;
use crate::stage::takedowns::is_taken_from;
use crate::stage::tokens::read_columns;

/// What an earlier version says of near-duplicates among the documents that come first here.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) n_rows: u32,
    /// By cluster.
    pub(super) gone: Vec<Gone>,
}

impl Methods {
    /// What the newest duplicates say of near-duplicates among the first documents, where that still holds.
    ///
    /// By row, an earlier document is never removed for a later one, so what a method found among the first documents
    /// is what it finds there today, and a cluster that no new document has joined is the same cluster. Documents that a
    /// later method removed have been credited anew, so the near-duplicates must have been the last ones.
    pub(super) fn earlier(
        &self,
        documents: &Snapshot,
        newest: Option<Snapshot>,
    ) -> Result<Option<Earlier>> {
        let Some(newest) = newest.filter(|newest| newest.manifest.config == self.config()) else {
            return Ok(None);
        };
        let is_last = self.names.last().is_some_and(|name| name == "minhash");
        let Some(then) = documents_of(&newest, documents)? else { return Ok(None) };
        let is_prefix = n_same(&then, documents) == then.manifest.shards.len();
        // A takedown leaves clusters without the document that was kept.
        let is_whole = !is_taken_from(&then.manifest);
        if !is_last || !is_prefix || !is_whole || !self.priority.is_empty() {
            return Ok(None);
        }
        let method = u8::try_from(self.names.len() - 1).expect("few methods");
        let n_rows = u32::try_from(then.manifest.n_rows()).expect("below 2^32");
        let rank = |column: &ArrayRef, row: usize| {
            let row = column.as_primitive::<UInt64Type>().value(row);
            u32::try_from(row).expect("rows are below 2^32")
        };
        let columns = ["row", "kept_row", "cluster_id", "similarity", "method"];
        let mut gone = Vec::new();
        for shard in &newest.manifest.shards {
            read_columns(&newest, shard, &columns, |batch| {
                // In the order of the schema.
                let [cluster, similarity, methods, rows, kept] =
                    ["cluster_id", "similarity", "method", "row", "kept_row"]
                        .map(|name| batch.column_by_name(name).expect("it was asked for"));
                let similarities = similarity.as_primitive::<Float64Type>();
                for index in 0..batch.num_rows() {
                    if methods.as_string::<i32>().value(index) == "minhash" {
                        gone.push(Gone {
                            rank: rank(rows, index),
                            kept_rank: rank(kept, index),
                            cluster: rank(cluster, index),
                            method,
                            similarity: Some(similarities.value(index)),
                        });
                    }
                }
                Ok(())
            })?;
        }
        gone.sort_unstable_by_key(|gone| (gone.cluster, gone.rank));
        Ok(Some(Earlier { n_rows, gone }))
    }
}

/// The version of `documents` that `made` was made from, while it is there.
pub(super) fn documents_of(made: &Snapshot, documents: &Snapshot) -> Result<Option<Snapshot>> {
    let name = DatasetKind::Documents.name();
    let Some(parent) = made.manifest.parents.iter().find(|parent| parent.dataset == name) else {
        return Ok(None);
    };
    let dataset = Dataset::at(&documents.path);
    if !dataset.versions()?.contains(&parent.version) {
        return Ok(None);
    }
    let then = dataset.open(Some(parent.version))?;
    Ok((then.manifest_hash == parent.manifest).then_some(then))
}

/// How many shards two versions begin with in common.
pub(super) fn n_same(a: &Snapshot, b: &Snapshot) -> usize {
    let pairs = a.manifest.shards.iter().zip(&b.manifest.shards);
    pairs.take_while(|(a, b)| a.blake3 == b.blake3 && a.rows == b.rows).count()
}
