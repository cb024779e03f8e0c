//! A killed run goes on inside the file that it was reading: units that were done are not done again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use serde_json::Value;

use crate::mill::{Mill, assert_same, salad};

/// Bytes of each file; a unit has 4 MiB where a job has 64 MiB of memory.
const FILE_BYTES: usize = 22 << 20;
/// Corpora that are begun before a run is caught between its first unit and its last.
const TRIES_MAX: u32 = 20;

#[test]
fn a_killed_run_reads_only_the_units_that_were_not_done() {
    let mill = Mill::new();
    let texts: Vec<String> = salad(FILE_BYTES, 11)
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .map(|row| row["text"].as_str().unwrap().to_owned())
        .collect();
    for (kind, name) in large_files(&mill, &texts) {
        resumes_inside(&mill, kind, name);
        fs::remove_file(mill.path(name)).unwrap();
    }
}

/// Writes a file of every kind that is read in parts.
fn large_files(mill: &Mill, texts: &[String]) -> Vec<(&'static str, &'static str)> {
    let lines = |line: fn(&str) -> Value| -> String {
        texts.iter().map(|text| format!("{}\n", line(text))).collect()
    };
    mill.write("a.jsonl", lines(|text| serde_json::json!({ "text": text })));
    mill.write("b.jsonl", lines(|text| serde_json::json!({ "question": "What?", "answer": text })));
    let paper = |text: &str| serde_json::json!({ "title": "T", "body_text": [{ "text": text }] });
    mill.write("c.jsonl", lines(paper));
    let message = |(number, text): (usize, &String)| {
        format!("From a@x.example Sat Jan  3 01:05:34 1996\nSubject: {number}\n\n{text}\n\n")
    };
    mill.write("d.mbox", texts.iter().enumerate().map(message).collect::<String>());
    let page = |(number, text): (usize, &String)| {
        format!(
            "<page><title>{number}</title><ns>0</ns><id>{number}</id><revision><id>1</id>\
             <text xml:space=\"preserve\">{text}</text></revision></page>\n"
        )
    };
    let pages: String = texts.iter().enumerate().map(page).collect();
    mill.write("e.xml", format!("<mediawiki xml:lang=\"en\">\n{pages}</mediawiki>\n"));
    let html = |(number, text): (usize, &String)| {
        (format!("http://site.test/{number}"), format!("<html><body><p>{text}</p></body></html>"))
    };
    let html: Vec<(String, String)> = texts.iter().enumerate().map(html).collect();
    mill.warc("f.warc", &html);
    mill.warc("g.warc.gz", &[&html[..], &html, &html].concat());
    parquet(&mill.path("h.parquet"), texts);
    vec![
        ("jsonl", "a.jsonl"),
        ("chat", "b.jsonl"),
        ("s2orc", "c.jsonl"),
        ("mbox", "d.mbox"),
        ("mediawiki", "e.xml"),
        ("warc", "f.warc"),
        ("warc", "g.warc.gz"),
        ("parquet", "h.parquet"),
    ]
}

fn parquet(path: &Path, texts: &[String]) {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder();
    let properties = properties.set_max_row_group_row_count(Some(200)).build();
    let file = fs::File::create(path).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn resumes_inside(mill: &Mill, kind: &str, name: &str) {
    mill.write(
        "job.toml",
        format!(
            "name = 'resumed'\noutput = 'whole'\nmemory = '64MiB'\n\
             [[source]]\nkind = '{kind}'\npath = '{name}'\n"
        ),
    );
    mill.mill(&[]);
    let n_units = units(mill, "whole").len();
    assert!(n_units > 2, "`{name}` is read in {n_units} units");
    let expected = documents(mill, "whole");

    let (corpus, done) = (0..TRIES_MAX)
        .map(|round| format!("killed-{round}"))
        .find_map(|corpus| Some((corpus.clone(), killed(mill, &corpus)?)))
        .unwrap_or_else(|| panic!("no run of `{name}` was caught between its units"));
    assert!(!done.is_empty() && done.len() < n_units, "{} of {n_units} units", done.len());
    mill.mill(&["--set", &format!("output={corpus}")]);
    let after = units(mill, &corpus);
    assert_eq!(after.len(), n_units);
    for (unit, was) in &done {
        assert_eq!(after.get(unit), Some(was), "`{name}`: {} was done twice", unit.display());
    }
    mill.ok(&["clean", &corpus]);
    assert_same(&documents(mill, &corpus), &expected, name);
    println!("`{name}` ({kind}): {} of {n_units} units done, then the others", done.len());
    for corpus in ["whole", &corpus] {
        fs::remove_dir_all(mill.path(corpus)).unwrap();
    }
}

/// Kills a run after its first unit; returns the units that are done, `None` when that was all of them.
fn killed(mill: &Mill, corpus: &str) -> Option<BTreeMap<PathBuf, Unit>> {
    let output = format!("output={corpus}");
    let mut child = mill.start(&["run", "job.toml", "--quiet", "--set", &output]);
    let mut is_over = false;
    while !is_over && units(mill, corpus).is_empty() {
        thread::sleep(Duration::from_millis(2));
        is_over = child.try_wait().unwrap().is_some();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let is_committed = mill.path(corpus).join("documents/manifest/00000001.json").is_file();
    let done = (!is_over && !is_committed).then(|| units(mill, corpus));
    if done.is_none() {
        fs::remove_dir_all(mill.path(corpus)).unwrap();
    }
    done
}

/// When the record of a unit was written, what it says, and when its shard was written.
type Unit = (SystemTime, Value, Option<SystemTime>);

/// The records of the units that are done.
fn units(mill: &Mill, corpus: &str) -> BTreeMap<PathBuf, Unit> {
    let staging = mill.path(corpus).join("documents/staging");
    let stages = fs::read_dir(staging).into_iter().flatten().flatten();
    let files = stages.flat_map(|stage| fs::read_dir(stage.path()).into_iter().flatten().flatten());
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| {
            // A line with the hash of the record follows it.
            let sealed = fs::read(&path).ok()?;
            let records = serde_json::Deserializer::from_slice(&sealed);
            let record = records.into_iter::<Value>().next()?.ok()?;
            let shard = record["output"]["documents"]["path"].as_str();
            let shard =
                shard.and_then(|shard| modified(&mill.path(corpus).join("documents").join(shard)));
            let written = modified(&path)?;
            Some((path, (written, record, shard)))
        })
        .collect()
}

/// The hashes of the files of `documents`, `dropped` and `edits`.
fn documents(mill: &Mill, corpus: &str) -> BTreeMap<String, String> {
    let found = mill.files(corpus);
    assert!(found.keys().any(|name| name.starts_with("documents/data/")), "{found:?}");
    found
}
