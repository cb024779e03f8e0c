//! Reads SentencePiece models (`tokenizer.model`): BPE and Unigram, with byte fallback.
//!
//! Source: `sentencepiece_model.proto` of SentencePiece 0.2; the shape of the `tokenizer.json` is that of
//! transformers' `convert_slow_tokenizer.py`, the ids are SentencePiece's own. Only where a text has a user-defined
//! symbol do they follow transformers, which cuts it out first: what is around it begins like a text of its own.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use serde_json::{Value, json};

use super::pattern::added_tokens;
use crate::{Error, Result};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

// The messages, as far as they are read here; field numbers are those of the proto file.

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceMessage>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PieceMessage {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NormalizerSpec {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceKind {
    /// The kind of a number in SentencePiece and GGUF files.
    pub(super) fn of(number: i64) -> Result<Self, String> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(format!("a piece has the type {number}, known are 1 to 6")),
        })
    }
}

/// A token of the vocabulary; its id is its place.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f64,
    pub(super) kind: PieceKind,
}

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Bpe,
    Unigram,
}

/// All that decides about ids.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    pub(super) byte_fallback: bool,
    /// SentencePiece's compiled normalisation; empty for none.
    pub(super) charsmap: Vec<u8>,
    /// Whether a text begins as if a space stood before it.
    pub(super) add_dummy_prefix: bool,
    /// Whether runs of spaces count as one, and those at both ends as none.
    pub(super) remove_extra_whitespaces: bool,
}

/// Returns the `tokenizer.json` of the model at `path`.
pub(super) fn to_json(path: &Path, bytes: &[u8]) -> Result<Value> {
    let refuse = |why: String| Error::Tokenizer { what: format!("`{}`", path.display()), why };
    let model = Model::decode(bytes).map_err(|error| {
        refuse(format!(
            "it is no tokenizer.json, rank file, GGUF file or SentencePiece model ({error})"
        ))
    })?;
    pieces(model).and_then(|pieces| build(&pieces)).map_err(refuse)
}

fn pieces(model: Model) -> Result<Pieces, String> {
    if model.pieces.is_empty() {
        return Err("it is no SentencePiece model: it has no pieces".to_owned());
    }
    let trainer = model.trainer.unwrap_or_default();
    let normalizer = model.normalizer.unwrap_or_default();
    let algorithm = match trainer.model_type.unwrap_or(1) {
        1 => Algorithm::Unigram,
        2 => Algorithm::Bpe,
        number => {
            return Err(format!("its model type is {number}, known are 1 (unigram) and 2 (BPE)"));
        }
    };
    if trainer.treat_whitespace_as_suffix == Some(true) {
        return Err("it puts spaces at the end of words, which is not supported".to_owned());
    }
    if normalizer.escape_whitespaces == Some(false) {
        return Err("it does not escape spaces, which is not supported".to_owned());
    }
    let remove_extra_whitespaces = normalizer.remove_extra_whitespaces.unwrap_or(true);
    let name = normalizer.name.unwrap_or_default();
    if remove_extra_whitespaces && !name.starts_with("nmt_") {
        return Err(format!(
            "it collapses spaces but its normalizer `{name}` leaves other white space as it is, which is not supported"
        ));
    }
    let pieces = model.pieces.into_iter().map(|piece| {
        Ok(Piece {
            text: piece.piece.unwrap_or_default(),
            score: f64::from(piece.score.unwrap_or_default()),
            kind: PieceKind::of(i64::from(piece.kind.unwrap_or(1)))?,
        })
    });
    Ok(Pieces {
        pieces: pieces.collect::<Result<_, String>>()?,
        algorithm,
        byte_fallback: trainer.byte_fallback.unwrap_or(false),
        charsmap: normalizer.precompiled_charsmap.unwrap_or_default(),
        add_dummy_prefix: normalizer.add_dummy_prefix.unwrap_or(true),
        remove_extra_whitespaces,
    })
}

