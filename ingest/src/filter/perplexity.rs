//! Keeps documents whose words a language model expects, in CCNet's three buckets.
//!
//! The model is KenLM's. CCNet normalises a text, which takes its ends of lines away, cuts it into pieces of a SentencePiece
//! model, and takes the pieces as the words of one sentence; its perplexity, rounded to a tenth, decides on the bucket.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use shard::tokenizer::Tokenizer;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::words::{class, classes};
use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::kenlm::Model;
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "perplexity",
    summary: "keeps documents that a KenLM model of yours finds likely, by CCNet's buckets",
    source: "CCNet (Wenzek et al. 2019): perplexity.py, text_normalizer.py; KenLM (Heafield 2011)",
    signals: &[
        Signal {
            name: "perplexity",
            data_type: DataType::Float64,
            summary: "perplexity of a word or piece, ends of sentences included",
        },
        Signal {
            name: "log10_probability",
            data_type: DataType::Float64,
            summary: "decimal logarithm of the probability of the text",
        },
        Signal {
            name: "perplexity_bucket",
            data_type: DataType::Utf8,
            summary: "`head`, `middle` or `tail`",
        },
    ],
    reasons: &[
        "empty",
        "head_perplexity",
        "middle_perplexity",
        "tail_perplexity",
        "no_perplexity_model",
    ],
    files: &[FileKey { key: "model", none: "" }, FileKey { key: "pieces", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Perplexity::new(config::from_table("perplexity", table)?)?)),
};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Path of a KenLM model, ARPA or binary; nothing is built in, so without one every row is dropped as such.
    model: String,
    /// Path of the SentencePiece model whose pieces are the words; without one, they lie between white space.
    pieces: String,
    /// Whether a text is normalised as CCNet does: small letters without accents, 0 for digits, plain punctuation.
    normalize: bool,
    /// Whether each line is a sentence, rather than the whole text.
    by_line: bool,
    /// Perplexity below which a document is in the bucket `head`.
    head: f64,
    /// Perplexity below which a document of the others is in the bucket `middle`.
    tail: f64,
    /// Buckets that are kept.
    keep: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: String::new(),
            pieces: String::new(),
            normalize: true,
            by_line: false,
            // English in CCNet's `cutoff.csv`: the 30th and the 60th percentile.
            head: 340.0,
            tail: 520.0,
            keep: vec!["head".to_owned(), "middle".to_owned()],
        }
    }
}

/// Buckets, and the reasons that drop them.
const BUCKETS: [(&str, &str); 3] =
    [("head", "head_perplexity"), ("middle", "middle_perplexity"), ("tail", "tail_perplexity")];

#[derive(Debug)]
struct Perplexity {
    config: Config,
    model: Option<Model>,
    pieces: Option<Pieces>,
}

/// The pieces of a SentencePiece model as words of a language model.
struct Pieces {
    tokenizer: Tokenizer,
    /// Word of each piece.
    words: Vec<u32>,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

impl Pieces {
    fn new(path: &Path, model: &Model) -> Result<Self> {
        let wrong = |why: String| Error::Format {
            path: path.to_owned(),
            why,
            hint: "a SentencePiece model, or a `tokenizer.json`, is needed".to_owned(),
        };
        let tokenizer = Tokenizer::load(path).map_err(|error| wrong(error.to_string()))?;
        let json: serde_json::Value = serde_json::from_slice(tokenizer.to_bytes())
            .map_err(|error| wrong(error.to_string()))?;
        let mut words = vec![model.word(b"<unk>"); tokenizer.n_vocabulary() as usize];
        let mut set = |id: u64, piece: &str| {
            if let Some(word) = usize::try_from(id).ok().and_then(|id| words.get_mut(id)) {
                *word = model.word(piece.as_bytes());
            }
        };
        match &json["model"]["vocab"] {
            serde_json::Value::Array(pieces) => {
                for (id, piece) in (0..).zip(pieces) {
                    set(id, piece[0].as_str().unwrap_or_default());
                }
            }
            serde_json::Value::Object(pieces) => {
                for (piece, id) in pieces {
                    set(id.as_u64().unwrap_or(u64::MAX), piece);
                }
            }
            _ => return Err(wrong("it has no vocabulary".to_owned())),
        }
        Ok(Self { tokenizer, words })
    }
}

impl Perplexity {
    fn new(config: Config) -> Result<Self> {
        let invalid = |message: String| config::invalid("perplexity", message);
        if !(config.head > 0.0 && config.head <= config.tail) {
            let message = format!("`head` is {}, `tail` is {}", config.head, config.tail);
            return Err(invalid(format!("{message}\nhint: 0 < head <= tail is needed")));
        }
        let unknown = config.keep.iter().find(|kept| !BUCKETS.iter().any(|(name, _)| name == kept));
        if let Some(unknown) = unknown {
            let message = format!("`keep` has a bucket `{unknown}`");
            return Err(invalid(format!("{message}\nhint: there are `head`, `middle` and `tail`")));
        }
        let model = match config.model.as_str() {
            "" => None,
            path => Some(Model::open(Path::new(path))?),
        };
        let pieces = match (&model, config.pieces.as_str()) {
            (_, "") => None,
            (None, _) => return Err(invalid("`pieces` is set, `model` is not".to_owned())),
            (Some(model), path) => Some(Pieces::new(Path::new(path), model)?),
        };
        Ok(Self { config, model, pieces })
    }

