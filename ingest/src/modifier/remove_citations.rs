//! Removes marks of citations and of editing: `[12]`, `[note 3]`, `[citation needed]`, `[edit]`.

use std::collections::HashSet;
use std::sync::LazyLock;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "remove_citations",
    summary: "numbers and notes in brackets that refer to a list, and tags of editors",
    source: "Wikipedia's reference marks and inline cleanup tags; profile `c4`: Raffel et al. 2020, CITATION_REGEX of c4_utils.py",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(RemoveCitations { config: config::from_table("remove_citations", table)? }))
    },
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    profile: Profile,
}

/// Whose marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Profile {
    /// Behind words and marks of prose alone: what is in code, or is an index, stays.
    #[default]
    Wikipedia,
    /// `[1]`, `[]`, `[edit]` and `[citation needed]`, wherever they stand.
    C4,
}

/// Tags of editors, in lower case.
static TAGS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("../../data/inline-tags.txt").lines().collect());

#[derive(Debug)]
struct RemoveCitations {
    config: Config,
}

impl Modifier for RemoveCitations {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut edits = Vec::new();
        for row in 0..texts.len() {
            let text = texts.value(row);
            let mut new = String::new();
            let mut at = 0;
            for Mark { start, end, rule } in self.marks(text) {
                new.push_str(&text[at..start]);
                at = end;
                edits.push(Edit { row, start, end, rule, replacement: String::new() });
            }
            if at == 0 {
                out.append_value(text);
            } else {
                new.push_str(&text[at..]);
                out.append_value(&new);
            }
        }
        let text = if edits.is_empty() { texts.clone() } else { out.finish() };
        Ok(Modified { text, reasons: None, edits, found: Vec::new() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    start: usize,
    end: usize,
    rule: &'static str,
}

/// Bytes between the brackets of the longest mark.
const MARK_BYTES_MAX: usize = 64;

impl RemoveCitations {
    fn marks(&self, text: &str) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for open in memchr::memchr_iter(b'[', text.as_bytes()) {
            let inside = &text
                [open + 1..text.floor_char_boundary((open + 2 + MARK_BYTES_MAX).min(text.len()))];
            let Some(length) = inside.find(']') else { continue };
            let (inside, end) = (&inside[..length], open + length + 2);
            // A mark stands directly behind another one that goes.
            let follows = marks.last().is_some_and(|mark| mark.end == open);
            let mark = match self.config.profile {
                Profile::C4 => c4(inside).map(|rule| Mark { start: open, end, rule }),
                Profile::Wikipedia => wikipedia(text, open, inside, end, follows),
            };
            marks.extend(mark);
        }
        // An index behind a word looks like a mark behind a word: only pages that have marks behind marks of punctuation have both.
        if self.config.profile == Profile::Wikipedia {
            let is_behind_mark = |mark: &Mark| !text[..mark.start].ends_with(char::is_alphanumeric);
            let has_marks =
                marks.iter().any(|mark| mark.rule == "reference" && is_behind_mark(mark));
            marks.retain(|mark| mark.rule == "editor_tag" || has_marks);
        }
        marks
    }
}

/// C4's `\[\d*\]|\[edit\]|\[citation needed\]`.
fn c4(inside: &str) -> Option<&'static str> {
    match inside {
        "edit" | "citation needed" => Some("editor_tag"),
        _ if inside.chars().all(is_decimal) => Some("reference"),
        _ => None,
    }
}

/// Python's `\d`.
fn is_decimal(c: char) -> bool {
    static DECIMAL: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^\d$").expect("a pattern of this file"));
    c.is_ascii_digit() || (!c.is_ascii() && DECIMAL.is_match(c.encode_utf8(&mut [0; 4])))
}

fn wikipedia(text: &str, open: usize, inside: &str, end: usize, follows: bool) -> Option<Mark> {
    let after = text[end..].chars().next();
    let before = text[..open].chars().next_back()?;
    if TAGS.contains(inside.trim().to_lowercase().as_str()) {
        // The blank before a tag is the tag's, a whole line of it is not.
        let line_start = text[..open].rfind('\n').map_or(0, |at| at + 1);
        let has_blank = before == ' ' && !text[line_start..open].trim().is_empty();
        let is_link = after == Some('(');
        return (!is_link).then_some(Mark {
            start: open - usize::from(has_blank),
            end,
            rule: "editor_tag",
        });
    }
    if !is_reference(inside) {
        return None;
    }
    let is_attached =
        follows || before.is_alphanumeric() || ".,;:!?\"'”“’»)%。，、".contains(before);
    // A call, a member, a chain of indices, an assignment: code.
    let goes_on = after.is_some_and(|c| c.is_alphanumeric() || "_(=.'\"`{".contains(c));
    let is_sentence_end = after == Some('.') && !text[end + 1..].starts_with(char::is_alphanumeric);
    let goes_on = goes_on && !is_sentence_end;
    (is_attached && !goes_on && !is_in_code(text, open)).then_some(Mark {
        start: open,
        end,
        rule: "reference",
    })
}

