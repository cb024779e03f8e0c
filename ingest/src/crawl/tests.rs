use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use super::{CancelFlag, CrawlConfig, CrawlSummary, run};
use crate::source::testing;

mod bombs;
mod hostile;
mod http2;
mod log;
mod politeness;
mod robots;
mod ssrf;
mod web;

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
                Some(reason) => assert!(matches!(&*reason, "http_status" | "content_type")),
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

/// Set in the process that is killed: URL and folder of its crawl.
const CHILD: &str = "GRISTMILL_CRAWL_CHILD";
/// How often the crawl is killed; more than by default makes the site larger, too.
const KILLS: &str = "GRISTMILL_CRAWL_KILLS";

#[test]
fn loses_and_doubles_nothing_when_killed_at_any_moment() {
    let config_of = |url: &str, folder: &Path| CrawlConfig {
        per_host: 4,
        delay_seconds: 0.001,
        segment_bytes: 100_000,
        // The last pages of the large site are further away than the default.
        max_depth: 100,
        ..config(url, folder)
    };
    if let Ok(child) = std::env::var(CHILD) {
        let (url, folder) = child.split_once(' ').unwrap();
        crawl(&config_of(url, Path::new(folder)));
        return;
    }
    let n_kills: usize = std::env::var(KILLS).map_or(4, |n| n.parse().unwrap());
    let n_pages = if n_kills > 4 { 5000 } else { 400 };
    let (url, log) = serve(site(n_pages));
    let folder = tempfile::tempdir().unwrap();
    let mut n_killed = 0;
    let mut state = 42_u64;
    loop {
        let name = "crawl::tests::loses_and_doubles_nothing_when_killed_at_any_moment";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, format!("{url} {}", folder.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        if n_killed < n_kills {
            // At any moment: while it opens its state, fetches, commits or finishes a segment.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(std::time::Duration::from_millis(20 + (state >> 33) % 150));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                n_killed += 1;
                continue;
            }
        }
        assert!(child.wait().unwrap().success());
        break;
    }
    let summary = crawl(&config_of(&url, folder.path()));
    assert!(summary.is_complete);
    let urls = documents(&summary);
    assert_eq!(urls.len(), n_pages + 1, "after {n_killed} kills");
    assert_eq!(urls.iter().collect::<BTreeSet<_>>().len(), n_pages + 1);
    let rows = log::rows(&summary);
    let logged: BTreeSet<&String> = rows.iter().map(|row| &row.0).collect();
    assert_eq!(logged.len(), rows.len(), "no URL is logged twice");
    assert_eq!(rows.iter().filter(|row| row.1 == "page").count(), n_pages + 1);
    let log = log.lock().unwrap();
    let pages: Vec<&String> = log.iter().filter(|path| *path != "/robots.txt").collect();
    let twice = pages.len() - pages.iter().collect::<BTreeSet<_>>().len();
    assert!(twice <= 4 * n_killed, "{twice} pages fetched twice in {n_killed} kills");
    eprintln!("{n_pages} pages, {n_killed} kills, {twice} fetched twice");
}

