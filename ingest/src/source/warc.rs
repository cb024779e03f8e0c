//! Web archives: WARC 1.0 and 1.1 (also drafts 0.17 and 0.18) and ARC, plain or compressed as gzip members, zstd frames
//! (with a dictionary, too) or LZ4 frames, as crawlers really wrote them; also inside WACZ packages.
//!
//! Damage costs the record that it is in: the reader goes on at the next line `WARC/1.` or, in a compressed file, at the next
//! member that begins with one. Every record that holds a page is a row; `warcinfo`, `request` and DNS records and notes
//! about the crawl hold none and are passed over.
//!
//! A `revisit` record stands for a page that did not change since an earlier visit, most often in another file. It is a
//! reject that names that visit (`revisit_of`): its text is that of another row, which deduplication would take
//! out again, and an index of all pages of all files would be needed to find it.
//!
//! A range of a compressed file starts at the first member in it that begins with `WARC/`. Only an archive stored
//! inside a page of another archive, cut exactly there, could be mistaken for one. In a plain file the headers before the
//! range are walked through, their bodies are not read.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::inflate::{self, BodyError, Limits};
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, charset, config, date, raw};
use crate::{Error, Result};

mod lz4;
mod members;
mod wacz;
mod window;

use wacz::Part;
use window::Window;

pub(super) const KIND: SourceKind = SourceKind {
    name: "warc",
    summary: "pages of web archives (WARC, WET, ARC, WACZ), plain, gzip, zstd or LZ4",
    source: "ISO 28500:2017, WARC 1.1; Internet Archive ARC 1.0; IIPC warc-zstd 1.0; WACZ 1.1.1",
    document_kind: "web",
    // Without WAT: it tells of the same pages as the WARC beside it.
    patterns: &[
        "*.warc",
        "*.warc.gz",
        "*.warc.zst",
        "*.warc.lz4",
        "*.warc.wet",
        "*.warc.wet.gz",
        "*.arc",
        "*.arc.gz",
        "*.wacz",
    ],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        let config: Config = config::from_table("warc", table)?;
        if let Some(unknown) = config.records.iter().find(|it| !RECORDS.contains(&it.as_str())) {
            let message =
                format!("records: `{unknown}` is unknown, known are `{}`", RECORDS.join("`, `"));
            return Err(Error::Config { name: "warc".to_owned(), message });
        }
        Ok(Box::new(Warc { name: name.to_owned(), kind: kind.to_owned(), config }))
    },
};

/// Bytes of a record's header, at most. Headers of real archives stay under 4 KiB.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Types of records that can be documents.
const RECORDS: [&str; 4] = ["response", "resource", "conversion", "metadata"];

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Bytes of a page, stored and inflated, at most.
    body_bytes_max: usize,
    /// Times its stored size that an inflated page may have, beyond the first MiB.
    body_ratio_max: usize,
    /// Media types that are documents.
    content_types: Vec<String>,
    /// Types of records that are documents: `response`, `resource`, `conversion` (WET) and `metadata` (the JSON of
    /// WAT, and what crawlers note; whatever its media type).
    records: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Common Crawl cuts pages at 1 MiB; what is larger than this is no page to learn from.
            body_bytes_max: 32 << 20,
            body_ratio_max: inflate::RATIO_MAX,
            content_types: ["text/html", "application/xhtml+xml", "text/plain"]
                .map(str::to_owned)
                .to_vec(),
            records: RECORDS[..3].iter().map(|&record| record.to_owned()).collect(),
        }
    }
}

#[derive(Clone, Debug)]
struct Warc {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Warc {
    fn is_splittable(&self, _name: &str) -> bool {
        true
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let reader = Reader::open(file, &self.config, range)?;
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }

