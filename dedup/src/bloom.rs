//! Bloom filters in place of the table of first places: less memory, some errors, nothing about where the first stood.
//!
//! Keys are cut into [`SLICES`] by their highest bits, each with a filter for as many pieces as there are in it. A slice lies
//! in one partition, and its pieces come in the order of the corpus: what a filter reports wrongly is the same whatever the
//! threads, partitions and memory.

use serde::{Deserialize, Serialize};

use crate::span::{Emit, Pieces, low};
use crate::{Error, Result};

/// A search by Bloom filters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bloom {
    /// Share of the pieces that never stood before, at most, that is reported all the same: 1e-12 to 0.1.
    pub false_positive_rate: f64,
}

/// Parts of the keys with a filter of their own. Numbers of partitions divide it.
pub const SLICES: u32 = 1 << 12;
/// Bits of a filter, at least: in a smaller one chance fills some so unevenly that the rate is missed.
const BITS_MIN: u64 = 1 << 12;
/// Filters are sized for this part of the rate, since no filter is filled quite evenly.
const MARGIN: f64 = 0.9;

impl Bloom {
    /// Refuses rates that are out of range, and a search that has to know where the first stood.
    pub(crate) fn check(self, method: &'static str, keep_first: bool) -> Result<()> {
        let error = |message: String, hint: &str| {
            Err(Error::Config { method, message, hint: hint.to_owned() })
        };
        let rate = self.false_positive_rate;
        if !(1e-12..=0.1).contains(&rate) {
            let message = format!("`bloom.false_positive_rate` is {rate}, it must be 1e-12 to 0.1");
            return error(message, "1e-5 takes 3 bytes for each piece, 1e-3 takes 1.8");
        }
        if !keep_first {
            let message = "`bloom` keeps the first of each, `keep_first` is false".to_owned();
            return error(
                message,
                "leave `bloom` out: a filter does not know where the first stood",
            );
        }
        Ok(())
    }

    /// Returns the bytes of filters for `n` pieces, about.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    pub fn bytes(self, n: u64) -> u64 {
        let bits = (n as f64 * self.bits_per_piece()) as u64;
        bits.max(u64::from(SLICES) * BITS_MIN) / 8
    }

    /// The filters of `n` pieces in words.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an expectation")]
    pub(crate) fn stated(self, n: u64) -> String {
        let wrong = n as f64 * self.false_positive_rate;
        format!(
            "Bloom filters of {} bytes for {n} pieces, of which at most {wrong:.1} are expected to be \
             reported wrongly",
            self.bytes(n)
        )
    }

    /// Bits that a piece sets: those with which the fewest are needed for the rate.
    fn n_hashes(self) -> u32 {
        (1..64)
            .find(|n| 0.5_f64.powi(*n) <= self.false_positive_rate * MARGIN)
            .map_or(64, |n| u32::try_from(n).expect("it is below 64"))
    }

    /// Bits of a filter for each piece, from rate = (1 - e^(-hashes / bits))^hashes (Bloom 1970).
    fn bits_per_piece(self) -> f64 {
        let n_hashes = f64::from(self.n_hashes());
        let filled = (self.false_positive_rate * MARGIN).powf(1.0 / n_hashes);
        -n_hashes / (-filled).ln_1p()
    }

    /// Hands every piece whose key a filter reports to have come before to `emit`.
    pub(crate) fn find(
        self,
        method: &'static str,
        pieces: Pieces<'_>,
        table_bytes: u64,
        emit: Emit<'_>,
    ) -> Result<()> {
        let n_partitions = pieces.n_partitions()?;
        assert!(SLICES.is_multiple_of(n_partitions), "{SLICES} slices, {n_partitions} partitions");
        let width = SLICES / n_partitions;
        let first = pieces.partition * width;
        let mut sizes = vec![0_u64; width as usize];
        pieces.visit(&mut |piece| {
            sizes[slice(piece.key, first)] += 1;
            Ok(())
        })?;
        let mut open = 0;
        while open < sizes.len() {
            // As many slices at a time as their filters fit.
            let mut filters = Vec::new();
            let mut bytes = 0;
            for &n in &sizes[open..] {
                let filter = Shape::new(self, n);
                bytes += filter.bytes();
                if bytes > table_bytes && !filters.is_empty() {
                    break;
                }
                if bytes > table_bytes {
                    return Err(self.too_large(method, n, bytes, table_bytes));
                }
                filters.push(Filter::new(filter));
            }
            pieces.visit(&mut |piece| {
                let filter = slice(piece.key, first)
                    .checked_sub(open)
                    .and_then(|index| filters.get_mut(index));
                match filter.is_some_and(|filter| filter.insert(piece.key)) {
                    true => emit(piece.copy_of(None)),
                    false => Ok(()),
                }
            })?;
            open += filters.len();
        }
        Ok(())
    }

    fn too_large(self, method: &'static str, n: u64, bytes: u64, there: u64) -> Error {
        Error::Config {
            method,
            message: format!(
                "the Bloom filter of {n} pieces takes {bytes} bytes, a thread has {there}"
            ),
            hint: format!(
                "give the job {} times its `memory`, or leave `bloom` out",
                bytes.div_ceil(there.max(1))
            ),
        }
    }
}

