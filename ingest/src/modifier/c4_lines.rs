//! Takes out the lines that C4 leaves out of pages: without an end mark, of few words, about cookies, and citation marks.

use std::ops::Range;

use arrow::array::{Array, StringViewBuilder};
use arrow::record_batch::RecordBatch;

use super::{Edit, Modified, Modifier, ModifierKind};
use crate::Result;
use crate::filter::c4::{Config, Line, Page, strip};
use crate::filter::{config, line_ranges, text_column};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "c4_lines",
    summary: "lines and citation marks that C4 takes out; the filter `c4` judges the page",
    source: "Raffel et al. 2020, C4; profiles `datatrove` and `fineweb`: datatrove 0.10.1, c4_filters.py",
    reasons: &[],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(C4Lines { config: Config::read("c4_lines", table)? })),
};

#[derive(Debug)]
struct C4Lines {
    config: Config,
}

impl Modifier for C4Lines {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut edits = Vec::new();
        for row in 0..texts.len() {
            let text = texts.value(row);
            let pieces = self.cut(text);
            let mut new = String::with_capacity(text.len());
            for piece in &pieces {
                match piece.rule {
                    None => new.push_str(&text[piece.range.clone()]),
                    Some(rule) => {
                        new.push_str(piece.replacement);
                        edits.push(Edit {
                            row,
                            start: piece.range.start,
                            end: piece.range.end,
                            rule,
                            replacement: piece.replacement.to_owned(),
                        });
                    }
                }
            }
            out.append_value(new);
        }
        Ok(Modified { text: out.finish(), reasons: None, edits, found: Vec::new() })
    }
}

/// A part of the old text: what becomes of it, and by which rule where it changes.
#[derive(Debug)]
struct Piece {
    range: Range<usize>,
    rule: Option<&'static str>,
    replacement: &'static str,
}

impl C4Lines {
    /// Cuts `text` into parts that stay and parts that change, in order and without gaps.
    fn cut(&self, text: &str) -> Vec<Piece> {
        let page = Page::new(text);
        let mut pieces = Pieces { text, list: Vec::new(), at: 0 };
        let mut separator = "";
        for line in line_ranges(text) {
            let (line, citations) = match self.config.line(&page, line.clone()) {
                Line::Dropped(rule) => {
                    pieces.change(line.end, rule, "");
                    continue;
                }
                // A page that `c4` drops: there is no text to agree on, so its line stays as it is.
                Line::Page(_) => (line, Vec::new()),
                Line::Kept(range, citations) => (range, citations),
            };
            pieces.change(line.start, "line_end", separator);
            for citation in citations {
                pieces.keep(citation.start);
                pieces.change(citation.end, "citation", "");
            }
            pieces.keep(line.end);
            separator = "\n";
        }
        pieces.change(text.len(), "line_end", "");
        pieces.trim()
    }
}

#[derive(Debug)]
struct Pieces<'a> {
    text: &'a str,
    list: Vec<Piece>,
    at: usize,
}

impl Pieces<'_> {
    fn keep(&mut self, end: usize) {
        if end > self.at {
            self.list.push(Piece { range: self.at..end, rule: None, replacement: "" });
            self.at = end;
        }
    }

    fn change(&mut self, end: usize, rule: &'static str, replacement: &'static str) {
        if self.text[self.at..end] == *replacement {
            self.keep(end);
        } else {
            self.list.push(Piece { range: self.at..end, rule: Some(rule), replacement });
            self.at = end;
        }
    }

    /// Takes white space off both ends of the new text, as the reference does last.
    fn trim(mut self) -> Vec<Piece> {
        let white =
            |range: Range<usize>| Piece { range, rule: Some("white_space"), replacement: "" };
        for place in 0..self.list.len() {
            let piece = &mut self.list[place];
            piece.replacement = "";
            if piece.rule.is_none() {
                let (range, end) = (strip(self.text, piece.range.clone()), piece.range.end);
                if range.is_empty() {
                    piece.rule = Some("white_space");
                    continue;
                }
                let before = piece.range.start..range.start;
                piece.range = range.start..end;
                if !before.is_empty() {
                    self.list.insert(place, white(before));
                }
                break;
            }
        }
        for place in (0..self.list.len()).rev() {
            let piece = &mut self.list[place];
            piece.replacement = "";
            if piece.rule.is_none() {
                let (range, start) = (strip(self.text, piece.range.clone()), piece.range.start);
                let after = range.end..piece.range.end;
                if range.is_empty() {
                    piece.rule = Some("white_space");
                    continue;
                }
                piece.range = start..range.end;
                if !after.is_empty() {
                    self.list.insert(place + 1, white(after));
                }
                break;
            }
        }
        self.list.retain(|piece| !piece.range.is_empty() || !piece.replacement.is_empty());
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modifier::tests::modified;

    // By hand from the rules of datatrove; `agreement` compares with its texts on the benchmark corpus.
    #[test]
    fn takes_out_lines_and_citation_marks_and_says_by_which_rule() {
        let text = "Menu\r\n The mill stood here.[1] \r\nIt was[2] very old.\nHome";
        let modified = modified(&KIND, "", &[text]);
        assert_eq!(modified.text.value(0), "The mill stood here.\nIt was very old.");
        let rules: Vec<_> = modified.edits.iter().map(|edit| edit.rule).collect();
        assert_eq!(
            rules,
            [
                "unpunctuated_line",
                "line_end",
                "citation",
                "line_end",
                "citation",
                "unpunctuated_line"
            ]
        );
    }

    #[test]
    fn strips_white_space_that_citation_marks_leave_at_the_ends() {
        let check = |text: &str, expected: &str| {
            let modified = modified(&KIND, "profile = 'fineweb'", &[text]);
            assert_eq!(modified.text.value(0), expected, "{text:?}");
        };
        check("[1] [2] [3]\n[4] He came home. [5]\n[6] [7] [8]", "He came home.");
        check("[1] [2] [3]", "");
        check("He came home. [5]\nAnd he slept.", "He came home. \nAnd he slept.");
    }
}
