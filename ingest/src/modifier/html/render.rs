//! A selection of a tree as plain text: blocks separated by a blank line, items as `- `, cells by ` | `, `pre` verbatim.

use super::content::Selection;
use super::tag::Tag;
use super::tree::Tree;
use crate::prose::Prose;

/// Returns the text of `selection`.
pub(in crate::modifier) fn text(tree: &Tree, selection: &Selection) -> String {
    let mut writer = Writer::default();
    for &root in &selection.roots {
        writer.subtree(tree, &selection.removed, root);
        writer.prose.break_lines(2);
    }
    writer.prose.finish()
}

#[derive(Debug, Default)]
struct Writer {
    prose: Prose,
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
                Tag::Text if self.n_open_pre > 0 => self.prose.verbatim(tree.text(index)),
                Tag::Text => self.prose.words(tree.text(index)),
                Tag::Br => self.prose.line_break(),
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
            self.prose.break_lines(breaks_around(tag));
        }
    }

    fn opened(&mut self, tag: Tag) {
        self.n_open_pre += usize::from(tag == Tag::Pre);
        match tag {
            Tag::Li => self.prose.item(),
            Tag::Td | Tag::Th => self.prose.cell(),
            _ => self.prose.break_lines(breaks_around(tag)),
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
