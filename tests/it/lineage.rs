//! From a training step back to the bytes that a page was made of.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::UInt32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use shard::Dataset;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, SequenceReader};

use crate::mill::{Mill, header_at, texts};

const SEQ_LEN: usize = 32;
const BATCH: u64 = 4;
const SEED: u64 = 9;

const JOB: &str = r#"
name = "lineage"
output = "corpus"
memory = "64MiB"

[[source]]
kind = "warc"
path = "raw/*"

[[step]]
use = "extract_html"

[dedup]
methods = ["exact"]

[shard]
tokenizer = "train:bpe:400"

[train]
recipe = "tiny.toml"
"#;

#[test]
fn steps_of_a_run_lead_back_to_records_of_archives() {
    let mill = Mill::new();
    let pages: Vec<(String, String)> = texts("site")
        .into_iter()
        .filter(|(name, _)| name.ends_with(".html"))
        .take(40)
        .map(|(name, text)| (format!("http://site.test/{name}"), text))
        .collect();
    mill.warc("raw/pages.warc.gz", &pages);
    mill.write("job.toml", JOB);
    let recipe = format!(
        "data = \"corpus/tokens\"\nrun = \"corpus/runs/tiny\"\n\
         [model]\nkind = \"gpt2\"\nn_layer = 1\nn_head = 2\nn_embd = 32\nseq_len = {SEQ_LEN}\n\
         [train]\nsteps = 6\nbatch_sequences = {BATCH}\nseed = {SEED}\nthreads = 1\n\
         checkpoint_every = 6\nevaluate_every = 6\nevaluate_sequences = 0\n"
    );
    mill.write("tiny.toml", recipe);
    let summary = mill.mill(&[]);
    assert!(summary["run"].as_str().unwrap().ends_with("runs/tiny"), "{summary}");

    let runs = mill.sql("corpus", "select run, steps_done, seq_len, split from runs");
    assert_eq!(
        runs,
        [json!({"run": "tiny", "steps_done": 6, "seq_len": SEQ_LEN, "split": "train"})]
    );
    let rows = mill.sql(
        "corpus",
        "select step, sequence, hex(document_id) as document, url, locator, first_token, n_tokens \
         from trained_on('runs/tiny', 2, 3) order by step, sequence, sequence_offset",
    );
    let tokens = Dataset::at(mill.path("corpus/tokens"));
    let by_document = documents(&tokens);
    let mut reader = reader(&tokens);

    let mut pieces: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for row in &rows {
        let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name}: {row}"));
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {row}"));
        let (file, offset) = text("locator").split_once('#').unwrap();
        let path = mill.path("raw").join(file.rsplit('/').next().unwrap());
        let header = header_at(&path, offset.parse().unwrap());
        let address = format!("WARC-Target-URI: {}\r\n", text("url"));
        assert!(header.contains(&address), "{row} leads to\n{header}");

        let first = usize::try_from(number("first_token")).unwrap();
        let n = usize::try_from(number("n_tokens")).unwrap();
        let part = &by_document[text("document")][first..first + n];
        pieces.entry(number("sequence")).or_default().extend(part);
        assert_eq!(number("step"), number("sequence") / BATCH + 1, "{row}");
    }
    // Step 1 saw the sequences 0 to 3, steps 2 and 3 those from 4 to 11.
    let seen: BTreeSet<u64> = pieces.keys().copied().collect();
    assert_eq!(seen, (BATCH..3 * BATCH).collect(), "{rows:?}");
    for (sample, found) in &pieces {
        // A sequence is read with the token that follows it.
        let mut sequence = vec![0; SEQ_LEN + 1];
        reader.read(*sample, &mut sequence).unwrap();
        assert_eq!(found, &sequence, "tokens of sequence {sample}");
    }
    println!("followed {} parts of {} sequences", rows.len(), pieces.len());
    benchmark_items_lead_to_steps(&mill);
    documents_lead_to_files(&mill);
    documents_lead_to_the_steps_that_saw_them(&mill, &tokens);
    a_takedown_names_steps_and_checkpoints_until_they_are_erased(&mill);
}

