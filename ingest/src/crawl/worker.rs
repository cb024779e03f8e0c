//! The crawl itself: one task that gives out requests host by host and files their answers in order of arrival.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED};
use tokio::time::Instant;
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use super::archive::{self, Archive, Profile, Revisit};
use super::environment::{Clock, Environment};
use super::fetch::{self, Answer, Rules};
use super::frontier::{Found, Frontier, Item, Outcome, Page, small};
use super::links::links;
use super::robots::Robots;
use super::scope::{Boundary, canonical};
use super::{CancelFlag, CrawlConfig, CrawlSummary, Progress, log, sitemap};
use crate::Result;
use crate::source::inflate::Limits;

/// How often a wait is broken to see whether someone asked to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// How often what was fetched is made durable.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long rules are believed (RFC 9309, 2.4).
const ROBOTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pages of a host with the same bytes whose links are followed, at most: one page may lead elsewhere from each folder that it lies in,
/// and a site that answers every URL with one page leads nowhere.
const COPIES_MAX: u64 = 10;
/// Rows of a file of the log.
const LOG_ROWS_MAX: u64 = 100_000;
/// Hosts whose rules are kept in memory, at most.
const ROBOTS_MAX: usize = 10_000;

/// What is known of a host: a scheme, a name and a port.
struct Host {
    site: usize,
    domain: usize,
    open: usize,
    /// Its place in the line of hosts that wait.
    waits_until: Option<Instant>,
    robots: Option<KnownRobots>,
    /// How often its rules were asked for in vain.
    robots_tries: u32,
}

/// The rules of a host.
struct KnownRobots {
    rules: Robots,
    read_at: Instant,
    /// Whether there was no reading them, so that they forbid everything.
    is_unreachable: bool,
}

/// The hosts of one name, most often one machine: politeness is owed to them together.
struct Site {
    hosts: Vec<u32>,
    open: usize,
    ready_at: Instant,
}

/// The hosts of one registered domain.
#[derive(Default)]
struct Domain {
    open: usize,
    /// Hosts that wait until a request to another one ends.
    waiting: BTreeSet<u32>,
}

enum Event {
    Robots(u32, Rules),
    /// The milliseconds that it took are the last part.
    Page(u32, Item, Option<Page>, Result<Box<Answer>, &'static str>, u64),
}

struct Crawl<'a> {
    config: &'a CrawlConfig,
    boundary: Boundary,
    frontier: Frontier,
    archive: Archive,
    client: Client,
    clock: Clock,
    hosts: Vec<Host>,
    sites: Vec<Site>,
    site_index: HashMap<String, usize>,
    domains: Vec<Domain>,
    domain_index: HashMap<String, usize>,
    /// Hosts that have URLs and room for a request, by the time when they are ready.
    line: BTreeSet<(Instant, u32)>,
    /// Hosts whose rules are known, in the order in which they were read.
    known: VecDeque<u32>,
    open: FuturesUnordered<BoxFuture<'a, Event>>,
}

pub(super) async fn crawl(
    config: &CrawlConfig,
    environment: &Environment,
    mut progress: impl FnMut(&Progress),
    stop: &CancelFlag,
) -> Result<CrawlSummary> {
    let mut crawl = Crawl::open(config, environment)?;
    let mut commit_at = Instant::now() + COMMIT_INTERVAL;
    loop {
        let wake_at = crawl.hand_out(stop)?;
        let is_idle = crawl.open.is_empty();
        if is_idle && (wake_at.is_none() || stop.is_cancelled()) {
            break;
        }
        tokio::select! {
            Some(event) = crawl.open.next(), if !is_idle => {
                crawl.file(event)?;
                progress(&crawl.frontier.progress);
            }
            () = crawl.clock.wait(wake_at, STOP_INTERVAL, is_idle) => {}
        }
        if Instant::now() >= commit_at || crawl.archive.is_full() {
            crawl.commit()?;
            commit_at = Instant::now() + COMMIT_INTERVAL;
        }
    }
    crawl.commit()?;
    crawl.archive.finish()?;
    crawl.frontier.write_log(0)?;
    Ok(CrawlSummary {
        is_complete: crawl.frontier.progress.queued == 0,
        progress: crawl.frontier.progress,
        segments: archive::finished(&config.output)?,
        logs: log::log_files(&config.output)?,
    })
}

