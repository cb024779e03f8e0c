//! Spans of text that stood somewhere before: what the methods share.
//!
//! A method cuts each text into pieces and writes a key of each, with its place, into partitions by the key
//! ([`SpanMethod::spill`]). All pieces of one key meet in one partition, in the order of the corpus, so the
//! first of them is known when the second comes ([`SpanMethod::find`]). Memory is one table of first places; a partition with
//! more keys than the table takes is read once more for each further range of keys. A key that stands everywhere is one
//! entry. Partitions, ranges and threads decide nothing about what is found.

use std::fmt;
use std::path::PathBuf;

use crate::{Result, Spill, SpillWriter};

/// A span that is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repeat {
    /// Position of the document.
    pub row: u32,
    /// First byte in the document's text.
    pub start: u32,
    /// Byte behind the last.
    pub end: u32,
    /// Row and first byte of the first occurrence; none where that goes too, or a Bloom filter found the copy.
    pub kept: Option<(u32, u32)>,
}

impl Repeat {
    /// Bytes of a repeat as it is written.
    pub const BYTES: usize = 20;

    /// Appends the repeat to `buffer`.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        let (kept_row, kept_start) = self.kept.unwrap_or((u32::MAX, u32::MAX));
        for number in [self.row, self.start, self.end, kept_row, kept_start] {
            buffer.extend(number.to_le_bytes());
        }
    }

    /// Reads what [`Self::write`] wrote.
    #[must_use]
    pub fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let [row, start, end, kept_row, kept_start] = numbers(bytes);
        let kept = (kept_row != u32::MAX).then_some((kept_row, kept_start));
        Self { row, start, end, kept }
    }
}

/// A method that finds spans. Rows come in any number of files, those of one file and the files among themselves in order.
pub trait SpanMethod: fmt::Debug + Send + Sync {
    /// All settings.
    fn config(&self) -> toml::Table;

    /// Writes the pieces of the document at `row`.
    ///
    /// # Errors
    /// When the file system refuses.
    fn spill(&self, row: u32, text: &str, writer: &mut SpillWriter) -> Result<()>;

    /// Hands the copies in one partition to `emit`, in no order to rely on.
    ///
    /// `table_bytes`: memory for first places. See [`Self::merge`] for the last step.
    ///
    /// # Errors
    /// When a file cannot be read, or `emit` fails.
    fn find(&self, pieces: Pieces<'_>, table_bytes: u64, emit: Emit<'_>) -> Result<()>;

    /// What is to be told about `bytes` of pieces of all documents before they are compared; nothing where it is exact.
    fn stated(&self, _bytes: u64) -> Option<String> {
        None
    }

    /// Joins copies that are pieces of one longer copy. They are sorted before and after.
    fn merge(&self, _repeats: &mut Vec<Repeat>) {}
}

/// Takes what is found.
pub type Emit<'a> = &'a mut dyn FnMut(Repeat) -> Result<()>;

/// One partition of all files.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    /// The files, in the order of their rows.
    pub paths: &'a [PathBuf],
    /// The partition.
    pub partition: u32,
}

impl Pieces<'_> {
    /// Bytes of its records.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn bytes(&self) -> Result<u64> {
        self.paths.iter().map(|path| Spill::open(path)?.bytes(self.partition)).sum()
    }

    /// Number of partitions that the records are cut into; 1 where there are none.
    pub(crate) fn n_partitions(&self) -> Result<u32> {
        self.paths.first().map_or(Ok(1), |path| Ok(Spill::open(path)?.n_partitions()))
    }

    /// Hands the records to `visit` as [`Piece::spill`] wrote them.
    pub(crate) fn visit(&self, take: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        self.read(|bytes| bytes.as_chunks().0.iter().try_for_each(|bytes| take(Piece::read(bytes))))
    }

    /// Hands the records to `visit`, whole ones, in order.
    ///
    /// # Errors
    /// When a file cannot be read, or `visit` fails.
    pub fn read(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.paths.iter().try_for_each(|path| Spill::open(path)?.read(self.partition, &mut visit))
    }
}

