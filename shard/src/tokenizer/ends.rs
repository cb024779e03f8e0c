//! Which bytes of a text each token stands for.
//!
//! The fast encoder does not say. Tokens of a byte-level or SentencePiece vocabulary spell the text, so their bytes are
//! laid along it; where they do not fit (a normal form that changes letters, WordPiece) the stable implementation is
//! asked, which keeps track of every letter and is some forty times slower.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers_stable as stable;

use super::pattern::spell;
use super::{Tokenizer, plain};
use crate::Result;

/// What SentencePiece writes for a blank.
const BLANK: &[u8] = "\u{2581}".as_bytes();

/// The bytes of every token of a vocabulary, by id; empty where an id stands for no text.
#[derive(Debug)]
pub(super) struct Spellings {
    bytes: Vec<Box<[u8]>>,
    /// Whether [`BLANK`] in a token may stand for a blank.
    has_blanks: bool,
}

impl Spellings {
    fn new(json: &Value, n_vocabulary: u32) -> Self {
        let is_byte_level = plain::is_byte_level(&json["pre_tokenizer"]);
        let letters: HashMap<char, u8> = (0..=u8::MAX)
            .flat_map(|byte| {
                spell(&[byte]).chars().map(move |letter| (letter, byte)).collect::<Vec<_>>()
            })
            .collect();
        let has_bytes = json.pointer("/model/byte_fallback") == Some(&Value::Bool(true));
        let of_model = |token: &str| -> Box<[u8]> {
            let byte = has_bytes.then(|| plain::byte(token)).flatten();
            match byte {
                Some(byte) => Box::from([byte]),
                None if is_byte_level => {
                    let bytes = token.chars().map(|letter| letters.get(&letter).copied());
                    bytes.collect::<Option<_>>().unwrap_or_default()
                }
                None => token.as_bytes().into(),
            }
        };
        let mut bytes = vec![Box::default(); n_vocabulary as usize];
        let mut put = |id: Option<u64>, token: Box<[u8]>| {
            let id = id.and_then(|id| usize::try_from(id).ok());
            if let Some(place) = id.and_then(|id| bytes.get_mut(id)) {
                *place = token;
            }
        };
        match json.pointer("/model/vocab") {
            Some(Value::Object(ids)) => {
                ids.iter().for_each(|(token, id)| put(id.as_u64(), of_model(token)));
            }
            Some(Value::Array(pieces)) => {
                for (id, piece) in (0..).zip(pieces) {
                    put(Some(id), of_model(piece[0].as_str().unwrap_or_default()));
                }
            }
            _ => {}
        }
        // Added tokens are text as it stands.
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            if let Some(content) = token["content"].as_str() {
                put(token["id"].as_u64(), content.as_bytes().into());
            }
        }
        Self { bytes, has_blanks: !is_byte_level }
    }

    /// Appends the byte behind each token, if the tokens spell `text` from end to end.
    fn lay(&self, ids: &[u32], text: &[u8], ends: &mut Vec<u32>) -> bool {
        // Some encoders put a blank before the text.
        self.lay_behind(b"", ids, text, ends)
            || self.lay_behind(if self.has_blanks { BLANK } else { b" " }, ids, text, ends)
    }

    /// The same, where the first token begins with `prefix`, which is not in the text.
    fn lay_behind(&self, prefix: &[u8], ids: &[u32], text: &[u8], ends: &mut Vec<u32>) -> bool {
        let n_before = ends.len();
        let mut at = 0;
        for (index, id) in ids.iter().enumerate() {
            let token = self.bytes.get(*id as usize).filter(|token| !token.is_empty());
            let token = match index {
                0 => token.and_then(|token| token.strip_prefix(prefix)),
                _ => token.map(|token| &token[..]),
            };
            match token.and_then(|token| self.length(token, &text[at..])) {
                Some(length) => at += length,
                None => break,
            }
            ends.push(end(at));
        }
        let is_laid = at == text.len() && ends.len() - n_before == ids.len();
        if !is_laid {
            ends.truncate(n_before);
        }
        is_laid
    }

    /// Bytes of `text` that begin it as `token` spells them.
    fn length(&self, token: &[u8], text: &[u8]) -> Option<usize> {
        if text.starts_with(token) {
            return Some(token.len());
        }
        if !self.has_blanks {
            return None;
        }
        let (mut token, mut at) = (token, 0);
        while let Some((first, rest)) = token.split_first() {
            match token.strip_prefix(BLANK) {
                Some(rest) if text.get(at) == Some(&b' ') => (token, at) = (rest, at + 1),
                _ if text.get(at) == Some(first) => (token, at) = (rest, at + 1),
                _ => return None,
            }
        }
        Some(at)
    }
}

impl Tokenizer {
    /// Appends the ids of `text` to `ids`, as [`Tokenizer::encode`] does, and to `ends` the byte of `text` behind each
    /// token.
    ///
    /// Tokens tile the text: each begins where the one before it ends, the first one at 0. What a tokenizer leaves out,
    /// such as the blanks before a word, belongs to the token before it. A token may end inside of a character.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; and when the two implementations see other tokens in a text that no tokens spell.
    ///
    /// # Panics
    /// When `text` has 4 GiB or more.
    pub fn encode_with_ends(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        ends: &mut Vec<u32>,
    ) -> Result<()> {
        let n_before = ids.len();
        self.encode(text, ids)?;
        let new = &ids[n_before..];
        let spellings = self.spellings.get_or_init(|| {
            let json = serde_json::from_slice(&self.json).expect("it was read before");
            Spellings::new(&json, self.n_vocabulary)
        });
        if spellings.lay(new, text.as_bytes(), ends) {
            return Ok(());
        }
        let encoding = self.aligned()?.encode(text, false).map_err(|error| self.error(error))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let tokens: Vec<_> = tokens.filter(|(id, _)| **id < self.n_vocabulary).collect();
        if !tokens.iter().map(|(id, _)| *id).eq(new) {
            return Err(self.error(format!(
                "its implementations make {} and {} tokens of one text, and differ from token {} on",
                new.len(),
                tokens.len(),
                tokens.iter().zip(new).take_while(|(a, b)| a.0 == *b).count(),
            )));
        }
        let mut last = 0;
        for index in 0..tokens.len() {
            let next = tokens.get(index + 1).map_or(text.len(), |(_, (start, _))| *start);
            last = next.max(last);
            ends.push(end(last));
        }
        Ok(())
    }

    /// The stable implementation, with nothing but text in a text.
    fn aligned(&self) -> Result<&stable::Tokenizer> {
        let aligned = self.aligned.get_or_init(|| {
            let mut json = serde_json::from_slice(&self.json).expect("it was read before");
            plain::hide_special(&mut json, &self.special, &self.fingerprint);
            plain::complete_bytes(&mut json, self.n_vocabulary);
            let mut aligned = stable::Tokenizer::from_bytes(json.to_string());
            if let Ok(aligned) = &mut aligned {
                aligned.set_encode_special_tokens(true);
                aligned.with_padding(None);
                aligned.with_truncation(None).expect("nothing cannot be too long");
            }
            aligned.map_err(|error| error.to_string())
        });
        aligned.as_ref().map_err(|why| self.error(why))
    }
}

fn end(at: usize) -> u32 {
    u32::try_from(at).expect("a text has less than 4 GiB")
}
