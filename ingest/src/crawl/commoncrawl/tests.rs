use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::{CancelFlag, CommonCrawlConfig, CommonCrawlProgress, fetch_records};
use crate::source::{kind, testing};

/// What a server does with a range of a file.
type Respond = dyn Fn(&str, Option<(usize, usize)>, usize) -> Vec<u8> + Send + Sync;

/// Serves on a port of its own; `respond` gets the path, the range and how often this path was asked for before.
fn serve(respond: Box<Respond>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let (seen, respond) = (Arc::clone(&log), Arc::new(respond));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, respond) = (Arc::clone(&seen), Arc::clone(&respond));
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(request)) = lines.next() {
                    let mut range = None;
                    for line in lines.by_ref() {
                        let line = line.unwrap().to_ascii_lowercase();
                        if let Some(value) = line.strip_prefix("range: bytes=") {
                            let (first, last) = value.split_once('-').unwrap();
                            range = Some((first.parse().unwrap(), last.parse().unwrap()));
                        }
                        if line.is_empty() {
                            break;
                        }
                    }
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    let line = format!("{path} {range:?}");
                    let mut seen = seen.lock().unwrap();
                    let before = seen.iter().filter(|other| **other == line).count();
                    seen.push(line);
                    drop(seen);
                    if stream.write_all(&respond(&path, range, before)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, log)
}

fn partial(bytes: &[u8], (first, last): (usize, usize)) -> Vec<u8> {
    let Some(part) = bytes.get(first..=last) else {
        return b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_vec();
    };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
        bytes.len(),
        part.len()
    );
    [head.as_bytes(), part].concat()
}

/// Serves the archives of a folder by ranges.
fn archives(folder: PathBuf) -> (String, Arc<Mutex<Vec<String>>>) {
    serve(Box::new(move |path, range, _| match (fs::read(folder.join(&path[1..])), range) {
        (Ok(bytes), Some(range)) => partial(&bytes, range),
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    }))
}

fn config(base: &str, index: &[PathBuf], output: &Path) -> CommonCrawlConfig {
    CommonCrawlConfig {
        index: index.to_vec(),
        base: base.to_owned(),
        output: output.to_owned(),
        mimes: Vec::new(),
        statuses: Vec::new(),
        allow_private: true,
        max_retry_seconds: 0.0,
        ..CommonCrawlConfig::default()
    }
}

fn run(config: &CommonCrawlConfig) -> CommonCrawlProgress {
    fetch_records(config, |_| {}, &CancelFlag::new()).unwrap()
}

/// Lines of pywb's index of its `iana.warc.gz`, and the archives' folder.
fn iana() -> Option<(PathBuf, PathBuf, Vec<serde_json::Value>)> {
    let folder = testing::data("warc/pywb")?;
    let index = folder.join("cdxj/iana.cdxj");
    let text = fs::read_to_string(&index).unwrap();
    let fields =
        text.lines().filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok());
    let lines: Vec<serde_json::Value> = fields.collect();
    assert!(lines.len() > 100, "{}", lines.len());
    Some((index, folder.join("warcs"), lines))
}

fn number(fields: &serde_json::Value, name: &str) -> usize {
    fields[name].as_str().unwrap().parse().unwrap()
}

