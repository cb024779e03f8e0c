//! From candidate pairs to clusters: streamed union-find.
//!
//! ```
//! let mut clusters = dedup::UnionFind::new(40);
//! clusters.extend([(7, 3), (9, 7), (20, 30)]);
//! let rows: Vec<_> = clusters.into_members().collect();
//! assert_eq!(rows, [(3, 3), (7, 3), (9, 3), (20, 20), (30, 20)]);
//! ```

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// The connected components of a graph whose edges arrive in any order, from any number of threads.
///
/// The root of a cluster is its smallest row, whatever the order of the pairs. It holds 4 bytes for each row of the
/// dataset, in a pair or not. A pair costs O(log n) amortised, in practice little more than two look-ups.
///
/// A node only ever points to a smaller one, and only a root is hung below another, by compare-and-swap: so concurrent
/// unions need no lock (Anderson and Woll 1991), and the root that is left is the smallest row.
#[derive(Debug)]
pub struct UnionFind {
    /// For each row itself, or a row before it in its cluster.
    parents: Vec<AtomicU32>,
}

impl UnionFind {
    /// Begins with every row of a dataset of `n_rows` rows alone.
    ///
    /// # Panics
    /// For more than 2^32 rows.
    #[must_use]
    pub fn new(n_rows: u64) -> Self {
        let n_rows = u32::try_from(n_rows).unwrap_or_else(|_| {
            panic!("{n_rows} documents, at most 2^32 are clustered in one run")
        });
        Self { parents: (0..n_rows).map(AtomicU32::new).collect() }
    }

