//! Some rows of a shard, without the pages between them.

use arrow::array::ArrayRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use shard::dataset::Snapshot;
use shard::manifest::Shard;

use crate::{Error, Result};

/// Reads one column of the given rows of a shard, which are sorted; other pages are skipped.
pub(super) fn read_rows(
    snapshot: &Snapshot,
    shard: &Shard,
    column: &str,
    rows: &[u64],
    mut visit: impl FnMut(&ArrayRef, usize) -> Result<()>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let path = snapshot.local_shard(shard)?;
    let error = |error: parquet::errors::ParquetError| {
        Error::from(shard::Error::arrow("read", &path)(error))
    };
    let file = std::fs::File::open(&path).map_err(shard::Error::io("open", &path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(error)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let reader = builder
        .with_projection(mask)
        .with_row_selection(selection(rows, shard.rows))
        .with_batch_size(1024)
        .build()
        .map_err(error)?;
    for batch in reader {
        let batch = batch.map_err(shard::Error::arrow("read", &path))?;
        (0..batch.num_rows()).try_for_each(|index| visit(batch.column(0), index))?;
    }
    Ok(())
}

fn selection(wanted: &[u64], n_rows: u64) -> RowSelection {
    let mut selectors = Vec::new();
    let mut next = 0;
    for run in wanted.chunk_by(|a, b| a + 1 == *b) {
        if run[0] > next {
            selectors.push(RowSelector::skip(index(run[0] - next)));
        }
        selectors.push(RowSelector::select(run.len()));
        next = run[0] + run.len() as u64;
    }
    if next < n_rows {
        selectors.push(RowSelector::skip(index(n_rows - next)));
    }
    RowSelection::from(selectors)
}

/// Rows in order, each once.
pub(super) fn sorted(rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut rows: Vec<u32> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

pub(super) fn index(rows: u64) -> usize {
    usize::try_from(rows).expect("below 2^32")
}
