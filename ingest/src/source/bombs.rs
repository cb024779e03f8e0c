//! What gets much larger than it is stored, in every kind of source that inflates.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::inflate::{BodyError, Limits, RATIO_MAX, decode_body};
use super::testing::{self, Case};
use super::{SourceFile, kind};
use crate::measure;

const MIB: u64 = 1 << 20;
/// Inflated bytes of a page, at most: the default of `warc` and of a crawl.
const PAGE_BYTES_MAX: u64 = 32 * MIB;

/// The content encodings, the last one first, that a file of the set stands for.
fn encodings(case: &Case) -> &'static [&'static [u8]] {
    match case.name.rsplit('/').next().unwrap() {
        "bomb_double.gz.gz" => &[b"gzip", b"gzip"],
        name if name.ends_with(".gz") => &[b"gzip"],
        name if name.ends_with(".zst") => &[b"zstd"],
        name if name.ends_with(".br") => &[b"br"],
        _ => &[b"deflate"],
    }
}

/// Undoes all encodings of a body.
fn decode(case: &Case) -> Result<Option<Vec<u8>>, BodyError> {
    let bytes = usize::try_from(PAGE_BYTES_MAX).unwrap();
    let limits = Limits { bytes, ratio: RATIO_MAX };
    let mut body = std::fs::read(&case.path).unwrap();
    for encoding in encodings(case) {
        let mut output = Vec::new();
        if !decode_body(encoding, &body, &mut output, limits)? {
            return Ok(None);
        }
        body = output;
    }
    Ok(Some(body))
}

