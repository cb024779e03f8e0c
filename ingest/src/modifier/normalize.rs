//! Gives equal text equal bytes: composed characters, one kind of line end, no control characters, no stray white space.

use std::borrow::Cow;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "normalize",
    summary: "composed Unicode, line feeds, no control characters, no trailing or piled-up white space",
    source: "Unicode Standard Annex 15 (NFC)",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Normalize { config: config::from_table("normalize", table)? })),
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Composes characters: `e` and an acute become `é`.
    nfc: bool,
    /// Blank lines that may follow each other.
    max_blank_lines: u64,
}

impl Default for Config {
    fn default() -> Self {
        // NFC is what the web is written in (W3C Character Model, section 3). RefinedWeb lets two line feeds follow each other,
        // which is one blank line; two keep the sections of plain-text books apart.
        Self { nfc: true, max_blank_lines: 2 }
    }
}

#[derive(Debug)]
struct Normalize {
    config: Config,
}

impl Modifier for Normalize {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        for row in 0..texts.len() {
            out.append_value(self.normalize(texts.value(row)));
        }
        Ok(Modified { text: out.finish(), reasons: None, edits: Vec::new(), found: Vec::new() })
    }
}

impl Normalize {
    fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let composed: Cow<'a, str> = if self.config.nfc && !text.is_ascii() && !is_nfc(text) {
            Cow::Owned(text.nfc().collect())
        } else {
            Cow::Borrowed(text)
        };
        let mut out = String::with_capacity(composed.len());
        let mut n_blank = 0;
        for line in lines(&composed) {
            let from = out.len();
            out.extend(line.chars().filter(|&c| !is_removed(c)));
            out.truncate(from + out[from..].trim_end().len());
            n_blank = if out.len() == from { n_blank + 1 } else { 0 };
            if n_blank <= self.config.max_blank_lines {
                out.push('\n');
            }
        }
        // `lines` gives one line more than there are line ends.
        out.truncate(
            out.trim_end_matches('\n').len() + usize::from(composed.ends_with(['\n', '\r'])),
        );
        if out.chars().all(|c| c == '\n') {
            out.clear();
        }
        if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
    }
}

/// The lines of `text`, ended by `\n`, `\r\n`, `\r`, U+0085, U+2028 or U+2029.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(is_end) else {
            rest = None;
            return Some(text);
        };
        let end_bytes = match &text[at..] {
            tail if tail.starts_with("\r\n") => 2,
            tail => tail.chars().next().map_or(0, char::len_utf8),
        };
        rest = Some(&text[at + end_bytes..]);
        Some(&text[..at])
    })
}

/// Control characters but the tab, the byte order mark, and code points that are no characters.
fn is_removed(c: char) -> bool {
    (c.is_control() && c != '\t')
        || c == '\u{feff}'
        || u32::from(c) & 0xFFFE == 0xFFFE
        || ('\u{fdd0}'..='\u{fdef}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modifier::tests::modified;

    fn check(text: &str, expected: &str) {
        let once = modified(&KIND, "", &[text]);
        assert_eq!(once.text.value(0), expected, "{text:?}");
        let twice = modified(&KIND, "", &[once.text.value(0)]);
        assert_eq!(twice.text.value(0), expected, "a second time changes nothing");
    }

    #[test]
    fn composes_characters() {
        // Unicode Standard Annex 15, figure 3.
        check("A\u{30a}ngstro\u{308}m \u{2126} \u{1e9b}\u{323}", "Ångström Ω \u{1e9b}\u{323}");
        let table = modified(&KIND, "nfc = false", &["e\u{301}"]);
        assert_eq!(table.text.value(0), "e\u{301}");
    }

    #[test]
    fn ends_lines_with_a_line_feed_and_nothing_before_it() {
        check("a \t\r\nb\rc\u{2028}d\u{85}e\n", "a\nb\nc\nd\ne\n");
        check("a", "a");
    }

    #[test]
    fn removes_control_characters_but_not_tabs() {
        check("\u{feff}a\0b\u{8}\tc\u{200d}\u{7f}\u{fffe}", "ab\tc\u{200d}");
    }

    #[test]
    fn lets_two_blank_lines_follow_each_other() {
        check("a\n\n\n\n\n \nb", "a\n\n\nb");
        check("a\n\n\nb", "a\n\n\nb");
        check("a\n\n\n\n", "a\n");
        check(" \n\t\n", "");
    }
}