#[test]
fn fetches_just_the_ranges_that_an_index_names() {
    let Some((index, warcs, lines)) = iana() else { return };
    let output = tempfile::tempdir().unwrap();
    let (base, log) = archives(warcs.clone());
    let progress = run(&config(&base, &[index], output.path()));
    let archive = fs::read(warcs.join("iana.warc.gz")).unwrap();
    let range = |fields: &serde_json::Value| {
        let offset = number(fields, "offset");
        offset..offset + number(fields, "length")
    };
    let expected: Vec<u8> =
        lines.iter().flat_map(|fields| &archive[range(fields)]).copied().collect();
    assert_eq!(fs::read(output.path().join("commoncrawl-00000.warc.gz")).unwrap(), expected);
    assert_eq!((progress.fetched, progress.entries), (lines.len() as u64, lines.len() as u64));
    assert!(progress.is_complete && progress.errors.is_empty(), "{progress:?}");
    // Every request was for a range, none was made twice.
    let log = log.lock().unwrap();
    assert_eq!(log.len(), lines.len());
    assert!(log.iter().all(|line| line.contains("Some")), "{log:?}");

    // The source finds a row for each page, and the index leads from it to where the record came from.
    let segment = testing::file(&output.path().join("commoncrawl-00000.warc.gz"));
    let rows = testing::read(&*testing::build(kind("warc").unwrap(), ""), &segment, None);
    // A row for each record: pages, what is no text, and visits of the same page again.
    assert_eq!(rows.len(), lines.len());
    assert!(rows.iter().any(|row| row.reject.is_none()));
    let index = fs::read_to_string(output.path().join("commoncrawl-00000.cdxj")).unwrap();
    for row in rows.iter().filter(|row| row.reject.is_none()) {
        let offset = row.locator.rsplit_once('#').unwrap().1;
        let fields: serde_json::Value = index
            .lines()
            .map(|line| serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap())
            .find(|fields: &serde_json::Value| fields["offset"] == offset)
            .unwrap();
        assert_eq!(fields["url"].as_str(), row.url.as_deref());
        let from = number(&fields, "source_offset");
        assert_eq!(archive[from..from + 2], [0x1f, 0x8b]);
    }
}

#[test]
fn goes_on_where_it_was_stopped_and_gives_the_same_bytes() {
    let Some((index, warcs, _)) = iana() else { return };
    let base = warcs.to_str().unwrap();
    let whole = tempfile::tempdir().unwrap();
    let small = |output: &Path| CommonCrawlConfig {
        segment_bytes: 100_000,
        ..config(base, std::slice::from_ref(&index), output)
    };
    let expected = run(&small(whole.path()));
    let stopped = tempfile::tempdir().unwrap();
    let mut n_runs = 0;
    let progress = loop {
        n_runs += 1;
        // Stops after each batch, and a run that was killed has written more than it noted.
        let stop = CancelFlag::new();
        let progress = fetch_records(&small(stopped.path()), |_| stop.cancel(), &stop).unwrap();
        if progress.is_complete {
            break progress;
        }
        for entry in fs::read_dir(stopped.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"torn").unwrap();
            }
        }
    };
    assert!(n_runs > 2, "{n_runs}");
    assert_eq!(progress, expected);
    let files = |folder: &Path| -> Vec<(String, Vec<u8>)> {
        let names = shard::store::list(folder).unwrap();
        names
            .into_iter()
            .map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap()))
            .collect()
    };
    let found = files(stopped.path());
    assert!(found.iter().filter(|(name, _)| name.ends_with(".warc.gz")).count() > 1, "{found:?}");
    assert!(found == files(whole.path()));
    // Once complete it stays as it is; other settings are refused.
    assert_eq!(run(&small(stopped.path())), expected);
    let other = CommonCrawlConfig { statuses: vec![200], ..small(stopped.path()) };
    let error = fetch_records(&other, |_| {}, &CancelFlag::new()).unwrap_err().to_string();
    assert!(error.contains("other settings") && error.contains("hint"), "{error}");
}

