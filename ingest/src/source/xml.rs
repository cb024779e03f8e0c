//! XML records as small trees.
//!
//! Well-formed XML only. A document type is passed over: nothing it declares or points at is read, so no entity grows and no
//! other file is touched. Depth, nodes and bytes of a record have limits; nothing recurses.

use std::fs::File;
use std::io::{self, BufRead, Cursor, Read};
use std::ops::Range;

use encoding_rs::{Encoding, UTF_8};
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::charset;
use super::compressed::{self, Compressed, LIMIT, Limited};
use crate::modifier::html::reference;

/// Elements inside each other, at most; papers have about 20, nested formulas 100.
const DEPTH_MAX: usize = 1024;
/// Elements and pieces of text of a record, at most; the longest papers have 100,000.
const NODES_MAX: usize = 4_000_000;

/// Reason of a document whose bytes could not be read; the caller knows what they are packed in.
pub(super) const UNREADABLE: &str = "unreadable";

/// A record's elements and texts in document order.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Names, values and texts, one after the other.
    characters: String,
    attributes: Vec<(Range<u32>, Range<u32>)>,
    /// Whether the document declares entities.
    pub(super) declares_entities: bool,
}

#[derive(Debug)]
struct Node {
    is_text: bool,
    /// An element's name or a text.
    span: Range<u32>,
    attributes: Range<u32>,
    /// The element around it; its own number for the root.
    parent: u32,
    /// The node after this one's descendants.
    end: u32,
}

impl Tree {
    /// Parses a document.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(super) fn parse(document: &str) -> Result<Self, &'static str> {
        let mut records = Records::new(document.as_bytes(), u64::MAX);
        let found = records.next(|_| true)?.ok_or("bad_xml")?;
        // What follows the root has to be well-formed too.
        records.next(|_| true)?;
        Ok(found.tree)
    }

    /// The element's name without prefix; empty for a text.
    pub(super) fn name(&self, index: usize) -> &str {
        let node = &self.nodes[index];
        if node.is_text { "" } else { self.slice(&node.span) }
    }

    /// The characters of a text, references resolved; `None` for an element.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        let node = &self.nodes[index];
        node.is_text.then(|| self.slice(&node.span))
    }

    /// The value of an attribute by its name without prefix.
    pub(super) fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        let node = &self.nodes[index];
        let attributes = &self.attributes[range(&node.attributes)];
        attributes
            .iter()
            .find(|(key, _)| self.slice(key) == name)
            .map(|(_, value)| self.slice(value))
    }

    /// The node after the last descendant of `index`.
    pub(super) fn end(&self, index: usize) -> usize {
        self.nodes[index].end as usize
    }

    /// The element around `index`.
    pub(super) fn parent(&self, index: usize) -> Option<usize> {
        let parent = self.nodes[index].parent as usize;
        (parent != index).then_some(parent)
    }

    /// Nodes right below `index`.
    pub(super) fn children(&self, index: usize) -> impl Iterator<Item = usize> {
        let end = self.end(index);
        let next = move |child: usize| (child < end).then_some(child);
        std::iter::successors(next(index + 1), move |&child| next(self.end(child)))
    }

    /// Elements below `index` called `name`, in document order.
    pub(super) fn all<'a>(
        &'a self,
        index: usize,
        name: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        (index + 1..self.end(index)).filter(move |&node| self.name(node) == name)
    }

    /// The first element that `path` leads to from `index`, a child at each step.
    pub(super) fn find(&self, index: usize, path: &[&str]) -> Option<usize> {
        path.iter().try_fold(index, |node, name| {
            self.children(node).find(|&child| self.name(child) == *name)
        })
    }

    /// The texts below `index`, white space as one space.
    pub(super) fn string(&self, index: usize) -> String {
        let mut out = String::new();
        let mut has_space = false;
        for node in index..self.end(index) {
            for c in self.text(node).unwrap_or_default().chars() {
                if c.is_whitespace() {
                    has_space = true;
                    continue;
                }
                if has_space && !out.is_empty() {
                    out.push(' ');
                }
                has_space = false;
                out.push(c);
            }
        }
        out
    }

    fn slice(&self, span: &Range<u32>) -> &str {
        &self.characters[range(span)]
    }

    fn store(&mut self, write: impl FnOnce(&mut String)) -> Range<u32> {
        let start = small(self.characters.len());
        write(&mut self.characters);
        start..small(self.characters.len())
    }

    fn open(&mut self, tag: &BytesStart<'_>, parent: usize) -> Result<(), &'static str> {
        if self.nodes.len() >= NODES_MAX {
            return Err("too_many_nodes");
        }
        let span = self.store(|out| out.push_str(local(tag.name().as_ref())));
        let first = small(self.attributes.len());
        // Names are not compared with each other: of two the first counts, and many cost no more than few.
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| "bad_xml")?;
            let name = self.store(|out| out.push_str(local(attribute.key.as_ref())));
            let value = self.store(|out| reference::decode(&attribute.value, false, out));
            self.attributes.push((name, value));
        }
        let attributes = first..small(self.attributes.len());
        self.nodes.push(Node { is_text: false, span, attributes, parent: small(parent), end: 0 });
        Ok(())
    }

    fn add(&mut self, parent: usize, write: impl FnOnce(&mut String)) -> Result<(), &'static str> {
        let span = self.store(write);
        // Texts and references that follow each other are one text.
        let n_nodes = self.nodes.len();
        if let Some(last) = self.nodes.last_mut()
            && last.is_text
            && last.span.end == span.start
            && last.parent as usize == parent
        {
            last.span.end = span.end;
            return Ok(());
        }
        if n_nodes >= NODES_MAX {
            return Err("too_many_nodes");
        }
        let (parent, end) = (small(parent), small(n_nodes + 1));
        self.nodes.push(Node { is_text: true, span, attributes: 0..0, parent, end });
        Ok(())
    }
}

