//! The documents that were taken down: a list that is kept with the corpus, and shards without their rows.
//!
//! The list is a dataset beside the others, `takedowns`, of the kind `dropped`: a takedown is a document that somebody
//! removed, with a reason. Every run of a job reads it, so that no source brings such a document back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Parent, Shard};
use shard::schema::DatasetKind;
use shard::writer::ShardWriter;

use super::parent;
use super::tokens::{Id, Reasons, id, read_columns};
use crate::Result;
use crate::lineage::id_column;

/// The folder of the list in a corpus, and the beginning of its reasons in counts.
pub(crate) const TAKEDOWNS: &str = "takedowns";
/// How reasons begin in counts: `takedown/request`.
const PREFIX: &str = "takedown/";

/// Whether rows of a version were taken down.
pub(crate) fn is_taken_from(manifest: &Manifest) -> bool {
    manifest.counts.dropped.keys().any(|reason| reason.starts_with(PREFIX))
}

/// Rows that were taken down, according to the counts of a stage.
pub(crate) fn n_taken(counts: &Counts) -> u64 {
    let taken = counts.dropped.iter().filter(|(reason, _)| reason.starts_with(PREFIX));
    taken.map(|(_, n)| n).sum()
}

/// The list of a corpus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Takedowns {
    pub(crate) snapshot: Option<Snapshot>,
    /// Each document with `takedown/<reason>`.
    reasons: Reasons,
}

impl Takedowns {
    /// Where the list of a corpus is.
    pub(crate) fn dataset(corpus: &Path) -> Dataset {
        Dataset::at(corpus.join(TAKEDOWNS))
    }

