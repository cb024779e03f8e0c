//! From `documents` without `duplicates` to `contamination`: which of them hold items of evaluation sets.
//!
//! Two steps. The first reads every document once and notes which n-grams of benchmarks it has: rows and counts, not texts.
//! The second reads only these rows again, since only then it is known which n-grams many documents have.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryBuilder, Float64Builder, StringViewBuilder, UInt64Builder,
};
use arrow::datatypes::{UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use dedup::contamination::{self, Action, Finding, Index};
use dedup::span;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Shard};
use shard::schema::{DatasetKind, ID_BYTES};
use shard::tokenizer::Tokenizer;
use shard::writer::ShardWriter;

use super::repeats;
use super::tokens::{self, Id};
use super::unit::{Inputs, Output, Staging};
use super::{Run, commit, fingerprint, finished, parent};
use crate::benchmark::{self, Benchmarks, DecontaminateConfig};
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;
use crate::{Error, Result};

pub(crate) mod work;
use self::work::{Judging, Scanning};

/// Hits that are handed to the writer at a time.
const BATCH_ROWS: usize = 1024;
/// What stands between the pieces of a document that was cut.
const BETWEEN_PIECES: &str = "\n\n";

/// `[decontaminate]` of a job, checked, its benchmarks read.
#[derive(Debug)]
pub struct Plan {
    benchmarks: Benchmarks,
}

impl Plan {
    /// Reads the benchmarks.
    ///
    /// # Errors
    /// As [`benchmark::load`].
    pub fn resolve(job: &LoadedJob, config: &DecontaminateConfig) -> Result<Self> {
        let place = format!("{} decontaminate", job.path.display());
        Ok(Self { benchmarks: benchmark::load(config, job.folder(), &place)? })
    }

    /// Whether documents lose spans.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.index().config().action == Action::Cut
    }

    fn config(&self) -> serde_json::Value {
        json!({ "decontaminate": self.index().config(), "benchmarks": self.benchmarks.files })
    }

    fn index(&self) -> &Index {
        &self.benchmarks.index
    }

    /// The plan in words.
    #[must_use]
    pub fn show(&self) -> String {
        let config = self.index().config();
        let mut text = format!(
            "contamination: {:?}, {} n-grams of {} words, action {}\n",
            config.profile,
            self.index().n_grams(),
            config.ngram,
            config.action.name()
        );
        for note in &self.benchmarks.notes {
            text.push_str(&format!("  {note}\n"));
        }
        text
    }

    /// Runs the stage, or finds it done, and returns `contamination`.
    ///
    /// # Errors
    /// When a shard cannot be read or written.
    pub async fn execute(
        &self,
        run: &Run,
        documents: &Snapshot,
        duplicates: Option<&Snapshot>,
        repeats: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Contamination);
        let config = self.config();
        let parents: Vec<_> =
            [Some(documents), duplicates, repeats].into_iter().flatten().map(parent).collect();
        let fingerprint = fingerprint("contamination", &config, &parents, &serde_json::Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            let version = newest.version;
            run.talk.say(format!("{:>12}  version {version} is up to date", "contamination"));
            return Ok(newest);
        }
        for note in &self.benchmarks.notes {
            run.talk.say(format!("{:>12}  {note}", "benchmark"));
        }
        let removed = Arc::new(tokens::removed(duplicates, repeats)?);
        let find = Staging::new(&dataset, "find", &fingerprint);
        let judge = Staging::new(&dataset, "judge", &fingerprint);
        let rows = documents.manifest.n_rows();
        let task = run.talk.task("contamination", rows, Progress::Count("documents"));
        let units = |of: &dyn Fn(usize) -> Vec<u64>| -> Vec<(String, (Shard, Vec<u64>))> {
            let shards = documents.manifest.shards.iter().enumerate();
            shards.map(|(i, shard)| (shard.blake3.clone(), (shard.clone(), of(i)))).collect()
        };
        let rows: Vec<u64> = documents.manifest.shards.iter().map(|shard| shard.rows).collect();
        let work = Scanning {
            index: Arc::clone(&self.benchmarks.index),
            documents: documents.clone(),
            removed,
            inputs: Inputs {
                config: config.clone(),
                parents: parents.clone(),
                more: serde_json::Value::Null,
            },
        };
        let found: Vec<Found> = find
            .run(run, work, units(&|_| Vec::new()), |index, _| task.advance(rows[index]))
            .await?;
        let frequency = Arc::new(frequency(self.index(), &found));
        let work = Judging {
            index: Arc::clone(&self.benchmarks.index),
            documents: documents.clone(),
            frequency: Arc::clone(&frequency),
            repeats: repeats.cloned(),
            dataset: dataset.clone(),
            config: config.clone(),
        };
        let outputs =
            judge.run(run, work, units(&|index| found[index].rows.clone()), |_, _| {}).await?;
        let schema = DatasetKind::Contamination.schema();
        let mut manifest = Manifest::new(DatasetKind::Contamination, &schema, fingerprint, config);
        manifest.parents = parents;
        manifest.shards = outputs.into_iter().filter_map(|output| output.shard).collect();
        let n = manifest.n_rows();
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        let snapshot = commit(&dataset, manifest)?;
        find.remove()?;
        judge.remove()?;
        let items: u64 = self.index().contaminated_items(&frequency).iter().sum();
        let outcome = Outcome::read(&snapshot, self)?;
        task.finish(format!(
            "{items} items found; {} documents dropped, {} cut",
            outcome.dropped.len(),
            outcome.spans.len()
        ));
        Ok(snapshot)
    }
}