/// What a takedown reports of runs is what SQL says, and what erasing takes away.
fn a_takedown_names_steps_and_checkpoints_until_they_are_erased(mill: &Mill) {
    let seen = mill.sql(
        "corpus",
        "select hex(document_id) as id, min(step) as first, max(step) as last, count(distinct step) as n, \
                count(distinct sequence) as sequences \
         from seen_by() where run = 'tiny' group by document_id order by first desc, id limit 1",
    );
    let seen = &seen[0];
    mill.write("ids.txt", seen["id"].as_str().unwrap());
    let report = mill.ok(&["takedown", "corpus", "--ids", "ids.txt", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let runs = report["runs"].as_array().unwrap();
    let tiny = runs.iter().find(|run| run["run"] == "tiny").unwrap();
    let expected = json!({
        "run": "tiny", "version": 1, "is_unknown": false, "documents": 1,
        "sequences": seen["sequences"],
        "steps": { "first": seen["first"], "last": seen["last"], "n": seen["n"] },
        // The checkpoint of step 0 has seen nothing.
        "checkpoints": ["step-00000006", "model"],
    });
    assert_eq!(tiny, &expected);
    let shown = mill.run(&["takedown", "corpus", "--erase"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(1), "{text}");
    for words in ["`--yes` would erase", "tokens@1", "tiny", "cannot go on"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    let still = mill.count("corpus", "select count(*) from trained_on('runs/tiny', 1, 6)");
    assert!(still > 0);
    mill.ok(&["takedown", "corpus", "--erase", "--yes"]);
    let query = format!(
        "select run, outcome, step from seen_by('{}') where run = 'tiny'",
        seen["id"].as_str().unwrap()
    );
    let unknown = json!({ "run": "tiny", "outcome": "unknown", "step": null });
    assert_eq!(mill.sql("corpus", &query), [unknown]);
    let held = "select count(*) from held_by() where document_id in (select id from takedowns)";
    assert_eq!(mill.count("corpus", held), 0);
    let refused = mill.run(&[
        "sql",
        "--corpus",
        "corpus",
        "-c",
        "select * from trained_on('runs/tiny', 1, 6)",
    ]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("version 1 of dataset") && error.contains("[2]"), "{error}");
}

/// `origin` says of every document what `documents` and the archives say.
fn documents_lead_to_files(mill: &Mill) {
    let rows = mill.sql(
        "corpus",
        "select o.locator = d.locator and o.url = d.url and o.source = d.source as is_same, \
                o.url, o.file, o.offset, o.file_bytes, o.file_blake3, o.dataset \
         from origin() o join documents d on d.id = o.document_id",
    );
    assert_eq!(rows.len() as u64, mill.count("corpus", "select count(*) from documents"));
    let archive = mill.path("raw/pages.warc.gz");
    for row in &rows {
        assert_eq!(
            (&row["is_same"], &row["dataset"]),
            (&json!(true), &json!("documents")),
            "{row}"
        );
        let path = mill.path(row["file"].as_str().unwrap());
        assert_eq!(path, archive);
        assert_eq!(row["file_bytes"], json!(std::fs::metadata(&path).unwrap().len()));
        assert_eq!(row["file_blake3"], json!(shard::store::hash_file(&path).unwrap()));
        let header = header_at(&path, usize::try_from(row["offset"].as_u64().unwrap()).unwrap());
        assert!(header.contains(row["url"].as_str().unwrap()), "{row} leads to\n{header}");
    }
    let refused = mill.run(&["sql", "--corpus", "corpus", "-c", "select * from origin('12')"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("is no id") && error.contains("32 hexadecimal digits"), "{error}");
}

/// Reads sequences as the run did.
fn reader(tokens: &Dataset) -> SequenceReader {
    let config = ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len: SEQ_LEN,
        seed: SEED,
        verify: true,
        packing: Packing::Stream,
        mask_documents: false,
    };
    SequenceReader::open(tokens.path(), None, config).unwrap()
}

/// Over whole runs, `seen_by` is what `trained_on` says, read by document; also for runs over several epochs, with best
/// fit and with rollbacks.
fn documents_lead_to_the_steps_that_saw_them(mill: &Mill, tokens: &Dataset) {
    let n = reader(tokens).n_sequences();
    let story = std::fs::read(mill.path("corpus/runs/tiny/run.json")).unwrap();
    let story: Value = serde_json::from_slice(&story).unwrap();
    assert_eq!((&story["packing"], &story["rollbacks"]), (&json!("stream"), &json!([])));
    let steps = 5 * n / 2 / BATCH;
    let back = json!({ "from_step": 6, "to_step": 4, "next_sample": 6 * BATCH });
    let stories = [
        ("epochs", json!({ "steps_done": steps })),
        ("packed", json!({ "steps_done": steps, "packing": "best_fit" })),
        ("rolled", json!({ "steps_done": steps, "rollbacks": [back] })),
    ];
    for (name, changes) in stories {
        let mut story = story.clone();
        for (key, value) in changes.as_object().unwrap() {
            story[key] = value.clone();
        }
        mill.write(&format!("corpus/runs/{name}/run.json"), story.to_string());
    }
    let columns =
        "step, outcome, sequence, sequence_offset, hex(document_id) as id, first_token, n_tokens";
    let text = |rows: &[Value]| -> Vec<String> {
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    };
    for (run, steps) in [("tiny", 6), ("epochs", steps), ("packed", steps), ("rolled", steps)] {
        let query = format!("select {columns} from trained_on('runs/{run}', 1, {steps})");
        let forward = mill.sql("corpus", &query);
        let whole =
            mill.sql("corpus", &format!("select {columns} from seen_by() where run = '{run}'"));
        assert_eq!(text(&whole), text(&forward), "{run}");
        // Named one by one, documents are looked up in another way.
        let ids: BTreeSet<&str> = forward.iter().map(|row| row["id"].as_str().unwrap()).collect();
        let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let query =
            format!("select {columns} from seen_by({}) where run = '{run}'", ids.join(", "));
        assert_eq!(text(&mill.sql("corpus", &query)), text(&forward), "{run}");
        let n_samples = (steps + if run == "rolled" { 2 } else { 0 }) * BATCH;
        let seen: BTreeSet<u64> =
            forward.iter().map(|row| row["sequence"].as_u64().unwrap()).collect();
        assert_eq!(seen, (0..n_samples).collect(), "{run}");
        println!("{run}: {} parts of {} documents", forward.len(), ids.len());
    }
    // After the way back from step 6 to step 4, steps 5 and 6 stand for other samples.
    let steps = mill.sql(
        "corpus",
        "select step, outcome, min(sequence) as first from trained_on('runs/rolled', 4, 7) \
         group by step, outcome order by first",
    );
    let found: Vec<_> = steps.iter().map(|row| json!([row["step"], row["outcome"]])).collect();
    let expected =
        [(4, "made"), (5, "undone"), (6, "undone"), (5, "made"), (6, "made"), (7, "made")];
    assert_eq!(found, expected.map(|(step, outcome)| json!([step, outcome])));

    let checkpoints = mill
        .sql("corpus", "select * from checkpoints where run = 'tiny' order by step, checkpoint");
    let row = |checkpoint: &str, step: u64| json!({ "run": "tiny", "checkpoint": checkpoint, "step": step, "is_kept": true });
    assert_eq!(checkpoints, [row("step-00000000", 0), row("model", 6), row("step-00000006", 6)]);
    let first = "select distinct checkpoint from seen_by() where run = 'tiny'";
    assert_eq!(mill.sql("corpus", first), [json!({ "checkpoint": "step-00000006" })]);

    // Where the shards say the documents are.
    let held = mill.sql(
        "corpus",
        "select hex(document_id) as id, shard, n_rows from held_by() where dataset = 'tokens' order by id",
    );
    let by_document = documents(tokens);
    let snapshot = tokens.open(None).unwrap();
    let shard = &snapshot.manifest.shards[0].path;
    let expected: Vec<Value> =
        by_document.keys().map(|id| json!({ "id": id, "shard": shard, "n_rows": 1 })).collect();
    assert_eq!(held, expected);
}

/// The words of a page that a step saw, as an item of a benchmark, lead to the steps that saw the page.
fn benchmark_items_lead_to_steps(mill: &Mill) {
    let seen = mill.sql(
        "corpus",
        "select hex(t.document_id) as document, min(t.step) as first, max(t.step) as last, \
                count(distinct t.step) as n, min(d.text) as text \
         from trained_on('runs/tiny', 1, 6) t join documents d on d.id = t.document_id \
         group by t.document_id order by n desc, document limit 1",
    );
    let words: Vec<&str> = seen[0]["text"].as_str().unwrap().split_whitespace().take(40).collect();
    mill.write("quiz.jsonl", format!("{}\n", json!({ "q": words.join(" ") })));
    mill.write(
        "quiz.toml",
        "ngram = 20\ndocuments_max = 0\nbenchmarks = [{ name = 'quiz', path = 'quiz.jsonl', query = 'q' }]\n",
    );
    let output = mill.run(&[
        "decontaminate",
        "corpus/tokens",
        "--benchmarks",
        "quiz.toml",
        "--run",
        "runs/tiny",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let hits = report["hits"].as_array().unwrap();
    let hit = hits.iter().find(|hit| hit["document"] == seen[0]["document"]).unwrap();
    let steps = json!({ "first": seen[0]["first"], "last": seen[0]["last"], "n": seen[0]["n"] });
    assert_eq!(hit["steps"], steps);
    assert_eq!(hit["coverage"], 1.0);
}

/// The tokens of every document, by its id in hexadecimal.
pub(crate) fn documents(tokens: &Dataset) -> BTreeMap<String, Vec<u32>> {
    let snapshot = tokens.open(None).unwrap();
    let mut found = BTreeMap::new();
    for shard in &snapshot.manifest.shards {
        let file = std::fs::File::open(snapshot.shard_path(shard)).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("document_id").unwrap().as_fixed_size_binary();
            let lists = batch.column_by_name("tokens").unwrap().as_list::<i32>();
            for row in 0..batch.num_rows() {
                let id: String = ids.value(row).iter().map(|byte| format!("{byte:02x}")).collect();
                let values = lists.value(row);
                found.insert(id, values.as_primitive::<UInt32Type>().values().to_vec());
            }
        }
    }
    found
}
