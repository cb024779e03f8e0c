//! Gives equal text equal bytes: composed characters, one kind of line end, no control or invisible characters, no stray white space.

use std::borrow::Cow;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfkc};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "normalize",
    summary: "composed Unicode, line feeds, no control or zero-width characters, no trailing or piled-up white space",
    source: "Unicode Standard Annexes 14 (line ends) and 15 (NFC, NFKC)",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Normalize { config: config::from_table("normalize", table)? })),
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `nfc` composes characters (`e` and an acute become `é`), `nfkc` also takes ligatures, widths and superscripts apart (`ﬁ`, `Ａ`, `²`),
    /// `none` does neither.
    form: Form,
    /// Removes control characters but the tab, and code points that are no characters.
    control_characters: bool,
    /// Removes characters that show nothing: zero-width spaces and joiners where no script needs them, soft hyphens.
    zero_width: bool,
    /// Puts the ASCII blank for every other space of one line (no-break, thin, ideographic).
    spaces: bool,
    /// Removes white space at the ends of lines.
    trailing_space: bool,
    /// Blank lines that may follow each other.
    max_blank_lines: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Nfc,
    Nfkc,
    None,
}

impl Default for Config {
    fn default() -> Self {
        // NFC is what the web is written in (W3C Character Model, section 3). RefinedWeb lets two line feeds follow each other,
        // which is one blank line; two keep the sections of plain-text books apart.
        Self {
            form: Form::Nfc,
            control_characters: true,
            zero_width: true,
            spaces: false,
            trailing_space: true,
            max_blank_lines: 2,
        }
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
        let mut edits = Vec::new();
        for row in 0..texts.len() {
            let n_edits = edits.len();
            let text = texts.value(row);
            let new = self.normalize(text, row, &mut edits);
            out.append_value(if edits.len() > n_edits { &new } else { text });
        }
        let text = if edits.is_empty() { texts.clone() } else { out.finish() };
        Ok(Modified { text, reasons: None, edits, found: Vec::new() })
    }
}

impl Normalize {
    /// Returns the new text, and pushes what changed: at most one edit per line, by the first rule that changed it.
    fn normalize(&self, text: &str, row: usize, edits: &mut Vec<Edit>) -> String {
        let mut out = String::with_capacity(text.len());
        let content_end = text.len() - blank_tail(text, self);
        let mut n_blank = 0;
        let mut at = 0;
        for (line, end) in lines(text) {
            let (start, line_end) = (at, at + line.len());
            at = line_end + end.len();
            let (new, rule) = self.line(line);
            n_blank = if new.is_empty() { n_blank + 1 } else { 0 };
            // White space at the end of the text becomes one line feed, or nothing where no line ends there.
            let is_tail = start >= content_end;
            let is_dropped = is_tail || n_blank > self.config.max_blank_lines;
            let new_end = if is_dropped || end.is_empty() { "" } else { "\n" };
            let (new, rule) =
                if is_dropped { (Cow::Borrowed(""), Some("blank_line")) } else { (new, rule) };
            out.push_str(&new);
            out.push_str(new_end);
            if new != line || new_end != end {
                let rule = rule.unwrap_or("line_end");
                let (start, replacement) = match (new == line, end == new_end) {
                    (true, _) => (line_end, new_end.to_owned()),
                    (false, true) => {
                        edits.push(Edit {
                            row,
                            start,
                            end: line_end,
                            rule,
                            replacement: new.into_owned(),
                        });
                        continue;
                    }
                    (false, false) => (start, format!("{new}{new_end}")),
                };
                edits.push(Edit { row, start, end: at, rule, replacement });
            }
        }
        out
    }

    /// The new line, and the first rule that changed it.
    fn line<'a>(&self, line: &'a str) -> (Cow<'a, str>, Option<&'static str>) {
        let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) || byte == b'\t';
        let mut rule = None;
        let mut new = Cow::Borrowed(line);
        if !line.bytes().all(is_plain) {
            let composed: Option<String> = match self.config.form {
                Form::Nfc if !line.is_ascii() && !is_nfc(line) => Some(line.nfc().collect()),
                Form::Nfkc if !line.is_ascii() && !is_nfkc(line) => Some(line.nfkc().collect()),
                _ => None,
            };
            if let Some(composed) = composed {
                (new, rule) = (Cow::Owned(composed), Some("composition"));
            }
            if let Some((kept, removed)) = self.without_removed(&new) {
                (new, rule) = (Cow::Owned(kept), rule.or(Some(removed)));
            }
        }
        let n_kept = match self.config.trailing_space {
            true => new.trim_end().len(),
            false => new.len(),
        };
        if n_kept < new.len() {
            rule = rule.or(Some("trailing_space"));
            match &mut new {
                Cow::Borrowed(text) => *text = &text[..n_kept],
                Cow::Owned(text) => text.truncate(n_kept),
            }
        }
        (new, rule)
    }

    /// `line` without the characters that go and with blanks for spaces; nothing where it has none.
    fn without_removed(&self, line: &str) -> Option<(String, &'static str)> {
        let mut rule = None;
        let mut kept = String::with_capacity(line.len());
        let mut before = None;
        for c in line.chars() {
            if self.config.control_characters && is_control(c) {
                rule = rule.or(Some("control_character"));
            } else if self.config.zero_width && is_zero_width(c, before) {
                rule = rule.or(Some("zero_width"));
            } else if self.config.spaces && is_other_space(c) {
                rule = rule.or(Some("space"));
                kept.push(' ');
                before = Some(' ');
            } else {
                kept.push(c);
                before = Some(c);
            }
        }
        Some((kept, rule?))
    }
}

