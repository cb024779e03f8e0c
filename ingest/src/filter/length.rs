//! Drops documents that are too short or too long.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "length",
    summary: "limits on characters and words",
    source: "Unicode code points; words are runs of non-white-space",
    signals: &[
        Signal { name: "chars", data_type: DataType::UInt64, summary: "code points of the text" },
        Signal { name: "words", data_type: DataType::UInt64, summary: "runs of non-white-space" },
    ],
    reasons: &["too_few_chars", "too_few_words", "too_many_chars", "too_many_words"],
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        let config: Config = config::from_table("length", table)?;
        if config.min_chars > config.max_chars || config.min_words > config.max_words {
            return Err(config::invalid("length", format!("no document can pass {config:?}")));
        }
        Ok(Box::new(Length { config }))
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    min_chars: u64,
    max_chars: u64,
    min_words: u64,
    max_words: u64,
}

impl Default for Config {
    fn default() -> Self {
        // Every text with a character passes: the limits are the job's to choose. TOML integers end at 2^63 - 1.
        let unlimited = i64::MAX.unsigned_abs();
        Self { min_chars: 1, max_chars: unlimited, min_words: 0, max_words: unlimited }
    }
}

#[derive(Debug)]
struct Length {
    config: Config,
}

impl Length {
    fn reason(&self, chars: u64, words: u64) -> Option<&'static str> {
        let config = &self.config;
        if chars < config.min_chars {
            Some("too_few_chars")
        } else if chars > config.max_chars {
            Some("too_many_chars")
        } else if words < config.min_words {
            Some("too_few_words")
        } else if words > config.max_words {
            Some("too_many_words")
        } else {
            None
        }
    }
}

impl Filter for Length {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let counts =
            |text: &str| (text.chars().count() as u64, text.split_whitespace().count() as u64);
        let (chars, words): (Vec<u64>, Vec<u64>) =
            texts.iter().map(|text| counts(text.unwrap_or_default())).unzip();
        let reasons: StringArray =
            chars.iter().zip(&words).map(|(&chars, &words)| self.reason(chars, words)).collect();
        let signals: Vec<ArrayRef> =
            vec![Arc::new(UInt64Array::from(chars)), Arc::new(UInt64Array::from(words))];
        Ok(Verdicts { reasons, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::reasons;

    fn check(config: &str, text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, config, &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    #[test]
    fn counts_code_points_not_bytes() {
        check("max_chars = 3", "äöü", None);
        check("max_chars = 2", "äöü", Some("too_many_chars"));
        check("", "", Some("too_few_chars"));
    }

    #[test]
    fn counts_words_between_any_white_space() {
        check("min_words = 3", "one\u{a0}two\nthree", None);
        check("min_words = 4", "one\u{a0}two\nthree", Some("too_few_words"));
        check("max_words = 2", "one two three", Some("too_many_words"));
    }

    #[test]
    fn refuses_limits_that_nothing_can_pass() {
        let table: toml::Table = "min_chars = 5\nmax_chars = 4".parse().unwrap();
        assert!((KIND.build)(&table).is_err());
    }
}