fn range(span: &Range<u32>) -> Range<usize> {
    span.start as usize..span.end as usize
}

/// A record's bytes are limited to far less than 4 GiB.
fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a record below 4 GiB")
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// An element that was asked for.
#[derive(Debug)]
pub(super) struct Found {
    /// The element is node 0.
    pub(super) tree: Tree,
    /// Its bytes in the document.
    pub(super) bytes: Range<u64>,
}

/// Reads elements out of a document.
pub(super) struct Records<R> {
    reader: quick_xml::Reader<Limited<R>>,
    record_bytes_max: u64,
    buffer: Vec<u8>,
    declares_entities: bool,
    depth: usize,
    is_over: bool,
}

impl<R: BufRead> Records<R> {
    /// Reads from `input`, of which a record and what precedes it take `record_bytes_max` bytes at most.
    pub(super) fn new(input: R, record_bytes_max: u64) -> Self {
        let record_bytes_max = record_bytes_max.min(1 << 30);
        let mut reader = quick_xml::Reader::from_reader(Limited { input, left: record_bytes_max });
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().allow_dangling_amp = true;
        Self {
            reader,
            record_bytes_max,
            buffer: Vec::new(),
            declares_entities: false,
            depth: 0,
            is_over: false,
        }
    }

    /// Where in the document reading goes on.
    pub(super) fn position(&self) -> u64 {
        self.reader.buffer_position()
    }

    /// Returns the next element whose name (without prefix) `is_wanted`.
    ///
    /// # Errors
    /// The reason why the rest of the document cannot be read; the next call returns `None`.
    pub(super) fn next(
        &mut self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Found>, &'static str> {
        if self.is_over {
            return Ok(None);
        }
        let result = self.read(is_wanted);
        self.is_over = !matches!(result, Ok(Some(_)));
        result
    }