/// The slice of a key, counted from `first`.
fn slice(key: u128, first: u32) -> usize {
    let slice = crate::span::partition(low(key), SLICES);
    slice.checked_sub(first).expect("a partition has the slices from its first on") as usize
}

/// How large a filter is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_bits: u64,
    n_hashes: u32,
}

impl Shape {
    /// The filter for `n` keys.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "rounded up to whole words after"
    )]
    fn new(bloom: Bloom, n: u64) -> Self {
        let n_bits = (n as f64 * bloom.bits_per_piece()).ceil() as u64;
        Self { n_bits: n_bits.max(BITS_MIN).next_multiple_of(64), n_hashes: bloom.n_hashes() }
    }

    fn bytes(self) -> u64 {
        self.n_bits / 8
    }
}

/// A set of keys that says of some others that they are in it.
struct Filter {
    shape: Shape,
    words: Vec<u64>,
}

impl Filter {
    fn new(shape: Shape) -> Self {
        let n_words = usize::try_from(shape.n_bits / 64).expect("memory is addressed by it");
        Self { shape, words: vec![0; n_words] }
    }

    /// Adds a key, and returns whether it seemed to be there before.
    fn insert(&mut self, key: u128) -> bool {
        // The places of a key are those of an arithmetic progression (Kirsch and Mitzenmacher 2006). The highest bits of the
        // key are those of its slice, so they are mixed first.
        let mut place = crate::mix::finalise(low(key) ^ crate::mix::K1);
        let step = crate::mix::finalise(crate::span::high(key) ^ crate::mix::K2) | 1;
        let mut is_there = true;
        for _ in 0..self.shape.n_hashes {
            let bit = (u128::from(place) * u128::from(self.shape.n_bits)) >> 64;
            let bit = u64::try_from(bit).expect("below the number of bits");
            let word = &mut self.words[usize::try_from(bit / 64).expect("there is such a word")];
            is_there &= *word >> (bit % 64) & 1 == 1;
            *word |= 1 << (bit % 64);
            place = place.wrapping_add(step);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;
    use crate::span::Piece;
    use crate::span::tests::run;
    use crate::{Repeat, SpillWriter};

    fn key(n: u64) -> u128 {
        xxh3_128(&n.to_le_bytes())
    }

    /// Share of keys never inserted that a filter reports which holds as many keys as it was made for.
    fn measured(rate: f64, n: u64, n_asked: u64) -> f64 {
        let mut filter = Filter::new(Shape::new(Bloom { false_positive_rate: rate }, n));
        (0..n).for_each(|n| {
            filter.insert(key(n));
        });
        let full = filter.words.clone();
        let mut n_wrong = 0_u32;
        for asked in n..n + n_asked {
            if filter.insert(key(asked)) {
                n_wrong += 1;
            } else {
                // It must stay the filter of `n` keys.
                filter.words.copy_from_slice(&full);
            }
        }
        f64::from(n_wrong) / f64::from(u32::try_from(n_asked).unwrap())
    }

    #[test]
    fn keys_never_inserted_are_reported_at_the_stated_rate_or_less() {
        for (rate, n, n_asked) in
            [(0.1, 5_000, 20_000), (1e-2, 2_000, 100_000), (1e-3, 1_000, 400_000)]
        {
            let found = measured(rate, n, n_asked);
            // Four standard deviations of a binomial; and the memory is not bought twice.
            let spread = 4.0 * (rate / f64::from(u32::try_from(n_asked).unwrap())).sqrt();
            assert!(found <= rate + spread, "{found} for {rate}");
            assert!(found >= rate / 2.0, "{found} for {rate}");
        }
    }

    #[test]
    fn memory_is_that_of_the_formula() {
        // log2(1 / rate) / ln 2 bits for each key, the optimum of Bloom 1970; a tenth of the rate is in hand.
        for (rate, bits) in [(1e-5, 23.96), (1e-3, 14.38), (0.01, 9.59)] {
            let found = Bloom { false_positive_rate: rate }.bits_per_piece();
            assert!(found >= bits && found < bits * 1.04, "{found} bits for {rate}, {bits}");
        }
        let bytes = Bloom { false_positive_rate: 1e-5 }.bytes(1_000_000_000);
        assert!((2_995_000_000..3_115_000_000).contains(&bytes), "{bytes}");
    }

    /// What is found among keys of three slices, a third of which come twice.
    fn find(n_partitions: u32, n_files: usize, table_bytes: u64) -> Result<Vec<Repeat>> {
        let folder = tempfile::tempdir().unwrap();
        let pieces: Vec<Piece> = (0..12_000_u32)
            .map(|row| {
                let n = u64::from(if row % 4 == 3 { row / 2 } else { row });
                let slice = [0, 1, 4095][usize::try_from(n % 3).unwrap()] << 52;
                let key = (key(n) & !(0xfff << 52)) | slice;
                Piece { key, row, start: 0, end: 1 }
            })
            .collect();
        let mut paths = Vec::new();
        for (index, pieces) in pieces.chunks(pieces.len().div_ceil(n_files)).enumerate() {
            let path = folder.path().join(format!("{index}"));
            let mut writer = SpillWriter::create(&path, n_partitions, 1 << 12).unwrap();
            pieces.iter().for_each(|piece| piece.spill(&mut writer).unwrap());
            writer.finish().unwrap();
            paths.push(path);
        }
        let mut found = Vec::new();
        for partition in 0..n_partitions {
            let mut emit = |repeat| {
                found.push(repeat);
                Ok(())
            };
            let bloom = Bloom { false_positive_rate: 0.01 };
            bloom.find("paragraph", Pieces { paths: &paths, partition }, table_bytes, &mut emit)?;
        }
        found.sort_unstable();
        Ok(found)
    }

    #[test]
    fn what_is_reported_wrongly_depends_on_the_keys_alone() {
        let found = find(1, 1, 1 << 20).unwrap();
        for (n_partitions, n_files, table_bytes) in
            [(2, 3, 1 << 20), (16, 5, 1 << 20), (4, 1, 6_000)]
        {
            assert_eq!(find(n_partitions, n_files, table_bytes).unwrap(), found);
        }
        let mut seen = std::collections::HashSet::new();
        let copies: Vec<u32> = (0..12_000_u32)
            .filter(|row| !seen.insert(if row % 4 == 3 { row / 2 } else { *row }))
            .collect();
        let reported: std::collections::HashSet<u32> = found.iter().map(|r| r.row).collect();
        assert!(copies.iter().all(|row| reported.contains(row)), "no copy is passed over");
        let n_wrong = reported.len() - copies.len();
        assert!((1..=170).contains(&n_wrong), "{n_wrong} of {} firsts at 1 %", seen.len());
        let message = find(1, 1, 100).unwrap_err().to_string();
        assert!(message.contains("a thread has 100") && message.contains("hint: "), "{message}");
    }

    #[test]
    fn lines_and_sentences_are_found_as_by_the_table_without_their_first_place() {
        let texts = ["one\ntwo. Two. Two. Two.\n", "two\none\nthree", "three\n\nTwo. Two. Two."];
        let bloom = "bloom = { false_positive_rate = 1e-6 }\n";
        for (method, rest) in [("paragraph", "profile = 'dolma'"), ("sentence_span", "")] {
            let mut exact = run(method, rest, &texts, (1, 1, 1 << 20));
            assert!(!exact.is_empty());
            exact.iter_mut().for_each(|repeat| repeat.kept = None);
            let layout = (2, 16, 1 << 20);
            assert_eq!(run(method, &format!("{bloom}{rest}"), &texts, layout), exact, "{method}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for (method, settings, says) in [
            ("paragraph", "bloom = { false_positive_rate = 0.0 }", "1e-12 to 0.1"),
            ("sentence_span", "bloom = { false_positive_rate = 0.5 }", "is 0.5"),
            (
                "paragraph",
                "profile = 'ccnet'\nbloom = { false_positive_rate = 1e-5 }",
                "keep_first",
            ),
            (
                "sentence_span",
                "keep_first = false\nbloom = { false_positive_rate = 1e-5 }",
                "keep_first",
            ),
            ("paragraph", "bloom = { rate = 1e-5 }", "rate"),
        ] {
            let table = settings.parse().unwrap();
            let message = (crate::kind(method).unwrap().check)(&table).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
            assert!(message.contains("hint: "), "{message}");
        }
    }
}
