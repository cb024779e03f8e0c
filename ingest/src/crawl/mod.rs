//! Fetches the web into WARC files.
//!
//! [`run`] follows links from the seeds as far as the scope, the limits and each host's robots.txt allow, politely: one open
//! request per host with a delay between them, and a few per registered domain. It writes finished segments
//! `crawl-00000.warc.gz`, which the `warc` source reads, an index of each (`crawl-00000.cdxj`), a log of what came of every URL
//! (`crawl_log-00000.parquet`, see [`log_schema`]), and its state, from which the next run goes on where this one stopped,
//! however it stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod address;
mod archive;
mod commoncrawl;
mod environment;
mod fetch;
mod frontier;
mod index;
mod links;
mod log;
pub mod robots;
mod scope;
mod sitemap;
mod worker;

use environment::Environment;

pub use commoncrawl::{CommonCrawlConfig, CommonCrawlProgress, fetch_records};
pub use log::{log_files, log_schema};

/// What to crawl, how far and how gently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrawlConfig {
    /// Where to start: absolute `http` or `https` URLs.
    pub seeds: Vec<String>,
    /// Sitemaps and feeds (RSS, Atom, JSON) whose pages are fetched as far as they are in scope.
    pub sitemaps: Vec<String>,
    /// Whether the sitemaps that a robots.txt names are read, too.
    pub follow_sitemaps: bool,
    /// Whether a crawl that is complete is made again: every page is asked for if it changed, and what did not is a
    /// `revisit` record.
    pub recrawl: bool,
    /// Folder of the segments and the state.
    pub output: PathBuf,
    /// Which links are followed.
    pub scope: Scope,
    /// With [`Scope::Hosts`]: the hosts, each with its subdomains.
    pub hosts: Vec<String>,
    /// Pages fetched, at most.
    pub max_pages: u64,
    /// Pages fetched from one host, at most.
    pub max_pages_per_host: Option<u64>,
    /// Links between a seed and a page, at most. Heritrix: 20.
    pub max_depth: u32,
    /// Open requests to one host, at most. With 1 and one host the order is always the same.
    pub per_host: usize,
    /// Open requests to the hosts of one registered domain (public suffix list), at most.
    pub per_domain: usize,
    /// Open requests in all, at most.
    pub concurrency: usize,
    /// Seconds between the end of a request and the next one to the same host. Heritrix: 3, Nutch: 5, StormCrawler: 1.
    pub delay_seconds: f64,
    /// A host whose robots.txt asks for a longer `Crawl-delay` than this, in seconds, is not crawled. Nutch: 30.
    pub max_crawl_delay_seconds: f64,
    /// Name in the `User-Agent` header and before the rules of robots.txt.
    pub user_agent: String,
    /// Bytes of a body, at most; a longer one is kept up to there and marked `WARC-Truncated: length`. Common Crawl: 1 MiB.
    pub max_body_bytes: u64,
    /// Bytes of a page or a list once its content encoding is undone, at most. One that has more is archived as it came, and
    /// its links are not followed.
    pub max_inflated_bytes: u64,
    /// Times its size as it came that a page or a list may have then, beyond the first MiB; text gets 3 to 30 times larger.
    pub max_inflated_ratio: u64,
    /// Seconds to connect and until the next bytes arrive, at most. Heritrix: 20.
    pub idle_timeout_seconds: f64,
    /// Seconds for a whole answer, at most.
    pub total_timeout_seconds: f64,
    /// Redirects followed from one link, at most.
    pub max_redirects: u32,
    /// Tries of a page, or of a robots.txt, whose host does not answer or says 429 or 503.
    pub max_tries: u32,
    /// Seconds waited before a further try, at most, whatever `Retry-After` says.
    pub max_retry_seconds: f64,
    /// Bytes of a compressed segment after which the next one is begun.
    pub segment_bytes: u64,
    /// Whether robots.txt is obeyed. Only for sites of your own.
    pub obey_robots: bool,
    /// Whether addresses that are not public (loopback, private networks) and ports below 1024 other than 80 and 443 may be fetched.
    pub allow_private: bool,
    /// A file of certificates (PEM) that are trusted beside those of the machine: of a site of your own, or of a proxy that reads along.
    pub certificates: Option<PathBuf>,
    /// Date of every record (`2024-05-01T00:00:00Z`) instead of the time of fetching: the same site then gives the same bytes.
    pub record_date: Option<String>,
}

