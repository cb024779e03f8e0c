//! A folder to mill in: inputs made of the demo's texts, job files, and the commands that run on them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use shard::store;
use tempfile::TempDir;

/// The datasets that a job without a model makes.
pub(crate) const DATASETS: [&str; 8] = [
    "documents",
    "dropped",
    "edits",
    "signatures",
    "duplicates",
    "repeats",
    "contamination",
    "tokens",
];

/// A job with every kind of stage over what [`Mill::fill`] writes.
pub(crate) const JOB: &str = r#"
name = "promises"
output = "corpus"
memory = "64MiB"
keep_text = true

[[source]]
kind = "warc"
path = "raw/*"

[[source]]
kind = "text"
path = "books"

[[source]]
kind = "code"
path = "code"

[[source]]
kind = "jsonl"
path = "*.jsonl"

[[step]]
use = "extract_html"
kinds = ["web"]

[[step]]
use = "language"
kinds = ["book"]
keep = ["en"]

[[step]]
use = "gopher_quality"
kinds = ["web", "book"]
keep_signals = true

[[step]]
where = "char_length(text) < 60000"

[[step]]
use = "mask_pii"

[dedup]
methods = ["url", "exact", "minhash"]

[shard]
tokenizer = "train:bpe:600"
split = { train = 0.9, validation = 0.1 }
"#;

/// A temporary folder that commands run in.
#[derive(Debug)]
pub(crate) struct Mill {
    folder: TempDir,
}

impl Mill {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A mill with every kind of input for [`JOB`].
    pub(crate) fn filled(salad_bytes: usize) -> Self {
        let mill = Self::new();
        let books = texts("books");
        for (name, text) in &books {
            mill.write(&format!("books/{name}"), text);
        }
        let copies = books.iter().step_by(5).enumerate();
        for (number, (name, text)) in copies {
            // Texts of their own and of one hash in turn.
            let header = if number % 2 == 0 { "From another edition.\n\n" } else { "" };
            mill.write(&format!("books/again/{name}"), format!("{header}{text}"));
        }
        for file in ["manifest.rs", "schema.rs", "store.rs", "writer.rs"] {
            let text = fs::read(root().join("shard/src").join(file)).unwrap();
            mill.write(&format!("code/{file}"), text);
        }
        let pages: Vec<(String, String)> = texts("site")
            .into_iter()
            .filter(|(name, _)| name.ends_with(".html"))
            .map(|(name, text)| (format!("http://site.test/{name}"), text))
            .collect();
        mill.warc("raw/first.warc.gz", &pages);
        let again: Vec<_> = pages.iter().step_by(9).cloned().collect();
        mill.warc("raw/second.warc.gz", &again);
        mill.warc("raw/third.warc", &pages);
        mill.write("salad.jsonl", salad(salad_bytes, 7));
        let extra = fs::read(root().join("examples/demo/extra.jsonl")).unwrap();
        mill.write("extra.jsonl", extra);
        mill.write("job.toml", JOB);
        mill
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes an archive of `pages` (address and HTML) and returns where each record begins.
    pub(crate) fn warc(&self, name: &str, pages: &[(String, String)]) -> Vec<u64> {
        let mut bytes = Vec::new();
        let mut offsets = Vec::new();
        for (number, (url, page)) in pages.iter().enumerate() {
            offsets.push(bytes.len() as u64);
            let record = record(number, url, page.as_bytes());
            match name.ends_with(".gz") {
                true => {
                    let mut member = GzEncoder::new(&mut bytes, Compression::fast());
                    member.write_all(&record).unwrap();
                    member.finish().unwrap();
                }
                false => bytes.extend(record),
            }
        }
        self.write(name, bytes);
        offsets
    }

    /// A command of `gristmill` in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("gristmill"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
        command.env(store::CACHE, self.path("cache"));
        command
    }

    /// Starts `gristmill`; what it prints goes to the file `log`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let log = fs::File::create(self.path("log")).unwrap();
        self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `gristmill`, which must succeed, and returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a job to its end and returns its summary.
    pub(crate) fn mill(&self, arguments: &[&str]) -> Value {
        let run = [&["run", "job.toml", "--json", "--quiet"], arguments].concat();
        serde_json::from_str(&self.ok(&run)).unwrap()
    }

    /// The rows of a query, as objects.
    pub(crate) fn sql(&self, corpus: &str, query: &str) -> Vec<Value> {
        let answer = self.ok(&["sql", "--corpus", corpus, "--format", "json", "-c", query]);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{query}: {error}: {answer}"))
    }

    /// The only value of a query of one row and one column.
    pub(crate) fn count(&self, corpus: &str, query: &str) -> u64 {
        let rows = self.sql(corpus, query);
        let row = rows[0].as_object().unwrap();
        assert_eq!((rows.len(), row.len()), (1, 1), "{query}");
        row.values().next().unwrap().as_u64().unwrap_or_else(|| panic!("{query}: {rows:?}"))
    }

