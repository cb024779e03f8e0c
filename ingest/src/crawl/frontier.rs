//! What is still to be fetched, and what was: on disk, bounded in memory, safe from a kill at any moment.
//!
//! `crawl.redb` holds the state of the last checkpoint, `crawl.journal` what happened since, a line per answer: a checksum
//! and JSON. A line is written before its answer counts, so that a killed process has lost only the requests that were
//! open; a checkpoint syncs the archive, then commits the state, then empties the journal, so that a machine that
//! loses power goes back to the last checkpoint or a line after it, never to a state between two. Of the archive, what no
//! line tells of is cut off. See `docs/decisions/0005-crawl-frontier.md`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Database, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use url::Url;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::Progress;
use super::log::{self, LogRow};
use crate::{Error, Result};

/// Bytes of the state that are kept in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Bytes of a line's checksum, in hexadecimal digits.
const SUM_BYTES: usize = 16;

/// Hashes of the URLs that were ever found.
const SEEN: TableDefinition<'_, u128, ()> = TableDefinition::new("seen");
/// Host and number to depth, redirects, whether it is a sitemap, and URL of what is not done.
const QUEUE: TableDefinition<'_, (u32, u64), (u32, u32, bool, &str)> =
    TableDefinition::new("queue");
/// Number to origin, time before which nothing is asked of it, its delay (milliseconds), and pages that it gave.
const HOSTS: TableDefinition<'_, u32, (&str, u64, u64, u64)> = TableDefinition::new("hosts");
/// Hash of a URL to what its last answer said, as JSON.
const PAGES: TableDefinition<'_, u128, &str> = TableDefinition::new("pages");
/// SHA-1 of a payload to URL and date of the response record that holds it.
const PAYLOADS: TableDefinition<'_, &str, (&str, &str)> = TableDefinition::new("payloads");
/// Host and SHA-1 to how often the host gave that payload.
const COPIES: TableDefinition<'_, (u32, &str), u64> = TableDefinition::new("copies");
/// Number of what is done to its row of the log, as JSON, until a file has it.
const LOG: TableDefinition<'_, u64, &str> = TableDefinition::new("log");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const ERRORS: TableDefinition<'_, &str, u64> = TableDefinition::new("errors");

/// A URL that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) url: Url,
    pub(super) depth: u32,
    pub(super) redirects: u32,
    pub(super) is_sitemap: bool,
    pub(super) tries: u32,
    host: u32,
    number: u64,
}

/// A URL that was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Found {
    #[serde(with = "as_text")]
    pub(super) url: Url,
    pub(super) depth: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) redirects: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_sitemap: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// URLs as strings.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        Url::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a URL gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Why it gave no page.
    pub(super) reason: Option<String>,
    /// Segment and offset of the end of its records.
    pub(super) archived: Option<(u32, u64)>,
    pub(super) bytes: u64,
    /// What the next visit has to know of it.
    pub(super) page: Option<Page>,
    #[serde(default)]
    pub(super) status: Option<u16>,
    /// How long the last request took; `None` when there was none.
    #[serde(default)]
    pub(super) request_ms: Option<u64>,
    /// Milliseconds since 1970 when this was known, and how often it was asked for; [`Frontier::done`] fills them in.
    #[serde(default)]
    pub(super) at_ms: u64,
    #[serde(default)]
    pub(super) tries: u32,
}

/// What the next visit to a page has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) url: String,
    pub(super) depth: u32,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// SHA-1 of the payload in base 32, and date of the record.
    pub(super) digest: String,
    pub(super) date: String,
}

/// A payload that the archive has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// URL and date of the response record that holds it.
    pub(super) url: String,
    pub(super) date: String,
    /// How often the host gave it.
    pub(super) n: u64,
}

/// A line of the journal.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    found: Vec<Found>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<(u32, u64, Outcome)>,
    /// Host, time before which nothing is asked of it, and its delay, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<(u32, u64, u64)>,
}

#[derive(Debug, Default)]
struct Host {
    origin: String,
    queued: u64,
    /// Number of the item that was taken last.
    cursor: Option<u64>,
    /// Items to be taken before others.
    again: VecDeque<Item>,
    ready_at_ms: u64,
    delay_ms: u64,
    pages: u64,
}

