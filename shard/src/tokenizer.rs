//! Text to token ids and back, for any `tokenizer.json` and for what can be written as one: rank files of tiktoken,
//! SentencePiece models, the vocabulary inside a GGUF file.
//!
//! Two implementations of the same format meet here: the release candidate of `tokenizers` encodes (some forty
//! times faster), the stable version decodes and writes. Tests hold their ids against each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};
use tokenizers_stable as stable;

use crate::manifest::{TokenizerInfo, hash};
use crate::{Error, Result};

mod bpe;
mod ends;
mod gguf;
mod pattern;
mod plain;
mod sentencepiece;
mod tiktoken;
mod unigram;
mod wordpiece;
mod words;

pub use bpe::train_bpe;

/// The special token of vocabularies trained here: ends a document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// What ends a document, by the conventions of the families of tokenizers; the first that is there counts.
const END_OF_DOCUMENT: [&str; 4] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "[SEP]"];
/// Every byte is a token of a byte-level vocabulary, and one more ends a document.
const VOCABULARY_MIN: usize = 257;

/// What a `tokenizer.json` says, ready to encode from any thread.
pub struct Tokenizer {
    json: Vec<u8>,
    fingerprint: String,
    place: String,
    n_vocabulary: u32,
    special: BTreeMap<String, u32>,
    end_of_document: Option<u32>,
    encoder: PipelineTokenizer,
    options: EncodeOptions,
    /// Whether `encoder` has no ids of its own: [`plain::complete_bytes`].
    has_all_bytes: bool,
    /// Built when something is decoded first, or a conversation encoded: most uses only encode text.
    stable: OnceLock<Result<stable::Tokenizer, String>>,
    /// Both built when the ends of tokens are asked for first: see [`ends`].
    spellings: OnceLock<ends::Spellings>,
    aligned: OnceLock<Result<stable::Tokenizer, String>>,
}

impl Tokenizer {
    /// Loads the tokenizer at `path`: a `tokenizer.json`, a rank file of tiktoken (whose pattern and special tokens
    /// come from its name or from a side file `X.tiktoken.json`), a SentencePiece model or the vocabulary of a GGUF file.
    /// What kind it is, its content says.
    ///
    /// # Errors
    /// When the file cannot be read or describes no tokenizer that is supported.
    pub fn load(path: &Path) -> Result<Self> {
        let place = format!("`{}`", path.display());
        let json = if starts_with(path, gguf::MAGIC)? {
            gguf::to_json(path)?
        } else {
            let bytes = fs::read(path).map_err(Error::io("read", path))?;
            if bytes.trim_ascii_start().starts_with(b"{") {
                return Self::from_bytes(&bytes, &place);
            }
            if tiktoken::is_ranks(&bytes) {
                tiktoken::to_json(path, &bytes)?
            } else {
                sentencepiece::to_json(path, &bytes)?
            }
        };
        Self::from_bytes(json.to_string().as_bytes(), &place)
    }

