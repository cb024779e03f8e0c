//! The training loop: makes a run, or goes on with it from its newest checkpoint.
//!
//! A run is a folder. [`train`] is the only way to write to it, and holds its lock meanwhile. Whenever the process dies,
//! calling it again ends with the same weights, bit for bit, on the same CPU and threads.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use shard::reader::{ReaderState, rank_samples};
use shard::tokenizer::Tokenizer;
use tch::{Device, Kind, Tensor, no_grad};

use crate::checkpoint::{self, Rollback, State};
use crate::data::{self, Data};
use crate::distributed::{self, World};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::{self, Loaded, Pass};
use crate::objective::{self, MicroBatch, Objective, Vocabulary};
use crate::optimizer::Optimizer;
use crate::random::Random;
use crate::recipe::{Precision, Recipe};
use crate::schedule::Schedule;
use crate::source::{self, Batches, Plan};
use crate::sources::Sources;
use crate::spike::Spikes;
use crate::torch;
use crate::weights::WeightFiles;

/// Watches a run, and may ask it to stop.
pub trait Observer {
    /// One line worth reading.
    fn note(&mut self, line: &str);

    /// Called after each step. `false` asks for a checkpoint and a stop.
    fn step(&mut self, report: &Report) -> bool;
}

/// What one step did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Updates made, skipped ones included.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Mean loss per token of the batch, in nats.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Tokens per second of this step.
    pub tokens_per_s: f64,
    /// Share of the step's time that it waited for data.
    pub data_stall_share: f64,
    /// Whether the update was skipped.
    pub is_skipped: bool,
}

/// How a call to [`train`] ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The run's folder.
    pub run: PathBuf,
    /// Updates made.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Whether all updates were made.
    pub is_done: bool,
    /// The checkpoint's step that this call began with.
    pub resumed_from: Option<u64>,
    /// Updates skipped because loss or gradient was a spike or no finite number.
    pub skipped: u64,
    /// Times that the run went back to a checkpoint.
    pub rollbacks: Vec<Rollback>,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Held-out measurements at the end.
    pub validation: Option<Evaluation>,
    /// Tokens trained on in this call.
    pub tokens: u64,
    /// Seconds of training steps in this call, without evaluation and checkpoints.
    pub seconds: f64,
    /// Tokens per second of training steps in this call.
    pub tokens_per_s: f64,
    /// Share of the steps' time that they waited for data, in this call.
    pub data_stall_share: f64,
    /// The finished model.
    pub model: Option<PathBuf>,
}

/// Held-out measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean nats per token.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// `total nats / (ln 2 · bytes)` of the same tokens, where the tokenizer tells their bytes.
    pub bits_per_byte: Option<f64>,
    /// Tokens that were predicted.
    pub n_tokens: u64,
}

/// The manifest versions that the run in `recipe.run` began with, in the recipe's order; none before it begins.
///
/// # Errors
/// As [`checkpoint::newest`].
pub fn data_versions(recipe: &Recipe) -> Result<Vec<u64>> {
    let found = checkpoint::newest(&recipe.run, &mut |_| {})?;
    Ok(found.map_or_else(Vec::new, |(_, state)| state.data_versions))
}

/// Makes the model that the recipe describes, with its weights before the first step.
///
/// # Errors
/// [`Error::Unusable`] when the numbers do not fit each other, or the dataset's vocabulary is larger than the model's.
pub fn first_model(recipe: &Recipe, n_vocabulary: u64, device: Device) -> Result<Loaded> {
    let loaded = match &recipe.model.from {
        Some(folder) => match &recipe.adapter {
            Some(adapter) => model::adapt(folder, adapter, recipe.train.seed, device)?,
            None => model::load(folder, device)?,
        },
        None => {
            let padded = n_vocabulary.next_multiple_of(recipe.model.vocab_multiple);
            model::fresh(&recipe.model, padded, recipe.train.seed, device)?
        }
    };
    let shape = loaded.model.shape();
    let misfit = |why: String, hint: &str| Error::Unusable {
        action: "train",
        what: "the model of the recipe".to_owned(),
        why,
        hint: hint.to_owned(),
    };
    if n_vocabulary > shape.vocab_size {
        let why = format!(
            "the dataset's vocabulary has {n_vocabulary} entries, the model's {}",
            shape.vocab_size
        );
        return Err(misfit(why, "shard the corpus with the model's own tokenizer"));
    }
    if recipe.model.seq_len > shape.seq_len_max {
        let why = format!(
            "`model.seq_len` is {}, the model was made for {}",
            recipe.model.seq_len, shape.seq_len_max
        );
        return Err(misfit(why, "lower `model.seq_len`"));
    }
    Ok(loaded)
}

