//! Finds repeated spans in JSON lines and prints time, memory and counts:
//! `cargo run --release -p dedup --example spans -- METHOD 'CONFIG' FILE.jsonl.gz... [> SPANS]`
//!
//! Standard output gets a line for each document with a copy, `{"id":…,"spans":[[start,end]…]}` in characters.
#![expect(clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dedup::span::{Pieces, cut};
use dedup::{Finds, Repeat, SpillWriter};
use shard::tokenizer::Tokenizer;

/// Partitions and memory of a table; nothing that is found depends on them.
const N_PARTITIONS: u32 = 256;
const TABLE_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (method, config) = (arguments.next(), arguments.next());
    let (Some(method), Some(config)) = (method, config) else {
        return Err("usage: spans METHOD CONFIG FILE...".into());
    };
    let kind = dedup::kind(&method).ok_or("no such method")?;
    let Finds::Spans(build) = kind.finds else { return Err("it finds documents".into()) };
    let method = build(&config.parse()?, &|path| {
        let path = path.ok_or_else(|| dedup::Error::Config {
            method: "spans",
            message: "no tokenizer is named".to_owned(),
            hint: "add `tokenizer = \"PATH\"` to CONFIG".to_owned(),
        })?;
        Ok(Arc::new(Tokenizer::load(Path::new(path))?))
    })?;
    let folder = std::env::temp_dir().join(format!("spans-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let paths = [folder.join("pieces")];

    let started = Instant::now();
    let mut ids = Vec::new();
    let mut texts = Vec::new();
    let mut bytes = 0;
    for path in arguments.map(PathBuf::from) {
        let file = flate2::read::MultiGzDecoder::new(std::fs::File::open(&path)?);
        for line in BufReader::with_capacity(1 << 20, file).lines() {
            let document: BTreeMap<String, serde_json::Value> = serde_json::from_str(&line?)?;
            let field = |name: &str| document.get(name).and_then(|v| v.as_str()).map(str::to_owned);
            let text = field("text").ok_or("a document without text")?;
            bytes += text.len();
            ids.push(field("id").ok_or("a document without id")?);
            texts.push(text);
        }
    }
    let read = started.elapsed();
    let mut writer = SpillWriter::create(&paths[0], N_PARTITIONS, 8 << 20)?;
    for (row, text) in (0..).zip(&texts) {
        method.spill(row, text, &mut writer)?;
    }
    let spilled = writer.finish()?;
    let spill = started.elapsed();
    let mut repeats: Vec<Repeat> = Vec::new();
    for partition in 0..N_PARTITIONS {
        let mut emit = |repeat| {
            repeats.push(repeat);
            Ok(())
        };
        method.find(Pieces { paths: &paths, partition }, TABLE_BYTES, &mut emit)?;
    }
    repeats.sort_unstable();
    method.merge(&mut repeats);
    let found = started.elapsed();
    std::fs::remove_dir_all(&folder)?;

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut cut_bytes = 0;
    for spans in repeats.chunk_by(|a, b| a.row == b.row) {
        let row = spans[0].row as usize;
        let text = &texts[row];
        let whole: Vec<(u32, u32)> = spans
            .iter()
            .map(|span| {
                let start = text.ceil_char_boundary(span.start as usize);
                let end = text.floor_char_boundary(span.end as usize).max(start);
                (u32::try_from(start), u32::try_from(end))
            })
            .map(|(start, end)| Ok((start?, end?)))
            .collect::<Result<_, std::num::TryFromIntError>>()?;
        cut_bytes += text.len() - cut(text, &whole).len();
        let chars = |at: u32| text[..at as usize].chars().count();
        let spans: Vec<_> = whole.iter().map(|(start, end)| [chars(*start), chars(*end)]).collect();
        writeln!(out, "{}", serde_json::json!({ "id": ids[row], "spans": spans }))?;
    }
    eprintln!(
        "{} documents, {:.1} MB: read {:.2} s, spill {:.2} s ({:.0} MB), find {:.2} s; {} spans, {:.1} MB of text",
        ids.len(),
        bytes as f64 / 1e6,
        read.as_secs_f64(),
        (spill - read).as_secs_f64(),
        spilled as f64 / 1e6,
        (found - spill).as_secs_f64(),
        repeats.len(),
        cut_bytes as f64 / 1e6,
    );
    Ok(())
}
