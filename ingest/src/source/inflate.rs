//! Gzip members found, inflated and checked one by one, and the content encodings of HTTP.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use memchr::memmem;

/// First bytes of a gzip member: magic and the only compression method there is.
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes of a gzip header, at most: its optional fields have no limit of their own.
const HEADER_BYTES_MAX: usize = 64 << 10;
const INPUT_BYTES: usize = 256 << 10;

/// What came of a call to [`Members::inflate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// The member goes on.
    More,
    /// The member ended and its checksum holds.
    End,
    /// The member is cut short, cannot be inflated or does not match its checksum.
    Damaged,
}

/// Reads a file of gzip members.
pub(super) struct Members {
    file: File,
    input: Vec<u8>,
    start: usize,
    /// Position in the file of the end of `input`.
    input_end: u64,
    inflater: Decompress,
    crc: Crc,
}

impl Members {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            input: Vec::with_capacity(INPUT_BYTES),
            start: 0,
            input_end: 0,
            inflater: Decompress::new(false),
            crc: Crc::new(),
        }
    }

    /// Gives the file back, at its start.
    pub(super) fn into_file(mut self) -> io::Result<File> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file)
    }

    /// Position in the file of the next byte to be read.
    pub(super) fn position(&self) -> u64 {
        self.input_end - (self.input.len() - self.start) as u64
    }

    pub(super) fn seek(&mut self, position: u64) -> io::Result<()> {
        let buffered = self.input_end - self.input.len() as u64;
        if (buffered..=self.input_end).contains(&position) {
            self.start = usize::try_from(position - buffered).expect("within the buffer");
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(position))?;
        self.input.clear();
        self.start = 0;
        self.input_end = position;
        Ok(())
    }

    /// Returns the bytes that are buffered, at least `wanted` of them unless the file ends.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.input.len() - self.start < wanted {
            self.input.drain(..self.start);
            self.start = 0;
            let n = INPUT_BYTES.max(wanted) - self.input.len();
            let read = (&mut self.file).take(n as u64).read_to_end(&mut self.input)?;
            self.input_end += read as u64;
            if read == 0 {
                break;
            }
        }
        Ok(&self.input[self.start..])
    }

    /// Begins the member that starts at the current position; `false` when none starts there.
    pub(super) fn begin(&mut self) -> io::Result<bool> {
        let mut wanted = 512;
        loop {
            let input = self.peek(wanted)?;
            match header_bytes(input) {
                Header::Bytes(n) => {
                    self.start += n;
                    self.inflater.reset(false);
                    self.crc.reset();
                    return Ok(true);
                }
                Header::Partial if input.len() >= wanted && wanted < HEADER_BYTES_MAX => {
                    wanted *= 2;
                }
                Header::Partial | Header::None => return Ok(false),
            }
        }
    }

    /// Inflates into the spare capacity of `output`, which is not empty.
    pub(super) fn inflate(&mut self, output: &mut Vec<u8>) -> io::Result<Inflated> {
        assert!(output.len() < output.capacity(), "no room to inflate into");
        let from = output.len();
        loop {
            let is_last = self.peek(1)?.is_empty();
            let consumed = self.inflater.total_in();
            let input = &self.input[self.start..];
            let status = self.inflater.decompress_vec(input, output, FlushDecompress::None);
            let consumed = usize::try_from(self.inflater.total_in() - consumed);
            self.start += consumed.expect("within the buffer");
            match status {
                Ok(Status::StreamEnd) => {
                    self.crc.update(&output[from..]);
                    return self.check_trailer();
                }
                Ok(_) if output.len() == output.capacity() => {
                    self.crc.update(&output[from..]);
                    return Ok(Inflated::More);
                }
                Ok(_) if !is_last => {}
                Ok(_) | Err(_) => return Ok(Inflated::Damaged),
            }
        }
    }

    fn check_trailer(&mut self) -> io::Result<Inflated> {
        let (sum, amount) = (self.crc.sum(), self.crc.amount());
        let Some(trailer) = self.peek(8)?.first_chunk::<8>() else {
            return Ok(Inflated::Damaged);
        };
        let is_intact = trailer[..4] == sum.to_le_bytes() && trailer[4..] == amount.to_le_bytes();
        if is_intact {
            self.start += 8;
        }
        Ok(if is_intact { Inflated::End } else { Inflated::Damaged })
    }

    /// Moves to the next member, at or after the current position and before `end`, whose inflated bytes begin in a way
    /// that `is_wanted` accepts. Returns where it starts; without one the position is `end` or the end of the file.
    pub(super) fn find(
        &mut self,
        end: u64,
        is_wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Option<u64>> {
        let finder = memmem::Finder::new(&MAGIC);
        loop {
            let input = self.peek(MAGIC.len())?;
            let Some(at) = finder.find(input) else {
                // The magic may lie across the end of the buffer.
                let is_file_end = input.len() < MAGIC.len();
                self.start = self.input.len().saturating_sub(MAGIC.len() - 1).max(self.start);
                if is_file_end || self.position() >= end {
                    return Ok(None);
                }
                self.peek(INPUT_BYTES)?;
                if self.input.len() - self.start < MAGIC.len() {
                    return Ok(None);
                }
                continue;
            };
            self.start += at;
            let start = self.position();
            if start >= end {
                return Ok(None);
            }
            if self.begin()? {
                let mut head = Vec::with_capacity(64);
                self.inflate(&mut head)?;
                if is_wanted(&head) {
                    self.seek(start)?;
                    return Ok(Some(start));
                }
            }
            self.seek(start + 1)?;
        }
    }
}

