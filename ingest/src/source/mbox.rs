//! Mail archives: a message of an mbox file is a document.
//!
//! A message begins at a line `From ` at the start of the file or after an empty line. What it answers stands in the metadata
//! (`in_reply_to`, `references`), so threads can be joined later. Attachments are counted and left out.
//!
//! A range of a plain file begins at the first such line in it; what precedes the first one of the file is the first range's.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use mail_parser::{HeaderValue, Message, MessageParser};
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::lines::{Line, Lines};
use super::{DocumentStream, Source, SourceFile, SourceKind, config};
use crate::modifier::extract_html::visible_text;
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "mbox",
    summary: "mail archives in mbox format, plain, gzip, Zstandard or bzip2, a document per message",
    source: "RFC 4155 (mbox), RFC 5322 and 2045 to 2047 (messages)",
    document_kind: "conversation",
    patterns: &["*.mbox", "*.mbox.gz", "*.mbox.zst", "*.mbox.bz2"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Mbox {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("mbox", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether lines that quote another message are text.
    keep_quotes: bool,
    /// Whether what follows the line `-- ` is text.
    keep_signatures: bool,
    /// The licence of every message.
    license: String,
    /// Bytes of a message with its attachments, at most.
    message_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // In an archive the quoted message is there itself.
            keep_quotes: false,
            keep_signatures: false,
            license: String::new(),
            message_bytes_max: 32 << 20,
        }
    }
}

#[derive(Clone, Debug)]
struct Mbox {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Mbox {
    fn is_splittable(&self, name: &str) -> bool {
        ![".gz", ".zst", ".bz2"].iter().any(|end| name.ends_with(end))
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let open = || File::open(&file.path).map_err(Error::io("open", &file.path));
        let read = || Error::io("read", &file.path);
        let range = range.unwrap_or(0..u64::MAX);
        // The last message of a range may end in a later one.
        let end = if range.is_empty() { range.start } else { u64::MAX };
        let lines = Lines::open(open()?, &(range.start..end)).map_err(read())?;
        let is_inside = lines.is_plain() && lines.offset() > 0;
        let is_after_empty =
            !is_inside || is_empty_before(open()?, lines.offset()).map_err(read())?;
        let reader = Messages {
            file: file.clone(),
            config: self.config.clone(),
            end: if lines.is_plain() { range.end } else { u64::MAX },
            lines,
            line: Vec::new(),
            message: Vec::new(),
            bytes: 0,
            start: None,
            is_after_empty,
            is_before_first: is_inside,
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }

    /// Text before the first line `From ` belongs to the range with the first byte.
    fn range_of(&self, file: &SourceFile, place: &str) -> Option<Range<u64>> {
        let at = place.parse().ok().filter(|_| self.is_splittable(&file.name))?;
        let mut handle = File::open(&file.path).ok()?;
        handle.seek(SeekFrom::Start(at)).ok()?;
        let mut head = [0; 5];
        let is_message = handle.read_exact(&mut head).is_ok() && head == *b"From ";
        Some(if is_message { at..at + 1 } else { 0..1 })
    }
}

/// Whether the line that ends before `offset` of `file` is empty.
fn is_empty_before(mut file: File, offset: u64) -> io::Result<bool> {
    const STEP: u64 = 4096;
    let mut end = offset.saturating_sub(1);
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        (&mut file).take(end - start).read_to_end(&mut bytes)?;
        if let Some(byte) =
            bytes.iter().rfind(|byte| **byte == b'\n' || !byte.is_ascii_whitespace())
        {
            return Ok(*byte == b'\n');
        }
        end = start;
    }
    Ok(true)
}

struct Messages {
    file: SourceFile,
    config: Config,
    /// Where messages of later ranges begin.
    end: u64,
    lines: Lines,
    line: Vec<u8>,
    /// The message so far, without its first line and the `>` before `From `.
    message: Vec<u8>,
    /// Its bytes in the file, also those that are too many.
    bytes: u64,
    /// Where it begins.
    start: Option<u64>,
    is_after_empty: bool,
    /// Whether the lines so far belong to a message of an earlier range.
    is_before_first: bool,
}

impl Rows for Messages {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let offset = self.lines.offset();
        if self.is_before_first && offset >= self.end {
            return Ok(false);
        }
        let read = self.lines.read(&mut self.line, self.config.message_bytes_max);
        let read = read.map_err(Error::io("read", &self.file.path))?;
        let mut is_empty = self.line.trim_ascii().is_empty();
        match read {
            Line::End => {
                self.end_message(None, rows);
                return Ok(false);
            }
            Line::Damaged(reason) => {
                self.start = self.start.or(Some(offset));
                self.end_message(Some(reason), rows);
                return Ok(true);
            }
            Line::Whole if self.is_after_empty && self.line.starts_with(b"From ") => {
                self.end_message(None, rows);
                if offset >= self.end {
                    return Ok(false);
                }
                self.start = Some(offset);
                self.is_before_first = false;
            }
            Line::TooLong => {
                is_empty = false;
                if !self.is_before_first {
                    self.start.get_or_insert(offset);
                }
            }
            Line::Whole if self.is_before_first => {}
            Line::Whole => {
                // mboxrd: a `>` was put before each `From ` of the text, also before those that had one.
                let marks = self.line.iter().take_while(|&&byte| byte == b'>').count();
                if marks > 0 && self.line[marks..].starts_with(b"From ") {
                    self.line.remove(0);
                }
                self.message_line(offset);
            }
        }
        self.is_after_empty = is_empty;
        // Empty lines before the first message are nobody's.
        if self.start.is_some() {
            self.bytes += self.lines.offset() - offset;
        }
        Ok(true)
    }
}

