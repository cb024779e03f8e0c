//! JSON lines: an object per line, plain, gzip, Zstandard or bzip2.
//!
//! A line that is no JSON object is a reject, with lone surrogates and numbers beyond a double counted as no JSON. Of a key
//! that stands twice the last counts. NUL characters in a text are kept.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::batch::{self, BatchBuilder, Record, Rows};
use super::lines::LineRecords;
use super::{DocumentStream, Source, SourceFile, SourceKind, config, date};
use crate::Result;

pub(super) const KIND: SourceKind = SourceKind {
    name: "jsonl",
    summary: "JSON lines, plain, gzip, Zstandard or bzip2, a document per line",
    source: "RFC 8259; jsonlines.org",
    document_kind: "web",
    patterns: &[
        "*.jsonl",
        "*.jsonl.gz",
        "*.jsonl.zst",
        "*.jsonl.bz2",
        "*.ndjson",
        "*.ndjson.gz",
        "*.ndjson.zst",
        "*.json.gz",
        "*.json.zst",
    ],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Jsonl {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("jsonl", table)?,
        }))
    },
};

// `from_table` refuses unknown keys: serde cannot where fields are flattened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    /// The keys that fill the columns; every other key goes to `metadata`.
    #[serde(flatten)]
    columns: Columns,
    /// Bytes of a line, at most.
    line_bytes_max: usize,
}

/// Which field of a row fills which column of `documents`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Columns {
    pub(super) text: String,
    pub(super) url: String,
    pub(super) date: String,
    pub(super) language: String,
    pub(super) license: String,
}

impl Columns {
    pub(super) fn names(&self) -> [&String; 5] {
        [&self.text, &self.url, &self.date, &self.language, &self.license]
    }
}

impl Default for Columns {
    fn default() -> Self {
        let [text, url, date, language, license] =
            ["text", "url", "date", "language", "license"].map(str::to_owned);
        Self { text, url, date, language, license }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { columns: Columns::default(), line_bytes_max: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Jsonl {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Jsonl {
    fn is_splittable(&self, name: &str) -> bool {
        !name.ends_with(".gz") && !name.ends_with(".zst") && !name.ends_with(".bz2")
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let records = LineRecords::open(file, range, self.config.line_bytes_max)?;
        let reader = Reader { columns: self.config.columns.clone(), records };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }
}

struct Reader {
    columns: Columns,
    records: LineRecords,
}

impl Rows for Reader {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let columns = &self.columns;
        self.records.read(rows, |line, offset, record, rows| {
            columns.push(line, offset, record, rows);
        })
    }
}

impl Columns {
    /// Adds the document of a line of JSON.
    fn push(&self, mut line: &[u8], offset: u64, record: &Record<'_>, rows: &mut BatchBuilder) {
        if offset == 0 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return rows.reject(record, "bad_utf8");
        };
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let seed = DocumentSeed { columns: self };
        let parsed = seed.deserialize(&mut deserializer);
        let document = match parsed.and_then(|document| deserializer.end().map(|()| document)) {
            Ok(document) => document,
            Err(_) => return rows.reject(record, "bad_json"),
        };
        let metadata: Vec<(&str, &str)> =
            document.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let record = Record {
            url: document.url.as_deref(),
            date: document.date.as_deref().and_then(date::parse),
            language: document.language.as_deref(),
            license: document.license.as_deref(),
            metadata: &metadata,
            ..*record
        };
        match document.text {
            Some(text) if !text.is_empty() => rows.push(&record, &text),
            _ => rows.reject(&record, "no_text"),
        }
    }
}

/// An object of a line, sorted into columns.
#[derive(Debug, Default)]
struct Document<'a> {
    text: Option<Cow<'a, str>>,
    url: Option<String>,
    date: Option<String>,
    language: Option<String>,
    license: Option<String>,
    metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
struct DocumentSeed<'a> {
    columns: &'a Columns,
}

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = Document<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_> {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        let mut document = Document::default();
        while let Some(Text(key)) = map.next_key()? {
            let key = key.as_ref();
            if key == self.columns.text {
                document.text = map.next_value::<MaybeText<'de>>()?.0;
                continue;
            }
            let value: Value = map.next_value()?;
            let column = [
                (&self.columns.url, &mut document.url),
                (&self.columns.date, &mut document.date),
                (&self.columns.language, &mut document.language),
                (&self.columns.license, &mut document.license),
            ];
            match column.into_iter().find(|(name, _)| *name == key) {
                Some((_, column)) => *column = plain(value),
                None => describe(key, value, &mut document.metadata),
            }
        }
        Ok(document)
    }
}

