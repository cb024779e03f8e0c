//! From a training step back to its documents: the table function `trained_on(run, from_step, to_step)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as EngineResult, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{JoinType, LogicalPlanBuilder, col};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, SequenceReader};
use shard::schema::{DatasetKind, ID_BYTES};

use crate::catalog::{number_literal, table, text_literal};
use crate::session::{Files, no_file};
use crate::{Error, Result};

/// What the trainer writes into a run's folder for this purpose.
const RUN_FILE: &str = "run.json";

/// Makes `trained_on(run, from_step, to_step)` callable in `ctx`.
pub(crate) fn register(ctx: &SessionContext, corpus: &Path) {
    let files = Files::of(ctx);
    let here = (files == Files::Any).then_some(Path::new(""));
    let bases = [Some(corpus), corpus.parent(), here];
    let bases = bases.into_iter().flatten().map(Path::to_owned).collect();
    ctx.register_udtf("trained_on", Arc::new(TrainedOn { bases, files }));
}

/// The part of `run.json` that decides which sequences a step saw.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    tokens: RunTokens,
    seq_len: usize,
    batch_sequences: u64,
    seed: u64,
    /// Updates made so far.
    steps_done: u64,
}

/// The version of a dataset that a run reads.
#[derive(Clone, Debug, Deserialize)]
struct RunTokens {
    /// Relative to the run's folder.
    dataset: PathBuf,
    version: u64,
    manifest: String,
    split: String,
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

/// Returns the steps of the run `name` that saw each of `documents`; those that no step saw are left out.
///
/// Reads where the documents of every sequence of the run begin, not their tokens.
///
/// # Errors
/// When there is no such run, or it was trained on another version than `tokens`.
pub(crate) fn steps(
    name: &str,
    tokens: &Snapshot,
    documents: &BTreeSet<[u8; ID_BYTES as usize]>,
) -> Result<BTreeMap<[u8; ID_BYTES as usize], Steps>> {
    let corpus = tokens.path.parent().unwrap_or(Path::new("")).to_owned();
    let (_, run) =
        TrainedOn { bases: vec![PathBuf::new(), corpus], files: Files::Any }.run(name)?;
    if run.tokens.manifest != tokens.manifest_hash {
        return Err(Error::Job {
            place: name.to_owned(),
            message: format!(
                "it was trained on manifest {}, version {} of `{}` is {}",
                run.tokens.manifest,
                tokens.version,
                tokens.path.display(),
                tokens.manifest_hash
            ),
            hint: Some("name the dataset that the run was trained on".to_owned()),
        });
    }
    let mut reader = run.reader(&tokens.path)?;
    let mut seen: BTreeMap<_, Steps> = BTreeMap::new();
    for step in 1..=run.steps_done {
        for sample in (step - 1) * run.batch_sequences..step * run.batch_sequences {
            for part in reader.documents(sample)? {
                if !documents.contains(&part.document_id) {
                    continue;
                }
                let steps =
                    seen.entry(part.document_id).or_insert(Steps { first: step, last: 0, n: 0 });
                steps.n += u64::from(steps.last != step);
                steps.last = step;
            }
        }
    }
    Ok(seen)
}

/// Returns a table of the runs whose folders are given with their names: what each was trained on, and how far.
///
/// A folder without `run.json` is no run.
///
/// # Errors
/// When a `run.json` cannot be read.
pub(crate) fn runs(folders: &[(String, PathBuf)]) -> Result<RecordBatch> {
    let mut found = Vec::new();
    for (name, folder) in folders {
        if let Some(run) = read_run(folder)? {
            found.push((name, run));
        }
    }
    let text = |value: &dyn Fn(&(&String, Run)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(value)))
    };
    let count = |value: &dyn Fn(&Run) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(found.iter().map(|(_, run)| value(run))))
    };
    Ok(RecordBatch::try_from_iter([
        ("run", text(&|(name, _)| (*name).clone())),
        ("steps_done", count(&|run| run.steps_done)),
        ("seq_len", count(&|run| run.seq_len as u64)),
        ("batch_sequences", count(&|run| run.batch_sequences)),
        ("seed", count(&|run| run.seed)),
        ("dataset", text(&|(_, run)| run.tokens.dataset.display().to_string())),
        ("version", count(&|run| run.tokens.version)),
        ("split", text(&|(_, run)| run.tokens.split.clone())),
        ("manifest_hash", text(&|(_, run)| run.tokens.manifest.clone())),
    ])?)
}

/// What the trainer wrote into the folder of a run, nothing where it wrote nothing.
fn read_run(folder: &Path) -> Result<Option<Run>> {
    let path = folder.join(RUN_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(shard::Error::io("read", &path)(error).into()),
    };
    let run = serde_json::from_slice(&bytes).map_err(|error| shard::Error::Corrupt {
        what: format!("run `{}`", path.display()),
        why: error.to_string(),
        hint: "it is written by `gristmill train`: train again, or name another run".into(),
    })?;
    Ok(Some(run))
}

