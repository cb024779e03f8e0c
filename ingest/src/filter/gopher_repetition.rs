//! Drops text that repeats itself: lines, paragraphs, n-grams of words.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::words::{self, Word, class, classes};
use super::{
    Analysis, Filter, FilterKind, Signal, Verdicts, chars, config, find_duplicates, ratio,
    split_at_feeds, text_column,
};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "gopher_repetition",
    summary: "repeated lines, paragraphs and word n-grams",
    source: "Rae et al. 2021, table A1; profile `datatrove`: datatrove 0.10.1, gopher_repetition_filter.py; `dolma-v1`, `dolma-v2`: dolma 1.2.1, taggers/gopher.py with the limits of Dolma 1.5; `dclm`: DCLM, massive_web_repetition_filters",
    signals: &[
        share("duplicate_paragraphs", "paragraphs that stood before, share of paragraphs"),
        share("duplicate_paragraph_chars", "their characters, share of the text"),
        share("duplicate_lines", "lines that stood before, share of lines"),
        share("duplicate_line_chars", "their characters, share of the text"),
        share("top_2_gram", "characters of the commonest 2-gram, all copies, share of the text"),
        share("top_3_gram", "characters of the commonest 3-gram"),
        share("top_4_gram", "characters of the commonest 4-gram"),
        share("duplicate_5_grams", "characters of 5-grams that stood before, share of the text"),
        share("duplicate_6_grams", "characters of 6-grams that stood before"),
        share("duplicate_7_grams", "characters of 7-grams that stood before"),
        share("duplicate_8_grams", "characters of 8-grams that stood before"),
        share("duplicate_9_grams", "characters of 9-grams that stood before"),
        share("duplicate_10_grams", "characters of 10-grams that stood before"),
    ],
    reasons: REASONS,
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        let of_profile = |config: &Config| Config::of(config.profile);
        let config = config::from_profile("gopher_repetition", table, of_profile)?;
        Ok(Box::new(GopherRepetition { config }))
    },
};

const fn share(name: &'static str, summary: &'static str) -> Signal {
    Signal { name, data_type: DataType::Float64, summary }
}

const N_SIGNALS: usize = 13;

/// The reasons of the rules in their order, which is that of the signals, and the one of a text without any.
const REASONS: &[&str] = &[
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
    "duplicate_lines",
    "duplicate_line_chars",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "duplicate_5_grams",
    "duplicate_6_grams",
    "duplicate_7_grams",
    "duplicate_8_grams",
    "duplicate_9_grams",
    "duplicate_10_grams",
    "empty",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// Counts the second and later copies; shares are of all characters, white space too.
    Datatrove,
    /// Counts all copies; shares are of characters in words, split at white space.
    #[serde(rename = "dolma-v1")]
    DolmaV1,
    /// The same; blank lines are no lines.
    #[serde(rename = "dolma-v2")]
    DolmaV2,
    /// Counts all copies; shares are of characters in words between Unicode word boundaries, punctuation left out, and of stripped
    /// lines and paragraphs; one alone repeats nothing. Of equally common n-grams the longest counts, and each word once.
    Dclm,
}

/// Shares above which a text is dropped. A limit of 0 switches the rules of paragraphs and lines off, as in datatrove.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    profile: Profile,
    max_duplicate_paragraphs: f64,
    max_duplicate_paragraph_chars: f64,
    max_duplicate_lines: f64,
    max_duplicate_line_chars: f64,
    /// Of 2-, 3- and 4-grams.
    max_top_n_gram: [f64; 3],
    /// Of 5- to 10-grams.
    max_duplicate_n_grams: [f64; 6],
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Profile::Datatrove)
    }
}

impl Config {
    fn of(profile: Profile) -> Self {
        // Rae et al. 2021, table A1; Dolma 1.5 drops for characters of lines at another value.
        Self {
            profile,
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_chars: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_chars: match profile {
                Profile::Datatrove | Profile::Dclm => 0.2,
                Profile::DolmaV1 | Profile::DolmaV2 => 0.3,
            },
            max_top_n_gram: [0.2, 0.18, 0.16],
            max_duplicate_n_grams: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        }
    }
}