/// Whether `inside` refers to a list: numbers, ranges of them, a letter, a numbered note.
fn is_reference(inside: &str) -> bool {
    let is_number = |part: &str| {
        (1..=3).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && !part.starts_with('0')
    };
    let lower = inside.to_lowercase();
    let note = ["note ", "nb ", "n ", "fn ", "notes ", "anm. ", "nota "]
        .iter()
        .find_map(|name| lower.strip_prefix(name));
    let is_letter = inside.len() == 1 && inside.bytes().all(|byte| byte.is_ascii_lowercase());
    note.is_some_and(is_number)
        || is_letter
        || inside
            .split([',', '–', '-', ';'])
            .all(|part| is_number(part.trim_matches([' ', '\u{a0}'])))
}

/// Whether the line around `at` is code, or the word before is a name in it.
fn is_in_code(text: &str, at: usize) -> bool {
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    let line = &text[start..end];
    let word =
        text[start..at].rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("");
    // `f(x)[1]` is an index, `(as some say)[1]` a mark.
    let before = &text[start..at];
    let is_call = before.ends_with(')')
        && before.rfind('(').is_some_and(|open| {
            before[..open].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        });
    let is_name = word.contains('_') || (word.len() < 2 && !word.is_empty() && word.is_ascii());
    let is_code = line.trim_end().ends_with([';', '{', '}'])
        || ["==", "->", "::", "=>", "();", " = ", "</"].iter().any(|mark| line.contains(mark));
    let is_list = ["[[", "],[", "], ["].iter().any(|mark| line.contains(mark));
    is_name || is_call || is_list || is_code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modifier::tests::modified;

    fn check(config: &str, text: &str, expected: &str) {
        assert_eq!(modified(&KIND, config, &[text]).text.value(0), expected, "{text:?}");
    }

    // Sentences as Wikipedia shows them, marks taken out by hand.
    #[test]
    fn removes_marks_of_references_and_editors() {
        check(
            "",
            "It was built in 1820[1] and burnt.[2][3] Rebuilt[a] later.[note 4]",
            "It was built in 1820 and burnt. Rebuilt later.",
        );
        check(
            "",
            "Some say so.[citation needed] Others[who?] do not.[5–7]",
            "Some say so. Others do not.",
        );
        check("", "History [edit]\nIt began.[1]", "History\nIt began.");
        check("", "Geschichte [Bearbeiten | Quelltext bearbeiten]\nText", "Geschichte\nText");
        check("", "„Zitat.“[12] und [13]", "„Zitat.“ und [13]");
    }

    #[test]
    fn leaves_code_and_links_alone() {
        for text in [
            "the first is argv[1], the next argv[2]",
            "Called so.[1]\nx = list[0]\ny = a[1];",
            "As [1] shows.\n[1] Smith, J. 2001.",
            "see [edit](http://b.org)",
            "matrix[1][2].value is set",
            "m: [[2,4],[5,6]], f(x)[1], str.data()[4]",
        ] {
            let kept = text.replace("so.[1]", "so.");
            check("", text, &kept);
        }
    }

    // `re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text)` of Python.
    #[test]
    fn removes_what_c4_removes() {
        check(
            "profile = 'c4'",
            "a[1] b[] [edit] [Edit] [who?] x[١٢] [1,2] so[citation needed].",
            "a b  [Edit] [who?] x [1,2] so.",
        );
    }

    #[test]
    fn says_which_rule_removed_what() {
        let new = modified(&KIND, "", &["So.[1] It is[who?]"]);
        let spans: Vec<_> =
            new.edits.iter().map(|edit| (edit.start, edit.end, edit.rule)).collect();
        assert_eq!(spans, [(3, 6, "reference"), (12, 18, "editor_tag")]);
    }
}
