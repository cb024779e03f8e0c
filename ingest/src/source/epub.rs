//! EPUB books: the chapters of a package in reading order, one document.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use zip::ZipArchive;
use zip::result::ZipError;

use super::batch::{self, BatchBuilder, Record, Rows};
use super::prose::Style;
use super::xml::Tree;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, charset, config, date, raw};
use crate::modifier::extract_html;
use crate::prose::Prose;
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "epub",
    summary: "EPUB 2 and 3 books, one document each, chapters in reading order",
    source: "EPUB 3.3, Open Container Format and Package Document; OPF 2.0.1",
    document_kind: "book",
    patterns: &["*.epub"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Epub {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("epub", table)?,
        }))
    },
};

/// Entries of a package, at most: a scanned book has one image a page.
const ENTRIES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Bytes of a book's chapters, inflated, at most.
    book_bytes_max: u64,
    /// Bytes of a chapter, inflated, at most.
    chapter_bytes_max: u64,
    /// Whether chapters that are not part of the reading order (`linear="no"`: notes, answers) follow the others.
    keep_nonlinear: bool,
}

impl Default for Config {
    fn default() -> Self {
        // The largest books of Project Gutenberg have 20 MiB; dictionaries put them into one chapter.
        Self { book_bytes_max: 128 << 20, chapter_bytes_max: 32 << 20, keep_nonlinear: false }
    }
}

#[derive(Clone, Debug)]
struct Epub {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Epub {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let is_mine = super::has_first_byte(range.as_ref());
        let book =
            Book { file: file.clone(), handle: is_mine.then_some(handle), config: self.config };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), book))
    }

    fn raw(&self, file: &SourceFile, _place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        raw::stored(file).map(Some)
    }
}

struct Book {
    file: SourceFile,
    handle: Option<File>,
    config: Config,
}

impl Rows for Book {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(handle) = self.handle.take() else { return Ok(false) };
        let record =
            Record { locator: &self.file.name, bytes_raw: self.file.bytes, ..Record::default() };
        match read(handle, self.config) {
            Ok(book) => {
                let metadata: Vec<(&str, &str)> =
                    book.metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let record = Record {
                    date: book.date.as_deref().and_then(date::parse),
                    language: book.language.as_deref(),
                    license: book.license.as_deref(),
                    metadata: &metadata,
                    ..record
                };
                if book.text.is_empty() {
                    rows.reject(&record, "no_text");
                } else {
                    rows.push(&record, &book.text);
                }
            }
            Err(Refusal::Reason(reason)) => rows.reject(&record, reason),
            Err(Refusal::Io(error)) => {
                return Err(Error::io("read", &self.file.path)(error));
            }
        }
        Ok(true)
    }
}

/// Why a book gives no text.
enum Refusal {
    Reason(&'static str),
    Io(io::Error),
}

impl From<&'static str> for Refusal {
    fn from(reason: &'static str) -> Self {
        Self::Reason(reason)
    }
}

#[derive(Default)]
struct Document {
    text: String,
    language: Option<String>,
    license: Option<String>,
    date: Option<String>,
    metadata: Vec<(&'static str, String)>,
}

fn read(handle: File, config: Config) -> Result<Document, Refusal> {
    let package = ZipArchive::new(BufReader::new(handle)).map_err(refusal)?;
    if package.len() > ENTRIES_MAX {
        return Err("too_many_entries".into());
    }
    let mut package = Package { package, bytes_left: config.book_bytes_max, config };
    let encrypted = package.encrypted()?;
    let container = package.tree("META-INF/container.xml")?.ok_or("no_container")?;
    let root = container.all(0, "rootfile").find(|&node| {
        container
            .attribute(node, "media-type")
            .is_none_or(|media| media == "application/oebps-package+xml")
    });
    let opf_path = root.and_then(|node| container.attribute(node, "full-path"));
    let opf_path = opf_path.and_then(|path| resolve("", path)).ok_or("no_package_document")?;
    let opf = package.tree(&opf_path)?.ok_or("no_package_document")?;
    let mut document = describe(&opf);
    let mut prose = Prose::default();
    let (mut n_chapters, mut n_missing) = (0, 0);
    let chapters = chapters(&opf, &opf_path, config.keep_nonlinear);
    for path in &chapters {
        if encrypted.contains(path) {
            return Err("encrypted".into());
        }
        match package.chapter(path)? {
            Some(chapter) => {
                n_chapters += 1;
                write(&chapter, &mut prose)?;
            }
            None => n_missing += 1,
        }
    }
    if chapters.is_empty() || n_chapters == 0 {
        return Err("no_chapters".into());
    }
    document.metadata.push(("chapters", n_chapters.to_string()));
    if n_missing > 0 {
        document.metadata.push(("chapters_missing", n_missing.to_string()));
    }
    document.text = prose.finish();
    Ok(document)
}

fn refusal(error: ZipError) -> Refusal {
    match error {
        ZipError::Io(error) => unreadable(error),
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => Refusal::Reason("encrypted"),
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
            Refusal::Reason("unknown_compression")
        }
        _ => Refusal::Reason("bad_zip"),
    }
}

