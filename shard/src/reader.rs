//! From a dataset of tokens to sequences, in an order that is a pure function of manifest, seed and index.
//!
//! Sample `s` is sequence `order(s mod n)` of epoch `s / n`. Shards hold documents in shuffled order, but the sequences of
//! one long document follow each other, and a batch of them is a poor sample of the corpus: so every epoch, the first
//! one too, permutes blocks of sequences, then the sequences inside a block; reads stay in the row groups that are
//! decoded already. Ranks take slices of each global batch
//! ([`rank_samples`]), so the world's size changes who reads a sample, never which samples make a step.
//!
//! [`SequenceReader`] reads one version of one dataset, [`FollowReader`] one that grows, [`crate::mixture::MixtureReader`] several;
//! all are [`Samples`], and [`Batches`] reads ahead from any of them.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Snapshot};
use crate::manifest::{Manifest, RowGroup, Shard};
use crate::packing::{BestFitCounter, Packing, Piece};
use crate::schema::{DatasetKind, ID_BYTES};
use crate::{Error, Result, packing};

mod batches;
pub(crate) mod decode;
mod epoch;
mod follow;
mod occurrence;
mod sequence;

pub use batches::{Batch, BatchPlan, Batches};
use decode::{Decoded, REBUILD};
use epoch::{Blocks, Epoch};
pub use follow::{FollowReader, FollowState, VersionStart};
pub use occurrence::Occurrence;
pub use sequence::{Samples, Sequence};

/// Tokens of decoded row groups that a reader keeps: 256 MiB, sixteen of the largest groups a writer makes.
const CACHE_TOKENS_MAX: usize = 64 << 20;
/// Tokens per block of a permuted epoch: a quarter of what is kept decoded.
const BLOCK_TOKENS: u64 = 16 << 20;

/// What a run wants to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderConfig {
    /// `train`, or another split of the dataset.
    pub split: String,
    /// A partition of the split; all of it without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Decides the order of every epoch.
    pub seed: u64,
    /// Whether each shard's hash is checked, once per process.
    pub verify: bool,
    /// How documents fill sequences.
    #[serde(default)]
    pub packing: Packing,
    /// Whether documents of one sequence are told apart: see [`Sequence`].
    #[serde(default)]
    pub mask_documents: bool,
}

/// Where a reader stopped: part of every checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderState {
    /// BLAKE3 of the manifest whose sequences were read.
    pub manifest_hash: String,
    /// The first sample that no step has seen.
    pub next_sample: u64,
}

/// Returns the samples of `rank` in the step that begins at `next_sample` and takes `batch` samples over all ranks.
///
/// Slices of all ranks, one after the other, are the global batch, whatever the `world` size.
///
/// # Panics
/// When `rank` is not below `world`.
#[must_use]
pub fn rank_samples(next_sample: u64, batch: u64, rank: u64, world: u64) -> Range<u64> {
    assert!(rank < world, "rank {rank} of a world of {world}");
    next_sample + batch * rank / world..next_sample + batch * (rank + 1) / world
}

/// A row's share of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequencePart {
    /// The document.
    pub document_id: [u8; ID_BYTES as usize],
    /// Its shard, as the manifest names it.
    pub shard: String,
    /// Its row in the shard.
    pub row: u64,
    /// Index in the document of its first token in the sequence.
    pub first_token_in_document: u32,
    /// Its tokens in the sequence.
    pub n_tokens: u32,
}

