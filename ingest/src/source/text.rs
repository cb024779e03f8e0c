//! Books and other plain text: a file is a document.

use std::fs::File;
use std::io::Read;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::inflate::{self, BodyError, Limits};
use super::paper::iso_date;
use super::{DocumentStream, Source, SourceFile, SourceKind, charset, config, date};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "text",
    summary: "plain text files of any encoding, plain or gzip, one document each; Project Gutenberg's frame is cut off",
    source: "plain text; Project Gutenberg's START and END lines",
    document_kind: "book",
    patterns: &["*.txt", "*.txt.gz", "*.text", "*.md"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Text {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("text", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Bytes of a file, stored and inflated, at most; the longest novels have 10 MiB.
    file_bytes_max: u64,
    /// Times its stored size that an inflated file may have, beyond the first MiB.
    file_ratio_max: usize,
    /// Whether to cut off the licence that frames books of Project Gutenberg.
    trim_gutenberg: bool,
    /// Whether lines that were wrapped at a fixed width are joined into paragraphs; verse, lists and tables stay.
    join_lines: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file_bytes_max: 64 << 20,
            file_ratio_max: inflate::RATIO_MAX,
            trim_gutenberg: true,
            join_lines: false,
        }
    }
}

#[derive(Clone, Debug)]
struct Text {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Text {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let reader = WholeFile::open(file, range, self.config.file_bytes_max)?;
        let book = Book { reader, config: self.config.clone() };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), book))
    }
}

/// A file that is read in one go, by whoever has the range that it starts in.
pub(super) struct WholeFile {
    pub(super) file: SourceFile,
    handle: Option<File>,
    bytes_max: u64,
}

impl WholeFile {
    pub(super) fn open(
        file: &SourceFile,
        range: Option<Range<u64>>,
        bytes_max: u64,
    ) -> Result<Self> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        // An empty file is a document nobody's range holds but the first one's.
        let is_mine = super::has_first_byte(range.as_ref());
        Ok(Self { file: file.clone(), handle: is_mine.then_some(handle), bytes_max })
    }

    /// Returns the bytes of the file the first time, `Err` with their number when there are too many.
    pub(super) fn read(&mut self) -> Result<Option<Result<Vec<u8>, u64>>> {
        let Some(handle) = self.handle.take() else { return Ok(None) };
        let mut bytes = Vec::new();
        let n = handle.take(self.bytes_max + 1).read_to_end(&mut bytes);
        let n = n.map_err(Error::io("read", &self.file.path))? as u64;
        let is_large = n > self.bytes_max;
        Ok(Some(if is_large { Err(self.file.bytes.max(n)) } else { Ok(bytes) }))
    }
}

struct Book {
    reader: WholeFile,
    config: Config,
}

impl Rows for Book {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(read) = self.reader.read()? else { return Ok(false) };
        let record = Record { locator: &self.reader.file.name, ..Record::default() };
        match read {
            Err(bytes_raw) => rows.reject(&Record { bytes_raw, ..record }, "too_large"),
            Ok(bytes) => {
                let bytes = match self.gunzip(bytes) {
                    Ok(bytes) => bytes,
                    Err(reason) => {
                        let bytes_raw = self.reader.file.bytes;
                        rows.reject(&Record { bytes_raw, ..record }, reason);
                        return Ok(true);
                    }
                };
                let record = Record { bytes_raw: bytes.len() as u64, ..record };
                let (text, charset) = charset::decode(&bytes, None);
                self.push(&text, charset, record, rows);
            }
        }
        Ok(true)
    }
}

impl Book {
    /// Inflates `bytes` when they are gzip.
    fn gunzip(&self, bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        if !bytes.starts_with(&inflate::MAGIC) {
            return Ok(bytes);
        }
        let mut text = Vec::new();
        let limits = Limits {
            bytes: usize::try_from(self.reader.bytes_max).unwrap_or(usize::MAX),
            ratio: self.config.file_ratio_max,
        };
        match inflate::decode_body(b"gzip", &bytes, &mut text, limits) {
            Ok(true) => Ok(text),
            Ok(false) | Err(BodyError::Damaged | BodyError::Unknown) => Err("bad_gzip"),
            Err(error) => Err(error.reason()),
        }
    }