impl Messages {
    fn message_line(&mut self, offset: u64) {
        if self.start.is_none() && self.line.trim_ascii().is_empty() {
            return;
        }
        // Text before the first `From ` is a message without that line.
        self.start.get_or_insert(offset);
        if self.message.len() <= self.config.message_bytes_max {
            self.message.extend_from_slice(&self.line);
            self.message.push(b'\n');
        }
    }

    fn end_message(&mut self, damage: Option<&str>, rows: &mut BatchBuilder) {
        let message = std::mem::take(&mut self.message);
        let bytes_raw = std::mem::take(&mut self.bytes);
        let Some(start) = self.start.take() else { return };
        let locator = format!("{}#{start}", self.file.name);
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        if let Some(reason) = damage {
            return rows.reject(&record, reason);
        }
        if bytes_raw > self.config.message_bytes_max as u64 {
            return rows.reject(&record, "too_large");
        }
        match MessageParser::default().parse(&message) {
            Some(parsed) if parsed.headers().iter().any(|header| header.name() != "") => {
                self.push(&record, &parsed, rows);
            }
            _ => rows.reject(&record, "no_headers"),
        }
    }

    fn push(&self, record: &Record<'_>, message: &Message<'_>, rows: &mut BatchBuilder) {
        let subject = message.subject().map(str::trim).filter(|subject| !subject.is_empty());
        let is_html = message.text_part(0).is_none_or(|part| part.is_text_html());
        let body = match message.body_html(0).filter(|_| is_html) {
            Some(html) => visible_text(&html).unwrap_or_default(),
            None => message.body_text(0).map(|body| body.into_owned()).unwrap_or_default(),
        };
        let body = self.trim(&body);
        let texts = [
            ("subject", subject.map(str::to_owned)),
            ("message_id", message.message_id().map(str::to_owned)),
            ("in_reply_to", ids(message.in_reply_to())),
            ("references", ids(message.references())),
        ];
        let attachments = message.attachment_count().to_string();
        let mut metadata: Vec<(&str, &str)> =
            texts.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
        metadata.push(("attachments_dropped", &attachments));
        let license = Some(self.config.license.as_str()).filter(|license| !license.is_empty());
        let date = message.date().filter(|date| date.is_valid()).map(|date| date.to_timestamp());
        let record = Record { date, license, metadata: &metadata, ..*record };
        if body.is_empty() {
            return rows.reject(&record, "no_text");
        }
        match subject {
            Some(subject) => rows.push(&record, &format!("Subject: {subject}\n\n{body}")),
            None => rows.push(&record, &body),
        }
    }

    /// Cuts off quotations and the signature, as the configuration says.
    fn trim(&self, body: &str) -> String {
        let mut lines: Vec<&str> = Vec::new();
        for line in body.lines() {
            let line = line.trim_end_matches('\r');
            if line == "-- " && !self.config.keep_signatures {
                break;
            }
            let is_quote = line.starts_with('>') || line.starts_with(" >");
            if !is_quote || self.config.keep_quotes {
                lines.push(line.trim_end());
                continue;
            }
            // `On Monday, A wrote:` says whom the quotation is of.
            while lines.last().is_some_and(|line| line.is_empty()) {
                lines.pop();
            }
            let is_attribution =
                lines.last().is_some_and(|line| line.ends_with(':') && line.contains("wrote"));
            if is_attribution {
                lines.pop();
            }
            lines.push("");
        }
        lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
        lines.join("\n").trim_matches('\n').to_owned()
    }
}