/// A piece of text in a place. Pieces of one text have one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) key: u128,
    pub(crate) row: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Piece {
    pub(crate) const BYTES: usize = 28;

    /// Writes the piece into the partition of its key.
    pub(crate) fn spill(&self, writer: &mut SpillWriter) -> Result<()> {
        writer.push(partition(low(self.key), writer.n_partitions()), |buffer| {
            buffer.extend(self.key.to_le_bytes());
            for number in [self.row, self.start, self.end] {
                buffer.extend(number.to_le_bytes());
            }
        })
    }

    fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let (key, place) = bytes.split_first_chunk().expect("28 bytes are more than 16");
        let [row, start, end] = numbers(place);
        Self { key: u128::from_le_bytes(*key), row, start, end }
    }
}

/// Finds the copies among pieces as [`Piece::spill`] wrote them.
pub(crate) fn find_pieces(
    pieces: Pieces<'_>,
    table_bytes: u64,
    keep_first: bool,
    emit: Emit<'_>,
) -> Result<()> {
    let n = pieces.bytes()? / Piece::BYTES as u64;
    find(n, table_bytes, keep_first, |take| pieces.visit(take), emit)
}

/// Returns the partition of a hash among `n_partitions`.
pub(crate) fn partition(hash: u64, n_partitions: u32) -> u32 {
    u32::try_from((u128::from(hash) * u128::from(n_partitions)) >> 64).expect("below 2^32")
}

/// Hands every piece but the first of its key to `emit`; the first too where `keep_first` is not set and another document
/// has the key.
///
/// `n`: at least the number of pieces that one call of `visit` gives. It gives the same ones each time.
pub(crate) fn find(
    n: u64,
    table_bytes: u64,
    keep_first: bool,
    visit: impl Fn(&mut dyn FnMut(Piece) -> Result<()>) -> Result<()>,
    emit: Emit<'_>,
) -> Result<()> {
    let mut table = FirstPlaces::new(n, table_bytes);
    if keep_first && n <= table.n_max {
        return visit(&mut |piece| match table.insert(&piece).expect("it takes them all") {
            Some(first) => emit(piece.copy_of(Some(first.place()))),
            None => Ok(()),
        });
    }
    let mut keys = (0, u64::MAX);
    loop {
        // First the keys, to see how many of them fit, then the pieces of those.
        visit(&mut |piece| {
            while keys.0 <= high(piece.key) && high(piece.key) <= keys.1 {
                if table.insert(&piece).is_some() {
                    break;
                }
                assert!(keys.0 < keys.1, "more keys of one half than a table takes");
                keys.1 = keys.0 + (keys.1 - keys.0) / 2;
                table.retain(keys.1);
            }
            Ok(())
        })?;
        visit(&mut |piece| {
            let Some(first) = table.get(piece.key) else { return Ok(()) };
            let goes = !keep_first && first.is_elsewhere();
            match first.place() == (piece.row, piece.start) && !goes {
                true => Ok(()),
                false => emit(piece.copy_of((!goes).then(|| first.place()))),
            }
        })?;
        if keys.1 == u64::MAX {
            return Ok(());
        }
        keys = (keys.1 + 1, u64::MAX);
        table.clear();
    }
}

impl Piece {
    pub(crate) fn copy_of(&self, kept: Option<(u32, u32)>) -> Repeat {
        Repeat { row: self.row, start: self.start, end: self.end, kept }
    }
}

/// The first place of each key: open addressing, 24 bytes for a slot, at most three in four of them taken.
#[derive(Debug)]
struct FirstPlaces {
    /// 0 where the slot is free.
    keys: Vec<u128>,
    firsts: Vec<First>,
    n: u64,
    n_max: u64,
}

/// Row and start of a piece; the highest bit of the start is set when another document has its key.
#[derive(Clone, Copy, Debug, Default)]
struct First(u32, u32);

const ELSEWHERE: u32 = 1 << 31;

impl First {
    fn place(self) -> (u32, u32) {
        (self.0, self.1 & !ELSEWHERE)
    }

    fn is_elsewhere(self) -> bool {
        self.1 & ELSEWHERE != 0
    }
}

/// The least table: below, ranges of keys would be many for nothing.
const SLOTS_MIN: u64 = 1 << 10;
const SLOT_BYTES: u64 = 24;

