//! Pages of MediaWiki's XML export: Wikipedia's dumps and those of any other wiki.
//!
//! A page is found by its tags, which no text contains: `<` is always escaped. So a dump can be read from anywhere, plain or
//! in bzip2 streams, a damaged page costs only itself, and no more than a page is in memory. A page with several
//! revisions gives its last one.

mod expand;
mod template;
#[cfg(test)]
mod tests;
mod wikitext;

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use quick_xml::Reader as XmlReader;
use quick_xml::events::{BytesStart, Event};
use serde::{Deserialize, Serialize};

use self::wikitext::Names;
use super::batch::{self, BatchBuilder, Record, Rows};
use super::input::{Filled, Input, Place};
use super::{DocumentStream, Source, SourceFile, SourceKind, config, date, markup};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "mediawiki",
    summary: "articles of MediaWiki XML dumps (Wikipedia), plain, gzip, bzip2, Zstandard or 7z, their wikitext as plain text",
    source: "MediaWiki export schema 0.10 and 0.11; help pages and parser tests of MediaWiki",
    document_kind: "encyclopedia",
    patterns: &["*.xml", "*.xml.gz", "*.xml.bz2", "*.xml.zst", "*.xml.7z"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(MediaWiki {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("mediawiki", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Namespaces whose pages are documents: 0 articles, 1 their talk pages, 4 the project's pages and so on.
    namespaces: Vec<i64>,
    /// Whether captions of pictures are text.
    keep_captions: bool,
    /// The licence of every page.
    license: String,
    /// Bytes of a page in the dump, at most. MediaWiki takes pages of 2 MiB; a dump with history has all revisions in one.
    page_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespaces: vec![0],
            keep_captions: false,
            // What Wikipedia's text is under since 2023.
            license: "CC BY-SA 4.0".to_owned(),
            page_bytes_max: 64 << 20,
        }
    }
}

#[derive(Clone, Debug)]
struct MediaWiki {
    name: String,
    kind: String,
    config: Config,
}

impl Source for MediaWiki {
    fn is_splittable(&self, name: &str) -> bool {
        ![".gz", ".zst", ".7z"].iter().any(|end| name.ends_with(end))
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let open = || File::open(&file.path).map_err(Error::io("open", &file.path));
        let site = Site::read(open()?, &file.path)?;
        let range = range.unwrap_or(0..u64::MAX);
        let input = Input::open(open()?, &range).map_err(Error::io("read", &file.path))?;
        let reader = Pages {
            file: file.clone(),
            config: self.config.clone(),
            site,
            input,
            page: Vec::new(),
            is_over: false,
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }
}

/// What a dump says of its wiki.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Site {
    /// `ltgwiki`.
    database: Option<String>,
    /// `https://ltg.wikipedia.org/wiki/`: addresses of pages are this and their title.
    base: Option<String>,
    language: Option<String>,
    names: Names,
}

impl Site {
    /// Bytes before the first page, at most; those of the largest wikis are 10 KiB.
    const HEAD_BYTES_MAX: usize = 1 << 20;

    fn read(file: File, path: &Path) -> Result<Self> {
        let mut input = Input::open(file, &(0..u64::MAX)).map_err(Error::io("read", path))?;
        let mut head = Vec::new();
        let end = [&b"</siteinfo>"[..], b"<page>"];
        while head.len() < Self::HEAD_BYTES_MAX {
            match input.fill().map_err(Error::io("read", path))? {
                Filled::Bytes => {}
                Filled::End => break,
                // The pages say so again, as a reject.
                Filled::Damaged(_) => return Ok(Self::parse(&head)),
            }
            let buffer = input.buffer();
            let n = buffer.len();
            head.extend_from_slice(buffer);
            input.consume(n);
            if end.iter().any(|end| memchr::memmem::find(&head, end).is_some()) {
                break;
            }
        }
        if memchr::memmem::find(&head, b"<mediawiki").is_none() {
            return Err(Error::Format {
                path: path.to_owned(),
                why: "it has no element `mediawiki`, which a dump begins with".to_owned(),
                hint: "wanted a file such as `pages-articles.xml.bz2`".to_owned(),
            });
        }
        Ok(Self::parse(&head))
    }

    fn parse(head: &[u8]) -> Self {
        let mut site = Self::default();
        let mut reader = XmlReader::from_reader(head);
        // A head that is cut short or malformed says less; the pages after it are judged by themselves.
        while let Ok(event) = reader.read_event() {
            match event {
                Event::Start(tag) if tag.name().as_ref() == "mediawiki" => {
                    site.language = attribute(&tag, "xml:lang");
                }
                Event::Start(tag) => match tag.name().as_ref() {
                    "dbname" => site.database = text_of(&mut reader, &tag),
                    "base" => site.base = text_of(&mut reader, &tag),
                    "namespace" => {
                        let namespace = attribute(&tag, "key");
                        let Some(name) = text_of(&mut reader, &tag) else { continue };
                        let name = name.to_lowercase();
                        match namespace.as_deref() {
                            Some("6" | "-2") => site.names.files.push(name),
                            Some("14") => site.names.categories.push(name),
                            _ => {}
                        }
                    }
                    "page" => break,
                    _ => {}
                },
                Event::Eof => break,
                _ => {}
            }
        }
        let base = site.base.and_then(|base| Some(base[..=base.rfind('/')?].to_owned()));
        Self { base, ..site }
    }

    fn url(&self, title: &str) -> Option<String> {
        let base = url::Url::parse(self.base.as_deref()?).ok()?;
        let mut url = base.join("./").ok()?;
        // A title may contain `/`, `?` and `:`; MediaWiki writes blanks as `_`.
        url.path_segments_mut().ok()?.pop_if_empty().extend(title.replace(' ', "_").split('/'));
        Some(url.into())
    }
}

/// Bytes of the tags around a page.
const TAGS_BYTES: usize = "<page></page>".len();

struct Pages {
    file: SourceFile,
    config: Config,
    site: Site,
    input: Input,
    page: Vec<u8>,
    is_over: bool,
}

impl Rows for Pages {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        let path = &self.file.path;
        let found = markup::skip_to(&mut self.input, b"<page>").map_err(Error::io("read", path))?;
        let start = match found {
            markup::Skipped::Found(start) => start,
            markup::Skipped::Beyond => return Ok(false),
            markup::Skipped::Damaged(place, reason) => {
                self.reject(place, 0, reason, rows);
                return Ok(true);
            }
        };
        self.page.clear();
        let limit = self.config.page_bytes_max;
        let end = markup::read_to(&mut self.input, b"</page>", limit, &mut self.page);
        let bytes = ("<page>".len() + self.page.len()) as u64;
        match end.map_err(Error::io("read", path))? {
            markup::End::Found => self.push(start, rows),
            markup::End::TooLong(bytes) => {
                self.reject(start, TAGS_BYTES as u64 + bytes, "too_large", rows);
            }
            markup::End::Eof => {
                self.is_over = true;
                self.reject(start, bytes, "truncated", rows);
            }
            markup::End::Damaged(reason) => self.reject(start, bytes, reason, rows),
        }
        Ok(true)
    }
}

