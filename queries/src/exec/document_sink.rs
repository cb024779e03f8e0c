//! Writes what the chain of steps gives: kept rows to `documents`, the others to `dropped`, changed spans to `edits`.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, UInt32Array};
use arrow::compute::{cast, filter_record_batch, is_not_null, is_null, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, SendableRecordBatchStream};
use futures::StreamExt;
use shard::Dataset;
use shard::manifest::{Counts, Shard};
use shard::schema::DatasetKind;
use shard::writer::ShardWriter;

use super::filter_chain::{EDITS, SOURCE_STEP, VERDICT};
use crate::stage::takedowns::Takedowns;
use crate::{Error, Result};

/// What a unit of the stage `documents` left behind.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Its shards, per dataset; none for a dataset that got no row.
    pub documents: Option<Shard>,
    /// See [`Written::documents`].
    pub dropped: Option<Shard>,
    /// See [`Written::documents`].
    pub edits: Option<Shard>,
    /// Rows in and out.
    pub counts: Counts,
    /// Bytes of the text that was kept.
    pub text_bytes: u64,
}

/// The datasets that a sink writes to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// `documents`.
    pub documents: Dataset,
    /// `dropped`.
    pub dropped: Dataset,
    /// `edits`.
    pub edits: Dataset,
    /// Name of the shards: `unit-00007`.
    pub name: String,
    /// Whether `dropped` keeps texts.
    pub keep_text: bool,
    /// Whether a record without a document is an error.
    pub strict: bool,
    /// Documents and dropped records that are written nowhere.
    pub(crate) takedowns: Arc<Takedowns>,
}

/// The sink of one unit.
#[derive(Debug)]
pub struct DocumentSink {
    target: Target,
    /// Columns of the chain's output.
    schema: SchemaRef,
    written: Mutex<Option<Written>>,
}

impl DocumentSink {
    /// A sink for rows of `schema`, the chain's output.
    #[must_use]
    pub fn new(target: Target, schema: SchemaRef) -> Self {
        Self { target, schema, written: Mutex::new(None) }
    }

