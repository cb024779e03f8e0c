//! Clusters of near-duplicates, compared on their texts before anything is removed.

use std::sync::{Mutex, PoisonError};

use arrow::array::AsArray;
use dedup::ClusterSets;
use dedup::sets::GROUPS_MAX;

use super::removals::Gone;
use super::rows::{read_rows, sorted};
use super::work::Work;
use super::{Methods, SHARE};
use crate::Result;
use crate::stage::for_each;

/// What the shingles of a text take for 10 of its bytes, about: 8 bytes for a word of 6.
const SET_BYTES_PER_10: u64 = 14;

/// A member of a cluster whose text is to be compared.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    row: u32,
    rank: u32,
    root: u32,
    group: usize,
}

impl Methods {
    /// Keeps, of each cluster, every document that resembles no kept one.
    ///
    /// `members` are (rank, root), cluster by cluster. Texts are read once, in file order; their shingle sets go to disk by
    /// groups of clusters that fit into the job's share, which are then verified side by side.
    pub(super) fn verify(
        &self,
        work: &Work<'_>,
        members: &[(u32, u32)],
        method: u8,
    ) -> Result<Vec<Gone>> {
        let mut found = Vec::new();
        let open: Vec<&[(u32, u32)]> = members
            .chunk_by(|a, b| a.1 == b.1)
            .filter(|cluster| !work.take_over(cluster, &mut found))
            .collect();
        let members = open.iter().flat_map(|cluster| cluster.iter());
        let rows = sorted(members.map(|(rank, _)| work.order.row(*rank)));
        let sizes = work.text_bytes(&rows)?;
        let limit = work.run.limits.memory / SHARE / work.run.limits.threads.max(1) as u64;
        let mut clusters = open.into_iter().peekable();
        while clusters.peek().is_some() {
            // A round: as many groups as files may be open.
            let mut round = Vec::new();
            let (mut group, mut bytes) = (0, 0);
            while group < GROUPS_MAX
                && let Some(cluster) = clusters.next()
            {
                for &(rank, root) in cluster {
                    let row = work.order.row(rank);
                    let index = rows.binary_search(&row).expect("rows of all members");
                    bytes += set_bytes(sizes[index]);
                    round.push(Candidate { row, rank, root, group });
                }
                if bytes >= limit {
                    (group, bytes) = (group + 1, 0);
                }
            }
            round.sort_unstable_by_key(|candidate| candidate.row);
            found.extend(self.verify_round(work, &round, method)?);
        }
        Ok(found)
    }

    fn verify_round(&self, work: &Work<'_>, round: &[Candidate], method: u8) -> Result<Vec<Gone>> {
        let n_groups = round.iter().map(|candidate| candidate.group + 1).max().unwrap_or_default();
        let sets = ClusterSets::create(&work.folder, n_groups)?;
        let shards = work.documents.shards_with_first_rows();
        for_each(work.run, shards.len(), |index| {
            let (shard, first) = &shards[index];
            let wanted = &round[round.partition_point(|c| u64::from(c.row) < *first)..];
            let end = first + shard.rows;
            let wanted = &wanted[..wanted.partition_point(|c| u64::from(c.row) < end)];
            let rows: Vec<u64> = wanted.iter().map(|c| u64::from(c.row) - first).collect();
            let mut candidates = wanted.iter();
            read_rows(&work.documents, shard, "text", &rows, |column, index| {
                let candidate = candidates.next().expect("one for each row");
                let text = column.as_string::<i32>().value(index);
                let shingles = self.minhash.shingle_hashes(text);
                Ok(sets.push(candidate.group, candidate.root, candidate.rank, &shingles)?)
            })
        })?;
        let found = Mutex::new(Vec::new());
        for_each(work.run, n_groups, |group| {
            let mut own = Vec::new();
            sets.verify(group, self.minhash.config().verify, |root, removed| {
                let rank = |row: u64| u32::try_from(row).expect("a rank of 32 bits was given");
                own.push(Gone {
                    rank: rank(removed.row),
                    kept_rank: rank(removed.kept_row),
                    cluster: root,
                    method,
                    similarity: Some(removed.similarity),
                });
            })?;
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            Ok(())
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn set_bytes(text_bytes: u64) -> u64 {
    text_bytes * SET_BYTES_PER_10 / 10
}
