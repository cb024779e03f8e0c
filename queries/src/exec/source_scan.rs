//! A source as DataFusion's `FileSource`: the only form of scan that is right on every engine built on DataFusion.
//!
//! A bare leaf operator is read in full by every task of a distributed engine, and ranges that are ignored are read twice.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpenFuture, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::StreamExt;
use ingest::source::{Source, SourceFile};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use shard::schema::source_schema;

/// Batches that the reading thread may be ahead of the plan, beside the one that it makes: each is up to 8 MiB of text.
const BATCHES_AHEAD: usize = 1;

/// A file, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The file.
    pub file: SourceFile,
    /// The bytes whose records are read; all, without one.
    pub range: Option<Range<u64>>,
}

/// Returns a scan of `parts`, one partition, in order.
///
/// # Errors
/// When the projection names a column that is not there.
pub fn scan(
    source: &Arc<dyn Source>,
    kind: &'static str,
    parts: &[FilePart],
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let files = parts.iter().map(partitioned_file).collect();
    let scan = SourceScan {
        source: Arc::clone(source),
        kind,
        table: TableSchema::from(source_schema()),
        projection: ProjectionExprs::from_indices(
            &(0..source_schema().fields().len()).collect::<Vec<_>>(),
            &source_schema(),
        ),
        columns: (0..source_schema().fields().len()).collect(),
        metrics: ExecutionPlanMetricsSet::new(),
    };
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(scan))
        .with_file_group(FileGroup::new(files))
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

fn partitioned_file(part: &FilePart) -> PartitionedFile {
    let file = PartitionedFile::new(part.file.name.clone(), part.file.bytes)
        .with_extension(part.file.clone());
    match &part.range {
        Some(range) => file.with_range(offset(range.start), offset(range.end)),
        None => file,
    }
}

fn offset(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("files are smaller than 8 EiB")
}

/// Reads files of one source inside a plan.
#[derive(Clone)]
struct SourceScan {
    source: Arc<dyn Source>,
    kind: &'static str,
    table: TableSchema,
    projection: ProjectionExprs,
    /// Columns of the projection, which holds nothing but columns.
    columns: Vec<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl FileSource for SourceScan {
    fn create_file_opener(
        &self,
        _store: Arc<dyn ObjectStore>,
        _config: &FileScanConfig,
        _partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(Opener { source: Arc::clone(&self.source), columns: self.columns.clone() }))
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table
    }

    fn with_batch_size(&self, _batch_size: usize) -> Arc<dyn FileSource> {
        // Batches are cut by the source, by rows and by bytes, so that they do not depend on a session.
        Arc::new(self.clone())
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        self.kind
    }

    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.try_merge(projection)?;
        let columns: Option<Vec<usize>> = merged
            .iter()
            .map(|item| {
                let expr: &dyn Any = item.expr.as_ref();
                let column =
                    expr.downcast_ref::<datafusion::physical_plan::expressions::Column>()?;
                (column.name() == item.alias).then(|| column.index())
            })
            .collect();
        // Expressions stay above the scan: only whole columns are left out here.
        Ok(columns.map(|columns| {
            let scan = Self { projection: merged, columns, ..self.clone() };
            Arc::new(scan) as Arc<dyn FileSource>
        }))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for item in self.projection.iter() {
            if f(&item.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

struct Opener {
    source: Arc<dyn Source>,
    columns: Vec<usize>,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let part = file
            .extension::<SourceFile>()
            .cloned()
            .ok_or_else(|| DataFusionError::Internal("a scan of unknown files".to_owned()))?;
        let range = file.range.as_ref().map(|range| {
            let byte = |offset| u64::try_from(offset).expect("ranges are made of file offsets");
            byte(range.start)..byte(range.end)
        });
        let source = Arc::clone(&self.source);
        let columns = self.columns.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        Ok(Box::pin(async move {
            // Reading and inflating block: they get a thread of their own, which ends when the stream is dropped.
            let reading = tokio::task::spawn_blocking(move || {
                let external = |error| DataFusionError::External(Box::new(error));
                let opened = part
                    .fetched()
                    .map_err(|error| DataFusionError::External(Box::new(error)))
                    .and_then(|part| source.open(&part, range).map_err(external));
                let batches = match opened {
                    Ok(batches) => batches,
                    Err(error) => {
                        // Nobody listens any more: there is nobody to tell.
                        drop(sender.blocking_send(Err(error)));
                        return;
                    }
                };
                for batch in batches {
                    let batch: Result<RecordBatch> =
                        batch.map_err(external).and_then(|batch| Ok(batch.project(&columns)?));
                    if sender.blocking_send(batch).is_err() {
                        return;
                    }
                }
            });
            let state = (receiver, Some(reading));
            let stream = futures::stream::unfold(state, |(mut receiver, reading)| async {
                if let Some(batch) = receiver.recv().await {
                    return Some((batch, (receiver, reading)));
                }
                // A reader that panicked has sent nothing more either: its file must not pass for read.
                let ended = reading?.await.err()?;
                match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(ended) => {
                        let error = DataFusionError::External(Box::new(ended));
                        Some((Err(error), (receiver, None)))
                    }
                }
            });
            Ok(stream.boxed())
        }))
    }
}

/// Files of one source as a table.
#[derive(Debug)]
pub struct SourceTable {
    source: Arc<dyn Source>,
    kind: &'static str,
    parts: Vec<FilePart>,
}

impl SourceTable {
    /// The table of all records of `files`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, kind: &'static str, files: Vec<SourceFile>) -> Self {
        let parts = files.into_iter().map(|file| FilePart { file, range: None }).collect();
        Self { source, kind, parts }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        source_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        scan(&self.source, self.kind, &self.parts, projection, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a batch, then panics.
    #[derive(Debug)]
    struct Panicking;

    impl Source for Panicking {
        fn is_splittable(&self, _name: &str) -> bool {
            false
        }

        fn open(
            &self,
            _file: &SourceFile,
            _range: Option<Range<u64>>,
        ) -> ingest::Result<ingest::source::DocumentStream> {
            let mut batches = vec![RecordBatch::new_empty(source_schema())];
            Ok(Box::new(std::iter::from_fn(move || match batches.pop() {
                Some(batch) => Some(Ok(batch)),
                None => panic!("a broken promise"),
            })))
        }
    }

    #[tokio::test]
    #[should_panic(expected = "a broken promise")]
    async fn a_file_whose_reader_panics_does_not_pass_for_read() {
        let file = SourceFile { path: "a".into(), name: "a".to_owned(), bytes: 1 };
        let opener = Opener { source: Arc::new(Panicking), columns: vec![0] };
        let part = partitioned_file(&FilePart { file, range: None });
        let batches = opener.open(part).unwrap().await.unwrap();
        batches.collect::<Vec<_>>().await;
    }
}
