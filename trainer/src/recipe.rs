//! The recipe of a run: one TOML file. Every default stands here, once.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use shard::config;
use shard::packing::Packing;
use shard::store;
use toml::Table;

use crate::adapter;
use crate::error::{Error, Result};
use crate::objective;
use crate::optimizer;
use crate::schedule::{Decay, Schedule, Shape};
use crate::sources::{Phase, Sources};

/// A run as its author wants it. Paths are relative to the recipe's folder until [`Recipe::load`] resolves them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The dataset of tokens, or several as tables `[[data]]`.
    pub data: Sources,
    /// Version of the one dataset's manifest; by default the newest when the run starts.
    pub data_version: Option<u64>,
    /// Other weights of the datasets in later steps, a table `[[phase]]` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase: Vec<Phase>,
    /// How documents fill sequences: `stream` or `best_fit`; by default `best_fit` for `supervised` only.
    pub packing: Option<Packing>,
    /// The run's folder.
    pub run: PathBuf,
    /// What is trained.
    pub model: Model,
    /// What it is trained to do.
    #[serde(default)]
    pub objective: objective::Config,
    /// Trains small matrices beside frozen weights (`model.from` only).
    pub adapter: Option<adapter::Config>,
    /// How long and on what.
    pub train: Train,
    /// How parameters are updated.
    #[serde(default)]
    pub optimizer: Optimizer,
}

/// What is trained: a fresh model of some `kind`, or the one in the folder `from`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// `bert`, `gpt2` or `llama`.
    pub kind: Option<String>,
    /// A Hugging Face folder to start from.
    pub from: Option<PathBuf>,
    /// Blocks.
    pub n_layer: u64,
    /// Query heads.
    pub n_head: u64,
    /// Key and value heads (`llama`); by default as many as query heads.
    pub n_kv_head: Option<u64>,
    /// Width.
    pub n_embd: u64,
    /// Width of the feed-forward part; by default 4 times the width (`gpt2`), 8/3 of it (`llama`).
    pub n_ffn: Option<u64>,
    /// Tokens per sequence.
    pub seq_len: u64,
    /// Share of activations that dropout zeroes in training.
    pub dropout: f64,
    /// Whether the head is the token embedding; by default for `gpt2` only.
    pub tie_embeddings: Option<bool>,
    /// Base of the rotary frequencies (`llama`).
    pub rope_theta: f64,
    /// The vocabulary is padded to a multiple of this.
    pub vocab_multiple: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            kind: None,
            from: None,
            n_layer: 4,
            n_head: 4,
            n_kv_head: None,
            n_embd: 128,
            n_ffn: None,
            seq_len: 256,
            dropout: 0.0,
            tie_embeddings: None,
            rope_theta: 10_000.0,
            vocab_multiple: 64,
        }
    }
}

/// How long a run is, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Optimizer updates.
    pub steps: u64,
    /// Sequences per update.
    pub batch_sequences: u64,
    /// Sequences per pass; by default all of the batch.
    pub micro_batch_sequences: Option<u64>,
    /// Seeds weights, data order and dropout.
    pub seed: u64,
    /// `fp32` or `bf16`.
    pub precision: Precision,
    /// Keep only the input of each block, and compute the rest again for the gradients: less memory, a third more time.
    pub activation_checkpointing: bool,
    /// Tokens whose logits exist at a time; by default all.
    pub loss_chunk_tokens: Option<u64>,
    /// Threads of CPU kernels; by default what libtorch chooses.
    pub threads: Option<u32>,
    /// Steps between checkpoints; one is always written at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept, at least two.
    pub checkpoints_kept: usize,
    /// Steps between evaluations; one is always made before and after.
    pub evaluate_every: u64,
    /// Held-out sequences per evaluation; 0 makes none.
    pub evaluate_sequences: u64,
    /// Standard deviations above the last steps' mean beyond which a loss or gradient norm is a spike, and its step is
    /// skipped; 0 skips only what is no finite number.
    pub spike_sigmas: f64,
    /// Steps in a row that may be skipped; one more rolls the run back to its last good checkpoint.
    pub skips_max: u64,
    /// Times that a run may roll back; the data goes on behind the steps that were skipped.
    pub rollbacks_max: u64,
    /// Whether each of several processes updates some of the parameters, and remembers what the optimizer must of these
    /// alone (ZeRO's first stage).
    pub shard_optimizer: bool,
    /// Refuse operators whose result depends on the order of threads.
    pub deterministic: bool,
    /// Verify the shards' hashes before they are read.
    pub verify: bool,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_sequences: 16,
            micro_batch_sequences: None,
            seed: 42,
            precision: Precision::Fp32,
            activation_checkpointing: false,
            loss_chunk_tokens: None,
            threads: None,
            checkpoint_every: 100,
            checkpoints_kept: 2,
            evaluate_every: 100,
            evaluate_sequences: 64,
            // As OLMo-core.
            spike_sigmas: 6.0,
            skips_max: 10,
            rollbacks_max: 2,
            shard_optimizer: false,
            deterministic: true,
            verify: true,
        }
    }
}