/// Trains until the recipe's last step, or until the observer asks to stop.
///
/// # Errors
/// [`Error::Unusable`] when the folder holds a run of another recipe or dataset; [`Error::Diverged`] when losses stay
/// beyond numbers; whatever reading and writing meets.
pub fn train(recipe: &Recipe, data: Data, observer: &mut dyn Observer) -> Result<Summary> {
    train_in(&World::alone(), recipe, data, observer)
}

/// As [`train`], together with the other processes of `world`; the first one writes.
///
/// # Errors
/// As [`train`]; [`Error::Unusable`] when the batch does not divide by the processes; [`Error::Torch`] when one is gone.
pub fn train_in(
    world: &World,
    recipe: &Recipe,
    data: Data,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    torch::start();
    if let Some(threads) = recipe.train.threads {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
    torch::set_deterministic(recipe.train.deterministic)?;
    fs::create_dir_all(&recipe.run).map_err(Error::io("create", &recipe.run))?;
    refuse_uneven(recipe, world)?;
    let _lock = if world.is_first() { Some(lock(&recipe.run)?) } else { None };
    let mut run = Run::open(world, recipe, data, observer)?;
    // All have read the newest checkpoint before the first one writes.
    world.wait()?;
    run.finish_or_stop(observer)
}

/// Holds the run for this process; the operating system lets go of it when the process ends, however it does.
fn lock(run: &Path) -> Result<File> {
    let path = run.join(".lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Unusable {
            action: "train",
            what: format!("`{}`", run.display()),
            why: "another process is training this run".to_owned(),
            hint: "wait for it, or give this run another folder".to_owned(),
        }),
    }
}

struct Run<'a> {
    world: &'a World,
    recipe: &'a Recipe,
    device: Device,
    loaded: Loaded,
    optimizer: Optimizer,
    /// Who updates each parameter, where not all update all.
    owners: Option<Vec<u32>>,
    schedule: Schedule,
    /// Of the first process.
    metrics: Option<Metrics>,
    objective: Arc<dyn Objective>,
    batches: Batches,
    held_out: Vec<MicroBatch>,
    token_bytes: Option<Tensor>,
    identity: Identity,
    resumed_from: Option<u64>,
    step: u64,
    /// Batches read beyond the steps made: those behind which rollbacks went on.
    batches_left_out: u64,
    skipped: [u64; 2],
    spikes: Spikes,
    rollbacks: Vec<Rollback>,
    last_loss: Option<f64>,
    seconds: f64,
    waited: f64,
    tokens: u64,
}

/// What the dataset is, for checkpoints and `run.json`.
struct Identity {
    datasets: Vec<data::Identity>,
    manifest_hash: String,
    tokenizer: Option<PathBuf>,
}

