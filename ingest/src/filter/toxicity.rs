//! Drops text with many words that are on a list of rude ones.
//!
//! A list knows no context: it finds slurs and pornography, and also medicine. Its precision is high and its recall low, so
//! the score is a signal to sort by rather than a verdict on a speaker.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use arrow::array::{Array, ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Filter, FilterKind, Signal, Verdicts, config, ratio, text_column};
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "toxicity",
    summary: "share and number of words on a list of rude ones",
    source: "List of Dirty, Naughty, Obscene, and Otherwise Bad Words (LDNOOBW), English, CC BY 4.0",
    signals: &[
        Signal {
            name: "toxicity",
            data_type: DataType::Float64,
            summary: "share of words that are on the list, 0 to 1",
        },
        Signal {
            name: "toxic_words",
            data_type: DataType::UInt64,
            summary: "words and phrases on the list",
        },
    ],
    reasons: &["too_many_toxic_words", "too_toxic"],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Toxicity::new(config::from_table("toxicity", table)?)?)),
};

/// English, as its project publishes it.
const ENGLISH: &str = include_str!("../../data/ldnoobw-en.txt");

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A file of words and phrases, one a line; empty for the English list that is built in.
    list: String,
    /// Share of words above which a text is dropped.
    max_share: f64,
    /// Hits above which a text is dropped, however long it is.
    max_count: u64,
}

impl Default for Config {
    fn default() -> Self {
        // Data-Juicer's `flagged_words_filter` drops above 0.045; no implementation counts, so no limit is set.
        Self { list: String::new(), max_share: 0.045, max_count: i64::MAX.unsigned_abs() }
    }
}

#[derive(Debug)]
struct Toxicity {
    config: Config,
    automaton: AhoCorasick,
    /// Words of each entry.
    n_words: Vec<u64>,
}

impl Toxicity {
    fn new(config: Config) -> Result<Self> {
        let own;
        let list = if config.list.is_empty() {
            ENGLISH
        } else {
            own = std::fs::read_to_string(&config.list).map_err(Error::io("read", &config.list))?;
            &own
        };
        let entries: Vec<&str> =
            list.lines().map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.is_empty() {
            return Err(config::invalid(
                "toxicity",
                format!("`list` names `{}`, which holds no word", config.list),
            ));
        }
        let n_words = entries.iter().map(|entry| entry.split_whitespace().count() as u64).collect();
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&entries)
            .map_err(|error| {
                config::invalid("toxicity", format!("`list` is too large: {error}"))
            })?;
        Ok(Self { config, automaton, n_words })
    }

    /// Returns hits, words inside hits, and words of `text`. A hit begins and ends where a word does.
    fn count(&self, text: &str) -> (u64, u64, u64) {
        let goes_on = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let (mut n_hits, mut n_toxic) = (0, 0);
        let mut best: Option<(usize, usize, u64)> = None;
        // Matches come ordered by their end: of those that overlap, the longest that begins first counts.
        for found in self.automaton.find_overlapping_iter(text) {
            let (start, end) = (found.start(), found.end());
            let is_whole =
                !goes_on(text[..start].chars().next_back()) && !goes_on(text[end..].chars().next());
            if !is_whole {
                continue;
            }
            let words = self.n_words[found.pattern().as_usize()];
            match best {
                Some((_, last_end, _)) if start >= last_end => {
                    (n_hits, n_toxic) = (n_hits + 1, n_toxic + best.map_or(0, |hit| hit.2));
                    best = Some((start, end, words));
                }
                Some((last_start, ..)) if start > last_start => {}
                _ => best = Some((start, end, words)),
            }
        }
        if let Some((.., words)) = best {
            (n_hits, n_toxic) = (n_hits + 1, n_toxic + words);
        }
        (n_hits, n_toxic, text.split_whitespace().count() as u64)
    }
}

impl Filter for Toxicity {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let mut shares = Vec::with_capacity(texts.len());
        let mut counts = Vec::with_capacity(texts.len());
        let mut reasons = Vec::with_capacity(texts.len());
        for text in texts.iter().map(Option::unwrap_or_default) {
            let (n_hits, n_toxic, n_words) = self.count(text);
            // `one/two` is one word between white space and may be two hits.
            let share = ratio(n_toxic, n_words).unwrap_or(0.0).min(1.0);
            reasons.push(if share > self.config.max_share {
                Some("too_toxic")
            } else if n_hits > self.config.max_count {
                Some("too_many_toxic_words")
            } else {
                None
            });
            shares.push(share);
            counts.push(n_hits);
        }
        let signals: Vec<ArrayRef> =
            vec![Arc::new(Float64Array::from(shares)), Arc::new(UInt64Array::from(counts))];
        Ok(Verdicts { reasons: StringArray::from(reasons), signals })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::filter::tests::verdicts;

    /// A list of harmless words keeps the tests readable.
    fn check(config: &str, text: &str, expected: (f64, u64, Option<&str>)) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("turnip\nboiled turnip\nboiled\nleek\n".as_bytes()).unwrap();
        let config = format!("list = '{}'\n{config}", file.path().display());
        let verdicts = verdicts(&KIND, &config, &[text]);
        let share = verdicts.signals[0].as_any().downcast_ref::<Float64Array>().unwrap().value(0);
        let count = verdicts.signals[1].as_any().downcast_ref::<UInt64Array>().unwrap().value(0);
        assert_eq!((share, count, verdicts.reasons.iter().next().unwrap()), expected, "{text:?}");
    }

    #[test]
    fn counts_whole_words_in_any_case() {
        check("max_share = 1.0", "A Turnip, a TURNIP; no turnips or saturnip.", (0.25, 2, None));
        check("", "A quiet place.", (0.0, 0, None));
        check("", "", (0.0, 0, None));
    }

    #[test]
    fn counts_a_phrase_once_with_all_its_words() {
        check("max_share = 1.0", "one boiled turnip here", (0.5, 1, None));
        check("max_share = 1.0", "boiled leek", (1.0, 2, None));
    }

    #[test]
    fn drops_by_share_and_by_count() {
        check("", "a turnip", (0.5, 1, Some("too_toxic")));
        check(
            "max_share = 1.0\nmax_count = 1",
            "turnip leek",
            (1.0, 2, Some("too_many_toxic_words")),
        );
    }

    #[test]
    fn carries_the_english_list_and_says_which_file_is_missing() {
        assert!(Toxicity::new(Config::default()).unwrap().n_words.len() > 400);
        let table: toml::Table = "list = 'no/such/list.txt'".parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("no/such/list.txt"), "{error}");
    }
}
