//! The real command on a real dataset: killed, stopped, asked for its plan, and made to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, BooleanBuilder, FixedSizeBinaryArray, ListBuilder, UInt32Array, UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use shard::manifest::Counts;
use shard::schema::{DatasetKind, document_id, loss_mask_field};
use shard::tokenizer::{Tokenizer, train_bpe};
use shard::writer::{ShardWriter, number_tokens};
use shard::{Dataset, Manifest};
use trainer::data::Data;
use trainer::recipe::Recipe;
use trainer::run::{self, Observer, Report};

const RECIPE: &str = r#"
data = "tokens"
run = "runs/killed"
[model]
kind = "gpt2"
n_layer = 2
n_head = 2
n_embd = 32
seq_len = 32
dropout = 0.1
[train]
steps = 60
batch_sequences = 8
micro_batch_sequences = 4
threads = 2
checkpoint_every = 5
evaluate_every = 30
evaluate_sequences = 8
[optimizer]
lr = 1e-2
"#;

/// Text of a few hundred different words, the same every time.
fn text(seed: u64) -> String {
    let mut random = trainer::random::Random::new(seed, "document");
    let mut pick = |list: &[&'static str]| {
        list[usize::try_from(random.next_u64() % list.len() as u64).unwrap()]
    };
    let mut out = String::new();
    for _ in 0..40 {
        let (who, does) =
            (pick(&["miller", "farmer", "baker"]), pick(&["grinds", "sells", "weighs"]));
        let (how, what) = (pick(&["fine", "coarse", "weiße"]), pick(&["flour", "grain", "Körner"]));
        out += &format!("the {who} {does} {how} {what}. ");
    }
    out
}

/// A document: its tokens, and whether each is a target where not all are.
pub(crate) struct Document {
    pub(crate) tokens: Vec<u32>,
    pub(crate) loss_mask: Option<Vec<bool>>,
}

/// Writes a dataset of tokens with two splits.
pub(crate) fn write_tokens(path: &Path, tokenizer: &[u8], splits: [(&str, Vec<Document>); 2]) {
    let dataset = Dataset::at(path);
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("tokenizer.json"), tokenizer).unwrap();
    let tokenizer = Tokenizer::from_bytes(tokenizer, "a test's tokenizer").unwrap();
    let mut schema = DatasetKind::Tokens.schema();
    if splits[0].1[0].loss_mask.is_some() {
        let mask = Arc::new(loss_mask_field());
        schema = Arc::new(Schema::new(
            schema.fields().iter().cloned().chain([mask]).collect::<Vec<_>>(),
        ));
    }
    let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, "test".to_owned(), json!({}));
    for (split, documents) in splits {
        let item = |kind| Field::new("item", kind, false);
        let mut lists = ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32));
        let mut masks = ListBuilder::new(BooleanBuilder::new()).with_field(item(DataType::Boolean));
        let (mut ids, mut counts) = (Vec::new(), Vec::new());
        for document in &documents {
            ids.push(document_id(split, &format!("{}", ids.len())));
            counts.push(u32::try_from(document.tokens.len()).unwrap());
            lists.values().append_slice(&document.tokens);
            lists.append(true);
            if let Some(mask) = &document.loss_mask {
                masks.values().append_slice(mask);
                masks.append(true);
            }
        }
        let rows = ids.len() as u64;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids.into_iter()).unwrap()),
            Arc::new(lists.finish()),
            Arc::new(UInt32Array::from(counts)),
        ];
        let masks = masks.finish();
        if masks.len() > 0 {
            columns.push(Arc::new(masks));
        }
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let mut writer =
            ShardWriter::create(&dataset, &format!("{split}-00000"), split, &schema).unwrap();
        writer.write(&batch).unwrap();
        manifest.shards.push(writer.finish().unwrap());
        manifest.counts.add(&Counts { n_in: rows, n_kept: rows, ..Counts::default() });
    }
    number_tokens(&mut manifest.shards);
    manifest.tokenizer = Some(tokenizer.info("tokenizer.json"));
    dataset.commit(0, manifest).unwrap();
}

/// A tokenizer for [`text`].
pub(crate) fn tokenizer() -> Vec<u8> {
    train_bpe((0..20).map(text), 320).unwrap()
}

/// The texts of `seeds` as tokens.
pub(crate) fn texts(tokenizer: &[u8], seeds: std::ops::Range<u64>) -> Vec<Document> {
    let tokenizer = Tokenizer::from_bytes(tokenizer, "a test's tokenizer").unwrap();
    let document = |seed| {
        let mut tokens = Vec::new();
        tokenizer.encode(&text(seed), &mut tokens).unwrap();
        tokens.extend(tokenizer.end_of_document());
        Document { tokens, loss_mask: None }
    };
    seeds.map(document).collect()
}