#[test]
fn takes_a_torn_journal_and_archive_for_what_is_whole() {
    let (url, _) = serve(site(12));
    let whole = tempfile::tempdir().unwrap();
    let mut config_of = |folder: &Path| config(&url, folder);
    let expected: BTreeSet<String> =
        documents(&crawl(&config_of(whole.path()))).into_iter().collect();
    // A crawl that has not committed yet is its journal and the open segment: both as a cut of power may leave them.
    let (journal, segment) = uncommitted(&mut config_of, whole.path());
    for cut in (0..journal.len()).step_by(97) {
        let folder = tempfile::tempdir().unwrap();
        let mut torn = journal[..cut].to_vec();
        torn.extend([0; 50]);
        std::fs::write(folder.path().join("crawl.journal"), torn).unwrap();
        let mut torn = segment.clone();
        let n = torn.len();
        torn[n - n.min(cut / 4)..].fill(0);
        std::fs::write(folder.path().join("crawl-00000.warc.gz.open"), torn).unwrap();
        let found = documents(&crawl(&config_of(folder.path())));
        assert_eq!(found.len(), expected.len(), "cut at {cut}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "cut at {cut}");
    }
}

/// The journal and segment of a crawl in `folder` as they are before its first commit.
fn uncommitted(
    config_of: &mut dyn FnMut(&Path) -> CrawlConfig,
    folder: &Path,
) -> (Vec<u8>, Vec<u8>) {
    let open = tempfile::tempdir().unwrap();
    let mut config = config_of(open.path());
    // Every answer is seen before the crawl commits, at its end at the latest.
    config.segment_bytes = u64::MAX >> 1;
    let mut journal = Vec::new();
    let path = open.path().join("crawl.journal");
    run(&config, |_| journal = std::fs::read(&path).unwrap(), CancelFlag::new()).unwrap();
    (journal, std::fs::read(folder.join("crawl-00000.warc.gz")).unwrap())
}

#[test]
fn tells_when_segments_that_it_wrote_are_gone() {
    let (url, _) = serve(site(3));
    let folder = tempfile::tempdir().unwrap();
    crawl(&config(&url, folder.path()));
    std::fs::remove_file(folder.path().join("crawl-00000.warc.gz")).unwrap();
    let error = run(&config(&url, folder.path()), |_| {}, CancelFlag::new()).unwrap_err();
    assert!(error.to_string().contains("put the segments back"), "{error}");
}

#[test]
fn asks_no_host_sooner_than_its_delay_and_none_twice_at_once() {
    // Fifty hosts are fifty addresses of this machine, behind one listener.
    const HOSTS: usize = 50;
    const DELAY: f64 = 0.06;
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    type Seen = Mutex<std::collections::HashMap<String, (usize, Vec<std::time::Instant>)>>;
    let seen = Arc::new(Seen::default());
    let log = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let host = stream.local_addr().unwrap().ip().to_string();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(request)) = lines.next() {
                    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                    {
                        let mut log = log.lock().unwrap();
                        let (open, times) = log.entry(host.clone()).or_default();
                        *open += 1;
                        assert_eq!(*open, 1, "two open requests to {host}");
                        times.push(std::time::Instant::now());
                    }
                    let response = match request.split(' ').nth(1).unwrap() {
                        "/robots.txt" => empty("404 Not Found", ""),
                        "/" => page(
                            &(0..19).map(|i| format!("<a href=/{i}>{i}</a>")).collect::<String>(),
                        ),
                        _ => page(&format!("{host} {request}")),
                    };
                    log.lock().unwrap().get_mut(&host).unwrap().0 -= 1;
                    stream.write_all(response.as_bytes()).unwrap();
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("http://unused", folder.path());
    config.seeds = (1..=HOSTS).map(|i| format!("http://127.0.0.{i}:{port}/")).collect();
    config.delay_seconds = DELAY;
    config.max_pages = 400;
    crawl(&config);
    // The next run begins at once, and does not know when the last request of the first one was.
    config.max_pages = 10_000;
    let summary = crawl(&config);
    assert_eq!(summary.progress.fetched, HOSTS as u64 * 20);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), HOSTS);
    for (host, (_, times)) in &*seen {
        for pair in times.windows(2) {
            let gap = (pair[1] - pair[0]).as_secs_f64();
            assert!(gap >= DELAY, "{host} was asked after {gap} s");
        }
    }
    let n_requests: usize = seen.values().map(|(_, times)| times.len()).sum();
    eprintln!("judged {n_requests} requests to {HOSTS} hosts");
}

#[test]
fn reads_the_sitemaps_that_robots_txt_names() {
    let list = |body: &str| page(body).replace("text/html", "application/xml");
    let place = Arc::new(Mutex::new(String::new()));
    let site = Arc::clone(&place);
    let (url, _) = serve(move |path| match path {
        "/robots.txt" => page(&format!(
            "Sitemap: {}/index.xml\nUser-agent: *\nDisallow: /no\n",
            site.lock().unwrap()
        )),
        "/index.xml" => list(
            "<sitemapindex><sitemap><loc>/a.xml</loc></sitemap><sitemap><loc>/b.txt</loc></sitemap></sitemapindex>",
        ),
        "/a.xml" => list("<urlset><url><loc>/1</loc></url><url><loc>/no</loc></url></urlset>"),
        "/feed" => list("<rss><item><link>/3</link></item></rss>"),
        "/1" | "/3" | "/" => page(&format!("the page {path}")),
        _ => empty("404 Not Found", ""),
    });
    place.lock().unwrap().clone_from(&url);
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.sitemaps = vec![format!("{url}/feed")];
    let summary = crawl(&config);
    let mut urls = documents(&summary);
    urls.sort();
    assert_eq!(urls, [format!("{url}/"), format!("{url}/1"), format!("{url}/3")]);
    assert_eq!(summary.progress.errors["robots"], 1);
    assert_eq!(summary.progress.errors["sitemap"], 3);
}

