//! Takes out lines as RefinedWeb does, in the reading of DCLM: in capitals, of digits alone, counters, of one word, and calls to act.
//!
//! A page that loses too many words that way is dropped, with its text as it was.

use std::ops::Range;

use arrow::array::{Array, StringArray, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::words::{class, classes, count_fasttext};
use crate::filter::{config, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "refinedweb_lines",
    summary: "lines in capitals, of digits, of counters, of one word, calls to act; drops what loses too many words",
    source: "Penedo et al. 2023, RefinedWeb, appendix G.2, as DCLM reads it: the line modifiers of dclm_baseline_refinedweb.yaml",
    reasons: &["empty", "too_many_words_removed"],
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(RefinedwebLines::new(config::from_table("refinedweb_lines", table)?)))
    },
};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Share of upper-case characters above which a line goes.
    max_uppercase: f64,
    /// Share of digits above which a line goes.
    max_digits: f64,
    /// Words of a line that stays, unless it is empty.
    min_words: usize,
    /// Words of a line out of which a call to act is cut.
    max_call_words: usize,
    /// Share of words above which a page goes with the lines.
    max_removed_words: f64,
}

impl Default for Config {
    fn default() -> Self {
        // `dclm_baseline_refinedweb.yaml`.
        Self {
            max_uppercase: 0.5,
            max_digits: 0.999_999,
            min_words: 2,
            max_call_words: 10,
            max_removed_words: 0.05,
        }
    }
}

#[derive(Debug)]
struct RefinedwebLines {
    config: Config,
    calls: [Regex; 3],
}

/// A line of the old text and what it is now.
#[derive(Debug)]
struct Line {
    range: Range<usize>,
    /// Nothing where it goes.
    new: Option<String>,
    /// What took it out or changed it last.
    rule: &'static str,
}

fn is_space(c: char) -> bool {
    classes(c) & class::SPACE != 0
}

fn count_words(line: &str) -> usize {
    line.split(is_space).filter(|word| !word.is_empty()).count()
}

impl RefinedwebLines {
    fn new(config: Config) -> Self {
        // The dots of `Read more...` stand for any character there, too.
        let calls = [
            r"(?i)[\s\x1c-\x1f]?items in cart",
            r"(?i)[\s\x1c-\x1f]?read more...$",
            r"(?i)^sign-in[\s\x1c-\x1f]?",
        ]
        .map(|pattern| Regex::new(pattern).expect("a valid pattern"));
        Self { config, calls }
    }

    /// Returns the lines of `text` with what becomes of them, or why the page goes.
    fn edit(&self, text: &str) -> Result<Vec<Line>, &'static str> {
        let mut lines = split(text);
        let config = &self.config;
        let before = count_fasttext(text);
        let share = |line: &str, is: fn(char) -> bool| {
            #[expect(clippy::cast_precision_loss, reason = "characters of one line")]
            let share =
                line.chars().filter(|&c| is(c)).count() as f64 / line.chars().count() as f64;
            share
        };
        let is_loud = |line: &str| share(line, char::is_uppercase) > config.max_uppercase;
        drop_lines(&mut lines, "uppercase_line", true, is_loud)?;
        drop_lines(&mut lines, "digit_line", true, |line| {
            share(line, is_digit) > config.max_digits
        })?;
        drop_lines(&mut lines, "counter_line", true, is_counter)?;
        drop_lines(&mut lines, "short_line", false, |line| count_words(line) < config.min_words)?;
        for call in &self.calls {
            for line in &mut lines {
                let Some(old) = line.new.as_mut().filter(|old| !old.is_empty()) else { continue };
                if count_words(old) > config.max_call_words || !call.is_match(old) {
                    continue;
                }
                let new = call.replace_all(old, "");
                let is_blank = new.chars().all(is_space);
                line.rule = "call_to_act";
                line.new = (!is_blank).then(|| new.into_owned());
            }
            // A line of white space alone goes here even without a call in it.
            drop_lines(&mut lines, "white_space", true, |line| {
                count_words(line) == 0 && config.max_call_words > 0
            })?;
        }
        let after: u64 =
            lines.iter().filter_map(|line| line.new.as_deref()).map(count_fasttext).sum();
        #[expect(clippy::cast_precision_loss, reason = "words of one text")]
        let removed = (before as f64 - after as f64) / before as f64;
        match () {
            () if before == 0 => Err("empty"),
            () if removed > config.max_removed_words => Err("too_many_words_removed"),
            () => Ok(lines),
        }
    }
}

/// Cuts `text` at line feeds; of empty lines that follow each other, the first stays.
fn split(text: &str) -> Vec<Line> {
    let mut at = 0;
    let mut lines: Vec<Line> = Vec::new();
    let mut was_empty = false;
    for line in text.split('\n') {
        let is_again = was_empty && line.is_empty();
        was_empty = line.is_empty();
        let new = (!is_again).then(|| line.to_owned());
        lines.push(Line { range: at..at + line.len(), new, rule: "line_feeds" });
        at += line.len() + 1;
    }
    lines
}

/// Takes out the lines that `is_bad` says, empty ones never, and white space off both ends of the text where `trims`.
///
/// Fails where nothing is left.
fn drop_lines(
    lines: &mut [Line],
    rule: &'static str,
    trims: bool,
    is_bad: impl Fn(&str) -> bool,
) -> Result<(), &'static str> {
    for line in &mut *lines {
        if line.new.as_deref().is_some_and(|new| !new.is_empty() && is_bad(new)) {
            (line.new, line.rule) = (None, rule);
        }
    }
    if trims {
        trim(lines.iter_mut(), |text| text.trim_start_matches(is_space));
        trim(lines.iter_mut().rev(), |text| text.trim_end_matches(is_space));
    }
    // One empty line is an empty text, two are a line feed.
    let mut left = lines.iter().filter_map(|line| line.new.as_deref());
    match (left.next(), left.next()) {
        (None | Some(""), None) => Err("empty"),
        _ => Ok(()),
    }
}

