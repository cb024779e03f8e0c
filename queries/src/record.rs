//! From a document back to its bytes: the record that a source read, as it stood before any step.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::prelude::SessionContext;
use ingest::source::{self, Raw, SourceFile};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::{DatasetKind, REJECT};

use crate::job::SourceConfig;
use crate::output::{Format, Rows};
use crate::{Error, Result, shell};

/// A record as it stands in its file, and as its source reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Name of the source in the job.
    pub source: String,
    /// The file that it lies in.
    pub path: PathBuf,
    /// Where in the file: what leads back to the bytes.
    pub locator: String,
    /// Why it gave no document, if it gave none.
    pub reject: Option<String>,
    /// The text before the first step: HTML as it was served, a line's field, a file.
    pub text: String,
    /// The record's bytes, inflated where the file is compressed; a row of a columnar file as a line of JSON. In JSON they
    /// are `raw`, or `raw_base64` where they are no UTF-8. `None` where a reject does not say how many there are.
    #[serde(flatten, serialize_with = "write_raw")]
    pub raw: Option<Vec<u8>>,
}

fn write_raw<S: Serializer>(raw: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    let (key, value) = match raw.as_deref().map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => ("raw", None),
        Some((_, Ok(text))) => ("raw", Some(text.to_owned())),
        Some((bytes, Err(_))) => ("raw_base64", Some(STANDARD.encode(bytes))),
    };
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, &value)?;
    map.end()
}

#[derive(Deserialize)]
struct Row {
    source: String,
    locator: String,
}

/// Reads the record behind the document or dropped record `id` of `corpus`, whose tables are registered in `ctx`.
///
/// `folder` is where the job's paths begin.
///
/// # Errors
/// When there is no such id, or its file is not there or no longer what it was.
pub async fn read(ctx: &SessionContext, corpus: &Path, folder: &Path, id: &str) -> Result<Record> {
    for kind in [DatasetKind::Documents, DatasetKind::Dropped] {
        let query = format!("select source, locator from {kind} where id = id_of('{id}') limit 1");
        let rows: Vec<Row> = shell::rows(ctx, &query).await?;
        if let Some(row) = rows.into_iter().next() {
            let snapshot = Dataset::at(corpus.join(kind.name())).open(None)?;
            let folder = folder.to_owned();
            let read = move || find(&snapshot, &folder, row);
            return tokio::task::spawn_blocking(read).await.expect("reading does not panic");
        }
    }
    let hint = "ids are those of `documents` and `dropped`".to_owned();
    Err(missing(format!("a document `{id}` in `{}`", corpus.display()), hint))
}

fn missing(what: String, hint: String) -> Error {
    Error::Shard(shard::Error::Missing { what, hint })
}

fn find(snapshot: &Snapshot, folder: &Path, row: Row) -> Result<Record> {
    let Row { source: name, locator } = row;
    let configs: Vec<SourceConfig> =
        serde_json::from_value(snapshot.manifest.config["source"].clone())
            .expect("the job's sources are in the manifest of what was read from them");
    let config = configs
        .into_iter()
        .find(|config| config.name.as_ref().unwrap_or(&config.kind) == &name)
        .unwrap_or_else(|| panic!("`{locator}` is of source `{name}`, which the manifest lacks"));
    let kind = source::kind(&config.kind).ok_or_else(|| {
        missing(
            format!("a source of kind `{}`", config.kind),
            "the corpus was made by another version of Gristmill".to_owned(),
        )
    })?;
    let document_kind = config.document_kind.as_deref().unwrap_or(kind.document_kind);
    let mut reader = (kind.build)(&name, document_kind, &config.config)?;
    let files = source::files(kind, config.path.as_slice(), folder)?;
    reader.prepare(&files)?;
    // A name may have a `#` of its own.
    let place = |file: &SourceFile| match locator.strip_prefix(&file.name)? {
        "" => Some(None),
        rest => rest.strip_prefix('#').map(Some),
    };
    let found = files.into_iter().find_map(|file| Some((place(&file)?, file)));
    let (place, file) = found.ok_or_else(|| {
        missing(
            format!("the file of `{locator}` below `{}`", folder.display()),
            "name the job file with `--job`: its paths begin in its folder".to_owned(),
        )
    })?;
    let was =
        snapshot.manifest.sources.iter().find(|read| read.source == name && read.file == file.name);
    // A repository changes its size when it packs its objects.
    let is_other =
        |was: &&shard::manifest::SourceRead| was.bytes != file.bytes && !file.path.is_dir();
    if let Some(was) = was.filter(is_other) {
        return Err(Error::Shard(shard::Error::Missing {
            what: format!(
                "the file that was read: `{}` has {} bytes, it had {}",
                file.path.display(),
                file.bytes,
                was.bytes
            ),
            hint: "run the job again, or bring the file back".to_owned(),
        }));
    }
    let local = file.fetched()?;
    let range = place.and_then(|place| reader.range_of(&local, place));
    for batch in reader.open(&local, range)? {
        if let Some(found) = Found::in_batch(&batch?, &locator) {
            let Found { text, reject, bytes } = found;
            let raw = reader.raw(&local, place, bytes)?.map(bytes_of).transpose()?;
            return Ok(Record { source: name, path: file.path, locator, reject, text, raw });
        }
    }
    let SourceFile { path, .. } = file;
    Err(missing(
        format!("record `{locator}` in `{}`", path.display()),
        "the file has changed since it was read: run the job again".to_owned(),
    ))
}

/// The bytes of a record, a row as a line of JSON.
fn bytes_of(raw: Raw) -> Result<Vec<u8>> {
    let batch = match raw {
        Raw::Bytes(bytes) => return Ok(bytes),
        Raw::Row(batch) => batch,
    };
    let mut line = Vec::new();
    let mut rows = Rows::new(Format::Ndjson, None, &batch.schema());
    rows.write(&batch, &mut line)?;
    rows.finish(&mut line)?;
    Ok(line)
}

/// The row of a record.
struct Found {
    text: String,
    reject: Option<String>,
    /// Bytes of the record, as far as the source says.
    bytes: u64,
}

impl Found {
    /// Returns the row with this locator.
    fn in_batch(batch: &RecordBatch, locator: &str) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name).expect("sources give these columns");
        let text = |name: &str| column(name).as_string_view();
        let row = text("locator").iter().position(|found| found == Some(locator))?;
        let reject = text(REJECT);
        let reject = reject.is_valid(row).then(|| reject.value(row).to_owned());
        let bytes = column("bytes_raw").as_primitive::<UInt64Type>().value(row);
        Some(Self { text: text("text").value(row).to_owned(), reject, bytes })
    }
}
