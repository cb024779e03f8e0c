use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::testing::{self, Row};
use super::KIND;

fn read(path: &Path) -> Vec<Row> {
    testing::read(&*testing::build(&KIND, ""), &testing::file(path), None)
}

fn is_good(row: &&Row) -> bool {
    row.reject.is_none()
}

#[test]
fn keeps_every_good_record_of_the_hostile_files() {
    let Some(cases) = testing::hostile("warc/") else { return };
    let source = testing::build(&KIND, "");
    let mut judged = 0;
    for case in &cases {
        let rows = testing::conforms(&*source, &testing::file(&case.path), &[9000, 30000, 50000]);
        let good = rows.iter().filter(is_good).count() as u64;
        let reasons: Vec<&str> = rows.iter().filter_map(|row| row.reject.as_deref()).collect();
        eprintln!("{}: {good} good, rejects {reasons:?}", case.name);
        if let Some(expected) = case.count("good_records") {
            assert!(good >= expected, "{}: {good} of {expected}, {reasons:?}", case.name);
            let mut texts = 0;
            for row in rows.iter().filter(is_good) {
                texts += u64::from(row.text.contains("stays readable"));
            }
            assert!(texts >= expected.min(2), "{}: {texts} of the good texts", case.name);
            judged += 1;
        } else {
            assert_eq!(good, 0, "{}", case.name);
        }
    }
    eprintln!("judged {judged} of {} files", cases.len());
}

#[test]
fn reads_every_archive_that_others_wrote() {
    let (Some(a), Some(b)) = (testing::data("warc"), testing::data("conformance/warc")) else {
        return;
    };
    let source = testing::build(&KIND, "");
    let (mut n_files, mut n_good) = (0, 0);
    for folder in [a, b] {
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_archive =
                name.contains(".warc") || name.contains(".arc") || name.ends_with(".gz");
            if !entry.file_type().is_file() || !is_archive || name.contains("lz4") {
                continue;
            }
            let file = testing::file(entry.path());
            let rows = testing::conforms(&*source, &file, &[1, 20000, 33333, 60000]);
            n_files += 1;
            n_good += rows.iter().filter(is_good).count();
            let mut reasons = std::collections::BTreeMap::new();
            for row in &rows {
                *reasons.entry(row.reject.clone().unwrap_or("good".into())).or_insert(0) += 1;
            }
            eprintln!("{}: {reasons:?}", file.name);
        }
    }
    eprintln!("read {n_files} archives, {n_good} documents");
    assert!(n_files > 100);
}

/// Checks how many rows of each reason a file of the shared archives gives.
fn check(path: &str, expected: &[(&str, usize)]) {
    let Some(path) = testing::data(path) else { return };
    let rows = read(&path);
    for (reason, n) in expected {
        let found =
            rows.iter().filter(|r| r.reject.as_deref().unwrap_or("good") == *reason).count();
        assert_eq!(found, *n, "{}: {reason}", path.display());
    }
}

#[test]
fn finds_as_many_records_as_the_indexes_beside_the_archives() {
    // SOURCES.md: 48 responses of which some are no pages, 123 revisits.
    check("warc/pywb/warcs/iana.warc.gz", &[("revisit", 123)]);
    // Common Crawl's own page, as WARC and as extracted text.
    check("warc/commoncrawl/whirlwind.warc.gz", &[("good", 1)]);
    check("warc/commoncrawl/whirlwind.warc", &[("good", 1)]);
    check("warc/commoncrawl/whirlwind.warc.wet.gz", &[("good", 1)]);
    check("warc/commoncrawl/whirlwind.warc.wet", &[("good", 1)]);
    // One page stored with each content encoding.
    for encoding in ["brotli", "gzip", "none"] {
        for end in ["warc", "warc.gz"] {
            let path = format!("warc/ukwa/compression/transfer_compression_{encoding}.{end}");
            check(&path, &[("good", 1)]);
        }
    }
    check("warc/warcio/example.arc.gz", &[("good", 1)]);
    check("warc/warcio/example.arc", &[("good", 1)]);
}