    fn push(&self, text: &str, charset: &str, record: Record<'_>, rows: &mut BatchBuilder) {
        let framed = if self.config.trim_gutenberg { gutenberg(text) } else { None };
        let (header, body) = framed.unwrap_or(("", text));
        let header = Header::read(header);
        let mut metadata = vec![("charset", charset)];
        metadata.extend(header.fields.iter().map(|(key, value)| (*key, value.as_str())));
        let license = framed.map(|_| "Project Gutenberg");
        let language = header.language.as_deref();
        let record = Record { metadata: &metadata, license, language, date: header.date, ..record };
        if body.trim().is_empty() {
            rows.reject(&record, "no_text");
        } else if memchr::memchr(0, body.as_bytes()).is_some() {
            rows.reject(&record, "binary");
        } else if self.config.join_lines {
            rows.push(&record, &join_lines(body));
        } else {
            rows.push(&record, body);
        }
    }
}

/// Returns what stands before the book and the book, when `text` has Project Gutenberg's frame.
///
/// Until about 2002 the header ended with "the small print", before that with a line of it, and the book with its last
/// line or a line that says so; since then START and END lines stand around it.
fn gutenberg(text: &str) -> Option<(&str, &str)> {
    const STARTS: [&str; 9] = [
        "*** START OF THE PROJECT GUTENBERG",
        "*** START OF THIS PROJECT GUTENBERG",
        "***START OF THE PROJECT GUTENBERG",
        "***START OF THIS PROJECT GUTENBERG",
        "*END*THE SMALL PRINT!",
        "*END THE SMALL PRINT!",
        "***END THE SMALL PRINT!",
        "*END*THE SMALL PRINT",
        "*** END THE SMALL PRINT!",
    ];
    const ENDS: [&str; 7] = [
        "*** END OF THE PROJECT GUTENBERG",
        "*** END OF THIS PROJECT GUTENBERG",
        "***END OF THE PROJECT GUTENBERG",
        "***END OF THIS PROJECT GUTENBERG",
        "End of the Project Gutenberg",
        "End of Project Gutenberg",
        "End of The Project Gutenberg",
    ];
    // A mark is the start of a line: a book may speak of Project Gutenberg.
    let positions = |marks: &[&str]| -> Vec<usize> {
        let find = |mark: &&str| {
            memchr::memmem::find_iter(text.as_bytes(), mark.as_bytes()).collect::<Vec<_>>()
        };
        let mut found: Vec<usize> = marks.iter().flat_map(find).collect();
        found.retain(|&at| at == 0 || text.as_bytes()[at - 1] == b'\n');
        found.sort_unstable();
        found
    };
    // Of a START line and the small print the later one: between 2002 and 2004 books had both.
    let ends = positions(&ENDS);
    let first_end = ends.first().copied().unwrap_or(text.len());
    let start = positions(&STARTS).into_iter().rfind(|&start| start < first_end)?;
    let after = start + text[start..].find('\n')? + 1;
    let end = ends.into_iter().find(|&end| end > after).unwrap_or(text.len());
    Some((&text[..start], text[after..end].trim_matches(['\r', '\n', ' '])))
}

