//! `gristmill takedown`: documents leave a corpus for good, and everything that saw them is named.

mod apply;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryBuilder, StringViewArray, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use shard::Dataset;
use shard::schema::{DatasetKind, ID_BYTES};

use apply::Change;
pub(crate) use apply::finish;

use crate::command::{print, print_json};
use crate::function::id_of;
use crate::lineage::{self, Id, Seen, holdings, id_column};
use crate::session::Limits;
use crate::stage::takedowns::Takedowns;
use crate::stage::tokens::{id, read_columns};
use crate::{Error, Result, catalog, run, shell};

/// Characters of a reason, at most: it becomes part of a key in counts.
const REASON_CHARS_MAX: usize = 60;
/// Ids of one kind that the text report lists.
const IDS_SHOWN: usize = 20;

/// What is taken down, and how far that goes.
#[derive(Debug, Args)]
pub(crate) struct TakedownArguments {
    /// The corpus.
    corpus: PathBuf,
    /// A file of ids, one per line, 32 hexadecimal digits each; empty lines and those that begin with `#` are skipped.
    #[arg(long)]
    ids: Option<PathBuf>,
    /// A query whose column `id` or `document_id`, or whose only column, are the ids.
    #[arg(long)]
    query: Option<String>,
    /// Why: letters, digits, spaces, `.`, `_` and `-`.
    #[arg(long, default_value = "request")]
    reason: String,
    /// Take down the copies of these documents, too: all of their clusters in `duplicates`.
    #[arg(long)]
    copies: bool,
    /// Report, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove the old versions that still have rows of taken-down documents; only with `--yes`, else say what would go.
    #[arg(long)]
    erase: bool,
    /// Really erase.
    #[arg(long, requires = "erase")]
    yes: bool,
}

