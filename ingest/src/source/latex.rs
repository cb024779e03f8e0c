//! Papers as LaTeX source: a file, or the archive that arXiv keeps of a paper, or a bulk archive of such archives.
//!
//! Archives are read as streams; nothing is written anywhere. What turns the source into text is [`tex`].

mod tex;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::compressed::{self, Compressed};
use super::paper::Paper;
use super::tar::{Entry, Tar};
use super::{DocumentStream, Source, SourceFile, SourceKind, charset, config, inflate};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "latex",
    summary: "LaTeX papers: a source file, an arXiv source package or a tar of them; macros expanded, formulas kept, floats and references left out",
    source: "LaTeX2e; arXiv's source packages",
    document_kind: "paper",
    patterns: &["*.tex", "*.tex.gz", "*.tar", "*.tar.gz", "*.tgz", "*.tar.zst", "*.gz"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Latex {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("latex", table)?,
        }))
    },
};

/// Entries of an archive, at most.
const ENTRIES_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether captions of figures and tables are kept.
    keep_captions: bool,
    /// Whether footnotes are kept, behind the paragraph they belong to.
    keep_footnotes: bool,
    /// Bytes of a paper's TeX files together, at most, inflated.
    paper_bytes_max: u64,
    /// Bytes of a paper's package, at most, inflated: figures are passed over, but not for ever.
    package_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_captions: true,
            keep_footnotes: true,
            paper_bytes_max: 16 << 20,
            package_bytes_max: 1 << 30,
        }
    }
}

#[derive(Clone, Debug)]
struct Latex {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Latex {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let opened = compressed::open(handle).map_err(Error::io("read", &file.path))?;
        let is_mine = super::has_first_byte(range.as_ref());
        let package = Package {
            file: file.clone(),
            config: self.config,
            opened: is_mine.then_some(opened),
            archive: None,
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), package))
    }
}

/// The TeX files of a paper, by path.
type Files = BTreeMap<String, String>;

struct Package {
    file: SourceFile,
    config: Config,
    /// `None` once it has been looked into.
    opened: Option<Compressed>,
    archive: Option<Archive>,
}

/// A tar archive that is being read.
struct Archive {
    tar: Tar,
    n_entries: usize,
    files: Files,
    files_bytes: u64,
    n_papers: usize,
}

impl Rows for Package {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        if let Some(opened) = self.opened.take() {
            return self.begin(opened, rows).map(|()| true);
        }
        let Some(archive) = &mut self.archive else { return Ok(false) };
        let reason = match archive.next(&self.config) {
            Ok(Some(Member::Other)) => return Ok(true),
            Ok(Some(Member::Paper(entry, bytes))) => {
                archive.n_papers += 1;
                let locator = format!("{}#{}", self.file.name, entry.start);
                let record =
                    Record { locator: &locator, bytes_raw: entry.bytes, ..Record::default() };
                match unpack(&bytes, &self.config) {
                    Ok(files) => push(&files, &entry.name, &record, &self.config, rows),
                    Err(reason) => rows.reject(&record, reason),
                }
                return Ok(true);
            }
            Ok(None) => None,
            Err(reason) => Some(reason),
        };
        let Some(archive) = self.archive.take() else { return Ok(false) };
        // What was read before the damage is not taken for a whole paper.
        let record =
            Record { locator: &self.file.name, bytes_raw: self.file.bytes, ..Record::default() };
        match reason {
            Some(reason) => {
                let locator = format!("{}#{}", self.file.name, archive.tar.position());
                rows.reject(&Record { locator: &locator, ..Record::default() }, reason);
            }
            None if !archive.files.is_empty() || archive.n_papers == 0 => {
                push(&archive.files, &self.file.name, &record, &self.config, rows);
            }
            None => {}
        }
        Ok(true)
    }
}

impl Package {
    fn begin(&mut self, mut opened: Compressed, rows: &mut BatchBuilder) -> Result<()> {
        let record =
            Record { locator: &self.file.name, bytes_raw: self.file.bytes, ..Record::default() };
        let is_tar = match Tar::is_start(&mut opened) {
            Ok(is_tar) => is_tar,
            Err(error) => match opened.damage {
                Some(damage) => {
                    rows.reject(&record, damage);
                    return Ok(());
                }
                None => return Err(Error::io("read", &self.file.path)(error)),
            },
        };
        if is_tar {
            self.archive = Some(Archive::new(opened));
            return Ok(());
        }
        let mut bytes = Vec::new();
        let limit = self.config.paper_bytes_max;
        match (&mut opened.input).take(limit + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > limit => rows.reject(&record, "too_large"),
            Ok(_) => match single(&bytes) {
                Ok(files) => push(&files, &self.file.name, &record, &self.config, rows),
                Err(reason) => rows.reject(&record, reason),
            },
            Err(error) => match opened.damage {
                Some(damage) => rows.reject(&record, damage),
                None => return Err(Error::io("read", &self.file.path)(error)),
            },
        }
        Ok(())
    }
}

