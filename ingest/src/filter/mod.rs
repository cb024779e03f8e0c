//! Steps that keep or drop documents: one file per filter.
//!
//! A filter is a pure function of a batch: a [`Verdicts`] with a reason per dropped row and the signals it measured.
//! The same function serves a job's `[[step]]` and SQL, where `name(text)` returns a struct of `reason` and the signals.

mod bad_words;
pub(crate) mod c4;
mod c4_paragraphs;
mod classifier;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod language;
mod length;
mod madlad400;
mod perplexity;
mod redpajama_signals;
mod starcoder_code;
pub mod toxicity;
mod url_blocklist;

mod analysis;
pub(crate) mod config;
mod n_grams;
pub(crate) mod words;

pub use analysis::Analysis;

/// Returns the words of an English text as spaCy's rule tokenizer finds them, white space left out.
#[must_use]
pub fn english_words(text: &str) -> Vec<&str> {
    words::of(text).into_iter().map(|word| &text[word.range()]).collect()
}

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, StringArray, StringViewArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::{Error, Result};

/// What a filter says of a batch, row by row.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// Null keeps the row, a `snake_case` reason drops it.
    pub reasons: StringArray,
    /// One array per entry of [`FilterKind::signals`], in that order, one value per row.
    pub signals: Vec<ArrayRef>,
}

/// Judges batches of documents.
pub trait Filter: fmt::Debug + Send + Sync {
    /// Returns a verdict per row of `documents`, which has at least the column `text` (`Utf8View`, not null).
    ///
    /// Depends on nothing but the row and the configuration: neither on the batch's size nor on earlier batches.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts>;

    /// Returns what [`judge`](Self::judge) does, taking from `analysis` what an earlier filter of the chain has computed.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    fn judge_with(&self, documents: &RecordBatch, _analysis: &mut Analysis) -> Result<Verdicts> {
        self.judge(documents)
    }
}

/// A number or label that a filter measures.
#[derive(Clone, Debug)]
pub struct Signal {
    /// Its name in SQL and in `dropped.values`. A signal called like a column of `documents` fills that column where it is null.
    pub name: &'static str,
    /// `Float64`, `UInt64`, `Boolean` or `Utf8`.
    pub data_type: DataType,
    /// What it is, with its unit.
    pub summary: &'static str,
}

/// What is registered of a filter.
#[derive(Clone, Copy, Debug)]
pub struct FilterKind {
    /// `use` in a job's `[[step]]` and name of the SQL function.
    pub name: &'static str,
    /// What it drops, in one line.
    pub summary: &'static str,
    /// Paper or implementation that it follows.
    pub source: &'static str,
    /// What it measures.
    pub signals: &'static [Signal],
    /// Every reason it can give.
    pub reasons: &'static [&'static str],
    /// The keys that name a file.
    pub files: &'static [FileKey],
    /// The keys it takes in a job with their default values, as TOML.
    pub default_config: fn() -> toml::Table,
    /// Builds it from the keys that the job sets.
    pub build: fn(config: &toml::Table) -> Result<Box<dyn Filter>>,
}

/// A key of a filter that names a file.
#[derive(Clone, Copy, Debug)]
pub struct FileKey {
    /// The key.
    pub key: &'static str,
    /// Its value, the default, that names none.
    pub none: &'static str,
}

/// Every filter, sorted by name. Adding one is a file here and a line in this list.
pub const KINDS: &[FilterKind] = &[
    bad_words::KIND,
    c4::KIND,
    c4_paragraphs::KIND,
    classifier::KIND,
    fineweb_quality::KIND,
    gopher_quality::KIND,
    gopher_repetition::KIND,
    language::KIND,
    length::KIND,
    madlad400::KIND,
    perplexity::KIND,
    redpajama_signals::KIND,
    starcoder_code::KIND,
    toxicity::KIND,
    url_blocklist::KIND,
];

/// Returns the filter called `name`.
#[must_use]
pub fn kind(name: &str) -> Option<&'static FilterKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Returns `config` of the filter `name` with its paths as `resolve` says they are, and these paths.
///
/// Paths of a job begin at its folder; what a filter does depends on the content of these files too.
#[must_use]
pub fn resolve_files(
    name: &str,
    config: &toml::Table,
    resolve: impl Fn(&str) -> PathBuf,
) -> (toml::Table, Vec<PathBuf>) {
    let mut config = config.clone();
    let mut paths = Vec::new();
    for file in kind(name).map_or(&[][..], |kind| kind.files) {
        if let Some(toml::Value::String(value)) = config.get_mut(file.key)
            && value != file.none
        {
            let path = resolve(value);
            *value = path.to_string_lossy().into_owned();
            paths.push(path);
        }
    }
    (config, paths)
}

/// Returns the column that every filter and modifier reads.
pub(crate) fn text_column(documents: &RecordBatch) -> Result<&StringViewArray> {
    let wrong = |why: String| Error::Column { name: "text".to_owned(), why };
    let column = documents.column_by_name("text").ok_or_else(|| wrong("is missing".to_owned()))?;
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| wrong(format!("is `{}`, wanted `Utf8View`", column.data_type())))
}

/// Returns the lines of `text` as Python's `str.splitlines` does: none behind the last line end.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    line_ranges(text).map(|range| &text[range])
}

/// Returns where the [`lines`] of `text` lie.
pub(crate) fn line_ranges(text: &str) -> impl Iterator<Item = Range<usize>> {
    // All of U+0085, U+2028 and U+2029 begin with one of these bytes, and few other characters do.
    let is_end = |byte: &u8| matches!(byte, b'\n'..=b'\r' | 0x1c..=0x1e | 0xc2 | 0xe2);
    let bytes = text.as_bytes();
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == bytes.len() {
            return None;
        }
        let mut at = start;
        while let Some(found) = bytes[at..].iter().position(is_end) {
            at += found;
            let end_bytes = match &bytes[at..] {
                [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => 2,
                [0xe2, 0x80, 0xa8 | 0xa9, ..] => 3,
                [0xc2 | 0xe2, ..] => 0,
                _ => 1,
            };
            if end_bytes > 0 {
                let line = start..at;
                start = at + end_bytes;
                return Some(line);
            }
            at += 1;
        }
        let line = start..bytes.len();
        start = bytes.len();
        Some(line)
    })
}

/// Characters of `text`.
fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Returns the number of `parts`, how many stood before, and the characters of those.
fn find_duplicates<'a>(parts: impl Iterator<Item = &'a str>) -> (u64, u64, u64) {
    let mut seen = HashSet::new();
    let (mut n, mut copies, mut copied) = (0, 0, 0);
    for part in parts {
        n += 1;
        if !seen.insert(part) {
            copies += 1;
            copied += chars(part);
        }
    }
    (n, copies, copied)
}

/// Splits at runs of at least `n` line feeds, as `re.split(r"\n{n,}")` does.
fn split_at_feeds(text: &str, n: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &text.as_bytes()[from..]) {
            let at = from + found;
            let feeds = text.as_bytes()[at..].iter().take_while(|&&byte| byte == b'\n').count();
            if feeds >= n {
                rest = Some(&text[at + feeds..]);
                return Some(&text[..at]);
            }
            from = at + feeds;
        }
        rest = None;
        Some(text)
    })
}

/// Returns `part / whole`, nothing where there is nothing to divide by.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts of one text are below 2^53")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
pub(crate) mod tests;
