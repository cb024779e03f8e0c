//! Prints the speed of training steps: `cargo run -p trainer --example step_speed -- [threads] [fp32|bf16] [steps]`.
//!
//! A GPT-2 shape of 4 layers, 128 wide, 8 sequences of 256 tokens, a vocabulary of 8192, AdamW; the median of the steps
//! after ten of warm-up.

use std::io::Write;

use trainer::data::{Data, Identity};
use trainer::recipe::{Model, Optimizer, Precision, Recipe, Train};
use trainer::run::{self, Observer, Report};
use trainer::source::Memory;

struct Speeds(Vec<f64>);

impl Observer for Speeds {
    fn note(&mut self, _line: &str) {}
    fn step(&mut self, report: &Report) -> bool {
        self.0.push(report.tokens_per_s);
        true
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.first().map_or(Ok(1), |text| text.parse())?;
    let is_bf16 = arguments.get(1).is_some_and(|text| text == "bf16");
    let steps = arguments.get(2).map_or(Ok(60), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("gristmill-step-speed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let recipe = Recipe {
        data: folder.clone().into(),
        data_version: None,
        phase: Vec::new(),
        packing: None,
        run: folder.join("run"),
        model: Model { kind: Some("gpt2".to_owned()), ..Model::default() },
        objective: trainer::objective::Config::default(),
        adapter: None,
        train: Train {
            steps,
            batch_sequences: 8,
            precision: if is_bf16 { Precision::Bf16 } else { Precision::Fp32 },
            threads: Some(threads),
            checkpoint_every: steps,
            evaluate_every: steps,
            ..Train::default()
        },
        optimizer: Optimizer::default(),
    };
    let mut random = trainer::random::Random::new(1, "tokens");
    let tokens = (0..100_000).map(|_| u32::try_from(random.next_u64() % 8192));
    let data = Data {
        train: Box::new(Memory::new(tokens.collect::<Result<_, _>>()?, 256)),
        validation: None,
        datasets: vec![Identity {
            name: None,
            path: folder.clone(),
            version: 1,
            newest_version: 1,
            manifest_hash: String::new(),
        }],
        manifest_hash: String::new(),
        n_vocabulary: 8192,
        tokenizer: None,
        token_bytes: None,
    };
    let mut speeds = Speeds(Vec::new());
    run::train(&recipe, data, &mut speeds)?;
    let mut after = speeds.0.split_off(10.min(speeds.0.len() - 1));
    after.sort_by(f64::total_cmp);
    let median = after[after.len() / 2];
    let best = after[after.len() - 1];
    writeln!(
        std::io::stdout(),
        "{threads} threads, {:?}: median {median:.0}, best {best:.0} tokens/s over {} steps",
        recipe.train.precision,
        after.len()
    )?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