fn sha256(bytes: &[u8]) -> String {
    let command = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut command = command.unwrap();
    command.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = command.wait_with_output().unwrap().stdout;
    String::from_utf8(output).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn takes_every_body_of_the_hostile_set_for_what_it_is() {
    if measure::elsewhere("source::bombs::takes_every_body_of_the_hostile_set_for_what_it_is") {
        return;
    }
    let Some(cases) = testing::hostile("bombs/") else { return };
    let (mut wrong, mut n_refused, mut growth_max) = (Vec::new(), 0, 0);
    for case in &cases {
        let started = Instant::now();
        let (done, growth) = measure::memory(|| decode(case));
        growth_max = growth_max.max(growth);
        let expected = case.text("expect").unwrap();
        let is_right = match (expected.as_str(), &done) {
            ("refuse", Err(BodyError::Ratio | BodyError::TooLarge))
            | ("refuse_or_read_within_memory_limit", Err(_))
            | ("error_flagged_truncated" | "error_checksum", Err(BodyError::Damaged))
            | ("identity_or_error", Ok(None)) => true,
            ("read_all" | "read_all_or_flag", Ok(Some(body))) => {
                case.count("inflated").is_none_or(|n| n == body.len() as u64)
                    && case.text("inflated_sha256").is_none_or(|sum| sum == sha256(body))
                    && !body.is_empty()
            }
            _ => false,
        };
        n_refused += usize::from(expected.starts_with("refuse"));
        let done = done.map(|body| body.map(|body| body.len()));
        eprintln!(
            "{}: {expected}: {done:?}, {} MiB, {:.2} s",
            case.name,
            growth / MIB,
            started.elapsed().as_secs_f64()
        );
        if !is_right || growth > 2 * PAGE_BYTES_MAX {
            wrong.push(format!("{}: {expected}: {done:?}, {growth} bytes", case.name));
        }
    }
    eprintln!("judged {} bodies, {n_refused} bombs, {} MiB at most", cases.len(), growth_max / MIB);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((cases.len(), n_refused), (16, 5));
}

/// A kind, what stands for a name of its files, and bytes of a record of it, at most, in MiB.
const FILES: [(&str, &str, u64); 14] = [
    ("arrow", "x.arrow.gz", 64),
    ("chat", "x.jsonl.gz", 64),
    ("code", "x.tar.gz", 64),
    ("csv", "x.csv.gz", 64),
    ("irc", "x.log.gz", 64),
    ("jats", "x.xml.gz", 64),
    ("jsonl", "x.jsonl.gz", 64),
    ("latex", "x.tar.gz", 64),
    ("mbox", "x.mbox.gz", 64),
    ("mediawiki", "x.xml.gz", 64),
    ("s2orc", "x.jsonl.gz", 64),
    ("stackexchange", "x.xml.gz", 64),
    ("text", "x.txt.gz", 64),
    ("warc", "x.warc.gz", 32),
];

/// Kinds of which a file without the beginning of a record, or with the mark of its end, is an empty one.
const SILENT: [&str; 4] = ["arrow", "irc", "mbox", "stackexchange"];

#[test]
fn no_kind_of_source_reads_a_bomb_beyond_its_limit() {
    if measure::elsewhere("source::bombs::no_kind_of_source_reads_a_bomb_beyond_its_limit") {
        return;
    }
    let Some(cases) = testing::hostile("bombs/") else { return };
    let is_file = |case: &&Case| {
        // Files are gzip or Zstandard; Brotli is an encoding of pages.
        case.text("expect").unwrap().starts_with("refuse") && !case.name.ends_with(".br")
    };
    let (mut wrong, mut n_judged) = (Vec::new(), 0);
    for case in cases.iter().filter(is_file) {
        for (name, file_name, limit_mib) in FILES {
            let source = testing::build(kind(name).unwrap(), "");
            let file = SourceFile { name: file_name.to_owned(), ..testing::file(&case.path) };
            let started = Instant::now();
            let (reasons, growth) = measure::memory(|| {
                let Ok(batches) = source.open(&file, None) else { return vec!["error".to_owned()] };
                let mut reasons = Vec::new();
                for batch in batches {
                    let rows = batch.as_ref().map(testing::rows).unwrap_or_default();
                    reasons.extend(rows.into_iter().map(|row| match row.reject {
                        Some(reason) => reason,
                        None => format!("{} bytes of text", row.text.len()),
                    }));
                    if batch.is_err() {
                        reasons.push("error".to_owned());
                    }
                }
                reasons
            });
            n_judged += 1;
            eprintln!(
                "{name} {}: {reasons:?}, {} MiB, {:.2} s",
                case.name,
                growth / MIB,
                started.elapsed().as_secs_f64()
            );
            let is_named = !reasons.is_empty() || SILENT.contains(&name);
            let is_refused = is_named && !reasons.iter().any(|reason| reason.ends_with("of text"));
            if !is_refused || growth > 2 * limit_mib * MIB {
                wrong.push(format!("{name} {}: {reasons:?}, {} MiB", case.name, growth / MIB));
            }
        }
    }
    eprintln!("judged {n_judged} files");
    assert!(n_judged > 0 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn keeps_the_good_records_beside_a_bomb() {
    if measure::elsewhere("source::bombs::keeps_the_good_records_beside_a_bomb") {
        return;
    }
    for (prefix, name, limit, n_good) in
        [("warc/http_bomb", "warc", PAGE_BYTES_MAX, 2), ("jsonl/line_1GB", "jsonl", 64 * MIB, 2)]
    {
        let Some(cases) = testing::hostile(prefix) else { return };
        for case in &cases {
            let source = testing::build(kind(name).unwrap(), "");
            let file = testing::file(&case.path);
            let started = Instant::now();
            let (rows, growth) = measure::memory(|| testing::read(&*source, &file, None));
            let rejects: Vec<_> = rows.iter().filter_map(|row| row.reject.as_deref()).collect();
            eprintln!(
                "{}: {} good, {rejects:?}, {} MiB, {:.2} s",
                case.name,
                rows.len() - rejects.len(),
                growth / MIB,
                started.elapsed().as_secs_f64()
            );
            assert_eq!(rows.len() - rejects.len(), n_good, "{}", case.name);
            assert!(matches!(rejects[..], ["compression_ratio" | "line_too_long"]), "{rejects:?}");
            assert!(growth <= 2 * limit, "{}: {growth} bytes", case.name);
        }
    }
}
