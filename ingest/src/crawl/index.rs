//! The index of a segment: a line of CDXJ per page, sorted by its key.
//!
//! Source: IIPC, CDXJ; keys as in the SURT of the Internet Archive: `com,example)/path?query`, in lower case.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use serde_json::json;
use url::Url;

use super::archive::MembersOf;
use crate::{Error, Result};

/// Reads the segment at `path`, which will be called `name`, and writes its index to `index`.
pub(super) fn write(path: &Path, name: &str, index: &Path) -> Result<()> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut members = MembersOf { input: BufReader::with_capacity(256 << 10, file), position: 0 };
    let mut lines = Vec::new();
    loop {
        let mut entry = None;
        let offset = members.position;
        let more = members.pass(|head| entry = describe(head)).map_err(Error::io("read", path))?;
        if !more {
            break;
        }
        if let Some((key, mut fields)) = entry {
            fields["length"] = (members.position - offset).to_string().into();
            fields["offset"] = offset.to_string().into();
            fields["filename"] = name.into();
            lines.push(format!("{key} {fields}\n"));
        }
    }
    lines.sort_unstable();
    let file = File::create(index).map_err(Error::io("create", index))?;
    let mut output = BufWriter::new(file);
    lines
        .iter()
        .try_for_each(|line| output.write_all(line.as_bytes()))
        .and_then(|()| output.into_inner().map_err(std::io::IntoInnerError::into_error))
        .and_then(|file| file.sync_all())
        .map_err(Error::io("write", index))
}

/// Returns key and fields of the record that begins with `head`, if it is a page.
fn describe(head: &[u8]) -> Option<(String, serde_json::Value)> {
    let head = String::from_utf8_lossy(head);
    let (record, block) = head.split_once("\r\n\r\n")?;
    let field = |block: &str, name: &str| {
        block.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let kind = field(record, "WARC-Type")?;
    if !matches!(kind.as_str(), "response" | "revisit") {
        return None;
    }
    let url = field(record, "WARC-Target-URI")?;
    let http = block.split_once("\r\n\r\n").map_or(block, |(http, _)| http);
    let status = http.split(' ').nth(1).unwrap_or("-").to_owned();
    let media_type = field(http, "content-type");
    let media_type = media_type.as_deref().and_then(|value| value.split(';').next());
    let mime = if kind == "revisit" { "warc/revisit" } else { media_type.unwrap_or("unk").trim() };
    let digest = field(record, "WARC-Payload-Digest")?;
    let timestamp: String =
        field(record, "WARC-Date")?.chars().filter(char::is_ascii_digit).take(14).collect();
    let key = format!("{} {timestamp}", surt(&Url::parse(&url).ok()?));
    Some((key, json!({ "url": url, "mime": mime, "status": status, "digest": digest })))
}

/// Writes `url` so that pages of one domain lie together.
pub(super) fn surt(url: &Url) -> String {
    let mut key = match url.host() {
        Some(url::Host::Domain(name)) => {
            let mut labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
            if labels.len() > 2 && labels[0] == "www" {
                labels.remove(0);
            }
            labels.reverse();
            labels.join(",")
        }
        Some(address) => address.to_string(),
        None => String::new(),
    };
    if let Some(port) = url.port() {
        write!(key, ":{port}").expect("a string takes all that is written to it");
    }
    key.push(')');
    key.push_str(&url[url::Position::BeforePath..url::Position::AfterQuery]);
    key.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use url::Url;

    #[test]
    fn writes_keys_as_the_indexes_of_others_have_them() {
        // From the indexes beside pywb's archives: example.cdxj, iana.cdxj, post-test.cdxj.
        for (url, key) in [
            ("http://example.com?example=1", "com,example)/?example=1"),
            ("http://www.iana.org/_css/2013.1/screen.css", "org,iana)/_css/2013.1/screen.css"),
            ("http://httpbin.org/post", "org,httpbin)/post"),
        ] {
            assert_eq!(super::surt(&Url::parse(url).unwrap()), key);
        }
    }
}
