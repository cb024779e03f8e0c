//! What came of every URL, as Parquet beside the segments: `crawl_log-00000.parquet` and so on.
//!
//! A row per URL that was dealt with, in order of time: also of those that were never asked for, with the reason. The files of all
//! runs together are the table; a file is whole or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, StringBuilder, TimestampMillisecondArray, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::archive::segment_name;
use crate::{Error, Result};

/// The outcome of a URL that gave a page; every other outcome is a reason of [`super::Progress::errors`].
const PAGE: &str = "page";

/// Returns the columns of a crawl's log.
#[must_use]
pub fn log_schema() -> SchemaRef {
    let field = |name, kind, is_nullable| Field::new(name, kind, is_nullable);
    Arc::new(Schema::new(vec![
        field("time", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        field("url", DataType::Utf8, false),
        // Scheme, name and port.
        field("host", DataType::Utf8, false),
        // `page`, or why it gave none.
        field("outcome", DataType::Utf8, false),
        field("status", DataType::UInt16, true),
        // Bytes of the body of a page.
        field("bytes", DataType::UInt64, false),
        // Links between a seed and the URL, and redirects that led to it.
        field("depth", DataType::UInt32, false),
        field("redirects", DataType::UInt32, false),
        // Requests; 0 for what was never asked for.
        field("tries", DataType::UInt32, false),
        // Milliseconds of the last request, its body included.
        field("request_ms", DataType::UInt64, true),
        // The segment that has the records, and where they end in it.
        field("segment", DataType::Utf8, true),
        field("segment_end", DataType::UInt64, true),
        // SHA-1 of the payload of a page in base 32.
        field("digest", DataType::Utf8, true),
    ]))
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogRow {
    pub(super) time_ms: i64,
    pub(super) url: String,
    pub(super) host: String,
    pub(super) outcome: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) bytes: u64,
    pub(super) depth: u32,
    pub(super) redirects: u32,
    pub(super) tries: u32,
    pub(super) request_ms: Option<u64>,
    pub(super) archived: Option<(u32, u64)>,
    pub(super) digest: Option<String>,
}

/// Returns the files of the log of the crawl into `folder`, in order.
///
/// # Errors
/// When the file system refuses.
pub fn log_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for number in 0.. {
        let path = path(folder, number);
        if !path.try_exists().map_err(Error::io("look at", &path))? {
            break;
        }
        files.push(path);
    }
    Ok(files)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("crawl_log-{number:05}.parquet"))
}

/// Writes file `number` of the log in `folder`, over what a killed process may have left there.
pub(super) fn write(folder: &Path, number: u64, rows: &[LogRow]) -> Result<()> {
    let path = path(folder, number);
    let staged = path.with_extension("parquet.tmp");
    let refuse =
        |why: String| Error::Crawl { what: format!("with the log `{}`", path.display()), why };
    let level = ZstdLevel::try_new(3).map_err(|error| refuse(error.to_string()))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let file = File::create(&staged).map_err(Error::io("create", &staged))?;
    let batch = batch(rows)?;
    let write = || {
        let mut writer = ArrowWriter::try_new(&file, log_schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()
    };
    write().map_err(|error| refuse(error.to_string()))?;
    file.sync_all().map_err(Error::io("sync", &staged))?;
    fs::rename(&staged, &path).map_err(Error::io("rename", &staged))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

fn batch(rows: &[LogRow]) -> Result<RecordBatch> {
    let texts = |of: &dyn Fn(&LogRow) -> Option<String>| -> ArrayRef {
        let mut builder = StringBuilder::new();
        rows.iter().for_each(|row| builder.append_option(of(row)));
        Arc::new(builder.finish())
    };
    let numbers = |of: fn(&LogRow) -> Option<u64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<UInt64Array>())
    };
    let counts = |of: fn(&LogRow) -> u32| -> ArrayRef {
        Arc::new(rows.iter().map(of).map(Some).collect::<UInt32Array>())
    };
    let times = rows.iter().map(|row| Some(row.time_ms)).collect::<TimestampMillisecondArray>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        texts(&|row| Some(row.url.clone())),
        texts(&|row| Some(row.host.clone())),
        texts(&|row| row.outcome.clone().or_else(|| Some(PAGE.to_owned()))),
        Arc::new(rows.iter().map(|row| row.status).collect::<UInt16Array>()),
        numbers(|row| Some(row.bytes)),
        counts(|row| row.depth),
        counts(|row| row.redirects),
        counts(|row| row.tries),
        numbers(|row| row.request_ms),
        texts(&|row| row.archived.map(|(segment, _)| segment_name(segment))),
        numbers(|row| row.archived.map(|(_, end)| end)),
        texts(&|row| row.digest.clone()),
    ];
    Ok(RecordBatch::try_new(log_schema(), columns)?)
}