/// URLs by host, first found first.
pub(super) struct Frontier {
    database: Database,
    /// What happened since the last checkpoint.
    changes: Option<WriteTransaction>,
    journal: File,
    journal_path: PathBuf,
    folder: PathBuf,
    hosts: Vec<Host>,
    index: HashMap<String, u32>,
    changed: BTreeSet<u32>,
    next_number: u64,
    checkpoint: u64,
    /// Files of the log, and rows that are in none.
    n_logs: u64,
    n_unlogged: u64,
    has_changes: bool,
    pub(super) progress: Progress,
    /// The segment that was written last, and how much of it is told of.
    pub(super) archived: Option<(u32, u64)>,
}

impl Frontier {
    /// Opens the frontier in `folder` as earlier runs left it.
    ///
    /// `intact`: returns number and intact bytes of the segment that is not finished, of which so many bytes of a segment are
    /// known to be. What the journal says beyond them was lost with the machine, and is forgotten: those pages are fetched again.
    pub(super) fn open(
        folder: &Path,
        intact: impl FnOnce(Option<(u32, u64)>) -> Result<(u32, u64)>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(folder.join("crawl.redb"))
            .map_err(refuse(folder))?;
        let journal_path = folder.join("crawl.journal");
        let mut options = OpenOptions::new();
        let journal = options.read(true).write(true).create(true).truncate(false);
        let journal = journal.open(&journal_path).map_err(Error::io("open", &journal_path))?;
        let mut frontier = Self {
            changes: None,
            database,
            journal,
            journal_path,
            folder: folder.to_owned(),
            hosts: Vec::new(),
            index: HashMap::new(),
            changed: BTreeSet::new(),
            next_number: 0,
            checkpoint: 0,
            n_logs: 0,
            n_unlogged: 0,
            has_changes: false,
            progress: Progress::default(),
            archived: None,
        };
        frontier.begin()?;
        frontier.load().map_err(refuse(folder))?;
        let intact = intact(frontier.archived)?;
        frontier.replay(intact)?;
        Ok(frontier)
    }

    /// Begins the changes up to the next checkpoint.
    fn begin(&mut self) -> Result<()> {
        let mut changes = self.database.begin_write().map_err(refuse(&self.folder))?;
        // Opening after a kill then takes no longer than otherwise.
        changes.set_quick_repair(true);
        self.changes = Some(changes);
        Ok(())
    }

    fn changes(&self) -> &WriteTransaction {
        self.changes.as_ref().expect("changes are begun at once after each checkpoint")
    }

    /// Reads the state of the last checkpoint.
    fn load(&mut self) -> Result<(), redb::Error> {
        let changes = self.changes.take().expect("begun before");
        {
            for entry in changes.open_table(HOSTS)?.iter()? {
                let (_, value) = entry?;
                let (origin, ready_at_ms, delay_ms, pages) = value.value();
                self.index.insert(origin.to_owned(), small(self.hosts.len()));
                let origin = origin.to_owned();
                self.hosts.push(Host { origin, ready_at_ms, delay_ms, pages, ..Host::default() });
            }
            for entry in changes.open_table(QUEUE)?.iter()? {
                let (host, _) = entry?.0.value();
                self.hosts[host as usize].queued += 1;
                self.progress.queued += 1;
            }
            for entry in changes.open_table(ERRORS)?.iter()? {
                let (reason, n) = entry?;
                self.progress.errors.insert(reason.value().to_owned(), n.value());
            }
            let numbers = changes.open_table(NUMBERS)?;
            let number = |name: &str| -> Result<Option<u64>, redb::Error> {
                Ok(numbers.get(name)?.map(|value| value.value()))
            };
            self.checkpoint = number("checkpoint")?.unwrap_or(0);
            self.next_number = number("next_number")?.unwrap_or(0);
            self.n_logs = number("logs")?.unwrap_or(0);
            self.n_unlogged = changes.open_table(LOG)?.len()?;
            self.progress.fetched = number("fetched")?.unwrap_or(0);
            self.progress.bytes = number("bytes")?.unwrap_or(0);
            self.archived = match (number("segment")?, number("end")?) {
                (Some(segment), Some(end)) => Some((small(segment), end)),
                _ => None,
            };
            // They are read before anything is written to them.
            changes.open_table(SEEN)?;
            changes.open_table(PAGES)?;
            changes.open_table(PAYLOADS)?;
            changes.open_table(COPIES)?;
        }
        self.changes = Some(changes);
        Ok(())
    }

