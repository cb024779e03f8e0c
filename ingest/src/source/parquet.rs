//! Parquet files that others wrote: one column is the text, some fill columns of `documents`, the rest is metadata.

use std::fmt::Write as _;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::jsonl::Columns;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config, date};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "parquet",
    summary: "Parquet files with a column of text, a document per row",
    source: "Apache Parquet format 2.11",
    document_kind: "web",
    patterns: &["*.parquet"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Parquet {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("parquet", table)?,
        }))
    },
};

/// Rows decoded at a time: few, because a row may be a book.
const READ_ROWS: usize = 128;

// `from_table` refuses unknown keys: serde cannot where fields are flattened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    /// The columns that fill ours; other columns of strings, numbers, booleans, times and lists of floats go to
    /// `metadata`.
    #[serde(flatten)]
    columns: Columns,
    /// Whether other columns go to `metadata`.
    keep_others: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { columns: Columns::default(), keep_others: true }
    }
}

#[derive(Clone, Debug)]
struct Parquet {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Parquet {
    fn is_splittable(&self, _name: &str) -> bool {
        true
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let range = range.unwrap_or(0..u64::MAX);
        let is_first = super::has_first_byte(Some(&range));
        let table = match guarded(|| self.read(&handle, &range)) {
            Ok(table) => Some(table),
            Err(Damage::Config(message)) => {
                return Err(Error::Format {
                    path: file.path.clone(),
                    why: message.0,
                    hint: message.1,
                });
            }
            Err(Damage::File) => None,
        };
        let reader = Reader {
            file: file.clone(),
            columns: self.config.columns.clone(),
            is_damaged: table.is_none() && is_first,
            table,
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }

    /// The row group that holds the row.
    fn range_of(&self, file: &SourceFile, place: &str) -> Option<Range<u64>> {
        let row = place.parse().ok()?;
        let found = guarded(|| group_of(&File::open(&file.path).map_err(|_| Damage::File)?, row));
        let (_, middle, _) = found.ok()?;
        Some(middle..middle + 1)
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        let Some(row) = place.and_then(|place| place.parse().ok()) else { return Ok(None) };
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let read = || {
            let (group, _, skipped) = group_of(&handle, row)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(handle.try_clone()?)?;
            let mut reader =
                builder.with_row_groups(vec![group]).with_offset(skipped).with_limit(1).build()?;
            Ok(reader.next().transpose()?.map(Raw::Row))
        };
        Ok(guarded(read).ok().flatten())
    }
}

/// Returns the row group with row `row` of the file, the byte in its middle, and how many rows of it come before.
fn group_of(file: &File, row: u64) -> Result<(usize, u64, usize), Damage> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.try_clone()?)?;
    let mut first = 0;
    for (index, group) in builder.metadata().row_groups().iter().enumerate() {
        let next = first + u64::try_from(group.num_rows()).map_err(|_| Damage::File)?;
        if (first..next).contains(&row) {
            let skipped = usize::try_from(row - first).map_err(|_| Damage::File)?;
            return Ok((index, middle(group), skipped));
        }
        first = next;
    }
    Err(Damage::File)
}

/// Why a file gives no rows, or no more.
pub(super) enum Damage {
    File,
    /// What is missing, and a hint.
    Config((String, String)),
}

impl From<std::io::Error> for Damage {
    fn from(_: std::io::Error) -> Self {
        Self::File
    }
}

impl From<ParquetError> for Damage {
    fn from(_: ParquetError) -> Self {
        Self::File
    }
}

impl From<ArrowError> for Damage {
    fn from(_: ArrowError) -> Self {
        Self::File
    }
}

/// Runs a call into the Parquet reader, which panics on some damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T, Damage>) -> Result<T, Damage> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Damage::File))
}

/// The row groups of a range, opened.
struct Table {
    reader: ParquetRecordBatchReader,
    /// First and last row of each group, in the file.
    rows: std::vec::IntoIter<Range<u64>>,
    current: Range<u64>,
}

