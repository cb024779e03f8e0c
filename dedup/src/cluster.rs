//! From candidate pairs to clusters: streamed union-find.
//!
//! ```
//! let mut clusters = dedup::UnionFind::default();
//! clusters.extend([(7, 3), (9, 7), (20, 30)]);
//! let rows: Vec<_> = clusters.into_members().collect();
//! assert_eq!(rows, [(3, 3), (7, 3), (9, 3), (20, 20), (30, 20)]);
//! ```

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::mix::RowHasher;

/// The connected components of a graph whose edges arrive in any order.
///
/// The root of a cluster is its smallest row, whatever the order of the pairs. Only rows that appear in a pair
/// are held: 12 bytes each and their entry in the table of rows, by its layout about 30 to 50 bytes together.
/// A pair costs O(log n) amortised, in practice little more than two look-ups.
#[derive(Clone, Debug, Default)]
pub struct UnionFind {
    nodes: HashMap<u64, u32, BuildHasherDefault<RowHasher>>,
    rows: Vec<u64>,
    parents: Vec<u32>,
}

impl UnionFind {
    /// Joins the clusters of two rows.
    pub fn union(&mut self, a: u64, b: u64) {
        let a = self.node(a);
        let b = self.node(b);
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            let (low, high) =
                if self.rows[a as usize] < self.rows[b as usize] { (a, b) } else { (b, a) };
            self.parents[high as usize] = low;
        }
    }

    /// Returns the number of rows seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Says whether no pair was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the first row of the cluster of `row`, which is `row` itself when no pair has it.
    #[must_use]
    pub fn find(&self, row: u64) -> u64 {
        let Some(&node) = self.nodes.get(&row) else { return row };
        let mut node = node;
        while self.parents[node as usize] != node {
            node = self.parents[node as usize];
        }
        self.rows[node as usize]
    }

    /// Returns every row seen with the root of its cluster, sorted by (root, row): each cluster in one
    /// piece, its members in row order, as [`crate::Verifier`] takes them.
    pub fn into_members(self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let mut members = self.into_pairs();
        members.sort_unstable_by_key(|&(row, root)| (root, row));
        members.into_iter()
    }

    /// Returns every row seen with the root of its cluster, sorted by row: for joins and merges with the documents.
    pub fn into_rows(self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let mut rows = self.into_pairs();
        rows.sort_unstable();
        rows.into_iter()
    }

    fn into_pairs(mut self) -> Vec<(u64, u64)> {
        self.nodes = HashMap::default();
        let mut pairs = Vec::with_capacity(self.rows.len());
        for node in 0..self.rows.len() {
            let root = self.root(u32::try_from(node).expect("nodes are counted in 32 bits"));
            pairs.push((self.rows[node], self.rows[root as usize]));
        }
        pairs
    }

    fn node(&mut self, row: u64) -> u32 {
        *self.nodes.entry(row).or_insert_with(|| {
            let node = u32::try_from(self.rows.len())
                .expect("at most 2^32 documents have candidates in one run");
            self.rows.push(row);
            self.parents.push(node);
            node
        })
    }

    /// Walks to the root; on the way every other node is hung onto its grandparent, so later walks are short.
    fn root(&mut self, mut node: u32) -> u32 {
        loop {
            let parent = self.parents[node as usize];
            if parent == node {
                return node;
            }
            let grandparent = self.parents[parent as usize];
            self.parents[node as usize] = grandparent;
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
        let mut clusters = UnionFind::default();
        clusters.extend(pairs.iter().copied());
        clusters.into_rows().collect()
    }

    /// Spreads the smaller label along each edge until nothing changes.
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
                return labels.into_iter().collect();
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
    fn find_answers_at_any_time() {
        let mut clusters = UnionFind::default();
        clusters.union(u64::MAX, 5);
        assert_eq!(clusters.find(u64::MAX), 5);
        assert_eq!(clusters.find(6), 6);
        clusters.union(5, 2);
        assert_eq!(clusters.find(u64::MAX), 2);
        assert_eq!(clusters.len(), 3);
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

        #[test]
        fn members_come_cluster_by_cluster(
            pairs in proptest::collection::vec((0u64..60, 0u64..60), 0..80)
        ) {
            let mut clusters = UnionFind::default();
            clusters.extend(pairs);
            let members: Vec<_> = clusters.into_members().map(|(row, root)| (root, row)).collect();
            prop_assert!(members.is_sorted());
        }
    }
}
