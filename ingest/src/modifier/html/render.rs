//! A selection of a tree as plain text: blocks separated by a blank line, items as `- `, cells by ` | `, `pre` verbatim.

use super::content::Selection;
use super::tag::Tag;
use super::tree::Tree;

/// Returns the text of `selection`.
pub(in crate::modifier) fn text(tree: &Tree, selection: &Selection) -> String {
    let mut writer = Writer::default();
    for &root in &selection.roots {
        writer.subtree(tree, &selection.removed, root);
        writer.break_lines(2);
    }
    writer.out
}

#[derive(Debug, Default)]
struct Writer {
    out: String,
    /// Line feeds that come before the next characters.
    breaks: usize,
    /// Whether a space comes before the next characters.
    has_space: bool,
    /// What comes before the next characters on their line: the marker of a list item.
    marker: &'static str,
    /// Elements that are open: where they end and what they are.
    open: Vec<(usize, Tag)>,
    n_open_pre: usize,
}

impl Writer {
    fn subtree(&mut self, tree: &Tree, removed: &[bool], root: usize) {
        let end = tree.nodes[root].end as usize;
        let mut index = root;
        while index < end {
            self.close_before(index);
            let node = &tree.nodes[index];
            if removed[index] {
                index = node.end as usize;
                continue;
            }
            match node.tag {
                Tag::Text if self.n_open_pre > 0 => self.verbatim(tree.text(index)),
                Tag::Text => self.words(tree.text(index)),
                Tag::Br => self.line_break(),
                tag => {
                    self.opened(tag);
                    self.open.push((node.end as usize, tag));
                }
            }
            index += 1;
        }
        self.close_before(usize::MAX);
    }

    fn close_before(&mut self, index: usize) {
        while let Some(&(end, tag)) = self.open.last() {
            if end > index {
                break;
            }
            self.open.pop();
            self.n_open_pre -= usize::from(tag == Tag::Pre);
            self.break_lines(breaks_around(tag));
        }
    }

    fn opened(&mut self, tag: Tag) {
        self.n_open_pre += usize::from(tag == Tag::Pre);
        match tag {
            Tag::Li => {
                self.break_lines(1);
                self.marker = "- ";
            }
            Tag::Td | Tag::Th => {
                if self.is_in_line() {
                    self.marker = " | ";
                    self.has_space = false;
                }
            }
            _ => self.break_lines(breaks_around(tag)),
        }
    }

    fn is_in_line(&self) -> bool {
        self.breaks == 0 && !self.out.is_empty()
    }

    fn line_break(&mut self) {
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = (self.breaks + 1).min(2);
        }
    }

    fn break_lines(&mut self, n: usize) {
        // A block right behind a marker stays on the marker's line.
        if n == 0 || !self.marker.is_empty() && self.marker != " | " {
            return;
        }
        self.marker = "";
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = self.breaks.max(n);
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

    fn words(&mut self, text: &str) {
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

    fn verbatim(&mut self, text: &str) {
        let text = if self.breaks > 0 || self.out.is_empty() {
            text.trim_start_matches('\n')
        } else {
            text
        };
        let kept = text.trim_end_matches('\n');
        if !kept.is_empty() {
            self.begin();
            self.out.push_str(kept);
        }
        if !self.out.is_empty() {
            self.breaks = (self.breaks + text.len() - kept.len()).min(2);
        }
    }
}

/// Line feeds before and after an element.
fn breaks_around(tag: Tag) -> usize {
    match tag {
        Tag::Td | Tag::Th => 0,
        Tag::Li
        | Tag::Tr
        | Tag::Dt
        | Tag::Dd
        | Tag::Option
        | Tag::Tbody
        | Tag::Thead
        | Tag::Tfoot => 1,
        tag if tag.is_block() => 2,
        _ => 0,
    }
}
