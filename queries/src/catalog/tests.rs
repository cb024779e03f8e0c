use arrow::array::{Float64Array, StringViewArray, UInt64Array};
use shard::Manifest;
use shard::writer::ShardWriter;

use super::*;
use crate::output::Format;
use crate::shell::execute;

/// Commits `batch` as the version after `base`.
fn commit(folder: &Path, kind: DatasetKind, batch: &RecordBatch, base: u64) {
    let dataset = Dataset::at(folder);
    let mut writer = ShardWriter::create(&dataset, "train", "train", &kind.schema()).unwrap();
    writer.write(batch).unwrap();
    let mut manifest = Manifest::new(kind, &kind.schema(), "f".into(), serde_json::Value::Null);
    manifest.counts.n_in = batch.num_rows() as u64;
    manifest.counts.n_kept = batch.num_rows() as u64;
    manifest.shards = vec![writer.finish().unwrap()];
    dataset.commit(base, manifest).unwrap();
}

fn duplicates(similarities: &[f64]) -> RecordBatch {
    let n = similarities.len();
    let id = |byte: u8| {
        let mut ids = arrow::array::FixedSizeBinaryBuilder::new(16);
        (0..n).for_each(|_| ids.append_value([byte; 16]).unwrap());
        Arc::new(ids.finish()) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        id(0xab),
        id(0xcd),
        Arc::new(UInt64Array::from(vec![7; n])),
        Arc::new(Float64Array::from(similarities.to_vec())),
        Arc::new(StringViewArray::from(vec!["exact"; n])),
        Arc::new(UInt64Array::from(vec![9; n])),
        Arc::new(UInt64Array::from(vec![7; n])),
    ];
    RecordBatch::try_new(DatasetKind::Duplicates.schema(), columns).unwrap()
}

async fn check(corpus: &Path, sql: &str, expected: &str) {
    let ctx = SessionContext::new();
    crate::function::register(&ctx).unwrap();
    register(&ctx, corpus).await.unwrap();
    let mut out = Vec::new();
    execute(&ctx, sql, Format::Csv, &mut out).await.unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected, "{sql}");
}

#[tokio::test]
async fn a_fresh_corpus_has_every_table_and_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    for kind in DatasetKind::ALL {
        check(folder.path(), &format!("select count(*) as n from {kind}"), "n\n0\n").await;
    }
    check(folder.path(), "select count(*) as n from manifests", "n\n0\n").await;
}

#[tokio::test]
async fn a_name_is_the_newest_version_and_older_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("duplicates");
    commit(&path, DatasetKind::Duplicates, &duplicates(&[1.0]), 0);
    commit(&path, DatasetKind::Duplicates, &duplicates(&[1.0, 0.5]), 1);
    let corpus = folder.path();
    check(corpus, "select count(*) as n from duplicates", "n\n2\n").await;
    check(corpus, "select count(*) as n from duplicates@1", "n\n1\n").await;
    check(corpus, "select count(*) as n from \"duplicates@2\"", "n\n2\n").await;
    check(
        corpus,
        "select id, method from duplicates where id = id_of('abababababababababababababababab') and similarity < 1",
        "id,method\nabababababababababababababababab,exact\n",
    )
    .await;
    check(
        corpus,
        "select dataset, version, rows, n_in from manifests order by version",
        "dataset,version,rows,n_in\nduplicates,1,1,1\nduplicates,2,2,2\n",
    )
    .await;
}

#[tokio::test]
async fn metrics_are_those_of_all_runs() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus");
    for (run, value) in [("a", 1.5), ("b", 2.5)] {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from(vec![run])),
            Arc::new(UInt64Array::from(vec![1])),
            Arc::new(StringViewArray::from(vec!["train/loss"])),
            Arc::new(Float64Array::from(vec![value])),
        ];
        let batch = RecordBatch::try_new(DatasetKind::Metrics.schema(), columns).unwrap();
        let path = folder.path().join("runs").join(run).join("metrics");
        commit(&path, DatasetKind::Metrics, &batch, 0);
    }
    check(&corpus, "select run, value from metrics order by run", "run,value\na,1.5\nb,2.5\n")
        .await;
}

#[tokio::test]
async fn files_of_a_source_are_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.jsonl");
    std::fs::write(&file, "{\"text\": \"one\"}\n{\"text\": \"two\"}\n").unwrap();
    let sql = format!("select text from jsonl('{}') order by text", file.display());
    check(folder.path(), &sql, "text\none\ntwo\n").await;
}

/// A row of a crawl's log, of which every number is `number`.
fn write_log(path: &Path, number: i64) {
    let schema = ingest::crawl::log_schema();
    let numbers: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![number]));
    let columns = schema
        .fields()
        .iter()
        .map(|field| arrow::compute::cast(&numbers, field.data_type()).unwrap());
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn the_log_of_a_crawl_is_all_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::create_dir(&raw).unwrap();
    let table = format!("crawl_log('{}')", raw.display());
    let ctx = SessionContext::new();
    register(&ctx, folder.path()).await.unwrap();
    let error = ctx.sql(&format!("select * from {table}")).await.unwrap_err().to_string();
    assert!(error.contains(&format!("`{}` has no log of a crawl", raw.display())), "{error}");
    write_log(&raw.join("crawl_log-00000.parquet"), 2);
    write_log(&raw.join("crawl_log-00001.parquet"), 40);
    check(
        folder.path(),
        &format!("select url, sum(bytes) as bytes from {table} group by url order by url"),
        "url,bytes\n2,2\n40,40\n",
    )
    .await;
}
