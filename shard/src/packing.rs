//! How documents fill sequences of `seq_len` tokens.
//!
//! - `stream`: all documents one after the other, cut every `seq_len` tokens. No token is lost but the last few,
//!   and sequence `i` is found by arithmetic: [`stream`].
//! - `best_fit`: documents stay whole where they fit, planned from their lengths alone: [`best_fit`]
//!   (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").

use std::collections::BTreeSet;
use std::ops::Range;

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

/// Plans sequences of at most `seq_len` tokens: documents that are longer are cut into full sequences and a rest,
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
    let mut pieces = Vec::with_capacity(lengths.len());
    for (document, n) in lengths.iter().enumerate() {
        for start in (0..*n).step_by(seq_len as usize) {
            pieces.push(Piece { document, start, n_tokens: seq_len.min(n - start) });
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
                (seq_len, sequences.len() - 1)
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

#[cfg(test)]
mod tests;