fn trim<'a>(lines: impl Iterator<Item = &'a mut Line>, stripped: fn(&str) -> &str) {
    for line in lines {
        let Some(old) = &line.new else { continue };
        let new = stripped(old);
        if new.len() == old.len() && !new.is_empty() {
            return;
        }
        line.rule = "white_space";
        line.new = (!new.is_empty()).then(|| new.to_owned());
        if line.new.is_some() {
            return;
        }
    }
}

/// `str.isdigit` of Python 3.11: decimal digits, and those of Numeric_Type Digit.
fn is_digit(c: char) -> bool {
    let is_other = matches!(c, '²' | '³' | '¹' | '\u{1369}'..='\u{1371}' | '\u{19da}' | '\u{2070}' | '\u{2074}'..='\u{2079}'
        | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}' | '\u{2474}'..='\u{247c}' | '\u{2488}'..='\u{2490}' | '\u{24ea}'
        | '\u{24f5}'..='\u{24fd}' | '\u{24ff}' | '\u{2776}'..='\u{277e}' | '\u{2780}'..='\u{2788}' | '\u{278a}'..='\u{2792}'
        | '\u{10a40}'..='\u{10a43}' | '\u{10e60}'..='\u{10e68}' | '\u{11052}'..='\u{1105a}' | '\u{1f100}'..='\u{1f10a}');
    is_other || classes(c) & class::DECIMAL != 0
}

/// Whether `line` is a number of likes or the like, and punctuation.
fn is_counter(line: &str) -> bool {
    const COUNTED: [&str; 12] = [
        "likes",
        "shares",
        "comments",
        "retweets",
        "reposts",
        "quotes",
        "bookmarks",
        "upvotes",
        "downvotes",
        "downloads",
        "views",
        "followers",
    ];
    let is_word = |c| classes(c) & class::WORD != 0;
    let is_decimal = |c| classes(c) & class::DECIMAL != 0;
    let line = line.to_lowercase();
    let rest = line.trim_start_matches(|c| !is_word(c));
    if !rest.starts_with(is_decimal) {
        return false;
    }
    let rest = rest.trim_start_matches(|c| is_decimal(c) || matches!(c, ',' | '.'));
    let rest = rest.strip_prefix(['k', 'm', 'b']).unwrap_or(rest);
    let counted = rest.trim_start_matches(is_space);
    counted.len() < rest.len()
        && COUNTED
            .iter()
            .filter_map(|word| counted.strip_prefix(word))
            .any(|rest| !rest.contains(is_word))
}

impl Modifier for RefinedwebLines {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let (mut edits, mut reasons) = (Vec::new(), Vec::with_capacity(texts.len()));
        for row in 0..texts.len() {
            let text = texts.value(row);
            match self.edit(text) {
                Ok(lines) => {
                    let new: Vec<&str> =
                        lines.iter().filter_map(|line| line.new.as_deref()).collect();
                    out.append_value(new.join("\n"));
                    edits.extend(edits_of(row, text, &lines));
                    reasons.push(None);
                }
                Err(reason) => {
                    out.append_value(text);
                    reasons.push(Some(reason));
                }
            }
        }
        let reasons = Some(StringArray::from(reasons));
        Ok(Modified { text: out.finish(), reasons, edits, found: Vec::new() })
    }
}

/// What leads from `text` to the lines that are left: a line goes with the line feed behind it, the last ones with that before.
fn edits_of(row: usize, text: &str, lines: &[Line]) -> Vec<Edit> {
    let last = lines.iter().rposition(|line| line.new.is_some()).unwrap_or(0);
    let mut edits = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let Range { start, end } = line.range;
        let (start, end, replacement) = match &line.new {
            Some(new) if *new == text[start..end] => continue,
            Some(new) => (start, end, new.clone()),
            None if place < last => (start, end + 1, String::new()),
            None => (start - 1, end, String::new()),
        };
        edits.push(Edit { row, start, end, rule: line.rule, replacement });
    }
    edits
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::modifier::tests::modified;

    /// What DCLM makes of texts; `make_dclm.py` beside it says how.
    const GOLDEN: &str = include_str!("../../tests/golden/dclm.json");

    #[test]
    fn makes_the_text_of_dclm() {
        let golden: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
        let texts: Vec<&str> = golden.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let modified = modified(&KIND, "", &texts);
        let reasons = modified.reasons.unwrap();
        for (row, case) in golden.iter().enumerate() {
            let reason = reasons.is_valid(row).then(|| reasons.value(row));
            assert_eq!(reason, case["lines_reason"].as_str(), "{case}");
            if let Some(new) = case["lines"].as_str() {
                assert_eq!(modified.text.value(row), new, "{case}");
            }
        }
        eprintln!("{} texts edited as DCLM did", golden.len());
    }

    #[test]
    fn says_by_which_rule_a_line_went() {
        let prose = "The mill stood by the river and the miller was up with the sun. ".repeat(5);
        let text = format!("  {prose}\nHOME\n12\n3 likes\nMenu\n\n\nGo on Read more...\n");
        let modified = modified(&KIND, "max_removed_words = 0.5", &[&text]);
        let rules: Vec<_> = modified.edits.iter().map(|edit| edit.rule).collect();
        assert_eq!(
            rules,
            [
                "white_space",
                "uppercase_line",
                "digit_line",
                "counter_line",
                "short_line",
                "line_feeds",
                "call_to_act",
                "white_space"
            ]
        );
    }
}
