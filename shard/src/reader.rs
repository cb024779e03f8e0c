//! From a dataset of tokens to sequences, in an order that is a pure function of manifest, seed and index.
//!
//! Sample `s` is sequence `order(s mod n)` of epoch `s / n`. Shards hold documents in shuffled order, but the sequences of
//! one long document follow each other, and a batch of them is a poor sample of the corpus: so every epoch, the first
//! one too, permutes blocks of sequences, then the sequences inside a block; reads stay in the row groups that are
//! decoded already. Ranks take slices of each global batch
//! ([`rank_samples`]), so the world's size changes who reads a sample, never which samples make a step.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt32Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Snapshot};
use crate::manifest::{Manifest, RowGroup, Shard};
use crate::order::{Permutation, seed_from};
use crate::schema::{DatasetKind, ID_BYTES};
use crate::{Error, Result, packing};

/// Tokens of decoded row groups that a reader keeps: 256 MiB, four of the largest groups a writer makes.
const CACHE_TOKENS_MAX: usize = 64 << 20;
/// Tokens per block of a permuted epoch: the largest row group, so that a block touches two of them.
const BLOCK_TOKENS: u64 = 16 << 20;
/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

/// What a run wants to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderConfig {
    /// `train`, or another split of the dataset.
    pub split: String,
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Decides the order of every epoch.
    pub seed: u64,
    /// Whether each shard's hash is checked, once per process.
    pub verify: bool,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
/// Opening reads the manifest only. Memory is bounded: decoded row groups are kept up to 256 MiB, least recently
/// used out first.
#[derive(Debug)]
pub struct SequenceReader {
    snapshot: Snapshot,
    config: ReaderConfig,
    seq_len: u64,
    n_sequences: u64,
    /// Ids are below this; without a tokenizer in the manifest, any id is right.
    n_vocabulary: u32,
    shards: Vec<SplitShard>,
    groups: Vec<Group>,
    /// Most recently used last.
    cache: VecDeque<(usize, Arc<Decoded>)>,
    epoch: Option<Epoch>,
}

#[derive(Debug)]
struct SplitShard {
    shard: Shard,
    /// The footer, once it was read and agreed with the manifest.
    metadata: Option<ArrowReaderMetadata>,
}

#[derive(Debug)]
struct Group {
    /// Index into the split's shards.
    shard: usize,
    /// Index of the row group in the shard.
    index: usize,
    /// Its first row in the shard.
    first_row: u64,
    entry: RowGroup,
}

#[derive(Debug)]
struct Decoded {
    tokens: Vec<u32>,
    /// Where each row begins in `tokens`, and the end.
    offsets: Vec<usize>,
    ids: Vec<[u8; ID_BYTES as usize]>,
}

impl SequenceReader {
    /// Opens a version of the dataset in the folder `dataset`, the newest without one.
    ///
    /// # Errors
    /// When there is no such dataset, it holds no tokens, or its split has no sequence of that length.
    pub fn open(dataset: &Path, version: Option<u64>, config: ReaderConfig) -> Result<Self> {
        let snapshot = Dataset::at(dataset).open(version)?;
        let manifest = &snapshot.manifest;
        if manifest.kind != DatasetKind::Tokens {
            return Err(Error::Missing {
                what: format!("tokens in `{}`: it holds {}", dataset.display(), manifest.kind),
                hint: "tokenize it first, and give the folder of the tokens".to_owned(),
            });
        }
        let seq_len = check_length(manifest, &config, dataset)?;
        let n_tokens = manifest.n_tokens(&config.split);
        let (shards, groups) = split_of(&snapshot, &config.split)?;
        Ok(Self {
            seq_len,
            n_sequences: packing::n_stream(n_tokens, seq_len),
            n_vocabulary: manifest.tokenizer.as_ref().map_or(u32::MAX, |info| info.n_vocabulary),
            shards,
            groups,
            cache: VecDeque::new(),
            epoch: None,
            snapshot,
            config,
        })
    }

