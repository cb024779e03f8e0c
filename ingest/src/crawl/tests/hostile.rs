//! Servers that answer wrongly, slowly, or for ever.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Log, config, crawl, documents, empty, page, serve};
use crate::source::testing::{self, Row};

/// A case of the shared list of answers: its name and fields.
fn cases() -> Option<Vec<Value>> {
    let path = testing::data("conformance/hostile/http/responses.jsonl")?;
    let text = std::fs::read_to_string(path).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Serves whatever `write` writes for a path, then closes the connection.
fn serve_raw(write: impl Fn(&str, &mut TcpStream) + Clone + Send + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (write, seen, mut stream) = (write.clone(), Arc::clone(&seen), stream.unwrap());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(request)) = lines.next() else { return };
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let path = request.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(path.clone());
                write(&path, &mut stream);
            });
        }
    });
    (url, log)
}

/// What the archive of a crawl has of each path.
fn rows(summary: &super::CrawlSummary, url: &str) -> BTreeMap<String, Row> {
    let source = testing::build(crate::source::kind("warc").unwrap(), "");
    let all = summary
        .segments
        .iter()
        .flat_map(|segment| testing::read(&*source, &testing::file(segment), None));
    all.map(|row| (row.url.clone().unwrap()[url.len()..].to_owned(), row)).collect()
}

