//! From documents to the files, places and addresses that they came from.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, StringBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::SourceRead;
use shard::schema::{DatasetKind, ID_BYTES};

use super::Id;
use super::rows::Send;
use crate::Result;
use crate::stage::tokens::{id, read_columns};

/// Where documents and dropped records are, in the order of the schema: `id` first.
const COLUMNS: [&str; 5] = ["id", "source", "kind", "url", "locator"];
const KINDS: [DatasetKind; 2] = [DatasetKind::Documents, DatasetKind::Dropped];

/// The rows of `origin('id', …)`: documents, then dropped records, in the order of the corpus.
///
/// Documents that the newest version has not are looked for in older ones.
pub(super) fn send(corpus: &Path, documents: Option<&BTreeSet<Id>>, send: Send<'_>) -> Result<()> {
    let mut missing = documents.cloned();
    for kind in KINDS {
        let dataset = Dataset::at(corpus.join(kind.name()));
        for version in dataset.versions()?.into_iter().rev() {
            if missing.as_ref().is_some_and(BTreeSet::is_empty)
                || !send_version(&dataset.open(Some(version))?, &mut missing, send)?
            {
                return Ok(());
            }
            // All documents are those of the newest version.
            if missing.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// The columns of `origin`.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("document_id", DataType::FixedSizeBinary(ID_BYTES), false),
        // documents or dropped.
        Field::new("dataset", DataType::Utf8, false),
        Field::new("version", DataType::UInt64, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("url", DataType::Utf8, true),
        Field::new("locator", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, false),
        // What stands in the locator behind the file, when it is a number of bytes.
        Field::new("offset", DataType::UInt64, true),
        // Of the whole file, as it was read.
        Field::new("file_bytes", DataType::UInt64, true),
        Field::new("file_blake3", DataType::Utf8, true),
    ]))
}

/// Sends the rows of a version, and takes what it found out of `missing`; `false` when nobody wants more.
fn send_version(
    snapshot: &Snapshot,
    missing: &mut Option<BTreeSet<Id>>,
    send: Send<'_>,
) -> Result<bool> {
    let files: HashMap<(&str, &str), &SourceRead> = snapshot
        .manifest
        .sources
        .iter()
        .map(|read| ((read.source.as_str(), read.file.as_str()), read))
        .collect();
    let mut is_wanted = true;
    for shard in &snapshot.manifest.shards {
        if !is_wanted {
            break;
        }
        read_columns(snapshot, shard, &COLUMNS, |batch| {
            if is_wanted {
                let batch = rows_of(snapshot, batch, &files, missing)?;
                is_wanted = batch.num_rows() == 0 || send(batch);
            }
            Ok(())
        })?;
    }
    Ok(is_wanted)
}

fn rows_of(
    snapshot: &Snapshot,
    batch: &RecordBatch,
    files: &HashMap<(&str, &str), &SourceRead>,
    missing: &mut Option<BTreeSet<Id>>,
) -> Result<RecordBatch> {
    let column = |name: &str| batch.column_by_name(name).expect("it was asked for");
    let ids = column("id").as_fixed_size_binary();
    let [sources, kinds, urls, locators] =
        ["source", "kind", "url", "locator"].map(|name| column(name).as_string::<i32>());
    let mut id_out = FixedSizeBinaryBuilder::new(ID_BYTES);
    let mut text: [StringBuilder; 7] = std::array::from_fn(|_| StringBuilder::new());
    let mut long: [UInt64Builder; 3] = std::array::from_fn(|_| UInt64Builder::new());
    for row in 0..batch.num_rows() {
        if missing.as_mut().is_some_and(|missing| !missing.remove(&id(ids.value(row)))) {
            continue;
        }
        let (source, locator) = (sources.value(row), locators.value(row));
        let (file, offset) = place(source, locator, files);
        let read = files.get(&(source, file));
        id_out.append_value(ids.value(row))?;
        let values = [
            Some(snapshot.manifest.kind.name()),
            Some(source),
            Some(kinds.value(row)),
            urls.is_valid(row).then(|| urls.value(row)),
            Some(locator),
            Some(file),
            read.map(|read| read.blake3.as_str()),
        ];
        text.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
        let values = [Some(snapshot.version), offset, read.map(|read| read.bytes)];
        long.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
    }
    let id: ArrayRef = Arc::new(id_out.finish());
    let [dataset, source, kind, url, locator, file, blake3] =
        text.each_mut().map(|column| -> ArrayRef { Arc::new(column.finish()) });
    let [version, offset, bytes] =
        long.each_mut().map(|column| -> ArrayRef { Arc::new(column.finish()) });
    let columns =
        vec![id, dataset, version, source, kind, url, locator, file, offset, bytes, blake3];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The file that a locator names, and the offset in it; a file's name may have a `#` of its own.
fn place<'a>(
    source: &str,
    locator: &'a str,
    files: &HashMap<(&str, &str), &SourceRead>,
) -> (&'a str, Option<u64>) {
    if files.contains_key(&(source, locator)) {
        return (locator, None);
    }
    let cuts = locator.rmatch_indices('#').map(|(at, _)| (&locator[..at], &locator[at + 1..]));
    let mut known = cuts.clone().filter(|(file, _)| files.contains_key(&(source, *file)));
    let (file, rest) = known.next().or_else(|| cuts.clone().next()).unwrap_or((locator, ""));
    (file, rest.parse().ok())
}
