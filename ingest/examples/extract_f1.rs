//! Scores `extract_html` against texts that people took from pages, and measures its CPU time.
//!
//! `extract_f1 ARTICLES WCXB [CONFIG]`. ARTICLES is the folder of article-extraction-benchmark (`ground-truth.json`, `html/*.html.gz`),
//! WCXB an unpacked one of the Web Content Extraction Benchmark (`html/N.html`, `ground-truth/N.json`), CONFIG the step's keys as TOML.
//! Of WCXB, the 200 pages that no training sees are scored; `scripts/extract-train.py` trains on the others.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::record_batch::RecordBatch;
use flate2::read::GzDecoder;
use ingest::modifier::{self, Modifier};
use regex::Regex;
use serde_json::Value;
use sha1::{Digest, Sha1};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Pages of WCXB that are held out: those whose ids have the smallest SHA-1.
const HELD_OUT: usize = 200;
/// Passes over the articles that are timed; the median counts.
const RUNS: usize = 5;

/// A page and what of it is the text.
struct Page {
    kind: String,
    html: String,
    truth: String,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [articles, wcxb, config @ ..] = &arguments[..] else {
        return Err("usage: extract_f1 ARTICLES WCXB [CONFIG]".into());
    };
    let config = config.first().map_or("", String::as_str).parse()?;
    let kind = modifier::kind("extract_html").ok_or("no `extract_html`")?;
    let step = (kind.build)(&config)?;
    let word = Regex::new(r"\w+")?;

    let pages = articles_of(Path::new(articles))?;
    let (texts, seconds) = timed(step.as_ref(), &pages)?;
    let [precision, recall, f1] = article_score(&word, &pages, &texts);
    println!("articles  {:4} pages  F1 {f1:.4}  P {precision:.4}  R {recall:.4}", pages.len());
    let megabytes = pages.iter().map(|page| page.html.len()).sum::<usize>() as f64 / 1e6;
    println!(
        "          {:.0} pages/CPU-s, {:.0} MB/CPU-s, median of {RUNS}",
        pages.len() as f64 / seconds,
        megabytes / seconds
    );

    let pages = held_out(Path::new(wcxb))?;
    let texts = extract(step.as_ref(), &pages)?;
    let mut by_kind: BTreeMap<&str, Vec<[f64; 3]>> = BTreeMap::new();
    for (page, text) in pages.iter().zip(&texts) {
        let score = word_score(&word, &page.truth, text);
        by_kind.entry("all").or_default().push(score);
        by_kind.entry(&page.kind).or_default().push(score);
    }
    for (kind, scores) in by_kind {
        let mean = |index: usize| {
            scores.iter().map(|score| score[index]).sum::<f64>() / scores.len() as f64
        };
        let (precision, recall, f1) = (mean(0), mean(1), mean(2));
        let n = scores.len();
        println!("{kind:14} {n:4} pages  F1 {f1:.4}  P {precision:.4}  R {recall:.4}");
    }
    Ok(())
}

/// Returns what `step` makes of `pages`, a page at a time.
fn extract(step: &dyn Modifier, pages: &[Page]) -> Result<Vec<String>> {
    pages.iter().map(|page| Ok(step.modify(&batch(page)?)?.text.value(0).to_owned())).collect()
}

fn batch(page: &Page) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values([&page.html]));
    Ok(RecordBatch::try_from_iter([("text", column)])?)
}

/// As [`extract`], with the median of the CPU seconds that all pages took.
fn timed(step: &dyn Modifier, pages: &[Page]) -> Result<(Vec<String>, f64)> {
    let texts = extract(step, pages)?;
    let batches = pages.iter().map(batch).collect::<Result<Vec<_>>>()?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let started = cpu_seconds()?;
        for batch in &batches {
            std::hint::black_box(step.modify(batch)?);
        }
        seconds.push(cpu_seconds()? - started);
    }
    seconds.sort_by(f64::total_cmp);
    Ok((texts, seconds[RUNS / 2]))
}