impl Pages {
    fn reject(&self, place: Place, bytes_raw: u64, reason: &str, rows: &mut BatchBuilder) {
        let locator = format!("{}#{place}", self.file.name);
        rows.reject(&Record { locator: &locator, bytes_raw, ..Record::default() }, reason);
    }

    fn push(&self, start: Place, rows: &mut BatchBuilder) {
        let locator = format!("{}#{start}", self.file.name);
        let bytes_raw = (self.page.len() + TAGS_BYTES) as u64;
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        let Ok(page) = std::str::from_utf8(&self.page) else {
            return rows.reject(&record, "bad_utf8");
        };
        let Some(page) = Page::parse(page) else {
            return rows.reject(&record, "bad_xml");
        };
        let url = self.site.url(&page.title);
        let namespace = page.namespace.to_string();
        let mut metadata = vec![("title", page.title.as_str()), ("namespace", namespace.as_str())];
        let texts = [
            ("page_id", &page.id),
            ("revision_id", &page.revision_id),
            ("redirect", &page.redirect),
            ("wiki", &self.site.database),
        ];
        metadata
            .extend(texts.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))));
        let record = Record {
            url: url.as_deref(),
            date: page.timestamp.as_deref().and_then(date::parse),
            language: self.site.language.as_deref(),
            license: Some(&self.config.license),
            ..record
        };
        if let Some(reason) = self.refuse(&page) {
            return rows.reject(&Record { metadata: &metadata, ..record }, reason);
        }
        let found =
            wikitext::text(&page.text, &page.title, &self.site.names, self.config.keep_captions);
        let templates = found.n_templates_dropped.to_string();
        let references = found.n_references_dropped.to_string();
        metadata.extend([
            ("templates_dropped", templates.as_str()),
            ("references_dropped", &references),
        ]);
        let record = Record { metadata: &metadata, ..record };
        if found.text.is_empty() {
            rows.reject(&record, "no_text");
        } else {
            rows.push(&record, &found.text);
        }
    }

    fn refuse(&self, page: &Page) -> Option<&'static str> {
        if page.redirect.is_some() {
            Some("redirect")
        } else if !self.config.namespaces.contains(&page.namespace) {
            Some("other_namespace")
        } else if page.is_deleted {
            Some("deleted")
        } else if page.model.as_deref().is_some_and(|model| model != "wikitext") {
            Some("no_wikitext")
        } else {
            None
        }
    }
}