#[test]
fn takes_every_wrong_answer_for_what_it_is() {
    let Some(cases) = cases() else { return };
    let answers: BTreeMap<String, (String, Vec<u8>)> = cases
        .iter()
        .filter_map(|case| {
            let raw = bytes(case["raw_hex"].as_str()?);
            let name = case["name"].as_str().unwrap();
            Some((format!("/{name}"), (case["expect"].as_str().unwrap().to_owned(), raw)))
        })
        .collect();
    let links: String = answers.keys().map(|path| format!("<a href='{path}'>x</a>")).collect();
    let served = answers.clone();
    let (url, _) = serve_raw(move |path, stream| {
        let answer = match path {
            "/robots.txt" => empty("404 Not Found", "").into_bytes(),
            "/" => page(&links).into_bytes(),
            _ => served.get(path).map_or_else(Vec::new, |(_, raw)| raw.clone()),
        };
        // The crawl may close first.
        drop(stream.write_all(&answer));
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.per_host = 8;
    config.max_tries = 2;
    config.max_retry_seconds = 0.01;
    config.idle_timeout_seconds = 2.0;
    config.max_body_bytes = 1 << 20;
    let summary = crawl(&config);
    assert!(summary.is_complete);
    let rows = rows(&summary, &url);
    let mut wrong = Vec::new();
    for (path, (expect, _)) in &answers {
        let row = rows.get(path);
        // Several have the same page: a revisit of the first one is as good.
        let is_good =
            row.is_some_and(|row| matches!(row.reject.as_deref(), None | Some("revisit")));
        let is_cut = row.is_some_and(|row| row.value("truncated").is_some());
        let is_right = match expect.as_str() {
            "ok" => is_good && !is_cut,
            "first_10_bytes" => row.is_some_and(|row| row.bytes_raw == 10),
            // What came before the damage is kept, with a mark.
            "truncated_flagged" | "error" | "error_retry" => !is_good || is_cut,
            "error_loop" | "error_limit" => !is_good,
            _ => true,
        };
        if !is_right {
            wrong.push(format!("{path}: {expect}, {row:?}"));
        }
    }
    eprintln!("judged {} answers: {:?}", answers.len(), summary.progress.errors);
    assert!(answers.len() >= 89 && wrong.is_empty(), "{wrong:#?}");
}

/// Checks that a page which is served by `write` ends within `seconds`, and how.
fn check_slow(
    write: impl Fn(&mut TcpStream) + Clone + Send + 'static,
    seconds: f64,
    reason: Option<&str>,
) {
    let (url, _) = serve_raw(move |path, stream| match path {
        "/robots.txt" => {
            let answer = empty("404 Not Found", "Connection: close\r\n");
            drop(stream.write_all(answer.as_bytes()));
        }
        _ => write(stream),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_tries = 1;
    config.idle_timeout_seconds = 0.5;
    config.total_timeout_seconds = 1.0;
    config.max_body_bytes = 4 << 20;
    let started = Instant::now();
    let summary = crawl(&config);
    assert!(started.elapsed().as_secs_f64() < seconds, "{:?}", started.elapsed());
    match reason {
        Some(reason) => assert_eq!(summary.progress.errors.get(reason), Some(&1), "{summary:?}"),
        None => {
            let rows = rows(&summary, &url);
            let row = rows.get("/").unwrap_or_else(|| panic!("{summary:?}"));
            assert!(row.value("truncated").is_some(), "{row:.400?}");
        }
    }
}

#[test]
fn ends_with_servers_that_never_end() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
    let forever = |stream: &mut TcpStream, part: &[u8], pause_ms: u64| {
        while stream.write_all(part).is_ok() {
            thread::sleep(Duration::from_millis(pause_ms));
        }
    };
    // Accepts and never sends; sends its header byte by byte; a header without end.
    check_slow(|_| thread::sleep(Duration::from_secs(5)), 4.0, Some("timeout"));
    check_slow(
        move |stream| {
            drop(stream.write_all(HEAD));
            forever(stream, b"x", 100);
        },
        4.0,
        Some("timeout"),
    );
    check_slow(
        move |stream| {
            drop(stream.write_all(HEAD));
            forever(stream, &b"X-a: y\r\n".repeat(1000), 0);
        },
        4.0,
        Some("protocol"),
    );
    // A slow body, one without end, and one in chunks of a byte: kept as far as they came.
    for (rest, part, pause_ms) in [
        (&b"Content-Length: 1000000\r\n\r\n"[..], b"x".to_vec(), 100),
        (b"\r\n", vec![b'x'; 1 << 20], 10),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n".to_vec(), 1),
    ] {
        check_slow(
            move |stream| {
                drop(stream.write_all(&[HEAD, rest].concat()));
                forever(stream, &part, pause_ms);
            },
            4.0,
            None,
        );
    }
}

#[test]
fn leaves_traps_and_fetches_the_pages_beside_them() {
    const REAL: usize = 200;
    let (url, log) = serve(|path| {
        let (base, query) = path.split_once('?').unwrap_or((path, ""));
        if path == "/robots.txt" {
            return empty("404 Not Found", "");
        }
        if path == "/" {
            let real = (0..REAL).map(|i| format!("<a href=/real/{i}>r</a>")).collect::<String>();
            return page(&format!(
                "{real}<a href='/calendar?date=0'>c</a><a href='/shop;jsessionid=1'>s</a><a href=/deep/a/>d</a><a href=/soft/x>4</a>"
            ));
        }
        match base.split('/').nth(1).unwrap() {
            "real" => page(&format!("the real page {path}")),
            "calendar" => {
                let day: usize = query.trim_start_matches("date=").parse().unwrap();
                let links = (1..=10).map(|i| format!("<a href='?date={}'>n</a>", day + i));
                page(&format!("{day} {}", links.collect::<String>()))
            }
            "shop" | "shop;jsessionid=1" => {
                let id = path.len() * 7919 + 13;
                page(&format!("{path} <a href='/shop;jsessionid={id}'>again</a>"))
            }
            "deep" => page(&format!("{path} <a href='b/a/'>deeper</a>")),
            // The same page for every address, which leads to new ones.
            _ => page("not found <a href='1/x'>a</a><a href='2/x'>b</a><a href='3/x'>c</a>"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let summary = crawl(&config(&url, folder.path()));
    assert!(summary.is_complete);
    let log = log.lock().unwrap();
    let count = |start: &str| log.iter().filter(|path| path.starts_with(start)).count();
    assert_eq!(count("/real/"), REAL);
    for trap in ["/calendar", "/shop", "/deep", "/soft"] {
        let n = count(trap);
        eprintln!("{trap}: {n} pages");
        assert!((1..=500).contains(&n), "{trap}: {n} pages");
    }
}

#[test]
fn fetches_no_more_of_a_host_than_its_budget() {
    let (url, _) = serve(super::site(40));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_pages_per_host = Some(7);
    let summary = crawl(&config);
    assert!(summary.is_complete);
    assert_eq!(documents(&summary).len(), 7);
    assert!(summary.progress.errors["host_budget"] > 0);
}

#[test]
fn reads_robots_txt_as_the_standard_has_it() {
    // RFC 9309, 2.3.1.2 and 2.5: five redirects are followed, 500 KiB are read.
    let (url, log) = serve(|path| match path {
        "/robots.txt" => empty("302 Found", "Location: /r1\r\n"),
        "/r1" | "/r2" | "/r3" => {
            let next = path[2..].parse::<usize>().unwrap() + 1;
            empty("301 Moved", &format!("Location: /r{next}\r\n"))
        }
        "/r4" => empty("307 Moved", "Location: /rules\r\n"),
        "/rules" => {
            page(&format!("# {}\nUser-agent: *\nDisallow: /private\n", "x".repeat(490 << 10)))
        }
        "/" => page("<a href=/private/1>p</a><a href=/open>o</a>"),
        _ => page("a page"),
    });
    let folder = tempfile::tempdir().unwrap();
    let summary = crawl(&config(&url, folder.path()));
    assert_eq!(summary.progress.errors["robots"], 1);
    let asked = log.lock().unwrap();
    let expected = ["/robots.txt", "/r1", "/r2", "/r3", "/r4", "/rules", "/", "/open"];
    assert_eq!(*asked, expected);
}

#[test]
fn a_page_instead_of_robots_txt_forbids_nothing_and_silence_forbids_all() {
    let (url, _) = serve(|_| page("<html><body>Welcome</body></html>"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(crawl(&config(&url, folder.path())).progress.fetched, 1);
    let (url, log) = serve_raw(|_, _| thread::sleep(Duration::from_secs(3)));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.idle_timeout_seconds = 0.3;
    assert_eq!(crawl(&config).progress.fetched, 0);
    assert_eq!(*log.lock().unwrap(), ["/robots.txt"]);
}
