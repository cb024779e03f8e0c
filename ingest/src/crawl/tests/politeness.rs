//! How gently hosts are asked, on a clock that runs ahead while nothing is open.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::web::{Reply, Request, Web};
use super::{CrawlConfig, config, empty, page};
use crate::source::testing;

/// A site of `n` pages, all linked from the first one.
fn pages(request: &Request, n: usize) -> Reply {
    match request.path.as_str() {
        "/robots.txt" => empty("404 Not Found", "").into(),
        "/" => page(&(1..n).map(|i| format!("<a href=/{i}>{i}</a>")).collect::<String>()).into(),
        path => page(&format!("{} {path}", request.host)).into(),
    }
}

/// The shortest time between two requests to a host, and how many pairs of requests there are.
fn nearest(requests: &[Request]) -> (Duration, usize) {
    let gaps: Vec<Duration> = requests.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    (gaps.iter().min().copied().unwrap_or(Duration::MAX), gaps.len())
}

#[test]
fn asks_fifty_hosts_for_a_thousand_pages_and_none_sooner_than_its_delay() {
    const HOSTS: usize = 50;
    const PAGES: usize = 20;
    // Heritrix waits for so long at least.
    const DELAY: Duration = Duration::from_secs(3);
    let web = Web::new(|request| {
        // Long enough to be open beside others.
        thread::sleep(Duration::from_millis(1));
        pages(request, PAGES)
    });
    // Half of the hosts have two ports, of which each is a host of its own, but no more polite to ask.
    let ports = [web.listen(), web.listen()];
    let folder = tempfile::tempdir().unwrap();
    let seeds = (0..HOSTS).flat_map(|i| {
        let n_ports = 1 + i % 2;
        ports[..n_ports].iter().map(move |port| format!("http://www.site{i}.example:{port}/"))
    });
    let config = CrawlConfig {
        seeds: seeds.collect(),
        delay_seconds: DELAY.as_secs_f64(),
        ..config("http://unused", folder.path())
    };
    let summary = web.crawl(&config);
    let seen = web.seen();
    let (mut n_pairs, mut n_pages, mut n_near) = (0, 0, 0);
    for (host, requests) in &seen {
        let (gap, n) = nearest(requests);
        n_pairs += n;
        n_pages += requests.iter().filter(|it| it.path != "/robots.txt").count();
        n_near += usize::from(gap < DELAY);
        assert!(gap >= DELAY, "{host} was asked after {gap:?}");
        assert_eq!(web.open_max(host), 1, "{host}");
    }
    eprintln!(
        "{n_pages} pages of {} hosts: {n_near} of {n_pairs} pairs nearer than {DELAY:?}, one open at most; {} open in all",
        seen.len(),
        web.open_max("all")
    );
    assert_eq!((seen.len(), n_pages), (HOSTS, HOSTS * PAGES + HOSTS / 2 * PAGES));
    assert_eq!(summary.progress.fetched, n_pages as u64);
    assert!(web.open_max("all") > 1, "hosts are asked beside each other");
}

#[test]
fn waits_as_long_as_a_host_asks_for_up_to_half_a_minute() {
    const PAGES: usize = 5;
    const DELAYS: [(&str, bool); 10] = [
        ("0", true),
        ("0.5", true),
        ("2", true),
        ("7.25", true),
        ("29.9", true),
        ("30", true),
        ("30.5", false),
        ("31", false),
        ("300", false),
        ("1e9", false),
    ];
    let web = Web::new(|request| match request.path.as_str() {
        "/robots.txt" => {
            let i: usize =
                request.host["delay".len()..].split('.').next().unwrap().parse().unwrap();
            page(&format!("User-agent: *\nCrawl-delay: {}\n", DELAYS[i].0)).into()
        }
        _ => pages(request, PAGES),
    });
    let port = web.listen();
    let folder = tempfile::tempdir().unwrap();
    let seeds = (0..DELAYS.len()).map(|i| format!("http://delay{i}.example:{port}/"));
    let config = CrawlConfig {
        seeds: seeds.collect(),
        delay_seconds: 1.0,
        ..config("http://unused", folder.path())
    };
    let summary = web.crawl(&config);
    let seen = web.seen();
    for (i, (text, is_obeyed)) in DELAYS.into_iter().enumerate() {
        let requests = &seen[&format!("delay{i}.example")];
        let (gap, _) = nearest(requests);
        if is_obeyed {
            let delay = Duration::from_secs_f64(text.parse::<f64>().unwrap().max(1.0));
            assert_eq!(requests.len(), PAGES + 1, "{text}");
            assert!(gap >= delay, "{text}: asked after {gap:?}");
        } else {
            assert_eq!(requests.len(), 1, "{text}: only the rules");
        }
    }
    let n_skipped = DELAYS.iter().filter(|delay| !delay.1).count() as u64;
    eprintln!("judged {} delays, {n_skipped} hosts skipped", DELAYS.len());
    assert_eq!(summary.progress.errors["crawl_delay"], n_skipped);
}

