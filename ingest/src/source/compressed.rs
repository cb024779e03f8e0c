//! Files that may be compressed, as the bytes inside them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::inflate;

/// Bytes of a file, or of what is inflated, that are read at a time.
pub(super) const READ_BYTES: usize = 256 << 10;
/// First bytes of a Zstandard frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Logarithm of the largest Zstandard window, as the `zstd` command has it without `--long`.
pub(super) const WINDOW_LOG_MAX: u32 = 27;

/// The bytes of a file, inflated if it is gzip or Zstandard.
pub(super) struct Compressed {
    pub(super) input: Box<dyn BufRead + Send>,
    /// The reason of a failure to inflate; `None` when nothing is inflated, so that a failure is the disk's.
    pub(super) damage: Option<&'static str>,
}

/// Whether a file that begins with `head` is gzip or Zstandard.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&inflate::MAGIC) || head.starts_with(&ZSTD)
}

/// Opens `file`, which is at its start; its first bytes tell how it is compressed.
pub(super) fn open(file: File) -> io::Result<Compressed> {
    open_long(file, WINDOW_LOG_MAX)
}

/// The same with Zstandard windows of `1 << window_log_max` bytes, at most: a decoder takes as much memory.
pub(super) fn open_long(file: File, window_log_max: u32) -> io::Result<Compressed> {
    let mut input = BufReader::with_capacity(READ_BYTES, file);
    let head = input.fill_buf()?;
    let (is_gzip, is_zstd) = (head.starts_with(&inflate::MAGIC), head.starts_with(&ZSTD));
    let (input, damage): (Box<dyn BufRead + Send>, _) = if is_gzip {
        let decoder = MultiGzDecoder::new(input);
        (Box::new(BufReader::with_capacity(READ_BYTES, decoder)), Some("bad_gzip"))
    } else if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(window_log_max)?;
        (Box::new(BufReader::with_capacity(READ_BYTES, decoder)), Some("bad_zstd"))
    } else {
        (Box::new(input), None)
    };
    Ok(Compressed { input, damage })
}

/// Kind of the error of a [`Limited`] reader that is at its limit; nothing else gives it.
pub(super) const LIMIT: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// Reads no more than `left` bytes; whoever reads record by record sets it anew.
pub(super) struct Limited<R> {
    pub(super) input: R,
    pub(super) left: u64,
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let data = self.input.fill_buf()?;
        let n = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if n == 0 && !data.is_empty() {
            return Err(LIMIT.into());
        }
        Ok(&data[..n])
    }

    fn consume(&mut self, n: usize) {
        self.left -= n as u64;
        self.input.consume(n);
    }
}
