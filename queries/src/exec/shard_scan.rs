//! Shards that a manifest names as a file scan, whole or without some of their rows.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use shard::dataset::Snapshot;
use shard::manifest::{Manifest, Shard};

use crate::Result;

/// Returns a scan of one shard, one partition, rows in order, of the columns `columns`, without the rows
/// `removed` (positions in the shard, rising).
///
/// # Errors
/// When the shard is not there or a column is not in `schema`.
pub fn scan(
    snapshot: &Snapshot,
    shard: &Shard,
    schema: &SchemaRef,
    columns: &[&str],
    removed: &[u64],
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut file = partitioned_file(&snapshot.shard_path(shard), shard.bytes)?;
    if !removed.is_empty() {
        file = file.with_extension(access_plan(shard, removed));
    }
    let projection =
        columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let source = Arc::new(ParquetSource::new(Arc::clone(schema)));
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
        .with_file_group(FileGroup::new(vec![file]))
        .with_projection_indices(Some(projection))?
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// A file of this machine as scans name it.
///
/// # Errors
/// When the path cannot be made absolute.
pub fn partitioned_file(path: &Path, bytes: u64) -> Result<PartitionedFile> {
    let absolute = path.canonicalize().map_err(shard::Error::io("find", path))?;
    let location = object_store::path::Path::from_absolute_path(absolute)
        .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
    let mut file = PartitionedFile::new("", bytes);
    file.object_meta.location = location;
    Ok(file)
}

/// The columns of a dataset of documents as its manifest lists them, with the types that Parquet gives back.
///
/// Annotation columns come after those that every dataset of the kind has.
#[must_use]
pub fn schema_of(manifest: &Manifest) -> SchemaRef {
    let known = manifest.kind.schema();
    let fields = manifest.schema.iter().map(|column| {
        known.field_with_name(&column.name).cloned().unwrap_or_else(|_| {
            let data_type = match column.data_type.as_str() {
                "Float64" => DataType::Float64,
                "UInt64" => DataType::UInt64,
                "Boolean" => DataType::Boolean,
                _ => DataType::Utf8View,
            };
            arrow::datatypes::Field::new(&column.name, data_type, column.nullable)
        })
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn access_plan(shard: &Shard, removed: &[u64]) -> ParquetAccessPlan {
    let mut removed = removed.iter().copied().peekable();
    let mut first = 0;
    let groups = shard.row_groups.iter().map(|group| {
        let end = first + group.rows;
        let mut next = first;
        let mut selectors = Vec::new();
        while let Some(row) = removed.next_if(|row| *row < end) {
            if row > next {
                selectors.push(RowSelector::select(count(row - next)));
            }
            selectors.push(RowSelector::skip(1));
            next = row + 1;
        }
        let is_whole = selectors.is_empty();
        if next < end {
            selectors.push(RowSelector::select(count(end - next)));
        }
        let n_kept: usize =
            selectors.iter().filter(|part| !part.skip).map(|part| part.row_count).sum();
        first = end;
        match (is_whole, n_kept) {
            (true, _) => RowGroupAccess::Scan,
            (false, 0) => RowGroupAccess::Skip,
            (false, _) => RowGroupAccess::Selection(RowSelection::from(selectors)),
        }
    });
    ParquetAccessPlan::new(groups.collect())
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).expect("a row group fits into memory")
}
