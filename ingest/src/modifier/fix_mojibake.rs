//! Puts right text that was decoded as something else than it was: `Ã©` for `é`, `â€œ` for a quotation mark.
//!
//! ftfy's steps for encodings, and its decisions: a line is touched only where it holds characters next to each other that hardly stand so in
//! any language, and is then taken back to the bytes of a single-byte encoding and read as UTF-8, if that can be. What else `fix_text` of
//! ftfy does (entities, widths, ligatures, curled quotes) is no mojibake and left alone.

use std::collections::HashMap;
use std::sync::LazyLock;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use regex::Regex;
use regex::bytes::Regex as BytesRegex;
use serde::{Deserialize, Serialize};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "fix_mojibake",
    summary: "repairs text that was read in the wrong encoding",
    source: "ftfy 6.3.1, fix_encoding and fix_c1_controls, line by line as fix_text calls them",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(FixMojibake { config: config::from_table("fix_mojibake", table)? })),
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Takes a blank for the second byte of a character where it completes one: `voilÃ  le` and `voilÃ le`.
    restore_blanks: bool,
    /// Puts U+FFFD for characters of which a byte is lost.
    replace_lossy: bool,
    /// Repairs sequences on their own in a line that cannot be repaired as a whole.
    fix_inside: bool,
}

impl Default for Config {
    fn default() -> Self {
        // ftfy's `TextFixerConfig`.
        Self { restore_blanks: true, replace_lossy: true, fix_inside: true }
    }
}

#[derive(Debug)]
struct FixMojibake {
    config: Config,
}

impl Modifier for FixMojibake {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut edits = Vec::new();
        for row in 0..texts.len() {
            let text = texts.value(row);
            let n_edits = edits.len();
            let fixed =
                if text.is_ascii() { String::new() } else { self.fix(text, row, &mut edits) };
            out.append_value(if edits.len() > n_edits { &fixed } else { text });
        }
        let text = if edits.is_empty() { texts.clone() } else { out.finish() };
        Ok(Modified { text, reasons: None, edits, found: Vec::new() })
    }
}

/// Characters that ftfy looks at at once: a longer line is cut.
const LINE_CHARS_MAX: usize = 1_000_000;

impl FixMojibake {
    /// Returns the repaired text, and pushes what changed.
    fn fix(&self, text: &str, row: usize, edits: &mut Vec<Edit>) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let mut rest = line;
            while !rest.is_empty() {
                let cut = match rest.len() > LINE_CHARS_MAX {
                    true => {
                        rest.char_indices().nth(LINE_CHARS_MAX).map_or(rest.len(), |(at, _)| at)
                    }
                    false => rest.len(),
                };
                let (part, tail) = rest.split_at(cut);
                match self.fix_line(part) {
                    Some(fixed) => {
                        edits.push(edit(row, at, part, &fixed));
                        out.push_str(&fixed);
                    }
                    None => out.push_str(part),
                }
                at += part.len();
                rest = tail;
            }
        }
        out
    }

    /// The repaired line; nothing where it is as it was.
    fn fix_line(&self, line: &str) -> Option<String> {
        if line.is_ascii() || !is_bad(line) {
            return None;
        }
        let mut text = line.to_owned();
        while let Some(fixed) = self.step(&text).filter(|fixed| *fixed != text) {
            text = fixed;
        }
        (text != line).then_some(text)
    }

    /// One step of the repair.
    fn step(&self, text: &str) -> Option<String> {
        if text.is_ascii() || !is_bad(text) {
            return None;
        }
        let decoded = ENCODINGS.iter().find_map(|encoding| {
            let bytes = encoding.encode(text)?;
            self.decode(encoding, bytes)
        });
        if decoded.is_some() {
            return decoded;
        }
        if self.config.fix_inside {
            let fixed = self.fix_inside(text);
            if fixed != text {
                return Some(fixed);
            }
        }
        // What is left of the control characters of Latin-1 is what Windows has in their places, as in browsers.
        let is_control = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
        let windows = &ENCODINGS[WINDOWS_1252];
        let fixed = |c: char| if is_control(c) { windows.upper[c as usize - 0x80] } else { c };
        text.contains(is_control).then(|| text.chars().map(fixed).collect())
    }

    /// Reads `bytes`, which `encoding` gave, as UTF-8.
    fn decode(&self, encoding: &Encoding, mut bytes: Vec<u8>) -> Option<String> {
        // In MacRoman it would match a dash before a blank.
        if self.config.restore_blanks && encoding.name != "macroman" && ALTERED.is_match(&bytes) {
            bytes = restore_blanks(&bytes);
        }
        if self.config.replace_lossy && encoding.is_sloppy {
            bytes = LOSSY.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        if bytes.iter().any(|byte| matches!(byte, 0xed | 0xc0)) {
            bytes = joined_surrogates(&bytes);
        }
        String::from_utf8(bytes).ok()
    }

    /// Repairs the sequences of `text` that look like UTF-8 read as something else, each alone.
    fn fix_inside(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut copied, mut from) = (0, 0);
        while let Some(found) = PATTERNS.utf8.find_at(text, from) {
            let before = text[..found.start()].chars().next_back();
            let mut buffer = [0; 4];
            if before.is_some_and(|c| PATTERNS.not_before_utf8.is_match(c.encode_utf8(&mut buffer)))
            {
                // A garble goes on here; it may end before the match does.
                from = found.start() + found.as_str().chars().next().map_or(1, char::len_utf8);
                continue;
            }
            // What is the whole text was tried as such.
            if found.len() < text.len()
                && let Some(fixed) = self.fix_line(found.as_str())
            {
                out.push_str(&text[copied..found.start()]);
                out.push_str(&fixed);
                copied = found.end();
            }
            from = found.end();
        }
        out.push_str(&text[copied..]);
        out
    }
}