/// A page with its last revision.
#[derive(Debug, Default)]
struct Page {
    title: String,
    namespace: i64,
    id: Option<String>,
    redirect: Option<String>,
    revision_id: Option<String>,
    timestamp: Option<String>,
    model: Option<String>,
    text: String,
    is_deleted: bool,
}

impl Page {
    /// Reads what stands between `<page>` and `</page>`; `None` when that is not well-formed or has no title.
    fn parse(xml: &str) -> Option<Self> {
        let mut page = Self::default();
        let mut reader = XmlReader::from_str(xml);
        let mut has_title = false;
        let mut is_in_revision = false;
        loop {
            let event = reader.read_event().ok()?;
            let (tag, is_empty) = match &event {
                Event::Start(tag) => (tag, false),
                Event::Empty(tag) => (tag, true),
                Event::End(tag) => {
                    is_in_revision &= tag.name().as_ref() != "revision";
                    continue;
                }
                // Nothing is ever expanded: a declaration has no place in a page.
                Event::DocType(_) => return None,
                Event::Eof => break,
                _ => continue,
            };
            match tag.name().as_ref() {
                "redirect" => page.redirect = Some(attribute(tag, "title").unwrap_or_default()),
                "text" => {
                    page.is_deleted = attribute(tag, "deleted").is_some();
                    page.text.clear();
                    if !is_empty {
                        page.text = text_of(&mut reader, tag)?;
                    }
                }
                _ if is_empty => {}
                "title" => {
                    page.title = text_of(&mut reader, tag)?;
                    has_title = true;
                }
                "ns" => page.namespace = text_of(&mut reader, tag)?.trim().parse().ok()?,
                "id" if is_in_revision => page.revision_id = text_of(&mut reader, tag),
                "id" => page.id = text_of(&mut reader, tag),
                "revision" => is_in_revision = true,
                "timestamp" => page.timestamp = text_of(&mut reader, tag),
                "model" => page.model = text_of(&mut reader, tag),
                // They have an `id` of their own.
                "contributor" | "discussionthreadinginfo" | "upload" => {
                    reader.read_to_end(tag.name()).ok()?;
                }
                _ => {}
            }
        }
        has_title.then_some(page)
    }
}

/// Returns what stands between `tag` and its end, without further tags.
fn text_of(reader: &mut XmlReader<&[u8]>, tag: &BytesStart<'_>) -> Option<String> {
    let raw = reader.read_text(tag.name()).ok()?;
    Some(markup::unescape(&raw))
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = tag.try_get_attribute(name).ok()??;
    Some(markup::unescape(&attribute.value))
}
