//! How documents fill sequences of `seq_len` tokens.
//!
//! - `stream`: all documents one after the other, cut every `seq_len` tokens. No token is lost but the last few,
//!   and sequence `i` is found by arithmetic: [`stream`].
//! - `best_fit`: documents stay whole where they fit, planned from their lengths alone: [`best_fit`]
//!   (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). A window of documents is packed at a time: a
//!   row group, so that a sequence is in one group and a plan is never larger than one.
//!
//! A sequence has `seq_len` inputs and `seq_len` targets, each the token after its input: `seq_len + 1` tokens. What is
//! longer is cut so that the last token of a part is the first of the next, and every token but a document's first is
//! a target once.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How documents fill sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// One after the other, cut every `seq_len` tokens.
    #[default]
    Stream,
    /// Whole where they fit: see [`best_fit`].
    BestFit,
}

/// Returns how many sequences a stream of `n_tokens` gives: the last one needs a token to predict.
#[must_use]
pub fn n_stream(n_tokens: u64, seq_len: u64) -> u64 {
    n_tokens.saturating_sub(1) / seq_len
}

/// Returns the tokens of sequence `i` in a stream: `seq_len` inputs and the token after them, the last target.
#[must_use]
pub fn stream(i: u64, seq_len: u64) -> Range<u64> {
    i * seq_len..(i + 1) * seq_len + 1
}

/// A part of a document in a packed sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// Index of the document among the lengths.
    pub document: usize,
    /// Its first token in the document; not zero only in documents longer than a sequence.
    pub start: u32,
    /// Its tokens.
    pub n_tokens: u32,
}

/// Plans sequences of at most `seq_len + 1` tokens: documents that are longer are cut into full sequences and a rest,
/// then pieces go, longest first, where they leave the least room.
///
/// `lengths`: tokens per document; empty documents are in no sequence. Each sequence lists its pieces in the order of
/// documents; sequences are ordered by their first piece. O(n log n) time, O(n) memory; depends on `lengths` and
/// `seq_len` alone.
///
/// # Panics
/// When `seq_len` is zero.
#[must_use]
pub fn best_fit(lengths: &[u32], seq_len: u32) -> Vec<Vec<Piece>> {
    assert!(seq_len > 0, "sequences have no tokens");
    let capacity = seq_len + 1;
    let mut pieces = Vec::with_capacity(lengths.len());
    for (document, n) in lengths.iter().enumerate() {
        for (start, n_tokens) in cut(*n, seq_len) {
            pieces.push(Piece { document, start, n_tokens });
        }
    }
    // A stable sort: equal pieces keep the order of their documents.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.n_tokens));
    let mut sequences: Vec<Vec<Piece>> = Vec::new();
    let mut open = BTreeSet::<(u32, usize)>::new();
    for piece in pieces {
        let fit = open.range((piece.n_tokens, 0)..).next().copied();
        let (room, sequence) = match fit {
            Some(found) => {
                open.remove(&found);
                found
            }
            None => {
                sequences.push(Vec::new());
                (capacity, sequences.len() - 1)
            }
        };
        sequences[sequence].push(piece);
        if room > piece.n_tokens {
            open.insert((room - piece.n_tokens, sequence));
        }
    }
    for sequence in &mut sequences {
        sequence.sort_unstable();
    }
    sequences.sort_unstable();
    sequences
}

/// Start and length of the parts that a document of `n` tokens is cut into.
fn cut(n: u32, seq_len: u32) -> impl Iterator<Item = (u32, u32)> {
    let starts = (0..n.saturating_sub(1).max(n.min(1))).step_by(seq_len as usize);
    starts.map(move |start| (start, (n - start).min(seq_len + 1)))
}

/// Counts the sequences of [`best_fit`] without planning them; one counter serves many windows.
///
/// Pieces of one length are placed together, so the time grows with the lengths and rooms that occur,
/// not with the documents; memory is O(`seq_len`).
#[derive(Debug)]
pub struct BestFitCounter {
    seq_len: u32,
    /// Pieces of each length below a full sequence.
    pieces: Vec<u64>,
    /// Sequences with each room left.
    open: Vec<u64>,
    /// A bit for each room that some sequence has.
    rooms: Vec<u64>,
}

impl BestFitCounter {
    /// Returns a counter for sequences of `seq_len`.
    ///
    /// # Panics
    /// When `seq_len` is zero.
    #[must_use]
    pub fn new(seq_len: u32) -> Self {
        assert!(seq_len > 0, "sequences have no tokens");
        let n = seq_len as usize + 1;
        Self { seq_len, pieces: vec![0; n], open: vec![0; n], rooms: vec![0; n.div_ceil(64)] }
    }

    /// Returns how many sequences `best_fit(lengths, seq_len)` has.
    #[must_use]
    pub fn count(&mut self, lengths: &[u32]) -> u64 {
        let capacity = self.seq_len as usize + 1;
        let mut n_sequences = 0;
        self.pieces.fill(0);
        for (_, n) in lengths.iter().flat_map(|n| cut(*n, self.seq_len)) {
            match n as usize == capacity {
                true => n_sequences += 1,
                false => self.pieces[n as usize] += 1,
            }
        }
        self.open.fill(0);
        self.rooms.fill(0);
        for length in (1..capacity).rev() {
            let mut left = std::mem::take(&mut self.pieces[length]);
            while left > 0 {
                let (room, available) = match self.tightest(length) {
                    Some(room) => (room, self.open[room]),
                    None => (capacity, u64::MAX),
                };
                // The tightest sequence stays the tightest until no piece of this length fits any more.
                let each = (room / length) as u64;
                let filled = available.min(left / each);
                self.take(room, filled);
                self.put(room % length, filled);
                let mut used = filled;
                left -= filled * each;
                if filled < available && left > 0 {
                    self.take(room, 1);
                    let rest = usize::try_from(left).expect("less than a sequence holds");
                    self.put(room - rest * length, 1);
                    left = 0;
                    used += 1;
                }
                if room == capacity {
                    n_sequences += used;
                }
            }
        }
        n_sequences
    }

    /// The least room of a sequence that a piece of `length` fits into.
    fn tightest(&self, length: usize) -> Option<usize> {
        let mut word = length / 64;
        let mut bits = self.rooms[word] & (u64::MAX << (length % 64));
        while bits == 0 {
            word += 1;
            bits = *self.rooms.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    fn take(&mut self, room: usize, n: u64) {
        // New sequences come from nowhere.
        if let Some(open) = self.open.get_mut(room) {
            *open -= n;
            if *open == 0 {
                self.rooms[room / 64] &= !(1 << (room % 64));
            }
        }
    }

    fn put(&mut self, room: usize, n: u64) {
        if n > 0 {
            self.open[room] += n;
            self.rooms[room / 64] |= 1 << (room % 64);
        }
    }
}

#[cfg(test)]
mod tests;
