//! Records of XML files found by their tags, and XML's character references.

use std::io;

use super::input::{Filled, Input, Place};

/// What came of [`skip_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// The tag was read; it begins there.
    Found(Place),
    /// The next one belongs to a later range, or there is none.
    Beyond,
    /// The file could not be inflated from there on; the next call goes on behind the damage, if it can.
    Damaged(Place, &'static str),
}

/// Reads on until `tag`, which begins with `<`, was read.
pub(super) fn skip_to(input: &mut Input, tag: &[u8]) -> io::Result<Skipped> {
    let mut matched = 0;
    let mut start = input.place();
    loop {
        match input.fill()? {
            Filled::Bytes => {}
            Filled::End => return Ok(Skipped::Beyond),
            Filled::Damaged(reason) => return Ok(Skipped::Damaged(input.place(), reason)),
        }
        let place = input.place();
        if matched == 0 && input.is_beyond(place) {
            return Ok(Skipped::Beyond);
        }
        let data = input.buffer();
        let mut at = 0;
        while at < data.len() && matched < tag.len() {
            if matched == 0 {
                let Some(found) = memchr::memchr(b'<', &data[at..]) else {
                    at = data.len();
                    break;
                };
                at += found;
                start = place.after(at);
            }
            if data[at] == tag[matched] {
                matched += 1;
                at += 1;
            } else {
                // The byte may begin the tag: it is looked at again.
                matched = 0;
            }
        }
        input.consume(at);
        if matched == tag.len() {
            return Ok(if input.is_beyond(start) {
                Skipped::Beyond
            } else {
                Skipped::Found(start)
            });
        }
    }
}

/// What came of [`read_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Found,
    /// There are so many bytes up to the tag.
    TooLong(u64),
    Eof,
    Damaged(&'static str),
}

/// Reads what stands before `tag` into `out`, at most `limit` bytes, and `tag` itself.
pub(super) fn read_to(
    input: &mut Input,
    tag: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> io::Result<End> {
    let mut dropped = 0_u64;
    loop {
        match input.fill()? {
            Filled::Bytes => {}
            Filled::End => return Ok(End::Eof),
            Filled::Damaged(reason) => return Ok(End::Damaged(reason)),
        }
        let data = input.buffer();
        // The tag may have begun in what was read before.
        let from = out.len().saturating_sub(tag.len() - 1);
        let before = out.len();
        out.extend_from_slice(data);
        let n = data.len();
        if let Some(at) = memchr::memmem::find(&out[from..], tag) {
            let end = from + at;
            input.consume(end + tag.len() - before);
            out.truncate(end);
            let bytes = dropped + end as u64;
            let is_long = dropped > 0 || end > limit;
            return Ok(if is_long { End::TooLong(bytes) } else { End::Found });
        }
        input.consume(n);
        if out.len() > limit {
            let keep = out.len() - (tag.len() - 1);
            dropped += keep as u64;
            out.drain(..keep);
        }
    }
}

/// Reads the rest of a tag into `out`, up to its `>`, which is read too; a `>` in quotes does not end it.
pub(super) fn read_tag(input: &mut Input, limit: usize, out: &mut Vec<u8>) -> io::Result<End> {
    let mut quote = None;
    let mut bytes = 0_u64;
    loop {
        match input.fill()? {
            Filled::Bytes => {}
            Filled::End => return Ok(End::Eof),
            Filled::Damaged(reason) => return Ok(End::Damaged(reason)),
        }
        let data = input.buffer();
        let mut at = 0;
        let mut is_over = false;
        while at < data.len() && !is_over {
            let rest = &data[at..];
            let found = match quote {
                Some(open) => memchr::memchr(open, rest),
                None => memchr::memchr3(b'"', b'\'', b'>', rest),
            };
            let Some(found) = found else {
                at = data.len();
                break;
            };
            at += found + 1;
            match (quote, data[at - 1]) {
                (None, b'>') => is_over = true,
                (None, open) => quote = Some(open),
                (Some(_), _) => quote = None,
            }
        }
        bytes += at as u64;
        if bytes <= limit as u64 {
            out.extend_from_slice(&data[..at]);
        }
        input.consume(at);
        if is_over {
            let is_long = bytes > limit as u64;
            return Ok(if is_long { End::TooLong(bytes) } else { End::Found });
        }
    }
}

/// Resolves the five entities of XML and references to characters; what is neither stays as it is.
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest is `&#x10FFFF;`.
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((end, character(&rest[1..end])?))) {
            Some((end, character)) => {
                out.push(character);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}
