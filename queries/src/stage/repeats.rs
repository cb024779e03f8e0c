//! From `documents` without `duplicates` to `repeats`: spans of text that stood in the corpus before.
//!
//! Three passes of units. Each shard of documents is cut into pieces, spilled by their keys; each partition of keys
//! gives its copies, spilled by the shard that they stand in; each shard's copies are sorted, rounded to whole characters and
//! written beside it: the shards of `repeats` are those of `documents`, one for one. Every method looks at the texts as they are in
//! `documents`, so a span can be compared with the one it repeats.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanBuilder, FixedSizeBinaryBuilder, StringViewBuilder, UInt64Builder,
};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use dedup::span::{Pieces, cut};
use dedup::{Finds, Repeat, SpanMethod, Spill, SpillWriter};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Parent, Shard};
use shard::schema::{DatasetKind, ID_BYTES};
use shard::tokenizer::{Tokenizer, TokenizerSpec};
use shard::writer::ShardWriter;
use shard::{Dataset, store};

use super::tokens::{Id, Reasons, id, open_columns, read_columns, removed};
use super::unit::{Output, Staging};
use super::{Run, commit, fingerprint, finished, parent};
use crate::Result;
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;

/// Share of the job's memory for the buffers of pieces of one thread, for its table of first places, and for the copies that it
/// sorts.
const THREAD_SHARE: u64 = 16;
/// Buffers of pieces are not larger than this: more saves nothing.
const BUFFER_BYTES_MAX: u64 = 16 << 20;
/// Text for each partition of keys, about: its table of first places then mostly fits into a processor's cache.
const PARTITION_BYTES: u64 = 256 << 10;
const PARTITIONS: std::ops::RangeInclusive<u64> = 16..=4096;
/// Bytes of text that a byte of a shard of documents gives, about.
const TEXT_BYTES_PER_BYTE: u64 = 3;
/// Rows that are written at a time.
const BATCH_ROWS: usize = 1024;

pub(crate) mod work;
use self::work::{Searching, Spilling, Writing};

/// The methods of a job that find spans, ready to run.
#[derive(Debug)]
pub struct Methods {
    methods: Vec<Method>,
    min_chars_left: usize,
    report_only: bool,
}

#[derive(Clone, Debug)]
struct Method {
    name: &'static str,
    finder: Arc<dyn SpanMethod>,
}

impl Methods {
    /// Reads the methods of a job; none when it names none that finds spans.
    ///
    /// # Errors
    /// When a method's settings cannot work.
    pub fn resolve(job: &LoadedJob) -> Result<Option<Self>> {
        let Some(dedup) = &job.job.dedup else { return Ok(None) };
        let mut methods = Vec::new();
        for kind in dedup.methods.iter().filter_map(|name| dedup::kind(name)) {
            if let Finds::Spans(build) = kind.finds {
                let table = job.method_config(kind.name)?.cloned().unwrap_or_default();
                let finder = build(&table, &|path| tokenizer(job, path))?;
                methods.push(Method { name: kind.name, finder: finder.into() });
            }
        }
        let (min_chars_left, report_only) = (dedup.min_chars_left, dedup.report_only);
        Ok((!methods.is_empty()).then_some(Self { methods, min_chars_left, report_only }))
    }

    /// Whether texts stay as they are.
    #[must_use]
    pub fn is_report_only(&self) -> bool {
        self.report_only
    }

    /// The plan in words.
    #[must_use]
    pub fn show(&self) -> String {
        let names: Vec<&str> = self.methods.iter().map(|method| method.name).collect();
        let then = if self.report_only { "report them" } else { "cut them before encoding" };
        format!("repeats: spans found by {}; pieces → copies → {then}\n", names.join(", "))
    }

    fn config(&self) -> Value {
        let methods = self.methods.iter();
        let methods: Vec<Value> =
            methods.map(|m| json!({ "method": m.name, "config": m.finder.config() })).collect();
        json!({
            "methods": methods,
            "min_chars_left": self.min_chars_left,
            "report_only": self.report_only,
        })
    }

