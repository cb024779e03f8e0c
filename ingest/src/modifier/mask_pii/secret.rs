//! Keys and passwords in code and configuration: forms that one service gives out, and values assigned to names that say so.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::Regex;

use super::{Hit, Kind, char_after, char_before, is_word};

/// How a key begins, and what has to follow.
struct Rule {
    name: &'static str,
    beginnings: &'static [&'static str],
    /// Matched from the beginning on; forms as in gitleaks' configuration and the services' own pages.
    pattern: &'static str,
}

/// What a form has to be in bits per character: below it, signs repeat (`xxxx`, `0000`, `AAAA`).
const KEY_BITS_MIN: f64 = 2.5;

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { name: "aws_key", beginnings: &["AKIA", "ASIA", "ABIA", "ACCA"], pattern: r"^[A-Z]{4}[A-Z2-7]{16}" },
    Rule { name: "github_token", beginnings: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], pattern: r"^gh[pousr]_[0-9A-Za-z]{36,251}" },
    Rule { name: "github_token", beginnings: &["github_pat_"], pattern: r"^github_pat_[0-9A-Za-z_]{82}" },
    Rule { name: "gitlab_token", beginnings: &["glpat-"], pattern: r"^glpat-[0-9A-Za-z_-]{20,}" },
    Rule { name: "slack_token", beginnings: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-"], pattern: r"^xox[a-z]-[0-9]{8,14}-[0-9A-Za-z-]{10,250}" },
    Rule { name: "slack_token", beginnings: &["xapp-"], pattern: r"^xapp-[0-9]-[0-9A-Z]+-[0-9]+-[0-9a-f]{32,}" },
    Rule { name: "slack_webhook", beginnings: &["hooks.slack.com/"], pattern: r"^hooks\.slack\.com/(?:services|workflows)/[0-9A-Za-z+/]{43,56}" },
    Rule { name: "google_key", beginnings: &["AIza"], pattern: r"^AIza[0-9A-Za-z_-]{35}" },
    Rule { name: "google_token", beginnings: &["ya29."], pattern: r"^ya29\.[0-9A-Za-z_-]{30,}" },
    Rule { name: "stripe_key", beginnings: &["sk_live_", "rk_live_", "sk_test_", "rk_test_"], pattern: r"^[sr]k_(?:live|test)_[0-9A-Za-z]{16,99}" },
    Rule { name: "openai_key", beginnings: &["sk-"], pattern: r"^sk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z_-]{20,74}T3BlbkFJ[0-9A-Za-z_-]{20,74}" },
    Rule { name: "anthropic_key", beginnings: &["sk-ant-"], pattern: r"^sk-ant-(?:api|admin)[0-9]{2}-[0-9A-Za-z_-]{80,}" },
    Rule { name: "huggingface_token", beginnings: &["hf_"], pattern: r"^hf_[A-Za-z]{34}" },
    Rule { name: "npm_token", beginnings: &["npm_"], pattern: r"^npm_[0-9A-Za-z]{36}" },
    Rule { name: "pypi_token", beginnings: &["pypi-AgEIcHlwaS5vcmc"], pattern: r"^pypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,}" },
    Rule { name: "sendgrid_key", beginnings: &["SG."], pattern: r"^SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}" },
    Rule { name: "shopify_token", beginnings: &["shpat_", "shpca_", "shppa_", "shpss_"], pattern: r"^shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}" },
    Rule { name: "digitalocean_token", beginnings: &["dop_v1_", "doo_v1_", "dor_v1_"], pattern: r"^do[opr]_v1_[0-9a-f]{64}" },
    Rule { name: "jwt", beginnings: &["eyJ"], pattern: r"^eyJ[0-9A-Za-z_-]{14,}\.eyJ[0-9A-Za-z_-]{14,}\.[0-9A-Za-z_-]{10,}" },
    Rule { name: "private_key", beginnings: &["-----BEGIN"], pattern: r"^-----BEGIN[ A-Z0-9]{0,40} PRIVATE KEY(?: BLOCK)?-----" },
];

/// Names whose value is secret.
const NAMES: [&str; 17] = [
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "accesskey",
    "secret",
    "token",
    "password",
    "passwd",
    "auth_key",
    "authkey",
    "private_key",
    "credential",
    "client_key",
    "signing_key",
    "encryption_key",
    "account_key",
];