    /// Reads the newest list of a corpus, an empty one where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(corpus: &Path) -> Result<Self> {
        let snapshot = Self::dataset(corpus).newest()?;
        let mut reasons = Reasons::new();
        if let Some(snapshot) = &snapshot {
            let mut known: HashMap<String, Arc<str>> = HashMap::new();
            for shard in &snapshot.manifest.shards {
                read_columns(snapshot, shard, &["id", "reason"], |batch| {
                    let ids = batch.column(0).as_fixed_size_binary();
                    for (row, reason) in batch.column(1).as_string::<i32>().iter().enumerate() {
                        let reason = known
                            .entry(reason.unwrap_or_default().to_owned())
                            .or_insert_with_key(|reason| Arc::from(format!("{PREFIX}{reason}")));
                        reasons.insert(id(ids.value(row)), Arc::clone(reason));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(Self { snapshot, reasons })
    }

    /// Adds documents to what was read, with their reason; the ones that are there keep theirs.
    pub(crate) fn add(&mut self, snapshot: Snapshot, ids: &BTreeSet<Id>, reason: &str) {
        self.snapshot = Some(snapshot);
        let reason: Arc<str> = Arc::from(format!("{PREFIX}{reason}"));
        for id in ids {
            self.reasons.entry(*id).or_insert_with(|| Arc::clone(&reason));
        }
    }

    /// As a parent of what is made without these documents; none when there is no list.
    pub(crate) fn parents(&self) -> Vec<Parent> {
        self.snapshot.iter().map(parent).collect()
    }

    /// The list's version, 0 without one.
    pub(crate) fn version(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.version)
    }

    pub(crate) fn has(&self, id: &Id) -> bool {
        self.reasons.contains_key(id)
    }

    /// Returns the rows of `batch` whose column `name` is no id of the list, and counts the others by reason.
    pub(crate) fn without(
        &self,
        batch: &RecordBatch,
        name: &str,
        taken: &mut BTreeMap<String, u64>,
    ) -> Result<RecordBatch> {
        if self.reasons.is_empty() {
            return Ok(batch.clone());
        }
        let ids = batch.column_by_name(name).expect("the rows are of documents");
        let mask: BooleanArray = ids
            .as_fixed_size_binary()
            .iter()
            .map(|bytes| {
                let reason = bytes.and_then(|bytes| self.reasons.get(bytes));
                if let Some(reason) = reason {
                    *taken.entry(reason.to_string()).or_default() += 1;
                }
                Some(reason.is_none())
            })
            .collect();
        Ok(filter_record_batch(batch, &mask)?)
    }

    /// Positions of the rows of a shard that go.
    pub(crate) fn rows(&self, dataset: &Dataset, shard: &Shard, name: &str) -> Result<Vec<u64>> {
        let (mut rows, mut position) = (Vec::new(), 0);
        if self.reasons.is_empty() {
            return Ok(rows);
        }
        let path = dataset.path().join(&shard.path);
        for batch in super::tokens::open_columns(&path, &[name])? {
            let batch = batch.map_err(shard::Error::arrow("read", &path))?;
            for bytes in batch.column(0).as_fixed_size_binary() {
                if bytes.is_some_and(|bytes| self.reasons.contains_key(bytes)) {
                    rows.push(position);
                }
                position += 1;
            }
        }
        Ok(rows)
    }

    /// Writes a shard of `kind` again without the rows that go, after `change` to each batch of it.
    ///
    /// The bytes are those that a stage writes which never saw these rows.
    ///
    /// # Errors
    /// When the shard cannot be read or the file system refuses.
    pub(crate) fn rewrite(
        &self,
        dataset: &Dataset,
        shard: &Shard,
        kind: DatasetKind,
        change: impl Fn(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<Rewritten> {
        let column = id_column(kind).expect("its rows are of documents");
        let path = dataset.path().join(&shard.path);
        let file = File::open(&path).map_err(shard::Error::io("open", &path))?;
        let options = ArrowReaderOptions::new();
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .and_then(|builder| builder.with_batch_size(1024).build())
            .map_err(shard::Error::arrow("read", &path))?;
        let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
        let mut writer = ShardWriter::create(dataset, name_of(shard), &shard.split, &schema)?;
        let mut found = Rewritten::default();
        for batch in reader {
            let batch = change(batch.map_err(shard::Error::arrow("read", &path))?)?;
            if kind == DatasetKind::Dropped {
                self.count_verdicts(&batch, &mut found.verdicts);
            }
            writer.write(&self.without(&batch, column, &mut found.taken)?)?;
        }
        let partition = shard.partition.clone();
        found.shard = Some(Shard { partition, ..writer.finish()? });
        Ok(found)
    }

    /// Counts the rows of `dropped` that go, by step and reason.
    fn count_verdicts(&self, batch: &RecordBatch, verdicts: &mut BTreeMap<String, u64>) {
        let column = |name: &str| batch.column_by_name(name).expect("`dropped` has it");
        let ids = column("id").as_fixed_size_binary();
        let (steps, reasons) =
            (column("step").as_string::<i32>(), column("reason").as_string::<i32>());
        for row in (0..batch.num_rows()).filter(|row| self.reasons.contains_key(ids.value(*row))) {
            let verdict = format!("{}/{}", steps.value(row), reasons.value(row));
            *verdicts.entry(verdict).or_default() += 1;
        }
    }

    /// Takes what is listed out of a shard; nothing when that leaves no row.
    ///
    /// # Errors
    /// As [`Takedowns::rewrite`].
    pub(crate) fn take_from(
        &self,
        dataset: &Dataset,
        shard: &Shard,
        kind: DatasetKind,
    ) -> Result<Rewritten> {
        let column = id_column(kind).expect("its rows are of documents");
        if self.rows(dataset, shard, column)?.is_empty() {
            return Ok(Rewritten { shard: Some(shard.clone()), ..Rewritten::default() });
        }
        let mut found = self.rewrite(dataset, shard, kind, Ok)?;
        found.shard = found.shard.filter(|shard| shard.rows > 0);
        Ok(found)
    }
}

/// A shard without some of its rows.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// Nothing when no row is left.
    pub(crate) shard: Option<Shard>,
    /// Rows that went, by `takedown/<reason>`.
    pub(crate) taken: BTreeMap<String, u64>,
    /// Of `dropped`: the same rows by the step and reason that had dropped them.
    pub(crate) verdicts: BTreeMap<String, u64>,
}

/// Accounts in the counts of `documents` for rows that went from it, and from `dropped`.
pub(crate) fn account(counts: &mut Counts, documents: &Rewritten, dropped: &Rewritten) {
    for (verdict, n) in &dropped.verdicts {
        let left = counts.dropped.get_mut(verdict).expect("every row of `dropped` was counted");
        *left -= n;
        if *left == 0 {
            counts.dropped.remove(verdict);
        }
    }
    counts.n_kept -= documents.taken.values().sum::<u64>();
    for (reason, n) in documents.taken.iter().chain(&dropped.taken) {
        *counts.dropped.entry(reason.clone()).or_default() += n;
    }
}

/// The name that a shard was created with: without folder, hash and ending.
fn name_of(shard: &Shard) -> &str {
    let name = shard.path.rsplit('/').next().unwrap_or(&shard.path);
    name.rsplit_once('-').map_or(name, |(name, _)| name)
}
