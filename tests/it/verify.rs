//! `gristmill verify` finds every damaged file, says which, and puts right what can be.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use shard::Dataset;

use crate::mill::{Mill, Random, assert_same};

/// A corpus of two shards of documents and what follows from them.
fn corpus() -> Mill {
    let mill = Mill::new();
    mill.write("a.jsonl", crate::mill::salad(60_000, 1));
    mill.write("b.jsonl", crate::mill::salad(60_000, 2));
    let job = "name = \"j\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"*.jsonl\"\n\
               [shard]\ntokenizer = \"train:bpe:300\"\nsplit = { train = 0.5, validation = 0.5 }\n";
    mill.write("job.toml", job);
    mill.mill(&[]);
    mill
}

fn shards(mill: &Mill, dataset: &str) -> Vec<PathBuf> {
    let snapshot = Dataset::at(mill.path("corpus").join(dataset)).open(None).unwrap();
    snapshot.manifest.shards.iter().map(|shard| snapshot.shard_path(shard)).collect()
}

fn report(mill: &Mill, flags: &[&str], code: i32) -> Value {
    let output = mill.run(&[&["verify", "corpus", "--json"], flags].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[test]
fn a_sound_corpus_is_sound_in_every_row() {
    let mill = corpus();
    let shallow = report(&mill, &[], 0);
    let deep = report(&mill, &["--deep"], 0);
    let counted = ["documents", "dropped", "edits", "tokens"]
        .map(|table| mill.count("corpus", &format!("select count(*) from {table}")));
    assert_eq!(shallow["rows"], 0);
    assert_eq!(deep["rows"], counted.iter().sum::<u64>());
    assert_eq!(shallow["shards"], deep["shards"]);
    assert_eq!(deep["failures"], serde_json::json!([]));
}

#[test]
fn each_flipped_bit_of_shards_manifest_and_tokenizer_is_found_and_its_file_named() {
    let mill = corpus();
    let tokens = Dataset::at(mill.path("corpus/tokens")).open(None).unwrap();
    let mut files = shards(&mill, "tokens");
    files.push(mill.path("corpus/tokens/manifest/00000001.json"));
    files.push(tokens.path.join(&tokens.manifest.tokenizer.unwrap().path));
    let mut random = Random::new(5);
    for path in files {
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let bit = random.below(whole.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, flipped).unwrap();
        let failures = &report(&mill, &[], 1)["failures"];
        assert_eq!(failures.as_array().unwrap().len(), 1, "bit {bit}: {failures}");
        let found = failures[0]["path"].as_str().unwrap();
        assert!(path.ends_with(found), "bit {bit} of {}: {failures}", path.display());
        fs::write(&path, whole).unwrap();
    }
    report(&mill, &["--deep"], 0);
}

#[test]
fn swapped_shards_change_back_and_a_truncated_one_is_made_again_by_the_job() {
    let mill = corpus();
    let before = mill.files("corpus");
    let paths = shards(&mill, "tokens");
    let aside = mill.path("aside");
    fs::rename(&paths[0], &aside).unwrap();
    fs::rename(&paths[1], &paths[0]).unwrap();
    fs::rename(&aside, &paths[1]).unwrap();
    assert_eq!(report(&mill, &[], 1)["failures"].as_array().unwrap().len(), 2);
    let repaired = report(&mill, &["--repair", "--deep"], 0);
    assert_eq!(repaired["moved"].as_array().unwrap().len(), 4, "{repaired}");
    fs::remove_dir_all(mill.path("corpus/tokens/damaged")).unwrap();
    assert_same(&mill.files("corpus"), &before, "after the swap");

    let whole = fs::read(&paths[0]).unwrap();
    fs::write(&paths[0], &whole[..whole.len() / 2]).unwrap();
    let failures = &report(&mill, &[], 1)["failures"];
    let says = format!("it has {} bytes, manifest says {}", whole.len() / 2, whole.len());
    assert!(failures[0]["message"].as_str().unwrap().contains(&says), "{failures}");
    let left = report(&mill, &["--repair"], 1);
    assert_eq!(left["moved"].as_array().unwrap().len(), 1, "{left}");
    assert!(!paths[0].is_file() && left["failures"].as_array().unwrap().len() == 1, "{left}");
    mill.mill(&[]);
    fs::remove_dir_all(mill.path("corpus/tokens/damaged")).unwrap();
    assert_same(&mill.files("corpus"), &before, "after the job ran again");
}

#[test]
fn repair_waits_for_no_run_that_writes() {
    let mill = corpus();
    let lock = fs::File::open(mill.path("corpus/.lock")).unwrap();
    lock.try_lock().unwrap();
    for path in ["corpus", "corpus/tokens"] {
        let output = mill.run(&["verify", path, "--repair"]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("another run is writing"), "{message}");
    }
    report(&mill, &[], 0);
}
