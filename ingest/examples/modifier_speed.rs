//! Prints how many megabytes per second of CPU time modifiers rewrite.
//!
//! `cargo run --release -p ingest --example modifier_speed FOLDER [NAME]`: every `*.jsonl.gz` in the folder, whose rows have a `text`. With
//! the name of a modifier it prints a line of JSON per text that this one changes instead: its number and the new text.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::record_batch::RecordBatch;
use flate2::read::MultiGzDecoder;
use ingest::modifier::{self, Modifier};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const MODIFIERS: [(&str, &str); 6] = [
    ("mask_pii", ""),
    ("mask_pii", "profile = 'datatrove'"),
    ("mask_pii", "profile = 'dolma'"),
    ("fix_mojibake", ""),
    ("normalize", ""),
    ("remove_citations", ""),
];
const BATCH_ROWS: usize = 1024;
const RUNS: usize = 5;

#[expect(clippy::print_stdout, reason = "a measurement is data")]
fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("wanted: a folder of `*.jsonl.gz`")?;
    let texts = texts(&folder)?;
    let column =
        |rows: &[String]| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(rows)) };
    let batches = texts
        .chunks(BATCH_ROWS)
        .map(|rows| Ok(RecordBatch::try_from_iter([("text", column(rows))])?))
        .collect::<Result<Vec<_>>>()?;
    let build = |name: &str, config: &str| -> Result<Box<dyn Modifier>> {
        let kind = modifier::kind(name).ok_or("no such modifier")?;
        Ok((kind.build)(&config.parse()?)?)
    };
    if let Some(name) = std::env::args().nth(2) {
        let config = std::env::args().nth(3).unwrap_or_default();
        let modifier = build(&name, &config)?;
        for (number, batch) in batches.iter().enumerate() {
            let new = modifier.modify(batch)?.text;
            for (row, new) in new.iter().enumerate() {
                let number = number * BATCH_ROWS + row;
                if new != Some(texts[number].as_str()) {
                    println!("{}", serde_json::json!({ "number": number, "text": new }));
                }
            }
        }
        return Ok(());
    }
    let n_megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    for (name, config) in MODIFIERS {
        let modifier = build(name, config)?;
        let mut seconds = Vec::new();
        let mut n_edits = 0;
        for _ in 0..RUNS {
            let started = cpu_seconds()?;
            n_edits = 0;
            for batch in &batches {
                n_edits += std::hint::black_box(modifier.modify(batch)?).edits.len();
            }
            seconds.push(cpu_seconds()? - started);
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[RUNS / 2];
        let label = format!("{name} {config}");
        println!(
            "{label:34} {median:7.3} CPU s {:7.1} MB/CPU-s {n_edits} edits",
            n_megabytes / median
        );
    }
    Ok(())
}

fn texts(folder: &str) -> Result<Vec<String>> {
    let mut paths =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        for line in BufReader::new(MultiGzDecoder::new(std::fs::File::open(path)?)).lines() {
            let row: serde_json::Value = serde_json::from_str(&line?)?;
            texts.push(row["text"].as_str().ok_or("a row without text")?.to_owned());
        }
    }
    Ok(texts)
}

fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no number")?.parse()?;
    Ok(nanoseconds / 1e9)
}
