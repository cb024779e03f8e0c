//! Evaluation sets in a corpus: found, taken out, counted, and found again in the tokens of a run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mill::{Mill, salad};

/// A question of 21 words and an answer of 16, in no other text here.
const QUERY: &str = "Which of the seven lighthouses along the northern coast was the first to be lit by \
                     acetylene instead of paraffin oil?";
const ANSWER: &str = "The lighthouse at Gull Point was lit by acetylene in the spring of nineteen hundred \
                      and six.";

const BENCHMARKS: &str = "benchmarks = [\n\
    { name = \"quiz\", path = \"quiz/*.jsonl\", query = \"question\", answer = \"/gold/text\" },\n\
    { name = \"table\", path = \"quiz/table.csv\", query = [\"stem\", \"a\", \"b\"] },\n]\n";

/// 200 words in a row that are in no benchmark.
fn around(number: usize) -> String {
    (0..200).map(|word| format!("filler{number}w{word} ")).collect()
}

/// A mill with two benchmarks and documents that hold parts of an item.
fn mill(decontaminate: &str) -> Mill {
    let mill = Mill::new();
    let quiz = [
        json!({ "question": QUERY, "gold": { "text": ANSWER } }),
        json!({ "question": "Too short?", "gold": { "text": "Yes." } }),
    ];
    mill.write("quiz/quiz.jsonl", format!("{}\n{}\n", quiz[0], quiz[1]));
    mill.write(
        "quiz/table.csv",
        "stem,a,b\nHow many of the bridges over the river Oder were rebuilt with their old towers after the great flood of that year?,nine,ten\n",
    );
    let shouted = QUERY.to_uppercase().replace(' ', " -- ");
    let half = QUERY.split(' ').take(10).collect::<Vec<_>>().join(" ");
    let planted = [
        ("verbatim", QUERY.to_owned()),
        ("shouted", shouted),
        ("half", half),
        ("answer", ANSWER.to_owned()),
        ("copy", QUERY.to_owned()),
        ("clean", "Nothing of it.".to_owned()),
    ];
    let mut lines = String::new();
    for (number, (name, text)) in planted.iter().enumerate() {
        // A copy is the same text under another address.
        let number = if *name == "copy" { 0 } else { number };
        let text = format!("{} {text} {}", around(number), around(number + 100));
        lines.push_str(&format!(
            "{}\n",
            json!({ "text": text, "url": format!("http://planted.test/{name}") })
        ));
    }
    mill.write("planted.jsonl", lines);
    mill.write("salad.jsonl", salad(1 << 18, 3));
    let job = format!(
        "name = \"contaminated\"\noutput = \"corpus\"\nmemory = \"64MiB\"\n\
         [[source]]\nkind = \"jsonl\"\npath = [\"planted.jsonl\", \"salad.jsonl\"]\n\
         [dedup]\nmethods = [\"exact\"]\n{decontaminate}[shard]\ntokenizer = \"train:bpe:600\"\n"
    );
    mill.write("job.toml", job);
    mill
}

/// The planted documents in `contamination`, each with the fields found and what became of it.
fn planted(mill: &Mill) -> BTreeMap<String, (Vec<String>, String)> {
    let rows = mill.sql(
        "corpus",
        "select d.url, c.field, c.action, c.benchmark, c.item \
         from contamination c join documents d on c.id = d.id order by d.url, c.start, c.field",
    );
    let mut found: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    for row in rows {
        assert_eq!((&row["benchmark"], &row["item"]), (&json!("quiz"), &json!(0)), "{row}");
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let name = text("url").rsplit('/').next().unwrap().to_owned();
        let entry = found.entry(name).or_default();
        entry.0.push(text("field"));
        entry.1 = text("action");
    }
    found
}

