//! The key of a page: what is left of its URL without the parts that do not choose the content.

use std::borrow::Cow;
use std::fmt::Write as _;

use ::url::{Host, Url};
use arrow::array::{Array, StringViewArray, StringViewBuilder};
use serde::{Deserialize, Serialize};

use crate::MethodKind;

pub(crate) const KIND: MethodKind = MethodKind {
    name: "url",
    summary: "documents of the same page, by their canonical URL",
    source: "RFC 3986 section 6.2; crawl index keys as of the Internet Archive and Common Crawl",
    finds: crate::Finds::Documents,
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("url", table).map(drop),
};

/// Settings of the search for equal URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether `www.` (also `www2.`) at the start of the host is dropped.
    pub strip_www: bool,
    /// Whether parameters that track the visitor or name a session are dropped.
    pub strip_tracking: bool,
}

impl Default for Config {
    /// As crawl indexes do.
    fn default() -> Self {
        Self { strip_www: true, strip_tracking: true }
    }
}

/// Query parameters that follow the visitor and not the content; besides all that begin with [`TRACKING_PREFIXES`].
const TRACKING: &[&str] = &[
    // Click identifiers of advertisers and mailers.
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "dclid",
    "fbclid",
    "gad_source",
    "gbraid",
    "gclid",
    "gclsrc",
    "igshid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "msclkid",
    "oly_anon_id",
    "oly_enc_id",
    "rb_clickid",
    "s_cid",
    "srsltid",
    "ttclid",
    "twclid",
    "vero_conv",
    "vero_id",
    "wbraid",
    "wickedid",
    "yclid",
    // Sessions.
    "cfid",
    "cftoken",
    "jsessionid",
    "phpsessid",
    "aspsessionid",
    "sessionid",
];

const TRACKING_PREFIXES: &[&str] =
    &["utm_", "mtm_", "pk_campaign", "pk_kwd", "pk_source", "pk_medium", "hsa_"];

/// Returns the key of each URL; null where there is none: no URL, not http or https, or without a host.
///
/// See [`key`].
#[must_use]
pub fn keys(urls: &StringViewArray, config: &Config) -> StringViewArray {
    let mut builder = StringViewBuilder::with_capacity(urls.len());
    for url in urls {
        builder.append_option(url.and_then(|url| key(url, config)));
    }
    builder.finish()
}

/// Returns the key of a URL, `host[:port][/path][?query]`, or none for what is not an http or https URL.
///
/// Host in lower case and Punycode, without a final dot and, if asked, `www.`; no scheme, user, default port or fragment.
/// Percent-encoding of unreserved characters is undone, and hexadecimal digits are upper case. The path has no dot segments
/// and no slash at its end; the query's parameters are sorted, empty ones and, if asked, tracking ones are dropped.
/// The key of `https://` + key is the key.
#[must_use]
pub fn key(url: &str, config: &Config) -> Option<String> {
    let url = Url::parse(url).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let mut key = String::with_capacity(url.as_str().len());
    match url.host()? {
        Host::Domain(domain) => {
            let domain = domain.trim_end_matches('.');
            let domain = if config.strip_www { without_www(domain) } else { domain };
            if domain.is_empty() {
                return None;
            }
            key.push_str(domain);
        }
        address => write!(key, "{address}").expect("writing to a string succeeds"),
    }
    // The scheme is not part of the key, so the default port of either is none.
    if let Some(port) = url.port().filter(|port| !matches!(port, 80 | 443)) {
        write!(key, ":{port}").expect("writing to a string succeeds");
    }
    let path = unreserved(url.path());
    let path = if config.strip_tracking { without_session(&path) } else { &path };
    key.push_str(path.trim_end_matches('/'));
    append_query(&mut key, url.query().unwrap_or_default(), config);
    Some(key)
}

fn without_www(domain: &str) -> &str {
    domain
        .strip_prefix("www")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        .and_then(|rest| rest.strip_prefix('.'))
        .filter(|rest| rest.contains('.'))
        .map_or(domain, |rest| without_www(rest))
}

/// Cuts `;jsessionid=…` off a path.
fn without_session(path: &str) -> &str {
    let is_session = |at: &usize| {
        path.get(*at + 1..*at + 12).is_some_and(|name| name.eq_ignore_ascii_case("jsessionid="))
    };
    path.match_indices(';').map(|(at, _)| at).find(is_session).map_or(path, |at| &path[..at])
}

