//! Lines of an index: where in an archive a record lies, and what it is said to be.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use flate2::bufread::MultiGzDecoder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Value, json};

use crate::{Error, Result};

/// Bytes of a line, at most.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A record as an index names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) filename: String,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) url: String,
    timestamp: String,
    /// What stands before the fields of a CDXJ line.
    key: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) mime: Option<String>,
    pub(super) languages: Option<String>,
}

impl Entry {
    /// Reads the fields of CDXJ, or the columns of the columnar index.
    fn from_json(key: Option<&str>, fields: &Value) -> Option<Self> {
        let text = |names: &[&str]| {
            let value = names.iter().map(|&name| &fields[name]).find(|value| !value.is_null())?;
            value
                .as_str()
                .map(str::to_owned)
                .or_else(|| value.as_u64().map(|number| number.to_string()))
        };
        let number = |names: &[&str]| text(names)?.parse::<u64>().ok();
        let timestamp = key.and_then(|key| key.split(' ').nth(1)).map(str::to_owned);
        Some(Self {
            filename: text(&["filename", "warc_filename"])?,
            offset: number(&["offset", "warc_record_offset"])?,
            length: number(&["length", "warc_record_length"])?,
            url: text(&["url"]).unwrap_or_default(),
            timestamp: timestamp.or_else(|| text(&["timestamp", "fetch_time"])).unwrap_or_default(),
            key: key.map(str::to_owned),
            status: text(&["status", "fetch_status"]).and_then(|status| status.parse().ok()),
            mime: text(&["mime-detected", "content_mime_detected", "mime", "content_mime_type"]),
            languages: text(&["languages", "content_languages"]),
        })
    }

    /// What stands before the fields of its line in an index.
    pub(super) fn key(&self) -> String {
        let digits: String = self.timestamp.chars().filter(char::is_ascii_digit).take(14).collect();
        self.key.clone().unwrap_or_else(|| format!("{} {digits}", self.url.replace(' ', "%20")))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "url": self.url, "filename": self.filename, "offset": self.offset, "length": self.length })
    }
}

/// The lines of several files, one after the other.
pub(super) struct Entries {
    paths: std::vec::IntoIter<PathBuf>,
    open: Option<(PathBuf, Reader)>,
}

enum Reader {
    Lines(Box<dyn BufRead>),
    Parquet { reader: ParquetRecordBatchReader, rows: std::vec::IntoIter<Option<Entry>> },
}

