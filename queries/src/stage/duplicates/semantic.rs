//! Documents that mean the same: embeddings from `documents.metadata`, clusters of them, comparisons cluster by cluster.
//!
//! Embeddings are written to files, one for each shard; centres are learned from those of a sample; then all are scattered by
//! their cluster and compared, one cluster after the other. In memory are the centres and what a thread compares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::record_batch::RecordBatch;
use dedup::semantic::{Config, KMeans, Refusal, Vector, compare, parse, unit};
use dedup::span::Pieces;
use dedup::{Spill, SpillWriter};
use serde_json::{Value, json};
use shard::manifest::Shard;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Gone, SHARE, Work};
use crate::job::LoadedJob;
use crate::stage::for_each;
use crate::stage::tokens::read_columns;
use crate::{Error, Result};

/// Embeddings that a thread holds before it writes them.
const BUFFER_BYTES_MAX: u64 = 8 << 20;

/// Refuses a method behind this one: what it keeps must stay, or nothing is known of what went for it.
pub(super) fn check_order(job: &LoadedJob, names: &[String]) -> Result<()> {
    match names.iter().position(|name| name == "semantic") {
        Some(index) if index + 1 < names.len() => {
            let next = &names[index + 1];
            let message = format!("`semantic` stands before `{next}`");
            let hint = "put it behind all that compare whole documents: what it keeps must stay";
            Err(job.error("dedup.methods", message, Some(hint.to_owned())))
        }
        _ => Ok(()),
    }
}

/// The plan in words.
pub(super) fn show(config: &Config) -> String {
    let clusters = match config.clusters {
        Some(clusters) => format!("{clusters} clusters"),
        None => {
            "clusters (one up to 4096 documents, then the square root of their number)".to_owned()
        }
    };
    format!(
        "  semantic: `metadata['{}']` in {clusters}, compared in each, a cosine of at least {}\n",
        config.embedding, config.threshold
    )
}

/// Finds the documents whose embedding is similar to that of a document that stays.
pub(super) fn find(
    work: &Work<'_>,
    config: &Config,
    removed: &BooleanBuffer,
    method: u8,
) -> Result<Vec<Gone>> {
    let shards = work.documents.shards_with_first_rows();
    let Some(length) = first_length(work, config)? else {
        if work.n_rows() == 0 {
            return Ok(Vec::new());
        }
        let key = &config.embedding;
        let message = format!(
            "none of {} documents has a list of numbers under `{key}` in its metadata",
            work.n_rows()
        );
        let hint = "name the key of the embeddings: `semantic = { embedding = \"NAME\" }`";
        return Err(work.run.job.error("dedup.semantic.embedding", message, Some(hint.to_owned())));
    };
    let search = Search { work, config, removed, length };
    let tally = Mutex::new(Tally::default());
    for_each(work.run, shards.len(), |index| {
        let own = search.write(index, shards[index])?;
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(own);
        Ok(())
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    search.tell(&tally);
    let centres = match config.n_clusters(tally.n) {
        0 | 1 => None,
        k => Some(search.learn(k, tally.n, shards.len())?),
    };
    let n_clusters = centres.as_ref().map_or(1, KMeans::n_clusters);
    search.scatter(centres.as_ref(), n_clusters, shards.len())?;
    // The centres are not needed any more.
    drop(centres);
    let counts = tally.to_json(length, n_clusters);
    work.embeddings.set(counts).expect("the method runs once");
    search.compare(n_clusters, shards.len(), method)
}

/// The length of the first embedding, by row, that can be compared; none where no document has one.
fn first_length(work: &Work<'_>, config: &Config) -> Result<Option<usize>> {
    let mut numbers = Vec::new();
    for (shard, _) in work.documents.shards_with_first_rows() {
        let mut length = None;
        read_columns(&work.documents, shard, &["metadata"], |batch| {
            if length.is_none() {
                let texts = embeddings(batch, &config.embedding);
                length = texts
                    .flatten()
                    .find_map(|text| parse(text, &mut numbers).is_ok().then_some(numbers.len()));
            }
            Ok(())
        })?;
        if length.is_some() {
            return Ok(length);
        }
    }
    Ok(None)
}

/// The value of `key` in the metadata of each row of a batch.
fn embeddings<'a>(
    batch: &'a RecordBatch,
    key: &'a str,
) -> impl Iterator<Item = Option<&'a str>> + 'a {
    let metadata = batch.column_by_name("metadata").expect("it was asked for").as_map();
    let keys = metadata.keys().as_string::<i32>();
    let values = metadata.values().as_string::<i32>();
    metadata.value_offsets().windows(2).enumerate().map(move |(row, ends)| {
        let entries = usize::try_from(ends[0]).ok()?..usize::try_from(ends[1]).ok()?;
        let mut entries = entries.filter(|_| metadata.is_valid(row));
        let entry = entries.find(|entry| keys.value(*entry) == key)?;
        values.is_valid(entry).then(|| values.value(entry))
    })
}

/// What was found of embeddings.
#[derive(Debug, Default)]
struct Tally {
    /// Documents that are compared.
    n: u64,
    /// Documents that have none.
    without: u64,
    /// Those whose embedding cannot be compared, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// The first of these: its row, its place and what is wrong.
    first: Option<(u64, String)>,
}

impl Tally {
    fn refuse(&mut self, row: u64, locator: &str, why: &Refusal) {
        *self.refused.entry(why.reason()).or_default() += 1;
        if self.first.is_none() {
            self.first = Some((row, format!("`{locator}`: {why}")));
        }
    }

    fn add(&mut self, other: Self) {
        self.n += other.n;
        self.without += other.without;
        for (reason, n) in other.refused {
            *self.refused.entry(reason).or_default() += n;
        }
        let both = [self.first.take(), other.first];
        self.first = both.into_iter().flatten().min_by_key(|(row, _)| *row);
    }

    fn to_json(&self, length: usize, n_clusters: usize) -> Value {
        json!({
            "length": length,
            "n_clusters": n_clusters,
            "n_compared": self.n,
            "n_without": self.without,
            "n_refused": self.refused,
        })
    }
}

struct Search<'a> {
    work: &'a Work<'a>,
    config: &'a Config,
    removed: &'a BooleanBuffer,
    /// Numbers of an embedding.
    length: usize,
}