impl Train {
    /// Sequences per pass.
    #[must_use]
    pub fn micro_batch(&self) -> u64 {
        self.micro_batch_sequences.unwrap_or(self.batch_sequences)
    }
}

/// The kind of numbers in matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    Fp32,
    /// bfloat16 products, float32 weights, reductions and updates.
    Bf16,
}

/// How parameters are updated, with a learning rate that follows a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// `adafactor`, `adam`, `adamw`, `muon` or `sgd`.
    pub kind: String,
    /// The highest learning rate.
    pub lr: f64,
    /// The learning rate at the end; by default a tenth of the highest.
    pub min_lr: Option<f64>,
    /// Steps in which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// `constant`, `cosine`, `inverse_sqrt`, `linear`, `polynomial` or `wsd`.
    pub schedule: Shape,
    /// Steps of the fall at the end of `wsd`; by default a fifth of all.
    pub decay_steps: Option<u64>,
    /// Form of the fall at the end of `wsd`: `cosine`, `linear` or `one_minus_sqrt`.
    pub decay: Option<Decay>,
    /// Exponent of `polynomial`; by default 1.
    pub power: Option<f64>,
    /// Weight decay of matrices and embeddings; vectors have none.
    pub weight_decay: f64,
    /// Decay rates of both moments (`adam`, `adamw`, and `muon` beside its matrices).
    pub betas: [f64; 2],
    /// Keeps the denominator of `adam` and `adamw` from zero.
    pub eps: f64,
    /// Share of the last direction that is kept: by default 0.95 (`muon`), 0.9 (`sgd`).
    pub momentum: Option<f64>,
    /// Whether the gradient is taken where momentum leads (`muon`, `sgd`); by default it is.
    pub nesterov: Option<bool>,
    /// How steps of `muon` depend on the shape: `match_rms_adamw` (the default, so that one learning rate serves all
    /// parameters) or `original`.
    pub muon_scale: Option<MuonScale>,
    /// The highest gradient norm; 0 never clips.
    pub clip: f64,
    /// Keeps a running average of the weights that fades by this factor each step, such as 0.999.
    pub average: Option<f64>,
    /// Parameters with a decay or learning rate of their own; of several that name one, the first decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// Parameters that differ from the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Their names, in which `*` stands for any text: `*.ln_*`.
    pub parameters: String,
    /// Their weight decay.
    pub weight_decay: Option<f64>,
    /// What the learning rate is multiplied with for them.
    pub lr_scale: Option<f64>,
}

/// How the steps of `muon` depend on a matrix's shape `[a, b]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MuonScale {
    /// `sqrt(max(1, a / b))` (Jordan et al. 2024).
    Original,
    /// `0.2 · sqrt(max(a, b))`: as long as AdamW's (Liu et al. 2025).
    MatchRmsAdamw,
}