    fn read(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<Option<Found>, &'static str> {
        self.reader.get_mut().left = self.record_bytes_max;
        let mut tree = Tree { declares_entities: self.declares_entities, ..Tree::default() };
        let mut open: Vec<usize> = Vec::new();
        let mut start = 0;
        loop {
            self.buffer.clear();
            let before = self.reader.buffer_position();
            let event = match self.reader.read_event_into(&mut self.buffer) {
                Ok(event) => event,
                Err(quick_xml::Error::Io(error)) if error.kind() == LIMIT => {
                    return Err("record_too_long");
                }
                Err(quick_xml::Error::Io(_)) => return Err(UNREADABLE),
                Err(_) => return Err("bad_xml"),
            };
            match event {
                Event::Start(tag) => {
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return Err("too_deep");
                    }
                    if open.is_empty() && !is_wanted(local(tag.name().as_ref())) {
                        // What lies between records counts for none of them.
                        self.reader.get_mut().left = self.record_bytes_max;
                        continue;
                    }
                    if open.is_empty() {
                        start = before;
                    }
                    let index = tree.nodes.len();
                    tree.open(&tag, open.last().copied().unwrap_or(index))?;
                    open.push(index);
                }
                Event::End(_) => {
                    self.depth -= 1;
                    let Some(index) = open.pop() else { continue };
                    tree.nodes[index].end = small(tree.nodes.len());
                    if open.is_empty() {
                        let bytes = start..self.reader.buffer_position();
                        return Ok(Some(Found { tree, bytes }));
                    }
                }
                Event::Text(text) if !open.is_empty() => {
                    tree.add(open[open.len() - 1], |out| out.push_str(&text.xml10_content()))?;
                }
                Event::CData(text) if !open.is_empty() => {
                    tree.add(open[open.len() - 1], |out| out.push_str(&text.xml10_content()))?;
                }
                Event::GeneralRef(name) if !open.is_empty() => {
                    tree.add(open[open.len() - 1], |out| resolve(&name, out))?;
                }
                Event::DocType(declaration) => {
                    self.declares_entities |= declaration.contains("<!ENTITY");
                    tree.declares_entities = self.declares_entities;
                }
                Event::Eof if self.depth > 0 => return Err("bad_xml"),
                Event::Eof => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Writes the characters of a reference; one that only a document type could explain is left out.
fn resolve(name: &BytesRef<'_>, out: &mut String) {
    if let Ok(Some(c)) = name.resolve_char_ref() {
        // XML allows no other control characters.
        if !c.is_control() || matches!(c, '\t' | '\n' | '\r') {
            out.push(c);
        }
        return;
    }
    let start = out.len();
    reference::decode(&format!("&{};", &**name), false, out);
    if out[start..].starts_with('&') && out[start..].len() > 1 {
        out.truncate(start);
    }
}

/// Opens a document in UTF-8: inflates it if need be, and decodes what is in another encoding, `bytes_max` bytes at most.
pub(super) fn open(file: File, bytes_max: u64) -> io::Result<Compressed> {
    let mut opened = compressed::open(file)?;
    // A file that cannot be inflated from the start says so again when it is read.
    let head = opened.input.fill_buf().unwrap_or_default();
    if is_utf8(head) {
        return Ok(opened);
    }
    let mut bytes = Vec::new();
    let read = (&mut opened.input).take(bytes_max + 1).read_to_end(&mut bytes);
    match read {
        // What is there of a damaged file is not decoded: reading it says what is wrong.
        Err(error) if opened.damage.is_none() => return Err(error),
        Ok(_) if bytes.len() as u64 <= bytes_max => {
            let (text, _) = charset::decode(&bytes, None);
            opened.input = Box::new(Cursor::new(text.into_owned().into_bytes()));
        }
        _ => opened.input = Box::new(Cursor::new(bytes).chain(opened.input)),
    }
    Ok(opened)
}

/// Whether a document that begins `head` says that it is UTF-8, or says nothing.
fn is_utf8(head: &[u8]) -> bool {
    if Encoding::for_bom(head).is_some_and(|(encoding, _)| encoding != UTF_8) {
        return false;
    }
    // UTF-16 without a mark.
    if head.starts_with(b"<\0") || head.starts_with(b"\0<") {
        return false;
    }
    // A label that nobody knows is not believed.
    charset::page_label(head).and_then(Encoding::for_label).is_none_or(|label| label == UTF_8)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::super::testing;
    use super::*;

    #[test]
    fn keeps_names_attributes_and_texts_in_order() {
        let tree = Tree::parse(
            "<?xml version='1.0'?><!DOCTYPE a><x:a b='1&amp;2' y:c='d'>t&lt;u&nbsp;&#x41;<e/><![CDATA[<v>]]></x:a>",
        );
        let tree = tree.unwrap();
        assert_eq!((tree.name(0), tree.attribute(0, "b")), ("a", Some("1&2")));
        assert_eq!(tree.attribute(0, "c"), Some("d"));
        let children: Vec<_> =
            tree.children(0).map(|child| (tree.name(child), tree.text(child))).collect();
        assert_eq!(children, [("", Some("t<u\u{a0}A")), ("e", None), ("", Some("<v>"))]);
        assert_eq!(tree.string(0), "t<u A<v>");
    }

    #[test]
    fn finds_records_with_their_bytes() {
        let text = "<s><r>1</r> <r>2</r><r>3</s>";
        let mut records = Records::new(text.as_bytes(), 100);
        let mut next = || records.next(|name| name == "r").map(|found| found.map(|f| f.bytes));
        assert_eq!(next(), Ok(Some(3..11)));
        assert_eq!(next(), Ok(Some(12..20)));
        assert_eq!(next(), Err("bad_xml"));
        assert_eq!(next(), Ok(None));
    }

    #[test]
    fn refuses_records_over_a_limit() {
        let text = format!("<s><r>1</r><r>{}</r></s>", "x".repeat(300));
        let mut records = Records::new(BufReader::with_capacity(16, text.as_bytes()), 100);
        assert!(records.next(|name| name == "r").unwrap().is_some());
        assert_eq!(records.next(|name| name == "r").map(|_| ()), Err("record_too_long"));
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        assert_eq!(Tree::parse(&deep).map(|_| ()), Err("too_deep"));
    }

    #[test]
    fn reads_every_hostile_document_without_growing() {
        let Some(cases) = testing::hostile("xml/") else { return };
        for case in &cases {
            let file = File::open(&case.path).unwrap();
            let mut records = Records::new(open(file, 1 << 20).unwrap().input, 1 << 24);
            let mut text = String::new();
            let end = loop {
                match records.next(|name| name == "page" || name == "r" || name == "lolz") {
                    Ok(Some(found)) => text.push_str(&found.tree.string(0)),
                    Ok(None) => break "end",
                    Err(reason) => break reason,
                }
            };
            assert!(!text.contains("root:"), "{}", case.name);
            assert!(text.len() as u64 <= case.path.metadata().unwrap().len(), "{}", case.name);
            if let Some(expected) = case.text("must_contain") {
                assert!(text.contains(&expected), "{}: {text}", case.name);
            }
            eprintln!("{}: {} bytes of text, {end}", case.name, text.len());
        }
        assert_eq!(cases.len(), 10);
        eprintln!("judged {} documents", cases.len());
    }

    #[test]
    fn reads_other_encodings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.xml");
        let utf16: Vec<u8> =
            "\u{feff}<a>\u{e9}</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [
            b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>".to_vec(),
            "<?xml version='1.0' encoding='us-ascii'?><a>&#233;</a>".as_bytes().to_vec(),
            "<a>\u{e9}</a>".as_bytes().to_vec(),
            utf16,
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let input = open(File::open(&path).unwrap(), 1000).unwrap().input;
            let found = Records::new(input, 1000).next(|_| true).unwrap().unwrap();
            assert_eq!(found.tree.string(0), "\u{e9}", "{}", bytes.escape_ascii());
        }
    }
}