#[derive(Debug)]
struct GopherRepetition {
    config: Config,
}

impl Filter for GopherRepetition {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        self.judge_with(documents, &mut Analysis::default())
    }

    fn judge_with(&self, documents: &RecordBatch, analysis: &mut Analysis) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let mut scratch = Scratch::default();
        let profile = self.config.profile;
        let rows: Vec<[Option<f64>; N_SIGNALS]> = if profile == Profile::Datatrove {
            let words = analysis.words(texts).iter();
            let rows = texts.iter().zip(words);
            rows.map(|(text, words)| measure(text.unwrap_or_default(), words, &mut scratch))
                .collect()
        } else {
            let texts = texts.iter().map(Option::unwrap_or_default);
            match profile {
                Profile::Dclm => texts.map(|text| measure_as_dclm(text, &mut scratch)).collect(),
                _ => texts.map(|text| measure_as_dolma(text, profile, &mut scratch)).collect(),
            }
        };
        let reasons: StringArray = rows.iter().map(|signals| self.reason(signals)).collect();
        let signal = |index: usize| -> ArrayRef {
            Arc::new(rows.iter().map(|signals| signals[index]).collect::<Float64Array>())
        };
        Ok(Verdicts { reasons, signals: (0..N_SIGNALS).map(signal).collect() })
    }
}

impl GopherRepetition {
    fn reason(&self, signals: &[Option<f64>; N_SIGNALS]) -> Option<&'static str> {
        let config = &self.config;
        let has_lines = match config.profile {
            Profile::Datatrove => signals[0].is_some(),
            Profile::Dclm => signals[2].is_some(),
            Profile::DolmaV1 | Profile::DolmaV2 => true,
        };
        if !has_lines {
            return Some("empty");
        }
        let switchable = [
            config.max_duplicate_paragraphs,
            config.max_duplicate_paragraph_chars,
            config.max_duplicate_lines,
            config.max_duplicate_line_chars,
        ];
        let limits = switchable
            .into_iter()
            .map(|limit| if limit == 0.0 { f64::INFINITY } else { limit })
            .chain(config.max_top_n_gram)
            .chain(config.max_duplicate_n_grams);
        let is_broken =
            |(value, limit): (&Option<f64>, f64)| value.is_some_and(|value| value > limit);
        let rules: Vec<bool> = signals.iter().zip(limits).map(is_broken).collect();
        // DCLM looks at lines before paragraphs, and at numbers before characters.
        let first = match config.profile {
            Profile::Dclm => [2, 0, 3, 1],
            _ => [0, 1, 2, 3],
        };
        first.into_iter().chain(4..N_SIGNALS).find(|&rule| rules[rule]).map(|rule| REASONS[rule])
    }
}

/// Buffers that are kept from row to row.
#[derive(Debug, Default)]
struct Scratch {
    /// Characters of the words before each word.
    chars_before: Vec<u64>,
    /// Hash of each word, and what a hash is multiplied with when the word is put behind it.
    hashes: Vec<(u64, u64)>,
    /// Hash of the n-gram that begins at each word.
    n_grams: Vec<u64>,
    table: Table,
}

fn measure(text: &str, words: &[Word], scratch: &mut Scratch) -> [Option<f64>; N_SIGNALS] {
    let mut signals = [None; N_SIGNALS];
    if text.is_empty() {
        return signals;
    }
    let n_chars = chars(text);
    let stripped = text.trim_matches(|c| classes(c) & class::SPACE != 0);
    let (n, copies, copied) = find_duplicates(split_at_feeds(stripped, 2));
    (signals[0], signals[1]) = (ratio(copies, n), ratio(copied, n_chars));
    let (n, copies, copied) = find_duplicates(split_at_feeds(text, 1));
    (signals[2], signals[3]) = (ratio(copies, n), ratio(copied, n_chars));
    scratch.load(text, words);
    for n in 2..=4 {
        scratch.extend(n, true);
        signals[2 + n] =
            scratch.top_n_gram(n, n as u64 - 1).and_then(|chars| ratio(chars, n_chars));
    }
    scratch.n_grams.clear();
    for n in 2..=10 {
        scratch.extend(n, false);
        if n >= 5 {
            signals[2 + n] = ratio(scratch.duplicate_n_grams(n), n_chars);
        }
    }
    signals
}

