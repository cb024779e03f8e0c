//! Wikitext as plain text: headings, paragraphs, lists and tables, without markup.
//!
//! [`expand`](super::expand) has taken out what is not read as markup; here lines become blocks and what is inside a line
//! becomes words. Headings stand on lines of their own, and those below which nothing is left are not written. A list
//! item begins with `- `, cells of a table's row are separated by ` | `.
//!
//! Source: MediaWiki's parser as its help pages and parser tests describe it.

use super::expand::{Expanded, MARK, Tag, Verbatim, expand};
use crate::modifier::html::reference;

/// Names by which a wiki's pages are called in its own language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Prefixes of files, in lower case.
    pub(super) files: Vec<String>,
    /// Prefixes of categories, in lower case.
    pub(super) categories: Vec<String>,
}

impl Names {
    fn is_file(&self, prefix: &str) -> bool {
        matches!(prefix, "file" | "image" | "media") || self.files.iter().any(|name| name == prefix)
    }

    fn is_category(&self, prefix: &str) -> bool {
        prefix == "category" || self.categories.iter().any(|name| name == prefix)
    }
}

/// The text of a page and what was left out of it.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) n_templates_dropped: u64,
    pub(super) n_references_dropped: u64,
}

/// Returns the text of the page called `title`; with `keep_captions`, that of pictures too.
pub(super) fn text(wikitext: &str, title: &str, names: &Names, keep_captions: bool) -> Text {
    let Expanded { text, verbatim, n_templates_dropped, n_references_dropped } =
        expand(wikitext, title);
    let context = Context { names, keep_captions };
    let text = Writer::new(context, 0).blocks(&text);
    Text { text: restore(&text, &verbatim), n_templates_dropped, n_references_dropped }
}

/// Puts what was kept aside back in its place.
fn restore(text: &str, verbatim: &[Verbatim]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut follows_block = false;
    for (index, part) in text.split(MARK).enumerate() {
        // Text and numbers alternate.
        let kept = (index % 2 == 1).then(|| part.parse().ok().and_then(|n: usize| verbatim.get(n)));
        let Some(kept) = kept else {
            out.push_str(if follows_block { part.trim_start() } else { part });
            continue;
        };
        let kept = kept.expect("a mark holds the number of a span");
        follows_block = kept.is_block;
        if kept.is_block {
            let end = out.trim_end_matches([' ', '\n']).len();
            out.truncate(end);
            if !out.is_empty() {
                out.push_str("\n\n");
            }
        }
        let body = if kept.is_block { kept.text.trim_matches('\n').trim_end() } else { &kept.text };
        if kept.has_references {
            reference::decode(body, false, &mut out);
        } else {
            out.push_str(body);
        }
        if kept.is_block {
            out.push_str("\n\n");
        }
    }
    let mut out = out.replace(MARK, "");
    out.truncate(out.trim_end().len());
    out
}

#[derive(Clone, Copy)]
struct Context<'a> {
    names: &'a Names,
    keep_captions: bool,
}

/// What a block is; equal ones that follow each other are separated by one line feed where they are rows of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Paragraph,
    Item,
    Row,
    Preformatted,
}

/// Tables inside tables, at most; deeper ones are read as lines.
const TABLES_MAX: usize = 12;
/// Links inside links (captions of files), at most.
const LINKS_MAX: usize = 8;

struct Writer<'a> {
    context: Context<'a>,
    /// Tables around this text.
    depth: usize,
    out: String,
    last: Option<Block>,
    /// Headings that nothing has followed yet.
    headings: Vec<(usize, String)>,
    paragraph: String,
}

impl<'a> Writer<'a> {
    fn new(context: Context<'a>, depth: usize) -> Self {
        let (out, headings, paragraph) = (String::new(), Vec::new(), String::new());
        Self { context, depth, out, last: None, headings, paragraph }
    }