impl<'a> Run<'a> {
    fn open(
        world: &'a World,
        recipe: &'a Recipe,
        data: Data,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let device = torch::device();
        let found = checkpoint::newest(&recipe.run, &mut |line| observer.note(line))?;
        let loaded = match &found {
            Some((path, _)) => model::load(path, device)?,
            None => first_model(recipe, data.n_vocabulary, device)?,
        };
        let train = &recipe.train;
        let owners = (train.shard_optimizer && world.size() > 1).then(|| {
            let trained = loaded.model.parameters().iter().filter(|p| p.tensor.requires_grad());
            let sizes: Vec<usize> = trained.map(|p| p.tensor.numel()).collect();
            distributed::owners(&sizes, world.size())
        });
        let is_owned =
            |index: usize| owners.as_ref().is_none_or(|owners| owners[index] == world.rank());
        let mut optimizer =
            Optimizer::sharded(loaded.model.parameters(), &recipe.optimizer, is_owned)?;
        let (mut step, mut batches_left_out, mut skipped) = (0, 0, [0; 2]);
        let (mut spikes, mut rollbacks) = (Spikes::new(train.spike_sigmas, &[]), Vec::new());
        if let Some((path, state)) = &found {
            refuse_other(recipe, &data, state)?;
            let file = path.join("optimizer.safetensors");
            optimizer.restore(&WeightFiles::open(&file)?)?;
            (step, skipped) = (state.step, state.skipped);
            batches_left_out = state.reader.next_sample / train.batch_sequences - step;
            spikes = Spikes::new(train.spike_sigmas, &state.recent);
            rollbacks.clone_from(&state.rollbacks);
            observer.note(&format!("resumes at step {step} from `{}`", path.display()));
            if recipe.data_version.is_none() {
                note_newer(&data, observer);
            }
        }
        refuse_too_few(recipe, &data)?;
        let plan = Plan {
            seq_len: usize::try_from(recipe.model.seq_len).expect("checked with the recipe"),
            batch_sequences: recipe.train.batch_sequences,
            micro_batch_sequences: recipe.train.micro_batch(),
            vocab_size: loaded.model.shape().vocab_size,
            rank: u64::from(world.rank()),
            world: u64::from(world.size()),
        };
        let vocabulary = vocabulary(recipe, &data)?;
        let objective: Arc<dyn Objective> =
            objective::build(&recipe.objective, &vocabulary, loaded.model.shape())?.into();
        let held_out = held_out(recipe, data.validation, objective.as_ref(), plan)?;
        let token_bytes = data.token_bytes.map(|bytes| {
            let bytes: Vec<i64> = bytes.into_iter().map(i64::from).collect();
            Tensor::from_slice(&bytes).to_device(device)
        });
        let metrics = world.is_first().then(|| Metrics::open(&recipe.run, step)).transpose()?;
        Ok(Self {
            world,
            recipe,
            device,
            optimizer,
            owners,
            schedule: recipe.optimizer.schedule(recipe.train.steps),
            metrics,
            batches: Batches::start(
                data.train,
                Arc::clone(&objective),
                plan,
                step + batches_left_out,
            ),
            objective,
            held_out,
            token_bytes,
            identity: Identity {
                datasets: data.datasets,
                manifest_hash: data.manifest_hash,
                tokenizer: data.tokenizer,
            },
            resumed_from: found.map(|(_, state)| state.step),
            loaded,
            step,
            batches_left_out,
            skipped,
            spikes,
            rollbacks,
            last_loss: None,
            seconds: 0.0,
            waited: 0.0,
            tokens: 0,
        })
    }

