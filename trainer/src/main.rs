//! `gristmill-train`: trains models from shards and writes text with them.

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use shard::chat::Message;
use shard::tokenizer::Tokenizer;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tch::Device;
use trainer::chat::{self, Dialogue};
use trainer::data::Data;
use trainer::distributed::{self, World};
use trainer::generate::{self, Sampling, TextStream};
use trainer::recipe::{Precision, Recipe};
use trainer::run::{self, Observer, Report, Summary};
use trainer::{checkpoint, model, torch};

/// Trains language models from a dataset of tokens, and writes text with them.
#[derive(Parser)]
#[command(name = "gristmill-train", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Trains a recipe's model, or goes on with its run from the newest checkpoint.
    ///
    /// Example: gristmill-train train examples/gpt-tiny.toml --set train.steps=100
    Train {
        /// The recipe, a TOML file.
        recipe: PathBuf,
        /// Overrides a key of the recipe; paths given here are relative to the working folder.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Trains with this many processes of this machine, each with a part of every batch.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        nproc: u32,
        /// Shows sizes, cost and memory, and trains nothing.
        #[arg(long)]
        dry_run: bool,
        /// Prints one JSON summary on standard output.
        #[arg(long)]
        json: bool,
        /// Prints no progress.
        #[arg(long)]
        quiet: bool,
    },
    /// Talks with a tuned model: one line from standard input, one answer; an empty line or the end of input leaves.
    ///
    /// Example: gristmill-train chat SmolLM2-135M-Instruct.gguf
    Chat {
        /// A run's folder, a Hugging Face folder, or a GGUF file.
        model: PathBuf,
        /// A chat template; by default the one beside or inside the tokenizer.
        #[arg(long)]
        template: Option<PathBuf>,
        /// What the system message says; by default what the template does without one.
        #[arg(long)]
        system: Option<String>,
        /// Tokens of an answer.
        #[arg(long, default_value_t = 512)]
        tokens: usize,
        /// Divides the logits; 0 takes the likeliest token.
        #[arg(long, default_value_t = 0.7)]
        temperature: f64,
        /// Only this many of the likeliest tokens; 0 takes all.
        #[arg(long, default_value_t = 50)]
        top_k: usize,
        /// Only the likeliest tokens that together have this probability.
        #[arg(long, default_value_t = 0.95)]
        top_p: f64,
        /// Makes tokens that are there already less likely; 1 changes nothing.
        #[arg(long, default_value_t = 1.0)]
        repetition_penalty: f64,
        /// Seeds the draws.
        #[arg(long, default_value_t = 42)]
        seed: u64,
    },
    /// Adds a model's adapters to its weights, and writes a plain Hugging Face folder.
    ///
    /// Example: gristmill-train merge runs/tuned merged
    Merge {
        /// A run's folder, or a folder with `adapter_config.json`.
        model: PathBuf,
        /// The new folder.
        out: PathBuf,
    },
    /// Continues a text with a trained model.
    ///
    /// Example: gristmill-train generate runs/gpt-tiny --prompt "Once upon" --tokens 50
    Generate {
        /// A run's folder, a Hugging Face folder, or a GGUF file.
        model: PathBuf,
        /// The text to continue.
        #[arg(long)]
        prompt: String,
        /// Tokens to write.
        #[arg(long, default_value_t = 64)]
        tokens: usize,
        /// Divides the logits; 0 takes the likeliest token.
        #[arg(long, default_value_t = 0.8)]
        temperature: f64,
        /// Only this many of the likeliest tokens; 0 takes all.
        #[arg(long, default_value_t = 50)]
        top_k: usize,
        /// Only the likeliest tokens that together have this probability.
        #[arg(long, default_value_t = 1.0)]
        top_p: f64,
        /// Makes tokens that are there already less likely; 1 changes nothing.
        #[arg(long, default_value_t = 1.0)]
        repetition_penalty: f64,
        /// Seeds the draws.
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Prints one JSON object with text and ids instead of the text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    torch::start();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let done = match Arguments::parse().verb {
        // The processes that it starts find their rank in the environment.
        Verb::Train { nproc, dry_run: false, .. }
            if nproc > 1 && std::env::var_os("RANK").is_none() =>
        {
            launch(nproc)
        }
        Verb::Train { recipe, set, dry_run, json, quiet, .. } => {
            Recipe::load(&recipe, &set).map_err(anyhow::Error::from).and_then(|loaded| {
                if dry_run { plan(&loaded, json) } else { train(&recipe, &loaded, json, quiet) }
            })
        }
        Verb::Chat {
            model,
            template,
            system,
            tokens,
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            seed,
        } => {
            let sampling =
                Sampling { temperature, top_k, top_p, repetition_penalty, seed, ..Sampling::PLAIN };
            talk(&model, template.as_deref(), system, tokens, sampling)
        }
        Verb::Merge { model, out } => merge(&model, &out),
        Verb::Generate {
            model,
            prompt,
            tokens,
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            seed,
            json,
        } => {
            let sampling =
                Sampling { temperature, top_k, top_p, repetition_penalty, seed, ..Sampling::PLAIN };
            write_text(&model, &prompt, tokens, sampling, json)
        }
    };
    done.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        report(&error);
        ExitCode::from(2)
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Shows an error on standard error, its hint apart.
fn report(error: &anyhow::Error) {
    let text = format!("{error:#}");
    let (message, hint) =
        text.split_once("\nhint: ").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut diagnostic = miette::MietteDiagnostic::new(message);
    if let Some(hint) = hint {
        diagnostic = diagnostic.with_help(hint);
    }
    let text = format!("{:?}", miette::Report::new(diagnostic));
    if writeln!(io::stderr(), "{text}").is_err() {
        // Nobody listens; the exit code says it too.
    }
}

fn train(path: &Path, recipe: &Recipe, is_json: bool, is_quiet: bool) -> anyhow::Result<ExitCode> {
    let stop = stop_signals()?;
    let world = World::from_environment()?;
    let (is_json, is_quiet) = (is_json && world.is_first(), is_quiet || !world.is_first());
    let data = Data::open(recipe, &run::data_versions(recipe)?)?;
    let mut progress = Progress::new(recipe.train.steps, is_quiet, Arc::clone(&stop));
    let summary = run::train_in(&world, recipe, data, &mut progress)?;
    progress.bar.finish_and_clear();
    if is_json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&summary)?)?;
    }
    if !is_quiet {
        progress.note(&last_line(path, &summary));
    }
    if summary.is_done {
        return Ok(ExitCode::SUCCESS);
    }
    // As a shell reports a process that the signal ended. Without one, another process was asked to stop.
    let signal = match stop.load(Ordering::Relaxed) {
        0 => usize::try_from(SIGTERM)?,
        signal => signal,
    };
    Ok(ExitCode::from(u8::try_from(128 + signal).context("a signal's number")?))
}

