//! Spans of bytes that stood somewhere before, wherever they begin.
//!
//! Every window of [`Config::min_bytes`] bytes is compared with every other one, exactly, in linear time and without a
//! suffix array. Windows are brought together by the smallest hash among the short pieces in them, their *seed*: equal
//! windows have equal seeds, and neighbours mostly share one, so a run of them is written as one string of
//! little more than a window's length. In a partition, runs whose seed comes once hold no copy; only the windows of the others are
//! compared, by a hash of 128 bits. (Partitioning by minimum substring, Li et al. 2013, as counters of k-mers do.)

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::mix::{finalise, fold};
use crate::span::{Emit, Piece, Pieces, find, offset, partition};
use crate::{Error, Finds, MethodKind, Repeat, Result, SpanMethod, SpillWriter};

pub(crate) const KIND: MethodKind = MethodKind {
    name: "substring",
    summary: "spans of at least 100 bytes that stood before",
    source: "Lee et al. 2021, exact substring deduplication",
    finds: Finds::Spans(|table| {
        let config: Config = crate::parse_table("substring", table)?;
        config.check()?;
        Ok(Box::new(config))
    }),
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("substring", table)?.check(),
};

/// Settings of the search for repeated spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes that a span has at least, 8 to 65,536.
    pub min_bytes: usize,
    /// Whether the first occurrence stays; if not, it goes too as soon as a second document has it.
    pub keep_first: bool,
}

impl Default for Config {
    fn default() -> Self {
        // About the 50 tokens of Lee et al.
        Self { min_bytes: 100, keep_first: true }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        match (8..=1 << 16).contains(&self.min_bytes) {
            true => Ok(()),
            false => Err(Error::Config {
                method: "substring",
                message: format!("`min_bytes` is {}, it must be 8 to 65536", self.min_bytes),
                hint: "Lee et al. took 50 tokens, about 100 bytes with their coding; the default is 100"
                    .to_owned(),
            }),
        }
    }

    /// Bytes of a seed: long ones come once more often, short ones make longer runs.
    fn seed_bytes(&self) -> usize {
        self.min_bytes.div_ceil(3)
    }
}

impl SpanMethod for Config {
    fn config(&self) -> toml::Table {
        toml::Table::try_from(self).expect("settings are plain values")
    }

    fn spill(&self, row: u32, text: &str, writer: &mut SpillWriter) -> Result<()> {
        let text = text.as_bytes();
        runs(text, self.min_bytes, self.seed_bytes(), |found| {
            let seed = spread(found.seed);
            let bytes = &text[found.start..found.start + found.n_windows + self.min_bytes - 1];
            let mark = if found.is_repeated { REPEATED } else { 0 };
            writer.push(partition(seed, writer.n_partitions()), |buffer| {
                buffer.extend(seed.to_le_bytes());
                for number in [row, offset(found.start), offset(bytes.len()) | mark] {
                    buffer.extend(number.to_le_bytes());
                }
                buffer.extend(bytes);
            })
        })
    }

    fn find(&self, pieces: Pieces<'_>, table_bytes: u64, emit: Emit<'_>) -> Result<()> {
        let mut seeds = Seeds::new(pieces.bytes()?, table_bytes / 8);
        pieces.read(|bytes| {
            Run::all(bytes).for_each(|run| seeds.add(&run));
            Ok(())
        })?;
        let n_windows = |run: &Run<'_>| run.bytes.len() + 1 - self.min_bytes;
        let mut n = 0;
        pieces.read(|bytes| {
            let repeated = Run::all(bytes).filter(|run| seeds.is_repeated(run.seed));
            n += repeated.map(|run| n_windows(&run) as u64).sum::<u64>();
            Ok(())
        })?;
        let visit = |take: &mut dyn FnMut(Piece) -> Result<()>| {
            pieces.read(|bytes| {
                for run in Run::all(bytes).filter(|run| seeds.is_repeated(run.seed)) {
                    for (start, window) in (run.start..).zip(run.bytes.windows(self.min_bytes)) {
                        let end = start + offset(self.min_bytes);
                        take(Piece { key: xxh3_128(window), row: run.row, start, end })?;
                    }
                }
                Ok(())
            })
        };
        // Windows of one run come one after the other: they are joined before they are handed on.
        let mut last: Option<Repeat> = None;
        find(n, table_bytes, self.keep_first, visit, &mut |next| match &mut last {
            Some(last) if joins(last, &next) => {
                last.end = last.end.max(next.end);
                Ok(())
            }
            last => last.replace(next).map_or(Ok(()), &mut *emit),
        })?;
        last.map_or(Ok(()), emit)
    }