#[test]
fn asks_for_known_pages_only_if_they_changed() {
    let visit = Arc::new(Mutex::new(1));
    let current = Arc::clone(&visit);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests: Log = Log::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (seen, current) = (Arc::clone(&seen), Arc::clone(&current));
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut request = String::new();
                    while !request.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut request).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let visit = *current.lock().unwrap();
                    let is_conditional = request.contains("if-none-match: \"e1\"");
                    let response = match request.split(' ').nth(1).unwrap() {
                        "/" => page("<a href=/same>1</a><a href=/new>2</a><a href=/copy>3</a>"),
                        "/same" if is_conditional => empty("304 Not Modified", ""),
                        "/same" => page("a page that stays")
                            .replace("\r\n\r\n", "\r\nETag: \"e1\"\r\n\r\n"),
                        "/new" => page(&format!("a page of visit {visit}")),
                        "/copy" => page("a page that stays"),
                        _ => empty("404 Not Found", ""),
                    };
                    seen.lock().unwrap().push(request);
                    stream.write_all(response.as_bytes()).unwrap();
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&url, folder.path());
    config.recrawl = true;
    assert_eq!(crawl(&config).progress.fetched, 4);
    *visit.lock().unwrap() = 2;
    let summary = crawl(&config);
    assert_eq!(summary.progress.errors.get("not_modified"), Some(&1));
    assert_eq!(summary.progress.fetched, 3);
    assert_eq!(summary.segments.len(), 2);
    let index = std::fs::read_to_string(folder.path().join("crawl-00001.cdxj")).unwrap();
    let kinds: Vec<(&str, &str)> = index
        .lines()
        .map(|line| {
            let value = |key: &str| {
                let at = line.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
                line[at..].split('"').next().unwrap()
            };
            (&value("url")[url.len()..], value("mime"))
        })
        .collect();
    let revisit = "warc/revisit";
    let expected = [("/", revisit), ("/copy", revisit), ("/new", "text/html"), ("/same", revisit)];
    assert_eq!(kinds, expected, "{index}");
    // The index leads to the records: each offset is that of a member that begins with one.
    let segment = std::fs::read(&summary.segments[1]).unwrap();
    for line in index.lines() {
        let offset = line.split("\"offset\":\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(segment[offset.parse::<usize>().unwrap()..].starts_with(&[0x1f, 0x8b]));
    }
}

#[test]
fn knows_the_registered_domain_of_a_host() {
    let Some(path) = testing::data("conformance/psl/test_psl.txt") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let (mut judged, mut wrong) = (0, Vec::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("checkPublicSuffix(")) {
        let mut quoted = line.split('\'').skip(1).step_by(2);
        judged += 1;
        // The others are no hosts of URLs: null, and names that begin with a dot.
        let Some(host) = quoted.next().filter(|host| !host.starts_with('.')) else { continue };
        let url = url::Url::parse(&format!("http://{host}/")).unwrap();
        let host = url.host_str().unwrap();
        let expected = quoted.next().map(|domain| {
            let url = url::Url::parse(&format!("http://{domain}/")).unwrap();
            url.host_str().unwrap().to_owned()
        });
        // A host that is a public suffix itself is limited by itself.
        let found = super::worker::registered_domain(host);
        if found != expected.as_deref().unwrap_or(host) {
            wrong.push(format!("{host}: {found}, not {expected:?}"));
        }
    }
    eprintln!("judged {judged} hosts");
    assert!(judged >= 78 && wrong.is_empty(), "{wrong:#?}");
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
    let mut config = config(&url, folder.path());
    config.max_tries = 3;
    config.max_retry_seconds = 0.01;
    let summary = crawl(&config);
    assert_eq!(summary.progress.fetched, 0);
    assert_eq!(summary.progress.errors["robots_unreachable"], 1);
    assert_eq!(*log.lock().unwrap(), ["/robots.txt"; 3]);
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