impl Parquet {
    fn read(&self, file: &File, range: &Range<u64>) -> Result<Table, Damage> {
        let file = file.try_clone().map_err(|_| Damage::File)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|_| Damage::File)?;
        let wanted = &self.config.columns;
        let schema = Arc::clone(builder.schema());
        if schema.column_with_name(&wanted.text).is_none() {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Damage::Config((
                format!("it has no column `{}`", wanted.text),
                format!("set `text` to one of its columns: `{}`", names.join("`, `")),
            )));
        }
        let named = wanted.names();
        let roots = schema.fields().iter().enumerate().filter(|(_, field)| {
            named.contains(&field.name())
                || (self.config.keep_others && is_plain(field.data_type()))
        });
        let roots: Vec<usize> = roots.map(|(index, _)| index).collect();
        let mut groups = Vec::new();
        let mut rows = Vec::new();
        let mut first_row = 0;
        for (index, group) in builder.metadata().row_groups().iter().enumerate() {
            let n_rows = u64::try_from(group.num_rows()).map_err(|_| Damage::File)?;
            if range.contains(&middle(group)) {
                groups.push(index);
                rows.push(first_row..first_row + n_rows);
            }
            first_row += n_rows;
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(groups)
            .with_batch_size(READ_ROWS)
            .build()
            .map_err(|_| Damage::File)?;
        Ok(Table { reader, rows: rows.into_iter(), current: 0..0 })
    }
}

/// Where a row group lies: the byte in its middle decides which range it belongs to.
fn middle(group: &RowGroupMetaData) -> u64 {
    let start = group
        .columns()
        .first()
        .map_or(0, |column| column.dictionary_page_offset().unwrap_or(column.data_page_offset()));
    let bytes: i64 = group.columns().iter().map(|column| column.compressed_size().max(0)).sum();
    u64::try_from(start.saturating_add(bytes / 2)).unwrap_or(0)
}

/// Whether values of a type are something to write down as text.
pub(super) fn is_plain(data_type: &DataType) -> bool {
    data_type.is_numeric() || data_type.is_string() || data_type.is_temporal() || {
        matches!(data_type, DataType::Boolean) || number_type(data_type).is_some()
    }
}

/// The type of the numbers in a list of floats, such as an embedding; none for every other type.
fn number_type(data_type: &DataType) -> Option<DataType> {
    let (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) =
        data_type
    else {
        return None;
    };
    match item.data_type() {
        // Half precision is exact in single.
        DataType::Float16 | DataType::Float32 => Some(DataType::Float32),
        DataType::Float64 => Some(DataType::Float64),
        _ => None,
    }
}

struct Reader {
    file: SourceFile,
    columns: Columns,
    table: Option<Table>,
    is_damaged: bool,
}

impl Rows for Reader {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(table) = &mut self.table else {
            if std::mem::take(&mut self.is_damaged) {
                let record = Record {
                    locator: &self.file.name,
                    bytes_raw: self.file.bytes,
                    ..Record::default()
                };
                rows.reject(&record, "bad_parquet");
                return Ok(true);
            }
            return Ok(false);
        };
        let next = guarded(|| {
            let batch = table.reader.next().transpose().map_err(|_| Damage::File)?;
            batch.map(|batch| Fields::new(&batch, &self.columns)).transpose()
        });
        match next {
            Ok(Some(fields)) => {
                for row in 0..fields.n_rows {
                    let Some(index) = table.next_row() else { break };
                    fields.push(row, &format!("{}#{index}", self.file.name), rows);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) => {
                // One reject for what is left of the range, at the first row that could not be read.
                let index = table.next_row().unwrap_or(table.current.end);
                let locator = format!("{}#{index}", self.file.name);
                rows.reject(&Record { locator: &locator, ..Record::default() }, "bad_parquet");
                self.table = None;
                Ok(true)
            }
        }
    }
}

impl Table {
    /// The number of the next row in the file.
    fn next_row(&mut self) -> Option<u64> {
        while self.current.is_empty() {
            self.current = self.rows.next()?;
        }
        self.current.next()
    }
}

/// Columns of a batch, as text.
pub(super) struct Fields {
    n_rows: usize,
    text: StringViewArray,
    url: Option<StringViewArray>,
    date: Option<StringViewArray>,
    language: Option<StringViewArray>,
    license: Option<StringViewArray>,
    others: Vec<(String, StringViewArray)>,
}

