//! Drops documents by their URL: listed domains, listed URLs, words in the URL.
//!
//! Where documents have no column `url`, as in SQL, the text is the URL: `url_blocklist(url)`. A document without a URL is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use arrow::array::{Array, ArrayRef, StringArray, StringViewArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use flate2::read::MultiGzDecoder;
use psl::{List, Psl, Type};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::words::{class, classes};
use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::{Error, Result};

pub(super) const KIND: FilterKind = FilterKind {
    name: "url_blocklist",
    summary: "listed domains and URLs, and URLs with listed words",
    source: "Penedo et al. 2023, RefinedWeb, appendix G.1; profile `datatrove`: datatrove 0.10.1, url_filter.py, with its word lists; `dclm`: DCLM, url_substring_filter as in dclm_baseline_refinedweb.yaml",
    signals: &[
        Signal {
            name: "soft_words",
            data_type: DataType::UInt64,
            summary: "different soft words in the URL",
        },
        Signal {
            name: "blocked_by",
            data_type: DataType::Utf8,
            summary: "the domain, URL or word that dropped it; of soft words, the first",
        },
    ],
    reasons: &[
        "blocked_domain",
        "blocked_subdomain",
        "blocked_url",
        "blocked_word",
        "too_many_soft_words",
        "blocked_subword",
    ],
    files: &[
        FileKey { key: "domains", none: "" },
        FileKey { key: "urls", none: "" },
        FileKey { key: "words", none: "" },
        FileKey { key: "soft_words", none: "" },
        FileKey { key: "subwords", none: "" },
    ],
    default_config: config::defaults::<Config>,
    build: |table| {
        let of_profile = |config: &Config| Config::of(config.profile);
        let config = config::from_profile("url_blocklist", table, of_profile)?;
        Ok(Box::new(UrlBlocklist::new(config)?))
    },
};

/// datatrove's word lists, as it packs them.
const WORDS: &str = include_str!("../../data/datatrove-url/banned_words.txt");
const SOFT_WORDS: &str = include_str!("../../data/datatrove-url/soft_banned_words.txt");
const SUBWORDS: &str = include_str!("../../data/datatrove-url/banned_subwords.txt");

/// Whose reading of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// Words are runs of ASCII letters and digits, as written; listed words are lower-cased, the URL's are not. Subwords are looked
    /// for in the letters and digits of the URL in lower case. A domain blocks its subdomains. Lines of lists that begin with `#`
    /// are comments.
    Datatrove,
    /// All in lower case. Words stand between word borders, subwords anywhere once `-` and `.` are taken out. A domain is the URL's
    /// authority, port and all, without any `www`.
    Dclm,
}

/// Lists are files of one entry a line, plain or gzip; `extra_…` adds entries to them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    profile: Profile,
    domains: String,
    urls: String,
    words: String,
    soft_words: String,
    subwords: String,
    extra_domains: Vec<String>,
    extra_urls: Vec<String>,
    extra_words: Vec<String>,
    extra_soft_words: Vec<String>,
    extra_subwords: Vec<String>,
    /// Different soft words from which a URL is dropped.
    min_soft_words: u64,
    /// Whether the word lists of datatrove count, too.
    built_in_words: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Profile::Datatrove)
    }
}

impl Config {
    fn of(profile: Profile) -> Self {
        Self {
            profile,
            domains: String::new(),
            urls: String::new(),
            words: String::new(),
            soft_words: String::new(),
            subwords: String::new(),
            extra_domains: Vec::new(),
            extra_urls: Vec::new(),
            extra_words: Vec::new(),
            extra_soft_words: Vec::new(),
            extra_subwords: Vec::new(),
            // Both of them: `soft_word_threshold`, `num_banned_substrs`.
            min_soft_words: 2,
            built_in_words: profile == Profile::Datatrove,
        }
    }
}

/// Entries that are compared whole, as their 128-bit hashes: of millions of domains, 16 bytes each.
#[derive(Debug, Default)]
struct Entries(Vec<u128>);

impl Entries {
    fn contains(&self, entry: &str) -> bool {
        !self.0.is_empty() && self.0.binary_search(&xxh3_128(entry.as_bytes())).is_ok()
    }
}

/// Words that are looked for inside of URLs.
#[derive(Debug)]
struct Words {
    list: Vec<String>,
    automaton: AhoCorasick,
    /// Place in the list.
    places: HashMap<String, usize>,
}

impl Words {
    fn new(key: &str, mut list: Vec<String>) -> Result<Self> {
        list.sort_unstable();
        list.dedup();
        let automaton = AhoCorasick::new(&list).map_err(|error| {
            config::invalid("url_blocklist", format!("`{key}` is too large: {error}"))
        })?;
        let places = list.iter().cloned().zip(0..).collect();
        Ok(Self { list, automaton, places })
    }

    fn find_part(&self, url: &str) -> Option<&str> {
        self.automaton.find(url).map(|found| self.list[found.pattern().as_usize()].as_str())
    }

