//! Records as they stand in their files: what a locator leads back to.

use std::fs::File;
use std::io::{self, Read};

use arrow::record_batch::RecordBatch;

use super::SourceFile;
use super::input::{Filled, Input};
use crate::{Error, Result};

/// Bytes of a record that is shown, at most.
pub(super) const BYTES_MAX: u64 = 1 << 30;

/// A record as it stands in its file.
#[derive(Clone, Debug)]
pub enum Raw {
    /// Its bytes; in a compressed file those that were inflated.
    Bytes(Vec<u8>),
    /// A row of a columnar file, with all its columns: its bytes lie apart, a column each.
    Row(RecordBatch),
}

/// Returns all bytes of `file` as they are stored.
pub(super) fn stored(file: &SourceFile) -> Result<Raw> {
    let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
    take(handle, file, 0, u64::MAX).map(Raw::Bytes)
}

/// Returns the `bytes` at `place` of `file`, inflated if need be; without a place all of them.
///
/// A place is `offset` or, in a bzip2 file of several streams, `stream+offset`; what follows a `/` tells apart what was
/// made of one record.
pub(super) fn inflated(file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
    let Some(place) = place else { return open(file, 0, 0, u64::MAX).map(Some) };
    let place = place.split('/').next().unwrap_or_default();
    let (stream, offset) = place.split_once('+').unwrap_or(("0", place));
    match (stream.parse(), offset.parse()) {
        (Ok(stream), Ok(offset)) if bytes > 0 => open(file, stream, offset, bytes).map(Some),
        _ => Ok(None),
    }
}

fn open(file: &SourceFile, stream: u64, offset: u64, bytes: u64) -> Result<Raw> {
    let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
    let read = Error::io("read", &file.path);
    // A window of any length: what was read once may be shown.
    let mut input = match Input::open_long(handle, &(stream..u64::MAX), 31) {
        Ok(input) => input,
        Err(error) => return Err(read(error)),
    };
    let mut offset = offset;
    if input.is_plain() {
        input.seek_plain(offset).map_err(read)?;
        offset = 0;
    }
    take(Undamaged(input), file, offset, bytes).map(Raw::Bytes)
}

/// Passes over `offset` bytes of `input` and returns the next `bytes`, or as many as there are.
pub(super) fn take(
    mut input: impl Read,
    file: &SourceFile,
    offset: u64,
    bytes: u64,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    io::copy(&mut (&mut input).take(offset), &mut io::sink())
        .and_then(|_| input.take(bytes.min(BYTES_MAX + 1)).read_to_end(&mut out))
        .map_err(Error::io("read", &file.path))?;
    if out.len() as u64 > BYTES_MAX {
        return Err(Error::Format {
            path: file.path.clone(),
            why: format!("a record of more than {BYTES_MAX} bytes is not shown"),
            hint: "its locator says where it begins".to_owned(),
        });
    }
    Ok(out)
}

/// The bytes of an input up to the first damage.
struct Undamaged(Input);

impl Read for Undamaged {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.fill()? != Filled::Bytes {
            return Ok(0);
        }
        let n = self.0.buffer().read(out)?;
        self.0.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::super::testing;
    use super::{Raw, inflated};

    fn check(name: &str, bytes: &[u8], place: Option<&str>, n: u64, expected: Option<&[u8]>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = inflated(&testing::file(&path), place, n).unwrap();
        let found = found.map(|raw| match raw {
            Raw::Bytes(bytes) => bytes,
            Raw::Row(_) => panic!("a file of bytes"),
        });
        assert_eq!(found.as_deref(), expected, "{name} {place:?}");
    }

    #[test]
    fn finds_bytes_by_their_place_in_what_is_inflated() {
        let bzip2 = |text: &[u8]| {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let text = b"0123456789";
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for bytes in [text.to_vec(), testing::gzip(text), zstd, bzip2(text)] {
            check("a", &bytes, Some("3"), 4, Some(b"3456"));
            check("a", &bytes, Some("8"), 4, Some(b"89"));
            check("a", &bytes, Some("3/1"), 1, Some(b"3"));
            check("a", &bytes, None, 0, Some(text));
            check("a", &bytes, Some("3"), 0, None);
            check("a", &bytes, Some("x"), 4, None);
        }
        let first = bzip2(b"first stream");
        let both = [first.as_slice(), &bzip2(text)].concat();
        check("a", &both, Some(&format!("{}+3", first.len())), 4, Some(b"3456"));
        let damaged = [&first[..], &bzip2(text)[..20]].concat();
        check("a", &damaged, Some("6"), 99, Some(b"stream"));
    }
}
