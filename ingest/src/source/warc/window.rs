//! The bytes of an archive as a window that moves from record to record, whether the file is compressed or not.
//!
//! A plain file is one segment. In a compressed file a segment begins at a member that begins with a record and goes on
//! over the members behind it that do not: that covers one member per record, all records in one
//! member, and files that were cut into members without regard to records.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use memchr::memmem;

use super::members::{HEAD_BYTES, Inflated, Members};
use super::{Fields, is_record_start, line_end};

/// Bytes read or inflated at a time; holds almost every record whole.
const READ_BYTES: usize = 512 << 10;
/// What the version block of an ARC file begins with.
const ARC_START: &[u8] = b"filedesc:";

pub(super) struct Window {
    input: Input,
    /// The bytes from `start` to `end` are those from the current position on; what is behind them is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `buffer[0]` in the segment.
    base: u64,
    /// Offset of the segment in the file.
    segment: u64,
    /// Whether `buffer` holds the end of the segment.
    is_end: bool,
    is_damaged: bool,
    is_arc: bool,
}

enum Input {
    /// A file and where the archive in it ends.
    Plain(File, u64),
    Compressed(Box<Compressed>),
}

struct Compressed {
    members: Members,
    /// Where the member that is being inflated starts.
    member: u64,
    /// The start of the next segment, when its member is already begun, and how far that went.
    ahead: Option<(u64, Inflated)>,
    head: Vec<u8>,
    is_wanted: fn(&[u8]) -> bool,
    /// Where to look for the next segment when it does not follow at once, and whether bytes between count as a gap.
    search: (u64, bool),
}

