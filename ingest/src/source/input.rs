//! A file as a stream of bytes, inflated if need be, that knows where it is: plain, gzip, Zstandard, bzip2, 7z.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use bzip2::{Decompress, Status};

use super::compressed::{self, READ_BYTES};
use super::sevenz;

/// Where a byte is: in the file, or in what was inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the bzip2 stream begins in the file; 0 of other files.
    pub(super) stream: u64,
    /// Bytes before it in the plain file, in what gzip, Zstandard or 7z inflated, or in its bzip2 stream.
    pub(super) offset: u64,
    has_streams: bool,
}

/// `offset`, or `stream+offset` in a bzip2 file.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_streams {
            write!(f, "{}+", self.stream)?;
        }
        write!(f, "{}", self.offset)
    }
}

impl Place {
    /// Bytes of [`Self::to_bytes`].
    pub(super) const BYTES: usize = 17;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16] = u8::from(self.has_streams);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        assert_eq!(bytes.len(), Self::BYTES, "bytes of a place");
        Self {
            stream: number(&bytes[..8]),
            offset: number(&bytes[8..16]),
            has_streams: bytes[16] == 1,
        }
    }

    /// The place `bytes` later in the same stream.
    pub(super) fn after(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes as u64, ..self }
    }
}

/// What came of [`Input::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// The buffer has bytes.
    Bytes,
    End,
    /// The file cannot be inflated further, or not until the next bzip2 stream; the reason as a reject has it.
    Damaged(&'static str),
}

/// Bytes of a file, from the beginning of a range to the end of the file.
pub(super) struct Input {
    inner: Inner,
    offset: u64,
    /// Where the range ends; in the file, so it says nothing of gzip, Zstandard and 7z.
    end: u64,
    is_over: bool,
}

enum Inner {
    Plain(BufReader<File>),
    Inflated { input: Box<dyn BufRead + Send>, damage: &'static str, is_damaged: bool },
    Bzip2(Box<Bzip2>),
}

impl Input {
    /// Opens `file` at the beginning of `range`.
    ///
    /// A gzip, Zstandard or 7z file is all in the range that holds its first byte, a bzip2 stream in the one it begins in.
    pub(super) fn open(file: File, range: &Range<u64>) -> io::Result<Self> {
        Self::open_long(file, range, compressed::WINDOW_LOG_MAX)
    }

    /// The same with Zstandard windows of `1 << window_log_max` bytes, at most.
    pub(super) fn open_long(
        mut file: File,
        range: &Range<u64>,
        window_log_max: u32,
    ) -> io::Result<Self> {
        let mut head = Vec::with_capacity(sevenz::MAGIC.len());
        (&mut file).take(sevenz::MAGIC.len() as u64).read_to_end(&mut head)?;
        let is_bzip2 = Bzip2::is_start(&head);
        let is_sevenz = head == sevenz::MAGIC;
        let is_inflated = is_sevenz || compressed::is_compressed(&head);
        // Whoever has the first byte of an inflated file reads all of it.
        let is_mine = !range.is_empty() && (!is_inflated || range.start == 0);
        let end = if is_inflated { u64::MAX } else { range.end };
        let start = if is_inflated { 0 } else { range.start };
        file.seek(SeekFrom::Start(start))?;
        let inner = if is_sevenz {
            Inner::Inflated { input: sevenz::open(file)?, damage: "bad_7z", is_damaged: false }
        } else if is_inflated {
            let opened = compressed::open_long(file, window_log_max)?;
            let Some(damage) = opened.damage else {
                return Err(io::Error::other("the file changed while it was opened"));
            };
            Inner::Inflated { input: opened.input, damage, is_damaged: false }
        } else {
            let input = BufReader::with_capacity(READ_BYTES, file);
            match is_bzip2 {
                true => Inner::Bzip2(Box::new(Bzip2::new(input, start))),
                false => Inner::Plain(input),
            }
        };
        Ok(Self { inner, offset: start, end, is_over: !is_mine })
    }

    /// Whether the bytes are those of the file.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.inner, Inner::Plain(_))
    }

    /// Goes on at `offset` of a plain file.
    pub(super) fn seek_plain(&mut self, offset: u64) -> io::Result<()> {
        if let Inner::Plain(input) = &mut self.inner {
            input.seek(SeekFrom::Start(offset))?;
            self.offset = offset;
        }
        Ok(())
    }

