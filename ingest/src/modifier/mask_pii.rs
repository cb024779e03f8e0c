//! Replaces what identifies or reaches a person: e-mail and IP addresses, phone, card and account numbers, national ids, and
//! secrets that open something.
//!
//! One pass over the bytes of a text stops at `@`, `:`, digits and the beginnings of keys; what stands there is parsed by hand and
//! then judged by what a pattern cannot say: checksums, number ranges, lengths of a country, what stands around it. A form that has
//! no checksum, or a weak one, counts only behind a word that says what it is (`phone`, `card`, `Steuer-ID`). Where hits overlap,
//! the one that begins first counts, then the longest. Names of persons are not looked for: no list or rule finds them without
//! taking words for names, and no model of them is part of this project.

mod account;
mod address;
mod fake;
mod national_id;
mod phone;
mod profile;
mod secret;

use std::borrow::Cow;

use arrow::array::{Array, StringBuilder, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "mask_pii",
    summary: "replaces e-mail and IP addresses, phone, card and account numbers, national ids and secrets",
    source: "RFC 5321, RFC 4291, IANA special-purpose registries, E.164 and libphonenumber 9.0.43 (lengths), ISO/IEC 7812 (Luhn), \
             ISO 13616 (mod 97), each state's own rules for its ids, gitleaks (forms of keys); profiles `datatrove`: datatrove \
             0.10.1, PIIFormatter; `dolma`: dolma 1.2.1, pii_regex_with_counts_fast_v2, and its 1.5 mix",
    reasons: &[TOO_MANY_HITS],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(MaskPii::new(Config::read(table)?)?)),
};

const TOO_MANY_HITS: &str = "too_many_hits";

/// Which kinds are looked for and what stands in their place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Empty for our own rules; `datatrove` or `dolma` for e-mail addresses, IP addresses and (dolma) phone numbers as these find them.
    profile: String,
    /// `replace` puts the strings below; `fake` puts a made-up value of the same form, the same for the same value and seed.
    mode: String,
    /// Key of the made-up values: who does not know it cannot ask whether a value was in the text.
    seed: u64,
    /// What stands in place of each kind, or several such strings that take turns in each document. An empty one switches the kind off.
    email: Replacement,
    ip_address: Replacement,
    phone: Replacement,
    card: Replacement,
    iban: Replacement,
    national_id: Replacement,
    secret: Replacement,
    /// The ids that are looked for, by the names under which `edits` has them.
    national_ids: Vec<String>,
    /// Whether addresses count that are nobody's alone: private networks, loopback, documentation, benchmarks.
    private_addresses: bool,
    /// A document with more hits is dropped as `too_many_hits`; 0 drops none.
    max_hits: u64,
}

/// One string, or several that take turns.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
enum Replacement {
    One(String),
    InTurn(Vec<String>),
}

impl From<&str> for Replacement {
    fn from(text: &str) -> Self {
        Self::One(text.to_owned())
    }
}

impl Replacement {
    /// The string for the hit number `n` of its kind in a document; nothing where the kind is off.
    fn nth(&self, n: usize) -> Option<&str> {
        let text = match self {
            Self::One(text) => text,
            Self::InTurn(list) => list.get(n % list.len().max(1))?,
        };
        (!text.is_empty()).then_some(text)
    }
}

impl Default for Config {
    fn default() -> Self {
        // Tags in the manner of BigCode's `<EMAIL>` and `<KEY>`: a model learns the kind and no false value.
        Self {
            profile: String::new(),
            mode: "replace".to_owned(),
            seed: 0,
            email: "<EMAIL>".into(),
            ip_address: "<IP_ADDRESS>".into(),
            phone: "<PHONE>".into(),
            card: "<CARD>".into(),
            iban: "<IBAN>".into(),
            national_id: "<NATIONAL_ID>".into(),
            secret: "<KEY>".into(),
            national_ids: national_id::names().map(str::to_owned).collect(),
            private_addresses: false,
            max_hits: 0,
        }
    }
}

impl Config {
    fn read(table: &toml::Table) -> Result<Self> {
        config::from_profile("mask_pii", table, |asked: &Self| match asked.profile.as_str() {
            "datatrove" => profile::datatrove(),
            "dolma" => profile::dolma(),
            // An unknown name is refused in `MaskPii::new`.
            _ => Self::default(),
        })
    }

