//! From a training step back to its documents and their bytes, and from a document to every step that saw it.
//!
//! | function | rows |
//! |---|---|
//! | `trained_on(run, from_step, to_step)` | the parts of documents in the sequences of some steps |
//! | `seen_by('id', …)` | the steps of all runs that saw a document; without an id, of every document |
//! | `held_by('id', …)` | the shards of all versions of all datasets that have rows of a document |
//! | `origin('id', …)` | the file, the place in it and the address that a document came from |

mod held_by;
mod origin;
mod parts;
mod rows;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as EngineResult, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{JoinType, LogicalPlanBuilder, col};
use datafusion::prelude::SessionContext;
use serde::Serialize;
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::{DatasetKind, ID_BYTES};

pub(crate) use held_by::{holdings, id_column};
use rows::{AboutDocuments, Rows, Send};
use run::{History, Outcome, RUN_FILE};

use crate::catalog::{number_literal, run_folders, table, text_literal};
use crate::session::{Files, no_file};
use crate::{Error, Result};

pub(crate) type Id = [u8; ID_BYTES as usize];

/// Makes the module's functions callable in `ctx`.
pub(crate) fn register(ctx: &SessionContext, corpus: &Path) {
    let files = Files::of(ctx);
    let here = (files == Files::Any).then_some(Path::new(""));
    let bases = [Some(corpus), corpus.parent(), here];
    let bases = bases.into_iter().flatten().map(Path::to_owned).collect();
    ctx.register_udtf("trained_on", Arc::new(TrainedOn { bases, files }));
    let about =
        |name, schema, make| AboutDocuments { name, schema, make, corpus: corpus.to_owned() };
    for function in [
        about("seen_by", parts::schema, send_seen),
        about("held_by", held_by::schema, held_by::send),
        about("origin", origin::schema, origin::send),
    ] {
        ctx.register_udtf(function.name, Arc::new(function));
    }
}

/// The steps of a run that saw a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// How many.
    pub n: u64,
}

impl Steps {
    fn of(numbers: &BTreeSet<u64>) -> Option<Self> {
        let (first, last) = (*numbers.first()?, *numbers.last()?);
        Some(Self { first, last, n: numbers.len() as u64 })
    }
}

/// Returns the steps of the run `name` that saw each of `documents`; those that no step saw are left out.
///
/// Reads ids and lengths of the dataset's rows, not their tokens. Steps that were skipped or undone count as well.
///
/// # Errors
/// When there is no such run, or it was trained on another version than `tokens`.
pub(crate) fn steps(
    name: &str,
    tokens: &Snapshot,
    documents: &BTreeSet<Id>,
) -> Result<BTreeMap<Id, Steps>> {
    let corpus = tokens.path.parent().unwrap_or(Path::new("")).to_owned();
    let bases = vec![PathBuf::new(), corpus];
    let history = TrainedOn { bases, files: Files::Any }.history(name)?;
    history.check_is_known()?;
    if history.run.tokens.manifest != tokens.manifest_hash {
        return Err(run::other_manifest(name, &history.run.tokens, tokens));
    }
    let mut seen: BTreeMap<Id, BTreeSet<u64>> = BTreeMap::new();
    for (step, _, _, part) in parts::find(&history, &history.reader(&tokens.path)?, documents)? {
        seen.entry(part.document_id).or_default().insert(step.number);
    }
    Ok(seen.into_iter().filter_map(|(id, numbers)| Some((id, Steps::of(&numbers)?))).collect())
}

/// What a run saw of some documents.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    /// The run's name.
    pub(crate) run: String,
    /// The version of `tokens` that it was trained on.
    pub(crate) version: u64,
    /// Whether that version is gone or one of a mixture, so that nobody can say what the run saw.
    pub(crate) is_unknown: bool,
    /// Those of the documents that a step saw.
    pub(crate) documents: u64,
    /// Sequences with tokens of them, each as often as it was read.
    pub(crate) sequences: u64,
    /// Steps that saw them, undone and skipped ones too.
    pub(crate) steps: Option<Steps>,
    /// Checkpoints and models that are there and came of a step that saw them.
    pub(crate) checkpoints: Vec<String>,
}

