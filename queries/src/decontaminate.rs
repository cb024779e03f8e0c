//! Which items of evaluation sets a dataset holds, documents or the very tokens of a training run, and which steps saw them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use shard::Dataset;
use shard::schema::{DatasetKind, ID_BYTES};
use shard::tokenizer::Tokenizer;

use crate::benchmark::{self, Benchmarks, DecontaminateConfig};
use crate::lineage::{self, Steps};
use crate::progress::{Talk, Unit};
use crate::stage::contamination::{Found, Texts, find_shard, frequency, judge_shard};
use crate::{Error, Result};

/// Hits of a benchmark that the page in words lists; as JSON, all are there.
const HITS_SHOWN: usize = 10;

type Id = [u8; ID_BYTES as usize];

/// What evaluation sets and a dataset have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the dataset.
    pub version: u64,
    /// Hash of its manifest.
    pub manifest: String,
    /// Documents that were read.
    pub n_documents: u64,
    /// Documents that are contaminated, as the profile says.
    pub n_contaminated: u64,
    /// In the order of the file.
    pub benchmarks: Vec<Benchmark>,
    /// By benchmark, item and document.
    pub hits: Vec<Hit>,
}

/// A benchmark in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Benchmark {
    /// Its name.
    pub name: String,
    /// Its items.
    pub n_items: u64,
    /// Those that are long enough to be found.
    pub n_items_indexed: u64,
    /// Items of which all documents together hold as much as the profile asks for.
    pub n_items_contaminated: u64,
    /// Documents that are contaminated by it.
    pub n_documents: u64,
}

/// A stretch of a document that it shares with an item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// The benchmark.
    pub benchmark: String,
    /// Position of the item, from 0.
    pub item: u64,
    /// query, answer or overlap.
    pub field: &'static str,
    /// The document's id, in hexadecimal.
    pub document: String,
    /// Where the stretch begins, in bytes of the text.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// N-grams of the field in the stretch.
    pub n_grams: u64,
    /// Share of the field's n-grams in the document.
    pub coverage: f64,
    /// Steps that saw the document, where a run was named; none when no step did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
}

/// Searches the newest version of a dataset for the benchmarks that the file `benchmarks` names.
///
/// Memory is that of the benchmarks and of the hits.
///
/// # Errors
/// When the dataset is neither `documents` nor `tokens`, a file cannot be read, or the run was trained on something else.
pub fn report(
    dataset: &Path,
    benchmarks: &Path,
    run: Option<&str>,
    threads: usize,
    talk: Talk,
) -> Result<Report> {
    let snapshot = Dataset::at(dataset).open(None)?;
    let refuse = |message: String, hint: &str| Error::Job {
        place: dataset.display().to_string(),
        message,
        hint: Some(hint.to_owned()),
    };
    let tokenizer = match snapshot.manifest.kind {
        DatasetKind::Documents => None,
        DatasetKind::Tokens => {
            let path = snapshot.local_tokenizer()?.ok_or_else(|| {
                refuse("its manifest names no tokenizer".to_owned(), "make the dataset again")
            })?;
            Some(Tokenizer::load(&path)?)
        }
        other => {
            let message = format!("it is a dataset of {other}, which has no text");
            return Err(refuse(message, "name a dataset of documents or tokens"));
        }
    };
    if run.is_some() && tokenizer.is_none() {
        let message = "a run reads tokens, not documents".to_owned();
        return Err(refuse(message, "name the dataset of tokens that the run was trained on"));
    }
    let config: DecontaminateConfig = shard::config::load(benchmarks, &[])?.value;
    let folder = benchmarks.parent().unwrap_or(Path::new(""));
    let loaded = benchmark::load(&config, folder, &benchmarks.display().to_string())?;
    for note in &loaded.notes {
        talk.say(format!("{:>12}  {note}", "benchmark"));
    }
    let texts = Texts { snapshot: &snapshot, tokenizer: tokenizer.as_ref() };
    let mut report = search(&loaded, &texts, threads, talk)?;
    if let Some(run) = run {
        let ids: BTreeSet<Id> = report.ids.iter().copied().collect();
        let steps = lineage::steps(run, &snapshot, &ids)?;
        for (hit, id) in report.report.hits.iter_mut().zip(&report.ids) {
            hit.steps = steps.get(id).copied();
        }
    }
    Ok(report.report)
}

/// A report, and the document of each hit.
struct Searched {
    report: Report,
    ids: Vec<Id>,
}