    /// The record with its headers, without the empty lines behind it.
    fn raw(&self, file: &SourceFile, place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        let Some(place) = place else { return raw::stored(file).map(Some) };
        // A record that was too large for a document may be shown.
        let body_bytes_max = usize::try_from(raw::BYTES_MAX).unwrap_or(usize::MAX);
        let config = Config { body_bytes_max, ..self.config.clone() };
        let mut reader = Reader::open(file, &config, self.range_of(file, place))?;
        reader.wanted = Some(format!("{}#{place}", file.name));
        let mut rows = BatchBuilder::new(&self.name, &self.kind);
        while reader.found.is_none() && reader.read(&mut rows)? {}
        Ok(reader.found.map(Raw::Bytes))
    }
}

struct Reader {
    file: SourceFile,
    config: Config,
    /// The archives in the file that are still to be read.
    parts: std::vec::IntoIter<Part>,
    /// The range of the file that is read.
    whole: Range<u64>,
    /// The part of it that lies in the current archive.
    range: Range<u64>,
    window: Option<Window>,
    /// Whether the last record began in the range: what lies between it and the next one is then told here.
    is_owner: bool,
    header: Fields,
    http: Fields,
    scratch: Scratch,
    /// Locator of the record whose bytes are wanted instead of a row.
    wanted: Option<String>,
    found: Option<Vec<u8>>,
}

/// Buffers that live as long as the file.
#[derive(Default)]
struct Scratch {
    locator: String,
    unchunked: Vec<u8>,
    decoded: Vec<u8>,
    recoded: Vec<u8>,
}

impl Rows for Reader {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(mut window) = self.window.take() else { return self.next_part(rows) };
        let more = self.next(&mut window, rows);
        if more.map_err(Error::io("read", &self.file.path))? {
            self.window = Some(window);
        }
        Ok(true)
    }
}

impl Reader {
    fn open(file: &SourceFile, config: &Config, range: Option<Range<u64>>) -> Result<Self> {
        let mut handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let parts = wacz::parts(&mut handle).map_err(Error::io("read", &file.path))?;
        Ok(Self {
            file: file.clone(),
            config: config.clone(),
            parts: parts.into_iter(),
            whole: range.unwrap_or(0..u64::MAX),
            range: 0..0,
            window: None,
            is_owner: false,
            header: Fields::default(),
            http: Fields::default(),
            scratch: Scratch::default(),
            wanted: None,
            found: None,
        })
    }

    /// Goes on to the next archive in the file; `false` when there is none.
    fn next_part(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(part) = self.parts.next() else { return Ok(false) };
        self.header.clear();
        match part {
            Part::Archive(bounds) => {
                self.range = self.whole.start.max(bounds.start)..self.whole.end.min(bounds.end);
                if !self.range.is_empty() {
                    let path = &self.file.path;
                    let handle = File::open(path).map_err(Error::io("open", path))?;
                    self.is_owner = self.range.start == bounds.start;
                    let window = Window::open(handle, &bounds, &self.range);
                    self.window = Some(window.map_err(Error::io("read", path))?);
                }
            }
            Part::Reject(offset, reason) => {
                if self.whole.contains(&offset) {
                    locate(&mut self.scratch.locator, &self.file.name, offset, 0);
                    self.reject_located(rows, reason);
                }
            }
        }
        Ok(true)
    }

    /// Reads what comes next in the archive; `false` at its end or that of the range.
    fn next(&mut self, window: &mut Window, rows: &mut BatchBuilder) -> std::io::Result<bool> {
        window.skip_newlines()?;
        if window.data().is_empty() {
            return self.next_segment(window, rows);
        }
        // Bytes between records are told by whoever has the record before them.
        let is_gap = self.is_owner && !window.is_arc() && !is_record_start(window.have(16)?);
        if window.is_plain() && window.offset() >= self.range.end && !is_gap {
            return Ok(false);
        }
        let header_bytes = match self.read_header(window)? {
            Ok(header_bytes) => header_bytes,
            Err(reason) => {
                let is_record = reason != "garbage";
                if is_record {
                    self.own(window);
                }
                let is_damaged = window.is_damaged();
                self.reject(window, rows, if is_damaged { window.damage() } else { reason });
                resync(window)?;
                return Ok(true);
            }
        };
        self.own(window);
        self.read_record(window, header_bytes, rows)?;
        Ok(true)
    }