impl Default for Optimizer {
    // As the GPT-3 paper (Brown et al. 2020, appendix B), but for the learning rate of a small model.
    fn default() -> Self {
        Self {
            kind: "adamw".to_owned(),
            lr: 1e-3,
            min_lr: None,
            warmup_steps: 20,
            schedule: Shape::Cosine,
            decay_steps: None,
            decay: None,
            power: None,
            weight_decay: 0.1,
            betas: [0.9, 0.95],
            eps: 1e-8,
            momentum: None,
            nesterov: None,
            muon_scale: None,
            clip: 1.0,
            average: None,
            groups: Vec::new(),
        }
    }
}

impl Optimizer {
    /// The learning rates of a run of `steps`.
    #[must_use]
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            shape: self.schedule,
            lr: self.lr,
            min_lr: self.min_lr.unwrap_or(self.lr / 10.0),
            warmup_steps: self.warmup_steps,
            steps,
            decay_steps: self.decay_steps.unwrap_or(steps / 5),
            decay: self.decay.unwrap_or_default(),
            power: self.power.unwrap_or(1.0),
        }
    }

    /// Refuses keys that belong to another kind or schedule, and values out of range.
    fn check(&self, place: &str) -> Result<()> {
        let kind = optimizer::find(&self.kind).ok_or_else(|| {
            let known: Vec<_> = optimizer::KINDS.iter().map(|kind| kind.name).collect();
            let nearest = config::nearest(&self.kind, &known);
            let meant = nearest.map(|nearest| format!("did you mean `{nearest}`? "));
            Error::Recipe {
                place: place.to_owned(),
                message: format!("no optimizer is called `{}`", self.kind),
                hint: Some(format!(
                    "{}there are `{}`",
                    meant.unwrap_or_default(),
                    known.join("`, `")
                )),
            }
        })?;
        let defaults = Self::default();
        for (key, is_given) in [
            ("betas", self.betas != defaults.betas),
            ("momentum", self.momentum.is_some()),
            ("muon_scale", self.muon_scale.is_some()),
            ("nesterov", self.nesterov.is_some()),
        ] {
            if is_given && !kind.keys.contains(&key) {
                let kinds = optimizer::KINDS.iter().filter(|kind| kind.keys.contains(&key));
                let kinds: Vec<_> = kinds.map(|kind| kind.name).collect();
                let message = format!(
                    "`optimizer.{key}` is of `{}`, `optimizer.kind` is `{}`",
                    kinds.join("`, `"),
                    self.kind
                );
                return Err(mistake(place, &message));
            }
        }
        for (key, is_given, shape, name) in [
            ("decay_steps", self.decay_steps.is_some(), Shape::Wsd, "wsd"),
            ("decay", self.decay.is_some(), Shape::Wsd, "wsd"),
            ("power", self.power.is_some(), Shape::Polynomial, "polynomial"),
        ] {
            if is_given && self.schedule != shape {
                let found = serde_json::to_value(self.schedule).expect("a name");
                let message = format!(
                    "`optimizer.{key}` is of the schedule `{name}`, `optimizer.schedule` is {found}"
                );
                return Err(mistake(place, &message));
            }
        }
        let rate = |name: &str, value: f64, range: RangeInclusive<f64>| {
            in_range(place, name, value, range)
        };
        rate("optimizer.lr", self.lr, 0.0..=1e3)?;
        rate("optimizer.min_lr", self.min_lr.unwrap_or(0.0), 0.0..=self.lr)?;
        rate("optimizer.betas", self.betas[0], 0.0..=0.999_999_9)?;
        rate("optimizer.betas", self.betas[1], 0.0..=0.999_999_9)?;
        rate("optimizer.eps", self.eps, 0.0..=1.0)?;
        rate("optimizer.momentum", self.momentum.unwrap_or(0.0), 0.0..=0.999_999_9)?;
        rate("optimizer.weight_decay", self.weight_decay, 0.0..=1e3)?;
        rate("optimizer.power", self.power.unwrap_or(1.0), 0.0..=100.0)?;
        rate("optimizer.clip", self.clip, 0.0..=1e9)?;
        rate("optimizer.average", self.average.unwrap_or(0.0), 0.0..=0.999_999_9)?;
        for group in &self.groups {
            rate("optimizer.groups.weight_decay", group.weight_decay.unwrap_or(0.0), 0.0..=1e3)?;
            rate("optimizer.groups.lr_scale", group.lr_scale.unwrap_or(1.0), 0.0..=1e3)?;
        }
        Ok(())
    }
}

