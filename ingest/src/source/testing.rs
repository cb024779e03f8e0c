//! Shared test data and the conformance tests that every kind of source runs.

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use shard::schema;

use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Raw, Source, SourceFile, SourceKind};

/// Returns the folder of shared test data; prints why when it is absent.
pub(crate) fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.try_exists().unwrap() {
        return Some(path);
    }
    eprintln!("skipped: no test data at `{}`, set GRISTMILL_DATA", path.display());
    None
}

/// A file of the hostile set with what its manifest promises.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    expectations: serde_json::Value,
}

impl Case {
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.expectations[key].as_str().map(str::to_owned)
    }

    pub(crate) fn count(&self, key: &str) -> Option<u64> {
        self.expectations[key].as_u64()
    }
}

/// Returns the cases of the hostile set whose file starts with `prefix`.
pub(crate) fn hostile(prefix: &str) -> Option<Vec<Case>> {
    let folder = data("conformance/hostile")?;
    let manifest = std::fs::read(folder.join("MANIFEST.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let files = manifest.as_array().or_else(|| manifest["files"].as_array()).unwrap();
    let cases: Vec<Case> = files
        .iter()
        .map(|case| (case["file"].as_str().unwrap(), case))
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, case)| Case {
            name: name.to_owned(),
            path: folder.join(name),
            expectations: case.clone(),
        })
        .collect();
    assert!(!cases.is_empty(), "no case starts with `{prefix}`");
    Some(cases)
}

/// Describes a file under its bare name.
pub(crate) fn file(path: &Path) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        bytes: std::fs::metadata(path).unwrap().len(),
    }
}

/// Builds `kind` with `config` as TOML, for the source `test`.
pub(crate) fn build(kind: &SourceKind, config: &str) -> Box<dyn Source> {
    (kind.build)("test", kind.document_kind, &config.parse().unwrap()).unwrap()
}

/// A row of a source, as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: Vec<u8>,
    pub(crate) locator: String,
    pub(crate) text: String,
    pub(crate) url: Option<String>,
    pub(crate) date: Option<i64>,
    pub(crate) reject: Option<String>,
    pub(crate) bytes_raw: u64,
    pub(crate) metadata: Vec<(String, String)>,
}

impl Row {
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

pub(crate) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).unwrap().as_string_view();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    (0..batch.num_rows())
        .map(|row| {
            let dates = batch.column_by_name("date").unwrap();
            let dates = dates.as_primitive::<arrow::datatypes::TimestampMillisecondType>();
            let metadata = batch.column_by_name("metadata").unwrap().as_map();
            let entries = metadata.value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
            Row {
                id: batch.column_by_name("id").unwrap().as_fixed_size_binary().value(row).to_vec(),
                locator: text("locator", row).unwrap(),
                text: text("text", row).unwrap(),
                url: text("url", row),
                date: dates.is_valid(row).then(|| dates.value(row) / 1000),
                reject: text("reject", row),
                bytes_raw: batch
                    .column_by_name("bytes_raw")
                    .unwrap()
                    .as_primitive::<UInt64Type>()
                    .value(row),
                metadata: (0..entries.len())
                    .map(|i| (keys.value(i).to_owned(), values.value(i).to_owned()))
                    .collect(),
            }
        })
        .collect()
}

/// Reads a range of `file` and checks what every kind of source promises of its batches.
pub(crate) fn read(source: &dyn Source, file: &SourceFile, range: Option<Range<u64>>) -> Vec<Row> {
    let mut all = Vec::new();
    for batch in source.open(file, range).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.schema(), schema::source_schema());
        assert!((1..=BATCH_ROWS_MAX).contains(&batch.num_rows()), "{} rows", batch.num_rows());
        let rows = rows(&batch);
        let text_bytes: usize = rows[..rows.len() - 1].iter().map(|row| row.text.len()).sum();
        assert!(text_bytes < BATCH_BYTES_MAX, "{text_bytes} bytes before the last row");
        for row in &rows {
            assert_eq!(row.id, schema::document_id("test", &row.locator), "{}", row.locator);
            assert!(row.locator.starts_with(&file.name), "{}", row.locator);
            assert!(row.reject.is_none() || row.text.is_empty(), "a reject has no text");
        }
        all.extend(rows);
    }
    let mut ids: Vec<&[u8]> = all.iter().map(|row| row.id.as_slice()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "{}: two rows have one id", file.name);
    all
}