/// Adds `value` under `key`; an object called `metadata` gives its own keys instead.
fn describe(key: &str, value: Value, metadata: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) if key == "metadata" => {
            for (key, value) in object {
                describe(&key, value, metadata);
            }
        }
        value => {
            if let Some(value) = plain(value) {
                metadata.retain(|(known, _)| known != key);
                metadata.push((key.to_owned(), value));
            }
        }
    }
}

/// Returns strings as they are and everything else as JSON; nothing for null.
fn plain(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// A string, borrowed from the line where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A string, or anything else as `None`.
struct MaybeText<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for MaybeText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = MaybeText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(MaybeText(None))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Self::Value, A::Error> {
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                use serde::de::IgnoredAny;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::testing;
    use super::KIND;

    #[test]
    fn keeps_the_good_lines_of_every_hostile_file() {
        let Some(cases) = testing::hostile("jsonl/") else { return };
        let source = testing::build(&KIND, "");
        let mut judged = 0;
        for case in &cases {
            let rows = testing::read(&*source, &testing::file(&case.path), None);
            // `good_docs` counts the lines around the bad one; where JSON allows the odd line it is a document too.
            let good = rows.iter().filter(|row| row.reject.is_none()).count() as u64;
            let reasons: Vec<_> = rows.iter().filter_map(|row| row.reject.clone()).collect();
            if let Some(expected) = case.count("good_docs").or(case.count("good_docs_min")) {
                assert!(good >= expected, "{}: {good} {reasons:?}", case.name);
                judged += 1;
            } else {
                assert_eq!(good, 0, "{}", case.name);
                assert!(!reasons.is_empty(), "{}", case.name);
            }
            eprintln!("{}: {good} good, {reasons:?}", case.name);
        }
        assert_eq!(cases.len(), 23);
        eprintln!("judged {judged} of {} files", cases.len());
    }

    /// Values of the suite stand where a document has metadata; its line feeds would end the line.
    #[test]
    fn takes_and_refuses_json_as_the_test_suite_says() {
        let Some(folder) = testing::data("conformance/json/test_parsing") else { return };
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.jsonl");
        let source = testing::build(&KIND, "");
        let mut judged = std::collections::BTreeMap::new();
        for entry in walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap();
            let mut value = fs::read(entry.path()).unwrap();
            if name.starts_with("y_") {
                value.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            }
            let line = [b"{\"text\": \"x\", \"value\": ", value.as_slice(), b"}"].concat();
            fs::write(&path, line).unwrap();
            let rows = testing::read(&*source, &testing::file(&path), None);
            let is_taken = rows.iter().any(|row| row.reject.is_none());
            match &name[..2] {
                "y_" => assert!(is_taken, "{name}: {rows:?}"),
                "n_" => assert!(!is_taken && !rows.is_empty(), "{name}: {rows:?}"),
                _ => {}
            }
            *judged.entry(name[..1].to_owned()).or_insert(0) += 1;
        }
        let expected = [("i", 35), ("n", 188), ("y", 95)];
        assert!(judged.iter().map(|(kind, n)| (kind.as_str(), *n)).eq(expected), "{judged:?}");
        eprintln!("judged {judged:?} files");
    }

    #[test]
    fn gives_naughty_strings_back_byte_for_byte() {
        let Some(folder) = testing::data("conformance/strings") else { return };
        let strings: Vec<String> =
            serde_json::from_slice(&fs::read(folder.join("blns.json")).unwrap()).unwrap();
        assert_eq!(strings.len(), 515);
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.jsonl");
        let lines: Vec<String> =
            strings.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let rows = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None);
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(texts, strings);
        let empty = rows.iter().filter(|row| row.reject.as_deref() == Some("no_text")).count();
        assert_eq!(empty, strings.iter().filter(|text| text.is_empty()).count());
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        // The default limit is 64 MiB.
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(64 << 20));
        let bytes = ["{\"text\": \"before\"}", &long, "{\"text\": \"after\"}"].join("\n");
        fs::write(&path, &bytes).unwrap();
        let rows = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None);
        let found: Vec<_> =
            rows.iter().map(|row| (row.text.as_str(), row.reject.as_deref())).collect();
        let expected = [("before", None), ("", Some("line_too_long")), ("after", None)];
        assert_eq!(found, expected);
        assert_eq!(rows[1].bytes_raw, long.len() as u64 + 1);
    }

    #[test]
    fn sorts_keys_into_columns_and_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let line = r#"{"id": 7, "content": "a\nb", "link": "http://x/", "date": "2024-05-01", "tags": ["a"], "metadata": {"k": "v"}, "none": null}"#;
        fs::write(&path, format!("\n{line}\n")).unwrap();
        let source = testing::build(&KIND, "text = \"content\"\nurl = \"link\"");
        let rows = testing::read(&*source, &testing::file(&path), None);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.text.as_str(), row.url.as_deref()), ("a\nb", Some("http://x/")));
        assert_eq!((row.date, row.locator.as_str()), (Some(1_714_521_600), "a.jsonl#1"));
        let metadata: Vec<_> = row.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(metadata, [("id", "7"), ("tags", "[\"a\"]"), ("k", "v")]);
    }

    #[test]
    fn reads_every_member_of_gzip_and_frame_of_zstandard() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..3000).map(|i| format!("{{\"text\": \"n{i}\"}}\n")).collect();
        let (gz, zst) = (folder.path().join("a.jsonl.gz"), folder.path().join("a.jsonl.zst"));
        let (mut gz_bytes, mut zst_bytes) = (Vec::new(), Vec::new());
        for part in lines.chunks(1000) {
            let part = part.concat();
            let mut encoder =
                flate2::write::GzEncoder::new(&mut gz_bytes, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap();
            zst_bytes.extend(zstd::encode_all(part.as_bytes(), 1).unwrap());
        }
        let source = testing::build(&KIND, "");
        for (path, bytes, reason) in [(gz, gz_bytes, "bad_gzip"), (zst, zst_bytes, "bad_zstd")] {
            fs::write(&path, &bytes).unwrap();
            let rows = testing::conforms(&*source, &testing::file(&path), &[1000, 40000]);
            assert_eq!(rows.len(), 3000);
            assert_eq!(rows[2999].text, "n2999");
            fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
            let rows = testing::read(&*source, &testing::file(&path), None);
            assert_eq!(rows.last().unwrap().reject.as_deref(), Some(reason));
            assert!(rows.len() > 1000, "{}", rows.len());
        }
    }

    proptest! {
        #[test]
        fn ranges_of_any_size_tile_a_file(
            lines in proptest::collection::vec("[a-z]{0,40}", 0..50),
            cuts in proptest::collection::vec(any::<u16>(), 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.jsonl");
            let text: Vec<String> =
                lines.iter().map(|line| format!("{{\"text\": \"{line}\"}}\r\n")).collect();
            fs::write(&path, text.concat()).unwrap();
            let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
            prop_assert_eq!(rows.len(), lines.len());
        }
    }
}