/// What repeats leave of the documents that are judged: a cut that leaves too little of them drops them.
#[derive(Debug, Default)]
struct Rests {
    repeats: HashMap<Id, Vec<(u32, u32)>>,
    min_chars_left: usize,
}

impl Rests {
    /// Reads the spans of some rows of shard `index` of documents.
    fn open(
        documents: &Snapshot,
        shard: &Shard,
        rows: &[u64],
        repeats: Option<&Snapshot>,
        index: usize,
    ) -> Result<Self> {
        let Some(repeats) = repeats.filter(|_| !rows.is_empty()) else {
            return Ok(Self::default());
        };
        let mut wanted = rows.iter().copied().peekable();
        let (mut ids, mut position) = (HashSet::new(), 0);
        tokens::read_columns(documents, shard, &["id"], |batch| {
            for bytes in batch.column(0).as_fixed_size_binary().iter().flatten() {
                if wanted.next_if_eq(&position).is_some() {
                    ids.insert(id(bytes));
                }
                position += 1;
            }
            Ok(())
        })?;
        let min_chars_left = repeats.manifest.config["min_chars_left"].as_u64().unwrap_or(1);
        Ok(Self {
            repeats: repeats::spans_of(repeats, index, &ids)?,
            min_chars_left: usize::try_from(min_chars_left).expect("it was one in the job"),
        })
    }

    fn judge(
        &self,
        id: Id,
        text: &str,
        finding: Finding,
        config: &contamination::Config,
    ) -> Finding {
        let Some(repeats) = self.repeats.get(&id).filter(|_| finding.action == Action::Cut) else {
            return finding;
        };
        let stretches: Vec<Range<usize>> =
            finding.hits.iter().map(|hit| hit.span.clone()).collect();
        let left = without(text, &stretches, repeats, config);
        match repeats::is_too_little(&left, self.min_chars_left) {
            true => Finding { action: Action::Drop, ..finding },
            false => finding,
        }
    }
}

/// What the tokens stage needs to know: which documents go, and what others lose. Memory: an entry for each of them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `decontaminate/<benchmark>` by document.
    pub dropped: HashMap<Id, Arc<str>>,
    /// Contaminated stretches of documents that are cut, sorted.
    spans: HashMap<Id, Vec<Range<usize>>>,
    config: contamination::Config,
}