#[test]
fn one_page_reads_the_same_whatever_encoding_it_is_stored_with() {
    let Some(folder) = testing::data("warc/ukwa/compression") else { return };
    let text = |encoding: &str| {
        let rows = read(&folder.join(format!("transfer_compression_{encoding}.warc.gz")));
        rows.into_iter().find(|row| row.reject.is_none()).unwrap().text
    };
    let plain = text("none");
    assert!(plain.contains("<html"), "{plain:.200}");
    assert_eq!(text("gzip"), plain);
    assert_eq!(text("brotli"), plain);
}

#[test]
fn fills_the_columns_from_both_headers() {
    let record = "WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/x\r\n\
        WARC-Date: 2024-05-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:1>\r\n\
        Content-Type: application/http; msgtype=response\r\nContent-Length: 107\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=ISO-8859-1\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nM\u{fc}ll";
    let mut bytes: Vec<u8> = record.chars().map(|c| c as u8).collect();
    bytes.extend_from_slice(b"e\r\n0\r\n\r\n\r\n\r\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.warc");
    fs::write(&path, &bytes).unwrap();
    let header = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let length = bytes.len() - 4 - header;
    let bytes = String::from_utf8_lossy(&bytes).contains("Content-Length: 107");
    assert!(bytes && length == 107, "the record has {length} bytes");
    let row = &read(&path)[0];
    assert_eq!((row.text.as_str(), row.reject.as_deref()), ("Mülle", None));
    assert_eq!(row.url.as_deref(), Some("http://a.example/x"));
    assert_eq!((row.date, row.bytes_raw), (Some(1_714_521_600), 5));
    assert_eq!(row.locator, "a.warc#0");
    for (key, value) in [
        ("content_type", "text/html"),
        ("charset", "windows-1252"),
        ("http_status", "200"),
        ("warc_record_id", "urn:uuid:1"),
    ] {
        assert_eq!(row.value(key), Some(value), "{key}");
    }
}

fn record(url: usize, body: &str) -> String {
    let http = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}");
    format!(
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x/{url}\r\n\
         WARC-Date: 2024-05-01T00:00:00Z\r\nContent-Type: application/http\r\n\
         Content-Length: {}\r\n\r\n{http}\r\n\r\n",
        http.len()
    )
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn reads_members_that_were_cut_without_regard_to_records() {
    let records: String = (0..40).map(|i| record(i, &format!("page {i} ").repeat(50))).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.warc.gz");
    let members: Vec<Vec<u8>> = records.as_bytes().chunks(777).map(|part| gzip(part, 6)).collect();
    fs::write(&path, members.concat()).unwrap();
    let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &[30000]);
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|row| row.reject.is_none()));
}

#[test]
fn a_page_about_archives_is_one_record() {
    let inner = record(7, "inner");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.warc");
    let records: String = (0..9).map(|i| record(i, &inner.repeat(3))).collect();
    fs::write(&path, records).unwrap();
    let cuts: Vec<u16> = (0..40).map(|i| i * 1600).collect();
    let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
    assert_eq!(rows.len(), 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ranges_of_any_size_tile_a_file(
        bodies in proptest::collection::vec("[a-z\\r\\n ]{0,300}", 1..30),
        cuts in proptest::collection::vec(any::<u16>(), 0..8),
        form in 0..4,
        damage in proptest::option::of((any::<u16>(), any::<u8>())),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if form == 0 { "a.warc" } else { "a.warc.gz" });
        let records: Vec<String> = bodies.iter().enumerate().map(|(i, b)| record(i, b)).collect();
        let mut bytes = match form {
            0 => records.concat().into_bytes(),
            1 => gzip(records.concat().as_bytes(), 6),
            // Stored and compressed members.
            2 => records.iter().map(|record| gzip(record.as_bytes(), 6)).collect::<Vec<_>>().concat(),
            _ => records.iter().map(|record| gzip(record.as_bytes(), 0)).collect::<Vec<_>>().concat(),
        };
        if let Some((at, mask)) = damage {
            let at = bytes.len() * usize::from(at) / 65536;
            bytes[at] ^= mask;
        }
        fs::write(&path, &bytes).unwrap();
        let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
        if damage.is_none_or(|(_, mask)| mask == 0) {
            prop_assert_eq!(rows.len(), bodies.len());
            let wanted = |(body, row): (&String, &Row)| {
                row.text == *body || (body.is_empty() && row.reject.as_deref() == Some("no_payload"))
            };
            prop_assert!(bodies.iter().zip(&rows).all(wanted));
        }
    }
}