    fn merge(&self, repeats: &mut Vec<Repeat>) {
        // Copies of several places lie across each other: those of one longer copy are not neighbours by their start.
        repeats.sort_unstable_by_key(|repeat| (repeat.row, source(repeat), repeat.start));
        repeats.dedup_by(|next, last| {
            let is_joined = joins(last, next);
            if is_joined {
                last.end = last.end.max(next.end);
            }
            is_joined
        });
        repeats.sort_unstable();
    }
}

/// Row of the first occurrence, and how far from a copy it stands: the same for all windows of one longer copy.
fn source(repeat: &Repeat) -> Option<(u32, i64)> {
    repeat.kept.map(|(row, start)| (row, i64::from(start) - i64::from(repeat.start)))
}

/// Whether `next` goes on with the text that `last` is a copy of.
fn joins(last: &Repeat, next: &Repeat) -> bool {
    last.row == next.row
        && source(last) == source(next)
        && (last.start..=last.end).contains(&next.start)
}

/// A run of windows of one seed, as it is written.
struct Run<'a> {
    seed: u64,
    row: u32,
    start: u32,
    /// Whether the seed stands in more than one place of the run.
    is_repeated: bool,
    bytes: &'a [u8],
}

/// Marks the length of a run whose seed is repeated in itself.
const REPEATED: u32 = 1 << 31;

impl<'a> Run<'a> {
    fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (seed, rest) = bytes.split_first_chunk()?;
            let (row, rest) = rest.split_first_chunk().expect("runs are written whole");
            let (start, rest) = rest.split_first_chunk().expect("runs are written whole");
            let (length, rest) = rest.split_first_chunk().expect("runs are written whole");
            let length = u32::from_le_bytes(*length);
            let (text, rest) = rest.split_at((length & !REPEATED) as usize);
            bytes = rest;
            Some(Self {
                seed: u64::from_le_bytes(*seed),
                row: u32::from_le_bytes(*row),
                start: u32::from_le_bytes(*start),
                is_repeated: length & REPEATED != 0,
                bytes: text,
            })
        })
    }
}

/// Which seeds come at least twice: two bits for each of many slots. Seeds that share a slot count as repeated, which costs
/// time and changes nothing.
struct Seeds {
    once: Vec<u64>,
    twice: Vec<u64>,
    mask: u64,
}

/// Bytes of a run, at least: one slot for each.
const RUN_BYTES: u64 = 32;
/// Slots for each run, so that few of them meet by accident.
const SLOTS_PER_RUN: u64 = 8;

impl Seeds {
    fn new(run_bytes: u64, bytes: u64) -> Self {
        let allowed = (bytes * 4 + 1).next_power_of_two() / 2;
        let n_slots = (run_bytes / RUN_BYTES * SLOTS_PER_RUN + 1).next_power_of_two();
        let n_slots = n_slots.min(allowed).max(1 << 10);
        let words = usize::try_from(n_slots / 64).expect("memory is addressed by it");
        Self { once: vec![0; words], twice: vec![0; words], mask: n_slots - 1 }
    }

    fn add(&mut self, run: &Run<'_>) {
        let (word, bit) = self.slot(run.seed);
        let before = if run.is_repeated { bit } else { self.once[word] & bit };
        self.twice[word] |= before;
        self.once[word] |= bit;
    }

    fn is_repeated(&self, seed: u64) -> bool {
        let (word, bit) = self.slot(seed);
        self.twice[word] & bit != 0
    }

    /// The high bits of a seed are those of its partition, and small: others are taken.
    fn slot(&self, seed: u64) -> (usize, u64) {
        let slot = finalise(seed) & self.mask;
        (usize::try_from(slot / 64).expect("memory is addressed by it"), 1 << (slot % 64))
    }
}

