//! Servers that answer wrongly, slowly, or for ever.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::environment::Environment;
use super::super::worker;
use super::{
    CancelFlag, CrawlConfig, CrawlSummary, Log, config, crawl, documents, empty, page, serve,
};
use crate::measure;
use crate::source::testing::{self, Row};

/// A case of the shared list of answers: its name and fields.
fn cases() -> Option<Vec<Value>> {
    let path = testing::data("conformance/hostile/http/responses.jsonl")?;
    let text = std::fs::read_to_string(path).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
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

/// What the archive of a crawl has of each path of the host at `url`.
fn rows(summary: &CrawlSummary, url: &str) -> BTreeMap<String, Row> {
    let source = testing::build(crate::source::kind("warc").unwrap(), "");
    let all = summary
        .segments
        .iter()
        .flat_map(|segment| testing::read(&*source, &testing::file(segment), None));
    let path = |row: &Row| row.url.as_ref()?.strip_prefix(url).map(str::to_owned);
    all.filter_map(|row| Some((path(&row)?, row))).collect()
}

/// Crawls and says what it cost: bytes by which memory grew, and tasks that go on when the crawl is over.
fn measured(config: &CrawlConfig) -> (CrawlSummary, u64, usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (environment, stop) = (Environment::default(), CancelFlag::new());
    let crawl = || runtime.block_on(worker::crawl(config, &environment, |_| {}, &stop)).unwrap();
    let (summary, growth) = measure::memory(crawl);
    // A connection is closed by its own task, a moment after the client is gone.
    let is_over = || runtime.metrics().num_alive_tasks() == 0;
    for _ in 0..100 {
        if is_over() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    (summary, growth, runtime.metrics().num_alive_tasks())
}

/// Checks a crawl that had `n_open` requests open at a time.
fn check_cost(growth: u64, n_tasks: usize, config: &CrawlConfig, n_open: usize) {
    let most = config.max_body_bytes * n_open as u64 + (64 << 20);
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "memory grew by {} MiB of {} MiB for {n_open} open requests; {n_tasks} tasks left, {} panics",
        mib(growth),
        mib(most),
        measure::n_panics()
    );
    assert!(growth <= most, "{growth} bytes, {most} are allowed");
    assert_eq!((n_tasks, measure::n_panics()), (0, 0), "tasks left, panics");
}

#[test]
fn takes_every_wrong_answer_for_what_it_is() {
    if measure::elsewhere("crawl::tests::hostile::takes_every_wrong_answer_for_what_it_is") {
        return;
    }
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
    let (summary, growth, n_tasks) = measured(&config);
    check_cost(growth, n_tasks, &config, config.per_host);
    assert!(summary.is_complete);
    let rows = rows(&summary, &url);
    assert!(rows.values().all(|row| row.bytes_raw <= config.max_body_bytes));
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

/// With `default`, the timeouts of a crawl are those of its default settings, else a thirtieth of them.
const TIMEOUTS: &str = "GRISTMILL_CRAWL_TIMEOUTS";

/// Sends what a behaviour of the shared list says, for ever if need be. `unit`: a second, or less.
fn behave(name: &str, head: &[u8], unit: Duration, stream: &mut TcpStream) {
    let megabyte = vec![b'x'; 1 << 20];
    let fields = b"X-n: y\r\n".repeat(1000);
    let (part, pause): (&[u8], Duration) = match name {
        "slowloris_header" => (b"x", 5 * unit),
        "slow_body" => (b"x", unit),
        "accept_no_answer" => (b"", unit),
        "endless_body" => (&megabyte, Duration::from_millis(10)),
        "endless_headers" => (&fields, Duration::ZERO),
        "endless_chunks" => (b"1\r\nx\r\n", Duration::ZERO),
        other => panic!("nobody knows how to behave like `{other}`"),
    };
    let mut is_open = stream.write_all(head).is_ok();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    while is_open {
        thread::sleep(pause);
        // A client that is gone is seen by reading where nothing is written.
        let mut byte = [0];
        is_open = stream.write_all(part).is_ok() && !matches!(stream.read(&mut byte), Ok(0));
    }
}

/// Serves a page whose connection is reset in the middle: what is not read when it is closed makes a reset of the close.
fn serve_reset(head: Vec<u8>) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut start = [0; 12];
            while stream.peek(&mut start).unwrap_or(start.len()) < start.len() {}
            let is_rules = start.starts_with(b"GET /robots");
            seen.lock().unwrap().push(if is_rules { "/robots.txt" } else { "/" }.to_owned());
            let rules = empty("404 Not Found", "Connection: close\r\n");
            if is_rules {
                drop(stream.read(&mut [0; 1024]));
            }
            drop(stream.write_all(if is_rules { rules.as_bytes() } else { &head }));
        }
    });
    (url, log)
}

