//! A run that was stopped, killed or damaged ends with the same weights as one that was not.

use std::fs;
use std::path::{Path, PathBuf};

use trainer::data::{Data, Identity};
use trainer::recipe::{self, Optimizer, Precision, Recipe, Train};
use trainer::run::{self, Observer, Report};
use trainer::source::Memory;
use trainer::{Error, Result, checkpoint};

/// Stops after a step, and remembers what was said.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) stop_after: Option<u64>,
    /// Stops at the so-manieth call, whatever the step.
    pub(crate) stop_at_visit: Option<usize>,
    pub(crate) notes: Vec<String>,
    pub(crate) losses: Vec<f64>,
}

impl Script {
    fn stop_after(step: u64) -> Self {
        Self { stop_after: Some(step), ..Self::default() }
    }
}

impl Observer for Script {
    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }
    fn step(&mut self, report: &Report) -> bool {
        self.losses.push(report.loss);
        self.stop_after != Some(report.step) && self.stop_at_visit != Some(self.losses.len())
    }
}

/// A text that can be learnt: each token is a function of the one before, with some noise.
fn tokens(n: usize, factor: u32) -> Vec<u32> {
    let mut random = trainer::random::Random::new(3, "text");
    let mut out = vec![1];
    while out.len() < n {
        let next = (out[out.len() - 1] * factor + 1) % 29;
        let is_noise = random.uniform() < 0.1;
        out.push(if is_noise { u32::try_from(random.next_u64() % 29).unwrap() } else { next });
    }
    out
}

/// The folder as version 1 of a dataset.
pub(crate) fn dataset(folder: &Path, newest_version: u64) -> Identity {
    let (path, manifest_hash) = (folder.to_owned(), "feed".to_owned());
    Identity { name: None, path, version: 1, newest_version, manifest_hash }
}

fn data(folder: &Path) -> Data {
    data_of(folder, 3)
}

fn data_of(folder: &Path, factor: u32) -> Data {
    let source = |n| Box::new(Memory::new(tokens(n, factor), 16));
    Data {
        train: source(4000),
        validation: Some(source(600)),
        datasets: vec![dataset(folder, 1)],
        manifest_hash: "feed".to_owned(),
        n_vocabulary: 29,
        tokenizer: None,
        token_bytes: None,
    }
}

fn recipe(folder: &Path, kind: &str) -> Recipe {
    Recipe {
        data: folder.to_owned().into(),
        data_version: None,
        phase: Vec::new(),
        packing: None,
        run: folder.join("run"),
        objective: trainer::objective::Config::default(),
        adapter: None,
        model: recipe::Model {
            kind: Some(kind.to_owned()),
            n_layer: 2,
            n_head: 2,
            n_embd: 32,
            seq_len: 16,
            // Dropout draws from libtorch's generator: after a restart it must draw the same.
            dropout: 0.1,
            vocab_multiple: 32,
            ..recipe::Model::default()
        },
        train: Train {
            steps: 100,
            batch_sequences: 8,
            micro_batch_sequences: Some(4),
            threads: Some(1),
            checkpoint_every: 20,
            evaluate_every: 50,
            ..Train::default()
        },
        optimizer: Optimizer { lr: 1e-2, ..Optimizer::default() },
    }
}