/// Checks that two reads of `file` give the same rows, and ranges cut at `cuts` (fractions of its size in 1/65536) too.
pub(crate) fn conforms(source: &dyn Source, file: &SourceFile, cuts: &[u16]) -> Vec<Row> {
    let whole = read(source, file, None);
    assert_eq!(read(source, file, Some(0..file.bytes)), whole, "{}", file.name);
    let mut ends: Vec<u64> = cuts.iter().map(|&cut| file.bytes * u64::from(cut) / 65536).collect();
    ends.extend([0, file.bytes]);
    ends.sort_unstable();
    let tiles: Vec<Row> =
        ends.windows(2).flat_map(|pair| read(source, file, Some(pair[0]..pair[1]))).collect();
    let locators = |rows: &[Row]| rows.iter().map(|row| row.locator.clone()).collect::<Vec<_>>();
    assert_eq!(locators(&tiles), locators(&whole), "{}: ranges {ends:?}", file.name);
    assert_eq!(tiles, whole, "{}", file.name);
    for row in whole.iter().filter(|row| row.reject.is_none()).take(8) {
        let place = row.locator.strip_prefix(&file.name).unwrap().strip_prefix('#');
        assert!(raw(source, file, row).is_some(), "{} leads nowhere", row.locator);
        let range = place.and_then(|place| source.range_of(file, place));
        let found = range.map(|range| read(source, file, Some(range)));
        let is_found = |rows: Vec<Row>| rows.iter().any(|found| found.locator == row.locator);
        assert!(found.is_none_or(is_found), "{} is not in its range", row.locator);
    }
    whole
}

/// Returns the record of a row of `file` as it stands there; a row of a columnar file has no bytes.
pub(crate) fn raw(source: &dyn Source, file: &SourceFile, row: &Row) -> Option<Vec<u8>> {
    let place = row.locator.strip_prefix(&file.name).unwrap().strip_prefix('#');
    Some(match source.raw(file, place, row.bytes_raw).unwrap()? {
        Raw::Bytes(bytes) => bytes,
        Raw::Row(batch) => {
            assert_eq!(batch.num_rows(), 1);
            Vec::new()
        }
    })
}

/// Returns the F1 score of two texts as bags of words: runs of letters and digits.
pub(crate) fn word_f1(found: &str, expected: &str) -> f64 {
    let bag = |text: &str| {
        let mut bag = std::collections::HashMap::<String, u64>::new();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            *bag.entry(word.to_lowercase()).or_default() += 1;
        }
        bag
    };
    let (found, expected) = (bag(found), bag(expected));
    let common: u64 = found.iter().map(|(word, n)| n.min(expected.get(word).unwrap_or(&0))).sum();
    2.0 * common as f64 / (found.values().sum::<u64>() + expected.values().sum::<u64>()) as f64
}

/// Returns the share of runs of `n` words of `expected` that `found` has.
pub(crate) fn shingle_recall(found: &str, expected: &str, n: usize) -> f64 {
    let shingles = |text: &str| {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_lowercase).collect();
        words.windows(n).map(|words| words.join(" ")).collect::<std::collections::HashSet<_>>()
    };
    let (found, expected) = (shingles(found), shingles(expected));
    expected.intersection(&found).count() as f64 / expected.len() as f64
}

/// Makes a tar of `entries`, which have short names.
pub(crate) fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in entries {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Returns `bytes` as gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads the files of a `.tar.gz`: plain files with short names, which is all that the data has.
pub(crate) fn untar(path: &Path) -> Vec<(String, String)> {
    let mut tar = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap());
    std::io::Read::read_to_end(&mut decoder, &mut tar).unwrap();
    let mut files = Vec::new();
    let mut at = 0;
    while tar.get(at).is_some_and(|&byte| byte != 0) {
        let field = |range: Range<usize>| {
            let bytes = &tar[at + range.start..at + range.end];
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let size = usize::from_str_radix(field(124..136).trim(), 8).unwrap();
        if tar[at + 156] == b'0' {
            let body = &tar[at + 512..at + 512 + size];
            files.push((field(0..100), String::from_utf8_lossy(body).into_owned()));
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    files
}