impl Outcome {
    /// Reads a version of `contamination` that `plan` made.
    ///
    /// # Errors
    /// When a shard cannot be read.
    pub fn read(snapshot: &Snapshot, plan: &Plan) -> Result<Self> {
        let mut outcome = Self { config: plan.index().config().clone(), ..Self::default() };
        let mut reasons: BTreeMap<String, Arc<str>> = BTreeMap::new();
        for shard in &snapshot.manifest.shards {
            let columns = ["id", "start", "end", "benchmark", "action"];
            tokens::read_columns(snapshot, shard, &columns, |batch| {
                let column = |index: usize| batch.column(index).as_primitive::<UInt64Type>();
                let text = |index: usize| batch.column(index).as_string::<i32>();
                for row in 0..batch.num_rows() {
                    let id = id(batch.column(0).as_fixed_size_binary().value(row));
                    let at = |column: &arrow::array::UInt64Array| {
                        usize::try_from(column.value(row)).expect("a text fits into memory")
                    };
                    if text(4).value(row) == Action::Drop.name() {
                        let reason = format!("decontaminate/{}", text(3).value(row));
                        let reason = reasons
                            .entry(reason)
                            .or_insert_with_key(|reason| Arc::from(reason.as_str()));
                        // The first row of a document is its first stretch.
                        outcome.dropped.entry(id).or_insert_with(|| Arc::clone(reason));
                    } else if text(4).value(row) == Action::Cut.name() {
                        outcome.spans.entry(id).or_default().push(at(column(1))..at(column(2)));
                    }
                }
                Ok(())
            })?;
        }
        Ok(outcome)
    }

    /// Number of dropped documents, by `decontaminate/<benchmark>`.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for reason in self.dropped.values() {
            *counts.entry(reason.to_string()).or_default() += 1;
        }
        counts
    }

    /// Number of documents that are cut.
    #[must_use]
    pub fn n_cut(&self) -> u64 {
        self.spans.len() as u64
    }

    /// What is left of a document without its stretches and `repeats`, byte ranges of its text, sorted by start.
    #[must_use]
    pub fn clean<'a>(&self, id: &[u8], text: &'a str, repeats: &[(u32, u32)]) -> Cow<'a, str> {
        match self.spans.get(id) {
            Some(stretches) => Cow::Owned(without(text, stretches, repeats, &self.config)),
            None if repeats.is_empty() => Cow::Borrowed(text),
            None => Cow::Owned(span::cut(text, repeats)),
        }
    }
}

/// The pieces of a text around its contaminated `stretches`, a blank line between them, each without what is in `repeats`.
///
/// Both are byte ranges of the whole text, sorted by start: what goes is the union.
fn without(
    text: &str,
    stretches: &[Range<usize>],
    repeats: &[(u32, u32)],
    config: &contamination::Config,
) -> String {
    let pieces = contamination::pieces(text, stretches, config).into_iter().map(|piece| {
        let narrow = |at: usize| u32::try_from(at).expect("texts are shorter than 2 GiB");
        let (start, end) = (narrow(piece.start), narrow(piece.end));
        let inside = repeats.iter().filter(|span| span.0 < end && span.1 > start);
        let inside = inside.map(|span| (span.0.max(start) - start, span.1.min(end) - start));
        span::cut(&text[piece], &inside.collect::<Vec<_>>())
    });
    let pieces: Vec<String> = pieces.filter(|piece| !piece.trim().is_empty()).collect();
    pieces.join(BETWEEN_PIECES)
}

/// The texts of a dataset: of documents as they are, of tokens decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// The tokenizer of `tokens`.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

