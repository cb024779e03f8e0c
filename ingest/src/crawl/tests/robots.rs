//! How robots.txt is fetched: RFC 9309, sections 2.3 to 2.5.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::web::{Reply, Request, Web};
use super::{CrawlConfig, config, empty, page};
use crate::source::testing;

const RULES: &str = "User-agent: *\nDisallow: /private\n";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a crawl may fetch of a host with the pages `/`, `/open` and `/private`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Everything,
    /// All but what its rules forbid.
    AsRuled,
    Nothing,
}

/// A host: its name, what it answers the n-th time that `path` is asked for when a robots.txt is meant, what may be
/// fetched of it, and how often `/robots.txt` is asked for.
type Host = (&'static str, fn(&Request) -> Reply, Allowed, usize);

fn closed(bytes: Vec<u8>) -> Reply {
    Reply { bytes, is_last: true }
}

/// Redirects `n` times, then answers with the rules.
fn redirects(request: &Request, n: usize) -> Reply {
    let i: usize = request.path.trim_start_matches("/robots.txt").parse().unwrap_or(0);
    let next = format!("Location: /robots.txt{}\r\n", i + 1);
    if i < n { empty("301 Moved", &next).into() } else { page(RULES).into() }
}

fn encoded(encoding: &str, body: &[u8]) -> Reply {
    let n = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {n}\r\n\r\n");
    Reply { bytes: [head.as_bytes(), body].concat(), is_last: false }
}

/// Rules of 600 KiB; the second one begins within the first 500 KiB.
fn long_rules() -> String {
    let mut rules = "User-agent: *\nDisallow: /private1\n".to_owned();
    rules.push_str(&format!("# {}\n", "x".repeat(100)).repeat(4850));
    assert!(rules.len() < 500 << 10);
    rules.push_str("Disallow: /private\n");
    let rest = (600 << 10) - rules.len();
    rules + "#" + &"x".repeat(rest - 1)
}

const HOSTS: [Host; 17] = [
    // The shared list of behaviours.
    ("robots_5xx", |_| empty("503 Busy", "").into(), Allowed::Nothing, 5),
    ("robots_404", |_| empty("404 Not Found", "").into(), Allowed::Everything, 1),
    ("robots_redirect_5", |request| redirects(request, 5), Allowed::AsRuled, 1),
    ("robots_600KiB", |_| page(&long_rules()).into(), Allowed::AsRuled, 1),
    ("robots_html", |_| page("<html><body>Welcome</body></html>").into(), Allowed::Everything, 1),
    (
        "robots_hang",
        |_| {
            thread::sleep(Duration::from_millis(900));
            closed(Vec::new())
        },
        Allowed::Nothing,
        5,
    ),
    // Section 2.3.1.3: any status from 400 to 499.
    ("forbidden", |_| empty("403 Forbidden", "").into(), Allowed::Everything, 1),
    ("unauthorized", |_| empty("401 Unauthorized", "").into(), Allowed::Everything, 1),
    ("gone", |_| empty("410 Gone", "").into(), Allowed::Everything, 1),
    // Section 2.3.1.4; 429 asks for less, which all pages of a site are not.
    ("slow_down", |_| empty("429 Slow Down", "").into(), Allowed::Nothing, 5),
    ("refused", |_| closed(Vec::new()), Allowed::Nothing, 5),
    (
        "passing",
        |request| match request.n_before {
            0 => empty("503 Busy", "Retry-After: 120\r\n").into(),
            1 => empty("500 Oops", "").into(),
            _ => page(RULES).into(),
        },
        Allowed::AsRuled,
        3,
    ),
    // Section 2.3.1.2: beyond five redirects it may be taken for unavailable.
    ("redirect_6", |request| redirects(request, 6), Allowed::Everything, 1),
    (
        "redirect_loop",
        |_| empty("302 Found", "Location: /robots.txt\r\n").into(),
        Allowed::Everything,
        6,
    ),
    // Half of a file says nothing of the other half.
    (
        "cut",
        |_| {
            closed(
                "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nUser-agent: *\n"
                    .to_owned()
                    .into_bytes(),
            )
        },
        Allowed::Nothing,
        5,
    ),
    ("gzip", |_| encoded("gzip", &testing::gzip(RULES.as_bytes())), Allowed::AsRuled, 1),
    ("not_gzip", |_| encoded("gzip", RULES.as_bytes()), Allowed::AsRuled, 1),
];

#[test]
fn asks_for_the_rules_before_anything_and_takes_every_answer_as_the_standard_does() {
    let web = Web::new(|request| {
        let name = request.host.split('.').next().unwrap();
        let host = HOSTS.iter().find(|host| host.0.replace('_', "-").to_lowercase() == name);
        match request.path.as_str() {
            "/" => page("<a href=/open>o</a><a href=/private>p</a>").into(),
            "/open" | "/private" => page(&request.host).into(),
            _ => host.unwrap().1(request),
        }
    });
    let port = web.listen();
    let name = |host: &Host| format!("{}.example", host.0.replace('_', "-").to_lowercase());
    let folder = tempfile::tempdir().unwrap();
    let config = CrawlConfig {
        seeds: HOSTS.iter().map(|host| format!("http://{}:{port}/", name(host))).collect(),
        idle_timeout_seconds: 0.4,
        // A limit for pages says nothing of rules.
        max_body_bytes: 2000,
        ..config("http://unused", folder.path())
    };
    let summary = web.crawl(&config);
    let (seen, mut wrong) = (web.seen(), Vec::new());
    for host in &HOSTS {
        let requests = &seen[&name(host)];
        let is_rules = |request: &&Request| request.path.starts_with("/robots.txt");
        let mut pages: Vec<&str> =
            requests.iter().filter(|it| !is_rules(it)).map(|it| &*it.path).collect();
        pages.sort_unstable();
        let expected: &[&str] = match host.2 {
            Allowed::Everything => &["/", "/open", "/private"],
            Allowed::AsRuled => &["/", "/open"],
            Allowed::Nothing => &[],
        };
        let n = requests.iter().filter(|it| it.path == "/robots.txt").count();
        // Every request for rules comes before any for a page.
        let early = requests.iter().skip_while(is_rules).filter(is_rules).count();
        if pages != expected || n != host.3 || early > 0 {
            wrong.push(format!("{}: {pages:?}, {n} requests for rules, {early} early", host.0));
        }
    }
    eprintln!("judged {} hosts: {:?}", HOSTS.len(), summary.progress.errors);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let n_nothing = HOSTS.iter().filter(|host| host.2 == Allowed::Nothing).count() as u64;
    let n_ruled = HOSTS.iter().filter(|host| host.2 == Allowed::AsRuled).count() as u64;
    assert_eq!(summary.progress.errors["robots_unreachable"], n_nothing);
    assert_eq!(summary.progress.errors["robots"], n_ruled);
    // `Retry-After` of a robots.txt is waited for.
    let passing = &seen["passing.example"];
    assert!(passing[1].at - passing[0].at >= Duration::from_secs(120), "{passing:?}");
}

#[test]
fn every_behaviour_of_the_shared_list_is_a_host_of_these_tests() {
    let Some(path) = testing::data("conformance/hostile/http/responses.jsonl") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let cases = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let names: Vec<String> = cases.map(|case| case["name"].as_str().unwrap().to_owned()).collect();
    let names = names.iter().filter(|name| name.starts_with("robots_"));
    let mut n = 0;
    for name in names {
        let is_here = HOSTS.iter().any(|host| host.0 == name) || name == "robots_changes";
        assert!(is_here, "{name}");
        n += 1;
    }
    eprintln!("judged {n} behaviours");
    assert_eq!(n, 7);
}

#[test]
fn reads_the_rules_again_after_a_day_and_no_sooner() {
    const PAGES: usize = 60;
    // `robots_changes`: open at first, closed a day later; and a host that stays as it is.
    let web = Web::new(|request| match request.path.as_str() {
        "/robots.txt" if request.host == "changes.example" && request.n_before > 0 => {
            page("User-agent: *\nDisallow: /\n").into()
        }
        "/robots.txt" => page(RULES).into(),
        "/" => page(&(0..PAGES).map(|i| format!("<a href=/{i}>p</a>")).collect::<String>()).into(),
        _ => page(&format!("{} {}", request.host, request.path)).into(),
    });
    let port = web.listen();
    let folder = tempfile::tempdir().unwrap();
    let config = CrawlConfig {
        seeds: ["changes", "stays"].map(|it| format!("http://{it}.example:{port}/")).to_vec(),
        delay_seconds: 3600.0,
        ..config("http://unused", folder.path())
    };
    let summary = web.crawl(&config);
    for (host, requests) in web.seen() {
        let mut read_at = None;
        let (mut n_rules, mut n_pages) = (0, 0);
        for request in &requests {
            if request.path == "/robots.txt" {
                let since = read_at.map(|read_at| request.at - read_at);
                assert!(since.is_none_or(|since| since >= DAY), "{host}: read after {since:?}");
                read_at = Some(request.at);
                n_rules += 1;
            } else {
                let age = request.at - read_at.unwrap();
                assert!(age < DAY, "{host}: a page by rules that were {age:?} old");
                n_pages += 1;
            }
        }
        eprintln!(
            "{host}: {n_pages} pages, rules read {n_rules} times in {:?}",
            requests.last().unwrap().at
        );
        if host == "changes.example" {
            // An hour after each request, the rules' included.
            assert_eq!((n_rules, n_pages), (2, 23));
        } else {
            assert_eq!((n_rules, n_pages), (3, PAGES + 1));
        }
    }
    assert_eq!(summary.progress.errors["robots"], PAGES as u64 + 1 - 23);
}
