//! Reads the vocabulary inside a GGUF file: its header of keys and values, never its tensors.
//!
//! Source: `docs/gguf.md` of ggml; what each model of a vocabulary means is llama.cpp's `llama-vocab.cpp`.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Value, json};

use super::pattern;
use super::sentencepiece::{self, Algorithm, Piece, PieceKind, Pieces, SPACE};
use crate::{Error, Result};

/// The first bytes of a GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Versions with lengths of 64 bits.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Longest string and list that are read: some hundred times those of real files.
const STRING_BYTES_MAX: u64 = 64 << 20;
const LIST_MAX: u64 = 1 << 24;
/// Keys in a header; real files have some dozens.
const KEYS_MAX: u64 = 1 << 16;

/// What a header says about the tokenizer, by the end of the key after `tokenizer.`.
#[derive(Debug, Default)]
struct Header {
    model: Option<String>,
    pre: Option<String>,
    tokens: Vec<String>,
    merges: Vec<String>,
    scores: Vec<f64>,
    kinds: Vec<i64>,
    unknown: Option<u32>,
    add_space_prefix: Option<bool>,
    remove_extra_whitespaces: Option<bool>,
    charsmap: Vec<u8>,
}

/// Returns the `tokenizer.json` of the vocabulary in the GGUF file at `path`.
pub(super) fn to_json(path: &Path) -> Result<Value> {
    let refuse = |why: String| Error::Tokenizer { what: format!("`{}`", path.display()), why };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let header = read(&mut Source { file: BufReader::new(file) }).map_err(refuse)?;
    build(header).map_err(refuse)
}

fn build(header: Header) -> Result<Value, String> {
    let n = header.tokens.len();
    if n == 0 {
        return Err("its header has no `tokenizer.ggml.tokens`".to_owned());
    }
    for (what, found) in [("scores", header.scores.len()), ("token_type", header.kinds.len())] {
        if found != 0 && found != n {
            return Err(format!("it has {n} tokens and {found} values in `tokenizer.ggml.{what}`"));
        }
    }
    match header.model.as_deref() {
        Some("gpt2") => byte_level(header),
        Some("llama") => pieces(header, Algorithm::Bpe),
        Some("t5") => pieces(header, Algorithm::Unigram),
        Some("bert") => word_piece(header),
        model => Err(format!(
            "its vocabulary is of the model `{}`, known are `bert`, `gpt2`, `llama` and `t5`",
            model.unwrap_or("(none)")
        )),
    }
}

fn byte_level(header: Header) -> Result<Value, String> {
    let pre = header.pre.as_deref().unwrap_or("default");
    let pre_tokenizer = pattern::pre_tokenizer(pre)?;
    let special = added(&header)?;
    let merges = header.merges.iter().map(|merge| {
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| format!("the merge `{merge}` is not two tokens with a space between"))?;
        Ok(json!([left, right]))
    });
    let merges = merges.collect::<Result<Value, String>>()?;
    let ids = header.tokens.iter().cloned().zip((0_u32..).map(Value::from));
    Ok(pattern::byte_level_json(&pattern::ByteLevelModel {
        vocabulary: Value::Object(ids.collect()),
        merges,
        special,
        pre_tokenizer,
        // As llama.cpp does for these.
        ignore_merges: matches!(pre, "llama-bpe" | "llama3" | "tekken" | "gpt-4o"),
    }))
}

/// Control and user-defined tokens: content, id, whether it is special.
fn added(header: &Header) -> Result<Vec<(String, u32, bool)>, String> {
    let mut added = Vec::new();
    for ((id, token), kind) in (0..).zip(&header.tokens).zip(&header.kinds) {
        match PieceKind::of(*kind)? {
            PieceKind::Control | PieceKind::Unknown => added.push((token.clone(), id, true)),
            PieceKind::UserDefined => added.push((token.clone(), id, false)),
            _ => {}
        }
    }
    Ok(added)
}

