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
    let config = ReaderConfig {
        split: "train".to_owned(),
        seq_len: SEQ_LEN,
        seed: SEED,
        verify: true,
        packing: Packing::Stream,
        mask_documents: false,
    };
    let mut reader = SequenceReader::open(tokens.path(), None, config).unwrap();

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
