//! The classifier of blocks: two ensembles of boosted trees over bytes, the second of which sees what the first says around a block.
//!
//! `ingest/data/extract-main.bin` holds them; `scripts/extract-train.py` wrote it. All arithmetic is of integers, so every machine
//! gives the same scores.

use std::sync::LazyLock;

/// Scores are cut into this many steps and one.
const CUTS: usize = 255;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let mut table = Table(include_bytes!("../../../data/extract-main.bin"));
    let cuts = (0..CUTS).map(|_| i32::from_le_bytes(table.take())).collect();
    let model =
        Model { cuts, first: Ensemble::read(&mut table), second: Ensemble::read(&mut table) };
    assert!(table.0.is_empty(), "{} bytes behind the table's trees", table.0.len());
    model
});

/// Both stages, and how a sum of leaves becomes a score.
#[derive(Debug)]
pub(in crate::modifier) struct Model {
    /// A sum scores as many 255ths as there are cuts up to it.
    cuts: Vec<i32>,
    first: Ensemble,
    second: Ensemble,
}

impl Model {
    /// The one that is built in.
    pub(in crate::modifier) fn built_in() -> &'static Self {
        &MODEL
    }

    /// Returns a score for each row of `stride` bytes: the probability of being text, in 255ths.
    pub(in crate::modifier) fn first(&self, rows: &[u8], stride: usize) -> Vec<u8> {
        self.score(&self.first, rows, stride)
    }

    /// As [`Model::first`], for rows that have what the first scores say around them too.
    pub(in crate::modifier) fn second(&self, rows: &[u8], stride: usize) -> Vec<u8> {
        self.score(&self.second, rows, stride)
    }

    fn score(&self, ensemble: &Ensemble, rows: &[u8], stride: usize) -> Vec<u8> {
        let score = |&sum: &i32| {
            u8::try_from(self.cuts.partition_point(|&cut| cut <= sum)).expect("255 cuts")
        };
        ensemble.sums(rows, stride).iter().map(score).collect()
    }
}

/// A value of at most `limit` goes left. A child below zero is the leaf `-1 - child`.
#[derive(Clone, Copy, Debug)]
struct Split {
    feature: u8,
    limit: u8,
    left: i8,
    right: i8,
}

/// Trees, one behind the other.
#[derive(Debug, Default)]
struct Ensemble {
    /// Per tree its splits and the first of its leaves.
    trees: Vec<(Vec<Split>, usize)>,
    leaves: Vec<i16>,
}

impl Ensemble {
    fn read(table: &mut Table<'_>) -> Self {
        let mut out = Self::default();
        for _ in 0..u32::from_le_bytes(table.take()) {
            let [n_splits] = table.take();
            let split = |[feature, limit, left, right]: [u8; 4]| Split {
                feature,
                limit,
                left: left.cast_signed(),
                right: right.cast_signed(),
            };
            let splits: Vec<Split> = (0..n_splits).map(|_| split(table.take())).collect();
            out.trees.push((splits, out.leaves.len()));
            out.leaves.extend((0..=n_splits).map(|_| i16::from_le_bytes(table.take())));
        }
        out
    }

    /// Returns the sum of the leaves that each row of `stride` bytes falls into.
    fn sums(&self, rows: &[u8], stride: usize) -> Vec<i32> {
        let mut sums = vec![0; rows.len() / stride];
        // Tree by tree, so that one tree at a time is in the nearest cache.
        for (splits, first_leaf) in &self.trees {
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(stride)) {
                let mut at: i8 = if splits.is_empty() { -1 } else { 0 };
                while let Ok(index) = usize::try_from(at) {
                    let split = splits[index];
                    let goes_left = row[usize::from(split.feature)] <= split.limit;
                    at = if goes_left { split.left } else { split.right };
                }
                *sum += i32::from(self.leaves[first_leaf + usize::from((-1 - at).cast_unsigned())]);
            }
        }
        sums
    }
}

/// What is left to read of the table.
struct Table<'a>(&'a [u8]);

impl Table<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().expect("the table is whole");
        self.0 = rest;
        *head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two trees by hand: `x0 <= 5 ? 10 : (x1 <= 7 ? 20 : 30)` and the constant 3.
    #[test]
    fn adds_the_leaves_that_a_row_falls_into() {
        let bytes = [2, 0, 0, 0, 2, 0, 5, 0xFF, 1, 1, 7, 0xFE, 0xFD, 10, 0, 20, 0, 30, 0, 0, 3, 0];
        let ensemble = Ensemble::read(&mut Table(&bytes));
        assert_eq!(ensemble.sums(&[5, 0, 6, 7, 6, 8], 2), [13, 23, 33]);
    }

    #[test]
    fn reads_the_whole_built_in_table() {
        use super::super::block::{CONTEXT, FEATURES};
        let model = Model::built_in();
        let used = |ensemble: &Ensemble| {
            let features = ensemble.trees.iter().flat_map(|(splits, _)| splits);
            features.map(|split| usize::from(split.feature)).max().unwrap()
        };
        assert!(used(&model.first) < FEATURES && used(&model.second) < FEATURES + CONTEXT);
        assert!(used(&model.second) >= FEATURES, "the second stage looks at the first");
        assert!(model.cuts.is_sorted());
    }
}