/// The `tokenizer.json` of `pieces`.
pub(super) fn build(pieces: &Pieces) -> Result<Value, String> {
    let mut seen = HashSet::new();
    if let Some(twice) = pieces.pieces.iter().find(|piece| !seen.insert(&piece.text)) {
        return Err(format!("the piece `{}` is there twice", twice.text));
    }
    let added: Vec<(String, u32, bool)> = (0..)
        .zip(&pieces.pieces)
        .filter_map(|(id, piece)| {
            let is_special = match piece.kind {
                PieceKind::Control | PieceKind::Unknown => true,
                PieceKind::UserDefined => false,
                _ => return None,
            };
            Some((piece.text.clone(), id, is_special))
        })
        .collect();
    let (normalizer, pre_tokenizer) = shape(pieces)?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&added),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": decoder(pieces.add_dummy_prefix),
        "model": model(pieces)?,
    }))
}

/// Normaliser and pre-tokenizer.
///
/// Where no piece crosses a space, words are encoded one by one: the same ids, and much faster.
fn shape(pieces: &Pieces) -> Result<(Value, Value), String> {
    let crosses = |piece: &&Piece| {
        piece.kind == PieceKind::Normal && piece.text.chars().skip(1).any(|c| SPACE.starts_with(c))
    };
    let crossing = pieces.pieces.iter().find(crosses);
    let mut normalizers = Vec::new();
    if !pieces.charsmap.is_empty() {
        normalizers.push(
            json!({"type": "Precompiled", "precompiled_charsmap": BASE64.encode(&pieces.charsmap)}),
        );
    }
    let pre_tokenizer = if pieces.remove_extra_whitespaces {
        // T5's shape: words without their spaces, each with one before it.
        if let Some(piece) = crossing {
            return Err(format!(
                "it collapses spaces and has the piece `{}` with a space inside, which is not supported",
                piece.text
            ));
        }
        if !pieces.add_dummy_prefix {
            return Err(
                "it collapses spaces and adds none at the start, which is not supported".to_owned()
            );
        }
        json!({
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true},
            ],
        })
    } else {
        // LLaMA's shape.
        if pieces.add_dummy_prefix {
            normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
        }
        normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
        match crossing {
            Some(_) => Value::Null,
            None => json!({
                "type": "Split", "pattern": {"String": SPACE}, "behavior": "MergedWithNext", "invert": false,
            }),
        }
    };
    let normalizer = match normalizers.is_empty() {
        true => Value::Null,
        false => json!({"type": "Sequence", "normalizers": normalizers}),
    };
    Ok((normalizer, pre_tokenizer))
}

fn decoder(strips_prefix: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if strips_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

fn model(pieces: &Pieces) -> Result<Value, String> {
    let unknown = pieces.pieces.iter().position(|piece| piece.kind == PieceKind::Unknown);
    let unknown = unknown.ok_or("it has no piece for the unknown")?;
    Ok(match pieces.algorithm {
        Algorithm::Unigram => json!({
            "type": "Unigram",
            "unk_id": unknown,
            "byte_fallback": pieces.byte_fallback,
            "vocab": pieces.pieces.iter().map(|piece| json!([piece.text, piece.score])).collect::<Value>(),
        }),
        Algorithm::Bpe => json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": pieces.pieces[unknown].text,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": pieces.byte_fallback,
            "ignore_merges": false,
            "vocab": (0_u32..).zip(&pieces.pieces)
                .map(|(id, piece)| (piece.text.clone(), Value::from(id)))
                .collect::<serde_json::Map<_, _>>(),
            "merges": merges(&pieces.pieces),
        }),
    })
}

/// Every pair of pieces whose texts together are a piece, the best score first.
///
/// Source: `SentencePieceExtractor` of transformers 5. Pieces that SentencePiece never merges take no part.
fn merges(pieces: &[Piece]) -> Value {
    let merged = |piece: &Piece| matches!(piece.kind, PieceKind::Normal | PieceKind::Unused);
    let ids: HashMap<&str, usize> = pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| merged(piece))
        .map(|(id, piece)| (piece.text.as_str(), id))
        .collect();
    let mut found = Vec::new();
    for (id, piece) in
        pieces.iter().enumerate().filter(|(_, piece)| piece.kind == PieceKind::Normal)
    {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                found.push((piece.score, id, left, right));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(b.2.len().cmp(&a.2.len())));
    found.into_iter().map(|(_, _, left, right)| json!([left, right])).collect()
}
