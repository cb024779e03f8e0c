//! Trains the toxicity model that is built in, and judges it: the command is in `ingest/data/README.md`.
//!
//! `toxicity DATA MODEL` reads what `scripts/toxicity-data.py` wrote into DATA and writes MODEL. Same data, same bytes.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use ingest::fasttext::{Example, ModelFile, Options, Scratch, train};
use ingest::filter::toxicity::{Scorer, plain, sentences};

#[derive(serde::Deserialize)]
struct Row {
    text: String,
    #[serde(default)]
    toxic: bool,
    #[serde(default)]
    kind: String,
}

/// Clean sentences that are taken: twice as many as there are tweets.
const WEB_SENTENCES: usize = 40_000;
/// Score above which a sentence is toxic, as in the filter.
const THRESHOLD: f32 = 0.4;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(data), Some(path)) = (arguments.next(), arguments.next()) else {
        panic!("usage: toxicity DATA MODEL");
    };
    let file = learn(&data);
    file.write(BufWriter::new(std::fs::File::create(&path).expect("the model can be written")))
        .expect("the model can be written");
    let bytes = std::fs::metadata(&path).expect("it was written").len();
    println!("model: {bytes} bytes");
    judge(&data, Scorer::new(file, &path, "toxic", true).expect("the model answers"));
}

fn read(data: &Path, name: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(data.join(name).with_extension("jsonl"))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).expect("a row of the script")).collect()
}

fn learn(data: &Path) -> ModelFile {
    let line = |text: &str| {
        let mut line = String::new();
        plain(text, &mut line);
        line
    };
    let mut lines: Vec<(bool, String)> =
        read(data, "train").iter().map(|row| (row.toxic, line(&row.text))).collect();
    let web = read(data, "web");
    let web: Vec<&str> = web.iter().flat_map(|row| sentences(&row.text)).collect();
    // Evenly over all pages.
    let step = web.len().div_ceil(WEB_SENTENCES).max(1);
    lines.extend(web.iter().step_by(step).map(|sentence| (false, line(sentence))));
    let n_toxic = lines.iter().filter(|(toxic, _)| *toxic).count();
    println!("trained on {} lines, {n_toxic} toxic", lines.len());
    let label = |toxic| if toxic { "toxic" } else { "clean" };
    let examples: Vec<Example<'_>> =
        lines.iter().map(|(toxic, text)| Example { label: label(*toxic), text }).collect();
    // Two labels need few values a row; words below five are known by their characters.
    let options = Options {
        dim: 4,
        epochs: 5,
        learning_rate: 0.3,
        word_ngrams: 2,
        min_chars: 3,
        max_chars: 5,
        buckets: 100_000,
        min_count: 5,
        ..Options::default()
    };
    train(&examples, &options).expect("there are two labels")
}

fn judge(data: &Path, scorer: Scorer) {
    let (mut line, mut scratch) = (String::new(), Scratch::default());
    let mut score = |text: &str| -> f32 {
        sentences(text)
            .map(|sentence| scorer.score(sentence, &mut line, &mut scratch))
            .fold(0.0, f32::max)
    };
    for name in ["heldout", "surge"] {
        let rows = read(data, name);
        let scores: Vec<(f32, bool)> =
            rows.iter().map(|row| (score(&row.text), row.toxic)).collect();
        let found = scores.iter().filter(|(score, _)| *score > THRESHOLD).count();
        let right = scores.iter().filter(|(score, toxic)| *score > THRESHOLD && *toxic).count();
        let toxic = rows.iter().filter(|row| row.toxic).count();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand rows")]
        let (precision, recall) = (right as f64 / found as f64, right as f64 / toxic as f64);
        println!(
            "{name}: {} rows, AUC {:.4}, precision {precision:.3}, recall {recall:.3} at {THRESHOLD}",
            rows.len(),
            auc(&scores)
        );
    }
    let news = read(data, "news");
    let news: Vec<&str> = news.iter().flat_map(|row| sentences(&row.text)).collect();
    let flagged = news.iter().filter(|sentence| score(sentence) > THRESHOLD).count();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand rows")]
    let share = 100.0 * flagged as f64 / news.len() as f64;
    println!("news: {flagged} of {} sentences flagged, {share:.2} %", news.len());

    let mut kinds: BTreeMap<(bool, String), (usize, usize)> = BTreeMap::new();
    for row in read(data, "hatecheck") {
        let is_wrong = (score(&row.text) > THRESHOLD) != row.toxic;
        let (wrong, n) = kinds.entry((row.toxic, row.kind)).or_default();
        (*wrong, *n) = (*wrong + usize::from(is_wrong), *n + 1);
    }
    for ((toxic, kind), (wrong, n)) in kinds {
        println!(
            "| `{kind}` | {} | {wrong} of {n} |",
            if toxic { "missed" } else { "false alarms" }
        );
    }
}

/// Area under the receiver operating characteristic: the share of pairs that are in order, equals counting half.
#[expect(clippy::cast_precision_loss, reason = "pairs of a few thousand rows")]
fn auc(scores: &[(f32, bool)]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut pairs) = (0.0, 0.0);
    for equals in sorted.chunk_by(|a, b| a.0 == b.0) {
        let toxic = equals.iter().filter(|(_, toxic)| *toxic).count() as f64;
        let clean = equals.len() as f64 - toxic;
        pairs += toxic * (below + clean / 2.0);
        below += clean;
    }
    pairs / (below * (scores.len() as f64 - below))
}
