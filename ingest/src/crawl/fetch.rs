//! One request and its answer, within limits of size and time.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use url::Url;

use super::address::{self, PublicResolver};
use super::{CrawlConfig, robots};
use crate::{Error, Result};

/// Redirects of a robots.txt; the RFC asks for at least five.
const ROBOTS_REDIRECTS: u32 = 5;

/// An answer as it is archived.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Status line and fields, with the framing of the connection undone.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) truncated: Option<&'static str>,
    pub(super) address: Option<IpAddr>,
    pub(super) request: String,
}

pub(super) fn client(config: &CrawlConfig) -> Result<Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that the process has a provider already.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    let idle = Duration::from_secs_f64(config.idle_timeout_seconds);
    Client::builder()
        .user_agent(&config.user_agent)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(idle)
        .read_timeout(idle)
        .timeout(Duration::from_secs_f64(config.total_timeout_seconds))
        .pool_max_idle_per_host(config.per_host)
        .dns_resolver(PublicResolver { allow_private: config.allow_private })
        .build()
        .map_err(|error| Error::Crawl { what: "anything".to_owned(), why: chain(&error) })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").expect("a string takes all that is written to it");
        source = error.source();
    }
    text
}

/// Fetches `url`; `Err` is the reason why there is no answer.
pub(super) async fn fetch(
    client: &Client,
    url: Url,
    config: &CrawlConfig,
) -> Result<Answer, &'static str> {
    if address::refuse(&url, config.allow_private).is_some() {
        return Err("address");
    }
    let response = client.get(url.clone()).send().await.map_err(|error| reason(&error))?;
    let address = response.remote_addr().map(|address| address.ip());
    // The connector dialled what the resolver allowed; this is the second lock on the same door.
    if !config.allow_private && !address.is_some_and(address::is_public) {
        return Err("address");
    }
    let mut answer = describe(&response, url, config);
    answer.address = address;
    read_body(response, &mut answer, config.max_body_bytes).await?;
    Ok(answer)
}

fn describe(response: &Response, url: Url, config: &CrawlConfig) -> Answer {
    let status = response.status();
    let mut head =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""))
            .into_bytes();
    for (name, value) in response.headers() {
        // The body is stored without chunks.
        if name == "transfer-encoding" {
            head.extend_from_slice(b"x-archive-");
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let target = &url[url::Position::BeforePath..];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = format!(
        "GET {target} HTTP/1.1\r\naccept: */*\r\nuser-agent: {}\r\nhost: {host}\r\n\r\n",
        config.user_agent
    );
    Answer {
        status: status.as_u16(),
        headers: response.headers().clone(),
        head,
        body: Vec::new(),
        truncated: None,
        address: None,
        request,
        url,
    }
}

async fn read_body(
    mut response: Response,
    answer: &mut Answer,
    limit: u64,
) -> Result<(), &'static str> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = limit - answer.body.len();
                answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    answer.truncated = Some("length");
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) if answer.body.is_empty() => return Err(reason(&error)),
            Err(error) => {
                answer.truncated = Some(if error.is_timeout() { "time" } else { "disconnect" });
                return Ok(());
            }
        }
    }
}

fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "protocol"
    }
}

/// Fetches and reads the robots.txt of the host of `url`, as RFC 9309 section 2.3.1 has it.
pub(super) async fn robots(client: &Client, url: &Url, config: &CrawlConfig) -> robots::Robots {
    let Ok(mut url) = url.join("/robots.txt") else { return robots::Robots::none() };
    for _ in 0..=ROBOTS_REDIRECTS {
        let Ok(answer) = fetch(client, url.clone(), config).await else {
            return robots::Robots::none();
        };
        match answer.status {
            200..=299 => {
                let text = &answer.body[..answer.body.len().min(robots::BYTES_MAX)];
                return robots::Robots::new(text, robots::token(&config.user_agent));
            }
            300..=399 => match location(&answer) {
                Some(next) => url = next,
                None => return robots::Robots::default(),
            },
            // Asked to slow down, or out of order: as good as unreachable.
            429 | 500.. => return robots::Robots::none(),
            _ => return robots::Robots::default(),
        }
    }
    robots::Robots::default()
}

/// Where an answer redirects to.
pub(super) fn location(answer: &Answer) -> Option<Url> {
    let value = answer.headers.get(reqwest::header::LOCATION)?;
    answer.url.join(&String::from_utf8_lossy(value.as_bytes())).ok()
}

/// Seconds that `Retry-After` asks for, if it is a number; dates are left to the doubling delay.
pub(super) fn retry_after(answer: &Answer) -> Option<f64> {
    let seconds: u64 = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    u32::try_from(seconds).ok().map(f64::from).or(Some(f64::MAX))
}
