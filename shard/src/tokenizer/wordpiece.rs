//! Trains WordPiece vocabularies, as BERT has them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::bpe::{Limits, Words, learn};
use super::pattern::added_tokens;
use super::words::count_words;

/// BERT's special tokens, in the order of `BertWordPieceTokenizer`.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Letters that are learned: the most frequent ones, as in `BertWordPieceTokenizer`.
const LETTERS_MAX: usize = 1000;
/// Rarer pairs are not merged, as in `BertWordPieceTokenizer`.
const COUNT_MIN: u64 = 2;
const PREFIX: &str = "##";
/// Special tokens and a letter.
pub(super) const VOCABULARY_MIN: usize = SPECIAL.len() + 1;

/// Trains a WordPiece vocabulary and returns its `tokenizer.json`.
///
/// Lower case, accents stripped, words cut as BERT does (Devlin et al. 2019). Pieces are the merges of the most
/// frequent pairs, as in `WordPieceTrainer` of tokenizers 0.23; of pairs that are equally frequent, the one with the
/// smaller ids comes first, which that one leaves to a hash map.
pub(super) fn train(
    texts: impl Iterator<Item = String>,
    n_vocabulary: usize,
) -> Result<Value, String> {
    let words = count_words(&to_json(&["[UNK]".to_owned()]), texts)?;
    let letters = letters(&words);
    let is_known = |word: &str| word.chars().all(|letter| letters.contains(&letter));
    let inner: BTreeSet<char> = words
        .iter()
        .flat_map(|(word, _)| word.chars().skip(1))
        .filter(|c| letters.contains(c))
        .collect();
    let special = SPECIAL.iter().map(|token| (*token).to_owned());
    let first = letters.iter().map(char::to_string);
    let continuing = inner.iter().map(|letter| format!("{PREFIX}{letter}"));
    let tokens: Vec<String> = special.chain(first).chain(continuing).collect();
    if tokens.len() > n_vocabulary {
        return Err(format!(
            "{n_vocabulary} tokens are too few: special tokens and letters of the texts are {}",
            tokens.len()
        ));
    }
    let ids: BTreeMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
    let id = |(place, letter): (usize, char)| match place {
        0 => ids[letter.to_string().as_str()],
        _ => ids[format!("{PREFIX}{letter}").as_str()],
    };
    let known = words.iter().filter(|(word, _)| is_known(word));
    let words = Words::new(known.map(|(word, count)| (word.chars().enumerate().map(id), *count)));
    let limits = Limits { n_vocabulary, count_min: COUNT_MIN, prefix: PREFIX };
    Ok(to_json(&learn(tokens.clone(), words, &limits).tokens))
}

/// The most frequent letters; of equally frequent ones the first in Unicode.
fn letters(words: &[(Box<str>, u64)]) -> BTreeSet<char> {
    let mut counts = BTreeMap::<char, u64>::new();
    for (word, count) in words {
        word.chars().for_each(|letter| *counts.entry(letter).or_default() += count);
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(letter, count)| (std::cmp::Reverse(*count), *letter));
    counts.into_iter().take(LETTERS_MAX).map(|(letter, _)| letter).collect()
}

fn to_json(tokens: &[String]) -> Value {
    let special: Vec<_> =
        SPECIAL.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id, true)).collect();
    let ids = tokens.iter().cloned().zip((0_u32..).map(Value::from));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&special),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": 100, "vocab": ids.collect::<serde_json::Map<_, _>>(),
        },
    })
}

#[cfg(test)]
mod tests;