    fn replacement(&self, kind: Kind) -> &Replacement {
        match kind {
            Kind::Email => &self.email,
            Kind::IpAddress => &self.ip_address,
            Kind::Phone => &self.phone,
            Kind::Card => &self.card,
            Kind::Iban => &self.iban,
            Kind::NationalId => &self.national_id,
            Kind::Secret => &self.secret,
        }
    }
}

/// What a hit is; the rule that found it is finer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Email,
    IpAddress,
    Phone,
    Card,
    Iban,
    NationalId,
    Secret,
}

const N_KINDS: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hit {
    start: usize,
    end: usize,
    kind: Kind,
    rule: &'static str,
}

#[derive(Debug)]
struct MaskPii {
    config: Config,
    is_on: [bool; N_KINDS],
    national_ids: national_id::Finder,
    is_fake: bool,
}

impl MaskPii {
    fn new(config: Config) -> Result<Self> {
        let one_of = |key: &str, value: &str, known: &[&str]| match known.contains(&value) {
            true => Ok(()),
            false => Err(config::invalid(
                "mask_pii",
                format!("`{key}` is `{value}`\nhint: it takes `{}`", known.join("`, `")),
            )),
        };
        one_of("profile", &config.profile, &["", "datatrove", "dolma"])?;
        one_of("mode", &config.mode, &["replace", "fake"])?;
        let national_ids = national_id::Finder::new(&config.national_ids)?;
        let kinds = [
            Kind::Email,
            Kind::IpAddress,
            Kind::Phone,
            Kind::Card,
            Kind::Iban,
            Kind::NationalId,
            Kind::Secret,
        ];
        let is_on = kinds.map(|kind| config.replacement(kind).nth(0).is_some());
        let is_fake = config.mode == "fake";
        Ok(Self { config, is_on, national_ids, is_fake })
    }

    fn is_on(&self, kind: Kind) -> bool {
        self.is_on[kind as usize]
    }

    /// Returns the hits in `text`, in order, none overlapping another, and how many there were before those that overlap went.
    fn hits(&self, text: &str) -> (Vec<Hit>, usize) {
        let mut hits = match self.config.profile.as_str() {
            "datatrove" => profile::datatrove_hits(text, !self.config.private_addresses),
            "dolma" => profile::dolma_hits(text),
            _ => self.own_hits(text),
        };
        hits.retain(|hit| self.is_on(hit.kind));
        let n_found = hits.len();
        hits.sort_by_key(|hit| (hit.start, std::cmp::Reverse(hit.end)));
        let mut last_end = 0;
        hits.retain(|hit| {
            let is_free = hit.start >= last_end;
            last_end = if is_free { hit.end } else { last_end };
            is_free
        });
        (hits, n_found)
    }

    fn own_hits(&self, text: &str) -> Vec<Hit> {
        let bytes = text.as_bytes();
        let mut hits = Vec::new();
        if self.is_on(Kind::Email) {
            let found = memchr::memchr_iter(b'@', bytes).filter_map(|at| address::email(text, at));
            hits.extend(found);
        }
        if self.is_on(Kind::IpAddress) {
            address::ipv6(text, self.config.private_addresses, &mut hits);
        }
        if self.is_on(Kind::Secret) {
            secret::find(text, &mut hits);
        }
        let mut at = 0;
        while let Some(distance) = bytes[at..].iter().position(u8::is_ascii_digit) {
            let start = at + distance;
            let run = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            at = match self.number(text, start, run) {
                Some(hit) => {
                    hits.push(hit);
                    // Not inside of what was found, but behind this run in any case.
                    hit.end.max(start + run)
                }
                None => start + run,
            };
        }
        hits
    }

    /// The hit whose first run of digits is the `run` digits at `start`.
    fn number(&self, text: &str, start: usize, run: usize) -> Option<Hit> {
        let number = Number::new(text, start, run);
        if run <= 3
            && number.n_dots >= 3
            && self.is_on(Kind::IpAddress)
            && let Some(hit) = address::ipv4(text, start, self.config.private_addresses)
        {
            return Some(hit);
        }
        if run >= 2
            && self.is_on(Kind::Iban)
            && let Some(hit) = account::iban(text, start)
        {
            return Some(hit);
        }
        if number.n_digits >= 12
            && self.is_on(Kind::Card)
            && let Some(hit) = account::card(text, &number)
        {
            return Some(hit);
        }
        if self.is_on(Kind::NationalId)
            && let Some(hit) = self.national_ids.find(text, &number)
        {
            return Some(hit);
        }
        if number.n_digits >= 7 && self.is_on(Kind::Phone) {
            phone::find(text, &number)
        } else {
            None
        }
    }
}