    fn finish_or_stop(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let train = &self.recipe.train;
        let mut evaluation = None;
        if self.step == 0 {
            evaluation = self.measure(observer)?;
            self.save()?;
        }
        let mut goes_on = true;
        while self.step < train.steps && goes_on {
            let report = self.train_step()?;
            // Who is asked to stop asks the others.
            goes_on = self.world.sum_of(u64::from(!observer.step(&report)))? == 0;
            if self.skipped[1] > train.skips_max {
                self.roll_back(&report, observer)?;
                continue;
            }
            let is_last = self.step == train.steps;
            if is_last || self.step.is_multiple_of(train.evaluate_every) {
                evaluation = self.measure(observer)?;
            }
            if is_last || !goes_on || self.step.is_multiple_of(train.checkpoint_every) {
                self.save()?;
            }
        }
        let is_done = self.step == train.steps;
        if is_done && evaluation.is_none() && self.world.is_first() {
            evaluation = self.evaluate()?;
        }
        let is_written = is_done && self.world.is_first();
        let model = is_written.then(|| self.save_model()).transpose()?;
        self.world.wait()?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let tokens_per_s = if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 };
        Ok(Summary {
            run: self.recipe.run.clone(),
            step: self.step,
            steps: train.steps,
            is_done,
            resumed_from: self.resumed_from,
            skipped: self.skipped[0],
            rollbacks: self.rollbacks.clone(),
            loss: self.last_loss,
            validation: evaluation,
            tokens: self.tokens,
            seconds: self.seconds,
            tokens_per_s,
            data_stall_share: self.waited / (self.waited + self.seconds).max(1e-9),
            model,
        })
    }

    fn train_step(&mut self) -> Result<Report> {
        let asked = Instant::now();
        let batch = self.batches.next_batch()?;
        let start = Instant::now();
        let waited = (start - asked).as_secs_f64();
        let lr = self.schedule.rate(self.step);
        let n_targets = self.world.sum_of(batch.iter().map(|micro| micro.n_targets).sum())?;
        refuse_no_targets(n_targets, &format!("the batch of step {}", self.step + 1))?;
        let loss = self.backward(&batch, n_targets)?;
        self.world.sum(&loss)?;
        self.world.sum_gradients(&self.optimizer.gradients())?;
        let norm = self.optimizer.clip()?;
        let limits = self.spikes.limits();
        let read = Tensor::stack(&[loss.to_kind(Kind::Double), norm.to_kind(Kind::Double)], 0);
        let is_allowed = read.le_tensor(&Tensor::from_slice(&limits).to_device(self.device));
        let skip =
            read.isfinite().logical_and(&is_allowed).all().logical_not().to_kind(Kind::Float);
        self.optimizer.apply(lr, &skip)?;
        if let Some(owners) = &self.owners {
            let parameters = self.optimizer.parameters().iter();
            let parameters: Vec<Tensor> = parameters.map(|p| p.tensor.shallow_clone()).collect();
            self.world.share(&parameters, owners)?;
        }
        self.optimizer.move_average(&skip);
        // The only wait for the device in a step.
        let [loss, grad_norm] = <[f64; 2]>::try_from(
            Vec::<f64>::try_from(read).map_err(Error::torch("read the loss"))?,
        )
        .expect("two numbers were stacked");
        let seconds = start.elapsed().as_secs_f64();
        self.step += 1;
        self.seconds += seconds;
        self.waited += waited;
        let n_tokens = self.recipe.train.batch_sequences * self.recipe.model.seq_len;
        self.tokens += n_tokens;
        let is_skipped = !(loss.is_finite() && grad_norm.is_finite())
            || loss > limits[0]
            || grad_norm > limits[1];
        let data_stall_share = waited / (waited + seconds).max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let tokens_per_s = n_tokens as f64 / seconds.max(1e-9);
        let report = Report {
            step: self.step,
            steps: self.recipe.train.steps,
            loss,
            grad_norm,
            lr,
            tokens_per_s,
            data_stall_share,
            is_skipped,
        };
        self.count(&report)?;
        Ok(report)
    }

    fn loss_rows(&self) -> Option<i64> {
        let tokens = self.recipe.train.loss_chunk_tokens?;
        Some(i64::try_from(tokens).expect("checked with the recipe"))
    }

    /// Adds the gradients of every micro-batch; returns the mean loss per target of the whole batch.
    fn backward(&self, batch: &[MicroBatch], n_targets: u64) -> Result<Tensor> {
        let is_bf16 = self.recipe.train.precision == Precision::Bf16;
        let mut total = Tensor::zeros([], (Kind::Float, self.device));
        let train = &self.recipe.train;
        let (rank, size) = (u64::from(self.world.rank()), u64::from(self.world.size()));
        let batch_index = self.step + self.batches_left_out;
        let mut sample =
            rank_samples(batch_index * train.batch_sequences, train.batch_sequences, rank, size)
                .start;
        for micro in batch {
            // What dropout drops is a function of seed and sample: restarts and ranks change nothing.
            let mut random = Random::new(train.seed, &format!("dropout {sample}"));
            tch::manual_seed(i64::from_ne_bytes(random.next_u64().to_ne_bytes()));
            sample += train.micro_batch();
            let micro = micro.to_device(self.device);
            let mut pass = Pass {
                recomputes: self.recipe.train.activation_checkpointing,
                loss_rows: self.loss_rows(),
                ..Pass::training()
            };
            let sum = torch::autocast_bf16(self.device, is_bf16, || {
                self.objective.loss(self.loaded.model.as_ref(), &micro, &mut pass)
            })??;
            #[expect(
                clippy::cast_precision_loss,
                reason = "a batch has far fewer than 2^52 tokens"
            )]
            let loss = sum / n_targets as f64;
            loss.f_backward().map_err(Error::torch("compute gradients"))?;
            total += loss.detach();
        }
        Ok(total)
    }

    fn count(&mut self, report: &Report) -> Result<()> {
        let values = [
            ("train/loss", report.loss),
            ("train/learning_rate", report.lr),
            ("train/gradient_norm", report.grad_norm),
            ("train/tokens_per_second", report.tokens_per_s),
            ("train/data_stall_share", report.data_stall_share),
            ("train/skipped", f64::from(u8::from(report.is_skipped))),
        ];
        if let Some(metrics) = &mut self.metrics {
            metrics.add(report.step, &values)?;
        }
        if !report.is_skipped {
            self.last_loss = Some(report.loss);
            self.skipped[1] = 0;
            self.spikes.add(report.loss, report.grad_norm);
        } else {
            self.skipped = self.skipped.map(|n| n + 1);
        }
        Ok(())
    }

    /// Goes back to the newest checkpoint that no skipped step led to; the data goes on behind the skipped steps.
    ///
    /// Source: Chowdhery et al. 2022, section 5.1.
    fn roll_back(&mut self, report: &Report, observer: &mut dyn Observer) -> Result<()> {
        let diverged = Error::Diverged {
            step: report.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            skipped: self.skipped[1],
        };
        if self.rollbacks.len() as u64 >= self.recipe.train.rollbacks_max {
            return Err(diverged);
        }
        let run = &self.recipe.run;
        let mut note = |line: &str| observer.note(line);
        let found = checkpoint::newest_where(run, &mut note, |state| state.skipped[1] == 0)?;
        let Some((path, state)) = found else { return Err(diverged) };
        let stored = model::load(&path, self.device)?;
        let optimizer = WeightFiles::open(&path.join("optimizer.safetensors"))?;
        // All have read it before the first one writes.
        self.world.wait()?;
        no_grad(|| {
            let pairs = self.loaded.model.parameters().iter().zip(stored.model.parameters());
            for (ours, stored) in pairs {
                ours.tensor.shallow_clone().copy_(&stored.tensor);
            }
        });
        self.optimizer.restore(&optimizer)?;
        self.batches_left_out += self.step - state.step;
        let next_sample = (state.step + self.batches_left_out) * self.recipe.train.batch_sequences;
        observer.note(&format!(
            "step {}: the {}th step in a row is skipped (loss {}, gradient norm {}); back to step {}, on with sample {next_sample}",
            self.step, self.skipped[1], report.loss, report.grad_norm, state.step
        ));
        self.rollbacks.push(Rollback { from_step: self.step, to_step: state.step, next_sample });
        self.step = state.step;
        self.skipped[1] = 0;
        self.spikes = Spikes::new(self.recipe.train.spike_sigmas, &state.recent);
        if self.world.is_first() {
            self.metrics = Some(Metrics::open(run, self.step)?);
            // A later checkpoint would be the newest after a restart.
            checkpoint::remove_after(run, self.step)?;
        }
        self.save()
    }

    fn measure(&mut self, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        if !self.world.is_first() {
            return Ok(None);
        }
        let Some(found) = self.evaluate()? else { return Ok(None) };
        let mut values =
            vec![("validation/loss", found.loss), ("validation/perplexity", found.perplexity)];
        let mut line = format!(
            "step {}: held-out loss {:.4}, perplexity {:.2}",
            self.step, found.loss, found.perplexity
        );
        if let Some(bits) = found.bits_per_byte {
            values.push(("validation/bits_per_byte", bits));
            line += &format!(", {bits:.4} bits per byte");
        }
        if let Some(average) = self.optimizer.average()
            && let Some(found) = average.in_place(|| self.evaluate())?
        {
            values.push(("validation/average_loss", found.loss));
            line += &format!(", of the average {:.4}", found.loss);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.add(self.step, &values)?;
        }
        observer.note(&line);
        Ok(Some(found))
    }

    /// Measures the held-out sequences, or nothing where there are none.
    fn evaluate(&self) -> Result<Option<Evaluation>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let is_bf16 = self.recipe.train.precision == Precision::Bf16;
        let mut nats = Tensor::zeros([], (Kind::Double, self.device));
        let mut n_bytes = Tensor::zeros([], (Kind::Int64, self.device));
        let mut n_tokens = 0;
        for micro in &self.held_out {
            let micro = micro.to_device(self.device);
            let loss = no_grad(|| {
                torch::autocast_bf16(self.device, is_bf16, || {
                    let mut pass = Pass { loss_rows: self.loss_rows(), ..Pass::default() };
                    self.objective.loss(self.loaded.model.as_ref(), &micro, &mut pass)
                })
            })??;
            nats += loss.to_kind(Kind::Double);
            n_tokens += micro.n_targets;
            // Bits per byte are of a text that is told from its beginning.
            let bytes = self.token_bytes.as_ref().filter(|_| self.loaded.model.shape().is_causal);
            if let Some(bytes) = bytes {
                let targets = micro.targets_bt.view([-1]);
                let targets = targets.masked_select(&targets.ne(objective::IGNORED));
                n_bytes += bytes.index_select(0, &targets).sum(Kind::Int64);
            }
        }
        refuse_no_targets(n_tokens, "the held-out sequences")?;
        let nats = nats.double_value(&[]);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 tokens")]
        let loss = nats / n_tokens as f64;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 bytes")]
        let bytes = n_bytes.int64_value(&[]) as f64;
        let bits_per_byte = (bytes > 0.0).then(|| nats / (std::f64::consts::LN_2 * bytes));
        Ok(Some(Evaluation { loss, perplexity: loss.exp(), bits_per_byte, n_tokens }))
    }

    fn save(&mut self) -> Result<()> {
        let state = State {
            format_version: checkpoint::FORMAT_VERSION,
            step: self.step,
            skipped: self.skipped,
            recent: self.spikes.bits(),
            rollbacks: self.rollbacks.clone(),
            reader: ReaderState {
                manifest_hash: self.identity.manifest_hash.clone(),
                next_sample: (self.step + self.batches_left_out)
                    * self.recipe.train.batch_sequences,
            },
            data_versions: self.identity.datasets.iter().map(|it| it.version).collect(),
            recipe: self.recipe.clone(),
            files: std::collections::BTreeMap::new(),
        };
        let name = self.name();
        let moments = match &self.owners {
            Some(_) => self.optimizer.whole_state(&self.recipe.optimizer, self.world)?,
            None => self.optimizer.state(),
        };
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        // Measurements first: a checkpoint never knows more than they do.
        metrics.flush(&name)?;
        let kept = self.recipe.train.checkpoints_kept;
        checkpoint::save(&self.recipe.run, state, &self.loaded, &moments, kept)?;
        let config = serde_json::to_value(self.recipe).expect("text and numbers");
        metrics.commit(&name, config)?;
        self.write_story()
    }

    fn name(&self) -> String {
        let name = self.recipe.run.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// `run.json`: which samples each step saw, for lineage.
    fn write_story(&self) -> Result<()> {
        let mut datasets = Vec::new();
        for found in &self.identity.datasets {
            datasets.push(serde_json::json!({
                "name": found.name,
                "dataset": relative(&found.path, &self.recipe.run)?,
                "version": found.version,
                "manifest": found.manifest_hash,
                "split": TRAIN_SPLIT,
            }));
        }
        // One dataset is `tokens`; which one of several a sample comes from is in the recipe.
        let key = if matches!(self.recipe.data, Sources::One(_)) { "tokens" } else { "mixture" };
        let datasets = if key == "tokens" { datasets.remove(0) } else { Value::Array(datasets) };
        let mut story = serde_json::json!({
            "format_version": 1,
            "name": self.name(),
            "seq_len": self.recipe.model.seq_len,
            "packing": self.recipe.packing(),
            "mask_documents": self.recipe.objective.masks_documents(),
            "batch_sequences": self.recipe.train.batch_sequences,
            "seed": self.recipe.train.seed,
            "steps": self.recipe.train.steps,
            "steps_done": self.step,
            "rollbacks": self.rollbacks,
            "recipe": self.recipe,
        });
        story[key] = datasets;
        let mut bytes = serde_json::to_vec_pretty(&story).expect("text and numbers");
        bytes.push(b'\n');
        checkpoint::replace(&self.recipe.run.join("run.json"), &bytes)
    }

    /// Writes the finished model as a Hugging Face folder, and another of its average where there is one.
    fn save_model(&self) -> Result<PathBuf> {
        if let Some(average) = self.optimizer.average() {
            average.in_place(|| self.write_model("average"))?;
        }
        self.write_model("model")
    }

    fn write_model(&self, name: &str) -> Result<PathBuf> {
        let path = self.recipe.run.join(name);
        let aside = self.recipe.run.join(format!(".tmp-{name}"));
        for old in [&aside, &path] {
            if fs::symlink_metadata(old).is_ok() {
                fs::remove_dir_all(old).map_err(Error::io("replace", old))?;
            }
        }
        fs::create_dir(&aside).map_err(Error::io("create", &aside))?;
        model::save(&self.loaded, &aside)?;
        if let Some(tokenizer) = &self.identity.tokenizer {
            let bytes = fs::read(tokenizer).map_err(Error::io("read", tokenizer))?;
            checkpoint::write_synced(&aside.join("tokenizer.json"), &bytes)?;
        }
        checkpoint::sync_folder(&aside)?;
        fs::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
        checkpoint::sync_folder(&self.recipe.run)?;
        Ok(path)
    }
}