#[test]
fn ends_with_servers_that_never_end() {
    if measure::elsewhere("crawl::tests::hostile::ends_with_servers_that_never_end") {
        return;
    }
    let Some(cases) = cases() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("http://unused", folder.path());
    let is_default = std::env::var(TIMEOUTS).is_ok_and(|it| it == "default");
    let scale = if is_default { 1.0 } else { 1.0 / 30.0 };
    config.idle_timeout_seconds *= scale;
    config.total_timeout_seconds *= scale;
    config.max_tries = 1;
    // Each behaviour on so many hosts at a time.
    const HOSTS: usize = 4;
    config.seeds.clear();
    let mut hosts = Vec::new();
    let mut n_elsewhere = 0;
    for case in cases.iter().filter(|case| case["raw_hex"].as_str().is_none()) {
        let name = case["name"].as_str().unwrap().to_owned();
        if name.ends_with("_trap") || name == "soft_404" || name.starts_with("robots_") {
            // Judged by the tests of traps and of robots.txt.
            n_elsewhere += 1;
            continue;
        }
        let head = case["behaviour"]["send_hex"].as_str().map_or_else(Vec::new, bytes);
        for _ in 0..HOSTS {
            let (name, head) = (name.clone(), head.clone());
            let (url, log) = if name == "reset_mid_body" {
                serve_reset(head)
            } else {
                let unit = Duration::from_secs_f64(scale);
                let name = name.clone();
                serve_raw(move |path, stream| match path {
                    "/robots.txt" => {
                        let rules = empty("404 Not Found", "Connection: close\r\n");
                        drop(stream.write_all(rules.as_bytes()));
                    }
                    _ => behave(&name, &head, unit, stream),
                })
            };
            config.seeds.push(format!("{url}/"));
            hosts.push((name, case["expect"].as_str().unwrap().to_owned(), url, log));
        }
    }
    // Behind one address, so that nothing but their number keeps them from being asked at once.
    config.per_host = hosts.len();
    config.per_domain = hosts.len();
    let started = Instant::now();
    let (summary, growth, n_tasks) = measured(&config);
    let seconds = started.elapsed().as_secs_f64();
    check_cost(growth, n_tasks, &config, hosts.len());
    // All are asked at once, so this is the time of the slowest one: 65 s by default.
    assert!(seconds <= config.total_timeout_seconds + 5.0, "{seconds} s");
    let mut wrong = Vec::new();
    for (name, expect, url, _) in &hosts {
        let rows = rows(&summary, url);
        let cut = rows.get("/").and_then(|row| row.value("truncated"));
        let bytes = rows.get("/").map_or(0, |row| row.bytes_raw);
        let is_right = match expect.as_str() {
            "error_timeout" | "error_header_limit" => rows.is_empty(),
            "error_min_rate_or_total_timeout" => cut == Some("time"),
            "truncated_at_body_limit" => cut == Some("length") && bytes == config.max_body_bytes,
            "truncated_at_body_limit_or_timeout" => cut.is_some(),
            "error_retry" => rows.is_empty() || cut == Some("disconnect"),
            other => panic!("{other}"),
        };
        if !is_right || bytes > config.max_body_bytes {
            wrong.push(format!("{name}: {expect}, {rows:.300?}"));
        }
    }
    eprintln!(
        "judged {} behaviours on {} hosts in {seconds:.1} s, {n_elsewhere} elsewhere: {:?}",
        hosts.len() / HOSTS,
        hosts.len(),
        summary.progress.errors
    );
    assert_eq!((hosts.len(), n_elsewhere), (7 * HOSTS, 11));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(summary.progress.errors["timeout"] >= 2 * HOSTS as u64, "{:?}", summary.progress);
}

#[test]
fn asks_again_once_when_a_connection_breaks() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\nabc";
    let (url, log) = serve_reset(head.as_bytes().to_vec());
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.max_tries = 2;
    config.max_retry_seconds = 0.01;
    crawl(&config);
    assert_eq!(*log.lock().unwrap(), ["/robots.txt", "/", "/"]);
}

#[test]
fn follows_ten_redirects_and_finds_loops() {
    let (url, log) = serve(|path| {
        let (kind, n) = path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
        let n: usize = n.parse().unwrap_or(0);
        match kind {
            "" if path == "/" => page(
                "<a href=/chain/0>a</a><a href=/ten/0>b</a><a href=/loop/0>c</a><a href=/self/0>d</a>",
            ),
            "chain" => empty("302 Found", &format!("Location: /chain/{}\r\n", n + 1)),
            "ten" if n < 10 => empty("301 Moved", &format!("Location: /ten/{}\r\n", n + 1)),
            "ten" => page("the end"),
            "loop" => empty("307 Moved", &format!("Location: /loop/{}\r\n", (n + 1) % 3)),
            "self" => empty("308 Moved", "Location: /self/0\r\n"),
            _ => empty("404 Not Found", ""),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let summary = crawl(&config(&url, folder.path()));
    assert!(summary.is_complete);
    let log = log.lock().unwrap();
    let count = |start: &str| log.iter().filter(|path| path.starts_with(start)).count();
    let counts = ["/chain/", "/ten/", "/loop/", "/self/"].map(count);
    eprintln!(
        "requests for an endless chain, one of ten, a loop of three, a page to itself: {counts:?}"
    );
    assert_eq!(counts, [11, 11, 3, 1]);
    let errors = &summary.progress.errors;
    assert_eq!((errors["redirect_limit"], errors["redirect_loop"], errors["redirect"]), (1, 1, 23));
    assert_eq!(summary.progress.fetched, 2);
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
    config.max_tries = 1;
    assert_eq!(crawl(&config).progress.fetched, 0);
    assert_eq!(*log.lock().unwrap(), ["/robots.txt"]);
}