/// Writes a dataset of tokens with two splits, and the recipe beside it.
pub(crate) fn corpus(folder: &Path) -> PathBuf {
    let tokenizer = tokenizer();
    let splits = [("train", 0..60), ("validation", 60..70)];
    let splits = splits.map(|(split, seeds)| (split, texts(&tokenizer, seeds)));
    write_tokens(&folder.join("tokens"), &tokenizer, splits);
    let recipe = folder.join("recipe.toml");
    fs::write(&recipe, RECIPE).unwrap();
    recipe
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-train"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits until the run has measured `steps` steps, or the process has ended.
fn wait_for_steps(child: &mut Child, run: &Path, steps: usize) {
    let start = Instant::now();
    loop {
        let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        let n = lines.lines().filter(|line| line.contains("train/loss")).count();
        if n >= steps || child.try_wait().unwrap().is_some() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no {steps} steps after two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Silent;

impl Observer for Silent {
    fn note(&mut self, _line: &str) {}
    fn step(&mut self, _report: &Report) -> bool {
        true
    }
}

#[test]
fn a_killed_process_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = corpus(folder.path());
    let path = recipe.to_str().unwrap();
    let killed = folder.path().join("runs/killed");
    let mut kills = 0;
    let mut random = trainer::random::Random::new(11, "kills");
    let mut at: Vec<usize> =
        (0..10).map(|_| 1 + usize::try_from(random.next_u64() % 45).unwrap()).collect();
    at.sort_unstable();
    for steps in at {
        let mut child = command(&["train", path]).spawn().unwrap();
        wait_for_steps(&mut child, &killed, steps);
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
    }
    // A signal asks for a checkpoint first.
    let mut child = command(&["train", path]).spawn().unwrap();
    wait_for_steps(&mut child, &killed, 48);
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(143), "{}", shown(&stopped));
    assert!(shown(&stopped).contains("to go on: gristmill-train train"), "{}", shown(&stopped));

    let done = output(&["train", path, "--json", "--quiet"]);
    assert!(done.status.success() && done.stderr.is_empty(), "{}", shown(&done));
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&summary["step"], &summary["is_done"]), (&json!(60), &json!(true)));
    assert!(summary["resumed_from"].as_u64().unwrap() >= 48, "{summary}");
    assert!(summary["validation"]["bits_per_byte"].as_f64().unwrap() < 3.0, "{summary}");

    let mut whole = Recipe::load(&recipe, &[]).unwrap();
    whole.run = folder.path().join("runs/whole");
    run::train(&whole, Data::open(&whole, &[]).unwrap(), &mut Silent).unwrap();
    let bytes = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
    for name in [
        "model/model.safetensors",
        "model/tokenizer.json",
        "checkpoints/step-00000060/optimizer.safetensors",
    ] {
        assert_eq!(bytes(&killed, name), bytes(&whole.run, name), "{name}");
    }
    let losses = |run: &Path| -> Vec<(u64, f64)> {
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter_map(|row| Some((row["step"].as_u64()?, row["train/loss"].as_f64()?))).collect()
    };
    assert_eq!(losses(&killed), losses(&whole.run));
    assert_eq!(losses(&killed).len(), 60);
    let story: Value = serde_json::from_slice(&bytes(&killed, "run.json")).unwrap();
    assert_eq!(story["tokens"]["dataset"], "../../tokens");
    assert_eq!(story["steps_done"], 60);
    let metrics = Dataset::at(killed.join("metrics")).open(None).unwrap().manifest;
    assert_eq!(metrics.kind, DatasetKind::Metrics);
    // Six values for each of 60 steps, three for each evaluation, at 0, 30 and 60.
    assert_eq!(metrics.n_rows(), 60 * 6 + 3 * 3);
    assert!(fs::read_to_string(killed.join("loss.svg")).unwrap().ends_with("</svg>\n"));
    println!("killed {kills} times, stopped once, {} losses equal", losses(&killed).len());
    writes_text(&killed);
}

fn writes_text(run: &Path) {
    let run = run.to_str().unwrap();
    let arguments = ["generate", run, "--prompt", "the miller", "--tokens", "20", "--seed", "7"];
    let once = output(&arguments);
    assert!(once.status.success(), "{}", shown(&once));
    let text = String::from_utf8(once.stdout.clone()).unwrap();
    assert!(text.starts_with("the miller") && text.len() > 20, "{text}");
    assert_eq!(once.stdout, output(&arguments).stdout, "a seed decides the text");
    let json = output(&[&arguments[..], &["--json"]].concat());
    let object: Value = serde_json::from_slice(&json.stdout).unwrap();
    let whole = format!("the miller{}\n", object["text"].as_str().unwrap());
    assert_eq!(text, whole.replace("<|endoftext|>", ""));
}

#[test]
fn a_plan_trains_nothing_and_mistakes_are_said_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = corpus(folder.path());
    let path = recipe.to_str().unwrap();
    let plan = output(&["train", path, "--dry-run", "--json"]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    // By hand: 320 x 32 tokens, 32 x 32 positions, two blocks of 12 c^2 + 13 c, and the last norm.
    let c = 32;
    let n = 320 * c + 32 * c + 2 * (12 * c * c + 13 * c) + 2 * c;
    assert_eq!(plan["parameters"], n);
    assert_eq!(plan["flops_per_token"], 6 * (n - 32 * c) + 12 * 2 * c * 32);
    assert_eq!((&plan["tokens_per_step"], &plan["steps"]), (&json!(256), &json!(60)));
    assert!(!folder.path().join("runs").is_dir());
    let text = output(&["train", path, "--dry-run", "--set", "train.steps=9"]);
    assert!(shown(&text).contains("9 of 256 tokens"), "{}", shown(&text));

    for (flag, expected) in [
        ("train.stepz=1", "steps"),
        ("model.kind=gpt3", "`bert`, `gpt2`, `llama`"),
        ("data=nowhere", "nowhere"),
        ("optimizer.lr=-1", "`optimizer.lr` is -1"),
    ] {
        let refused = output(&["train", path, "--set", flag]);
        assert_eq!(refused.status.code(), Some(2), "{flag}");
        assert!(shown(&refused).contains(expected), "{flag}: {}", shown(&refused));
    }
}
