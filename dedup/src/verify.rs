//! Which members of a cluster are really copies, and of what.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::Xxh3;

use crate::mix::{K0, K1, RowHasher, fold};
use crate::shingle::jaccard;

type ByHash<V> = HashMap<u64, V, BuildHasherDefault<RowHasher>>;

/// A document that goes, and the one that stays for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Removed {
    /// The document.
    pub row: u64,
    /// The document kept in its place, an earlier row.
    pub kept_row: u64,
    /// Exact Jaccard index of their shingle sets.
    pub similarity: f64,
}

/// Decides over the members of a cluster, one after the other in row order.
///
/// The first member stays. A later one goes when its Jaccard index with a member that stays reaches the threshold, and is
/// credited to the earliest such member; otherwise it stays, too, and may stand for others. So every removed
/// document truly resembles its kept one, and no two kept members resemble each other.
/// With threshold 0 all members but the first go, as in plain union-find.
///
/// # Cost
/// A member with the same shingles as an earlier one costs a hash of them. Others are compared only with kept members
/// that can reach the threshold: by size (J ≥ t needs |A| ≥ t·|B|), and once [`LINEAR_MAX`] are kept, only if they share
/// one of their rarest (1−t)·|A| shingles, since sets that share none of them share too little. So a template that
/// fills less than t of each page does not make its pages candidates of each other.
/// Memory: the shingles of the kept members of one cluster, about half as much again to find them by, 4 MiB of counters,
/// and 40 bytes for each distinct member.
#[derive(Debug)]
pub struct Verifier {
    threshold: f64,
    kept: Vec<Kept>,
    outcomes: HashMap<u128, Outcome>,
    index: Option<Index>,
    n_comparisons: u64,
}

/// Kept members up to this many are tried one by one; most clusters are smaller and need no index.
pub const LINEAR_MAX: usize = 16;

#[derive(Debug)]
struct Kept {
    row: u64,
    shingles: Box<[u64]>,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    kept: usize,
    similarity: f64,
}

impl Verifier {
    /// Verifies at a Jaccard index of `threshold`, 0 to 1.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        assert!((0.0..=1.0).contains(&threshold), "a Jaccard index is 0 to 1, not {threshold}");
        Self {
            threshold,
            kept: Vec::new(),
            outcomes: HashMap::new(),
            index: None,
            n_comparisons: 0,
        }
    }

    /// Forgets the cluster, before the first member of the next.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.outcomes.clear();
        self.index = None;
    }

    /// Decides over the next member; none when it stays.
    ///
    /// `shingles` is sorted and without repeats, as [`crate::MinHash::shingle_hashes`] gives it. Rows must rise.
    pub fn push(&mut self, row: u64, shingles: &[u64]) -> Option<Removed> {
        if let Some(last) = self.kept.last() {
            assert!(last.row < row, "row {row} came after row {}", last.row);
        }
        let key = set_hash(shingles);
        // Equal sets end alike: whatever an earlier equal one met first, this one meets first.
        let outcome = match self.outcomes.get(&key) {
            Some(&outcome) => Some(outcome),
            None => self.find(shingles),
        };
        match outcome {
            Some(outcome) => {
                self.outcomes.insert(key, outcome);
                let kept_row = self.kept[outcome.kept].row;
                Some(Removed { row, kept_row, similarity: outcome.similarity })
            }
            None => {
                self.outcomes.insert(key, Outcome { kept: self.kept.len(), similarity: 1.0 });
                self.kept.push(Kept { row, shingles: shingles.into() });
                self.grow_index();
                None
            }
        }
    }

    /// Returns how many pairs of sets were compared since the start, over all clusters.
    #[must_use]
    pub fn n_comparisons(&self) -> u64 {
        self.n_comparisons
    }

    /// Finds the earliest kept member that is similar enough.
    fn find(&mut self, shingles: &[u64]) -> Option<Outcome> {
        let candidates = match &self.index {
            Some(index) => index.candidates(shingles, self.threshold),
            None => (0..self.kept.len()).collect(),
        };
        let (threshold, n) = (self.threshold, shingles.len() as f64);
        candidates.into_iter().find_map(|kept| {
            let other = &self.kept[kept].shingles;
            let (small, large) = if shingles.len() < other.len() {
                (n, other.len() as f64)
            } else {
                (other.len() as f64, n)
            };
            if small < threshold * large {
                return None;
            }
            self.n_comparisons += 1;
            let similarity = jaccard(shingles, other);
            (similarity >= threshold).then_some(Outcome { kept, similarity })
        })
    }

    /// Adds the newest kept member to the index, which is rebuilt each time the members have doubled: rarity changes as they come.
    fn grow_index(&mut self) {
        let n = self.kept.len();
        if self.threshold == 0.0 || n <= LINEAR_MAX {
            return;
        }
        match &mut self.index {
            Some(index) if n < 2 * index.n_counted => {
                index.insert(n - 1, &self.kept[n - 1].shingles, self.threshold);
            }
            _ => self.index = Some(Index::new(&self.kept, self.threshold)),
        }
    }
}