    fn blocks(mut self, text: &str) -> String {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if self.depth < TABLES_MAX && opens_table(line) {
                self.end_paragraph();
                let rest = self.table(line, &mut lines);
                if !rest.trim().is_empty() {
                    self.line(rest);
                }
            } else {
                self.line(line);
            }
        }
        self.end_paragraph();
        self.out
    }

    fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return self.end_paragraph();
        }
        match line.as_bytes()[0] {
            b'=' if self.heading(line) => {}
            b'*' | b'#' | b':' | b';' => {
                self.end_paragraph();
                let markers = line.bytes().take_while(|byte| b"*#:;".contains(byte)).count();
                let marker = match line.as_bytes()[markers - 1] {
                    b'*' | b'#' => "- ",
                    _ => "",
                };
                let text = self.inline(&quotes(&line[markers..]));
                self.paragraphs(Block::Item, marker, &text);
            }
            b'-' if line.starts_with("----") => {
                self.end_paragraph();
                self.line(line.trim_start_matches('-'));
            }
            b' ' if self.paragraph.is_empty() => {
                let text = self.inline(&quotes(&line[1..]));
                // Two paragraphs in a line come from HTML: the blank was an accident.
                self.paragraphs(Block::Preformatted, "", &text);
            }
            _ => {
                if !self.paragraph.is_empty() {
                    self.paragraph.push('\n');
                }
                self.paragraph.push_str(&quotes(line));
            }
        }
    }

    fn heading(&mut self, line: &str) -> bool {
        let line = line.trim_end();
        let before = line.bytes().take_while(|&byte| byte == b'=').count();
        let after = line.bytes().rev().take_while(|&byte| byte == b'=').count();
        let level = before.min(after).min(6).min(line.len().saturating_sub(1) / 2);
        if level == 0 {
            return false;
        }
        self.end_paragraph();
        let title = self.inline(&quotes(&line[level..line.len() - level]));
        self.headings.retain(|&(above, _)| above < level);
        let title = squeeze(&title).replace('\n', " ");
        if !title.is_empty() {
            self.headings.push((level, title));
        }
        true
    }

    fn end_paragraph(&mut self) {
        if self.paragraph.is_empty() {
            return;
        }
        let paragraph = std::mem::take(&mut self.paragraph);
        let text = self.inline(&paragraph);
        self.paragraphs(Block::Paragraph, "", &text);
    }

    /// Writes what [`Self::inline`] gave: its paragraphs are blocks.
    fn paragraphs(&mut self, block: Block, marker: &str, text: &str) {
        for (index, part) in text.split("\n\n").enumerate() {
            let part = if block == Block::Preformatted {
                part.trim_end().to_owned()
            } else {
                squeeze(part)
            };
            let marker = if index == 0 { marker } else { "" };
            self.write(block, marker, &part);
        }
    }

    fn write(&mut self, block: Block, marker: &str, text: &str) {
        // What is left of a sentence whose words were templates is no sentence.
        if !text.contains(|c: char| c.is_alphanumeric() || c == MARK || !c.is_ascii()) {
            return;
        }
        for (_, heading) in std::mem::take(&mut self.headings) {
            if !self.out.is_empty() {
                self.out.push_str("\n\n");
            }
            self.out.push_str(&heading);
            self.last = None;
        }
        if !self.out.is_empty() {
            let is_same = self.last == Some(block) && block != Block::Paragraph;
            self.out.push_str(if is_same { "\n" } else { "\n\n" });
        }
        self.out.push_str(marker);
        self.out.push_str(text);
        self.last = Some(block);
    }

    /// Reads the table that `first` opens; returns what follows its end on the line.
    fn table<'b>(&mut self, first: &str, lines: &mut std::str::Lines<'b>) -> &'b str {
        // The first line holds attributes only.
        let mut rows = Rows::default();
        let mut rest = "";
        let mut inner = 0;
        for line in lines.by_ref() {
            let trimmed = line.trim_start();
            if inner > 0 || opens_table(line) {
                inner += usize::from(opens_table(line));
                inner -= usize::from(trimmed.starts_with("|}"));
                rows.text(line);
            } else if let Some(after) = trimmed.strip_prefix("|}") {
                rest = after;
                break;
            } else if trimmed.starts_with("|-") {
                rows.end_row();
            } else if let Some(caption) = trimmed.strip_prefix("|+") {
                rows.end_row();
                rows.cell(cell_text(caption));
                rows.end_row();
            } else if let Some(cells) = trimmed.strip_prefix('|') {
                rows.cells(cells, false);
            } else if let Some(cells) = trimmed.strip_prefix('!') {
                rows.cells(cells, true);
            } else {
                rows.text(line);
            }
        }
        rows.end_row();
        debug_assert!(opens_table(first));
        for row in &rows.rows {
            self.row(row);
        }
        self.last = None;
        rest
    }

    fn row(&mut self, cells: &[String]) {
        let texts: Vec<String> = cells
            .iter()
            .map(|cell| Writer::new(self.context, self.depth + 1).blocks(cell.trim()))
            .filter(|text| !text.is_empty())
            .collect();
        // Cells with paragraphs are a layout, not data.
        if texts.iter().any(|text| text.contains("\n\n")) {
            for text in &texts {
                self.last = None;
                self.write(Block::Paragraph, "", text);
            }
        } else {
            let line: Vec<String> = texts.iter().map(|text| text.replace('\n', " ")).collect();
            self.write(Block::Row, "", &line.join(" | "));
        }
    }

    fn inline(&self, text: &str) -> String {
        let mut inline = Inline { context: self.context, out: String::with_capacity(text.len()) };
        inline.read(text, 0);
        inline.out
    }
}