/// Returns what each run of `corpus` saw of `documents`; runs that saw none of them are left out.
///
/// # Errors
/// When a run or its dataset cannot be read.
pub(crate) fn seen(corpus: &Path, documents: &BTreeSet<Id>) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    for history in histories(corpus)? {
        let mut seen = Seen {
            run: history.name.clone(),
            version: history.run.tokens.version,
            is_unknown: true,
            documents: 0,
            sequences: 0,
            steps: None,
            checkpoints: Vec::new(),
        };
        let Some(tokens) = history.tokens()? else {
            all.push(seen);
            continue;
        };
        let found = parts::find(&history, &history.reader(&tokens.path)?, documents)?;
        let made = found.iter().filter(|(step, ..)| step.outcome != Outcome::Undone);
        let first = made.map(|(step, ..)| step.number).min();
        let kept = history.checkpoints.iter().filter(|checkpoint| {
            checkpoint.is_kept && first.is_some_and(|first| checkpoint.step >= first)
        });
        seen.is_unknown = false;
        seen.documents =
            found.iter().map(|(.., part)| part.document_id).collect::<BTreeSet<_>>().len() as u64;
        seen.sequences =
            found.iter().map(|(_, sample, ..)| *sample).collect::<BTreeSet<_>>().len() as u64;
        seen.steps = Steps::of(&found.iter().map(|(step, ..)| step.number).collect());
        seen.checkpoints = kept.map(|checkpoint| checkpoint.name.clone()).collect();
        if seen.steps.is_some() {
            all.push(seen);
        }
    }
    Ok(all)
}

/// Returns the names of the runs that were trained on a version of the corpus's `tokens`.
///
/// # Errors
/// When a run cannot be read.
pub(crate) fn trained_with(corpus: &Path, version: u64) -> Result<Vec<String>> {
    let own = corpus.join(DatasetKind::Tokens.name());
    let own = own.canonicalize().unwrap_or(own);
    let mut found = Vec::new();
    for history in histories(corpus)? {
        if history.has_read(&own, version) {
            found.push(history.name);
        }
    }
    Ok(found)
}

/// The runs in and beside a corpus.
fn histories(corpus: &Path) -> Result<Vec<History>> {
    let mut found = Vec::new();
    for (name, folder) in run_folders(corpus)? {
        found.extend(History::read(&name, &folder)?);
    }
    Ok(found)
}

/// Returns two tables of the runs whose folders are given with their names: what each was trained on, and how far; and
/// its checkpoints and finished models, those that are there, and those that gave way to newer ones.
///
/// A folder without `run.json` is no run.
///
/// # Errors
/// When a `run.json` or a run's folder cannot be read.
pub(crate) fn tables(folders: &[(String, PathBuf)]) -> Result<[RecordBatch; 2]> {
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for (name, folder) in folders {
        if let Some(run) = run::read_run(folder)? {
            left.extend(run::checkpoints(folder, &run)?.into_iter().map(|it| (name, it)));
            found.push((name, run));
        }
    }
    Ok([runs(&found)?, checkpoints(&left)?])
}

fn runs(found: &[(&String, run::Run)]) -> Result<RecordBatch> {
    // A row for each dataset of a run.
    let rows: Vec<(&String, &run::Run, &run::RunTokens)> = found
        .iter()
        .flat_map(|(name, run)| run.datasets().map(move |tokens| (*name, run, tokens)))
        .collect();
    let text = |value: &dyn Fn(&run::RunTokens) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, _, tokens)| value(tokens))))
    };
    let count = |value: &dyn Fn(&run::Run) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, run, _)| value(run))))
    };
    let names = StringArray::from_iter_values(rows.iter().map(|(name, ..)| name));
    let versions = UInt64Array::from_iter_values(rows.iter().map(|(.., tokens)| tokens.version));
    Ok(RecordBatch::try_from_iter([
        ("run", Arc::new(names) as ArrayRef),
        ("steps_done", count(&|run| run.steps_done)),
        ("seq_len", count(&|run| run.seq_len as u64)),
        ("batch_sequences", count(&|run| run.batch_sequences)),
        ("seed", count(&|run| run.seed)),
        ("dataset", text(&|tokens| tokens.dataset.display().to_string())),
        ("version", Arc::new(versions)),
        ("split", text(&|tokens| tokens.split.clone())),
        ("manifest_hash", text(&|tokens| tokens.manifest.clone())),
    ])?)
}