/// Windows that a run has at most, so that its string stays short where a text is one character over and over.
const RUN_WINDOWS_MAX: usize = 1 << 12;

/// Neighbouring windows of one seed.
#[derive(Clone, Copy)]
struct Found {
    seed: u64,
    /// Where the seed stands last in the first window, counted in bytes.
    place: usize,
    start: usize,
    n_windows: usize,
    /// Whether it stands elsewhere in a later one: only then can two of the windows be equal.
    is_repeated: bool,
}

/// Hands every run of windows of `window` bytes to `visit`.
fn runs(
    text: &[u8],
    window: usize,
    seed_bytes: usize,
    mut visit: impl FnMut(Found) -> Result<()>,
) -> Result<()> {
    if text.len() < window {
        return Ok(());
    }
    let n_seeds = window - seed_bytes + 1;
    let mut smallest = Smallest::new(n_seeds);
    let mut hash = Rolling::new(&text[..seed_bytes]);
    let mut run: Option<Found> = None;
    for at in 0..=text.len() - seed_bytes {
        if at > 0 {
            hash.roll(text[at - 1], text[at - 1 + seed_bytes]);
        }
        let (seed, place) = smallest.push(hash.value());
        let Some(start) = (at + 1).checked_sub(n_seeds) else { continue };
        match &mut run {
            Some(run) if run.seed == seed && run.n_windows < RUN_WINDOWS_MAX => {
                run.n_windows += 1;
                run.is_repeated |= run.place != place;
            }
            run => {
                let next = Found { seed, place, start, n_windows: 1, is_repeated: false };
                run.replace(next).map_or(Ok(()), &mut visit)?;
            }
        }
    }
    run.map_or(Ok(()), visit)
}

/// The smallest of many hashes is small; partitions are chosen by high bits.
fn spread(seed: u64) -> u64 {
    finalise(seed ^ crate::mix::K1)
}

/// The smallest of the last hashes, `n` of them or fewer at the beginning.
struct Smallest {
    ring: Vec<u64>,
    mask: usize,
    n: usize,
    pushed: usize,
    /// The smallest and when it was pushed last.
    smallest: (u64, usize),
}

impl Smallest {
    fn new(n: usize) -> Self {
        let ring = vec![u64::MAX; n.next_power_of_two()];
        Self { mask: ring.len() - 1, ring, n, pushed: 0, smallest: (u64::MAX, 0) }
    }

    #[inline]
    fn push(&mut self, hash: u64) -> (u64, usize) {
        let at = self.pushed;
        self.ring[at & self.mask] = hash;
        self.pushed += 1;
        if hash <= self.smallest.0 {
            self.smallest = (hash, at);
        } else if self.smallest.1 + self.n <= at {
            let kept = at + 1 - self.n..=at;
            let hashes = kept.map(|at| (self.ring[at & self.mask], at));
            self.smallest =
                hashes.min_by_key(|&(hash, at)| (hash, usize::MAX - at)).expect("n > 0");
        }
        self.smallest
    }
}