    /// What was written, after the plan has ended well.
    #[must_use]
    pub fn take(&self) -> Option<Written> {
        self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    fn write(&self, writers: &mut Writers, batch: &RecordBatch) -> Result<()> {
        writers.counts.n_in += batch.num_rows() as u64;
        let batch = self.target.takedowns.without(batch, "id", &mut writers.counts.dropped)?;
        let batch = &batch;
        let verdict = batch.column_by_name(VERDICT).expect("the chain adds it");
        let kept = filter_record_batch(batch, &is_null(verdict)?)?;
        let gone = filter_record_batch(batch, &is_not_null(verdict)?)?;
        writers.counts.n_kept += kept.num_rows() as u64;
        if kept.num_rows() > 0 {
            self.write_kept(writers, &kept)?;
        }
        if gone.num_rows() > 0 {
            self.write_gone(writers, &gone)?;
        }
        Ok(())
    }

    fn write_kept(&self, writers: &mut Writers, kept: &RecordBatch) -> Result<()> {
        let width = kept.num_columns() - 2;
        let documents = kept.project(&(0..width).collect::<Vec<_>>())?;
        let text = documents.column_by_name("text").expect("documents have a text");
        writers.text_bytes += text.as_string_view().lengths().map(u64::from).sum::<u64>();
        let out =
            writer(&mut writers.documents, &self.target.documents, &self.target.name, || {
                documents.schema()
            })?;
        out.write(&documents)?;

        let lists = kept.column_by_name(EDITS).expect("the chain adds it").as_list::<i32>();
        if lists.offsets().first() == lists.offsets().last() {
            return Ok(());
        }
        let first = usize::try_from(lists.value_offsets()[0]).expect("offsets are positive");
        let n: usize = lists.offsets().lengths().sum();
        let items = lists.values().slice(first, n);
        let items = items.as_struct();
        let rows = lists.offsets().lengths().enumerate();
        let rows = UInt32Array::from_iter_values(rows.flat_map(|(row, n)| {
            std::iter::repeat_n(u32::try_from(row).expect("batches are small"), n)
        }));
        let id = take(kept.column_by_name("id").expect("documents have an id"), &rows, None)?;
        let mut columns = vec![id];
        columns.extend(items.columns().iter().cloned());
        let edits = conform(DatasetKind::Edits.schema(), columns)?;
        let writer = writer(&mut writers.edits, &self.target.edits, &self.target.name, || {
            DatasetKind::Edits.schema()
        })?;
        Ok(writer.write(&edits)?)
    }

    fn write_gone(&self, writers: &mut Writers, gone: &RecordBatch) -> Result<()> {
        let verdict = gone.column_by_name(VERDICT).expect("the chain adds it").as_struct();
        let (steps, reasons) =
            (verdict.column(0).as_string_view(), verdict.column(2).as_string_view());
        let column = |name: &str| Arc::clone(gone.column_by_name(name).expect("documents have it"));
        if self.target.strict
            && let Some(row) = (0..gone.num_rows()).find(|&row| steps.value(row) == SOURCE_STEP)
        {
            return Err(Error::Job {
                place: column("locator").as_string_view().value(row).to_owned(),
                message: format!("damaged record: {}", reasons.value(row)),
                hint: Some("without `strict = true` it is counted and listed in `dropped`".into()),
            });
        }
        for row in 0..gone.num_rows() {
            let reason = format!("{}/{}", steps.value(row), reasons.value(row));
            *writers.counts.dropped.entry(reason).or_default() += 1;
        }
        let text = match self.target.keep_text {
            true => column("text"),
            false => Arc::new(StringViewArray::new_null(gone.num_rows())) as ArrayRef,
        };
        let mut columns = vec![column("id")];
        columns.extend(verdict.columns().iter().cloned());
        columns.extend(["source", "kind", "url", "locator"].map(column));
        columns.push(text);
        let dropped = conform(DatasetKind::Dropped.schema(), columns)?;
        let writer = writer(&mut writers.dropped, &self.target.dropped, &self.target.name, || {
            DatasetKind::Dropped.schema()
        })?;
        Ok(writer.write(&dropped)?)
    }
}

#[derive(Debug, Default)]
struct Writers {
    documents: Option<ShardWriter>,
    dropped: Option<ShardWriter>,
    edits: Option<ShardWriter>,
    counts: Counts,
    text_bytes: u64,
}

/// The writer in `slot`, created at its first row.
fn writer<'a>(
    slot: &'a mut Option<ShardWriter>,
    dataset: &Dataset,
    name: &str,
    schema: impl FnOnce() -> SchemaRef,
) -> Result<&'a mut ShardWriter> {
    if slot.is_none() {
        *slot = Some(ShardWriter::create(dataset, name, "train", &schema())?);
    }
    Ok(slot.as_mut().expect("it was just created"))
}

/// Gives `columns` the types of `schema`.
fn conform(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(column),
            false => cast(&column, field.data_type()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

impl DisplayAs for DocumentSink {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentSink({}: documents, dropped, edits)", self.target.name)
    }
}

#[async_trait]
impl DataSink for DocumentSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        _context: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let mut writers = Writers::default();
        while let Some(batch) = data.next().await {
            self.write(&mut writers, &batch?)?;
        }
        let finish = |writer: Option<ShardWriter>| {
            writer.map(ShardWriter::finish).transpose().map_err(Error::from)
        };
        let written = Written {
            documents: finish(writers.documents)?,
            dropped: finish(writers.dropped)?,
            edits: finish(writers.edits)?,
            counts: writers.counts,
            text_bytes: writers.text_bytes,
        };
        written.counts.assert_complete(&self.target.name);
        let n = written.counts.n_in;
        *self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(written);
        Ok(n)
    }
}