fn names(found: &BTreeMap<String, (Vec<String>, String)>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

#[test]
fn contaminated_documents_go_with_the_benchmark_as_reason() {
    let mill = mill(&format!("[decontaminate]\naction = \"drop\"\n{BENCHMARKS}"));
    for _ in 0..2 {
        let summary = mill.mill(&[]);
        assert_eq!(summary["contaminated"], json!({ "decontaminate/quiz": 3 }));
        assert_eq!(summary["cut"], 0);
        let n = |key: &str| -> u64 {
            summary[key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
        };
        assert_eq!(
            summary["documents"].as_u64().unwrap(),
            summary["tokenized"].as_u64().unwrap() + n("duplicates") + n("contaminated")
        );
    }
    let found = planted(&mill);
    // The copy is gone before: it is a duplicate.
    assert_eq!(names(&found), ["answer", "shouted", "verbatim"]);
    assert_eq!(found["answer"], (vec!["answer".to_owned()], "drop".to_owned()));
    assert_eq!(found["shouted"], (vec!["query".to_owned()], "drop".to_owned()));
    let left = "select count(*) from tokens t join contamination c on c.id = t.document_id";
    assert_eq!(mill.count("corpus", left), 0);
    let spans = "select count(*) from contamination c join documents d on c.id = d.id where \
                 lower(substr(d.text, cast(c.start as int) + 1, 5)) not in ('which', 'the l')";
    assert_eq!(mill.count("corpus", spans), 0, "spans begin with the first word of the field");
    let manifest: Value =
        serde_json::from_str(&mill.ok(&["inspect", "corpus/tokens", "--json"])).unwrap();
    assert_eq!(manifest["manifest"]["counts"]["dropped"]["decontaminate/quiz"], 3);
    // Other fields of the same files are another search.
    let job = std::fs::read_to_string(mill.path("job.toml")).unwrap();
    mill.write("job.toml", job.replace(", answer = \"/gold/text\"", ""));
    assert_eq!(mill.mill(&[])["contaminated"], json!({ "decontaminate/quiz": 2 }));
}

#[test]
fn a_cut_leaves_the_rest_of_a_document() {
    let mill = mill(&format!("[decontaminate]\n{BENCHMARKS}"));
    let summary = mill.mill(&[]);
    assert_eq!(summary["contaminated"], json!({}));
    assert_eq!(summary["cut"], 3);
    let found = planted(&mill);
    assert_eq!(names(&found), ["answer", "shouted", "verbatim"]);
    assert!(found.values().all(|(_, action)| action == "cut"), "{found:?}");
    // Tokens of what is left: nothing of the item, and the document is still there.
    mill.write("benchmarks.toml", BENCHMARKS);
    let again =
        mill.run(&["decontaminate", "corpus/tokens", "--benchmarks", "benchmarks.toml", "--json"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    let report: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&report["n_contaminated"], &report["n_documents"]),
        (&json!(0), &summary["tokenized"])
    );
    let kept = "select count(*) from tokens t join contamination c on c.id = t.document_id";
    assert_eq!(mill.count("corpus", kept), 3);
}

#[test]
fn cuts_of_repeats_and_of_evaluation_sets_are_united() {
    let mill = mill(&format!("[decontaminate]\n{BENCHMARKS}"));
    let line: String = (0..120).map(|word| format!("notice{word} ")).collect::<String>() + "\n";
    let both = format!("{line}{} {QUERY} {}", around(51), around(151));
    let planted = [
        ("first", format!("{}\n{line}", around(50))),
        ("both", both.clone()),
        // The line stood before, and the question goes: nothing is left.
        ("rest", format!("{line}{QUERY}")),
        // Of the line alone, the question is left.
        ("line", format!("{line}Which of them?")),
    ];
    let rows = planted.map(|(name, text)| {
        format!("{}\n", json!({ "text": text, "url": format!("http://planted.test/{name}") }))
    });
    mill.write("planted.jsonl", rows.concat());
    let methods = ["--set", "dedup.methods=[\"exact\", \"paragraph\"]"];
    let summary = mill.mill(&methods);
    assert_eq!(summary["contaminated"], json!({ "decontaminate/quiz": 1 }));
    assert_eq!(summary["cut"], 1);
    let n = |key: &str| -> u64 {
        summary[key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    };
    assert_eq!(
        summary["documents"].as_u64().unwrap(),
        summary["tokenized"].as_u64().unwrap() + n("duplicates") + n("contaminated")
    );
    let found = self::planted(&mill);
    assert_eq!(found["rest"].1, "drop");
    assert_eq!(found["both"].1, "cut");

    // 200 characters on both sides of the question, and the line that stood before.
    let start = both.find(QUERY).unwrap();
    let end = start + QUERY.len();
    let left = format!("{}\n\n{}", &both[line.len()..start - 200], &both[end + 200..]);
    let tokens = shard::Dataset::at(mill.path("corpus/tokens"));
    let info = tokens.open(None).unwrap().manifest.tokenizer.unwrap();
    let tokenizer = shard::tokenizer::Tokenizer::load(&tokens.path().join(info.path)).unwrap();
    let texts: Vec<String> = crate::lineage::documents(&tokens)
        .into_values()
        .map(|ids| tokenizer.decode(&ids[..ids.len() - 1]).unwrap())
        .collect();
    assert!(texts.contains(&left), "{left}");
    assert!(texts.contains(&"Which of them?".to_owned()));
    assert!(texts.iter().all(|text| !text.contains("lighthouses")));
    assert_eq!(texts.iter().filter(|text| text.contains("notice0 ")).count(), 1, "the first");

    let report: Value = serde_json::from_str(&mill.ok(&["report", "--json"])).unwrap();
    let spans = |of: &str, name: &str| {
        let mut spans = report[of].as_array().unwrap().iter();
        spans.find(|spans| spans["name"] == name).unwrap_or_else(|| panic!("{report}")).clone()
    };
    let repeats = spans("repeats", "paragraph");
    let samples = repeats["samples"].as_array().unwrap();
    let planted = |sample: &&Value| sample["place"].as_str().unwrap().contains("planted.test");
    assert_eq!(samples.iter().filter(planted).count(), 3);
    assert!(samples.iter().filter(planted).all(|sample| sample["text"] == line.as_str()));
    let contamination = spans("contamination", "quiz");
    assert_eq!(
        (&contamination["documents"], &contamination["documents_dropped"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&contamination["spans"], &contamination["bytes"]),
        (&json!(2), &json!(2 * QUERY.len()))
    );
    assert_eq!(contamination["samples"][0]["text"], QUERY);
    assert_eq!(contamination["samples"][0]["found"], "query of item 0");
    let page = std::fs::read_to_string(mill.path("corpus/report.html")).unwrap();
    assert!(page.contains("query of item 0") && page.contains("Spans that stood before"));

    // Of a job without them, the report shows none, though older versions are there.
    let job = std::fs::read_to_string(mill.path("job.toml")).unwrap();
    let section = format!("[decontaminate]\n{BENCHMARKS}");
    mill.write("job.toml", job.replace(&section, "[[step]]\nwhere = \"true\"\n"));
    mill.mill(&[]);
    let report: Value = serde_json::from_str(&mill.ok(&["report", "--json"])).unwrap();
    assert_eq!((&report["repeats"], &report["contamination"]), (&json!([]), &json!([])));
}

#[test]
fn tokens_are_searched_as_their_documents_are() {
    let mill = mill("");
    mill.mill(&[]);
    for (settings, expected) in [
        ("", vec!["answer", "shouted", "verbatim"]),
        ("profile = \"lm_eval\"\n", vec!["answer", "verbatim"]),
        ("profile = \"palm\"\n", vec!["answer", "shouted", "verbatim"]),
        ("profile = \"datatrove\"\n", vec!["answer"]),
        ("ngram = 9\n", vec!["answer", "half", "shouted", "verbatim"]),
        ("fields = [\"answer\"]\n", vec!["answer"]),
    ] {
        mill.write("benchmarks.toml", format!("{settings}{}", benchmarks(settings)));
        let mut reports = Vec::new();
        for dataset in ["corpus/tokens", "corpus/documents"] {
            let output =
                mill.run(&["decontaminate", dataset, "--benchmarks", "benchmarks.toml", "--json"]);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            reports.push(report);
        }
        let ids = |report: &Value| -> Vec<String> {
            let hits = report["hits"].as_array().unwrap();
            let mut ids: Vec<String> =
                hits.iter().map(|hit| hit["document"].as_str().unwrap().to_owned()).collect();
            ids.sort();
            ids.dedup();
            ids
        };
        let mut found: Vec<String> = ids(&reports[0]).iter().map(|id| name(&mill, id)).collect();
        found.sort();
        assert_eq!(found, expected, "{settings}");
        // Documents hold the copy, too.
        let n_copies = u64::from(expected.contains(&"verbatim"));
        let n = expected.len() as u64;
        assert_eq!(reports[0]["n_contaminated"], n, "{settings}");
        assert_eq!(reports[1]["n_contaminated"], n + n_copies, "{settings}");
        assert_eq!(reports[0]["benchmarks"][0]["n_items"], 2);
        assert_eq!(reports[0]["benchmarks"][0]["n_items_indexed"], 1);
        assert_eq!(reports[0]["benchmarks"][0]["n_items_contaminated"], 1, "{settings}");
    }
}

/// The table has queries only: of no use where answers are asked for.
fn benchmarks(settings: &str) -> String {
    match settings.contains("datatrove") || settings.contains("fields") {
        true => {
            BENCHMARKS.lines().filter(|line| !line.contains("table")).collect::<Vec<_>>().join("\n")
        }
        false => BENCHMARKS.to_owned(),
    }
}

fn name(mill: &Mill, id: &str) -> String {
    let rows = mill.sql("corpus", &format!("select url from documents where id = id_of('{id}')"));
    rows[0]["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

#[test]
fn a_search_that_can_find_nothing_is_refused_before_any_work() {
    for (section, words) in [
        (BENCHMARKS.replace("table.csv", "gone.csv"), "gone.csv"),
        (
            BENCHMARKS.replace("\"question\"", "\"qustion\""),
            "none of 2 rows has a text in `qustion`",
        ),
        (BENCHMARKS.replace("/gold/text", "/gold/txt"), "no row has a text in `/gold/txt`"),
        (format!("ngram = 60\n{BENCHMARKS}"), "none of 2 items has 60 words"),
        (format!("ngrams = 8\n{BENCHMARKS}"), "ngrams"),
        (
            format!("profile = \"datatrove\"\n{BENCHMARKS}"),
            "none of 1 items has 12 words in answer",
        ),
        ("benchmarks = []\n".to_owned(), "`benchmarks` is empty"),
        ("action = \"drop\"\n".to_owned(), "benchmarks"),
    ] {
        let mill = mill(&format!("[decontaminate]\n{section}"));
        let output = mill.run(&["run", "job.toml"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        // As one line: a message is broken where the terminal ends.
        let message: Vec<&str> = message.split_whitespace().filter(|word| *word != "│").collect();
        let message = message.join(" ");
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(words), "{words}: {message}");
        assert!(!mill.path("corpus/documents").is_dir(), "nothing was done: {words}");
    }
}