fn opens_table(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t', ':', '*']);
    line.starts_with("{|")
}

/// The cells of a table as they are read.
#[derive(Default)]
struct Rows {
    rows: Vec<Vec<String>>,
    row: Vec<String>,
}

impl Rows {
    fn end_row(&mut self) {
        if !self.row.is_empty() {
            self.rows.push(std::mem::take(&mut self.row));
        }
    }

    fn cell(&mut self, text: &str) {
        self.row.push(text.to_owned());
    }

    fn cells(&mut self, line: &str, is_header: bool) {
        let mut start = 0;
        let mut depth = 0_usize;
        let bytes = line.as_bytes();
        let mut at = 0;
        while at + 1 < bytes.len() {
            match &bytes[at..at + 2] {
                b"[[" => depth += 1,
                b"]]" => depth = depth.saturating_sub(1),
                b"||" if depth == 0 => {}
                b"!!" if depth == 0 && is_header => {}
                _ => {
                    at += 1;
                    continue;
                }
            }
            if matches!(bytes[at], b'|' | b'!') {
                self.cell(cell_text(&line[start..at]));
                start = at + 2;
            }
            at += 2;
        }
        self.cell(cell_text(&line[start..]));
    }

    /// A line that goes on with the last cell.
    fn text(&mut self, line: &str) {
        if let Some(cell) = self.row.last_mut() {
            cell.push('\n');
            cell.push_str(line);
        } else if !line.trim().is_empty() {
            // Text before the first cell: MediaWiki shows it above the table.
            self.row.push(line.to_owned());
        }
    }
}

/// Cuts the attributes off a cell: what stands before a single `|`, unless it is a link.
fn cell_text(cell: &str) -> &str {
    match cell.split_once('|') {
        Some((attributes, text)) if !attributes.contains("[[") && !attributes.contains("-{") => {
            text
        }
        _ => cell,
    }
}