fn train(recipe: &Recipe, script: &mut Script) -> Result<run::Summary> {
    run::train(recipe, data(recipe.run.parent().unwrap()), script)
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/model.safetensors")).unwrap()
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn a_stopped_run_ends_with_the_same_bits() {
    for kind in ["gpt2", "llama"] {
        let (_a, whole) = scratch();
        let mut script = Script::default();
        let summary = train(&recipe(&whole, kind), &mut script).unwrap();
        assert!(summary.is_done && summary.resumed_from.is_none());
        let first = script.losses[0];
        let last = summary.validation.unwrap().loss;
        // ln 29 is what ignorance costs.
        assert!((first - 29f64.ln()).abs() < 0.2 && last < 2.5, "{kind}: {first} to {last}");

        let (_b, parts) = scratch();
        let mut losses = Vec::new();
        for stop in [Some(33), Some(50), None] {
            let mut script = Script { stop_after: stop, ..Script::default() };
            let summary = train(&recipe(&parts, kind), &mut script).unwrap();
            assert_eq!(summary.is_done, stop.is_none());
            losses.extend(script.losses);
        }
        assert_eq!(losses, script.losses, "{kind}: every loss of every step");
        assert_eq!(weights(&whole.join("run")), weights(&parts.join("run")), "{kind}");
        let lines = |run: &Path| {
            let text = fs::read_to_string(run.join("run/metrics.jsonl")).unwrap();
            text.lines().filter(|line| line.contains("train/loss")).count()
        };
        assert_eq!((lines(&whole), lines(&parts)), (100, 100));
        println!("{kind}: 100 steps in 3 parts, loss {first:.3} to {last:.3}");
    }
}

#[test]
fn a_stopped_run_of_adapters_ends_with_the_same_bits() {
    let (_base, base) = scratch();
    let mut first = recipe(&base, "llama");
    first.train.steps = 40;
    train(&first, &mut Script::default()).unwrap();
    let adapted = |path: &Path| {
        let mut recipe = recipe(path, "llama");
        recipe.train.steps = 60;
        recipe.model.kind = None;
        recipe.model.from = Some(base.join("run/model"));
        recipe.adapter = Some(trainer::adapter::Config {
            kind: trainer::adapter::Variant::Dora,
            dropout: 0.1,
            ..trainer::adapter::Config::default()
        });
        recipe
    };
    let (_a, whole) = scratch();
    let mut script = Script::default();
    // Another text than the one that the model knows.
    let other = |path: &Path, script: &mut Script| {
        run::train(&adapted(path), data_of(path, 5), script).unwrap()
    };
    let summary = other(&whole, &mut script);
    let (before, after) = (script.losses[0], summary.validation.unwrap().loss);
    assert!(after < before - 2.0, "{before} to {after}");
    let (_b, parts) = scratch();
    let mut losses = Vec::new();
    for stop in [Some(23), None] {
        let mut script = Script { stop_after: stop, ..Script::default() };
        other(&parts, &mut script);
        losses.extend(script.losses);
    }
    assert_eq!(losses, script.losses, "every loss of every step");
    let adapters =
        |path: &Path| fs::read(path.join("run/model/adapter_model.safetensors")).unwrap();
    assert_eq!(adapters(&whole), adapters(&parts));
    assert!(!whole.join("run/model/model.safetensors").is_file(), "adapters are kept alone");
    println!("60 steps of adapters in 2 parts, loss {before:.3} to {after:.3}");
}

#[test]
fn a_run_says_when_it_goes_on_with_an_older_version() {
    let (_folder, path) = scratch();
    let recipe = recipe(&path, "gpt2");
    train(&recipe, &mut Script::stop_after(2)).unwrap();
    for newest_version in [1, 3] {
        let mut script = Script::stop_after(3);
        run::train(
            &recipe,
            Data { datasets: vec![dataset(&path, newest_version)], ..data(&path) },
            &mut script,
        )
        .unwrap();
        let says = script.notes.iter().any(|note| note.contains("to train on version 3"));
        assert_eq!(says, newest_version == 3, "{:?}", script.notes);
        fs::remove_dir_all(&recipe.run).unwrap();
        train(&recipe, &mut Script::stop_after(2)).unwrap();
    }
}

#[test]
fn seeds_decide_the_weights() {
    let (_folder, path) = scratch();
    let mut recipe = recipe(&path, "gpt2");
    let first = |recipe: &Recipe| {
        let loaded = run::first_model(recipe, 29, tch::Device::Cpu).unwrap();
        Vec::<f32>::try_from(loaded.model.parameters()[0].tensor.reshape([-1])).unwrap()
    };
    let once = first(&recipe);
    assert_eq!(once.len(), 32 * 32, "29 entries are padded to 32");
    assert_eq!(once, first(&recipe));
    recipe.train.seed += 1;
    assert_ne!(once, first(&recipe));
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let (_folder, path) = scratch();
    let recipe = recipe(&path, "gpt2");
    train(&recipe, &mut Script::stop_after(45)).unwrap();
    let folder = checkpoint::folder(&recipe.run);
    let newest = folder.join("step-00000045");
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["step-00000040", "step-00000045"], "the two newest are kept");
    let found = |notes: &mut Vec<String>| {
        checkpoint::newest(&recipe.run, &mut |line| notes.push(line.to_owned()))
    };
    for (file, reason) in [
        ("model.safetensors", "`model.safetensors` has the hash"),
        ("optimizer.safetensors", "`optimizer.safetensors` has the hash"),
        ("config.json", "`config.json` has the hash"),
        ("state.json", "`state.json`"),
    ] {
        let path = newest.join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, bad).unwrap();
        let mut notes = Vec::new();
        let (taken, state) = found(&mut notes).unwrap().unwrap();
        assert!(taken.ends_with("step-00000040") && state.step == 40, "{file}");
        assert!(notes.len() == 1 && notes[0].contains(reason), "{file}: {notes:?}");
        fs::write(&path, good).unwrap();
    }
    fs::write(newest.join("extra.pt"), "x").unwrap();
    let mut notes = Vec::new();
    assert_eq!(found(&mut notes).unwrap().unwrap().1.step, 40);
    assert!(notes[0].contains("`extra.pt` is a pickle"), "{notes:?}");
    fs::remove_file(newest.join("extra.pt")).unwrap();

    // From the older one to the same end.
    fs::remove_file(newest.join("state.json")).unwrap();
    let mut script = Script::default();
    let summary = train(&recipe, &mut script).unwrap();
    assert_eq!(summary.resumed_from, Some(40));
    assert!(script.notes.iter().any(|note| note.contains("damaged")), "{:?}", script.notes);
    let (_other, whole) = scratch();
    train(&self::recipe(&whole, "gpt2"), &mut Script::default()).unwrap();
    assert_eq!(weights(&recipe.run), weights(&whole.join("run")));
}

