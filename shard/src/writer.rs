//! Writes one shard: Parquet bytes that depend on the rows alone, hashed on the way, visible only when whole.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::dataset::{DATA, Dataset};
use crate::manifest::{RowGroup, Shard};
use crate::store::NewFile;
use crate::{Error, Result, store};

/// Rows per row group, at most.
pub const ROW_GROUP_ROWS_MAX: u64 = 100_000;
/// Bytes of values per row group after which it is closed: the memory a reader of one group needs.
pub const ROW_GROUP_BYTES_MAX: usize = 64 << 20;
/// The same for tokens: a run that resumes waits for one group, which takes a few hundredths of a second to decode.
pub const ROW_GROUP_TOKEN_BYTES_MAX: usize = 16 << 20;
/// Rows handed to Parquet at a time. Page boundaries follow from it, so it is part of the format.
const CHUNK_ROWS: usize = 1024;
/// Bytes handed to Parquet at a time; the same holds.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Zstandard's own default: levels above cost more time than they save bytes on text.
const ZSTD_LEVEL: i32 = 3;

/// Writes the rows of one shard in the order in which they come.
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    name: String,
    split: String,
    temporary: PathBuf,
    schema: SchemaRef,
    parquet: ArrowWriter<HashedFile>,
    /// Slices of batches that do not fill a chunk yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    group: RowGroup,
    group_bytes: usize,
    groups: Vec<RowGroup>,
}

impl ShardWriter {
    /// Begins the shard called `name` of `split`; its file will be `data/<name>-<hash>.parquet`.
    ///
    /// # Errors
    /// When the folder or file cannot be created.
    pub fn create(dataset: &Dataset, name: &str, split: &str, schema: &SchemaRef) -> Result<Self> {
        let folder = dataset.path().join(DATA);
        store::create_folder(&folder)?;
        let temporary = store::aside(&folder);
        let file = HashedFile::create(&temporary)?;
        let schema = stored_schema(schema);
        let parquet =
            ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options(&schema))
                .map_err(Error::arrow("write", &temporary))?;
        Ok(Self {
            folder,
            name: name.to_owned(),
            split: split.to_owned(),
            temporary,
            schema,
            parquet,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            group: EMPTY_GROUP,
            group_bytes: 0,
            groups: Vec::new(),
        })
    }

    /// Adds the rows of `batch`, whose columns are those of the schema in the same order.
    ///
    /// However rows are cut into batches, the file's bytes are the same.
    ///
    /// # Errors
    /// When the file system refuses or a column cannot be stored in its declared type.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let sizes = row_bytes(batch);
        let mut start = 0;
        for (row, bytes) in sizes.iter().enumerate() {
            self.pending_rows += 1;
            self.pending_bytes += bytes;
            if self.pending_rows == CHUNK_ROWS || self.pending_bytes >= CHUNK_BYTES_MAX {
                self.pending.push(batch.slice(start, row + 1 - start));
                start = row + 1;
                self.write_chunk()?;
            }
        }
        if start < batch.num_rows() {
            self.pending.push(batch.slice(start, batch.num_rows() - start));
        }
        Ok(())
    }

    /// Closes the file and gives it its final name.
    ///
    /// `first_token` of its row groups counts from the shard's own start: see [`number_tokens`].
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(mut self) -> Result<Shard> {
        self.write_chunk()?;
        self.close_group()?;
        let error = Error::arrow("write", &self.temporary);
        let file = self.parquet.into_inner().map_err(error)?;
        let (bytes, blake3) = file.finish(&self.temporary)?;
        let file_name = format!("{}-{}.parquet", self.name, &blake3[..12]);
        store::publish_shard(&self.temporary, &self.folder.join(&file_name), &blake3)?;
        Ok(Shard {
            path: format!("{DATA}/{file_name}"),
            split: self.split,
            partition: None,
            rows: self.groups.iter().map(|group| group.rows).sum(),
            bytes,
            blake3,
            row_groups: self.groups,
        })
    }

    fn write_chunk(&mut self) -> Result<()> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        let error = |error| Error::arrow("write", &self.temporary)(error);
        let first = self.pending[0].schema();
        let chunk = concat_batches(&first, &self.pending).map_err(error)?;
        let chunk = stored_batch(&chunk, &self.schema).map_err(error)?;
        self.parquet.write(&chunk).map_err(Error::arrow("write", &self.temporary))?;
        self.group.rows += chunk.num_rows() as u64;
        self.group.n_tokens += n_tokens(&chunk);
        self.group_bytes += self.pending_bytes;
        self.pending.clear();
        self.pending_rows = 0;
        self.pending_bytes = 0;
        let bytes_max = match self.schema.column_with_name("tokens") {
            Some(_) => ROW_GROUP_TOKEN_BYTES_MAX,
            None => ROW_GROUP_BYTES_MAX,
        };
        let is_full = self.group.rows >= ROW_GROUP_ROWS_MAX || self.group_bytes >= bytes_max;
        if is_full { self.close_group() } else { Ok(()) }
    }

    fn close_group(&mut self) -> Result<()> {
        if self.group.rows == 0 {
            return Ok(());
        }
        self.parquet.flush().map_err(Error::arrow("write", &self.temporary))?;
        let first_token = self.group.first_token + self.group.n_tokens;
        self.groups.push(std::mem::replace(&mut self.group, EMPTY_GROUP));
        self.group.first_token = first_token;
        self.group_bytes = 0;
        Ok(())
    }
}

