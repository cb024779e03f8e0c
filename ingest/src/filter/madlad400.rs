//! Drops documents of which too many sentences look like lists, furniture or another language.
//!
//! A sentence ends with `.`, `!` or `?` and white space behind it. MADLAD-400's own code was not published: profile `paper` is the text of
//! its paper and dataset card, `datamap` what Dolma 3 runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use aho_corasick::AhoCorasick;
use arrow::array::{Array, ArrayRef, Float64Array, StringArray, StringViewArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use regex::{Regex, RegexSet};
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{FileKey, Filter, FilterKind, Signal, Verdicts, chars, config, ratio, text_column};
use crate::Result;
use crate::fasttext::{Model, Scratch};

pub(super) const KIND: FilterKind = FilterKind {
    name: "madlad400",
    summary: "documents with too many questionable sentences",
    source: "Kudugunta et al. 2023, MADLAD-400, section 2.3 and dataset card; profile `datamap`: datamap-rs, madlad400_sentence_annotator and madlad400_rule_filter as in Dolma 3's all_dressed_config.yaml",
    signals: &[
        count("sentences", "sentences of the text"),
        Signal {
            name: "questionable",
            data_type: DataType::Float64,
            summary: "sentences that break a rule, share of sentences",
        },
        count("inconsistent", "sentences in another language than the document's"),
        count("list_case", "sentences of which most words begin with a capital"),
        count("abnormal_length", "sentences too short or too long"),
        count("technical", "sentences with many digits, brackets and the like"),
        count("cursed", "sentences with a pattern of the list"),
    ],
    reasons: &["too_few_sentences", "questionable_sentences"],
    files: &[FileKey { key: "model", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| {
        let of_profile = |config: &Config| Config::of(config.profile);
        Ok(Box::new(Madlad400::new(config::from_profile(NAME, table, of_profile)?)?))
    },
};

const NAME: &str = "madlad400";

const fn count(name: &'static str, summary: &'static str) -> Signal {
    Signal { name, data_type: DataType::UInt64, summary }
}

/// Whose reading of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// Lengths are bytes; all patterns but the last four are plain text, whatever they say; a share at the limit drops.
    Datamap,
    /// Lengths are characters, all patterns are expressions, a share above the limit drops.
    Paper,
}

/// What makes a sentence questionable, in the order of the signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    DocumentConsistency,
    ListCase,
    AbnormalLength,
    Technical,
    Cursed,
}

const RULES: [Rule; 5] = [
    Rule::DocumentConsistency,
    Rule::ListCase,
    Rule::AbnormalLength,
    Rule::Technical,
    Rule::Cursed,
];

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    profile: Profile,
    /// Rules that count.
    rules: BTreeSet<Rule>,
    /// Path of a fastText model for `document_consistency`. The document's language is the column `language`, and what the model says
    /// where that is empty.
    model: String,
    min_sentences: u64,
    max_questionable: f64,
    /// Fewer words than this are no list.
    min_list_words: usize,
    max_capitalized: f32,
    min_length: u64,
    max_length: u64,
    max_technical: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Profile::Datamap)
    }
}

impl Config {
    fn of(profile: Profile) -> Self {
        Self {
            profile,
            rules: match profile {
                Profile::Datamap => BTreeSet::from([Rule::ListCase, Rule::Cursed]),
                Profile::Paper => BTreeSet::from(RULES),
            },
            model: String::new(),
            min_sentences: 5,
            max_questionable: 0.2,
            min_list_words: 12,
            max_capitalized: 0.5,
            min_length: 20,
            max_length: 500,
            max_technical: 0.2,
        }
    }
}

/// The patterns of the dataset card, each as it is written there; those from [`FIRST_EXPRESSION`] on are expressions to everyone.
const CURSED: [&str; 32] = [
    " №",
    "\u{fffd}\u{fffd}\u{fffd}",
    r"\|\s*$",
    r" nr\.$",
    "aute irure dolor ",
    " sunt in culpa qui ",
    "orem ipsum ",
    " quis nostrud ",
    " adipisicing ",
    " dolore eu ",
    " cupidatat ",
    "autem vel eum",
    "wisi enim ad",
    " sex ",
    " porn ",
    "黄色电影",
    "mp3",
    "ownload",
    r"Vol\.",
    r" Ep\.",
    "Episode",
    r" г\.\s*$",
    r" кг\.\s*$",
    r" шт\.",
    "Develop",
    "Facebook",
    " crusher ",
    " xxx ",
    " ... ... ... ... ... ... ... ... ...",
    " .... .... .... .... .... .... .... .... ....",
    " [^ ] [^ ] [^ ] [^ ] [^ ] [^ ] [^ ] [^ ] [^ ]",
    ", ..,,? ..,,? ..,,? ..,,?",
];
const FIRST_EXPRESSION: usize = 28;

static SENTENCE_END: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[.!?]+\s+").expect("an expression of ours"));

#[derive(Debug)]
struct Madlad400 {
    config: Config,
    model: Option<Model>,
    plain: AhoCorasick,
    expressions: RegexSet,
}