fn pieces(header: Header, algorithm: Algorithm) -> Result<Value, String> {
    if header.scores.is_empty() || header.kinds.is_empty() {
        return Err(
            "it has no `tokenizer.ggml.scores` or no `tokenizer.ggml.token_type`".to_owned()
        );
    }
    let scored = header.tokens.into_iter().zip(header.scores).zip(header.kinds);
    let pieces =
        scored.map(|((text, score), kind)| Ok(Piece { text, score, kind: PieceKind::of(kind)? }));
    let pieces: Vec<Piece> = pieces.collect::<Result<_, String>>()?;
    let byte_fallback = pieces.iter().any(|piece| piece.kind == PieceKind::Byte);
    sentencepiece::build(&Pieces {
        pieces,
        algorithm,
        byte_fallback,
        charsmap: header.charsmap,
        add_dummy_prefix: header.add_space_prefix.unwrap_or(true),
        remove_extra_whitespaces: header.remove_extra_whitespaces.unwrap_or(false),
    })
}

/// BERT's. GGUF files mark the first piece of a word with a space and leave the others bare.
fn word_piece(header: Header) -> Result<Value, String> {
    let added = added(&header)?;
    let unknown = header.unknown.ok_or("it has no `tokenizer.ggml.unknown_token_id`")?;
    let is_added = |id: u32| added.iter().any(|(_, added, _)| *added == id);
    let mut vocabulary = serde_json::Map::new();
    for (id, token) in (0_u32..).zip(&header.tokens) {
        let text = match token.strip_prefix(SPACE) {
            Some(first) => first.to_owned(),
            // Those that are no words keep their names: `[PAD]`, `[unused7]`.
            None if is_added(id)
                || (token.starts_with('[') && token.ends_with(']') && token.len() > 2) =>
            {
                token.clone()
            }
            None => format!("##{token}"),
        };
        if let Some(first) = vocabulary.insert(text, Value::from(id)) {
            return Err(format!("the tokens {first} and {id} are both `{token}`"));
        }
    }
    let unknown = header.tokens.get(unknown as usize).ok_or_else(|| {
        format!("its unknown token {unknown} is not one of {}", header.tokens.len())
    })?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": pattern::added_tokens(&added),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }))
}

fn read(source: &mut Source<impl Read + Seek>) -> Result<Header, String> {
    if source.bytes::<4>()? != *MAGIC {
        return Err("it does not begin with `GGUF`".to_owned());
    }
    let version = source.u32()?;
    if !VERSIONS.contains(&version) {
        return Err(format!("its GGUF version is {version}, known are 2 and 3 in little endian"));
    }
    let _tensors = source.u64()?;
    let n = source.u64()?;
    if n > KEYS_MAX {
        return Err(format!("its header has {n} keys, at most {KEYS_MAX} are read"));
    }
    let mut header = Header::default();
    for _ in 0..n {
        let key = source.string()?;
        let kind = source.u32()?;
        header.take(&key, kind, source).map_err(|why| format!("`{key}`: {why}"))?;
    }
    Ok(header)
}

impl Header {
    fn take(
        &mut self,
        key: &str,
        kind: u32,
        source: &mut Source<impl Read + Seek>,
    ) -> Result<(), String> {
        match key {
            "tokenizer.ggml.model" => self.model = Some(source.text(kind)?),
            "tokenizer.ggml.pre" => self.pre = Some(source.text(kind)?),
            "tokenizer.ggml.tokens" => self.tokens = source.list(kind, Source::text)?,
            "tokenizer.ggml.merges" => self.merges = source.list(kind, Source::text)?,
            "tokenizer.ggml.scores" => self.scores = source.list(kind, Source::float)?,
            "tokenizer.ggml.token_type" => self.kinds = source.list(kind, Source::integer)?,
            "tokenizer.ggml.unknown_token_id" => {
                let id = source.integer(kind)?;
                self.unknown = Some(u32::try_from(id).map_err(|_| format!("{id} is no id"))?);
            }
            "tokenizer.ggml.add_space_prefix" => {
                self.add_space_prefix = Some(source.boolean(kind)?)
            }
            "tokenizer.ggml.remove_extra_whitespaces" => {
                self.remove_extra_whitespaces = Some(source.boolean(kind)?);
            }
            "tokenizer.ggml.precompiled_charsmap" => {
                let bytes = source.list(kind, Source::integer)?;
                // Signed and unsigned bytes are both in use.
                self.charsmap = bytes.iter().map(|byte| byte.to_le_bytes()[0]).collect();
            }
            _ => source.skip(kind)?,
        }
        Ok(())
    }
}