fn search(
    benchmarks: &Benchmarks,
    texts: &Texts<'_>,
    threads: usize,
    talk: Talk,
) -> Result<Searched> {
    let index = &*benchmarks.index;
    let shards = &texts.snapshot.manifest.shards;
    let n_documents = texts.snapshot.manifest.n_rows();
    let task = talk.task("contamination", n_documents, Unit::Count("documents"));
    let found: Vec<Found> = in_parallel(shards.len(), threads, |number| {
        let found = find_shard(index, texts, &shards[number], &[])?;
        task.advance(shards[number].rows);
        Ok(found)
    })?;
    let frequency = frequency(index, &found);
    let findings = in_parallel(shards.len(), threads, |number| {
        let mut findings = Vec::new();
        let rows = &found[number].rows;
        judge_shard(index, texts, &shards[number], rows, &frequency, |id, _, finding| {
            findings.push((id, finding));
            Ok(())
        })?;
        Ok(findings)
    })?;
    let mut hits: Vec<(Id, usize, dedup::contamination::Hit)> = Vec::new();
    let mut documents = vec![BTreeSet::new(); index.benchmarks().len()];
    let mut n_contaminated = 0;
    for (id, finding) in findings.into_iter().flatten() {
        n_contaminated += 1;
        for hit in finding.hits {
            documents[hit.benchmark].insert(id);
            hits.push((id, hit.benchmark, hit));
        }
    }
    hits.sort_by(|(a_id, a_benchmark, a), (b_id, b_benchmark, b)| {
        (a_benchmark, a.item, a_id, a.span.start, a.field).cmp(&(
            b_benchmark,
            b.item,
            b_id,
            b.span.start,
            b.field,
        ))
    });
    task.finish(format!("{n_contaminated} of {n_documents} documents"));
    let items = index.contaminated_items(&frequency);
    let known = index.benchmarks().iter().zip(items).zip(documents);
    let report = Report {
        version: texts.snapshot.version,
        manifest: texts.snapshot.manifest_hash.clone(),
        n_documents,
        n_contaminated,
        benchmarks: known
            .map(|((known, items), documents)| Benchmark {
                name: known.name.clone(),
                n_items: known.n_items,
                n_items_indexed: known.n_items_indexed,
                n_items_contaminated: items,
                n_documents: documents.len() as u64,
            })
            .collect(),
        hits: hits
            .iter()
            .map(|(id, benchmark, hit)| Hit {
                benchmark: index.benchmarks()[*benchmark].name.clone(),
                item: hit.item,
                field: hit.field.name(),
                document: id.iter().map(|byte| format!("{byte:02x}")).collect(),
                start: hit.span.start as u64,
                end: hit.span.end as u64,
                n_grams: hit.n_grams,
                coverage: hit.coverage,
                steps: None,
            })
            .collect(),
    };
    Ok(Searched { report, ids: hits.into_iter().map(|(id, _, _)| id).collect() })
}

/// Does `n` pieces of work on `threads` threads, and returns their results in order.
fn in_parallel<T: Send>(
    n: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= n {
                return Ok(done);
            }
            done.push((number, work(number)?));
        }
    };
    let mut all: BTreeMap<usize, T> = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads.clamp(1, n.max(1))).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let done: Result<Vec<(usize, T)>> = worker.join().expect("a search does not panic");
            all.extend(done?);
        }
        Ok::<(), Error>(())
    })?;
    Ok(all.into_values().collect())
}

impl Report {
    /// The report in words.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text =
            format!("{} of {} documents are contaminated\n", self.n_contaminated, self.n_documents);
        for benchmark in &self.benchmarks {
            text.push_str(&format!(
                "{}: {} of {} items in {} documents\n",
                benchmark.name,
                benchmark.n_items_contaminated,
                benchmark.n_items,
                benchmark.n_documents
            ));
            let mut hits: Vec<&Hit> =
                self.hits.iter().filter(|hit| hit.benchmark == benchmark.name).collect();
            hits.sort_by(|a, b| b.coverage.total_cmp(&a.coverage));
            for hit in hits.iter().take(HITS_SHOWN) {
                text.push_str(&format!(
                    "  item {} {} {:.0} % in {} bytes {}..{}",
                    hit.item,
                    hit.field,
                    100.0 * hit.coverage,
                    hit.document,
                    hit.start,
                    hit.end
                ));
                if let Some(steps) = &hit.steps {
                    text.push_str(&format!(
                        ", {} steps from {} to {}",
                        steps.n, steps.first, steps.last
                    ));
                }
                text.push('\n');
            }
            if hits.len() > HITS_SHOWN {
                text.push_str(&format!("  … and {} more\n", hits.len() - HITS_SHOWN));
            }
        }
        text
    }
}
