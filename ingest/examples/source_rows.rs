//! Prints the rows of a source as JSON lines: locator, text, why there is none, metadata.
//!
//! `cargo run --release -p ingest --example source_rows -- KIND 'TOML' FILE…`

use arrow::array::{Array, AsArray};
use ingest::source::{self, SourceFile};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[expect(clippy::print_stdout, reason = "rows are data")]
fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("which kind of source?")?;
    let config: toml::Table = arguments.next().ok_or("which settings, as TOML?")?.parse()?;
    let kind = source::kind(&name).ok_or("no such source")?;
    let source = (kind.build)(&name, kind.document_kind, &config)?;
    for path in arguments {
        let bytes = std::fs::metadata(&path)?.len();
        let file = SourceFile { path: path.clone().into(), name: path, bytes };
        for batch in source.open(&file, None)? {
            let batch = batch?;
            let text = |column: &str, row: usize| {
                let column = batch.column_by_name(column)?.as_string_view_opt()?;
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            let metadata = batch.column_by_name("metadata").ok_or("no metadata")?.as_map();
            for row in 0..batch.num_rows() {
                let entries = metadata.value(row);
                let (keys, values) = (entries.column(0), entries.column(1));
                let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
                let metadata: serde_json::Map<_, _> = (0..entries.len())
                    .map(|at| (keys.value(at).to_owned(), values.value(at).into()))
                    .collect();
                let row = serde_json::json!({
                    "locator": text("locator", row), "text": text("text", row),
                    "reject": text("reject", row), "url": text("url", row),
                    "language": text("language", row), "license": text("license", row),
                    "metadata": metadata,
                });
                println!("{row}");
            }
        }
    }
    Ok(())
}