#[test]
fn limits_the_open_requests_to_a_registered_domain() {
    const HOSTS: usize = 12;
    // The public suffix list: under `co.uk` and `github.io` everyone registers; hosts of one registrant are one domain.
    let names =
        |pattern: &'static str| (0..HOSTS).map(move |i| pattern.replace('#', &i.to_string()));
    let one_domain = ["#.shop.co.uk", "#.a.user.github.io", "www.#.example.com"];
    let web = Web::new(|request| {
        thread::sleep(Duration::from_millis(10));
        pages(request, 6)
    });
    let port = web.listen();
    let folder = tempfile::tempdir().unwrap();
    let all = one_domain.into_iter().chain(["shop#.co.uk", "user#.github.io"]).flat_map(names);
    let config = CrawlConfig {
        seeds: all.map(|name| format!("http://{name}:{port}/")).collect(),
        ..config("http://unused", folder.path())
    };
    web.crawl(&config);
    for domain in ["shop.co.uk", "user.github.io", "example.com"] {
        let n = web.open_max(domain);
        eprintln!("{domain}: {n} requests open at most");
        assert_eq!(n, config.per_domain, "{domain}");
    }
    for host in names("shop#.co.uk").chain(names("user#.github.io")) {
        assert_eq!(web.open_max(&host), 1, "{host}");
    }
    assert!(web.open_max("all") > 3 * config.per_domain, "{}", web.open_max("all"));
}

#[test]
fn waits_before_every_further_try_as_long_as_it_is_told() {
    let Some(path) = testing::data("conformance/hostile/http/responses.jsonl") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|case| case["name"].as_str().unwrap().starts_with("retry_after_"))
        .collect();
    let answers: Vec<Vec<u8>> =
        cases.iter().map(|case| super::hostile::bytes(case["raw_hex"].as_str().unwrap())).collect();
    let n_cases = answers.len();
    let web = Web::new(move |request| match request.path.as_str() {
        "/robots.txt" => empty("404 Not Found", "").into(),
        _ => {
            let i: usize = request.host["case".len()..].split('.').next().unwrap().parse().unwrap();
            Reply { bytes: answers[i].clone(), is_last: true }
        }
    });
    let port = web.listen();
    let folder = tempfile::tempdir().unwrap();
    let config = CrawlConfig {
        seeds: (0..n_cases).map(|i| format!("http://case{i}.example:{port}/")).collect(),
        delay_seconds: 1.0,
        ..config("http://unused", folder.path())
    };
    let summary = web.crawl(&config);
    let (seen, mut wrong, mut first_waits) = (web.seen(), Vec::new(), BTreeSet::new());
    let cap = config.max_retry_seconds;
    for (i, case) in cases.iter().enumerate() {
        let requests: Vec<&Request> =
            seen[&format!("case{i}.example")].iter().filter(|it| it.path == "/").collect();
        let waits: Vec<f64> =
            requests.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
        // What a busy machine adds to the clock.
        let within = |from: f64, to: f64| move |wait: &f64| (from..to + 5.0).contains(wait);
        let is_right = match case["expect"].as_str().unwrap() {
            "wait>=5s" => waits.iter().all(within(5.0, 5.0)),
            "no_wait_below_politeness" => waits.iter().all(within(1.0, 1.0)),
            "capped" | "capped_or_deferred" => waits.iter().all(within(cap, cap)),
            "default_backoff" => {
                first_waits.insert(format!("{:.2}", waits[0]));
                let doubled = [1.0, 2.0, 4.0, 8.0];
                doubled.iter().zip(&waits).all(|(&from, wait)| within(from, 1.5 * from)(wait))
            }
            other => panic!("{other}"),
        };
        if !is_right || requests.len() != 5 {
            wrong.push(format!("{}: {} tries after {waits:?}", case["why"], requests.len()));
        }
    }
    eprintln!("judged {n_cases} answers: {:?}", summary.progress.errors);
    assert!(n_cases >= 20 && wrong.is_empty(), "{wrong:#?}");
    // Hosts that failed together are not asked together.
    assert!(first_waits.len() > 1, "{first_waits:?}");
    let n_given_up = ["status_429", "status_503"].map(|it| summary.progress.errors[it]);
    assert_eq!(n_given_up.iter().sum::<u64>(), n_cases as u64);
}
