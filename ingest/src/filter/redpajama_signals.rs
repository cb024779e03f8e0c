//! Measures what RedPajama-V2 publishes of each document, and drops nothing: a job's `where` does.
//!
//! Names, definitions and rounding are RedPajama's. Signals of lines are its JSON, one `[start, end, value]` a line, in characters. Three
//! families of its signals are not here: CCNet's own fields, which come with CCNet's files; importance weights, which count words by
//! Python's `hash`, another in every process unless its seed is fixed; and MinHash signatures, which are a dataset of `[dedup]`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, StringArray, StringViewArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use url::Url;

use super::n_grams;
use super::words::{self, class, classes};
use super::{
    FileKey, Filter, FilterKind, Signal, Verdicts, chars, config, lines, ratio, text_column,
};
use crate::fasttext::{self, Model};
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "redpajama_signals",
    summary: "measures the quality signals of RedPajama-V2 and keeps every document",
    source: "Weber et al. 2024, RedPajama: RedPajama-Data, core/quality_signals at 855a8e0; stop words: stopwords-json 1.2.0, Apache-2.0; rude words: LDNOOBW, CC BY 4.0",
    signals: SIGNALS,
    reasons: &[],
    files: &[
        FileKey { key: "ut1", none: "" },
        FileKey { key: "wikiref_model", none: "" },
        FileKey { key: "palm_model", none: "" },
        FileKey { key: "wikipedia_model", none: "" },
    ],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(RedpajamaSignals::new(config::from_table(NAME, table)?)?)),
};

const NAME: &str = "redpajama_signals";

const fn number(name: &'static str, summary: &'static str) -> Signal {
    Signal { name, data_type: DataType::Float64, summary }
}

const fn by_line(name: &'static str, summary: &'static str) -> Signal {
    Signal { name, data_type: DataType::Utf8, summary }
}

/// Numbers of documents in the order of [`Measured::numbers`], then lines in that of [`Measured::lines`], then the category.
const SIGNALS: &[Signal] = &[
    number("rps_doc_num_sentences", "sentences: what `\\b[^.!?]+[.!?]*` finds"),
    number("rps_doc_word_count", "words of the normalized text"),
    number("rps_doc_mean_word_length", "characters of such a word, the mean"),
    number("rps_doc_symbol_to_word_ratio", "`#`, `...` and `…` per raw word"),
    number(
        "rps_doc_frac_lines_end_with_ellipsis",
        "lines that end in `...` or `…`, share of lines",
    ),
    number("rps_doc_frac_no_alph_words", "raw words without `a` to `z`, share of raw words"),
    number("rps_doc_frac_unique_words", "different words, share of words"),
    number("rps_doc_unigram_entropy", "entropy of the words, in nats"),
    number("rps_doc_frac_all_caps_words", "raw words in capitals, share of raw words"),
    number("rps_doc_ldnoobw_words", "words and phrases of the list of rude ones"),
    number("rps_doc_lorem_ipsum", "`lorem ipsum` per character of the normalized text"),
    number("rps_doc_curly_bracket", "`{` and `}` per character"),
    number("rps_doc_stop_word_fraction", "raw words that are stop words, share of raw words"),
    number("rps_doc_frac_chars_top_2gram", "characters of the commonest 2-gram, all copies, share"),
    number("rps_doc_frac_chars_top_3gram", "characters of the commonest 3-gram"),
    number("rps_doc_frac_chars_top_4gram", "characters of the commonest 4-gram"),
    number("rps_doc_frac_chars_dupe_5grams", "characters of words in 5-grams that repeat, share"),
    number("rps_doc_frac_chars_dupe_6grams", "characters of words in 6-grams that repeat"),
    number("rps_doc_frac_chars_dupe_7grams", "characters of words in 7-grams that repeat"),
    number("rps_doc_frac_chars_dupe_8grams", "characters of words in 8-grams that repeat"),
    number("rps_doc_frac_chars_dupe_9grams", "characters of words in 9-grams that repeat"),
    number("rps_doc_frac_chars_dupe_10grams", "characters of words in 10-grams that repeat"),
    number("rps_doc_ml_wikiref_score", "score of `wikiref_model`, 0 to 1; null without it"),
    number("rps_doc_ml_palm_score", "score of `palm_model`, 0 to 1; null without it"),
    number("rps_doc_ml_wikipedia_score", "score of `wikipedia_model`, 0 to 1; null without it"),
    by_line("rps_lines_javascript_counts", "`javascript` as a word, by line"),
    by_line(
        "rps_lines_ending_with_terminal_punctution_mark",
        "1 for an end in `.`, `!`, `?` or `”`",
    ),
    by_line("rps_lines_num_words", "words of the normalized line"),
    by_line(
        "rps_lines_uppercase_letter_fraction",
        "capital letters, share of the line's characters",
    ),
    by_line(
        "rps_lines_numerical_chars_fraction",
        "digits and numbers, share of the normalized line",
    ),
    by_line("rps_lines_start_with_bulletpoint", "1 for a bullet or dash at its beginning"),
    Signal {
        name: "rps_doc_ut1_blacklist",
        data_type: DataType::UInt64,
        summary: "category of the document's domain in `ut1`; null where it is in none",
    },
];

