//! Drops text that repeats itself: lines, paragraphs, n-grams of words.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::n_grams::Scratch;
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
    scratch.restart();
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