impl FirstPlaces {
    /// Makes room for `n` keys, or for as many as `bytes` allow.
    fn new(n: u64, bytes: u64) -> Self {
        let allowed = (bytes / SLOT_BYTES + 1).next_power_of_two() / 2;
        let n_slots = (n + n / 3 + 1).next_power_of_two().min(allowed).max(SLOTS_MIN);
        let n_max = n_slots / 4 * 3;
        let n_slots = usize::try_from(n_slots).expect("memory is addressed by it");
        Self { keys: vec![0; n_slots], firsts: vec![First::default(); n_slots], n: 0, n_max }
    }

    /// Notes the place of a piece if it is the first of its key, else returns the first; none when the table is full.
    #[expect(clippy::option_option, reason = "not taken, new, known: read in one match")]
    fn insert(&mut self, piece: &Piece) -> Option<Option<First>> {
        let key = piece.key.max(1);
        let slot = self.slot(key);
        if self.keys[slot] == key {
            let first = &mut self.firsts[slot];
            if first.0 != piece.row {
                first.1 |= ELSEWHERE;
            }
            return Some(Some(*first));
        }
        if self.n == self.n_max {
            return None;
        }
        self.keys[slot] = key;
        self.firsts[slot] = First(piece.row, piece.start);
        self.n += 1;
        Some(None)
    }

    fn get(&self, key: u128) -> Option<First> {
        let key = key.max(1);
        let slot = self.slot(key);
        (self.keys[slot] == key).then(|| self.firsts[slot])
    }