const N_NUMBERS: usize = 25;
const N_LINES: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Language of stop words and rude words: `de`, `en`, `es`, `fr` or `it`.
    language: String,
    /// JSON: numbers of UT1's categories by domain, RedPajama's `domain_to_category_id.json`.
    ut1: String,
    /// fastText model that tells references of Wikipedia from the web; its label `cc` is the web.
    wikiref_model: String,
    /// Books, OpenWebText and Wikipedia from the web.
    palm_model: String,
    /// Wikipedia from the web.
    wikipedia_model: String,
}

impl Default for Config {
    fn default() -> Self {
        let none = String::new;
        Self {
            language: "en".to_owned(),
            ut1: none(),
            wikiref_model: none(),
            palm_model: none(),
            wikipedia_model: none(),
        }
    }
}

/// Stop words and rude words, one a line, of the languages of RedPajama-V2.
const LISTS: [(&str, &str, &str); 5] = [
    ("de", include_str!("../../data/stop-words/de.txt"), include_str!("../../data/ldnoobw/de.txt")),
    ("en", include_str!("../../data/stop-words/en.txt"), include_str!("../../data/ldnoobw/en.txt")),
    ("es", include_str!("../../data/stop-words/es.txt"), include_str!("../../data/ldnoobw/es.txt")),
    ("fr", include_str!("../../data/stop-words/fr.txt"), include_str!("../../data/ldnoobw/fr.txt")),
    ("it", include_str!("../../data/stop-words/it.txt"), include_str!("../../data/ldnoobw/it.txt")),
];

#[derive(Debug)]
struct RedpajamaSignals {
    stop_words: HashSet<&'static str>,
    bad_words: HashSet<&'static str>,
    /// Words that entries of `bad_words` have, each number once.
    bad_lengths: Vec<usize>,
    categories: Option<HashMap<String, u64>>,
    models: [Option<Model>; 3],
}

/// What is measured of one document.
struct Measured {
    numbers: [Option<f64>; N_NUMBERS],
    lines: [String; N_LINES],
}

#[derive(Debug, Default)]
struct Scratch {
    n_grams: n_grams::Scratch,
    model: fasttext::Scratch,
}

