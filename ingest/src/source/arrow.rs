//! Arrow IPC, files and streams: a column is the text, some fill columns of `documents`, the rest is metadata.
//!
//! Both are a sequence of messages; a file only adds a magic before and an index behind, so both are read from start to
//! end. A message's lengths are checked before anything is allocated by them, and a message is never longer than what
//! the file holds.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::Buffer;
use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamDecoder;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::jsonl::Columns;
use super::parquet::{self, Fields};
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, compressed, config};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "arrow",
    summary: "Arrow IPC files and streams (Feather 2, Hugging Face caches) with a column of text, a document per row",
    source: "Arrow Columnar Format 1.5, serialization and interprocess communication",
    document_kind: "web",
    patterns: &["*.arrow", "*.arrows", "*.feather", "*.ipc"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Arrow {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("arrow", table)?,
        }))
    },
};

/// First bytes of a file, padded to eight; a stream begins with a message.
const MAGIC: [u8; 8] = *b"ARROW1\0\0";
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes of a message's metadata, at most: some hundred for each column of its batch.
const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Rows turned into text at a time.
const SLICE_ROWS: usize = 128;

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
    /// Bytes of a batch, at most, inflated too.
    batch_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { columns: Columns::default(), keep_others: true, batch_bytes_max: 512 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Arrow {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Arrow {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let opened = compressed::open(handle).map_err(Error::io("read", &file.path))?;
        let is_mine = super::has_first_byte(range.as_ref());
        let messages = Messages {
            input: opened.input,
            decoder: StreamDecoder::new(),
            batch_bytes_max: self.config.batch_bytes_max,
            is_padding: false,
        };
        let mut table = Table {
            file: file.clone(),
            config: self.config.clone(),
            messages: is_mine.then_some(messages),
            batch: None,
            row: 0,
            n_rows: 0,
            reject: None,
        };
        if is_mine {
            // The schema comes first, and a job that names no column of it should hear so at once.
            table.advance();
            table.check_columns()?;
        }
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), table))
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        let row = place.and_then(|place| place.parse::<usize>().ok());
        let Some(mut row) = row else { return Ok(None) };
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let opened = compressed::open(handle).map_err(Error::io("read", &file.path))?;
        let mut messages = Messages {
            input: opened.input,
            decoder: StreamDecoder::new(),
            batch_bytes_max: self.config.batch_bytes_max,
            is_padding: false,
        };
        // The decoder panics on some damaged messages.
        let mut next = || catch_unwind(AssertUnwindSafe(|| messages.next())).ok()?.ok()?;
        while let Some(batch) = next() {
            match row.checked_sub(batch.num_rows()) {
                Some(rest) => row = rest,
                None => return Ok(Some(Raw::Row(batch.slice(row, 1)))),
            }
        }
        Ok(None)
    }
}

struct Table {
    file: SourceFile,
    config: Config,
    messages: Option<Messages>,
    batch: Option<RecordBatch>,
    /// The next row of `batch`.
    row: usize,
    /// Rows of the file before `row`.
    n_rows: u64,
    /// Why the rest of the file cannot be read.
    reject: Option<&'static str>,
}

impl Table {
    /// Reads the next batch.
    fn advance(&mut self) {
        self.batch = None;
        self.row = 0;
        let Some(messages) = &mut self.messages else { return };
        // The decoder panics on some damaged messages.
        let next = catch_unwind(AssertUnwindSafe(|| messages.next()));
        match next.unwrap_or(Err("bad_arrow")) {
            Ok(Some(batch)) => self.batch = Some(batch),
            Ok(None) => self.messages = None,
            Err(reason) => {
                self.messages = None;
                self.reject = Some(reason);
            }
        }
    }

    fn check_columns(&self) -> Result<()> {
        let Some(batch) = &self.batch else { return Ok(()) };
        let (schema, text) = (batch.schema(), &self.config.columns.text);
        if schema.column_with_name(text).is_some() {
            return Ok(());
        }
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Err(Error::Format {
            path: self.file.path.clone(),
            why: format!("it has no column `{text}`"),
            hint: format!("set `text` to one of its columns: `{}`", names.join("`, `")),
        })
    }