/// Reads a paper that is one file.
fn single(bytes: &[u8]) -> Result<Files, &'static str> {
    // arXiv keeps a paper that came without source as PDF or PostScript.
    if bytes.starts_with(b"%PDF") || bytes.starts_with(b"%!PS") {
        return Err("no_tex");
    }
    if memchr::memchr(0, bytes).is_some() {
        return Err("binary");
    }
    Ok(Files::from([("main.tex".to_owned(), charset::decode(bytes, None).0.into_owned())]))
}

/// Reads a package inside a bulk archive: gzip of a tar, or of a file.
fn unpack(bytes: &[u8], config: &Config) -> Result<Files, &'static str> {
    let mut opened = Compressed {
        input: Box::new(std::io::BufReader::new(MultiGzDecoder::new(std::io::Cursor::new(
            bytes.to_vec(),
        )))),
        damage: Some("bad_gzip"),
    };
    let is_tar = Tar::is_start(&mut opened).map_err(|_| "bad_gzip")?;
    if !is_tar {
        let mut text = Vec::new();
        let limit = config.paper_bytes_max;
        (&mut opened.input).take(limit + 1).read_to_end(&mut text).map_err(|_| "bad_gzip")?;
        return if text.len() as u64 > limit { Err("too_large") } else { single(&text) };
    }
    let mut archive = Archive::new(opened);
    while let Some(member) = archive.next(config)? {
        if matches!(member, Member::Paper(..)) {
            return Err("nested_archive");
        }
    }
    Ok(archive.files)
}

fn push(files: &Files, name: &str, record: &Record<'_>, config: &Config, rows: &mut BatchBuilder) {
    let options = tex::Options {
        keep_captions: config.keep_captions,
        keep_footnotes: config.keep_footnotes,
        bytes_max: usize::try_from(config.paper_bytes_max).unwrap_or(usize::MAX),
    };
    let document = match tex::read(files, options) {
        Ok(document) => document,
        Err(reason) => return rows.reject(record, reason),
    };
    let mut paper = Paper { text: document.text, ..Paper::default() };
    paper.describe("title", Some(document.title));
    if let Some(id) = arxiv_id(name) {
        paper.url = Some(format!("https://arxiv.org/abs/{id}"));
        paper.describe("arxiv_id", Some(id));
    }
    paper.describe("main_file", Some(document.main_file));
    paper.push(*record, rows);
}

/// Returns the number of a paper that arXiv names a file by: `1911.02782`, `hep-th9901001`.
fn arxiv_id(name: &str) -> Option<String> {
    let file_name = name.rsplit('/').next()?;
    let end = file_name.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(file_name.len());
    let new = file_name[..end].trim_end_matches('.');
    let is_new = new.split_once('.').is_some_and(|(month, number)| {
        month.len() == 4 && matches!(number.len(), 4 | 5) && !number.contains('.')
    });
    if is_new {
        return Some(new.to_owned());
    }
    let digits = file_name.find(|c: char| c.is_ascii_digit())?;
    let (archive, rest) = file_name.split_at(digits);
    let number = rest.get(..7).filter(|number| number.bytes().all(|b| b.is_ascii_digit()))?;
    let is_archive = !archive.is_empty()
        && archive.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && rest[7..].chars().next().is_none_or(|c| c == '.');
    is_archive.then(|| format!("{archive}/{number}"))
}

/// What an entry of an archive is.
enum Member {
    /// A package of its own.
    Paper(Entry, Vec<u8>),
    /// Anything else; TeX files were kept.
    Other,
}

impl Archive {
    fn new(opened: Compressed) -> Self {
        let tar = Tar::new(opened);
        Self { tar, n_entries: 0, files: Files::new(), files_bytes: 0, n_papers: 0 }
    }

