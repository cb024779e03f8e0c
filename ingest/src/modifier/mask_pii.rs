//! Replaces what identifies or reaches a person: e-mail and IP addresses, phone, card and account numbers.
//!
//! A rule is a pattern for `regex` behind a byte that every hit holds (`@`, `:`, digits), and a check that the pattern cannot make:
//! checksums, number ranges, what stands around it. Where hits overlap, the one that begins first counts, then the longest.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "mask_pii",
    summary: "replaces e-mail and IP addresses, phone, card and account numbers",
    source: "RFC 5321, RFC 4291, NANP, E.164, ISO/IEC 7812 (Luhn), ISO 13616 (mod 97)",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(MaskPii { config: config::from_table("mask_pii", table)? })),
};

/// What stands in place of each kind; an empty replacement switches its rule off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    email: String,
    ip_address: String,
    phone: String,
    card: String,
    iban: String,
}

impl Default for Config {
    fn default() -> Self {
        // Tags in the manner of BigCode's `<EMAIL>`: a model learns the kind and no false value.
        Self {
            email: "<EMAIL>".to_owned(),
            ip_address: "<IP_ADDRESS>".to_owned(),
            phone: "<PHONE>".to_owned(),
            card: "<CARD>".to_owned(),
            iban: "<IBAN>".to_owned(),
        }
    }
}

#[derive(Debug)]
struct MaskPii {
    config: Config,
}

/// A hit: byte range, rule.
type Hit = (usize, usize, &'static str);

impl Modifier for MaskPii {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut edits = Vec::new();
        let mut masked = String::new();
        for row in 0..texts.len() {
            let text = texts.value(row);
            let hits = self.hits(text);
            if hits.is_empty() {
                out.append_value(text);
                continue;
            }
            masked.clear();
            let mut at = 0;
            for (start, end, rule) in hits {
                let replacement = self.replacement(rule);
                masked.push_str(&text[at..start]);
                masked.push_str(replacement);
                at = end;
                edits.push(Edit { row, start, end, rule, replacement: replacement.to_owned() });
            }
            masked.push_str(&text[at..]);
            out.append_value(&masked);
        }
        Ok(Modified { text: out.finish(), reasons: None, edits, found: Vec::new() })
    }
}

impl MaskPii {
    fn replacement(&self, rule: &str) -> &str {
        match rule {
            "email" => &self.config.email,
            "ipv4" | "ipv6" => &self.config.ip_address,
            "card" => &self.config.card,
            "iban" => &self.config.iban,
            _ => &self.config.phone,
        }
    }

    /// Returns the hits in `text`, in order, none overlapping another.
    fn hits(&self, text: &str) -> Vec<Hit> {
        let bytes = text.as_bytes();
        let has_digit = bytes.iter().any(u8::is_ascii_digit);
        let has_at = memchr::memchr(b'@', bytes).is_some();
        let mut hits: Vec<Hit> = Vec::new();
        for rule in &*RULES {
            let may_hit = match rule.name {
                "email" => has_at,
                "ipv6" => memchr::memchr(b':', bytes).is_some(),
                _ => has_digit,
            };
            if !may_hit || self.replacement(rule.name).is_empty() {
                continue;
            }
            for found in rule.pattern.find_iter(text) {
                let (start, end) = (found.start(), found.end());
                if let Some(end) = (rule.check)(text, start, end) {
                    hits.push((start, end, rule.name));
                }
            }
        }
        hits.sort_by_key(|&(start, end, _)| (start, std::cmp::Reverse(end)));
        let mut last_end = 0;
        hits.retain(|&(start, end, _)| {
            let is_free = start >= last_end;
            last_end = if is_free { end } else { last_end };
            is_free
        });
        hits
    }
}

/// A pattern and what it cannot say.
struct Rule {
    name: &'static str,
    pattern: Regex,
    /// Returns the end of the hit, nothing when it is none.
    check: fn(text: &str, start: usize, end: usize) -> Option<usize>,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |name, pattern: &str, check| Rule {
        name,
        pattern: Regex::new(pattern).expect("a pattern of this file"),
        check,
    };
    vec![
        // The local part as datatrove and browsers read it, bounded by RFC 5321; quoted local parts are not in use.
        rule(
            "email",
            r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}",
            check_email,
        ),
        rule("ipv4", r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", check_ipv4),
        rule(
            "ipv6",
            r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})?",
            check_ipv6,
        ),
        // Two capitals, two check digits, then groups of four or one run: ISO 13616.
        rule("iban", r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?", check_iban),
        rule("card", r"[0-9](?:[ -]?[0-9]){12,18}", check_card),
        // A separator is required between the groups: numbers without are ids more often than phones.
        rule(
            "phone",
            r"(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-]?[0-9]{4}(?: ?(?:x|ext\.?) ?[0-9]{1,5})?",
            check_phone,
        ),
        rule(
            "phone_international",
            r"\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,5}\)?){1,6}",
            check_international,
        ),
    ]
});