impl<'a> Crawl<'a> {
    /// Goes on where earlier runs stopped, or begins.
    fn open(config: &'a CrawlConfig, environment: &Environment) -> Result<Self> {
        let boundary = Boundary::new(config)?;
        let folder = &config.output;
        let mut frontier = Frontier::open(folder, |known| archive::intact(folder, known))?;
        let archive = Archive::open(folder, frontier.archived, config)?;
        let before = frontier.n_hosts();
        if config.recrawl && frontier.progress.queued == 0 && frontier.progress.fetched > 0 {
            frontier.revisit()?;
        }
        let start =
            |url: &Url, is_sitemap| Found { url: url.clone(), depth: 0, redirects: 0, is_sitemap };
        let seeds = boundary.seeds().iter().map(|url| start(url, false));
        let sitemaps = boundary.sitemaps().iter().map(|url| start(url, true));
        frontier.add(seeds.chain(sitemaps).collect())?;
        let mut crawl = Self {
            client: fetch::client(config, environment.names.clone())?,
            clock: environment.clock.clone(),
            hosts: Vec::new(),
            sites: Vec::new(),
            site_index: HashMap::new(),
            domains: Vec::new(),
            domain_index: HashMap::new(),
            line: BTreeSet::new(),
            known: VecDeque::new(),
            open: FuturesUnordered::new(),
            config,
            boundary,
            frontier,
            archive,
        };
        crawl.meet_hosts();
        // An earlier process may have asked these a moment ago.
        let now = crawl.clock.now();
        for host in 0..before {
            let number = small(host);
            let rest_ms = crawl.frontier.rest_ms(number, milliseconds(config.max_retry_seconds));
            let rest_ms = rest_ms.max(milliseconds(config.delay_seconds));
            let ready_at = &mut crawl.sites[crawl.hosts[host].site].ready_at;
            *ready_at = (now + Duration::from_millis(rest_ms)).max(*ready_at);
        }
        for host in 0..crawl.hosts.len() {
            crawl.stand_in_line(small(host));
        }
        Ok(crawl)
    }

    /// Makes what was fetched durable: first the archive, then the state that tells of it.
    fn commit(&mut self) -> Result<()> {
        if self.frontier.has_changes() {
            self.archive.sync()?;
            self.frontier.commit()?;
            self.frontier.write_log(LOG_ROWS_MAX)?;
        }
        if self.archive.is_full() {
            self.archive.finish()?;
        }
        Ok(())
    }

    /// Describes hosts that the frontier has and the crawl does not know yet.
    fn meet_hosts(&mut self) {
        for number in self.hosts.len()..self.frontier.n_hosts() {
            let origin = self.frontier.origin(small(number));
            let name = Url::parse(origin).ok().and_then(|url| url.host_str().map(str::to_owned));
            let name = name.unwrap_or_else(|| origin.to_owned());
            let domain = registered_domain(&name).to_owned();
            let domain = *self.domain_index.entry(domain).or_insert_with(|| {
                self.domains.push(Domain::default());
                self.domains.len() - 1
            });
            let site = *self.site_index.entry(name).or_insert_with(|| {
                let ready_at = self.clock.now();
                self.sites.push(Site { hosts: Vec::new(), open: 0, ready_at });
                self.sites.len() - 1
            });
            self.sites[site].hosts.push(small(number));
            self.hosts.push(Host {
                site,
                domain,
                open: 0,
                waits_until: None,
                robots: None,
                robots_tries: 0,
            });
        }
    }

    /// Puts a host in line if it has something to ask and room for it.
    fn stand_in_line(&mut self, number: u32) {
        let queued = self.frontier.queued(number);
        let host = &mut self.hosts[number as usize];
        let site = &self.sites[host.site];
        if queued > 0 && site.open < self.config.per_host && host.waits_until.is_none() {
            host.waits_until = Some(site.ready_at);
            self.line.insert((site.ready_at, number));
        }
    }

    /// Opens requests to every host that is ready. Returns when the next host will be, `None` when none is waiting.
    fn hand_out(&mut self, stop: &CancelFlag) -> Result<Option<Instant>> {
        let now = self.clock.now();
        while self.open.len() < self.config.concurrency && self.has_room() && !stop.is_cancelled() {
            let Some(&(ready_at, number)) = self.line.first() else { return Ok(None) };
            if ready_at > now {
                return Ok(Some(ready_at));
            }
            self.line.remove(&(ready_at, number));
            let host = &mut self.hosts[number as usize];
            host.waits_until = None;
            let site = &self.sites[host.site];
            if site.ready_at > now || site.open >= self.config.per_host {
                // Another request to it has begun or ended since it stood in line.
                self.stand_in_line(number);
                continue;
            }
            let domain = &mut self.domains[host.domain];
            if domain.open >= self.config.per_domain.max(self.config.per_host) {
                domain.waiting.insert(number);
            } else if self.open_one(number, now)? {
                self.stand_in_line(number);
            }
        }
        Ok(None)
    }

