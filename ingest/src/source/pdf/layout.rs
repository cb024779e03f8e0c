//! Lines of pages with their places to text: reading order, running heads, paragraphs, words cut at the ends of lines.

use std::collections::{HashMap, HashSet};

use super::worker::{Line, Page};

/// Part of a page's height, at its top and at its bottom, in which heads and feet stand.
const MARGIN: f32 = 0.1;
/// Pages that have a line in common before it is a running head.
const HEAD_PAGES_MIN: usize = 3;

/// Returns the text of `pages`: paragraphs with an empty line between them.
pub(super) fn text(pages: &[Page], keep_running_heads: bool) -> String {
    let heads = if keep_running_heads { HashMap::new() } else { running_heads(pages) };
    let is_kept = |page: &Page, line: &Line| {
        keep_running_heads || !is_in_margin(page, line) || {
            let key = head_key(&line.text);
            // A number alone is that of the page.
            !key.is_empty()
                && heads.get(&key).is_none_or(|&n| n < HEAD_PAGES_MIN.max(pages.len() / 6))
        }
    };
    let mut paragraphs = Paragraphs::default();
    for page in pages {
        let lines: Vec<&Line> = page.lines.iter().filter(|line| is_kept(page, line)).collect();
        let columns = Columns::find(&lines);
        for line in columns.in_order(lines) {
            paragraphs.add(line, columns.of(line), &columns);
        }
        paragraphs.end_page();
    }
    paragraphs.finish()
}

fn is_in_margin(page: &Page, line: &Line) -> bool {
    line.bottom > page.height * (1.0 - MARGIN) || line.top < page.height * MARGIN
}

/// A line without its numbers: what heads of different pages have in common.
fn head_key(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_roman = word.chars().all(|c| "ivxlc".contains(c));
        !word.is_empty() && !word.chars().any(|c| c.is_ascii_digit()) && !is_roman
    });
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// On how many pages a line stands in the margin.
fn running_heads(pages: &[Page]) -> HashMap<String, usize> {
    let mut heads = HashMap::new();
    for page in pages {
        let lines = page.lines.iter().filter(|line| is_in_margin(page, line));
        let keys: HashSet<String> = lines.map(|line| head_key(&line.text)).collect();
        for key in keys {
            *heads.entry(key).or_default() += 1;
        }
    }
    heads
}

/// The columns of a page: one, or two with a gutter between them.
#[derive(Debug)]
struct Columns {
    gutter: Option<f32>,
    /// Margins of the whole page, of the left and of the right column.
    margins: [(f32, f32); 3],
    /// From one base line to the next, most often.
    leading: f32,
}

/// Lines that go over the whole page.
const WHOLE: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;

impl Columns {
    fn find(lines: &[&Line]) -> Self {
        let mut columns = Self { gutter: gutter(lines), margins: [(0.0, 0.0); 3], leading: 0.0 };
        for column in [WHOLE, LEFT, RIGHT] {
            let inside: Vec<&&Line> =
                lines.iter().filter(|line| columns.of(line) == column).collect();
            let mut lefts: Vec<f32> = inside.iter().map(|line| line.left).collect();
            let mut rights: Vec<f32> = inside.iter().map(|line| line.right).collect();
            lefts.sort_by(f32::total_cmp);
            rights.sort_by(f32::total_cmp);
            // A line that sticks out is none of the margin.
            let at = |values: &[f32], percent: usize| {
                values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
            };
            columns.margins[column] = (at(&lefts, 10), at(&rights, 90));
        }
        let mut leadings: Vec<f32> = lines
            .windows(2)
            .filter(|pair| columns.of(pair[0]) == columns.of(pair[1]))
            .map(|pair| pair[0].bottom - pair[1].bottom)
            .filter(|leading| *leading > 2.0)
            .collect();
        leadings.sort_by(f32::total_cmp);
        columns.leading = leadings.get(leadings.len() / 2).copied().unwrap_or(12.0);
        columns
    }

