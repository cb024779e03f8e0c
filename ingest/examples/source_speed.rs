//! Prints how many bytes of records a source reads per second of CPU time.
//!
//! `cargo run --release -p ingest --example source_speed KIND FILE`

use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use ingest::source::{self, SourceFile};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[expect(clippy::print_stdout, reason = "a measurement is data")]
fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: source_speed KIND FILE".into());
    };
    let path = PathBuf::from(path);
    let bytes = std::fs::metadata(&path)?.len();
    let file = SourceFile { name: "speed".to_owned(), path, bytes };
    let kind = source::kind(&name).ok_or("no such source")?;
    let source = (kind.build)("speed", kind.document_kind, &toml::Table::new())?;
    for _ in 0..5 {
        let cpu = cpu_seconds()?;
        let (mut rows, mut bytes) = (0, 0);
        for batch in source.open(&file, None)? {
            let batch = batch?;
            rows += batch.num_rows();
            let column = batch.column_by_name("bytes_raw").ok_or("no column `bytes_raw`")?;
            bytes += column.as_primitive::<UInt64Type>().values().iter().sum::<u64>();
        }
        let seconds = cpu_seconds()? - cpu;
        let megabytes = bytes as f64 / 1e6;
        println!("{rows} rows, {megabytes:.2} MB, {:.1} MB per CPU second", megabytes / seconds);
    }
    Ok(())
}

/// CPU seconds of this process so far, in user and system mode.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = stat.split(' ').next().ok_or("no field")?.parse()?;
    Ok(nanoseconds / 1e9)
}
