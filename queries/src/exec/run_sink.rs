//! The first pass of the shuffle: token rows, cut into sorted runs.
//!
//! A run holds what fits into memory, sorted by (bucket, key, id), one batch per bucket. The second pass reads one
//! bucket of all runs, so both passes read and write in long pieces.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, SendableRecordBatchStream};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use shard::order::shuffle_key;
use shard::schema::loss_mask_field;
use shard::split::Splits;
use shard::store;

use crate::Error;

/// Where documents go: which split, which partition of it, and which part of its order.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Decides the split of a document.
    pub splits: Arc<Splits>,
    /// The parts in the order of the manifest.
    pub parts: Vec<Part>,
    /// Seed of the order and the splits.
    pub seed: u64,
}

/// A split, or a partition of it.
#[derive(Clone, Debug)]
pub struct Part {
    /// The split.
    pub split: String,
    /// The partition, where documents are parted.
    pub partition: Option<String>,
    /// Its buckets.
    pub n_buckets: u32,
}

/// The name of the partition of documents with this value.
#[must_use]
pub fn partition_of(value: Option<&str>) -> &str {
    value.unwrap_or("null")
}

impl Buckets {
    /// All buckets: their parts, and numbers in the split.
    pub fn all(&self) -> impl Iterator<Item = (&Part, u32)> {
        self.parts.chunk_by(|a, b| a.split == b.split).flat_map(|parts| {
            let buckets = |part: &Part| 0..part.n_buckets;
            let parts = parts.iter().flat_map(move |part| buckets(part).map(move |_| part));
            parts.zip(0..)
        })
    }

    /// The bucket of a document, counted over all parts, and its key in the order.
    fn of(&self, id: &[u8], partition: Option<&str>) -> (u32, u64) {
        let split = self.splits.of(id, self.seed);
        let key = shuffle_key(self.seed, id);
        let mut first = 0;
        for part in &self.parts {
            if part.split == split && part.partition.as_deref() == partition {
                // The key's share of the whole range decides, so buckets follow each other in the order.
                let bucket = (u128::from(key) * u128::from(part.n_buckets)) >> 64;
                return (first + u32::try_from(bucket).expect("it is below n"), key);
            }
            first += part.n_buckets;
        }
        panic!("partition {partition:?} of split `{split}` is not among {:?}", self.parts)
    }

    fn is_parted(&self) -> bool {
        self.parts.iter().any(|part| part.partition.is_some())
    }
}

/// A sorted run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// Arrow file, one batch per bucket.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// The buckets of its batches, rising.
    pub buckets: Vec<u32>,
}

/// The rows of a run: key, id, tokens and, where it `is_masked`, the mask of what is learned.
fn run_schema(is_masked: bool) -> SchemaRef {
    let tokens = DataType::List(Arc::new(Field::new("item", DataType::UInt32, false)));
    let mut fields = vec![
        Field::new("key", DataType::UInt64, false),
        Field::new("document_id", DataType::FixedSizeBinary(16), false),
        Field::new("tokens", tokens, false),
    ];
    fields.extend(is_masked.then(loss_mask_field));
    Arc::new(Schema::new(fields))
}

/// Takes tokens and mask out of their struct, without the rows where it is null.
fn unpack(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(both) = batch.column(1).as_struct_opt() else { return Ok(batch) };
    let own = batch.schema();
    let own = own.fields();
    let fields = [&own[..1], both.fields(), &own[2..]].concat();
    let schema = Arc::new(Schema::new(fields));
    let columns = batch.columns();
    let columns = [&columns[..1], both.columns(), &columns[2..]].concat();
    let rows = RecordBatch::try_new(schema, columns)?;
    match both.nulls() {
        Some(nulls) => filter_record_batch(&rows, &BooleanArray::new(nulls.inner().clone(), None)),
        None => Ok(rows),
    }
}

/// The sink of one shard of documents.
#[derive(Debug)]
pub struct RunSink {
    folder: PathBuf,
    name: String,
    buckets: Buckets,
    /// Bytes of tokens in a run.
    run_bytes: usize,
    schema: SchemaRef,
    written: Mutex<Option<(Vec<RunFile>, u64)>>,
}

impl RunSink {
    /// A sink for rows of `id` and `tokens`, or of `id` and a struct of `tokens` and `loss_mask` that is null for rows
    /// that go, which writes runs of `run_bytes` to `folder`. Behind them is the partition, where documents are parted.
    #[must_use]
    pub fn new(
        folder: PathBuf,
        name: String,
        buckets: Buckets,
        run_bytes: usize,
        schema: SchemaRef,
    ) -> Self {
        Self { folder, name, buckets, run_bytes, schema, written: Mutex::new(None) }
    }

