//! Where the archives lie in a file: in a WACZ package at each entry of `archive/`, else from its first byte to its last.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

/// First bytes of a zip file with something in it.
const MAGIC: [u8; 4] = *b"PK\x03\x04";

/// A part of a file.
pub(super) enum Part {
    /// An archive, by the bytes of the file that it takes.
    Archive(Range<u64>),
    /// What lies at this offset cannot be read, and why.
    Reject(u64, &'static str),
}

/// Returns the parts of `file`, in order.
pub(super) fn parts(file: &mut File) -> io::Result<Vec<Part>> {
    let mut magic = Vec::with_capacity(MAGIC.len());
    file.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    if magic != MAGIC {
        return Ok(vec![Part::Archive(0..bytes)]);
    }
    match entries(file, bytes) {
        Ok(parts) if parts.is_empty() => Ok(vec![Part::Reject(0, "no_archive")]),
        Ok(parts) => Ok(parts),
        Err(ZipError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        Err(_) => Ok(vec![Part::Reject(0, "bad_zip")]),
    }
}

fn entries(file: &mut File, bytes: u64) -> Result<Vec<Part>, ZipError> {
    let mut package = ZipArchive::new(file)?;
    let mut found = Vec::new();
    for index in 0..package.len() {
        let entry = package.by_index_raw(index)?;
        if !entry.name()?.starts_with("archive/") || entry.is_dir() {
            continue;
        }
        let start = entry.data_start().unwrap_or(bytes).min(bytes);
        let part = if entry.compression() == CompressionMethod::Stored {
            Part::Archive(start..start.saturating_add(entry.compressed_size()).min(bytes))
        } else {
            // The format has archives stored, so that they can be read in place.
            Part::Reject(entry.header_start(), "compressed_entry")
        };
        found.push((start, part));
    }
    found.sort_by_key(|(start, _)| *start);
    // No byte is read twice, whatever the directory says.
    found.dedup_by(|(_, next), (_, before)| match (next, before) {
        (Part::Archive(next), Part::Archive(before)) => next.start < before.end,
        (Part::Reject(next, _), Part::Reject(before, _)) => next == before,
        _ => false,
    });
    Ok(found.into_iter().map(|(_, part)| part).collect())
}