    /// Runs the stage, or finds it done, and returns `repeats`.
    ///
    /// # Errors
    /// When a shard cannot be read or the file system refuses.
    pub async fn execute(
        &self,
        run: &Run,
        documents: &Snapshot,
        duplicates: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Repeats);
        let config = self.config();
        let parents: Vec<_> =
            [Some(documents), duplicates].into_iter().flatten().map(parent).collect();
        let fingerprint = fingerprint("repeats", &config, &parents, &Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            run.talk.say(format!("{:>12}  version {} is up to date", "repeats", newest.version));
            return Ok(newest);
        }
        let n_rows = documents.manifest.n_rows();
        if n_rows >= u64::from(u32::MAX) {
            let message =
                format!("{n_rows} documents, at most {} are compared in one run", u32::MAX);
            let hint = "cut the sources into several jobs".to_owned();
            return Err(run.job.error("dedup", message, Some(hint)));
        }
        let search = Arc::new(Search::new(self, run, documents, duplicates)?);
        let staging = |stage| Staging::new(&dataset, stage, &fingerprint);
        let (pieces, found, written) = (staging("pieces"), staging("found"), staging("repeats"));
        let spilled = search.spill(run, &pieces).await?;
        search.state(run, &spilled)?;
        let copies = search.find(run, &found, spilled.clone()).await?;
        let shards = search.write(run, &written, &dataset, spilled, copies).await?;
        let mut manifest = Manifest::new(
            DatasetKind::Repeats,
            &DatasetKind::Repeats.schema(),
            fingerprint,
            config,
        );
        manifest.parents = parents;
        manifest.shards = shards;
        let n = manifest.n_rows();
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        let snapshot = commit(&dataset, manifest)?;
        for staging in [pieces, found, written] {
            staging.remove()?;
        }
        Ok(snapshot)
    }
}

/// The tokenizer at `path`, or that of the job, for a method that counts tokens.
fn tokenizer(job: &LoadedJob, path: Option<&str>) -> dedup::Result<Arc<Tokenizer>> {
    let refuse = |message: String| dedup::Error::Config {
        method: "substring",
        message,
        hint: "name a file: `substring = { min_tokens = 50, tokenizer = \"tokenizer.json\" }`"
            .to_owned(),
    };
    let shard = job.job.shard.as_ref().map(|shard| shard.tokenizer.as_str());
    let Some(spec) = path.or(shard) else {
        let message = "`min_tokens` needs a tokenizer, and the job has no `[shard]`";
        return Err(refuse(message.to_owned()));
    };
    match TokenizerSpec::parse(spec)? {
        TokenizerSpec::Path(path) => Ok(Arc::new(Tokenizer::load(&job.resolve(path))?)),
        TokenizerSpec::Train { .. } => Err(refuse(format!(
            "`min_tokens` needs a tokenizer, and `{spec}` is trained when spans have been cut"
        ))),
    }
}

/// What the units of all passes share.
#[derive(Debug)]
struct Search {
    methods: Vec<Method>,
    min_chars_left: usize,
    report_only: bool,
    documents: Snapshot,
    removed: Reasons,
    /// Row of the first document of each shard.
    first_rows: Vec<u32>,
    n_partitions: u32,
    thread_bytes: u64,
    config: Value,
    parents: Vec<Parent>,
}

impl Search {
    fn new(
        methods: &Methods,
        run: &Run,
        documents: &Snapshot,
        duplicates: Option<&Snapshot>,
    ) -> Result<Self> {
        let shards = &documents.manifest.shards;
        let mut first_row = 0;
        let first_rows = shards.iter().map(|shard| {
            let first = u32::try_from(first_row).expect("rows are counted in 32 bits");
            first_row += shard.rows;
            first
        });
        let first_rows = first_rows.collect();
        let text_bytes = shards.iter().map(|shard| shard.bytes).sum::<u64>() * TEXT_BYTES_PER_BYTE;
        let n_partitions = (text_bytes / PARTITION_BYTES)
            .next_power_of_two()
            .clamp(*PARTITIONS.start(), *PARTITIONS.end());
        Ok(Self {
            methods: methods.methods.clone(),
            min_chars_left: methods.min_chars_left,
            report_only: methods.report_only,
            documents: documents.clone(),
            removed: removed(duplicates, None)?,
            first_rows,
            n_partitions: u32::try_from(n_partitions).expect("at most 4096"),
            thread_bytes: run.limits.memory / THREAD_SHARE,
            config: methods.config(),
            parents: [Some(documents), duplicates].into_iter().flatten().map(parent).collect(),
        })
    }

