//! Bytes of a page to text, whatever its encoding and whatever its label says.
//!
//! Order of belief: byte order mark, strict UTF-8, the label of the protocol or the page unless the bytes contradict it,
//! `chardetng`. A wrong label is about as common on the web as a missing one, valid UTF-8 by chance is not.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE, X_USER_DEFINED};
use memchr::memmem;

/// Bytes of a page in which its own label is looked for; browsers read 1,024, pages with long comments need more.
const LABEL_BYTES_MAX: usize = 4096;
/// Bytes that the detector looks at. It needs some hundred letters beyond ASCII.
const DETECT_BYTES_MAX: usize = 1 << 20;

/// Returns the text of `bytes` without byte order mark, and the WHATWG name of its encoding.
///
/// `label` is what came with the bytes (the `charset` of an HTTP header). What cannot be decoded becomes U+FFFD.
pub(super) fn decode<'a>(bytes: &'a [u8], label: Option<&[u8]>) -> (Cow<'a, str>, &'static str) {
    if let Some((encoding, bom_bytes)) = Encoding::for_bom(bytes) {
        return lossy(encoding, &bytes[bom_bytes..]);
    }
    if let Some(encoding) = utf16_without_mark(bytes) {
        return lossy(encoding, bytes);
    }
    let is_iso_2022_jp = has_iso_2022_jp_escapes(bytes);
    if !is_iso_2022_jp && let Ok(text) = std::str::from_utf8(bytes) {
        return (Cow::Borrowed(text), UTF_8.name());
    }
    if is_iso_2022_jp && let Some(text) = strict(ISO_2022_JP, bytes) {
        return (text, ISO_2022_JP.name());
    }
    let named = [label, page_label(bytes)].into_iter().flatten().filter_map(Encoding::for_label);
    for encoding in named {
        if encoding == UTF_8 {
            if is_mostly_utf8(bytes) {
                return lossy(UTF_8, bytes);
            }
        } else if is_legacy(encoding)
            && let Some(text) = strict(encoding, bytes)
        {
            return (text, encoding.name());
        }
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&bytes[..bytes.len().min(DETECT_BYTES_MAX)], true);
    let guess = detector.guess(None, Utf8Detection::Deny);
    // A few broken letters in a page of UTF-8 do not make it another encoding.
    lossy(if is_mostly_utf8(bytes) { UTF_8 } else { guess }, bytes)
}

fn lossy<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> (Cow<'a, str>, &'static str) {
    (encoding.decode_without_bom_handling(bytes).0, encoding.name())
}

fn strict<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes)
}

/// Whether a label may name `encoding` for bytes that are neither UTF-8 nor UTF-16.
fn is_legacy(encoding: &'static Encoding) -> bool {
    encoding != X_USER_DEFINED
        && encoding != encoding_rs::REPLACEMENT
        && encoding != UTF_16LE
        && encoding != UTF_16BE
}

/// Recognises UTF-16 by the zero byte that every second byte of Western text is.
fn utf16_without_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = &bytes[..bytes.len().min(512) & !1];
    if head.len() < 8 || memchr::memchr(0, head).is_none() {
        return None;
    }
    let zeros = |start: usize| head.iter().skip(start).step_by(2).filter(|&&b| b == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), head.len() / 2);
    if odd * 10 > pairs * 7 && even * 10 < pairs {
        Some(UTF_16LE)
    } else if even * 10 > pairs * 7 && odd * 10 < pairs {
        Some(UTF_16BE)
    } else {
        None
    }
}

/// ISO-2022-JP is seven-bit: it would pass as UTF-8.
fn has_iso_2022_jp_escapes(bytes: &[u8]) -> bool {
    memchr::memchr(0x1b, bytes).is_some()
        && bytes.is_ascii()
        && (memmem::find(bytes, b"\x1b$B").is_some() || memmem::find(bytes, b"\x1b$@").is_some())
}

/// Whether `bytes` hold more valid letters of several bytes than broken ones.
fn is_mostly_utf8(bytes: &[u8]) -> bool {
    let (mut valid, mut broken) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().bytes().filter(|&byte| byte >= 0xc0).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    valid > broken
}

/// Returns the encoding that a page names itself: `<meta charset=…>`, `<meta content="…; charset=…">`, `<?xml encoding=…?>`.
pub(super) fn page_label(bytes: &[u8]) -> Option<&[u8]> {
    let head = &bytes[..bytes.len().min(LABEL_BYTES_MAX)];
    if let Some(declaration) = head.trim_ascii_start().strip_prefix(b"<?xml") {
        let end = memchr::memchr(b'>', declaration).unwrap_or(declaration.len());
        if let Some(label) = value_after(&declaration[..end], b"encoding") {
            return Some(label);
        }
    }
    let mut rest = head;
    while let Some(at) = memchr::memchr(b'<', rest) {
        rest = &rest[at + 1..];
        if rest.len() >= 5 && rest[..4].eq_ignore_ascii_case(b"meta") {
            let end = memchr::memchr(b'>', rest).unwrap_or(rest.len());
            if let Some(label) = value_after(&rest[..end], b"charset") {
                return Some(label);
            }
        }
    }
    None
}

/// Returns the `charset` parameter of a content type.
pub(super) fn parameter(content_type: &[u8]) -> Option<&[u8]> {
    value_after(content_type, b"charset")
}

/// Returns the value that stands after `name` and `=`, without quotes; `name` is lower case.
fn value_after<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))?;
    let rest = bytes[at + name.len()..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest);
    let end = rest
        .iter()
        .position(|b| matches!(b, b'"' | b'\'' | b';' | b' ' | b'>' | b'/' | b',' | b'?'))
        .unwrap_or(rest.len());
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::source::testing;

    #[test]
    fn decodes_every_page_of_the_hostile_set() {
        let Some(cases) = testing::hostile("charset/") else { return };
        let mut n_texts = 0;
        for case in &cases {
            let bytes = std::fs::read(&case.path).unwrap();
            let label = case.text("content_type");
            let label = label.as_deref().and_then(|label| super::parameter(label.as_bytes()));
            let (text, encoding) = decode(&bytes, label);
            if let Some(expected) = case.text("text") {
                assert!(text.contains(&expected), "{}: {encoding}: {text}", case.name);
                n_texts += 1;
            }
        }
        // Of one page no text is given, only that it is valid in the end.
        assert_eq!((cases.len(), n_texts), (28, 27));
        eprintln!("judged {} pages", cases.len());
    }

    #[test]
    fn takes_valid_utf8_over_a_wrong_label() {
        let (text, encoding) = decode("Müller".as_bytes(), Some(b"iso-8859-1"));
        assert_eq!((text.as_ref(), encoding), ("Müller", "UTF-8"));
    }

    #[test]
    fn reads_utf16_without_a_mark() {
        let bytes: Vec<u8> = "plain words".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decode(&bytes, None).0, "plain words");
    }
}