    /// Returns the logarithm of the probability of `text` and the words that it has, nothing for an empty text.
    fn score(&self, model: &Model, text: &str) -> Result<Option<(f64, u64)>> {
        let texts: Vec<&str> = match self.config.by_line {
            true => text.split('\n').collect(),
            false => vec![text],
        };
        let (mut sum, mut n, mut is_empty) = (0.0, 0, true);
        for text in texts {
            let text = match self.config.normalize {
                true => Cow::Owned(normalize(text)),
                false => Cow::Borrowed(text),
            };
            is_empty &= text.is_empty();
            let (score, n_words) = match &self.pieces {
                None => model.score(&text),
                Some(Pieces { tokenizer, words }) => {
                    let mut ids = Vec::new();
                    tokenizer.encode(&text, &mut ids).map_err(|error| Error::Column {
                        name: "text".to_owned(),
                        why: error.to_string(),
                    })?;
                    model.score_words(ids.iter().map(|&id| words[id as usize]))
                }
            };
            sum += f64::from(score);
            n += n_words;
        }
        Ok((!is_empty).then_some((sum, n)))
    }

    fn bucket(&self, perplexity: f64) -> usize {
        // CCNet compares what it stores, which is rounded.
        let rounded = format!("{perplexity:.1}").parse().unwrap_or(perplexity);
        usize::from(rounded >= self.config.head) + usize::from(rounded >= self.config.tail)
    }
}

/// What CCNet writes for a character of punctuation.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        '，' | '、' => ",",
        '。' => ".",
        '„' | '”' | '“' | '«' | '»' | '」' | '「' | '《' | '》' => "\"",
        '´' | '’' => "'",
        '∶' | '：' => ":",
        '？' => "?",
        '！' => "!",
        '（' => "(",
        '）' => ")",
        '；' => ";",
        '–' | '━' | '►' => "-",
        '—' => " - ",
        '．' => ". ",
        '～' => "~",
        '…' => "...",
        '〈' => "<",
        '〉' => ">",
        '【' => "[",
        '】' => "]",
        '％' => "%",
        _ => return None,
    })
}

/// Returns `line` as CCNet's `normalize` does: small, without accents and control characters, 0 for digits.
fn normalize(line: &str) -> String {
    let line = line.trim_matches(|c| classes(c) & class::SPACE != 0).to_lowercase();
    let mut out = String::with_capacity(line.len());
    for c in line.nfd() {
        match c {
            '0'..='9' => out.push('0'),
            '\0'..='\x1f' | '\x7f'..='\u{9f}' => {}
            _ if c.is_ascii() => out.push(c),
            _ if is_nonspacing_mark(c) => {}
            _ if classes(c) & class::DECIMAL != 0 => out.push('0'),
            _ => match plain(c) {
                Some(plain) => out.push_str(plain),
                None => out.push(c),
            },
        }
    }
    out
}

/// Whether `c` is of the category Mn: a combining mark that neither takes space nor encloses.
fn is_nonspacing_mark(c: char) -> bool {
    use std::sync::LazyLock;
    static MARKS: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^\p{Mn}").expect("a class of characters"));
    is_combining_mark(c) && MARKS.is_match(c.encode_utf8(&mut [0; 4]))
}

impl Filter for Perplexity {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let mut reasons: Vec<Option<&str>> = Vec::with_capacity(texts.len());
        let (mut perplexities, mut scores, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts.iter().map(Option::unwrap_or_default) {
            let found = match &self.model {
                // Keeping all of them would look like a model at work.
                None => Err("no_perplexity_model"),
                Some(model) => self.score(model, text)?.ok_or("empty"),
            };
            #[expect(clippy::cast_precision_loss, reason = "words of one text are below 2^53")]
            let perplexity = found.map(|(score, n)| 10_f64.powf(-score / n as f64));
            let bucket = perplexity.map(|perplexity| BUCKETS[self.bucket(perplexity)]);
            perplexities.push(perplexity.ok());
            scores.push(found.ok().map(|(score, _)| score));
            buckets.push(bucket.ok().map(|(name, _)| name));
            reasons.push(match bucket {
                Err(reason) => Some(reason),
                Ok((name, reason)) => {
                    (!self.config.keep.iter().any(|kept| kept == name)).then_some(reason)
                }
            });
        }
        Ok(Verdicts {
            reasons: StringArray::from(reasons),
            signals: vec![
                Arc::new(Float64Array::from(perplexities)),
                Arc::new(Float64Array::from(scores)),
                Arc::new(StringArray::from(buckets)),
            ],
        })
    }
}

#[cfg(test)]
mod tests;
