//! LZ4 frames, block by block.
//!
//! The reader of `lz4_flex` takes its input by itself and cannot be told where a frame ended or set back; blocks are its
//! work all the same. Source: LZ4 frame format 1.6.4.

use std::io;

use xxhash_rust::xxh32::{Xxh32, xxh32};

use super::members::{Inflated, Input};

/// Bytes of a frame's header, at most.
const HEADER_BYTES_MAX: usize = 19;
/// Bytes before a block that it may refer to.
const WINDOW_BYTES: usize = 64 << 10;
const IS_STORED: u32 = 1 << 31;

/// The frame that is being read.
#[derive(Default)]
pub(super) struct Lz4 {
    has_linked_blocks: bool,
    has_block_checksums: bool,
    has_content_checksum: bool,
    content: Xxh32,
    block_bytes_max: usize,
    /// The current block, of which the bytes from `start` to `end` are not handed on yet.
    block: Vec<u8>,
    start: usize,
    end: usize,
    /// What lies before the current block.
    window: Vec<u8>,
}

impl Lz4 {
    pub(super) const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

    /// Reads the header of the frame that starts here; `false` when none does.
    pub(super) fn begin(&mut self, input: &mut Input) -> io::Result<bool> {
        const VERSION: u8 = 0b0100_0000;
        const HAS_CONTENT_BYTES: u8 = 1 << 3;
        const RESERVED: u8 = 1 << 1;
        const HAS_DICTIONARY: u8 = 1;
        let data = input.peek(HEADER_BYTES_MAX)?;
        let [flags, sizes] = match data {
            [a, b, c, d, flags, sizes, ..] if [*a, *b, *c, *d] == Self::MAGIC => [*flags, *sizes],
            _ => return Ok(false),
        };
        let end = if flags & HAS_CONTENT_BYTES == 0 { 6 } else { 14 };
        let is_known = flags & 0b1100_0000 == VERSION
            && flags & (RESERVED | HAS_DICTIONARY) == 0
            && (4..=7).contains(&(sizes >> 4))
            && sizes & 0b1000_1111 == 0;
        let is_intact =
            data.get(end).is_some_and(|sum| *sum == xxh32(&data[4..end], 0).to_le_bytes()[1]);
        if !is_known || !is_intact {
            return Ok(false);
        }
        input.advance(end + 1);
        self.has_linked_blocks = flags & (1 << 5) == 0;
        self.has_block_checksums = flags & (1 << 4) != 0;
        self.has_content_checksum = flags & (1 << 2) != 0;
        self.content.reset(0);
        self.block_bytes_max = 256 << (2 * (sizes >> 4));
        if self.block.len() < self.block_bytes_max {
            self.block.resize(self.block_bytes_max, 0);
        }
        self.window.clear();
        (self.start, self.end) = (0, 0);
        Ok(true)
    }

    /// Inflates into `output`; see [`super::members::Members::inflate`].
    pub(super) fn inflate(
        &mut self,
        input: &mut Input,
        output: &mut [u8],
    ) -> io::Result<(usize, Inflated)> {
        let mut n = 0;
        loop {
            let part = (output.len() - n).min(self.end - self.start);
            output[n..n + part].copy_from_slice(&self.block[self.start..self.start + part]);
            self.start += part;
            n += part;
            if self.start < self.end {
                return Ok((n, Inflated::More));
            }
            match self.next_block(input)? {
                Inflated::More => {}
                outcome => return Ok((n, outcome)),
            }
        }
    }

    fn next_block(&mut self, input: &mut Input) -> io::Result<Inflated> {
        let Some(size) = input.peek(4)?.first_chunk::<4>() else { return Ok(Inflated::Damaged) };
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            return self.end_frame(input);
        }
        let bytes = usize::try_from(size & !IS_STORED).unwrap_or(usize::MAX);
        let whole = 4 + bytes.min(self.block_bytes_max) + 4 * usize::from(self.has_block_checksums);
        let data = input.peek(whole)?;
        if bytes > self.block_bytes_max || data.len() < whole {
            return Ok(Inflated::Damaged);
        }
        let (stored, sum) = data[4..whole].split_at(bytes);
        if self.has_block_checksums && sum != xxh32(stored, 0).to_le_bytes() {
            return Ok(Inflated::Damaged);
        }
        if self.has_linked_blocks {
            self.window.extend_from_slice(&self.block[..self.end]);
            let excess = self.window.len().saturating_sub(WINDOW_BYTES);
            self.window.drain(..excess);
        }
        let block = &mut self.block[..self.block_bytes_max];
        let written = if size & IS_STORED != 0 {
            block[..bytes].copy_from_slice(stored);
            bytes
        } else {
            let done = lz4_flex::block::decompress_into_with_dict(stored, block, &self.window);
            let Ok(written) = done else { return Ok(Inflated::Damaged) };
            written
        };
        if self.has_content_checksum {
            self.content.update(&self.block[..written]);
        }
        (self.start, self.end) = (0, written);
        input.advance(whole);
        Ok(Inflated::More)
    }

    fn end_frame(&mut self, input: &mut Input) -> io::Result<Inflated> {
        let mut trailer = vec![0; 4];
        if self.has_content_checksum {
            trailer.extend(self.content.digest().to_le_bytes());
        }
        let is_intact = input.peek(trailer.len())?.starts_with(&trailer);
        if is_intact {
            input.advance(trailer.len());
        }
        Ok(if is_intact { Inflated::End } else { Inflated::Damaged })
    }
}
