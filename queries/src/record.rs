//! From a document back to its bytes: the record that a source read, as it stood before any step.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use ingest::source::{self, SourceFile};
use serde::{Deserialize, Serialize};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::{DatasetKind, REJECT};

use crate::job::SourceConfig;
use crate::{Error, Result, shell};

/// A record as its source reads it.
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
    let offset = place.and_then(|place| place.parse::<u64>().ok());
    let was =
        snapshot.manifest.sources.iter().find(|read| read.source == name && read.file == file.name);
    // A repository changes its size when it packs its objects.
    let is_other =
        |was: &&shard::manifest::SourceRead| was.bytes != file.bytes && file.path.is_file();
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
    // A record that begins at an offset is found there; others by going through the file.
    let range = offset.filter(|_| reader.is_splittable(&file.name)).map(|at| at..at + 1);
    for batch in reader.open(&file, range)? {
        if let Some((text, reject)) = text_of(&batch?, &locator) {
            return Ok(Record { source: name, path: file.path, locator, reject, text });
        }
    }
    let SourceFile { path, .. } = file;
    Err(missing(
        format!("record `{locator}` in `{}`", path.display()),
        "the file has changed since it was read: run the job again".to_owned(),
    ))
}

/// Returns text and reject of the row with this locator.
fn text_of(batch: &RecordBatch, locator: &str) -> Option<(String, Option<String>)> {
    let column = |name: &str| {
        batch.column_by_name(name).expect("sources give these columns").as_string_view()
    };
    let row = column("locator").iter().position(|found| found == Some(locator))?;
    let reject = column(REJECT);
    let reject = reject.is_valid(row).then(|| reject.value(row).to_owned());
    Some((column("text").value(row).to_owned(), reject))
}
