//! Prints how many documents per second of CPU time the filters of a chain judge, each alone and all together.
//!
//! `cargo run --release -p ingest --example filter_speed FOLDER`: every `*.jsonl.gz` in the folder, whose rows have a `text`. In the
//! chain, each filter sees all documents, so that none gains by what another drops; words are segmented once.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::record_batch::RecordBatch;
use flate2::read::MultiGzDecoder;
use ingest::filter::{self, Analysis, Filter};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const CHAIN: [(&str, &str); 7] = [
    ("gopher_repetition", ""),
    ("gopher_quality", ""),
    ("c4", ""),
    ("c4", "profile = 'fineweb'"),
    ("c4_paragraphs", ""),
    ("fineweb_quality", ""),
    ("bad_words", ""),
];
const BATCH_ROWS: usize = 1024;
const RUNS: usize = 5;

#[expect(clippy::print_stdout, reason = "a measurement is data")]
fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("wanted: a folder of `*.jsonl.gz`")?;
    let texts = texts(&folder)?;
    let n_bytes: usize = texts.iter().map(String::len).sum();
    let batches = texts
        .chunks(BATCH_ROWS)
        .map(|rows| {
            let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows));
            Ok(RecordBatch::try_from_iter([("text", column)])?)
        })
        .collect::<Result<Vec<_>>>()?;
    let filters = CHAIN
        .iter()
        .map(|(name, config)| {
            let kind = filter::kind(name).ok_or("no such filter")?;
            Ok((kind.build)(&config.parse()?)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let show = |name: &str, seconds: f64| {
        let (documents, bytes) = (texts.len() as f64, n_bytes as f64 / 1e6);
        println!(
            "{name:32} {seconds:7.2} CPU s {:8.0} documents/CPU-s {:6.1} MB/CPU-s",
            documents / seconds,
            bytes / seconds
        );
    };
    for ((name, config), filter) in CHAIN.iter().zip(&filters) {
        show(&format!("{name} {config}"), median(&batches, std::slice::from_ref(filter))?);
    }
    show("datatrove's six, in a chain", median(&batches, &filters[..6])?);
    show("all, in a chain", median(&batches, &filters)?);
    Ok(())
}

fn median(batches: &[RecordBatch], filters: &[Box<dyn Filter>]) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let started = cpu_seconds()?;
        for batch in batches {
            let mut analysis = Analysis::default();
            for filter in filters {
                std::hint::black_box(filter.judge_with(batch, &mut analysis)?);
            }
        }
        seconds.push(cpu_seconds()? - started);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[RUNS / 2])
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
