//! Drops text with many rude sentences, or many words that are on a list of rude ones.
//!
//! The model scores each sentence by itself: a page is not less rude for being long. It was trained on English tweets and
//! clean web pages, see `ingest/data/README.md` for its figures: it knows rude words and their company well, slurs in
//! polite words hardly. A list knows no context: it finds slurs and pornography, and also medicine. Both are signals to
//! sort by rather than verdicts on a speaker.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use arrow::array::{Array, ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, ratio, text_column};
use crate::fasttext::{Model, ModelFile, Scratch};
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "toxicity",
    summary: "rude sentences by a classifier, rude words by lists",
    source: "a fastText classifier trained on Davidson et al. 2017; List of Dirty, Naughty, Obscene, and Otherwise Bad Words (LDNOOBW), CC BY 4.0",
    signals: &[
        Signal {
            name: "toxicity",
            data_type: DataType::Float64,
            summary: "score of the worst sentence, 0 to 1",
        },
        Signal {
            name: "toxicity_mean",
            data_type: DataType::Float64,
            summary: "mean score of the sentences, 0 to 1",
        },
        Signal {
            name: "toxic_sentence_share",
            data_type: DataType::Float64,
            summary: "share of sentences above the threshold, 0 to 1",
        },
        Signal {
            name: "toxic_word_share",
            data_type: DataType::Float64,
            summary: "share of words that are on a list, 0 to 1",
        },
        Signal {
            name: "toxic_words",
            data_type: DataType::UInt64,
            summary: "words and phrases on a list",
        },
    ],
    reasons: &["too_many_toxic_sentences", "too_many_toxic_words", "too_toxic"],
    files: &[FileKey { key: "list", none: "" }, FileKey { key: "model", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Toxicity::new(config::from_table("toxicity", table)?)?)),
};

/// Trained by `ingest/examples/toxicity.rs`.
const MODEL: &[u8] = include_bytes!("../../data/toxicity-en.bin");

/// The lists as their project publishes them.
const LISTS: [(&str, &str); 28] = [
    ("ar", include_str!("../../data/ldnoobw/ar.txt")),
    ("cs", include_str!("../../data/ldnoobw/cs.txt")),
    ("da", include_str!("../../data/ldnoobw/da.txt")),
    ("de", include_str!("../../data/ldnoobw/de.txt")),
    ("en", include_str!("../../data/ldnoobw/en.txt")),
    ("eo", include_str!("../../data/ldnoobw/eo.txt")),
    ("es", include_str!("../../data/ldnoobw/es.txt")),
    ("fa", include_str!("../../data/ldnoobw/fa.txt")),
    ("fi", include_str!("../../data/ldnoobw/fi.txt")),
    ("fil", include_str!("../../data/ldnoobw/fil.txt")),
    ("fr", include_str!("../../data/ldnoobw/fr.txt")),
    ("fr-CA-u-sd-caqc", include_str!("../../data/ldnoobw/fr-CA-u-sd-caqc.txt")),
    ("hi", include_str!("../../data/ldnoobw/hi.txt")),
    ("hu", include_str!("../../data/ldnoobw/hu.txt")),
    ("it", include_str!("../../data/ldnoobw/it.txt")),
    ("ja", include_str!("../../data/ldnoobw/ja.txt")),
    ("kab", include_str!("../../data/ldnoobw/kab.txt")),
    ("ko", include_str!("../../data/ldnoobw/ko.txt")),
    ("nl", include_str!("../../data/ldnoobw/nl.txt")),
    ("no", include_str!("../../data/ldnoobw/no.txt")),
    ("pl", include_str!("../../data/ldnoobw/pl.txt")),
    ("pt", include_str!("../../data/ldnoobw/pt.txt")),
    ("ru", include_str!("../../data/ldnoobw/ru.txt")),
    ("sv", include_str!("../../data/ldnoobw/sv.txt")),
    ("th", include_str!("../../data/ldnoobw/th.txt")),
    ("tlh", include_str!("../../data/ldnoobw/tlh.txt")),
    ("tr", include_str!("../../data/ldnoobw/tr.txt")),
    ("zh", include_str!("../../data/ldnoobw/zh.txt")),
];

