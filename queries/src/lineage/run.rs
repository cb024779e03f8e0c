//! What a training run wrote about itself: which samples each step saw, and what became of the step.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, UInt64Type};
use serde::Deserialize;
use shard::dataset::Snapshot;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, SequenceReader};
use shard::schema::DatasetKind;
use shard::{Dataset, store};

use crate::stage::tokens::read_columns;
use crate::{Error, Result};

/// What the trainer writes into a run's folder for this purpose.
pub(super) const RUN_FILE: &str = "run.json";
/// The measurement that says whether a step's update was left out.
const SKIPPED: &str = "train/skipped";
/// The finished models of a run, beside its checkpoints.
const MODELS: [&str; 2] = ["model", "average"];

/// The part of `run.json` that decides which sequences a step saw.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Run {
    /// The dataset that it reads, the first of a mixture.
    pub(super) tokens: RunTokens,
    /// All datasets, where they are several.
    #[serde(default)]
    mixture: Vec<RunTokens>,
    pub(super) seq_len: usize,
    #[serde(default)]
    packing: Packing,
    #[serde(default)]
    mask_documents: bool,
    pub(super) batch_sequences: u64,
    pub(super) seed: u64,
    steps: u64,
    /// Updates made so far.
    pub(super) steps_done: u64,
    #[serde(default)]
    rollbacks: Vec<Rollback>,
    recipe: Recipe,
}

/// The version of a dataset that a run reads.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunTokens {
    /// Relative to the run's folder.
    pub(super) dataset: PathBuf,
    pub(super) version: u64,
    pub(super) manifest: String,
    pub(super) split: String,
}

/// A run that went back from a step to a checkpoint, and on with the samples that came next.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Rollback {
    from_step: u64,
    to_step: u64,
    next_sample: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Recipe {
    train: RecipeTrain,
}

#[derive(Clone, Debug, Deserialize)]
struct RecipeTrain {
    checkpoint_every: u64,
}

/// What became of a step that saw a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The model learned from it.
    Made,
    /// Its loss or gradient was a spike, and its update was left out.
    Skipped,
    /// The run went back to a checkpoint before it.
    Undone,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Skipped => "skipped",
            Self::Undone => "undone",
        }
    }
}

/// Steps that followed each other without a way back. Their samples are behind those of the stretches before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    first_step: u64,
    last_step: u64,
    first_sample: u64,
    /// Later steps were undone.
    last_made: u64,
}

/// A step as a run made it: after a rollback, the same number stands for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) first_sample: u64,
    pub(super) outcome: Outcome,
}

/// A checkpoint or finished model of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Its folder in the run's `checkpoints`; `model` or `average` for finished models.
    pub(super) name: String,
    pub(super) step: u64,
    /// Whether it is there.
    pub(super) is_kept: bool,
}

/// A run and all its steps.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) run: Run,
    stretches: Vec<Stretch>,
    skipped: BTreeSet<u64>,
    /// By step.
    pub(super) checkpoints: Vec<Checkpoint>,
}