    fn of(&self, line: &Line) -> usize {
        match self.gutter {
            Some(gutter) if line.right <= gutter => LEFT,
            Some(gutter) if line.left >= gutter => RIGHT,
            _ => WHOLE,
        }
    }

    /// Puts lines in reading order: as the file draws them, unless it goes to and fro between the columns.
    fn in_order<'a>(&self, lines: Vec<&'a Line>) -> Vec<&'a Line> {
        if self.gutter.is_none() {
            return lines;
        }
        let sides: Vec<usize> =
            lines.iter().map(|line| self.of(line)).filter(|&side| side != WHOLE).collect();
        let n_changes = sides.windows(2).filter(|pair| pair[0] != pair[1]).count();
        if n_changes * 5 < sides.len() {
            return lines;
        }
        // What goes over both columns parts the page: above it everything comes first.
        let mut parts: Vec<&Line> =
            lines.iter().copied().filter(|line| self.of(line) == WHOLE).collect();
        parts.sort_by(|a, b| b.top.total_cmp(&a.top));
        let band = |line: &Line| parts.iter().filter(|part| part.bottom > line.bottom).count();
        let mut lines: Vec<(usize, usize, &Line)> = lines
            .into_iter()
            .map(|line| {
                let side = self.of(line);
                let band = if side == WHOLE {
                    2 * band(line)
                } else {
                    2 * band(line) - usize::from(band(line) > 0)
                };
                (band, side, line)
            })
            .collect();
        lines.sort_by(|a, b| {
            a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.bottom.total_cmp(&a.2.bottom))
        });
        lines.into_iter().map(|(_, _, line)| line).collect()
    }
}

/// Returns where the page is parted in two columns: few lines cross it, and many stand on either side, next to each other.
fn gutter(lines: &[&Line]) -> Option<f32> {
    /// Places that are tried.
    const STEPS: u16 = 40;
    if lines.len() < 8 {
        return None;
    }
    let left = lines.iter().map(|line| line.left).fold(f32::MAX, f32::min);
    let right = lines.iter().map(|line| line.right).fold(f32::MIN, f32::max);
    let n = lines.len();
    let count = |is: &dyn Fn(&Line) -> bool| lines.iter().filter(|line| is(line)).count();
    let places = (STEPS / 4..=STEPS * 3 / 4)
        .map(|step| left + (right - left) * f32::from(step) / f32::from(STEPS));
    let best =
        places.map(|x| (count(&|line| line.left < x && line.right > x), x)).min_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| {
                let middle = f32::midpoint(left, right);
                (a.1 - middle).abs().total_cmp(&(b.1 - middle).abs())
            })
        })?;
    let (n_crossing, x) = best;
    // Short lines are no column: a table of contents has its numbers on the right.
    let is_long = |line: &Line| line.right - line.left > (right - left) / 5.0;
    let n_left = count(&|line| line.right <= x && is_long(line));
    let n_right = count(&|line| line.left >= x && is_long(line));
    (n_crossing * 4 <= n && n_left * 5 >= n && n_right * 5 >= n).then_some(x)
}

/// Text that grows by lines.
#[derive(Debug, Default)]
struct Paragraphs {
    /// Lines of each paragraph; words are put together when all are known.
    done: Vec<Vec<String>>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    line: Line,
    column: usize,
    margins: (f32, f32),
    is_same_page: bool,
}

impl Paragraphs {
    fn add(&mut self, line: &Line, column: usize, columns: &Columns) {
        let margins = columns.margins[column];
        let step =
            self.last.as_ref().map_or(Step::Paragraph, |last| step(last, line, column, columns));
        match (step, self.done.last_mut()) {
            (Step::Row, Some(lines)) => {
                let row = lines.last_mut().expect("a paragraph has a line");
                row.push(' ');
                row.push_str(line.text.trim());
            }
            (Step::Line, Some(lines)) => lines.push(line.text.trim().to_owned()),
            _ => self.done.push(vec![line.text.trim().to_owned()]),
        }
        let mut line = line.clone();
        if let (Step::Row, Some(last)) = (step, &self.last) {
            line.left = last.line.left;
        }
        self.last = Some(Last { line, column, margins, is_same_page: true });
    }