impl Entries {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::Config {
                name: "commoncrawl".to_owned(),
                message: "`index` is empty\nhint: name files of the index, CDXJ or Parquet"
                    .to_owned(),
            });
        }
        if let Some(path) = paths.iter().find(|path| !path.is_file()) {
            let missing = std::io::ErrorKind::NotFound;
            return Err(Error::io("open", path)(missing.into()));
        }
        Ok(Self { paths: Vec::from(paths).into_iter(), open: None })
    }

    /// Passes over `n` lines.
    pub(super) fn skip(&mut self, n: u64) -> Result<()> {
        for _ in 0..n {
            if self.next()?.is_none() {
                return Err(Error::Config {
                    name: "commoncrawl".to_owned(),
                    message: format!(
                        "index: it has fewer than the {n} lines that were read before\nhint: name another folder as `output`"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Returns the next line; as text when it is none of an index.
    pub(super) fn next(&mut self) -> Result<Option<std::result::Result<Entry, String>>> {
        loop {
            let Some((path, reader)) = &mut self.open else {
                let Some(path) = self.paths.next() else { return Ok(None) };
                let reader = Reader::open(&path)?;
                self.open = Some((path, reader));
                continue;
            };
            match reader.next(path)? {
                Some(entry) => return Ok(Some(entry)),
                None => self.open = None,
            }
        }
    }
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let name = path.to_string_lossy();
        if name.ends_with(".parquet") {
            return open_parquet(path, file);
        }
        let input = BufReader::new(file);
        Ok(Self::Lines(if name.ends_with(".gz") {
            Box::new(BufReader::new(MultiGzDecoder::new(input)))
        } else {
            Box::new(input)
        }))
    }

    fn next(&mut self, path: &Path) -> Result<Option<std::result::Result<Entry, String>>> {
        match self {
            Self::Lines(input) => loop {
                let mut line = Vec::new();
                let limited = std::io::Read::take(&mut *input, LINE_BYTES_MAX);
                let n = BufReader::with_capacity(1, limited).read_until(b'\n', &mut line);
                if n.map_err(Error::io("read", path))? == 0 {
                    return Ok(None);
                }
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if line.is_empty() {
                    continue;
                }
                let (key, fields) = match line.find('{') {
                    Some(0) => (None, line.as_str()),
                    Some(at) => (Some(line[..at].trim()), &line[at..]),
                    // A line ` CDX N b a m …` names columns.
                    None => return Ok(Some(Err(line))),
                };
                let fields: Option<Value> = serde_json::from_str(fields).ok();
                let entry = fields.and_then(|fields| Entry::from_json(key, &fields));
                return Ok(Some(entry.ok_or(line)));
            },
            Self::Parquet { reader, rows } => loop {
                if let Some(row) = rows.next() {
                    return Ok(Some(
                        row.ok_or_else(|| "a row without file, offset or length".to_owned()),
                    ));
                }
                match reader.next() {
                    Some(batch) => *rows = entries(&batch?).into_iter(),
                    None => return Ok(None),
                }
            },
        }
    }
}

/// Columns that are read, of those that the file has. Source: Common Crawl, schema of the columnar index.
const COLUMNS: [&str; 9] = [
    "url",
    "fetch_time",
    "fetch_status",
    "content_mime_type",
    "content_mime_detected",
    "content_languages",
    "warc_filename",
    "warc_record_offset",
    "warc_record_length",
];

fn open_parquet(path: &Path, file: File) -> Result<Reader> {
    let refuse = |why: String| {
        Error::Format {
        path: path.to_owned(),
        why,
        hint: "a columnar index has the columns `warc_filename`, `warc_record_offset` and `warc_record_length`".to_owned(),
    }
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| refuse(error.to_string()))?;
    let schema = std::sync::Arc::clone(builder.schema());
    if let Some(missing) = COLUMNS[6..].iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(refuse(format!("it has no column `{missing}`")));
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    let reader = builder.with_projection(mask).with_batch_size(1024).build();
    let reader = reader.map_err(|error| refuse(error.to_string()))?;
    Ok(Reader::Parquet { reader, rows: Vec::new().into_iter() })
}

fn entries(batch: &RecordBatch) -> Vec<Option<Entry>> {
    let column = |name: &str, to: &DataType| -> Option<ArrayRef> {
        cast(batch.column_by_name(name)?, to).ok()
    };
    let texts: Vec<Option<ArrayRef>> =
        COLUMNS[..7].iter().map(|name| column(name, &DataType::Utf8)).collect();
    let numbers: Vec<Option<ArrayRef>> =
        COLUMNS[7..].iter().map(|name| column(name, &DataType::Int64)).collect();
    let text = |index: usize, row: usize| {
        let column = texts[index].as_ref()?.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let number = |index: usize, row: usize| {
        let column = numbers[index].as_ref()?.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| u64::try_from(column.value(row)).ok()).flatten()
    };
    (0..batch.num_rows())
        .map(|row| {
            Some(Entry {
                url: text(0, row).unwrap_or_default(),
                timestamp: text(1, row).unwrap_or_default(),
                status: text(2, row).and_then(|status| status.parse().ok()),
                mime: text(4, row).or_else(|| text(3, row)),
                languages: text(5, row),
                filename: text(6, row)?,
                offset: number(0, row)?,
                length: number(1, row)?,
                key: None,
            })
        })
        .collect()
}