/// Takes out the apostrophes of bold and italic type in a line.
///
/// Where both are unbalanced, one of the three apostrophes is a letter, as in `l'''amour''`.
///
/// Source: MediaWiki's `doQuotes`.
fn quotes(line: &str) -> String {
    if !line.contains("''") {
        return line.to_owned();
    }
    let mut parts: Vec<(&str, usize)> = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("''") {
        let run = rest[at..].bytes().take_while(|&byte| byte == b'\'').count();
        parts.push((&rest[..at], run));
        rest = &rest[at + run..];
    }
    // Runs of four are an apostrophe and three, those above five are apostrophes and five.
    let plain = |run: usize| match run {
        4 => 1,
        6.. => run - 5,
        _ => 0,
    };
    let is_bold = |run: usize| run == 3 || run == 4 || run >= 5;
    let is_italic = |run: usize| run == 2 || run >= 5;
    let n_bold = parts.iter().filter(|(_, run)| is_bold(*run)).count();
    let n_italic = parts.iter().filter(|(_, run)| is_italic(*run)).count();
    let letter = (n_bold % 2 == 1 && n_italic % 2 == 1).then(|| apostrophe(&parts)).flatten();
    let mut out = String::with_capacity(line.len());
    for (index, (text, run)) in parts.iter().enumerate() {
        out.push_str(text);
        let n = plain(*run) + usize::from(letter == Some(index));
        out.extend(std::iter::repeat_n('\'', n));
    }
    out.push_str(rest);
    out
}

/// Which run of three begins with a letter: the first after a word of one letter, after a longer word, after a blank.
fn apostrophe(parts: &[(&str, usize)]) -> Option<usize> {
    let rank = |text: &str| {
        let mut before = text.chars().rev();
        match (before.next(), before.next()) {
            (Some(' ') | None, _) => 2,
            (_, Some(' ')) => 0,
            _ => 1,
        }
    };
    let runs = parts.iter().enumerate().filter(|(_, (_, run))| *run == 3);
    runs.min_by_key(|(index, (text, _))| (rank(text), *index)).map(|(index, _)| index)
}

