//! Runs a filter over JSON lines: `filter_verdicts FILTER CONFIG FILE.jsonl…`, where CONFIG is TOML and may be empty.
//!
//! Verdicts go to stdout, one row a line: reason and signals, tabs between. CPU seconds of this process, which has one
//! thread, go to stderr; reading and parsing the lines is not in the figure.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Rows of a batch, as in the engine.
const BATCH_ROWS: usize = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, config, files @ ..] = arguments.as_slice() else {
        panic!("usage: FILTER CONFIG FILE…")
    };
    let kind = ingest::filter::kind(name).expect("a filter of this name");
    let table: toml::Table = config.parse().expect("TOML");
    let filter = (kind.build)(&table).unwrap_or_else(|error| panic!("{error}"));

    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("the file can be read");
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            texts.push(row["text"].as_str().expect("a text").to_owned());
        }
    }
    let batches: Vec<RecordBatch> = texts
        .chunks(BATCH_ROWS)
        .map(|texts| {
            let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
            RecordBatch::try_from_iter([("text", column)]).expect("one column")
        })
        .collect();

    let start = cpu_seconds();
    let verdicts: Vec<_> =
        batches.iter().map(|batch| filter.judge(batch).expect("a column of texts")).collect();
    let seconds = cpu_seconds() - start;
    let bytes: usize = texts.iter().map(String::len).sum();
    #[expect(clippy::cast_precision_loss, reason = "bytes of a corpus")]
    let megabytes = bytes as f64 / 1e6;
    let figure = format!(
        "{} texts, {megabytes:.1} MB, {seconds:.2} CPU s, {:.1} MB/CPU-s",
        texts.len(),
        megabytes / seconds
    );
    writeln!(std::io::stderr(), "{figure}").expect("stderr");

    let mut out = BufWriter::new(std::io::stdout().lock());
    let options = FormatOptions::default();
    for verdict in verdicts {
        let n_rows = verdict.reasons.len();
        let columns = [Arc::new(verdict.reasons) as ArrayRef].into_iter().chain(verdict.signals);
        let columns: Vec<ArrayRef> = columns.collect();
        let columns: Vec<_> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("a type"))
            .collect();
        for row in 0..n_rows {
            let values: Vec<String> =
                columns.iter().map(|column| column.value(row).to_string()).collect();
            writeln!(out, "{}", values.join("\t")).expect("stdout");
        }
    }
}

/// Seconds of the processor that this process took, from `/proc`, in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
