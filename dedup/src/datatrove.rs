//! Signatures bit for bit as datatrove makes them (`pipeline/dedup/minhash.py`, `utils/text.py`, version 0.10.1).
//!
//! The shingles are xxHash64 of `ngram` words joined by spaces. The permutations are (x·a + b mod 2⁶⁴) mod (2⁶¹ − 1): the
//! product wraps before it is reduced, as numpy's does. `a` and `b` come from numpy's legacy generator, a Mersenne twister.
//! The words are those of a tokenizer (spaCy's for English) over the [`simplify`]-ed text.
//! A document with fewer words than a shingle has no signature.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class as class, decompose_canonical};
use xxhash_rust::xxh64::xxh64;

use crate::Result;
use crate::mersenne_twister::{MERSENNE_PRIME, MersenneTwister};
use crate::minhash::Config;

/// The hash functions of datatrove for one configuration.
#[derive(Clone, Debug)]
pub struct Datatrove {
    ngram: usize,
    factors: Vec<u64>,
    terms: Vec<u64>,
}

impl Datatrove {
    /// Draws the permutations as `numpy.random.RandomState(seed)` does.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a seed beyond 32 bits.
    pub fn new(config: &Config) -> Result<Self> {
        let mut random = MersenneTwister::new(config.numpy_seed()?);
        let mut draw = |low: u64| -> Vec<u64> {
            (0..config.n_hashes()).map(|_| random.below(low, MERSENNE_PRIME)).collect()
        };
        let factors = draw(1);
        let terms = draw(0);
        Ok(Self { ngram: config.ngram, factors, terms })
    }

    /// Replaces `shingles` by the hash of every shingle of `words`.
    pub fn shingles<S: AsRef<str>>(&self, words: &[S], shingles: &mut Vec<u64>) {
        shingles.clear();
        let mut joined = String::new();
        for window in words.windows(self.ngram) {
            joined.clear();
            for word in window {
                if !joined.is_empty() {
                    joined.push(' ');
                }
                joined.push_str(word.as_ref());
            }
            shingles.push(xxh64(joined.as_bytes(), 0));
        }
    }

    /// Appends the signature of a document's shingles; nothing when there are none.
    pub fn signature(&self, shingles: &[u64], signature: &mut Vec<u64>) {
        if shingles.is_empty() {
            return;
        }
        signature.extend(self.factors.iter().zip(&self.terms).map(|(&a, &b)| {
            let permuted = |x: &u64| x.wrapping_mul(a).wrapping_add(b) % MERSENNE_PRIME;
            shingles.iter().map(permuted).min().expect("there is a shingle")
        }));
    }
}

static NUMBERS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\p{Nd}+(?:[.,،٫⎖⎗⎘]\p{Nd}+)?").expect("a constant pattern"));

static MARKS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\p{Mn}+").expect("a constant pattern"));

/// Returns a text as datatrove compares it: lower case, numbers as `0`, no punctuation, single spaces, no diacritics.
#[must_use]
pub fn simplify(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut spaced = String::with_capacity(lower.len());
    for c in NUMBERS.replace_all(&lower, "0").chars() {
        if !is_punctuation(c) && !c.is_whitespace() {
            spaced.push(c);
        } else if !spaced.is_empty() && !spaced.ends_with(' ') {
            spaced.push(' ');
        }
    }
    let decomposed: String = spaced.nfd().collect();
    MARKS.replace_all(&decomposed, "").trim().to_owned()
}

