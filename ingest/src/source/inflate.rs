//! Gzip headers, and the content encodings of HTTP.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};

/// First bytes of a gzip member: magic and the only compression method there is.
pub(crate) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes of a gzip header, at most: its optional fields have no limit of their own.
pub(super) const HEADER_BYTES_MAX: usize = 64 << 10;

/// How `input` begins.
pub(super) enum Header {
    /// A whole header of so many bytes.
    Bytes(usize),
    /// So far a header, more bytes are needed.
    Partial,
    None,
}

/// Reads a gzip header. Source: RFC 1952, section 2.3.
pub(super) fn header_bytes(input: &[u8]) -> Header {
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

/// How far something may be inflated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes, at most.
    pub(crate) bytes: usize,
    /// Times the size of what is inflated, at most; the first [`RATIO_FREE_BYTES`] are free.
    pub(crate) ratio: usize,
}

/// Inflated bytes of which nobody asks what they came from: a page of zeros is no bomb.
const RATIO_FREE_BYTES: usize = 1 << 20;
/// The ratio of a [`Limits`] unless a job says otherwise: pages and books get 3 to 30 times larger.
pub(crate) const RATIO_MAX: usize = 100;
/// Logarithm of the largest window of a body in Zstandard, 8 MiB. Source: RFC 9659, section 3.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Limits {
    /// Bytes that `input` bytes may give, and what is wrong when they give more.
    fn of(self, input: usize) -> (usize, BodyError) {
        let by_ratio = self.ratio.saturating_mul(input).max(RATIO_FREE_BYTES);
        if by_ratio < self.bytes {
            (by_ratio, BodyError::Ratio)
        } else {
            (self.bytes, BodyError::TooLarge)
        }
    }
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    /// It gets larger than what is not made to be large does.
    Ratio,
    Damaged,
    /// An encoding that is not known.
    Unknown,
}

impl BodyError {
    /// The reason of a reject.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Ratio => "compression_ratio",
            Self::Damaged => "bad_encoding",
            Self::Unknown => "content_encoding",
        }
    }
}

/// Undoes the content encoding `name` of `body` into `output`, which stays within `limits`.
///
/// Returns `false`, with nothing in `output`, when the body does not have the encoding that it is said to have:
/// archives often keep the header of a body that they stored inflated. Of a body beyond a limit, what is within it
/// is in `output`.
pub(crate) fn decode_body(
    name: &[u8],
    body: &[u8],
    output: &mut Vec<u8>,
    limits: Limits,
) -> Result<bool, BodyError> {
    output.clear();
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if name.is_empty() || is("identity") || is("none") || is("utf-8") {
        return Ok(false);
    }
    let (limit, excess) = limits.of(body.len());
    let done = if is("gzip") || is("x-gzip") {
        return gunzip(body, output, limit).map_err(|error| error.or(excess));
    } else if is("deflate") {
        // Said to be zlib, sent as bare deflate by many servers.
        match inflate(body, true, output, limit) {
            Err(BodyError::Damaged) => {
                output.clear();
                inflate(body, false, output, limit)
            }
            other => other,
        }
        .map(drop)
    } else if is("br") {
        let input = brotli_decompressor::Decompressor::new(body, 16 << 10);
        read_limited(input, output, limit)
    } else if is("zstd") {
        unzstd(body, output, limit)
    } else {
        return Err(BodyError::Unknown);
    };
    match done {
        Err(BodyError::Damaged) if looks_like_text(body) => {
            output.clear();
            Ok(false)
        }
        other => other.map(|()| true).map_err(|error| error.or(excess)),
    }
}

impl BodyError {
    /// Says which limit was passed where one was.
    fn or(self, excess: Self) -> Self {
        if self == Self::TooLarge { excess } else { self }
    }
}

fn looks_like_text(body: &[u8]) -> bool {
    let head = &body[..body.len().min(512)];
    memchr::memchr(0, head).is_none()
        && std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Inflates all gzip members of `input` and checks their sums; what is behind them and is none does not count.
/// `false` when it does not begin with one.
fn gunzip(mut input: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<bool, BodyError> {
    let mut n_members = 0;
    loop {
        let header = match header_bytes(input) {
            Header::Bytes(n) => n,
            Header::Partial if input.len() >= MAGIC.len() => return Err(BodyError::Damaged),
            Header::Partial | Header::None => return Ok(n_members > 0),
        };
        let start = output.len();
        let used = inflate(&input[header..], false, output, limit)?;
        let (sums, rest) =
            input[header + used..].split_first_chunk::<8>().ok_or(BodyError::Damaged)?;
        let content = &output[start..];
        let mut expected = libdeflater::crc32(content).to_le_bytes().to_vec();
        expected.extend_from_slice(&content.len().to_le_bytes()[..4]);
        if expected != sums {
            return Err(BodyError::Damaged);
        }
        input = rest;
        n_members += 1;
    }
}

/// Inflates one stream behind what `output` has, which stays within `limit` bytes; returns how many bytes it took.
fn inflate(
    input: &[u8],
    is_zlib: bool,
    output: &mut Vec<u8>,
    limit: usize,
) -> Result<usize, BodyError> {
    let mut inflater = Decompress::new(is_zlib);
    let mut used = 0;
    loop {
        if output.len() > limit {
            return Err(BodyError::TooLarge);
        }
        if output.len() == output.capacity() {
            let room = (limit - output.len()).saturating_add(1);
            output.reserve_exact(output.len().max(64 << 10).min(room));
        }
        let before = output.len();
        let status = inflater
            .decompress_vec(&input[used..], output, FlushDecompress::None)
            .map_err(|_| BodyError::Damaged)?;
        let total = usize::try_from(inflater.total_in()).expect("within the input");
        let is_stuck = total == used && output.len() == before;
        used = total;
        match status {
            Status::StreamEnd if output.len() > limit => return Err(BodyError::TooLarge),
            Status::StreamEnd => return Ok(used),
            _ if is_stuck => return Err(BodyError::Damaged),
            _ => {}
        }
    }
}

fn unzstd(body: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<(), BodyError> {
    let decoder = zstd::stream::read::Decoder::with_buffer(body);
    let mut decoder = decoder.map_err(|_| BodyError::Damaged)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| BodyError::Damaged)?;
    read_limited(decoder, output, limit)
}

fn read_limited(input: impl Read, output: &mut Vec<u8>, limit: usize) -> Result<(), BodyError> {
    input
        .take((limit as u64).saturating_add(1))
        .read_to_end(output)
        .map_err(|_| BodyError::Damaged)?;
    if output.len() > limit { Err(BodyError::TooLarge) } else { Ok(()) }
}
