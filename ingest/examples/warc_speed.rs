//! Prints how many uncompressed bytes of a WARC the source reads per second of CPU time.
//!
//! `cargo run --release -p ingest --example warc_speed [FILE]`; without a file, 256 MiB of made-up pages in gzip members.

use std::io::Write;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::source::{self, SourceFile};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[expect(clippy::print_stdout, reason = "a measurement is data")]
fn main() -> Result<()> {
    let path = match std::env::args().nth(1) {
        Some(path) => path.into(),
        None => synthetic()?,
    };
    let bytes = std::fs::metadata(&path)?.len();
    let mut inflated = 0;
    std::io::copy(
        &mut flate2::read::MultiGzDecoder::new(std::fs::File::open(&path)?),
        &mut Counter(&mut inflated),
    )?;
    let file = SourceFile { path, name: "speed.warc.gz".to_owned(), bytes };
    let kind = source::kind("warc").ok_or("no such source")?;
    let warc = (kind.build)("speed", "web", &toml::Table::new())?;
    for _ in 0..3 {
        let (started, cpu) = (Instant::now(), cpu_seconds()?);
        let mut rows = 0;
        for batch in warc.open(&file, None)? {
            rows += batch?.num_rows();
        }
        let seconds = cpu_seconds()? - cpu;
        let megabytes = inflated as f64 / 1e6;
        println!(
            "{rows} rows, {megabytes:.0} MB, {:.0} MB per CPU second, {:.2} s of wall time",
            megabytes / seconds,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

struct Counter<'a>(&'a mut u64);

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// CPU time of this thread, from the scheduler (Linux).
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no number")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// Writes pages of words with the spread of lengths of the web's.
fn synthetic() -> Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join("gristmill-speed.warc.gz");
    let mut file = std::fs::File::create(&path)?;
    let mut state = 42_u64;
    let mut written = 0;
    while written < 256 << 20 {
        let mut body = String::from("<html><body>");
        let wanted = 8000 + usize::try_from(state >> 48)? * 2;
        while body.len() < wanted {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = state >> 33;
            body.push_str("<p class=\"text\">");
            for shift in [0, 7, 14, 21] {
                body.push_str(&format!("word{} ", (word >> shift) % 4000));
            }
            body.push_str("</p>\n");
        }
        let http =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}");
        let record = format!(
            "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x/{state}\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n\
             Content-Type: application/http\r\nContent-Length: {}\r\n\r\n{http}\r\n\r\n",
            http.len()
        );
        written += record.len();
        let mut encoder = GzEncoder::new(&mut file, Compression::default());
        encoder.write_all(record.as_bytes())?;
        encoder.finish()?;
    }
    Ok(path)
}
