//! Gzip headers, and the content encodings of HTTP.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};

/// First bytes of a gzip member: magic and the only compression method there is.
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
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