/// Writes blanks as one, without those around line feeds.
fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split('\n') {
        let words = line.split([' ', '\t', '\r', '\u{a0}']).filter(|word| !word.is_empty());
        let before = out.len();
        for word in words {
            if out.len() > before {
                out.push(' ');
            }
            out.push_str(word);
        }
        if out.len() > before {
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// What is inside a line: links, tags, character references.
struct Inline<'a> {
    context: Context<'a>,
    out: String,
}

impl Inline<'_> {
    /// Reads `text`, whose line feeds are blanks; in what is written they are breaks.
    fn read(&mut self, text: &str, depth: usize) {
        let bytes = text.as_bytes();
        let links = pairs(text);
        let last_variant = text.rfind("}-").unwrap_or(0);
        let last_bracket = text.rfind(']').unwrap_or(0);
        let mut next_link = links.iter().copied().peekable();
        let (mut at, mut plain) = (0, 0);
        while at < bytes.len() {
            let used = match bytes[at] {
                b'[' => {
                    while next_link.peek().is_some_and(|&(open, _)| open < at) {
                        next_link.next();
                    }
                    let link = next_link.peek().filter(|&&(open, _)| open == at).map(|link| link.1);
                    self.flush(&text[plain..at], &mut plain, at);
                    match link {
                        Some(close) => {
                            self.link(&text[at + 2..close], depth);
                            close + 2 - at
                        }
                        None if at > last_bracket => 0,
                        None => self.external(&text[at..], depth),
                    }
                }
                b'<' => Tag::parse(&text[at..]).map_or(0, |tag| {
                    self.flush(&text[plain..at], &mut plain, at);
                    self.tag(&tag)
                }),
                b'_' if bytes.get(at + 1) == Some(&b'_') => {
                    let used = behaviour_switch(&text[at..]);
                    self.flush(&text[plain..at], &mut plain, at);
                    used
                }
                b'-' if at < last_variant && bytes.get(at + 1) == Some(&b'{') => {
                    self.flush(&text[plain..at], &mut plain, at);
                    self.variant(&text[at..], depth)
                }
                _ => 0,
            };
            at += used.max(1);
            if used > 0 {
                plain = at;
            }
        }
        self.flush(&text[plain..], &mut plain, bytes.len());
    }

    /// Writes plain text and notes that it is written up to `at`.
    fn flush(&mut self, text: &str, plain: &mut usize, at: usize) {
        *plain = at;
        let text = text.replace('\n', " ");
        if !text.contains('&') {
            return self.out.push_str(&text);
        }
        for (index, part) in text.split(MARK).enumerate() {
            if index > 0 {
                self.out.push(MARK);
            }
            let from = self.out.len();
            reference::decode(part, false, &mut self.out);
            // A reference to the mark's own character would forge one.
            if self.out[from..].contains(MARK) {
                let clean = self.out.split_off(from).replace(MARK, "");
                self.out.push_str(&clean);
            }
        }
    }

    /// Writes what `[[inner]]` shows.
    fn link(&mut self, inner: &str, depth: usize) {
        let (target, label) = match inner.split_once('|') {
            Some((target, label)) => (target, Some(label)),
            None => (inner, None),
        };
        let shown = target.trim();
        let target = shown.strip_prefix(':');
        let is_explicit = target.is_some();
        let target = target.unwrap_or(shown).trim();
        if !is_explicit && let Some((prefix, _)) = target.split_once(':') {
            let prefix = prefix.trim().replace('_', " ").to_lowercase();
            if self.context.names.is_file(&prefix) {
                return self.caption(label, depth);
            }
            if self.context.names.is_category(&prefix) || is_language(&prefix) {
                return;
            }
        }
        let label = label.filter(|label| !label.trim().is_empty());
        match label {
            Some(label) if depth < LINKS_MAX => self.read(label, depth + 1),
            Some(label) => self.out.push_str(label),
            None => {
                let mut end = 0;
                self.flush(target.strip_prefix('#').unwrap_or(target), &mut end, 0);
            }
        }
    }

    /// Writes the caption of a file: the last of its parameters, when it has words and is no parameter.
    fn caption(&mut self, parameters: Option<&str>, depth: usize) {
        let Some(parameters) = parameters.filter(|_| self.context.keep_captions) else { return };
        let closed = pairs(parameters);
        let is_inside = |at: usize| closed.iter().any(|&(open, close)| open < at && at < close);
        let bar = parameters.match_indices('|').map(|(at, _)| at).rfind(|&at| !is_inside(at));
        let caption = &parameters[bar.map_or(0, |at| at + 1)..];
        if depth < LINKS_MAX
            && caption.trim().contains(char::is_whitespace)
            && !caption.starts_with("alt=")
        {
            self.out.push_str("\n\n");
            self.read(caption, depth + 1);
            self.out.push_str("\n\n");
        }
    }

    /// Reads what starts with `[` and is no link to a page; returns the bytes used, 0 when it is text.
    fn external(&mut self, text: &str, depth: usize) -> usize {
        const SCHEMES: [&str; 8] =
            ["http://", "https://", "ftp://", "//", "mailto:", "irc://", "news:", "gopher://"];
        let is_link = |scheme: &&str| {
            text.get(1..1 + scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme))
        };
        if !SCHEMES.iter().any(is_link) {
            return 0;
        }
        let Some(end) = external_end(text) else { return 0 };
        let inner = &text[1..end];
        if let Some((_, label)) = inner.split_once([' ', '\t', '\u{a0}'])
            && depth < LINKS_MAX
        {
            self.read(label.trim(), depth + 1);
        }
        end + 1
    }

    /// Writes what a tag of HTML means for text; returns the bytes used, 0 when it is none.
    fn tag(&mut self, tag: &Tag) -> usize {
        match tag.name.as_str() {
            "br" => self.out.push('\n'),
            "tr" | "dt" | "dd" => self.out.push('\n'),
            "li" => {
                if !tag.is_closing {
                    self.out.push_str("\n- ");
                }
            }
            "td" | "th" => {
                let line = self.out.rsplit('\n').next().unwrap_or_default();
                if !tag.is_closing && !line.trim().is_empty() {
                    self.out.push_str(" | ");
                }
            }
            "p" | "div" | "center" | "blockquote" | "table" | "ul" | "ol" | "dl" | "h1" | "h2"
            | "h3" | "h4" | "h5" | "h6" | "hr" | "caption" | "poem" => self.out.push_str("\n\n"),
            "b" | "i" | "u" | "s" | "em" | "strong" | "small" | "big" | "sub" | "sup" | "span"
            | "font" | "tt" | "code" | "kbd" | "samp" | "var" | "abbr" | "cite" | "q" | "del"
            | "ins" | "strike" | "dfn" | "mark" | "bdi" | "bdo" | "ruby" | "rb" | "rp" | "rt"
            | "rtc" | "data" | "time" | "wbr" | "a" | "img" | "thead" | "tbody" | "tfoot"
            | "col" | "colgroup" | "ref" | "references" | "gallery" | "nowiki" | "noinclude"
            | "includeonly" | "onlyinclude" | "pre" | "math" | "section" | "figure"
            | "figcaption" => {}
            _ => return 0,
        }
        tag.bytes
    }

    /// Reads `-{…}-`: words that differ between a language's scripts; the first is taken.
    fn variant(&mut self, text: &str, depth: usize) -> usize {
        let Some(end) = text.find("}-").filter(|_| depth < LINKS_MAX) else { return 0 };
        let inner = &text[2..end];
        let inner = inner.rsplit_once('|').map_or(inner, |(_, words)| words);
        let first = inner.split(';').next().unwrap_or(inner);
        let words = match first.split_once(':') {
            Some((code, words))
                if code.trim().chars().all(|c| c.is_ascii_lowercase() || c == '-') =>
            {
                words
            }
            _ => inner,
        };
        self.read(words, depth + 1);
        end + 2
    }
}

