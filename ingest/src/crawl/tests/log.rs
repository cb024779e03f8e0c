//! The table of what came of every URL.

use std::collections::BTreeMap;
use std::fs::File;

use arrow::array::AsArray;
use arrow::datatypes::{UInt16Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::log_schema;
use super::{CrawlSummary, config, crawl, serve, site};

/// URL, outcome, status, tries, and bytes of each row of the logs of a crawl.
pub(super) fn rows(summary: &CrawlSummary) -> Vec<(String, String, Option<u16>, u32, u64)> {
    let mut rows = Vec::new();
    for path in &summary.logs {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            assert_eq!(batch.schema().fields(), log_schema().fields());
            let column = |name: &str| batch.column_by_name(name).unwrap();
            for row in 0..batch.num_rows() {
                let status = column("status");
                let status =
                    status.is_valid(row).then(|| status.as_primitive::<UInt16Type>().value(row));
                rows.push((
                    column("url").as_string::<i32>().value(row).to_owned(),
                    column("outcome").as_string::<i32>().value(row).to_owned(),
                    status,
                    column("tries").as_primitive::<UInt32Type>().value(row),
                    column("bytes").as_primitive::<UInt64Type>().value(row),
                ));
            }
        }
    }
    rows
}

#[test]
fn has_a_row_for_every_url_with_what_came_of_it() {
    let (url, _) = serve(site(30));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_pages = 10;
    crawl(&config);
    config.max_pages = 1000;
    let summary = crawl(&config);
    assert_eq!(summary.logs.len(), 2, "a file for each run");
    let rows = rows(&summary);
    let mut outcomes = BTreeMap::<&str, u64>::new();
    for (_, outcome, ..) in &rows {
        *outcomes.entry(outcome).or_default() += 1;
    }
    assert_eq!(outcomes.remove("page"), Some(summary.progress.fetched));
    let errors: BTreeMap<&str, u64> =
        summary.progress.errors.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    assert_eq!(outcomes, errors);
    assert_eq!(rows.iter().map(|row| row.4).sum::<u64>(), summary.progress.bytes);
    let row = |path: &str| {
        let row = rows.iter().find(|row| row.0 == format!("{url}{path}")).unwrap();
        (&*row.1, row.2, row.3)
    };
    assert_eq!(row("/0"), ("page", Some(200), 1));
    assert_eq!(row("/gone"), ("status_404", Some(404), 1));
    assert_eq!(row("/moved"), ("redirect", Some(301), 1));
    // Never asked for.
    assert_eq!(row("/private/x"), ("robots", None, 0));
}