    /// The slot of a key, or the free one where it belongs.
    #[expect(clippy::cast_possible_truncation, reason = "only low bits are used")]
    fn slot(&self, key: u128) -> usize {
        let mask = self.keys.len() - 1;
        // The high bits of this half are the same for a whole partition.
        let mut slot = low(key) as usize & mask;
        while self.keys[slot] != 0 && self.keys[slot] != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Forgets the keys above `high_max`.
    fn retain(&mut self, high_max: u64) {
        let n_slots = self.keys.len();
        let keys = std::mem::replace(&mut self.keys, vec![0; n_slots]);
        let firsts = std::mem::replace(&mut self.firsts, vec![First::default(); n_slots]);
        self.n = 0;
        for (key, first) in keys.into_iter().zip(firsts) {
            if key != 0 && high(key) <= high_max {
                let slot = self.slot(key);
                self.keys[slot] = key;
                self.firsts[slot] = first;
                self.n += 1;
            }
        }
    }

    fn clear(&mut self) {
        self.keys.fill(0);
        self.n = 0;
    }
}

/// A position in a text as pieces hold it.
pub(crate) fn offset(bytes: usize) -> u32 {
    match u32::try_from(bytes) {
        Ok(bytes) if bytes < ELSEWHERE => bytes,
        _ => panic!("byte {bytes} of a text, a document has less than 2 GiB"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the half that is wanted")]
pub(crate) fn low(key: u128) -> u64 {
    key as u64
}

pub(crate) fn high(key: u128) -> u64 {
    u64::try_from(key >> 64).expect("64 bits are left")
}

fn numbers<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut chunks = bytes.as_chunks::<4>().0.iter();
    std::array::from_fn(|_| u32::from_le_bytes(*chunks.next().expect("four bytes for each")))
}

/// Returns what stands outside of `spans` (byte ranges, sorted by start, maybe overlapping).
#[must_use]
pub fn cut(text: &str, spans: &[(u32, u32)]) -> String {
    let mut left = String::with_capacity(text.len());
    let mut end = 0;
    for span in spans {
        let (start, span_end) = (span.0 as usize, span.1 as usize);
        if start > end {
            left.push_str(&text[end..start]);
        }
        end = end.max(span_end);
    }
    left.push_str(&text[end..]);
    left
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Finds;

    /// Runs a method over texts: `n_files` files of pieces, `n_partitions`, the least tables or large ones.
    pub(crate) fn run(
        method: &str,
        config: &str,
        texts: &[&str],
        (n_files, n_partitions, table_bytes): (usize, u32, u64),
    ) -> Vec<Repeat> {
        let Finds::Spans(build) = crate::kind(method).unwrap().finds else { panic!("{method}") };
        let method = build(&config.parse().unwrap(), &|_| panic!("no tokenizer")).unwrap();
        run_method(&*method, texts, (n_files, n_partitions, table_bytes))
    }

    /// The same for a method that is built.
    pub(crate) fn run_method(
        method: &dyn SpanMethod,
        texts: &[&str],
        (n_files, n_partitions, table_bytes): (usize, u32, u64),
    ) -> Vec<Repeat> {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        let rows: Vec<(u32, &str)> = (0..).zip(texts.iter().copied()).collect();
        for (index, rows) in rows.chunks(rows.len().div_ceil(n_files).max(1)).enumerate() {
            let path = folder.path().join(format!("{index}"));
            let mut writer = SpillWriter::create(&path, n_partitions, 1 << 12).unwrap();
            for (row, text) in rows {
                method.spill(*row, text, &mut writer).unwrap();
            }
            writer.finish().unwrap();
            paths.push(path);
        }
        let mut repeats = Vec::new();
        for partition in 0..n_partitions {
            let mut emit = |repeat: Repeat| {
                let mut bytes = Vec::new();
                repeat.write(&mut bytes);
                assert_eq!(Repeat::read(bytes[..].try_into().unwrap()), repeat);
                repeats.push(repeat);
                Ok(())
            };
            method.find(Pieces { paths: &paths, partition }, table_bytes, &mut emit).unwrap();
        }
        repeats.sort_unstable();
        method.merge(&mut repeats);
        repeats
    }

    /// Layouts that must not change what is found.
    pub(crate) const LAYOUTS: [(usize, u32, u64); 3] = [(1, 1, 1 << 20), (2, 3, 0), (5, 16, 0)];

    fn find_keys(keys: &[(u128, u32)], table_bytes: u64, keep_first: bool) -> Vec<Repeat> {
        let pieces: Vec<Piece> = (0..)
            .zip(keys)
            .map(|(start, &(key, row))| Piece { key, row, start, end: start + 1 })
            .collect();
        let mut found = Vec::new();
        let visit =
            |take: &mut dyn FnMut(Piece) -> Result<()>| pieces.iter().try_for_each(|p| take(*p));
        let mut emit = |repeat| {
            found.push(repeat);
            Ok(())
        };
        find(keys.len() as u64, table_bytes, keep_first, visit, &mut emit).unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_table_for_a_thousand_keys_finds_the_copies_of_a_hundred_thousand() {
        // Keys spread as hashes are; each twice, one of them everywhere.
        let key = |n: u32| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes());
        let keys: Vec<(u128, u32)> =
            (0..200_000).map(|n| (if n % 10 == 0 { 7 } else { key(n % 100_000) }, n)).collect();
        for keep_first in [true, false] {
            let small = find_keys(&keys, 0, keep_first);
            assert_eq!(small, find_keys(&keys, 1 << 30, keep_first));
            let n_once = 90_000;
            let firsts = if keep_first { 0 } else { n_once + 1 };
            assert_eq!(small.len(), n_once + 19_999 + firsts);
        }
    }

    #[test]
    fn without_the_first_copies_inside_one_document_still_leave_one() {
        let keys = [(5, 0), (5, 0), (6, 0), (6, 1), (7, 1)];
        let repeat = |row, start, kept| Repeat { row, start, end: start + 1, kept };
        let in_order = [repeat(0, 1, Some((0, 0))), repeat(1, 3, Some((0, 2)))];
        assert_eq!(find_keys(&keys, 0, true), in_order);
        let all = [repeat(0, 1, Some((0, 0))), repeat(0, 2, None), repeat(1, 3, None)];
        assert_eq!(find_keys(&keys, 0, false), all);
    }

    proptest! {
        #[test]
        fn cutting_leaves_the_bytes_outside_of_all_spans(text in "[a-z]{0,30}", spans in prop::collection::vec((0u32..30, 0u32..30), 0..5)) {
            let length = u32::try_from(text.len()).unwrap();
            let mut spans: Vec<(u32, u32)> = spans
                .into_iter()
                .map(|(a, b)| (a.min(b).min(length), a.max(b).min(length)))
                .collect();
            spans.sort_unstable();
            let expected: String = (0..)
                .zip(text.chars())
                .filter(|(at, _)| !spans.iter().any(|(start, end)| (start..end).contains(&at)))
                .map(|(_, c)| c)
                .collect();
            prop_assert_eq!(cut(&text, &spans), expected);
        }
    }
}