/// The split that is trained on.
pub const TRAIN_SPLIT: &str = "train";
/// The split that is held out.
pub const VALIDATION_SPLIT: &str = "validation";

/// Reads the sequences that every evaluation measures: the first of the split, once.
fn held_out(
    recipe: &Recipe,
    source: Option<Box<dyn source::SequenceSource>>,
    objective: &dyn Objective,
    plan: Plan,
) -> Result<Vec<MicroBatch>> {
    let Some(mut source) = source else { return Ok(Vec::new()) };
    let n = source.n_sequences().min(recipe.train.evaluate_sequences);
    if n == 0 {
        return Ok(Vec::new());
    }
    let plan = Plan { batch_sequences: n, rank: 0, world: 1, ..plan };
    source::read_batch(source.as_mut(), objective, plan, 0)
}

/// What the objective needs to know of the dataset's tokenizer.
fn vocabulary(recipe: &Recipe, data: &Data) -> Result<Vocabulary> {
    let seed = recipe.train.seed;
    match &data.tokenizer {
        Some(path) => Ok(Vocabulary::of(&Tokenizer::load(path)?, seed)),
        None => Ok(Vocabulary { seed, ..Vocabulary::default() }),
    }
}

/// A mean over nothing is no number.
fn refuse_no_targets(n_targets: u64, what: &str) -> Result<()> {
    if n_targets > 0 {
        return Ok(());
    }
    Err(Error::Unusable {
        action: "train on",
        what: what.to_owned(),
        why: "none of its tokens is a target".to_owned(),
        hint: "check the dataset's `loss_mask`, or take more sequences per batch".to_owned(),
    })
}

