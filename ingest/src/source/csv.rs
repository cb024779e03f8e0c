//! Tables as text: comma-separated values, plain, gzip or Zstandard, a document per row.
//!
//! A row may hold line feeds inside quotes, so a file is read from its start. A row with more or fewer fields than the
//! header is a reject: its quotes or delimiters are broken, and no field is where it should be.

use std::fs::File;
use std::io::BufRead;
use std::ops::Range;

use csv::{ByteRecord, ReaderBuilder};
use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::compressed::{self, LIMIT, Limited};
use super::jsonl::Columns;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config, date, raw};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "csv",
    summary: "comma- or tab-separated values with a column of text, plain, gzip or Zstandard, a document per row",
    source: "RFC 4180, with the leniency of the `csv` crate",
    document_kind: "web",
    patterns: &["*.csv", "*.csv.gz", "*.csv.zst", "*.tsv", "*.tsv.gz", "*.tsv.zst"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        let config: Config = config::from_table("csv", table)?;
        let one = |key: &str, value: &str| match value.as_bytes() {
            &[byte] if byte != b'\n' && byte != b'\r' => Ok(byte),
            _ => Err(config::invalid(
                "csv",
                format!("`{key}` is `{value}`, it has to be one ASCII character"),
            )),
        };
        let delimiter = match config.delimiter.as_str() {
            "" => None,
            delimiter => Some(one("delimiter", delimiter)?),
        };
        let encoding = Encoding::for_label(config.charset.as_bytes()).ok_or_else(|| {
            config::invalid("csv", format!("no charset is called `{}`", config.charset))
        })?;
        let quote = one("quote", &config.quote)?;
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Ok(Box::new(Csv { name, kind, config, delimiter, quote, encoding }))
    },
};

// `from_table` refuses unknown keys: serde cannot where fields are flattened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    /// The columns that fill ours, by their names in the header; without one by their numbers, from `1`. All others go
    /// to `metadata`.
    #[serde(flatten)]
    columns: Columns,
    /// One character; empty takes a tab for `*.tsv` and a comma else.
    delimiter: String,
    /// One character.
    quote: String,
    /// Whether the first row names the columns.
    has_header: bool,
    /// WHATWG label of the fields' encoding.
    charset: String,
    /// Bytes of a row, at most.
    row_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            columns: Columns::default(),
            delimiter: String::new(),
            quote: "\"".to_owned(),
            has_header: true,
            charset: "utf-8".to_owned(),
            row_bytes_max: 64 << 20,
        }
    }
}

#[derive(Clone, Debug)]
struct Csv {
    name: String,
    kind: String,
    config: Config,
    delimiter: Option<u8>,
    quote: u8,
    encoding: &'static Encoding,
}

impl Source for Csv {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let opened = compressed::open(handle).map_err(Error::io("read", &file.path))?;
        let is_mine = super::has_first_byte(range.as_ref());
        let is_tsv = file.name.split('.').any(|part| part == "tsv");
        let delimiter = self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' });
        let limited = Limited { input: opened.input, left: self.row_bytes_max() };
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .quote(self.quote)
            .has_headers(false)
            .flexible(true)
            .from_reader(limited);
        let mut table = Table {
            file: file.clone(),
            csv: self.clone(),
            reader: is_mine.then_some(reader),
            damage: opened.damage,
            refused: None,
            names: Vec::new(),
            record: ByteRecord::new(),
        };
        if self.config.has_header && is_mine {
            table.read_header()?;
        }
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), table))
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        let found = raw::inflated(file, place, bytes)?;
        // The reader counts the line feed of a line end, and empty lines, to the row after it.
        Ok(found.map(|found| match found {
            Raw::Bytes(bytes) => {
                let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
                let start = bytes.iter().take_while(|byte| is_end(byte)).count();
                let end = bytes.iter().rposition(|byte| !is_end(byte)).map_or(start, |at| at + 1);
                Raw::Bytes(bytes[start..end].to_vec())
            }
            row @ Raw::Row(_) => row,
        }))
    }
}

impl Csv {
    /// Bytes that are read of a row: a byte less, so that the reader does not double a buffer that is just full.
    fn row_bytes_max(&self) -> u64 {
        self.config.row_bytes_max.saturating_sub(1)
    }
}

struct Table {
    file: SourceFile,
    csv: Csv,
    /// `None` when there are no more rows.
    reader: Option<csv::Reader<Limited<Box<dyn BufRead + Send>>>>,
    damage: Option<&'static str>,
    /// What is wrong with the row that names the columns.
    refused: Option<csv::Error>,
    /// The columns' names; numbers where there is no header.
    names: Vec<String>,
    record: ByteRecord,
}