    /// The runs and the number of rows in them, after the plan has ended well.
    #[must_use]
    pub fn take(&self) -> Option<(Vec<RunFile>, u64)> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn write_run(&self, batches: &mut Vec<RecordBatch>, index: usize) -> Result<RunFile, Error> {
        // Rows are taken out of the batches as they are: a copy of all of them would need the memory twice.
        let rows: Vec<&RecordBatch> = batches.iter().collect();
        let ids: Vec<_> = rows.iter().map(|batch| batch.column(0).as_fixed_size_binary()).collect();
        let n_columns = rows[0].num_columns() - usize::from(self.buckets.is_parted());
        let partitions: Vec<_> = rows
            .iter()
            .map(|batch| batch.columns().get(n_columns).map(|column| column.as_string::<i32>()))
            .collect();
        let partition = |batch: usize, row: usize| {
            let column = partitions[batch]?;
            Some(partition_of(column.is_valid(row).then(|| column.value(row))))
        };
        let mut order: Vec<(u32, u64, (usize, usize))> = positions(&rows)
            .map(|(batch, row)| {
                let (bucket, key) = self.buckets.of(ids[batch].value(row), partition(batch, row));
                (bucket, key, (batch, row))
            })
            .collect();
        order.sort_unstable_by_key(|&(bucket, key, (batch, row))| {
            (bucket, key, ids[batch].value(row))
        });
        let schema = run_schema(n_columns > 2);
        let path = self.folder.join(format!("{}-{index:04}.arrow", self.name));
        let temporary = store::aside(&self.folder);
        let io = |action| shard::Error::io(action, &temporary);
        let file = BufWriter::new(File::create(&temporary).map_err(io("create"))?);
        let mut writer = FileWriter::try_new(file, &schema)?;
        let mut buckets = Vec::new();
        for part in order.chunk_by(|a, b| a.0 == b.0) {
            let indices: Vec<(usize, usize)> = part.iter().map(|&(_, _, row)| row).collect();
            let taken = interleave_record_batch(&rows, &indices)?;
            let keys: ArrayRef =
                Arc::new(UInt64Array::from_iter_values(part.iter().map(|&(_, key, _)| key)));
            let columns = [&[keys], &taken.columns()[..n_columns]].concat();
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
            buckets.push(part[0].0);
        }
        let file =
            writer.into_inner()?.into_inner().map_err(|error| io("write")(error.into_error()))?;
        file.sync_all().map_err(io("sync"))?;
        let bytes = file.metadata().map_err(io("read"))?.len();
        batches.clear();
        store::publish(&temporary, &path)?;
        Ok(RunFile { path, bytes, buckets })
    }
}

/// Reads the batch of `bucket` from a run; none when the run has no row of it.
///
/// # Errors
/// When the run cannot be read.
pub fn read_bucket(run: &RunFile, bucket: u32) -> Result<Option<RecordBatch>, Error> {
    let Ok(index) = run.buckets.binary_search(&bucket) else { return Ok(None) };
    let file = File::open(&run.path).map_err(shard::Error::io("open", &run.path))?;
    let mut reader = arrow::ipc::reader::FileReader::try_new(std::io::BufReader::new(file), None)?;
    reader.set_index(index)?;
    Ok(reader.next().transpose()?)
}

/// Returns the rows of one bucket by (key, id), [`SORTED_ROWS`] at a time.
///
/// # Errors
/// When the batches differ in their columns.
pub fn sort_bucket(
    batches: &[RecordBatch],
) -> impl Iterator<Item = Result<RecordBatch, Error>> + '_ {
    let rows: Vec<&RecordBatch> = batches.iter().collect();
    let keys = |batch: usize| batches[batch].column(0).as_primitive::<UInt64Type>();
    let ids = |batch: usize| batches[batch].column(1).as_fixed_size_binary();
    let mut order: Vec<(usize, usize)> = positions(&rows).collect();
    order.sort_unstable_by_key(|&(batch, row)| (keys(batch).value(row), ids(batch).value(row)));
    let starts = (0..order.len()).step_by(SORTED_ROWS);
    starts.map(move |start| {
        let end = (start + SORTED_ROWS).min(order.len());
        Ok(interleave_record_batch(&rows, &order[start..end])?)
    })
}

/// Rows of a bucket that are brought into order at a time: a copy of all would need the memory twice. It is what a shard takes at a
/// time, so it copies none of them again.
pub const SORTED_ROWS: usize = 1024;

/// Every row of some batches.
fn positions<'a>(batches: &'a [&RecordBatch]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let rows = batches.iter().enumerate();
    rows.flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
}

impl DisplayAs for RunSink {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n: u32 = self.buckets.parts.iter().map(|part| part.n_buckets).sum();
        write!(f, "RunSink({}: sorted runs of {} bytes in {n} buckets)", self.name, self.run_bytes)
    }
}

#[async_trait]
impl DataSink for RunSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let memory = MemoryConsumer::new("RunSink").register(context.memory_pool());
        let (mut pending, mut bytes, mut n) = (Vec::new(), 0, 0);
        let mut runs = Vec::new();
        while let Some(batch) = data.next().await {
            let batch = unpack(batch?)?;
            n += batch.num_rows() as u64;
            let size: usize =
                batch.columns()[1..].iter().map(|it| it.get_buffer_memory_size()).sum();
            bytes += size;
            pending.push(batch);
            // Writing needs another batch or bucket of them, at most the rows twice. What the pool does not grant is written out at once.
            let is_granted = memory.try_grow(2 * size).is_ok();
            if bytes >= self.run_bytes || !is_granted {
                runs.push(self.write_run(&mut pending, runs.len())?);
                bytes = 0;
                memory.free();
            }
        }
        if !pending.is_empty() {
            runs.push(self.write_run(&mut pending, runs.len())?);
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some((runs, n));
        Ok(n)
    }
}
