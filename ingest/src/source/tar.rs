//! Tar archives as a stream of entries. Nothing is ever unpacked: names are names, and links lead nowhere.

use std::io::{self, BufRead as _, Read as _};
use std::ops::Range;

use super::compressed::Compressed;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;
/// Bytes of a long name or of the attributes that give it, at most.
const NAME_BYTES_MAX: u64 = 1 << 16;

/// A tar archive that is being read.
pub(super) struct Tar {
    opened: Compressed,
    position: u64,
    long_name: Option<String>,
}

/// An entry of a tar archive.
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its content begins in the inflated archive.
    pub(super) start: u64,
    /// Its size, as it says itself.
    pub(super) bytes: u64,
    kind: u8,
}

impl Entry {
    /// Whether it is a file; a link, a device or a folder has nothing to read.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, 0 | b'0' | b'7')
    }
}

impl Tar {
    /// Reads an archive from its beginning.
    pub(super) fn new(opened: Compressed) -> Self {
        Self { opened, position: 0, long_name: None }
    }

    /// Whether what `opened` holds begins as a tar archive does; an error when it cannot be inflated.
    pub(super) fn is_start(opened: &mut Compressed) -> io::Result<bool> {
        opened.input.fill_buf().map(is_header)
    }

    /// Bytes of the inflated archive that were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next entry, whose content is to be taken by [`Self::content`] or passed by [`Self::skip`].
    ///
    /// An error is the reason why the rest cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, &'static str> {
        loop {
            let Some(entry) = self.entry()? else { return Ok(None) };
            let (is_name, is_attributes) = (entry.kind == b'L', entry.kind == b'x');
            if (is_name || is_attributes) && entry.bytes < NAME_BYTES_MAX {
                let bytes = self.content(&entry)?;
                self.long_name = if is_name {
                    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
                } else {
                    pax_path(&bytes)
                };
            } else {
                return Ok(Some(entry));
            }
        }
    }

    /// Reads a header. Source: POSIX.1-1988 (ustar), GNU tar 1.35 manual.
    fn entry(&mut self) -> Result<Option<Entry>, &'static str> {
        let mut header = Vec::with_capacity(BLOCK);
        self.fill(&mut header, BLOCK as u64)?;
        // The archive ends with zeros; some writers leave them out.
        if header.is_empty() || header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if header.len() < BLOCK {
            return Err("truncated_file");
        }
        if !is_header(&header) {
            return Err("bad_tar");
        }
        let text = |range: Range<usize>| {
            let field = &header[range];
            let end = memchr::memchr(0, field).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let bytes = number(&header[124..136]).ok_or("bad_tar")?;
        let kind = header[156];
        let prefix = if &header[257..263] == b"ustar\0" { text(345..500) } else { String::new() };
        let name = text(0..100);
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let is_header_of_next = matches!(kind, b'L' | b'K' | b'x' | b'g');
        let name = if is_header_of_next { name } else { self.long_name.take().unwrap_or(name) };
        Ok(Some(Entry { name, start: self.position, bytes, kind }))
    }

    /// Returns the bytes of the entry that [`Self::next`] gave; whoever calls has looked at their number.
    pub(super) fn content(&mut self, entry: &Entry) -> Result<Vec<u8>, &'static str> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, entry.bytes)?;
        if (bytes.len() as u64) < entry.bytes {
            return Err("truncated_file");
        }
        self.pass(padding(entry.bytes))?;
        Ok(bytes)
    }

    /// Passes over an entry of `bytes`.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), &'static str> {
        self.pass(bytes.checked_add(padding(bytes)).ok_or("bad_tar")?)
    }

    fn fill(&mut self, out: &mut Vec<u8>, n: u64) -> Result<(), &'static str> {
        let read = (&mut self.opened.input).take(n).read_to_end(out);
        self.position += read.map_err(|_| self.opened.damage.unwrap_or("unreadable"))? as u64;
        Ok(())
    }

    fn pass(&mut self, n: u64) -> Result<(), &'static str> {
        let passed = io::copy(&mut (&mut self.opened.input).take(n), &mut io::sink());
        let passed = passed.map_err(|_| self.opened.damage.unwrap_or("unreadable"))?;
        self.position += passed;
        if passed < n { Err("truncated_file") } else { Ok(()) }
    }
}

/// Bytes that fill up the last block of an entry.
fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % BLOCK as u64
}

/// Whether a block is the header of an entry: its checksum holds.
fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..BLOCK) else { return false };
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte }))
        .sum();
    number(&block[148..156]) == Some(sum)
}

/// Reads a number: octal digits, or 95 bits after a set one.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (high, low) = field.split_at_checked(field.len().checked_sub(8)?)?;
        let is_small = high[0] == 0x80 && high[1..].iter().all(|&byte| byte == 0);
        return is_small.then_some(u64::from_be_bytes(*low.first_chunk::<8>()?));
    }
    let digits = field.split(|byte| matches!(byte, b'\0' | b' ')).find(|part| !part.is_empty())?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Returns the path that the extended attributes of an entry give it: records `12 path=x\n`.
fn pax_path(attributes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(attributes);
    let value = |line: &str| line.split_once(' ')?.1.strip_prefix("path=").map(str::to_owned);
    text.lines().find_map(value)
}