    /// Goes on to the next member that starts a record; `false` at the end of the file or range.
    fn next_segment(
        &mut self,
        window: &mut Window,
        rows: &mut BatchBuilder,
    ) -> std::io::Result<bool> {
        if window.take_damage() {
            self.reject(window, rows, window.damage());
        }
        let end = self.range.end;
        let Some(gap) = window.next_segment(end)? else { return Ok(false) };
        self.header.clear();
        if let Some(offset) = gap
            && self.is_owner
        {
            locate(&mut self.scratch.locator, &self.file.name, offset, 0);
            rows.reject(&Record { locator: &self.scratch.locator, ..Record::default() }, "garbage");
        }
        Ok(true)
    }

    /// Decides whether the record that starts here belongs to the range.
    fn own(&mut self, window: &Window) {
        self.is_owner = !window.is_plain() || window.offset() >= self.range.start;
    }

    /// Fills `header` and returns how many bytes it has, or why there is none.
    fn read_header(&mut self, window: &mut Window) -> std::io::Result<Result<usize, &'static str>> {
        // A reject must not show the fields of the record before it.
        self.header.clear();
        let is_arc = window.is_arc();
        let data = window.have(16)?;
        if !is_arc && !is_record_start(data) {
            return Ok(Err("garbage"));
        }
        let mut from = 0;
        loop {
            let data = window.data();
            let found = if is_arc { line_end(data, from) } else { header_end(data, from) };
            if let Some(end) = found.filter(|&end| end <= HEADER_BYTES_MAX) {
                let known = if is_arc {
                    self.header.read_arc_line(&data[..end])
                } else {
                    self.header.read(&FIELDS, &data[..end])
                };
                return Ok(known.then_some(end).ok_or("garbage"));
            }
            if data.len() >= HEADER_BYTES_MAX {
                return Ok(Err("header_too_large"));
            }
            let n = data.len();
            from = n.saturating_sub(2);
            if window.have(n + 1)?.len() == n {
                return Ok(Err("truncated_record"));
            }
        }
    }

    fn read_record(
        &mut self,
        window: &mut Window,
        header_bytes: usize,
        rows: &mut BatchBuilder,
    ) -> std::io::Result<()> {
        let Some(body_bytes) = self.header.content_length() else {
            self.reject(window, rows, "bad_length");
            return resync_after(window, header_bytes);
        };
        let is_page = Purpose::of(&self.header, &self.config) != Purpose::Other;
        let is_large = body_bytes > self.config.body_bytes_max as u64;
        if is_large || (window.is_plain() && !(is_page && self.is_owner)) {
            return self.pass_over(window, header_bytes, is_page, rows);
        }
        let end = header_bytes + usize::try_from(body_bytes).expect("within the limit");
        let is_whole = window.have(end)?.len() >= end;
        if self.wanted.is_some() {
            self.locate(window);
            if self.wanted.as_ref() == Some(&self.scratch.locator) {
                let data = window.data();
                self.found = Some(data[..end.min(data.len())].to_vec());
            }
            window.advance(end.min(window.data().len()));
            return Ok(());
        }
        if !is_whole || !window.is_record_end(end)? {
            let reason = match (window.is_damaged(), is_whole) {
                (true, _) => window.damage(),
                (false, true) => "bad_length",
                (false, false) => "truncated_record",
            };
            window.take_damage();
            self.reject(window, rows, reason);
            return resync_after(window, header_bytes);
        }
        if window.take_damage() {
            self.reject(window, rows, window.damage());
        } else if is_page {
            self.locate(window);
            let body = &window.data()[header_bytes..end];
            let mut page = Page {
                header: &self.header,
                http: &mut self.http,
                scratch: &mut self.scratch,
                config: &self.config,
            };
            page.push(body, rows);
        }
        window.advance(end);
        Ok(())
    }

    /// Skips a record whose body is not looked at.
    fn pass_over(
        &mut self,
        window: &mut Window,
        header_bytes: usize,
        is_page: bool,
        rows: &mut BatchBuilder,
    ) -> std::io::Result<()> {
        let body_bytes = self.header.content_length().unwrap_or(0);
        let body = window.mark(header_bytes);
        self.locate(window);
        let is_whole = window.skip(header_bytes as u64 + body_bytes)?;
        let is_good = is_whole && window.is_record_end(0)?;
        let reason = match (window.take_damage(), is_good) {
            (true, _) => Some(window.damage()),
            (false, false) => Some(if is_whole { "bad_length" } else { "truncated_record" }),
            (false, true) => is_page.then_some("too_large"),
        };
        if let Some(reason) = reason
            && self.is_owner
        {
            self.reject_located(rows, reason);
        }
        if is_good {
            return Ok(());
        }
        window.rewind(body)?;
        resync(window)
    }

    fn locate(&mut self, window: &Window) {
        let (segment, offset) = window.place();
        locate(&mut self.scratch.locator, &self.file.name, segment, offset);
    }

    fn reject(&mut self, window: &Window, rows: &mut BatchBuilder, reason: &str) {
        if self.is_owner {
            self.locate(window);
            self.reject_located(rows, reason);
        }
    }

    fn reject_located(&mut self, rows: &mut BatchBuilder, reason: &str) {
        let url = self.header.url();
        let record = Record {
            locator: &self.scratch.locator,
            url: url.as_deref(),
            date: self.header.date(),
            bytes_raw: self.header.content_length().unwrap_or(0),
            ..Record::default()
        };
        rows.reject(&record, reason);
    }
}

