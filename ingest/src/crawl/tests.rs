use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use super::{CancelFlag, CrawlConfig, CrawlSummary, run};
use crate::source::testing;

type Log = Arc<Mutex<Vec<String>>>;

/// Serves `respond(path)` on a port of its own, as long as the test runs; returns its URL and the paths that were asked for.
fn serve(respond: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    let respond = Arc::new(respond);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (respond, seen) = (Arc::clone(&respond), Arc::clone(&seen));
            thread::spawn(move || answer(stream.unwrap(), &*respond, &seen));
        }
    });
    (url, log)
}

fn answer(mut stream: TcpStream, respond: &dyn Fn(&str) -> String, seen: &Log) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        for line in lines.by_ref() {
            if line.unwrap().is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let response = respond(&path);
        seen.lock().unwrap().push(path);
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn page(body: &str) -> String {
    let n = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {n}\r\n\r\n{body}")
}

fn empty(status: &str, header: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\n\r\n")
}

/// A site of `n` pages, each linking to three others, with a rule, a redirect and dead links.
fn site(n: usize) -> impl Fn(&str) -> String + Send + Sync {
    move |path| match path {
        "/robots.txt" => page("User-agent: *\nDisallow: /private\n"),
        "/" => page(
            "<a href=/0>0</a><a href=/private/x>no</a><a href=/moved>m</a><a href='http://other.example/'>o</a>",
        ),
        "/moved" => empty("301 Moved", "Location: /1\r\n"),
        _ => match path[1..].parse::<usize>() {
            Ok(i) if i < n => page(&format!(
                "<p>page {i}</p><a href=/{}>a</a><a href='{}#x'>b</a><a href=/gone>c</a>",
                i + 1,
                (i * 2) % n
            )),
            _ => empty("404 Not Found", ""),
        },
    }
}

fn config(url: &str, output: &Path) -> CrawlConfig {
    CrawlConfig {
        seeds: vec![format!("{url}/")],
        output: output.to_owned(),
        delay_seconds: 0.0,
        allow_private: true,
        record_date: Some("2024-05-01T00:00:00Z".to_owned()),
        ..CrawlConfig::default()
    }
}

fn crawl(config: &CrawlConfig) -> CrawlSummary {
    run(config, |_| {}, CancelFlag::new()).unwrap()
}

/// The URLs of the documents that the archive of a crawl gives.
fn documents(summary: &CrawlSummary) -> Vec<String> {
    let source = testing::build(crate::source::kind("warc").unwrap(), "");
    let mut urls = Vec::new();
    for segment in &summary.segments {
        for row in testing::read(&*source, &testing::file(segment), None) {
            match row.reject {
                None => urls.push(row.url.unwrap()),
                Some(reason) => assert_eq!(reason, "http_status"),
            }
        }
    }
    urls
}

#[test]
fn fetches_every_page_in_scope_once_and_obeys_robots() {
    let (url, log) = serve(site(30));
    let folder = tempfile::tempdir().unwrap();
    let summary = crawl(&config(&url, folder.path()));
    assert!(summary.is_complete);
    let urls = documents(&summary);
    assert_eq!(urls.len(), 31);
    assert_eq!(summary.progress.fetched, 31);
    let errors: Vec<(&str, u64)> =
        summary.progress.errors.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    // `/30` and `/gone`.
    assert_eq!(errors, [("redirect", 1), ("robots", 1), ("status_404", 2)]);
    let log = log.lock().unwrap();
    assert_eq!(log[0], "/robots.txt");
    assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), log.len(), "{log:?}");
    assert!(!log.iter().any(|path| path.starts_with("/private")));
}

#[test]
fn gives_the_same_bytes_again() {
    let (url, _) = serve(site(20));
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let read = |folder: &Path| {
        let summary = crawl(&config(&url, folder));
        std::fs::read(&summary.segments[0]).unwrap()
    };
    assert_eq!(read(a.path()), read(b.path()));
}

#[test]
fn goes_on_where_it_stopped() {
    let (url, log) = serve(site(40));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_pages = 11;
    let first = crawl(&config);
    assert_eq!((first.progress.fetched, first.is_complete), (11, false));
    config.max_pages = 1000;
    let last = crawl(&config);
    assert!(last.is_complete);
    let urls = documents(&last);
    assert_eq!(urls.len(), 41);
    assert_eq!(urls.iter().collect::<BTreeSet<_>>().len(), 41);
    let pages = log.lock().unwrap().iter().filter(|path| *path != "/robots.txt").count();
    assert_eq!(pages, 44, "no page is fetched twice");
}

#[test]
fn loses_and_doubles_nothing_when_killed_at_any_byte() {
    let (url, _) = serve(site(12));
    let whole = tempfile::tempdir().unwrap();
    let config_of = |folder: &Path| config(&url, folder);
    let expected: BTreeSet<String> =
        documents(&crawl(&config_of(whole.path()))).into_iter().collect();
    let journal = std::fs::read(whole.path().join("crawl.journal")).unwrap();
    let segment = std::fs::read(whole.path().join("crawl-00000.warc.gz")).unwrap();
    // What a kill leaves: a journal cut anywhere, and a segment that is at least as far.
    for cut in (0..journal.len()).step_by(97) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("crawl.journal"), &journal[..cut]).unwrap();
        let torn = &segment[..segment.len() - 7];
        std::fs::write(folder.path().join("crawl-00000.warc.gz.open"), torn).unwrap();
        let found = documents(&crawl(&config_of(folder.path())));
        assert_eq!(found.len(), expected.len(), "cut at {cut}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "cut at {cut}");
    }
}

#[test]
fn refuses_addresses_that_are_not_public() {
    let (url, log) = serve(site(3));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.allow_private = false;
    let error = run(&config, |_| {}, CancelFlag::new()).unwrap_err();
    assert!(error.to_string().contains("allow_private"), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn fetches_nothing_from_a_host_whose_rules_cannot_be_had() {
    let (url, log) = serve(|path| match path {
        "/robots.txt" => empty("503 Busy", ""),
        _ => page("x"),
    });
    let folder = tempfile::tempdir().unwrap();
    let summary = crawl(&config(&url, folder.path()));
    assert_eq!(summary.progress.fetched, 0);
    assert_eq!(*log.lock().unwrap(), ["/robots.txt"]);
}

#[test]
fn asks_again_when_a_host_is_busy() {
    let count = Mutex::new(0);
    let (url, _) = serve(move |path| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match path {
            "/robots.txt" => empty("404 Not Found", ""),
            _ if *count < 4 => empty("503 Busy", "Retry-After: 0\r\n"),
            _ => page("x"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_retry_seconds = 0.01;
    assert_eq!(crawl(&config).progress.fetched, 1);
}

#[test]
fn cuts_bodies_at_the_limit() {
    let (url, _) = serve(|path| match path {
        "/robots.txt" => empty("404 Not Found", ""),
        _ => page(&"x".repeat(5000)),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_body_bytes = 1000;
    assert_eq!(crawl(&config).progress.bytes, 1000);
}
