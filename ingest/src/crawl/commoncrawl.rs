//! Records of Common Crawl by their places: [`fetch_records`] reads an index, asks for the byte ranges that it names, and writes
//! what comes back, unchanged, into segments that the `warc` source reads.
//!
//! An index is a file of CDXJ lines, of JSON lines, or Parquet with the columns of the columnar index. A query over
//! an index is another index: `select` the columns `warc_filename`, `warc_record_offset` and `warc_record_length`.
//!
//! Beside each segment lies its index, which leads from a record in it to the place that it came from. A killed run goes on
//! behind the last batch that was written down; a record that cannot be had is a line of `commoncrawl-failed.jsonl`.

mod entries;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shard::store;
use url::Url;

use super::environment::Names;
use super::{CancelFlag, CrawlConfig, address, fetch};
use crate::{Error, Result};

use entries::{Entries, Entry};

/// Records between two notes of how far a run is.
const BATCH: usize = 64;
/// First bytes of a gzip member: each record of Common Crawl is one.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Which records to fetch, from where, and how gently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommonCrawlConfig {
    /// Name of the crawl (`CC-MAIN-2024-22`): lines of an index that name another are passed over. Empty: all.
    pub crawl: String,
    /// Files of the index: `.cdxj`, `.cdx`, `.jsonl`, each also as `.gz`, or `.parquet`.
    pub index: Vec<PathBuf>,
    /// What stands before the names of archives: a URL, or a folder with a copy.
    pub base: String,
    /// Folder of the segments and the state.
    pub output: PathBuf,
    /// Hosts whose pages are fetched, each with its subdomains. Empty: all.
    pub hosts: Vec<String>,
    /// Media types that are fetched, as the index has them. Empty: all.
    pub mimes: Vec<String>,
    /// Languages that are fetched, as the index has them (`eng`): the first of a page counts. Empty: all.
    pub languages: Vec<String>,
    /// HTTP status of the pages that are fetched. Empty: all.
    pub statuses: Vec<u16>,
    /// Records fetched, at most.
    pub max_records: u64,
    /// Open requests, at most.
    pub concurrency: usize,
    /// Bytes of a record as it is stored, at most.
    pub max_record_bytes: u64,
    /// Bytes of a segment after which the next one is begun.
    pub segment_bytes: u64,
    /// Tries of a range whose server does not answer, or says 403, 429 or 5xx: Common Crawl says `Slow Down` in all these ways.
    pub max_tries: u32,
    /// Seconds waited before a further try, at most; from one second they double.
    pub max_retry_seconds: f64,
    /// Seconds to connect and until the next bytes arrive, at most.
    pub idle_timeout_seconds: f64,
    /// Name in the `User-Agent` header.
    pub user_agent: String,
    /// Whether the base may have an address that is not public.
    pub allow_private: bool,
}

impl Default for CommonCrawlConfig {
    fn default() -> Self {
        let crawl = CrawlConfig::default();
        Self {
            crawl: String::new(),
            index: Vec::new(),
            base: "https://data.commoncrawl.org/".to_owned(),
            output: crawl.output,
            hosts: Vec::new(),
            mimes: ["text/html", "application/xhtml+xml", "text/plain"].map(str::to_owned).to_vec(),
            languages: Vec::new(),
            statuses: vec![200],
            max_records: u64::MAX,
            // Common Crawl asks for few requests at a time.
            concurrency: 4,
            max_record_bytes: 64 << 20,
            segment_bytes: crawl.segment_bytes,
            max_tries: crawl.max_tries,
            max_retry_seconds: crawl.max_retry_seconds,
            idle_timeout_seconds: crawl.idle_timeout_seconds,
            user_agent: crawl.user_agent,
            allow_private: false,
        }
    }
}

/// How far a run is; at its end, what it left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonCrawlProgress {
    /// Lines of the index that were read.
    pub entries: u64,
    /// Of these, lines that the settings leave out.
    pub passed_over: u64,
    /// Records written.
    pub fetched: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records that could not be had, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Whether all of the index was read, or `max_records` reached.
    pub is_complete: bool,
}

/// Where a run goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// The settings that decide what is written: others have to begin in another folder.
    settings: String,
    progress: CommonCrawlProgress,
    segment: u32,
    /// Bytes of the open segment, of its index and of the list of failures that count.
    segment_bytes: u64,
    index_bytes: u64,
    failed_bytes: u64,
}