impl History {
    /// Reads what the run in `folder` wrote, nothing where it wrote nothing.
    pub(super) fn read(name: &str, folder: &Path) -> Result<Option<Self>> {
        let Some(run) = read_run(folder)? else { return Ok(None) };
        Ok(Some(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            stretches: run.stretches(),
            skipped: skipped(folder)?,
            checkpoints: checkpoints(folder, &run)?,
            run,
        }))
    }

    /// The dataset that it was trained on.
    pub(super) fn dataset(&self) -> Dataset {
        Dataset::at(store::join(&self.folder, &self.run.tokens.dataset))
    }

    /// Whether it was trained on a version of the dataset in the folder `own`.
    pub(super) fn has_read(&self, own: &Path, version: u64) -> bool {
        self.run.datasets().any(|tokens| {
            let path = store::join(&self.folder, &tokens.dataset);
            path.canonicalize().unwrap_or(path) == own && tokens.version == version
        })
    }

    /// Refuses a run whose steps nobody can follow.
    ///
    /// # Errors
    /// When it reads a mixture.
    pub(super) fn check_is_known(&self) -> Result<()> {
        match self.run.mixture.len() {
            0 => Ok(()),
            n => Err(Error::Job {
                place: self.name.clone(),
                message: format!("it was trained on a mixture of {n} datasets"),
                hint: Some("what a step saw is known of runs on one dataset".to_owned()),
            }),
        }
    }

    /// The version that it was trained on, nothing when it is gone, or is one of a mixture.
    ///
    /// # Errors
    /// When the dataset has another version of that number.
    pub(super) fn tokens(&self) -> Result<Option<Snapshot>> {
        let tokens = &self.run.tokens;
        let dataset = self.dataset();
        if !self.run.mixture.is_empty() || !dataset.versions()?.contains(&tokens.version) {
            return Ok(None);
        }
        let snapshot = dataset.open(Some(tokens.version))?;
        match snapshot.manifest_hash == tokens.manifest {
            true => Ok(Some(snapshot)),
            false => Err(other_manifest(&self.name, tokens, &snapshot)),
        }
    }

    pub(super) fn reader(&self, tokens: &Path) -> Result<SequenceReader> {
        let config = ReaderConfig {
            split: self.run.tokens.split.clone(),
            partition: None,
            seq_len: self.run.seq_len,
            seed: self.run.seed,
            verify: false,
            packing: self.run.packing,
            mask_documents: self.run.mask_documents,
        };
        Ok(SequenceReader::open(tokens, Some(self.run.tokens.version), config)?)
    }

    /// All steps in the order in which they were made.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step> {
        let stretches = self.stretches.iter();
        stretches.flat_map(|it| (it.first_step..=it.last_step).map(|step| self.step_in(it, step)))
    }

    /// Samples that steps have seen.
    pub(super) fn n_samples(&self) -> u64 {
        let last = self.stretches.last().expect("there is one behind the last rollback");
        last.first_sample + (last.last_step + 1 - last.first_step) * self.run.batch_sequences
    }

    /// The step that saw a sample, nothing for samples that none has seen.
    pub(super) fn step_of(&self, sample: u64) -> Option<Step> {
        let at = self.stretches.partition_point(|stretch| stretch.first_sample <= sample) - 1;
        let stretch = &self.stretches[at];
        let n = (sample - stretch.first_sample) / self.run.batch_sequences;
        let step = stretch.first_step + n;
        (step <= stretch.last_step).then(|| self.step_in(stretch, step))
    }

    fn step_in(&self, stretch: &Stretch, number: u64) -> Step {
        let batches = number - stretch.first_step;
        let outcome = match number {
            _ if number > stretch.last_made => Outcome::Undone,
            _ if self.skipped.contains(&number) => Outcome::Skipped,
            _ => Outcome::Made,
        };
        let first_sample = stretch.first_sample + batches * self.run.batch_sequences;
        Step { number, first_sample, outcome }
    }

    /// The first checkpoint that is still there and came of a step; of an undone step, none did.
    pub(super) fn checkpoint_of(&self, step: Step) -> Option<&Checkpoint> {
        let mut kept = self.checkpoints.iter().filter(|checkpoint| checkpoint.is_kept);
        kept.find(|it| step.outcome != Outcome::Undone && it.step >= step.number)
    }
}

/// The error of a run that was trained on another version than `found`.
pub(super) fn other_manifest(name: &str, tokens: &RunTokens, found: &Snapshot) -> Error {
    Error::Job {
        place: name.to_owned(),
        message: format!(
            "it was trained on manifest {}, version {} of `{}` is {}",
            tokens.manifest,
            found.version,
            found.path.display(),
            found.manifest_hash
        ),
        hint: Some("name the dataset that the run was trained on".to_owned()),
    }
}

impl Run {
    /// What it reads.
    pub(super) fn datasets(&self) -> impl Iterator<Item = &RunTokens> {
        let is_one = self.mixture.is_empty();
        is_one.then_some(&self.tokens).into_iter().chain(&self.mixture)
    }

    fn stretches(&self) -> Vec<Stretch> {
        let mut found = Vec::new();
        let (mut first_step, mut first_sample) = (1, 0);
        for rollback in &self.rollbacks {
            let last_step = rollback.from_step;
            found.push(Stretch { first_step, last_step, first_sample, last_made: last_step });
            (first_step, first_sample) = (rollback.to_step + 1, rollback.next_sample);
        }
        let last_step = self.steps_done;
        found.push(Stretch { first_step, last_step, first_sample, last_made: last_step });
        // A later rollback may go back behind the beginning of its own stretch.
        for (index, rollback) in self.rollbacks.iter().enumerate() {
            for stretch in &mut found[..=index] {
                stretch.last_made = stretch.last_made.min(rollback.to_step);
            }
        }
        found
    }
}

/// What the trainer wrote into the folder of a run, nothing where it wrote nothing.
pub(super) fn read_run(folder: &Path) -> Result<Option<Run>> {
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
    let read = || -> serde_json::Result<Run> {
        let mut run: serde_json::Value = serde_json::from_slice(&bytes)?;
        if let Some(first) = run.pointer("/mixture/0").cloned() {
            run["tokens"] = first;
        }
        serde_json::from_value(run)
    };
    let run = read().map_err(|error| shard::Error::Corrupt {
        what: format!("run `{}`", path.display()),
        why: error.to_string(),
        hint: "it is written by `gristmill train`: train again, or name another run".into(),
    })?;
    Ok(Some(run))
}