impl Fields {
    pub(super) fn new(batch: &RecordBatch, names: &Columns) -> Result<Self, Damage> {
        let column = |name: &str| batch.column_by_name(name).map(strings).transpose();
        let known = names.names();
        let mut others = Vec::new();
        for (field, values) in batch.schema().fields().iter().zip(batch.columns()) {
            if !known.contains(&field.name()) {
                others.push((field.name().clone(), strings(values)?));
            }
        }
        Ok(Self {
            n_rows: batch.num_rows(),
            text: column(&names.text)?.ok_or(Damage::File)?,
            url: column(&names.url)?,
            date: column(&names.date)?,
            language: column(&names.language)?,
            license: column(&names.license)?,
            others,
        })
    }

    pub(super) fn push(&self, row: usize, locator: &str, rows: &mut BatchBuilder) {
        let metadata: Vec<(&str, &str)> = self
            .others
            .iter()
            .filter_map(|(name, values)| Some((name.as_str(), value(Some(values), row)?)))
            .collect();
        let text = value(Some(&self.text), row).unwrap_or_default();
        let record = Record {
            locator,
            url: value(self.url.as_ref(), row),
            date: value(self.date.as_ref(), row).and_then(date::parse),
            language: value(self.language.as_ref(), row),
            license: value(self.license.as_ref(), row),
            bytes_raw: text.len() as u64,
            metadata: &metadata,
        };
        if text.is_empty() {
            rows.reject(&record, "no_text");
        } else {
            rows.push(&record, text);
        }
    }
}

fn strings(values: &ArrayRef) -> Result<StringViewArray, Damage> {
    if let Some(number_type) = number_type(values.data_type()) {
        return lists(values, number_type).map_err(|_| Damage::File);
    }
    let values = cast(values, &DataType::Utf8View).map_err(|_| Damage::File)?;
    Ok(values.as_string_view().clone())
}

/// Lists of floats as JSON, each with the digits that give it back; what is not finite as `NaN` and `inf`.
fn lists(values: &ArrayRef, number_type: DataType) -> Result<StringViewArray, ArrowError> {
    let item = Arc::new(Field::new_list_field(number_type, true));
    let lists = cast(values, &DataType::List(item))?;
    let lists = lists.as_list::<i32>();
    let numbers = lists.values();
    let write = |index: usize, text: &mut String| {
        // Writing to a string does not fail.
        let written = match numbers.data_type() {
            _ if numbers.is_null(index) => write!(text, "null"),
            DataType::Float32 => {
                write!(text, "{:?}", numbers.as_primitive::<Float32Type>().value(index))
            }
            _ => write!(text, "{:?}", numbers.as_primitive::<Float64Type>().value(index)),
        };
        written.expect("a string takes everything");
    };
    let ends = lists.value_offsets().windows(2);
    let texts = ends.enumerate().map(|(row, ends)| {
        let [Ok(start), Ok(end)] = [ends[0], ends[1]].map(usize::try_from) else { return None };
        lists.is_valid(row).then(|| {
            let mut text = String::from("[");
            for index in start..end {
                text.push_str(if index == start { "" } else { ", " });
                write(index, &mut text);
            }
            text + "]"
        })
    });
    Ok(texts.collect())
}