    /// The hash of every file of the job's datasets, without what only running stages use.
    pub(crate) fn files(&self, corpus: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open: Vec<PathBuf> =
            DATASETS.iter().map(|dataset| self.path(corpus).join(dataset)).collect();
        while let Some(folder) = open.pop() {
            for name in store::list(&folder).unwrap() {
                let path = folder.join(&name);
                match path.is_dir() {
                    true if name == "staging" => {}
                    true => open.push(path),
                    false => {
                        let relative = path.strip_prefix(self.path(corpus)).unwrap();
                        let hash = store::hash_file(&path).unwrap();
                        found.insert(relative.to_str().unwrap().to_owned(), hash);
                    }
                }
            }
        }
        found
    }
}

/// Fails with the names of the files in which two corpora differ.
pub(crate) fn assert_same(
    found: &BTreeMap<String, String>,
    expected: &BTreeMap<String, String>,
    what: &str,
) {
    let names: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| found.get(*name) != expected.get(*name))
        .map(|name| match (found.get(name), expected.get(name)) {
            (Some(_), Some(_)) => format!("{name} differs"),
            (Some(_), None) => format!("{name} is too many"),
            _ => format!("{name} is missing"),
        })
        .collect();
    assert!(differing.is_empty(), "{what}:\n{}", differing.join("\n"));
}

/// A program of the workspace, beside the folder of this test binary.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join(name);
    assert!(path.is_file(), "no `{}`: run `cargo build --workspace` first", path.display());
    path
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files below a folder of the demo, by their names with `/`, sorted.
pub(crate) fn texts(folder: &str) -> Vec<(String, String)> {
    let folder = root().join("examples/demo").join(folder);
    let mut found = Vec::new();
    let mut open = vec![folder.clone()];
    while let Some(next) = open.pop() {
        for name in store::list(&next).unwrap() {
            let path = next.join(name);
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.push((name, text));
        }
    }
    found.sort();
    assert!(found.len() > 10, "the demo's texts are gone from {}", folder.display());
    found
}

/// About `bytes` of JSON lines: words of the demo's books at random, every 20th text a near copy and every 30th a copy.
pub(crate) fn salad(bytes: usize, seed: u64) -> Vec<u8> {
    let books = texts("books");
    let words: Vec<&str> = books
        .iter()
        .flat_map(|(_, text)| text.split_whitespace())
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b','))
        .collect();
    let mut random = Random::new(seed);
    let mut lines = Vec::with_capacity(bytes + 65_536);
    let mut texts: Vec<String> = Vec::new();
    let mut number = 0_usize;
    while lines.len() < bytes {
        let old = texts.get(number / 2 % texts.len().max(1)).cloned().unwrap_or_default();
        let text = match number {
            n if n % 30 == 29 => old,
            n if n % 20 == 19 => format!("{old} and so it ends"),
            _ => {
                let mut text = String::new();
                for position in 0..100 + random.below(900) {
                    let end = match position % 17 {
                        _ if position == 0 => "",
                        0 => ".\n",
                        _ => " ",
                    };
                    text.push_str(end);
                    text.push_str(words[random.below(words.len())]);
                }
                text
            }
        };
        lines.extend(b"{\"text\":");
        serde_json::to_writer(&mut lines, &text).unwrap();
        // Every 40th address stands twice.
        let page = if number % 40 == 39 { number - 1 } else { number };
        writeln!(lines, ",\"url\":\"http://salad.test/{page}\"}}").unwrap();
        if texts.len() < 500 {
            texts.push(text);
        }
        number += 1;
    }
    lines
}

fn record(number: usize, url: &str, page: &[u8]) -> Vec<u8> {
    let mut body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n".to_vec();
    body.extend(page);
    let mut record = format!(
        "WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n\
         WARC-Date: 2024-01-02T03:04:05Z\r\n\
         WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\n\
         Content-Type: application/http; msgtype=response\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    record.extend(body);
    record.extend(b"\r\n\r\n");
    record
}

/// SplitMix64: the same numbers on every machine.
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// The first record header of a compressed archive at `offset`.
pub(crate) fn header_at(path: &Path, offset: usize) -> String {
    let bytes = fs::read(path).unwrap();
    let mut record = String::new();
    let member = flate2::read::GzDecoder::new(&bytes[offset..]);
    // Headers of these archives are far below 4 KiB.
    let mut start = Vec::new();
    member.take(4096).read_to_end(&mut start).unwrap();
    record.push_str(&String::from_utf8_lossy(&start));
    record.split("\r\n\r\n").next().unwrap().to_owned()
}