impl Recipe {
    /// Reads a recipe, applies `key=value` overrides such as `train.steps=10`, and makes its paths absolute or
    /// relative to the working folder.
    ///
    /// A recipe that says `extends = "other.toml"` has every key of the other that it does not say itself.
    ///
    /// # Errors
    /// [`Error::Shard`] with file, line and column for what cannot be read as a recipe, [`Error::Recipe`] for values that
    /// do not fit each other, or recipes that extend each other in a circle.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let place = path.display().to_string();
        let table = config::load::<IgnoredAny>(path, &[])?.table;
        let is_extended = table.contains_key("extends");
        let mut recipe: Self = if is_extended {
            let text = extended(path, &mut Vec::new())?.to_string();
            config::from_str(&text, &format!("{place}, with what it extends"), overrides)?.value
        } else {
            config::load(path, overrides)?.value
        };
        recipe.check(&place)?;
        if is_extended {
            return Ok(recipe);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        // What stands in the file is relative to the file, what is given beside it to the working folder.
        let is_given = |key: &str| {
            overrides.iter().any(|flag| flag.split('=').next().is_some_and(|k| k.trim() == key))
        };
        let resolve =
            |key: &str, path: PathBuf| if is_given(key) { path } else { folder.join(path) };
        if !is_given("data") {
            recipe.data.resolve(|path| store::join(folder, path));
        }
        recipe.run = resolve("run", recipe.run);
        recipe.model.from = recipe.model.from.map(|from| resolve("model.from", from));
        Ok(recipe)
    }

    /// How documents fill sequences.
    #[must_use]
    pub fn packing(&self) -> Packing {
        // A dialogue that is cut in two teaches half an answer.
        let is_tuned = self.objective.kind == "supervised";
        self.packing.unwrap_or(if is_tuned { Packing::BestFit } else { Packing::Stream })
    }

    fn check(&self, place: &str) -> Result<()> {
        let (train, model) = (&self.train, &self.model);
        if model.kind.is_some() == model.from.is_some() {
            let message = "`model` needs one of `kind` (a fresh model) and `from` (a folder)";
            return Err(mistake(place, message));
        }
        if store::is_object(&self.run) {
            let message = "`run` is in an object store: checkpoints are written to a folder";
            return Err(mistake(place, message));
        }
        if self.adapter.is_some() && model.from.is_none() {
            return Err(mistake(
                place,
                "`adapter` needs `model.from`, the folder of a trained model",
            ));
        }
        for (name, value) in [
            ("train.steps", train.steps),
            ("train.batch_sequences", train.batch_sequences),
            ("train.micro_batch_sequences", train.micro_batch()),
            ("train.loss_chunk_tokens", train.loss_chunk_tokens.unwrap_or(1)),
            ("train.checkpoint_every", train.checkpoint_every),
            ("train.evaluate_every", train.evaluate_every),
            ("model.seq_len", model.seq_len),
            ("model.vocab_multiple", model.vocab_multiple),
            ("model.n_layer", model.n_layer),
            ("model.n_head", model.n_head),
            ("model.n_embd", model.n_embd),
        ] {
            if value == 0 || i64::try_from(value).is_err() {
                return Err(mistake(place, &format!("`{name}` is {value}, it must be at least 1")));
            }
        }
        if train.batch_sequences % train.micro_batch() != 0 {
            let (whole, part) = (train.batch_sequences, train.micro_batch());
            let message = format!(
                "`train.batch_sequences` is {whole}, no multiple of `train.micro_batch_sequences` {part}"
            );
            return Err(mistake(place, &message));
        }
        if train.checkpoints_kept < 2 {
            let message = format!(
                "`train.checkpoints_kept` is {}, it must be at least 2",
                train.checkpoints_kept
            );
            return Err(mistake(place, &message));
        }
        let is_mixture = matches!(self.data, Sources::Mixture(_));
        if is_mixture && self.data_version.is_some() {
            let message =
                "`data_version` is of one dataset; of several, each `[[data]]` has its `version`";
            return Err(mistake(place, message));
        }
        if !is_mixture && !self.phase.is_empty() {
            return Err(mistake(place, "`[[phase]]` weighs datasets, and `data` is one folder"));
        }
        if self.data == Sources::Mixture(Vec::new()) {
            return Err(mistake(place, "`data` names no dataset"));
        }
        in_range(place, "train.spike_sigmas", train.spike_sigmas, 0.0..=1e6)?;
        in_range(place, "model.dropout", model.dropout, 0.0..=0.99)?;
        self.optimizer.check(place)
    }
}