fn articles_of(folder: &Path) -> Result<Vec<Page>> {
    let truth = std::fs::read_to_string(folder.join("ground-truth.json"))?;
    let truth: serde_json::Map<String, Value> = serde_json::from_str(&truth)?;
    let read = |(key, value): (&String, &Value)| {
        let mut html = String::new();
        let file = std::fs::File::open(folder.join(format!("html/{key}.html.gz")))?;
        GzDecoder::new(file).read_to_string(&mut html)?;
        let truth = value["articleBody"].as_str().unwrap_or_default().to_owned();
        Ok(Page { kind: "article".to_owned(), html, truth })
    };
    truth.iter().map(read).collect()
}

fn held_out(folder: &Path) -> Result<Vec<Page>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder.join("ground-truth"))? {
        let path = entry?.path();
        let id = path.file_stem().ok_or("a file without a name")?.to_string_lossy().into_owned();
        ids.push((Sha1::digest(id.as_bytes()), id));
    }
    ids.sort();
    let read = |(_, id): &(_, String)| {
        let html = std::fs::read(folder.join(format!("html/{id}.html")))?;
        let truth = std::fs::read_to_string(folder.join(format!("ground-truth/{id}.json")))?;
        let truth: Value = serde_json::from_str(&truth)?;
        let kind = truth["_internal"]["page_type"]["primary"].as_str().unwrap_or("article");
        let kind = if kind == "category" { "collection" } else { kind }.to_owned();
        let text = truth["ground_truth"]["main_content"].as_str().unwrap_or_default().to_owned();
        Ok(Page { kind, html: String::from_utf8_lossy(&html).into_owned(), truth: text })
    };
    ids.iter().take(HELD_OUT).map(read).collect()
}

fn counts<T: Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, f64> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0.0) += 1.0;
    }
    counts
}

/// What two bags share, and how large each is.
fn overlap<T: Hash + Eq>(truth: &HashMap<T, f64>, found: &HashMap<T, f64>) -> [f64; 3] {
    let common = truth.iter().map(|(key, n)| n.min(*found.get(key).unwrap_or(&0.0))).sum();
    [common, truth.values().sum(), found.values().sum()]
}

/// Precision, recall and F1 as `evaluate.py` of article-extraction-benchmark has them: of shingles of four words, the
/// means over pages that have any.
fn article_score(word: &Regex, pages: &[Page], texts: &[String]) -> [f64; 3] {
    let shingles = |text: &str| {
        let words: Vec<String> =
            word.find_iter(text).map(|found| found.as_str().to_owned()).collect();
        let starts = 0..if words.is_empty() { 0 } else { words.len().saturating_sub(3).max(1) };
        counts(starts.map(|start| words[start..words.len().min(start + 4)].to_vec()))
    };
    let (mut precisions, mut recalls) = (Vec::new(), Vec::new());
    for (page, text) in pages.iter().zip(texts) {
        let [common, n_truth, n_found] = overlap(&shingles(&page.truth), &shingles(text));
        precisions.extend((n_found > 0.0).then(|| common / n_found));
        recalls.extend((n_truth > 0.0).then(|| common / n_truth));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (precision, recall) = (mean(&precisions), mean(&recalls));
    [precision, recall, 2.0 * precision * recall / (precision + recall)]
}

/// Precision, recall and F1 of a page as `evaluate.py` of WCXB has them: of its words, case folded.
fn word_score(word: &Regex, truth: &str, found: &str) -> [f64; 3] {
    let (truth, found) = (truth.to_lowercase(), found.to_lowercase());
    let bag = |text| counts(word.find_iter(text).map(|found| found.as_str()));
    let [common, n_truth, n_found] = overlap(&bag(&truth), &bag(&found));
    if n_truth == 0.0 || n_found == 0.0 {
        return [f64::from(n_truth == n_found); 3];
    }
    let (precision, recall) = (common / n_found, common / n_truth);
    let f1 = if common > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    [precision, recall, f1]
}

fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no number")?.parse()?;
    Ok(nanoseconds / 1e9)
}
