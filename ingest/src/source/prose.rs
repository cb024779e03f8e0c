//! A tree as plain text: blocks separated by a blank line, items as `- `, cells by ` | `.

use super::xml::Tree;

/// How an element is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Not at all.
    Skip,
    /// As part of the line around it.
    Inline,
    /// With a blank line before and after it.
    Block,
    /// On lines of its own.
    Line,
    /// On lines of its own, the first of which begins with `- `.
    Item,
    /// Separated from what precedes it on its line.
    Cell,
    /// As a block whose white space counts.
    Verbatim,
    /// As a line feed.
    Break,
    /// As the TeX it holds, without the document around it.
    Formula,
}

/// Collects text.
#[derive(Debug, Default)]
pub(super) struct Prose {
    out: String,
    /// Line feeds that come before the next characters.
    breaks: usize,
    /// Whether a space comes before the next characters.
    has_space: bool,
    /// What comes before the next characters on their line.
    marker: &'static str,
}

impl Prose {
    /// Writes `root` and what is below it; `style` says how, element by element.
    pub(super) fn tree(&mut self, tree: &Tree, root: usize, style: impl Fn(&Tree, usize) -> Style) {
        // Elements that are open: where they end and how they are written.
        let mut open: Vec<(usize, Style)> = Vec::new();
        let mut n_verbatim = 0;
        let mut index = root;
        let end = tree.end(root);
        while index < end {
            self.close(&mut open, &mut n_verbatim, index);
            if let Some(text) = tree.text(index) {
                if n_verbatim > 0 {
                    self.verbatim(text)
                } else {
                    self.words(text)
                }
                index += 1;
                continue;
            }
            let style = style(tree, index);
            if style == Style::Formula {
                self.words(formula(&tree.string(index)));
            }
            if matches!(style, Style::Skip | Style::Formula) {
                index = tree.end(index);
                continue;
            }
            n_verbatim += usize::from(style == Style::Verbatim);
            self.open(style);
            open.push((tree.end(index), style));
            index += 1;
        }
        self.close(&mut open, &mut n_verbatim, usize::MAX);
    }

    fn close(&mut self, open: &mut Vec<(usize, Style)>, n_verbatim: &mut usize, index: usize) {
        while let Some(&(end, style)) = open.last() {
            if end > index {
                break;
            }
            open.pop();
            *n_verbatim -= usize::from(style == Style::Verbatim);
            self.break_lines(breaks(style));
        }
    }

    fn open(&mut self, style: Style) {
        self.break_lines(breaks(style));
        match style {
            Style::Item => self.marker = "- ",
            Style::Cell if self.breaks == 0 && !self.out.is_empty() => {
                self.marker = " | ";
                self.has_space = false;
            }
            Style::Break if !self.out.is_empty() => {
                self.has_space = false;
                self.breaks = (self.breaks + 1).min(2);
            }
            _ => {}
        }
    }

    /// Writes `text` as a block of its own.
    pub(super) fn block(&mut self, text: &str) {
        self.break_lines(2);
        self.words(text);
        self.break_lines(2);
    }

    /// Ends the line, with `n - 1` empty ones behind it.
    pub(super) fn break_lines(&mut self, n: usize) {
        // A block right behind an item's marker stays on the marker's line.
        if n == 0 || self.marker == "- " {
            return;
        }
        self.marker = "";
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = self.breaks.max(n);
        }
    }

    /// Writes the words of `text`, white space as one space.
    pub(super) fn words(&mut self, text: &str) {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\u{a0}');
        let mut rest = text;
        loop {
            let word = rest.trim_start_matches(is_space);
            self.has_space |= word.len() < rest.len();
            if word.is_empty() {
                return;
            }
            let end = word.find(is_space).unwrap_or(word.len());
            self.begin();
            self.out.push_str(&word[..end]);
            rest = &word[end..];
        }
    }

    /// Begins an item of a list.
    pub(super) fn item(&mut self) {
        self.break_lines(1);
        self.marker = "- ";
    }

    /// Takes back the space before the next characters.
    pub(super) fn join(&mut self) {
        self.has_space = false;
    }

    /// Writes `text` with its white space as it is.
    pub(super) fn verbatim(&mut self, text: &str) {
        let is_fresh = self.breaks > 0 || self.out.is_empty();
        let text = if is_fresh { text.trim_start_matches('\n') } else { text };
        let kept = text.trim_end_matches('\n');
        if !kept.is_empty() {
            self.begin();
            self.out.push_str(kept);
        }
        if !self.out.is_empty() {
            self.breaks = (self.breaks + text.len() - kept.len()).min(2);
        }
    }

    /// Writes what has to come before the next characters.
    fn begin(&mut self) {
        if self.breaks > 0 {
            self.out.extend(std::iter::repeat_n('\n', self.breaks));
        } else if self.has_space && self.marker.is_empty() && !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(self.marker);
        (self.breaks, self.has_space, self.marker) = (0, false, "");
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// Returns what stands between the begin and the end of a TeX document.
fn formula(tex: &str) -> &str {
    let body = tex.split_once("\\begin{document}").map_or(tex, |(_, body)| body);
    body.split_once("\\end{document}").map_or(body, |(body, _)| body).trim()
}

fn breaks(style: Style) -> usize {
    match style {
        Style::Block | Style::Verbatim => 2,
        Style::Line | Style::Item => 1,
        Style::Skip | Style::Inline | Style::Cell | Style::Break | Style::Formula => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::Tree;
    use super::{Prose, Style};

    fn check(document: &str, expected: &str) {
        let tree = Tree::parse(document).unwrap();
        let mut prose = Prose::default();
        prose.tree(&tree, 0, |tree, index| match tree.name(index) {
            "p" => Style::Block,
            "tr" => Style::Line,
            "td" => Style::Cell,
            "li" => Style::Item,
            "pre" => Style::Verbatim,
            "br" => Style::Break,
            "s" => Style::Skip,
            _ => Style::Inline,
        });
        assert_eq!(prose.finish(), expected, "{document}");
    }

    #[test]
    fn separates_blocks_lines_and_cells() {
        check("<a> x <p>y\n z</p><p/>w<s>no</s> <b>b</b>c</a>", "x\n\ny z\n\nw bc");
        check("<a><tr><td>1</td> <td>2</td></tr><tr><td/><td>3</td></tr></a>", "1 | 2\n3");
        check("<a><li><p>one</p></li><li>two</li></a>", "- one\n\n- two");
        check("<a>x<pre>\n  y\n\n z\n</pre>w<br/>v</a>", "x\n\n  y\n\n z\n\nw\nv");
    }
}