/// Tells bytes that are no zip file from a disk that fails.
fn unreadable(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Other => Refusal::Reason("bad_zip"),
        _ => Refusal::Io(error),
    }
}

/// A zip file whose entries are read by name, into memory, within limits. Nothing is written anywhere, so a name that
/// leads elsewhere is only a name that no chapter has.
struct Package {
    package: ZipArchive<BufReader<File>>,
    bytes_left: u64,
    config: Config,
}

impl Package {
    fn bytes(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(index) = self.package.index_for_name(path) else { return Ok(None) };
        let entry = self.package.by_index(index).map_err(refusal)?;
        if entry.is_symlink() || entry.is_dir() {
            return Ok(None);
        }
        let limit = self.config.chapter_bytes_max.min(self.bytes_left);
        let mut bytes = Vec::new();
        // The size that the entry states is not believed.
        entry.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > limit {
            return Err("too_large".into());
        }
        self.bytes_left -= bytes.len() as u64;
        Ok(Some(bytes))
    }

    fn tree(&mut self, path: &str) -> Result<Option<Tree>, Refusal> {
        let Some(bytes) = self.bytes(path)? else { return Ok(None) };
        let tree = Tree::parse(&charset::decode(&bytes, None).0)?;
        // Nobody declares entities here but to do harm.
        if tree.declares_entities {
            return Err("entity_declaration".into());
        }
        Ok(Some(tree))
    }

    fn chapter(&mut self, path: &str) -> Result<Option<String>, Refusal> {
        let bytes = self.bytes(path)?;
        Ok(bytes.map(|bytes| charset::decode(&bytes, None).0.into_owned()))
    }

    /// Paths of entries that are encrypted; fonts are, often, and do not matter.
    fn encrypted(&mut self) -> Result<Vec<String>, Refusal> {
        let Some(tree) = self.tree("META-INF/encryption.xml")? else { return Ok(Vec::new()) };
        let uris = tree.all(0, "CipherReference").filter_map(|node| tree.attribute(node, "URI"));
        Ok(uris.filter_map(|uri| resolve("", uri)).collect())
    }
}

/// Returns the path that `reference`, as it stands in the file `base`, leads to; `None` when it leads out of the package.
fn resolve(base: &str, reference: &str) -> Option<String> {
    let reference = reference.split(['#', '?']).next().unwrap_or_default();
    let reference = percent_decode(reference)?;
    if reference.contains(':') || reference.contains('\\') {
        return None;
    }
    let mut parts: Vec<&str> = match reference.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => base.split('/').collect(),
    };
    parts.pop();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns the paths of the chapters in reading order, each once, without tables of contents and covers.
fn chapters(opf: &Tree, opf_path: &str, keep_nonlinear: bool) -> Vec<String> {
    let items: HashMap<&str, usize> =
        opf.all(0, "item").filter_map(|item| Some((opf.attribute(item, "id")?, item))).collect();
    let mut paths = Vec::new();
    let mut seen = HashSet::new();
    let references: Vec<usize> = opf.all(0, "itemref").collect();
    let is_linear = |node: usize| opf.attribute(node, "linear") != Some("no");
    let (linear, nonlinear): (Vec<usize>, Vec<usize>) =
        references.into_iter().partition(|&node| is_linear(node));
    let nonlinear = if keep_nonlinear { nonlinear } else { Vec::new() };
    for reference in linear.into_iter().chain(nonlinear) {
        let item = opf.attribute(reference, "idref").and_then(|id| items.get(id));
        let Some(item) = item.and_then(|&item| readable(opf, &items, item)) else { continue };
        let Some(path) = opf.attribute(item, "href").and_then(|href| resolve(opf_path, href))
        else {
            continue;
        };
        if seen.insert(path.clone()) {
            paths.push(path);
        }
    }
    paths
}