/// What is measured of a text.
struct Signals {
    n_sentences: u64,
    n_questionable: u64,
    /// Sentences that break each rule, nothing where it does not count.
    broken: [Option<u64>; RULES.len()],
}

impl Madlad400 {
    fn new(config: Config) -> Result<Self> {
        let needs_model = config.rules.contains(&Rule::DocumentConsistency);
        if needs_model && config.model.is_empty() {
            let message = "the rule `document_consistency` needs a language model\nhint: name a fastText model in `model`, or leave the rule out of `rules`";
            return Err(config::invalid(NAME, message));
        }
        let model = needs_model.then(|| Model::open(Path::new(&config.model))).transpose()?;
        let (plain, expressions): (&[&str], &[&str]) = match config.profile {
            Profile::Datamap => CURSED.split_at(FIRST_EXPRESSION),
            Profile::Paper => (&[], &CURSED),
        };
        // Where Python says `$`, a line feed may still come.
        let expressions = expressions.iter().map(|it| match it.strip_suffix(r"\.$") {
            Some(head) => format!(r"{head}\.\n?$"),
            None => (*it).to_owned(),
        });
        Ok(Self {
            config,
            model,
            plain: AhoCorasick::new(plain).expect("a few short patterns"),
            expressions: RegexSet::new(expressions).expect("expressions of the card"),
        })
    }

    fn measure(&self, text: &str, language: Option<&str>, scratch: &mut Scratch) -> Signals {
        let sentences: Vec<&str> =
            SENTENCE_END.split(text).filter(|sentence| !sentence.trim().is_empty()).collect();
        let language = match language {
            None => self.label(text, scratch),
            language => language,
        };
        let mut signals = Signals {
            n_sentences: sentences.len() as u64,
            n_questionable: 0,
            broken: RULES.map(|rule| self.config.rules.contains(&rule).then_some(0)),
        };
        for sentence in sentences {
            let mut is_questionable = false;
            for (rule, broken) in RULES.into_iter().zip(&mut signals.broken) {
                if let Some(broken) = broken
                    && self.breaks(rule, sentence, language, scratch)
                {
                    *broken += 1;
                    is_questionable = true;
                }
            }
            signals.n_questionable += u64::from(is_questionable);
        }
        signals
    }

    fn breaks(
        &self,
        rule: Rule,
        sentence: &str,
        language: Option<&str>,
        scratch: &mut Scratch,
    ) -> bool {
        let config = &self.config;
        let length = match config.profile {
            Profile::Datamap => sentence.len() as u64,
            Profile::Paper => chars(sentence),
        };
        match rule {
            Rule::DocumentConsistency => {
                let found = self.label(sentence, scratch);
                found.is_none() || found != language
            }
            Rule::ListCase => {
                let (mut n, mut n_capitals) = (0, 0);
                for word in sentence.unicode_words() {
                    n += 1;
                    n_capitals += usize::from(word.starts_with(char::is_uppercase));
                }
                n >= config.min_list_words
                    && float(n_capitals as u64) > float(n as u64) * config.max_capitalized
            }
            Rule::AbnormalLength => length < config.min_length || length > config.max_length,
            Rule::Technical => {
                let is_technical =
                    |c| matches!(c, '0'..='9' | '{' | '}' | '+' | '/' | '(' | ')' | '>');
                let n = sentence.chars().filter(|&c| is_technical(c)).count() as u64;
                float(n) > float(length) * config.max_technical
            }
            Rule::Cursed => self.plain.is_match(sentence) || self.expressions.is_match(sentence),
        }
    }

    fn label(&self, text: &str, scratch: &mut Scratch) -> Option<&str> {
        let model = self.model.as_ref()?;
        let (label, _) = model.predict(text, scratch)?;
        Some(&model.labels()[label])
    }

    fn reason(&self, signals: &Signals) -> Option<&'static str> {
        if signals.n_sentences < self.config.min_sentences {
            return Some("too_few_sentences");
        }
        let share = ratio(signals.n_questionable, 1)?;
        let limit = ratio(signals.n_sentences, 1)? * self.config.max_questionable;
        let is_dropped = match self.config.profile {
            Profile::Datamap => share >= limit,
            Profile::Paper => share > limit,
        };
        is_dropped.then_some("questionable_sentences")
    }
}

/// The references compute in float32.
#[expect(clippy::cast_precision_loss, reason = "as the references")]
fn float(n: u64) -> f32 {
    n as f32
}

