//! Lines of a file, inflated if need be, with their offsets.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::SourceFile;
use super::batch::{BatchBuilder, Record};
use super::compressed::WINDOW_LOG_MAX;
use super::input::{Filled, Input};
use crate::{Error, Result};

/// Lines that begin in a range of a plain file; of another file all, in the range that has its first byte.
pub(super) struct Lines {
    input: Input,
    end: u64,
    damage: Option<&'static str>,
}

/// What came of reading a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole,
    TooLong,
    /// The rest of the file cannot be inflated; the reason as a reject has it.
    Damaged(&'static str),
    End,
}

impl Lines {
    pub(super) fn open(file: File, range: &Range<u64>) -> io::Result<Self> {
        Self::of(Input::open(file, &(0..u64::MAX))?, range)
    }

    fn of(mut input: Input, range: &Range<u64>) -> io::Result<Self> {
        if !input.is_plain() {
            return Ok(Self { input, end: super::whole_or_none(Some(range)).end, damage: None });
        }
        if range.start > 0 && !range.is_empty() {
            // A line belongs to the range that it begins in: what precedes the first line feed is another's.
            input.seek_plain(range.start - 1)?;
            skip_line(&mut input)?;
        }
        Ok(Self { input, end: if range.is_empty() { 0 } else { range.end }, damage: None })
    }

    /// Whether the bytes are those of the file.
    pub(super) fn is_plain(&self) -> bool {
        self.input.is_plain()
    }

    /// Bytes before the next line: in the file, or in what was inflated.
    pub(super) fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Reads the next line into `line`, without its line feed, at most `limit` bytes.
    pub(super) fn read(&mut self, line: &mut Vec<u8>, limit: usize) -> io::Result<Line> {
        line.clear();
        if let Some(reason) = self.damage.take() {
            self.end = 0;
            return Ok(Line::Damaged(reason));
        }
        let start = self.offset();
        if start >= self.end {
            return Ok(Line::End);
        }
        loop {
            match self.input.fill()? {
                Filled::Bytes => {}
                Filled::End if self.offset() == start => return Ok(Line::End),
                Filled::End => return Ok(Line::Whole),
                Filled::Damaged(reason) => {
                    self.end = 0;
                    return Ok(Line::Damaged(reason));
                }
            }
            let data = self.input.buffer();
            let found = memchr::memchr(b'\n', data);
            let n = found.unwrap_or(data.len());
            if line.len() + n > limit {
                // Damage on the way is told with the next line.
                self.damage = skip_line(&mut self.input)?;
                return Ok(Line::TooLong);
            }
            line.extend_from_slice(&data[..n]);
            self.input.consume(n + usize::from(found.is_some()));
            if found.is_some() {
                return Ok(Line::Whole);
            }
        }
    }
}

/// A file with a record per line.
pub(super) struct LineRecords {
    file: SourceFile,
    lines: Lines,
    line: Vec<u8>,
    line_bytes_max: usize,
}

impl LineRecords {
    pub(super) fn open(
        file: &SourceFile,
        range: Option<Range<u64>>,
        line_bytes_max: usize,
    ) -> Result<Self> {
        Self::open_long(file, range, line_bytes_max, WINDOW_LOG_MAX)
    }

    /// The same with Zstandard windows of `1 << window_log_max` bytes, at most.
    pub(super) fn open_long(
        file: &SourceFile,
        range: Option<Range<u64>>,
        line_bytes_max: usize,
        window_log_max: u32,
    ) -> Result<Self> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let range = range.unwrap_or(0..u64::MAX);
        let lines = Input::open_long(handle, &(0..u64::MAX), window_log_max)
            .and_then(|input| Lines::of(input, &range))
            .map_err(Error::io("read", &file.path))?;
        Ok(Self { file: file.clone(), lines, line: Vec::new(), line_bytes_max })
    }

    /// Reads the next line and hands it to `push` with its offset and the record of where it lies; `false` at the end.
    pub(super) fn read(
        &mut self,
        rows: &mut BatchBuilder,
        push: impl FnOnce(&[u8], u64, &Record<'_>, &mut BatchBuilder),
    ) -> Result<bool> {
        let offset = self.lines.offset();
        let read = self.lines.read(&mut self.line, self.line_bytes_max);
        let read = read.map_err(Error::io("read", &self.file.path))?;
        let locator = format!("{}#{offset}", self.file.name);
        let bytes_raw = self.lines.offset() - offset;
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        match read {
            Line::End => return Ok(false),
            Line::TooLong => rows.reject(&record, "line_too_long"),
            Line::Damaged(reason) => rows.reject(&record, reason),
            Line::Whole => push(&self.line, offset, &record, rows),
        }
        Ok(true)
    }
}

/// Reads on until after a line feed; returns the damage that ended it instead.
fn skip_line(input: &mut Input) -> io::Result<Option<&'static str>> {
    loop {
        match input.fill()? {
            Filled::Bytes => {}
            Filled::End => return Ok(None),
            Filled::Damaged(reason) => return Ok(Some(reason)),
        }
        let data = input.buffer();
        let found = memchr::memchr(b'\n', data);
        let n = found.map_or(data.len(), |at| at + 1);
        input.consume(n);
        if found.is_some() {
            return Ok(None);
        }
    }
}
