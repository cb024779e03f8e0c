//! Spans that stood before: listed, cut before encoding, counted.

use std::collections::BTreeSet;
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

/// Texts of 1,500 lines each, so many that the filters have no more bits than they need; of every 30 lines but those of the
/// first text, three in a row stood before.
fn lines_with_copies() -> Vec<Vec<String>> {
    const N_LINES: usize = 1500;
    let number = |n: usize| match n % 30 {
        at @ 20..23 if n > N_LINES => n / 60 * 30 + at - 10,
        _ => n,
    };
    let text = |text: usize| {
        let lines = text * N_LINES..(text + 1) * N_LINES;
        lines.map(|n| format!("line {:x}.\n", number(n))).collect()
    };
    (0..400).map(text).collect()
}

/// The lines of every text, counted through, that lie in a listed span, and whether any span says what it repeats.
fn listed(mill: &Mill, corpus: &str, texts: &[Vec<String>]) -> (BTreeSet<usize>, bool) {
    let query = "select cast(d.metadata['n'] as bigint) as n, r.start, r.\"end\", r.kept_id is not null as k \
                 from repeats r join documents d on d.id = r.id";
    let (mut lines, mut knows_first) = (BTreeSet::new(), false);
    let starts: Vec<Vec<usize>> = texts
        .iter()
        .map(|text| {
            let ends = text.iter().scan(0, |at, line| {
                *at += line.len();
                Some(*at)
            });
            std::iter::once(0).chain(ends).collect()
        })
        .collect();
    for span in mill.sql(corpus, query) {
        let number = |key: &str| usize::try_from(span[key].as_u64().unwrap()).unwrap();
        let (text, start, end) = (number("n"), number("start"), number("end"));
        let first = starts[text].partition_point(|at| *at <= start) - 1;
        let last = starts[text].partition_point(|at| *at < end);
        lines.extend((first..last).map(|line| text * texts[text].len() + line));
        knows_first |= span["k"] == true;
    }
    (lines, knows_first)
}

#[test]
fn a_job_with_bloom_filters_misses_no_copy_and_reports_no_more_than_it_states() {
    let texts = lines_with_copies();
    let mill = Mill::new();
    let rows = texts.iter().enumerate();
    let rows = rows.map(|(n, text)| format!("{}\n", json!({ "text": text.concat(), "n": n })));
    mill.write("rows.jsonl", rows.collect::<String>());
    // A piece of one line, or of three of which the middle ones are in others, too.
    for (method, settings, lines_per_piece) in
        [("paragraph", "profile = 'dolma', ", 1.0), ("sentence_span", "", 3.0)]
    {
        let job = |bloom: &str| {
            format!(
                "name = \"bloom\"\noutput = \"corpus\"\nmemory = \"64MiB\"\n\
                 [[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
                 [dedup]\nmethods = [\"{method}\"]\n{method} = {{ {settings}{bloom} }}\n"
            )
        };
        let filter = |rate: f64| format!("bloom = {{ false_positive_rate = {rate} }}");
        let run = |corpus: &str, bloom: &str, threads: &str| {
            mill.write("job.toml", job(bloom));
            let output = format!("output={method}-{corpus}");
            let run = mill.run(&["run", "job.toml", "--threads", threads, "--set", &output]);
            let log = String::from_utf8(run.stderr).unwrap();
            assert!(run.status.success(), "{log}");
            log
        };
        assert!(!run("exact", "", "2").contains("Bloom"));
        let (exact, knows_first) = listed(&mill, &format!("{method}-exact"), &texts);
        assert!(knows_first);
        // Three of thirty lines, but for the first text.
        let n_lines: usize = texts.iter().map(Vec::len).sum();
        assert_eq!(exact.len(), n_lines / 10 - 150, "of {n_lines}");
        for (name, rate) in [("loose", 0.1), ("close", 1e-4)] {
            let log = run(name, &filter(rate), "2");
            let stated = log.lines().find(|line| line.contains("Bloom filters of")).expect(&log);
            let n_pieces: f64 = stated
                .split(" bytes for ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .and_then(|n| n.parse().ok())
                .expect(stated);
            let (found, knows_first) = listed(&mill, &format!("{method}-{name}"), &texts);
            assert!(!knows_first, "a filter does not know where the first stood");
            let missed: Vec<&usize> = exact.difference(&found).take(5).collect();
            assert!(missed.is_empty(), "{method}, {rate}: {missed:?} were passed over");
            let n_wrong = found.difference(&exact).count();
            let expected = rate * n_pieces * lines_per_piece;
            let most = expected + 4.0 * (expected * lines_per_piece).sqrt();
            println!("{method}, {rate}: {n_wrong} of {n_pieces} pieces wrong, at most {most:.1}");
            assert!(n_wrong as f64 <= most, "{method}, {rate}: {n_wrong}, at most {most}");
            assert!(rate < 0.1 || n_wrong > 0, "{method}, {rate}: was it a filter?");
        }
        run("one", &filter(0.1), "1");
        let one = listed(&mill, &format!("{method}-one"), &texts);
        assert_eq!(one, listed(&mill, &format!("{method}-loose"), &texts), "with one thread");
    }
}
