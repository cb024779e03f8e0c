//! Drops pages that read like lists: few ends of sentences, short lines, lines that come again.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::words::{class, classes};
use super::{
    Analysis, Filter, FilterKind, Signal, Verdicts, chars, config, find_duplicates, ratio,
    text_column,
};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "fineweb_quality",
    summary: "line ends, short and repeated lines, as FineWeb filters",
    source: "Penedo et al. 2024, FineWeb; datatrove 0.10.1, fineweb_quality_filter.py",
    signals: &[
        Signal {
            name: "punctuated_lines",
            data_type: DataType::Float64,
            summary: "share of lines that end a sentence",
        },
        Signal {
            name: "short_lines",
            data_type: DataType::Float64,
            summary: "share of lines of few characters",
        },
        Signal {
            name: "duplicate_chars",
            data_type: DataType::Float64,
            summary: "characters in lines that stood before, per character outside line feeds",
        },
        Signal {
            name: "line_feed_ratio",
            data_type: DataType::Float64,
            summary: "line feeds per word",
        },
    ],
    reasons: &[
        "empty",
        "too_few_punctuated_lines",
        "too_many_short_lines",
        "too_many_duplicate_chars",
        "too_many_line_feeds",
    ],
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(FinewebQuality { config: config::from_table("fineweb_quality", table)? }))
    },
};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    min_punctuated_lines: f64,
    /// Characters of a line that is still short.
    short_line_chars: u64,
    max_short_lines: f64,
    max_duplicate_chars: f64,
    max_line_feed_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        // Penedo et al. 2024, section 3.6; datatrove's defaults.
        Self {
            min_punctuated_lines: 0.12,
            short_line_chars: 30,
            max_short_lines: 0.67,
            max_duplicate_chars: 0.01,
            max_line_feed_ratio: 0.3,
        }
    }
}

#[derive(Debug)]
struct FinewebQuality {
    config: Config,
}

impl Filter for FinewebQuality {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        self.judge_with(documents, &mut Analysis::default())
    }

    fn judge_with(&self, documents: &RecordBatch, analysis: &mut Analysis) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let words = analysis.words(texts).iter();
        let rows: Vec<[Option<f64>; 4]> = texts
            .iter()
            .zip(words)
            .map(|(text, words)| self.measure(text.unwrap_or_default(), words.len() as u64))
            .collect();
        let reasons: StringArray = rows.iter().map(|signals| self.reason(signals)).collect();
        let signal = |index: usize| -> ArrayRef {
            Arc::new(rows.iter().map(|signals| signals[index]).collect::<Float64Array>())
        };
        Ok(Verdicts { reasons, signals: (0..4).map(signal).collect() })
    }
}

impl FinewebQuality {
    fn measure(&self, text: &str, n_words: u64) -> [Option<f64>; 4] {
        let is_blank = |line: &str| line.chars().all(|c| classes(c) & class::SPACE != 0);
        let lines = || text.split('\n').filter(|line| !is_blank(line));
        let (mut n_lines, mut n_ended, mut n_short) = (0, 0, 0);
        for line in lines() {
            n_lines += 1;
            n_ended += u64::from(line.ends_with(|c| classes(c) & class::TERMINAL != 0));
            n_short += u64::from(chars(line) <= self.config.short_line_chars);
        }
        let n_feeds = memchr::memchr_iter(b'\n', text.as_bytes()).count() as u64;
        let (_, _, copied) = find_duplicates(lines());
        [
            ratio(n_ended, n_lines),
            ratio(n_short, n_lines),
            ratio(copied, chars(text) - n_feeds),
            ratio(n_feeds, n_words),
        ]
    }

    fn reason(&self, signals: &[Option<f64>; 4]) -> Option<&'static str> {
        let config = &self.config;
        // A text without a line has nothing to measure; one with a line has characters and words.
        let [Some(ended), Some(short), Some(duplicate), Some(feeds)] = *signals else {
            return Some("empty");
        };
        if ended < config.min_punctuated_lines {
            Some("too_few_punctuated_lines")
        } else if short > config.max_short_lines {
            Some("too_many_short_lines")
        } else if duplicate > config.max_duplicate_chars {
            Some("too_many_duplicate_chars")
        } else if feeds > config.max_line_feed_ratio {
            Some("too_many_line_feeds")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::reasons;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, "", &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    // By hand from the rules; straight quotes are no terminal punctuation.
    #[test]
    fn drops_pages_that_read_like_lists() {
        let line = "The mill stood by the river, and the miller was old.";
        check(line, None);
        check(" \n\n", Some("empty"));
        check(
            &format!("{line}\"\nAnother line of the same length without an end"),
            Some("too_few_punctuated_lines"),
        );
        check(&format!("{line}\nHome.\nNews.\nMore."), Some("too_many_short_lines"));
        check(&format!("{line}\n{line}"), Some("too_many_duplicate_chars"));
        check(&format!("{line}\n\n\n\n\nAnd that is what they said of it there."), None);
        check(
            &format!("{line}{}And that is what they said of it there.", "\n".repeat(9)),
            Some("too_many_line_feeds"),
        );
    }
}
