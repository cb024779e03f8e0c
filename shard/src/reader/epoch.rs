//! In which order the sequences of a dataset are read: blocks permuted, then the sequences of each block.

use std::ops::Range;

use crate::order::{Permutation, seed_from};

/// What sequences there are, in blocks that are read one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocks {
    /// Sequences from `first` on in blocks of `block`, the last one shorter.
    Even { first: u64, n: u64, block: u64 },
    /// Block `i` is the sequences `ends[i - 1]..ends[i]`, the first one from `first` on.
    Uneven { first: u64, ends: Vec<u64> },
}

impl Blocks {
    /// Sequences of all blocks.
    pub(super) fn n(&self) -> u64 {
        match self {
            Self::Even { n, .. } => *n,
            Self::Uneven { first, ends } => ends.last().map_or(0, |end| end - first),
        }
    }

    /// Returns the sequences from `start` on, in blocks that begin there.
    pub(super) fn from(&self, start: u64) -> Self {
        match self {
            Self::Even { first, n, block } => {
                Self::Even { first: start, n: first + n - start, block: *block }
            }
            Self::Uneven { ends, .. } => {
                let ends = ends.iter().copied().filter(|end| *end > start).collect();
                Self::Uneven { first: start, ends }
            }
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Even { n, block, .. } => n.div_ceil(*block),
            Self::Uneven { ends, .. } => ends.len() as u64,
        }
    }

    /// Returns the block that `sequence` is in.
    fn block_of(&self, sequence: u64) -> u64 {
        match self {
            Self::Even { first, block, .. } => (sequence - first) / block,
            Self::Uneven { ends, .. } => ends.partition_point(|end| *end <= sequence) as u64,
        }
    }

    fn range(&self, block_index: u64) -> Range<u64> {
        match self {
            Self::Even { first, n, block } => {
                let start = block_index * block;
                first + start..first + (start + block).min(*n)
            }
            Self::Uneven { first, ends } => {
                let i = usize::try_from(block_index).expect("blocks are in memory");
                let start = if i == 0 { *first } else { ends[i - 1] };
                start..ends[i]
            }
        }
    }
}

/// The order of one epoch.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) index: u64,
    seed: u64,
    /// Maps a place in the epoch to the block that is read there.
    order: Permutation,
    places: Places,
}

/// Finds the place of a position.
#[derive(Debug)]
enum Places {
    /// All have `block` sequences but the one at `short`, which has `rest`.
    Even { block: u64, short: u64, rest: u64 },
    /// Where each place ends.
    Uneven { ends: Vec<u64> },
}

impl Epoch {
    /// O(1) for even blocks, else time and memory in proportion to the blocks.
    pub(super) fn new(blocks: &Blocks, seed: u64, index: u64) -> Self {
        let seed = seed_from(&[seed, index]);
        let n_blocks = blocks.count();
        let order = Permutation::new(n_blocks, seed);
        let places = match blocks {
            Blocks::Even { n, block, .. } => Places::Even {
                block: *block,
                short: order.invert(n_blocks - 1),
                rest: n - (n_blocks - 1) * block,
            },
            Blocks::Uneven { .. } => {
                let mut end = 0;
                let ends = (0..n_blocks).map(|place| {
                    let range = blocks.range(order.apply(place));
                    end += range.end - range.start;
                    end
                });
                Places::Uneven { ends: ends.collect() }
            }
        };
        Self { index, seed, order, places }
    }

    /// Returns the sequence at `position`.
    pub(super) fn sequence(&self, blocks: &Blocks, position: u64) -> u64 {
        let (place, within) = self.places.find(position);
        let block = self.order.apply(place);
        let range = blocks.range(block);
        let n = range.end - range.start;
        range.start + Permutation::new(n, seed_from(&[self.seed, block])).apply(within)
    }

    /// Returns the position at which `sequence` is read.
    pub(super) fn position(&self, blocks: &Blocks, sequence: u64) -> u64 {
        let block = blocks.block_of(sequence);
        let range = blocks.range(block);
        let order = Permutation::new(range.end - range.start, seed_from(&[self.seed, block]));
        self.places.start(self.order.invert(block)) + order.invert(sequence - range.start)
    }
}

impl Places {
    fn start(&self, place: u64) -> u64 {
        match self {
            Self::Even { block, short, .. } if place <= *short => place * block,
            Self::Even { block, rest, .. } => (place - 1) * block + rest,
            Self::Uneven { .. } if place == 0 => 0,
            Self::Uneven { ends } => {
                ends[usize::try_from(place).expect("places are in memory") - 1]
            }
        }
    }

    fn find(&self, position: u64) -> (u64, u64) {
        match self {
            Self::Even { block, short, rest } => {
                let before_short = short * block;
                if position < before_short {
                    (position / block, position % block)
                } else if position < before_short + rest {
                    (*short, position - before_short)
                } else {
                    let after = position - rest;
                    (after / block + 1, after % block)
                }
            }
            Self::Uneven { ends } => {
                let place = ends.partition_point(|end| *end <= position);
                let start = if place == 0 { 0 } else { ends[place - 1] };
                (place as u64, position - start)
            }
        }
    }
}