/// A place to return to in a plain file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Window {
    /// Opens the archive that lies in `bounds` of `file`, where records of `range` can begin.
    pub(super) fn open(file: File, bounds: &Range<u64>, range: &Range<u64>) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let (input, is_arc) = match Members::open(file, bounds.clone())? {
            Ok(mut members) => {
                if members.begin()?.is_some() {
                    members.head(&mut head)?;
                }
                let is_arc = head.starts_with(ARC_START);
                let is_wanted = if is_arc { starts_with_arc_record } else { starts_with_record };
                let is_first = range.start <= bounds.start;
                let search = (range.start.max(bounds.start), is_first);
                let compressed =
                    Compressed { members, member: 0, ahead: None, head, is_wanted, search };
                (Input::Compressed(Box::new(compressed)), is_arc)
            }
            Err(mut file) => {
                let head_bytes = (bounds.end - bounds.start).min(HEAD_BYTES as u64);
                file.seek(SeekFrom::Start(bounds.start))?;
                (&mut file).take(head_bytes).read_to_end(&mut head)?;
                file.seek(SeekFrom::Start(bounds.start))?;
                (Input::Plain(file, bounds.end), head.starts_with(ARC_START))
            }
        };
        let is_plain = matches!(input, Input::Plain(..));
        Ok(Self {
            input,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            base: if is_plain { bounds.start } else { 0 },
            segment: 0,
            is_end: !is_plain,
            is_damaged: false,
            is_arc,
        })
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.input, Input::Plain(..))
    }

    pub(super) fn is_arc(&self) -> bool {
        self.is_arc
    }

    /// Whether the segment ended because its compressed bytes are damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_end && self.is_damaged
    }

    /// Reason of a reject whose compressed bytes are damaged.
    pub(super) fn damage(&self) -> &'static str {
        match &self.input {
            Input::Plain(..) => unreachable!("plain bytes are not inflated"),
            Input::Compressed(compressed) => compressed.members.damage(),
        }
    }

    /// Returns whether the segment ended damaged, once.
    pub(super) fn take_damage(&mut self) -> bool {
        self.is_end && std::mem::take(&mut self.is_damaged)
    }

    /// The bytes from the current position on, as far as they are read.
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Offset of the current position in the segment; in a plain file that is the offset in the file.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Offset of the segment in the file, and of the position in the segment; a plain file has only the first.
    pub(super) fn place(&self) -> (u64, u64) {
        if self.is_plain() { (self.offset(), 0) } else { (self.segment, self.offset()) }
    }

    /// Returns the bytes from the current position on: at least `wanted`, or all up to the end of the segment.
    pub(super) fn have(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.end - self.start < wanted && !self.is_end {
            self.make_room();
            let room = &mut self.buffer[self.end..];
            match &mut self.input {
                Input::Plain(file, bounds_end) => {
                    let rest = bounds_end.saturating_sub(self.base + self.end as u64);
                    let n = read(&mut file.take(rest), room)?;
                    self.end += n;
                    self.is_end = n == 0;
                }
                Input::Compressed(compressed) => {
                    let (n, outcome) = compressed.members.inflate(room)?;
                    self.end += n;
                    self.end_member(outcome)?;
                }
            }
        }
        Ok(self.data())
    }

    /// Keeps what has not been used, and makes space behind it.
    fn make_room(&mut self) {
        if self.start > 0 && (self.start == self.end || self.start > READ_BYTES / 2) {
            self.buffer.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
    }

    /// Adds `bytes` behind what is there.
    fn append(buffer: &mut Vec<u8>, end: &mut usize, bytes: &[u8]) {
        if buffer.len() - *end < bytes.len() {
            buffer.resize(2 * buffer.len(), 0);
        }
        buffer[*end..*end + bytes.len()].copy_from_slice(bytes);
        *end += bytes.len();
    }

    /// Looks at what follows a member that was inflated as far as it goes: more of the segment, or its end.
    fn end_member(&mut self, outcome: Inflated) -> io::Result<()> {
        let Input::Compressed(compressed) = &mut self.input else {
            unreachable!("only compressed archives have members")
        };
        let mut outcome = outcome;
        loop {
            match outcome {
                Inflated::More => return Ok(()),
                Inflated::Damaged => {
                    self.is_end = true;
                    self.is_damaged = true;
                    compressed.search = (compressed.member + 1, false);
                    return Ok(());
                }
                Inflated::End => {}
            }
            compressed.search = (compressed.members.position(), true);
            let Some(next) = compressed.members.begin()? else {
                self.is_end = true;
                return Ok(());
            };
            outcome = compressed.members.head(&mut compressed.head)?;
            if (compressed.is_wanted)(&compressed.head) {
                compressed.ahead = Some((next, outcome));
                self.is_end = true;
                return Ok(());
            }
            if outcome == Inflated::Damaged {
                // Bytes that only looked like a member.
                self.is_end = true;
                return Ok(());
            }
            compressed.member = next;
            Self::append(&mut self.buffer, &mut self.end, &compressed.head);
        }
    }

    /// Goes to the next segment that begins before `end`. `None` when there is none and nothing to tell; otherwise the
    /// offset of bytes before it (or before the end of the file) that belong to no segment, if there are any.
    pub(super) fn next_segment(&mut self, end: u64) -> io::Result<Option<Option<u64>>> {
        let Input::Compressed(compressed) = &mut self.input else { return Ok(None) };
        let mut gap = None;
        let begun = match compressed.ahead.take() {
            Some(begun) => Some(begun),
            None => {
                let (from, is_gap) = std::mem::replace(&mut compressed.search, (u64::MAX, false));
                if from == u64::MAX {
                    return Ok(None);
                }
                compressed.members.seek(from)?;
                gap = if is_gap { compressed.gap(from)? } else { None };
                compressed.members.seek(from)?;
                compressed.begin_next(end)?
            }
        };
        match begun.filter(|(start, _)| *start < end) {
            Some((start, outcome)) => {
                compressed.member = start;
                (self.start, self.end, self.base, self.segment) = (0, 0, 0, start);
                Self::append(&mut self.buffer, &mut self.end, &compressed.head);
                (self.is_end, self.is_damaged) = (false, false);
                self.end_member(outcome)?;
                Ok(Some(gap))
            }
            None => Ok(gap.map(Some)),
        }
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "advanced past what was read");
    }

    /// Moves on by `bytes` without keeping them; `false` when the segment ends before.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        let mut rest = bytes;
        loop {
            let buffered = (self.end - self.start) as u64;
            if rest <= buffered {
                self.start += usize::try_from(rest).expect("within the buffer");
                return Ok(true);
            }
            if let Input::Plain(_, bounds_end) = &self.input {
                let target = self.base + self.start as u64 + rest;
                if target > *bounds_end {
                    return Ok(false);
                }
                self.rewind(Mark(target))?;
                return Ok(true);
            }
            rest -= buffered;
            self.start = self.end;
            if self.have(1)?.is_empty() {
                return Ok(false);
            }
        }
    }

    /// The place `ahead` bytes behind the current one.
    pub(super) fn mark(&self, ahead: usize) -> Mark {
        Mark(self.offset() + ahead as u64 - 1)
    }

    /// Returns to `mark` in a plain file. Inflated bytes are gone: there the position stays.
    pub(super) fn rewind(&mut self, mark: Mark) -> io::Result<()> {
        if let Input::Plain(file, _) = &mut self.input {
            file.seek(SeekFrom::Start(mark.0))?;
            (self.start, self.end, self.base, self.is_end) = (0, 0, mark.0, false);
        }
        Ok(())
    }

    pub(super) fn skip_newlines(&mut self) -> io::Result<()> {
        loop {
            let data = self.have(1)?;
            let n = data.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if n == 0 {
                return Ok(());
            }
            self.start += n;
        }
    }

    /// Whether a record can end `at` bytes from here: empty lines, the next record or the end follows.
    pub(super) fn is_record_end(&mut self, at: usize) -> io::Result<bool> {
        let is_arc = self.is_arc;
        let after = &self.have(at + 16)?[at..];
        if after.is_empty() || after.starts_with(b"\r\n\r\n") || after.starts_with(b"\n\n") {
            return Ok(true);
        }
        let next = after.trim_ascii_start();
        let has_newline = next.len() < after.len();
        Ok(is_record_start(next) || (has_newline && (is_arc || next.is_empty())))
    }

    /// Moves on to the next line that a record begins with, or to the end of the segment.
    pub(super) fn resync(&mut self) -> io::Result<()> {
        const LINE: &[u8] = b"\nWARC/";
        let finder = memmem::Finder::new(if self.is_arc { b"\n".as_slice() } else { LINE });
        let is_arc = self.is_arc;
        loop {
            // Enough to judge any candidate: a version, or a line of an ARC header.
            let wanted = if is_arc { super::HEADER_BYTES_MAX } else { LINE.len() + 1 };
            let data = self.have(wanted)?;
            let Some(at) = finder.find(data) else {
                let keep = if self.is_end { 0 } else { LINE.len() };
                self.start = self.end.saturating_sub(keep).max(self.start);
                if self.is_end {
                    return Ok(());
                }
                let n = self.end - self.start;
                self.have(n + 1)?;
                continue;
            };
            self.start += at + 1;
            let data = self.have(wanted)?;
            let is_start = if is_arc { is_arc_line(data) } else { is_record_start(data) };
            if is_start {
                return Ok(());
            }
        }
    }
}