    /// Takes the bytes of a `tokenizer.json`; `place` names it in errors.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Self> {
        let refuse = |why: String| Error::Tokenizer { what: place.to_owned(), why };
        let text = std::str::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        let mut json: Value =
            serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let added = added_tokens(&json).map_err(refuse)?;
        let n_vocabulary = n_vocabulary(&json, &added).map_err(refuse)?;
        check_model(&json).map_err(refuse)?;
        let special: BTreeMap<_, _> = added
            .into_iter()
            .filter(|token| token.is_special)
            .map(|token| (token.content, token.id))
            .collect();
        let end_of_document =
            END_OF_DOCUMENT.iter().find_map(|content| special.get(*content).copied());
        let fingerprint = hash(bytes);
        let unknown = plain::hide_special(&mut json, &special, &fingerprint);
        let n_bytes_missing = plain::complete_bytes(&mut json, n_vocabulary);
        let plain = json.to_string();
        let canonical =
            tokenizers::canonicalize_str(&plain).map_err(|error| refuse(error.to_string()))?;
        let encoder =
            tokenizers::from_json(&canonical).map_err(|error| refuse(error.to_string()))?;
        let tokenizer = Self {
            json: bytes.to_vec(),
            fingerprint,
            place: place.to_owned(),
            n_vocabulary,
            special,
            end_of_document,
            encoder,
            options: EncodeOptions {
                add_special_tokens: false,
                // The text of a special token is text: a page about `<|endoftext|>` does not end there.
                encode_special_tokens: true,
                padding: Override::Off,
                truncation: Override::Off,
            },
            has_all_bytes: n_bytes_missing == 0,
            stable: OnceLock::new(),
            spellings: OnceLock::new(),
            aligned: OnceLock::new(),
        };
        tokenizer.check_special(unknown.as_deref())?;
        Ok(tokenizer)
    }

    /// Encodes the text of every special token: none may come out as one.
    fn check_special(&self, unknown: Option<&str>) -> Result<()> {
        let mut ids = Vec::new();
        for (content, id) in &self.special {
            ids.clear();
            self.encode(content, &mut ids)?;
            if ids.contains(id) && unknown != Some(content) {
                return Err(self.error(format!(
                    "the text `{content}` would be encoded as the special token {id}"
                )));
            }
        }
        Ok(())
    }

    /// The bytes of `tokenizer.json`, as they were given.
    #[must_use]
    pub fn to_bytes(&self) -> &[u8] {
        &self.json
    }

    /// BLAKE3 of `tokenizer.json`.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// One more than the largest id.
    #[must_use]
    pub fn n_vocabulary(&self) -> u32 {
        self.n_vocabulary
    }

    /// Special tokens by content. [`Tokenizer::encode`] gives none of them but the one that a model itself has for
    /// what it does not know (`[UNK]`).
    #[must_use]
    pub fn special(&self) -> &BTreeMap<String, u32> {
        &self.special
    }

    /// The token that ends a document: the first special token among `<|endoftext|>`, `<|end_of_text|>`,
    /// `</s>` and `[SEP]`.
    #[must_use]
    pub fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }

    /// What a manifest says about it; `path` is that of `tokenizer.json` in the dataset.
    #[must_use]
    pub fn info(&self, path: &str) -> TokenizerInfo {
        TokenizerInfo {
            path: path.to_owned(),
            fingerprint: self.fingerprint.clone(),
            n_vocabulary: self.n_vocabulary,
            special: self.special.clone(),
            end_of_document: self.end_of_document,
        }
    }

    /// Appends the ids of `text` to `out`, without special tokens; what is in `out` stays.
    ///
    /// # Errors
    /// When the vocabulary has no token for a part of `text` and none for the unknown.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        thread_local! {
            static TOKENS: RefCell<Vec<PipelineToken>> = const { RefCell::new(Vec::new()) };
        }
        TOKENS.with_borrow_mut(|tokens| {
            tokens.clear();
            self.encoder
                .encode_into(text, &self.options, tokens)
                .map_err(|error| self.error(error))?;
            let ids = PipelineToken::cast_slice(tokens);
            if self.has_all_bytes {
                out.extend_from_slice(ids);
            } else {
                out.extend(ids.iter().filter(|id| **id < self.n_vocabulary));
            }
            // One huge document must not keep its memory for the life of the thread.
            tokens.shrink_to(SCRATCH_TOKENS_MAX);
            Ok(())
        })
    }

    /// Returns the text of `ids`, special tokens included.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| **id >= self.n_vocabulary) {
            let n = self.n_vocabulary;
            return Err(self.error(format!("token {id} is not below its {n} tokens")));
        }
        self.stable()?.decode(ids, false).map_err(|error| self.error(error))
    }

    /// The stable implementation, which takes the text of a special token for the token.
    pub(crate) fn stable(&self) -> Result<&stable::Tokenizer> {
        let stable = self.stable.get_or_init(|| {
            let mut stable = stable::Tokenizer::from_bytes(&self.json);
            if let Ok(stable) = &mut stable {
                // What a file says of these is for the models that it came with.
                stable
                    .with_padding(None)
                    .with_truncation(None)
                    .expect("nothing cannot be too long");
            }
            stable.map_err(|error| error.to_string())
        });
        stable.as_ref().map_err(|why| self.error(why))
    }

    pub(crate) fn error(&self, why: impl fmt::Display) -> Error {
        Error::Tokenizer { what: self.place.clone(), why: why.to_string() }
    }
}

/// Ids that [`Tokenizer::encode`] keeps room for between two texts, per thread.
const SCRATCH_TOKENS_MAX: usize = 1 << 20;

/// Whether the file at `path` begins with `magic`.
fn starts_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut start = Vec::new();
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    file.take(magic.len() as u64).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(start == magic)
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("place", &self.place)
            .field("fingerprint", &self.fingerprint)
            .field("n_vocabulary", &self.n_vocabulary)
            .finish_non_exhaustive()
    }
}

/// The models that [`Tokenizer::encode`] knows.
const MODELS: [&str; 4] = ["BPE", "Unigram", "WordLevel", "WordPiece"];

/// Refuses a model by its name; files of old versions have none.
fn check_model(json: &Value) -> Result<(), String> {
    match json.pointer("/model/type").and_then(Value::as_str) {
        Some(model) if !MODELS.contains(&model) => {
            Err(format!("its model is `{model}`, known are `{}`", MODELS.join("`, `")))
        }
        _ => Ok(()),
    }
}

struct AddedToken {
    content: String,
    id: u32,
    is_special: bool,
}

fn added_tokens(json: &Value) -> Result<Vec<AddedToken>, String> {
    let Some(list) = json.get("added_tokens").and_then(Value::as_array) else {
        return Ok(Vec::new());
    };
    list.iter()
        .map(|token| {
            let content = token.get("content").and_then(Value::as_str);
            let id = token.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            let is_special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            match (content, id) {
                (Some(content), Some(id)) => {
                    Ok(AddedToken { content: content.to_owned(), id, is_special })
                }
                _ => Err(format!("added token {token} has no content or no id")),
            }
        })
        .collect()
}