/// Reads sequences of one split of one version of a dataset.
///
/// Opening reads the manifest, and for [`Packing::BestFit`] the lengths of all documents of the split. Memory is
/// bounded: decoded row groups are kept up to 256 MiB, least recently used out first; best fit adds 8 bytes per row
/// group and epoch.
#[derive(Debug)]
pub struct SequenceReader {
    snapshot: Snapshot,
    config: ReaderConfig,
    seq_len: u64,
    blocks: Blocks,
    /// Ids are below this; without a tokenizer in the manifest, any id is right.
    n_vocabulary: u32,
    /// What sequences are filled up with.
    padding: u32,
    /// Shards of the split, by their place in the manifest, with their footers once read.
    shards: SplitShards,
    groups: Vec<Group>,
    /// Most recently used last.
    cache: VecDeque<(usize, Arc<Loaded>)>,
    epoch: Option<Epoch>,
    /// The buffer behind [`SequenceReader::read`].
    sequence: Sequence,
}

#[derive(Debug)]
struct Group {
    /// Index into the split's shards.
    shard: usize,
    /// Index of the row group in the shard.
    index: usize,
    /// Its first row in the shard.
    first_row: u64,
    /// As the manifest says, but that its first token is counted among those that are read.
    entry: RowGroup,
}

/// A decoded row group and, with best fit, its sequences.
#[derive(Debug)]
struct Loaded {
    rows: Decoded,
    plan: Vec<Vec<Piece>>,
}

/// A run of tokens of one row: where a sequence takes them from.
struct Part {
    group: Arc<Loaded>,
    group_index: usize,
    row: usize,
    /// In the group's tokens.
    tokens: Range<usize>,
}

impl SequenceReader {
    /// Opens a version of the dataset in the folder `dataset`, the newest without one.
    ///
    /// # Errors
    /// When there is no such dataset, it holds no tokens, or its split has no sequence of that length.
    pub fn open(dataset: &Path, version: Option<u64>, config: ReaderConfig) -> Result<Self> {
        Self::of(Dataset::at(dataset).open(version)?, config)
    }

    fn of(snapshot: Snapshot, config: ReaderConfig) -> Result<Self> {
        let manifest = &snapshot.manifest;
        let dataset = &snapshot.path;
        if manifest.kind != DatasetKind::Tokens {
            return Err(Error::Missing {
                what: format!("tokens in `{}`: it holds {}", dataset.display(), manifest.kind),
                hint: "tokenize it first, and give the folder of the tokens".to_owned(),
            });
        }
        let seq_len = check_length(manifest, &config, dataset)?;
        let n_tokens = manifest.n_tokens(&config.split, config.partition.as_deref());
        let (shards, groups) = part_of(&snapshot, &config)?;
        let blocks = Blocks::Even {
            first: 0,
            n: packing::n_stream(n_tokens, seq_len),
            block: (BLOCK_TOKENS / seq_len).max(1),
        };
        let tokenizer = manifest.tokenizer.as_ref();
        let mut reader = Self {
            seq_len,
            blocks,
            n_vocabulary: tokenizer.map_or(u32::MAX, |info| info.n_vocabulary),
            padding: tokenizer.and_then(|info| info.end_of_document).unwrap_or(0),
            shards,
            groups,
            cache: VecDeque::new(),
            epoch: None,
            sequence: Sequence::default(),
            snapshot,
            config,
        };
        if reader.config.packing == Packing::BestFit {
            reader.blocks = reader.best_fit_blocks()?;
        }
        Ok(reader)
    }

    /// Sequences per epoch; of a stream, `(n_tokens - 1) / seq_len`.
    #[must_use]
    pub fn n_sequences(&self) -> u64 {
        self.blocks.n()
    }

