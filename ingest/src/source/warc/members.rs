//! Members of a compressed archive, found, inflated and checked one by one: gzip members, zstd frames, LZ4 frames.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use memchr::memmem;
use zstd::stream::raw::{Decoder, Operation};

use super::lz4::Lz4;
use crate::source::inflate::{self, Header, header_bytes};

const INPUT_BYTES: usize = 256 << 10;
/// Bytes of a member that is inflated in one go, at most.
const WHOLE_BYTES_MAX: usize = 8 << 20;
/// Inflated bytes of a member that tell what it begins with.
pub(super) const HEAD_BYTES: usize = 64;
/// First bytes of a zstd frame. Source: RFC 8878, section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// First bytes of the skippable frame that holds the dictionary of an archive, the first byte of the file.
/// Source: IIPC, "Zstandard-compressed WARC Files".
const DICTIONARY_MAGIC: [u8; 4] = 0x184d_2a5d_u32.to_le_bytes();
/// Bytes of a dictionary, at most. Those of web crawls have some hundred KiB.
const DICTIONARY_BYTES_MAX: usize = 16 << 20;

/// What came of a call to [`Members::inflate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// The member goes on.
    More,
    /// The member ended and its checksum, if it has one, holds.
    End,
    /// The member is cut short, cannot be inflated or does not match its checksum.
    Damaged,
}

/// Reads the members that lie in a range of a file.
pub(super) struct Members {
    input: Input,
    codec: Codec,
}

enum Codec {
    Gzip(Box<Gzip>),
    Zstd(Box<Decoder<'static>>),
    Lz4(Box<Lz4>),
}

impl Members {
    /// Opens the members in `bounds` of `file`; the file comes back when there is none.
    pub(super) fn open(file: File, bounds: Range<u64>) -> io::Result<Result<Self, File>> {
        let mut input = Input::new(file, bounds.clone());
        input.seek(bounds.start)?;
        let dictionary = input.dictionary()?;
        while input.pass_skippable()? {}
        let codec = match input.peek(4)? {
            [0x1f, 0x8b, 8, ..] => Codec::Gzip(Box::new(Gzip::new())),
            data if data.starts_with(&ZSTD_MAGIC) => {
                Codec::Zstd(Box::new(Decoder::with_dictionary(&dictionary)?))
            }
            data if data.starts_with(&Lz4::MAGIC) => Codec::Lz4(Box::default()),
            _ => return Ok(Err(input.file)),
        };
        input.seek(bounds.start)?;
        Ok(Ok(Self { input, codec }))
    }

    /// Reason of a reject whose member is damaged.
    pub(super) fn damage(&self) -> &'static str {
        match self.codec {
            Codec::Gzip(_) => "bad_gzip",
            Codec::Zstd(_) => "bad_zstd",
            Codec::Lz4(_) => "bad_lz4",
        }
    }

    /// Position in the file of the next byte to be read.
    pub(super) fn position(&self) -> u64 {
        self.input.position()
    }

    pub(super) fn seek(&mut self, position: u64) -> io::Result<()> {
        self.input.seek(position)
    }

    /// Returns the bytes that are buffered, at least `wanted` of them unless the archive ends.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        self.input.peek(wanted)
    }

    /// Begins the member at the current position, behind frames that are to be skipped, and returns where it
    /// starts; `None` when none starts there.
    pub(super) fn begin(&mut self) -> io::Result<Option<u64>> {
        if !matches!(self.codec, Codec::Gzip(_)) {
            while self.input.pass_skippable()? {}
        }
        let start = self.position();
        let is_begun = match &mut self.codec {
            Codec::Gzip(gzip) => gzip.begin(&mut self.input)?,
            Codec::Zstd(decoder) => {
                decoder.reinit()?;
                self.input.peek(ZSTD_MAGIC.len())?.starts_with(&ZSTD_MAGIC)
            }
            Codec::Lz4(lz4) => lz4.begin(&mut self.input)?,
        };
        Ok(is_begun.then_some(start))
    }

    /// Inflates into `output`, which is not empty; it is filled when there is more. Returns the bytes written.
    pub(super) fn inflate(&mut self, output: &mut [u8]) -> io::Result<(usize, Inflated)> {
        assert!(!output.is_empty(), "no room to inflate into");
        match &mut self.codec {
            Codec::Gzip(gzip) => gzip.inflate(&mut self.input, output),
            Codec::Zstd(decoder) => inflate_zstd(&mut self.input, decoder, output),
            Codec::Lz4(lz4) => lz4.inflate(&mut self.input, output),
        }
    }

    /// Inflates the first [`HEAD_BYTES`] of the member that was begun.
    pub(super) fn head(&mut self, head: &mut Vec<u8>) -> io::Result<Inflated> {
        head.resize(HEAD_BYTES, 0);
        let (n, outcome) = self.inflate(head)?;
        head.truncate(n);
        Ok(outcome)
    }

    /// Moves to the next member, at or after the current position and before `end`, whose inflated bytes begin in a way
    /// that `is_wanted` accepts. Returns where it starts; without one the position is `end` or the end of the archive.
    pub(super) fn find(
        &mut self,
        end: u64,
        is_wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Option<u64>> {
        let magic: &[u8] = match self.codec {
            Codec::Gzip(_) => &inflate::MAGIC,
            Codec::Zstd(_) => &ZSTD_MAGIC,
            Codec::Lz4(_) => &Lz4::MAGIC,
        };
        let finder = memmem::Finder::new(magic);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        while self.input.find(&finder)? {
            let start = self.position();
            if start >= end {
                return Ok(None);
            }
            if self.begin()?.is_some() {
                self.head(&mut head)?;
                if is_wanted(&head) {
                    self.seek(start)?;
                    return Ok(Some(start));
                }
            }
            self.seek(start + 1)?;
        }
        Ok(None)
    }
}

