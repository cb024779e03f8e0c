//! What an earlier build wrote is read by this one: `tests/formats/vN`, frozen when format N was new.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use shard::Dataset;
use shard::manifest::FORMAT_VERSION;

use crate::mill::{Mill, root};

fn frozen() -> Vec<PathBuf> {
    let folders: Vec<PathBuf> =
        (1..=FORMAT_VERSION).map(|n| root().join(format!("tests/formats/v{n}"))).collect();
    for folder in &folders {
        assert!(folder.is_dir(), "run tests/formats/make.sh before a format is used");
    }
    folders
}

#[test]
fn every_frozen_corpus_opens_and_is_sound_in_every_row() {
    let mill = Mill::new();
    for corpus in frozen() {
        let corpus = corpus.to_str().unwrap();
        let report: Value =
            serde_json::from_str(&mill.ok(&["verify", corpus, "--deep", "--json"])).unwrap();
        assert_eq!(report["failures"], serde_json::json!([]), "{corpus}");
        assert_eq!(report["datasets"], 4, "{report}");
        let count = |query: &str| mill.count(corpus, query);
        // What `make.sh` puts in: 60 texts with an address each, one that is too short, one that is no JSON.
        assert_eq!(
            count("select count(*) from documents where text like '%Write to <EMAIL>.'"),
            60
        );
        assert_eq!(count("select count(*) from edits where rule = 'email'"), 60);
        assert_eq!(count("select count(*) from tokens"), 60);
        let dropped = mill.sql(corpus, "select step, reason from dropped order by step");
        assert_eq!(dropped[0]["reason"], "too_few_words", "{dropped:?}");
        assert_eq!(dropped[1]["step"], "source", "{dropped:?}");
    }
}

#[test]
fn every_frozen_dataset_is_read_as_the_same_sequences() {
    let mill = Mill::new();
    for corpus in frozen() {
        let tokens = corpus.join("tokens");
        for packing in ["stream", "best_fit"] {
            let wanted = corpus.join(format!("sequences-{packing}.jsonl"));
            let found = mill.ok(&[
                "read",
                tokens.to_str().unwrap(),
                "--seq-len",
                "64",
                "--seed",
                "11",
                "--batches",
                "150",
                "--packing",
                packing,
                "--mask-documents",
            ]);
            let wanted = fs::read_to_string(&wanted).unwrap();
            let differing = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
            assert!(found == wanted, "{packing}: line {differing:?} of {}", corpus.display());
        }
    }
}

#[test]
fn a_dataset_of_a_newer_format_is_refused_with_both_versions_and_left_alone() {
    let mill = Mill::new();
    let newest = frozen().pop().unwrap().join("tokens/manifest/00000001.json");
    let next = FORMAT_VERSION + 1;
    let manifest = fs::read_to_string(newest).unwrap().replace(
        &format!("\"format_version\": {FORMAT_VERSION}"),
        &format!("\"format_version\": {next}"),
    );
    mill.write("tokens/manifest/00000001.json", &manifest);
    let says = format!("it has format version {next}, this build reads {FORMAT_VERSION}");
    for verb in [&["read", "tokens", "--seq-len", "8"][..], &["verify", "tokens", "--repair"]] {
        let output = mill.run(verb);
        let message = String::from_utf8_lossy(&output.stderr).replace(['│', '×', '\n'], " ");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(&says), "{message}");
    }
    let path = mill.path("tokens/manifest/00000001.json");
    assert_eq!(fs::read_to_string(path).unwrap(), manifest);
    let error = Dataset::at(mill.path("tokens")).open(None).unwrap_err();
    assert!(matches!(error, shard::Error::Format { .. }), "{error}");
}
