//! Faults planted at known steps, and batches cut in other ways: the loop finds the first and does not notice the second.

use std::path::Path;

use shard::reader::Sequence;
use trainer::data::Data;
use trainer::model;
use trainer::recipe::{self, Optimizer, Recipe, Train};
use trainer::run;
use trainer::source::SequenceSource;
use trainer::{Result, checkpoint, torch};

use super::resume::{Script, dataset};

const T: u32 = 16;
const B: u64 = 4;

/// Tokens that follow a rule, but for the batches in `bad`, which follow none; some targets do not count.
struct Planted {
    bad: std::ops::Range<u64>,
    has_holes: bool,
    /// The sample from which on nothing can be read.
    ends_at: u64,
}

impl SequenceSource for Planted {
    fn n_sequences(&self) -> u64 {
        1 << 20
    }

    fn read(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        if sample >= self.ends_at {
            return Err(trainer::Error::Torch { action: "read", why: "planted".to_owned() });
        }
        let mut random = trainer::random::Random::new(sample, "planted");
        let mut next = u32::try_from(random.next_u64() % 29).unwrap();
        out.tokens.clear();
        for _ in 0..=T {
            out.tokens.push(next);
            let is_bad = self.bad.contains(&(sample / B));
            next = if is_bad {
                u32::try_from(random.next_u64() % 29).unwrap()
            } else {
                (next * 3 + 1) % 29
            };
        }
        out.boundaries = vec![0, T + 1];
        // Between one and all targets of a row count.
        let n = if self.has_holes { 1 + sample * 7 % u64::from(T) } else { u64::from(T) };
        out.loss_mask = (0..u64::from(T)).map(|i| i < n).collect();
        Ok(())
    }
}

pub(crate) fn data(folder: &Path, bad: std::ops::Range<u64>, has_holes: bool) -> Data {
    planted(folder, Planted { bad, has_holes, ends_at: u64::MAX })
}

pub(crate) fn failing_data(folder: &Path, batch: u64) -> Data {
    planted(folder, Planted { bad: 0..0, has_holes: true, ends_at: batch.saturating_mul(8) })
}

fn planted(folder: &Path, source: Planted) -> Data {
    Data {
        train: Box::new(source),
        validation: None,
        datasets: vec![dataset(folder, 1)],
        manifest_hash: "feed".to_owned(),
        n_vocabulary: 29,
        tokenizer: None,
        token_bytes: None,
    }
}

pub(crate) fn recipe(folder: &Path) -> Recipe {
    Recipe {
        data: folder.to_owned().into(),
        data_version: None,
        phase: Vec::new(),
        packing: None,
        run: folder.join("run"),
        model: recipe::Model {
            kind: Some("gpt2".to_owned()),
            n_layer: 1,
            n_head: 2,
            n_embd: 32,
            seq_len: u64::from(T),
            vocab_multiple: 32,
            ..recipe::Model::default()
        },
        objective: trainer::objective::Config::default(),
        adapter: None,
        train: Train {
            steps: 160,
            batch_sequences: B,
            threads: Some(1),
            checkpoint_every: 20,
            checkpoints_kept: 4,
            skips_max: 3,
            ..Train::default()
        },
        optimizer: Optimizer { lr: 1e-2, ..Optimizer::default() },
    }
}

fn steps(run: &Path, key: &str) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.filter_map(|row| Some((row["step"].as_u64()?, row[key].as_f64()?))).collect()
}

#[test]
fn a_spike_is_skipped_on_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let mut script = Script::default();
    let summary = run::train(&recipe, data(folder.path(), 120..122, false), &mut script).unwrap();
    let skipped = steps(&recipe.run, "train/skipped");
    let found: Vec<u64> =
        skipped.iter().filter(|(_, is)| *is == 1.0).map(|(step, _)| *step).collect();
    println!("losses around the spike: {:?}", &script.losses[117..124]);
    assert_eq!((found, summary.skipped), (vec![121, 122], 2), "batches count from 0, steps from 1");
    assert!(summary.rollbacks.is_empty() && summary.loss.unwrap() < 1.0, "{summary:?}");
    // What no step learnt from is as good as not there.
    assert!(script.losses[122] < 2.0 * script.losses[119], "{:?}", &script.losses[117..124]);
}

