//! Where documents come from: one file per kind of source.
//!
//! A source opens a file, or a byte range of one, and streams batches of [`shard::schema::source_schema`].
//! It knows nothing of the engine; the engine wraps every kind in the same `FileSource`.

mod array;
mod arrow;
mod batch;
#[cfg(test)]
mod bombs;
mod charset;
mod chat;
mod code;
mod compressed;
mod csv;
mod date;
mod epub;
mod files;
mod git;
pub(crate) mod inflate;
mod input;
mod irc;
mod jats;
mod jsonl;
mod latex;
mod lines;
mod markup;
mod mbox;
mod mediawiki;
mod paper;
mod parquet;
mod pdf;
mod prose;
mod raw;
mod reddit;
mod s2orc;
mod sevenz;
mod stackexchange;
mod tar;
mod tei;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod warc;
mod xml;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use ::arrow::record_batch::RecordBatch;

use crate::Result;
use crate::filter::config;

pub use files::files;
pub use pdf::pdf_worker;
pub use raw::Raw;

/// Rows of a batch, at most; a batch also ends at [`BATCH_BYTES_MAX`] of text.
pub const BATCH_ROWS_MAX: usize = 1024;
/// Bytes of text in a batch after which it is handed on.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// A file as a job names it and as this machine finds it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// Where to open it.
    pub path: PathBuf,
    /// How locators name it: relative to the job, with `/`, so that ids do not depend on the machine.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl SourceFile {
    /// The file where it can be opened: one of a store has a local copy, which is fetched unless it is there.
    ///
    /// # Errors
    /// When the store or the file system refuses.
    pub fn fetched(&self) -> shard::Result<Self> {
        Ok(Self { path: shard::store::local_copy(&self.path)?, ..self.clone() })
    }
}

/// A stream of batches of [`shard::schema::source_schema`], in file order.
///
/// Bad records are rows whose `reject` is set; an `Err` ends the stream and is about the whole file.
pub type DocumentStream = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Reads files of one format as documents.
pub trait Source: fmt::Debug + Send + Sync {
    /// Returns whether [`Source::open`] honours a byte range of a file called `name`.
    fn is_splittable(&self, name: &str) -> bool;

    /// Learns of all files of the source, before the first of them is opened; most sources read each for itself.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn prepare(&mut self, files: &[SourceFile]) -> Result<()> {
        let _ = files;
        Ok(())
    }

    /// Returns what decides the content of `file`, where that is not its bytes: a folder has none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn content_id(&self, file: &SourceFile) -> Result<Option<String>> {
        let _ = file;
        Ok(None)
    }

    /// Opens the records that begin in `range` of `file` (bytes as stored), the whole file without one.
    ///
    /// Ranges that tile a file give each of its records exactly once, in order.
    ///
    /// # Errors
    /// When the file cannot be opened or is of another format.
    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream>;

    /// Returns a range for [`Source::open`] in which the record at `place` begins: what its locator has behind the `#`.
    ///
    /// `None` when it is found by going through the file.
    fn range_of(&self, file: &SourceFile, place: &str) -> Option<Range<u64>> {
        let at = place.split(['+', '/']).next()?.parse().ok()?;
        self.is_splittable(&file.name).then_some(at..at + 1)
    }

    /// Returns the record at `place` (without one, the whole file) as it stands in `file`, which has not changed since.
    ///
    /// `bytes` is the row's `bytes_raw`. `None` for a reject whose bytes are not known.
    ///
    /// # Errors
    /// When the file cannot be read, or the record has more bytes than memory should hold.
    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        raw::inflated(file, place, bytes)
    }
}

/// What is registered of a kind of source.
#[derive(Clone, Copy, Debug)]
pub struct SourceKind {
    /// `kind` in a job's `[[source]]` and name of the SQL table function.
    pub name: &'static str,
    /// What it reads, in one line.
    pub summary: &'static str,
    /// The format's specification.
    pub source: &'static str,
    /// `documents.kind` of its rows unless the job says otherwise.
    pub document_kind: &'static str,
    /// Patterns that a folder named as `path` is searched for.
    pub patterns: &'static [&'static str],
    /// The keys it takes in a job with their default values, as TOML.
    pub default_config: fn() -> toml::Table,
    /// Builds it for the source called `name` in the job, whose documents are of `document_kind`.
    pub build: fn(name: &str, document_kind: &str, config: &toml::Table) -> Result<Box<dyn Source>>,
}

/// Every kind of source, sorted by name. Adding one is a file here and a line in this list.
pub const KINDS: &[SourceKind] = &[
    arrow::KIND,
    chat::KIND,
    code::KIND,
    csv::KIND,
    epub::KIND,
    git::KIND,
    irc::KIND,
    jats::KIND,
    jsonl::KIND,
    latex::KIND,
    mbox::KIND,
    mediawiki::KIND,
    parquet::KIND,
    pdf::KIND,
    reddit::KIND,
    s2orc::KIND,
    stackexchange::KIND,
    tei::KIND,
    text::KIND,
    warc::KIND,
];

/// Says whether whoever has `range` reads a file that cannot be split: the one who has its first byte.
fn has_first_byte(range: Option<&Range<u64>>) -> bool {
    range.is_none_or(|range| range.start == 0 && !range.is_empty())
}

/// What whoever has `range` reads of a file that cannot be split: all of it, or nothing.
fn whole_or_none(range: Option<&Range<u64>>) -> Range<u64> {
    0..if has_first_byte(range) { u64::MAX } else { 0 }
}

/// Returns the kind called `name`.
#[must_use]
pub fn kind(name: &str) -> Option<&'static SourceKind> {
    KINDS.iter().find(|kind| kind.name == name)
}