/// Inflates members in one go where they lie whole in the buffer, else as streams.
struct Gzip {
    inflater: Decompress,
    crc: Crc,
    whole: libdeflater::Decompressor,
    /// The member that was inflated in one go, of which the bytes from `start` to `end` are not handed on yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_whole: bool,
    magic: memmem::Finder<'static>,
}

impl Gzip {
    fn new() -> Self {
        Self {
            inflater: Decompress::new(false),
            crc: Crc::new(),
            whole: libdeflater::Decompressor::new(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            is_whole: false,
            magic: memmem::Finder::new(&inflate::MAGIC),
        }
    }

    fn begin(&mut self, input: &mut Input) -> io::Result<bool> {
        if !input.pass_gzip_header()? {
            return Ok(false);
        }
        self.is_whole = self.inflate_whole(input)?;
        if !self.is_whole {
            self.inflater.reset(false);
            self.crc.reset();
        }
        Ok(true)
    }

    /// Inflates the member up to its end, if the next member or the end of the archive is near. `false`, with nothing done,
    /// when that is not its end after all: the bytes before it must be a whole stream and the sum and length of what it gives.
    fn inflate_whole(&mut self, input: &mut Input) -> io::Result<bool> {
        let mut data = input.peek(1)?;
        let mut next = self.magic.find(data);
        if next.is_none() {
            data = input.peek(INPUT_BYTES)?;
            next = self.magic.find(data);
        }
        let is_last = data.len() < INPUT_BYTES;
        let Some(member) = data.get(..next.unwrap_or(if is_last { data.len() } else { 0 })) else {
            return Ok(false);
        };
        let member_bytes = member.len();
        let Some((stream, trailer)) = member.split_last_chunk::<8>() else { return Ok(false) };
        let [a, b, c, d, bytes @ ..] = *trailer;
        let bytes = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        if bytes > WHOLE_BYTES_MAX {
            return Ok(false);
        }
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        let output = &mut self.buffer[..bytes];
        let is_intact = self.whole.deflate_decompress(stream, output) == Ok(bytes)
            && libdeflater::crc32(output) == u32::from_le_bytes([a, b, c, d]);
        if is_intact {
            input.advance(member_bytes);
            (self.start, self.end) = (0, bytes);
        }
        Ok(is_intact)
    }

    fn inflate(&mut self, input: &mut Input, output: &mut [u8]) -> io::Result<(usize, Inflated)> {
        if !self.is_whole {
            return self.inflate_stream(input, output);
        }
        let n = output.len().min(self.end - self.start);
        output[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
        self.start += n;
        Ok((n, if self.start == self.end { Inflated::End } else { Inflated::More }))
    }

    fn inflate_stream(
        &mut self,
        input: &mut Input,
        output: &mut [u8],
    ) -> io::Result<(usize, Inflated)> {
        let mut n = 0;
        loop {
            let data = input.peek(1)?;
            let is_last = data.is_empty();
            let before = (self.inflater.total_in(), self.inflater.total_out());
            let status = self.inflater.decompress(data, &mut output[n..], FlushDecompress::None);
            input.advance(within(self.inflater.total_in() - before.0));
            n += within(self.inflater.total_out() - before.1);
            match status {
                Ok(Status::StreamEnd) => {
                    self.crc.update(&output[..n]);
                    let sums = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()];
                    let trailer = sums.concat();
                    let is_intact = input.peek(8)?.starts_with(&trailer);
                    if is_intact {
                        input.advance(8);
                    }
                    return Ok((n, if is_intact { Inflated::End } else { Inflated::Damaged }));
                }
                Ok(_) if n == output.len() => {
                    self.crc.update(output);
                    return Ok((n, Inflated::More));
                }
                Ok(_) if !is_last => {}
                Ok(_) | Err(_) => return Ok((n, Inflated::Damaged)),
            }
        }
    }
}

fn inflate_zstd(
    input: &mut Input,
    decoder: &mut Decoder<'_>,
    output: &mut [u8],
) -> io::Result<(usize, Inflated)> {
    let mut n = 0;
    loop {
        let data = input.peek(1)?;
        let is_last = data.is_empty();
        let Ok(status) = decoder.run_on_buffers(data, &mut output[n..]) else {
            return Ok((n, Inflated::Damaged));
        };
        input.advance(status.bytes_read);
        n += status.bytes_written;
        if status.remaining == 0 {
            return Ok((n, Inflated::End));
        } else if n == output.len() {
            return Ok((n, Inflated::More));
        } else if is_last && status.bytes_written == 0 {
            return Ok((n, Inflated::Damaged));
        }
    }
}

fn within(bytes: u64) -> usize {
    usize::try_from(bytes).expect("within a buffer")
}

/// Buffered bytes of a range of a file.
pub(super) struct Input {
    file: File,
    bounds: Range<u64>,
    buffer: Vec<u8>,
    start: usize,
    /// Position in the file of the end of `buffer`.
    end: u64,
}

impl Input {
    fn new(file: File, bounds: Range<u64>) -> Self {
        let buffer = Vec::with_capacity(INPUT_BYTES);
        Self { file, bounds, buffer, start: 0, end: 0 }
    }

