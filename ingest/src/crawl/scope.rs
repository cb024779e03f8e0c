//! One form per URL, and which URLs a crawl is about.

use url::Url;

use super::{CrawlConfig, Scope, address};
use crate::{Error, Result};

/// Bytes of a URL, at most. Longer ones are made by loops.
const URL_BYTES_MAX: usize = 2048;
/// Folders of a path, at most. Heritrix: 20.
const SEGMENTS_MAX: usize = 20;
/// Times that one folder may stand in a path. Heritrix: 2 repetitions.
const REPEATS_MAX: usize = 3;
/// Parameters that tell visits apart, not pages.
const VISIT_PARAMETERS: [&str; 8] = [
    "jsessionid",
    "phpsessid",
    "sessionid",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
];

/// Puts `url` into the form in which it is fetched and remembered; a fixed point of itself.
pub(super) fn canonical(mut url: Url) -> Url {
    url.set_fragment(None);
    let path = unescape(url.path());
    url.set_path(&path);
    if let Some(start) = find_ignoring_case(url.path(), ";jsessionid=") {
        let path = url.path()[..start].to_owned();
        url.set_path(&path);
    }
    if let Some(query) = url.query().map(unescape) {
        let is_kept = |part: &&str| {
            let name = part.split('=').next().unwrap_or(part).to_ascii_lowercase();
            !part.is_empty() && !VISIT_PARAMETERS.contains(&name.as_str())
        };
        let kept = query.split('&').filter(is_kept).collect::<Vec<_>>().join("&");
        url.set_query(Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    }
    url
}

/// Writes each character that needs no escape without one, and other escapes with capitals. Source: RFC 3986, section 6.2.2.
fn unescape(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        found.push_str(&rest[..at]);
        let escape =
            rest.get(at + 1..at + 3).filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = &rest[at + 1 + escape.map_or(0, str::len)..];
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                found.push(char::from(byte));
            }
            Some(byte) => found.push_str(&format!("%{byte:02X}")),
            // Escaped itself, it cannot become an escape with what is behind it.
            None => found.push_str("%25"),
        }
    }
    found.push_str(rest);
    found
}

fn find_ignoring_case(text: &str, lower: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(lower)
}

/// Which links are followed.
#[derive(Debug)]
pub(super) struct Boundary {
    seeds: Vec<Url>,
    sitemaps: Vec<Url>,
    scope: Scope,
    hosts: Vec<String>,
    allow_private: bool,
}

impl Boundary {
    pub(super) fn new(config: &CrawlConfig) -> Result<Self> {
        let refuse = |seed: &str, why: String| Error::Crawl { what: format!("`{seed}`"), why };
        let read = |seed: &String| {
            let url = Url::parse(seed).map_err(|error| refuse(seed, error.to_string()))?;
            if let Some(why) = address::refuse(&url, config.allow_private) {
                let why = format!(
                    "its {why} is not allowed\nhint: `allow_private = true` opens addresses of your own network"
                );
                return Err(refuse(seed, why));
            }
            Ok(canonical(url))
        };
        Ok(Self {
            seeds: config.seeds.iter().map(read).collect::<Result<_>>()?,
            sitemaps: config.sitemaps.iter().map(read).collect::<Result<_>>()?,
            scope: config.scope,
            hosts: config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allow_private: config.allow_private,
        })
    }

    pub(super) fn sitemaps(&self) -> &[Url] {
        &self.sitemaps
    }

    /// Whether a sitemap may be fetched; it may lie on another host than its pages.
    pub(super) fn holds_sitemap(&self, url: &Url) -> bool {
        address::refuse(url, self.allow_private).is_none() && url.as_str().len() <= URL_BYTES_MAX
    }

    pub(super) fn seeds(&self) -> &[Url] {
        &self.seeds
    }

    /// Whether a canonical `url` is part of the crawl.
    pub(super) fn holds(&self, url: &Url) -> bool {
        if address::refuse(url, self.allow_private).is_some() || is_trap(url) {
            return false;
        }
        match self.scope {
            Scope::Host => self.seeds.iter().chain(&self.sitemaps).any(|seed| {
                seed.host() == url.host()
                    && seed.port_or_known_default() == url.port_or_known_default()
            }),
            Scope::Prefix => self.seeds.iter().any(|seed| {
                let folder = seed.path().rfind('/').map_or("/", |end| &seed.path()[..=end]);
                seed.origin() == url.origin() && url.path().starts_with(folder)
            }),
            Scope::Hosts => url.host_str().is_some_and(|host| {
                self.hosts.iter().any(|known| {
                    host.strip_suffix(known.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                })
            }),
        }
    }
}

/// Whether a URL looks made by a site that links ever deeper into itself.
fn is_trap(url: &Url) -> bool {
    let segments: Vec<&str> = url.path().split('/').filter(|s| !s.is_empty()).collect();
    let repeats = |segment: &&&str| segments.iter().filter(|other| other == segment).count();
    url.as_str().len() > URL_BYTES_MAX
        || segments.len() > SEGMENTS_MAX
        || segments.iter().any(|segment| repeats(&segment) > REPEATS_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use url::Url;

    use super::canonical;
    use crate::source::testing;

    /// Adds every string in `value`, keys of objects, too.
    fn strings(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
            Value::Object(entries) => {
                for (key, value) in entries {
                    found.push(key.clone());
                    strings(value, found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_canonical_form_is_its_own_canonical_form() {
        let Some(folder) = testing::data("conformance/url") else { return };
        let mut texts = Vec::new();
        for entry in walkdir::WalkDir::new(folder) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
                strings(&value, &mut texts);
            }
        }
        let urls = texts.iter().filter_map(|text| Url::parse(text).ok());
        let urls = urls.filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut judged = 0;
        for url in urls {
            let once = canonical(url.clone());
            let written = Url::parse(once.as_str()).unwrap();
            assert_eq!(canonical(written), once, "{url}");
            judged += 1;
        }
        eprintln!("judged {judged} URLs");
        assert!(judged > 500);
    }

    #[test]
    fn one_page_has_one_form() {
        // Lines of crawler-commons' pairs that RFC 3986 decides, and the parameters of visits.
        for (url, expected) in [
            ("http://foo.com/%66oo.html", "http://foo.com/foo.html"),
            ("http://foo.com/a%c3%b6?b=%7ex%2f", "http://foo.com/a%C3%B6?b=~x%2F"),
            ("HTTP://FOO.com:80/a/../b#c", "http://foo.com/b"),
            ("http://foo.com/a;JSESSIONID=1?utm_source=x&b=1", "http://foo.com/a?b=1"),
            ("http://foo.com/100%?a=%zz", "http://foo.com/100%25?a=%25zz"),
        ] {
            assert_eq!(canonical(Url::parse(url).unwrap()).as_str(), expected);
        }
    }
}
