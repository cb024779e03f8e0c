//! Runs on several datasets: in proportion, by phases, packed, and stopped in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use shard::mixture::{BLOCK, Schedule};
use shard::packing::Packing;
use trainer::data::Data;
use trainer::recipe::Recipe;
use trainer::run;

use super::process::{texts, tokenizer, write_tokens};
use super::resume::Script;

const RECIPE: &str = r#"
run = "run"
packing = "best_fit"
[[data]]
name = "mill"
dataset = "mill"
weight = 3.0
[[data]]
name = "farm"
dataset = "farm"
weight = 1.0
epochs_max = 2
[[phase]]
after_step = 12
weights = { mill = 1.0 }
[objective]
mask_documents = true
[model]
kind = "llama"
n_layer = 1
n_head = 2
n_embd = 32
seq_len = 64
[train]
steps = 24
batch_sequences = 4
threads = 1
checkpoint_every = 6
evaluate_every = 12
evaluate_sequences = 4
[optimizer]
lr = 1e-2
"#;

fn datasets(folder: &Path) -> std::path::PathBuf {
    let tokenizer = tokenizer();
    for (name, train, held_out) in [("mill", 0..40, 40..45), ("farm", 50..60, 60..62)] {
        let splits = [("train", train), ("validation", held_out)];
        let splits = splits.map(|(split, seeds)| (split, texts(&tokenizer, seeds)));
        write_tokens(&folder.join(name), &tokenizer, splits);
    }
    let path = folder.join("recipe.toml");
    fs::write(&path, RECIPE).unwrap();
    path
}

fn train(recipe: &Recipe, stop_after: Option<u64>) -> (run::Summary, Vec<f64>) {
    let data = Data::open(recipe, &run::data_versions(recipe).unwrap()).unwrap();
    let mut script = Script { stop_after, ..Script::default() };
    let summary = run::train(recipe, data, &mut script).unwrap();
    (summary, script.losses)
}

#[test]
fn a_stopped_run_on_a_mixture_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = datasets(folder.path());
    let mut recipe = Recipe::load(&path, &[]).unwrap();
    let (summary, losses) = train(&recipe, None);
    assert!(summary.is_done && summary.validation.is_some());
    assert!((0.0..1.0).contains(&summary.data_stall_share), "{}", summary.data_stall_share);
    let whole = fs::read(recipe.run.join("model/model.safetensors")).unwrap();

    recipe.run = folder.path().join("parts");
    let mut parts = Vec::new();
    // A newer version of a dataset changes nothing for a run that has begun.
    for stop in [Some(5), Some(14), None] {
        parts.extend(train(&recipe, stop).1);
        let farm = shard::Dataset::at(folder.path().join("farm"));
        let newest = farm.open(None).unwrap();
        farm.commit(newest.version, newest.manifest).unwrap();
    }
    assert_eq!(losses, parts, "every loss of every step");
    assert_eq!(fs::read(recipe.run.join("model/model.safetensors")).unwrap(), whole);

    let text = fs::read(recipe.run.join("checkpoints/step-00000024/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let state = &state["state"];
    assert_eq!(state["data_versions"], serde_json::json!([1, 1]));
    assert_eq!(state["reader"]["next_sample"], 24 * 4);
    let story = fs::read(recipe.run.join("run.json")).unwrap();
    let story: serde_json::Value = serde_json::from_slice(&story).unwrap();
    assert_eq!(story["mixture"][1]["dataset"], "../farm");
    assert_eq!((&story["packing"], &story["mask_documents"]), (&"best_fit".into(), &true.into()));

    // Another weight is another mixture.
    let error = Recipe::load(&path, &[]).and_then(|mut other| {
        other.run = recipe.run.clone();
        other.phase[0].weights.insert("mill".to_owned(), 2.0);
        let data = Data::open(&other, &run::data_versions(&other)?)?;
        run::train(&other, data, &mut Script::default())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has the manifest"), "{error}");
}

#[test]
fn the_samples_of_a_recipe_are_those_of_the_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::load(&datasets(folder.path()), &[]).unwrap();
    assert_eq!(recipe.packing(), Packing::BestFit);
    let mut data = Data::open(&recipe, &[]).unwrap();
    let mut alone: BTreeMap<&str, Box<dyn trainer::source::SequenceSource>> = BTreeMap::new();
    let mut sizes = Vec::new();
    for name in ["mill", "farm"] {
        let mut one = recipe.clone();
        one.data = folder.path().join(name).into();
        one.phase.clear();
        let data = Data::open(&one, &[]).unwrap();
        sizes.push(data.train.n_sequences());
        alone.insert(name, data.train);
    }
    // 48 samples of 3 to 1, then of 1 to 1; the second dataset gives two epochs at most.
    let weights = [(0, vec![3.0, 1.0]), (48, vec![1.0, 1.0])];
    let schedule = Schedule::new(&[None, Some(2 * sizes[1])], &weights, recipe.train.seed);
    let (mut of_mixture, mut of_one) = Default::default();
    let mut counts = [0; 2];
    for sample in 0..96 {
        let (component, local) = schedule.locate(sample);
        data.train.read(sample, &mut of_mixture).unwrap();
        alone.get_mut(["mill", "farm"][component]).unwrap().read(local, &mut of_one).unwrap();
        assert_eq!(of_mixture, of_one, "sample {sample}");
        assert!(of_mixture.boundaries.len() >= 2);
        if sample < 48 {
            counts[component] += 1;
        }
    }
    println!("of the first 48 samples, {counts:?} per dataset; blocks of {BLOCK}");
    assert!((10..=14).contains(&counts[1]), "{counts:?}");
}

#[test]
fn a_mixture_that_ends_before_the_run_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = datasets(folder.path());
    let mut recipe = Recipe::load(&path, &["train.steps=100000".to_owned()]).unwrap();
    if let trainer::sources::Sources::Mixture(components) = &mut recipe.data {
        components[0].epochs_max = Some(1);
    }
    let data = Data::open(&recipe, &[]).unwrap();
    let n = data.train.n_samples().unwrap();
    let error = run::train(&recipe, data, &mut Script::default()).unwrap_err().to_string();
    let expected = format!("exhausted after {n} sequences, the run needs 400000");
    assert!(error.contains(&expected), "{error}");

    // The same ids must be the same text.
    let other = shard::tokenizer::train_bpe(["one two three four".to_owned()].into_iter(), 280);
    let other = other.unwrap();
    let splits = ["train", "validation"].map(|split| (split, texts(&other, 0..3)));
    write_tokens(&folder.path().join("other"), &other, splits);
    if let trainer::sources::Sources::Mixture(components) = &mut recipe.data {
        components[1].dataset = folder.path().join("other");
    }
    let error = Data::open(&recipe, &[]).unwrap_err().to_string();
    assert!(error.contains("`mill` has tokenizer") && error.contains("`farm` has"), "{error}");
}
