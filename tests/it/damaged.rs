//! What a killed run left is compared with its hashes before it is used: what was altered since is made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use shard::store;

use crate::mill::{Mill, assert_same};

const SETTINGS: [&str; 4] = [
    "--set",
    "dedup.methods=[\"exact\", \"minhash\", \"paragraph\"]",
    "--set",
    "shard.tokenizer=train:bpe:400",
];
/// The datasets whose staging folders a run fills, with its stages in the order of the run.
const STAGES: [(&str, &str); 7] = [
    ("documents", "documents"),
    ("signatures", "signatures"),
    ("repeats", "pieces"),
    ("repeats", "found"),
    ("tokens", "tokenizer"),
    ("tokens", "encode"),
    ("tokens", "sort"),
];

#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedByte,
    Truncated,
    Deleted,
}

impl Damage {
    fn inflict(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::FlippedByte => bytes[middle] ^= 1,
            Self::Truncated => bytes.truncate(middle),
            Self::Deleted => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }
}

/// The records of the units that a stage has finished.
fn records(corpus: &Path, (dataset, stage): (&str, &str)) -> Vec<PathBuf> {
    let staging = corpus.join(dataset).join("staging");
    let folders = store::list(&staging).unwrap();
    let folders = folders.iter().filter(|name| name.starts_with(&format!("{stage}-")));
    let is_record = |name: &String| name.starts_with("unit-") && name.ends_with(".json");
    folders
        .flat_map(|folder| {
            let folder = staging.join(folder);
            let names = store::list(&folder).unwrap_or_default();
            names.into_iter().filter(is_record).map(move |name| folder.join(name))
        })
        .collect()
}

/// Kills a run as soon as `stage` has finished a unit, and returns its records; none where the run was too quick.
fn kill_in(mill: &Mill, corpus: &str, stage: (&str, &str)) -> Vec<PathBuf> {
    let output = format!("output={corpus}");
    let start = ["run", "job.toml", "--no-train", "--quiet", "--threads", "2", "--set", &output];
    let mut child = mill.start(&[&start[..], &SETTINGS].concat());
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() && records(&mill.path(corpus), stage).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(600), "the run does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    records(&mill.path(corpus), stage)
}

/// The files that a record names, as seen from the folder of the job.
fn files(record: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(record).unwrap();
    let record: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let files = record["files"].as_array().unwrap().iter();
    files.map(|file| PathBuf::from(file["path"].as_str().unwrap())).collect()
}

#[test]
fn damaged_files_of_a_killed_run_are_found_and_made_again() {
    let mill = Mill::filled(3 << 20);
    let run = |corpus: &str| {
        let output = format!("output={corpus}");
        let arguments = ["run", "job.toml", "--no-train", "--threads", "2", "--set", &output];
        let run = mill.run(&[&arguments[..], &SETTINGS].concat());
        let log = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{corpus}: {log}");
        log
    };
    assert!(!run("whole").contains("made again"));
    mill.ok(&["clean", "whole"]);
    let expected = mill.files("whole");

    let (mut n_damaged, mut n_kills) = (0, 0);
    for (number, stage) in STAGES.into_iter().enumerate() {
        let damages = [Damage::FlippedByte, Damage::Truncated, Damage::Deleted];
        for (of_record, damage) in [
            (false, damages[number % 3]),
            (false, damages[(number + 1) % 3]),
            (true, damages[number % 2]),
        ] {
            let corpus = format!("{}-{of_record}-{damage:?}", stage.1);
            let left = kill_in(&mill, &corpus, stage);
            // A bucket that no document falls into has a record and no file.
            let Some(record) = left.iter().find(|left| of_record || !files(left).is_empty()) else {
                println!("{corpus}: nothing of the stage is left");
                fs::remove_dir_all(mill.path(&corpus)).unwrap();
                continue;
            };
            n_kills += 1;
            let victim = match of_record {
                true => record.clone(),
                false => mill.path(files(record)[0].to_str().unwrap()),
            };
            damage.inflict(&victim);
            let log = run(&corpus);
            let told: Vec<&str> = log.lines().filter(|line| line.contains("made again")).collect();
            assert_eq!(told.len(), 1, "{corpus}: {log}");
            let name = victim.file_name().unwrap().to_str().unwrap();
            assert!(told[0].contains(name), "{corpus}, {name}: {}", told[0]);
            n_damaged += told.len();
            mill.ok(&["clean", &corpus]);
            assert_same(&mill.files(&corpus), &expected, &corpus);
            fs::remove_dir_all(mill.path(&corpus)).unwrap();
        }
    }
    println!("{n_damaged} damaged files found after {n_kills} kills");
    assert!(n_damaged >= 10, "{n_damaged} of {n_kills}");
}

#[test]
fn a_damaged_shard_of_signatures_is_an_error_that_names_both_hashes() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&[]);
    let whole = mill.files("corpus");
    let folder = mill.path("corpus/signatures/data");
    let name = store::list(&folder).unwrap().remove(0);
    let shard = folder.join(&name);
    let wanted = store::hash_file(&shard).unwrap();
    Damage::FlippedByte.inflict(&shard);
    let found = store::hash_file(&shard).unwrap();
    for dataset in ["duplicates", "tokens"] {
        fs::remove_dir_all(mill.path("corpus").join(dataset)).unwrap();
    }
    let output = mill.run(&["run", "job.toml", "--quiet", "--json"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    // Messages are wrapped to the width of a terminal.
    let message: String = message.split(|c: char| c.is_whitespace() || c == '│').collect();
    for part in [&name, &wanted, &found] {
        assert!(message.contains(part.as_str()), "{part}: {message}");
    }
    // What the hint says.
    fs::remove_file(&shard).unwrap();
    mill.mill(&[]);
    let files = mill.files("corpus");
    for (name, hash) in whole.iter().filter(|(name, _)| name.contains("/data/")) {
        assert_eq!(files.get(name), Some(hash), "{name}");
    }
}
