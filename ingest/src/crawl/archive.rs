//! Writes WARC 1.1: a gzip member per record, segments that get their final name when they are whole and synced, and an
//! index (CDXJ) beside each. An answer whose payload the archive has already is a `revisit` record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use sha1::{Digest, Sha1};
use xxhash_rust::xxh3::xxh3_128;

use super::fetch::Answer;
use super::index;
use crate::{Error, Result};

/// Why an answer is kept without its payload.
/// Source: WARC 1.1, section 6.7.
pub(super) struct Revisit {
    pub(super) profile: Profile,
    /// URL and date of the record that has the payload.
    pub(super) url: String,
    pub(super) date: String,
}

/// How it is known that a payload is another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// It was fetched, and its digest is the same.
    IdenticalPayloadDigest,
    /// The server said so.
    ServerNotModified,
}

impl Profile {
    fn uri(self) -> &'static str {
        match self {
            Self::IdenticalPayloadDigest => {
                "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
            }
            Self::ServerNotModified => {
                "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
            }
        }
    }
}

/// The segments of a crawl.
pub(super) struct Archive {
    folder: PathBuf,
    segment: u32,
    file: Option<File>,
    bytes: u64,
    segment_bytes_max: u64,
    date: Option<String>,
    software: String,
}

impl Archive {
    /// Opens the archive in `folder`; of the open segment only the first `kept_bytes` count, the rest was never journaled.
    pub(super) fn open(
        folder: &Path,
        open_segment: Option<(u32, u64)>,
        config: &super::CrawlConfig,
    ) -> Result<Self> {
        let next = finished(folder)?.len();
        let mut archive = Self {
            folder: folder.to_owned(),
            segment: u32::try_from(next).unwrap_or(u32::MAX),
            file: None,
            bytes: 0,
            segment_bytes_max: config.segment_bytes,
            date: config.record_date.clone(),
            software: config.user_agent.clone(),
        };
        let path = archive.open_path();
        if let Some((_, kept_bytes)) = open_segment.filter(|(n, _)| *n == archive.segment)
            && let Ok(mut file) = OpenOptions::new().write(true).open(&path)
        {
            file.set_len(kept_bytes).map_err(Error::io("cut", &path))?;
            file.seek(SeekFrom::End(0)).map_err(Error::io("seek", &path))?;
            archive.file = Some(file);
            archive.bytes = kept_bytes;
        }
        Ok(archive)
    }

    fn open_path(&self) -> PathBuf {
        self.folder.join(format!("{}.open", segment_name(self.segment)))
    }

    /// Whether the open segment is as large as segments get.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.segment_bytes_max
    }

    /// Writes the request and the answer, of which `digest` is the payload's; returns segment and offset of their end, and
    /// the date of the record.
    pub(super) fn write(
        &mut self,
        answer: &Answer,
        digest: &str,
        revisit: Option<&Revisit>,
    ) -> Result<((u32, u64), String)> {
        if self.file.is_none() {
            self.begin()?;
        }
        let url = answer.url.as_str();
        let date = self.date.clone().unwrap_or_else(now);
        let mut block = answer.head.clone();
        block.extend_from_slice(b"\r\n");
        let mut extra = format!("WARC-Payload-Digest: sha1:{digest}\r\n");
        if let Some(address) = answer.address {
            extra.push_str(&format!("WARC-IP-Address: {address}\r\n"));
        }
        // Source: IIPC, proposal 42 for WARC 1.1, in use by Common Crawl; the message is written as HTTP/1.1 has it.
        if answer.is_http2 {
            extra.push_str("WARC-Protocol: h2\r\n");
        }
        let kind = if let Some(Revisit { profile, url, date }) = revisit {
            extra.push_str(&format!(
                "WARC-Profile: {}\r\nWARC-Refers-To-Target-URI: {url}\r\nWARC-Refers-To-Date: {date}\r\n",
                profile.uri()
            ));
            "revisit"
        } else {
            if let Some(why) = answer.truncated {
                extra.push_str(&format!("WARC-Truncated: {why}\r\n"));
            }
            block.extend_from_slice(&answer.body);
            "response"
        };
        let head = Head { kind, url, content_type: "application/http; msgtype=response" };
        let id = self.record(&head, &date, &extra, &block)?;
        let extra = format!("WARC-Concurrent-To: {id}\r\n");
        let head = Head { kind: "request", url, content_type: "application/http; msgtype=request" };
        self.record(&head, &date, &extra, answer.request.as_bytes())?;
        Ok(((self.segment, self.bytes), date))
    }

    fn begin(&mut self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let path = self.open_path();
        self.file = Some(File::create(&path).map_err(Error::io("create", &path))?);
        self.bytes = 0;
        let extra = format!("WARC-Filename: {}\r\n", segment_name(self.segment));
        let body = format!(
            "software: {}\r\nformat: WARC File Format 1.1\r\nconformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/\r\n",
            self.software
        );
        let head = Head { kind: "warcinfo", url: "", content_type: "application/warc-fields" };
        let date = self.date.clone().unwrap_or_else(now);
        self.record(&head, &date, &extra, body.as_bytes())?;
        Ok(())
    }

    fn record(&mut self, head: &Head<'_>, date: &str, extra: &str, block: &[u8]) -> Result<String> {
        let Head { kind, url, content_type } = head;
        let name = format!("{kind} {url} {date} {} {}", self.segment, self.bytes);
        let id = urn(xxh3_128(name.as_bytes()));
        let uri =
            if url.is_empty() { String::new() } else { format!("WARC-Target-URI: {url}\r\n") };
        let digest = base32(&Sha1::digest(block));
        let header = format!(
            "WARC/1.1\r\nWARC-Type: {kind}\r\n{uri}WARC-Date: {date}\r\nWARC-Record-ID: {id}\r\n{extra}\
             WARC-Block-Digest: sha1:{digest}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            block.len()
        );
        let path = self.open_path();
        let file = self.file.as_mut().expect("a segment is begun before records are written");
        let member = member(&[header.as_bytes(), block, b"\r\n\r\n"]);
        let written = member.and_then(|member| file.write_all(&member).map(|()| member.len()));
        self.bytes += written.map_err(Error::io("write", path))? as u64;
        Ok(id)
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        let path = self.open_path();
        self.file.as_ref().map_or(Ok(()), File::sync_data).map_err(Error::io("sync", path))
    }

    /// Syncs the open segment, writes its index and gives both their final names.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let name = segment_name(self.segment);
        let (open, path) = (self.open_path(), self.folder.join(&name));
        file.sync_all().map_err(Error::io("sync", &open))?;
        index::write(&open, &name, &self.folder.join(index_name(self.segment)))?;
        fs::rename(&open, &path).map_err(Error::io("rename", &open))?;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(Error::io("sync", &self.folder))?;
        self.segment += 1;
        Ok(())
    }
}

