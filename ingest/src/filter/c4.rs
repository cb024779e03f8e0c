//! Drops pages with few sentences in good lines, placeholder text or code: the page rules of C4.
//!
//! The rules judge lines first, and a page by the lines that are left. This filter only judges; the modifier `c4_lines` with the
//! same profile takes the bad lines and citation marks out of the text.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use aho_corasick::AhoCorasick;
use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::words::{self, Word, class, classes};
use super::{Analysis, Filter, FilterKind, Signal, Verdicts, config, line_ranges, text_column};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "c4",
    summary: "pages with too few sentences in good lines, placeholder text or curly brackets",
    source: "Raffel et al. 2020, C4; profiles `datatrove` and `fineweb`: datatrove 0.10.1, c4_filters.py, and its call in fineweb.py",
    signals: &[
        count("lines", "lines, up to the one that dropped the page"),
        count("kept_lines", "lines that no rule takes out"),
        count("sentences", "sentences in them"),
        count("long_word_lines", "lines with an overlong word"),
        count("unpunctuated_lines", "lines without an end mark"),
        count("short_lines", "lines of few words"),
        count("javascript_lines", "lines that mention JavaScript"),
        count("policy_lines", "lines about cookies, privacy and terms of use"),
    ],
    reasons: &["curly_bracket", "lorem_ipsum", "too_few_sentences"],
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(C4 { config: Config::read("c4", table)? })),
};

const fn count(name: &'static str, summary: &'static str) -> Signal {
    Signal { name, data_type: DataType::UInt64, summary }
}

/// Whose reading of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// Lines end in `.`, `?`, `!` or a straight quote, pages have five sentences of spaCy's sentencizer.
    #[default]
    Datatrove,
    /// As FineWeb calls it: lines may end in anything.
    Fineweb,
}

/// The profile sets the other keys; those that a job sets win.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    profile: Profile,
    /// Whether lines must end in an end mark, and not in `...`.
    ends_lines: bool,
    min_words_per_line: u64,
    /// Characters of a word above which its line goes.
    max_word_chars: u64,
    min_sentences: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Profile::Datatrove)
    }
}

impl Config {
    fn of(profile: Profile) -> Self {
        Self {
            profile,
            ends_lines: profile == Profile::Datatrove,
            min_words_per_line: 3,
            max_word_chars: 1000,
            min_sentences: 5,
        }
    }

    /// Returns the configuration that `table` sets for the step `name`.
    pub(crate) fn read(name: &str, table: &toml::Table) -> Result<Self> {
        config::from_profile(name, table, |config: &Self| Self::of(config.profile))
    }
}

/// What a rule makes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It stays: this range of the text, without the citation marks in it.
    Kept(Range<usize>, Vec<Range<usize>>),
    /// A rule takes it out.
    Dropped(&'static str),
    /// It drops the page.
    Page(&'static str),
}

/// The rules of lines in their order; signals count them in this order, too.
const RULES: [&str; 5] =
    ["long_word_line", "unpunctuated_line", "short_line", "javascript_line", "policy_line"];

/// Phrases, lower case: the first drops pages, the others lines.
const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

static AUTOMATON: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).expect("eight short phrases")
});

/// What is known of a text before its lines are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    text: &'a str,
    has_phrase: bool,
    has_curly: bool,
    has_square: bool,
}

impl<'a> Page<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let has = |byte| memchr::memchr(byte, text.as_bytes()).is_some();
        Self {
            text,
            has_phrase: first_phrase(text).is_some(),
            has_curly: has(b'{'),
            has_square: has(b'['),
        }
    }
}

/// The first of [`PHRASES`] that `text` holds, in lower case as Python makes it.
fn first_phrase(text: &str) -> Option<usize> {
    // The Kelvin sign is the only other character whose lower case has a letter of theirs and nothing else.
    let text = match text.contains('\u{212a}') {
        true => Cow::Owned(text.replace('\u{212a}', "k")),
        false => Cow::Borrowed(text),
    };
    AUTOMATON.find_iter(&*text).map(|found| found.pattern().as_usize()).min()
}