/// Bytes at the end of `text` whose lines become blank: all but the first line end of them.
fn blank_tail(text: &str, normalize: &Normalize) -> usize {
    let (mut at, mut tail_start) = (0, 0);
    let mut has_content = false;
    for (line, end) in lines(text) {
        at += line.len() + end.len();
        if !normalize.line(line).0.is_empty() {
            (tail_start, has_content) = (at, true);
        }
    }
    if has_content { text.len() - tail_start } else { text.len() }
}

/// The lines of `text` and their ends: `\n`, `\r\n`, `\r`, U+0085, U+2028, U+2029, or nothing at the end of the text.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest.find(is_end).unwrap_or(rest.len());
        let end_bytes = match &rest[at..] {
            tail if tail.starts_with("\r\n") => 2,
            tail => tail.chars().next().map_or(0, char::len_utf8),
        };
        let (line, end) = (&rest[..at], &rest[at..at + end_bytes]);
        rest = &rest[at + end_bytes..];
        Some((line, end))
    })
}

/// Control characters but the tab, the byte order mark, and code points that are no characters.
fn is_control(c: char) -> bool {
    (c.is_control() && c != '\t')
        || c == '\u{feff}'
        || u32::from(c) & 0xFFFE == 0xFFFE
        || ('\u{fdd0}'..='\u{fdef}').contains(&c)
}

/// Characters that show nothing where they stand. Joiners and non-joiners stay behind letters of scripts that join, behind emoji and
/// their variation selectors; zero-width spaces stay where they are the only marks between words (Thai, Lao, Myanmar, Khmer).
fn is_zero_width(c: char, before: Option<char>) -> bool {
    let before = before.unwrap_or(' ');
    match c {
        '\u{ad}' | '\u{2060}' | '\u{180e}' => true,
        '\u{200b}' => {
            !matches!(before, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
        }
        // Above the Latin, Greek, Cyrillic and Armenian letters.
        '\u{200c}' | '\u{200d}' => before < '\u{590}' || before == '\u{200b}',
        _ => false,
    }
}

/// The separators of Unicode's category Zs but the ASCII blank.
fn is_other_space(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modifier::tests::modified;

    fn check(text: &str, expected: &str) {
        check_with("", text, expected);
    }

    fn check_with(config: &str, text: &str, expected: &str) {
        let once = modified(&KIND, config, &[text]);
        assert_eq!(once.text.value(0), expected, "{text:?}");
        let twice = modified(&KIND, config, &[once.text.value(0)]);
        assert_eq!(twice.text.value(0), expected, "a second time changes nothing");
        assert!(twice.edits.is_empty(), "{:?}", twice.edits);
    }

    #[test]
    fn composes_characters() {
        // Unicode Standard Annex 15, figures 3 and 6.
        check("A\u{30a}ngstro\u{308}m \u{2126} \u{1e9b}\u{323}", "Ångström Ω \u{1e9b}\u{323}");
        check_with("form = 'nfkc'", "\u{fb01}2\u{2075} \u{1e9b}\u{323}", "fi25 \u{1e69}");
        check_with("form = 'none'", "e\u{301}\u{fb01}", "e\u{301}\u{fb01}");
    }

    #[test]
    fn ends_lines_with_a_line_feed_and_nothing_before_it() {
        check("a \t\r\nb\rc\u{2028}d\u{85}e\n", "a\nb\nc\nd\ne\n");
        check("a", "a");
        check_with("trailing_space = false", "a \r\nb", "a \nb");
    }

    #[test]
    fn removes_control_characters_but_not_tabs() {
        check("\u{feff}a\0b\u{8}\tc\u{7f}\u{fffe}", "ab\tc");
        check_with("control_characters = false", "a\u{8}b", "a\u{8}b");
    }

    #[test]
    fn removes_what_shows_nothing_where_no_script_needs_it() {
        check("zero\u{200b}width soft\u{ad}hyphen c\u{200d}", "zerowidth softhyphen c");
        // Persian, Hindi, an emoji of several, Thai: the joiners and spaces that their orthographies ask for.
        for text in ["می\u{200c}خواهم", "क्\u{200d}ष", "👩\u{200d}💻", "ภาษา\u{200b}ไทย"]
        {
            check(text, text);
        }
        check_with("zero_width = false", "a\u{200b}b", "a\u{200b}b");
    }

    #[test]
    fn puts_blanks_for_other_spaces_on_demand() {
        check("a\u{a0}b", "a\u{a0}b");
        check_with("spaces = true", "a\u{a0}b\u{3000}c\u{2009}d", "a b c d");
    }

    #[test]
    fn lets_two_blank_lines_follow_each_other() {
        check("a\n\n\n\n\n \nb", "a\n\n\nb");
        check("a\n\n\nb", "a\n\n\nb");
        check("a\n\n\n\n", "a\n");
        check(" \n\t\n", "");
    }

    #[test]
    fn says_which_rule_changed_which_line() {
        let new = modified(&KIND, "", &["a\nb \r\nc"]);
        let edit = Edit {
            row: 0,
            start: 2,
            end: 6,
            rule: "trailing_space",
            replacement: "b\n".to_owned(),
        };
        assert_eq!(new.edits, [edit]);
    }
}