    /// Sequences per epoch: `(n_tokens - 1) / seq_len`.
    #[must_use]
    pub fn n_sequences(&self) -> u64 {
        self.n_sequences
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
    /// # Errors
    /// When a shard cannot be read or is not what the manifest says.
    ///
    /// # Panics
    /// When `out` has another length.
    pub fn read(&mut self, sample: u64, out: &mut [u32]) -> Result<()> {
        assert_eq!(out.len() as u64, self.seq_len + 1, "a buffer for one sequence");
        let range = self.tokens_of(sample);
        let mut filled = 0;
        for index in self.groups_of(&range) {
            let first = self.groups[index].entry.first_token;
            let decoded = self.group(index)?;
            let part = part_of(&range, first, decoded.tokens.len());
            let part = &decoded.tokens[part];
            out[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        assert_eq!(filled, out.len(), "row groups cover every token of the split");
        Ok(())
    }

    /// Returns the rows that the `seq_len + 1` tokens of `sample` come from, in order: the lineage of a step.
    ///
    /// # Errors
    /// As [`SequenceReader::read`].
    pub fn documents(&mut self, sample: u64) -> Result<Vec<SequencePart>> {
        let range = self.tokens_of(sample);
        let mut parts = Vec::new();
        for index in self.groups_of(&range) {
            let decoded = self.group(index)?;
            let Group { shard, first_row, entry, .. } = &self.groups[index];
            let part = part_of(&range, entry.first_token, decoded.tokens.len());
            let first = decoded.offsets.partition_point(|offset| *offset <= part.start) - 1;
            for row in first..decoded.ids.len() {
                let (start, end) = (decoded.offsets[row], decoded.offsets[row + 1]);
                if start >= part.end {
                    break;
                }
                let from = start.max(part.start);
                let n_tokens = end.min(part.end).saturating_sub(from);
                if n_tokens == 0 {
                    continue;
                }
                let narrow = |n: usize| u32::try_from(n).expect("a row has at most 2^31 tokens");
                parts.push(SequencePart {
                    document_id: decoded.ids[row],
                    shard: self.shards[*shard].shard.path.clone(),
                    row: first_row + row as u64,
                    first_token_in_document: narrow(from - start),
                    n_tokens: narrow(n_tokens),
                });
            }
        }
        Ok(parts)
    }

    /// Returns which sequence of the split a global sample is.
    #[must_use]
    pub fn sequence_of(&mut self, sample: u64) -> u64 {
        let (epoch, position) = (sample / self.n_sequences, sample % self.n_sequences);
        if self.epoch.as_ref().is_none_or(|known| known.index != epoch) {
            let block = (BLOCK_TOKENS / self.seq_len).max(1);
            self.epoch = Some(Epoch::new(self.n_sequences, block, self.config.seed, epoch));
        }
        self.epoch.as_ref().expect("set above").sequence(position)
    }

    fn tokens_of(&mut self, sample: u64) -> Range<u64> {
        packing::stream(self.sequence_of(sample), self.seq_len)
    }

    /// Indices of the row groups that hold the tokens of `range`.
    fn groups_of(&self, range: &Range<u64>) -> Range<usize> {
        let after =
            |token: u64| self.groups.partition_point(|group| group.entry.first_token < token);
        after(range.start + 1) - 1..after(range.end)
    }

    fn group(&mut self, index: usize) -> Result<Arc<Decoded>> {
        if let Some((last, decoded)) = self.cache.back()
            && *last == index
        {
            return Ok(Arc::clone(decoded));
        }
        let decoded = match self.cache.iter().position(|(cached, _)| *cached == index) {
            Some(at) => self.cache.remove(at).expect("its position").1,
            None => {
                let coming = usize::try_from(self.groups[index].entry.n_tokens);
                self.make_room(coming.expect("the address space holds a row group"));
                Arc::new(self.decode(index)?)
            }
        };
        self.cache.push_back((index, Arc::clone(&decoded)));
        Ok(decoded)
    }

    fn make_room(&mut self, coming: usize) {
        let mut kept: usize = self.cache.iter().map(|(_, decoded)| decoded.tokens.len()).sum();
        while kept + coming > CACHE_TOKENS_MAX {
            let Some((_, decoded)) = self.cache.pop_front() else { break };
            kept -= decoded.tokens.len();
        }
    }

    fn decode(&mut self, index: usize) -> Result<Decoded> {
        let metadata = self.metadata(self.groups[index].shard)?;
        let group = &self.groups[index];
        let shard = &self.shards[group.shard].shard;
        let path = self.snapshot.shard_path(shard);
        let decoded = decode(&path, metadata, group)?;
        let corrupt = |why: String| Error::Corrupt {
            what: format!("row group {} of shard `{}`", group.index, path.display()),
            why,
            hint: REBUILD.to_owned(),
        };
        let (n_tokens, rows) = (decoded.tokens.len() as u64, decoded.ids.len() as u64);
        if n_tokens != group.entry.n_tokens || rows != group.entry.rows {
            return Err(corrupt(format!(
                "it has {n_tokens} tokens in {rows} rows, manifest says {} in {}",
                group.entry.n_tokens, group.entry.rows
            )));
        }
        let largest = decoded.tokens.iter().copied().max().unwrap_or(0);
        if largest >= self.n_vocabulary && !decoded.tokens.is_empty() {
            let n = self.n_vocabulary;
            return Err(corrupt(format!("it has token {largest}, the tokenizer has {n} tokens")));
        }
        Ok(decoded)
    }

    /// Returns the footer of a shard; checks the shard when it is used first.
    fn metadata(&mut self, shard: usize) -> Result<ArrowReaderMetadata> {
        let SplitShard { shard, metadata } = &mut self.shards[shard];
        if let Some(metadata) = metadata {
            return Ok(metadata.clone());
        }
        if self.config.verify {
            verify_once(&self.snapshot, shard)?;
        }
        let path = self.snapshot.shard_path(shard);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let read =
            ArrowReaderMetadata::load(&file, options).map_err(Error::arrow("read", &path))?;
        check_footer(&read, shard, &path)?;
        *metadata = Some(read.clone());
        Ok(read)
    }
}

const REBUILD: &str = "remove the shard and run the job again: complete shards are kept";

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
    if manifest.split(&config.split).next().is_none() {
        let names: BTreeSet<_> = manifest.shards.iter().map(|shard| shard.split.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        return Err(refuse(
            "it has no shards".to_owned(),
            format!("the dataset has the splits `{}`", names.join("`, `")),
        ));
    }
    let n_tokens = manifest.n_tokens(&config.split);
    if n_tokens <= seq_len {
        return Err(refuse(
            format!("it has {n_tokens} tokens, a sequence needs {}", seq_len + 1),
            "lower `seq_len`, or add documents to the split".to_owned(),
        ));
    }
    Ok(seq_len)
}

/// Returns the shards of `split` and their row groups in reading order.
fn split_of(snapshot: &Snapshot, split: &str) -> Result<(Vec<SplitShard>, Vec<Group>)> {
    let mut shards = Vec::new();
    let mut groups = Vec::new();
    let mut next_token = 0;
    for shard in snapshot.manifest.split(split) {
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
            // A group of no tokens is in no sequence.
            if entry.n_tokens > 0 {
                let group = Group { shard: shards.len(), index, first_row, entry: entry.clone() };
                groups.push(group);
            }
            next_token += entry.n_tokens;
            first_row += entry.rows;
        }
        shards.push(SplitShard { shard: shard.clone(), metadata: None });
    }
    Ok((shards, groups))
}

/// The part of a group of `n` tokens from `first` on that lies in `range`.
fn part_of(range: &Range<u64>, first: u64, n: usize) -> Range<usize> {
    let within =
        |token: u64| usize::try_from(token.saturating_sub(first)).map_or(n, |offset| offset.min(n));
    within(range.start)..within(range.end)
}

/// Checks size and hash of a shard unless this process has done so.
fn verify_once(snapshot: &Snapshot, shard: &Shard) -> Result<()> {
    static VERIFIED: LazyLock<Mutex<BTreeSet<(PathBuf, String)>>> = LazyLock::new(Mutex::default);
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (snapshot.shard_path(shard), shard.blake3.clone());
    if verified().contains(&key) {
        return Ok(());
    }
    snapshot.verify(shard)?;
    verified().insert(key);
    Ok(())
}

fn check_footer(metadata: &ArrowReaderMetadata, shard: &Shard, path: &Path) -> Result<()> {
    let corrupt = |why: String| Error::Corrupt {
        what: format!("shard `{}`", path.display()),
        why,
        hint: REBUILD.to_owned(),
    };
    let found = metadata.metadata().row_groups();
    if found.len() != shard.row_groups.len() {
        let (found, wanted) = (found.len(), shard.row_groups.len());
        return Err(corrupt(format!("it has {found} row groups, manifest says {wanted}")));
    }
    for (index, (found, entry)) in found.iter().zip(&shard.row_groups).enumerate() {
        let (rows, wanted) = (found.num_rows(), entry.rows);
        if u64::try_from(rows) != Ok(wanted) {
            return Err(corrupt(format!(
                "row group {index} has {rows} rows, manifest says {wanted}"
            )));
        }
    }
    Ok(())
}

fn decode(path: &Path, metadata: ArrowReaderMetadata, group: &Group) -> Result<Decoded> {
    let error = |error| Error::arrow("read", path)(error);
    let file = File::open(path).map_err(Error::io("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let columns = ["document_id", "tokens"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let batches = builder
        .with_projection(mask)
        .with_row_groups(vec![group.index])
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(Error::arrow("read", path))?;
    let capacity = |n: u64| usize::try_from(n).expect("the address space holds a row group");
    let rows = capacity(group.entry.rows);
    let mut decoded = Decoded {
        tokens: Vec::with_capacity(capacity(group.entry.n_tokens)),
        offsets: Vec::with_capacity(rows + 1),
        ids: Vec::with_capacity(rows),
    };
    decoded.offsets.push(0);
    for batch in batches {
        let batch = batch.map_err(error)?;
        let wrong = || Error::Corrupt {
            what: format!("shard `{}`", path.display()),
            why: format!("its columns are {}, not those of tokens", batch.schema()),
            hint: REBUILD.to_owned(),
        };
        let ids = batch.column_by_name("document_id").ok_or_else(wrong)?;
        let ids = ids.as_fixed_size_binary_opt().ok_or_else(wrong)?;
        for id in ids.iter() {
            let id = id.and_then(|id| id.try_into().ok());
            decoded.ids.push(id.ok_or_else(wrong)?);
        }
        let lists = batch.column_by_name("tokens").ok_or_else(wrong)?;
        let lists = lists.as_list_opt::<i32>().ok_or_else(wrong)?;
        let values = lists.values().as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        if lists.null_count() > 0 || values.null_count() > 0 {
            return Err(wrong());
        }
        let offsets = lists.value_offsets();
        let at = |offset: i32| usize::try_from(offset).expect("offsets of a list are not negative");
        let (start, end) = (at(offsets[0]), at(offsets[offsets.len() - 1]));
        let base = decoded.tokens.len();
        decoded.tokens.extend_from_slice(&values.values()[start..end]);
        decoded.offsets.extend(offsets[1..].iter().map(|offset| base + at(*offset) - start));
    }
    Ok(decoded)
}

/// The order of an epoch: blocks permuted, then the sequences of each block.
#[derive(Debug)]
struct Epoch {
    index: u64,
    n: u64,
    block: u64,
    seed: u64,
    blocks: Permutation,
    /// Where the last block, which may be shorter, went.
    short: u64,
    /// Sequences in the last block.
    rest: u64,
}

impl Epoch {
    fn new(n: u64, block: u64, seed: u64, index: u64) -> Self {
        let seed = seed_from(&[seed, index]);
        let n_blocks = n.div_ceil(block);
        let blocks = Permutation::new(n_blocks, seed);
        // `blocks` maps a place in the epoch to the block that is read there.
        let short = blocks.invert(n_blocks - 1);
        Self { index, n, block, seed, blocks, short, rest: n - (n_blocks - 1) * block }
    }

    fn sequence(&self, position: u64) -> u64 {
        let before_short = self.short * self.block;
        let (place, within) = if position < before_short {
            (position / self.block, position % self.block)
        } else if position < before_short + self.rest {
            (self.short, position - before_short)
        } else {
            let after = position - self.rest;
            (after / self.block + 1, after % self.block)
        };
        let block = self.blocks.apply(place);
        let first = block * self.block;
        let n = self.block.min(self.n - first);
        first + Permutation::new(n, seed_from(&[self.seed, block])).apply(within)
    }
}

#[cfg(test)]
mod tests;
