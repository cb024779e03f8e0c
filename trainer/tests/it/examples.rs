//! The recipes in `examples/` train, in a short form, on a corpus of a test.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::{self, Document};

/// Runs a recipe of `examples/` for three steps into the folder of its name; returns its summary.
fn train(name: &str, data: &Path, folder: &Path, more: &[&str]) -> Value {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}.toml"));
    let run = folder.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-train"));
    command.arg("train").arg(&recipe).args(["--quiet", "--json"]);
    for (key, value) in [
        ("data", data.display().to_string()),
        ("run", run.display().to_string()),
        ("train.steps", "3".to_owned()),
        ("optimizer.warmup_steps", "1".to_owned()),
    ] {
        command.args(["--set", &format!("{key}={value}")]);
    }
    let done = command.args(more).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&summary["step"], &summary["is_done"]), (&3.into(), &true.into()), "{name}");
    summary
}

const FEW: [&str; 2] = ["--set", "train.evaluate_sequences=4"];

#[test]
fn every_recipe_for_a_fresh_model_trains() {
    let folder = tempfile::tempdir().unwrap();
    process::corpus(folder.path());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut n = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        let is_fresh = path.is_file()
            && fs::read_to_string(&path).is_ok_and(|text| text.contains("[model]\nkind = "));
        if !is_fresh {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let summary = train(&name, &folder.path().join("tokens"), folder.path(), &FEW);
        assert!(summary["validation"]["loss"].as_f64().unwrap() < 8.0, "{name}: {summary}");
        assert!(folder.path().join(&name).join("model/model.safetensors").is_file(), "{name}");
        n += 1;
    }
    println!("trained {n} recipes");
    assert!(n >= 3, "{n}");
}

#[test]
fn a_model_is_made_by_two_processes_then_tuned_whole_and_by_adapters() {
    let folder = tempfile::tempdir().unwrap();
    process::corpus(folder.path());
    let two = [&FEW[..], &["--nproc", "2", "--set", "train.threads=1"]].concat();
    train("llama-tiny", &folder.path().join("tokens"), folder.path(), &two);
    let first = folder.path().join("llama-tiny/model");

    // Dialogues: of each document, the second half is what the assistant says.
    let tokenizer = process::tokenizer();
    let dialogues = |seeds| {
        let halve = |document: Document| {
            let n = document.tokens.len();
            let loss_mask = Some((0..n).map(|i| i >= n / 2).collect());
            Document { loss_mask, ..document }
        };
        process::texts(&tokenizer, seeds).into_iter().map(halve).collect::<Vec<_>>()
    };
    let held_out = dialogues(60..66);
    let targets: usize = held_out.iter().map(|it| it.tokens.len() - it.tokens.len() / 2).sum();
    let data = folder.path().join("dialogues");
    let splits = [("train", dialogues(0..40)), ("validation", held_out)];
    process::write_tokens(&data, &tokenizer, splits);

    let from = format!("model.from={}", first.display());
    // As long as the first model's sequences, and all that is held out.
    let all = "train.evaluate_sequences=1000";
    let more = ["--set", &from, "--set", "model.seq_len=128", "--set", all];
    let before = fs::read(first.join("model.safetensors")).unwrap();
    for (name, file) in
        [("sft-tiny", "model.safetensors"), ("lora-smollm2", "adapter_model.safetensors")]
    {
        let summary = train(name, &data, folder.path(), &more);
        // Every token that counts is a target once, and nothing else is.
        assert_eq!(summary["validation"]["n_tokens"], targets, "{name}");
        let metrics = fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
        let losses: Vec<f64> = metrics
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["validation/loss"].as_f64()
            })
            .collect();
        println!("{name}: held-out loss {losses:.3?} over {targets} targets");
        assert!(losses[losses.len() - 1] < losses[0], "{name}: {losses:?}");
        assert!(folder.path().join(name).join("model").join(file).is_file(), "{name}");
    }
    assert_eq!(fs::read(first.join("model.safetensors")).unwrap(), before);
    let adapters = folder.path().join("lora-smollm2/model");
    assert!(!adapters.join("model.safetensors").is_file(), "adapters are kept alone");
}
