//! Writes signatures, each with its document's position in the dataset.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::UInt64Array;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, SendableRecordBatchStream};
use futures::StreamExt;
use shard::Dataset;
use shard::manifest::Shard;
use shard::writer::ShardWriter;

use crate::Error;

/// The sink of one shard of documents.
#[derive(Debug)]
pub struct SignatureSink {
    dataset: Dataset,
    name: String,
    /// Position of the shard's first document.
    first_row: u64,
    /// The columns that are written.
    target: SchemaRef,
    schema: SchemaRef,
    written: Mutex<Option<Shard>>,
}

impl SignatureSink {
    /// A sink that writes the columns `target`, whose input has all of them but for the first, `row`.
    #[must_use]
    pub fn new(
        dataset: Dataset,
        name: String,
        first_row: u64,
        target: SchemaRef,
        schema: SchemaRef,
    ) -> Self {
        Self { dataset, name, first_row, target, schema, written: Mutex::new(None) }
    }

    /// The shard, after the plan has ended well.
    #[must_use]
    pub fn take(&self) -> Option<Shard> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl DisplayAs for SignatureSink {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureSink({})", self.name)
    }
}

#[async_trait]
impl DataSink for SignatureSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        _context: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let schema = &self.target;
        let mut writer =
            ShardWriter::create(&self.dataset, &self.name, "train", schema).map_err(Error::from)?;
        let mut row = self.first_row;
        while let Some(batch) = data.next().await {
            let batch = batch?;
            let end = row + batch.num_rows() as u64;
            let mut columns: Vec<arrow::array::ArrayRef> =
                vec![Arc::new(UInt64Array::from_iter_values(row..end))];
            for (column, field) in batch.columns().iter().zip(&schema.fields()[1..]) {
                columns.push(cast(column, field.data_type())?);
            }
            let batch = RecordBatch::try_new(Arc::clone(schema), columns)?;
            writer.write(&batch).map_err(Error::from)?;
            row = end;
        }
        let shard = writer.finish().map_err(Error::from)?;
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(shard);
        Ok(row - self.first_row)
    }
}