    /// The manifest that is read.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.snapshot.manifest
    }

    /// The version that is read.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.snapshot.version
    }

    /// BLAKE3 of the manifest that is read.
    #[must_use]
    pub fn manifest_hash(&self) -> &str {
        &self.snapshot.manifest_hash
    }

    /// What the run reads.
    #[must_use]
    pub fn config(&self) -> &ReaderConfig {
        &self.config
    }

    /// Returns what a checkpoint keeps when `next_sample` is the first sample not seen.
    #[must_use]
    pub fn state(&self, next_sample: u64) -> ReaderState {
        ReaderState { manifest_hash: self.snapshot.manifest_hash.clone(), next_sample }
    }

    /// Checks that `state` belongs to the manifest that is read, and returns the sample to go on with.
    ///
    /// # Errors
    /// When it was written for another manifest: the rest of the run would see other sequences.
    pub fn resume(&self, state: &ReaderState) -> Result<u64> {
        if state.manifest_hash == self.snapshot.manifest_hash {
            return Ok(state.next_sample);
        }
        Err(Error::Corrupt {
            what: format!("version {} of `{}`", self.version(), self.snapshot.path.display()),
            why: format!(
                "its manifest is {}, the checkpoint was made with {}",
                self.snapshot.manifest_hash, state.manifest_hash
            ),
            hint: "give the version of the dataset that the run began with".to_owned(),
        })
    }

    /// Fills `out` with the `seq_len + 1` tokens of the global sample `sample`: inputs, and the last target.
    ///
    /// What best fit leaves empty is filled with the token after documents, or zero where there is none:
    /// [`Samples::read_sequence`] says where that begins.
    ///
    /// # Errors
    /// When a shard cannot be read or is not what the manifest says.
    ///
    /// # Panics
    /// When `out` has another length.
    pub fn read(&mut self, sample: u64, out: &mut [u32]) -> Result<()> {
        assert_eq!(out.len() as u64, self.seq_len + 1, "a buffer for one sequence");
        let mut sequence = std::mem::take(&mut self.sequence);
        let filled = self.read_sequence(sample, &mut sequence);
        if filled.is_ok() {
            out.copy_from_slice(&sequence.tokens);
        }
        self.sequence = sequence;
        filled
    }

    /// Returns the rows that the tokens of `sample` come from, in order: the lineage of a step.
    ///
    /// # Errors
    /// As [`SequenceReader::read`].
    pub fn documents(&mut self, sample: u64) -> Result<Vec<SequencePart>> {
        let sequence = self.sequence_of(sample);
        let mut documents = Vec::new();
        self.visit(sequence, |reader, part| {
            let Group { shard, first_row, .. } = &reader.groups[part.group_index];
            let rows = &part.group.rows;
            let narrow = |n: usize| u32::try_from(n).expect("a row has at most 2^31 tokens");
            documents.push(SequencePart {
                document_id: rows.ids[part.row],
                shard: reader.shard(*shard).path.clone(),
                row: first_row + part.row as u64,
                first_token_in_document: narrow(part.tokens.start - rows.offsets[part.row]),
                n_tokens: narrow(part.tokens.len()),
            });
        })?;
        Ok(documents)
    }

    /// Returns which sequence of the split a global sample is.
    #[must_use]
    pub fn sequence_of(&mut self, sample: u64) -> u64 {
        let n = self.blocks.n();
        let (index, position) = (sample / n, sample % n);
        if self.epoch.as_ref().is_none_or(|known| known.index != index) {
            self.epoch = Some(Epoch::new(&self.blocks, self.config.seed, index));
        }
        self.epoch.as_ref().expect("set above").sequence(&self.blocks, position)
    }

    /// Fills `out` with sequence `index` of the split.
    fn fill(&mut self, index: u64, out: &mut Sequence) -> Result<()> {
        let seq_len = self.config.seq_len;
        let (mask_documents, padding) = (self.config.mask_documents, self.padding);
        out.clear();
        if self.config.packing == Packing::Stream && !mask_documents {
            self.fill_stream(index, out)?;
        } else {
            let is_packed = self.config.packing == Packing::BestFit;
            self.visit(index, |_, part| {
                let rows = &part.group.rows;
                let is_new = is_packed || part.tokens.start == rows.offsets[part.row];
                out.push(rows, part.tokens, mask_documents && is_new);
            })?;
        }
        out.close(seq_len, padding);
        Ok(())
    }

    /// The plain way: whole runs of tokens, whatever documents they belong to.
    fn fill_stream(&mut self, index: u64, out: &mut Sequence) -> Result<()> {
        let range = packing::stream(index, self.seq_len);
        for index in self.groups_of(&range) {
            let group = self.group(index)?;
            let part =
                within(&range, self.groups[index].entry.first_token, group.rows.tokens.len());
            out.push(&group.rows, part, false);
        }
        Ok(())
    }

    /// Calls `visit` for each part of sequence `index`, in order.
    fn visit(&mut self, index: u64, mut visit: impl FnMut(&Self, Part)) -> Result<()> {
        let Blocks::Uneven { ends, .. } = &self.blocks else {
            return self.visit_stream(&packing::stream(index, self.seq_len), visit);
        };
        let group_index = ends.partition_point(|end| *end <= index);
        let first = if group_index == 0 { 0 } else { ends[group_index - 1] };
        let group = self.group(group_index)?;
        let within = usize::try_from(index - first).expect("a group is in memory");
        for piece in &group.plan[within] {
            let start = group.rows.offsets[piece.document] + piece.start as usize;
            let tokens = start..start + piece.n_tokens as usize;
            visit(
                self,
                Part { group: Arc::clone(&group), group_index, row: piece.document, tokens },
            );
        }
        Ok(())
    }

    fn visit_stream(
        &mut self,
        range: &Range<u64>,
        mut visit: impl FnMut(&Self, Part),
    ) -> Result<()> {
        for group_index in self.groups_of(range) {
            let group = self.group(group_index)?;
            let first_token = self.groups[group_index].entry.first_token;
            let part = within(range, first_token, group.rows.tokens.len());
            let offsets = &group.rows.offsets;
            let first = offsets.partition_point(|offset| *offset <= part.start) - 1;
            for row in first..group.rows.ids.len() {
                let tokens = offsets[row].max(part.start)..offsets[row + 1].min(part.end);
                if offsets[row] >= part.end {
                    break;
                }
                if !tokens.is_empty() {
                    visit(self, Part { group: Arc::clone(&group), group_index, row, tokens });
                }
            }
        }
        Ok(())
    }

    /// Indices of the row groups that hold the tokens of `range`.
    fn groups_of(&self, range: &Range<u64>) -> Range<usize> {
        let after =
            |token: u64| self.groups.partition_point(|group| group.entry.first_token < token);
        after(range.start + 1) - 1..after(range.end)
    }

    /// Counts the sequences of each row group, from the lengths of its documents.
    fn best_fit_blocks(&self) -> Result<Blocks> {
        let seq_len = u32::try_from(self.seq_len).expect("checked when the reader was opened");
        let mut counter = BestFitCounter::new(seq_len);
        let mut ends = Vec::with_capacity(self.groups.len());
        let mut n = 0;
        for groups in self.groups.chunk_by(|a, b| a.shard == b.shard) {
            // A damaged column is found when a group is used: then its shard is verified, and the group counted again.
            let path = self.local_shard(groups[0].shard)?;
            let metadata = decode::footer(&path, self.shard(groups[0].shard))?;
            for group in groups {
                let lengths = decode::lengths(&path, metadata.clone(), group.index)?;
                n += counter.count(&lengths);
                ends.push(n);
            }
        }
        Ok(Blocks::Uneven { first: 0, ends })
    }

    fn group(&mut self, index: usize) -> Result<Arc<Loaded>> {
        if let Some((last, group)) = self.cache.back()
            && *last == index
        {
            return Ok(Arc::clone(group));
        }
        let group = match self.cache.iter().position(|(cached, _)| *cached == index) {
            Some(at) => self.cache.remove(at).expect("its position").1,
            None => {
                let coming = usize::try_from(self.groups[index].entry.n_tokens);
                self.make_room(coming.expect("the address space holds a row group"));
                Arc::new(self.load(index)?)
            }
        };
        self.cache.push_back((index, Arc::clone(&group)));
        Ok(group)
    }

    fn make_room(&mut self, coming: usize) {
        let mut kept: usize = self.cache.iter().map(|(_, group)| group.rows.tokens.len()).sum();
        while kept + coming > CACHE_TOKENS_MAX {
            let Some((_, group)) = self.cache.pop_front() else { break };
            kept -= group.rows.tokens.len();
        }
    }

    fn load(&mut self, index: usize) -> Result<Loaded> {
        let metadata = self.metadata(self.groups[index].shard)?;
        let group = &self.groups[index];
        let path = self.shard_path(group.shard);
        let local = self.local_shard(group.shard)?;
        let rows = decode::decode(&local, metadata, group.index, &group.entry)?;
        let corrupt = |why: String| Error::Corrupt {
            what: format!("row group {} of shard `{}`", group.index, path.display()),
            why,
            hint: REBUILD.to_owned(),
        };
        let (n_tokens, n_rows) = (rows.tokens.len() as u64, rows.ids.len() as u64);
        if n_tokens != group.entry.n_tokens || n_rows != group.entry.rows {
            return Err(corrupt(format!(
                "it has {n_tokens} tokens in {n_rows} rows, manifest says {} in {}",
                group.entry.n_tokens, group.entry.rows
            )));
        }
        let largest = rows.tokens.iter().copied().max().unwrap_or(0);
        if largest >= self.n_vocabulary && !rows.tokens.is_empty() {
            let n = self.n_vocabulary;
            return Err(corrupt(format!("it has token {largest}, the tokenizer has {n} tokens")));
        }
        let mut plan = Vec::new();
        if let Blocks::Uneven { ends, .. } = &self.blocks {
            let seq_len = u32::try_from(self.seq_len).expect("checked when the reader was opened");
            plan = packing::best_fit(&rows.lengths(), seq_len);
            let wanted = ends[index] - if index == 0 { 0 } else { ends[index - 1] };
            let found = plan.len() as u64;
            if found != wanted {
                return Err(corrupt(format!(
                    "its documents fill {found} sequences, the lengths in `n_tokens` say {wanted}"
                )));
            }
        }
        Ok(Loaded { rows, plan })
    }

    /// Returns the footer of a shard; checks the shard when it is used first.
    fn metadata(&mut self, shard: usize) -> Result<ArrowReaderMetadata> {
        if let Some(metadata) = &self.shards[shard].1 {
            return Ok(metadata.clone());
        }
        let entry = self.shard(shard);
        if self.config.verify {
            verify_once(&self.snapshot, entry)?;
        }
        let read = decode::footer(&self.local_shard(shard)?, entry)?;
        self.shards[shard].1 = Some(read.clone());
        Ok(read)
    }

    fn shard(&self, shard: usize) -> &Shard {
        &self.snapshot.manifest.shards[self.shards[shard].0]
    }

    fn shard_path(&self, shard: usize) -> PathBuf {
        self.snapshot.shard_path(self.shard(shard))
    }

    /// Where the shard is opened; it is asked for again each time, because a copy may have given way to others.
    fn local_shard(&self, shard: usize) -> Result<PathBuf> {
        self.snapshot.local_shard(self.shard(shard))
    }
}