    fn position(&self) -> u64 {
        self.end - (self.buffer.len() - self.start) as u64
    }

    fn seek(&mut self, position: u64) -> io::Result<()> {
        let buffered = self.end - self.buffer.len() as u64;
        if (buffered..=self.end).contains(&position) {
            self.start = within(position - buffered);
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(position))?;
        self.buffer.clear();
        self.start = 0;
        self.end = position;
        Ok(())
    }

    /// Returns the bytes that are buffered, at least `wanted` of them unless the range ends.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.start < wanted {
            self.buffer.drain(..self.start);
            self.start = 0;
            let n = (INPUT_BYTES.max(wanted) - self.buffer.len()) as u64;
            let n = n.min(self.bounds.end.saturating_sub(self.end));
            let read = (&mut self.file).take(n).read_to_end(&mut self.buffer)?;
            self.end += read as u64;
            if read == 0 {
                break;
            }
        }
        Ok(&self.buffer[self.start..])
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.buffer.len(), "advanced past what was read");
    }

    /// Moves to the next place that `finder` finds; `false` when there is none up to the end.
    fn find(&mut self, finder: &memmem::Finder<'_>) -> io::Result<bool> {
        let needle_bytes = finder.needle().len();
        loop {
            let data = self.peek(needle_bytes)?;
            if data.len() < needle_bytes {
                return Ok(false);
            }
            if let Some(at) = finder.find(data) {
                self.start += at;
                return Ok(true);
            }
            // What is looked for may lie across the end of the buffer.
            self.start = self.buffer.len() - (needle_bytes - 1);
        }
    }

    fn pass_gzip_header(&mut self) -> io::Result<bool> {
        let mut wanted = 512;
        loop {
            let data = self.peek(wanted)?;
            match header_bytes(data) {
                Header::Bytes(n) => {
                    self.start += n;
                    return Ok(true);
                }
                Header::Partial if data.len() >= wanted && wanted < inflate::HEADER_BYTES_MAX => {
                    wanted *= 2;
                }
                Header::Partial | Header::None => return Ok(false),
            }
        }
    }

    /// Returns the bytes of the skippable frame that starts here, its header included.
    ///
    /// Source: RFC 8878, section 3.1.2; LZ4 frame format 1.6.4 has the same.
    fn skippable(&mut self) -> io::Result<Option<u64>> {
        Ok(match self.peek(8)? {
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ..] => {
                Some(8 + u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
            }
            _ => None,
        })
    }

    /// Passes over a skippable frame; `false` when none starts here, or it goes on behind the end.
    fn pass_skippable(&mut self) -> io::Result<bool> {
        let Some(bytes) = self.skippable()? else { return Ok(false) };
        let end = self.position() + bytes;
        if end > self.bounds.end {
            return Ok(false);
        }
        self.seek(end)?;
        Ok(true)
    }

    /// Returns the dictionary that the archive begins with, empty without one.
    fn dictionary(&mut self) -> io::Result<Vec<u8>> {
        if !self.peek(4)?.starts_with(&DICTIONARY_MAGIC) {
            return Ok(Vec::new());
        }
        let bytes = self.skippable()?.unwrap_or(0);
        let refuse = |why: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("its zstd dictionary {why}"))
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > DICTIONARY_BYTES_MAX {
            return Err(refuse("is larger than 16 MiB"));
        }
        let frame = self.peek(bytes)?.get(8..bytes).ok_or_else(|| refuse("is cut short"))?;
        if !frame.starts_with(&ZSTD_MAGIC) {
            return Ok(frame.to_vec());
        }
        let mut dictionary = Vec::new();
        zstd::Decoder::with_buffer(frame)?
            .take(DICTIONARY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut dictionary)?;
        if dictionary.len() > DICTIONARY_BYTES_MAX {
            return Err(refuse("is larger than 16 MiB"));
        }
        Ok(dictionary)
    }
}