/// Returns the item that stands for `item` and holds text: itself, or the first of its fallbacks that does.
fn readable(opf: &Tree, items: &HashMap<&str, usize>, item: usize) -> Option<usize> {
    let mut item = item;
    // A chain of fallbacks may be a ring.
    for _ in 0..8 {
        let properties = opf.attribute(item, "properties").unwrap_or_default();
        if properties.split_ascii_whitespace().any(|property| property == "nav") {
            return None;
        }
        match opf.attribute(item, "media-type").unwrap_or_default() {
            "application/xhtml+xml"
            | "text/html"
            | "text/x-oeb1-document"
            | "application/x-dtbook+xml" => return Some(item),
            _ => item = *items.get(opf.attribute(item, "fallback")?)?,
        }
    }
    None
}

fn describe(opf: &Tree) -> Document {
    let values = |name: &str| -> Vec<String> {
        let metadata = opf.find(0, &["metadata"]);
        let nodes = metadata.into_iter().flat_map(|metadata| opf.all(metadata, name));
        nodes.map(|node| opf.string(node)).filter(|value| !value.is_empty()).collect()
    };
    let mut document = Document {
        language: values("language").into_iter().next(),
        license: values("rights").into_iter().next(),
        date: values("date").into_iter().find(|value| date::parse(value).is_some()),
        ..Document::default()
    };
    let identifier = opf.attribute(0, "unique-identifier").and_then(|id| {
        opf.all(0, "identifier").find(|&node| opf.attribute(node, "id") == Some(id))
    });
    let identifier = identifier.map(|node| opf.string(node));
    let identifier = identifier.or_else(|| values("identifier").into_iter().next());
    document.metadata.extend(values("title").into_iter().next().map(|title| ("title", title)));
    for (key, name) in [("author", "creator"), ("publisher", "publisher"), ("subject", "subject")] {
        let all = values(name);
        if !all.is_empty() {
            document.metadata.push((key, all.join("; ")));
        }
    }
    document.metadata.extend(identifier.map(|identifier| ("identifier", identifier)));
    document
}

/// Writes a chapter; one that is no XML is read as a browser would.
fn write(chapter: &str, prose: &mut Prose) -> Result<(), Refusal> {
    prose.break_lines(2);
    match Tree::parse(chapter) {
        Ok(tree) => {
            let body = tree.find(0, &["body"]).unwrap_or(0);
            prose.tree(&tree, body, style);
        }
        Err("bad_xml") => {
            // Browsers take `<title/>` for a start tag, whose text is the rest of the page.
            static EMPTY: LazyLock<Regex> = LazyLock::new(|| {
                Regex::new(r"(?i)<(title|script|style|textarea|iframe|noscript)\b([^<>]*)/>")
                    .expect("a fixed pattern")
            });
            let chapter = EMPTY.replace_all(chapter, "<$1$2></$1>");
            let text = extract_html::visible_text(&chapter).ok_or("too_many_nodes")?;
            text.split("\n\n").for_each(|block| prose.block(block));
        }
        Err(reason) => return Err(reason.into()),
    }
    prose.break_lines(2);
    Ok(())
}

fn style(tree: &Tree, index: usize) -> Style {
    if tree.attribute(index, "hidden").is_some() || is_mark(tree, index) {
        return Style::Skip;
    }
    match tree.name(index) {
        "head" | "script" | "style" | "template" | "img" | "image" | "svg" | "audio" | "video"
        | "object" | "iframe" | "noscript" | "rp" | "rt" | "annotation" | "annotation-xml"
        | "form" => Style::Skip,
        // A table of contents inside a chapter.
        "nav" => Style::Skip,
        "p" | "div" | "section" | "article" | "aside" | "header" | "footer" | "main" | "body"
        | "blockquote" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "dl" | "table"
        | "figure" | "figcaption" | "hgroup" | "hr" | "address" | "center" | "caption"
        | "level1" | "level2" | "level3" | "level4" | "pagenum" => Style::Block,
        "tr" | "dt" | "dd" | "line" => Style::Line,
        "td" | "th" => Style::Cell,
        "li" => Style::Item,
        "pre" => Style::Verbatim,
        "br" => Style::Break,
        _ => Style::Inline,
    }
}