fn append_query(key: &mut String, query: &str, config: &Config) {
    let mut parameters: Vec<Cow<'_, str>> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(unreserved)
        .filter(|parameter| !(config.strip_tracking && is_tracking(parameter)))
        .collect();
    // By name, then by value: an unstable sort of whole parameters would put `a-b=1` before `a=1`.
    parameters.sort_by(|a, b| {
        a.split_once('=').unwrap_or((a, "")).cmp(&b.split_once('=').unwrap_or((b, "")))
    });
    for (parameter, separator) in
        parameters.iter().zip(std::iter::once('?').chain(std::iter::repeat('&')))
    {
        key.push(separator);
        key.push_str(parameter);
    }
}

fn is_tracking(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    let starts = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    TRACKING.iter().any(|tracking| name.eq_ignore_ascii_case(tracking))
        || TRACKING_PREFIXES.iter().any(starts)
}

/// Undoes the percent-encoding of letters, digits, `-`, `.`, `_` and `~`, and writes the others in upper case.
fn unreserved(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let digits =
            rest.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    decoded.push(char::from(byte));
                } else {
                    write!(decoded, "%{byte:02X}").expect("writing to a string succeeds");
                }
                rest = &rest[at + 3..];
            }
            None => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(url: &str, expected: impl Into<Option<&'static str>>) {
        assert_eq!(key(url, &Config::default()).as_deref(), expected.into(), "{url}");
    }

    #[test]
    fn what_does_not_choose_the_content_is_dropped() {
        check("http://example.org", "example.org");
        check("https://example.org/", "example.org");
        check("HTTP://WWW.Example.ORG.:80/#top", "example.org");
        check("http://example.org:443/a/", "example.org/a");
        check("https://user:secret@example.org:8080/A//", "example.org:8080/A");
        check("http://www2.example.org/a/./b/../c", "example.org/a/c");
        check("http://www.com/", "www.com");
        check("http://wwwide.org/", "wwwide.org");
        check("http://bücher.example/ü", "xn--bcher-kva.example/%C3%BC");
        check("http://example.org/%7euser/%2f%c3%bc", "example.org/~user/%2F%C3%BC");
        check("http://[2001:DB8::1]:80/x", "[2001:db8::1]/x");
        check("http://0x7f.1/", "127.0.0.1");
        check("http://example.org/a;jsessionid=1A2B?x=1", "example.org/a?x=1");
    }

    #[test]
    fn queries_are_sorted_and_lose_tracking() {
        check("http://e.org/?b=2&a=1&&a=0", "e.org?a=0&a=1&b=2");
        check("http://e.org/a?utm_source=x&id=7&UTM_Medium=y&fbclid=z&gclid", "e.org/a?id=7");
        check("http://e.org/a?utm_source=x", "e.org/a");
        check("http://e.org/a?", "e.org/a");
        check("http://e.org/a?a-b=1&a=2", "e.org/a?a=2&a-b=1");
        check("http://e.org/a?q=%41%20b", "e.org/a?q=A%20b");
        // Names that only look like tracking.
        check("http://e.org/a?utmost=1&gclids=2&ref=3", "e.org/a?gclids=2&ref=3&utmost=1");
    }

    #[test]
    fn what_is_no_web_page_has_no_key() {
        for url in [
            "",
            "example.org/a",
            "ftp://example.org/",
            "mailto:a@b.c",
            "http://",
            "http:// x/",
            "data:,x",
        ] {
            check(url, None);
        }
        let keys = keys(
            &StringViewArray::from(vec![Some("nonsense"), None, Some("http://a.b/")]),
            &Config::default(),
        );
        assert_eq!((keys.is_null(0), keys.is_null(1), keys.value(2)), (true, true, "a.b"));
    }

    #[test]
    fn settings_switch_www_and_tracking() {
        let config = Config { strip_www: false, strip_tracking: false };
        assert_eq!(key("http://www.e.org/?utm_a=1", &config).unwrap(), "www.e.org?utm_a=1");
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(tail in "[a-z/.%0-9A-F;?&=#:@-]{0,40}", host in "(www[0-9]?\\.){0,2}[a-z]{1,5}\\.[a-z]{2}") {
            let config = Config::default();
            if let Some(once) = key(&format!("http://{host}/{tail}"), &config) {
                prop_assert_eq!(key(&format!("https://{once}"), &config), Some(once));
            }
        }
    }
}