/// Starts this command once for each rank, and ends all when one fails.
fn launch(n: u32) -> anyhow::Result<ExitCode> {
    let stop = stop_signals()?;
    let port = distributed::free_port()?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let start = |rank: u32| {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        let size = n.to_string();
        for (name, value) in [
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", size.clone()),
            ("LOCAL_WORLD_SIZE", size),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", port.to_string()),
        ] {
            command.env(name, value);
        }
        command.spawn().with_context(|| format!("cannot start the process of rank {rank}"))
    };
    let mut processes = (0..n).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let mut codes = vec![None; processes.len()];
    let (mut is_told, mut failed) = (false, None);
    while codes.contains(&None) {
        for (rank, (process, code)) in processes.iter_mut().zip(&mut codes).enumerate() {
            let Some(status) = process.try_wait()? else { continue };
            // Ended by a signal: as a shell reports it.
            let found = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(2);
            let is_new = code.replace(found).is_none();
            let is_failure = ![0, 128 + SIGINT, 128 + SIGTERM].contains(&found);
            // The others are ended, or miss it: the first one is the reason.
            if is_new && is_failure && failed.is_none() {
                failed = Some(found);
                writeln!(io::stderr(), "the process of rank {rank} failed: {status}")?;
            }
        }
        if failed.is_some() {
            for process in &mut processes {
                process.kill().context("cannot end a process")?;
            }
        }
        // A terminal's Ctrl-C reaches every process; other senders know this one only.
        let is_terminated = stop.load(Ordering::Relaxed) == usize::try_from(SIGTERM)?;
        if is_terminated && !std::mem::replace(&mut is_told, true) {
            let ids = processes.iter().map(|process| process.id().to_string());
            Command::new("kill")
                .arg("-TERM")
                .args(ids)
                .status()
                .context("cannot pass SIGTERM on")?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let code = failed.or(codes.into_iter().flatten().max()).unwrap_or(0);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

fn last_line(recipe: &Path, summary: &Summary) -> String {
    let loss = summary.loss.map_or_else(|| "none".to_owned(), |loss| format!("{loss:.4}"));
    let mut line = format!(
        "step {} of {}, loss {loss}, {} tokens in {:.1} s ({:.0} per second), {} steps skipped",
        summary.step,
        summary.steps,
        summary.tokens,
        summary.seconds,
        summary.tokens_per_s,
        summary.skipped
    );
    match &summary.model {
        Some(model) => line += &format!(", model in {}", model.display()),
        None => line += &format!("\nstopped; to go on: gristmill-train train {}", recipe.display()),
    }
    line
}

/// The number of the signal that asked to stop, or 0. A second signal ends the process at once.
fn stop_signals() -> anyhow::Result<Arc<AtomicUsize>> {
    let stop = Arc::new(AtomicUsize::new(0));
    let is_armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_armed))?;
        flag::register(signal, Arc::clone(&is_armed))?;
        flag::register_usize(signal, Arc::clone(&stop), usize::try_from(signal)?)?;
    }
    Ok(stop)
}

