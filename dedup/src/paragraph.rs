//! Paragraphs that stood somewhere before.
//!
//! What a paragraph is, what of it counts and which copies go is the profile's: dolma compares lines as they are and
//! keeps the first; CCNet compares them without case, digits' values and some punctuation, and keeps none that two documents share.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use xxhash_rust::xxh3::xxh3_128;

use crate::span::{Emit, Piece, Pieces, find_pieces, offset};
use crate::{Bloom, Finds, MethodKind, Result, SpanMethod, SpillWriter};

pub(crate) const KIND: MethodKind = MethodKind {
    name: "paragraph",
    summary: "paragraphs that stood before",
    source: "dolma's and CCNet's (Wenzek et al. 2020) paragraph deduplication, exact unless `bloom` is given",
    finds: Finds::Spans(|table, _| {
        let config: Config = crate::parse_table("paragraph", table)?;
        config.check()?;
        Ok(Box::new(config))
    }),
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("paragraph", table)?.check(),
};

/// Settings of the search for repeated paragraphs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
pub struct Config {
    /// Whose defaults the other keys have.
    pub profile: Profile,
    /// What a paragraph is.
    pub unit: Unit,
    /// What does not count when paragraphs are compared.
    pub normalize: Normalize,
    /// Paragraphs of fewer characters are left alone, white space at both ends not counted.
    pub min_chars: usize,
    /// Paragraphs of fewer words are left alone.
    pub min_words: usize,
    /// Whether paragraphs of nothing but white space are compared too.
    pub empty: bool,
    /// Whether the first occurrence stays; if not, it goes too as soon as a second document has the paragraph.
    pub keep_first: bool,
    /// A search by Bloom filters, `{ false_positive_rate = 1e-5 }`; exact without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bloom: Option<Bloom>,
}

/// Whose defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Lines of 50 characters or more, apart from case and white space.
    #[default]
    Gristmill,
    /// dolma's `dedupe` with `paragraphs` and `skip_empty`: lines, to the byte.
    Dolma,
    /// CCNet's: lines as it normalises them, by the first 64 bits of SHA-1; what two documents share goes from both.
    Ccnet,
}

/// What a paragraph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What stands between two line ends.
    Line,
    /// What stands between two blank lines.
    Block,
}

/// What does not count when texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Every byte counts.
    None,
    /// Case, Unicode composition, and how wide white space is: as in [`crate::exact`].
    Words,
    /// CCNet's: case, the values of digits, control characters and the punctuation that it lists.
    Ccnet,
}

/// [`Config`] as a job says it: what it leaves out is the profile's.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    profile: Profile,
    unit: Option<Unit>,
    normalize: Option<Normalize>,
    min_chars: Option<usize>,
    min_words: Option<usize>,
    empty: Option<bool>,
    keep_first: Option<bool>,
    bloom: Option<Bloom>,
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        let profile = settings.profile;
        let (normalize, min_chars, empty, keep_first) = match profile {
            // Shorter lines repeat without being copied: headings, items, lines of code.
            Profile::Gristmill => (Normalize::Words, 50, false, true),
            Profile::Dolma => (Normalize::None, 0, false, true),
            Profile::Ccnet => (Normalize::Ccnet, 0, true, false),
        };
        Self {
            profile,
            unit: settings.unit.unwrap_or(Unit::Line),
            normalize: settings.normalize.unwrap_or(normalize),
            min_chars: settings.min_chars.unwrap_or(min_chars),
            min_words: settings.min_words.unwrap_or(0),
            empty: settings.empty.unwrap_or(empty),
            keep_first: settings.keep_first.unwrap_or(keep_first),
            bloom: settings.bloom,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Settings::default().into()
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        self.bloom.map_or(Ok(()), |bloom| bloom.check("paragraph", self.keep_first))
    }

    fn is_compared(&self, paragraph: &str) -> bool {
        let trimmed = paragraph.trim();
        (self.empty || !trimmed.is_empty())
            && has_at_least(trimmed.chars(), self.min_chars)
            && has_at_least(trimmed.split_whitespace(), self.min_words)
    }
}

fn has_at_least(items: impl Iterator, n: usize) -> bool {
    n == 0 || items.take(n).count() == n
}

impl SpanMethod for Config {
    fn config(&self) -> toml::Table {
        toml::Table::try_from(self).expect("settings are plain values")
    }

    fn spill(&self, row: u32, text: &str, writer: &mut SpillWriter) -> Result<()> {
        let mut normalised = String::new();
        let mut start = 0;
        for paragraph in paragraphs(text, self.unit) {
            let end = start + paragraph.len();
            let content = paragraph.strip_suffix('\n').unwrap_or(paragraph);
            if self.is_compared(content) {
                let content = match self.unit {
                    Unit::Line => content,
                    Unit::Block => content.trim(),
                };
                let key = self.normalize.key(content, &mut normalised);
                Piece { key, row, start: offset(start), end: offset(end) }.spill(writer)?;
            }
            start = end;
        }
        Ok(())
    }