/// Fetches the records that the index names into `config.output`, or goes on where an earlier run was stopped.
///
/// Records are written in the order of the index, so that the same index gives the same segments. Blocks.
///
/// # Errors
/// [`Error::Config`] for settings that cannot work, or that are not those of the run before; [`Error::Format`] for an index that
/// is none; [`Error::Io`] when something cannot be read or written. A record that cannot be had is counted.
pub fn fetch_records(
    config: &CommonCrawlConfig,
    progress: impl FnMut(&CommonCrawlProgress),
    stop: &CancelFlag,
) -> Result<CommonCrawlProgress> {
    let base = Base::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Crawl { what: "anything".into(), why: error.to_string() })?;
    runtime.block_on(run(config, &base, progress, stop))
}

async fn run(
    config: &CommonCrawlConfig,
    base: &Base,
    mut progress: impl FnMut(&CommonCrawlProgress),
    stop: &CancelFlag,
) -> Result<CommonCrawlProgress> {
    let mut output = Output::open(config)?;
    if output.state.progress.is_complete {
        // Opening made an empty segment.
        publish(&output.folder, output.state.segment + 1)?;
    }
    let mut entries = Entries::open(&config.index)?;
    entries.skip(output.state.progress.entries)?;
    while !output.state.progress.is_complete && !stop.is_cancelled() {
        let room = config.max_records.saturating_sub(output.state.progress.fetched);
        let size = BATCH.min(usize::try_from(room).unwrap_or(BATCH));
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            let Some(entry) = entries.next()? else { break };
            output.state.progress.entries += 1;
            match entry {
                Ok(entry) if config.wants(&entry) => batch.push(entry),
                Ok(_) => output.state.progress.passed_over += 1,
                Err(line) => output.fail(&json!({ "line": line }), "bad_index_line")?,
            }
        }
        let is_end = batch.len() < size || size == 0;
        let asked = stream::iter(batch.into_iter().map(|entry| async {
            let record = base.record(&entry, config).await;
            (entry, record)
        }));
        // In the order of the index, whichever answer comes first.
        let mut answers = asked.buffered(config.concurrency.max(1));
        while let Some((entry, record)) = answers.next().await {
            match record? {
                Ok(bytes) => output.write(&entry, &bytes)?,
                Err(reason) => output.fail(&entry.to_json(), &reason)?,
            }
        }
        drop(answers);
        output.state.progress.is_complete = is_end;
        output.note(is_end)?;
        progress(&output.state.progress);
    }
    Ok(output.state.progress)
}

impl CommonCrawlConfig {
    fn wants(&self, entry: &Entry) -> bool {
        let is_of = |wanted: &[String], value: Option<&str>| {
            wanted.is_empty()
                || value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
        };
        let is_host = |host: &str| {
            let below = |wanted: &String| {
                host.strip_suffix(wanted.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            self.hosts.iter().any(below)
        };
        let host = entry.url.parse::<Url>().ok().and_then(|url| Some(url.host_str()?.to_owned()));
        let language = entry.languages.as_deref().and_then(|languages| languages.split(',').next());
        (self.crawl.is_empty() || entry.filename.split('/').any(|part| part == self.crawl))
            && (self.hosts.is_empty() || host.as_deref().is_some_and(is_host))
            && is_of(&self.mimes, entry.mime.as_deref())
            && is_of(&self.languages, language)
            && (self.statuses.is_empty()
                || entry.status.is_some_and(|status| self.statuses.contains(&status)))
    }
}

/// Where archives lie.
enum Base {
    Folder(PathBuf),
    Http(Client, Url),
}

impl Base {
    fn new(config: &CommonCrawlConfig) -> Result<Self> {
        let refuse = |message: String| Error::Config { name: "commoncrawl".to_owned(), message };
        let url =
            config.base.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut url) = url else {
            let folder = PathBuf::from(&config.base);
            if !folder.is_dir() {
                let hint =
                    "hint: `https://data.commoncrawl.org/`, or a folder that has `crawl-data`";
                return Err(refuse(format!(
                    "base: `{}` is neither a URL nor a folder\n{hint}",
                    config.base
                )));
            }
            return Ok(Self::Folder(folder));
        };
        if let Some(why) = address::refuse(&url, config.allow_private) {
            let hint = "hint: set `allow_private = true` for a copy on your own network";
            return Err(refuse(format!("base: `{url}` is not fetched from: {why}\n{hint}")));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let settings = CrawlConfig {
            user_agent: config.user_agent.clone(),
            idle_timeout_seconds: config.idle_timeout_seconds,
            per_host: config.concurrency,
            allow_private: config.allow_private,
            ..CrawlConfig::default()
        };
        let client = fetch::client(&settings, Names::default())?;
        Ok(Self::Http(client, url))
    }

    /// Returns a record as it is stored, or the reason why it cannot be had.
    async fn record(
        &self,
        entry: &Entry,
        config: &CommonCrawlConfig,
    ) -> Result<Result<Vec<u8>, String>> {
        if entry.length == 0 || entry.length > config.max_record_bytes {
            return Ok(Err("record_length".to_owned()));
        }
        // The name comes from the index: it leads nowhere but below the base.
        if entry
            .filename
            .split('/')
            .any(|part| part.is_empty() || part == ".." || part.contains(':'))
        {
            return Ok(Err("bad_filename".to_owned()));
        }
        let bytes = match self {
            Self::Folder(folder) => read_range(&folder.join(&entry.filename), entry)?,
            Self::Http(client, base) => {
                let Ok(url) = base.join(&entry.filename) else {
                    return Ok(Err("bad_filename".to_owned()));
                };
                fetch_range(client, &url, entry, config).await
            }
        };
        Ok(bytes.and_then(|bytes| {
            if bytes.starts_with(&GZIP) { Ok(bytes) } else { Err("not_gzip".to_owned()) }
        }))
    }
}

fn read_range(path: &Path, entry: &Entry) -> Result<Result<Vec<u8>, String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err("no_file".to_owned()));
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(entry.offset)).map_err(Error::io("read", path))?;
    file.take(entry.length).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let is_whole = bytes.len() as u64 == entry.length;
    Ok(if is_whole { Ok(bytes) } else { Err("beyond_end".to_owned()) })
}