/// Returns [`simplify`] of a text, and for each of its bytes the bytes of the text that it is from. Slow: follows every character.
pub(crate) fn simplify_mapped(text: &str) -> (String, Vec<Range<usize>>) {
    let lower = text.to_lowercase();
    let mut numbers = NUMBERS.find_iter(&lower).map(|number| number.range()).peekable();
    // In lower case a final sigma is another character than other sigmas, but one as well.
    let sources = text
        .char_indices()
        .flat_map(|(at, c)| std::iter::repeat_n(at..at + c.len_utf8(), c.to_lowercase().count()));
    let mut spaced: Vec<(char, Range<usize>)> = Vec::with_capacity(lower.len());
    for ((at, c), source) in lower.char_indices().zip(sources) {
        while numbers.next_if(|number| number.end <= at).is_some() {}
        match numbers.peek() {
            Some(number) if number.start == at => spaced.push(('0', source)),
            Some(number) if number.start < at => {
                spaced.last_mut().expect("its first digit is there").1.end = source.end;
            }
            _ if !is_punctuation(c) && !c.is_whitespace() => spaced.push((c, source)),
            _ if spaced.last().is_some_and(|(last, _)| *last != ' ') => spaced.push((' ', source)),
            _ => {}
        }
    }
    let mut decomposed: Vec<(char, Range<usize>)> = Vec::with_capacity(spaced.len());
    for (c, source) in spaced {
        decompose_canonical(c, |part| decomposed.push((part, source.clone())));
    }
    // The order of marks that stand on one letter.
    for marks in decomposed.chunk_by_mut(|a, b| class(a.0) != 0 && class(b.0) != 0) {
        marks.sort_by_key(|(c, _)| class(*c));
    }
    let mut simple = String::with_capacity(text.len());
    let mut sources = Vec::with_capacity(text.len());
    for (c, source) in decomposed {
        let is_leading_space = simple.is_empty() && c == ' ';
        if !MARKS.is_match(c.encode_utf8(&mut [0; 4])) && !is_leading_space {
            simple.push(c);
            sources.extend(std::iter::repeat_n(source, c.len_utf8()));
        }
    }
    simple.truncate(simple.trim_end().len());
    sources.truncate(simple.len());
    (simple, sources)
}

/// datatrove's list, with the control characters other than tab and line feed.
fn is_punctuation(c: char) -> bool {
    const LISTED: &str =
        "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»";
    if c.is_ascii() {
        return (c.is_ascii_control() && !matches!(c, '\t' | '\n')) || LISTED.contains(c);
    }
    ('\u{80}'..='\u{9f}').contains(&c) || LISTED.contains(c)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Written by `tests/golden/make_datatrove.py`.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../tests/golden/datatrove.json")).unwrap()
    }

    fn numbers(value: &Value) -> Vec<u64> {
        value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
    }

    #[test]
    fn signatures_equal_those_of_datatrove() {
        let golden = golden();
        let datatrove = Datatrove::new(&toml::from_str("profile = 'datatrove'").unwrap()).unwrap();
        let cases = golden["signatures"].as_array().unwrap();
        for case in cases {
            let words: Vec<&str> = case["words"].as_str().unwrap().split(' ').collect();
            let (mut shingles, mut signature) = (Vec::new(), Vec::new());
            datatrove.shingles(&words, &mut shingles);
            datatrove.signature(&shingles, &mut signature);
            assert_eq!(shingles, numbers(&case["shingles"]), "{words:?}");
            assert_eq!(signature, numbers(&case["signature"]), "{words:?}");
        }
        println!("{} signatures of {} hashes", cases.len(), 14 * 8);
    }

    #[test]
    fn texts_are_simplified_as_by_datatrove() {
        let golden = golden();
        let cases = golden["simplified"].as_array().unwrap();
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(simplify(text), case["simplified"].as_str().unwrap(), "{text:?}");
        }
        println!("{} texts", cases.len());
    }

    #[test]
    fn too_few_words_have_no_signature() {
        let datatrove = Datatrove::new(&toml::from_str("profile = 'datatrove'").unwrap()).unwrap();
        let (mut shingles, mut signature) = (Vec::new(), Vec::new());
        datatrove.shingles(&["one", "two", "three", "four"], &mut shingles);
        datatrove.signature(&shingles, &mut signature);
        assert!(shingles.is_empty() && signature.is_empty());
    }
}
