//! Signatures bit for bit as text-dedup makes them (`text_dedup/minhash.py`, version 0.4.0, with its default SHA-1).
//!
//! The text is in lower case; a word is what stands between characters that are no letter, digit or underscore, so two
//! separators in a row have an empty word between them. The shingles are the first 32 bits of SHA-1 of `ngram` words
//! joined by spaces. With 64 bits the permutations are (x·a + b mod 2⁶⁴) mod (2⁶¹ − 1), cut to 32 bits; with 32 they are
//! (x·a + b mod 2³²) mod (2³² − 5). `a` and `b` come from numpy's legacy generator, as many as [`Config::n_permutations`].
//! A document with fewer than five words has no signature: the command leaves it out.

use std::sync::LazyLock;

use regex::Regex;
use sha1::{Digest, Sha1};

use crate::Result;
use crate::mersenne_twister::{MERSENNE_PRIME, MersenneTwister};
use crate::minhash::Config;

/// text-dedup's `min_length`.
const WORDS_MIN: usize = 5;
/// What 32-bit permutations are reduced by.
const PRIME_32: u32 = u32::MAX - 4;

/// The hash functions of text-dedup for one configuration.
#[derive(Clone, Debug)]
pub struct TextDedup {
    ngram: usize,
    bits: u32,
    factors: Vec<u64>,
    terms: Vec<u64>,
}

/// Python's `\W`: letters and numbers by their category, without the marks that Rust counts as alphabetic.
static SEPARATOR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[^\p{L}\p{N}_]").expect("a constant pattern"));

impl TextDedup {
    /// Draws the permutations.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a seed beyond 32 bits.
    pub fn new(config: &Config) -> Result<Self> {
        let mut random = MersenneTwister::new(config.numpy_seed()?);
        let mut draw = |low: u32| -> Vec<u64> {
            let drawn = (0..config.n_permutations()).map(|_| match config.bits {
                32 => u64::from(random.below_32(low, PRIME_32)),
                _ => random.below(u64::from(low), MERSENNE_PRIME),
            });
            let mut drawn: Vec<u64> = drawn.collect();
            drawn.truncate(config.n_hashes());
            drawn
        };
        let factors = draw(1);
        let terms = draw(0);
        Ok(Self { ngram: config.ngram, bits: config.bits, factors, terms })
    }

    /// Calls `visit` with every shingle of a text, in order.
    pub fn shingles(&self, text: &str, mut visit: impl FnMut(&str)) {
        let lower = text.to_lowercase();
        let words: Vec<&str> = SEPARATOR.split(&lower).collect();
        if words.len() < WORDS_MIN {
            return;
        }
        let mut joined = String::new();
        for window in words.windows(self.ngram.min(words.len())) {
            joined.clear();
            for (position, word) in window.iter().enumerate() {
                if position > 0 {
                    joined.push(' ');
                }
                joined.push_str(word);
            }
            visit(&joined);
        }
    }

    /// Whether a text is shorter than a shingle.
    #[must_use]
    pub fn is_short(&self, text: &str) -> bool {
        SEPARATOR.split(text).take(self.ngram).count() < self.ngram
    }

    /// Appends the signature of a text; nothing when it has too few words.
    pub fn signature(&self, text: &str, signature: &mut Vec<u64>) {
        let mut minima = Vec::new();
        self.shingles(text, |shingle| {
            minima.resize(self.factors.len(), u64::from(u32::MAX));
            let digest = Sha1::digest(shingle.as_bytes());
            let hash = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
            for ((least, &a), &b) in minima.iter_mut().zip(&self.factors).zip(&self.terms) {
                *least = (*least).min(self.permuted(u64::from(hash), a, b));
            }
        });
        signature.extend(minima);
    }

    fn permuted(&self, hash: u64, a: u64, b: u64) -> u64 {
        let low = u64::from(u32::MAX);
        match self.bits {
            // Products of 32-bit numbers: what is below 2³² does not depend on what is above.
            32 => (hash.wrapping_mul(a).wrapping_add(b) & low) % u64::from(PRIME_32),
            _ => (hash.wrapping_mul(a).wrapping_add(b) % MERSENNE_PRIME) & low,
        }
    }
}

/// Returns bands and rows that err least about pairs on both sides of `threshold`, of at most `permutations` hashes.
///
/// The error is the mean of the areas of false positives below and false negatives above, as datasketch and text-dedup have it.
#[must_use]
pub fn optimal_bands(threshold: f64, permutations: usize) -> (usize, usize) {
    let mut best = ((1, 1), f64::INFINITY);
    for bands in 1..=permutations {
        for rows in 1..=permutations / bands {
            let found =
                |similarity: f64| 1.0 - (1.0 - similarity.powf(rows as f64)).powf(bands as f64);
            let error = 0.5 * integral(0.0, threshold, found)
                + 0.5 * integral(threshold, 1.0, |similarity| 1.0 - found(similarity));
            if error < best.1 {
                best = ((bands, rows), error);
            }
        }
    }
    best.0
}

/// Simpson's rule over 128 parts.
fn integral(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PARTS: u32 = 128;
    let step = (to - from) / f64::from(PARTS);
    let inner: f64 = (1..PARTS)
        .map(|part| f(from + f64::from(part) * step) * if part % 2 == 1 { 4.0 } else { 2.0 })
        .sum();
    (f(from) + inner + f(to)) * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minhash::tests::golden::{check_signatures, minhash_golden};

    #[test]
    fn signatures_are_those_of_text_dedup() {
        check_signatures("text_dedup", "");
    }

    #[test]
    fn bands_are_those_of_text_dedup() {
        for case in minhash_golden()["optimal_param"].as_array().unwrap() {
            let permutations = usize::try_from(case["n_permutations"].as_u64().unwrap()).unwrap();
            let (bands, rows) = optimal_bands(case["threshold"].as_f64().unwrap(), permutations);
            assert_eq!(case["bands_rows"], serde_json::json!([bands, rows]), "{case}");
        }
    }
}