impl RedpajamaSignals {
    fn new(config: Config) -> Result<Self> {
        let Some((_, stop_words, bad_words)) =
            LISTS.iter().find(|(language, ..)| *language == config.language)
        else {
            let known = LISTS.map(|(language, ..)| language).join("`, `");
            let message = format!(
                "no lists are built in for `language = \"{}\"`\nhint: there are `{known}`",
                config.language
            );
            return Err(config::invalid(NAME, message));
        };
        let bad_words: HashSet<&str> = bad_words.lines().map(str::trim).collect();
        let mut bad_lengths: Vec<usize> =
            bad_words.iter().map(|entry| 1 + entry.matches(' ').count()).collect();
        bad_lengths.sort_unstable();
        bad_lengths.dedup();
        let model =
            |path: &str| (!path.is_empty()).then(|| Model::open(Path::new(path))).transpose();
        Ok(Self {
            stop_words: stop_words.lines().collect(),
            bad_words,
            bad_lengths,
            categories: categories(&config.ut1)?,
            models: [
                model(&config.wikiref_model)?,
                model(&config.palm_model)?,
                model(&config.wikipedia_model)?,
            ],
        })
    }

    fn measure(&self, text: &str, scratch: &mut Scratch) -> Measured {
        let normalized = normalize(text);
        let words = words::split(&normalized);
        let n_words = words.len() as u64;
        let raw = RawWords::of(text, &self.stop_words);
        let has_words = !normalized.is_empty();
        let (lines, n_lines, n_ellipses) = measure_lines(text);
        let (n_different, entropy) = spread(&normalized, &words);

        scratch.n_grams.load(&normalized, &words);
        let n_chars = scratch.n_grams.all_chars();
        let mut numbers = [None; N_NUMBERS];
        numbers[0] = Some(float(n_sentences(text)));
        numbers[1] = Some(float(n_words));
        numbers[2] = share(n_chars, n_words);
        numbers[3] = share(n_symbols(text), raw.n);
        numbers[4] = share(n_ellipses, n_lines);
        // Rounded once, at the end.
        numbers[5] = ratio(raw.n_alphabetic, raw.n).map(|share| rounded(1.0 - share));
        numbers[6] = share(n_different, n_words);
        numbers[7] = entropy.map(rounded);
        numbers[8] = share(raw.n_capital, raw.n);
        numbers[9] = Some(float(self.n_bad_words(&normalized, &words)));
        let n_lorem = normalized.matches("lorem ipsum").count() as u64;
        numbers[10] = share(n_lorem, chars(&normalized)).or(Some(0.0));
        let n_brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'}')).count() as u64;
        numbers[11] = share(n_brackets, chars(text)).or(Some(0.0));
        numbers[12] = if has_words { share(raw.n_stop_words, raw.n) } else { Some(0.0) };
        for n in 2..=10 {
            scratch.n_grams.extend(n, true);
            let chars = match n {
                2..=4 => scratch.n_grams.first_top_n_gram(n),
                _ => scratch.n_grams.repeated_words(n),
            };
            numbers[11 + n] = share(chars, n_chars).or(Some(0.0));
        }
        for (place, model) in self.models.iter().enumerate() {
            numbers[22 + place] = model.as_ref().and_then(|model| score(model, text, scratch));
        }
        Measured { numbers, lines }
    }

    /// Runs of words that are entries of the list.
    fn n_bad_words(&self, normalized: &str, words: &[words::Word]) -> u64 {
        let mut found = 0;
        for &n in &self.bad_lengths {
            // Words of the normalized text are apart by one blank, as in the list.
            found += words
                .windows(n)
                .filter(|run| {
                    let place = run[0].range().start..run[n - 1].range().end;
                    self.bad_words.contains(&normalized[place])
                })
                .count() as u64;
        }
        found
    }

    fn category(&self, url: Option<&str>) -> Option<u64> {
        let url = Url::parse(url?).ok()?;
        self.categories.as_ref()?.get(url.host_str()?).copied()
    }
}