fn char_before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

fn char_after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Whether neither a word nor a digit behind a full stop goes on at either end.
fn is_bounded(text: &str, start: usize, end: usize) -> bool {
    let (before, after) = (char_before(text, start), char_after(text, end));
    let goes_on = |mark: Option<char>, digit: Option<char>| {
        matches!(mark, Some('.' | ',' | '-' | '/' | ':'))
            && digit.is_some_and(|c| c.is_ascii_digit())
    };
    let second_before = before.and_then(|c| char_before(text, start - c.len_utf8()));
    let second_after = after.and_then(|c| char_after(text, end + c.len_utf8()));
    !is_word(before)
        && !is_word(after)
        && !goes_on(before, second_before)
        && !goes_on(after, second_after)
}

/// Endings of files and packages that look like domains.
const NOT_DOMAINS: [&str; 12] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "json", "xml", "pdf"];

fn check_email(text: &str, start: usize, end: usize) -> Option<usize> {
    let (local, domain) = text[start..end].split_once('@')?;
    let top = domain.rsplit('.').next()?;
    let is_dotted_well = !local.starts_with('.') && !local.ends_with('.') && !local.contains("..");
    let is_domain = !NOT_DOMAINS.contains(&top.to_ascii_lowercase().as_str());
    (is_dotted_well && is_domain && !is_word(char_after(text, end))).then_some(end)
}

/// Words before a dotted number that make it a version or a heading.
const NOT_ADDRESSES: [&str; 13] = [
    "version", "ver", "v", "release", "build", "revision", "section", "chapter", "clause", "oid",
    "firmware", "doi", "driver",
];

fn check_ipv4(text: &str, start: usize, end: usize) -> Option<usize> {
    let has_leading_zero =
        text[start..end].split('.').any(|octet| octet.len() > 1 && octet.starts_with('0'));
    let address: Ipv4Addr = text[start..end].parse().ok()?;
    let before = text[..start].trim_end_matches([' ', ':', '#', '.', '=']);
    let word_start = before
        .rfind(|c: char| !c.is_alphanumeric())
        .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
    let word = before[word_start..].to_ascii_lowercase();
    let is_marked = NOT_ADDRESSES.contains(&word.as_str());
    let prefix = matches!(char_before(text, start), Some('.' | '-' | '_' | '/') if !before_is_scheme(text, start));
    // `:` before a port is no border.
    let (before, after) = (char_before(text, start), char_after(text, end));
    let second = after.and_then(|c| char_after(text, end + c.len_utf8()));
    let goes_on =
        matches!(after, Some('.' | '-' | '/')) && second.is_some_and(|c| c.is_ascii_digit());
    let is_free = !prefix && !is_word(before) && !is_word(after) && !goes_on;
    (!has_leading_zero && is_public(address) && !is_marked && is_free).then_some(end)
}

fn before_is_scheme(text: &str, start: usize) -> bool {
    text[..start].ends_with("//")
}

/// Whether an address is one of somebody (IANA special-purpose registry).
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_benchmark = a == 198 && (18..20).contains(&b);
    // A dotted quad that ends in zeros is a version or a network.
    let is_network = d == 0 && c == 0;
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark
        || is_network)
}

fn check_ipv6(text: &str, start: usize, end: usize) -> Option<usize> {
    let hit = &text[start..end];
    let address: Ipv6Addr = hit.parse().ok()?;
    let first = address.segments()[0];
    // Global unicast, unique local and link-local; not the loopback, `::` or times of day.
    let is_personal = (0x2000..0x4000).contains(&first) || (0xfc00..0xfec0).contains(&first);
    let is_documentation = first == 0x2001 && address.segments()[1] == 0x0db8;
    let (before, after) = (char_before(text, start), char_after(text, end));
    let is_free = !is_word(before) && !is_word(after) && before != Some(':') && after != Some(':');
    (is_personal && !is_documentation && is_free).then_some(end)
}