/// Digits and the marks that may stand between them, from the first digit on.
#[derive(Clone, Copy, Debug)]
struct Number {
    start: usize,
    /// Behind the last digit.
    end: usize,
    /// Digits of the first run.
    run: usize,
    n_digits: usize,
    n_dots: usize,
}

/// No number that counts here is longer.
const NUMBER_BYTES_MAX: usize = 48;

impl Number {
    fn new(text: &str, start: usize, run: usize) -> Self {
        let bytes = text.as_bytes();
        let mut number = Self { start, end: start + run, run, n_digits: run, n_dots: 0 };
        let (mut n_marks, mut n_dots) = (0, 0);
        let limit = bytes.len().min(start + NUMBER_BYTES_MAX);
        for (at, byte) in bytes.iter().enumerate().take(limit).skip(start + run) {
            match byte {
                b'0'..=b'9' => {
                    number.end = at + 1;
                    number.n_digits += 1;
                    number.n_dots += n_dots;
                    (n_marks, n_dots) = (0, 0);
                }
                b' ' | b'-' | b'.' | b'/' | b'(' | b')' if n_marks < 3 => {
                    n_marks += 1;
                    n_dots += usize::from(*byte == b'.');
                }
                _ => break,
            }
        }
        number
    }
}

impl Modifier for MaskPii {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut reasons = StringBuilder::new();
        let mut edits = Vec::new();
        let mut masked = String::new();
        for row in 0..texts.len() {
            let text = texts.value(row);
            let (hits, n_found) = self.hits(text);
            let is_dropped = self.config.max_hits > 0 && n_found as u64 > self.config.max_hits;
            reasons.append_option(is_dropped.then_some(TOO_MANY_HITS));
            if hits.is_empty() || is_dropped {
                out.append_value(text);
                continue;
            }
            masked.clear();
            let mut at = 0;
            let mut n_of_kind = [0; N_KINDS];
            for Hit { start, end, kind, rule } in hits {
                let n = &mut n_of_kind[kind as usize];
                let Some(replacement) = self.replacement(kind, rule, &text[start..end], *n) else {
                    continue;
                };
                *n += 1;
                masked.push_str(&text[at..start]);
                masked.push_str(&replacement);
                at = end;
                edits.push(Edit { row, start, end, rule, replacement: replacement.into_owned() });
            }
            masked.push_str(&text[at..]);
            out.append_value(&masked);
        }
        // Most batches hold nothing: their views are handed on, not copied.
        let text = if edits.is_empty() { texts.clone() } else { out.finish() };
        let reasons = (self.config.max_hits > 0).then(|| reasons.finish());
        Ok(Modified { text, reasons, edits, found: Vec::new() })
    }
}

impl MaskPii {
    /// What stands in place of `value`; nothing where it is made up already.
    fn replacement(&self, kind: Kind, rule: &str, value: &str, n: usize) -> Option<Cow<'_, str>> {
        if self.is_fake {
            return fake::value(kind, rule, value, self.config.seed).map(Cow::Owned);
        }
        self.config.replacement(kind).nth(n).map(Cow::Borrowed)
    }
}

// What stands around a hit.

fn char_before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

fn char_after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Whether neither a word nor a digit behind a mark goes on at either end.
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

/// The text before `at`, at most `n_bytes` of it, in lower case.
fn context_before(text: &str, at: usize, n_bytes: usize) -> String {
    text[text.floor_char_boundary(at.saturating_sub(n_bytes))..at].to_lowercase()
}

/// The text behind `at`, at most `n_bytes` of it, in lower case.
fn context_after(text: &str, at: usize, n_bytes: usize) -> String {
    text[at..text.floor_char_boundary((at + n_bytes).min(text.len()))].to_lowercase()
}

/// Whether one of `words` begins a word of `context`, which is in lower case.
fn has_word(context: &str, words: &[&str]) -> bool {
    words.iter().any(|word| {
        context.match_indices(word).any(|(at, _)| !context[..at].ends_with(char::is_alphanumeric))
    })
}

#[cfg(test)]
mod tests;