/// Decides over a whole cluster: its members in row order, each with its shingle set. Returns those that go.
#[must_use]
pub fn verify<S: AsRef<[u64]>>(members: &[(u64, S)], threshold: f64) -> Vec<Removed> {
    let mut verifier = Verifier::new(threshold);
    members.iter().filter_map(|(row, shingles)| verifier.push(*row, shingles.as_ref())).collect()
}

/// Kept members by their rarest shingles (prefix filter: Chaudhuri et al. 2006, Xiao et al. 2008).
///
/// Any fixed order of shingles is correct; rare first makes short lists. Shingles that no counted member has are the rarest.
#[derive(Debug)]
struct Index {
    frequency: Frequency,
    n_counted: usize,
    /// The newest posting of each shingle.
    heads: ByHash<u32>,
    /// Kept members, each with the posting before it of the same shingle.
    postings: Vec<(u32, u32)>,
}

/// No posting.
const END: u32 = u32::MAX;

impl Index {
    fn new(kept: &[Kept], threshold: f64) -> Self {
        let mut index = Self {
            frequency: Frequency::new(kept),
            n_counted: kept.len(),
            heads: ByHash::default(),
            postings: Vec::new(),
        };
        for (position, kept) in kept.iter().enumerate() {
            index.insert(position, &kept.shingles, threshold);
        }
        index
    }

    fn insert(&mut self, position: usize, shingles: &[u64], threshold: f64) {
        let position = u32::try_from(position).expect("rows are counted in 32 bits");
        for shingle in self.prefix(shingles, threshold) {
            let posting = u32::try_from(self.postings.len()).expect("postings fit into memory");
            assert!(posting < END, "a cluster has more than 2^32 postings");
            let before = self.heads.insert(shingle, posting).unwrap_or(END);
            self.postings.push((position, before));
        }
    }