impl Table {
    fn read_header(&mut self) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        match reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                self.refused = Some(error);
                return Ok(());
            }
        }
        let encoding = self.csv.encoding;
        let name = |field| encoding.decode_without_bom_handling(field).0.trim().to_owned();
        self.names = self.record.iter().map(name).collect();
        if let Some(first) = self.names.first_mut()
            && let Some(rest) = first.strip_prefix('\u{feff}')
        {
            *first = rest.trim_matches('"').to_owned();
        }
        let text = &self.csv.config.columns.text;
        if self.names.contains(text) {
            return Ok(());
        }
        let names: Vec<String> =
            self.names.iter().take(20).map(|name| name.chars().take(40).collect()).collect();
        Err(Error::Format {
            path: self.file.path.clone(),
            why: format!("it has no column `{text}`"),
            hint: format!(
                "set `text` to one of its columns: `{}`, or `has_header = false`",
                names.join("`, `")
            ),
        })
    }
}

impl Rows for Table {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        reader.get_mut().left = self.csv.row_bytes_max();
        let (start, read) = match self.refused.take() {
            Some(error) => (0, Err(error)),
            None => {
                let start = reader.position().byte();
                (start, reader.read_byte_record(&mut self.record))
            }
        };
        let bytes_raw = reader.position().byte() - start;
        let locator = format!("{}#{start}", self.file.name);
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        match read {
            Ok(true) => self.push(&record, rows),
            Ok(false) => {
                self.reader = None;
                return Ok(false);
            }
            Err(error) => {
                self.reader = None;
                let reason = match (error.into_kind(), self.damage) {
                    (csv::ErrorKind::Io(error), _) if error.kind() == LIMIT => "row_too_long",
                    (csv::ErrorKind::Io(_), Some(damage)) => damage,
                    (csv::ErrorKind::Io(error), None) => {
                        return Err(Error::io("read", &self.file.path)(error));
                    }
                    _ => "bad_csv",
                };
                rows.reject(&record, reason);
            }
        }
        Ok(true)
    }
}

impl Table {
    fn push(&mut self, record: &Record<'_>, rows: &mut BatchBuilder) {
        if self.names.is_empty() {
            self.names = (1..=self.record.len()).map(|number| number.to_string()).collect();
        }
        if self.record.len() != self.names.len() {
            return rows.reject(record, "wrong_field_count");
        }
        let mut fields = Vec::with_capacity(self.names.len());
        for field in &self.record {
            match self.csv.encoding.decode_without_bom_handling_and_without_replacement(field) {
                Some(field) => fields.push(field),
                None => return rows.reject(record, "bad_charset"),
            }
        }
        let columns = &self.csv.config.columns;
        let field = |name: &str| {
            let at = self.names.iter().position(|known| known == name)?;
            Some(fields[at].as_ref()).filter(|field| !field.is_empty())
        };
        let known = columns.names();
        let metadata: Vec<(&str, &str)> = self
            .names
            .iter()
            .zip(&fields)
            .filter(|(name, field)| !known.contains(name) && !field.is_empty())
            .map(|(name, field)| (name.as_str(), field.as_ref()))
            .collect();
        let record = Record {
            url: field(&columns.url),
            date: field(&columns.date).and_then(date::parse),
            language: field(&columns.language),
            license: field(&columns.license),
            metadata: &metadata,
            ..*record
        };
        match field(&columns.text) {
            Some(text) => rows.push(&record, text),
            None => rows.reject(&record, "no_text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn table(name: &str, bytes: &[u8], config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[999, 30000])
    }

    #[test]
    fn reads_quoted_fields_and_maps_columns() {
        let text = "\u{feff}id,body,date\r\n1,\"a \"\"b\"\", c\nd\",2024-05-01\r\n2,,\r\n3,x\r\n";
        let rows = table("a.csv", text.as_bytes(), "text = \"body\"");
        assert_eq!(rows.len(), 3);
        // The line feed of the header's end: a row is over at its carriage return.
        assert_eq!((rows[0].text.as_str(), rows[0].date), ("a \"b\", c\nd", Some(1_714_521_600)));
        assert_eq!((rows[0].value("id"), rows[0].locator.as_str()), (Some("1"), "a.csv#16"));
        assert_eq!(rows[1].reject.as_deref(), Some("no_text"));
        assert_eq!(rows[2].reject.as_deref(), Some("wrong_field_count"));
    }

    #[test]
    fn leads_back_to_the_bytes_of_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "id,text\r\n1,\"a\r\nb\"\r\n\r\n2,c").unwrap();
        let (source, file) = (testing::build(&KIND, ""), testing::file(&path));
        let rows = testing::read(&*source, &file, None);
        let raw = |row: &Row| testing::raw(&*source, &file, row).unwrap();
        assert_eq!(raw(&rows[0]), b"1,\"a\r\nb\"");
        assert_eq!(raw(&rows[1]), b"2,c");
    }