    /// The columns of the next rows that are wanted.
    fn slice(&self, batch: &RecordBatch, n_rows: usize) -> Option<Fields> {
        let columns = &self.config.columns;
        let read = || {
            let schema = batch.schema();
            let wanted = columns.names();
            let is_wanted = |index: &usize| {
                let field = schema.field(*index);
                wanted.contains(&field.name())
                    || self.config.keep_others && parquet::is_plain(field.data_type())
            };
            let indices: Vec<usize> = (0..batch.num_columns()).filter(is_wanted).collect();
            let batch = batch.project(&indices).ok()?.slice(self.row, n_rows);
            Fields::new(&batch, columns).ok()
        };
        catch_unwind(AssertUnwindSafe(read)).ok().flatten()
    }
}

impl Rows for Table {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let locator = format!("{}#{}", self.file.name, self.n_rows);
        let Some(batch) = &self.batch else {
            if let Some(reason) = self.reject.take() {
                rows.reject(&Record { locator: &locator, ..Record::default() }, reason);
                return Ok(true);
            }
            if self.messages.is_none() {
                return Ok(false);
            }
            self.advance();
            return Ok(true);
        };
        let n_rows = (batch.num_rows() - self.row).min(SLICE_ROWS);
        if n_rows == 0 {
            self.advance();
            return Ok(true);
        }
        match self.slice(batch, n_rows) {
            Some(fields) => {
                for row in 0..n_rows {
                    let number = self.n_rows + row as u64;
                    fields.push(row, &format!("{}#{number}", self.file.name), rows);
                }
                self.row += n_rows;
                self.n_rows += n_rows as u64;
            }
            None => {
                rows.reject(&Record { locator: &locator, ..Record::default() }, "bad_arrow");
                (self.batch, self.messages) = (None, None);
            }
        }
        Ok(true)
    }
}

/// Reads messages and decodes their batches.
struct Messages {
    input: Box<dyn BufRead + Send>,
    decoder: StreamDecoder,
    batch_bytes_max: u64,
    /// Whether zeros are what fills up the magic of a file.
    is_padding: bool,
}