fn measure_as_dolma(
    text: &str,
    profile: Profile,
    scratch: &mut Scratch,
) -> [Option<f64>; N_SIGNALS] {
    let mut signals = [None; N_SIGNALS];
    let words = words::split(text);
    let n_chars: u64 = words.iter().map(|word| u64::from(word.chars)).sum();
    let (n, copies, copied) = match profile {
        Profile::DolmaV2 => find_copies(split_at_feeds(text, 1)),
        _ => find_copies(text.split('\n')),
    };
    (signals[2], signals[3]) = (ratio(copies, n), ratio(copied, n_chars.max(1)));
    scratch.load(text, &words);
    for n in 2..=10 {
        scratch.extend(n, true);
        signals[2 + n] = match n {
            2..=4 => scratch.top_n_gram(n, 0).and_then(|chars| ratio(chars, n_chars)),
            _ => scratch.copied_n_grams(n).and_then(|(copied, all)| ratio(copied, all)),
        };
    }
    signals
}

fn measure_as_dclm(text: &str, scratch: &mut Scratch) -> [Option<f64>; N_SIGNALS] {
    let mut signals = [None; N_SIGNALS];
    for (first, end) in [(0, "\n\n"), (2, "\n")] {
        let is_space = |c| classes(c) & class::SPACE != 0;
        let parts: Vec<&str> = text
            .split(end)
            .map(|part| part.trim_matches(is_space))
            .filter(|part| !part.is_empty())
            .collect();
        let n_chars = parts.iter().map(|part| chars(part)).sum();
        let (n, copies, copied) = find_copies(parts.into_iter());
        (signals[first], signals[first + 1]) = (ratio(copies, n), ratio(copied, n_chars));
    }
    let words = words::unicode(text);
    let n_chars: u64 = words.iter().map(|word| u64::from(word.chars)).sum();
    scratch.load(text, &words);
    for n in 2..=10 {
        scratch.extend(n, true);
        signals[2 + n] = match n {
            2..=4 => scratch.longest_top_n_gram(n).and_then(|chars| ratio(chars, n_chars)),
            _ => ratio(scratch.repeated_words(n), n_chars),
        };
    }
    signals
}

/// Returns the number of `parts`, how many are not alone, and the characters of those.
fn find_copies<'a>(parts: impl Iterator<Item = &'a str>) -> (u64, u64, u64) {
    let mut counts = HashMap::<&str, u64>::new();
    let mut n = 0;
    for part in parts {
        n += 1;
        *counts.entry(part).or_default() += 1;
    }
    let copies = counts.iter().filter(|(_, count)| **count > 1);
    let (n_copies, copied) =
        copies.fold((0, 0), |(n, copied), (part, count)| (n + count, copied + count * chars(part)));
    (n, n_copies, copied)
}

impl Scratch {
    fn load(&mut self, text: &str, words: &[Word]) {
        self.chars_before.clear();
        self.hashes.clear();
        self.n_grams.clear();
        let mut n_chars = 0;
        for word in words {
            self.chars_before.push(n_chars);
            n_chars += u64::from(word.chars);
            let start = (0, 1);
            self.hashes.push(text.as_bytes()[word.range()].iter().fold(
                start,
                |(hash, power), &b| {
                    // No byte counts as 0, so that no two strings differ in leading zeros only.
                    (modulo(multiply(hash, BASE) + u64::from(b) + 1), multiply(power, BASE))
                },
            ));
        }
        self.chars_before.push(n_chars);
    }

