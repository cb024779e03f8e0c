//! From documents to the sequences that have tokens of them: [`SequenceReader::documents`] the other way round.

use std::collections::BTreeSet;

use super::decode;
use super::epoch::{Blocks, Epoch};
use super::{Group, SequencePart, SequenceReader};
use crate::packing::Packing;
use crate::schema::ID_BYTES;
use crate::{Result, packing};

/// Tokens of a document in a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// The sequence of the split: [`SequenceReader::samples_of`] says when it is read.
    pub sequence: u64,
    /// Where they begin in it.
    pub offset: u32,
    /// What they are.
    pub part: SequencePart,
}

impl SequenceReader {
    /// Returns where tokens of `documents` are, by sequence and offset.
    ///
    /// Reads ids and lengths of every row, no tokens. Memory grows with what is found.
    ///
    /// # Errors
    /// When a shard cannot be read or is not what the manifest says.
    pub fn occurrences(
        &self,
        documents: &BTreeSet<[u8; ID_BYTES as usize]>,
    ) -> Result<Vec<Occurrence>> {
        let mut found = Vec::new();
        for groups in self.groups.chunk_by(|a, b| a.shard == b.shard) {
            let path = self.local_shard(groups[0].shard)?;
            let metadata = decode::footer(&path, self.shard(groups[0].shard))?;
            for group in groups {
                let (ids, lengths) = decode::ids_and_lengths(&path, metadata.clone(), group.index)?;
                let is_wanted: Vec<bool> = ids.iter().map(|id| documents.contains(id)).collect();
                if is_wanted.contains(&true) {
                    self.add_occurrences(group, &ids, &lengths, &is_wanted, &mut found);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn add_occurrences(
        &self,
        group: &Group,
        ids: &[[u8; ID_BYTES as usize]],
        lengths: &[u32],
        is_wanted: &[bool],
        found: &mut Vec<Occurrence>,
    ) {
        let seq_len = u32::try_from(self.seq_len).expect("checked when the reader was opened");
        let mut add = |sequence: u64, offset: u32, row: usize, first: u32, n_tokens: u32| {
            let part = SequencePart {
                document_id: ids[row],
                shard: self.shard(group.shard).path.clone(),
                row: group.first_row + row as u64,
                first_token_in_document: first,
                n_tokens,
            };
            found.push(Occurrence { sequence, offset, part });
        };
        if let Blocks::Uneven { ends, .. } = &self.blocks {
            let first_token = group.entry.first_token;
            let index = self.groups.partition_point(|other| other.entry.first_token < first_token);
            let first = if index == 0 { 0 } else { ends[index - 1] };
            for (sequence, pieces) in (first..).zip(packing::best_fit(lengths, seq_len)) {
                let mut offset = 0;
                for piece in pieces {
                    if is_wanted[piece.document] {
                        add(sequence, offset, piece.document, piece.start, piece.n_tokens);
                    }
                    offset += piece.n_tokens;
                }
            }
            return;
        }
        debug_assert_eq!(self.config.packing, Packing::Stream, "other blocks are uneven");
        let narrow = |n: u64| u32::try_from(n).expect("below the length of a row or sequence");
        let mut start = group.entry.first_token;
        for (row, n) in lengths.iter().enumerate() {
            let end = start + u64::from(*n);
            // A sequence is read with the token behind it, so the one before may end with the first token.
            let mut sequence = start.saturating_sub(1) / self.seq_len;
            while is_wanted[row] && sequence < self.n_sequences() {
                let range = packing::stream(sequence, self.seq_len);
                if range.start >= end {
                    break;
                }
                let (from, to) = (range.start.max(start), range.end.min(end));
                if from < to {
                    let (offset, first) = (narrow(from - range.start), narrow(from - start));
                    add(sequence, offset, row, first, narrow(to - from));
                }
                sequence += 1;
            }
            start = end;
        }
    }

    /// Returns the global sample that reads `sequence` of the split in each epoch, without end.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn samples_of(&self, sequence: u64) -> impl Iterator<Item = u64> {
        let n = self.n_sequences();
        assert!(sequence < n, "sequence {sequence} of {n}");
        (0..).map(move |index| {
            let epoch = Epoch::new(&self.blocks, self.config.seed, index);
            index * n + epoch.position(&self.blocks, sequence)
        })
    }
}