/// Asks for a range, several times if the server is busy.
async fn fetch_range(
    client: &Client,
    url: &Url,
    entry: &Entry,
    config: &CommonCrawlConfig,
) -> Result<Vec<u8>, String> {
    let mut wait: f64 = 1.0;
    for attempt in 1.. {
        let (reason, asked) = match ask(client, url, entry, config).await {
            Ok(bytes) => return Ok(bytes),
            Err(Failure::Final(reason)) => return Err(reason),
            Err(Failure::Again(reason, asked)) => (reason, asked),
        };
        if attempt >= config.max_tries {
            return Err(reason);
        }
        let seconds = asked.unwrap_or(wait).min(config.max_retry_seconds);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        wait *= 2.0;
    }
    unreachable!("the last try returns")
}

enum Failure {
    Final(String),
    /// Worth another try, after so many seconds if the server says so.
    Again(String, Option<f64>),
}

async fn ask(
    client: &Client,
    url: &Url,
    entry: &Entry,
    config: &CommonCrawlConfig,
) -> Result<Vec<u8>, Failure> {
    let last = entry.offset.saturating_add(entry.length) - 1;
    let request = client.get(url.clone()).header(RANGE, format!("bytes={}-{last}", entry.offset));
    let network = |_| Failure::Again("network".to_owned(), None);
    let mut response = request.send().await.map_err(network)?;
    let remote = response.remote_addr().map(|remote| remote.ip());
    if !config.allow_private && !remote.is_some_and(address::is_public) {
        return Err(Failure::Final("address".to_owned()));
    }
    let status = response.status();
    let reason = format!("http_{}", status.as_u16());
    if matches!(status.as_u16(), 403 | 429 | 500..) {
        let asked = fetch::retry_after(response.headers(), SystemTime::now());
        return Err(Failure::Again(reason, asked));
    }
    // A server that knows no ranges would send the whole archive, a gigabyte.
    if status != StatusCode::PARTIAL_CONTENT {
        return Err(Failure::Final(if status.is_success() {
            "no_ranges".to_owned()
        } else {
            reason
        }));
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let expected = format!("bytes {}-{last}/", entry.offset);
    if !range.is_some_and(|range| range.starts_with(&expected)) {
        return Err(Failure::Final("other_range".to_owned()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > entry.length {
            return Err(Failure::Final("other_range".to_owned()));
        }
    }
    if (bytes.len() as u64) < entry.length {
        return Err(Failure::Again("cut_short".to_owned(), None));
    }
    Ok(bytes)
}

/// The segments, and the state beside them.
struct Output {
    folder: PathBuf,
    segment_bytes_max: u64,
    segment: File,
    index: File,
    failed: File,
    state: State,
}

impl Output {
    fn open(config: &CommonCrawlConfig) -> Result<Self> {
        let folder = config.output.clone();
        store::create_folder(&folder).map_err(|error| unwritable(&folder, &error))?;
        let path = state_path(&folder);
        let settings = settings(config);
        let state = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice::<State>(&bytes).map_err(|error| Error::Format {
                    path: path.clone(),
                    why: error.to_string(),
                    hint: "remove the folder to fetch anew".to_owned(),
                })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                State { settings: settings.clone(), ..State::default() }
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        if state.settings != settings {
            return Err(Error::Config {
                name: "commoncrawl".to_owned(),
                message: format!(
                    "output: `{}` holds records of other settings\nhint: name another folder; only `concurrency`, `base` and limits of time may change",
                    folder.display()
                ),
            });
        }
        publish(&folder, state.segment)?;
        let segment = reopen(&part_path(&folder, state.segment, "warc.gz"), state.segment_bytes)?;
        let index = reopen(&part_path(&folder, state.segment, "cdxj"), state.index_bytes)?;
        let failed = reopen(&folder.join("commoncrawl-failed.jsonl"), state.failed_bytes)?;
        Ok(Self { folder, segment_bytes_max: config.segment_bytes, segment, index, failed, state })
    }

    fn write(&mut self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        let name = segment_name(self.state.segment, "warc.gz");
        let fields = json!({
            "url": entry.url,
            "filename": name,
            "offset": self.state.segment_bytes.to_string(),
            "length": bytes.len().to_string(),
            "source_filename": entry.filename,
            "source_offset": entry.offset.to_string(),
        });
        let line = format!("{} {fields}\n", entry.key());
        let path = part_path(&self.folder, self.state.segment, "warc.gz");
        self.segment.write_all(bytes).map_err(Error::io("write", &path))?;
        self.index.write_all(line.as_bytes()).map_err(Error::io("write", &path))?;
        self.state.segment_bytes += bytes.len() as u64;
        self.state.index_bytes += line.len() as u64;
        self.state.progress.bytes += bytes.len() as u64;
        self.state.progress.fetched += 1;
        Ok(())
    }

    fn fail(&mut self, entry: &serde_json::Value, reason: &str) -> Result<()> {
        let line = format!("{}\n", json!({ "reason": reason, "entry": entry }));
        let path = self.folder.join("commoncrawl-failed.jsonl");
        self.failed.write_all(line.as_bytes()).map_err(Error::io("write", &path))?;
        self.state.failed_bytes += line.len() as u64;
        *self.state.progress.errors.entry(reason.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Makes what was written count, and ends the segment when it is full or the last.
    fn note(&mut self, is_end: bool) -> Result<()> {
        for file in [&self.segment, &self.index, &self.failed] {
            file.sync_data().map_err(Error::io("sync", &self.folder))?;
        }
        let is_full = self.state.segment_bytes >= self.segment_bytes_max;
        if is_full || is_end {
            // First the note that it is whole, then its name: a run that dies between them gives the name when it starts again.
            self.state.segment += 1;
            (self.state.segment_bytes, self.state.index_bytes) = (0, 0);
        }
        let state = serde_json::to_vec(&self.state).expect("numbers and names");
        let noted = store::replace(&state_path(&self.folder), &state);
        noted.map_err(|error| unwritable(&self.folder, &error))?;
        if is_full || is_end {
            publish(&self.folder, self.state.segment)?;
        }
        if is_full && !is_end {
            self.segment = reopen(&part_path(&self.folder, self.state.segment, "warc.gz"), 0)?;
            self.index = reopen(&part_path(&self.folder, self.state.segment, "cdxj"), 0)?;
        }
        Ok(())
    }
}

/// Gives the segments before `end` their names, those that have none yet. An empty one is removed.
fn publish(folder: &Path, end: u32) -> Result<()> {
    // The index first: whoever sees the segment finds it.
    for (number, extension) in (0..end).flat_map(|number| [(number, "cdxj"), (number, "warc.gz")]) {
        let part = part_path(folder, number, extension);
        match fs::metadata(&part) {
            Ok(metadata) if metadata.len() == 0 => {
                fs::remove_file(&part).map_err(Error::io("remove", &part))?;
            }
            Ok(_) => store::publish(&part, &folder.join(segment_name(number, extension)))
                .map_err(|error| unwritable(folder, &error))?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn unwritable(folder: &Path, error: &shard::Error) -> Error {
    Error::Crawl { what: format!("into `{}`", folder.display()), why: error.to_string() }
}

/// Opens a file to go on at `bytes`; what a killed run wrote behind it is cut off.
fn reopen(path: &Path, bytes: u64) -> Result<File> {
    let open = || {
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    };
    open().map_err(Error::io("open", path))
}

fn segment_name(number: u32, extension: &str) -> String {
    format!("commoncrawl-{number:05}.{extension}")
}

/// The name of a segment that is being written, which no source looks for.
fn part_path(folder: &Path, number: u32, extension: &str) -> PathBuf {
    folder.join(format!("{}.part", segment_name(number, extension)))
}

fn state_path(folder: &Path) -> PathBuf {
    folder.join("commoncrawl-state.json")
}

/// What decides which records are written, and in which order.
fn settings(config: &CommonCrawlConfig) -> String {
    let CommonCrawlConfig { crawl, index, hosts, mimes, languages, statuses, .. } = config;
    json!([
        crawl,
        index,
        hosts,
        mimes,
        languages,
        statuses,
        config.segment_bytes,
        config.max_record_bytes
    ])
    .to_string()
}

#[cfg(test)]
mod tests;