/// The fields that differ between kinds of records.
struct Head<'a> {
    kind: &'a str,
    url: &'a str,
    content_type: &'a str,
}

pub(super) fn segment_name(segment: u32) -> String {
    format!("crawl-{segment:05}.warc.gz")
}

fn index_name(segment: u32) -> String {
    format!("crawl-{segment:05}.cdxj")
}

/// Returns the finished segments in `folder`, in order.
pub(super) fn finished(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for segment in 0.. {
        let path = folder.join(segment_name(segment));
        if !path.try_exists().map_err(Error::io("look at", &path))? {
            break;
        }
        segments.push(path);
    }
    Ok(segments)
}

/// Returns number and intact bytes of the segment in `folder` that is not finished.
///
/// `known`: a segment and how many of its bytes were durable at the last checkpoint; what is behind them is inflated and
/// checked, member by member.
///
/// # Errors
/// [`Error::Format`] when less is there than is known to have been: the state tells of pages that are gone.
pub(super) fn intact(folder: &Path, known: Option<(u32, u64)>) -> Result<(u32, u64)> {
    let segment = u32::try_from(finished(folder)?.len()).unwrap_or(u32::MAX);
    let path = folder.join(format!("{}.open", segment_name(segment)));
    let mut end = known.filter(|known| known.0 == segment).map_or(0, |known| known.1);
    let bytes = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::io("look at", &path)(error)),
    };
    if bytes < end || known.is_some_and(|known| known.0 > segment) {
        return Err(Error::Format {
            path,
            why: format!(
                "it has {bytes} bytes, the crawl wrote {:?} (segment, bytes)",
                known.unwrap_or_default()
            ),
            hint: "put the segments back, or remove `crawl.redb` and `crawl.journal` to crawl anew"
                .to_owned(),
        });
    }
    if bytes > end {
        let mut file = File::open(&path).map_err(Error::io("open", &path))?;
        file.seek(SeekFrom::Start(end)).map_err(Error::io("seek", &path))?;
        let mut members = MembersOf { input: BufReader::new(file), position: end };
        while let Ok(true) = members.pass(|_| ()) {
            end = members.position;
        }
    }
    Ok((segment, end))
}

/// The members of a segment, one after the other.
pub(super) struct MembersOf<R> {
    pub(super) input: R,
    /// Where the next one starts.
    pub(super) position: u64,
}

impl<R: BufRead> MembersOf<R> {
    /// Shows the first 64 KiB of the next member to `look`, and checks the rest; `false` at the end.
    pub(super) fn pass(&mut self, look: impl FnOnce(&[u8])) -> io::Result<bool> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut counted = Counted { input: &mut self.input, bytes: 0 };
        let mut member = GzDecoder::new(&mut counted);
        let mut head = Vec::new();
        (&mut member).take(64 << 10).read_to_end(&mut head)?;
        io::copy(&mut member, &mut io::sink())?;
        self.position += counted.bytes;
        look(&head);
        Ok(true)
    }
}

/// Counts what is taken from `input`.
struct Counted<R> {
    input: R,
    bytes: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.input.consume(bytes);
    }
}

/// Returns the SHA-1 of `payload` as WARC writes it.
pub(super) fn digest(payload: &[u8]) -> String {
    base32(&Sha1::digest(payload))
}

fn member(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for part in parts {
        encoder.write_all(part)?;
    }
    encoder.finish()
}

/// Writes a hash as a UUID of version 8 (RFC 9562): the same record has the same id.
fn urn(hash: u128) -> String {
    let hash = (hash & !(0xf << 76) & !(3 << 62)) | (8 << 76) | (2 << 62);
    let hex = format!("{hash:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("<urn:uuid:{a}-{b}-{c}-{d}-{e}>")
}

/// Source: RFC 4648, section 6; a SHA-1 needs no padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |index: usize| usize::from(bytes[index / 8] >> (7 - index % 8) & 1);
    let letters = (0..bytes.len() * 8).step_by(5).map(|start| {
        let value = (start..start + 5).fold(0, |value, index| {
            value << 1 | if index < bytes.len() * 8 { bit(index) } else { 0 }
        });
        char::from(ALPHABET[value])
    });
    letters.collect()
}

/// The time as WARC writes it. The clock is read here and nowhere else.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn writes_base32_as_the_standard_does() {
        // RFC 4648, section 10, without padding; the SHA-1 of nothing as Heritrix writes it.
        assert_eq!(super::base32(b"foobar"), "MZXW6YTBOI");
        let empty = <sha1::Sha1 as sha1::Digest>::digest(b"");
        assert_eq!(super::base32(&empty), "3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ");
    }
}