impl Config {
    /// Judges the line of `page` at `range`.
    pub(crate) fn line(&self, page: &Page<'_>, range: Range<usize>) -> Line {
        let range = strip(page.text, range);
        let line = &page.text[range.clone()];
        let (n_words, longest) = count_words(line);
        if longest > self.max_word_chars {
            return Line::Dropped(RULES[0]);
        }
        let citations = if page.has_square { citations(line, range.start) } else { Vec::new() };
        let edited = without(page.text, range.clone(), &citations);
        let has_end = || edited.ends_with(['.', '?', '!', '"', '\'']) && !edited.ends_with("...");
        if self.ends_lines && !has_end() {
            return Line::Dropped(RULES[1]);
        }
        if n_words < self.min_words_per_line {
            return Line::Dropped(RULES[2]);
        }
        // A mark taken out may bring the parts of a phrase together.
        let phrase = match page.has_phrase || !citations.is_empty() {
            true => first_phrase(&edited),
            false => None,
        };
        match phrase {
            Some(0) => Line::Page("lorem_ipsum"),
            Some(1) => Line::Dropped(RULES[3]),
            _ if page.has_curly && edited.contains('{') => Line::Page("curly_bracket"),
            Some(_) => Line::Dropped(RULES[4]),
            None => Line::Kept(range, citations),
        }
    }
}

/// `range` without white space at either end.
pub(crate) fn strip(text: &str, range: Range<usize>) -> Range<usize> {
    let is_space = |c| classes(c) & class::SPACE != 0;
    let line = text[range.clone()].trim_start_matches(is_space);
    let start = range.end - line.len();
    start..start + line.trim_end_matches(is_space).len()
}

/// Words between white space, and characters of the longest.
fn count_words(line: &str) -> (u64, u64) {
    let (mut n_words, mut longest, mut length) = (0, 0, 0);
    let mut chars = |is_space: bool| {
        if is_space {
            length = 0;
        } else {
            n_words += u64::from(length == 0);
            length += 1;
            longest = length.max(longest);
        }
    };
    if line.is_ascii() {
        line.bytes().for_each(|b| chars(matches!(b, b'\t'..=b'\r' | 0x1c..=0x1f | b' ')));
    } else {
        line.chars().for_each(|c| chars(classes(c) & class::SPACE != 0));
    }
    (n_words, longest)
}

/// Where `[12]`, `[]`, `[edit]` and `[citation needed]` stand in `line`, which begins at `offset`.
fn citations(line: &str, offset: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in memchr::memchr_iter(b'[', line.as_bytes()) {
        let rest = &line[at + 1..];
        let is_digit = |c| classes(c) & class::DECIMAL != 0;
        let digits = rest.len() - rest.trim_start_matches(is_digit).len();
        let length = match () {
            () if rest[digits..].starts_with(']') => digits + 2,
            () if rest.starts_with("edit]") => 6,
            () if rest.starts_with("citation needed]") => 17,
            () => continue,
        };
        found.push(offset + at..offset + at + length);
    }
    found
}

/// The text at `range` without `holes`.
fn without<'a>(text: &'a str, range: Range<usize>, holes: &[Range<usize>]) -> Cow<'a, str> {
    if holes.is_empty() {
        return Cow::Borrowed(&text[range]);
    }
    let mut out = String::with_capacity(range.len());
    let mut at = range.start;
    for hole in holes {
        out.push_str(&text[at..hole.start]);
        at = hole.end;
    }
    out.push_str(&text[at..range.end]);
    Cow::Owned(out)
}

#[derive(Debug)]
struct C4 {
    config: Config,
}

const N_SIGNALS: usize = 8;