fn value(values: Option<&StringViewArray>, row: usize) -> Option<&str> {
    values.filter(|values| values.is_valid(row)).map(|values| values.value(row))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use arrow::array::{
        ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array, ListArray,
        StringArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::super::testing;
    use super::KIND;

    fn write(path: &std::path::Path, n_rows: usize, group_rows: usize) {
        let texts: StringArray =
            (0..n_rows).map(|i| (i % 7 != 3).then(|| format!("text {i}"))).collect();
        let stars: Int64Array = (0..n_rows).map(|i| i64::try_from(i).ok()).collect();
        let dates = StringArray::from(vec!["2024-05-01"; n_rows]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("content", Arc::new(texts)),
            ("stars", Arc::new(stars)),
            ("date", Arc::new(dates)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let file = File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn maps_columns_and_keeps_the_others_as_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, 10, 4);
        let source = testing::build(&KIND, "text = \"content\"");
        let rows = testing::read(&*source, &testing::file(&path), None);
        assert_eq!(rows.len(), 10);
        assert_eq!(rows[3].reject.as_deref(), Some("no_text"));
        assert_eq!((rows[9].text.as_str(), rows[9].value("stars")), ("text 9", Some("9")));
        assert_eq!((rows[9].date, rows[9].locator.as_str()), (Some(1_714_521_600), "a.parquet#9"));
        let error = testing::build(&KIND, "").open(&testing::file(&path), None).err().unwrap();
        assert!(error.to_string().contains("`content`"), "{error}");
    }

    #[test]
    fn lists_of_floats_are_metadata_to_the_last_digit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
        let single = Float32Array::from(vec![Some(0.1), Some(-2.0), Some(1e-30), Some(f32::NAN)]);
        let fixed = FixedSizeListArray::new(
            item(DataType::Float32),
            2,
            Arc::new(single),
            Some(vec![true, true].into()),
        );
        let double = Float64Array::from(vec![Some(0.1), None, Some(1.0 / 3.0)]);
        let offsets = OffsetBuffer::from_lengths([3, 0]);
        let list = ListArray::new(item(DataType::Float64), offsets, Arc::new(double), None);
        let ids = Int64Array::from(vec![1, 2, 3]);
        let ids = ListArray::new(
            item(DataType::Int64),
            OffsetBuffer::from_lengths([2, 1]),
            Arc::new(ids),
            None,
        );
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("single", Arc::new(fixed)),
            ("double", Arc::new(list)),
            ("input_ids", Arc::new(ids)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let rows = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None);
        assert_eq!(rows[0].value("single"), Some("[0.1, -2.0]"));
        assert_eq!(rows[1].value("single"), Some("[1e-30, NaN]"));
        assert_eq!(rows[0].value("double"), Some("[0.1, null, 0.3333333333333333]"));
        assert_eq!(rows[1].value("double"), Some("[]"));
        assert_eq!(rows[0].value("input_ids"), None, "tokens are no description");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn ranges_of_any_size_tile_a_file(
            n_rows in 1_usize..400,
            group_rows in 1_usize..100,
            cuts in proptest::collection::vec(any::<u16>(), 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.parquet");
            write(&path, n_rows, group_rows);
            let source = testing::build(&KIND, "text = \"content\"");
            let rows = testing::conforms(&*source, &testing::file(&path), &cuts);
            prop_assert_eq!(rows.len(), n_rows);
        }
    }

    #[test]
    fn no_damaged_file_ends_the_reader() {
        let Some(folder) = testing::data("conformance/parquet") else { return };
        let source = testing::build(&KIND, "");
        let (mut n_files, mut n_rejects, mut slowest) = (0, 0, Duration::ZERO);
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy();
            let is_note = name == "LICENSE" || name.ends_with(".md") || name.starts_with('.');
            if !entry.file_type().is_file() || is_note {
                continue;
            }
            n_files += 1;
            let start = Instant::now();
            // Some of the files are sound and lack a column `text`: the only error there is.
            match source.open(&testing::file(entry.path()), None) {
                Ok(batches) => {
                    for batch in batches {
                        let rows = testing::rows(&batch.unwrap());
                        n_rejects += rows.iter().filter(|row| row.reject.is_some()).count();
                    }
                }
                Err(error) => assert!(error.to_string().contains("no column"), "{error}"),
            }
            slowest = slowest.max(start.elapsed());
            assert!(slowest < Duration::from_secs(5), "{name}: {slowest:?}");
        }
        // 8 bad files, 137 and 4 of fuzzers.
        assert_eq!(n_files, 8 + 137 + 4);
        eprintln!("read {n_files} damaged files, {n_rejects} rejects, slowest {slowest:?}");
    }

    #[test]
    fn a_file_that_is_no_parquet_is_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        fs::write(&path, "not parquet").unwrap();
        let source = testing::build(&KIND, "");
        let rows = testing::conforms(&*source, &testing::file(&path), &[20000]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].reject.as_deref(), Some("bad_parquet"));
    }
}