#[test]
fn reads_the_columnar_index_and_chooses_by_it() {
    let Some((index, warcs, lines)) = iana() else { return };
    let base = warcs.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let parquet = folder.path().join("index.parquet");
    let texts = |name: &str| -> ArrayRef {
        Arc::new(lines.iter().map(|fields| fields[name].as_str()).collect::<StringArray>())
    };
    let numbers = |name: &str| -> ArrayRef {
        Arc::new(
            lines
                .iter()
                .map(|fields| i32::try_from(number(fields, name)).unwrap())
                .collect::<Int32Array>(),
        )
    };
    let batch = RecordBatch::try_from_iter([
        ("url", texts("url")),
        ("content_mime_detected", texts("mime")),
        ("warc_filename", texts("filename")),
        ("warc_record_offset", numbers("offset")),
        ("warc_record_length", numbers("length")),
    ])
    .unwrap();
    let mut writer =
        ArrowWriter::try_new(fs::File::create(&parquet).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let segment = |index: &Path, name: &str| {
        let output = folder.path().join(name);
        let config = CommonCrawlConfig {
            mimes: vec!["text/html".to_owned()],
            ..config(base, &[index.to_owned()], &output)
        };
        let progress = run(&config);
        let expected = lines.iter().filter(|fields| fields["mime"] == "text/html").count() as u64;
        assert_eq!(progress.fetched, expected);
        assert_eq!(progress.fetched + progress.passed_over, progress.entries);
        fs::read(output.join("commoncrawl-00000.warc.gz")).unwrap()
    };
    assert!(segment(&parquet, "columnar") == segment(&index, "cdxj"));
    fs::write(folder.path().join("other.parquet"), b"no parquet").unwrap();
    let config = config(base, &[folder.path().join("other.parquet")], &folder.path().join("none"));
    let error = fetch_records(&config, |_| {}, &CancelFlag::new()).unwrap_err().to_string();
    assert!(error.contains("warc_record_offset"), "{error}");
}

#[test]
fn names_what_cannot_be_had() {
    let record = testing::gzip(b"WARC/1.0\r\n");
    let length = record.len();
    let served = record.clone();
    let (base, _) = serve(Box::new(move |path, range, before| {
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        match path {
            "/busy" if before < 2 => {
                b"HTTP/1.1 503 Slow Down\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            "/always-busy" => b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/whole" => [whole.as_bytes(), &served].concat(),
            "/shifted" => partial(&[b"x", &served[..]].concat(), (1, length)),
            "/text" => partial(&vec![b'x'; length], range.unwrap()),
            "/busy" | "/good" => partial(&served, range.unwrap()),
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }));
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index.jsonl");
    let mut text = String::from("no line of an index\n{\"filename\": \"good\"}\n");
    for name in [
        "good",
        "busy",
        "always-busy",
        "whole",
        "shifted",
        "text",
        "gone",
        "../good",
        "http://x/good",
    ] {
        text.push_str(&format!(
            "{{\"filename\": \"{name}\", \"offset\": 0, \"length\": \"{length}\"}}\n"
        ));
    }
    text.push_str("{\"filename\": \"good\", \"offset\": 0, \"length\": 99999999999}\n");
    fs::write(&index, text).unwrap();
    let output = folder.path().join("out");
    let config = config(&base, &[index], &output);
    let progress = run(&config);
    let expected = [
        ("bad_filename", 2),
        ("bad_index_line", 2),
        ("http_404", 1),
        ("http_429", 1),
        ("no_ranges", 1),
        ("not_gzip", 1),
        ("other_range", 1),
        ("record_length", 1),
    ];
    let found: Vec<(&str, u64)> =
        progress.errors.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    assert_eq!(found, expected);
    assert_eq!(progress.fetched, 2);
    let failed = fs::read_to_string(output.join("commoncrawl-failed.jsonl")).unwrap();
    assert_eq!(failed.lines().count() as u64, progress.errors.values().sum::<u64>());
    assert_eq!(
        fs::read(output.join("commoncrawl-00000.warc.gz")).unwrap(),
        [&record[..], &record[..]].concat()
    );

    let private =
        CommonCrawlConfig { allow_private: false, output: folder.path().join("p"), ..config };
    let error = fetch_records(&private, |_| {}, &CancelFlag::new()).unwrap_err().to_string();
    assert!(error.contains("not fetched from"), "{error}");
    let nowhere = CommonCrawlConfig { base: "/nowhere/at/all".to_owned(), ..private };
    let error = fetch_records(&nowhere, |_| {}, &CancelFlag::new()).unwrap_err().to_string();
    assert!(error.contains("neither a URL nor a folder"), "{error}");
}