    fn shards(&self) -> impl Iterator<Item = (String, Shard)> {
        let shards = self.documents.manifest.shards.iter();
        shards.map(|shard| (format!("{}-{}", shard.blake3, self.n_partitions), shard.clone()))
    }

    fn buffer_bytes(&self) -> usize {
        let bytes = (self.thread_bytes / self.methods.len() as u64).min(BUFFER_BYTES_MAX);
        usize::try_from(bytes).expect("at most 16 MiB")
    }

    /// The first pass: pieces by key, one file for each method and shard.
    async fn spill(self: &Arc<Self>, run: &Run, staging: &Staging) -> Result<Vec<Spilled>> {
        let rows: Vec<u64> =
            self.documents.manifest.shards.iter().map(|shard| shard.rows).collect();
        let task = run.talk.task("pieces", rows.iter().sum(), Progress::Count("documents"));
        let units = self.shards().collect();
        let work = Spilling { search: Arc::clone(self), folder: staging.folder().clone() };
        let spilled = staging.run(run, work, units, |index, _| task.advance(rows[index])).await?;
        let bytes: u64 = spilled.iter().flat_map(|s: &Spilled| &s.pieces).map(|(_, b)| b).sum();
        task.finish(format!("{bytes} bytes on disk"));
        Ok(spilled)
    }

    fn spill_shard(&self, index: usize, shard: &Shard, folder: &Path) -> Result<Spilled> {
        let ids_path = folder.join(format!("ids-{index:06}"));
        // Another machine may do the same at the same time: a file is whole when it has its name.
        let ids_aside = store::aside(folder);
        let ids_file = File::create(&ids_aside).map_err(shard::Error::io("create", &ids_aside))?;
        let mut ids = BufWriter::new(ids_file);
        let paths: Vec<PathBuf> = self
            .methods
            .iter()
            .map(|method| folder.join(format!("pieces-{}-{index:06}", method.name)))
            .collect();
        let asides: Vec<PathBuf> = paths.iter().map(|_| store::aside(folder)).collect();
        let mut writers = asides
            .iter()
            .map(|path| SpillWriter::create(path, self.n_partitions, self.buffer_bytes()))
            .collect::<dedup::Result<Vec<_>>>()?;
        let path = self.documents.local_shard(shard)?;
        let mut row = self.first_rows[index];
        for batch in open_columns(&path, &["id", "text"])? {
            let batch = batch.map_err(shard::Error::arrow("read", &path))?;
            let batch_ids = batch.column(0).as_fixed_size_binary();
            let texts = batch.column(1).as_string::<i32>();
            for at in 0..batch.num_rows() {
                let id = id(batch_ids.value(at));
                ids.write_all(&id).map_err(shard::Error::io("write", &ids_path))?;
                if !self.removed.contains_key(&id) {
                    for (method, writer) in self.methods.iter().zip(&mut writers) {
                        method.finder.spill(row, texts.value(at), writer)?;
                    }
                }
                row += 1;
            }
        }
        ids.flush().map_err(shard::Error::io("write", &ids_path))?;
        let mut pieces = Vec::new();
        store::publish(&ids_aside, &ids_path)?;
        for ((path, aside), writer) in paths.into_iter().zip(asides).zip(writers) {
            let bytes = writer.finish()?;
            store::publish(&aside, &path)?;
            pieces.push((path, bytes));
        }
        Ok(Spilled { ids: (ids_path, shard.rows * ID_BYTES as u64), pieces })
    }