fn checkpoints(found: &[(&String, run::Checkpoint)]) -> Result<RecordBatch> {
    let runs: ArrayRef = Arc::new(StringArray::from_iter_values(found.iter().map(|(run, _)| run)));
    let names = found.iter().map(|(_, checkpoint)| &checkpoint.name);
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let steps = found.iter().map(|(_, checkpoint)| checkpoint.step);
    let steps: ArrayRef = Arc::new(UInt64Array::from_iter_values(steps));
    let kept: Vec<bool> = found.iter().map(|(_, checkpoint)| checkpoint.is_kept).collect();
    let kept: ArrayRef = Arc::new(BooleanArray::from(kept));
    let columns = [("run", runs), ("checkpoint", names), ("step", steps), ("is_kept", kept)];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Ordered by step, sequence and offset.
#[derive(Debug)]
struct TrainedOn {
    /// Runs are named relative to one of these: the corpus, the folder it lies in, the working directory.
    bases: Vec<PathBuf>,
    files: Files,
}

impl TableFunctionImpl for TrainedOn {
    fn call_with_args(
        &self,
        arguments: TableFunctionArgs<'_, '_>,
    ) -> EngineResult<Arc<dyn TableProvider>> {
        let (name, from, to) = match arguments.exprs() {
            [run, from, to] => (text_literal(run), number_literal(from), number_literal(to)),
            _ => (None, None, None),
        };
        let (Some(name), Some(from), Some(to)) = (name, from, to) else {
            return plan_err!(
                "`trained_on` takes a run and two steps as literals: `trained_on('runs/gpt', 1, 10)`"
            );
        };
        let history = self.history(name)?;
        if from == 0 || from > to || to > history.run.steps_done {
            return plan_err!(
                "steps {from} to {to} of `{name}` do not exist: it has made the steps 1 to {}",
                history.run.steps_done
            );
        }
        history.check_is_known()?;
        let tokens = history.dataset();
        let snapshot = tokens.open(Some(history.run.tokens.version)).map_err(Error::from)?;
        if snapshot.manifest_hash != history.run.tokens.manifest {
            return Err(run::other_manifest(name, &history.run.tokens, &snapshot).into());
        }
        // The version that the tokens were made from, where the manifest says so.
        let documents = Dataset::at(tokens.path().join("..").join(DatasetKind::Documents.name()));
        let parents = &snapshot.manifest.parents;
        let parent = parents.iter().find(|parent| parent.dataset == DatasetKind::Documents.name());
        let documents = documents.open(parent.map(|parent| parent.version)).map_err(Error::from)?;
        let runtime = arguments.session().runtime_env();
        let documents = table(runtime, DatasetKind::Documents, &[documents])?;
        let parts = Rows::table(parts::schema(), move |send| {
            let is_wanted = |step: run::Step| (from..=to).contains(&step.number);
            parts::send_steps(&history, tokens.path(), is_wanted, send)
        })?;
        let right = LogicalPlanBuilder::scan("documents", provider_as_source(documents), None)?;
        let right = right.project(["id", "url", "locator", "source"].map(col))?.build()?;
        let order = ["step", "sequence", "sequence_offset"].map(|name| col(name).sort(true, false));
        let plan = LogicalPlanBuilder::scan("parts", provider_as_source(Arc::new(parts)), None)?
            .join(right, JoinType::Left, (vec!["document_id"], vec!["id"]), None)?
            .project(
                [
                    "step",
                    "sequence",
                    "sequence_offset",
                    "document_id",
                    "url",
                    "locator",
                    "source",
                    "first_token",
                    "n_tokens",
                    "outcome",
                ]
                .map(|name| col(name).alias(name)),
            )?
            .sort(order)?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

impl TrainedOn {
    fn history(&self, name: &str) -> Result<History> {
        let is_below = |part| matches!(part, Component::Normal(_));
        if self.files == Files::Corpus && !Path::new(name).components().all(is_below) {
            return Err(no_file(&format!("the run `{name}`")));
        }
        let folders: Vec<PathBuf> = self.bases.iter().map(|base| base.join(name)).collect();
        for folder in &folders {
            if let Some(history) = History::read(name, folder)? {
                return Ok(history);
            }
        }
        Err(shard::Error::Missing {
            what: format!("`{RUN_FILE}` of run `{name}` in any of {folders:?}"),
            hint: "name the folder of a training run, such as `runs/gpt`".to_owned(),
        }
        .into())
    }
}

/// The rows of `seen_by('id', …)`: one run after the other, each in the order of its steps.
fn send_seen(corpus: &Path, documents: Option<&BTreeSet<Id>>, send: Send<'_>) -> Result<()> {
    for history in histories(corpus)? {
        let Some(tokens) = history.tokens()? else {
            send(parts::Parts::of(&history).unknown()?);
            continue;
        };
        match documents {
            Some(documents) => parts::send_documents(&history, &tokens.path, documents, send)?,
            None => parts::send_steps(&history, &tokens.path, |_| true, send)?,
        }
    }
    Ok(())
}