    /// Makes the n-grams of `n - 1` words those of `n`; those of one word where there are none yet.
    fn extend(&mut self, n: usize, with_spaces: bool) {
        if self.n_grams.is_empty() {
            self.n_grams.extend(self.hashes.iter().map(|(hash, _)| hash));
        }
        self.n_grams.truncate((self.hashes.len() + 1).saturating_sub(n));
        for (hash, (next, power)) in
            self.n_grams.iter_mut().zip(&self.hashes[n.min(self.hashes.len() + 1) - 1..])
        {
            if with_spaces {
                *hash = modulo(multiply(*hash, BASE) + u64::from(b' ') + 1);
            }
            *hash = modulo(multiply(*hash, *power) + next);
        }
    }

    /// Characters of the words of the n-gram that begins at `first`.
    fn chars(&self, first: usize, n: usize) -> u64 {
        self.chars_before[first + n] - self.chars_before[first]
    }

    /// Characters of the commonest n-gram, and of `n_spaces` more, times its copies; of equals the one that came first counts.
    fn top_n_gram(&mut self, n: usize, n_spaces: u64) -> Option<u64> {
        self.table.clear(self.n_grams.len());
        for (first, &hash) in self.n_grams.iter().enumerate() {
            let entry = self.table.entry(hash, first);
            entry.count += 1;
        }
        let (count, first) = self.table.commonest()?;
        Some(count * (self.chars(first, n) + n_spaces))
    }

    /// Characters of the words of the commonest n-gram times its copies; of equals the longest counts, and one alone is none.
    fn longest_top_n_gram(&mut self, n: usize) -> Option<u64> {
        self.count_n_grams();
        let (count, _) = self.table.commonest()?;
        if count == 1 {
            return Some(0);
        }
        let equals = self.table.live().filter(|entry| entry.count == count);
        equals.map(|entry| count * self.chars(entry.first as usize, n)).max()
    }

    /// Characters of the words that are in some n-gram that is not alone.
    fn repeated_words(&mut self, n: usize) -> u64 {
        self.count_n_grams();
        let (mut chars, mut at) = (0, 0);
        for first in 0..self.n_grams.len() {
            let hash = self.n_grams[first];
            if self.table.entry(hash, first).count > 1 {
                let from = at.max(first);
                chars += self.chars(from, first + n - from);
                at = first + n;
            }
        }
        chars
    }

    fn count_n_grams(&mut self) {
        self.table.clear(self.n_grams.len());
        for (first, &hash) in self.n_grams.iter().enumerate() {
            self.table.entry(hash, first).count += 1;
        }
    }

    /// Characters of n-grams that are not alone, and of all; none where there is no n-gram.
    fn copied_n_grams(&mut self, n: usize) -> Option<(u64, u64)> {
        self.count_n_grams();
        let (mut copied, mut all) = (0, 0);
        for entry in self.table.live() {
            let chars = entry.count * self.chars(entry.first as usize, n);
            all += chars;
            copied += if entry.count > 1 { chars } else { 0 };
        }
        (all > 0).then_some((copied, all))
    }

    /// Characters of n-grams that stood before, words joined without spaces, jumping over each one that is found.
    fn duplicate_n_grams(&mut self, n: usize) -> u64 {
        self.table.clear(self.n_grams.len());
        let (mut repeated, mut first) = (0, 0);
        while let Some(&hash) = self.n_grams.get(first) {
            let entry = self.table.entry(hash, first);
            entry.count += 1;
            if entry.count == 1 {
                first += 1;
            } else {
                repeated += self.chars(first, n);
                first += n;
            }
        }
        repeated
    }
}

/// The polynomial of the hash is evaluated here, modulo 2^61 - 1: a number without structure.
const BASE: u64 = 0x0F3A_91C4_5B7D_26E9;
const MODULUS: u64 = (1 << 61) - 1;

/// `sum` is below 2^62.
fn modulo(sum: u64) -> u64 {
    if sum >= MODULUS { sum - MODULUS } else { sum }
}