/// One more than the largest id of the model and of the added tokens.
fn n_vocabulary(json: &Value, added: &[AddedToken]) -> Result<u32, String> {
    let vocabulary = json.pointer("/model/vocab").ok_or("it has no `model.vocab`")?;
    let of_model = match vocabulary {
        Value::Object(ids) => {
            let ids = ids.iter().map(|(token, id)| {
                id.as_u64().ok_or_else(|| format!("the id of `{token}` is {id}, not a number"))
            });
            ids.collect::<Result<Vec<_>, _>>()?.into_iter().max().map_or(0, |id| id + 1)
        }
        Value::Array(pieces) => pieces.len() as u64,
        _ => return Err("its `model.vocab` is neither a table nor a list".to_owned()),
    };
    let of_added = added.iter().map(|token| u64::from(token.id) + 1).max().unwrap_or(0);
    match u32::try_from(of_model.max(of_added)) {
        Ok(0) => Err("its vocabulary is empty".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("its largest id is {}, more than 32 bits", of_model.max(of_added))),
    }
}

/// A model that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    /// `bpe`: byte-level, GPT-2's scheme.
    Bpe,
    /// `wordpiece`: BERT's, lower case.
    WordPiece,
    /// `unigram`: SentencePiece's, with bytes for what it does not know.
    Unigram,
}

impl Training {
    /// Every one, by name.
    const ALL: [(&str, Self); 3] =
        [("bpe", Self::Bpe), ("unigram", Self::Unigram), ("wordpiece", Self::WordPiece)];

    /// What the smallest vocabulary has.
    fn vocabulary_min(self) -> (usize, &'static str) {
        match self {
            Self::Bpe => (VOCABULARY_MIN, "256 bytes and `<|endoftext|>`"),
            Self::WordPiece => (wordpiece::VOCABULARY_MIN, "five special tokens and a letter"),
            Self::Unigram => (
                unigram::VOCABULARY_MIN,
                "256 bytes, the letters of their names and two special tokens",
            ),
        }
    }
}

/// Where a job's tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// `train:bpe:N` and its like: trained on the documents themselves.
    Train {
        /// The model.
        training: Training,
        /// Tokens of the vocabulary, special ones included.
        n_vocabulary: usize,
    },
    /// Any file that [`Tokenizer::load`] reads.
    Path(PathBuf),
}

impl TokenizerSpec {
    /// Reads `train:bpe:32000`, `train:wordpiece:30000`, `train:unigram:16000` or a path.
    ///
    /// # Errors
    /// [`Error::Config`] when a training is asked for that does not exist, or one of too few tokens.
    pub fn parse(spec: &str) -> Result<Self> {
        let refuse = |message: String| {
            Error::Config {
            place: format!("tokenizer `{spec}`"),
            message,
            hint: Some(
                "write `train:bpe:32000`, `train:wordpiece:30000`, `train:unigram:16000` or the path of a tokenizer.json"
                    .to_owned(),
            ),
        }
        };
        let Some(training) = spec.strip_prefix("train:") else {
            return match spec {
                "" => Err(refuse("it is empty".to_owned())),
                path => Ok(Self::Path(PathBuf::from(path))),
            };
        };
        let (name, n) = training.split_once(':').unwrap_or((training, ""));
        let Some((_, training)) = Training::ALL.iter().find(|(known, _)| *known == name) else {
            return Err(refuse(format!("there is no training called `{name}`")));
        };
        let n_vocabulary: usize = n
            .replace('_', "")
            .parse()
            .map_err(|_| refuse(format!("`{n}` is not a number of tokens")))?;
        let (min, what) = training.vocabulary_min();
        if n_vocabulary < min {
            return Err(refuse(format!("{n_vocabulary} tokens are too few: {what} need {min}")));
        }
        Ok(Self::Train { training: *training, n_vocabulary })
    }
}

/// Trains a vocabulary and returns its `tokenizer.json`: the same bytes for the same texts, whatever the threads.
///
/// Memory is bounded by the number of different words, at most eight million. See [`train_bpe`] for `bpe`.
///
/// # Errors
/// When `n_vocabulary` does not hold the letters of `texts`, or there are none.
///
/// # Panics
/// When `n_vocabulary` is below what [`TokenizerSpec::parse`] lets through.
pub fn train(
    training: Training,
    n_vocabulary: usize,
    texts: impl Iterator<Item = String> + Send,
) -> Result<Vec<u8>> {
    let (min, _) = training.vocabulary_min();
    assert!(n_vocabulary >= min, "{n_vocabulary} tokens, needs {min}");
    let (name, trained) = match training {
        Training::Bpe => return train_bpe(texts, n_vocabulary),
        Training::WordPiece => ("wordpiece", wordpiece::train(texts, n_vocabulary)),
        Training::Unigram => ("unigram", unigram::train(texts, n_vocabulary)),
    };
    let refuse = |why| Error::Tokenizer { what: format!("`train:{name}:{n_vocabulary}`"), why };
    Ok(trained.map_err(refuse)?.to_string().into_bytes())
}

#[cfg(test)]
mod tests;
