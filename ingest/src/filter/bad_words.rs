//! Drops pages that hold a word of a list, as C4 does with rude ones.

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::words::{class, classes};
use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "bad_words",
    summary: "pages that hold a word of a list",
    source: "Raffel et al. 2020, C4; datatrove 0.10.1, C4BadWordsFilter; list: LDNOOBW, English, CC BY 4.0",
    signals: &[Signal {
        name: "bad_words",
        data_type: DataType::UInt64,
        summary: "places where an entry of the list stands",
    }],
    reasons: &["bad_word"],
    files: &[FileKey { key: "list", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(BadWords::new(config::from_table("bad_words", table)?)?)),
};

/// English, as its project publishes it.
const ENGLISH: &str = include_str!("../../data/ldnoobw/en.txt");

/// Entries that C4 allows since they are parts of other words in Japanese and Chinese. datatrove takes them off the list of every
/// language, and so does this filter.
const ALLOWED: [&str; 4] = ["sm", "グロ", "女の子", "性"];

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A file of words and phrases, one a line, in lower case; empty for the English list that is built in.
    list: String,
    /// Language of the list: entries of `ja`, `th` and `zh` count inside of words, too.
    language: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { list: String::new(), language: "en".to_owned() }
    }
}

#[derive(Debug)]
struct BadWords {
    automaton: AhoCorasick,
    has_borders: bool,
}

impl BadWords {
    fn new(config: Config) -> Result<Self> {
        let invalid = |message: String| config::invalid("bad_words", message);
        let own;
        let list = if !config.list.is_empty() {
            own = std::fs::read_to_string(&config.list).map_err(Error::io("read", &config.list))?;
            &own
        } else if config.language == "en" {
            ENGLISH
        } else {
            return Err(invalid(format!(
                "no list is built in for `language = \"{}\"`\nhint: name a file of words in `list`",
                config.language
            )));
        };
        let entries: Vec<&str> = list
            .lines()
            .map(str::trim)
            .filter(|entry| !entry.is_empty() && !ALLOWED.contains(entry))
            .collect();
        if entries.is_empty() {
            return Err(invalid(format!("`list` names `{}`, which holds no word", config.list)));
        }
        let automaton = AhoCorasick::new(&entries)
            .map_err(|error| invalid(format!("`list` is too large: {error}")))?;
        let has_borders = !matches!(config.language.as_str(), "ja" | "th" | "zh");
        Ok(Self { automaton, has_borders })
    }

    fn count(&self, text: &str) -> u64 {
        let text = text.to_lowercase();
        let is_border = |c: Option<char>| c.is_none_or(|c| classes(c) & class::WORD == 0);
        let is_whole = |start: usize, end: usize| {
            is_border(text[..start].chars().next_back()) && is_border(text[end..].chars().next())
        };
        self.automaton
            .find_overlapping_iter(&text)
            .filter(|found| !self.has_borders || is_whole(found.start(), found.end()))
            .count() as u64
    }
}

impl Filter for BadWords {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let counts: UInt64Array =
            texts.iter().map(|text| Some(self.count(text.unwrap_or_default()))).collect();
        let reasons: StringArray =
            counts.values().iter().map(|&n| (n > 0).then_some("bad_word")).collect();
        let signals: Vec<ArrayRef> = vec![Arc::new(counts)];
        Ok(Verdicts { reasons, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::reasons;

    fn check(list: &str, language: &str, text: &str, is_dropped: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, list).unwrap();
        let config = format!("list = {path:?}\nlanguage = '{language}'");
        let expected = is_dropped.then(|| "bad_word".to_owned());
        assert_eq!(reasons(&KIND, &config, &[text]), [expected], "{text:?}");
    }

    // By hand from datatrove's pattern `(?:\W|^)(…)(?:\W|$)`, searched in the text in lower case.
    #[test]
    fn finds_whole_words_only_where_languages_have_them() {
        check("mill\nold miller\n", "en", "The MILL.", true);
        check("mill\nold miller\n", "en", "The mill_ and 2mill, millers", false);
        check("mill\nold miller\n", "en", "an old miller", true);
        check("mill\nold miller\n", "en", "an old\nmiller", false);
        check("粉\n", "ja", "小麦粉屋", true);
        check("粉\n", "de", "小麦粉屋", false);
    }

    #[test]
    fn allows_in_every_language_what_c4_allows_in_japanese_and_chinese() {
        check("sm\nmill\n", "en", "sm", false);
        check("性\n粉\n", "zh", "性", false);
    }

    #[test]
    fn asks_for_a_list_where_none_is_built_in() {
        let table: toml::Table = "language = 'de'".parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("hint: name a file"), "{error}");
    }
}