    /// Tells what the methods have to say of their pieces.
    fn state(&self, run: &Run, spilled: &[Spilled]) -> Result<()> {
        for (index, method) in self.methods.iter().enumerate() {
            let mut bytes = 0;
            for shard in spilled {
                bytes += Spill::open(&shard.pieces[index].0)?.record_bytes();
            }
            if let Some(stated) = method.finder.stated(bytes) {
                run.talk.say(format!("{:>12}  {stated}", method.name));
            }
        }
        Ok(())
    }

    /// The second pass: the copies of each method and partition, spilled by the shard that they stand in.
    async fn find(
        self: &Arc<Self>,
        run: &Run,
        staging: &Staging,
        spilled: Vec<Spilled>,
    ) -> Result<Vec<Found>> {
        let pieces: Vec<Vec<PathBuf>> = (0..self.methods.len())
            .map(|method| spilled.iter().map(|shard| shard.pieces[method].0.clone()).collect())
            .collect();
        let units: Vec<(String, (usize, u32))> = (0..self.methods.len())
            .flat_map(|method| (0..self.n_partitions).map(move |partition| (method, partition)))
            .map(|unit| (format!("{}-{}-{}", unit.0, unit.1, self.n_partitions), unit))
            .collect();
        let task = run.talk.task("repeats", units.len() as u64, Progress::Count("partitions"));
        let (search, folder) = (Arc::clone(self), staging.folder().clone());
        let work = Searching { search, folder, pieces };
        let found = staging.run(run, work, units, |_, _| task.advance(1)).await?;
        task.finish(format!("in {} partitions of keys", self.n_partitions));
        Ok(found)
    }

    fn find_in(&self, method: usize, pieces: Pieces<'_>, path: PathBuf) -> Result<Found> {
        let n_shards = u32::try_from(self.first_rows.len()).expect("fewer than rows");
        let aside = store::aside(path.parent().expect("it is in a folder"));
        let mut writer = SpillWriter::create(&aside, n_shards.max(1), self.buffer_bytes())?;
        let mut emit = |repeat: Repeat| {
            let shard = self.first_rows.partition_point(|first| *first <= repeat.row) - 1;
            let shard = u32::try_from(shard).expect("fewer than rows");
            writer.push(shard, |buffer| repeat.write(buffer))
        };
        self.methods[method].finder.find(pieces, self.thread_bytes, &mut emit)?;
        let bytes = writer.finish()?;
        store::publish(&aside, &path)?;
        Ok(Found { method, path, bytes })
    }

    /// The third pass: a shard of repeats for each shard of documents.
    async fn write(
        self: &Arc<Self>,
        run: &Run,
        staging: &Staging,
        dataset: &Dataset,
        spilled: Vec<Spilled>,
        found: Vec<Found>,
    ) -> Result<Vec<Shard>> {
        let ids: Vec<PathBuf> = spilled.into_iter().map(|s| s.ids.0).collect();
        let units: Vec<_> = self.shards().collect();
        let task = run.talk.task("spans", units.len() as u64, Progress::Count("shards"));
        let work = Writing { search: Arc::clone(self), dataset: dataset.clone(), ids, found };
        let written = staging.run(run, work, units, |_, _| task.advance(1)).await?;
        let shards: Vec<Shard> = written.into_iter().map(|w: Written| w.shard).collect();
        let n: u64 = shards.iter().map(|shard| shard.rows).sum();
        task.finish(format!("{n} spans stood before"));
        Ok(shards)
    }

