//! The crawl itself: one task that gives out requests host by host and files their answers in order of arrival.

use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use reqwest::Client;
use tokio::time::Instant;
use url::Url;

use super::archive::{self, Archive};
use super::fetch::{self, Answer};
use super::frontier::{Frontier, Item};
use super::links::links;
use super::robots::Robots;
use super::scope::{Boundary, canonical};
use super::{CancelFlag, CrawlConfig, CrawlSummary, Progress};
use crate::Result;

/// How often a wait is broken to see whether someone asked to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// How long rules are believed (RFC 9309, 2.4).
const ROBOTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is known of a host.
#[derive(Default)]
struct Host {
    open: usize,
    ready_at: Option<Instant>,
    robots: Option<(Robots, Instant)>,
}

enum Event {
    Robots(usize, Robots),
    Page(usize, Item, Result<Box<Answer>, &'static str>),
}

struct Crawl<'a> {
    config: &'a CrawlConfig,
    boundary: Boundary,
    frontier: Frontier,
    archive: Archive,
    client: Client,
    hosts: Vec<Host>,
    open: FuturesUnordered<BoxFuture<'a, Event>>,
}

pub(super) async fn crawl(
    config: &CrawlConfig,
    mut progress: impl FnMut(&Progress),
    stop: &CancelFlag,
) -> Result<CrawlSummary> {
    let boundary = Boundary::new(config)?;
    let mut frontier = Frontier::open(&config.output, archive::unfinished(&config.output)?)?;
    for url in boundary.seeds() {
        frontier.add(Item { url: url.clone(), depth: 0, redirects: 0, tries: 0 })?;
    }
    let archive = Archive::open(&config.output, frontier.archived, config)?;
    let mut crawl = Crawl {
        client: fetch::client(config)?,
        hosts: Vec::new(),
        open: FuturesUnordered::new(),
        config,
        boundary,
        frontier,
        archive,
    };
    loop {
        let wake_at = crawl.hand_out(stop)?;
        if crawl.open.is_empty() && (wake_at.is_none() || stop.is_cancelled()) {
            break;
        }
        let until = Instant::now() + STOP_INTERVAL;
        let until = wake_at.map_or(until, |wake_at| wake_at.min(until));
        tokio::select! {
            Some(event) = crawl.open.next(), if !crawl.open.is_empty() => {
                crawl.file(event)?;
                progress(&crawl.frontier.progress);
            }
            () = tokio::time::sleep_until(until) => {}
        }
    }
    crawl.archive.finish()?;
    crawl.frontier.sync()?;
    Ok(CrawlSummary {
        is_complete: crawl.frontier.progress.queued == 0,
        progress: crawl.frontier.progress,
        segments: archive::finished(&config.output)?,
    })
}