/// Languages written without blanks between words.
const WITHOUT_BLANKS: [&str; 3] = ["ja", "th", "zh"];

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Path of a fastText model that is asked instead of the one built in, sentence by sentence, as they stand.
    model: String,
    /// Label whose probability is the score, without `__label__`.
    label: String,
    /// Score above which a sentence is toxic.
    threshold: f64,
    /// Share of toxic sentences above which a text is dropped.
    max_sentence_share: f64,
    /// A file of words and phrases, one a line, instead of the lists that are built in.
    list: String,
    /// Codes of the lists of LDNOOBW that are looked through: `en`, `de`, 28 in all.
    languages: Vec<String>,
    /// Share of words on a list above which a text is dropped.
    max_word_share: f64,
    /// Hits above which a text is dropped, however long it is.
    max_count: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: String::new(),
            label: "toxic".to_owned(),
            // dolma's mixes v1_5 and v1_6 cut sentences from 0.4 on.
            threshold: 0.4,
            // No implementation drops by sentences: one in five is ours.
            max_sentence_share: 0.2,
            list: String::new(),
            languages: vec!["en".to_owned()],
            // Data-Juicer's `flagged_words_filter` drops above 0.045; no implementation counts, so no limit is set.
            max_word_share: 0.045,
            max_count: i64::MAX.unsigned_abs(),
        }
    }
}

#[derive(Debug)]
struct Toxicity {
    config: Config,
    scorer: Scorer,
    words: Words,
}

/// Scores sentences.
#[derive(Debug)]
pub struct Scorer {
    model: Model,
    label: usize,
    /// Whether sentences are [`plain`] before they are scored, as those that the model was trained on were.
    is_plain: bool,
}

impl Scorer {
    /// Returns a scorer by the probability of `label` in `file`; `name` is what errors call it.
    ///
    /// # Errors
    /// When the model cannot answer or has no such label.
    pub fn new(file: ModelFile, name: &Path, label: &str, is_plain: bool) -> Result<Self> {
        let model = Model::new(file, name)?;
        let wanted = label.strip_prefix("__label__").unwrap_or(label);
        let Some(label) = model.labels().iter().position(|known| known == wanted) else {
            let message = format!("`{}` has no label `{label}`", name.display());
            return Err(config::invalid("toxicity", message));
        };
        Ok(Self { model, label, is_plain })
    }

    /// Returns the score of a sentence; `line` is memory to work in.
    pub fn score(&self, sentence: &str, line: &mut String, scratch: &mut Scratch) -> f32 {
        let sentence = if self.is_plain {
            plain(sentence, line);
            line
        } else {
            sentence
        };
        self.model.probability(sentence, self.label, scratch).unwrap_or(0.0).clamp(0.0, 1.0)
    }
}

/// What a list finds.
#[derive(Debug)]
struct Words {
    automaton: AhoCorasick,
    /// Words of each entry, and whether it may stand inside a word.
    entries: Vec<(u64, bool)>,
}

impl Toxicity {
    fn new(config: Config) -> Result<Self> {
        let shares = [
            ("threshold", config.threshold),
            ("max_sentence_share", config.max_sentence_share),
            ("max_word_share", config.max_word_share),
        ];
        if let Some((key, value)) = shares.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            let message = format!("`{key}` is {value}, allowed is 0 to 1");
            return Err(config::invalid("toxicity", message));
        }
        let scorer = if config.model.is_empty() {
            let name = Path::new("toxicity-en.bin");
            let file = ModelFile::read(MODEL, MODEL.len() as u64, name)?;
            Scorer::new(file, name, "toxic", true)?
        } else {
            let path = Path::new(&config.model);
            Scorer::new(ModelFile::open(path)?, path, &config.label, false)?
        };
        let words = Words::new(&config)?;
        Ok(Self { config, scorer, words })
    }

    /// Returns the worst and the mean score and the share of toxic sentences.
    fn score(&self, text: &str, line: &mut String, scratch: &mut Scratch) -> (f64, f64, f64) {
        let (mut worst, mut sum, mut n, mut n_toxic) = (0.0_f64, 0.0, 0_u64, 0_u64);
        for sentence in sentences(text) {
            let score = f64::from(self.scorer.score(sentence, line, scratch));
            worst = worst.max(score);
            sum += score;
            n += 1;
            n_toxic += u64::from(score > self.config.threshold);
        }
        #[expect(clippy::cast_precision_loss, reason = "sentences of one text are below 2^53")]
        let mean = if n == 0 { 0.0 } else { sum / n as f64 };
        (worst, mean, ratio(n_toxic, n).unwrap_or(0.0))
    }
}

/// Returns the sentences of `text` that have a letter or digit.
///
/// One ends with a line, and with `.`, `!` or `?`, and what closes a quotation, before a blank; with `。`, `！` or `？`
/// anywhere. Abbreviations end one too: halves are scored instead of a whole, and nothing is lost.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let has_words = |sentence: &&str| sentence.chars().any(char::is_alphanumeric);
    let lines = text.split(['\n', '\r']);
    lines.flat_map(split_line).filter(has_words)
}

fn split_line(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (sentence, tail) = rest.split_at(sentence_end(rest));
        rest = tail;
        Some(sentence)
    })
}