fn multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    #[expect(clippy::cast_possible_truncation, reason = "61 bits, and the 61 above them")]
    let (low, high) = (product as u64 & MODULUS, (product >> 61) as u64);
    modulo(low + high)
}

/// Counts of hashes: open addressing, emptied by moving on to the next round.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    mask: usize,
    round: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u64,
    /// Of an older round: the place is free.
    round: u32,
    first: u32,
    count: u64,
}

impl Table {
    /// Empties the table and makes room for `n` hashes.
    fn clear(&mut self, n: usize) {
        let size = (2 * n).next_power_of_two();
        if size > self.entries.len() || self.round == u32::MAX {
            self.entries = vec![Entry::default(); size.max(self.entries.len())];
            self.round = 0;
        }
        // Short texts use the first part only, which stays in the cache.
        self.mask = size - 1;
        self.round += 1;
    }

    /// Returns the entry of `hash`, a new one with count 0 where there is none.
    fn entry(&mut self, hash: u64, first: usize) -> &mut Entry {
        #[expect(clippy::cast_possible_truncation, reason = "the mask keeps fewer bits")]
        let mut place = (hash ^ (hash >> 32)) as usize & self.mask;
        while self.entries[place].round == self.round && self.entries[place].hash != hash {
            place = (place + 1) & self.mask;
        }
        let entry = &mut self.entries[place];
        if entry.round != self.round {
            let first = u32::try_from(first).expect("a text is below 4 GiB");
            *entry = Entry { hash, round: self.round, first, count: 0 };
        }
        entry
    }

    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries[..=self.mask].iter().filter(|entry| entry.round == self.round)
    }

    /// Returns the highest count and the first place of its hash; of equal counts, the one that came first.
    fn commonest(&self) -> Option<(u64, usize)> {
        let best = self.live().max_by_key(|entry| (entry.count, std::cmp::Reverse(entry.first)))?;
        Some((best.count, best.first as usize))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::filter::tests::{reasons, verdicts};

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, "", &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    fn signal(text: &str, index: usize) -> f64 {
        let verdicts = verdicts(&KIND, "", &[text]);
        verdicts.signals[index].as_any().downcast_ref::<Float64Array>().unwrap().value(0)
    }

    // Counted by hand from the rules of datatrove.
    #[test]
    fn counts_second_and_later_copies_of_paragraphs_and_lines() {
        assert_eq!(signal("ab\n\ncd\n\n\nab\n", 0), 1.0 / 3.0);
        assert_eq!(signal("ab\n\ncd\n\n\nab\n", 1), 2.0 / 12.0);
        assert_eq!(signal("ab\ncd\n\nab\n", 2), 1.0 / 4.0);
        check("ab\n\ncd\n\n\nab\n", Some("duplicate_paragraphs"));
        check("", Some("empty"));
    }

    #[test]
    fn counts_the_commonest_n_gram_with_its_spaces() {
        // `a b` twice, three characters each, of 9.
        assert_eq!(signal("a b c a b", 4), 6.0 / 9.0);
        // All 3-grams once: the first of them, of 5 characters.
        assert_eq!(signal("a b c a b", 5), 5.0 / 9.0);
    }

    /// What DCLM's rules say of texts; `make_dclm.py` beside it says how.
    #[test]
    fn decides_as_dclm_does() {
        let golden = include_str!("../../tests/golden/dclm.json");
        let golden: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
        let texts: Vec<&str> = golden.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let found = reasons(&KIND, "profile = 'dclm'", &texts);
        for (case, found) in golden.iter().zip(found) {
            assert_eq!(found.as_deref(), case["repetition"].as_str(), "{case}");
        }
    }

    #[test]
    fn jumps_over_each_duplicate_n_gram() {
        assert_eq!(signal("a b c d e a b c d e", 7), 5.0 / 19.0);
        assert_eq!(signal("a b c d e a b c d e", 8), 0.0);
    }
}