impl Messages {
    /// Returns the next batch, `None` at the end, `Err` with the reason why there may be more that cannot be read.
    fn next(&mut self) -> Result<Option<RecordBatch>, &'static str> {
        loop {
            let Some(prefix) = self.take(4)? else { return Ok(None) };
            let length = if prefix == MAGIC[..4] {
                self.take(4)?.filter(|rest| rest[..] == MAGIC[4..]).ok_or("bad_arrow")?;
                self.is_padding = true;
                continue;
            } else if prefix == CONTINUATION {
                self.take(4)?.ok_or("bad_arrow")?
            } else {
                // Files of before 0.15 have no continuation mark.
                prefix
            };
            let length = length.first_chunk::<4>().expect("four bytes");
            let length = i32::from_le_bytes(*length);
            if length == 0 && self.is_padding {
                continue;
            }
            self.is_padding = false;
            if length == 0 {
                return Ok(None);
            }
            let length = u64::try_from(length).map_err(|_| "bad_arrow")?;
            if length > METADATA_BYTES_MAX {
                return Err("too_large");
            }
            let metadata = self.take(length)?.ok_or("bad_arrow")?;
            let body_bytes = self.body_bytes(&metadata)?;
            let body = self.take(body_bytes)?.ok_or("bad_arrow")?;
            self.check_inflated(&metadata, &body)?;
            let mut message = CONTINUATION.to_vec();
            message
                .extend_from_slice(&u32::try_from(length).map_err(|_| "bad_arrow")?.to_le_bytes());
            let mut found = None;
            for part in [message, metadata, body] {
                let mut part = Buffer::from(part);
                while !part.is_empty() {
                    found = self.decoder.decode(&mut part).map_err(|_| "bad_arrow")?.or(found);
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Reads exactly `n` bytes; `None` when the input ends before the first.
    fn take(&mut self, n: u64) -> Result<Option<Vec<u8>>, &'static str> {
        let mut bytes = Vec::new();
        match (&mut self.input).take(n).read_to_end(&mut bytes) {
            Ok(read) if read as u64 == n => Ok(Some(bytes)),
            Ok(0) => Ok(None),
            Ok(_) => Err("truncated_file"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("truncated_file"),
            Err(_) => Err("bad_arrow"),
        }
    }

    fn body_bytes(&self, metadata: &[u8]) -> Result<u64, &'static str> {
        let message = arrow_ipc::root_as_message(metadata).map_err(|_| "bad_arrow")?;
        let bytes = u64::try_from(message.bodyLength()).map_err(|_| "bad_arrow")?;
        if bytes > self.batch_bytes_max { Err("too_large") } else { Ok(bytes) }
    }

    /// Adds up what the compressed buffers of a batch say they inflate to: the decoder believes them.
    fn check_inflated(&self, metadata: &[u8], body: &[u8]) -> Result<(), &'static str> {
        let message = arrow_ipc::root_as_message(metadata).map_err(|_| "bad_arrow")?;
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Ok(()) };
        if batch.compression().is_none() {
            return Ok(());
        }
        let mut inflated = 0_u64;
        for buffer in batch.buffers().into_iter().flatten() {
            let at = usize::try_from(buffer.offset()).map_err(|_| "bad_arrow")?;
            let Some(length) = body.get(at..).and_then(|body| body.first_chunk::<8>()) else {
                continue;
            };
            // -1 says that the buffer is stored as it is.
            let length = u64::try_from(i64::from_le_bytes(*length)).unwrap_or_default();
            inflated = inflated.saturating_add(length);
        }
        if inflated > self.batch_bytes_max { Err("too_large") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use ::arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray};
    use ::arrow::datatypes::Int32Type;
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

    use super::super::testing;
    use super::*;

    fn batch(n_rows: usize) -> RecordBatch {
        let texts: StringArray =
            (0..n_rows).map(|row| (row % 7 != 3).then(|| format!("text {row}"))).collect();
        let stars: Int64Array = (0..n_rows).map(|row| i64::try_from(row).ok()).collect();
        let languages: DictionaryArray<Int32Type> =
            (0..n_rows).map(|row| Some(if row % 2 == 0 { "en" } else { "de" })).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("body", Arc::new(texts)),
            ("stars", Arc::new(stars)),
            ("tongue", Arc::new(languages)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn write(path: &Path, is_file: bool, compression: Option<CompressionType>) {
        let batch = batch(300);
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let file = File::create(path).unwrap();
        if is_file {
            let mut writer =
                FileWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        } else {
            let mut writer =
                StreamWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
    }

    #[test]
    fn reads_files_and_streams_and_maps_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        let compressions = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];
        for (is_file, compression) in
            [true, false].into_iter().flat_map(|is_file| compressions.map(|c| (is_file, c)))
        {
            write(&path, is_file, compression);
            let source = testing::build(&KIND, "text = \"body\"\nlanguage = \"tongue\"");
            let rows = testing::conforms(&*source, &testing::file(&path), &[3000, 40000]);
            assert_eq!(rows.len(), 600);
            assert_eq!(rows[3].reject.as_deref(), Some("no_text"));
            assert_eq!(
                (rows[599].text.as_str(), rows[599].value("stars")),
                ("text 299", Some("299"))
            );
            assert_eq!(rows[599].locator, "a.arrow#599");
            let error = testing::build(&KIND, "").open(&testing::file(&path), None).err().unwrap();
            assert!(error.to_string().contains("`body`"), "{error}");
            let source = testing::build(&KIND, "text = \"body\"\nbatch_bytes_max = 1000");
            let rows = testing::read(&*source, &testing::file(&path), None);
            assert_eq!(rows[0].reject.as_deref(), Some("too_large"));
        }
    }

    #[test]
    fn a_file_cut_short_keeps_its_whole_batches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        write(&path, false, None);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 200]).unwrap();
        let source = testing::build(&KIND, "text = \"body\"");
        let rows = testing::read(&*source, &testing::file(&path), None);
        assert_eq!(rows.len(), 301);
        assert_eq!(rows[300].reject.as_deref(), Some("truncated_file"));
    }

    #[test]
    fn no_damaged_file_ends_the_reader() {
        let Some(folder) = testing::data("conformance/arrow-ipc") else { return };
        let (mut n_files, mut n_rows, mut n_rejects) = (0, 0, 0);
        let mut slowest = Duration::ZERO;
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy();
            if !entry.file_type().is_file() || name.contains("LICENSE") || name.ends_with(".md") {
                continue;
            }
            n_files += 1;
            let start = Instant::now();
            // Most of the sound files have a column of this name; the others are refused once their schema is read.
            let source = testing::build(&KIND, "text = \"f0\"");
            match source.open(&testing::file(entry.path()), None) {
                Ok(batches) => {
                    for batch in batches {
                        let rows = testing::rows(&batch.unwrap());
                        n_rows += rows.len();
                        n_rejects += rows.iter().filter(|row| row.reject.is_some()).count();
                    }
                }
                Err(error) => assert!(error.to_string().contains("no column"), "{error}"),
            }
            slowest = slowest.max(start.elapsed());
        }
        assert!(n_files > 400, "{n_files}");
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        eprintln!("read {n_files} files, {n_rows} rows, {n_rejects} rejects, slowest {slowest:?}");
    }
}