impl Crawl<'_> {
    /// Opens requests to every host that is ready. Returns when the next host will be, `None` when none is waiting.
    fn hand_out(&mut self, stop: &CancelFlag) -> Result<Option<Instant>> {
        let now = Instant::now();
        let mut wake_at: Option<Instant> = None;
        let waiting: Vec<(usize, String)> = self
            .frontier
            .hosts()
            .filter(|(_, _, queued)| *queued > 0)
            .map(|(host, name, _)| (host, name.to_owned()))
            .collect();
        for (host, name) in waiting {
            if self.hosts.len() <= host {
                self.hosts.resize_with(host + 1, Host::default);
            }
            while self.open.len() < self.config.concurrency
                && self.has_room()
                && !stop.is_cancelled()
                && self.hosts[host].open < self.config.per_host
            {
                if let Some(ready_at) = self.hosts[host].ready_at.filter(|at| *at > now) {
                    wake_at = Some(wake_at.map_or(ready_at, |wake_at| wake_at.min(ready_at)));
                    break;
                }
                if !self.open_one(host, &name, now)? {
                    break;
                }
            }
        }
        Ok(wake_at)
    }

    /// Whether another page fits in the limit.
    fn has_room(&self) -> bool {
        self.frontier.progress.fetched + (self.open.len() as u64) < self.config.max_pages
    }

    /// Opens a request to `host`; `false` when there is nothing to ask it now.
    fn open_one(&mut self, host: usize, name: &str, now: Instant) -> Result<bool> {
        let is_fresh = |at: &Instant| now.duration_since(*at) < ROBOTS_AGE_MAX;
        let known = self.hosts[host].robots.as_ref().filter(|(_, at)| is_fresh(at));
        let Some((robots, _)) = known else {
            // Nothing is asked of a host before its rules are known.
            if self.hosts[host].open > 0 {
                return Ok(false);
            }
            if !self.config.obey_robots {
                self.hosts[host].robots = Some((Robots::default(), now));
                return Ok(true);
            }
            let Ok(url) = Url::parse(name) else { return Ok(false) };
            let (client, config) = (self.client.clone(), self.config);
            self.hosts[host].open += 1;
            let robots = async move { fetch::robots(&client, &url, config).await };
            self.open.push(Box::pin(async move { Event::Robots(host, robots.await) }));
            return Ok(true);
        };
        let is_slow = robots.crawl_delay().is_some_and(|s| s > self.config.max_crawl_delay_seconds);
        let Some(item) = self.frontier.take(host) else { return Ok(false) };
        if is_slow {
            self.frontier.failed(&item.url, "crawl_delay", None)?;
        } else if !robots.allows(item.url.as_str()) {
            self.frontier.failed(&item.url, "robots", None)?;
        } else {
            let (client, config) = (self.client.clone(), self.config);
            self.hosts[host].open += 1;
            self.open.push(Box::pin(async move {
                let answer = fetch::fetch(&client, item.url.clone(), config).await;
                Event::Page(host, item, answer.map(Box::new))
            }));
        }
        Ok(true)
    }

    fn file(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Robots(host, robots) => {
                self.rest(host, 0.0);
                self.hosts[host].robots = Some((robots, Instant::now()));
                Ok(())
            }
            Event::Page(host, item, Ok(answer)) => self.file_answer(host, item, &answer),
            Event::Page(host, item, Err(reason)) => {
                let is_passing = matches!(reason, "timeout" | "connect" | "protocol");
                if is_passing && item.tries + 1 < self.config.max_tries {
                    self.rest(host, self.backoff(item.tries));
                    self.frontier.retry(Item { tries: item.tries + 1, ..item });
                    return Ok(());
                }
                self.rest(host, 0.0);
                self.frontier.failed(&item.url, reason, None)
            }
        }
    }

    fn file_answer(&mut self, host: usize, item: Item, answer: &Answer) -> Result<()> {
        if matches!(answer.status, 429 | 503) && item.tries + 1 < self.config.max_tries {
            let asked = fetch::retry_after(answer).unwrap_or(0.0);
            self.rest(host, asked.max(self.backoff(item.tries)));
            self.frontier.retry(Item { tries: item.tries + 1, ..item });
            return Ok(());
        }
        self.rest(host, 0.0);
        // What a page leads to is journaled before the page itself: a kill between the two finds nothing twice and loses nothing.
        if (300..400).contains(&answer.status) {
            if let Some(url) = fetch::location(answer).map(canonical)
                && item.redirects < self.config.max_redirects
                && self.boundary.holds(&url)
            {
                let redirects = item.redirects + 1;
                self.frontier.add(Item { url, depth: item.depth, redirects, tries: 0 })?;
            }
        } else if answer.status == 200 && item.depth < self.config.max_depth && is_html(answer) {
            for url in links(&String::from_utf8_lossy(&answer.body), &answer.url) {
                let url = canonical(url);
                if self.boundary.holds(&url) {
                    self.frontier.add(Item {
                        url,
                        depth: item.depth + 1,
                        redirects: 0,
                        tries: 0,
                    })?;
                }
            }
        }
        let archived = self.archive.write(answer)?;
        if answer.status == 200 {
            self.frontier.done(&item.url, archived, answer.body.len() as u64)
        } else {
            let reason = if (300..400).contains(&answer.status) {
                "redirect".to_owned()
            } else {
                format!("status_{}", answer.status)
            };
            self.frontier.failed(&item.url, &reason, Some(archived))
        }
    }

    /// Closes a request to `host` and lets it rest: for the delay of the crawl or the host, and for `seconds` at least.
    fn rest(&mut self, host: usize, seconds: f64) {
        let host = &mut self.hosts[host];
        host.open -= 1;
        let asked = host.robots.as_ref().and_then(|(robots, _)| robots.crawl_delay());
        let delay = self.config.delay_seconds.max(asked.unwrap_or(0.0));
        let delay = delay.max(seconds.min(self.config.max_retry_seconds));
        host.ready_at = Some(Instant::now() + Duration::from_secs_f64(delay));
    }

    /// Seconds before try number `tries + 2`: doubling from one.
    fn backoff(&self, tries: u32) -> f64 {
        f64::from(1_u32 << tries.min(20)).min(self.config.max_retry_seconds)
    }
}

fn is_html(answer: &Answer) -> bool {
    let content_type = answer.headers.get(reqwest::header::CONTENT_TYPE);
    content_type.is_none_or(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.starts_with("text/html") || value.starts_with("application/xhtml")
    })
}