    /// Joins the clusters of two rows.
    ///
    /// # Panics
    /// For a row beyond the dataset.
    pub fn union(&self, a: u64, b: u64) {
        let (mut a, mut b) = (self.node(a), self.node(b));
        loop {
            (a, b) = (self.root(a), self.root(b));
            let (low, high) = (a.min(b), a.max(b));
            // Fails when another thread was first: then `high` is no root any more.
            let parent = &self.parents[high as usize];
            if low == high || parent.compare_exchange(high, low, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Returns the first row of the cluster of `row`, as far as it is known.
    ///
    /// # Panics
    /// For a row beyond the dataset.
    #[must_use]
    pub fn find(&self, row: u64) -> u64 {
        u64::from(self.root(self.node(row)))
    }

    /// Returns every row that is not alone with the root of its cluster, sorted by (root, row): each cluster in one
    /// piece, its members in row order, as [`crate::Verifier`] takes them. It takes 8 bytes for each of them.
    pub fn into_members(mut self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let mut members: Vec<(u32, u32)> = Vec::new();
        for row in 0..self.n_rows() {
            let root = self.root(row);
            if root != row {
                members.push((root, row));
            }
        }
        self.parents = Vec::new();
        members.sort_unstable();
        // Each root stands before its first member.
        let roots: Vec<(u32, u32)> = members
            .chunk_by(|a, b| a.0 == b.0)
            .map(|cluster| (cluster[0].0, cluster[0].0))
            .collect();
        members.extend(roots);
        members.sort_unstable();
        members.into_iter().map(|(root, row)| (u64::from(row), u64::from(root)))
    }

    fn n_rows(&self) -> u32 {
        u32::try_from(self.parents.len()).expect("checked when it was made")
    }

    fn node(&self, row: u64) -> u32 {
        let node = u32::try_from(row).ok().filter(|&node| node < self.n_rows());
        node.unwrap_or_else(|| panic!("row {row} of a dataset of {} rows", self.parents.len()))
    }

    /// Walks to the root; on the way every other node is hung onto its grandparent, so later walks are short.
    fn root(&self, mut node: u32) -> u32 {
        loop {
            let parent = self.parents[node as usize].load(Relaxed);
            if parent == node {
                return node;
            }
            let grandparent = self.parents[parent as usize].load(Relaxed);
            if grandparent != parent {
                // Whoever was first has hung it at least as high.
                let hung = &self.parents[node as usize];
                hung.compare_exchange(parent, grandparent, Relaxed, Relaxed).ok();
            }
            node = grandparent;
        }
    }
}

impl Extend<(u64, u64)> for UnionFind {
    fn extend<I: IntoIterator<Item = (u64, u64)>>(&mut self, pairs: I) {
        for (a, b) in pairs {
            self.union(a, b);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn cluster(pairs: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let n_rows = pairs.iter().map(|&(a, b)| a.max(b) + 1).max().unwrap_or_default();
        let mut clusters = UnionFind::new(n_rows);
        clusters.extend(pairs.iter().copied());
        clusters.into_members().collect()
    }

    /// Spreads the smaller label along each edge until nothing changes; rows that are alone are left out.
    fn components(pairs: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut labels: BTreeMap<u64, u64> =
            pairs.iter().flat_map(|&(a, b)| [(a, a), (b, b)]).collect();
        loop {
            let before = labels.clone();
            for (a, b) in pairs {
                let low = labels[a].min(labels[b]);
                labels.insert(*a, low);
                labels.insert(*b, low);
            }
            if labels == before {
                let mut members: Vec<_> = labels
                    .iter()
                    .filter(|(row, label)| {
                        labels.iter().any(|(other, theirs)| other != *row && theirs == *label)
                    })
                    .map(|(&row, &label)| (row, label))
                    .collect();
                members.sort_unstable_by_key(|&(row, label)| (label, row));
                return members;
            }
        }
    }

    #[test]
    fn a_chain_of_a_million_is_one_cluster() {
        let n = 1_000_000;
        let pairs: Vec<_> = (0..n).map(|row| (row, row + 1)).collect();
        assert!(cluster(&pairs).into_iter().all(|(_, root)| root == 0));
        let backwards: Vec<_> = (0..n).rev().map(|row| (row + 1, row)).collect();
        assert_eq!(cluster(&backwards).len(), 1_000_001);
        assert!(cluster(&backwards).into_iter().all(|(_, root)| root == 0));
    }

    #[test]
    fn threads_that_join_the_same_rows_make_the_same_clusters() {
        // A grid of 300 chains whose links eight threads add in different orders.
        let n = 60_000;
        let clusters = UnionFind::new(n);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let clusters = &clusters;
                scope.spawn(move || {
                    for step in 0..n - 300 {
                        let row = (step * 7_919 + thread * 1_009) % (n - 300);
                        clusters.union(row + 300, row);
                    }
                });
            }
        });
        assert!((0..n).all(|row| clusters.find(row) == row % 300));
    }

    #[test]
    fn find_answers_at_any_time() {
        let clusters = UnionFind::new(10);
        clusters.union(9, 5);
        assert_eq!(clusters.find(9), 5);
        assert_eq!(clusters.find(6), 6);
        clusters.union(5, 2);
        assert_eq!(clusters.find(9), 2);
    }

    #[test]
    #[should_panic(expected = "row 3 of a dataset of 3 rows")]
    fn a_row_beyond_the_dataset_is_a_mistake() {
        UnionFind::new(3).union(0, 3);
    }

    proptest! {
        #[test]
        fn clusters_are_the_connected_components(
            pairs in proptest::collection::vec((0u64..60, 0u64..60), 0..80)
        ) {
            prop_assert_eq!(cluster(&pairs), components(&pairs));
        }

        #[test]
        fn the_order_of_pairs_changes_nothing(
            (pairs, shuffled) in proptest::collection::vec((0u64..60, 0u64..60), 0..80)
                .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
            flip in any::<bool>(),
        ) {
            let shuffled: Vec<_> =
                shuffled.into_iter().map(|(a, b)| if flip { (b, a) } else { (a, b) }).collect();
            prop_assert_eq!(cluster(&pairs), cluster(&shuffled));
        }
    }
}
