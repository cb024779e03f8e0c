//! Prints how many pages a second a crawl of a folder of HTML files takes in, served on loopback by a process of its own.
//!
//! `cargo run --release -p ingest --example crawl_speed FOLDER [OUTPUT]`, begun at `index.html`, without a delay.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ingest::crawl::{CancelFlag, CrawlConfig, run};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[expect(clippy::print_stdout, reason = "a measurement is data")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("name a folder of HTML files")?;
    if arguments.get(1).is_some_and(|argument| argument == "--serve") {
        return serve(folder.into());
    }
    let mut server = Command::new(std::env::current_exe()?)
        .args([folder, "--serve"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    let temporary = std::env::temp_dir().join(format!("gristmill-crawl-{}", std::process::id()));
    let output = arguments.get(1).map_or(temporary.clone(), PathBuf::from);
    let config = CrawlConfig {
        seeds: vec![format!("http://{}/index.html", address.trim())],
        output,
        per_host: 4,
        delay_seconds: 0.0,
        allow_private: true,
        ..CrawlConfig::default()
    };
    let started = Instant::now();
    let summary = run(&config, |_| {}, CancelFlag::new());
    let seconds = started.elapsed().as_secs_f64();
    server.kill()?;
    server.wait()?;
    let progress = summary?.progress;
    println!(
        "{} pages, {:.1} MB, {:?}: {:.0} pages/s of wall time, {:.2} CPU seconds, peak {} MB",
        progress.fetched,
        progress.bytes as f64 / 1e6,
        progress.errors,
        progress.fetched as f64 / seconds,
        cpu_seconds()?,
        peak_kilobytes()? / 1000
    );
    if temporary.try_exists()? {
        std::fs::remove_dir_all(temporary)?;
    }
    Ok(())
}

/// CPU time of this process in user and kernel mode, in ticks of a hundredth of a second (Linux).
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit(')').next().ok_or("no fields")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

fn peak_kilobytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmHWM")).ok_or("no peak")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

#[expect(clippy::print_stdout, reason = "whoever started the server reads its address")]
fn serve(folder: PathBuf) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (folder, stream) = (folder.clone(), stream?);
        // A connection that the crawl closes ends its thread.
        std::thread::spawn(move || answer(&stream, &folder).is_ok());
    }
    Ok(())
}

fn answer(stream: &TcpStream, folder: &Path) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let path = request.split([' ', '?']).nth(1).unwrap_or("/").trim_start_matches('/');
        let is_inside = !path.split('/').any(|part| part == "..");
        let body = std::fs::read(folder.join(path)).ok().filter(|_| is_inside);
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let kind = if path.ends_with(".html") { "text/html" } else { "application/octet-stream" };
        let mut response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(&body);
        let mut stream = stream;
        stream.write_all(&response)?;
    }
    Ok(())
}
