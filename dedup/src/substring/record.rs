//! A run of windows as it is written.

use crate::span::offset;

/// Neighbouring windows of one seed.
pub(super) struct Run<'a> {
    pub(super) seed: u64,
    pub(super) row: u32,
    /// First byte of the first symbol, in the text.
    pub(super) start: u32,
    /// Whether the seed stands in more than one place of the run.
    pub(super) is_repeated: bool,
    /// The symbols, all of one width.
    pub(super) symbols: &'a [u8],
    /// How many bytes of the text each symbol stands for; nothing where that is one.
    pub(super) lengths: &'a [u8],
}

/// Marks the length of a run whose seed is repeated in itself.
const REPEATED: u32 = 1 << 31;

impl<'a> Run<'a> {
    /// Appends the run to `buffer`, with what `put` appends to it in the place of symbols and lengths; it returns the
    /// bytes of lengths.
    pub(super) fn write(&self, buffer: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>) -> usize) {
        buffer.extend(self.seed.to_le_bytes());
        buffer.extend(self.row.to_le_bytes());
        buffer.extend(self.start.to_le_bytes());
        let at = buffer.len();
        buffer.extend([0; 8]);
        let lengths = put(buffer);
        let symbols = buffer.len() - at - 8 - lengths;
        let mark = if self.is_repeated { REPEATED } else { 0 };
        buffer[at..at + 4].copy_from_slice(&(offset(symbols) | mark).to_le_bytes());
        buffer[at + 4..at + 8].copy_from_slice(&offset(lengths).to_le_bytes());
    }

    /// The runs in a block of records.
    pub(super) fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (seed, rest) = bytes.split_first_chunk()?;
            let mut rest = rest;
            let mut number = || {
                let (number, behind) = rest.split_first_chunk().expect("runs are written whole");
                rest = behind;
                u32::from_le_bytes(*number)
            };
            let [row, start, n_symbols, n_lengths] = [(); 4].map(|()| number());
            let (symbols, rest) = rest.split_at((n_symbols & !REPEATED) as usize);
            let (lengths, rest) = rest.split_at(n_lengths as usize);
            bytes = rest;
            Some(Self {
                seed: u64::from_le_bytes(*seed),
                row,
                start,
                is_repeated: n_symbols & REPEATED != 0,
                symbols,
                lengths,
            })
        })
    }
}

/// Appends a number, seven bits to a byte, the low ones first.
pub(super) fn put_length(mut length: u32, buffer: &mut Vec<u8>) {
    while length >= 1 << 7 {
        buffer.push(length.to_le_bytes()[0] | 1 << 7);
        length >>= 7;
    }
    buffer.push(length.to_le_bytes()[0]);
}

/// The numbers that [`put_length`] wrote.
pub(super) fn lengths(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let mut bytes = bytes.iter();
    std::iter::from_fn(move || {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = *bytes.next()?;
            length |= u32::from(byte & 0x7f) << shift;
            if byte & 1 << 7 == 0 {
                return Some(length);
            }
            shift += 7;
        }
    })
}