    /// Kept members that share a shingle of their prefixes, in the order in which they were kept.
    fn candidates(&self, shingles: &[u64], threshold: f64) -> Vec<usize> {
        let mut candidates = Vec::new();
        for shingle in self.prefix(shingles, threshold) {
            let mut next = self.heads.get(&shingle).copied().unwrap_or(END);
            while next != END {
                let (position, before) = self.postings[next as usize];
                candidates.push(position as usize);
                next = before;
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// The rarest shingles, one more than the set could lack and still reach the threshold.
    fn prefix(&self, shingles: &[u64], threshold: f64) -> Vec<u64> {
        // J ≥ t needs at least t·|A| shared, and an integer: the small term keeps rounding from asking for one too many.
        let shared_min = (threshold * shingles.len() as f64 - 1e-6).ceil().max(1.0);
        let lacking_max = (shingles.len() as f64 - shared_min).max(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "a whole number, at most the length")]
        #[expect(clippy::cast_sign_loss, reason = "not negative")]
        let n = (lacking_max as usize + 1).min(shingles.len());
        let mut ranked: Vec<(u32, u64)> =
            shingles.iter().map(|&shingle| (self.frequency.of(shingle), shingle)).collect();
        if n < ranked.len() {
            ranked.select_nth_unstable(n);
        }
        ranked[..n].iter().map(|&(_, shingle)| shingle).collect()
    }
}

/// How often shingles occur, about: shingles that share a counter are taken for as frequent as all of them together.
#[derive(Debug)]
struct Frequency {
    counts: Vec<u32>,
}

/// Counters, at most: 4 MiB, however large a cluster is.
const COUNTERS_MAX: usize = 1 << 20;

impl Frequency {
    fn new(kept: &[Kept]) -> Self {
        let n_shingles: usize = kept.iter().map(|kept| kept.shingles.len()).sum();
        let n = (2 * n_shingles).next_power_of_two().clamp(1 << 10, COUNTERS_MAX);
        let mut frequency = Self { counts: vec![0; n] };
        for &shingle in kept.iter().flat_map(|kept| &kept.shingles) {
            let slot = frequency.slot(shingle);
            frequency.counts[slot] = frequency.counts[slot].saturating_add(1);
        }
        frequency
    }

    fn of(&self, shingle: u64) -> u32 {
        self.counts[self.slot(shingle)]
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the lower bits are wanted")]
    fn slot(&self, shingle: u64) -> usize {
        fold(shingle ^ K0, K1) as usize & (self.counts.len() - 1)
    }
}

fn set_hash(shingles: &[u64]) -> u128 {
    let mut hash = Xxh3::new();
    for shingle in shingles {
        hash.update(&shingle.to_le_bytes());
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule in its plainest form: everything against everything kept.
    fn plain(members: &[(u64, Vec<u64>)], threshold: f64) -> Vec<Removed> {
        let mut kept: Vec<&(u64, Vec<u64>)> = Vec::new();
        let mut removed = Vec::new();
        for member in members {
            let found = kept.iter().find_map(|kept| {
                let similarity = jaccard(&member.1, &kept.1);
                (similarity >= threshold).then_some(Removed {
                    row: member.0,
                    kept_row: kept.0,
                    similarity,
                })
            });
            match found {
                Some(found) => removed.push(found),
                None => kept.push(member),
            }
        }
        removed
    }

    fn removed(row: u64, kept_row: u64, similarity: f64) -> Removed {
        Removed { row, kept_row, similarity }
    }

    #[test]
    fn a_chain_is_not_removed_link_by_link() {
        // Neighbours share 4 of 6 (0.67), the ends 2 of 8.
        let chain = [
            (1, vec![1, 2, 3, 4, 5]),
            (2, vec![2, 3, 4, 5, 6]),
            (3, vec![3, 4, 5, 6, 7]),
            (4, vec![4, 5, 6, 7, 8]),
        ];
        assert_eq!(verify(&chain, 0.6), [removed(2, 1, 4.0 / 6.0), removed(4, 3, 4.0 / 6.0)]);
        // Union-find alone: all go, the last with similarity 2 of 8.
        assert_eq!(
            verify(&chain, 0.0),
            [removed(2, 1, 4.0 / 6.0), removed(3, 1, 3.0 / 7.0), removed(4, 1, 2.0 / 8.0)]
        );
    }

    #[test]
    fn the_earliest_kept_document_gets_the_credit() {
        // The last one is 0.75 to the first and 1 to the second, which stayed.
        let members = [(1, vec![1, 2, 3]), (5, vec![1, 2, 4, 5]), (9, vec![1, 2, 4, 5])];
        assert_eq!(verify(&members, 0.7), [removed(9, 5, 1.0)]);
        let members = [(1, vec![1, 2, 3]), (5, vec![1, 2, 3, 4]), (9, vec![1, 2, 3, 4])];
        assert_eq!(verify(&members, 0.7), [removed(5, 1, 0.75), removed(9, 1, 0.75)]);
    }

    #[test]
    fn a_document_exactly_at_the_threshold_goes() {
        let members = [(1, vec![1, 2, 3, 4]), (2, vec![1, 2, 3])];
        assert_eq!(verify(&members, 0.75), [removed(2, 1, 0.75)]);
        assert_eq!(verify(&members, 0.750_001), []);
    }

    #[test]
    fn ten_thousand_identical_members_are_never_compared() {
        let set: Vec<u64> = (0..500).collect();
        let mut verifier = Verifier::new(0.75);
        let n_removed = (0..10_000).filter_map(|row| verifier.push(row, &set)).count();
        assert_eq!((n_removed, verifier.n_comparisons()), (9_999, 0));
    }

    #[test]
    fn pages_of_one_template_are_not_compared_with_each_other() {
        // Half of each page is the template, J = 1/3; every tenth page is copied with a small change.
        let page = |page: u64| -> Vec<u64> {
            (0..100).chain((0..100).map(|i| 1000 + page * 100 + i)).collect()
        };
        let mut verifier = Verifier::new(0.75);
        let mut n_removed = 0;
        for i in 0..4000 {
            n_removed += usize::from(verifier.push(2 * i, &page(i)).is_some());
            if i % 10 == 0 {
                let mut copy = page(i);
                copy.truncate(195);
                let credited = verifier.push(2 * i + 1, &copy).unwrap();
                assert_eq!((credited.kept_row, credited.similarity), (2 * i, 195.0 / 200.0));
                n_removed += 1;
            }
        }
        assert_eq!(n_removed, 400);
        println!("{} comparisons of 4,400 members", verifier.n_comparisons());
        assert!(verifier.n_comparisons() < 2 * 4_400, "{}", verifier.n_comparisons());
    }

    fn family() -> impl Strategy<Value = Vec<(u64, Vec<u64>)>> {
        // Sets that share most of a base, so similarities lie on both sides of any threshold.
        let set =
            (proptest::collection::vec(any::<bool>(), 24), 0u64..4).prop_map(|(bits, variant)| {
                let own = (0..4).map(move |i| 100 + variant * 10 + i);
                let base = bits.into_iter().zip(0u64..).filter_map(|(bit, i)| bit.then_some(i));
                base.chain(own).collect::<Vec<u64>>()
            });
        proptest::collection::vec(set, 0..80).prop_map(|sets| {
            sets.into_iter().zip(0u64..).map(|(set, row)| (3 * row, set)).collect()
        })
    }

    proptest! {
        #[test]
        fn decides_as_the_plain_rule_and_every_removed_document_meets_the_threshold(
            members in family(),
            threshold in prop::sample::select(vec![0.0, 0.3, 0.5, 0.6, 0.75, 0.9, 1.0]),
        ) {
            let decided = verify(&members, threshold);
            for removed in &decided {
                let set = |row: u64| &members[usize::try_from(row / 3).unwrap()].1;
                prop_assert!(removed.kept_row < removed.row);
                prop_assert_eq!(removed.similarity, jaccard(set(removed.row), set(removed.kept_row)));
                prop_assert!(removed.similarity >= threshold);
            }
            prop_assert_eq!(decided, plain(&members, threshold));
        }
    }
}
