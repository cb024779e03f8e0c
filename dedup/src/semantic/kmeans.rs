//! Clusters of directions: spherical k-means.
//!
//! What clusters come out depends on the set of embeddings, the number of clusters and the seed, and on nothing else: the
//! first centres are the documents of the smallest hashes, a document belongs to the centre that comes first among the nearest,
//! and sums are of integers, which are the same in whatever order they are added.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::vector::{Vector, dot, unit};

/// Documents that centres are learned from, for each cluster, at most: what Faiss takes.
const SAMPLE_PER_CLUSTER: u64 = 256;
/// A component of a unit vector is summed as so many parts: 2^32 documents stay below 2^63.
const PARTS: f64 = (1_u64 << 30) as f64;

/// Centres of clusters, learned in rounds.
#[derive(Debug)]
pub struct KMeans {
    /// Numbers of an embedding.
    n: usize,
    /// Unit vectors, one after the other.
    centres: Vec<f32>,
    sums: Vec<AtomicI64>,
}

/// The embeddings that clusters begin with: those of the smallest hashes.
#[derive(Debug)]
pub struct Beginning {
    k: usize,
    chosen: Mutex<BTreeMap<(u64, u32), Vec<f32>>>,
}

impl Beginning {
    /// Looks at an embedding; any order and number of threads.
    pub fn push(&self, vector: &Vector<'_>) {
        let key = (vector.hash, vector.rank);
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if chosen.len() == self.k && chosen.last_key_value().is_some_and(|last| *last.0 < key) {
            return;
        }
        chosen.insert(key, vector.numbers().collect());
        if chosen.len() > self.k {
            chosen.pop_last();
        }
    }

    /// The first centres, of embeddings of `n` numbers.
    #[must_use]
    pub fn finish(self, n: usize) -> KMeans {
        let chosen = self.chosen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut centres = Vec::with_capacity(chosen.len() * n);
        chosen.values().for_each(|vector| unit(vector, &mut centres));
        let sums = centres.iter().map(|_| AtomicI64::default()).collect();
        KMeans { n, sums, centres }
    }
}

impl KMeans {
    /// Memory for `k` clusters of embeddings of `n` numbers: centres and sums.
    #[must_use]
    pub fn bytes(k: usize, n: usize) -> u64 {
        k as u64 * n as u64 * 12
    }

    /// Begins `k` clusters.
    #[must_use]
    pub fn begin(k: usize) -> Beginning {
        Beginning { k, chosen: Mutex::default() }
    }

    /// The hash up to which documents are learned from, where `k` clusters are made of `n`.
    #[must_use]
    pub fn sample(k: usize, n: u64) -> u64 {
        let wanted = SAMPLE_PER_CLUSTER.saturating_mul(k as u64);
        let share = u128::from(wanted) << 64;
        u64::try_from(share / u128::from(n.max(1))).unwrap_or(u64::MAX)
    }

    /// Number of clusters.
    #[must_use]
    pub fn n_clusters(&self) -> usize {
        self.centres.len() / self.n
    }

    /// The cluster of a unit vector: the nearest centre, the first of equally near ones.
    #[must_use]
    pub fn nearest(&self, unit: &[f32]) -> usize {
        pulp::Arch::new().dispatch(|| {
            let mut nearest = (0, f32::NEG_INFINITY);
            for (index, centre) in self.centres.chunks_exact(self.n).enumerate() {
                let near = dot(centre, unit);
                if near > nearest.1 {
                    nearest = (index, near);
                }
            }
            nearest.0
        })
    }

    /// Adds a unit vector to the sum of its cluster; any order and number of threads.
    pub fn add(&self, unit: &[f32]) {
        let cluster = self.nearest(unit);
        let sums = &self.sums[cluster * self.n..][..self.n];
        for (sum, number) in sums.iter().zip(unit) {
            #[expect(clippy::cast_possible_truncation, reason = "at most 2^30, rounded")]
            let parts = (f64::from(*number) * PARTS).round() as i64;
            sum.fetch_add(parts, Ordering::Relaxed);
        }
    }

    /// Moves every centre into the middle of its documents; false when nothing moved. A cluster without documents, or
    /// whose documents cancel each other out, stays where it is.
    pub fn advance(&mut self) -> bool {
        let mut moved = false;
        let mut new = Vec::with_capacity(self.n);
        for (cluster, centre) in self.centres.chunks_exact_mut(self.n).enumerate() {
            let sums = &mut self.sums[cluster * self.n..][..self.n];
            #[expect(
                clippy::cast_precision_loss,
                reason = "a direction: rounding is all that is lost"
            )]
            let sum: Vec<f32> =
                sums.iter_mut().map(|sum| std::mem::take(sum.get_mut()) as f32).collect();
            if sum.iter().any(|number| *number != 0.0) {
                new.clear();
                unit(&sum, &mut new);
                moved |= new != centre;
                centre.copy_from_slice(&new);
            }
        }
        moved
    }
}