impl Filter for C4 {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        self.judge_with(documents, &mut Analysis::default())
    }

    fn judge_with(&self, documents: &RecordBatch, analysis: &mut Analysis) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let words = analysis.words(texts).iter();
        let rows: Vec<([u64; N_SIGNALS], Option<&'static str>)> = texts
            .iter()
            .zip(words)
            .map(|(text, words)| self.judge_page(text.unwrap_or_default(), words))
            .collect();
        let reasons: StringArray = rows.iter().map(|(_, reason)| *reason).collect();
        let signal = |index: usize| -> ArrayRef {
            Arc::new(rows.iter().map(|(signals, _)| Some(signals[index])).collect::<UInt64Array>())
        };
        Ok(Verdicts { reasons, signals: (0..N_SIGNALS).map(signal).collect() })
    }
}

impl C4 {
    fn judge_page(&self, text: &str, words: &[Word]) -> ([u64; N_SIGNALS], Option<&'static str>) {
        let page = Page::new(text);
        let mut signals = [0; N_SIGNALS];
        let mut words = words;
        for range in line_ranges(text) {
            signals[0] += 1;
            match self.config.line(&page, range) {
                Line::Page(reason) => return (signals, Some(reason)),
                Line::Dropped(rule) => {
                    let place = RULES.iter().position(|name| *name == rule);
                    signals[3 + place.expect("one of the rules")] += 1;
                }
                Line::Kept(range, citations) => {
                    signals[1] += 1;
                    signals[2] += if citations.is_empty() {
                        // Words never reach over the end of a line, so those of the text are those of the line.
                        let skipped = words.partition_point(|word| word.range().end <= range.start);
                        let inside =
                            words[skipped..].partition_point(|word| word.range().end <= range.end);
                        let here = &words[skipped..skipped + inside];
                        words = &words[skipped + inside..];
                        words::n_sentences(&text[range.clone()], range.start, here)
                    } else {
                        let edited = without(text, range, &citations);
                        words::n_sentences(&edited, 0, &words::of(&edited))
                    };
                }
            }
        }
        (signals, (signals[2] < self.config.min_sentences).then_some("too_few_sentences"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::{reasons, verdicts};

    fn check(config: &str, text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, config, &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    const FIVE: &str = "He came home. It was late. Was it? It was! So he slept.\n";

    // By hand from the rules of datatrove.
    #[test]
    fn counts_sentences_in_lines_that_end_one() {
        check("", FIVE, None);
        check(
            "",
            "He came home. It was late. Was it? It was! So he slept\n",
            Some("too_few_sentences"),
        );
        check(
            "profile = 'fineweb'",
            "He came home. It was late. Was it? It was! So he slept\n",
            None,
        );
        check("profile = 'fineweb'\nmin_sentences = 6", FIVE, Some("too_few_sentences"));
        check("", "", Some("too_few_sentences"));
    }

    #[test]
    fn drops_pages_only_for_lines_that_the_earlier_rules_kept() {
        check("", &format!("{FIVE}a {{ b }}\n"), None);
        check("profile = 'fineweb'", &format!("{FIVE}a {{ b }}\n"), Some("curly_bracket"));
        check("", &format!("{FIVE}Lorem Ipsum dolor sit amet.\n"), Some("lorem_ipsum"));
        check("", &format!("{FIVE}Please enable JavaScript { } here.", "{"), None);
    }

    #[test]
    fn counts_lines_by_the_rule_that_takes_them_out() {
        let long = format!("See {} here.\n", "x".repeat(1001));
        let text = format!(
            "{FIVE}{long}no end mark here\nso it went on ...\nToo short.\nEnable javascript now.\nWe use cooKies here.\n"
        );
        let verdicts = verdicts(&KIND, "", &[&text]);
        let values: Vec<u64> = verdicts
            .signals
            .iter()
            .map(|signal| signal.as_any().downcast_ref::<UInt64Array>().unwrap().value(0))
            .collect();
        assert_eq!(values, [7, 1, 5, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn takes_citation_marks_out_before_it_looks_for_an_end_mark() {
        check("min_sentences = 1", "He came home.[12][edit]", None);
        check("min_sentences = 1", "He came home.[x]", Some("too_few_sentences"));
        check("min_sentences = 1", "Enable java[1]script here.", Some("too_few_sentences"));
    }
}
