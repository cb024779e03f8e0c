//! Books and other plain text: a file is a document.

use std::fs::File;
use std::io::Read;
use std::ops::Range;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::{DocumentStream, Source, SourceFile, SourceKind, charset, config, inflate};
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
    /// Bytes of a file, at most; the longest novels have 10 MiB.
    file_bytes_max: u64,
    /// Whether to cut off the licence that frames books of Project Gutenberg.
    trim_gutenberg: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { file_bytes_max: 64 << 20, trim_gutenberg: true }
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
        let book = Book { reader, trim_gutenberg: self.config.trim_gutenberg };
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
        let is_mine = range.is_none_or(|range| range.start == 0 && !range.is_empty());
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
    trim_gutenberg: bool,
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
        let limit = self.reader.bytes_max;
        let decoder = MultiGzDecoder::new(bytes.as_slice()).take(limit + 1);
        match { decoder }.read_to_end(&mut text) {
            Ok(n) if n as u64 > limit => Err("too_large"),
            Ok(_) => Ok(text),
            Err(_) => Err("bad_gzip"),
        }
    }

    fn push(&self, text: &str, charset: &str, record: Record<'_>, rows: &mut BatchBuilder) {
        let framed = if self.trim_gutenberg { gutenberg(text) } else { None };
        let (header, body) = framed.unwrap_or(("", text));
        let mut metadata = vec![("charset", charset)];
        for (key, name) in [("title", "Title:"), ("author", "Author:")] {
            metadata.extend(header_value(header, name).map(|value| (key, value)));
        }
        let license = framed.map(|_| "Project Gutenberg");
        let record = Record { metadata: &metadata, license, ..record };
        if body.trim().is_empty() {
            rows.reject(&record, "no_text");
        } else if memchr::memchr(0, body.as_bytes()).is_some() {
            rows.reject(&record, "binary");
        } else {
            rows.push(&record, body);
        }
    }
}

/// Returns what stands before the book and the book, when `text` has Project Gutenberg's frame.
fn gutenberg(text: &str) -> Option<(&str, &str)> {
    const STARTS: [&str; 4] = [
        "*** START OF THE PROJECT GUTENBERG",
        "*** START OF THIS PROJECT GUTENBERG",
        "***START OF THE PROJECT GUTENBERG",
        "*END*THE SMALL PRINT!",
    ];
    const ENDS: [&str; 5] = [
        "*** END OF THE PROJECT GUTENBERG",
        "*** END OF THIS PROJECT GUTENBERG",
        "***END OF THE PROJECT GUTENBERG",
        "End of the Project Gutenberg",
        "End of Project Gutenberg",
    ];
    let line = |marks: &[&str]| {
        marks.iter().filter_map(|mark| memchr::memmem::find(text.as_bytes(), mark.as_bytes())).min()
    };
    let start = line(&STARTS)?;
    let after = start + text[start..].find('\n')? + 1;
    let end = line(&ENDS).filter(|&end| end > after).unwrap_or(text.len());
    Some((&text[..start], text[after..end].trim_matches(['\r', '\n', ' '])))
}

fn header_value<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
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