    fn find(&self, pieces: Pieces<'_>, table_bytes: u64, emit: Emit<'_>) -> Result<()> {
        match self.bloom {
            Some(bloom) => bloom.find("paragraph", pieces, table_bytes, emit),
            None => find_pieces(pieces, table_bytes, self.keep_first, emit),
        }
    }

    fn stated(&self, bytes: u64) -> Option<String> {
        self.bloom.map(|bloom| bloom.stated(bytes / Piece::BYTES as u64))
    }
}

/// Returns the paragraphs in order, each with the line end behind it; together they are the text.
fn paragraphs(text: &str, unit: Unit) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = line_end(rest, 0);
        if unit == Unit::Block {
            // A block ends behind the blank lines that follow it.
            let mut is_open = rest[..end].trim().is_empty();
            while end < rest.len() {
                let next = line_end(rest, end);
                let is_blank = rest[end..next].trim().is_empty();
                if !is_blank && !is_open && rest[..end].ends_with_blank_line() {
                    break;
                }
                is_open &= is_blank;
                end = next;
            }
        }
        let (paragraph, left) = rest.split_at(end);
        rest = left;
        Some(paragraph)
    })
}

fn line_end(text: &str, start: usize) -> usize {
    text[start..].find('\n').map_or(text.len(), |at| start + at + 1)
}

trait EndsWithBlankLine {
    fn ends_with_blank_line(&self) -> bool;
}

impl EndsWithBlankLine for str {
    fn ends_with_blank_line(&self) -> bool {
        let line = self.strip_suffix('\n').unwrap_or(self);
        line.rsplit_once('\n').is_some_and(|(_, last)| last.trim().is_empty())
    }
}

impl Normalize {
    /// Returns the key of a text; `normalised` is space to work in.
    pub(crate) fn key(self, text: &str, normalised: &mut String) -> u128 {
        match self {
            Self::None => xxh3_128(text.as_bytes()),
            Self::Words => {
                crate::exact::normalise(text, normalised);
                xxh3_128(normalised.as_bytes())
            }
            Self::Ccnet => {
                let hash = ccnet_hash(text);
                // The other half spreads the keys of a partition; it says nothing more.
                (u128::from(crate::mix::finalise(hash)) << 64) | u128::from(hash)
            }
        }
    }
}

/// CCNet's hash of a line: the first eight bytes of the SHA-1 of its normalised form, little-endian.
fn ccnet_hash(line: &str) -> u64 {
    let digest = Sha1::digest(ccnet_normalise(line).as_bytes());
    u64::from_le_bytes(*digest.first_chunk().expect("SHA-1 has twenty bytes"))
}

/// A line as CCNet's `normalize_for_dedup` gives it back.
fn ccnet_normalise(line: &str) -> Cow<'_, str> {
    // The punctuation that CCNet lists, and its control characters.
    static GOES: LazyLock<Regex> = LazyLock::new(|| {
        let listed = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►";
        Regex::new(&format!("[{listed}\\x00-\\x1f\\x7f-\\u{{9f}}]"))
            .expect("it is a character class")
    });
    static DIGIT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\d").expect("it is a character class"));
    let line = line.trim_matches(is_python_space);
    if line.is_ascii() {
        let normalised =
            line.bytes().filter(|byte| (0x20..0x7f).contains(byte)).map(|byte| match byte {
                b'0'..=b'9' => '0',
                byte => char::from(byte.to_ascii_lowercase()),
            });
        return Cow::Owned(normalised.collect());
    }
    let line = line.to_lowercase();
    let line = DIGIT.replace_all(&line, "0").into_owned();
    Cow::Owned(GOES.replace_all(&line, "").into_owned())
}