impl Compressed {
    /// Finds and begins the next member that starts a segment.
    fn begin_next(&mut self, end: u64) -> io::Result<Option<(u64, Inflated)>> {
        let Some(start) = self.members.find(end, self.is_wanted)? else { return Ok(None) };
        let begun = self.members.begin()?;
        assert_eq!(begun, Some(start), "the member that was found is gone");
        let outcome = self.members.head(&mut self.head)?;
        Ok(Some((start, outcome)))
    }

    /// Returns `from` when bytes that mean something and start no segment lie there: not the padding of a disk block or tape.
    fn gap(&mut self, from: u64) -> io::Result<Option<u64>> {
        let data = self.members.peek(HEAD_BYTES)?;
        if data.iter().all(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Ok(None);
        }
        if self.members.begin()?.is_none() {
            // Frames that are to be skipped mean nothing.
            return Ok((!self.members.peek(1)?.is_empty()).then_some(from));
        }
        let outcome = self.members.head(&mut self.head)?;
        let is_blank = outcome == Inflated::End && self.head.trim_ascii().is_empty();
        Ok((!is_blank && !(self.is_wanted)(&self.head)).then_some(from))
    }
}

/// Reads what is there into `room`, at most all of it.
fn read(input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn starts_with_record(head: &[u8]) -> bool {
    is_record_start(head.trim_ascii_start())
}

fn starts_with_arc_record(head: &[u8]) -> bool {
    let scheme = memchr::memchr(b':', &head[..head.len().min(16)]);
    scheme.is_some_and(|end| end > 0 && head[..end].iter().all(u8::is_ascii_alphanumeric))
}

fn is_arc_line(data: &[u8]) -> bool {
    line_end(data, 0).is_some_and(|end| {
        let mut fields = Fields::default();
        end <= super::HEADER_BYTES_MAX
            && starts_with_arc_record(data)
            && fields.read_arc_line(&data[..end])
            && fields.content_length().is_some()
    })
}