fn resync_after(window: &mut Window, header_bytes: usize) -> std::io::Result<()> {
    // The line end of the header counts: a record may begin right after it.
    window.advance(header_bytes - 1);
    resync(window)
}

/// Goes on behind a record that was rejected.
fn resync(window: &mut Window) -> std::io::Result<()> {
    window.resync()?;
    if window.data().is_empty() {
        // Damage up to the end of the segment is told already.
        window.take_damage();
    }
    Ok(())
}

fn locate(locator: &mut String, name: &str, segment: u64, offset: u64) {
    use std::fmt::Write as _;
    locator.clear();
    let written = if offset == 0 {
        write!(locator, "{name}#{segment}")
    } else {
        write!(locator, "{name}#{segment}+{offset}")
    };
    written.expect("a string takes all that is written to it");
}

/// Whether a record's version line starts `data`.
fn is_record_start(data: &[u8]) -> bool {
    data.len() > 5 && data[..5].eq_ignore_ascii_case(b"WARC/") && data[5].is_ascii_digit()
}

/// Returns where the first line of `data` ends, its line feed included.
fn line_end(data: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &data[from..]).map(|at| from + at + 1)
}

/// Returns where the first empty line of `data` ends, looking at line feeds from `from` on.
fn header_end(data: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &data[from..]).find_map(|at| match &data[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Header fields that matter, of a WARC record or of an HTTP answer.
#[derive(Debug, Default)]
struct Fields {
    /// The header with folded lines joined.
    block: Vec<u8>,
    values: [Range<usize>; FIELDS.len()],
    is_arc: bool,
}

const FIELDS: [&str; 8] = [
    "WARC-Type",
    "Content-Length",
    "Content-Type",
    "WARC-Target-URI",
    "WARC-Date",
    "WARC-Record-ID",
    "WARC-Truncated",
    "WARC-Refers-To-Target-URI",
];
const TYPE: usize = 0;
const LENGTH: usize = 1;
const CONTENT_TYPE: usize = 2;
const URI: usize = 3;
const DATE: usize = 4;
const RECORD_ID: usize = 5;
const TRUNCATED: usize = 6;
const REFERS_TO: usize = 7;

/// Fields of an HTTP answer, at the indices of [`FIELDS`] where they have one.
const HTTP_FIELDS: [&str; 8] =
    ["Content-Encoding", "Transfer-Encoding", "Content-Type", "", "", "", "", ""];
const ENCODING: usize = 0;
const TRANSFER: usize = 1;

impl Fields {
    fn clear(&mut self) {
        self.is_arc = false;
        self.values = Default::default();
        self.block.clear();
    }

    /// Reads lines `Name: value` after a first line of another form. Of a field that stands twice the first counts.
    fn read(&mut self, names: &[&str; 8], block: &[u8]) -> bool {
        self.clear();
        let mut current = None;
        for line in memchr::memchr_iter(b'\n', block)
            .chain([block.len()])
            .scan(0, |start, end| {
                let line = block.get(*start..end);
                *start = end + 1;
                Some(line)
            })
            .flatten()
            .skip(1)
        {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let [b' ' | b'\t', ..] = line {
                if let Some(field) = current {
                    let value: &mut Range<usize> = &mut self.values[field];
                    // A value may begin on its second line.
                    if value.start < value.end {
                        self.block.push(b' ');
                    }
                    self.block.extend_from_slice(line.trim_ascii());
                    value.end = self.block.len();
                }
                continue;
            }
            current = None;
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let name = line[..colon].trim_ascii();
            let known = names.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
            if let Some(field) = known.filter(|&field| self.values[field].is_empty()) {
                let start = self.block.len();
                self.block.extend_from_slice(line[colon + 1..].trim_ascii());
                self.values[field] = start..self.block.len();
                current = Some(field);
            }
        }
        true
    }

    /// Reads an ARC header: `URL IP date content-type length`. Spaces in a URL were never escaped.
    fn read_arc_line(&mut self, line: &[u8]) -> bool {
        self.clear();
        self.is_arc = true;
        self.block.extend_from_slice(line.trim_ascii());
        let mut end = self.block.len();
        for field in [LENGTH, CONTENT_TYPE, DATE, RECORD_ID] {
            let Some(space) = memchr::memrchr(b' ', &self.block[..end]) else { return false };
            self.values[field] = space + 1..end;
            end = space;
        }
        self.values[RECORD_ID] = 0..0; // the IP address
        self.values[URI] = 0..end;
        let date = self.get(DATE);
        date.len() >= 8 && date.iter().all(u8::is_ascii_digit) && self.get(URI).contains(&b':')
    }

    fn get(&self, field: usize) -> &[u8] {
        &self.block[self.values[field].clone()]
    }

    fn text(&self, field: usize) -> Option<&str> {
        std::str::from_utf8(self.get(field)).ok().filter(|text| !text.is_empty())
    }

    fn content_length(&self) -> Option<u64> {
        let digits = self.text(LENGTH)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    }

    fn url(&self) -> Option<String> {
        let value = self.get(URI);
        // wget wrote the URI between angle brackets, as the grammar of WARC 1.0 has it.
        let value = value.strip_prefix(b"<").and_then(|v| v.strip_suffix(b">")).unwrap_or(value);
        let is_usable = !value.is_empty() && memchr::memchr(0, value).is_none();
        is_usable.then(|| String::from_utf8_lossy(value).into_owned())
    }

    fn date(&self) -> Option<i64> {
        date::parse(self.text(DATE)?)
    }
}

/// What a record is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// An answer or a file, stored as it came.
    Page,
    /// A record that a page should be in and is not, and why.
    Reject(&'static str),
    /// About the crawl.
    Other,
}

impl Purpose {
    fn of(header: &Fields, config: &Config) -> Self {
        // wget keeps its own log under `metadata://`.
        let uri = header.get(URI).strip_prefix(b"<").unwrap_or(header.get(URI));
        let is_own = uri.starts_with(b"dns:") || uri.starts_with(b"metadata:");
        if header.is_arc {
            let is_version = header.get(URI).starts_with(b"filedesc:");
            return if is_own || is_version { Self::Other } else { Self::Page };
        }
        let kind = header.get(TYPE);
        let is = |known: &str| kind.eq_ignore_ascii_case(known.as_bytes());
        if is("request") || is("warcinfo") || is_own {
            Self::Other
        } else if let Some(known) = RECORDS.into_iter().find(|known| is(known)) {
            if config.records.iter().any(|wanted| wanted == known) {
                // The first segment of a page that was cut in two stands for the page.
                Self::Page
            } else if known != "metadata" {
                Self::Reject("record_type")
            } else if header.get(CONTENT_TYPE).starts_with(b"application/json") {
                // WAT: about a page, where a note is about the crawl.
                Self::Reject("metadata")
            } else {
                Self::Other
            }
        } else if is("revisit") {
            Self::Reject("revisit")
        } else if is("continuation") {
            Self::Reject("continuation")
        } else {
            Self::Reject("record_type")
        }
    }
}

/// Makes a row of a record.
struct Page<'a> {
    header: &'a Fields,
    http: &'a mut Fields,
    scratch: &'a mut Scratch,
    config: &'a Config,
}

impl Page<'_> {
    fn push(&mut self, block: &[u8], rows: &mut BatchBuilder) {
        let status_line = block.starts_with(b"HTTP/").then(|| {
            let end = header_end(block, 0).unwrap_or(block.len());
            self.http.read(&HTTP_FIELDS, &block[..end]);
            (&block[..line_end(block, 0).unwrap_or(end)], end)
        });
        let payload = &block[status_line.map_or(0, |(_, end)| end)..];
        let status = status_line.and_then(|(line, _)| status(line));
        let mut content_type = match status_line {
            Some(_) => media_type(self.http.get(CONTENT_TYPE)),
            None => media_type(self.header.get(CONTENT_TYPE)),
        };
        let verdict = self.read_payload(status_line.map(|_| status), payload, &mut content_type);
        let url = self.header.url();
        let mut metadata: Vec<(&str, &str)> = Vec::with_capacity(5);
        if !content_type.is_empty() {
            metadata.push(("content_type", &content_type));
        }
        let page = verdict.map(|body| {
            let bytes = match body {
                Body::Stored => payload,
                Body::Unchunked => &self.scratch.unchunked,
                Body::Decoded => &self.scratch.decoded,
            };
            let label = match status_line {
                Some(_) => charset::parameter(self.http.get(CONTENT_TYPE)),
                None => charset::parameter(self.header.get(CONTENT_TYPE)),
            };
            (bytes.len() as u64, charset::decode(bytes, label))
        });
        if let Ok((_, (_, charset))) = &page {
            metadata.push(("charset", charset));
        }
        let status = status.map(|status| status.to_string());
        metadata.extend(status.as_deref().map(|status| ("http_status", status)));
        let record_id = self.header.text(RECORD_ID).map(|id| id.trim_matches(['<', '>']));
        metadata.extend(record_id.map(|id| ("warc_record_id", id)));
        metadata.extend(self.header.text(TRUNCATED).map(|why| ("truncated", why)));
        metadata.extend(self.header.text(REFERS_TO).map(|url| ("revisit_of", url)));
        let record = Record {
            locator: &self.scratch.locator,
            url: url.as_deref(),
            date: self.header.date(),
            bytes_raw: page.as_ref().map_or(payload.len() as u64, |(bytes, _)| *bytes),
            metadata: &metadata,
            ..Record::default()
        };
        match &page {
            Ok((_, (text, _))) => rows.push(&record, text),
            Err(reason) => rows.reject(&record, reason),
        }
    }

    /// Returns where the decoded payload lies, or why it gives no document.
    ///
    /// `status` is `None` for a record that is no HTTP answer, `Some(None)` for an answer without a legible status.
    fn read_payload(
        &mut self,
        status: Option<Option<u16>>,
        payload: &[u8],
        content_type: &mut String,
    ) -> Result<Body, &'static str> {
        if let Purpose::Reject(reason) = Purpose::of(self.header, self.config) {
            return Err(reason);
        }
        let is_http = content_type.starts_with("application/http");
        match status {
            Some(Some(200)) => {}
            Some(Some(_)) => return Err("http_status"),
            Some(None) => return Err("bad_http"),
            // HTTP 0.9, or an answer without its header.
            None if is_http || self.header.is_arc => return Err("bad_http"),
            None => {}
        }
        if payload.is_empty() {
            return Err("no_payload");
        }
        let is_unknown = matches!(content_type.as_str(), "" | "application/octet-stream");
        let is_metadata = self.header.get(TYPE).eq_ignore_ascii_case(b"metadata");
        let is_wanted =
            |name: &str| is_metadata || self.config.content_types.iter().any(|t| t == name);
        if !is_unknown && !is_wanted(content_type) {
            return Err("content_type");
        }
        let body = if status.is_some() { self.decode(payload)? } else { Body::Stored };
        let bytes = match body {
            Body::Stored => payload,
            Body::Unchunked => &self.scratch.unchunked,
            Body::Decoded => &self.scratch.decoded,
        };
        if bytes.is_empty() {
            return Err("no_payload");
        }
        if is_unknown {
            if !is_html(bytes) || !is_wanted("text/html") {
                return Err("content_type");
            }
            "text/html".clone_into(content_type);
        }
        Ok(body)
    }

    /// Undoes transfer and content encoding.
    fn decode(&mut self, payload: &[u8]) -> Result<Body, &'static str> {
        let Scratch { unchunked, decoded, recoded, .. } = &mut *self.scratch;
        let limits =
            Limits { bytes: self.config.body_bytes_max, ratio: self.config.body_ratio_max };
        let mut body = Body::Stored;
        // Archives often keep the header and store the body without chunks.
        let is_chunked = self.http.get(TRANSFER).trim_ascii_end().to_ascii_lowercase();
        if is_chunked.ends_with(b"chunked") && unchunk(payload, unchunked)? {
            body = Body::Unchunked;
        }
        for encoding in self.http.get(ENCODING).rsplit(|&byte| byte == b',') {
            let bytes = match body {
                Body::Stored => payload,
                Body::Unchunked => unchunked,
                Body::Decoded => decoded,
            };
            let is_decoded = inflate::decode_body(encoding.trim_ascii(), bytes, recoded, limits);
            if is_decoded.map_err(BodyError::reason)? {
                std::mem::swap(decoded, recoded);
                body = Body::Decoded;
            }
        }
        Ok(body)
    }
}