/// Reads a recipe and those that it extends as one table, each one's paths relative to itself.
fn extended(path: &Path, below: &mut Vec<PathBuf>) -> Result<Table> {
    if below.iter().any(|known| known == path) {
        let message =
            format!("it extends itself, by way of `{}`", below[below.len() - 1].display());
        return Err(mistake(&path.display().to_string(), &message));
    }
    below.push(path.to_owned());
    let mut table = config::load::<IgnoredAny>(path, &[])?.table;
    let folder = path.parent().unwrap_or(Path::new(""));
    let resolve = |value: &mut toml::Value| {
        if let Some(text) = value.as_str() {
            *value = store::join(folder, text).display().to_string().into();
        }
    };
    for key in ["data", "run"] {
        if let Some(value) = table.get_mut(key) {
            resolve(value);
            let tables = value.as_array_mut().into_iter().flatten();
            tables.filter_map(|table| table.get_mut("dataset")).for_each(resolve);
        }
    }
    if let Some(from) = table.get_mut("model").and_then(|model| model.get_mut("from")) {
        resolve(from);
    }
    let Some(base) = table.remove("extends") else { return Ok(table) };
    let base = base.as_str().ok_or_else(|| {
        mistake(
            &path.display().to_string(),
            &format!("`extends` is {base}, it must be the path of a recipe"),
        )
    })?;
    let mut merged = extended(&normal(&folder.join(base)), below)?;
    merge(&mut merged, table);
    Ok(merged)
}

/// The path without `.` and, where a folder stands before it, `..`: a circle must come back to the same path.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}

/// Puts every key of `over` into `table`, tables key by key.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => merge(below, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn in_range(place: &str, name: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let message = format!("`{name}` is {value}, it must be in {}..={}", range.start(), range.end());
    Err(mistake(place, &message))
}