/// A bar on a terminal, lines otherwise.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    is_quiet: bool,
    stop: Arc<AtomicUsize>,
}

impl Progress {
    fn new(steps: u64, is_quiet: bool, stop: Arc<AtomicUsize>) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = ProgressBar::new(steps);
        if is_quiet || !is_terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bar:30} {pos}/{len} steps  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        Self { bar, is_terminal, is_quiet, stop }
    }
}

impl Observer for Progress {
    fn note(&mut self, line: &str) {
        if self.is_quiet {
            return;
        }
        self.bar.suspend(|| {
            if writeln!(io::stderr(), "{line}").is_err() {
                // Progress that nobody reads is no reason to stop training.
            }
        });
    }

    fn step(&mut self, report: &Report) -> bool {
        let Report { step, steps, loss, lr, grad_norm, tokens_per_s, is_skipped, .. } = report;
        let line =
            format!("loss {loss:.4}  lr {lr:.2e}  norm {grad_norm:.2}  {tokens_per_s:.0} tokens/s");
        if *is_skipped {
            self.note(&format!("step {step}: skipped, {line}"));
        }
        let every = (steps / 20).max(1);
        if self.is_terminal {
            self.bar.set_position(*step);
            self.bar.set_message(line);
        } else if step % every == 0 || *step == 1 {
            self.note(&format!("step {step}/{steps}  {line}"));
        }
        let is_stopped = self.stop.load(Ordering::Relaxed) != 0;
        if is_stopped {
            self.note("stopping: writes a checkpoint first; a second signal ends at once");
        }
        !is_stopped
    }
}