fn refuse_uneven(recipe: &Recipe, world: &World) -> Result<()> {
    let (n, size) = (recipe.train.batch_sequences, u64::from(world.size()));
    if n.is_multiple_of(size) {
        return Ok(());
    }
    Err(Error::Unusable {
        action: "train",
        what: format!("with {size} processes"),
        why: format!("`train.batch_sequences` is {n}, no multiple of {size}"),
        hint: "change one of the two".to_owned(),
    })
}

/// A run never changes the version that it began with.
fn note_newer(data: &Data, observer: &mut dyn Observer) {
    for found in data.datasets.iter().filter(|it| it.newest_version > it.version) {
        observer.note(&format!(
            "goes on with version {} of `{}`, which it began with; to train on version {}, give `run` another folder",
            found.version,
            found.path.display(),
            found.newest_version
        ));
    }
}

fn refuse_too_few(recipe: &Recipe, data: &Data) -> Result<()> {
    source::check_lasts(data.train.as_ref(), recipe.train.steps * recipe.train.batch_sequences)?;
    if data.train.n_sequences() > 0 {
        return Ok(());
    }
    Err(Error::Unusable {
        action: "train on",
        what: data.place(),
        why: format!(
            "its split `{TRAIN_SPLIT}` has no sequence of {} tokens",
            recipe.model.seq_len
        ),
        hint: "lower `model.seq_len`, or shard more documents".to_owned(),
    })
}