    fn write_shard(
        &self,
        index: usize,
        shard: &Shard,
        dataset: &Dataset,
        ids: &Ids<'_>,
        found: &[Found],
    ) -> Result<Shard> {
        let schema = DatasetKind::Repeats.schema();
        let mut writer =
            ShardWriter::create(dataset, &format!("unit-{index:06}"), "train", &schema)?;
        let partition = u32::try_from(index).expect("fewer than rows");
        let mut bytes = 0;
        for found in found {
            bytes += Spill::open(&found.path)?.bytes(partition)?;
        }
        // As many rows at a time as their copies fit into memory.
        let n_ranges = bytes.div_ceil(self.thread_bytes).max(1);
        let range_rows = u32::try_from(shard.rows.div_ceil(n_ranges).max(1)).expect("32 bits");
        let path = self.documents.local_shard(shard)?;
        let mut row = self.first_rows[index];
        let mut range_end = row;
        let mut copies = Vec::new().into_iter().peekable();
        let mut out = Vec::new();
        for batch in open_columns(&path, &["id", "text"])? {
            let batch = batch.map_err(shard::Error::arrow("read", &path))?;
            let batch_ids = batch.column(0).as_fixed_size_binary();
            let texts = batch.column(1).as_string::<i32>();
            for at in 0..batch.num_rows() {
                if row == range_end {
                    range_end = row.saturating_add(range_rows);
                    copies = self.load(partition, row..range_end, found)?.into_iter().peekable();
                }
                let mut spans = Vec::new();
                while let Some((repeat, method)) = copies.next_if(|(repeat, _)| repeat.row == row) {
                    spans.extend(whole_characters(texts.value(at), repeat).map(|r| (r, method)));
                }
                let dropped_by = self.dropped_by(texts.value(at), &spans);
                let id = id(batch_ids.value(at));
                out.extend(spans.into_iter().map(|(repeat, method)| Row {
                    id,
                    repeat,
                    method: self.methods[method].name,
                    drops_document: Some(method) == dropped_by,
                }));
                if out.len() >= BATCH_ROWS {
                    writer.write(&batch_of(&out, ids)?)?;
                    out.clear();
                }
                row += 1;
            }
        }
        writer.write(&batch_of(&out, ids)?)?;
        Ok(writer.finish()?)
    }

    /// The copies in some rows of a shard, by (row, place), with the method that found them.
    fn load(
        &self,
        partition: u32,
        rows: std::ops::Range<u32>,
        found: &[Found],
    ) -> Result<Vec<(Repeat, usize)>> {
        let mut copies = Vec::new();
        for (method, kind) in self.methods.iter().enumerate() {
            let mut repeats = Vec::new();
            for found in found.iter().filter(|found| found.method == method) {
                Spill::open(&found.path)?.read(partition, |bytes| {
                    let all = bytes.as_chunks().0.iter().map(Repeat::read);
                    repeats.extend(all.filter(|repeat| rows.contains(&repeat.row)));
                    Ok(())
                })?;
            }
            repeats.sort_unstable();
            kind.finder.merge(&mut repeats);
            copies.extend(repeats.into_iter().map(|repeat| (repeat, method)));
        }
        copies.sort_unstable();
        Ok(copies)
    }

    /// The first method whose spans, with those of the methods before it, leave too little of a document.
    fn dropped_by(&self, text: &str, spans: &[(Repeat, usize)]) -> Option<usize> {
        if self.report_only || spans.is_empty() {
            return None;
        }
        (0..self.methods.len()).find(|last| {
            let is_new = spans.iter().any(|(_, method)| method == last);
            let cuts = spans.iter().filter(|(_, method)| method <= last);
            let cuts: Vec<(u32, u32)> = cuts.map(|(span, _)| (span.start, span.end)).collect();
            is_new && is_too_little(&cut(text, &cuts), self.min_chars_left)
        })
    }
}

/// Whether the rest of a document is so short that it goes as a whole; `min_chars_left` is that of the job.
pub(super) fn is_too_little(left: &str, min_chars_left: usize) -> bool {
    let n_least = min_chars_left.max(1);
    left.trim().chars().take(n_least).count() < n_least
}

/// A copy without the bytes of characters that it does not hold whole; none when nothing is left.
fn whole_characters(text: &str, repeat: Repeat) -> Option<Repeat> {
    let position = |at: usize| u32::try_from(at).expect("it was 32 bits before");
    let start = position(text.ceil_char_boundary(repeat.start as usize));
    let end = position(text.floor_char_boundary(repeat.end as usize));
    let kept = repeat.kept.map(|(row, kept_start)| (row, kept_start + (start - repeat.start)));
    (start < end).then_some(Repeat { start, end, kept, ..repeat })
}

