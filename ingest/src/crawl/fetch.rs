//! One request and its answer, within limits of size and time.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use reqwest::header::{
    CONTENT_ENCODING, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Response, Version, redirect};
use url::Url;

use super::CrawlConfig;
use super::address::{self, PublicResolver};
use super::environment::{Clock, Names};
use super::frontier::Page;
use super::robots::{self, Robots};
use crate::source::inflate::{self, BodyError, Limits};
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
    /// Whether it came over HTTP/2; it is kept as HTTP/1.1 would have it.
    pub(super) is_http2: bool,
    pub(super) request: String,
}

pub(super) fn client(config: &CrawlConfig, names: Names) -> Result<Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that the process has a provider already.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    let idle = Duration::from_secs_f64(config.idle_timeout_seconds);
    let refuse = |why: String| Error::Crawl { what: "anything".to_owned(), why };
    let certificates = match &config.certificates {
        None => Vec::new(),
        Some(path) => {
            let pem = std::fs::read(path).map_err(Error::io("read", path))?;
            let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if found.is_empty() {
                return Err(refuse(format!("`{}` has no certificate in PEM", path.display())));
            }
            found
        }
    };
    // Over TLS the server chooses between HTTP/2 and HTTP/1.1, otherwise it is HTTP/1.1.
    Client::builder()
        .tls_certs_merge(certificates)
        .user_agent(&config.user_agent)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(idle)
        .read_timeout(idle)
        .timeout(Duration::from_secs_f64(config.total_timeout_seconds))
        .pool_max_idle_per_host(config.per_host)
        .dns_resolver(PublicResolver { allow_private: config.allow_private, names })
        .build()
        .map_err(|error| refuse(chain(&error)))
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
    fetch_limited(client, url, known, config, config.max_body_bytes).await
}

async fn fetch_limited(
    client: &Client,
    url: Url,
    known: Option<&Page>,
    config: &CrawlConfig,
    body_bytes_max: u64,
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
    read_body(response, &mut answer, body_bytes_max).await?;
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
        is_http2: response.version() == Version::HTTP_2,
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

/// What asking a host for its rules gave.
#[derive(Debug)]
pub(super) enum Rules {
    Known(Robots),
    /// Nobody knows them now; the seconds after which the host wants to be asked again.
    Unreachable(Option<f64>),
}

/// Fetches and reads the robots.txt of the host of `url`, as RFC 9309 section 2.3.1 has it.
pub(super) async fn robots(
    client: &Client,
    url: &Url,
    config: &CrawlConfig,
    clock: &Clock,
) -> Rules {
    let Ok(mut url) = url.join("/robots.txt") else { return Rules::Unreachable(None) };
    for n_redirects in 0..=ROBOTS_REDIRECTS {
        if n_redirects > 0 {
            // Most lead to the same host.
            let delay = Duration::from_secs_f64(config.delay_seconds);
            clock.wait(Some(clock.now() + delay), delay, false).await;
        }
        let limit = robots::BYTES_MAX as u64;
        let Ok(answer) = fetch_limited(client, url.clone(), None, config, limit).await else {
            return Rules::Unreachable(None);
        };
        match answer.status {
            200..=299 => return read_robots(&answer, config),
            300..=399 => match location(&answer) {
                Some(next) => url = next,
                None => return Rules::Known(Robots::default()),
            },
            // Asked to slow down, or out of order: as good as unreachable.
            429 | 500.. => {
                return Rules::Unreachable(retry_after(&answer.headers, SystemTime::now()));
            }
            _ => return Rules::Known(Robots::default()),
        }
    }
    Rules::Known(Robots::default())
}

fn read_robots(answer: &Answer, config: &CrawlConfig) -> Rules {
    // Half of the rules would allow what the other half forbids; of a file that is too long the RFC wants only the beginning.
    if answer.truncated.is_some_and(|why| why != "length") {
        return Rules::Unreachable(None);
    }
    let mut inflated = Vec::new();
    // Rules are short, and a ratio says nothing of the part of them that is read.
    let limits = Limits { bytes: robots::BYTES_MAX, ratio: usize::MAX };
    let text = match decode(answer, limits, &mut inflated) {
        Ok(true) | Err(BodyError::TooLarge) => &inflated,
        Ok(false) | Err(BodyError::Unknown) => &answer.body,
        Err(BodyError::Ratio | BodyError::Damaged) => return Rules::Unreachable(None),
    };
    let text = &text[..text.len().min(robots::BYTES_MAX)];
    Rules::Known(Robots::new(text, robots::token(&config.user_agent)))
}

/// Undoes the content encodings of the body of `answer` into `output`; `false`, with nothing there, when it has none.
pub(super) fn decode(
    answer: &Answer,
    limits: Limits,
    output: &mut Vec<u8>,
) -> Result<bool, BodyError> {
    let value = answer.headers.get(CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
    let (mut is_decoded, mut before) = (false, Vec::new());
    for encoding in value.rsplit(|&byte| byte == b',') {
        std::mem::swap(output, &mut before);
        let body = if is_decoded { &before } else { &answer.body };
        if inflate::decode_body(encoding.trim_ascii(), body, output, limits)? {
            is_decoded = true;
        } else {
            std::mem::swap(output, &mut before);
        }
    }
    Ok(is_decoded)
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
