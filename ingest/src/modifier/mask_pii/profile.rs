//! E-mail addresses, IP addresses and phone numbers as datatrove and dolma find them.
//!
//! Two things differ, for neither of the references gives a document the same text wherever it stands. datatrove's replacements take turns
//! over all documents; here they begin anew in each. dolma reads documents of a mixer in which spans of two rules can overlap; here the
//! one that begins first counts.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use regex::Regex;

use super::{Config, Hit, Kind, Replacement};

/// What stands for datatrove's e-mail and IP addresses, in turn (`PIIFormatter`).
pub(super) fn datatrove() -> Config {
    let in_turn =
        |list: &[&str]| Replacement::InTurn(list.iter().map(|&text| text.to_owned()).collect());
    Config {
        profile: "datatrove".to_owned(),
        email: in_turn(&["email@example.com", "firstname.lastname@example.org"]),
        ip_address: in_turn(&[
            "22.214.171.124",
            "126.96.36.199",
            "188.8.131.52",
            "184.108.40.206",
            "220.127.116.11",
            "18.104.22.168",
        ]),
        ..without_kinds()
    }
}

/// The tags of dolma's 1.5 mix, which leaves out documents with more than five hits.
pub(super) fn dolma() -> Config {
    Config {
        profile: "dolma".to_owned(),
        email: " |||EMAIL_ADDRESS||| ".into(),
        ip_address: " |||IP_ADDRESS||| ".into(),
        phone: " |||PHONE_NUMBER||| ".into(),
        max_hits: 5,
        ..without_kinds()
    }
}

fn without_kinds() -> Config {
    let none = || Replacement::from("");
    Config {
        email: none(),
        ip_address: none(),
        phone: none(),
        card: none(),
        iban: none(),
        national_id: none(),
        secret: none(),
        national_ids: Vec::new(),
        ..Config::default()
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file")
}

static DATATROVE_EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"\b[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:(?:[A-Za-z0-9](?:[",
        r"A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|\[(?:(?:25[0-5]|2[0-4][0-9]|[",
        r"01]?[0-9][0-9]?)\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?|[A-Za-z0-9-]*[A-Za-z0-9]:)])",
    ))
});

/// datatrove's and dolma's, without borders.
static IP: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)",
    )
});

/// datatrove replaces addresses of mail first and looks for others in what is left.
pub(super) fn datatrove_hits(text: &str, only_public: bool) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut at = 0;
    let addresses = |from: usize, to: usize, hits: &mut Vec<Hit>| {
        let found = IP.find_iter(&text[from..to]).filter(|found| {
            found.as_str().parse().is_ok_and(|address| !only_public || is_global(address))
        });
        hits.extend(found.map(|found| Hit {
            start: from + found.start(),
            end: from + found.end(),
            kind: Kind::IpAddress,
            rule: "ipv4",
        }));
    };
    if memchr::memchr(b'@', text.as_bytes()).is_some() {
        for found in DATATROVE_EMAIL.find_iter(text) {
            addresses(at, found.start(), &mut hits);
            at = found.end();
            hits.push(Hit {
                start: found.start(),
                end: found.end(),
                kind: Kind::Email,
                rule: "email",
            });
        }
    }
    addresses(at, text.len(), &mut hits);
    hits
}

/// `ipaddress.ip_address(…).is_global` of Python 3.11.
fn is_global(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let is_protocol = a == 192 && b == 0 && c == 0 && (d < 8 || d == 170 || d == 171);
    !(a == 0
        || a == 10
        || a == 127
        || a >= 240
        || address.is_link_local()
        || address.is_private()
        || address.is_documentation()
        || is_protocol
        || (a == 198 && (18..20).contains(&b))
        || (a == 100 && (64..128).contains(&b)))
}

// `\s` of Python has four separators more than that of the regex crate.
static DOLMA_EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"[.\s\x1c-\x1f@,?!;:)(]*([^\s\x1c-\x1f@]+@[^\s\x1c-\x1f@,?!;:)(]+?)[.\s\x1c-\x1f@,?!;:)(]?[\s\x1c-\x1f]",
    )
});

static DOLMA_PHONE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"[\s\x1c-\x1f]+\(?(\d{3})\)?[-. ]*(\d{3})[-. ]?(\d{4})"));

/// A document with more question marks has no hits in dolma.
const DOLMA_QUESTION_MARKS_MAX: usize = 10_000;

/// dolma's `pii_regex_with_counts_fast_v2`: paragraph by paragraph, each with its line feed.
pub(super) fn dolma_hits(text: &str) -> Vec<Hit> {
    let mut hits = Vec::new();
    if text.matches('?').count() > DOLMA_QUESTION_MARKS_MAX {
        return hits;
    }
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let hit = |found: regex::Match<'_>, kind: Kind, rule: &'static str| Hit {
            start: offset + found.start(),
            end: offset + found.end(),
            kind,
            rule,
        };
        if line.contains('@') {
            for found in DOLMA_EMAIL.captures_iter(line) {
                let (Some(whole), Some(address)) = (found.get(0), found.get(1)) else { continue };
                let (local, domain) = address.as_str().split_once('@').unwrap_or_default();
                if local != "(" && domain.contains('.') {
                    hits.push(hit(whole, Kind::Email, "email"));
                }
            }
        }
        let may_hold = line.bytes().any(|byte| byte.is_ascii_digit()) || !line.is_ascii();
        if may_hold {
            hits.extend(DOLMA_PHONE.find_iter(line).map(|found| hit(found, Kind::Phone, "phone")));
            hits.extend(IP.find_iter(line).map(|found| hit(found, Kind::IpAddress, "ipv4")));
        }
        offset += line.len();
    }
    hits
}