    /// Repeats what the journal tells, as far as the archive has it.
    fn replay(&mut self, intact: (u32, u64)) -> Result<()> {
        let path = self.journal_path.clone();
        let mut reader = BufReader::new(File::open(&path).map_err(Error::io("open", &path))?);
        let (mut line, mut whole) = (Vec::new(), 0);
        let mut read = |line: &mut Vec<u8>| {
            line.clear();
            reader.read_until(b'\n', line).map_err(Error::io("read", &path))
        };
        // A journal of an earlier checkpoint is part of the state already.
        let mut n = read(&mut line)?;
        if unseal(&line).is_some_and(|text| text == self.header().as_bytes()) {
            whole = n as u64;
            loop {
                n = read(&mut line)?;
                // A line that a kill cut short, or a power cut blanked, tells nothing, nor does what is behind it.
                let entry =
                    unseal(&line).and_then(|text| serde_json::from_slice::<Entry>(text).ok());
                let Some(entry) = entry else { break };
                let end = entry.done.as_ref().and_then(|(_, _, outcome)| outcome.archived);
                if end.is_some_and(|end| end > intact) {
                    break;
                }
                whole += n as u64;
                self.apply(entry).map_err(refuse(&self.folder))?;
            }
        }
        self.journal.set_len(whole).map_err(Error::io("cut", &path))?;
        self.journal.seek(SeekFrom::End(0)).map_err(Error::io("seek", &path))?;
        if whole == 0 {
            let header = seal(&self.header());
            self.journal.write_all(&header).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    fn header(&self) -> String {
        format!("crawl journal 2 after checkpoint {}", self.checkpoint)
    }

    /// Adds the URLs that were never found before; returns the hosts that have new ones.
    pub(super) fn add(&mut self, found: Vec<Found>) -> Result<BTreeSet<u32>> {
        self.write(Entry { found, ..Entry::default() })
    }

    /// Puts an item back at the head of its host's queue, for another try.
    pub(super) fn retry(&mut self, mut item: Item) {
        item.tries += 1;
        self.progress.queued += 1;
        let host = &mut self.hosts[item.host as usize];
        host.queued += 1;
        host.again.push_back(item);
    }

    /// Notes what came of `item` and what it led to; returns the hosts that have new URLs.
    pub(super) fn done(
        &mut self,
        item: &Item,
        mut outcome: Outcome,
        found: Vec<Found>,
    ) -> Result<BTreeSet<u32>> {
        outcome.at_ms = now_ms();
        outcome.tries = item.tries + u32::from(outcome.request_ms.is_some());
        let done = Some((item.host, item.number, outcome));
        self.write(Entry { found, done, rest: None })
    }

    /// Notes that nothing is to be asked of `host` for `rest_ms`, and how long it rests after each request.
    pub(super) fn rest(&mut self, host: u32, rest_ms: u64, delay_ms: u64) -> Result<()> {
        let known = &self.hosts[host as usize];
        if rest_ms == 0 && delay_ms == known.delay_ms && known.ready_at_ms <= now_ms() {
            return Ok(());
        }
        let rest = Some((host, now_ms().saturating_add(rest_ms), delay_ms));
        self.write(Entry { rest, ..Entry::default() }).map(drop)
    }

    /// Milliseconds that `host` is to rest from now on, as a process that does not know when it was last asked.
    pub(super) fn rest_ms(&self, host: u32, rest_ms_max: u64) -> u64 {
        let host = &self.hosts[host as usize];
        host.ready_at_ms.saturating_sub(now_ms()).min(rest_ms_max).max(host.delay_ms)
    }

    /// How many hosts were found; they are numbered from 0.
    pub(super) fn n_hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Scheme, name and port of `host`.
    pub(super) fn origin(&self, host: u32) -> &str {
        &self.hosts[host as usize].origin
    }

    /// How many URLs of `host` wait.
    pub(super) fn queued(&self, host: u32) -> u64 {
        self.hosts[host as usize].queued
    }

    /// How many pages `host` gave.
    pub(super) fn pages(&self, host: u32) -> u64 {
        self.hosts[host as usize].pages
    }

    /// Takes the next URL of `host`; it stays in the queue on disk until it is done.
    pub(super) fn take(&mut self, host: u32) -> Result<Option<Item>> {
        let number = host;
        let next = match self.hosts[host as usize].again.pop_front() {
            Some(item) => Some(item),
            None => self.next_of(host).map_err(refuse(&self.folder))?,
        };
        if let Some(item) = &next {
            let host = &mut self.hosts[number as usize];
            host.queued -= 1;
            self.progress.queued -= 1;
            host.cursor = host.cursor.max(Some(item.number));
        }
        Ok(next)
    }

    fn next_of(&self, host: u32) -> Result<Option<Item>, redb::Error> {
        let from = self.hosts[host as usize].cursor.map_or(0, |cursor| cursor + 1);
        let queue = self.changes().open_table(QUEUE)?;
        let Some(entry) = queue.range((host, from)..=(host, u64::MAX))?.next() else {
            return Ok(None);
        };
        let (key, value) = entry?;
        let (depth, redirects, is_sitemap, url) = value.value();
        let url = Url::parse(url).expect("it was written as a URL");
        let number = key.value().1;
        Ok(Some(Item { url, depth, redirects, is_sitemap, tries: 0, host, number }))
    }

    /// What the last visit to `url` knew.
    pub(super) fn page(&self, url: &Url) -> Result<Option<Page>> {
        let find = || -> Result<Option<Page>, redb::Error> {
            let pages = self.changes().open_table(PAGES)?;
            let page = pages.get(hash(url))?;
            Ok(page.and_then(|page| serde_json::from_str(page.value()).ok()))
        };
        find().map_err(refuse(&self.folder))
    }

    /// What the archive has of a payload that the host of `item` gave.
    pub(super) fn payload(&self, item: &Item, digest: &str) -> Result<Option<Payload>> {
        let find = || -> Result<Option<Payload>, redb::Error> {
            let payloads = self.changes().open_table(PAYLOADS)?;
            let Some(found) = payloads.get(digest)? else { return Ok(None) };
            let (url, date) = found.value();
            let copies = self.changes().open_table(COPIES)?;
            let n = copies.get((item.host, digest))?.map_or(0, |n| n.value());
            Ok(Some(Payload { url: url.to_owned(), date: date.to_owned(), n }))
        };
        find().map_err(refuse(&self.folder))
    }

    /// Begins a new visit: every page of the last one waits again; of the rest only pages and payloads are remembered.
    pub(super) fn revisit(&mut self) -> Result<()> {
        let forget = || -> Result<(), redb::Error> {
            let changes = self.changes();
            changes.open_table(SEEN)?.retain(|_, ()| false)?;
            changes.open_table(QUEUE)?.retain(|_, _| false)?;
            changes.open_table(COPIES)?.retain(|_, _| false)?;
            Ok(changes.open_table(ERRORS)?.retain(|_, _| false)?)
        };
        forget().map_err(refuse(&self.folder))?;
        for host in &mut self.hosts {
            (host.queued, host.cursor, host.pages) = (0, None, 0);
            host.again.clear();
        }
        self.changed.extend(0..small(self.hosts.len()));
        self.progress = Progress::default();
        // Without the journal: a kill before the commit leaves the last visit as it was.
        let mut last = None;
        loop {
            let (found, next) = self.known_pages(last).map_err(refuse(&self.folder))?;
            if found.is_empty() {
                return self.commit();
            }
            self.apply(Entry { found, ..Entry::default() }).map_err(refuse(&self.folder))?;
            last = next;
        }
    }

    /// Returns some pages of the last visit behind the one whose URL has the hash `after`, and the last one's hash.
    fn known_pages(&self, after: Option<u128>) -> Result<(Vec<Found>, Option<u128>), redb::Error> {
        let from = after.map_or(0, |hash| hash.saturating_add(1));
        let (mut found, mut last) = (Vec::new(), None);
        for entry in self.changes().open_table(PAGES)?.range(from..)?.take(1024) {
            let (hash, page) = entry?;
            let page: Page = serde_json::from_str(page.value()).expect("it was written as a page");
            let url = Url::parse(&page.url).expect("it was written as a URL");
            found.push(Found { url, depth: page.depth, redirects: 0, is_sitemap: false });
            last = Some(hash.value());
        }
        Ok((found, last))
    }

    /// Writes what changed in the journal, after it is applied: a kill between the two loses both.
    fn write(&mut self, entry: Entry) -> Result<BTreeSet<u32>> {
        let rest = entry.rest;
        let done = entry.done.clone();
        let (found, hosts) = self.apply(entry).map_err(refuse(&self.folder))?;
        if found.is_empty() && done.is_none() && rest.is_none() {
            return Ok(hosts);
        }
        let line = serde_json::to_string(&Entry { found, done, rest })
            .expect("an entry has no keys but strings");
        self.journal.write_all(&seal(&line)).map_err(Error::io("write", &self.journal_path))?;
        Ok(hosts)
    }

    /// Changes the state by `entry`; returns the URLs of it that are new, and their hosts.
    fn apply(&mut self, entry: Entry) -> Result<(Vec<Found>, BTreeSet<u32>), redb::Error> {
        let changes = self.changes.take().expect("begun before");
        self.has_changes = true;
        let mut new = Vec::new();
        let mut hosts = BTreeSet::new();
        {
            let mut seen = changes.open_table(SEEN)?;
            let mut queue = changes.open_table(QUEUE)?;
            for found in entry.found {
                if seen.insert(hash(&found.url), ())?.is_some() {
                    continue;
                }
                let host = self.host(&found.url);
                let value = (found.depth, found.redirects, found.is_sitemap, found.url.as_str());
                queue.insert((host, self.next_number), value)?;
                self.next_number += 1;
                self.hosts[host as usize].queued += 1;
                self.progress.queued += 1;
                hosts.insert(host);
                new.push(found);
            }
            if let Some((host, number, outcome)) = entry.done {
                if let Some(was) = queue.remove((host, number))? {
                    let (depth, redirects, _, url) = was.value();
                    let origin = &self.hosts[host as usize].origin;
                    let row = row(origin, url, (depth, redirects), &outcome);
                    let text = serde_json::to_string(&row).expect("a row has no keys but strings");
                    changes.open_table(LOG)?.insert(number, &*text)?;
                    self.n_unlogged += 1;
                }
                self.count(host, number, &outcome);
                if let Some(page) = &outcome.page {
                    let text = serde_json::to_string(page).expect("a page is made of strings");
                    changes.open_table(PAGES)?.insert(xxh3_128(page.url.as_bytes()), &*text)?;
                    if outcome.bytes > 0 {
                        let mut payloads = changes.open_table(PAYLOADS)?;
                        if payloads.get(&*page.digest)?.is_none() {
                            payloads.insert(&*page.digest, (&*page.url, &*page.date))?;
                        }
                        let mut copies = changes.open_table(COPIES)?;
                        let n = copies.get((host, &*page.digest))?.map_or(0, |n| n.value());
                        copies.insert((host, &*page.digest), n + 1)?;
                    }
                }
            }
        }
        if let Some((host, ready_at_ms, delay_ms)) = entry.rest {
            let number = host;
            let host = &mut self.hosts[host as usize];
            (host.ready_at_ms, host.delay_ms) = (ready_at_ms, delay_ms);
            self.changed.insert(number);
        }
        self.changes = Some(changes);
        Ok((new, hosts))
    }

    fn count(&mut self, number: u32, item: u64, outcome: &Outcome) {
        self.archived = outcome.archived.or(self.archived);
        let host = &mut self.hosts[number as usize];
        if host.cursor < Some(item) {
            // Only in a journal that is read again: the item was not taken by this process.
            host.queued -= 1;
            self.progress.queued -= 1;
        }
        match &outcome.reason {
            Some(reason) => {
                *self.progress.errors.entry(reason.clone()).or_default() += 1;
            }
            None => {
                self.progress.fetched += 1;
                self.progress.bytes += outcome.bytes;
                host.pages += 1;
                self.changed.insert(number);
            }
        }
    }

    /// Returns the number of the host of `url`.
    fn host(&mut self, url: &Url) -> u32 {
        let origin = url.origin().ascii_serialization();
        if let Some(&host) = self.index.get(&origin) {
            return host;
        }
        let host = small(self.hosts.len());
        self.index.insert(origin.clone(), host);
        self.hosts.push(Host { origin, ..Host::default() });
        self.changed.insert(host);
        host
    }

    /// Whether something happened since the last checkpoint.
    pub(super) fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// Makes everything so far durable; what the archive has of it must be already.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.checkpoint += 1;
        self.save().map_err(refuse(&self.folder))?;
        self.begin()?;
        self.has_changes = false;
        let header = seal(&self.header());
        let path = &self.journal_path;
        self.journal.set_len(0).map_err(Error::io("cut", path))?;
        self.journal.rewind().map_err(Error::io("seek", path))?;
        self.journal.write_all(&header).map_err(Error::io("write", path))
    }

    /// Writes what came of URLs since the last file of the log into a new one, when more than `rows_max` wait for it. What was
    /// done before must be committed.
    pub(super) fn write_log(&mut self, rows_max: u64) -> Result<()> {
        if self.n_unlogged <= rows_max {
            return Ok(());
        }
        let read = || -> Result<Vec<LogRow>, redb::Error> {
            let mut rows = Vec::new();
            for entry in self.changes().open_table(LOG)?.iter()? {
                let text = entry?.1;
                rows.push(serde_json::from_str(text.value()).expect("it was written as a row"));
            }
            Ok(rows)
        };
        let mut rows = read().map_err(refuse(&self.folder))?;
        rows.sort_by_key(|row| row.time_ms);
        log::write(&self.folder, self.n_logs, &rows)?;
        // A kill before the commit writes the same file again, with what is done by then.
        let forget = || -> Result<(), redb::Error> {
            Ok(self.changes().open_table(LOG)?.retain(|_, _| false)?)
        };
        forget().map_err(refuse(&self.folder))?;
        (self.n_logs, self.n_unlogged) = (self.n_logs + 1, 0);
        self.commit()
    }

    fn save(&mut self) -> Result<(), redb::Error> {
        let changes = self.changes.take().expect("begun before");
        {
            let mut hosts = changes.open_table(HOSTS)?;
            for number in std::mem::take(&mut self.changed) {
                let host = &self.hosts[number as usize];
                let value = (&*host.origin, host.ready_at_ms, host.delay_ms, host.pages);
                hosts.insert(number, value)?;
            }
            let mut errors = changes.open_table(ERRORS)?;
            for (reason, n) in &self.progress.errors {
                errors.insert(&**reason, n)?;
            }
            let mut numbers = changes.open_table(NUMBERS)?;
            let archived =
                self.archived.map(|(segment, end)| [("segment", segment.into()), ("end", end)]);
            let counts = [
                ("checkpoint", self.checkpoint),
                ("next_number", self.next_number),
                ("logs", self.n_logs),
                ("fetched", self.progress.fetched),
                ("bytes", self.progress.bytes),
            ];
            for (name, value) in counts.into_iter().chain(archived.into_iter().flatten()) {
                numbers.insert(name, value)?;
            }
        }
        Ok(changes.commit()?)
    }
}

fn refuse<E: Display>(folder: &Path) -> impl FnOnce(E) -> Error + use<E> {
    let what = format!("with the state in `{}`", folder.join("crawl.redb").display());
    move |error| Error::Crawl { what, why: error.to_string() }
}

fn row(host: &str, url: &str, place: (u32, u32), outcome: &Outcome) -> LogRow {
    LogRow {
        time_ms: i64::try_from(outcome.at_ms).unwrap_or(i64::MAX),
        url: url.to_owned(),
        host: host.to_owned(),
        outcome: outcome.reason.clone(),
        status: outcome.status,
        bytes: outcome.bytes,
        depth: place.0,
        redirects: place.1,
        tries: outcome.tries,
        request_ms: outcome.request_ms,
        archived: outcome.archived,
        digest: outcome.page.as_ref().map(|page| page.digest.clone()),
    }
}

/// Hosts and segments are counted in 32 bits.
pub(super) fn small(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn hash(url: &Url) -> u128 {
    xxh3_128(url.as_str().as_bytes())
}

/// Writes `text` as a line with its checksum.
fn seal(text: &str) -> Vec<u8> {
    format!("{:016x} {text}\n", xxh3_64(text.as_bytes())).into_bytes()
}

/// Returns the text of a line that is whole.
fn unseal(line: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = line.split_at_checked(SUM_BYTES)?;
    let text = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    (format!("{:016x}", xxh3_64(text)).as_bytes() == sum).then_some(text)
}