fn sentence_end(line: &str) -> usize {
    let mut has_ended = false;
    for (at, c) in line.char_indices() {
        match c {
            '。' | '！' | '？' => return at + c.len_utf8(),
            '.' | '!' | '?' => has_ended = true,
            '"' | '\'' | ')' | ']' | '”' | '’' | '»' if has_ended => {}
            _ if has_ended && c.is_whitespace() => return at,
            _ => has_ended = false,
        }
    }
    line.len()
}

/// Leaves `sentence` in `line` as the model built in reads it: small letters, digits and the marks that replace letters in
/// rude words; everything else is a blank.
pub fn plain(sentence: &str, line: &mut String) {
    line.clear();
    for c in sentence.chars() {
        match c {
            'a'..='z' | '0'..='9' | '*' | '$' | '@' | '\'' => line.push(c),
            'A'..='Z' => line.push(c.to_ascii_lowercase()),
            '’' => line.push('\''),
            _ if !c.is_ascii() && c.is_alphanumeric() => line.extend(c.to_lowercase()),
            _ => line.push(' '),
        }
    }
}

impl Words {
    fn new(config: &Config) -> Result<Self> {
        let own;
        let mut lists = Vec::new();
        if config.list.is_empty() {
            for code in &config.languages {
                let Some(&(code, list)) = LISTS.iter().find(|(known, _)| known == code) else {
                    let known: Vec<&str> = LISTS.iter().map(|(code, _)| *code).collect();
                    let known = known.join(", ");
                    let message = format!("there is no list `{code}`\nhint: there are {known}");
                    return Err(config::invalid("toxicity", message));
                };
                lists.push((list, WITHOUT_BLANKS.contains(&code)));
            }
        } else {
            own = std::fs::read_to_string(&config.list).map_err(Error::io("read", &config.list))?;
            lists.push((&own, false));
        }
        let entries: Vec<(&str, bool)> = lists
            .iter()
            .flat_map(|&(list, is_inside)| list.lines().map(move |line| (line.trim(), is_inside)))
            .filter(|(entry, _)| !entry.is_empty())
            .collect();
        if entries.is_empty() && !config.list.is_empty() {
            return Err(config::invalid(
                "toxicity",
                format!("`list` names `{}`, which holds no word", config.list),
            ));
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(entries.iter().map(|(entry, _)| entry.to_lowercase()))
            .map_err(|error| {
                config::invalid("toxicity", format!("`list` is too large: {error}"))
            })?;
        let n_words = |entry: &str| entry.split_whitespace().count() as u64;
        let entries =
            entries.iter().map(|&(entry, is_inside)| (n_words(entry), is_inside)).collect();
        Ok(Self { automaton, entries })
    }

    /// Returns hits, words inside hits, and words of `text`. A hit begins and ends where a word does.
    fn count(&self, text: &str) -> (u64, u64, u64) {
        // The automaton folds the case of ASCII only.
        let text: Cow<'_, str> =
            if text.is_ascii() { text.into() } else { text.to_lowercase().into() };
        let goes_on = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let (mut n_hits, mut n_toxic) = (0, 0);
        let mut best: Option<(usize, usize, u64)> = None;
        // Matches come ordered by their end: of those that overlap, the longest that begins first counts.
        for found in self.automaton.find_overlapping_iter(&*text) {
            let (start, end) = (found.start(), found.end());
            let (words, is_inside) = self.entries[found.pattern().as_usize()];
            let is_whole =
                !goes_on(text[..start].chars().next_back()) && !goes_on(text[end..].chars().next());
            if !is_whole && !is_inside {
                continue;
            }
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
        let (mut line, mut scratch) = (String::new(), Scratch::default());
        let mut columns: [Vec<f64>; 4] = Default::default();
        let mut counts = Vec::with_capacity(texts.len());
        let mut reasons = Vec::with_capacity(texts.len());
        for text in texts.iter().map(Option::unwrap_or_default) {
            let (worst, mean, sentence_share) = self.score(text, &mut line, &mut scratch);
            let (n_hits, n_toxic, n_words) = self.words.count(text);
            // `one/two` is one word between white space and may be two hits.
            let word_share = ratio(n_toxic, n_words).unwrap_or(0.0).min(1.0);
            reasons.push(if sentence_share > self.config.max_sentence_share {
                Some("too_many_toxic_sentences")
            } else if word_share > self.config.max_word_share {
                Some("too_toxic")
            } else if n_hits > self.config.max_count {
                Some("too_many_toxic_words")
            } else {
                None
            });
            let values = [worst, mean, sentence_share, word_share];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            counts.push(n_hits);
        }
        let mut signals: Vec<ArrayRef> =
            columns.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef).to_vec();
        signals.push(Arc::new(UInt64Array::from(counts)));
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
        let share = verdicts.signals[3].as_any().downcast_ref::<Float64Array>().unwrap().value(0);
        let count = verdicts.signals[4].as_any().downcast_ref::<UInt64Array>().unwrap().value(0);
        assert_eq!((share, count, verdicts.reasons.iter().next().unwrap()), expected, "{text:?}");
    }

    #[test]
    fn counts_whole_words_in_any_case() {
        check(
            "max_word_share = 1.0",
            "A Turnip, a TURNIP; no turnips or saturnip.",
            (0.25, 2, None),
        );
        check("", "A quiet place.", (0.0, 0, None));
        check("", "", (0.0, 0, None));
    }

    #[test]
    fn counts_a_phrase_once_with_all_its_words() {
        check("max_word_share = 1.0", "one boiled turnip here", (0.5, 1, None));
        check("max_word_share = 1.0", "boiled leek", (1.0, 2, None));
    }

    #[test]
    fn drops_by_share_and_by_count() {
        check("", "a turnip", (0.5, 1, Some("too_toxic")));
        check(
            "max_word_share = 1.0\nmax_count = 1",
            "turnip leek",
            (1.0, 2, Some("too_many_toxic_words")),
        );
    }

    #[test]
    fn carries_the_english_list_and_says_which_file_is_missing() {
        assert!(Toxicity::new(Config::default()).unwrap().words.entries.len() > 400);
        let table: toml::Table = "list = 'no/such/list.txt'".parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("no/such/list.txt"), "{error}");
    }