    #[test]
    fn reads_tables_without_header_in_any_encoding() {
        let config = "text = \"2\"\nhas_header = false\ncharset = \"latin1\"";
        let rows = table("a.tsv", b"x\tcaf\xe9\ny\t'z'\n", config);
        assert_eq!((rows[0].text.as_str(), rows[0].value("1")), ("caf\u{e9}", Some("x")));
        assert_eq!(rows[1].text, "'z'");
        let rows = table("a.csv", b"text\ncaf\xe9\nz\n", "");
        assert_eq!(rows[0].reject.as_deref(), Some("bad_charset"));
        assert_eq!(rows[1].text, "z");
    }

    #[test]
    fn names_the_columns_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = testing::build(&KIND, "").open(&testing::file(&path), None).err().unwrap();
        assert!(error.to_string().contains("`a`, `b`"), "{error}");
        for config in ["delimiter = \"ab\"", "quote = \"\"", "charset = \"x\""] {
            let built = (KIND.build)("test", "web", &config.parse().unwrap());
            assert!(built.is_err(), "{config}");
        }
    }

    #[test]
    fn a_table_damaged_in_its_header_is_one_reject() {
        let bytes = testing::gzip(b"text,id\nx,1\n");
        let rows = table("a.csv.gz", &bytes[..14], "");
        assert_eq!((rows.len(), rows[0].reject.as_deref()), (1, Some("bad_gzip")));
        let rows = table("a.csv", &[b'x'; 100], "row_bytes_max = 50");
        assert_eq!((rows.len(), rows[0].reject.as_deref()), (1, Some("row_too_long")));
    }

    #[test]
    fn a_quote_that_never_closes_is_one_reject() {
        let text = format!("text\nx\n\"{}", "y\n".repeat(100_000));
        let rows = table("a.csv", text.as_bytes(), "row_bytes_max = 50000");
        assert_eq!((rows.len(), rows[0].text.as_str()), (2, "x"));
        assert_eq!(rows[1].reject.as_deref(), Some("row_too_long"));
    }

    #[test]
    fn reads_the_tables_of_the_conformance_set() {
        let Some(folder) = testing::data("conformance/csv") else { return };
        let source = testing::build(&KIND, "text = \"c1\"");
        // Its README says 100 rows; the second column of the first row is 2.
        for name in ["aggregate_test_100.csv", "aggregate_test_100.csv.gz"] {
            let rows = testing::read(&*source, &testing::file(&folder.join(name)), None);
            assert_eq!(rows.len(), 100, "{name}");
            assert_eq!((rows[0].text.as_str(), rows[0].value("c2")), ("c", Some("2")));
        }
        let source = testing::build(&KIND, "text = \"1\"\nhas_header = false");
        let (mut n_files, mut n_rows, mut n_rejects) = (0, 0, 0);
        for entry in fs::read_dir(folder.join("fuzzing")).unwrap() {
            let path = entry.unwrap().path();
            let rows = testing::read(&*source, &testing::file(&path), None);
            n_files += 1;
            n_rows += rows.len();
            n_rejects += rows.iter().filter(|row| row.reject.is_some()).count();
        }
        assert!(n_files >= 7, "{n_files}");
        eprintln!("read {n_files} fuzzed files, {n_rows} rows, {n_rejects} rejects");
    }

    #[test]
    fn gives_naughty_strings_back_byte_for_byte() {
        let Some(folder) = testing::data("conformance/strings") else { return };
        let strings: Vec<String> =
            serde_json::from_slice(&fs::read(folder.join("blns.json")).unwrap()).unwrap();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "number"]).unwrap();
        for (number, text) in strings.iter().enumerate() {
            writer.write_record([text, &number.to_string()]).unwrap();
        }
        let rows = table("a.csv", &writer.into_inner().unwrap(), "");
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(texts, strings);
    }

    proptest! {
        #[test]
        fn gives_back_what_was_written(
            fields in proptest::collection::vec(("[ -~\n\r\u{e9}]{1,20}", "[ -~\n]{0,10}"), 1..20),
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["text", "other"]).unwrap();
            for (text, other) in &fields {
                writer.write_record([text, other]).unwrap();
            }
            let rows = table("a.csv", &writer.into_inner().unwrap(), "");
            prop_assert_eq!(rows.len(), fields.len());
            for (row, (text, other)) in rows.iter().zip(&fields) {
                prop_assert_eq!(&row.text, text);
                prop_assert_eq!(row.value("other").unwrap_or_default(), other);
            }
        }
    }
}