    /// Reads the next entry; `Err` with the reason why the rest cannot be read.
    fn next(&mut self, config: &Config) -> Result<Option<Member>, &'static str> {
        let Some(entry) = self.tar.next()? else { return Ok(None) };
        self.n_entries += 1;
        if self.n_entries > ENTRIES_MAX {
            return Err("too_many_entries");
        }
        let lower = entry.name.to_ascii_lowercase();
        let is_tex = entry.is_file()
            && [".tex", ".ltx", ".latex"].iter().any(|end| lower.ends_with(end))
            && !lower.rsplit('/').next().is_some_and(|name| name.starts_with("._"));
        let is_package = entry.is_file() && [".gz", ".tgz"].iter().any(|end| lower.ends_with(end));
        if is_tex && entry.bytes <= config.paper_bytes_max.saturating_sub(self.files_bytes) {
            let bytes = self.tar.content(&entry)?;
            self.files_bytes += bytes.len() as u64;
            self.files.insert(entry.name, charset::decode(&bytes, None).0.into_owned());
        } else if is_package && entry.bytes <= config.package_bytes_max.min(256 << 20) {
            let bytes = self.tar.content(&entry)?;
            if bytes.starts_with(&inflate::MAGIC) {
                return Ok(Some(Member::Paper(entry, bytes)));
            }
        } else {
            let is_limited = self.n_papers == 0 && !is_package;
            let end = self.tar.position().saturating_add(entry.bytes);
            if is_limited && end > config.package_bytes_max {
                return Err("too_large");
            }
            self.tar.skip(entry.bytes)?;
        }
        Ok(Some(Member::Other))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, Row, gzip, tar};
    use super::KIND;

    fn read(name: &str, bytes: &[u8], config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[700])
    }

    const MAIN: &[u8] = b"\\documentclass{a}\\begin{document}A \\input{sec/b} C\\end{document}";

    #[test]
    fn reads_packages_and_bulk_archives_of_them() {
        let package = tar(&[("fig.png", &[0; 600]), ("main.tex", MAIN), ("sec/b.tex", b"B")]);
        for (name, bytes) in
            [("1911.02782.gz", gzip(&package)), ("1911.02782.tar", package.clone())]
        {
            let rows = read(name, &bytes, "");
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].text, "A B C");
            assert_eq!(rows[0].url.as_deref(), Some("https://arxiv.org/abs/1911.02782"));
            assert_eq!(
                (rows[0].locator.as_str(), rows[0].value("main_file")),
                (name, Some("main.tex"))
            );
        }
        let bulk = tar(&[
            ("9901/hep-th9901001.gz", &gzip(b"Only \\textbf{text}.")),
            ("9901/1911.02782.gz", &gzip(&package)),
            ("9901/1911.00001.pdf", b"%PDF"),
            ("9901/1911.00002.gz", &gzip(b"%PDF-1.4")),
        ]);
        let rows = read("src.tar", &bulk, "");
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.locator.as_str(),
                    row.text.as_str(),
                    row.value("arxiv_id"),
                    row.reject.as_deref(),
                )
            })
            .collect();
        assert_eq!(found[0], ("src.tar#512", "Only text.", Some("hep-th/9901001"), None));
        assert_eq!((found[1].1, found[1].2), ("A B C", Some("1911.02782")));
        assert_eq!((found.len(), found[2].3), (3, Some("no_tex")));
    }

    #[test]
    fn rejects_what_holds_no_paper() {
        for (bytes, reason) in [
            (tar(&[("a.png", b"x")]), "no_tex"),
            (b"%PDF-1.5".to_vec(), "no_tex"),
            (b"a\0b".to_vec(), "binary"),
            (tar(&[("main.tex", MAIN)])[..550].to_vec(), "truncated_file"),
            (gzip(&tar(&[("main.tex", MAIN)]))[..60].to_vec(), "bad_gzip"),
        ] {
            let rows = read("a.tar", &bytes, "");
            assert_eq!(rows.len(), 1, "{reason}");
            assert_eq!(rows[0].reject.as_deref(), Some(reason));
        }
        let rows = read("a.tar", &tar(&[("main.tex", MAIN)]), "paper_bytes_max = 10");
        assert_eq!(rows[0].reject.as_deref(), Some("no_tex"));
    }

    #[test]
    fn reads_hostile_archives_without_harm() {
        let Some(cases) = testing::hostile("tar/") else { return };
        let source = testing::build(&KIND, "package_bytes_max = 100_000_000");
        for case in &cases {
            let rows = testing::read(&*source, &testing::file(&case.path), None);
            assert_eq!(rows.len(), 1, "{}", case.name);
            // None of them holds TeX: what matters is that nothing is followed, grown or written.
            assert!(!rows[0].text.contains("root:"), "{}", case.name);
            assert!(rows[0].reject.is_some(), "{}: {}", case.name, rows[0].text);
            eprintln!("{}: {:?}", case.name, rows[0].reject);
        }
        assert_eq!(cases.len(), 15);
        eprintln!("judged {} archives", cases.len());
    }
}
