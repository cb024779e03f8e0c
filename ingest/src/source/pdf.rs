//! PDF: the text layer of a file, in reading order, as paragraphs.
//!
//! PDFium reads the file in a process of its own, so that a file that crashes it, hangs, or takes all memory is a row
//! with a reason. Lines come back with their places; [`layout`] makes text of them.

mod layout;
mod worker;

use std::fs::File;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config, date, raw};
use crate::{Error, Result};

pub use worker::serve as pdf_worker;
use worker::{Answer, Pool, Request};

pub(super) const KIND: SourceKind = SourceKind {
    name: "pdf",
    summary: "PDF files with a text layer, one document each: columns in order, words and paragraphs joined over lines, running heads left out",
    source: "ISO 32000-2, read by PDFium",
    document_kind: "paper",
    patterns: &["*.pdf"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        let config: Config = config::from_table("pdf", table)?;
        let workers = Pool::new(&config.library);
        Ok(Box::new(Pdf { name: name.to_owned(), kind: kind.to_owned(), config, workers }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Bytes of a file, at most.
    file_bytes_max: u64,
    /// Where PDFium lies (`libpdfium.so`); empty: what `GRISTMILL_PDFIUM` names, else beside the program, else the system's.
    library: String,
    /// Bytes of memory that a file may take to read, at most.
    memory_max: u64,
    /// Pages of a file that are read, at most.
    pages_max: u32,
    /// Seconds that a file may take to read, at most.
    seconds_max: u64,
    /// Whether heads and feet that pages have in common, and page numbers, are kept.
    keep_running_heads: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file_bytes_max: 256 << 20,
            library: String::new(),
            memory_max: 1 << 30,
            pages_max: 5000,
            seconds_max: 60,
            keep_running_heads: false,
        }
    }
}

#[derive(Clone, Debug)]
struct Pdf {
    name: String,
    kind: String,
    config: Config,
    workers: Pool,
}

impl Source for Pdf {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let is_mine = super::has_first_byte(range.as_ref());
        let document = Document {
            file: is_mine.then(|| file.clone()),
            config: self.config.clone(),
            workers: self.workers.clone(),
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), document))
    }

    fn raw(&self, file: &SourceFile, _place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        raw::stored(file).map(Some)
    }
}

struct Document {
    /// `None` once it was read.
    file: Option<SourceFile>,
    config: Config,
    workers: Pool,
}

impl Rows for Document {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(file) = self.file.take() else { return Ok(false) };
        let record = Record { locator: &file.name, bytes_raw: file.bytes, ..Record::default() };
        if file.bytes > self.config.file_bytes_max {
            rows.reject(&record, "too_large");
            return Ok(true);
        }
        let request = Request {
            path: file.path.clone(),
            pages_max: self.config.pages_max,
            seconds_max: self.config.seconds_max,
            memory_max: self.config.memory_max,
        };
        let (pages, about) = match self.workers.ask(&request)? {
            Answer::Refused(reason) => {
                rows.reject(&record, &reason);
                return Ok(true);
            }
            Answer::Pages(pages, about) => (pages, about),
        };
        let text = layout::text(&pages, self.config.keep_running_heads);
        let n_pages = about.pages.to_string();
        let mut metadata = vec![("pages", n_pages.as_str())];
        let known =
            [("title", &about.title), ("author", &about.author), ("producer", &about.producer)];
        metadata
            .extend(known.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))));
        let date = about.date.as_deref().and_then(pdf_date).and_then(|date| date::parse(&date));
        let record = Record { date, metadata: &metadata, ..record };
        if text.trim().is_empty() {
            // A scan has pictures of text.
            rows.reject(&record, "no_text");
        } else {
            rows.push(&record, &text);
        }
        Ok(true)
    }
}

/// Reads `D:20240506070809+02'00'` as a day.
fn pdf_date(text: &str) -> Option<String> {
    let digits = text.strip_prefix("D:").unwrap_or(text);
    let day = digits.get(..8).filter(|day| day.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]))
}

#[cfg(test)]
mod tests;