/// Shows what a run would cost.
fn plan(recipe: &Recipe, is_json: bool) -> anyhow::Result<ExitCode> {
    let data = Data::open(recipe, &run::data_versions(recipe)?)?;
    let vocab_size = data.n_vocabulary.next_multiple_of(recipe.model.vocab_multiple);
    let outline = model::outline(&recipe.model, vocab_size)?;
    let shape = outline.model.shape();
    let n_parameters: u64 =
        outline.model.parameters().iter().map(|p| p.tensor.numel() as u64).sum();
    let seq_len = recipe.model.seq_len;
    let tokens_per_step = recipe.train.batch_sequences * seq_len;
    let flops_per_token = shape.flops_per_token(n_parameters, seq_len);
    let memory_bytes = memory_bytes(recipe, shape, n_parameters);
    let n_sequences = data.train.n_sequences();
    let tokens = tokens_per_step * recipe.train.steps;
    if is_json {
        let plan = json!({
            "parameters": n_parameters, "vocab_size": shape.vocab_size, "flops_per_token": flops_per_token,
            "memory_bytes": memory_bytes, "tokens_per_step": tokens_per_step, "steps": recipe.train.steps,
            "tokens": tokens, "sequences_per_epoch": n_sequences, "manifest": data.manifest_hash,
            "data_versions": data.datasets.iter().map(|it| it.version).collect::<Vec<_>>(),
        });
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&plan)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    let (epochs, gib, flops) = (
        tokens as f64 / (n_sequences * seq_len).max(1) as f64,
        memory_bytes as f64 / f64::from(1 << 30),
        flops_per_token as f64 * tokens as f64,
    );
    let text = format!(
        "model          {} parameters, vocabulary {}\n\
         data           {}, {n_sequences} sequences of {seq_len}\n\
         steps          {} of {tokens_per_step} tokens: {tokens} tokens, {epochs:.2} epochs\n\
         cost           {flops_per_token} FLOPs per token, {flops:.2e} in all\n\
         memory         about {gib:.2} GiB for weights, gradients, moments and activations\n",
        n_parameters,
        shape.vocab_size,
        data.place(),
        recipe.train.steps,
    );
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Weights, gradients and two moments in float32, and what the backward pass keeps of the forward pass.
///
/// Source of the 34 bytes per channel at two bytes per number: Korthikanti et al. 2022, without the attention matrix,
/// which the fused kernel never stores. Logits exist three times: as such, in float32, and as gradient.
fn memory_bytes(recipe: &Recipe, shape: model::Shape, n_parameters: u64) -> u64 {
    let n_tokens = recipe.train.micro_batch() * recipe.model.seq_len;
    let per_channel = if recipe.train.precision == Precision::Bf16 { 34 } else { 68 };
    let blocks = shape.n_layers * shape.n_heads * shape.head_size * per_channel * n_tokens;
    16 * n_parameters + blocks + 12 * shape.vocab_size * n_tokens
}

fn write_text(
    path: &Path,
    prompt: &str,
    n_tokens: usize,
    sampling: Sampling,
    is_json: bool,
) -> anyhow::Result<ExitCode> {
    let folder = model_folder(path)?;
    let loaded = model::load(&folder, torch::device())?;
    let tokenizer = Tokenizer::load(&tokenizer_file(path, &folder)?)?;
    let mut ids = Vec::new();
    tokenizer.encode(prompt, &mut ids)?;
    let mut stop = chat::end_of_text(&loaded.config);
    if stop.is_empty() {
        stop.extend(tokenizer.end_of_document());
    }
    let mut stdout = io::stdout().lock();
    if !is_json {
        write!(stdout, "{prompt}")?;
    }
    let (mut stream, mut failed) = (TextStream::new(&tokenizer), None);
    let mut on_token = |id: u32| {
        if is_json || stop.contains(&id) {
            return true;
        }
        let step = stream.push(id).map_err(anyhow::Error::from).and_then(|new| {
            write!(stdout, "{new}")?;
            Ok(stdout.flush()?)
        });
        failed = step.err();
        failed.is_none()
    };
    let new =
        generate::generate(loaded.model.as_ref(), &ids, n_tokens, &stop, sampling, &mut on_token)?;
    if let Some(error) = failed {
        return Err(error);
    }
    if is_json {
        let text = tokenizer.decode(&new)?;
        let object = json!({ "prompt": prompt, "text": text, "prompt_ids": ids, "ids": new });
        writeln!(stdout, "{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        writeln!(stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn talk(
    path: &Path,
    template: Option<&Path>,
    system: Option<String>,
    n_tokens: usize,
    sampling: Sampling,
) -> anyhow::Result<ExitCode> {
    let folder = model_folder(path)?;
    let tokenizer = tokenizer_file(path, &folder)?;
    let mut dialogue = Dialogue::open(&folder, &tokenizer, template, torch::device())?;
    dialogue.messages.extend(system.map(|text| Message::new("system", text)));
    dialogue.n_tokens = n_tokens;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    dialogue.clock = Some(i64::try_from(now)?);
    let is_terminal = io::stdin().is_terminal();
    let mut stdout = io::stdout().lock();
    for turn in 0.. {
        dialogue.sampling = Sampling { seed: sampling.seed.wrapping_add(turn), ..sampling };
        if is_terminal {
            write!(io::stderr(), "> ")?;
        }
        let mut line = String::new();
        if io::stdin().read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let mut failed = None;
        dialogue.answer(line.trim_end_matches(['\r', '\n']), &mut |new| {
            failed = write!(stdout, "{new}").and_then(|()| stdout.flush()).err();
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        writeln!(stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn merge(path: &Path, out: &Path) -> anyhow::Result<ExitCode> {
    let folder = model_folder(path)?;
    let loaded = model::load(&folder, Device::Cpu)?;
    if loaded.adapter.is_none() {
        anyhow::bail!(
            "cannot merge `{}`: it has no adapters\nhint: give the folder that holds `{}`",
            folder.display(),
            trainer::adapter::CONFIG
        );
    }
    std::fs::create_dir(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    model::save_merged(&loaded, out)?;
    if let Ok(tokenizer) = tokenizer_file(path, &folder) {
        std::fs::copy(&tokenizer, out.join("tokenizer.json"))
            .with_context(|| format!("cannot copy `{}`", tokenizer.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The finished model of a run, else its newest checkpoint, else the folder itself.
fn model_folder(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let finished = path.join("model");
    if finished.join("config.json").is_file() {
        return Ok(finished);
    }
    let newest = checkpoint::newest(path, &mut |_| {})?;
    Ok(newest.map_or_else(|| path.to_owned(), |(path, _)| path))
}

fn tokenizer_file(path: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    // The vocabulary is inside a GGUF file.
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let mut candidates = vec![folder.join("tokenizer.json"), path.join("tokenizer.json")];
    if folder.join(trainer::adapter::CONFIG).is_file() {
        candidates.push(trainer::adapter::Adapter::read(folder)?.base.join("tokenizer.json"));
    }
    let found = candidates.iter().find(|candidate| candidate.is_file());
    found.cloned().with_context(|| {
        format!(
            "cannot find `tokenizer.json` in `{}`\nhint: copy the one that the model was trained with there",
            folder.display()
        )
    })
}