    /// Different entries that stand in `url` between word borders, in the order in which they stand there.
    fn find_whole(&self, url: &str) -> Vec<&str> {
        let mut found: Vec<_> = self
            .automaton
            .find_overlapping_iter(url)
            .filter(|found| is_border(url, found.start()) && is_border(url, found.end()))
            .collect();
        // A search from the left takes the longest and goes on behind it.
        found.sort_unstable_by_key(|found| (found.start(), std::cmp::Reverse(found.end())));
        let (mut at, mut words) = (0, Vec::new());
        for found in found {
            let word = self.list[found.pattern().as_usize()].as_str();
            if found.start() >= at {
                at = found.end();
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        words
    }
}

/// `\b` of Python.
fn is_border(text: &str, at: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| classes(c) & class::WORD != 0);
    is_word(text[..at].chars().next_back()) != is_word(text[at..].chars().next())
}

#[derive(Debug)]
struct UrlBlocklist {
    profile: Profile,
    min_soft_words: u64,
    domains: Entries,
    urls: Entries,
    words: Words,
    soft_words: Words,
    subwords: Words,
}

/// What is found of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    reason: Option<&'static str>,
    soft_words: u64,
    blocked_by: Option<String>,
}

impl UrlBlocklist {
    fn new(config: Config) -> Result<Self> {
        let profile = config.profile;
        let lower = |line: &str| match profile {
            Profile::Datatrove => line.to_owned(),
            Profile::Dclm => line.to_lowercase(),
        };
        let entries = |path: &str, extra: &[String]| -> Result<Entries> {
            let mut hashes = Vec::new();
            for_each_entry(profile, path, extra, "", |line| {
                hashes.push(xxh3_128(lower(line).as_bytes()));
            })?;
            hashes.sort_unstable();
            hashes.dedup();
            Ok(Entries(hashes))
        };
        let words = |key: &str, path: &str, extra: &[String], built_in: &str| -> Result<Words> {
            let mut list = Vec::new();
            let built_in = if config.built_in_words { built_in } else { "" };
            for_each_entry(profile, path, extra, built_in, |line| {
                let word = match profile {
                    Profile::Datatrove => letters_and_digits(line),
                    Profile::Dclm => line.to_lowercase(),
                };
                // Such an entry can match nothing; in datatrove it would be in every URL that ends in a slash.
                if !word.is_empty() {
                    list.push(word);
                }
            })?;
            Words::new(key, list)
        };
        Ok(Self {
            profile,
            min_soft_words: config.min_soft_words.max(1),
            domains: entries(&config.domains, &config.extra_domains)?,
            urls: entries(&config.urls, &config.extra_urls)?,
            words: words("words", &config.words, &config.extra_words, WORDS)?,
            soft_words: words(
                "soft_words",
                &config.soft_words,
                &config.extra_soft_words,
                SOFT_WORDS,
            )?,
            subwords: words("subwords", &config.subwords, &config.extra_subwords, SUBWORDS)?,
        })
    }

    fn judge_url(&self, url: &str) -> Found {
        match self.profile {
            Profile::Datatrove => self.judge_as_datatrove(url),
            Profile::Dclm => self.judge_as_dclm(url),
        }
    }

    fn judge_as_datatrove(&self, url: &str) -> Found {
        let host = host(url);
        let domain = registered_domain(&host).unwrap_or_default();
        let (mut hard, mut soft) = (None, Vec::new());
        for word in url.split(|c: char| !c.is_ascii_alphanumeric()) {
            if self.words.places.contains_key(word) {
                hard.get_or_insert(word);
            }
            if self.soft_words.places.contains_key(word) && !soft.contains(&word) {
                soft.push(word);
            }
        }
        let n_soft = soft.len() as u64;
        let (reason, by) = if !domain.is_empty() && self.domains.contains(domain) {
            ("blocked_domain", domain)
        } else if !domain.is_empty() && self.domains.contains(&host) {
            ("blocked_subdomain", &*host)
        } else if self.urls.contains(url) {
            ("blocked_url", url)
        } else if let Some(word) = hard {
            ("blocked_word", word)
        } else if n_soft >= self.min_soft_words {
            ("too_many_soft_words", soft[0])
        } else if let Some(word) = self.subwords.find_part(&letters_and_digits(url)) {
            ("blocked_subword", word)
        } else {
            return Found { soft_words: n_soft, ..Found::default() };
        };
        Found { reason: Some(reason), soft_words: n_soft, blocked_by: Some(by.to_owned()) }
    }

