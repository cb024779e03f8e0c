//! From documents to the shards that have rows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryBuilder, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::Shard;
use shard::schema::{DatasetKind, ID_BYTES};

use super::Id;
use super::rows::Send;
use crate::Result;
use crate::stage::tokens::{id, read_columns};

/// The column that says which document a row is of; nothing in datasets that know no documents.
pub(crate) fn id_column(kind: DatasetKind) -> Option<&'static str> {
    match kind {
        DatasetKind::Metrics => None,
        DatasetKind::Tokens => Some("document_id"),
        _ => Some("id"),
    }
}

/// Rows of a document in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) dataset: DatasetKind,
    pub(crate) version: u64,
    pub(crate) shard: String,
    pub(crate) split: String,
    pub(crate) id: Id,
    pub(crate) n_rows: u64,
}

/// Calls `visit` with what each shard of every version of `kind` in `corpus` has of `documents`, of all without them.
///
/// # Errors
/// When a manifest or shard cannot be read.
pub(crate) fn holdings(
    corpus: &Path,
    kind: DatasetKind,
    documents: Option<&BTreeSet<Id>>,
    mut visit: impl FnMut(Vec<Holding>) -> bool,
) -> Result<()> {
    let dataset = Dataset::at(corpus.join(kind.name()));
    // A shard that many versions name is read once, as long as only some documents are asked for.
    let mut known: BTreeMap<String, Arc<BTreeMap<Id, u64>>> = BTreeMap::new();
    for version in dataset.versions()? {
        let snapshot = dataset.open(Some(version))?;
        for shard in &snapshot.manifest.shards {
            let found = match known.get(&shard.path) {
                Some(found) => Arc::clone(found),
                None => Arc::new(n_rows_of(&snapshot, shard, documents)?),
            };
            if documents.is_some() {
                known.insert(shard.path.clone(), Arc::clone(&found));
            }
            let found = found.iter().map(|(id, n_rows)| Holding {
                dataset: kind,
                version,
                shard: shard.path.clone(),
                split: shard.split.clone(),
                id: *id,
                n_rows: *n_rows,
            });
            if !visit(found.collect()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Number of rows that a shard has of each of `documents`, of all without them.
///
/// # Errors
/// When the shard cannot be read.
pub(crate) fn n_rows_of(
    snapshot: &Snapshot,
    shard: &Shard,
    documents: Option<&BTreeSet<Id>>,
) -> Result<BTreeMap<Id, u64>> {
    let mut found = BTreeMap::new();
    let Some(column) = id_column(snapshot.manifest.kind) else { return Ok(found) };
    read_columns(snapshot, shard, &[column], |batch| {
        for value in batch.column(0).as_fixed_size_binary().iter().flatten() {
            let id = id(value);
            if documents.is_none_or(|documents| documents.contains(&id)) {
                *found.entry(id).or_default() += 1;
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// The rows of `held_by('id', …)`: dataset by dataset, version by version, shard by shard.
pub(super) fn send(corpus: &Path, documents: Option<&BTreeSet<Id>>, send: Send<'_>) -> Result<()> {
    for kind in DatasetKind::ALL.into_iter().filter(|kind| id_column(*kind).is_some()) {
        let (mut failed, mut is_wanted) = (None, true);
        holdings(corpus, kind, documents, |found| {
            match batch(&found) {
                Ok(batch) if batch.num_rows() > 0 => is_wanted = send(batch),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
            is_wanted && failed.is_none()
        })?;
        match failed {
            Some(error) => return Err(error),
            None if !is_wanted => break,
            None => {}
        }
    }
    Ok(())
}

/// The columns of `held_by`.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("document_id", DataType::FixedSizeBinary(ID_BYTES), false),
        Field::new("dataset", DataType::Utf8, false),
        Field::new("version", DataType::UInt64, false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("n_rows", DataType::UInt64, false),
    ]))
}

fn batch(found: &[Holding]) -> Result<RecordBatch> {
    let mut ids = FixedSizeBinaryBuilder::new(ID_BYTES);
    for holding in found {
        ids.append_value(holding.id)?;
    }
    let text = |value: fn(&Holding) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(value)))
    };
    let count = |value: fn(&Holding) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(found.iter().map(value)))
    };
    let columns = vec![
        Arc::new(ids.finish()),
        text(|holding| holding.dataset.name()),
        count(|holding| holding.version),
        text(|holding| &holding.shard),
        text(|holding| &holding.split),
        count(|holding| holding.n_rows),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