enum Header {
    /// A whole header of so many bytes.
    Bytes(usize),
    /// So far a header, more bytes are needed.
    Partial,
    None,
}

/// Reads a gzip header. Source: RFC 1952, section 2.3.
fn header_bytes(input: &[u8]) -> Header {
    const HAS_CRC: u8 = 2;
    const HAS_EXTRA: u8 = 4;
    const HAS_NAME: u8 = 8;
    const HAS_COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    if input.len() < 10 {
        return if MAGIC.starts_with(&input[..input.len().min(3)]) {
            Header::Partial
        } else {
            Header::None
        };
    }
    let flags = input[3];
    if input[..3] != MAGIC || flags & RESERVED != 0 {
        return Header::None;
    }
    let mut end = 10;
    if flags & HAS_EXTRA != 0 {
        let Some(length) = input.get(end..end + 2) else { return Header::Partial };
        end += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    }
    for flag in [HAS_NAME, HAS_COMMENT] {
        if flags & flag != 0 {
            let Some(text) = input.get(end..) else { return Header::Partial };
            let Some(zero) = memchr::memchr(0, text) else { return Header::Partial };
            end += zero + 1;
        }
    }
    if flags & HAS_CRC != 0 {
        end += 2;
    }
    if end <= input.len() { Header::Bytes(end) } else { Header::Partial }
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    Damaged,
    /// An encoding that is not known.
    Unknown,
}

/// Undoes the content encoding `name` of `body` into `output`, which stays within `limit` bytes.
///
/// Returns `false`, with nothing in `output`, when the body does not have the encoding that it is said to have:
/// archives often keep the header of a body that they stored inflated.
pub(super) fn decode_body(
    name: &[u8],
    body: &[u8],
    output: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, BodyError> {
    output.clear();
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if name.is_empty() || is("identity") || is("none") || is("utf-8") {
        Ok(false)
    } else if is("gzip") || is("x-gzip") {
        match header_bytes(body) {
            Header::Bytes(n) => inflate(&body[n..], false, output, limit).map(|()| true),
            Header::Partial if body.len() >= MAGIC.len() => Err(BodyError::Damaged),
            Header::Partial | Header::None => Ok(false),
        }
    } else if is("deflate") {
        // Said to be zlib, sent as bare deflate by many servers.
        match inflate(body, true, output, limit) {
            Err(BodyError::Damaged) => {}
            other => return other.map(|()| true),
        }
        output.clear();
        match inflate(body, false, output, limit) {
            Err(BodyError::Damaged) if looks_like_text(body) => {
                output.clear();
                Ok(false)
            }
            other => other.map(|()| true),
        }
    } else if is("br") {
        match unbrotli(body, output, limit) {
            Err(BodyError::Damaged) if looks_like_text(body) => {
                output.clear();
                Ok(false)
            }
            other => other.map(|()| true),
        }
    } else {
        Err(BodyError::Unknown)
    }
}

fn looks_like_text(body: &[u8]) -> bool {
    let head = &body[..body.len().min(512)];
    memchr::memchr(0, head).is_none()
        && std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn inflate(
    mut input: &[u8],
    is_zlib: bool,
    output: &mut Vec<u8>,
    limit: usize,
) -> Result<(), BodyError> {
    let mut inflater = Decompress::new(is_zlib);
    loop {
        if output.len() == output.capacity() {
            if output.len() > limit {
                return Err(BodyError::TooLarge);
            }
            output.reserve(output.len().max(64 << 10));
        }
        let before = (inflater.total_in(), output.len());
        let status = inflater
            .decompress_vec(input, output, FlushDecompress::None)
            .map_err(|_| BodyError::Damaged)?;
        let consumed = inflater.total_in() - before.0;
        input = &input[usize::try_from(consumed).expect("within the input")..];
        match status {
            Status::StreamEnd if output.len() > limit => return Err(BodyError::TooLarge),
            Status::StreamEnd => return Ok(()),
            _ if consumed == 0 && output.len() == before.1 => return Err(BodyError::Damaged),
            _ => {}
        }
    }
}

fn unbrotli(body: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<(), BodyError> {
    let reader = brotli_decompressor::Decompressor::new(body, 16 << 10);
    reader.take(limit as u64 + 1).read_to_end(output).map_err(|_| BodyError::Damaged)?;
    if output.len() > limit { Err(BodyError::TooLarge) } else { Ok(()) }
}
