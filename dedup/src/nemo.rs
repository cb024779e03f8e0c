//! Signatures as NeMo Curator makes them (`stages/deduplication/fuzzy/minhash.py`, version 1.4.0, over cuDF's `minhash`).
//!
//! A shingle is `ngram` characters in a row of the text as it is; a shorter text is one shingle. Its hash is MurmurHash3, of
//! 32 or 64 bits, seeded with the first factor. The permutations are (x·a + b mod 2⁶⁴) mod (2⁶¹ − 1), cut to as many bits; `a`
//! and `b` are drawn in pairs by numpy's legacy generator. A text of no characters has no signature.

use crate::Result;
use crate::mersenne_twister::{MERSENNE_PRIME, MersenneTwister};
use crate::minhash::Config;
use crate::murmur3::{murmur3_32, murmur3_64};

/// What NeMo draws 32-bit factors below.
const MERSENNE_PRIME_31: u32 = (1 << 31) - 1;

/// The hash functions of NeMo Curator for one configuration.
#[derive(Clone, Debug)]
pub struct Nemo {
    ngram: usize,
    bits: u32,
    seed: u64,
    factors: Vec<u64>,
    terms: Vec<u64>,
}

impl Nemo {
    /// Draws the permutations.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a seed beyond 32 bits.
    pub fn new(config: &Config) -> Result<Self> {
        let mut random = MersenneTwister::new(config.numpy_seed()?);
        let mut draw = |low: u32| match config.bits {
            32 => u64::from(random.below_32(low, MERSENNE_PRIME_31)),
            _ => random.below(u64::from(low), MERSENNE_PRIME),
        };
        let pairs: Vec<(u64, u64)> =
            (0..config.n_permutations()).map(|_| (draw(1), draw(0))).collect();
        let (factors, terms): (Vec<u64>, Vec<u64>) =
            pairs.into_iter().take(config.n_hashes()).unzip();
        Ok(Self::from_parts(config.ngram, config.bits, factors[0], factors, terms))
    }

    fn from_parts(ngram: usize, bits: u32, seed: u64, factors: Vec<u64>, terms: Vec<u64>) -> Self {
        Self { ngram, bits, seed, factors, terms }
    }

    /// Calls `visit` with every shingle of a text, in order.
    pub fn shingles(&self, text: &str, mut visit: impl FnMut(&str)) {
        let starts = text.char_indices().map(|(at, _)| at);
        let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]).skip(self.ngram);
        let mut is_short = true;
        for (start, end) in starts.zip(ends) {
            is_short = false;
            visit(&text[start..end]);
        }
        if is_short && !text.is_empty() {
            visit(text);
        }
    }

    /// Appends the signature of a text; nothing when it is empty.
    pub fn signature(&self, text: &str, signature: &mut Vec<u64>) {
        if text.is_empty() {
            return;
        }
        let mask = u64::MAX >> (64 - self.bits);
        let mut minima = vec![mask; self.factors.len()];
        self.shingles(text, |shingle| {
            let hash = self.hash(shingle);
            for ((least, &a), &b) in minima.iter_mut().zip(&self.factors).zip(&self.terms) {
                let permuted = hash.wrapping_mul(a).wrapping_add(b) % MERSENNE_PRIME;
                *least = (*least).min(permuted & mask);
            }
        });
        signature.extend(minima);
    }

    fn hash(&self, shingle: &str) -> u64 {
        match u32::try_from(self.seed) {
            Ok(seed) if self.bits == 32 => u64::from(murmur3_32(shingle.as_bytes(), seed)),
            _ => murmur3_64(shingle.as_bytes(), self.seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minhash::tests::golden::{check_signatures, minhash_golden, numbers};

    #[test]
    fn hashes_and_minima_are_those_of_cudf() {
        let golden = minhash_golden();
        let cudf = &golden["cudf"];
        let texts = cudf["texts"].as_array().unwrap();
        for bits in [32, 64] {
            let expected = cudf[bits.to_string()].as_array().unwrap();
            let parameters = numbers(&cudf["factors"]);
            let nemo = Nemo::from_parts(4, bits, 0, parameters.clone(), parameters);
            for (text, expected) in texts.iter().zip(expected) {
                let mut signature = Vec::new();
                nemo.signature(text.as_str().unwrap(), &mut signature);
                assert_eq!(signature, numbers(expected), "{text}, {bits} bits");
            }
        }
    }

    #[test]
    fn signatures_are_those_of_nemo_curator() {
        check_signatures("nemo", "bands = 20\nrows = 13");
    }
}