/// A row of `repeats`.
#[derive(Debug)]
struct Row {
    id: Id,
    repeat: Repeat,
    method: &'static str,
    drops_document: bool,
}

fn batch_of(rows: &[Row], ids: &Ids<'_>) -> Result<RecordBatch> {
    let kept_ids = ids.read(rows.iter().filter_map(|row| row.repeat.kept).map(|kept| kept.0))?;
    let mut id = FixedSizeBinaryBuilder::with_capacity(rows.len(), ID_BYTES);
    let mut kept_id = FixedSizeBinaryBuilder::with_capacity(rows.len(), ID_BYTES);
    let (mut start, mut end) = (UInt64Builder::new(), UInt64Builder::new());
    let (mut kept_start, mut method) = (UInt64Builder::new(), StringViewBuilder::new());
    let mut drops_document = BooleanBuilder::new();
    for row in rows {
        id.append_value(row.id)?;
        start.append_value(u64::from(row.repeat.start));
        end.append_value(u64::from(row.repeat.end));
        match row.repeat.kept {
            Some((row, _)) => kept_id.append_value(kept_ids[&row])?,
            None => kept_id.append_null(),
        }
        kept_start.append_option(row.repeat.kept.map(|(_, start)| u64::from(start)));
        method.append_value(row.method);
        drops_document.append_value(row.drops_document);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(id.finish()),
        Arc::new(start.finish()),
        Arc::new(end.finish()),
        Arc::new(kept_id.finish()),
        Arc::new(kept_start.finish()),
        Arc::new(method.finish()),
        Arc::new(drops_document.finish()),
    ];
    Ok(RecordBatch::try_new(DatasetKind::Repeats.schema(), columns)?)
}

/// The ids of all documents, by row, as files of one shard each.
struct Ids<'a> {
    paths: &'a [PathBuf],
    first_rows: &'a [u32],
}

impl Ids<'_> {
    fn read(&self, rows: impl Iterator<Item = u32>) -> Result<BTreeMap<u32, Id>> {
        // In order: neighbours come from one buffer.
        let mut ids: BTreeMap<u32, Id> = rows.map(|row| (row, Id::default())).collect();
        let mut open: Option<(usize, BufReader<File>, u64)> = None;
        for (row, id) in &mut ids {
            let shard = self.first_rows.partition_point(|first| first <= row) - 1;
            let path = &self.paths[shard];
            let position = u64::from(row - self.first_rows[shard]) * ID_BYTES as u64;
            let (mut file, at) = match open.take() {
                Some((opened, file, at)) if opened == shard => (file, at),
                _ => (BufReader::new(File::open(path).map_err(shard::Error::io("open", path))?), 0),
            };
            let distance = i64::try_from(position - at).expect("a file is shorter");
            file.seek_relative(distance).map_err(shard::Error::io("read", path))?;
            file.read_exact(id).map_err(shard::Error::io("read", path))?;
            open = Some((shard, file, position + ID_BYTES as u64));
        }
        Ok(ids)
    }
}

/// Documents that went with their repeats, and spans, both by `dedup/method`.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Documents of which too little was left.
    pub documents: BTreeMap<String, u64>,
    /// Spans, those of such documents too.
    pub spans: BTreeMap<String, u64>,
}

/// Counts what a version of `repeats` lists.
///
/// # Errors
/// When it cannot be read.
pub fn summary(repeats: &Snapshot) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut last = None;
    visit(repeats, |id, method, drops_document| {
        *summary.spans.entry(format!("dedup/{method}")).or_default() += 1;
        // The spans of one document stand together.
        if drops_document && last.replace(id) != Some(id) {
            *summary.documents.entry(format!("dedup/{method}")).or_default() += 1;
        }
    })?;
    Ok(summary)
}

/// Adds the documents of which too little is left, with the method.
pub(super) fn add_removed(repeats: &Snapshot, removed: &mut Reasons) -> Result<()> {
    visit(repeats, |id, method, drops_document| {
        if drops_document {
            removed.insert(id, Arc::from(format!("dedup/{method}")));
        }
    })
}