/// White space as Python's `str.strip` takes it: Unicode's and four separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Repeat;
    use crate::span::tests::{LAYOUTS, run};

    #[test]
    fn the_first_of_equal_lines_stays() {
        let texts = ["one\ntwo\n\none\n", "two\nTWO\n\nthree", "three"];
        let repeat = |row, start, end, kept| Repeat { row, start, end, kept: Some(kept) };
        let expected =
            vec![repeat(0, 9, 13, (0, 0)), repeat(1, 0, 4, (0, 4)), repeat(2, 0, 5, (1, 9))];
        for layout in LAYOUTS {
            assert_eq!(run("paragraph", "profile = 'dolma'", &texts, layout), expected);
        }
        let words = run("paragraph", "normalize = 'words'\nmin_chars = 0", &texts, LAYOUTS[0]);
        assert!(words.contains(&repeat(1, 4, 8, (0, 4))));
        assert_eq!(run("paragraph", "", &texts, LAYOUTS[0]), [], "all of them are short");
        let long = run("paragraph", "profile = 'dolma'\nmin_chars = 5", &texts, LAYOUTS[0]);
        assert_eq!(long, [repeat(2, 0, 5, (1, 9))]);
        let words = run("paragraph", "profile = 'dolma'\nmin_words = 2", &texts, LAYOUTS[0]);
        assert_eq!(words, []);
    }

    #[test]
    fn blocks_lie_between_blank_lines() {
        let split = |text| paragraphs(text, Unit::Block).collect::<Vec<_>>();
        assert_eq!(split("a\nb\n\n \nc\n\nd"), ["a\nb\n\n \n", "c\n\n", "d"]);
        assert_eq!(split("\n\na\n"), ["\n\na\n"]);
        assert_eq!(split("\n \n"), ["\n \n"]);
        let texts = ["a\nb\n\nc", "c\n\na\nb"];
        let found = run("paragraph", "unit = 'block'\nmin_chars = 0", &texts, LAYOUTS[1]);
        let repeat = |row, start, end, kept| Repeat { row, start, end, kept: Some(kept) };
        assert_eq!(found, [repeat(1, 0, 3, (0, 5)), repeat(1, 3, 6, (0, 0))]);
    }

    #[test]
    fn ccnet_takes_a_line_of_two_documents_from_both() {
        let texts = ["Page 12\nown\nown\nx", "page 34!\nother", "PAGE 5６！"];
        // `!` counts, its wide form does not.
        let found = run("paragraph", "profile = 'ccnet'", &texts, LAYOUTS[2]);
        let repeat = |row, start, end, kept| Repeat { row, start, end, kept };
        let expected = [
            repeat(0, 0, 8, None),
            repeat(0, 12, 16, Some((0, 8))),
            repeat(2, 0, u32::try_from(texts[2].len()).unwrap(), None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn ccnet_hashes_are_those_of_its_own_code() {
        // From CCNet's `normalize_for_dedup` and `str_hash`, run under Python 3.11.
        for (line, normalised, hash) in CCNET {
            assert_eq!(ccnet_normalise(line), *normalised, "{line:?}");
            assert_eq!(ccnet_hash(line), *hash, "{line:?}");
        }
    }

    const CCNET: &[(&str, &str, u64)] = &[
        ("", "", 0xd4b6b5eeea339da),
        ("  Copyright 2019, ACME Inc.  ", "copyright 0000, acme inc.", 0xf0883a645c9d40b2),
        ("Ça coûte 12,50 € – “vraiment”…", "ça coûte 00,00 €  vraiment", 0xaa265dc11c362ecb),
        ("ΟΔΟΣ ΚΑΛΟΣ", "οδος καλος", 0xf13e6c1518e7aae3),
        ("İstanbul №5", "i̇stanbul №0", 0x5a4bea8aec0d73f4),
        ("价格：１２３元！", "价格000元", 0xb81001079bcd0123),
        ("\u{1c}\u{9}Tab\u{9}here\u{7f}\u{85} end\u{2003}", "tabhere end", 0x397dcc70b9ca37f0),
        ("٣٤ ½ ² Ⅷ", "00 ½ ² ⅷ", 0x8ae73becdcfc8433),
        ("Don’t 'stop' (now).", "dont 'stop' (now).", 0x37afd0d206c7fa46),
    ];

    proptest! {
        #[test]
        fn paragraphs_together_are_the_text(text in "[ab \n]{0,40}") {
            for unit in [Unit::Line, Unit::Block] {
                prop_assert_eq!(paragraphs(&text, unit).collect::<String>(), text.clone());
            }
        }

        #[test]
        fn what_is_found_is_what_a_set_of_all_lines_finds(texts in prop::collection::vec("[ab\n ]{0,12}", 0..12)) {
            let mut seen = std::collections::BTreeMap::new();
            let mut expected = Vec::new();
            for (row, text) in (0..).zip(&texts) {
                let mut start = 0;
                for line in text.split('\n') {
                    let end = (start + line.len() + 1).min(text.len());
                    let place = (row, offset(start));
                    if !line.trim().is_empty() {
                        let first = *seen.entry(line).or_insert(place);
                        if first != place {
                            expected.push(Repeat { row, start: place.1, end: offset(end), kept: Some(first) });
                        }
                    }
                    start = end;
                }
            }
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            for layout in LAYOUTS {
                prop_assert_eq!(&run("paragraph", "profile = 'dolma'", &texts, layout), &expected);
            }
        }
    }
}