    fn end_page(&mut self) {
        if let Some(last) = &mut self.last {
            last.is_same_page = false;
        }
    }

    fn finish(self) -> String {
        let words = whole_words(&self.done);
        let mut text = String::new();
        for lines in &self.done {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            let start = text.len();
            for line in lines {
                if text.len() > start {
                    join(&mut text, line, &words);
                } else {
                    text.push_str(line);
                }
            }
        }
        without_ligatures(&text)
    }
}

/// How a line follows the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Beside it.
    Row,
    /// In the same paragraph.
    Line,
    Paragraph,
}

fn step(last: &Last, line: &Line, column: usize, columns: &Columns) -> Step {
    let before = &last.line;
    let (height, height_before) = (line.top - line.bottom, before.top - before.bottom);
    let ends_sentence = before.text.trim_end().ends_with(['.', '?', '!', ':', '”', '"']);
    let begins_small = line.text.trim_start().starts_with(|c: char| c.is_lowercase());
    let is_other_size = (height - height_before).abs() > 0.15 * height.max(height_before);
    let overlap = before.top.min(line.top) - before.bottom.max(line.bottom);
    if last.is_same_page && overlap > 0.5 * height.min(height_before) {
        return if line.left >= before.left { Step::Row } else { Step::Line };
    }
    let fall = before.bottom - line.bottom;
    if !last.is_same_page || column != last.column || fall < 0.0 {
        // A paragraph that goes on in the next column or page.
        let goes_on = before.text.ends_with('-') || (begins_small && !ends_sentence);
        return if goes_on && !is_other_size { Step::Line } else { Step::Paragraph };
    }
    let (left, right) = last.margins;
    let is_far = fall > 1.4 * columns.leading;
    let is_indented = line.left - left > 0.8 * height && before.left - left < 0.5 * height;
    let is_short = right - before.right > 2.5 * height;
    let is_very_short = right - before.right > 0.35 * (right - left);
    let is_item = line.text.starts_with(['•', '▪', '◦', '‣', '–', '∙']);
    let ends = is_short && (ends_sentence || !begins_small) || is_very_short && !begins_small;
    if is_far || (is_other_size && !begins_small) || is_indented || ends || is_item {
        Step::Paragraph
    } else {
        Step::Line
    }
}

/// The words that stand whole within a line, in lower case, with and without hyphens.
fn whole_words(paragraphs: &[Vec<String>]) -> HashSet<String> {
    let lines = paragraphs.iter().flatten();
    let words = lines.flat_map(|line| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if line.ends_with('-') {
            words.pop();
        }
        words
    });
    words.map(bare).filter(|word| !word.is_empty()).collect()
}

/// A word without what stands around it, in lower case.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// Adds a line to its paragraph. A word that was cut becomes whole; a hyphen of its own stays.
///
/// Of a document's own words the one that occurs decides: `re-entry` within a line keeps it in `re-` and `entry`.
fn join(text: &mut String, line: &str, words: &HashSet<String>) {
    let is_cut = text.ends_with(['-', '\u{ad}', '‐'])
        && text.trim_end_matches(['-', '\u{ad}', '‐']).ends_with(char::is_alphabetic);
    if !is_cut || !line.starts_with(char::is_alphabetic) {
        text.push(' ');
        text.push_str(line);
        return;
    }
    let start = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let first = text[start..].trim_end_matches(['-', '\u{ad}', '‐']).to_owned();
    let second = line.split_whitespace().next().unwrap_or_default();
    let (joined, hyphened) =
        (bare(&format!("{first}{second}")), bare(&format!("{first}-{second}")));
    let is_name = second.starts_with(char::is_uppercase) && !first.chars().all(char::is_uppercase);
    let keeps = words.contains(&hyphened) && !words.contains(&joined);
    if !keeps && !is_name {
        text.truncate(start + first.len());
    }
    text.push_str(line);
}

