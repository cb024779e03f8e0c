//! Which addresses a crawl really dials. In a network of its own, in which this machine has every address there is, the kernel
//! counts the connections that are opened and a server sees which address each of them was for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::super::Scope;
use super::super::environment::{Environment, Names};
use super::super::{address, fetch, worker};
use super::{CancelFlag, CrawlConfig, CrawlSummary, empty, page};
use crate::source::testing;

/// Set in the process that has a network of its own.
const CHILD: &str = "GRISTMILL_SSRF_CHILD";
/// Where all names lead that the cases say nothing of.
const PUBLIC: &str = "93.184.215.14";

fn cases() -> Option<Vec<Value>> {
    let folder = testing::data("conformance/hostile/ssrf")?;
    let text = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// Answers as the cases of name servers have them, the last one for ever; of other names one public address.
fn names(cases: &[Value]) -> Names {
    let known: BTreeMap<String, Vec<Vec<IpAddr>>> = cases
        .iter()
        .filter(|case| case["kind"] == "dns")
        .map(|case| {
            let answers = case["answers"].as_array().unwrap().iter();
            let answers = answers
                .map(|answer| strings(answer).iter().map(|it| it.parse().unwrap()).collect());
            (case["name"].as_str().unwrap().to_owned(), answers.collect())
        })
        .collect();
    let n_asked = Mutex::new(BTreeMap::<String, usize>::new());
    Names::Fixed(Arc::new(move |name| match known.get(name) {
        Some(answers) => {
            let mut n_asked = n_asked.lock().unwrap();
            let n = n_asked.entry(name.to_owned()).or_default();
            *n += 1;
            answers[(*n - 1).min(answers.len() - 1)].clone()
        }
        None => vec![PUBLIC.parse().unwrap()],
    }))
}

/// The addresses that connections were opened to, and the requests that came over them.
#[derive(Clone, Default)]
struct Dialled {
    addresses: Arc<Mutex<Vec<IpAddr>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Dialled {
    /// Listens on `ports` of every address. Redirects as the chains of the cases have it.
    fn listen(&self, ports: &BTreeSet<u16>, redirects: &BTreeMap<String, String>) {
        for &port in ports {
            let listener = TcpListener::bind(("::", port)).unwrap();
            let (dialled, redirects) = (self.clone(), redirects.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    let address = stream.local_addr().unwrap().ip().to_canonical();
                    dialled.addresses.lock().unwrap().push(address);
                    let (dialled, redirects) = (dialled.clone(), redirects.clone());
                    thread::spawn(move || dialled.answer(stream, &redirects));
                }
            });
        }
    }

    fn answer(&self, mut stream: TcpStream, redirects: &BTreeMap<String, String>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            // What comes over TLS is no text.
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
        self.requests.lock().unwrap().push(head);
        let answer = match redirects.get(&format!("{host}{path}")) {
            Some(target) => empty("302 Found", &format!("Location: {target}\r\n")),
            None if path == "/robots.txt" => empty("404 Not Found", ""),
            None => page("here"),
        };
        let answer = answer.replace("\r\n\r\n", "\r\nConnection: close\r\nSet-Cookie: a=b\r\n\r\n");
        drop(stream.write_all(answer.as_bytes()));
    }

    fn take(&self) -> Vec<IpAddr> {
        std::mem::take(&mut *self.addresses.lock().unwrap())
    }
}

/// Connections that this network has opened so far, to whatever address and port.
fn n_opened() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let at = lines.next().unwrap().split(' ').position(|name| name == "ActiveOpens").unwrap();
    lines.next().unwrap().split(' ').nth(at).unwrap().parse().unwrap()
}