impl Search<'_> {
    fn path(&self, kind: &str, index: usize) -> PathBuf {
        self.work.folder.join(format!("{kind}-{index:06}"))
    }

    fn thread_bytes(&self) -> u64 {
        self.work.run.limits.memory / SHARE / self.work.run.limits.threads.max(1) as u64
    }

    fn writer(&self, kind: &str, index: usize, n_partitions: usize) -> Result<SpillWriter> {
        let bytes = usize::try_from(self.thread_bytes().min(BUFFER_BYTES_MAX)).expect("8 MiB");
        let n_partitions = u32::try_from(n_partitions).expect("at most 65,536 clusters");
        Ok(SpillWriter::create(&self.path(kind, index), n_partitions, bytes)?)
    }

    /// Hands every embedding of a file to `visit`.
    fn read(
        &self,
        kind: &str,
        index: usize,
        mut visit: impl FnMut(&Vector<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut failed = None;
        Spill::open(&self.path(kind, index))?.read(0, |bytes| {
            let mut vectors = Vector::all(bytes, self.length);
            if failed.is_none() {
                failed = vectors.try_for_each(|vector| visit(&vector)).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Writes the embeddings of a shard's documents that are left.
    fn write(&self, index: usize, (shard, first): (&Shard, u64)) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut writer = self.writer("vectors", index, 1)?;
        let (mut row, mut numbers) = (first, Vec::new());
        read_columns(&self.work.documents, shard, &["id", "locator", "metadata"], |batch| {
            let column = |name: &str| batch.column_by_name(name).expect("it was asked for");
            let ids = column("id").as_fixed_size_binary();
            let locators = column("locator").as_string::<i32>();
            for (at, text) in embeddings(batch, &self.config.embedding).enumerate() {
                let rank = self.work.order.rank(u32::try_from(row).expect("below 2^32"));
                row += 1;
                if self.removed.value(rank as usize) {
                    continue;
                }
                let Some(text) = text else {
                    tally.without += 1;
                    continue;
                };
                let read = match parse(text, &mut numbers) {
                    Ok(()) if numbers.len() != self.length => {
                        Err(Refusal::Length(numbers.len(), self.length))
                    }
                    read => read,
                };
                match read {
                    Ok(()) => {
                        let hash = xxh3_64_with_seed(ids.value(at), self.config.seed);
                        writer.push(0, |buffer| Vector::write(rank, hash, &numbers, buffer))?;
                        tally.n += 1;
                    }
                    Err(why) => tally.refuse(row - 1, locators.value(at), &why),
                }
            }
            Ok(())
        })?;
        writer.finish()?;
        Ok(tally)
    }

    fn tell(&self, tally: &Tally) {
        let key = &self.config.embedding;
        if tally.without > 0 {
            let n = tally.without;
            self.work
                .run
                .talk
                .say(format!("{:>12}  {n} documents without `{key}` stay", "semantic"));
        }
        if let Some((_, first)) = &tally.first {
            let n: u64 = tally.refused.values().sum();
            let reasons: Vec<String> =
                tally.refused.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
            self.work.run.talk.say(format!(
                "{:>12}  {n} documents stay whose `{key}` cannot be compared ({}); first {first}",
                "semantic",
                reasons.join(", ")
            ));
        }
    }

    /// Learns the centres of `k` clusters of `n` documents.
    fn learn(&self, k: usize, n: u64, n_files: usize) -> Result<KMeans> {
        let run = self.work.run;
        let (needed, allowed) = (KMeans::bytes(k, self.length), run.limits.memory / SHARE);
        if needed > allowed {
            let message = format!(
                "{k} clusters of {} numbers need {needed} bytes, an eighth of the memory is {allowed}",
                self.length
            );
            let hint = "set fewer `clusters`, or give the job more `memory`".to_owned();
            return Err(run.job.error("dedup.semantic", message, Some(hint)));
        }
        let last = KMeans::sample(k, n);
        let beginning = KMeans::begin(k);
        for_each(run, n_files, |index| {
            let mut writer = self.writer("sample", index, 1)?;
            self.read("vectors", index, |vector| {
                if vector.hash <= last {
                    beginning.push(vector);
                    writer.push(0, |buffer| vector.copy(buffer))?;
                }
                Ok(())
            })?;
            writer.finish()?;
            Ok(())
        })?;
        let mut centres = beginning.finish(self.length);
        for _ in 0..self.config.iterations {
            for_each(run, n_files, |index| {
                let (mut numbers, mut of_one) = (Vec::new(), Vec::new());
                self.read("sample", index, |vector| {
                    direction(vector, &mut numbers, &mut of_one);
                    centres.add(&of_one);
                    Ok(())
                })
            })?;
            if !centres.advance() {
                break;
            }
        }
        (0..n_files).try_for_each(|index| self.remove("sample", index))?;
        Ok(centres)
    }

    /// Writes the embeddings of each file again, by cluster.
    fn scatter(&self, centres: Option<&KMeans>, n_clusters: usize, n_files: usize) -> Result<()> {
        for_each(self.work.run, n_files, |index| {
            let mut writer = self.writer("members", index, n_clusters)?;
            let (mut numbers, mut of_one) = (Vec::new(), Vec::new());
            self.read("vectors", index, |vector| {
                let cluster = centres.map_or(0, |centres| {
                    direction(vector, &mut numbers, &mut of_one);
                    centres.nearest(&of_one)
                });
                let cluster = u32::try_from(cluster).expect("at most 65,536 clusters");
                Ok(writer.push(cluster, |buffer| vector.copy(buffer))?)
            })?;
            writer.finish()?;
            self.remove("vectors", index)
        })
    }

    fn compare(&self, n_clusters: usize, n_files: usize, method: u8) -> Result<Vec<Gone>> {
        let paths: Vec<PathBuf> = (0..n_files).map(|index| self.path("members", index)).collect();
        let found = Mutex::new(Vec::new());
        for_each(self.work.run, n_clusters, |cluster| {
            let scratch = self.path("kept", cluster);
            let partition = u32::try_from(cluster).expect("at most 65,536 clusters");
            let pieces = Pieces { paths: &paths, partition };
            let mut own = Vec::new();
            let (bytes, threshold) = (self.thread_bytes(), self.config.threshold);
            compare(pieces, self.length, threshold, bytes, &scratch, |compared| {
                own.push(Gone {
                    rank: compared.rank,
                    kept_rank: compared.kept_rank,
                    cluster: compared.first_rank,
                    method,
                    similarity: Some(compared.similarity),
                });
            })?;
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            Ok(())
        })?;
        (0..n_files).try_for_each(|index| self.remove("members", index))?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn remove(&self, kind: &str, index: usize) -> Result<()> {
        let path = self.path(kind, index);
        std::fs::remove_file(&path)
            .map_err(|error| Error::from(shard::Error::io("remove", &path)(error)))
    }
}

/// The unit vector of an embedding.
fn direction(vector: &Vector<'_>, numbers: &mut Vec<f32>, of_one: &mut Vec<f32>) {
    numbers.clear();
    numbers.extend(vector.numbers());
    of_one.clear();
    unit(numbers, of_one);
}