fn mistake(place: &str, message: &str) -> Error {
    Error::Recipe { place: place.to_owned(), message: message.to_owned(), hint: None }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(text: &str, overrides: &[&str], expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let found = match Recipe::load(&path, &overrides) {
            Ok(recipe) => format!("steps {}", recipe.train.steps),
            Err(error) => error.to_string().replace(&path.display().to_string(), "r.toml"),
        };
        assert_eq!(found, expected);
    }

    const GOOD: &str = "data = 'd'\nrun = 'r'\n[model]\nkind = 'gpt2'\n[train]\nsteps = 3\n";

    #[test]
    fn overrides_win_over_the_file() {
        check(GOOD, &[], "steps 3");
        check(GOOD, &["train.steps=7"], "steps 7");
        check(GOOD, &["train.precision=bf16", "optimizer.lr=0.5"], "steps 3");
    }

    #[test]
    fn says_where_a_mistake_is_and_what_was_meant() {
        check(
            &GOOD.replace("steps", "stepz"),
            &[],
            "r.toml:6:1: unknown key `stepz` in `train`\n6 | stepz = 3\n  | ^^^^^\nhint: did you mean `steps`?",
        );
        check(
            GOOD,
            &["train.precision=fp31"],
            "override `train.precision=fp31`: unknown value `fp31` of `train.precision`\n\
             hint: did you mean `fp32`?",
        );
        check(
            GOOD,
            &["train.micro_batch_sequences=5"],
            "r.toml: `train.batch_sequences` is 16, no multiple of `train.micro_batch_sequences` 5",
        );
        check(
            &GOOD.replace("kind = 'gpt2'", ""),
            &[],
            "r.toml: `model` needs one of `kind` (a fresh model) and `from` (a folder)",
        );
    }

    #[test]
    fn paths_are_relative_to_what_says_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        fs::write(&path, GOOD).unwrap();
        let recipe = Recipe::load(&path, &["run=elsewhere".to_owned()]).unwrap();
        assert_eq!(recipe.data, Sources::One(folder.path().join("d")));
        assert_eq!(recipe.run, Path::new("elsewhere"));
    }

    #[test]
    fn data_may_be_in_an_object_store_and_runs_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        fs::write(&path, GOOD.replace("'d'", "'s3://bucket/tokens'")).unwrap();
        let extends = folder.path().join("e.toml");
        fs::write(&extends, "extends = 'r.toml'\n").unwrap();
        for path in [&path, &extends] {
            let data = Recipe::load(path, &[]).unwrap().data;
            assert_eq!(data, Sources::One("s3://bucket/tokens".into()));
        }
        check(
            &GOOD.replace("run = 'r'", "run = 's3://bucket/runs'"),
            &[],
            "r.toml: `run` is in an object store: checkpoints are written to a folder",
        );
    }

    #[test]
    fn datasets_are_one_folder_or_several_tables() {
        let several = GOOD.replace("data = 'd'\n", "")
            + "[[data]]\nname = 'a'\ndataset = 'x'\nweight = 2.0\n[[phase]]\nafter_step = 1\nweights = { a = 1.0 }\n";
        check(&several, &[], "steps 3");
        check(
            &several.replace("weight = 2.0", "weigth = 2.0"),
            &[],
            "r.toml:9:1: unknown key `weigth` in `data`\n9 | weigth = 2.0\n  | ^^^^^^\nhint: did you mean `weight`?",
        );
        check(
            &several,
            &["data_version=3"],
            "r.toml: `data_version` is of one dataset; of several, each `[[data]]` has its `version`",
        );
        check(
            &several,
            &["data=d"],
            "r.toml: `[[phase]]` weighs datasets, and `data` is one folder",
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        fs::write(&path, &several).unwrap();
        let extends = folder.path().join("e.toml");
        fs::write(&extends, "extends = 'r.toml'\nrun = 'other'\n").unwrap();
        for path in [&path, &extends] {
            let Sources::Mixture(components) = Recipe::load(path, &[]).unwrap().data else {
                panic!("tables are a mixture")
            };
            assert_eq!(components[0].dataset, folder.path().join("x"));
        }
    }

    #[test]
    fn a_recipe_extends_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        file("base/first.toml", &format!("{GOOD}batch_sequences = 4\n"));
        file(
            "base/second.toml",
            "extends = 'first.toml'\n[model]\nn_layer = 7\n[train]\nsteps = 5\n",
        );
        let path =
            file("mine.toml", "extends = 'base/second.toml'\nrun = 'own'\n[train]\nseed = 9\n");
        let recipe = Recipe::load(&path, &["train.steps=6".to_owned()]).unwrap();
        let data = Sources::One(folder.path().join("base/d"));
        assert_eq!(recipe.data, data, "relative to the file that says it");
        assert_eq!(recipe.run, folder.path().join("own"));
        assert_eq!((recipe.model.kind.as_deref(), recipe.model.n_layer), (Some("gpt2"), 7));
        let Train { steps, batch_sequences, seed, .. } = recipe.train;
        assert_eq!((steps, batch_sequences, seed), (6, 4, 9));

        let error = |path: &Path| Recipe::load(path, &[]).unwrap_err().to_string();
        let unknown = file("unknown.toml", "extends = 'base/first.toml'\n[train]\nstepz = 1\n");
        let said = error(&unknown);
        assert!(said.contains("`stepz`") && said.contains("did you mean `steps`"), "{said}");
        let circle = file("circle.toml", "extends = 'base/circle.toml'\n");
        file("base/circle.toml", "extends = '../circle.toml'\n");
        let said = error(&circle);
        assert!(
            said.contains("extends itself, by way of") && said.contains("base/circle.toml"),
            "{said}"
        );
    }
}