/// The edit from `old`, which begins at `offset`, to `new`: without what both begin and end with.
fn edit(row: usize, offset: usize, old: &str, new: &str) -> Edit {
    let same = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| {
        a.zip(b).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum::<usize>()
    };
    let head = same(&mut old.chars(), &mut new.chars());
    let tail = same(&mut old[head..].chars().rev(), &mut new[head..].chars().rev());
    Edit {
        row,
        start: offset + head,
        end: offset + old.len() - tail,
        rule: "mojibake",
        replacement: new[head..new.len() - tail].to_owned(),
    }
}

struct Patterns {
    /// Characters next to each other that hardly stand so in any language.
    badness: Regex,
    /// Sequences that would be UTF-8 in the bytes of some encoding.
    utf8: Regex,
    /// What such a sequence must not stand behind.
    not_before_utf8: Regex,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let table = include_str!("../../data/ftfy-patterns.tsv");
    let pattern = |name: &str| {
        let line =
            table.lines().filter_map(|line| line.split_once('\t')).find(|(key, _)| *key == name);
        let (_, pattern) = line.expect("a pattern of `ftfy-patterns.tsv`");
        regex::RegexBuilder::new(pattern)
            .dfa_size_limit(32 << 20)
            .build()
            .expect("a pattern of `ftfy-patterns.tsv`")
    };
    Patterns {
        badness: pattern("badness"),
        utf8: pattern("utf8"),
        not_before_utf8: pattern("not_before_utf8"),
    }
});

fn is_bad(text: &str) -> bool {
    PATTERNS.badness.is_match(text)
}

/// A single-byte encoding that text is read in by mistake.
#[derive(Debug)]
struct Encoding {
    name: &'static str,
    /// Its unassigned bytes are control characters, and its byte 1A stands for U+FFFD.
    is_sloppy: bool,
    /// The characters of bytes 80 to FF.
    upper: Vec<char>,
    bytes: HashMap<char, u8>,
}

/// The place of Windows-1252 in the list.
const WINDOWS_1252: usize = 1;

/// In the order in which they are tried.
static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let code = |hex: &str| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
    let encoding = |line: &'static str| {
        let (name, chars) = line.split_once('\t').expect("two columns in `ftfy-charmaps.tsv`");
        let upper: Vec<char> =
            chars.split(' ').map(|hex| code(hex).expect("a character")).collect();
        let bytes = upper.iter().copied().zip(0x80..=0xff).collect();
        Encoding { name, is_sloppy: name.starts_with("sloppy-"), upper, bytes }
    };
    include_str!("../../data/ftfy-charmaps.tsv").lines().map(encoding).collect()
});

impl Encoding {
    /// The bytes of `text`; nothing where it has a character that the encoding lacks.
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars()
            .map(|c| match c {
                '\u{1a}' if self.is_sloppy => None,
                '\u{fffd}' if self.is_sloppy => Some(0x1a),
                '\0'..='\u{7f}' => u8::try_from(c).ok(),
                _ => self.bytes.get(&c).copied(),
            })
            .collect()
    }
}