    fn judge_as_dclm(&self, url: &str) -> Found {
        let authority = authority(url).to_lowercase().replace("www", "");
        let url = url.to_lowercase();
        let soft = self.soft_words.find_whole(&url);
        let n_soft = soft.len() as u64;
        let (reason, by) = if self.domains.contains(&authority) {
            ("blocked_domain", &*authority)
        } else if self.urls.contains(&url) {
            ("blocked_url", &*url)
        } else if let Some(word) = self.subwords.find_part(&url.replace(['-', '.'], "")) {
            ("blocked_subword", word)
        } else if let Some(word) = self.words.find_whole(&url).first() {
            ("blocked_word", *word)
        } else if n_soft >= self.min_soft_words {
            ("too_many_soft_words", soft[0])
        } else {
            return Found { soft_words: n_soft, ..Found::default() };
        };
        Found { reason: Some(reason), soft_words: n_soft, blocked_by: Some(by.to_owned()) }
    }
}

/// Calls `visit` with each entry of the file at `path`, of `extra` and of `built_in`.
fn for_each_entry(
    profile: Profile,
    path: &str,
    extra: &[String],
    built_in: &str,
    mut visit: impl FnMut(&str),
) -> Result<()> {
    let mut visit_line = |line: &str| {
        let is_comment = profile == Profile::Datatrove && line.starts_with('#');
        let line = line.trim();
        if !is_comment && !line.is_empty() {
            visit(line);
        }
    };
    if !path.is_empty() {
        let read = || Error::io("read", path);
        let mut file = BufReader::new(File::open(path).map_err(read())?);
        let is_gzip = file.fill_buf().map_err(read())?.starts_with(&[0x1f, 0x8b]);
        let content: Box<dyn Read> =
            if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut content = BufReader::new(content);
        let mut line = String::new();
        while content.read_line(&mut line).map_err(read())? > 0 {
            visit_line(&line);
            line.clear();
        }
    }
    built_in.lines().for_each(&mut visit_line);
    extra.iter().for_each(|line| visit_line(line));
    Ok(())
}

/// What `normalize` of datatrove's URL filter makes of `text`.
fn letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the host of `url` as tldextract 5.4 finds it, with or without a scheme.
fn host(url: &str) -> String {
    let rest = match url.find("//") {
        Some(0) => &url[2..],
        Some(at)
            if at >= 2
                && url[..at].ends_with(':')
                && url[..at - 1]
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            &url[at + 2..]
        }
        _ => url,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let rest = rest[..end].rsplit('@').next().unwrap_or_default();
    let is_dot = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];
    let name = match rest.starts_with('[').then(|| rest.find(']')).flatten() {
        Some(end) => &rest[..=end],
        None => rest
            .split(':')
            .next()
            .unwrap_or_default()
            .trim_matches(|c| classes(c) & class::SPACE != 0)
            .trim_end_matches(is_dot),
    };
    name.replace(is_dot, ".")
}

/// Returns the end of `host` that someone registered: a label and a public suffix of the list's first part.
fn registered_domain(host: &str) -> Option<&str> {
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return None;
    }
    let lower = host.to_lowercase();
    let mut name = lower.as_str();
    let suffix = loop {
        let suffix = List.suffix(name.as_bytes())?;
        let bytes = suffix.as_bytes().len();
        match suffix.typ()? {
            Type::Icann => break &name[name.len() - bytes..],
            // One of a company: what lies behind it is someone's own, so look further up.
            Type::Private => name = name[name.len() - bytes..].split_once('.')?.1,
        }
    };
    let n_labels = suffix.split('.').count() + 1;
    let start = host.rmatch_indices('.').nth(n_labels - 1).map(|(at, _)| at + 1);
    let domain = &host[start.unwrap_or(0)..];
    (domain.split('.').count() == n_labels && !domain.starts_with('.')).then_some(domain)
}

/// Returns the part between `//` and the path of `url`, as Python's `urlparse(url).netloc`.
fn authority(url: &str) -> &str {
    let rest = match url.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            rest
        }
        _ => url,
    };
    let rest = rest.strip_prefix("//").unwrap_or_default();
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

impl Filter for UrlBlocklist {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let urls = url_column(documents)?;
        let found: Vec<Option<Found>> =
            urls.iter().map(|url| url.map(|url| self.judge_url(url))).collect();
        let reasons: StringArray =
            found.iter().map(|found| found.as_ref().and_then(|found| found.reason)).collect();
        let soft: UInt64Array =
            found.iter().map(|found| found.as_ref().map(|found| found.soft_words)).collect();
        let by: StringArray = found
            .iter()
            .map(|found| found.as_ref().and_then(|found| found.blocked_by.as_deref()))
            .collect();
        let signals: Vec<ArrayRef> = vec![Arc::new(soft), Arc::new(by)];
        Ok(Verdicts { reasons, signals })
    }
}

fn url_column(documents: &RecordBatch) -> Result<&StringViewArray> {
    let Some(column) = documents.column_by_name("url") else { return text_column(documents) };
    column.as_any().downcast_ref().ok_or_else(|| Error::Column {
        name: "url".to_owned(),
        why: format!("is `{}`, wanted `Utf8View`", column.data_type()),
    })
}

#[cfg(test)]
mod tests;