    /// Makes sure that the buffer has bytes, unless the file ends.
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        if self.is_over {
            return Ok(Filled::End);
        }
        let filled = match &mut self.inner {
            Inner::Plain(input) => !input.fill_buf()?.is_empty(),
            Inner::Inflated { input, damage, is_damaged } => match fill(input) {
                Ok(filled) => filled,
                Err(_) if *is_damaged => false,
                Err(_) => {
                    *is_damaged = true;
                    return Ok(Filled::Damaged(damage));
                }
            },
            Inner::Bzip2(input) => return input.fill(),
        };
        Ok(if filled { Filled::Bytes } else { Filled::End })
    }

    /// What [`Self::fill`] has read.
    pub(super) fn buffer(&mut self) -> &[u8] {
        match &mut self.inner {
            Inner::Plain(input) => input.buffer(),
            // It has bytes, so this reads nothing.
            Inner::Inflated { input, .. } => input.fill_buf().unwrap_or_default(),
            Inner::Bzip2(input) => &input.output[input.start..],
        }
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.offset += bytes as u64;
        match &mut self.inner {
            Inner::Plain(input) => input.consume(bytes),
            Inner::Inflated { input, .. } => input.consume(bytes),
            Inner::Bzip2(input) => {
                input.start += bytes;
                input.offset += bytes as u64;
            }
        }
    }

    /// Where the first byte of the buffer is.
    pub(super) fn place(&self) -> Place {
        match &self.inner {
            Inner::Bzip2(input) => {
                Place { stream: input.stream, offset: input.offset, has_streams: true }
            }
            _ => Place { stream: 0, offset: self.offset, has_streams: false },
        }
    }

    /// Whether a record that begins at `place` belongs to a later range.
    pub(super) fn is_beyond(&self, place: Place) -> bool {
        (if place.has_streams { place.stream } else { place.offset }) >= self.end
    }

    /// Bytes of the stream before the buffer, over all bzip2 streams that were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Whether `input` has more bytes.
fn fill(input: &mut dyn BufRead) -> io::Result<bool> {
    loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|data| !data.is_empty()),
        }
    }
}

/// The streams of a bzip2 file, one after the other; `bzip2`, `lbzip2` and Wikipedia's dumps write several.
struct Bzip2 {
    input: BufReader<File>,
    /// Position of the next byte of `input` in the file.
    position: u64,
    decoder: Option<Decompress>,
    /// Where the stream begins.
    stream: u64,
    /// Bytes of the stream before `start`.
    offset: u64,
    output: Vec<u8>,
    start: usize,
}

impl Bzip2 {
    /// Magic of a stream after its level: that of its first block, or of the end of an empty one.
    const BLOCKS: [[u8; 6]; 2] =
        [[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]];
    const HEAD_BYTES: usize = 10;

    fn new(input: BufReader<File>, position: u64) -> Self {
        let output = Vec::with_capacity(READ_BYTES);
        Self { input, position, decoder: None, stream: position, offset: 0, output, start: 0 }
    }

    /// Whether a file begins with the magic and level of a stream.
    fn is_start(head: &[u8]) -> bool {
        matches!(head, [b'B', b'Z', b'h', b'1'..=b'9', ..])
    }

    fn fill(&mut self) -> io::Result<Filled> {
        while self.start == self.output.len() {
            self.output.clear();
            self.start = 0;
            if self.decoder.is_none() && !self.next_stream()? {
                return Ok(Filled::End);
            }
            let decoder = self.decoder.as_mut().expect("a stream was begun");
            let data = self.input.fill_buf()?;
            let is_last = data.is_empty();
            let before = decoder.total_in();
            let status = decoder.decompress_vec(data, &mut self.output);
            let used = usize::try_from(decoder.total_in() - before).expect("within the buffer");
            self.input.consume(used);
            self.position += used as u64;
            match status {
                Ok(Status::StreamEnd) => self.decoder = None,
                Ok(_) if !is_last || !self.output.is_empty() => {}
                Ok(_) | Err(_) => {
                    self.decoder = None;
                    return Ok(Filled::Damaged("bad_bzip2"));
                }
            }
        }
        Ok(Filled::Bytes)
    }

    /// Moves to the next stream at or after the position; `false` when there is none.
    fn next_stream(&mut self) -> io::Result<bool> {
        let mut head: Vec<u8> = Vec::with_capacity(READ_BYTES);
        loop {
            let data = self.input.fill_buf()?;
            if data.is_empty() {
                return Ok(false);
            }
            // What was left of the last buffer lies before `data`.
            let kept = head.len();
            head.extend_from_slice(data);
            let found = memchr::memmem::find_iter(&head, b"BZh").find(|&at| {
                let magic = head.get(at + 4..at + Self::HEAD_BYTES);
                magic.is_some_and(|magic| Self::BLOCKS.iter().any(|block| block == magic))
                    && Self::is_start(&head[at..])
            });
            let Some(at) = found else {
                let read = data.len();
                self.input.consume(read);
                self.position += read as u64;
                let tail = head.len().saturating_sub(Self::HEAD_BYTES - 1);
                head.drain(..tail);
                continue;
            };
            // The magic may begin in what was read before.
            self.stream = self.position + at as u64 - kept as u64;
            let decoder = self.decoder.insert(Decompress::new(false));
            self.offset = 0;
            if at < kept {
                let status = decoder.decompress_vec(&head[at..kept], &mut self.output);
                debug_assert!(status.is_ok(), "{status:?}");
            } else {
                self.input.consume(at - kept);
                self.position += (at - kept) as u64;
            }
            return Ok(true);
        }
    }
}
