//! robots.txt: which URLs of a host a crawler may fetch.
//!
//! Source: RFC 9309, and the behaviour of Google's parser (google/robotstxt) where the RFC leaves room: misspelt keys, missing
//! colons, `/index.html` for `/`, lines cut at 16,663 bytes.

/// Bytes of a robots.txt that are read; the RFC asks for at least 500 KiB.
pub const BYTES_MAX: usize = 1 << 20;
/// Sitemaps of a host that count.
const SITEMAPS_MAX: usize = 1000;
/// Bytes of a line that count.
const LINE_BYTES_MAX: usize = 2083 * 8 - 1;

/// The rules that a robots.txt has for one crawler.
#[derive(Clone, Debug, Default)]
pub struct Robots {
    specific: Vec<Rule>,
    general: Vec<Rule>,
    is_named: bool,
    crawl_delay: Option<f64>,
    sitemaps: Vec<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    is_allow: bool,
    pattern: Vec<u8>,
}

impl Robots {
    /// Reads `text` for the crawler whose product token is `agent` (see [`token`]). Never fails: lines that say nothing are passed over.
    #[must_use]
    pub fn new(text: &[u8], agent: &str) -> Self {
        let mut robots = Self::default();
        let (mut names_us, mut names_all, mut has_rules) = (false, false, false);
        let mut general_delay = None;
        for line in lines(text) {
            let Some((key, value)) = key_value(line) else { continue };
            match Key::of(key) {
                Key::UserAgent => {
                    if std::mem::take(&mut has_rules) {
                        (names_us, names_all) = (false, false);
                    }
                    if value.first() == Some(&b'*')
                        && value.get(1).is_none_or(u8::is_ascii_whitespace)
                    {
                        names_all = true;
                    } else if token_bytes(value).eq_ignore_ascii_case(agent.as_bytes()) {
                        names_us = true;
                        robots.is_named = true;
                    }
                }
                key @ (Key::Allow | Key::Disallow) => {
                    if !names_us && !names_all {
                        continue;
                    }
                    has_rules = true;
                    let rule = Rule { is_allow: matches!(key, Key::Allow), pattern: escape(value) };
                    if names_us {
                        robots.specific.push(rule);
                    } else {
                        robots.general.push(rule);
                    }
                }
                Key::CrawlDelay => {
                    let seconds = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                    let seconds = seconds.filter(|s: &f64| s.is_finite() && *s >= 0.0);
                    if names_us {
                        robots.crawl_delay = seconds.or(robots.crawl_delay);
                    } else if names_all {
                        // Groups that only set a delay run together: the slowest is the safe one.
                        general_delay = seconds.into_iter().chain(general_delay).reduce(f64::max);
                    }
                }
                Key::Sitemap => {
                    if robots.sitemaps.len() < SITEMAPS_MAX {
                        robots.sitemaps.push(String::from_utf8_lossy(value).into_owned());
                    }
                }
                Key::Other => {}
            }
        }
        if !robots.is_named {
            robots.crawl_delay = general_delay;
        }
        robots
    }

    /// The rules of a host whose robots.txt cannot be had: nothing may be fetched (RFC 9309, 2.3.1.4).
    #[must_use]
    pub fn none() -> Self {
        let everything = Rule { is_allow: false, pattern: b"/".to_vec() };
        Self { specific: vec![everything], is_named: true, ..Self::default() }
    }

    /// Whether `url`, percent-encoded as it is sent, may be fetched.
    #[must_use]
    pub fn allows(&self, url: &str) -> bool {
        let path = path(url);
        let path = path.as_bytes();
        let longest = |rules: &[Rule], is_allow: bool| {
            let matching = rules.iter().filter(|rule| rule.is_allow == is_allow);
            matching.filter_map(|rule| rule.priority(path)).max().unwrap_or(0)
        };
        let (allow, disallow) = (longest(&self.specific, true), longest(&self.specific, false));
        if allow > 0 || disallow > 0 {
            return allow >= disallow;
        }
        self.is_named || longest(&self.general, true) >= longest(&self.general, false)
    }

