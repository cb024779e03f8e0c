//! The first half of reading wikitext: comments, extension tags and templates, as MediaWiki's preprocessor sees them.
//!
//! No template is looked up: those that carry words of the article give them by the table in [`super::template`], all others
//! give nothing and are counted. What must not be read as markup (`nowiki`, `pre`, code, formulas) leaves a mark behind and is
//! put back at the end. One pass with a stack of its own: depth costs no stack of the machine.

use super::template;

/// Opens and closes the number of a span that is kept as it is. Not a character of XML, so no page contains it.
pub(super) const MARK: char = '\u{7f}';

/// What is left of a page's wikitext.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    /// Text, links, tables and HTML.
    pub(super) text: String,
    /// Spans kept as they are; in `text` they are their number between two [`MARK`]s.
    pub(super) verbatim: Vec<Verbatim>,
    /// Templates that gave nothing.
    pub(super) n_templates_dropped: u64,
    pub(super) n_references_dropped: u64,
}

/// A span that is no markup.
#[derive(Debug)]
pub(super) struct Verbatim {
    pub(super) text: String,
    /// Whether it stands on lines of its own.
    pub(super) is_block: bool,
    /// Whether HTML character references in it are resolved.
    pub(super) has_references: bool,
}

/// An opening bracket whose closing one has not come yet.
struct Frame {
    /// `{` or `[`.
    bracket: u8,
    /// How many brackets are open: two or more of `{`, two of `[`.
    count: usize,
    /// What stands between the `|` so far.
    pieces: Vec<String>,
}

impl Frame {
    /// The text that the frame would be if it were no markup.
    fn source(self) -> String {
        let mut text = (self.bracket as char).to_string().repeat(self.count);
        text.push_str(&self.pieces.join("|"));
        text
    }
}

/// Frames that may be open at once; deeper brackets are text. Real pages stay below 40 (MediaWiki's limit).
const DEPTH_MAX: usize = 100;

/// Brackets that are looked at together.
const RUN_MAX: usize = 24;
/// Braces of a run that can open something; the rest is text.
const BRACES_MAX: usize = 12;

/// Expands `wikitext` of the page called `title`.
pub(super) fn expand(wikitext: &str, title: &str) -> Expanded {
    let mut expander =
        Expander { title, out: Expanded::default(), stack: Vec::new(), unclosed: Vec::new() };
    expander.run(wikitext);
    expander.out
}

struct Expander<'a> {
    title: &'a str,
    out: Expanded,
    stack: Vec<Frame>,
    /// Tags that have no closing one from here on.
    unclosed: Vec<String>,
}

