//! A classifier trained from two questions in SQL, and the filter that takes it.

use std::fs;

use serde_json::{Value, json};

use crate::mill::{Mill, root};

/// Two kinds of text of made-up sentences; `tests/golden/fasttext/make_trained.py` makes the same.
fn sentences() -> Vec<(&'static str, String)> {
    let kinds = [
        ("land", ["mill", "flour", "stone", "wheel", "grain", "bread"]),
        ("water", ["sea", "boat", "harbour", "sail", "tide", "fish"]),
    ];
    let mut all = Vec::new();
    for n in 0..300 {
        let (kind, words) = kinds[n % 2];
        let text: Vec<&str> = (0..5).map(|at| words[(n * 7 + at * (n % 5 + 1)) % 6]).collect();
        all.push((kind, format!("the {} number {n}", text.join(" "))));
    }
    all
}

fn corpus() -> Mill {
    let mill = Mill::new();
    let mut job = "name = \"kinds\"\noutput = \"corpus\"\n".to_owned();
    for kind in ["land", "water"] {
        let own = sentences().into_iter().filter(|(own, _)| *own == kind);
        let own: String = own.map(|(_, text)| json!({ "text": text }).to_string() + "\n").collect();
        mill.write(&format!("{kind}.jsonl"), &own);
        job +=
            &format!("[[source]]\nkind = \"jsonl\"\nname = \"{kind}\"\npath = \"{kind}.jsonl\"\n");
    }
    mill.write("job.toml", &job);
    mill.ok(&["run", "job.toml"]);
    mill
}

const POSITIVE: &str = "select text from documents where source = 'land'";
const NEGATIVE: &str = "select text from documents where source = 'water'";

fn train(mill: &Mill, output: &str, more: &[&str]) -> Value {
    let mut arguments = vec!["classifier", "train", "--positive", POSITIVE, "--negative", NEGATIVE];
    arguments.extend([
        "--output",
        output,
        "--dim",
        "4",
        "--buckets",
        "500",
        "--learning-rate",
        "0.5",
    ]);
    arguments.extend(more);
    arguments.push("--json");
    serde_json::from_str(&mill.ok(&arguments)).unwrap()
}

#[test]
fn a_classifier_trained_from_two_queries_filters_as_a_step() {
    let mill = corpus();
    let report = train(&mill, "kinds.bin", &["--held-out", "0.2"]);
    assert_eq!((&report["n_positive"], &report["n_negative"]), (&json!(150), &json!(150)));
    let n = |key: &Value| key.as_u64().unwrap();
    assert_eq!(n(&report["n_trained"]) + n(&report["held_out"]["n"]), 300);
    assert!((30..90).contains(&n(&report["held_out"]["n"])), "{report}");
    // The kinds share no words.
    assert_eq!(report["held_out"]["auc"], 1.0, "{report}");
    assert_eq!(report["held_out"]["f1"], 1.0, "{report}");
    let bytes = fs::metadata(mill.path("kinds.bin")).unwrap().len();
    assert_eq!(report["model_bytes"], bytes);

    let again = train(&mill, "again.bin", &["--held-out", "0.2"]);
    assert_eq!(again["model_hash"], report["model_hash"], "same texts, same bytes");
    let other = train(&mill, "other.bin", &["--held-out", "0.2", "--seed", "1"]);
    assert_ne!(other["model_hash"], report["model_hash"]);

    let steps = "[[step]]\nuse = \"classifier\"\nmodel = \"kinds.bin\"\nthreshold = 0.5\n";
    let job = fs::read_to_string(mill.path("job.toml")).unwrap();
    let job = job.replace("\"corpus\"", "\"filtered\"") + steps;
    mill.write("filter.toml", job);
    mill.ok(&["run", "filter.toml"]);
    let kept = "select source, count(*) as n from documents group by source";
    assert_eq!(mill.sql("filtered", kept), [json!({ "source": "land", "n": 150 })]);
}

#[test]
fn says_why_a_classifier_cannot_be_trained() {
    let mill = corpus();
    let check = |positive: &str, negative: &str, more: &[&str], expected: &str| {
        let mut arguments =
            vec!["classifier", "train", "--positive", positive, "--negative", negative];
        arguments.extend(["--output", "x.bin"]);
        arguments.extend(more);
        let output = mill.run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        let said =
            said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "`{said}` lacks `{expected}`");
    };
    check(POSITIVE, POSITIVE, &[], "0 positive and 0 negative texts are left to train on");
    check("select source, id from documents", NEGATIVE, &[], "none is `text`");
    check("select 1; select 2", NEGATIVE, &[], "it is not one query");
    check(POSITIVE, NEGATIVE, &["--held-out", "1.5"], "--held-out: it is 1.5");
    check(POSITIVE, NEGATIVE, &["--negative-label", "hq"], "both labels are `hq`");
    check(POSITIVE, NEGATIVE, &["--memory", "1KiB"], "more than `--memory`");
    check(POSITIVE, NEGATIVE, &["--dim", "0"], "`dim` is 0");
    assert!(!mill.path("x.bin").try_exists().unwrap());
}

/// The model that was written from these texts, and what fastText 0.9.2 says with it: `tests/golden/fasttext`.
#[test]
fn fasttext_reads_the_model_and_answers_the_same() {
    let folder = root().join("tests/golden/fasttext");
    let model = ingest::fasttext::Model::open(&folder.join("trained.bin")).unwrap();
    let mut scratch = ingest::fasttext::Scratch::default();
    let expected = fs::read_to_string(folder.join("trained.jsonl")).unwrap();
    for line in expected.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (label, score) = model.predict(case["text"].as_str().unwrap(), &mut scratch).unwrap();
        assert_eq!(model.labels()[label], case["label"].as_str().unwrap(), "{case}");
        assert!(
            (f64::from(score) - case["score"].as_f64().unwrap()).abs() < 1e-6,
            "{case} {score}"
        );
    }
    assert!(expected.lines().count() > 100);
    // What is trained today answers as what was trained then; another machine may round otherwise.
    let mill = corpus();
    train(&mill, "kinds.bin", &["--held-out", "0.2", "--max-chars", "4", "--min-chars", "3"]);
    let again = ingest::fasttext::Model::open(&mill.path("kinds.bin")).unwrap();
    for line in expected.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (label, score) = again.predict(case["text"].as_str().unwrap(), &mut scratch).unwrap();
        assert_eq!(again.labels()[label], case["label"].as_str().unwrap(), "{case}");
        assert!(
            (f64::from(score) - case["score"].as_f64().unwrap()).abs() < 1e-3,
            "{case} {score}"
        );
    }
}