/// What follows the name up to the value: the rest of the name, a mark of assignment, a quote or none; then the value.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"^[0-9A-Za-z_.\-]{0,20}["']?\]?[ \t]{0,3}(?::=|=>|=|:)[ \t]{0,3}["'`]?([0-9A-Za-z+/_=\-.~!@#$%^&*]{16,128})(?:["'`\s;,)]|$)"#;
    Regex::new(pattern).expect("a pattern of this file")
});

/// Bits per character that random signs have and words and paths do not: gitleaks' rule `generic-api-key`.
const VALUE_BITS_MIN: f64 = 3.5;

static BEGINNINGS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let beginnings = RULES.iter().flat_map(|rule| rule.beginnings.iter()).chain(&NAMES);
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(beginnings)
        .expect("patterns of this file")
});

/// The rule of each beginning, and its pattern.
static PATTERNS: LazyLock<Vec<(&Rule, &str, Regex)>> = LazyLock::new(|| {
    let of = |rule: &'static Rule| {
        let regex = Regex::new(rule.pattern).expect("a pattern of this file");
        rule.beginnings.iter().map(move |beginning| (rule, *beginning, regex.clone()))
    };
    RULES.iter().flat_map(of).collect()
});

/// Pushes the secrets of `text`.
pub(super) fn find(text: &str, hits: &mut Vec<Hit>) {
    let mut done = 0;
    for found in BEGINNINGS.find_overlapping_iter(text) {
        if found.start() < done {
            continue;
        }
        let hit = match PATTERNS.get(found.pattern().as_usize()) {
            Some((rule, beginning, pattern)) => key(text, found.start(), rule, beginning, pattern),
            None => assigned(text, found.end()),
        };
        if let Some(hit) = hit {
            done = hit.end;
            hits.push(hit);
        }
    }
}

fn key(text: &str, start: usize, rule: &Rule, beginning: &str, pattern: &Regex) -> Option<Hit> {
    let rest = &text[start..];
    // The automaton takes both cases for the sake of the names.
    if !rest.starts_with(beginning) || is_word(char_before(text, start)) {
        return None;
    }
    let is_block = rule.name == "private_key";
    let length = pattern.find(rest)?.end();
    let end = start + if is_block { block_end(rest, length)? } else { length };
    let value = &text[start + beginning.len()..end];
    let is_free = is_block || !is_word(char_after(text, end));
    let is_key = is_block || (bits(value) >= KEY_BITS_MIN && !is_placeholder(value));
    (is_free && is_key).then_some(Hit { start, end, kind: Kind::Secret, rule: rule.name })
}

/// Signs of a key block that are worth a hit, and of the largest keys in use.
const BLOCK_BYTES: std::ops::Range<usize> = 64..16_384;

/// Where the block ends whose first line has `head` bytes: behind the line that closes it.
fn block_end(rest: &str, head: usize) -> Option<usize> {
    let body = &rest[head..rest.floor_char_boundary(rest.len().min(head + BLOCK_BYTES.end))];
    let close = memchr::memmem::find(body.as_bytes(), b"-----END")?;
    let label = body[close + 8..].find("-----")?;
    (close >= BLOCK_BYTES.start && label <= 40).then_some(head + close + 8 + label + 5)
}

/// The value assigned to the name that ends at `at`.
fn assigned(text: &str, at: usize) -> Option<Hit> {
    let value = ASSIGNMENT.captures(&text[at..])?.get(1)?;
    let signs = value.as_str();
    let has = |is: fn(&u8) -> bool| signs.bytes().filter(is).count();
    let n_digits = has(u8::is_ascii_digit);
    let is_mixed = n_digits >= 2 && has(u8::is_ascii_alphabetic) >= 4;
    // Calls, members and paths are code that fetches a secret.
    let is_code = signs.contains("..")
        || signs.starts_with(['.', '$', '%', '/', '-', '&', '@', '*'])
        || signs.matches('.').count() > 2;
    let is_secret = is_mixed && !is_code && bits(signs) >= VALUE_BITS_MIN && !is_placeholder(signs);
    is_secret.then(|| Hit {
        start: at + value.start(),
        end: at + value.end(),
        kind: Kind::Secret,
        rule: "assigned_secret",
    })
}

/// Words of documentation in place of a key.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    [
        "example",
        "your",
        "xxxx",
        "changeme",
        "placeholder",
        "dummy",
        "redacted",
        "12345678",
        "abcdef",
        "insert",
        "sample",
        "replace",
    ]
    .iter()
    .any(|word| lower.contains(word))
}

/// Shannon entropy of the signs of `value`, in bits per sign.
fn bits(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    value.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let n = value.len() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / n)
        .map(|p| -p * p.log2())
        .sum()
}
