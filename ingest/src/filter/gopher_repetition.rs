//! Drops text that repeats itself: lines, paragraphs, n-grams of words.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Filter, FilterKind, Signal, Verdicts, chars, config, find_duplicates, ratio, text_column, words,
};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "gopher_repetition",
    summary: "repeated lines, paragraphs and word n-grams",
    source: "Rae et al. 2021, table A1; profile `datatrove`: datatrove 0.10.1, gopher_repetition_filter.py",
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
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(GopherRepetition { config: config::from_table("gopher_repetition", table)? }))
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
        // Rae et al. 2021, table A1.
        Self {
            profile: Profile::Datatrove,
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_chars: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_chars: 0.2,
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
        let texts = text_column(documents)?;
        let mut rows = Vec::with_capacity(texts.len());
        let mut scratch = Scratch::default();
        words::for_each(texts, |text, words| rows.push(measure(text, words, &mut scratch)));
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
        if signals[0].is_none() {
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
        signals.iter().zip(limits).position(is_broken).map(|rule| REASONS[rule])
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are `u64`");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Buffers that are kept from row to row.
#[derive(Debug, Default)]
struct Scratch {
    /// Characters of the words before each word.
    chars_before: Vec<u64>,
    joined: Vec<u8>,
    /// Where each word begins in `joined`.
    starts: Vec<usize>,
    counts: HashMap<u64, (u64, u64), BuildHasherDefault<Unhashed>>,
    seen: HashSet<u64, BuildHasherDefault<Unhashed>>,
}

fn measure(text: &str, words: &[&str], scratch: &mut Scratch) -> [Option<f64>; N_SIGNALS] {
    let mut signals = [None; N_SIGNALS];
    if text.is_empty() {
        return signals;
    }
    let n_chars = chars(text);
    let stripped = text.trim_matches(|c| words::classes(c) & words::class::SPACE != 0);
    let (n, copies, copied) = find_duplicates(split_at_feeds(stripped, 2));
    (signals[0], signals[1]) = (ratio(copies, n), ratio(copied, n_chars));
    let (n, copies, copied) = find_duplicates(split_at_feeds(text, 1));
    (signals[2], signals[3]) = (ratio(copies, n), ratio(copied, n_chars));
    scratch.load(words);
    for (index, n) in (2..=4).enumerate() {
        signals[4 + index] =
            scratch.top_n_gram(words.len(), n).and_then(|chars| ratio(chars, n_chars));
    }
    for (index, n) in (5..=10).enumerate() {
        signals[7 + index] = ratio(scratch.duplicate_n_grams(words.len(), n), n_chars);
    }
    signals
}

/// Splits at runs of at least `n` line feeds, as `re.split(r"\n{n,}")` does.
fn split_at_feeds(text: &str, n: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &text.as_bytes()[from..]) {
            let at = from + found;
            let feeds = text.as_bytes()[at..].iter().take_while(|&&byte| byte == b'\n').count();
            if feeds >= n {
                rest = Some(&text[at + feeds..]);
                return Some(&text[..at]);
            }
            from = at + feeds;
        }
        rest = None;
        Some(text)
    })
}

impl Scratch {
    fn load(&mut self, words: &[&str]) {
        self.joined.clear();
        self.starts.clear();
        self.chars_before.clear();
        let mut n_chars = 0;
        for word in words {
            self.starts.push(self.joined.len());
            self.chars_before.push(n_chars);
            self.joined.extend_from_slice(word.as_bytes());
            n_chars += chars(word);
        }
        self.starts.push(self.joined.len());
        self.chars_before.push(n_chars);
    }

    /// Characters of the commonest n-gram times its copies, words joined by spaces; of equals the one that came first counts.
    fn top_n_gram(&mut self, n_words: usize, n: usize) -> Option<u64> {
        self.counts.clear();
        // Where words begin tells `a bc` from `ab c`; words hold no white space.
        let mut best = (0, 0, 0);
        for first in 0..(n_words + 1).saturating_sub(n) {
            let bytes = &self.joined[self.starts[first]..self.starts[first + n]];
            let lengths = (1..n).fold(0u64, |hash, i| {
                let offset = (self.starts[first + i] - self.starts[first]) as u64;
                (hash ^ offset).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            });
            let n_chars = self.chars_before[first + n] - self.chars_before[first] + n as u64 - 1;
            let key = xxh3_64(bytes) ^ lengths;
            let (count, at) = match self.counts.entry(key) {
                Entry::Occupied(mut entry) => {
                    entry.get_mut().0 += 1;
                    *entry.get()
                }
                Entry::Vacant(entry) => *entry.insert((1, first as u64)),
            };
            // More copies win; among equals the one seen first.
            if count > best.0 || (count == best.0 && at < best.1) {
                best = (count, at, n_chars);
            }
        }
        (best.0 > 0).then_some(best.0 * best.2)
    }

    /// Characters of n-grams that stood before, words joined without spaces, jumping over each one that is found.
    fn duplicate_n_grams(&mut self, n_words: usize, n: usize) -> u64 {
        self.seen.clear();
        let (mut repeated, mut first) = (0, 0);
        while first + n <= n_words {
            let bytes = &self.joined[self.starts[first]..self.starts[first + n]];
            if self.seen.insert(xxh3_64(bytes)) {
                first += 1;
            } else {
                repeated += self.chars_before[first + n] - self.chars_before[first];
                first += n;
            }
        }
        repeated
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn jumps_over_each_duplicate_n_gram() {
        assert_eq!(signal("a b c d e a b c d e", 7), 5.0 / 19.0);
        assert_eq!(signal("a b c d e a b c d e", 8), 0.0);
    }
}