/// The hash of a window of bytes that moves by one: a polynomial, mixed. Decides partitions and runs, never what is equal.
struct Rolling {
    hash: u64,
    /// The base to the power of the window's length.
    power: u64,
}

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rolling {
    fn new(window: &[u8]) -> Self {
        let (mut hash, mut power) = (0_u64, 1_u64);
        for byte in window {
            hash = hash.wrapping_mul(BASE).wrapping_add(u64::from(*byte) + 1);
            power = power.wrapping_mul(BASE);
        }
        Self { hash, power }
    }

    #[inline]
    fn roll(&mut self, out: u8, new: u8) {
        self.hash = self
            .hash
            .wrapping_mul(BASE)
            .wrapping_add(u64::from(new) + 1)
            .wrapping_sub(self.power.wrapping_mul(u64::from(out) + 1));
    }

    #[inline]
    fn value(&self) -> u64 {
        fold(self.hash ^ crate::mix::K2, crate::mix::K3)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::span::tests::{LAYOUTS, run};

    /// Bytes (row, position) of every window that stood before, by comparing all windows.
    fn brute_force(texts: &[&str], min_bytes: usize, keep_first: bool) -> BTreeSet<(u32, u32)> {
        let mut places = BTreeMap::<&[u8], Vec<(u32, u32)>>::new();
        for (row, text) in (0..).zip(texts) {
            for (start, window) in (0..).zip(text.as_bytes().windows(min_bytes)) {
                places.entry(window).or_default().push((row, start));
            }
        }
        let mut covered = BTreeSet::new();
        for places in places.values() {
            let is_shared = places.iter().any(|place| place.0 != places[0].0);
            let n_kept = usize::from(keep_first || !is_shared);
            for (row, start) in &places[n_kept..] {
                covered.extend((*start..start + offset(min_bytes)).map(|at| (*row, at)));
            }
        }
        covered
    }

    fn covered(repeats: &[Repeat]) -> BTreeSet<(u32, u32)> {
        repeats.iter().flat_map(|r| (r.start..r.end).map(|at| (r.row, at))).collect()
    }

    fn check(texts: &[&str], min_bytes: usize) {
        for keep_first in [true, false] {
            let config = format!("min_bytes = {min_bytes}\nkeep_first = {keep_first}");
            let expected = brute_force(texts, min_bytes, keep_first);
            let first = run("substring", &config, texts, LAYOUTS[0]);
            assert_eq!(covered(&first), expected, "{texts:?}");
            for repeat in &first {
                let bytes = |row: u32, start, end| {
                    &texts[row as usize].as_bytes()[start as usize..end as usize]
                };
                let copy = bytes(repeat.row, repeat.start, repeat.end);
                assert!(copy.len() >= min_bytes);
                if let Some((row, start)) = repeat.kept {
                    let length = repeat.end - repeat.start;
                    assert_eq!(bytes(row, start, start + length), copy, "{repeat:?}");
                }
            }
            for layout in &LAYOUTS[1..] {
                assert_eq!(run("substring", &config, texts, *layout), first);
            }
        }
    }

    #[test]
    fn planted_spans_are_found_to_the_byte() {
        // Noise without a repeat of eight bytes, and a span in three places.
        let noise = |seed: u64, n: u64| -> String {
            (0..n).map(|i| format!("{:016x}", finalise(seed << 32 | i))).collect()
        };
        let span = "The quick brown fox jumps over the lazy dog, and the dog does not mind: it has seen many foxes, many jumps.";
        assert!(span.len() > 100);
        let texts = [
            format!("{}{span}{}", noise(1, 20), noise(2, 5)),
            format!("{}{span}{}{span}", noise(3, 7), noise(4, 9)),
        ];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let length = offset(span.len());
        let kept = Some((0, 320));
        let (first, second) = (112, 112 + length + 144);
        let expected = vec![
            Repeat { row: 1, start: first, end: first + length, kept },
            Repeat { row: 1, start: second, end: second + length, kept },
        ];
        for layout in LAYOUTS {
            assert_eq!(run("substring", "", &texts, layout), expected);
        }
        check(&texts, 8);
        let shorter = format!("min_bytes = {}", span.len() + 1);
        assert_eq!(run("substring", &shorter, &texts, LAYOUTS[0]), [], "one byte short");
    }

    #[test]
    fn one_character_over_and_over_is_its_own_copy() {
        let long = " ".repeat(20_000);
        let found = run("substring", "", &[&long], LAYOUTS[0]);
        // The first window stays; the second begins one byte behind it.
        assert_eq!(found.iter().map(|repeat| (repeat.start, repeat.end)).min(), Some((1, 101)));
        assert_eq!(covered(&found).len(), 19_999);
        check(&["abababababababababababab", "babababababab"], 8);
    }

    #[test]
    fn copies_of_two_places_lie_across_each_other() {
        let copy = "ijklmnopijklmnopabcdefghijklmnopqé";
        check(&["abcdefghijklmnopabcdefghabcdefgh", copy, copy], 15);
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_comparing_all_windows_finds(
            texts in prop::collection::vec("[ab]{0,60}|(abcdefgh|ijklmnop|qé){0,8}", 0..6),
            min_bytes in 8usize..20,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            check(&texts, min_bytes);
        }
    }
}