    /// Whether another page fits in the limit.
    fn has_room(&self) -> bool {
        self.frontier.progress.fetched + (self.open.len() as u64) < self.config.max_pages
    }

    /// Opens a request to `host`; `false` when there is nothing to ask it now.
    fn open_one(&mut self, number: u32, now: Instant) -> Result<bool> {
        let config = self.config;
        let host = &self.hosts[number as usize];
        let is_fresh = |it: &&KnownRobots| now.duration_since(it.read_at) < ROBOTS_AGE_MAX;
        let Some(known) = host.robots.as_ref().filter(is_fresh) else {
            // Nothing is asked of a host before its rules are known.
            if host.open > 0 {
                return Ok(false);
            }
            if !config.obey_robots {
                let rules = Robots::default();
                let known = KnownRobots { rules, read_at: now, is_unreachable: false };
                self.hosts[number as usize].robots = Some(known);
                return Ok(true);
            }
            let Ok(url) = Url::parse(self.frontier.origin(number)) else { return Ok(false) };
            let (client, clock) = (self.client.clone(), self.clock.clone());
            self.request(number, async move {
                Event::Robots(number, fetch::robots(&client, &url, config, &clock).await)
            });
            return Ok(false);
        };
        let is_slow = known.rules.crawl_delay().is_some_and(|s| s > config.max_crawl_delay_seconds);
        let is_unreachable = known.is_unreachable;
        let Some(item) = self.frontier.take(number)? else { return Ok(false) };
        let is_spent = config
            .max_pages_per_host
            .is_some_and(|max| self.frontier.pages(number) + host.open as u64 >= max);
        let refusal = if is_slow {
            Some("crawl_delay")
        } else if is_unreachable {
            Some("robots_unreachable")
        } else if !known.rules.allows(item.url.as_str()) {
            Some("robots")
        } else {
            is_spent.then_some("host_budget")
        };
        if let Some(reason) = refusal {
            let outcome = Outcome { reason: Some(reason.to_owned()), ..Outcome::default() };
            self.frontier.done(&item, outcome, Vec::new())?;
            return Ok(true);
        }
        let page = if config.recrawl { self.frontier.page(&item.url)? } else { None };
        let client = self.client.clone();
        self.request(number, async move {
            let started = Instant::now();
            let answer = fetch::fetch(&client, item.url.clone(), page.as_ref(), config).await;
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Event::Page(number, item, page, answer.map(Box::new), ms)
        });
        Ok(true)
    }

    fn request(&mut self, number: u32, answer: impl Future<Output = Event> + Send + 'a) {
        let host = &mut self.hosts[number as usize];
        host.open += 1;
        self.sites[host.site].open += 1;
        self.domains[host.domain].open += 1;
        self.open.push(Box::pin(answer));
    }