/// Writes letters that were set as one apart.
fn without_ligatures(text: &str) -> String {
    const LIGATURES: [(char, &str); 7] = [
        ('ﬀ', "ff"),
        ('ﬁ', "fi"),
        ('ﬂ', "fl"),
        ('ﬃ', "ffi"),
        ('ﬄ', "ffl"),
        ('ﬅ', "st"),
        ('ﬆ', "st"),
    ];
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match LIGATURES.iter().find(|(ligature, _)| *ligature == c) {
            Some((_, letters)) => out.push_str(letters),
            None if c == '\u{ad}' => {}
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::worker::{Line, Page};
    use super::text;

    /// A line of ten points at `left`, whose base is at `bottom`; a letter has five points.
    fn line(left: f32, bottom: f32, text: &str) -> Line {
        let right = left + 5.0 * text.len() as f32;
        Line { text: text.to_owned(), left, right, bottom, top: bottom + 10.0 }
    }

    fn page(lines: Vec<Line>) -> Page {
        Page { width: 600.0, height: 800.0, lines }
    }

    #[test]
    fn joins_lines_to_paragraphs_and_words_that_were_cut() {
        let lines = vec![
            line(110.0, 600.0, "An indented first line of text that is re-entry and inter-"),
            line(100.0, 588.0, "national goes on here up to the margin on the right, re-"),
            line(100.0, 576.0, "entry ends."),
            line(110.0, 564.0, "Another paragraph begins with its indented line, and it has"),
            line(100.0, 552.0, "a second one that reaches as far as the others of the page."),
            line(100.0, 500.0, "Far below"),
        ];
        assert_eq!(
            text(&[page(lines)], false),
            "An indented first line of text that is re-entry and international goes on here up to the margin on the right, \
             re-entry ends.\n\nAnother paragraph begins with its indented line, and it has a second one that reaches as far as \
             the others of the page.\n\nFar below"
        );
    }

    #[test]
    fn reads_one_column_after_the_other_however_they_are_drawn() {
        let title = line(100.0, 700.0, &"A title over both of the columns of the page ".repeat(2));
        let left: Vec<Line> = (0..8)
            .map(|i| {
                line(
                    100.0,
                    600.0 - 12.0 * i as f32,
                    &format!("left {i} fills its column to the end,"),
                )
            })
            .collect();
        let right: Vec<Line> = (0..8)
            .map(|i| {
                line(
                    320.0,
                    600.0 - 12.0 * i as f32,
                    &format!("right {i} fills its column to the end,"),
                )
            })
            .collect();
        let in_columns: Vec<Line> =
            [title.clone()].into_iter().chain(left.clone()).chain(right.clone()).collect();
        let in_rows: Vec<Line> = [title]
            .into_iter()
            .chain(left.into_iter().zip(right).flat_map(|(left, right)| [left, right]))
            .collect();
        let expected = text(&[page(in_columns)], false);
        let places: Vec<usize> = ["A title", "left 0", "left 7", "right 0", "right 7"]
            .iter()
            .map(|t| expected.find(t).unwrap())
            .collect();
        assert!(places.is_sorted(), "{expected}");
        assert_eq!(text(&[page(in_rows)], false), expected);
    }

    #[test]
    fn leaves_out_what_pages_have_in_common_at_their_edges() {
        let pages: Vec<Page> = (0..4)
            .map(|i| {
                page(vec![
                    line(100.0, 780.0, &format!("Journal of X, page {i}")),
                    line(
                        100.0,
                        400.0,
                        &format!("Text of page {}.", ["one", "two", "three", "four"][i]),
                    ),
                    line(300.0, 20.0, &format!("{i}")),
                ])
            })
            .collect();
        assert_eq!(
            text(&pages, false),
            "Text of page one.\n\nText of page two.\n\nText of page three.\n\nText of page four."
        );
        assert!(text(&pages, true).contains("Journal of X, page 2"));
    }
}
