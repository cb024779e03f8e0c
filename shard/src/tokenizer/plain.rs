//! The form of a `tokenizer.json` in which the text of a special token is nothing but text.
//!
//! An implementation that is told to take special tokens as text still has them in its vocabulary: a Unigram model
//! would find `</s>` there as it finds any piece, and a model that takes whole words as they are would find a special
//! token that is one word. So they are given names that no text has; their ids stay.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::pattern::spell;

/// A Unigram model chooses the piece `<0x41>` for the text that spells it. With a score this low it does only where
/// one of its characters has no piece of its own. Elsewhere nothing changes: bytes stand in for what is unknown,
/// whatever they score.
const BYTE_SCORE: f64 = -1e6;

/// Renames the special tokens of `json`, except the one that stands for the unknown and is found by its name.
/// Returns that one.
///
/// `fingerprint` makes the names those that nobody writes by accident.
pub(super) fn hide_special(
    json: &mut Value,
    special: &BTreeMap<String, u32>,
    fingerprint: &str,
) -> Option<String> {
    let unknown = unknown(json);
    // Found by its place: its name is free.
    let of_unigram = json
        .pointer("/model/unk_id")
        .and_then(Value::as_u64)
        .and_then(|id| json.pointer(&format!("/model/vocab/{id}/0")))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let merged = merged(json, special);
    let name = |content: &str| {
        let id = special.get(content)?;
        let stays = unknown.as_deref() == Some(content) || merged.contains(content);
        // Characters that Unicode promises never to assign.
        (!stays).then(|| format!("\u{10ffff}\u{10fffe}{id}:{fingerprint}"))
    };
    let bytes = json.pointer("/model/byte_fallback").and_then(Value::as_bool).unwrap_or(false);
    match json.pointer_mut("/model/vocab") {
        Some(Value::Object(ids)) => {
            let renamed: Vec<_> =
                special.keys().filter_map(|content| Some((content, name(content)?))).collect();
            for (content, name) in renamed {
                if let Some(id) = ids.remove(content) {
                    ids.insert(name, id);
                }
            }
        }
        Some(Value::Array(pieces)) => {
            for piece in pieces {
                let Some(text) = piece.get(0).and_then(Value::as_str) else { continue };
                if let Some(name) = name(text) {
                    piece[0] = Value::from(name);
                } else if bytes && byte(text).is_some() {
                    piece[1] = Value::from(BYTE_SCORE);
                }
            }
        }
        _ => {}
    }
    if let Some(added) = json.get_mut("added_tokens").and_then(Value::as_array_mut) {
        for token in added {
            if let Some(name) = token.get("content").and_then(Value::as_str).and_then(name) {
                token["content"] = Value::from(name);
            }
        }
    }
    // It only adds special tokens, which it would look for by name.
    json["post_processor"] = Value::Null;
    unknown.or(of_unigram)
}

/// Adds the bytes that the byte-level vocabulary of `json` lacks, with ids from `n_vocabulary`; returns how many.
///
/// StarCoder's lacks bytes that only planes of Unicode without letters need. The encoder refuses such a vocabulary,
/// others leave the bytes out: so does who filters the new ids.
pub(super) fn complete_bytes(json: &mut Value, n_vocabulary: u32) -> usize {
    if !is_byte_level(&json["pre_tokenizer"]) {
        return 0;
    }
    let added: Vec<(String, Value)> = json
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|token| Some((token["content"].as_str()?.to_owned(), token["id"].clone())))
        .collect();
    let Some(Value::Object(ids)) = json.pointer_mut("/model/vocab") else { return 0 };
    let letters = (0..=u8::MAX).map(|byte| spell(&[byte]));
    let missing: Vec<String> = letters.filter(|letter| !ids.contains_key(letter)).collect();
    if !missing.is_empty() {
        // Added tokens that are not in the vocabulary would be numbered after the new ones.
        for (content, id) in added {
            ids.entry(content).or_insert(id);
        }
    }
    let n = missing.len();
    ids.extend(missing.into_iter().zip((n_vocabulary..).map(Value::from)));
    n
}

/// Whether words are spelled byte by byte.
pub(super) fn is_byte_level(pre_tokenizer: &Value) -> bool {
    let members = pre_tokenizer.get("pretokenizers").and_then(Value::as_array);
    pre_tokenizer["type"] == "ByteLevel"
        || members.is_some_and(|members| members.iter().any(is_byte_level))
}

/// The content of the token that a model gives for what it does not know.
fn unknown(json: &Value) -> Option<String> {
    let by_name = json.pointer("/model/unk_token").and_then(Value::as_str).map(str::to_owned);
    by_name.or_else(|| match json.pointer("/model/type").and_then(Value::as_str) {
        // What the stable implementation takes where a file says nothing.
        Some("WordPiece") => Some("[UNK]".to_owned()),
        Some("WordLevel") => Some("<unk>".to_owned()),
        _ => None,
    })
}

/// The special tokens that take part in a merge, as a half or as the whole.
fn merged(json: &Value, special: &BTreeMap<String, u32>) -> HashSet<String> {
    let lengths: HashSet<usize> = special.keys().map(String::len).collect();
    let mut merged = HashSet::new();
    for merge in json.pointer("/model/merges").and_then(Value::as_array).into_iter().flatten() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            pair => pair.get(0).and_then(Value::as_str).zip(pair.get(1).and_then(Value::as_str)),
        };
        let Some((left, right)) = pair else { continue };
        merged.extend(
            [left, right].into_iter().filter(|half| special.contains_key(*half)).map(str::to_owned),
        );
        if lengths.contains(&(left.len() + right.len())) {
            merged.insert(format!("{left}{right}"));
        }
    }
    merged
}

/// The byte that a piece is, `<0x00>` to `<0xFF>`.
pub(super) fn byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'))?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}