/// What a takedown did, and what had seen the documents before.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Ids that were asked for, each once.
    asked: u64,
    /// Those that are on the list now and were not before, copies among them.
    taken: u64,
    /// Those that were on the list before.
    already: u64,
    /// Those that no version of the corpus knows.
    unknown: Vec<String>,
    /// Copies of the documents, by `duplicates`, that are not taken down.
    copies: Vec<String>,
    /// Whether nothing was changed.
    is_dry_run: bool,
    /// New versions.
    changes: Vec<Change>,
    /// Shards, of all versions, that have rows of the documents.
    shards: Vec<Held>,
    /// What training runs saw of them.
    runs: Vec<Seen>,
    /// Old versions that still have rows of documents on the list.
    old_versions: Vec<Old>,
    /// Files that were erased.
    erased: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Held {
    dataset: String,
    version: u64,
    shard: String,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct Old {
    dataset: String,
    version: u64,
    /// Training runs that began with it: without it they cannot go on, and nobody can say what their steps saw.
    runs: Vec<String>,
}

/// Takes documents down, reports, erases; exit code 1 when an id is unknown or `--erase` lacks its `--yes`.
///
/// # Errors
/// When the ids or the reason are none, or a dataset cannot be read or written: then every dataset is as it was, or the
/// next run of the job or of this command finishes what was begun.
pub(crate) async fn takedown(
    arguments: &TakedownArguments,
    threads: usize,
    is_json: bool,
) -> Result<ExitCode> {
    let corpus = &arguments.corpus;
    check_reason(&arguments.reason)?;
    if shard::store::is_object(corpus) || corpus.join(run::ORIGIN).is_file() {
        return Err(Error::Job {
            place: corpus.display().to_string(),
            message: "documents are taken down from local corpora only".to_owned(),
            hint: Some(
                "copy it to a folder, take them down there, and send the folder back".into(),
            ),
        });
    }
    if !corpus.is_dir() {
        return Err(missing(corpus));
    }
    let _lock = run::lock(corpus)?;
    finish(corpus)?;
    for kind in DatasetKind::ALL {
        Dataset::at(corpus.join(kind.name())).remove_half_written()?;
    }
    Takedowns::dataset(corpus).remove_half_written()?;
    let asked = asked(arguments, threads).await?;
    let mut report =
        Report { asked: asked.len() as u64, is_dry_run: arguments.dry_run, ..Report::default() };
    if !asked.is_empty() {
        take(arguments, asked, &mut report)?;
    }
    let list = Takedowns::read(corpus)?;
    let versions = apply::old_versions(corpus, &list)?;
    report.old_versions = old(corpus, &versions)?;
    let erases = arguments.erase && arguments.yes && !arguments.dry_run;
    if erases {
        report.erased = apply::erase(corpus, &versions)?;
    }
    match is_json {
        true => print_json(&report)?,
        false => print(&report.show(arguments))?,
    };
    let is_no = !report.unknown.is_empty()
        || (arguments.erase && !erases && !report.old_versions.is_empty());
    Ok(ExitCode::from(u8::from(is_no)))
}

fn missing(corpus: &Path) -> Error {
    Error::Shard(shard::Error::Missing {
        what: format!("a corpus in `{}`", corpus.display()),
        hint: "name the folder that a job wrote its datasets into".to_owned(),
    })
}

fn take(arguments: &TakedownArguments, asked: BTreeSet<Id>, report: &mut Report) -> Result<()> {
    let corpus = &arguments.corpus;
    let list = Takedowns::read(corpus)?;
    let mut known = BTreeSet::new();
    for kind in DatasetKind::ALL.into_iter().filter(|kind| id_column(*kind).is_some()) {
        let mut shards: BTreeMap<(u64, String), u64> = BTreeMap::new();
        holdings(corpus, kind, Some(&asked), |found| {
            for held in found {
                known.insert(held.id);
                *shards.entry((held.version, held.shard)).or_default() += held.n_rows;
            }
            true
        })?;
        let dataset = kind.name().to_owned();
        report.shards.extend(shards.into_iter().map(|((version, shard), rows)| Held {
            dataset: dataset.clone(),
            version,
            shard,
            rows,
        }));
    }
    let (listed, rest): (BTreeSet<Id>, BTreeSet<Id>) = asked.iter().partition(|id| list.has(id));
    let (mut new, unknown): (BTreeSet<Id>, BTreeSet<Id>) =
        rest.into_iter().partition(|id| known.contains(id));
    report.already = listed.len() as u64;
    report.unknown = unknown.iter().map(hex).collect();
    let mut copies = copies(corpus, &new.union(&listed).copied().collect())?;
    copies.retain(|id| !list.has(id));
    if arguments.copies {
        new.append(&mut copies);
    }
    report.copies = copies.iter().map(hex).collect();
    report.taken = new.len() as u64;
    let seen = new.union(&listed).copied().collect();
    report.runs = lineage::seen(corpus, &seen)?;
    if !arguments.dry_run {
        let rows = rows_of(corpus, &new, &arguments.reason)?;
        report.changes = apply::apply(corpus, list, &rows, &new, &arguments.reason)?;
    }
    Ok(())
}

/// The ids of the file and of the query.
async fn asked(arguments: &TakedownArguments, threads: usize) -> Result<BTreeSet<Id>> {
    let mut asked = BTreeSet::new();
    if let Some(path) = &arguments.ids {
        let text = fs::read_to_string(path).map_err(shard::Error::io("read", path))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{}:{}", path.display(), number + 1);
            asked.insert(id_of::decode(line).ok_or_else(|| no_id(place, line))?);
        }
    }
    if let Some(query) = &arguments.query {
        let limits = Limits { threads, ..Limits::standard() };
        let ctx = catalog::open(&arguments.corpus, limits).await?;
        let rows: Vec<Map<String, Value>> = shell::rows(&ctx, query).await?;
        for row in rows {
            let value = row.get("id").or_else(|| row.get("document_id"));
            let value = value.or_else(|| row.values().next().filter(|_| row.len() == 1));
            let Some(value) = value else {
                let names: Vec<&str> = row.keys().map(String::as_str).collect();
                let message = format!("its columns are `{}`, none is `id`", names.join("`, `"));
                let hint = "select the column `id` of documents alone".to_owned();
                return Err(Error::Job { place: "--query".to_owned(), message, hint: Some(hint) });
            };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            asked.insert(id_of::decode(&text).ok_or_else(|| no_id("--query".to_owned(), &text))?);
        }
    }
    if asked.is_empty() && !arguments.erase {
        let place = "takedown".to_owned();
        let message = match (&arguments.ids, &arguments.query) {
            (None, None) => "nothing says which documents",
            _ => "there are no ids",
        };
        let hint = "give ids with `--ids FILE`, or `--query \"select id from documents where …\"`";
        return Err(Error::Job { place, message: message.to_owned(), hint: Some(hint.to_owned()) });
    }
    Ok(asked)
}

