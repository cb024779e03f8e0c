//! A tree of XML as [`Prose`], each element as its format says.

use super::xml::Tree;
use crate::prose::Prose;

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
            Style::Item => self.item(),
            Style::Cell => self.cell(),
            Style::Break => self.line_break(),
            _ => {}
        }
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
    use super::Style;
    use crate::prose::Prose;

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
