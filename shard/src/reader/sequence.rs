//! One training row: its tokens, the documents in it, and which of its targets count.

use std::ops::Range;

use super::decode::Decoded;
use crate::Result;

/// Gives the sequence of each global sample.
pub trait Samples: Send {
    /// Inputs per sequence.
    fn seq_len(&self) -> usize;

    /// Samples that there are; `None` where epochs follow each other without end.
    fn n_samples(&self) -> Option<u64>;

    /// Fills `out` with the global sample `sample`.
    ///
    /// # Errors
    /// When a shard cannot be read or is not what the manifest says.
    ///
    /// # Panics
    /// When `sample` is not below [`Samples::n_samples`].
    fn read_sequence(&mut self, sample: u64, out: &mut Sequence) -> Result<()>;
}

/// `T` inputs and `T` targets: input `i` is `tokens[i]`, its target `tokens[i + 1]`.
///
/// With `mask_documents`, `boundaries` say where attention must not look across, and no target is the first token of a
/// document; without, the sequence counts as one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// `[T + 1]`; what best fit leaves empty is filled up behind the last boundary.
    pub tokens: Vec<u32>,
    /// Where each document begins in `tokens`, ascending from 0, then the end of the last one.
    pub boundaries: Vec<u32>,
    /// `[T]`: whether target `i` counts in the loss.
    pub loss_mask: Vec<bool>,
}

impl Sequence {
    /// Returns the position of each of the `T` inputs in its document; the filling counts as a document.
    pub fn positions(&self) -> impl Iterator<Item = u32> {
        let mut starts = self.boundaries.iter().copied().peekable();
        let mut start = 0;
        let n = u32::try_from(self.loss_mask.len()).expect("`seq_len` is a u32");
        (0..n).map(move |i| {
            start = starts.next_if_eq(&i).unwrap_or(start);
            i - start
        })
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.boundaries.clear();
        self.loss_mask.clear();
    }

    /// Adds `tokens` of a row group; `is_new` when a document begins with them.
    pub(super) fn push(&mut self, rows: &Decoded, tokens: Range<usize>, is_new: bool) {
        if is_new || self.tokens.is_empty() {
            self.boundaries.push(narrow(self.tokens.len()));
        }
        // The mask lies one token behind until it is closed: it belongs to targets.
        match &rows.loss_mask {
            Some(mask) => self.loss_mask.extend_from_slice(&mask[tokens.clone()]),
            None => self.loss_mask.resize(self.loss_mask.len() + tokens.len(), true),
        }
        self.tokens.extend_from_slice(&rows.tokens[tokens]);
    }

    /// Fills up to `seq_len + 1` tokens, and turns the mask of tokens into that of targets.
    pub(super) fn close(&mut self, seq_len: usize, padding: u32) {
        assert!(self.tokens.len() <= seq_len + 1, "a sequence holds {} tokens", self.tokens.len());
        for start in &self.boundaries {
            self.loss_mask[*start as usize] = false;
        }
        self.boundaries.push(narrow(self.tokens.len()));
        self.tokens.resize(seq_len + 1, padding);
        self.loss_mask.resize(seq_len + 1, false);
        self.loss_mask.remove(0);
    }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).expect("`seq_len` is a u32")
}