impl Samples for SequenceReader {
    fn seq_len(&self) -> usize {
        self.config.seq_len
    }

    fn n_samples(&self) -> Option<u64> {
        None
    }

    fn read_sequence(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        let index = self.sequence_of(sample);
        self.fill(index, out)
    }
}

fn check_length(manifest: &Manifest, config: &ReaderConfig, dataset: &Path) -> Result<u64> {
    let seq_len = config.seq_len as u64;
    let refuse = |message: String, hint: String| Error::Config {
        place: format!("split `{}` of `{}`", config.split, dataset.display()),
        message,
        hint: Some(hint),
    };
    if seq_len == 0 {
        return Err(refuse("`seq_len` is 0".to_owned(), "give at least 1 token".to_owned()));
    }
    if u32::try_from(seq_len).is_err() {
        let hint = format!("give at most {} tokens", u32::MAX);
        return Err(refuse(format!("`seq_len` is {seq_len}"), hint));
    }
    if manifest.split(&config.split).next().is_none() {
        let names: BTreeSet<_> = manifest.shards.iter().map(|shard| shard.split.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        return Err(refuse(
            "it has no shards".to_owned(),
            format!("the dataset has the splits `{}`", names.join("`, `")),
        ));
    }
    let partition = config.partition.as_deref();
    if manifest.part(&config.split, partition).next().is_none() {
        let names: Vec<_> = manifest.partitions(&config.split).into_iter().collect();
        let hint = match names.is_empty() {
            true => "it has none: the job's `[shard] partition` says what documents are parted by"
                .to_owned(),
            false => format!("it has the partitions `{}`", names.join("`, `")),
        };
        return Err(refuse(
            format!("it has no partition `{}`", partition.unwrap_or_default()),
            hint,
        ));
    }
    let n_tokens = manifest.n_tokens(&config.split, partition);
    // Best fit fills the one sequence up.
    if n_tokens <= seq_len && (config.packing == Packing::Stream || n_tokens == 0) {
        return Err(refuse(
            format!("it has {n_tokens} tokens, a sequence needs {}", seq_len + 1),
            "lower `seq_len`, or add documents to the split".to_owned(),
        ));
    }
    Ok(seq_len)
}

type SplitShards = Vec<(usize, Option<ArrowReaderMetadata>)>;

/// Returns the shards that are read, and their row groups in reading order, each with the index of its first token among
/// those that are read.
fn part_of(snapshot: &Snapshot, config: &ReaderConfig) -> Result<(SplitShards, Vec<Group>)> {
    let mut shards = Vec::new();
    let mut groups = Vec::new();
    let (mut next_token, mut n_read) = (0, 0);
    for (place, shard) in snapshot.manifest.shards.iter().enumerate() {
        if shard.split != config.split {
            continue;
        }
        let is_read = config.partition.is_none() || shard.partition == config.partition;
        let mut first_row = 0;
        for (index, entry) in shard.row_groups.iter().enumerate() {
            if entry.first_token != next_token {
                return Err(Error::Corrupt {
                    what: format!("version {} of `{}`", snapshot.version, snapshot.path.display()),
                    why: format!(
                        "row group {index} of `{}` begins at token {}, the groups before it end at {next_token}",
                        shard.path, entry.first_token
                    ),
                    hint: "remove that version's manifest and run the job again".to_owned(),
                });
            }
            next_token += entry.n_tokens;
            // A group of no tokens is in no sequence.
            if is_read && entry.n_tokens > 0 {
                let entry = RowGroup { first_token: n_read, ..entry.clone() };
                n_read += entry.n_tokens;
                groups.push(Group { shard: shards.len(), index, first_row, entry });
            }
            first_row += shard.row_groups[index].rows;
        }
        if is_read {
            shards.push((place, None));
        }
    }
    Ok((shards, groups))
}

/// The part of a group of `n` tokens from `first` on that lies in `range`.
fn within(range: &Range<u64>, first: u64, n: usize) -> Range<usize> {
    let offset =
        |token: u64| usize::try_from(token.saturating_sub(first)).map_or(n, |offset| offset.min(n));
    offset(range.start)..offset(range.end)
}

/// Checks size and hash of a shard unless this process has done so.
fn verify_once(snapshot: &Snapshot, shard: &Shard) -> Result<()> {
    static VERIFIED: LazyLock<Mutex<BTreeSet<(PathBuf, String)>>> = LazyLock::new(Mutex::default);
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (snapshot.shard_path(shard), shard.blake3.clone());
    if verified().contains(&key) {
        return Ok(());
    }
    snapshot.verified_shard(shard)?;
    verified().insert(key);
    Ok(())
}

#[cfg(test)]
mod tests;
