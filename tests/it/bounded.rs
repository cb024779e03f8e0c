//! Memory is bounded: it does not grow with the input.

use std::env;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::mill::{Mill, salad};

/// What a process needs beside the memory of its job: see `Job::memory`.
const BESIDE_BYTES: u64 = 400 << 20;
const MEMORY_BYTES: u64 = 64 << 20;
const FILE_BYTES: usize = 16 << 20;

const JOB: &str = r#"
name = "bounded"
output = "corpus"
memory = "64MiB"

[[source]]
kind = "jsonl"
path = "input"

[[step]]
use = "gopher_quality"

[dedup]
methods = ["exact", "minhash"]

[shard]
tokenizer = "tokenizer.json"
"#;

#[test]
fn peak_memory_stays_at_the_limit_of_the_job() {
    let n_files = if env::var_os("GRISTMILL_LARGE").is_some() { 40 } else { 10 };
    let mill = Mill::new();
    mill.write("input/00.jsonl", salad(1 << 20, 1));
    mill.write("job.toml", JOB);
    // A tokenizer takes long to train, and its training keeps all words: it is measured on its own.
    mill.mill(&["--set", "output=small", "--set", "shard.tokenizer=train:bpe:600"]);
    let tokenizer = fs::read_dir(mill.path("small/tokens"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tokenizer-"))
        .unwrap();
    fs::copy(tokenizer, mill.path("tokenizer.json")).unwrap();
    for number in 0..n_files {
        mill.write(&format!("input/{number:02}.jsonl"), salad(FILE_BYTES, number));
    }

    let started = Instant::now();
    let mut child = mill.start(&["run", "job.toml", "--no-train"]);
    let status_file = format!("/proc/{}/status", child.id());
    let (mut peak, mut stage_peaks) = (0, Vec::new());
    let status = loop {
        if let Some(found) = peak_bytes(&status_file).filter(|found| *found > peak) {
            peak = found;
            let log = fs::read_to_string(mill.path("log")).unwrap();
            let stage = log.lines().last().unwrap_or_default().to_owned();
            match stage_peaks.last_mut() {
                Some((last, highest)) if *last == stage => *highest = found >> 20,
                _ => stage_peaks.push((stage, found >> 20)),
            }
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let log = fs::read_to_string(mill.path("log")).unwrap();
    assert!(status.success(), "{status}: {log}");
    if peak == 0 {
        println!("skipped: there is no /proc to read the memory from");
        return;
    }
    println!(
        "{} MiB in: peak {} MiB, {:?}; after the line, in MiB: {stage_peaks:?}",
        (u64::try_from(FILE_BYTES).unwrap() * n_files) >> 20,
        peak >> 20,
        started.elapsed()
    );
    let limit = MEMORY_BYTES + BESIDE_BYTES;
    assert!(peak <= limit, "peak {peak} of {limit} bytes, by stage in MiB: {stage_peaks:?}\n{log}");
}

/// The highest resident size of a process so far.
fn peak_bytes(status_file: &str) -> Option<u64> {
    let status = fs::read_to_string(status_file).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