/// Whether an element marks a page of the printed book or points at a note, neither of which is a word of the sentence.
fn is_mark(tree: &Tree, index: usize) -> bool {
    let values = |name| tree.attribute(index, name).unwrap_or_default().split_ascii_whitespace();
    values("type").any(|value| matches!(value, "pagebreak" | "noteref"))
        || values("role").any(|value| matches!(value, "doc-pagebreak" | "doc-noteref"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use super::super::testing::{self, Row};
    use super::KIND;

    const CONTAINER: &str =
        "<container><rootfiles><rootfile full-path='a/b.opf'/></rootfiles></container>";

    fn write(folder: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let path = folder.join("a.epub");
        let mut package = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for (name, text) in entries {
            package.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            package.write_all(text.as_bytes()).unwrap();
        }
        package.finish().unwrap();
        path
    }

    fn book(opf: &str, chapters: &[(&str, &str)], config: &str) -> Row {
        let folder = tempfile::tempdir().unwrap();
        let mut entries = vec![("META-INF/container.xml", CONTAINER), ("a/b.opf", opf)];
        entries.extend(chapters);
        let path = write(folder.path(), &entries);
        let source = testing::build(&KIND, config);
        testing::conforms(&*source, &testing::file(&path), &[300]).remove(0)
    }

    const OPF: &str = "<package unique-identifier='u'><metadata>
        <dc:title xmlns:dc='x'>T</dc:title><dc:creator xmlns:dc='x'>A</dc:creator>
        <dc:creator xmlns:dc='x'>B</dc:creator><dc:identifier xmlns:dc='x'>no</dc:identifier>
        <dc:identifier xmlns:dc='x' id='u'>urn:1</dc:identifier><dc:language xmlns:dc='x'>de</dc:language>
        <dc:date xmlns:dc='x'>2024-05-01</dc:date></metadata>
        <manifest><item id='n' href='nav.xhtml' properties='nav' media-type='application/xhtml+xml'/>
        <item id='1' href='one%201.xhtml' media-type='application/xhtml+xml'/>
        <item id='2' href='../two.xhtml' media-type='application/xhtml+xml'/>
        <item id='3' href='notes.xhtml' media-type='application/xhtml+xml'/></manifest>
        <spine><itemref idref='n'/><itemref idref='3' linear='no'/><itemref idref='2'/>
        <itemref idref='1'/><itemref idref='2'/></spine></package>";

    #[test]
    fn reads_chapters_in_the_order_of_the_spine() {
        let page = |text: &str| format!("<html><head><title/></head><body>{text}</body></html>");
        let (one, two) = (
            page("<h1>One</h1><p>a<span epub:type='pagebreak'>7</span>b</p>"),
            page("<p>Two&nbsp;&hellip;"),
        );
        let notes = page("<p>note</p>");
        let chapters = [
            ("a/nav.xhtml", "<p>contents</p>"),
            ("a/one 1.xhtml", one.as_str()),
            ("two.xhtml", two.as_str()),
            ("a/notes.xhtml", notes.as_str()),
        ];
        let row = book(OPF, &chapters, "");
        // The second chapter is no XML: `<p>` stays open. It is read as a browser would.
        assert_eq!(row.text, "Two \u{2026}\n\nOne\n\nab");
        assert_eq!((row.value("title"), row.value("author")), (Some("T"), Some("A; B")));
        assert_eq!((row.value("identifier"), row.date), (Some("urn:1"), Some(1_714_521_600)));
        assert_eq!(row.value("chapters"), Some("2"));
        let row = book(OPF, &chapters, "keep_nonlinear = true");
        assert!(row.text.ends_with("\n\nnote"), "{}", row.text);
        let row = book(OPF, &chapters[..2], "");
        assert_eq!((row.value("chapters"), row.value("chapters_missing")), (Some("1"), Some("1")));
        let row = book(OPF, &chapters, "chapter_bytes_max = 20");
        assert_eq!(row.reject.as_deref(), Some("too_large"));
    }

    #[test]
    fn rejects_encrypted_chapters_but_not_encrypted_fonts() {
        let of = |uri: &str| {
            format!(
                "<encryption><EncryptedData><CipherData><CipherReference URI='{uri}'/></CipherData></EncryptedData></encryption>"
            )
        };
        for (uri, reason) in [("a/one%201.xhtml", Some("encrypted")), ("a/font.otf", None)] {
            let encryption = of(uri);
            let chapters = [
                ("META-INF/encryption.xml", encryption.as_str()),
                ("a/one 1.xhtml", "<html><body>x</body></html>"),
            ];
            assert_eq!(book(OPF, &chapters, "").reject.as_deref(), reason, "{uri}");
        }
    }

    #[test]
    fn resolves_references_inside_the_package_only() {
        for (base, reference, expected) in [
            ("a/b.opf", "c%20d.xhtml#x", Some("a/c d.xhtml")),
            ("a/b.opf", "../c.xhtml", Some("c.xhtml")),
            ("a/b.opf", "/c.xhtml", Some("c.xhtml")),
            ("a/b.opf", "../../etc/passwd", None),
            ("a/b.opf", "file:///etc/passwd", None),
            ("a/b.opf", "..\\c", None),
        ] {
            assert_eq!(super::resolve(base, reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn meets_the_expectation_of_every_hostile_package() {
        let Some(cases) = testing::hostile("epub/") else { return };
        let source = testing::build(&KIND, "");
        for case in &cases {
            let rows = testing::read(&*source, &testing::file(&case.path), None);
            assert_eq!(rows.len(), 1, "{}", case.name);
            let (row, expected) = (&rows[0], case.text("expect").unwrap());
            let reason = row.reject.as_deref();
            match expected.as_str() {
                "refuse" | "error_flagged" | "error_encrypted" => {
                    assert!(reason.is_some(), "{}: {:.99}", case.name, row.text);
                }
                "read_once_or_limit" => assert!(row.text.len() < 1 << 20, "{}", case.name),
                _ => assert_eq!(reason, None, "{}: {expected}", case.name),
            }
            if let Some(forbidden) = case.text("must_not_contain") {
                assert!(!row.text.contains(&forbidden), "{}", case.name);
            }
            eprintln!("{}: {expected}: {reason:?}, {:?}", case.name, row.text);
        }
        assert_eq!(cases.len(), 12);
        eprintln!("judged {} packages", cases.len());
    }

    #[test]
    fn reads_every_good_package_of_the_conformance_set() {
        let Some(folder) = testing::data("conformance/epub") else { return };
        let source = testing::build(&KIND, "");
        let (mut n_files, mut n_texts) = (0, 0);
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let path = entry.unwrap().into_path();
            if path.extension().is_none_or(|extension| extension != "epub") {
                continue;
            }
            let row = testing::read(&*source, &testing::file(&path), None).remove(0);
            let name = path.file_stem().unwrap().to_str().unwrap();
            // Files are named by what is wrong with them; those that are sound say so.
            if name.ends_with("valid") || name == "minimal" {
                assert_eq!(row.reject, None, "{name}");
            } else if name.ends_with("fatal") || name.contains("container-not-ocf") {
                assert!(row.reject.is_some(), "{name}: {}", row.text);
            }
            n_files += 1;
            n_texts += usize::from(row.reject.is_none());
            eprintln!("{name}: {:?} {:?}", row.reject, row.text);
        }
        assert_eq!(n_files, 22);
        eprintln!("{n_texts} of {n_files} packages give text");
    }

    #[test]
    fn reads_whole_books() {
        // Words of the linear chapters' bodies by `scripts/epub_words.py`.
        for (name, title, words, phrase) in [
            (
                "childrens-literature.epub",
                "Children's Literature",
                54_422,
                "FAIRY STORIES—MODERN FANTASTIC TALES",
            ),
            (
                "pride-and-prejudice.epub",
                "Pride and Prejudice",
                122_253,
                "It is a truth universally acknowledged",
            ),
        ] {
            let Some(folder) = testing::data("books") else { return };
            let source = testing::build(&KIND, "");
            let row = testing::read(&*source, &testing::file(&folder.join(name)), None).remove(0);
            assert_eq!(row.value("title"), Some(title));
            assert!(row.text.contains(phrase), "{name}");
            let is_word = |word: &&str| word.contains(char::is_alphanumeric);
            assert_eq!(row.text.split_whitespace().filter(is_word).count(), words, "{name}");
        }
    }
}