/// Runs `test` again in a network in which every address is this machine; `false` when there is no having one.
fn in_own_network(test: &str) -> bool {
    const ALL_LOCAL: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo";
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", script]);
        command
    };
    let is_there = unshared(ALL_LOCAL).output().is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: no network of its own (`unshare` and `ip` make one)");
        return false;
    }
    let status = unshared(&format!("{ALL_LOCAL} && exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        // Nobody asks a proxy.
        .envs(["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"].map(|it| (it, "http://10.1.1.1:3128")))
        .status();
    assert!(status.unwrap().success());
    true
}

#[test]
fn dials_no_address_that_is_not_public_and_every_one_that_is() {
    let Some(cases) = cases() else { return };
    if std::env::var_os(CHILD).is_none() {
        in_own_network(
            "crawl::tests::ssrf::dials_no_address_that_is_not_public_and_every_one_that_is",
        );
        return;
    }
    let urls: Vec<(&str, bool)> = cases
        .iter()
        .filter_map(|case| Some((case["url"].as_str()?, case["expect"] == "allow")))
        .collect();
    let parsed = urls.iter().filter_map(|(url, _)| Url::parse(url).ok());
    let mut ports: BTreeSet<u16> = parsed.filter_map(|url| url.port_or_known_default()).collect();
    ports.insert(3128);
    let dialled = Dialled::default();
    dialled.listen(&ports, &BTreeMap::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = CrawlConfig { idle_timeout_seconds: 2.0, ..CrawlConfig::default() };
    let (mut n_judged, mut n_private, mut n_dialled, mut wrong) = (0, 0, 0, Vec::new());
    let mut check = |what: String, url: Option<Url>, names: Names, expected: Option<IpAddr>| {
        let before = n_opened();
        let client = fetch::client(&config, names).unwrap();
        // One connection per request: a second request looks the name up again.
        for _ in 0..3 {
            if let Some(url) = url.clone() {
                drop(runtime.block_on(fetch::fetch(&client, url, None, &config)));
            }
        }
        let opened = n_opened() - before;
        thread::sleep(Duration::from_millis(2));
        let addresses = dialled.take();
        n_judged += 1;
        n_dialled += addresses.len();
        n_private += addresses.iter().filter(|it| !address::is_public(**it)).count();
        let is_right = match expected {
            Some(expected) => opened > 0 && addresses.contains(&expected),
            None => opened == 0 && addresses.is_empty(),
        };
        // The server saw every connection that the kernel opened.
        if !is_right || addresses.len() as u64 != opened {
            wrong.push(format!("{what}: {opened} connections, to {addresses:?}"));
        }
    };
    for (text, is_allowed) in urls {
        let url = Url::parse(text).ok();
        let expected = is_allowed.then(|| match url.as_ref().unwrap().host().unwrap() {
            url::Host::Ipv4(it) => it.into(),
            url::Host::Ipv6(it) => it.into(),
            url::Host::Domain(_) => PUBLIC.parse().unwrap(),
        });
        check(text.to_owned(), url, names(&cases), expected);
    }
    for case in cases.iter().filter(|case| case["kind"] == "dns") {
        let name = case["name"].as_str().unwrap();
        let url = Url::parse(&format!("http://{name}/")).ok();
        // Where a public address is among the answers, that one is dialled.
        let expected = (case["expect"] != "refuse").then(|| PUBLIC.parse().unwrap());
        check(name.to_owned(), url, names(&cases), expected);
    }
    for case in cases.iter().filter(|case| case["kind"] == "redirect") {
        n_judged += 1;
        let (summary, addresses, opened) = follow(&dialled, &cases, &strings(&case["chain"]));
        n_dialled += addresses.len();
        n_private += addresses.iter().filter(|it| !address::is_public(**it)).count();
        let only: IpAddr = PUBLIC.parse().unwrap();
        let is_right = !addresses.is_empty() && addresses.iter().all(|it| *it == only);
        if !is_right || addresses.len() as u64 != opened {
            wrong.push(format!("{}: {addresses:?}, {summary:?}", case["why"]));
        }
    }
    let requests = dialled.requests.lock().unwrap();
    let n_cookies = requests.iter().filter(|it| it.to_lowercase().contains("\ncookie:")).count();
    let n_proxied = requests.iter().filter(|it| it.contains("GET http")).count();
    eprintln!(
        "judged {n_judged} cases: {n_dialled} connections, {n_private} to addresses that are not public; {} requests, {n_cookies} cookies, {n_proxied} over a proxy",
        requests.len()
    );
    assert_eq!((n_private, n_cookies, n_proxied), (0, 0, 0));
    assert!(n_judged >= 126 && wrong.is_empty(), "{wrong:#?}");
}

/// Crawls from the beginning of `chain`, of which each URL redirects to the next; every host of it is in scope.
fn follow(dialled: &Dialled, cases: &[Value], chain: &[&str]) -> (CrawlSummary, Vec<IpAddr>, u64) {
    // The name of the first host is the same without TLS, for which this server has no certificate.
    let urls: Vec<Url> =
        chain.iter().map(|url| Url::parse(&url.replace("https://", "http://")).unwrap()).collect();
    let place = |url: &Url| format!("{}{}", url.host_str().unwrap(), url.path());
    let redirects = urls.windows(2).map(|pair| (place(&pair[0]), pair[1].to_string())).collect();
    // A port for each chain, so that each has answers of its own.
    let port = (8001..).find(|port| TcpListener::bind(("::", *port)).is_ok()).unwrap();
    dialled.listen(&BTreeSet::from([port]), &with_port(&redirects, port));
    let mut start = urls[0].clone();
    start.set_port(Some(port)).unwrap();
    let is_list = start.path() == "/sitemap.xml";
    let is_rules = start.path() == "/robots.txt";
    let seed = if is_rules { start.join("/").unwrap() } else { start.clone() };
    let folder = tempfile::tempdir().unwrap();
    let config = CrawlConfig {
        seeds: if is_list { Vec::new() } else { vec![seed.to_string()] },
        sitemaps: if is_list { vec![start.to_string()] } else { Vec::new() },
        scope: Scope::Hosts,
        hosts: urls.iter().filter_map(|url| url.host_str().map(str::to_owned)).collect(),
        ..quick(folder.path())
    };
    let before = n_opened();
    let environment = Environment { names: names(cases), ..Environment::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancelFlag::new();
    let done = worker::crawl(&config, &environment, |_| {}, &stop);
    let summary = runtime.block_on(done).unwrap();
    let opened = n_opened() - before;
    thread::sleep(Duration::from_millis(2));
    (summary, dialled.take(), opened)
}

/// The same redirects on `port`; private targets on ports where someone listens.
fn with_port(redirects: &BTreeMap<String, String>, port: u16) -> BTreeMap<String, String> {
    let mut moved = BTreeMap::new();
    for (from, to) in redirects {
        let (host, path) = from.split_once('/').unwrap();
        let mut target = Url::parse(to).unwrap();
        if target.host_str() == Some("pub.test") {
            target.set_port(Some(port)).unwrap();
        }
        moved.insert(format!("{host}:{port}/{path}"), target.to_string());
    }
    moved
}

fn quick(folder: &Path) -> CrawlConfig {
    CrawlConfig {
        output: folder.to_owned(),
        delay_seconds: 0.0,
        max_tries: 1,
        idle_timeout_seconds: 2.0,
        ..CrawlConfig::default()
    }
}

#[test]
fn hands_no_address_to_the_connector_that_is_not_public() {
    use reqwest::dns::Resolve as _;
    let Some(cases) = cases() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut n_judged, mut n_handed) = (0, 0);
    for case in cases.iter().filter(|case| case["kind"] == "dns") {
        let resolver = address::PublicResolver { allow_private: false, names: names(&cases) };
        let mut n_found = 0;
        for _ in 0..case["answers"].as_array().unwrap().len() + 1 {
            let name = case["name"].as_str().unwrap().parse().unwrap();
            if let Ok(found) = runtime.block_on(resolver.resolve(name)) {
                for address in found {
                    assert!(address::is_public(address.ip()), "{}: {address}", case["name"]);
                    n_found += 1;
                }
            }
        }
        assert_eq!(n_found > 0, case["expect"] != "refuse", "{}", case["name"]);
        n_judged += 1;
        n_handed += n_found;
    }
    eprintln!("judged {n_judged} names, {n_handed} addresses handed on");
    assert_eq!(n_judged, 6);
}