impl Texts<'_> {
    /// Visits rows of a shard: all but those in `without`, or only those in `only`; both rise.
    fn visit(
        &self,
        shard: &Shard,
        rows: Rows<'_>,
        mut visit: impl FnMut(u64, Id, &str) -> Result<()>,
    ) -> Result<()> {
        let path = self.snapshot.local_shard(shard)?;
        let error = |error: parquet::errors::ParquetError| {
            Error::from(shard::Error::arrow("read", &path)(error))
        };
        let file = std::fs::File::open(&path).map_err(shard::Error::io("open", &path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(error)?;
        let columns = match self.tokenizer {
            None => ["id", "text"],
            Some(_) => ["document_id", "tokens"],
        };
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
        let reader = builder
            .with_projection(mask)
            .with_row_selection(rows.selection(shard.rows))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(error)?;
        let mut numbers = rows.numbers(shard.rows);
        for batch in reader {
            let batch = batch.map_err(shard::Error::arrow("read", &path))?;
            let ids = batch.column(0).as_fixed_size_binary();
            for row in 0..batch.num_rows() {
                let number = numbers.next().expect("no more rows than were asked for");
                let id = id(ids.value(row));
                match self.tokenizer {
                    None => visit(number, id, batch.column(1).as_string::<i32>().value(row))?,
                    Some(tokenizer) => {
                        let tokens = batch.column(1).as_list::<i32>().value(row);
                        let tokens = tokens.as_primitive::<UInt32Type>().values();
                        let tokens = match tokens.split_last() {
                            Some((last, rest)) if Some(*last) == tokenizer.end_of_document() => {
                                rest
                            }
                            _ => tokens,
                        };
                        visit(number, id, &tokenizer.decode(tokens)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rows of a shard, by their positions, which rise.
#[derive(Clone, Copy, Debug)]
enum Rows<'a> {
    Without(&'a [u64]),
    Only(&'a [u64]),
}

impl<'a> Rows<'a> {
    fn numbers(self, n_rows: u64) -> Box<dyn Iterator<Item = u64> + 'a> {
        match self {
            Self::Only(rows) => Box::new(rows.iter().copied()),
            Self::Without(rows) => {
                let mut gone = rows.iter().copied().peekable();
                Box::new((0..n_rows).filter(move |row| gone.next_if_eq(row).is_none()))
            }
        }
    }

    fn selection(self, n_rows: u64) -> RowSelection {
        let (Self::Without(rows) | Self::Only(rows)) = self;
        let is_listed_wanted = matches!(self, Self::Only(_));
        let count = |rows: u64| usize::try_from(rows).expect("a shard's rows fit into memory");
        let selector = |n: u64, is_wanted: bool| match is_wanted {
            true => RowSelector::select(count(n)),
            false => RowSelector::skip(count(n)),
        };
        let (mut selectors, mut next) = (Vec::new(), 0);
        for &row in rows {
            if row > next {
                selectors.push(selector(row - next, !is_listed_wanted));
            }
            selectors.push(selector(1, is_listed_wanted));
            next = row + 1;
        }
        if next < n_rows {
            selectors.push(selector(n_rows - next, !is_listed_wanted));
        }
        RowSelection::from(selectors)
    }
}

/// What the first step knows of a shard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Rows with an n-gram of a benchmark, rising.
    pub(crate) rows: Vec<u64>,
    /// N-grams and the number of documents that have them.
    pub(crate) frequency: Vec<(u32, u64)>,
}

impl Output for Found {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        Vec::new()
    }
}

/// Notes which rows of a shard, without those `gone`, share n-grams with benchmarks.
pub(crate) fn find_shard(
    index: &Index,
    texts: &Texts<'_>,
    shard: &Shard,
    gone: &[u64],
) -> Result<Found> {
    let mut scanner = index.scanner();
    let mut found = Found::default();
    let mut frequency = BTreeMap::new();
    texts.visit(shard, Rows::Without(gone), |row, _, text| {
        let grams = scanner.n_grams(text);
        if !grams.is_empty() {
            found.rows.push(row);
        }
        for gram in grams {
            *frequency.entry(*gram).or_default() += 1;
        }
        Ok(())
    })?;
    found.frequency = frequency.into_iter().collect();
    Ok(found)
}

/// Documents with each n-gram, over all shards.
pub(crate) fn frequency<'a>(index: &Index, found: impl IntoIterator<Item = &'a Found>) -> Vec<u64> {
    let mut total = vec![0; index.n_grams()];
    for (gram, documents) in found.into_iter().flat_map(|found| &found.frequency) {
        total[*gram as usize] += documents;
    }
    total
}

/// Judges the given rows of a shard.
pub(crate) fn judge_shard(
    index: &Index,
    texts: &Texts<'_>,
    shard: &Shard,
    rows: &[u64],
    frequency: &[u64],
    mut take: impl FnMut(Id, &str, Finding) -> Result<()>,
) -> Result<()> {
    let mut scanner = index.scanner();
    if rows.is_empty() {
        return Ok(());
    }
    texts.visit(shard, Rows::Only(rows), |_, id, text| match scanner.judge(text, frequency) {
        Some(finding) => take(id, text, finding),
        None => Ok(()),
    })
}

fn id(bytes: &[u8]) -> Id {
    bytes.try_into().expect("ids have 16 bytes")
}

/// Writes hits as rows of a shard of `contamination`; there is none without a hit.
struct Hits<'a> {
    index: &'a Index,
    dataset: &'a shard::Dataset,
    name: String,
    writer: Option<ShardWriter>,
    id: FixedSizeBinaryBuilder,
    numbers: [UInt64Builder; 4],
    texts: [StringViewBuilder; 3],
    coverage: Float64Builder,
    n: usize,
}

impl<'a> Hits<'a> {
    fn new(index: &'a Index, dataset: &'a shard::Dataset, name: String) -> Self {
        Self {
            index,
            dataset,
            name,
            writer: None,
            id: FixedSizeBinaryBuilder::new(ID_BYTES),
            numbers: std::array::from_fn(|_| UInt64Builder::new()),
            texts: std::array::from_fn(|_| StringViewBuilder::new()),
            coverage: Float64Builder::new(),
            n: 0,
        }
    }

    fn push(&mut self, id: Id, finding: Finding) -> Result<()> {
        for hit in finding.hits {
            self.id.append_value(id)?;
            let numbers = [hit.span.start as u64, hit.span.end as u64, hit.item, hit.n_grams];
            for (builder, number) in self.numbers.iter_mut().zip(numbers) {
                builder.append_value(number);
            }
            let benchmark = self.index.benchmarks()[hit.benchmark].name.as_str();
            let texts = [benchmark, hit.field.name(), finding.action.name()];
            for (builder, text) in self.texts.iter_mut().zip(texts) {
                builder.append_value(text);
            }
            self.coverage.append_value(hit.coverage);
            self.n += 1;
            if self.n == BATCH_ROWS {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let schema = DatasetKind::Contamination.schema();
        let [start, end, item, n_grams] =
            self.numbers.each_mut().map(|b| Arc::new(b.finish()) as ArrayRef);
        let [benchmark, field, action] =
            self.texts.each_mut().map(|b| Arc::new(b.finish()) as ArrayRef);
        let coverage = Arc::new(self.coverage.finish());
        let columns = vec![
            Arc::new(self.id.finish()),
            start,
            end,
            benchmark,
            item,
            field,
            n_grams,
            coverage,
            action,
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(ShardWriter::create(self.dataset, &self.name, "train", &schema)?),
        };
        writer.write(&batch)?;
        self.n = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<Option<Shard>> {
        if self.n > 0 {
            self.write()?;
        }
        Ok(self.writer.map(ShardWriter::finish).transpose()?)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JudgeOutput {
    dataset: PathBuf,
    shard: Option<Shard>,
}

impl Output for JudgeOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let path = |shard: &Shard| Path::new(&self.dataset).join(&shard.path);
        self.shard.iter().map(|shard| (path(shard), shard.bytes)).collect()
    }

    fn hash(&self, _file: usize) -> Option<&str> {
        self.shard.as_ref().map(|shard| shard.blake3.as_str())
    }
}