impl Run {
    fn reader(&self, tokens: &Path) -> Result<SequenceReader> {
        let config = ReaderConfig {
            split: self.tokens.split.clone(),
            seq_len: self.seq_len,
            seed: self.seed,
            verify: false,
            packing: Packing::Stream,
            mask_documents: false,
        };
        Ok(SequenceReader::open(tokens, Some(self.tokens.version), config)?)
    }
}

/// Rows: step, sequence, sequence_offset, document_id, url, locator, source, first_token, n_tokens; ordered by step, sequence and offset.
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
        let (folder, run) = self.run(name)?;
        if from == 0 || from > to || to > run.steps_done {
            return plan_err!(
                "steps {from} to {to} of `{name}` do not exist: it has made the steps 1 to {}",
                run.steps_done
            );
        }
        let tokens = folder.join(&run.tokens.dataset);
        let snapshot = Dataset::at(&tokens).open(Some(run.tokens.version)).map_err(Error::from)?;
        if snapshot.manifest_hash != run.tokens.manifest {
            return plan_err!(
                "`{name}` was trained on manifest {}, version {} of `{}` is {}",
                run.tokens.manifest,
                run.tokens.version,
                tokens.display(),
                snapshot.manifest_hash
            );
        }
        // The version that the tokens were made from, where the manifest says so.
        let documents = Dataset::at(tokens.join("..").join(DatasetKind::Documents.name()));
        let parents = &snapshot.manifest.parents;
        let parent = parents.iter().find(|parent| parent.dataset == DatasetKind::Documents.name());
        let documents = documents.open(parent.map(|parent| parent.version)).map_err(Error::from)?;
        let runtime = arguments.session().runtime_env();
        let documents = table(runtime, DatasetKind::Documents, &[documents])?;
        let stream = Parts { schema: parts_schema(), tokens, run, from, to };
        let parts = StreamingTable::try_new(parts_schema(), vec![Arc::new(stream)])?;
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
                ]
                .map(|name| col(name).alias(name)),
            )?
            .sort(order)?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

impl TrainedOn {
    fn run(&self, name: &str) -> Result<(PathBuf, Run)> {
        let is_below = |part| matches!(part, Component::Normal(_));
        if self.files == Files::Corpus && !Path::new(name).components().all(is_below) {
            return Err(no_file(&format!("the run `{name}`")));
        }
        let folders: Vec<PathBuf> = self.bases.iter().map(|base| base.join(name)).collect();
        for folder in &folders {
            if let Some(run) = read_run(folder)? {
                return Ok((folder.to_owned(), run));
            }
        }
        Err(shard::Error::Missing {
            what: format!("`{RUN_FILE}` of run `{name}` in any of {folders:?}"),
            hint: "name the folder of a training run, such as `runs/gpt`".to_owned(),
        }
        .into())
    }
}

fn parts_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("step", DataType::UInt64, false),
        Field::new("sequence", DataType::UInt64, false),
        // Of the part in its sequence, in tokens.
        Field::new("sequence_offset", DataType::UInt32, false),
        Field::new("document_id", DataType::FixedSizeBinary(ID_BYTES), false),
        // Of the part, counted from the start of its document.
        Field::new("first_token", DataType::UInt32, false),
        Field::new("n_tokens", DataType::UInt32, false),
    ]))
}

/// The parts of documents in the sequences of some steps, one batch per step.
#[derive(Debug)]
struct Parts {
    schema: SchemaRef,
    tokens: PathBuf,
    run: Run,
    from: u64,
    to: u64,
}

impl PartitionStream for Parts {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let sender = stream.tx();
        let (tokens, run, steps) = (self.tokens.clone(), self.run.clone(), self.from..=self.to);
        stream.spawn_blocking(move || {
            let mut reader = run.reader(&tokens)?;
            for step in steps {
                let batch = step_parts(&mut reader, step, run.batch_sequences)?;
                if sender.blocking_send(Ok(batch)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        stream.build()
    }
}

/// Step `s` (from 1) saw the samples `(s-1)·batch` to `s·batch`.
fn step_parts(reader: &mut SequenceReader, step: u64, batch: u64) -> Result<RecordBatch> {
    let (mut samples, mut positions) = (Vec::new(), Vec::new());
    let (mut firsts, mut counts) = (Vec::new(), Vec::new());
    let mut ids = FixedSizeBinaryBuilder::new(ID_BYTES);
    for sample in (step - 1) * batch..step * batch {
        let mut position = 0;
        for part in reader.documents(sample)? {
            samples.push(sample);
            positions.push(position);
            position += part.n_tokens;
            ids.append_value(part.document_id)?;
            firsts.push(part.first_token_in_document);
            counts.push(part.n_tokens);
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from(vec![step; samples.len()])),
        Arc::new(UInt64Array::from(samples)),
        Arc::new(UInt32Array::from(positions)),
        Arc::new(ids.finish()),
        Arc::new(UInt32Array::from(firsts)),
        Arc::new(UInt32Array::from(counts)),
    ];
    Ok(RecordBatch::try_new(parts_schema(), columns)?)
}