fn no_id(place: String, found: &str) -> Error {
    Error::Job {
        place,
        message: format!("`{found}` is no id"),
        hint: Some("an id is 32 hexadecimal digits, as `id` of `documents`".to_owned()),
    }
}

fn check_reason(reason: &str) -> Result<()> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '.' | '_' | '-');
    let n = reason.chars().count();
    if n > 0 && n <= REASON_CHARS_MAX && reason.chars().all(is_plain) {
        return Ok(());
    }
    Err(Error::Job {
        place: "--reason".to_owned(),
        message: format!("`{reason}` cannot stand in the counts of a manifest"),
        hint: Some(format!(
            "use 1 to {REASON_CHARS_MAX} letters, digits, spaces, `.`, `_` and `-`: `gdpr 2024-17`"
        )),
    })
}

/// The other documents of the clusters of `ids`: those that were left out for one of them, and those that stayed instead.
fn copies(corpus: &Path, ids: &BTreeSet<Id>) -> Result<BTreeSet<Id>> {
    let mut pairs = Vec::new();
    let dataset = Dataset::at(corpus.join(DatasetKind::Duplicates.name()));
    let Some(duplicates) = dataset.newest()? else { return Ok(BTreeSet::new()) };
    let mut kept = ids.clone();
    for pass in 0..2 {
        for shard in &duplicates.manifest.shards {
            read_columns(&duplicates, shard, &["id", "kept_id"], |batch| {
                let columns = [0, 1].map(|column| batch.column(column).as_fixed_size_binary());
                for row in 0..batch.num_rows() {
                    let [copy, first] = columns.map(|column| id(column.value(row)));
                    if pass == 0 && ids.contains(&copy) {
                        kept.insert(first);
                    } else if pass == 1 && kept.contains(&first) {
                        pairs.push(copy);
                    }
                }
                Ok(())
            })?;
        }
    }
    kept.extend(pairs);
    Ok(kept.difference(ids).copied().collect())
}

/// Rows of the list: where the documents came from, without address and text.
fn rows_of(corpus: &Path, ids: &BTreeSet<Id>, reason: &str) -> Result<Vec<RecordBatch>> {
    let mut origins: BTreeMap<Id, [String; 3]> = BTreeMap::new();
    for kind in [DatasetKind::Documents, DatasetKind::Dropped] {
        let dataset = Dataset::at(corpus.join(kind.name()));
        for version in dataset.versions()?.into_iter().rev() {
            if origins.len() == ids.len() {
                break;
            }
            let snapshot = dataset.open(Some(version))?;
            for shard in &snapshot.manifest.shards {
                let columns = ["id", "source", "kind", "locator"];
                read_columns(&snapshot, shard, &columns, |batch| {
                    let column = |name: &str| {
                        batch.column_by_name(name).expect("it was asked for").as_string::<i32>()
                    };
                    let origin = ["source", "kind", "locator"].map(column);
                    for (row, bytes) in batch.column(0).as_fixed_size_binary().iter().enumerate() {
                        let id = id(bytes.expect("ids are never null"));
                        if ids.contains(&id) {
                            let origin = || origin.map(|column| column.value(row).to_owned());
                            origins.entry(id).or_insert_with(origin);
                        }
                    }
                    Ok(())
                })?;
            }
        }
    }
    let mut id_column = FixedSizeBinaryBuilder::new(ID_BYTES);
    let mut origin: [StringViewBuilder; 3] = std::array::from_fn(|_| StringViewBuilder::new());
    for id in ids {
        id_column.append_value(id)?;
        // Tokens that were imported know no origin.
        let values = origins.remove(id).unwrap_or_default();
        origin.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
    }
    let repeated = |text: &str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, ids.len())))
    };
    let none: ArrayRef = Arc::new(StringViewArray::new_null(ids.len()));
    let [source, kind, locator] =
        origin.map(|mut column| -> ArrayRef { Arc::new(column.finish()) });
    let columns: Vec<ArrayRef> = vec![
        Arc::new(id_column.finish()),
        repeated("takedown"),
        repeated("takedown"),
        repeated(reason),
        Arc::clone(&none),
        source,
        kind,
        Arc::clone(&none),
        locator,
        none,
    ];
    Ok(vec![RecordBatch::try_new(DatasetKind::Dropped.schema(), columns)?])
}