impl Default for CrawlConfig {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            sitemaps: Vec::new(),
            follow_sitemaps: true,
            recrawl: false,
            output: PathBuf::from("raw"),
            scope: Scope::Host,
            hosts: Vec::new(),
            max_pages: 10_000,
            max_pages_per_host: None,
            max_depth: 20,
            per_host: 1,
            per_domain: 4,
            concurrency: 64,
            delay_seconds: 1.0,
            max_crawl_delay_seconds: 30.0,
            user_agent: concat!("gristmill/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_body_bytes: 4 << 20,
            max_inflated_bytes: 32 << 20,
            max_inflated_ratio: 100,
            idle_timeout_seconds: 20.0,
            total_timeout_seconds: 60.0,
            max_redirects: 10,
            max_tries: 5,
            max_retry_seconds: 300.0,
            segment_bytes: 1 << 30,
            obey_robots: true,
            allow_private: false,
            certificates: None,
            record_date: None,
        }
    }
}

/// Which links a crawl follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those to the host and port of a seed or a sitemap of [`CrawlConfig::sitemaps`].
    #[default]
    Host,
    /// Those that begin with the folder of a seed.
    Prefix,
    /// Those to a host of [`CrawlConfig::hosts`] or one below it.
    Hosts,
}

/// Asks a crawl to stop; it finishes open requests, then its segment.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Returns a flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether someone asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a crawl is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Answers with a page in them.
    pub fetched: u64,
    /// URLs that wait for their turn.
    pub queued: u64,
    /// Bytes of bodies received.
    pub bytes: u64,
    /// URLs that gave no page, by reason.
    pub errors: BTreeMap<String, u64>,
}

/// What a crawl left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrawlSummary {
    /// The counts at the end, those of earlier runs of the same visit included.
    pub progress: Progress,
    /// Finished segments of this and earlier runs, in order.
    pub segments: Vec<PathBuf>,
    /// Files of the log of this and earlier runs, in order.
    pub logs: Vec<PathBuf>,
    /// Whether every URL in scope was dealt with; else the next run goes on.
    pub is_complete: bool,
}

/// Crawls until nothing is left to fetch, a limit is reached or `stop` is set.
///
/// `progress` is called after every URL. Blocks; runs its own threads for waiting.
///
/// # Errors
/// [`Error::Config`] for settings that cannot work, [`Error::Crawl`] and [`Error::Io`] when the state or a segment cannot be
/// written. A page that cannot be fetched is counted in [`Progress::errors`].
pub fn run(
    config: &CrawlConfig,
    progress: impl FnMut(&Progress),
    stop: CancelFlag,
) -> Result<CrawlSummary> {
    check(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Crawl { what: "anything".into(), why: error.to_string() })?;
    runtime.block_on(worker::crawl(config, &Environment::default(), progress, &stop))
}

fn check(config: &CrawlConfig) -> Result<()> {
    let refuse = |message: String| Err(Error::Config { name: "crawl".to_owned(), message });
    if config.seeds.is_empty() && config.sitemaps.is_empty() {
        return refuse("`seeds` is empty\nhint: name at least one URL to start from".to_owned());
    }
    let counts = [
        ("max_pages", config.max_pages),
        ("max_pages_per_host", config.max_pages_per_host.unwrap_or(1)),
        ("per_host", config.per_host as u64),
        ("per_domain", config.per_domain as u64),
        ("concurrency", config.concurrency as u64),
        ("max_body_bytes", config.max_body_bytes),
        ("max_inflated_bytes", config.max_inflated_bytes),
        ("max_inflated_ratio", config.max_inflated_ratio),
        ("max_tries", u64::from(config.max_tries)),
        ("segment_bytes", config.segment_bytes),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, value)| *value == 0) {
        return refuse(format!("`{name}` is 0, it must be at least 1"));
    }
    let seconds = [
        // Rules are read again after a day: a page has to fit in between.
        ("delay_seconds", config.delay_seconds, 0.0, 43_200.0),
        ("max_crawl_delay_seconds", config.max_crawl_delay_seconds, 0.0, 43_200.0),
        ("idle_timeout_seconds", config.idle_timeout_seconds, 0.001, 86_400.0),
        ("total_timeout_seconds", config.total_timeout_seconds, 0.001, 86_400.0),
        ("max_retry_seconds", config.max_retry_seconds, 0.0, 86_400.0),
    ];
    for (name, value, min, max) in seconds {
        if !(min..=max).contains(&value) {
            return refuse(format!("`{name}` is {value}, it must be between {min} and {max}"));
        }
    }
    if config.scope == Scope::Hosts && config.hosts.is_empty() {
        return refuse("`scope` is `hosts` and `hosts` is empty".to_owned());
    }
    if config.user_agent.is_empty() || config.user_agent.chars().any(char::is_control) {
        return refuse(format!("`user_agent` is {:?}, a name is needed", config.user_agent));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