impl Expander<'_> {
    fn run(&mut self, wikitext: &str) {
        let bytes = wikitext.as_bytes();
        let mut at = 0;
        let mut plain = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if !matches!(byte, b'{' | b'}' | b'[' | b']' | b'|' | b'<' | 0x7f) {
                at += 1;
                continue;
            }
            self.push(&wikitext[plain..at]);
            at += match byte {
                b'<' => self.tag(&wikitext[at..]),
                b'|' => self.bar(),
                0x7f => 1,
                _ => {
                    let same = bytes[at..].iter().take(RUN_MAX).take_while(|&&next| next == byte);
                    let run = same.count();
                    self.brackets(byte, run, &wikitext[at..at + run], bytes.get(at + run).copied())
                }
            };
            plain = at;
        }
        self.push(&wikitext[plain..]);
        // Brackets that never close are the author's slip: the words stay, the brackets go.
        while let Some(frame) = self.stack.pop() {
            let text = if frame.bracket == b'{' {
                self.out.n_templates_dropped += 1;
                frame.pieces.join("|")
            } else {
                frame.source()
            };
            self.push(&text);
        }
    }

    fn push(&mut self, text: &str) {
        match self.stack.last_mut() {
            Some(frame) => frame.pieces.last_mut().expect("a frame has a piece").push_str(text),
            None => self.out.text.push_str(text),
        }
    }

    fn bar(&mut self) -> usize {
        match self.stack.last_mut() {
            Some(frame) if frame.bracket == b'{' => frame.pieces.push(String::new()),
            _ => self.push("|"),
        }
        1
    }

    /// Reads a run of equal brackets; returns the bytes used.
    fn brackets(&mut self, byte: u8, run: usize, text: &str, next: Option<u8>) -> usize {
        match byte {
            // `{|` opens a table: the last brace belongs to it.
            b'{' if next == Some(b'|') && run % 2 == 1 => {
                if run > 1 {
                    self.open(b'{', run - 1, &text[1..]);
                }
                self.push("{");
                run
            }
            b'{' | b'[' => {
                self.open(byte, run, text);
                run
            }
            b'}' => self.close_braces(run),
            _ => self.close_link(run),
        }
    }

    fn open(&mut self, bracket: u8, run: usize, text: &str) {
        if run < 2 || self.stack.len() >= DEPTH_MAX {
            return self.push(text);
        }
        // The outer brackets of `[[[` are text; braces are told apart when they close.
        let count = if bracket == b'[' { 2 } else { run.min(BRACES_MAX) };
        self.push(&text[count..]);
        self.stack.push(Frame { bracket, count, pieces: vec![String::new()] });
    }

    fn close_link(&mut self, run: usize) -> usize {
        let is_link = self.stack.last().is_some_and(|frame| frame.bracket == b'[');
        if !is_link || run < 2 {
            self.push(if run < 2 { "]" } else { "]]" });
            return run.min(2);
        }
        let frame = self.stack.pop().expect("looked at");
        let text = frame.source();
        self.push(&text);
        self.push("]]");
        2
    }

    fn close_braces(&mut self, run: usize) -> usize {
        // A link that does not close inside a template is text of it.
        let is_open = |frame: &Frame| frame.bracket == b'{';
        if run < 2 || !self.stack.iter().any(is_open) {
            let text = "}".repeat(run);
            self.push(&text);
            return run;
        }
        while self.stack.last().is_some_and(|frame| frame.bracket == b'[') {
            let text = self.stack.pop().expect("looked at").source();
            self.push(&text);
        }
        let mut frame = self.stack.pop().expect("one is open");
        let used = run.min(frame.count).min(3);
        let pieces = std::mem::replace(&mut frame.pieces, vec![String::new()]);
        let text = if used == 3 { parameter(&pieces) } else { self.template(&pieces) };
        frame.count -= used;
        match frame.count {
            0 => {}
            1 => self.push("{"),
            _ => self.stack.push(frame),
        }
        self.push(&text);
        used
    }

    fn template(&mut self, pieces: &[String]) -> String {
        template::expand(pieces, self.title).unwrap_or_else(|| {
            self.out.n_templates_dropped += 1;
            String::new()
        })
    }

    /// Reads what starts with `<`; returns the bytes used.
    fn tag(&mut self, text: &str) -> usize {
        if text.starts_with("<!--") {
            return text.find("-->").map_or(text.len(), |end| end + 3);
        }
        let Some(tag) = Tag::parse(text) else {
            self.push("<");
            return 1;
        };
        let Some(rule) = rule(&tag.name) else {
            self.push(&text[..tag.bytes]);
            return tag.bytes;
        };
        if rule == Rule::Unwrap {
            return tag.bytes;
        }
        if tag.is_closing || tag.is_empty {
            self.out.n_references_dropped += u64::from(rule == Rule::Reference && tag.is_empty);
            return tag.bytes;
        }
        // Never closed: MediaWiki shows such a tag as text; the text after it is what matters.
        if self.unclosed.contains(&tag.name) {
            return tag.bytes;
        }
        let Some((body, used)) = body(text, &tag) else {
            self.unclosed.push(tag.name);
            return tag.bytes;
        };
        match rule {
            Rule::Reference => self.out.n_references_dropped += 1,
            Rule::Keep { is_block, has_references } => {
                self.keep(body.to_owned(), is_block, has_references);
            }
            Rule::Captions => {
                let captions: Vec<&str> = body.lines().filter_map(caption).collect();
                self.push("\n\n");
                self.push(&captions.join("\n\n"));
                self.push("\n\n");
            }
            Rule::Drop | Rule::Unwrap => {}
        }
        used
    }

    fn keep(&mut self, text: String, is_block: bool, has_references: bool) {
        let mark = format!("{MARK}{}{MARK}", self.out.verbatim.len());
        self.out.verbatim.push(Verbatim { text, is_block, has_references });
        self.push(&mark);
    }
}

/// Returns what `{{{name|default}}}` gives outside a template: its default.
fn parameter(pieces: &[String]) -> String {
    pieces.get(1).cloned().unwrap_or_default()
}