/// The message ids of a header.
fn ids(header: &HeaderValue<'_>) -> Option<String> {
    match header {
        HeaderValue::Text(id) => Some(id.to_string()),
        HeaderValue::TextList(ids) => Some(ids.join(" ")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn rows(mbox: &[u8], config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mbox");
        fs::write(&path, mbox).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[30_000])
    }

    const FIRST: &str = "From a@x.example Sat Jan  3 01:05:34 1996\n\
        Message-ID: <1@x.example>\nDate: Thu, 13 Feb 1969 23:32:54 -0330\n\
        Subject: =?ISO-8859-1?Q?caf=E9?=\nContent-Type: text/plain; charset=iso-8859-1\n\
        Content-Transfer-Encoding: quoted-printable\n\nna=EFve long=\nline\n>From here\n\nFrom=20there\n\n";
    const SECOND: &str = "From b@x.example Sat Jan  3 02:05:34 1996\r\n\
        Message-ID: <2@x.example>\r\nIn-Reply-To: <1@x.example>\r\nReferences: <0@x.example> <1@x.example>\r\n\
        Subject: Re: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n\
        --B\r\nContent-Type: text/plain\r\n\r\nYes.\r\n\r\nOn Monday, A wrote:\r\n> no\r\n> more\r\n\r\nAnd\r\n-- \r\nb\r\n\
        --B\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--B--\r\n\r\n";

    #[test]
    fn decodes_messages_and_tells_what_they_answer() {
        let mbox = [FIRST, SECOND].concat();
        let found = rows(mbox.as_bytes(), "");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].text, "Subject: café\n\nnaïve longline\nFrom here\n\nFrom there");
        // The date is the example of RFC 5322, section 3.3: 1969-02-14T03:02:54Z.
        assert_eq!((found[0].date, found[0].locator.as_str()), (Some(-27_723_426), "a.mbox#0"));
        assert_eq!(found[1].text, "Subject: Re: x\n\nYes.\n\nAnd");
        assert_eq!(found[1].value("in_reply_to"), Some("1@x.example"));
        assert_eq!(found[1].value("references"), Some("0@x.example 1@x.example"));
        assert_eq!(
            (found[1].value("message_id"), found[1].value("attachments_dropped")),
            (Some("2@x.example"), Some("1"))
        );
        assert_eq!(found[1].locator, format!("a.mbox#{}", FIRST.len()));
        assert_eq!(found[0].bytes_raw + found[1].bytes_raw, mbox.len() as u64);
        let all = rows(SECOND.as_bytes(), "keep_quotes = true\nkeep_signatures = true");
        assert_eq!(
            all[0].text,
            "Subject: Re: x\n\nYes.\n\nOn Monday, A wrote:\n> no\n> more\n\nAnd\n--\nb"
        );
    }

    #[test]
    fn reads_html_messages_and_names_what_it_cannot_use() {
        let html = "From a\nSubject: h\nContent-Type: text/html\n\n<p>one</p><script>x</script><p>two</p>\n\n";
        assert_eq!(rows(html.as_bytes(), "")[0].text, "Subject: h\n\none\n\ntwo");
        let empty = "From a\nSubject: e\n\n> only a quotation\n\n";
        assert_eq!(rows(empty.as_bytes(), "")[0].reject.as_deref(), Some("no_text"));
        let long = format!("From a\nSubject: l\n\n{}\n\n{FIRST}", "x\n".repeat(400));
        let found = rows(long.as_bytes(), "message_bytes_max = 600");
        assert_eq!(found[0].reject.as_deref(), Some("too_large"));
        assert_eq!(found[1].value("message_id"), Some("1@x.example"));
        // Bytes that are no text, and parts inside parts.
        assert_eq!(rows(b"From a\nSubject: \xff\xfe\n\n\xff\xfe\n", "").len(), 1);
        let deep: String = (0..2000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"))
            .collect();
        assert_eq!(rows(format!("From a\n{deep}").as_bytes(), "").len(), 1);
    }

    proptest! {
        #[test]
        fn ranges_of_any_size_tile_a_file(
            lines in proptest::collection::vec(
                prop_oneof!["From [a-z]{0,9}\n", "[ \t]{0,3}\r?\n", "[A-Z]: [a-z]{1,9}\n\n", ">{0,2}From [a-z]{0,30}\n"],
                0..40,
            ),
            cuts in proptest::collection::vec(any::<u16>(), 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.mbox");
            fs::write(&path, lines.concat()).unwrap();
            let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
            let mut end = 0;
            for row in &rows {
                let start: u64 = row.locator.strip_prefix("a.mbox#").unwrap().parse().unwrap();
                prop_assert!(start >= end);
                end = start + row.bytes_raw;
            }
            // The messages are all there is but empty lines before the first.
            prop_assert!(rows.is_empty() || end == lines.concat().len() as u64);
        }
    }
}