/// Keys that may change between the parts of a run: they do not touch the weights.
const FREE: [&str; 11] = [
    "data",
    "data_version",
    "run",
    "train.checkpoint_every",
    "train.checkpoints_kept",
    "train.evaluate_every",
    "train.evaluate_sequences",
    "train.rollbacks_max",
    "train.shard_optimizer",
    "train.skips_max",
    "train.verify",
];

fn refuse_other(recipe: &Recipe, data: &Data, state: &State) -> Result<()> {
    let other = |what: String, was: &str, is: &str, hint: &str| Error::Unusable {
        action: "resume",
        what: format!("`{}`", recipe.run.display()),
        why: format!("its checkpoint of step {} has {what} {was}, now it is {is}", state.step),
        hint: hint.to_owned(),
    };
    if state.reader.manifest_hash != data.manifest_hash {
        let hint = "set `data_version` to the version that the run began with, or give the run another folder";
        let (was, is) = (&state.reader.manifest_hash, &data.manifest_hash);
        return Err(other("the manifest".to_owned(), was, is, hint));
    }
    let (mut was, mut is) = (Vec::new(), Vec::new());
    let json = |recipe: &Recipe| serde_json::to_value(recipe).expect("text and numbers");
    flatten("", &json(&state.recipe), &mut was);
    flatten("", &json(recipe), &mut is);
    for ((key, was), (_, is)) in was.iter().zip(&is) {
        if was != is && !FREE.contains(&key.as_str()) {
            let hint = "change it back, or give the run another folder";
            return Err(other(format!("`{key}`"), &was.to_string(), &is.to_string(), hint));
        }
    }
    Ok(())
}

/// Lists the leaves of a value under dotted keys.
fn flatten(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    let Value::Object(map) = value else {
        out.push((prefix.to_owned(), value.clone()));
        return;
    };
    for (key, value) in map {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&path, value, out);
    }
}

/// Returns the way from the folder `from` to `to`, with `/`; a place in a store is the same from everywhere.
fn relative(to: &Path, from: &Path) -> Result<String> {
    if shard::store::is_object(to) {
        return Ok(to.display().to_string());
    }
    let whole = |path: &Path| fs::canonicalize(path).map_err(Error::io("find", path));
    let (to, from) = (whole(to)?, whole(from)?);
    let shared = to.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| "..".to_owned());
    let down = to.components().skip(shared).map(|c| c.as_os_str().to_string_lossy().into_owned());
    Ok(up.chain(down).collect::<Vec<_>>().join("/"))
}