    fn check_sentences(text: &str, expected: &[&str]) {
        assert_eq!(sentences(text).map(str::trim).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn cuts_sentences_at_their_ends() {
        check_sentences("One. Two! \"Three?\" Four", &["One.", "Two!", "\"Three?\"", "Four"]);
        check_sentences("one\n\n ... \r\ntwo", &["one", "two"]);
        check_sentences("Version 1.2 of x.y", &["Version 1.2 of x.y"]);
        check_sentences("一。二！三", &["一。", "二！", "三"]);
        check_sentences(" -- \n", &[]);
    }

    #[test]
    fn reads_small_letters_and_marks_that_replace_them() {
        let mut line = String::new();
        plain("It’s a F*CK-ing $ign, Ärger (#1)!", &mut line);
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["it's", "a", "f*ck", "ing", "$ign", "ärger", "1"]);
    }

    #[test]
    fn the_model_built_in_scores_each_sentence() {
        let text = "The mill stands by the river. You are a stupid fucking bitch.";
        let verdicts = verdicts(&KIND, "max_word_share = 1.0", &[text, "The mill stands."]);
        let signal = |place: usize, row: usize| {
            verdicts.signals[place].as_any().downcast_ref::<Float64Array>().unwrap().value(row)
        };
        assert!(signal(0, 0) > 0.9 && signal(0, 1) < 0.1);
        assert_eq!((signal(2, 0), signal(2, 1)), (0.5, 0.0));
        assert!(signal(1, 0) > 0.4 && signal(1, 0) < 0.6, "{}", signal(1, 0));
        let reasons: Vec<_> = verdicts.reasons.iter().collect();
        assert_eq!(reasons, [Some("too_many_toxic_sentences"), None]);
    }

    #[test]
    fn looks_through_the_lists_of_other_languages() {
        let check = |languages: &str, text: &str, expected: u64| {
            let config = format!("languages = [{languages}]");
            let verdicts = verdicts(&KIND, &config, &[text]);
            let counts = verdicts.signals[4].as_any().downcast_ref::<UInt64Array>().unwrap();
            assert_eq!(counts.value(0), expected, "{languages} {text}");
        };
        check("'de'", "So ein ARSCHLOCH ist das", 1);
        check("'en'", "So ein Arschloch ist das", 0);
        check("", "So ein Arschloch ist das", 0);
        check("'ru', 'de'", "БЛЯДЬ", 1);
        let table: toml::Table = "languages = ['xx']".parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("no list `xx`\nhint: there are ar, cs"), "{error}");
    }

    #[test]
    fn a_model_of_the_users_is_asked_instead() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/fasttext/words.bin");
        let config = format!("model = '{path}'\nlabel = 'l0'\nthreshold = 0.0");
        let golden = include_str!("../../../tests/golden/fasttext/expected.jsonl");
        let row = golden.lines().find(|line| line.contains("\"words.bin\"")).unwrap();
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        // The first row is the empty text, which has no sentence; its score is that of the end of a line alone.
        let verdicts = verdicts(&KIND, &config, &["_unseen_", ""]);
        let scores = verdicts.signals[0].as_any().downcast_ref::<Float64Array>().unwrap();
        let wanted = row["scores"]["l0"].as_f64().unwrap();
        assert!((scores.value(0) - wanted).abs() < 1e-6, "{} {wanted}", scores.value(0));
        assert_eq!(scores.value(1), 0.0);
        assert_eq!(verdicts.reasons.value(0), "too_many_toxic_sentences");
    }
}
