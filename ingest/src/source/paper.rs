//! Papers in XML: a record of a file is a paper.

use std::fs::File;
use std::io::BufRead;
use std::ops::Range;

use super::batch::{self, BatchBuilder, Record, Rows};
use super::xml::{self, Records, Tree};
use super::{DocumentStream, Raw, SourceFile, date, raw};
use crate::{Error, Result};

/// A paper as its format describes it.
#[derive(Debug, Default)]
pub(super) struct Paper {
    pub(super) text: String,
    pub(super) url: Option<String>,
    /// As ISO 8601.
    pub(super) date: Option<String>,
    pub(super) language: Option<String>,
    pub(super) license: Option<String>,
    pub(super) metadata: Vec<(&'static str, String)>,
}

impl Paper {
    /// Adds `value` under `key` unless it is empty.
    pub(super) fn describe(&mut self, key: &'static str, value: Option<String>) {
        self.metadata.extend(value.filter(|value| !value.is_empty()).map(|value| (key, value)));
    }

    /// Adds the paper to `rows`; one without text is a reject.
    pub(super) fn push(&self, record: Record<'_>, rows: &mut BatchBuilder) {
        let metadata: Vec<(&str, &str)> =
            self.metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let record = Record {
            url: self.url.as_deref(),
            date: self.date.as_deref().and_then(date::parse),
            language: self.language.as_deref(),
            license: self.license.as_deref(),
            metadata: &metadata,
            ..record
        };
        if self.text.is_empty() {
            rows.reject(&record, "no_text");
        } else {
            rows.push(&record, &self.text);
        }
    }
}

/// A format of papers in XML.
pub(super) trait Format: Send + 'static {
    /// Whether an element called `name` is a paper.
    fn is_paper(&self, name: &str) -> bool;

    /// Reads a paper; `Err` with the reason when it is none.
    fn read(&self, tree: &Tree) -> Result<Paper, &'static str>;
}

/// Opens the papers of `file`, each of `record_bytes_max` bytes at most, in the whole by the range with its first byte.
pub(super) fn open(
    rows: BatchBuilder,
    format: impl Format,
    file: &SourceFile,
    range: Option<Range<u64>>,
    record_bytes_max: u64,
) -> Result<DocumentStream> {
    let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
    let opened = xml::open(handle, record_bytes_max).map_err(Error::io("read", &file.path))?;
    let is_mine = super::has_first_byte(range.as_ref());
    let papers = Papers {
        file: file.clone(),
        format,
        records: is_mine.then(|| Records::new(opened.input, record_bytes_max)),
        damage: opened.damage,
        n_papers: 0,
    };
    Ok(batch::stream(rows, papers))
}

/// Returns the element at `place` of `file`, in UTF-8 where the file is in another encoding; without a place all of it.
pub(super) fn raw(
    file: &SourceFile,
    place: Option<&str>,
    bytes: u64,
    record_bytes_max: u64,
) -> Result<Option<Raw>> {
    let Some(place) = place else { return raw::inflated(file, None, bytes) };
    let Some(start) = place.parse().ok().filter(|_| bytes > 0) else { return Ok(None) };
    let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
    let opened = xml::open(handle, record_bytes_max).map_err(Error::io("read", &file.path))?;
    raw::take(opened.input, file, start, bytes).map(|bytes| Some(Raw::Bytes(bytes)))
}

struct Papers<F> {
    file: SourceFile,
    format: F,
    records: Option<Records<Box<dyn BufRead + Send>>>,
    damage: Option<&'static str>,
    n_papers: usize,
}

impl<F: Format> Rows for Papers<F> {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(records) = &mut self.records else { return Ok(false) };
        let found = match records.next(|name| self.format.is_paper(name)) {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.records = None;
                if self.n_papers == 0 {
                    let record = Record {
                        locator: &self.file.name,
                        bytes_raw: self.file.bytes,
                        ..Record::default()
                    };
                    rows.reject(&record, "no_paper");
                }
                return Ok(true);
            }
            Err(reason) => {
                let reason = match (reason, self.damage) {
                    (xml::UNREADABLE, Some(damage)) => damage,
                    (reason, _) => reason,
                };
                let locator = format!("{}#{}", self.file.name, records.position());
                rows.reject(&Record { locator: &locator, ..Record::default() }, reason);
                self.records = None;
                return Ok(true);
            }
        };
        self.n_papers += 1;
        let locator = format!("{}#{}", self.file.name, found.bytes.start);
        let bytes_raw = found.bytes.end - found.bytes.start;
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        match self.format.read(&found.tree) {
            Ok(paper) => paper.push(record, rows),
            Err(reason) => rows.reject(&record, reason),
        }
        Ok(true)
    }
}

/// Returns a date as ISO 8601 from its parts; a month may be a number or an English name.
pub(super) fn iso_date(year: &str, month: Option<&str>, day: Option<&str>) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let year: u16 = year.trim().parse().ok()?;
    let month = month.and_then(|month| {
        let month = month.trim().to_ascii_lowercase();
        let by_name = MONTHS.iter().position(|name| month.starts_with(name)).map(|at| at + 1);
        by_name.or_else(|| month.parse().ok().filter(|number| (1..=12).contains(number)))
    });
    let day: Option<u8> = day.and_then(|day| day.trim().parse().ok());
    Some(match (month, day) {
        (Some(month), Some(day)) => format!("{year:04}-{month:02}-{day:02}"),
        (Some(month), None) => format!("{year:04}-{month:02}"),
        (None, _) => format!("{year:04}"),
    })
}

#[cfg(test)]
mod tests {
    use super::iso_date;

    #[test]
    fn reads_months_by_number_and_by_name() {
        let check = |month, day, expected: &str| {
            assert_eq!(iso_date("2018", month, day).as_deref(), Some(expected));
        };
        check(Some("5"), Some("7"), "2018-05-07");
        check(Some("May"), None, "2018-05");
        check(Some("spring"), Some("7"), "2018");
        assert_eq!(iso_date("in press", None, None), None);
    }
}
