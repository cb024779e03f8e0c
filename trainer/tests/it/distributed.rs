//! Several processes make the gradients of one, and hand a run on to any other number of them.
//!
//! Ranks are threads here: each has its own process group. The last test starts real processes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tch::Tensor;
use trainer::distributed::{World, free_port, owners};
use trainer::recipe::Recipe;
use trainer::run::{self, Summary};
use trainer::weights::WeightFiles;
use trainer::{Result, model};

use super::faults;
use super::process;
use super::resume::Script;

/// Runs `body` once for each rank, and returns what the ranks return.
fn in_world<T: Send>(size: u32, body: impl Fn(&World) -> T + Sync) -> Vec<T> {
    let port = free_port().unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let body = &body;
                scope.spawn(move || body(&World::join("127.0.0.1", port, rank, size).unwrap()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn train(size: u32, recipe: &Recipe, stop_after: Option<u64>) -> Vec<Result<Summary>> {
    let data = || faults::data(recipe.run.parent().unwrap(), 0..0, true);
    if size == 1 {
        let mut script = Script { stop_after, ..Script::default() };
        return vec![run::train(recipe, data(), &mut script)];
    }
    in_world(size, |world| {
        // One process is asked to stop: it asks the others.
        let stop_after = stop_after.filter(|_| world.rank() == 1);
        let mut script = Script { stop_after, ..Script::default() };
        run::train_in(world, recipe, data(), &mut script)
    })
}

/// Steps in proportion to gradients. Threads share one random generator, so there is no dropout here.
fn recipe(folder: &Path) -> Recipe {
    let mut recipe = faults::recipe(folder);
    recipe.train.batch_sequences = 8;
    recipe.train.micro_batch_sequences = Some(2);
    recipe.optimizer.kind = "sgd".to_owned();
    recipe.optimizer.momentum = Some(0.0);
    recipe
}

/// A recipe of 30 steps, and the weights that one process makes by it.
fn made_by_one(folder: &Path) -> (Recipe, Vec<Tensor>) {
    let mut recipe = recipe(folder);
    recipe.train.steps = 30;
    recipe.optimizer.lr = 0.1;
    recipe.optimizer.momentum = Some(0.9);
    train(1, &recipe, None).remove(0).unwrap();
    let whole = weights(&recipe.run);
    (recipe, whole)
}

fn weights(run: &Path) -> Vec<Tensor> {
    let loaded = model::load(&run.join("model"), tch::Device::Cpu).unwrap();
    loaded.model.parameters().iter().map(|p| p.tensor.detach()).collect()
}

fn difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs().max().double_value(&[])).fold(0.0, f64::max)
}

#[test]
fn gradients_of_several_processes_are_those_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path());
    // One update with a learning rate of 1 moves each weight by its gradient.
    recipe.train.steps = 1;
    recipe.optimizer.lr = 1.0;
    recipe.optimizer.warmup_steps = 0;
    recipe.optimizer.weight_decay = 0.0;
    recipe.optimizer.clip = 0.0;
    let mut whole: Option<(Vec<Tensor>, f64)> = None;
    for size in [1, 2, 4] {
        recipe.run = folder.path().join(format!("of-{size}"));
        let summaries = train(size, &recipe, None);
        let summaries: Vec<_> = summaries.into_iter().map(Result::unwrap).collect();
        let losses: Vec<f64> = summaries.iter().map(|summary| summary.loss.unwrap()).collect();
        assert!(
            losses.iter().all(|loss| *loss == losses[0]),
            "every rank knows the loss: {losses:?}"
        );
        assert!(
            summaries[1..].iter().all(|summary| summary.model.is_none()),
            "the first one writes"
        );
        let found = weights(&recipe.run);
        let Some((whole, loss)) = &whole else {
            whole = Some((found, losses[0]));
            continue;
        };
        let (far, loss_far) = (difference(whole, &found), (loss - losses[0]).abs());
        println!("{size} processes: gradients differ by {far:.1e}, loss by {loss_far:.1e}");
        assert!(far < 1e-7 && loss_far < 1e-6, "{size}: {far} {loss_far}");
    }
}

#[test]
fn whole_parameters_are_spread_evenly() {
    // By hand: 9 | 7, then 5 to the second (12), 4 to the first (13), 1 to the second.
    assert_eq!(owners(&[4, 9, 1, 7, 5], 2), [0, 0, 1, 1, 1]);
    assert_eq!(owners(&[3, 3], 1), [0, 0]);
    assert_eq!(owners(&[3], 4), [0]);
}