fn bytes_regex(pattern: &str) -> BytesRegex {
    BytesRegex::new(pattern).expect("a pattern of this file")
}

/// ftfy's `ALTERED_UTF8_RE`: UTF-8 in which byte A0 has become a blank.
static ALTERED: LazyLock<BytesRegex> = LazyLock::new(|| {
    bytes_regex(concat!(
        r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
        r"|[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
        r"|[\xf0][ ][\x80-\xbf][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][ ][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][\x80-\xbf][ ]",
    ))
});

/// ftfy's `LOSSY_UTF8_RE`: UTF-8 in which bytes have become U+FFFD or, once, a question mark.
static LOSSY: LazyLock<BytesRegex> = LazyLock::new(|| {
    bytes_regex(concat!(
        r"(?-u)[\xc2-\xdf][\x1a]",
        r"|[\xc2-\xc3][?]",
        r"|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"|\x1a",
    ))
});

/// Puts byte A0 where a blank stands for it. `à` alone keeps its blank, but not in front of Portuguese `quele` and `s`.
fn restore_blanks(bytes: &[u8]) -> Vec<u8> {
    let mut words = Vec::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let is_blank = byte == b' ' && at > 0 && bytes[at - 1] == 0xc3;
        let is_word = || {
            let not: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
            !not.iter().any(|follows| bytes[at + 1..].starts_with(follows))
        };
        if is_blank && is_word() {
            words.push(0xa0);
        }
        words.push(byte);
    }
    let restored = |found: &regex::bytes::Captures<'_>| -> Vec<u8> {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect()
    };
    ALTERED.replace_all(&words, restored).into_owned()
}

/// `bytes` with pairs of surrogates as the character they stand for (CESU-8), and `C0 80` as the null that it is in Java.
fn joined_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let length = match *rest {
            [0xc0, 0x80, ..] => {
                out.push(0);
                2
            }
            [
                0xed,
                a @ 0xa0..=0xaf,
                b @ 0x80..=0xbf,
                0xed,
                c @ 0xb0..=0xbf,
                d @ 0x80..=0xbf,
                ..,
            ] => {
                let bits = |byte: u8, mask: u8| u32::from(byte & mask);
                let code = (bits(a, 0x0f) << 16)
                    + (bits(b, 0x3f) << 10)
                    + (bits(c, 0x0f) << 6)
                    + bits(d, 0x3f);
                let c =
                    char::from_u32(code + 0x1_0000).expect("above the surrogates, below 11 0000");
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                6
            }
            _ => {
                out.push(byte);
                1
            }
        };
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modifier::tests::modified;

    /// Cases of ftfy's own tests and what `fix_text` with its encoding steps alone makes of them; see `tests/golden/ftfy`.
    #[test]
    fn repairs_what_ftfy_repairs_as_ftfy_does() {
        let mut n = 0;
        for line in include_str!("../../../tests/golden/ftfy/expected.jsonl").lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let [text, expected] = ["text", "fixed"].map(|key| row[key].as_str().unwrap());
            let fixed = modified(&KIND, "", &[text]);
            assert_eq!(fixed.text.value(0), expected, "{text:?}");
            n += 1;
        }
        eprintln!("{n} texts");
        assert!(n >= 300, "rows of the table");
    }

    #[test]
    fn leaves_correct_text_alone() {
        // Sentences of the languages whose letters mojibake is made of.
        for text in [
            "Ça été à Évian, où l’on naïvement «causait» — 20 €",
            "Ångström, Übermäßig größe, Ærø; ¡Niño! ¿Qué? São Tomé",
            "Příliš žluťoučký kůň úpěl ďábelské ódy",
            "Съешь же ещё этих мягких французских булок",
            "Ελληνικά, עברית, العربية, ไทย, 日本語, 한국어",
        ] {
            let fixed = modified(&KIND, "", &[text]);
            assert_eq!((fixed.text.value(0), fixed.edits.len()), (text, 0));
        }
    }

    #[test]
    fn says_what_changed_in_which_line() {
        let fixed = modified(&KIND, "", &["fine\nthe cafÃ© there\nfine"]);
        assert_eq!(fixed.text.value(0), "fine\nthe café there\nfine");
        let edit =
            Edit { row: 0, start: 12, end: 16, rule: "mojibake", replacement: "é".to_owned() };
        assert_eq!(fixed.edits, [edit]);
    }
}