impl Filter for Madlad400 {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let mut scratch = Scratch::default();
        // SQL gives the text alone.
        let languages = documents
            .column_by_name("language")
            .and_then(|column| column.as_any().downcast_ref::<StringViewArray>());
        let rows: Vec<Signals> = text_column(documents)?
            .iter()
            .enumerate()
            .map(|(row, text)| {
                let language =
                    languages.filter(|it| it.is_valid(row)).map(|languages| languages.value(row));
                self.measure(text.unwrap_or_default(), language, &mut scratch)
            })
            .collect();
        let reasons: StringArray = rows.iter().map(|signals| self.reason(signals)).collect();
        let n_sentences = rows.iter().map(|signals| Some(signals.n_sentences));
        let shares = rows.iter().map(|it| ratio(it.n_questionable, it.n_sentences));
        let mut signals: Vec<ArrayRef> = vec![
            Arc::new(n_sentences.collect::<UInt64Array>()),
            Arc::new(shares.collect::<Float64Array>()),
        ];
        for rule in 0..RULES.len() {
            let broken = rows.iter().map(|signals| signals.broken[rule]);
            signals.push(Arc::new(broken.collect::<UInt64Array>()));
        }
        Ok(Verdicts { reasons, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::{reasons, verdicts};

    fn check(config: &str, text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, config, &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    const RULES_OF_TEXT: &str =
        "profile = 'paper'\nrules = ['list_case', 'abnormal_length', 'technical', 'cursed']";
    const PLAIN: &str = "The mill stood by the river for a hundred years. ";

    // By hand from the numbers of the dataset card and the code of datamap-rs.
    #[test]
    fn drops_what_has_few_sentences() {
        check("", &PLAIN.repeat(4), Some("too_few_sentences"));
        check("", &PLAIN.repeat(5), None);
        // An end mark without white space behind it ends nothing.
        check("", &"The mill.stood by.the river. ".repeat(4), Some("too_few_sentences"));
    }

    #[test]
    fn a_share_at_the_limit_drops_in_one_profile_only() {
        // One of five: exactly a fifth.
        let text = PLAIN.repeat(4) + "You may ownload this one here.";
        check("", &text, Some("questionable_sentences"));
        check(RULES_OF_TEXT, &text, None);
        check(
            RULES_OF_TEXT,
            &(text.clone() + " You may ownload that one here."),
            Some("questionable_sentences"),
        );
    }

    #[test]
    fn knows_the_sentences_that_are_questionable() {
        let check = |config: &str, sentence: &str, expected: [Option<u64>; 5]| {
            let verdicts = verdicts(&KIND, config, &[sentence]);
            for (place, expected) in expected.into_iter().enumerate() {
                let signal = verdicts.signals[2 + place].as_any().downcast_ref::<UInt64Array>();
                assert_eq!(signal.unwrap().iter().next().unwrap(), expected, "{place} {sentence}");
            }
        };
        let capitals = "One Two Three Four Five Six Seven eight nine ten eleven";
        // Eleven words are no list; 7 of 12 are more than half, 6 are not.
        check(RULES_OF_TEXT, capitals, [None, Some(0), Some(0), Some(0), Some(0)]);
        check(
            RULES_OF_TEXT,
            &format!("{capitals} twelve"),
            [None, Some(1), Some(0), Some(0), Some(0)],
        );
        let six = "One Two Three Four Five Six seven eight nine ten eleven twelve";
        check(RULES_OF_TEXT, six, [None, Some(0), Some(0), Some(0), Some(0)]);
        check(RULES_OF_TEXT, "nineteen characters", [None, Some(0), Some(1), Some(0), Some(0)]);
        check(
            RULES_OF_TEXT,
            &"words and sentence ".repeat(28),
            [None, Some(0), Some(1), Some(0), Some(0)],
        );
        // 5 of 25 are a fifth, 6 of 25 more.
        check(
            RULES_OF_TEXT,
            "12345 twenty more letters",
            [None, Some(0), Some(0), Some(0), Some(0)],
        );
        check(
            RULES_OF_TEXT,
            "123456 nineteen more abcd",
            [None, Some(0), Some(0), Some(1), Some(0)],
        );
        check(
            RULES_OF_TEXT,
            "This is Vol.3 of a long story",
            [None, Some(0), Some(0), Some(0), Some(1)],
        );
        // Plain text to datamap-rs, which no page says.
        check("", "This is Vol.3 of a long story", [None, Some(0), None, None, Some(0)]);
        check("", "spelled as a b c d e f g h i out", [None, Some(0), None, None, Some(1)]);
    }

    #[test]
    fn asks_the_model_whether_sentences_are_in_the_documents_language() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/fasttext/softmax.bin");
        let config =
            format!("rules = ['document_consistency']\nmodel = '{path}'\nmin_sentences = 1");
        let filter = (KIND.build)(&config.parse().unwrap()).unwrap();
        let column =
            |value: &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values([value])) };
        let judge = |language: &str| {
            let columns = [("text", column("abc abd")), ("language", column(language))];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            filter.judge(&batch).unwrap().reasons.iter().next().unwrap().map(str::to_owned)
        };
        let model = Model::open(Path::new(path)).unwrap();
        let (label, _) = model.predict("abc abd", &mut Scratch::default()).unwrap();
        assert_eq!(judge(&model.labels()[label]), None);
        assert_eq!(judge("another").as_deref(), Some("questionable_sentences"));
    }

    #[test]
    fn asks_for_a_model_where_the_rules_need_one() {
        let error = (KIND.build)(&"profile = 'paper'".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("`document_consistency` needs a language model"), "{error}");
    }
}
