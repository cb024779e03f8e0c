//! Our side of `scripts/nanogpt.py`: trains on the batches that it drew, and prints loss and CPU seconds as JSON.
//!
//! `cargo run -p trainer --example shakespeare -- FOLDER THREADS PRECISION`; the folder holds `train.u32`,
//! `validation.u32`, `offsets.u32` (where each sample begins) and `first/`, the weights before the first step.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use shard::reader::Sequence;
use trainer::data::{Data, Identity};
use trainer::recipe::Recipe;
use trainer::run::{self, Observer, Report};
use trainer::source::{Memory, SequenceSource};

const SEQ_LEN: usize = 64;
const STEPS: u64 = 2000;
/// Characters of the corpus.
const N_VOCABULARY: u64 = 65;

/// Sequences that begin where somebody else has drawn them.
struct Drawn {
    tokens: Vec<u32>,
    offsets: Vec<u32>,
}

impl SequenceSource for Drawn {
    fn n_sequences(&self) -> u64 {
        self.offsets.len() as u64
    }

    fn n_samples(&self) -> Option<u64> {
        Some(self.n_sequences())
    }

    fn read(&mut self, sample: u64, out: &mut Sequence) -> trainer::Result<()> {
        let start = self.offsets[usize::try_from(sample).expect("it is in memory")] as usize;
        out.tokens = self.tokens[start..=start + SEQ_LEN].to_vec();
        out.boundaries = vec![0, u32::try_from(SEQ_LEN + 1).expect("a sequence length")];
        out.loss_mask = vec![true; SEQ_LEN];
        Ok(())
    }
}

/// Measures from the end of the first step to that of the last: no start-up, evaluation or checkpoint.
struct Clock {
    first: Option<(f64, Instant)>,
    last: Option<(f64, f64)>,
}

impl Observer for Clock {
    fn note(&mut self, _line: &str) {}

    fn step(&mut self, report: &Report) -> bool {
        if report.step == 1 {
            self.first = Some((cpu_seconds(), Instant::now()));
        } else if report.step == STEPS {
            let (cpu, wall) = self.first.expect("a first step");
            self.last = Some((cpu_seconds() - cpu, wall.elapsed().as_secs_f64()));
        }
        true
    }
}

/// User and system time of all threads of this process.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name in brackets, fields 14 and 15 in hundredths of a second.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
    fields.take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn numbers(path: &Path) -> anyhow::Result<Vec<u32>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let (whole, _) = bytes.as_chunks::<4>();
    Ok(whole.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, threads, precision] = arguments.as_slice() else {
        anyhow::bail!("give a folder, threads and `fp32` or `bf16`");
    };
    let folder = Path::new(folder);
    let recipe = folder.join("recipe.toml");
    let text = format!(
        "data = '.'\nrun = 'run'\n[model]\nfrom = 'first'\nseq_len = {SEQ_LEN}\n\
         [train]\nsteps = {STEPS}\nbatch_sequences = 12\nthreads = {threads}\nprecision = '{precision}'\n\
         checkpoint_every = {STEPS}\nevaluate_every = {STEPS}\nevaluate_sequences = 1000000\n\
         [optimizer]\nlr = 1e-3\nmin_lr = 1e-4\nwarmup_steps = 100\nbetas = [0.9, 0.99]\nweight_decay = 0.1\n"
    );
    fs::write(&recipe, text)?;
    let recipe = Recipe::load(&recipe, &[])?;
    if recipe.run.is_dir() {
        fs::remove_dir_all(&recipe.run)?;
    }
    let tokens = numbers(&folder.join("train.u32"))?;
    let data = Data {
        train: Box::new(Drawn { tokens, offsets: numbers(&folder.join("offsets.u32"))? }),
        validation: Some(Box::new(Memory::new(numbers(&folder.join("validation.u32"))?, SEQ_LEN))),
        datasets: vec![Identity {
            name: None,
            path: folder.to_owned(),
            version: 1,
            newest_version: 1,
            manifest_hash: String::new(),
        }],
        manifest_hash: String::new(),
        n_vocabulary: N_VOCABULARY,
        tokenizer: None,
        token_bytes: None,
    };
    let mut clock = Clock { first: None, last: None };
    let summary = run::train(&recipe, data, &mut clock)?;
    let (cpu, wall) = clock.last.context("the last step was not reached")?;
    let found = serde_json::json!({
        "loss": summary.validation.context("no held-out loss")?.loss,
        "cpu_s": cpu,
        "wall_s": wall,
        "data_stall_share": summary.data_stall_share,
    });
    writeln!(std::io::stdout(), "{found}")?;
    Ok(())
}
