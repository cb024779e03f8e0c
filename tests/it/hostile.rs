//! Files that others made to break readers, through the engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use queries::catalog;
use queries::session::Limits;
use serde_json::json;

use crate::mill::Mill;
use crate::sources::data;

/// Seconds after which a file counts as one that hangs.
const SECONDS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_file_ends_a_query() {
    let Some(data) = data() else { return };
    let mill = Mill::new();
    let ctx = catalog::open(&mill.path("corpus"), Limits::standard()).await.unwrap();
    let query = async |kind: &str, path: &Path, settings: &str| -> Result<(i64, i64), String> {
        let sql = format!(
            "select count(*), count(reject) from {kind}('{}', '{}')",
            path.display(),
            settings.replace('\'', "''")
        );
        let answer = async { ctx.sql(&sql).await?.collect().await };
        let answer = tokio::time::timeout(Duration::from_secs(SECONDS_MAX), answer).await;
        let batches = answer
            .unwrap_or_else(|_| panic!("{}: no answer in {SECONDS_MAX} s", path.display()))
            .map_err(|error| error.to_string())?;
        let count = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
        Ok((count(0), count(1)))
    };
    for (kind, folder, n_expected) in
        [("parquet", "conformance/parquet", 8 + 137 + 4), ("arrow", "conformance/arrow-ipc", 408)]
    {
        let (mut n_files, mut n_rows, mut n_rejects, mut n_refused) = (0, 0, 0, 0);
        for path in files(&data.join(folder)) {
            n_files += 1;
            let mut answer = query(kind, &path, "").await;
            if let Err(error) = &answer
                && let Some(column) = first_column(error)
            {
                answer = query(kind, &path, &format!("text = {}", json!(column))).await;
            }
            match answer {
                Ok((rows, rejects)) => {
                    n_rows += rows;
                    n_rejects += rejects;
                }
                Err(error) => {
                    assert!(error.contains("no column"), "{}: {error}", path.display());
                    n_refused += 1;
                }
            }
        }
        assert_eq!(n_files, n_expected, "{folder}");
        println!(
            "{kind}: {n_files} files, {n_rows} rows, {n_rejects} of them rejects, {n_refused} files refused"
        );
        // The session is still good.
        let one = ctx.sql("select 1").await.unwrap().collect().await.unwrap();
        assert_eq!(one[0].num_rows(), 1);
    }
}

/// The first column that an error about a missing one names.
fn first_column(error: &str) -> Option<String> {
    let names = error.split("to one of its columns: `").nth(1)?;
    Some(names.split('`').next()?.to_owned()).filter(|name| !name.is_empty())
}

/// The files below `folder`, without notes.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_note = name == "LICENSE" || name.ends_with(".md") || name.starts_with('.');
            match path.is_dir() {
                true => open.push(path),
                false if !is_note => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn naughty_strings_are_in_the_shard_byte_for_byte() {
    let Some(data) = data() else { return };
    let strings = fs::read(data.join("conformance/strings/blns.json")).unwrap();
    let strings: Vec<String> = serde_json::from_slice(&strings).unwrap();
    assert_eq!(strings.len(), 515);
    let mill = Mill::new();
    let lines = strings.iter().map(|text| format!("{}\n", json!({ "text": text })));
    mill.write("strings.jsonl", lines.collect::<String>());
    mill.write(
        "job.toml",
        "name = 'strings'\noutput = 'corpus'\n[[source]]\nkind = 'jsonl'\npath = 'strings.jsonl'\n",
    );
    mill.mill(&[]);
    let mut found = Vec::new();
    for path in files(&mill.path("corpus/documents/data")) {
        let file = fs::File::open(path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
        for batch in reader.unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let texts = batch.column_by_name("text").unwrap();
            let texts = arrow::compute::cast(texts, &arrow::datatypes::DataType::Utf8).unwrap();
            found.extend(texts.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()));
        }
    }
    let expected: Vec<&String> = strings.iter().filter(|text| !text.is_empty()).collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    println!("{} of {} strings, the others are empty", found.len(), strings.len());
}
