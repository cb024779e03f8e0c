use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
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
    assert_eq!(cases.len(), 60);
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
            let is_archive = [".warc", ".arc", ".wacz"].iter().any(|it| name.contains(it));
            if !entry.file_type().is_file() || !is_archive || name.ends_with(".paths.gz") {
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

/// Reasons of rows that no whole record stands behind.
const DAMAGE: [&str; 5] =
    ["bad_gzip", "bad_length", "garbage", "header_too_large", "truncated_record"];

#[test]
fn finds_the_records_that_warcio_finds() {
    // Made by `scripts/count-warcio.py`.
    let counts = include_str!("warcio.tsv");
    let (mut judged, mut equal, mut wrong) = (0, 0, Vec::new());
    for line in counts.lines() {
        let [path, n, error] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let Some(file) = testing::data(path) else { return };
        // An empty line is a record to warcio.
        if path.ends_with("invalid-warcheaderversion-20.warc") {
            continue;
        }
        let n: usize = n.parse().unwrap();
        let rows = read(&file);
        let reasons: Vec<&str> = rows.iter().filter_map(|row| row.reject.as_deref()).collect();
        let damage = reasons.iter().filter(|reason| DAMAGE.contains(reason)).count();
        // WAT, which is a record that is no page to the script.
        let metadata = reasons.iter().filter(|reason| **reason == "metadata").count();
        let whole = rows.len() - damage - metadata;
        judged += 1;
        equal += usize::from(whole == n);
        // What warcio gives in spite of a wrong or missing length is a row that says so, and warcio stops at damage.
        let is_right =
            if damage == 0 && error.is_empty() { whole == n } else { whole + damage >= n };
        if !is_right {
            wrong
                .push(format!("{path}: {whole} whole records, {n} of warcio {error}, {reasons:?}"));
        }
    }
    eprintln!("judged {judged} files, {equal} with as many whole records");
    assert!(judged > 150 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn joins_folded_lines_of_a_header() {
    // JHOVE's set calls these valid: every value begins on the line after its name.
    check(
        "warc/jhove-conformance/valid/valid-warcfile-fields-continuation.warc",
        &[("continuation", 1)],
    );
    check("warc/jhove-conformance/valid/valid-warcfile-utf8.warc", &[("bad_length", 0)]);
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

/// A dictionary made of such pages.
fn dictionary() -> Vec<u8> {
    let samples: Vec<Vec<u8>> =
        (0..200).map(|i| record(i, &format!("page {i} ").repeat(i % 50)).into_bytes()).collect();
    zstd::dict::from_samples(&samples, 4096).unwrap()
}

fn zstd_frame(bytes: &[u8], dictionary: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::with_dictionary(Vec::new(), 3, dictionary).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&magic.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}

fn lz4_frame(bytes: &[u8], is_linked: bool) -> Vec<u8> {
    let mode = if is_linked { BlockMode::Linked } else { BlockMode::Independent };
    let info = FrameInfo::new()
        .block_mode(mode)
        .block_size(BlockSize::Max64KB)
        .block_checksums(is_linked)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn reads_zstd_frames_with_and_without_a_dictionary() {
    // IIPC, Zstandard-compressed WARC Files: the dictionary is the first, skippable frame, itself compressed or not.
    let dictionary = dictionary();
    let records: Vec<String> =
        (0..60).map(|i| record(i, &format!("page {i} ").repeat(50))).collect();
    let frames = |dictionary: &[u8]| -> Vec<u8> {
        records.iter().flat_map(|record| zstd_frame(record.as_bytes(), dictionary)).collect()
    };
    let compressed = zstd::encode_all(&dictionary[..], 3).unwrap();
    for bytes in [
        frames(&[]),
        [skippable(0x184d_2a5d, &dictionary), frames(&dictionary)].concat(),
        [skippable(0x184d_2a5d, &compressed), frames(&dictionary), skippable(0x184d_2a50, b"x")]
            .concat(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.warc.zst");
        fs::write(&path, bytes).unwrap();
        let cuts = [1, 500, 9000, 30000, 60000];
        let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
        assert_eq!(rows.len(), 60);
        assert!(
            rows.iter().enumerate().all(|(i, row)| row.text.starts_with(&format!("page {i} ")))
        );
    }
}

#[test]
fn refuses_a_dictionary_that_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.warc.zst");
    fs::write(&path, &skippable(0x184d_2a5d, &dictionary())[..2000]).unwrap();
    let source = testing::build(&KIND, "");
    let error = source.open(&testing::file(&path), None).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("dictionary is cut short"), "{error}");
}

#[test]
fn reads_lz4_frames_of_many_blocks() {
    let words = |i: usize| {
        let mut state = i as u64;
        let mut text = String::new();
        while text.len() < 200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("word{} ", (state >> 40) % 3000));
        }
        text
    };
    let records: Vec<String> = (0..6).map(|i| record(i, &words(i))).collect();
    let frames: Vec<u8> = records
        .iter()
        .enumerate()
        .flat_map(|(i, record)| lz4_frame(record.as_bytes(), i % 2 == 0))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.warc.lz4");
    fs::write(&path, frames).unwrap();
    let cuts = [1, 9000, 30000, 60000];
    let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().enumerate().all(|(i, row)| row.text == words(i)));
}

#[test]
fn one_archive_reads_the_same_as_gzip_and_as_lz4() {
    for (gzip, lz4) in [
        ("warcfile.warc.gz", "warcfile.warc.lz4"),
        ("block-sized-records.warc.gz", "block-sized-records.warc.lz4"),
    ] {
        let Some(folder) = testing::data("warc/resiliparse") else { return };
        let texts = |name: &str| {
            let rows = read(&folder.join(name)).into_iter();
            rows.map(|row| (row.reject, row.url, row.text)).collect::<Vec<_>>()
        };
        let found = texts(gzip);
        assert!(!found.is_empty());
        assert_eq!(texts(lz4), found, "{gzip}");
    }
}

#[test]
fn reads_the_archives_of_a_package_in_place() {
    let Some(path) = testing::data("warc/pywb/waczs/valid_example_1.wacz") else { return };
    let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &[20000]);
    // The package's own index, `indexes/index.cdx.gz`, has one response, 845 bytes into the archive, which begins behind
    // a local header of 30 bytes and a name at byte 402.
    assert_eq!(rows.iter().filter(is_good).count(), 1);
    let start = 402 + 30 + "archive/example-collection.warc".len();
    assert_eq!(rows[0].locator, format!("valid_example_1.wacz#{}", start + 845));
}