/// Which buffer holds a payload.
#[derive(Clone, Copy, Debug)]
enum Body {
    Stored,
    Unchunked,
    Decoded,
}

/// Reads the status of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let digits = words.nth(1)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the type of `Text/HTML; charset=x`, in lower case.
fn media_type(value: &[u8]) -> String {
    let end = value.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(value.len());
    String::from_utf8_lossy(value[..end].trim_ascii()).to_ascii_lowercase()
}

/// Whether `bytes` are a page of HTML without a label. Source: WHATWG MIME Sniffing, section 7.1, the tags that pages begin with.
fn is_html(bytes: &[u8]) -> bool {
    const STARTS: [&[u8]; 6] =
        [b"<!doctype html", b"<html", b"<head", b"<body", b"<title", b"<meta"];
    let head = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = head[..head.len().min(1024)].trim_ascii_start();
    let begins =
        |start: &[u8]| head.len() >= start.len() && head[..start.len()].eq_ignore_ascii_case(start);
    STARTS.into_iter().any(begins)
}

fn chunk_bytes(line: &[u8]) -> Option<usize> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_hex.then(|| usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())?
}

/// Joins the chunks of `body` into `output`. `false` when the first chunk shows that there are none.
fn unchunk(body: &[u8], output: &mut Vec<u8>) -> Result<bool, &'static str> {
    output.clear();
    let mut rest = body;
    loop {
        let line = line_end(rest, 0);
        let Some((line, bytes)) = line.and_then(|at| Some((at, chunk_bytes(&rest[..at])?))) else {
            return if output.is_empty() { Ok(false) } else { Err("bad_chunk") };
        };
        if bytes == 0 {
            return Ok(true);
        }
        let Some((chunk, after)) = rest[line..].split_at_checked(bytes) else {
            return if output.is_empty() { Ok(false) } else { Err("bad_chunk") };
        };
        output.write_all(chunk).expect("a vector takes all that is written to it");
        rest = match after {
            [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => after,
            _ if output.len() == bytes => return Ok(false),
            _ => return Err("bad_chunk"),
        };
    }
}

#[cfg(test)]
mod tests;
