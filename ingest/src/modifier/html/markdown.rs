//! A selection of a tree as Markdown: headings, paragraphs, nested lists, quotations, code, tables and, where asked, links.
//!
//! What the text itself holds of `*` or `#` stays as it is: the text is for models, not for a browser.

use super::content::Selection;
use super::tag::Tag;
use super::tree::Tree;

/// Lists inside lists and quotations inside quotations beyond this stay at its depth.
const NESTING_MAX: usize = 8;

/// Returns `selection` as Markdown, links with their targets where `tree` keeps them.
pub(in crate::modifier) fn text(tree: &Tree, selection: &Selection) -> String {
    let mut writer = Writer::new(tree, selection);
    for &root in &selection.roots {
        writer.subtree(root);
        writer.break_lines(2);
    }
    writer.out
}

struct Writer<'a> {
    tree: &'a Tree,
    removed: &'a [bool],
    out: String,
    /// Elements that are open: where they begin and end, and what they are.
    open: Vec<(usize, usize, Tag)>,
    /// What every line begins with.
    prefixes: Vec<&'static str>,
    /// Numbers of the open lists; `None` for one without.
    lists: Vec<Option<u32>>,
    /// What stands before the next characters: `- `, `## `.
    marker: String,
    breaks: usize,
    has_space: bool,
    n_open_pre: usize,
    n_open_code: usize,
}

impl<'a> Writer<'a> {
    fn new(tree: &'a Tree, selection: &'a Selection) -> Self {
        Self {
            tree,
            removed: &selection.removed,
            out: String::new(),
            open: Vec::new(),
            prefixes: Vec::new(),
            lists: Vec::new(),
            marker: String::new(),
            breaks: 0,
            has_space: false,
            n_open_pre: 0,
            n_open_code: 0,
        }
    }

    fn subtree(&mut self, root: usize) {
        let end = self.tree.nodes[root].end as usize;
        let mut index = root;
        while index < end {
            self.close_before(index);
            let node = &self.tree.nodes[index];
            if self.removed[index] {
                index = node.end as usize;
                continue;
            }
            match node.tag {
                Tag::Text if self.n_open_pre > 0 => self.verbatim(self.tree.text(index)),
                Tag::Text => self.words(self.tree.text(index)),
                Tag::Br if self.n_open_pre > 0 => self.verbatim("\n"),
                Tag::Br => self.break_lines(1),
                Tag::Table => {
                    if let Some(rows) = self.rows(index) {
                        self.table(&rows);
                        index = node.end as usize;
                        continue;
                    }
                    self.begin(index);
                }
                _ => self.begin(index),
            }
            index += 1;
        }
        self.close_before(usize::MAX);
    }