/// Which runs need the versions that erasing removes.
fn old(corpus: &Path, versions: &[(String, u64)]) -> Result<Vec<Old>> {
    let mut found = Vec::new();
    for (dataset, version) in versions {
        let runs = match dataset == DatasetKind::Tokens.name() {
            true => lineage::trained_with(corpus, *version)?,
            false => Vec::new(),
        };
        found.push(Old { dataset: dataset.clone(), version: *version, runs });
    }
    Ok(found)
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Report {
    fn show(&self, arguments: &TakedownArguments) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
        if self.asked > 0 {
            let verb = if self.is_dry_run { "would be taken down" } else { "taken down" };
            line(format!(
                "{} ids: {} {verb}, {} were before, {} unknown",
                self.asked,
                self.taken,
                self.already,
                self.unknown.len()
            ));
        }
        for id in self.unknown.iter().take(IDS_SHOWN) {
            line(format!("  unknown: {id}"));
        }
        for Change { dataset, from, version, rows } in &self.changes {
            line(format!("  {dataset}: version {version} is version {from} without {rows} rows"));
        }
        for Held { dataset, version, shard, rows } in &self.shards {
            line(format!("  {dataset}@{version} has {rows} rows in {shard}"));
        }
        for seen in &self.runs {
            let Seen { run, version, documents, sequences, checkpoints, .. } = seen;
            match &seen.steps {
                None => line(format!(
                    "  run {run} was trained on tokens@{version}, which is gone: unknown what it saw"
                )),
                Some(steps) => line(format!(
                    "  run {run} saw {documents} of them in {sequences} sequences of {} steps, {} to {}; checkpoints: {}",
                    steps.n,
                    steps.first,
                    steps.last,
                    if checkpoints.is_empty() {
                        "none is left".into()
                    } else {
                        checkpoints.join(", ")
                    }
                )),
            }
        }
        if !self.copies.is_empty() {
            let n = self.copies.len();
            line(format!(
                "{n} copies of them are not taken down, and the next run that compares documents keeps one of each cluster: `--copies` takes them down, too"
            ));
            for id in self.copies.iter().take(IDS_SHOWN) {
                line(format!("  copy: {id}"));
            }
        }
        if !self.old_versions.is_empty() {
            line(match (arguments.erase, arguments.yes) {
                (true, true) => "erased, with every file that only they named:".to_owned(),
                (true, false) => "`--yes` would erase, for good:".to_owned(),
                _ => "old versions still have them, until `--erase`:".to_owned(),
            });
        }
        for Old { dataset, version, runs } in &self.old_versions {
            line(format!("  {dataset}@{version}"));
            if !runs.is_empty() {
                line(format!(
                    "    without it the runs {} cannot go on, and nobody can say any more what their steps saw",
                    runs.join(", ")
                ));
            }
        }
        text
    }
}