const STRING: u32 = 8;
const LIST: u32 = 9;

/// Values in little endian.
struct Source<R> {
    file: R,
}

impl<R: Read + Seek> Source<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(|error| format!("its header breaks off ({error})"))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self) -> Result<String, String> {
        let n = self.u64()?;
        if n > STRING_BYTES_MAX {
            return Err(format!("a string of {n} bytes, at most {STRING_BYTES_MAX} are read"));
        }
        let mut bytes = Vec::new();
        self.file.by_ref().take(n).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 != n {
            return Err(format!("a string of {n} bytes breaks off after {}", bytes.len()));
        }
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn text(&mut self, kind: u32) -> Result<String, String> {
        match kind {
            STRING => self.string(),
            _ => Err(format!("a value of type {kind} where a string belongs")),
        }
    }

    fn boolean(&mut self, kind: u32) -> Result<bool, String> {
        match kind {
            7 => Ok(self.bytes::<1>()? != [0]),
            _ => Err(format!("a value of type {kind} where yes or no belongs")),
        }
    }

    fn float(&mut self, kind: u32) -> Result<f64, String> {
        match kind {
            6 => Ok(f64::from(f32::from_le_bytes(self.bytes()?))),
            12 => Ok(f64::from_le_bytes(self.bytes()?)),
            _ => Err(format!("a value of type {kind} where a fraction belongs")),
        }
    }

    fn integer(&mut self, kind: u32) -> Result<i64, String> {
        Ok(match kind {
            0 => i64::from(self.bytes::<1>()?[0]),
            1 => i64::from(i8::from_le_bytes(self.bytes()?)),
            2 => i64::from(u16::from_le_bytes(self.bytes()?)),
            3 => i64::from(i16::from_le_bytes(self.bytes()?)),
            4 => i64::from(u32::from_le_bytes(self.bytes()?)),
            5 => i64::from(i32::from_le_bytes(self.bytes()?)),
            11 => i64::from_le_bytes(self.bytes()?),
            _ => return Err(format!("a value of type {kind} where an integer belongs")),
        })
    }

    fn list<T>(
        &mut self,
        kind: u32,
        item: impl Fn(&mut Self, u32) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        if kind != LIST {
            return Err(format!("a value of type {kind} where a list belongs"));
        }
        let kind = self.u32()?;
        let n = self.u64()?;
        if n > LIST_MAX {
            return Err(format!("a list of {n} values, at most {LIST_MAX} are read"));
        }
        (0..n).map(|_| item(self, kind)).collect()
    }

    fn skip(&mut self, kind: u32) -> Result<(), String> {
        match kind {
            STRING => self.string().map(drop),
            LIST => {
                let item = self.u32()?;
                let n = self.u64()?;
                match item {
                    STRING => (0..n).try_for_each(|_| self.string().map(drop)),
                    LIST => Err("a list of lists".to_owned()),
                    _ => self.advance(n.checked_mul(width(item)?).ok_or("a list without end")?),
                }
            }
            _ => self.advance(width(kind)?),
        }
    }

    fn advance(&mut self, n: u64) -> Result<(), String> {
        let n = i64::try_from(n).map_err(|_| format!("a value of {n} bytes"))?;
        self.file.seek(SeekFrom::Current(n)).map(drop).map_err(|error| error.to_string())
    }
}

/// Bytes of a number.
fn width(kind: u32) -> Result<u64, String> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(format!("a value of the unknown type {kind}")),
    }
}
