//! Row groups of tokens as plain vectors, checked against the manifest.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use crate::manifest::{RowGroup, Shard};
use crate::schema::{ID_BYTES, LOSS_MASK};
use crate::{Error, Result};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

pub(crate) const REBUILD: &str = "remove the shard and run the job again: complete shards are kept";

/// The rows of a row group.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) tokens: Vec<u32>,
    /// Where each row begins in `tokens`, and the end.
    pub(crate) offsets: Vec<usize>,
    pub(crate) ids: Vec<[u8; ID_BYTES as usize]>,
    /// Whether each token counts in the loss; `None` where all do.
    pub(crate) loss_mask: Option<Vec<bool>>,
}

impl Decoded {
    /// Tokens of each row.
    pub(crate) fn lengths(&self) -> Vec<u32> {
        let narrow = |n: usize| u32::try_from(n).expect("a row has at most 2^31 tokens");
        self.offsets.windows(2).map(|pair| narrow(pair[1] - pair[0])).collect()
    }
}

/// Reads the footer of the shard at `path`.
pub(crate) fn footer(path: &Path, shard: &Shard) -> Result<ArrowReaderMetadata> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let read = ArrowReaderMetadata::load(&file, options).map_err(Error::arrow("read", path))?;
    check_footer(&read, shard, path)?;
    Ok(read)
}

fn check_footer(metadata: &ArrowReaderMetadata, shard: &Shard, path: &Path) -> Result<()> {
    let corrupt = |why: String| Error::Corrupt {
        what: format!("shard `{}`", path.display()),
        why,
        hint: REBUILD.to_owned(),
    };
    let found = metadata.metadata().row_groups();
    if found.len() != shard.row_groups.len() {
        let (found, wanted) = (found.len(), shard.row_groups.len());
        return Err(corrupt(format!("it has {found} row groups, manifest says {wanted}")));
    }
    for (index, (found, entry)) in found.iter().zip(&shard.row_groups).enumerate() {
        let (rows, wanted) = (found.num_rows(), entry.rows);
        if u64::try_from(rows) != Ok(wanted) {
            return Err(corrupt(format!(
                "row group {index} has {rows} rows, manifest says {wanted}"
            )));
        }
    }
    Ok(())
}

fn batches(
    path: &Path,
    metadata: ArrowReaderMetadata,
    group: usize,
    columns: &[&str],
) -> Result<ParquetRecordBatchReader> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder
        .with_projection(mask)
        .with_row_groups(vec![group])
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(Error::arrow("read", path))
}

/// Reads `n_tokens` of row group `group` alone.
pub(crate) fn lengths(
    path: &Path,
    metadata: ArrowReaderMetadata,
    group: usize,
) -> Result<Vec<u32>> {
    let mut lengths = Vec::new();
    for batch in batches(path, metadata, group, &["n_tokens"])? {
        let batch = batch.map_err(|error| Error::arrow("read", path)(error))?;
        let column = batch.column_by_name("n_tokens").map(|column| column.as_primitive_opt());
        let column = column.flatten().ok_or_else(|| wrong_columns(path, &batch))?;
        lengths.extend_from_slice(arrow::array::PrimitiveArray::<UInt32Type>::values(column));
    }
    Ok(lengths)
}

/// Reads ids and `n_tokens` of row group `group`.
pub(crate) fn ids_and_lengths(
    path: &Path,
    metadata: ArrowReaderMetadata,
    group: usize,
) -> Result<(Vec<[u8; ID_BYTES as usize]>, Vec<u32>)> {
    let (mut ids, mut lengths) = (Vec::new(), Vec::new());
    for batch in batches(path, metadata, group, &["document_id", "n_tokens"])? {
        let batch = batch.map_err(|error| Error::arrow("read", path)(error))?;
        let column = batch.column_by_name("n_tokens").and_then(|it| it.as_primitive_opt());
        let column = column.ok_or_else(|| wrong_columns(path, &batch))?;
        lengths.extend_from_slice(arrow::array::PrimitiveArray::<UInt32Type>::values(column));
        let column = batch.column_by_name("document_id");
        let column = column.and_then(|it| it.as_fixed_size_binary_opt());
        let column = column.ok_or_else(|| wrong_columns(path, &batch))?;
        for id in column.iter() {
            let id = id.and_then(|id| id.try_into().ok());
            ids.push(id.ok_or_else(|| wrong_columns(path, &batch))?);
        }
    }
    Ok((ids, lengths))
}

/// Reads row group `group`, which `entry` describes.
pub(crate) fn decode(
    path: &Path,
    metadata: ArrowReaderMetadata,
    group: usize,
    entry: &RowGroup,
) -> Result<Decoded> {
    let capacity = |n: u64| usize::try_from(n).expect("the address space holds a row group");
    let rows = capacity(entry.rows);
    let mut decoded = Decoded {
        tokens: Vec::with_capacity(capacity(entry.n_tokens)),
        offsets: Vec::with_capacity(rows + 1),
        ids: Vec::with_capacity(rows),
        loss_mask: None,
    };
    decoded.offsets.push(0);
    for batch in batches(path, metadata, group, &["document_id", "tokens", LOSS_MASK])? {
        let batch = batch.map_err(|error| Error::arrow("read", path)(error))?;
        decoded.push(&batch).ok_or_else(|| wrong_columns(path, &batch))?;
    }
    Ok(decoded)
}

impl Decoded {
    /// Adds the rows of `batch`; `None` when its columns are not those of tokens.
    fn push(&mut self, batch: &RecordBatch) -> Option<()> {
        let ids = batch.column_by_name("document_id")?.as_fixed_size_binary_opt()?;
        for id in ids.iter() {
            self.ids.push(id?.try_into().ok()?);
        }
        let lists = batch.column_by_name("tokens")?.as_list_opt::<i32>()?;
        let values = lists.values().as_primitive_opt::<UInt32Type>()?;
        if lists.null_count() > 0 || values.null_count() > 0 {
            return None;
        }
        let offsets = lists.value_offsets();
        let at = |offset: i32| usize::try_from(offset).expect("offsets of a list are not negative");
        let (start, end) = (at(offsets[0]), at(offsets[offsets.len() - 1]));
        let base = self.tokens.len();
        self.tokens.extend_from_slice(&values.values()[start..end]);
        self.offsets.extend(offsets[1..].iter().map(|offset| base + at(*offset) - start));
        if let Some(column) = batch.column_by_name(LOSS_MASK) {
            let masks = column.as_list_opt::<i32>()?;
            let values = masks.values().as_boolean_opt()?;
            let is_beside = offsets.windows(2).zip(masks.value_offsets().windows(2));
            let mut is_beside = is_beside.map(|(a, b)| a[1] - a[0] == b[1] - b[0]);
            if masks.null_count() > 0 || values.null_count() > 0 || !is_beside.all(|is| is) {
                return None;
            }
            let start = at(masks.value_offsets()[0]);
            let n = self.tokens.len() - base;
            let mask = self.loss_mask.get_or_insert_default();
            mask.extend(values.values().slice(start, n).iter());
        }
        Some(())
    }
}

fn wrong_columns(path: &Path, batch: &RecordBatch) -> Error {
    Error::Corrupt {
        what: format!("shard `{}`", path.display()),
        why: format!(
            "its columns are {}, not those of tokens with as many values as tokens in `{LOSS_MASK}`",
            batch.schema()
        ),
        hint: REBUILD.to_owned(),
    }
}