/// What the header of a book of Project Gutenberg says.
#[derive(Debug, Default)]
struct Header {
    fields: Vec<(&'static str, String)>,
    /// As a code of ISO 639, where it is one of the more frequent ones.
    language: Option<String>,
    date: Option<i64>,
}

impl Header {
    fn read(header: &str) -> Self {
        const FIELDS: [(&str, &str); 5] = [
            ("title", "Title:"),
            ("author", "Author:"),
            ("translator", "Translator:"),
            ("editor", "Editor:"),
            ("language", "Language:"),
        ];
        let mut found = Self::default();
        for (key, name) in FIELDS {
            let Some(value) = header_value(header, name) else { continue };
            if key == "language" {
                let code = LANGUAGES.iter().find(|(language, _)| *language == value);
                found.language = Some(code.map_or(value, |(_, code)| (*code).to_owned()));
            } else {
                found.fields.push((key, value));
            }
        }
        let date =
            header_value(header, "Release date:").or_else(|| header_value(header, "Release Date:"));
        found.date = date.and_then(|date| release_date(&date));
        let number = ["[ebook #", "[etext #"].iter().find_map(|mark| {
            let at = header.to_ascii_lowercase().find(mark)? + mark.len();
            Some(header[at..at + header[at..].find(']')?].to_owned())
        });
        found.fields.extend(number.map(|number| ("ebook_number", number)));
        found
    }
}

/// Languages as Project Gutenberg writes them: those with a hundred books or more.
const LANGUAGES: [(&str, &str); 20] = [
    ("English", "en"),
    ("French", "fr"),
    ("Finnish", "fi"),
    ("German", "de"),
    ("Italian", "it"),
    ("Dutch", "nl"),
    ("Spanish", "es"),
    ("Portuguese", "pt"),
    ("Hungarian", "hu"),
    ("Chinese", "zh"),
    ("Greek", "el"),
    ("Swedish", "sv"),
    ("Esperanto", "eo"),
    ("Latin", "la"),
    ("Danish", "da"),
    ("Tagalog", "tl"),
    ("Catalan", "ca"),
    ("Polish", "pl"),
    ("Russian", "ru"),
    ("Norwegian", "no"),
];

/// Reads `August 21, 2007 [EBook #22367]` or `December, 1999`.
fn release_date(text: &str) -> Option<i64> {
    let text = text.split('[').next()?.trim();
    let (month_and_day, year) = text.rsplit_once(',')?;
    let mut words = month_and_day.split_ascii_whitespace();
    let (month, day) = (words.next(), words.next());
    date::parse(&iso_date(year, month, day)?)
}

/// Joins lines that end only because the next word would not have fitted.
fn join_lines(text: &str) -> String {
    /// Columns that a line may have fallen short of the width: typesetters are not greedy.
    const SLACK: usize = 6;
    let columns = |line: &str| line.chars().count();
    let mut widths: Vec<usize> = text.lines().map(columns).filter(|&n| n > 0).collect();
    widths.sort_unstable();
    // Some lines are longer than the page: an address, a table.
    let width = widths.get(widths.len() * 95 / 100).copied().unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_end();
        let is_fresh = out.is_empty() || out.ends_with('\n');
        out.push_str(if is_fresh { line } else { line.trim_start() });
        let Some(next) = lines.peek() else { break };
        let first_word = next.split_whitespace().next().unwrap_or_default();
        // What is indented is verse, a list or a new paragraph.
        let is_new = next.starts_with([' ', '\t']) || first_word.is_empty() || line.is_empty();
        let would_fit = columns(line) + 1 + columns(first_word) + SLACK <= width;
        if is_new || would_fit || line.starts_with([' ', '\t']) {
            out.push('\n');
        } else if !line.ends_with('-') || line.ends_with("--") {
            out.push(' ');
        }
    }
    out
}