#[test]
fn an_optimizer_in_parts_makes_the_weights_of_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["adamw", "muon", "adafactor"] {
        let mut recipe = recipe(folder.path());
        recipe.optimizer.kind = kind.to_owned();
        recipe.optimizer.momentum = None;
        recipe.optimizer.average = Some(0.9);
        recipe.train.steps = 6;
        recipe.train.checkpoint_every = 3;
        let sizes: &[u32] = if kind == "adamw" { &[2, 4] } else { &[2] };
        for &size in sizes {
            let mut ends = Vec::new();
            for is_sharded in [false, true] {
                recipe.train.shard_optimizer = is_sharded;
                recipe.run = folder.path().join(format!("{kind}-{size}-{is_sharded}"));
                for summary in train(size, &recipe, None) {
                    assert!(summary.unwrap().is_done);
                }
                let moments = recipe.run.join("checkpoints/step-00000006/optimizer.safetensors");
                ends.push((weights(&recipe.run), WeightFiles::open(&moments).unwrap()));
            }
            let [whole, parts] = &ends[..] else { unreachable!() };
            // The same gradients and the same arithmetic for each parameter: the same bits.
            assert!(difference(&whole.0, &parts.0) == 0.0, "{kind}: weights of {size}");
            let names: Vec<&str> = whole.1.names().collect();
            assert_eq!(names, parts.1.names().collect::<Vec<_>>(), "{kind}");
            for name in &names {
                let [a, b] = [&whole.1, &parts.1].map(|files| files.tensor(name).unwrap());
                assert!(a.equal(&b), "{kind}: `{name}` of {size}");
            }
            println!("{kind}, {size} processes: {} remembered tensors are equal", names.len());
        }
    }
}

#[test]
fn a_checkpoint_in_parts_goes_on_in_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (mut recipe, whole) = made_by_one(folder.path());
    recipe.run = folder.path().join("layouts");
    for (size, is_sharded, stop_after) in
        [(2, true, Some(8)), (4, true, Some(14)), (2, false, Some(20)), (1, true, None)]
    {
        recipe.train.shard_optimizer = is_sharded;
        for summary in train(size, &recipe, stop_after) {
            assert_eq!(summary.unwrap().step, stop_after.unwrap_or(30));
        }
    }
    let far = difference(&whole, &weights(&recipe.run));
    println!("2 and 4 processes in parts, 2 whole, 1: weights differ by {far:.1e}");
    assert!(far < 1e-6, "{far}");
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut recipe, whole) = made_by_one(folder.path());
    recipe.run = folder.path().join("changing");
    for (size, stop_after) in [(1, Some(10)), (2, Some(20)), (1, None)] {
        for summary in train(size, &recipe, stop_after) {
            let summary = summary.unwrap();
            assert_eq!(summary.step, stop_after.unwrap_or(30));
        }
    }
    let found = weights(&recipe.run);
    let size = whole.iter().map(|w| w.abs().max().double_value(&[])).fold(0.0, f64::max);
    let far = difference(&whole, &found) / size;
    println!("1, 2, 1 processes: weights differ by {far:.1e}, relative to the largest");
    assert!(far < 1e-6, "{far}");
}

#[test]
fn a_batch_that_does_not_divide_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path());
    recipe.train.batch_sequences = 9;
    recipe.train.micro_batch_sequences = Some(3);
    for error in train(2, &recipe, None) {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("with 2 processes") && error.contains("is 9"), "{error}");
    }
}

#[test]
fn all_stop_when_one_process_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let start = Instant::now();
    let ends = in_world(4, |world| {
        // The data of rank 1 ends in an error.
        let bad_from = if world.rank() == 1 { 5 } else { u64::MAX };
        let data = faults::failing_data(recipe.run.parent().unwrap(), bad_from);
        let end = run::train_in(world, &recipe, data, &mut Script::default());
        end.map(|_| ()).map_err(|error| error.to_string())
    });
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    println!("{ends:?} after {:?}", start.elapsed());
    assert!(ends.iter().all(Result::is_err), "{ends:?}");
    assert!(ends[1].as_ref().unwrap_err().contains("planted"), "{ends:?}");
}

#[test]
fn the_command_starts_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = process::corpus(folder.path());
    let run = folder.path().join("runs/killed");
    let alone = folder.path().join("runs/alone");
    let mut losses = Vec::new();
    for (n, run) in [("1", &alone), ("2", &run)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-train"));
        command.arg("train").arg(&recipe).args([
            "--nproc",
            n,
            "--json",
            "--set",
            "train.threads=1",
        ]);
        command.args(["--set", "train.steps=10", "--set", "optimizer.kind=sgd"]);
        command.args(["--set", &format!("run={}", run.display())]);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(summary["step"], 10, "one summary, from the first process");
        losses.push(summary["loss"].as_f64().unwrap());
    }
    // The recipe has dropout: what it drops does not depend on who draws.
    let far = difference(&weights(&alone), &weights(&run));
    println!(
        "2 processes after 10 steps with dropout: weights differ by {far:.1e}, losses {losses:?}"
    );
    assert!(far < 1e-6, "{far}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-train"));
    command.arg("train").arg(&recipe).args(["--nproc", "2", "--set", "data=nowhere"]);
    let refused = command.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("nowhere") && said.contains("the process of rank"), "{said}");
}
