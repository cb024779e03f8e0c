//! One request and its answer, within limits of size and time.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use url::Url;

use super::address::{self, PublicResolver};
use super::frontier::Page;
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

/// Fetches `url`, only if it changed since it was `known`; `Err` is the reason why there is no answer.
pub(super) async fn fetch(
    client: &Client,
    url: Url,
    known: Option<&Page>,
    config: &CrawlConfig,
) -> Result<Answer, &'static str> {
    if address::refuse(&url, config.allow_private).is_some() {
        return Err("address");
    }
    let conditions = known.map(conditions).unwrap_or_default();
    let request = client.get(url.clone()).headers(conditions.clone());
    let response = request.send().await.map_err(|error| reason(&error))?;
    let address = response.remote_addr().map(|address| address.ip());
    // The connector dialled what the resolver allowed; this is the second lock on the same door.
    if !config.allow_private && !address.is_some_and(address::is_public) {
        return Err("address");
    }
    let mut answer = describe(&response, url, &conditions, config);
    answer.address = address;
    read_body(response, &mut answer, config.max_body_bytes).await?;
    Ok(answer)
}

/// The fields that ask for a page only if it changed. Source: RFC 9110, section 13.1.
fn conditions(known: &Page) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            conditions.insert(name, value);
        }
    }
    conditions
}

fn describe(response: &Response, url: Url, conditions: &HeaderMap, config: &CrawlConfig) -> Answer {
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
    let mut request = format!(
        "GET {target} HTTP/1.1\r\naccept: */*\r\nuser-agent: {}\r\nhost: {host}\r\n",
        config.user_agent
    );
    for (name, value) in conditions {
        request.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    }
    request.push_str("\r\n");
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
        let Ok(answer) = fetch(client, url.clone(), None, config).await else {
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

/// Seconds from `now` that `Retry-After` asks for: a number or a date; `None` for what is neither.
/// Source: RFC 9110, section 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // As many seconds as no one waits are still a number.
        return Some(value.parse().unwrap_or(f64::MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::retry_after;

    #[test]
    fn reads_every_form_of_retry_after() {
        // The date is RFC 9110's own example, 784,111,777 seconds after 1970 (`date -u -d … +%s`).
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        for (value, expected) in [
            ("120", Some(120.0)),
            (" 0 ", Some(0.0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90.0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90.0)),
            ("Sun Nov  6 08:49:37 1994", Some(90.0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0.0)),
            ("99999999999999999999999", Some(99_999_999_999_999_999_999_999.0)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
    }
}