/// Returns a value of the header with the indented lines that go on with it.
fn header_value(header: &str, name: &str) -> Option<String> {
    let mut lines = header.lines().skip_while(|line| !line.starts_with(name));
    let mut value = lines.next()?[name.len()..].trim().to_owned();
    for line in lines.take_while(|line| line.starts_with("  ") && !line.trim().is_empty()) {
        value.push(' ');
        value.push_str(line.trim());
    }
    Some(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing;
    use super::KIND;

    #[test]
    fn cuts_off_the_frame_of_project_gutenberg() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.txt");
        fs::write(
            &path,
            "The Project Gutenberg eBook of X\nTitle: X\nAuthor: Y Z\n\
             *** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\nChapter 1\r\n\r\nIt began.\r\n\r\n\
             *** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence",
        )
        .unwrap();
        let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &[9999]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].text, "Chapter 1\r\n\r\nIt began.");
        assert_eq!((rows[0].value("title"), rows[0].value("author")), (Some("X"), Some("Y Z")));
        assert_eq!(rows[0].locator, "book.txt");
        let whole = testing::build(&KIND, "trim_gutenberg = false");
        assert!(testing::read(&*whole, &testing::file(&path), None)[0].text.ends_with("licence"));
    }

    fn book(text: &str, config: &str) -> testing::Row {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.txt");
        fs::write(&path, text).unwrap();
        testing::read(&*testing::build(&KIND, config), &testing::file(&path), None).remove(0)
    }

    #[test]
    fn cuts_off_the_small_print_of_old_books() {
        let small_print = "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n\
            *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n";
        let row = book(
            &format!(
                "**Welcome**\n{small_print}\nThe book.\n\nEnd of Project Gutenberg's X, by Y\n"
            ),
            "",
        );
        assert_eq!(row.text, "The book.");
        assert_eq!(book(&format!("{small_print}The book.\n"), "").text, "The book.");
        // A book may name the project.
        let row =
            book(&format!("{small_print}He saw *** END OF THE PROJECT GUTENBERG there.\n"), "");
        assert!(row.text.ends_with("there."), "{}", row.text);
    }

    #[test]
    fn finds_the_same_novel_in_the_frames_of_fifteen_years() {
        let Some(folder) = testing::data("neardup/pride-and-prejudice-editions") else { return };
        let source = testing::build(&KIND, "");
        for name in [
            "old/pandp10.txt.gz",
            "old/pandp11.txt.gz",
            "old/pandp12.txt.gz",
            "1342.txt.gz",
            "1342-0.txt.gz",
        ] {
            let row = testing::read(&*source, &testing::file(&folder.join(name)), None).remove(0);
            let end = row.text.trim_end().trim_end_matches(|c: char| !c.is_alphabetic());
            // The novel's last words; pandp10 to 12 end with them, the later editions too.
            assert!(end.ends_with("uniting them"), "{name}: {}", &row.text[row.text.len() - 300..]);
            for word in ["SMALL PRINT", "Project Gutenberg's Etext", "START OF"] {
                assert!(!row.text.contains(word), "{name}: {word}");
            }
        }
    }

    #[test]
    fn reads_the_header() {
        let row = book(
            "Title: A Long\r\n       Title\r\n\r\nAuthor: B\r\nRelease Date: August 21, 2007 [EBook #22367]\r\n\
             Language: German\r\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\r\nx\r\n",
            "",
        );
        assert_eq!(
            (row.value("title"), row.value("ebook_number")),
            (Some("A Long Title"), Some("22367"))
        );
        assert_eq!(row.date, Some(1_187_654_400)); // 2007-08-21
        assert_eq!(super::release_date("December, 1999"), Some(944_006_400)); // 1999-12-01
    }

    #[test]
    fn joins_wrapped_lines_and_keeps_verse() {
        let prose = "The quick brown fox jumps over the\nlazy dog, and it does so without any\nhaste; a well-\nknown thing. \n";
        let verse =
            "Tyger Tyger,\nburning bright\n\n   an indented line that is long ok\n   another";
        let row = book(&format!("{prose}\n{verse}"), "join_lines = true");
        let expected = "The quick brown fox jumps over the lazy dog, and it does so without any haste; a well-\nknown thing.";
        assert_eq!(row.text.split("\n\n").next(), Some(expected));
        assert!(row.text.ends_with(
            "Tyger Tyger,\nburning bright\n\n   an indented line that is long ok\n   another"
        ));
    }

    #[test]
    fn reads_old_books_in_latin_1() {
        let Some(folder) = testing::data("books") else { return };
        let source = testing::build(&KIND, "");
        for (name, phrase) in [
            (
                "die-verwandlung-de-latin1",
                "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte",
            ),
            ("don-quijote-es-latin1", "En un lugar de la Mancha"),
        ] {
            let path = folder.join(name);
            let path = if path.is_dir() {
                fs::read_dir(&path)
                    .unwrap()
                    .map(|e| e.unwrap().path())
                    .find(|p| p.is_file())
                    .unwrap()
            } else {
                path
            };
            let rows = testing::conforms(&*source, &testing::file(&path), &[]);
            assert!(rows[0].text.contains(phrase), "{name}: {:.300}", rows[0].text);
        }
    }

    #[test]
    fn rejects_files_above_the_limit_and_empty_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let source = testing::build(&KIND, "file_bytes_max = 3");
        for (text, reason) in [("abcd", Some("too_large")), ("abc", None), ("", Some("no_text"))] {
            fs::write(&path, text).unwrap();
            let rows = testing::read(&*source, &testing::file(&path), None);
            assert_eq!(rows[0].reject.as_deref(), reason, "{text}");
        }
    }
}