impl Filter for RedpajamaSignals {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let mut scratch = Scratch::default();
        let rows: Vec<Measured> =
            texts.iter().map(|text| self.measure(text.unwrap_or_default(), &mut scratch)).collect();
        let mut signals: Vec<ArrayRef> = Vec::with_capacity(SIGNALS.len());
        for place in 0..N_NUMBERS {
            let values = rows.iter().map(|row| row.numbers[place]);
            signals.push(Arc::new(values.collect::<Float64Array>()));
        }
        for place in 0..N_LINES {
            let values = rows.iter().map(|row| Some(row.lines[place].as_str()));
            signals.push(Arc::new(values.collect::<StringArray>()));
        }
        // SQL gives the text alone.
        let urls = documents
            .column_by_name("url")
            .and_then(|column| column.as_any().downcast_ref::<StringViewArray>());
        let url = |row: usize| urls.filter(|urls| urls.is_valid(row)).map(|urls| urls.value(row));
        let values = (0..rows.len()).map(|row| self.category(url(row)));
        signals.push(Arc::new(values.collect::<UInt64Array>()));
        Ok(Verdicts { reasons: StringArray::new_null(rows.len()), signals })
    }
}

/// Reads the categories of domains, nothing where no file is named.
fn categories(path: &str) -> Result<Option<HashMap<String, u64>>> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message = format!(
            "`ut1` names `{path}`, which is no JSON of numbers by domain: {error}\nhint: `{{\"example.com\": 3}}`"
        );
        config::invalid(NAME, message)
    })
}

/// The score of quality: the probability that `text` is not of the web.
fn score(model: &Model, text: &str, scratch: &mut Scratch) -> Option<f64> {
    if text.is_empty() {
        return None;
    }
    let line = lines(text).collect::<Vec<_>>().join(" ");
    let line = line.trim_matches(|c| classes(c) & class::SPACE != 0);
    let (label, probability) = model.predict(line, &mut scratch.model)?;
    let probability = f64::from(probability);
    let is_web = model.labels()[label] == "cc";
    Some(rounded(if is_web { 1.0 - probability } else { probability }))
}

/// Small letters without ASCII's punctuation, apart by one blank, decomposed.
fn normalize(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let lower = kept.to_lowercase();
    let mut joined = String::with_capacity(lower.len());
    for word in words::split(&lower) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&lower[word.range()]);
    }
    if joined.is_ascii() { joined } else { joined.nfd().collect() }
}

/// Counts of the tokens that NLTK's `WordPunctTokenizer` finds: runs of word characters, and of what is neither these nor white space.
#[derive(Debug, Default)]
struct RawWords {
    n: u64,
    n_alphabetic: u64,
    n_capital: u64,
    n_stop_words: u64,
}

impl RawWords {
    fn of(text: &str, stop_words: &HashSet<&str>) -> Self {
        let kind = |c: char| match classes(c) {
            found if found & class::WORD != 0 => Some(true),
            found if found & class::SPACE != 0 => None,
            _ => Some(false),
        };
        let mut counts = Self::default();
        let mut chars = text.char_indices().peekable();
        while let Some((start, first)) = chars.next() {
            let Some(is_word) = kind(first) else { continue };
            while chars.next_if(|&(_, c)| kind(c) == Some(is_word)).is_some() {}
            let end = chars.peek().map_or(text.len(), |&(at, _)| at);
            let word = &text[start..end];
            counts.n += 1;
            counts.n_alphabetic += u64::from(word.bytes().any(|byte| byte.is_ascii_alphabetic()));
            counts.n_capital += u64::from(is_upper(word));
            counts.n_stop_words += u64::from(stop_words.contains(word));
        }
        counts
    }
}

/// `str.isupper` of Python: some letter with case, and none that is small or a title's.
fn is_upper(word: &str) -> bool {
    let mut has_upper = false;
    for c in word.chars() {
        if c.is_uppercase() {
            has_upper = true;
        } else if c.is_lowercase() || is_title(c) {
            return false;
        }
    }
    has_upper
}

