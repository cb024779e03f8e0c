//! From data for tuning to tokens that say what is learned: by a chat template, with lineage and counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, Samples, Sequence, SequenceReader};
use shard::tokenizer::Tokenizer;

use crate::mill::{Mill, root};

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}";

/// A file of the shared test data; `None`, with a word of it, where there is none.
fn data(name: &str) -> Option<PathBuf> {
    let beside = || root().join("../shared/data");
    let path = std::env::var_os("GRISTMILL_DATA").map_or_else(beside, PathBuf::from).join(name);
    if path.is_file() || path.is_dir() {
        return Some(path.canonicalize().unwrap());
    }
    println!("skipped: no test data at {}, set GRISTMILL_DATA", path.display());
    None
}

fn rows(path: &Path) -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A mill with the files of LLaMA-Factory's samples, each a source called by its name.
fn mill(folder: &Path, tokenizer: &Path, names: &[&str], shard: &str) -> Mill {
    let mill = Mill::new();
    let mut job = String::from(
        "name = \"chats\"\noutput = \"corpus\"\nmemory = \"64MiB\"\nconversations = true\n",
    );
    for name in names {
        let path = folder.join(format!("{name}_demo.json.gz"));
        job.push_str(&format!("[[source]]\nkind = \"chat\"\nname = \"{name}\"\npath = {path:?}\n"));
    }
    job.push_str(&format!("[shard]\ntokenizer = {tokenizer:?}\n{shard}"));
    mill.write("job.toml", job);
    mill.write("chatml.jinja", TEMPLATE);
    mill
}

#[test]
fn a_model_learns_what_the_assistant_says_and_nothing_else() {
    let Some(folder) = data("conversations/llama-factory") else { return };
    let Some(path) = data("parity/tokenizers/bpe/tokenizer.json") else { return };
    let chat = "[shard.chat]\ntemplate = \"chatml.jinja\"\n";
    let names = ["alpaca_en", "dpo_en", "kto_en", "glaive_toolcall_en"];
    let mill = mill(&folder, &path, &names, chat);
    let summary = mill.mill(&[]);
    let file = |name: &str| rows(&folder.join(format!("{name}_demo.json.gz")));

    // Rows of the files are rows of the datasets.
    let count = |query: &str| mill.count("corpus", query);
    let n_pairs = file("dpo_en").len() as u64;
    let n_unwanted = file("kto_en").iter().filter(|row| row["label"] == false).count() as u64;
    let n_rows: u64 = names.iter().map(|name| file(name).len() as u64).sum();
    assert_eq!(summary["records"], n_rows);
    let n_documents = summary["documents"].as_u64().unwrap();
    assert_eq!(summary["conversations"], serde_json::json!([n_documents - n_pairs, n_pairs]));
    assert_eq!(count("select count(*) from preferences"), n_pairs);
    assert_eq!(count("select count(*) from conversations where label = false"), n_unwanted);
    assert_eq!(summary["refused"]["chat/unwanted_answer"], n_unwanted);
    let n_refused: u64 =
        summary["refused"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(summary["tokenized"].as_u64().unwrap() + n_refused, n_documents, "{summary}");

    // Every row leads back to its document, and what is learned is what the file says.
    let lost = "select count(*) from tokens t left join documents d on t.document_id = d.id where d.id is null";
    assert_eq!(count(lost), 0);
    let tokenizer = Tokenizer::load(&path).unwrap();
    let learned = mill.sql(
        "corpus",
        "select t.tokens, t.loss_mask from tokens t join documents d on t.document_id = d.id where d.source = 'alpaca_en'",
    );
    let mut found: Vec<String> = learned
        .iter()
        .map(|row| {
            let tokens = row["tokens"].as_array().unwrap().iter();
            let masked = tokens.zip(row["loss_mask"].as_array().unwrap());
            let targets: Vec<u32> = masked
                .filter(|(_, counts)| counts.as_bool().unwrap())
                .map(|(id, _)| u32::try_from(id.as_u64().unwrap()).unwrap())
                .collect();
            tokenizer.decode(&targets).unwrap()
        })
        .collect();
    // A line feed of the answer is one token with that of the template.
    let text = |row: &Value| format!("{}<|im_end|>", row["output"].as_str().unwrap());
    let mut expected: Vec<String> = file("alpaca_en")
        .iter()
        .filter(|row| !row["output"].as_str().unwrap().trim().is_empty())
        .map(text)
        .collect();
    let trim = |texts: &mut Vec<String>| {
        texts.iter_mut().for_each(|text| *text = text.trim_start().to_owned());
        texts.sort();
    };
    trim(&mut found);
    trim(&mut expected);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    every_target_is_read_once(&mill);
}

/// Documents fill sequences and never see each other; no target is lost or comes twice.
fn every_target_is_read_once(mill: &Mill) {
    let config = ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len: 512,
        seed: 3,
        verify: true,
        packing: Packing::BestFit,
        mask_documents: true,
    };
    let mut reader = SequenceReader::open(&mill.path("corpus/tokens"), None, config).unwrap();
    let mut sequence = Sequence::default();
    let mut n_targets = 0;
    for sample in 0..reader.n_sequences() {
        reader.read_sequence(sample, &mut sequence).unwrap();
        n_targets += sequence.loss_mask.iter().filter(|counts| **counts).count() as u64;
    }
    let masks = mill.sql("corpus", "select loss_mask from tokens");
    let of = |row: &Value| {
        row["loss_mask"].as_array().unwrap().iter().skip(1).filter(|it| **it == true).count() as u64
    };
    assert_eq!(n_targets, masks.iter().map(of).sum::<u64>());
}