    /// The sitemaps that the host names, for every crawler, as they stand there.
    #[must_use]
    pub fn sitemaps(&self) -> &[String] {
        &self.sitemaps
    }

    /// Seconds that the host asks for between requests.
    #[must_use]
    pub fn crawl_delay(&self) -> Option<f64> {
        self.crawl_delay
    }
}

/// Returns the product token of a `User-Agent` header: its letters, `-` and `_` up to anything else.
#[must_use]
pub fn token(user_agent: &str) -> &str {
    &user_agent[..token_bytes(user_agent.as_bytes()).len()]
}

fn token_bytes(value: &[u8]) -> &[u8] {
    let is_part = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_');
    &value[..value.iter().position(|b| !is_part(b)).unwrap_or(value.len())]
}

enum Key {
    UserAgent,
    Allow,
    Disallow,
    CrawlDelay,
    Sitemap,
    Other,
}

impl Key {
    /// Keys are prefixes, and the usual misspellings count.
    fn of(key: &[u8]) -> Self {
        const DISALLOW: [&str; 6] =
            ["disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"];
        let starts = |name: &&str| {
            key.len() >= name.len() && key[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        if ["user-agent", "useragent", "user agent"].iter().any(starts) {
            Self::UserAgent
        } else if starts(&"allow") {
            Self::Allow
        } else if DISALLOW.iter().any(starts) {
            Self::Disallow
        } else if starts(&"crawl-delay") {
            Self::CrawlDelay
        } else if starts(&"sitemap") || starts(&"site-map") {
            Self::Sitemap
        } else {
            Self::Other
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
    let mark = text.iter().zip(BOM).take_while(|(byte, bom)| *byte == bom).count();
    text[mark..]
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .map(|line| &line[..line.len().min(LINE_BYTES_MAX)])
}

fn key_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'#', line).unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    let (key, value) = if let Some(colon) = memchr::memchr(b':', line) {
        (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii())
    } else {
        // Without a colon, two words are a key and its value.
        let space = memchr::memchr2(b' ', b'\t', line)?;
        let value = line[space..].trim_ascii();
        if memchr::memchr2(b' ', b'\t', value).is_some() {
            return None;
        }
        (&line[..space], value)
    };
    (!key.is_empty()).then_some((key, value))
}

/// Writes bytes beyond ASCII as `%XX` and existing escapes with capitals, as URLs are written.
fn escape(value: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = Vec::with_capacity(value.len());
    let mut index = 0;
    while index < value.len() {
        match &value[index..] {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                escaped.extend([b'%', a.to_ascii_uppercase(), b.to_ascii_uppercase()]);
                index += 2;
            }
            [byte, ..] if !byte.is_ascii() => {
                escaped.push(b'%');
                escaped.push(HEX[usize::from(byte >> 4)]);
                escaped.push(HEX[usize::from(byte & 15)]);
            }
            rest => escaped.push(rest[0]),
        }
        index += 1;
    }
    escaped
}

impl Rule {
    /// Returns how specific the rule is where it matches: the length of its pattern.
    fn priority(&self, path: &[u8]) -> Option<usize> {
        if matches(path, &self.pattern) {
            return Some(self.pattern.len());
        }
        if !self.is_allow {
            return None;
        }
        // Whoever allows the index page of a folder allows the folder.
        let slash = memchr::memrchr(b'/', &self.pattern)?;
        if !self.pattern[slash..].starts_with(b"/index.htm") {
            return None;
        }
        let mut folder = self.pattern[..=slash].to_vec();
        folder.push(b'$');
        matches(path, &folder).then_some(folder.len())
    }
}

/// Whether `pattern` (`*` for anything, `$` at its end for the end) matches a prefix of `path`. O(path · pattern).
fn matches(path: &[u8], pattern: &[u8]) -> bool {
    // Ends of the prefixes of `path` that the pattern so far matches, ascending.
    let mut ends = vec![0];
    for (index, &byte) in pattern.iter().enumerate() {
        if byte == b'$' && index + 1 == pattern.len() {
            return ends.last() == Some(&path.len());
        }
        if byte == b'*' {
            ends = (ends[0]..=path.len()).collect();
        } else {
            ends.retain(|&end| path.get(end) == Some(&byte));
            ends.iter_mut().for_each(|end| *end += 1);
        }
        if ends.is_empty() {
            return false;
        }
    }
    true
}

/// Returns path, parameters and query of `url`, at least `/`.
fn path(url: &str) -> std::borrow::Cow<'_, str> {
    let skipped = if url.starts_with("//") { 2 } else { 0 };
    let find = |from: usize| url[from..].find(['/', '?', ';']).map(|at| from + at);
    let scheme_end = url[skipped..]
        .find("://")
        .map(|at| skipped + at)
        .filter(|&end| find(skipped).is_none_or(|early| early >= end))
        .map_or(skipped, |end| end + 3);
    let Some(start) = find(scheme_end) else { return "/".into() };
    let end = url[skipped..].find('#').map_or(url.len(), |at| skipped + at);
    if end < start {
        return "/".into();
    }
    let path = &url[start..end];
    if path.starts_with('/') { path.into() } else { format!("/{path}").into() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::Robots;
    use crate::source::testing;

    fn cases(file: &str) -> Option<Vec<Value>> {
        let path = testing::data("conformance/robots")?.join(file);
        let text = std::fs::read_to_string(path).unwrap();
        Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn decides_the_cases_of_the_standard_as_google_does() {
        let Some(cases) = cases("google_robotstxt_cases.jsonl") else { return };
        let (mut judged, mut wrong) = (0, Vec::new());
        for case in cases.iter().filter(|case| case["kind"] == "allowed") {
            let text = |key: &str| case[key].as_str().unwrap();
            let robots = Robots::new(text("robots_txt").as_bytes(), text("user_agent"));
            judged += 1;
            if robots.allows(text("url")) != case["expect"].as_bool().unwrap() {
                wrong.push(format!("{} line {}: {}", text("test"), case["src_line"], text("url")));
            }
        }
        eprintln!("judged {judged} cases");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn decides_real_files_as_google_does() {
        let Some(files) = cases("oracle_cases_dev.jsonl") else { return };
        let (mut judged, mut wrong) = (0, Vec::new());
        for file in &files {
            for case in file["cases"].as_array().unwrap() {
                let (agent, url) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
                let robots = Robots::new(file["robots_txt"].as_str().unwrap().as_bytes(), agent);
                judged += 1;
                if robots.allows(url) != case[2].as_bool().unwrap() {
                    wrong.push(format!("{} {agent} {url}: not {}", file["id"], case[2]));
                }
            }
        }
        eprintln!("judged {judged} pairs");
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    }

    #[test]
    fn finds_the_path_of_a_url_as_google_does() {
        let Some(folder) = testing::data("conformance/robots") else { return };
        let text = std::fs::read(folder.join("google_robotstxt_parse_cases.json")).unwrap();
        let cases: Value = serde_json::from_slice(&text).unwrap();
        for case in cases["path_params_query"].as_array().unwrap() {
            let (url, expected) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
            assert_eq!(super::path(url), expected, "{url}");
        }
        for case in cases["escape_pattern"].as_array().unwrap() {
            let (pattern, expected) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
            assert_eq!(super::escape(pattern.as_bytes()), expected.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn takes_the_delay_of_its_own_group_before_that_of_all() {
        let text = b"user-agent: *\ncrawl-delay: 9\nuser-agent: a\ncrawl-delay: 2.5\n";
        assert_eq!(Robots::new(text, "a").crawl_delay(), Some(2.5));
        assert_eq!(Robots::new(text, "b").crawl_delay(), Some(9.0));
        assert!(!Robots::none().allows("http://x/"));
    }

    #[test]
    fn names_sitemaps_wherever_they_stand() {
        // From the sitemap example of google/robotstxt's tests, where a sitemap ends no group.
        let text = b"sitemap: http://x/a\nuser-agent: a\nSite-Map: http://x/b\ndisallow: /\n";
        assert_eq!(Robots::new(text, "b").sitemaps(), ["http://x/a", "http://x/b"]);
    }
}