/// Letters of the category Lt.
fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// Matches of `\b[^.!?]+[.!?]*`.
fn n_sentences(text: &str) -> u64 {
    enum State {
        Before,
        Inside,
        AtEnd,
    }
    let is_end = |c: char| matches!(c, '.' | '!' | '?');
    let (mut n, mut state, mut was_word) = (0, State::Before, false);
    for c in text.chars() {
        let is_word = classes(c) & class::WORD != 0;
        state = match state {
            State::Inside if is_end(c) => State::AtEnd,
            State::Inside => State::Inside,
            State::AtEnd if is_end(c) => State::AtEnd,
            State::Before | State::AtEnd => {
                if is_word != was_word && !is_end(c) {
                    n += 1;
                    State::Inside
                } else {
                    State::Before
                }
            }
        };
        was_word = is_word;
    }
    n
}

fn n_symbols(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let n = memchr::memchr_iter(b'#', bytes).count()
        + memchr::memmem::find_iter(bytes, "...").count()
        + memchr::memmem::find_iter(bytes, "…").count();
    n as u64
}

/// Returns the number of different words, and their entropy in nats.
fn spread(normalized: &str, words: &[words::Word]) -> (u64, Option<f64>) {
    let mut places = HashMap::<&str, usize>::with_capacity(words.len());
    let mut counts: Vec<u64> = Vec::new();
    for word in words {
        let place = *places.entry(&normalized[word.range()]).or_insert(counts.len());
        if place == counts.len() {
            counts.push(0);
        }
        counts[place] += 1;
    }
    let total = float(words.len() as u64);
    // Added in the order in which words come, as there: the last bits depend on it.
    let entropy = counts.iter().fold(0.0, |sum, &count| {
        let count = float(count);
        sum + -count / total * (count / total).ln()
    });
    (counts.len() as u64, (!words.is_empty()).then_some(entropy))
}

/// Returns the signals of lines as JSON, the number of lines, and of those that end in an ellipsis.
fn measure_lines(text: &str) -> ([String; N_LINES], u64, u64) {
    type Values = Vec<(u64, u64, Option<f64>)>;
    let mut signals: [Values; N_LINES] = Default::default();
    let (mut start, mut n_lines, mut n_ellipses) = (0, 0, 0);
    for line in text.split_inclusive('\n') {
        let n_chars = chars(line);
        let end = start + n_chars;
        let normalized = normalize(line);
        let is_space = |c: char| classes(c) & class::SPACE != 0;
        let (head, tail) = (line.trim_start_matches(is_space), line.trim_end_matches(is_space));
        let words = words::split(&normalized);
        let n_scripts =
            words.iter().filter(|word| &normalized[word.range()] == "javascript").count() as u64;
        let n_upper = line.chars().filter(|c| c.is_uppercase()).count() as u64;
        let n_numeric = normalized.chars().filter(|&c| is_numeric(c)).count() as u64;
        let flag = |is_so: bool| Some(f64::from(u8::from(is_so)));
        let values = [
            Some(float(n_scripts)),
            flag(tail.ends_with(['.', '!', '?', '”'])),
            Some(float(words.len() as u64)),
            share(n_upper, n_chars).or(Some(0.0)),
            share(n_numeric, chars(&normalized)).or(Some(0.0)),
            flag(head.starts_with(BULLETS)),
        ];
        for (signal, value) in signals.iter_mut().zip(values) {
            signal.push((start, end, value));
        }
        n_ellipses += u64::from(tail.ends_with("...") || tail.ends_with('…'));
        n_lines += 1;
        start = end;
    }
    if n_lines == 0 {
        signals[N_LINES - 1].push((0, 0, None));
    }
    let json = |signal: &Values| serde_json::to_string(signal).expect("numbers that are finite");
    (signals.each_ref().map(json), n_lines, n_ellipses)
}

const BULLETS: [char; 10] = [
    '\u{2022}', '\u{2023}', '\u{25b6}', '\u{25c0}', '\u{25e6}', '\u{25a0}', '\u{25a1}', '\u{25aa}',
    '\u{25ab}', '\u{2013}',
];