#[test]
fn turns_are_columns_that_lead_back_to_the_data() {
    let Some(folder) = data("conversations/llama-factory") else { return };
    let Some(path) = data("parity/tokenizers/bpe/tokenizer.json") else { return };
    let mill = mill(&folder, &path, &["dpo_en", "glaive_toolcall_en"], "");
    mill.mill(&[]);
    let pairs = mill.sql(
        "corpus",
        "select prompt[1]['content'] as q, chosen[1]['content'] as a, chosen[1]['role'] as r, rejected[1]['content'] as b from preferences",
    );
    let turn = |turn: &Value| turn["value"].as_str().unwrap().to_owned();
    let mut found = BTreeSet::new();
    for row in &pairs {
        assert_eq!(row["r"], "assistant");
        found.insert(["q", "a", "b"].map(|key| row[key].as_str().unwrap().to_owned()));
    }
    let file = rows(&folder.join("dpo_en_demo.json.gz"));
    let expected = file
        .iter()
        .map(|row| [turn(&row["conversations"][0]), turn(&row["chosen"]), turn(&row["rejected"])]);
    assert_eq!(found, expected.collect());
    // Tools and calls are those of the file, framed as templates want them.
    let calls = mill.sql(
        "corpus",
        "select tools, m['tool_calls'] as calls from (select tools, unnest(messages) as m from conversations) where m['tool_calls'] is not null",
    );
    let file = rows(&folder.join("glaive_toolcall_en_demo.json.gz"));
    let turns = file.iter().flat_map(|row| row["conversations"].as_array().unwrap());
    let expected: BTreeMap<String, usize> = turns
        .filter(|turn| turn["from"] == "function_call")
        .map(|turn| serde_json::from_str::<Value>(turn["value"].as_str().unwrap()).unwrap())
        .fold(BTreeMap::new(), |mut n, call| {
            *n.entry(call.to_string()).or_default() += 1;
            n
        });
    let mut found = BTreeMap::new();
    for row in &calls {
        let call: Value = serde_json::from_str(row["calls"].as_str().unwrap()).unwrap();
        *found.entry(call[0]["function"].to_string()).or_default() += 1;
        let tools: Value = serde_json::from_str(row["tools"].as_str().unwrap()).unwrap();
        assert!(tools[0]["function"]["name"].is_string(), "{tools}");
    }
    assert_eq!(found, expected);
}

/// Runs a job of two conversations and expects exit code 2 and `part` in the message.
fn check_refused(shard: &str, job: &str, part: &str) {
    let Some(path) = data("parity/tokenizers/bpe/tokenizer.json") else { return };
    let mill = Mill::new();
    mill.write("a.jsonl", "{\"question\": \"Is jane.doe@mail.com yours?\", \"answer\": \"a\"}\n{\"turns\": [\"q\"]}\n");
    mill.write("raises.jinja", "x\n{{ raise_exception('never') }}");
    mill.write("broken.jinja", "x\n{% if %}");
    mill.write("chatml.jinja", TEMPLATE);
    mill.write(
        "job.toml",
        format!(
            "name = \"chats\"\noutput = \"corpus\"\n[[source]]\nkind = \"chat\"\npath = \"a.jsonl\"\n{job}\
             [shard]\ntokenizer = {path:?}\n[shard.chat]\n{shard}\n"
        ),
    );
    let output = mill.run(&["run", "job.toml", "--quiet"]);
    let message = String::from_utf8_lossy(&output.stderr).replace(['│', '×', '\n'], " ");
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains(part), "no `{part}` in: {message}");
}

#[test]
fn what_cannot_be_rendered_is_said() {
    check_refused("template = \"none.jinja\"", "", "none.jinja");
    check_refused("template = \"broken.jinja\"", "", "broken.jinja`: line 2: ");
    check_refused("template = \"raises.jinja\"", "", "2 chat/refused_by_template");
    check_refused("template = \"tokenizer\"", "", "a chat template in");
    check_refused("template = \"chatml.jinja\"\ndate = \"today\"", "", "`today` is not a day");
    check_refused(
        "template = \"chatml.jinja\"",
        "[dedup]\nmethods = [\"paragraph\"]\n",
        "spans are cut from texts",
    );
    check_refused(
        "template = \"chatml.jinja\"",
        "[[step]]\nuse = \"mask_pii\"\n[[step]]\nwhere = \"text like '%a'\"\n",
        "1 chat/text_changed",
    );
}