/// The steps whose update was left out, as the run's measurements say.
fn skipped(folder: &Path) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let dataset = Dataset::at(folder.join(DatasetKind::Metrics.name()));
    let Some(metrics) = dataset.newest()? else { return Ok(found) };
    for shard in &metrics.manifest.shards {
        read_columns(&metrics, shard, &["step", "name", "value"], |batch| {
            let steps = batch.column(0).as_primitive::<UInt64Type>();
            let names = batch.column(1).as_string::<i32>();
            let values = batch.column(2).as_primitive::<Float64Type>();
            for row in 0..batch.num_rows() {
                if names.value(row) == SKIPPED && values.value(row) > 0.0 {
                    found.insert(steps.value(row));
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// The checkpoints that are there, and those that the recipe asked for and that gave way to newer ones.
pub(super) fn checkpoints(folder: &Path, run: &Run) -> Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    for name in store::list(&folder.join("checkpoints"))? {
        if let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) {
            found.push(Checkpoint { name, step, is_kept: true });
        }
    }
    let kept: BTreeSet<u64> = found.iter().map(|checkpoint| checkpoint.step).collect();
    let every = usize::try_from(run.recipe.train.checkpoint_every.max(1)).unwrap_or(usize::MAX);
    for step in (0..=run.steps_done).step_by(every).filter(|step| !kept.contains(step)) {
        found.push(Checkpoint { name: format!("step-{step:08}"), step, is_kept: false });
    }
    for name in MODELS {
        if run.steps_done == run.steps && folder.join(name).is_dir() {
            found.push(Checkpoint { name: name.to_owned(), step: run.steps_done, is_kept: true });
        }
    }
    // A checkpoint before the models that were made of it.
    found.sort_by(|a, b| (a.step, &b.name).cmp(&(b.step, &a.name)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_those_that_rollbacks_left() {
        // Checkpoints every 4 steps, batches of 2. Steps 1 to 6, back to 4; 5 to 7, back to 4; 5 to 8.
        let run = json!({
            "tokens": { "dataset": "t", "version": 1, "manifest": "m", "split": "train" },
            "seq_len": 8, "packing": "stream", "batch_sequences": 2, "seed": 1,
            "steps": 8, "steps_done": 8, "recipe": { "train": { "checkpoint_every": 4 } },
            "rollbacks": [
                { "from_step": 6, "to_step": 4, "next_sample": 12 },
                { "from_step": 7, "to_step": 4, "next_sample": 18 },
            ],
        });
        let run: Run = serde_json::from_value(run).unwrap();
        let kept = |step: u64| Checkpoint { name: format!("{step}"), step, is_kept: true };
        let history = History {
            name: "r".to_owned(),
            folder: PathBuf::new(),
            stretches: run.stretches(),
            skipped: BTreeSet::from([3]),
            checkpoints: vec![kept(4), kept(8)],
            run,
        };
        use Outcome::{Made, Skipped, Undone};
        let steps: Vec<_> =
            history.steps().map(|it| (it.number, it.first_sample, it.outcome)).collect();
        let expected = [
            (1, 0, Made),
            (2, 2, Made),
            (3, 4, Skipped),
            (4, 6, Made),
            (5, 8, Undone),
            (6, 10, Undone),
            (5, 12, Undone),
            (6, 14, Undone),
            (7, 16, Undone),
            (5, 18, Made),
            (6, 20, Made),
            (7, 22, Made),
            (8, 24, Made),
        ];
        assert_eq!(steps, expected);
        for step in history.steps() {
            for sample in step.first_sample..step.first_sample + 2 {
                assert_eq!(history.step_of(sample), Some(step), "sample {sample}");
            }
            let checkpoint = history.checkpoint_of(step).map(|it| it.step);
            let expected = match step.number {
                _ if step.outcome == Undone => None,
                number => Some(if number <= 4 { 4 } else { 8 }),
            };
            assert_eq!(checkpoint, expected, "{step:?}");
        }
        assert_eq!(history.step_of(26), None);
    }

    #[test]
    fn a_later_rollback_can_undo_what_an_earlier_one_left() {
        let rollback =
            |from_step, to_step, next_sample| Rollback { from_step, to_step, next_sample };
        let run = json!({
            "tokens": { "dataset": "t", "version": 1, "manifest": "m", "split": "train" },
            "seq_len": 8, "batch_sequences": 1, "seed": 1, "steps": 9, "steps_done": 2,
            "recipe": { "train": { "checkpoint_every": 2 } },
        });
        let mut run: Run = serde_json::from_value(run).unwrap();
        run.rollbacks = vec![rollback(6, 4, 6), rollback(6, 2, 8)];
        let last_made: Vec<u64> = run.stretches().iter().map(|it| it.last_made).collect();
        assert_eq!(last_made, [2, 2, 2]);
    }
}
