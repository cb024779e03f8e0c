//! N-gram language models of KenLM: reads ARPA files and binary files of hash tables, and scores as KenLM does.
//!
//! A [`Model`] lies in memory as such a binary file does, so both are searched by the same code, and sums are added in the
//! reference's order: scores are equal to the last bit. A file is read as a whole: mapping it takes `unsafe`, which this
//! crate does without. A model is immutable, so threads share one.
//!
//! Source: Heafield 2011, "KenLM: Faster and Smaller Language Model Queries"; compared with KenLM 0.3.0.

mod arpa;
mod binary;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::{Error, Result};

/// Longest n-gram that is believed; KenLM is built for 6 unless told otherwise.
const MAX_ORDER: usize = 16;
/// Number of the word that stands for all unknown ones.
const UNKNOWN: u32 = 0;
/// Bytes of a word's number behind its hash, of the weights of a word, and of a longest n-gram and others behind their hash.
const VOCABULARY_BYTES: usize = 12;
const UNIGRAM_BYTES: usize = 8;
const MIDDLE_BYTES: usize = 16;
const LONGEST_BYTES: usize = 12;

/// A language model that answers.
#[derive(Debug)]
pub struct Model {
    bytes: Vec<u8>,
    vocabulary: Table,
    /// Where the weights of word 0 begin.
    unigrams: usize,
    /// Tables of pairs, triples and so on, without the longest n-grams.
    middle: Vec<Table>,
    longest: Table,
    begin: u32,
    end: u32,
}

/// An open-addressing hash table in the bytes of a model; the key 0 is an empty place.
#[derive(Clone, Copy, Debug, Default)]
struct Table {
    start: usize,
    buckets: u64,
    entry_bytes: usize,
}

/// The words that the next one depends on, the last one first, with the back-off weights of the n-grams that they are.
#[derive(Clone, Copy, Debug)]
struct State {
    words: [u32; MAX_ORDER],
    backoffs: [f32; MAX_ORDER],
    len: usize,
}

impl Table {
    /// Returns where the value of `key` lies.
    fn find(&self, bytes: &[u8], key: u64) -> Option<usize> {
        let mut bucket = key % self.buckets;
        // KenLM always leaves one empty; a file that has none is searched through once.
        for _ in 0..self.buckets {
            let at = self.start + usize::try_from(bucket).ok()? * self.entry_bytes;
            match u64_at(bytes, at) {
                found if found == key => return Some(at + 8),
                0 => return None,
                _ => bucket = if bucket + 1 == self.buckets { 0 } else { bucket + 1 },
            }
        }
        None
    }
}

impl Model {
    /// Reads the model at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is neither an ARPA file nor a binary file of
    /// hash tables, is cut short, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut bytes = Vec::new();
        let n = binary::MAGIC.len() as u64;
        (&mut file).take(n).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let model = if bytes.starts_with(binary::FAMILY) {
            file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
            binary::read(bytes)
        } else {
            arpa::read(BufReader::new(bytes.as_slice().chain(file)), path)?
        };
        model.map_err(|why| Error::Format {
            path: path.to_owned(),
            why,
            hint: "an ARPA file, or what KenLM's `build_binary probing` makes of one, is needed"
                .to_owned(),
        })
    }

    /// Words of the longest n-gram.
    #[must_use]
    pub fn order(&self) -> usize {
        self.middle.len() + 2
    }

    /// Returns the number of `word`, 0 when it is unknown.
    #[must_use]
    pub fn word(&self, word: &[u8]) -> u32 {
        self.vocabulary.find(&self.bytes, hash(word)).map_or(UNKNOWN, |at| u32_at(&self.bytes, at))
    }

    /// Returns the decimal logarithm of the probability of `text` as a sentence, and the number of its words with the end
    /// of the sentence. Words lie between ASCII white space; ends of lines are white space.
    #[must_use]
    pub fn score(&self, text: &str) -> (f32, u64) {
        // A zero byte ends a text in C.
        let text = text.split('\0').next().unwrap_or_default();
        let is_space = |c| matches!(c, '\t'..='\r' | ' ');
        let words = text.split(is_space).filter(|word| !word.is_empty());
        self.score_words(words.map(|word| self.word(word.as_bytes())))
    }

    /// Does what [`score`](Self::score) does for the words of these numbers.
    pub fn score_words(&self, words: impl IntoIterator<Item = u32>) -> (f32, u64) {
        let mut state = State { words: [0; MAX_ORDER], backoffs: [0.0; MAX_ORDER], len: 1 };
        state.words[0] = self.begin;
        state.backoffs[0] = self.unigram(self.begin).1;
        let (mut sum, mut n) = (0.0, 0);
        for word in words.into_iter().chain([self.end]) {
            sum += self.advance(&mut state, word);
            n += 1;
        }
        (sum, n)
    }

    fn unigram(&self, word: u32) -> (f32, f32) {
        weights_at(&self.bytes, self.unigrams + word as usize * UNIGRAM_BYTES)
    }

    /// Returns the logarithm of the probability of `word` behind `state`, which it then belongs to.
    fn advance(&self, state: &mut State, word: u32) -> f32 {
        let order = self.order();
        let (mut score, backoff) = self.unigram(word);
        let mut next = State { words: [0; MAX_ORDER], backoffs: [0.0; MAX_ORDER], len: 1 };
        (next.words[0], next.backoffs[0]) = (word, backoff);
        let (mut key, mut matched) = (u64::from(word), 1);
        for (place, &before) in state.words[..state.len].iter().enumerate() {
            key = combine(key, before);
            let Some(table) = self.middle.get(place) else {
                if let Some(at) = self.longest.find(&self.bytes, key) {
                    score = -f32_at(&self.bytes, at).abs();
                    matched = order;
                }
                break;
            };
            let Some(at) = table.find(&self.bytes, key) else { break };
            (score, next.backoffs[place + 1]) = weights_at(&self.bytes, at);
            matched = place + 2;
        }
        for backoff in state.backoffs[..state.len].iter().skip(matched - 1) {
            score += backoff;
        }
        next.len = matched.min(order - 1);
        next.words[1..next.len].copy_from_slice(&state.words[..next.len - 1]);
        *state = next;
        score
    }
}

/// Returns a logarithm of a probability and a back-off weight. The sign of the first says something else in KenLM's files.
fn weights_at(bytes: &[u8], at: usize) -> (f32, f32) {
    (-f32_at(bytes, at).abs(), f32_at(bytes, at + 4))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of this length")
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(array_at(bytes, at))
}

/// Returns the key of an n-gram and the word before it, from the key of the n-gram: `CombineWordHash`.
fn combine(key: u64, before: u32) -> u64 {
    key.wrapping_mul(8_978_948_897_894_561_157)
        ^ (u64::from(before) + 1).wrapping_mul(17_894_857_484_156_487_943)
}

/// `MurmurHash64A` with the seed 0, by Austin Appleby.
fn hash(word: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = (word.len() as u64).wrapping_mul(M);
    let (blocks, rest) = word.as_chunks::<8>();
    for block in blocks {
        let mut k = u64::from_le_bytes(*block).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 47;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 47)
}

#[cfg(test)]
mod tests;
