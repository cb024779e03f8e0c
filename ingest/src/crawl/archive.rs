//! Writes WARC 1.1: a gzip member per record, segments that get their final name when they are whole and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest, Sha1};
use xxhash_rust::xxh3::xxh3_128;

use super::fetch::Answer;
use crate::{Error, Result};

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

    /// Writes the request and the answer; returns segment and offset of their end.
    pub(super) fn write(&mut self, answer: &Answer) -> Result<(u32, u64)> {
        if self.bytes >= self.segment_bytes_max {
            self.finish()?;
        }
        if self.file.is_none() {
            self.begin()?;
        }
        let url = answer.url.as_str();
        let mut head = answer.head.clone();
        head.extend_from_slice(b"\r\n");
        let payload = base32(&Sha1::digest(&answer.body));
        let mut extra = format!("WARC-Payload-Digest: sha1:{payload}\r\n");
        if let Some(address) = answer.address {
            extra.push_str(&format!("WARC-IP-Address: {address}\r\n"));
        }
        if let Some(why) = answer.truncated {
            extra.push_str(&format!("WARC-Truncated: {why}\r\n"));
        }
        head.extend_from_slice(&answer.body);
        let id =
            self.record("response", url, "application/http; msgtype=response", &extra, &head)?;
        let extra = format!("WARC-Concurrent-To: {id}\r\n");
        let request = answer.request.as_bytes();
        self.record("request", url, "application/http; msgtype=request", &extra, request)?;
        Ok((self.segment, self.bytes))
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
        self.record("warcinfo", "", "application/warc-fields", &extra, body.as_bytes())?;
        Ok(())
    }

    fn record(
        &mut self,
        kind: &str,
        url: &str,
        content_type: &str,
        extra: &str,
        block: &[u8],
    ) -> Result<String> {
        let date = self.date.clone().unwrap_or_else(now);
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

    /// Syncs the open segment and gives it its final name.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let (open, path) = (self.open_path(), self.folder.join(segment_name(self.segment)));
        file.sync_all().map_err(Error::io("sync", &open))?;
        fs::rename(&open, &path).map_err(Error::io("rename", &open))?;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(Error::io("sync", &self.folder))?;
        self.segment += 1;
        Ok(())
    }
}

fn segment_name(segment: u32) -> String {
    format!("crawl-{segment:05}.warc.gz")
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

/// Returns number and bytes of the segment in `folder` that is not finished.
pub(super) fn unfinished(folder: &Path) -> Result<(u32, u64)> {
    let segment = u32::try_from(finished(folder)?.len()).unwrap_or(u32::MAX);
    let open = folder.join(format!("{}.open", segment_name(segment)));
    Ok((segment, fs::metadata(open).map_or(0, |metadata| metadata.len())))
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
