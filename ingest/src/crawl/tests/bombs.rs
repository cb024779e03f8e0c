//! Pages, lists and rules that get much larger than they come.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use super::{CrawlConfig, config, documents, empty, page};
use crate::measure;
use crate::source::testing;

/// A page with a content encoding.
fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n".to_owned();
    if !encoding.is_empty() {
        write!(head, "Content-Encoding: {encoding}\r\n").unwrap();
    }
    write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
    [head.as_bytes(), body].concat()
}

/// Serves `answer(path)`; returns the URL.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, mut stream) = (Arc::clone(&answer), stream.unwrap());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(request)) = lines.next() {
                    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {
                    }
                    drop(stream.write_all(&answer(request.split(' ').nth(1).unwrap())));
                }
            });
        }
    });
    url
}

#[test]
fn follows_no_page_list_or_rules_that_inflate_beyond_their_limits() {
    if measure::elsewhere(
        "crawl::tests::bombs::follows_no_page_list_or_rules_that_inflate_beyond_their_limits",
    ) {
        return;
    }
    let Some(cases) = testing::hostile("bombs/") else { return };
    let bombs: Vec<(String, &str, Vec<u8>)> = cases
        .iter()
        .filter(|case| case.text("expect").unwrap().starts_with("refuse"))
        .map(|case| {
            let encoding = match case.name.rsplit('.').next().unwrap() {
                "gz" if case.name.ends_with(".gz.gz") => "gzip, gzip",
                "gz" => "gzip",
                "zst" => "zstd",
                "br" => "br",
                other => panic!("{other}"),
            };
            (case.name["bombs/".len()..].to_owned(), encoding, std::fs::read(&case.path).unwrap())
        })
        .collect();
    let links: String =
        bombs.iter().map(|(name, ..)| format!("<a href='/page/{name}'>x</a>")).collect();
    let names: Vec<String> = bombs.iter().map(|(name, ..)| name.clone()).collect();
    let n_bombs = bombs.len();
    let answer = move |path: &str| {
        let name = path.rsplit('/').next().unwrap();
        let found = bombs.iter().find(|bomb| bomb.0 == name);
        match (path, found) {
            ("/", _) => page(&links).into_bytes(),
            ("/robots.txt", _) => empty("404 Not Found", "").into_bytes(),
            (path, Some((_, encoding, body))) if path.starts_with("/page/") => {
                encoded(encoding, body)
            }
            // A list that is a file of this kind, not an encoding of the answer.
            (_, Some((_, _, body))) => encoded("", body),
            _ => empty("404 Not Found", "").into_bytes(),
        }
    };
    let url = serve(answer);
    // Hosts whose robots.txt is a bomb.
    let rules =
        std::fs::read(&cases.iter().find(|case| case.name == "bombs/bomb.gz").unwrap().path);
    let rules = rules.unwrap();
    let rules_url = serve(move |path| match path {
        "/robots.txt" => encoded("gzip", &rules),
        _ => page("a page").into_bytes(),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = CrawlConfig {
        seeds: vec![format!("{url}/"), format!("{rules_url}/")],
        sitemaps: names.iter().map(|name| format!("{url}/list/{name}")).collect(),
        ..config("http://unused", folder.path())
    };
    let started = std::time::Instant::now();
    let (summary, growth) = measure::memory(|| super::crawl(&config));
    let errors = &summary.progress.errors;
    eprintln!(
        "judged {n_bombs} pages and {n_bombs} lists in {:.2} s, memory grew by {} MiB: {errors:?}",
        started.elapsed().as_secs_f64(),
        growth >> 20
    );
    assert!(summary.is_complete);
    // One asks for a window of a GiB, which is none of a body.
    let n_large = errors["compression_ratio"] + errors["too_large"];
    assert_eq!((n_large, errors["bad_encoding"]), (n_bombs as u64 - 1, 1));
    assert_eq!(errors["sitemap"], n_bombs as u64);
    // The first page, and the one beside rules that forbid nothing within the bytes of them that count.
    assert_eq!(summary.progress.fetched, 2);
    assert!(growth <= 2 * config.max_inflated_bytes, "{growth} bytes");
}

#[test]
fn follows_links_of_encoded_pages_to_the_last_member() {
    let part = |link: &str| format!("<p>text</p><a href='{link}'>x</a>").into_bytes();
    let gzip = [testing::gzip(&part("/gzip1")), testing::gzip(&part("/gzip2"))].concat();
    let zstd = |link| zstd::encode_all(&*part(link), 3).unwrap();
    let zstd = [zstd("/zstd1"), zstd("/zstd2")].concat();
    let url = serve(move |path| match path {
        "/robots.txt" => empty("404 Not Found", "").into_bytes(),
        "/" => page("<a href=/gzip>a</a><a href=/zstd>b</a><a href=/twice>c</a>").into_bytes(),
        "/gzip" => encoded("gzip", &gzip),
        "/zstd" => encoded("zstd", &zstd),
        "/twice" => encoded("zstd, gzip", &testing::gzip(&zstd)),
        path => page(&format!("the page {path}")).into_bytes(),
    });
    let folder = tempfile::tempdir().unwrap();
    let summary = super::crawl(&config(&url, folder.path()));
    let mut found = documents(&summary);
    found.sort();
    let expected = ["/", "/gzip", "/gzip1", "/gzip2", "/twice", "/zstd", "/zstd1", "/zstd2"];
    assert_eq!(found, expected.map(|path| format!("{url}{path}")));
}