#[test]
fn reads_every_stored_archive_of_a_package_and_counts_the_others() {
    let mut package = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let members = |from: usize| -> Vec<u8> {
        (from..from + 5).flat_map(|i| gzip(record(i, "a page").as_bytes(), 6)).collect()
    };
    for (name, bytes) in [
        ("archive/a.warc.gz", members(0)),
        ("archive/b.warc", record(5, "a page").into_bytes()),
        ("archive/c.warc.gz", members(6)),
        ("pages/pages.jsonl", b"{}".to_vec()),
        ("archive/d.warc.gz", members(11)),
    ] {
        package.start_file(name, options).unwrap();
        package.write_all(&bytes).unwrap();
    }
    let mut bytes = package.finish().unwrap().into_inner();
    // The third archive becomes one that says it is deflated: the method is at byte 8 of a local header and at byte 10 of
    // an entry of the directory (APPNOTE 6.3.10, 4.3.7 and 4.3.12).
    let at =
        |needle: &[u8], from: usize| from + memchr::memmem::find(&bytes[from..], needle).unwrap();
    let local = at(b"archive/c", 0) - 30;
    let central = at(b"archive/c", local + 40) - 46;
    bytes[local + 8] = 8;
    bytes[central + 10] = 8;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wacz");
    fs::write(&path, bytes).unwrap();
    let cuts = [1, 9000, 20000, 30000, 40000, 50000, 60000];
    let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
    assert_eq!(rows.iter().filter(is_good).count(), 11);
    let rejects: Vec<_> = rows.iter().filter_map(|row| row.reject.as_deref()).collect();
    assert_eq!(rejects, ["compressed_entry"]);
}

#[test]
fn a_package_without_archives_is_a_reject() {
    let Some(path) = testing::data("warc/pywb/waczs/invalid_example_1.wacz") else { return };
    let rows = read(&path);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].reject.as_deref(), Some("no_archive"));
}

#[test]
fn metadata_is_a_document_only_when_asked_for() {
    let Some(path) = testing::data("warc/commoncrawl/whirlwind.warc.wat.gz") else { return };
    let reasons: Vec<_> = read(&path).into_iter().map(|row| row.reject).collect();
    assert_eq!(reasons, [Some("metadata".to_owned())]);
    let source = testing::build(&KIND, "records = ['metadata']");
    let rows = testing::conforms(&*source, &testing::file(&path), &[30000]);
    assert_eq!(rows.len(), 1);
    let value: serde_json::Value = serde_json::from_str(&rows[0].text).unwrap();
    assert_eq!(value["Envelope"]["Format"], "WARC/1.0");
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
        form in 0..6,
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
            3 => records.iter().map(|record| gzip(record.as_bytes(), 0)).collect::<Vec<_>>().concat(),
            4 => records.iter().flat_map(|record| zstd_frame(record.as_bytes(), &[])).collect(),
            _ => records.iter().flat_map(|record| lz4_frame(record.as_bytes(), true)).collect(),
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
