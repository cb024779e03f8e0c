//! Spans that stood before: listed, cut before encoding, counted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::mill::{Mill, assert_same};

/// A line of words that no other line has.
fn line(n: usize) -> String {
    let words: Vec<String> = (0..12).map(|i| format!("{:x}", (n * 12 + i) * 7_919_191)).collect();
    format!("{}\n", words.join(" "))
}

const COOKIES: &str =
    "We use cookies to give you the best experience on our pages, accept them all or leave.\n";

/// A span of several lines' words in one line, without a repeat in itself.
fn planted() -> String {
    (1000..1003).map(line).collect::<String>().replacen('\n', ", ", 2)
}

fn mill(options: &str) -> Mill {
    let mill = Mill::new();
    let span = planted();
    let texts = [
        format!("{}{COOKIES}{}", line(1), line(2)),
        // A line that stood before.
        format!("{}{COOKIES}", line(3)),
        // Nothing else: the document goes.
        COOKIES.to_owned(),
        format!("{}before {span}", line(4)),
        // A span inside of a line, with other words around it.
        format!("{}behind {}and more\n", line(5), span.trim_end()),
        // A copy of the first document: gone before spans are looked for.
        format!("{}{COOKIES}{}", line(1), line(2)),
    ];
    let rows = texts.iter().map(|text| format!("{}\n", json!({ "text": text })));
    mill.write("rows.jsonl", rows.collect::<String>());
    mill.write(
        "job.toml",
        format!(
            "name = \"repeats\"\noutput = \"corpus\"\nmemory = \"64MiB\"\n\
             [[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
             [dedup]\nmethods = [\"exact\", \"paragraph\", \"substring\"]\n{options}"
        ),
    );
    mill
}

/// The bytes of what was listed and of what it repeats, by SQL alone.
const PAIRS: &str = "select r.method, \
    substr(d.text, cast(r.start as bigint) + 1, cast(r.\"end\" - r.start as bigint)) as copy, \
    substr(k.text, cast(r.kept_start as bigint) + 1, cast(r.\"end\" - r.start as bigint)) as kept \
    from repeats r join documents d on d.id = r.id join documents k on k.id = r.kept_id order by r.method, copy";

#[test]
fn spans_that_stood_before_are_listed_and_cut() {
    let mill = mill("[shard]\ntokenizer = \"train:bpe:300\"\n");
    let summary = mill.mill(&[]);
    assert_eq!(summary["documents"], 6);
    assert_eq!(summary["duplicates"], json!({ "dedup/exact": 1, "dedup/paragraph": 1 }));
    assert_eq!(summary["tokenized"], 4);
    let spans = mill.count("corpus", "select count(*) from repeats where method = 'paragraph'");
    assert_eq!((summary["repeats"]["dedup/paragraph"].as_u64(), spans), (Some(2), 2));

    let pairs = mill.sql("corpus", PAIRS);
    for pair in &pairs {
        assert_eq!(pair["copy"], pair["kept"], "texts here are ASCII, bytes are characters");
    }
    let found = |method: &str, copy: &str| {
        pairs.iter().any(|pair| pair["method"] == method && pair["copy"] == copy)
    };
    assert!(found("paragraph", COOKIES), "{pairs:?}");
    let span = planted();
    assert!(
        pairs.iter().any(|p| p["copy"].as_str().unwrap().contains(span.trim_end())),
        "the whole span, with what stands before and behind it in both: {pairs:?}"
    );
    assert_eq!(
        mill.count("corpus", "select count(distinct id) from repeats where drops_document"),
        1
    );
    // Nothing that was cut was encoded: fewer tokens than bytes that are left.
    let tokens = |corpus: &str| mill.count(corpus, "select sum(n_tokens) from tokens");
    let other = "output=whole";
    mill.mill(&["--set", other, "--set", "dedup.report_only=true"]);
    assert_eq!(mill.count("whole", "select count(*) from tokens"), 5, "only the copy is gone");
    assert_eq!(mill.sql("whole", PAIRS), pairs);
    assert!(tokens("corpus") * 5 < tokens("whole") * 4);

    let again = mill.mill(&[]);
    assert_eq!(again["duplicates"], summary["duplicates"]);
    assert_eq!(again["repeats"], summary["repeats"]);
}

#[test]
fn a_job_without_tokens_lists_repeats_and_leaves_out_short_rests() {
    let mill = mill("min_chars_left = 300\n");
    let summary = mill.mill(&[]);
    assert_eq!(summary["tokenized"], Value::Null);
    // The first document has more than that; the second and third lose the line that stood before.
    assert_eq!(summary["duplicates"]["dedup/paragraph"], 2);
    assert_eq!(mill.count("corpus", "select count(*) from repeats where kept_id is null"), 0);
}

#[test]
fn spans_of_tokens_are_those_of_a_tokenizer_that_is_named() {
    let mill = mill("[shard]\ntokenizer = \"train:bpe:300\"\n");
    mill.mill(&["--set", "output=bytes"]);
    // The vocabulary that the first run has trained.
    let dataset = shard::Dataset::at(mill.path("bytes/tokens"));
    let tokenizer = dataset.open(None).unwrap().manifest.tokenizer.unwrap();
    std::fs::copy(mill.path("bytes/tokens").join(&tokenizer.path), mill.path("vocabulary.json"))
        .unwrap();
    let tokenizer = shard::tokenizer::Tokenizer::load(&mill.path("vocabulary.json")).unwrap();
    let tokens = "dedup.substring={ min_tokens = 50, tokenizer = \"vocabulary.json\" }";
    let methods = "dedup.methods=[\"exact\", \"substring\"]";
    let summary = mill.mill(&["--set", methods, "--set", tokens]);
    assert!(summary["repeats"]["dedup/substring"].as_u64() > Some(0), "{summary}");
    let pairs = mill.sql("corpus", PAIRS);
    let span = planted();
    // A token may hold the blank before the span, which stands in one of them only.
    let inside = &span.trim_end()[20..span.len() - 20];
    assert!(pairs.iter().any(|p| p["copy"].as_str().unwrap().contains(inside)), "{pairs:?}");
    for pair in &pairs {
        assert_eq!(pair["copy"], pair["kept"], "texts here are ASCII, bytes are characters");
        let mut ids = Vec::new();
        tokenizer.encode(pair["copy"].as_str().unwrap(), &mut ids).unwrap();
        // What stands at the ends may be other tokens by itself.
        assert!(ids.len() >= 48, "{pair}: {ids:?}");
    }
    for thread in ["1", "2"] {
        let set = format!("output=of-{thread}");
        mill.mill(&["--threads", thread, "--set", methods, "--set", tokens, "--set", &set]);
    }
    assert_same(&mill.files("of-2"), &mill.files("of-1"), "with two threads");
    for (set, words) in [
        ("dedup.substring={ min_tokens = 50 }", "trained when spans have been cut"),
        ("dedup.substring={ min_tokens = 50, min_bytes = 9 }", "remove one of them"),
        ("dedup.substring={ min_tokens = 50, tokenizer = \"none.json\" }", "none.json"),
    ] {
        let output = mill.run(&["run", "job.toml", "--set", set]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn threads_and_kills_change_no_byte_of_repeats() {
    let mill = Mill::filled(3 << 20);
    let methods = "dedup.methods=[\"exact\", \"paragraph\", \"sentence_span\", \"substring\"]";
    let run = |corpus: &str, threads: &str| {
        let output = format!("output={corpus}");
        mill.mill(&["--threads", threads, "--set", methods, "--set", &output])
    };
    let summary = run("one", "1");
    assert_eq!(summary["repeats"].as_object().unwrap().len(), 3, "every method finds some");
    let n: u64 =
        summary["duplicates"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let documents = summary["documents"].as_u64().unwrap();
    assert_eq!(summary["tokenized"].as_u64().unwrap() + n, documents);
    run("two", "2");
    assert_same(&mill.files("two"), &mill.files("one"), "with two threads");

    for delay in [400, 1500] {
        let set = ["--set", methods, "--set", "output=killed"];
        let mut child =
            mill.start(&[&["run", "job.toml", "--no-train", "--quiet"][..], &set].concat());
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run("killed", "2");
    mill.ok(&["clean", "killed"]);
    mill.ok(&["clean", "one"]);
    assert_same(&mill.files("killed"), &mill.files("one"), "after two kills");
}