#[test]
fn too_many_spikes_roll_the_run_back_and_the_data_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path());
    let mut script = Script::default();
    let summary = run::train(&recipe, data(folder.path(), 110..114, false), &mut script).unwrap();
    let [rollback] = summary.rollbacks[..] else { panic!("{summary:?}") };
    assert_eq!((rollback.from_step, rollback.to_step), (114, 100), "the fourth in a row");
    assert_eq!(rollback.next_sample, 114 * B, "the batch after the bad ones");
    assert_eq!((summary.step, summary.is_done, summary.skipped), (160, true, 4));
    assert!(
        script.notes.iter().any(|note| note.contains("back to step 100")),
        "{:?}",
        script.notes
    );
    let losses = steps(&recipe.run, "train/loss");
    assert!(losses.iter().map(|(step, _)| *step).eq(1..=160), "each step is measured once");
    let (path, state) = checkpoint::newest(&recipe.run, &mut |_| {}).unwrap().unwrap();
    assert_eq!(state.reader.next_sample, (160 + 14) * B);
    let loaded = model::load(&path, tch::Device::Cpu).unwrap();
    assert!(
        loaded.model.parameters().iter().all(|p| p.tensor.isfinite().all().int64_value(&[]) == 1)
    );

    // The same, stopped behind the rollback: the left out batches stay left out.
    recipe.run = folder.path().join("stopped");
    for stop_at_visit in [Some(120), None] {
        let mut script = Script { stop_at_visit, ..Script::default() };
        run::train(&recipe, data(folder.path(), 110..114, false), &mut script).unwrap();
    }
    assert_eq!(steps(&recipe.run, "train/loss"), losses);

    recipe.run = folder.path().join("hopeless");
    recipe.train.rollbacks_max = 1;
    let error = run::train(&recipe, data(folder.path(), 110..900, false), &mut Script::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot go on training") && error.contains("4th such step"), "{error}");
}

#[test]
fn a_batch_in_parts_gives_the_gradients_of_the_whole() {
    torch::start();
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path());
    recipe.train.batch_sequences = 8;
    recipe.train.steps = 20;
    // Steps in proportion to gradients: AdamW would blow rounding up where a gradient is zero.
    recipe.optimizer.kind = "sgd".to_owned();
    recipe.optimizer.lr = 0.1;
    let mut known: Option<(Vec<f64>, Vec<tch::Tensor>)> = None;
    for micro in [8, 4, 2, 1] {
        recipe.train.micro_batch_sequences = Some(micro);
        recipe.run = folder.path().join(format!("parts-of-{micro}"));
        let mut script = Script::default();
        run::train(&recipe, data(folder.path(), 0..0, true), &mut script).unwrap();
        let loaded = model::load(&recipe.run.join("model"), tch::Device::Cpu).unwrap();
        let weights =
            loaded.model.parameters().iter().map(|p| p.tensor.detach()).collect::<Vec<_>>();
        let Some((losses, whole)) = &known else {
            known = Some((script.losses, weights));
            continue;
        };
        let loss_far =
            losses.iter().zip(&script.losses).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
        let far = whole.iter().zip(&weights).map(|(a, b)| (a - b).abs().max().double_value(&[]));
        let far = far.fold(0f64, f64::max);
        println!("1 x 8 and {} x {micro}: losses {loss_far:.1e}, weights {far:.1e}", 8 / micro);
        assert!(loss_far < 2e-6 && far < 2e-6, "{micro}: {loss_far} {far}");
    }
}