#[test]
fn another_recipe_or_dataset_is_refused_with_both_values() {
    let (_folder, path) = scratch();
    let mut recipe = recipe(&path, "gpt2");
    train(&recipe, &mut Script::stop_after(20)).unwrap();
    let mut other = data(&path);
    other.manifest_hash = "beef".to_owned();
    let error = run::train(&recipe, other, &mut Script::default()).unwrap_err().to_string();
    assert!(error.contains("feed") && error.contains("beef"), "{error}");
    recipe.optimizer.lr = 0.5;
    let error = train(&recipe, &mut Script::default()).unwrap_err().to_string();
    assert!(error.contains("`optimizer.lr` 0.01, now it is 0.5"), "{error}");
    recipe.optimizer.lr = 1e-2;
    recipe.train.checkpoint_every = 7;
    train(&recipe, &mut Script::stop_after(21)).unwrap();
}

#[test]
fn a_vocabulary_larger_than_the_models_is_refused() {
    let (_folder, path) = scratch();
    let mut first = recipe(&path, "gpt2");
    train(&first, &mut Script::stop_after(1)).unwrap();
    first.model.kind = None;
    first.model.from = Some(checkpoint::folder(&first.run).join("step-00000001"));
    let error = run::first_model(&first, 33, tch::Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("has 33 entries, the model's 32"), "{error}");
}

#[test]
fn steps_beyond_numbers_are_skipped_and_then_refused() {
    let (_folder, path) = scratch();
    let mut recipe = recipe(&path, "gpt2");
    recipe.train.skips_max = 3;
    train(&recipe, &mut Script::stop_after(20)).unwrap();
    // Weights at the end of the range make every loss no number: nothing must be updated.
    recipe.run = path.join("poisoned");
    let loaded = trainer::model::load(
        &checkpoint::folder(&path.join("run")).join("step-00000020"),
        tch::Device::Cpu,
    )
    .unwrap();
    let from = path.join("from");
    fs::create_dir(&from).unwrap();
    tch::no_grad(|| {
        let mut gain = loaded.model.parameters().last().unwrap().tensor.shallow_clone();
        let _ = gain.fill_(3e38);
    });
    trainer::model::save(&loaded, &from).unwrap();
    recipe.model.kind = None;
    recipe.model.from = Some(from.clone());
    let error = train(&recipe, &mut Script::default()).unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 4, skipped: 4, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("loss inf") && error.contains("step 4"), "{error}");
    recipe.train.skips_max = 10;
    recipe.run = path.join("poisoned-2");
    let summary = train(&recipe, &mut Script::stop_after(3)).unwrap();
    assert_eq!(summary.skipped, 3);
    let kept = trainer::weights::WeightFiles::open_folder(
        &checkpoint::folder(&recipe.run).join("step-00000003"),
    )
    .unwrap();
    for parameter in &loaded.model.parameters()[..5] {
        assert!(
            kept.tensor(&parameter.name).unwrap().equal(&parameter.tensor),
            "{}",
            parameter.name
        );
    }
}

#[test]
fn bfloat16_learns_as_float32_does() {
    let (_folder, path) = scratch();
    let mut recipe = recipe(&path, "llama");
    recipe.model.dropout = 0.0;
    let mut full = Script::default();
    train(&recipe, &mut full).unwrap();
    recipe.train.precision = Precision::Bf16;
    recipe.run = path.join("half");
    let mut half = Script::default();
    train(&recipe, &mut half).unwrap();
    let far = full.losses.iter().zip(&half.losses).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
    // Products keep 8 bits: losses agree to about 1 %, and are not equal unless nothing was cast.
    println!("largest difference of losses over 100 steps: {far:.1e}");
    assert!(far > 0.0 && far < 0.1, "{far}");
}

#[test]
fn two_processes_do_not_train_one_run() {
    let (_folder, path) = scratch();
    let recipe = recipe(&path, "gpt2");
    struct Nested<'a>(&'a Recipe, Option<String>);
    impl Observer for Nested<'_> {
        fn note(&mut self, _line: &str) {}
        fn step(&mut self, _report: &Report) -> bool {
            let second = train(self.0, &mut Script::default());
            self.1 = Some(second.unwrap_err().to_string());
            false
        }
    }
    let mut nested = Nested(&recipe, None);
    run::train(&recipe, data(&path), &mut nested).unwrap();
    let error = nested.1.unwrap();
    assert!(error.contains("another process is training this run"), "{error}");
}