/// Length of an IBAN per country: the registry of ISO 13616 (SWIFT, release 98).
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// Cuts the hit at the length of its country: what follows may look like one more group.
fn check_iban(text: &str, start: usize, end: usize) -> Option<usize> {
    let country = &text[start..start + 2];
    let (_, length) = IBAN_LENGTHS.iter().find(|(known, _)| *known == country)?;
    let places = text[start..end].bytes().enumerate().filter(|&(_, byte)| byte != b' ');
    let last = places.map(|(at, _)| at).nth(length - 1)?;
    let end = start + last + 1;
    let compact: Vec<u8> = text[start..end].bytes().filter(|&byte| byte != b' ').collect();
    let value = |byte: u8| {
        if byte.is_ascii_digit() { u32::from(byte - b'0') } else { u32::from(byte - b'A') + 10 }
    };
    let rotated = compact[4..].iter().chain(&compact[..4]);
    let remainder = rotated.fold(0u32, |sum, &byte| {
        let value = value(byte);
        (sum * if value > 9 { 100 } else { 10 } + value) % 97
    });
    (remainder == 1 && is_bounded(text, start, end)).then_some(end)
}

/// Length and leading digits of the card networks (ISO/IEC 7812): American Express, Diners, Discover, JCB, Mastercard, Visa.
fn is_issuer(digits: &[u8]) -> bool {
    let leading =
        |n: usize| digits[..n].iter().fold(0u32, |value, &digit| value * 10 + u32::from(digit));
    match (digits.len(), leading(1)) {
        (13 | 16 | 19, 4) => true,
        (15, 3) => matches!(leading(2), 34 | 37),
        (14, 3) => matches!(leading(3), 300..=305) || matches!(leading(2), 36 | 38 | 39),
        (16, 3) => (3528..=3589).contains(&leading(4)),
        (16, 5) => (51..=55).contains(&leading(2)),
        (16, 2) => (2221..=2720).contains(&leading(4)),
        (16..=19, 6) => leading(4) == 6011 || (644..=649).contains(&leading(3)) || leading(2) == 65,
        _ => false,
    }
}

fn check_card(text: &str, start: usize, end: usize) -> Option<usize> {
    let hit = &text[start..end];
    let digits: Vec<u8> = hit.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect();
    let doubled = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| u32::from(if place % 2 == 1 { doubled(digit) } else { digit }))
        .sum();
    // One kind of separator, groups as cards print them, or none at all next to a word that says what it is.
    let groups: Vec<usize> = hit.split([' ', '-']).map(str::len).collect();
    let is_grouped = match groups.as_slice() {
        [4, rest @ ..] if rest.len() >= 3 && rest[..rest.len() - 1].iter().all(|&n| n == 4) => true,
        [4, 6, 4 | 5] => true,
        [_] => {
            let context =
                &text[text.floor_char_boundary(start.saturating_sub(60))..start].to_lowercase();
            [
                "card", "visa", "master", "amex", "credit", "debit", "payment", "diners",
                "discover", "jcb",
            ]
            .iter()
            .any(|word| context.contains(word))
        }
        _ => false,
    };
    let has_one_separator = !(hit.contains(' ') && hit.contains('-'));
    let is_valid = sum.is_multiple_of(10) && is_issuer(&digits) && is_grouped && has_one_separator;
    (is_valid && is_bounded(text, start, end)).then_some(end)
}

fn check_phone(text: &str, start: usize, end: usize) -> Option<usize> {
    let hit = &text[start..end];
    let digits: Vec<u8> = hit.bytes().filter(u8::is_ascii_digit).collect();
    // Area codes and exchanges that end in 11 are services: NANP.
    let national = if digits[0] == b'1' { &digits[1..] } else { &digits[..] };
    let is_service = &national[1..3] == b"11";
    let has_separator = hit.trim_start_matches("+1").contains([' ', '.', '-', ')']);
    (!is_service && has_separator && is_bounded(text, start, end)).then_some(end)
}

fn check_international(text: &str, start: usize, end: usize) -> Option<usize> {
    let hit = &text[start..end];
    let n_digits = hit.bytes().filter(u8::is_ascii_digit).count();
    // E.164: at most 15 digits; the shortest in use, with the country code, have 8.
    let has_pairs = hit.matches('(').count() == hit.matches(')').count();
    let fits = (8..=15).contains(&n_digits) && has_pairs;
    (fits && is_bounded(text, start, end)).then_some(end)
}

#[cfg(test)]
mod tests;