const EMPTY_GROUP: RowGroup = RowGroup { rows: 0, n_tokens: 0, first_token: 0 };

/// Makes `first_token` of every row group count from the start of its split.
pub fn number_tokens(shards: &mut [Shard]) {
    let mut next = std::collections::BTreeMap::<String, u64>::new();
    for shard in shards {
        let first = next.entry(shard.split.clone()).or_default();
        for group in &mut shard.row_groups {
            group.first_token = *first;
            *first += group.n_tokens;
        }
    }
}

/// The schema as Parquet stores it: views become plain strings.
fn stored_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn stored_batch(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn options(schema: &SchemaRef) -> ArrowWriterOptions {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("3 is a level of Zstandard");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None);
    for name in ["id", "url", "document_id"] {
        if schema.column_with_name(name).is_some() {
            properties = properties
                .set_column_bloom_filter_enabled(ColumnPath::from(name), true)
                .set_column_bloom_filter_max_ndv(ColumnPath::from(name), ROW_GROUP_ROWS_MAX);
        }
    }
    if schema.column_with_name("tokens").is_some() {
        // Ids are nearly uniform: a dictionary only costs time.
        let tokens = ColumnPath::new(vec!["tokens".into(), "list".into(), "item".into()]);
        properties = properties.set_column_dictionary_enabled(tokens, false);
    }
    // Without Arrow's own schema, readers of every age see plain Parquet types.
    ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true)
}

/// Bytes of the variable-width values of each row.
fn row_bytes(batch: &RecordBatch) -> Vec<usize> {
    let mut sizes = vec![0; batch.num_rows()];
    for column in batch.columns() {
        match column.data_type() {
            DataType::Utf8View => {
                let lengths = column.as_string_view().lengths().map(|length| length as usize);
                sizes.iter_mut().zip(lengths).for_each(|(size, length)| *size += length);
            }
            DataType::Utf8 => {
                let lengths = column.as_string::<i32>().offsets().lengths();
                sizes.iter_mut().zip(lengths).for_each(|(size, length)| *size += length);
            }
            DataType::List(item) if item.data_type().is_nested() => {
                let list = column.as_list::<i32>();
                let fields =
                    list.values().as_struct_opt().map(|it| it.columns()).unwrap_or_default();
                for texts in fields.iter().filter_map(|field| field.as_string_opt::<i32>()) {
                    let offsets = texts.offsets();
                    let ends = list.offsets().windows(2);
                    sizes.iter_mut().zip(ends).for_each(|(size, ends)| {
                        let end = |item: i32| {
                            offsets[usize::try_from(item).expect("offsets ascend from 0")]
                        };
                        let bytes = end(ends[1]) - end(ends[0]);
                        *size += usize::try_from(bytes).expect("offsets ascend");
                    });
                }
            }
            DataType::List(item) => {
                let width = item.data_type().primitive_width().unwrap_or(1);
                let lengths = column.as_list::<i32>().offsets().lengths();
                sizes.iter_mut().zip(lengths).for_each(|(size, length)| *size += length * width);
            }
            _ => {}
        }
    }
    sizes
}

fn n_tokens(batch: &RecordBatch) -> u64 {
    match batch.column_by_name("tokens").map(|column| column.as_list::<i32>()) {
        Some(tokens) => {
            let offsets = tokens.value_offsets();
            let n = offsets[offsets.len() - 1] - offsets[0];
            u64::try_from(n).expect("offsets ascend")
        }
        None => 0,
    }
}

/// A file that counts and hashes what is written to it.
#[derive(Debug)]
struct HashedFile {
    file: BufWriter<NewFile>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, NewFile::create(path)?),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    /// Returns size and hash once the bytes are on disk.
    fn finish(self, path: &Path) -> Result<(u64, String)> {
        let file = self.file.into_inner().map_err(|error| error.into_error());
        file.map_err(Error::io("write", path))?.sync()?;
        Ok((self.bytes, self.hasher.finalize().to_hex().to_string()))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