    fn file(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Robots(number, rules) => self.file_robots(number, rules),
            Event::Page(number, item, page, Ok(answer), ms) => {
                self.file_answer(number, item, page, &answer, ms)
            }
            Event::Page(number, item, _, Err(reason), ms) => {
                let is_passing = matches!(reason, "timeout" | "connect" | "protocol");
                if is_passing && item.tries + 1 < self.config.max_tries {
                    let seconds = self.backoff(&item.url, item.tries);
                    self.frontier.retry(item);
                    return self.rest(number, seconds);
                }
                let outcome = Outcome {
                    reason: Some(reason.to_owned()),
                    request_ms: Some(ms),
                    ..Outcome::default()
                };
                self.frontier.done(&item, outcome, Vec::new())?;
                self.rest(number, 0.0)
            }
        }
    }

    fn file_robots(&mut self, number: u32, rules: Rules) -> Result<()> {
        let tries = &mut self.hosts[number as usize].robots_tries;
        let (rules, is_unreachable) = match rules {
            Rules::Known(rules) => (rules, false),
            Rules::Unreachable(asked) if *tries + 1 < self.config.max_tries => {
                *tries += 1;
                let tries = *tries - 1;
                let seconds = asked.unwrap_or_else(|| {
                    let url = Url::parse(self.frontier.origin(number));
                    url.map_or(0.0, |url| self.backoff(&url, tries))
                });
                return self.rest(number, seconds);
            }
            Rules::Unreachable(_) => (Robots::none(), true),
        };
        *tries = 0;
        let mut found = Vec::new();
        if self.config.follow_sitemaps {
            let urls = rules.sitemaps().iter().filter_map(|url| Url::parse(url).ok());
            for url in urls.map(canonical).filter(|url| self.boundary.holds_sitemap(url)) {
                found.push(Found { url, depth: 0, redirects: 0, is_sitemap: true });
            }
        }
        let known = KnownRobots { rules, read_at: self.clock.now(), is_unreachable };
        self.hosts[number as usize].robots = Some(known);
        self.known.push_back(number);
        if self.known.len() > ROBOTS_MAX
            && let Some(oldest) = self.known.pop_front()
        {
            self.hosts[oldest as usize].robots = None;
        }
        let hosts = self.frontier.add(found)?;
        self.queue(hosts);
        self.rest(number, 0.0)
    }

    fn file_answer(
        &mut self,
        number: u32,
        item: Item,
        known: Option<Page>,
        answer: &Answer,
        ms: u64,
    ) -> Result<()> {
        if matches!(answer.status, 429 | 503) && item.tries + 1 < self.config.max_tries {
            let asked = fetch::retry_after(&answer.headers, SystemTime::now());
            let seconds = asked.unwrap_or_else(|| self.backoff(&item.url, item.tries));
            self.frontier.retry(item);
            return self.rest(number, seconds);
        }
        // A connection that broke is tried again once: some servers state a length that no page of theirs has.
        let is_broken = answer.truncated == Some("disconnect");
        if is_broken && item.tries == 0 && self.config.max_tries > 1 {
            let seconds = self.backoff(&item.url, item.tries);
            self.frontier.retry(item);
            return self.rest(number, seconds);
        }
        let mut inflated = Vec::new();
        let body = match fetch::decode(answer, self.limits(), &mut inflated) {
            Ok(true) => Ok(&inflated),
            Ok(false) => Ok(&answer.body),
            Err(error) => Err(error.reason()),
        };
        let (mut outcome, n_copies) = self.archive(&item, known, answer, body.err())?;
        (outcome.status, outcome.request_ms) = (Some(answer.status), Some(ms));
        let found = match body {
            Ok(body) if n_copies <= COPIES_MAX => self.links_of(&item, answer, body),
            _ => Vec::new(),
        };
        let hosts = self.frontier.done(&item, outcome, found)?;
        self.queue(hosts);
        self.rest(number, 0.0)
    }

    fn limits(&self) -> Limits {
        let bound = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            bytes: bound(self.config.max_inflated_bytes),
            ratio: bound(self.config.max_inflated_ratio),
        }
    }

    /// What an answer, whose body is `body` without its encoding, leads to, in scope.
    fn links_of(&self, item: &Item, answer: &Answer, body: &[u8]) -> Vec<Found> {
        let is_held = |url: &Url| self.boundary.holds(url);
        let depth = item.depth + 1;
        let page = |url| Found { url, depth, redirects: 0, is_sitemap: false };
        if (300..400).contains(&answer.status) {
            let target = fetch::location(answer).map(canonical);
            let is_allowed = |url: &Url| {
                item.redirects < self.config.max_redirects
                    && if item.is_sitemap { self.boundary.holds_sitemap(url) } else { is_held(url) }
            };
            let Item { depth, redirects, is_sitemap, .. } = *item;
            let found = |url| Found { url, depth, redirects: redirects + 1, is_sitemap };
            return target.into_iter().filter(is_allowed).map(found).collect();
        }
        if answer.status != 200 || item.depth >= self.config.max_depth {
            return Vec::new();
        }
        if item.is_sitemap {
            let list = sitemap::read(body, &answer.url, self.limits());
            let further = list.sitemaps.into_iter().map(canonical);
            let further = further.filter(|url| self.boundary.holds_sitemap(url));
            let further = further.map(|url| Found { is_sitemap: true, ..page(url) });
            let pages = list.pages.into_iter().map(canonical).filter(is_held).map(page);
            return further.chain(pages).collect();
        }
        if !is_html(answer) {
            return Vec::new();
        }
        let found = links(&String::from_utf8_lossy(body), &answer.url);
        found.into_iter().map(canonical).filter(is_held).map(page).collect()
    }

    /// Writes an answer to the archive: whole, or as a revisit of what is there already; says how often its
    /// payload came before. `refusal`: why its encoding cannot be undone.
    fn archive(
        &mut self,
        item: &Item,
        known: Option<Page>,
        answer: &Answer,
        refusal: Option<&'static str>,
    ) -> Result<(Outcome, u64)> {
        let is_unchanged = answer.status == 304;
        let is_whole = answer.truncated.is_none() && !answer.body.is_empty();
        let mut digest = archive::digest(&answer.body);
        let mut n_copies = 0;
        let revisit = match (is_unchanged, known) {
            (true, Some(known)) => {
                digest = known.digest;
                let (url, date) = (known.url, known.date);
                Some(Revisit { profile: Profile::ServerNotModified, url, date })
            }
            _ if answer.status == 200 && is_whole => {
                self.frontier.payload(item, &digest)?.map(|found| {
                    n_copies = found.n;
                    let profile = Profile::IdenticalPayloadDigest;
                    Revisit { profile, url: found.url, date: found.date }
                })
            }
            _ => None,
        };
        let (archived, date) = self.archive.write(answer, &digest, revisit.as_ref())?;
        let mut outcome = Outcome { archived: Some(archived), ..Outcome::default() };
        outcome.reason = match answer.status {
            200 if refusal.is_some() => refusal.map(str::to_owned),
            200 if item.is_sitemap => Some("sitemap".to_owned()),
            200 => None,
            304 => Some("not_modified".to_owned()),
            300..400 => Some(self.redirect_reason(item, answer).to_owned()),
            status => Some(format!("status_{status}")),
        };
        if answer.status == 200 && !item.is_sitemap && refusal.is_none() {
            outcome.bytes = answer.body.len() as u64;
            let field =
                |name: HeaderName| answer.headers.get(name)?.to_str().ok().map(str::to_owned);
            outcome.page = Some(Page {
                url: answer.url.as_str().to_owned(),
                depth: item.depth,
                etag: field(ETAG),
                last_modified: field(LAST_MODIFIED),
                digest,
                date,
            });
        }
        Ok((outcome, n_copies))
    }

    /// Why a redirect is no page; it may also not be followed.
    fn redirect_reason(&self, item: &Item, answer: &Answer) -> &'static str {
        let target = fetch::location(answer).map(canonical);
        if target.is_some_and(|target| target == item.url) {
            "redirect_loop"
        } else if item.redirects >= self.config.max_redirects {
            "redirect_limit"
        } else {
            "redirect"
        }
    }

    /// Puts the hosts that have new URLs in line.
    fn queue(&mut self, hosts: BTreeSet<u32>) {
        self.meet_hosts();
        for host in hosts {
            self.stand_in_line(host);
        }
    }

    /// Closes a request to a host and lets it rest: for the delay of the crawl or the host, and for `seconds` at least.
    fn rest(&mut self, number: u32, seconds: f64) -> Result<()> {
        let host = &mut self.hosts[number as usize];
        host.open -= 1;
        let asked = host.robots.as_ref().and_then(|known| known.rules.crawl_delay());
        // A host that asks for more is not asked again.
        let asked = asked.filter(|asked| *asked <= self.config.max_crawl_delay_seconds);
        let delay = self.config.delay_seconds.max(asked.unwrap_or(0.0));
        let rest = delay.max(seconds.min(self.config.max_retry_seconds));
        let site = &mut self.sites[host.site];
        site.open -= 1;
        site.ready_at = self.clock.now() + Duration::from_secs_f64(rest);
        let others = site.hosts.clone();
        let domain = &mut self.domains[host.domain];
        domain.open -= 1;
        let waiting = std::mem::take(&mut domain.waiting);
        self.frontier.rest(number, milliseconds(rest), milliseconds(delay))?;
        for host in waiting.into_iter().chain(others) {
            self.stand_in_line(host);
        }
        Ok(())
    }

    /// Seconds before the next try: doubling from one, and up to half as long again, so that hosts that failed
    /// together are not asked together.
    fn backoff(&self, url: &Url, tries: u32) -> f64 {
        let jitter = xxh3_64(url.as_str().as_bytes()) % 1024;
        let seconds = f64::from(1_u32 << tries.min(20)) * (1.0 + jitter as f64 / 2048.0);
        seconds.min(self.config.max_retry_seconds)
    }
}

/// Returns the part of a host's name that someone registered; of an address, or a name of one label, all of it.
pub(super) fn registered_domain(host: &str) -> &str {
    let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
    psl::domain_str(host).filter(|_| is_name).unwrap_or(host)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "settings are between 0 and 86,400 seconds"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).ceil() as u64
}

fn is_html(answer: &Answer) -> bool {
    let content_type = answer.headers.get(CONTENT_TYPE);
    content_type.is_none_or(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.starts_with("text/html") || value.starts_with("application/xhtml")
    })
}
