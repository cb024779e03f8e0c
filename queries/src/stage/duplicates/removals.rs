//! The documents that go, and the one that stays for each.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use super::rows::index;

/// A document that goes. This is what the stage holds in memory until it ends: 32 bytes for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) rank: u32,
    pub(super) kept_rank: u32,
    pub(super) cluster: u32,
    pub(super) method: u8,
    pub(super) similarity: Option<f64>,
}

/// The documents that go, by rank.
#[derive(Debug, Default)]
pub(super) struct Removals(pub(super) Vec<Gone>);

impl Removals {
    /// Adds what a method found among the documents that earlier ones left.
    pub(super) fn add(&mut self, found: impl IntoIterator<Item = Gone>) {
        self.0.extend(found);
        self.0.sort_unstable_by_key(|gone| gone.rank);
    }

    fn get(&self, rank: u32) -> Option<&Gone> {
        self.0.binary_search_by_key(&rank, |gone| gone.rank).ok().map(|index| &self.0[index])
    }

    /// One bit for each of `n_rows` documents, by rank.
    pub(super) fn bits(&self, n_rows: u64) -> BooleanBuffer {
        let n_rows = index(n_rows);
        let mut bits = BooleanBufferBuilder::new(n_rows);
        bits.append_n(n_rows, false);
        for gone in &self.0 {
            bits.set_bit(gone.rank as usize, true);
        }
        bits.finish()
    }

    /// Credits every removed document to one that stays: a copy of a copy is a copy of the first.
    ///
    /// Only documents that are equal or of equal URL are kept by one method and removed by a later one; their similarity to
    /// the last kept one is that of the document they equal.
    ///
    /// `other` is a method whose similarity is another measure: what went for a document that it removes has none.
    pub(super) fn resolve_chains(&mut self, other: Option<u8>) {
        for index in 0..self.0.len() {
            let mut last = self.0[index];
            while let Some(next) = self.get(last.kept_rank) {
                let similarity = match (last.similarity, next.similarity) {
                    (Some(_), Some(similarity)) if Some(next.method) != other => Some(similarity),
                    _ => None,
                };
                last = Gone { kept_rank: next.kept_rank, similarity, ..last };
            }
            self.0[index] = last;
        }
    }

    /// Number of removed documents by method, those with none left out.
    pub(super) fn counts<'a>(&self, names: &'a [String]) -> Vec<(&'a str, usize)> {
        let n = |method| self.0.iter().filter(|gone| usize::from(gone.method) == method).count();
        let counts = names.iter().enumerate().map(|(method, name)| (name.as_str(), n(method)));
        counts.filter(|(_, n)| *n > 0).collect()
    }
}