    fn begin(&mut self, index: usize) {
        let node = &self.tree.nodes[index];
        self.open.push((index, node.end as usize, node.tag));
        match node.tag {
            Tag::H1 | Tag::H2 | Tag::H3 | Tag::H4 | Tag::H5 | Tag::H6 => {
                self.break_lines(2);
                let level = 1 + node.tag as usize - Tag::H1 as usize;
                self.marker = format!("{} ", &"######"[..level]);
            }
            Tag::Ul | Tag::Ol | Tag::Menu => {
                self.break_lines(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push((node.tag == Tag::Ol).then_some(0));
            }
            Tag::Li => {
                self.break_lines(1);
                self.marker = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{number}. ")
                    }
                    _ => "- ".to_owned(),
                };
            }
            Tag::Blockquote => {
                self.break_lines(2);
                self.prefixes.push("> ");
            }
            Tag::Pre => {
                self.break_lines(2);
                self.n_open_pre += 1;
                if self.n_open_pre == 1 {
                    self.put("```");
                    self.breaks = 1;
                }
            }
            Tag::Code if self.n_open_pre == 0 => {
                self.n_open_code += 1;
                if self.n_open_code == 1 {
                    self.put("`");
                }
            }
            Tag::A if !self.tree.target(index).is_empty() => {
                self.put("[");
            }
            tag => self.break_lines(breaks_around(tag)),
        }
    }

    fn close_before(&mut self, index: usize) {
        while let Some(&(start, end, tag)) = self.open.last() {
            if end > index {
                break;
            }
            self.open.pop();
            match tag {
                Tag::Ul | Tag::Ol | Tag::Menu => {
                    self.lists.pop();
                    self.break_lines(if self.lists.is_empty() { 2 } else { 1 });
                }
                Tag::Li => {
                    self.marker.clear();
                    self.break_lines(1);
                }
                Tag::Blockquote => {
                    self.break_lines(2);
                    self.prefixes.pop();
                }
                Tag::Pre => {
                    self.n_open_pre -= 1;
                    if self.n_open_pre == 0 {
                        self.breaks = 1;
                        self.put("```");
                        self.breaks = 2;
                    }
                }
                Tag::Code if self.n_open_pre == 0 && self.n_open_code > 0 => {
                    self.n_open_code -= 1;
                    if self.n_open_code == 0 {
                        self.out.push('`');
                    }
                }
                Tag::A if !self.tree.target(start).is_empty() => {
                    let target = self.tree.target(start).replace([' ', ')'], "");
                    self.out.push_str(&format!("]({target})"));
                }
                tag if tag.is_heading() => {
                    self.marker.clear();
                    self.break_lines(2);
                }
                tag => self.break_lines(breaks_around(tag)),
            }
        }
    }

    fn break_lines(&mut self, n: usize) {
        // A block right behind a marker stays on the marker's line.
        if n == 0 || !self.marker.is_empty() || self.n_open_pre > 0 {
            return;
        }
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = self.breaks.max(n);
        }
    }

    fn words(&mut self, text: &str) {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\u{a0}');
        self.has_space |= text.starts_with(is_space);
        for word in text.split(is_space).filter(|word| !word.is_empty()) {
            self.put(word);
            self.has_space = true;
        }
        self.has_space =
            text.ends_with(is_space) || (self.has_space && text.trim_matches(is_space).is_empty());
    }

    /// Writes `piece` behind what has to come before it on its line.
    fn put(&mut self, piece: &str) {
        if self.breaks > 0 || self.out.is_empty() {
            self.start_line();
        } else if self.has_space && self.marker.is_empty() {
            self.out.push(' ');
        }
        let marker = std::mem::take(&mut self.marker);
        self.out.push_str(&marker);
        self.out.push_str(piece);
        (self.breaks, self.has_space) = (0, false);
    }

    fn start_line(&mut self) {
        let quotes: String = self.prefixes.iter().take(NESTING_MAX).copied().collect();
        for line in 0..self.breaks {
            self.out.push('\n');
            if line + 1 < self.breaks {
                self.out.push_str(quotes.trim_end());
            }
        }
        self.out.push_str(&quotes);
        let is_item = self.marker == "- " || self.marker.ends_with(". ");
        let depth = self.lists.len().saturating_sub(usize::from(is_item)).min(NESTING_MAX);
        for list in &self.lists[..depth] {
            self.out.push_str(if list.is_some() { "   " } else { "  " });
        }
    }

    fn verbatim(&mut self, text: &str) {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                // The fence is a line of its own already.
                if self.breaks > 0 && self.out.ends_with("```") {
                    self.breaks = 1;
                    continue;
                }
                self.breaks += 1;
            }
            let line = line.trim_end_matches('\r');
            if !line.is_empty() {
                self.has_space = false;
                self.put(line);
            }
        }
    }

    /// The cells of the table at `index`; `None` where it is a layout: one column, blocks inside, or another table.
    fn rows(&self, index: usize) -> Option<Vec<Vec<String>>> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut at = index + 1;
        while at < self.tree.nodes[index].end as usize {
            let node = &self.tree.nodes[at];
            if self.removed[at] {
                at = node.end as usize;
                continue;
            }
            match node.tag {
                Tag::Tr => rows.push(Vec::new()),
                Tag::Td | Tag::Th => rows.last_mut()?.push(String::new()),
                Tag::Text => {
                    let is_blank = self.tree.text(at).trim().is_empty();
                    match rows.last_mut().and_then(|row| row.last_mut()) {
                        Some(cell) => cell.push_str(self.tree.text(at)),
                        None if is_blank => {}
                        None => return None,
                    }
                }
                Tag::Table | Tag::Ul | Tag::Ol | Tag::Pre | Tag::Caption => return None,
                tag if tag.is_heading() => return None,
                tag if tag.is_block() || tag == Tag::Br => {
                    if let Some(cell) = rows.last_mut().and_then(|row| row.last_mut()) {
                        cell.push(' ');
                    }
                }
                _ => {}
            }
            at += 1;
        }
        rows.retain(|row| !row.is_empty());
        let is_table = rows.len() > 1 && rows.iter().any(|row| row.len() > 1);
        is_table.then_some(rows)
    }

    fn table(&mut self, rows: &[Vec<String>]) {
        let n_columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        self.break_lines(2);
        for (number, row) in rows.iter().enumerate() {
            let mut line = String::from("|");
            for column in 0..n_columns {
                let cell = row.get(column).map_or("", String::as_str);
                let words: Vec<&str> = cell.split_whitespace().collect();
                line.push(' ');
                line.push_str(&words.join(" ").replace('|', "\\|"));
                line.push_str(if words.is_empty() { "|" } else { " |" });
            }
            self.put(&line);
            self.breaks = 1;
            if number == 0 {
                self.put(&format!("|{}", " --- |".repeat(n_columns)));
                self.breaks = 1;
            }
        }
        self.breaks = 2;
    }
}

/// Line feeds before and after an element.
fn breaks_around(tag: Tag) -> usize {
    match tag {
        Tag::Td | Tag::Th | Tag::Tr | Tag::Dt | Tag::Dd | Tag::Option => 1,
        Tag::Tbody | Tag::Thead | Tag::Tfoot => 1,
        tag if tag.is_block() => 2,
        _ => 0,
    }
}