/// Returns where `[[` stands that have their `]]`, and where those stand, in order of the first.
fn pairs(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let (mut open, mut pairs) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"[[" => {
                // Of `[[[` the last two open.
                let run = bytes[at..].iter().take_while(|&&byte| byte == b'[').count();
                open.push(at + run - 2);
                at += run;
            }
            b"]]" => {
                pairs.extend(open.pop().map(|start| (start, at)));
                at += 2;
            }
            _ => at += 1,
        }
    }
    pairs.sort_unstable();
    pairs
}

/// The `]` that ends an external link: the first on its line that closes no link inside.
fn external_end(text: &str) -> Option<usize> {
    const LINK_BYTES_MAX: usize = 4096;
    let bytes = &text.as_bytes()[..text.len().min(LINK_BYTES_MAX)];
    let mut at = 1;
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'[' if bytes.get(at + 1) == Some(&b'[') => {
                depth += 1;
                at += 1;
            }
            b']' if depth > 0 => {
                depth -= 1;
                at += usize::from(bytes.get(at + 1) == Some(&b']'));
            }
            b']' => return Some(at),
            b'\n' => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Bytes of a word such as `__NOTOC__`, 0 when `text` does not begin with one.
fn behaviour_switch(text: &str) -> usize {
    let Some(end) = text[2..].char_indices().take(40).find(|(_, c)| *c == '_').map(|(at, _)| at)
    else {
        return 0;
    };
    let word = &text[2..2 + end];
    let is_switch = !word.is_empty()
        && word.chars().all(char::is_uppercase)
        && text[2 + end..].starts_with("__");
    if is_switch { end + 4 } else { 0 }
}

/// Whether a link with this prefix leads to the same article in another language and shows nothing.
fn is_language(prefix: &str) -> bool {
    /// Codes of Wikipedia's languages, July 2024, that are no words of their own.
    const CODES: &str = " aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb \
        ba ban bar bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca \
        cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el \
        eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor \
        got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh \
        io is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn ko koi kr krc ks ksh ku kus kv kw \
        ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml \
        mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na nah nap nds nds-nl ne new ng nia nl nn no nov nqo nr nrm \
        nso nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro \
        roa-rup roa-tara ru rue rw sa sah sat sc scn sco sd se sg sh shi shn si simple sk skr sl sm smn sn so sq sr srn \
        ss st stq su sv sw szl szy ta tay tcy tdd te tet tg th ti tk tl tly tn to tok tpi tr trv ts tt tum tw ty tyv \
        udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical \
        zh-min-nan zh-yue zu ";
    !prefix.contains(' ') && CODES.contains(&format!(" {prefix} "))
}