/// What becomes of an extension tag and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Drop,
    Reference,
    Keep {
        is_block: bool,
        has_references: bool,
    },
    /// The captions of its lines `file|caption` stay.
    Captions,
    /// The tag goes, what it holds is wikitext.
    Unwrap,
}

fn rule(name: &str) -> Option<Rule> {
    Some(match name {
        "ref" => Rule::Reference,
        "nowiki" => Rule::Keep { is_block: false, has_references: true },
        "math" | "chem" | "ce" => Rule::Keep { is_block: false, has_references: false },
        "pre" => Rule::Keep { is_block: true, has_references: true },
        "syntaxhighlight" | "source" => Rule::Keep { is_block: true, has_references: false },
        "gallery" => Rule::Captions,
        "references" | "timeline" | "score" | "graph" | "mapframe" | "maplink" | "imagemap"
        | "templatedata" | "templatestyles" | "inputbox" | "hiero" | "categorytree"
        | "indicator" | "dynamicpagelist" | "section" | "includeonly" | "style" | "script"
        | "charinsert" | "rss" | "phonos" => Rule::Drop,
        "noinclude" | "onlyinclude" | "langconvert" | "translate" | "tvar" | "languages" => {
            Rule::Unwrap
        }
        _ => return None,
    })
}

/// A tag as it stands in the text.
pub(super) struct Tag {
    /// In lower case.
    pub(super) name: String,
    pub(super) is_closing: bool,
    /// Whether it ends with `/>`.
    pub(super) is_empty: bool,
    pub(super) bytes: usize,
}

impl Tag {
    /// Reads the tag that `text` starts with.
    pub(super) fn parse(text: &str) -> Option<Self> {
        /// Longer tags than any page has: what looks like one is a sign for less.
        const TAG_BYTES_MAX: usize = 2048;
        let bytes = text.as_bytes();
        let is_closing = bytes.get(1) == Some(&b'/');
        let start = 1 + usize::from(is_closing);
        let is_name = |byte: &&u8| byte.is_ascii_alphanumeric();
        let name_bytes = bytes[start..].iter().take(32).take_while(is_name).count();
        if name_bytes == 0 || !bytes[start].is_ascii_alphabetic() {
            return None;
        }
        let mut quote = None;
        for (at, &byte) in bytes.iter().enumerate().take(TAG_BYTES_MAX).skip(start + name_bytes) {
            match (byte, quote) {
                (b'>', None) => {
                    let name = text[start..start + name_bytes].to_ascii_lowercase();
                    let is_empty = bytes[at - 1] == b'/';
                    return Some(Self { name, is_closing, is_empty, bytes: at + 1 });
                }
                (b'<', None) => return None,
                (b'"' | b'\'', None) if bytes[at - 1] == b'=' => quote = Some(byte),
                (byte, Some(open)) if byte == open => quote = None,
                _ => {}
            }
        }
        // A quote that never closes: the tag ends where it would without quotes.
        let end = text[..text.floor_char_boundary(TAG_BYTES_MAX)].find('>')?;
        let name = text[start..start + name_bytes].to_ascii_lowercase();
        let is_empty = bytes[end - 1] == b'/';
        (end >= start + name_bytes).then_some(Self { name, is_closing, is_empty, bytes: end + 1 })
    }
}

/// Returns what stands between the tag that `text` starts with and its closing one, and the bytes of all three.
fn body<'a>(text: &'a str, tag: &Tag) -> Option<(&'a str, usize)> {
    let bytes = text.as_bytes();
    let mut from = tag.bytes;
    while let Some(found) = memchr::memmem::find(&bytes[from..], b"</") {
        let at = from + found;
        let end = at + 2 + tag.name.len();
        let is_same = bytes.get(at + 2..end).is_some_and(|name| {
            name.eq_ignore_ascii_case(tag.name.as_bytes())
                && !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric)
        });
        if is_same {
            let used = memchr::memchr(b'>', &bytes[end..]).map_or(text.len(), |n| end + n + 1);
            return Some((&text[tag.bytes..at], used));
        }
        from = at + 2;
    }
    None
}

/// Returns the caption of a gallery's line.
fn caption(line: &str) -> Option<&str> {
    let caption = line.split_once('|')?.1.trim();
    (!caption.is_empty()).then_some(caption)
}