/// `str.isnumeric` of Python 3.11: numbers, and the letters of Unicode that have a value.
fn is_numeric(c: char) -> bool {
    c.is_numeric() || (c >= '\u{3405}' && NUMERALS.contains(c))
}

/// Ideographs that are numbers, by Unicode 14's `Numeric_Value`.
const NUMERALS: &str = include_str!("../../data/numerals.txt");

#[expect(clippy::cast_precision_loss, reason = "counts of one text are below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

/// Returns `part / whole` as [`rounded`], nothing where there is nothing to divide by.
fn share(part: u64, whole: u64) -> Option<f64> {
    ratio(part, whole).map(rounded)
}

/// `round(value, 8)` of Python.
fn rounded(value: f64) -> f64 {
    // Both write the exact value with eight digits, of equally near ones the even.
    format!("{value:.8}").parse().expect("digits of a finite number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::verdicts;

    /// Values by Python and NLTK; `make_redpajama_signals.py` beside them says how.
    #[test]
    fn measures_as_redpajama_does() {
        let golden = include_str!("../../tests/golden/redpajama_signals.json");
        let golden: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
        let texts: Vec<&str> = golden.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let verdicts = verdicts(&KIND, "", &texts);
        for (signal, values) in SIGNALS.iter().zip(&verdicts.signals) {
            for (row, case) in golden.iter().enumerate() {
                let Some(expected) = case["signals"].get(signal.name) else {
                    assert!(values.is_null(row), "{} without a file", signal.name);
                    continue;
                };
                let found = match values.as_any().downcast_ref::<Float64Array>() {
                    _ if values.is_null(row) => serde_json::Value::Null,
                    Some(values) => values.value(row).into(),
                    None => {
                        let values = values.as_any().downcast_ref::<StringArray>().unwrap();
                        serde_json::from_str(values.value(row)).unwrap()
                    }
                };
                assert_eq!(&found, expected, "{} of {:?}", signal.name, case["text"]);
            }
        }
        assert!(golden.len() > 20 && verdicts.reasons.null_count() == golden.len());
        println!(
            "{} texts, {} signals each",
            golden.len(),
            golden[0]["signals"].as_object().unwrap().len()
        );
    }

    #[test]
    fn finds_the_category_of_a_domain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ut1.json");
        std::fs::write(&path, r#"{"example.com": 7}"#).unwrap();
        let build = |path: &Path| (KIND.build)(&format!("ut1 = {path:?}").parse().unwrap());
        let column =
            |values: &[&str]| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(values)) };
        let columns = [
            ("text", column(&["a", "b", "c"])),
            ("url", column(&["https://example.com/x", "https://example.org/", "no url"])),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let verdicts = build(&path).unwrap().judge(&batch).unwrap();
        let found = verdicts.signals.last().unwrap();
        let found = found.as_any().downcast_ref::<UInt64Array>().unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [Some(7), None, None]);
        std::fs::write(&path, "[]").unwrap();
        let error = build(&path).unwrap_err().to_string();
        assert!(error.contains("no JSON of numbers by domain"), "{error}");
    }

    /// The reference's model and score: see `tests/golden/fasttext`; its label is not the web's.
    #[test]
    fn scores_by_a_model_what_is_not_of_the_web() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/fasttext/softmax.bin");
        let verdicts = verdicts(&KIND, &format!("palm_model = '{path}'"), &["abc </s>\nabd\n", ""]);
        let scores = verdicts.signals[23].as_any().downcast_ref::<Float64Array>().unwrap();
        let mut scratch = fasttext::Scratch::default();
        let model = Model::open(Path::new(path)).unwrap();
        let (_, expected) = model.predict("abc </s> abd", &mut scratch).unwrap();
        assert_eq!(scores.value(0), rounded(f64::from(expected)));
        assert!(scores.is_null(1));
    }

    #[test]
    fn asks_for_a_language_that_has_lists() {
        let error = (KIND.build)(&"language = 'pt'".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("there are `de`, `en`"), "{error}");
    }
}