fn visit(repeats: &Snapshot, mut visit: impl FnMut(Id, &str, bool)) -> Result<()> {
    for shard in &repeats.manifest.shards {
        read_columns(repeats, shard, &["id", "method", "drops_document"], |batch| {
            let ids = batch.column(0).as_fixed_size_binary();
            let methods = batch.column(1).as_string::<i32>();
            let drops = batch.column(2).as_boolean();
            for row in 0..batch.num_rows() {
                visit(id(ids.value(row)), methods.value(row), drops.value(row));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The spans of some documents of shard `index` of documents, those of each in order.
///
/// # Errors
/// When they cannot be read.
pub(super) fn spans_of(
    repeats: &Snapshot,
    index: usize,
    documents: &HashSet<Id>,
) -> Result<HashMap<Id, Vec<(u32, u32)>>> {
    let mut spans: HashMap<Id, Vec<(u32, u32)>> = HashMap::new();
    let shard = &repeats.manifest.shards[index];
    read_columns(repeats, shard, &["id", "start", "end"], |batch| {
        for row in 0..batch.num_rows() {
            let (id, span) = span(batch, row);
            if documents.contains(&id) {
                spans.entry(id).or_default().push(span);
            }
        }
        Ok(())
    })?;
    Ok(spans)
}

/// The document and byte range in a row of `id`, `start` and `end`.
fn span(batch: &RecordBatch, row: usize) -> (Id, (u32, u32)) {
    let position = |column: usize| {
        let column = batch.column(column).as_primitive::<UInt64Type>();
        u32::try_from(column.value(row)).expect("texts are shorter than 2 GiB")
    };
    (id(batch.column(0).as_fixed_size_binary().value(row)), (position(1), position(2)))
}

/// The spans to cut from the texts of one shard of documents, read along with it.
#[derive(Debug)]
pub(super) struct Cuts {
    /// None when nothing is cut.
    reader: Option<(PathBuf, ParquetRecordBatchReader)>,
    batch: Option<(RecordBatch, usize)>,
    /// Documents that are not asked for, though they may have spans.
    removed: Arc<Reasons>,
}

impl Cuts {
    /// The spans in shard `index` of documents.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn open(
        repeats: Option<&Snapshot>,
        index: usize,
        removed: Arc<Reasons>,
    ) -> Result<Self> {
        let reader = match repeats {
            Some(repeats) => {
                let path = repeats.local_shard(&repeats.manifest.shards[index])?;
                let reader = open_columns(&path, &["id", "start", "end"])?;
                Some((path, reader))
            }
            None => None,
        };
        Ok(Self { reader, batch: None, removed })
    }

    /// Returns the spans of a document, in order. Every document that is not removed must be asked for, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn spans(&mut self, id: &Id) -> Result<Vec<(u32, u32)>> {
        let mut spans = Vec::new();
        while let Some((next, span)) = self.front()? {
            if next == *id {
                spans.push(span);
            } else if !self.removed.contains_key(&next) {
                break;
            }
            self.batch.as_mut().expect("the front is in it").1 += 1;
        }
        Ok(spans)
    }

    fn front(&mut self) -> Result<Option<(Id, (u32, u32))>> {
        loop {
            if let Some((batch, row)) = &self.batch
                && *row < batch.num_rows()
            {
                return Ok(Some(span(batch, *row)));
            }
            let Some((path, reader)) = &mut self.reader else { return Ok(None) };
            match reader.next() {
                Some(batch) => {
                    self.batch = Some((batch.map_err(shard::Error::arrow("read", path))?, 0));
                }
                None => return Ok(None),
            }
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spilled {
    ids: (PathBuf, u64),
    /// By method.
    pieces: Vec<(PathBuf, u64)>,
}

impl Output for Spilled {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        self.pieces.iter().chain([&self.ids]).cloned().collect()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    method: usize,
    path: PathBuf,
    bytes: u64,
}

impl Output for Found {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        vec![(self.path.clone(), self.bytes)]
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    dataset: PathBuf,
    shard: Shard,
}

impl Output for Written {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        vec![(self.dataset.join(&self.shard.path), self.shard.bytes)]
    }
}
