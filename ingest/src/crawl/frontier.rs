//! What is still to be fetched, in order, with a journal that survives a kill.
//!
//! The journal has a JSON array per line: `["+", url, depth, redirects]` for a URL that was found, `["=", url, segment, end,
//! bytes]` for one whose records lie in the archive up to `end`, `["-", url, reason]` for one that gave nothing. A line is
//! written after the records it tells of, so records behind the last `=` are cut off when the crawl goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use super::Progress;
use crate::{Error, Result};

/// A URL that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) url: Url,
    pub(super) depth: u32,
    pub(super) redirects: u32,
    pub(super) tries: u32,
}

/// URLs by host, first found first.
pub(super) struct Frontier {
    journal: File,
    path: PathBuf,
    /// Hashes of the URLs that were ever found.
    seen: HashSet<u128>,
    /// Items of each host; hosts in the order in which they were found.
    hosts: Vec<(String, VecDeque<Item>)>,
    index: HashMap<String, usize>,
    pub(super) progress: Progress,
    /// The segment that was written last, and how much of it the journal tells of.
    pub(super) archived: Option<(u32, u64)>,
}

impl Frontier {
    /// Opens the journal in `folder`, and reads what earlier runs wrote.
    ///
    /// `archived`: number and bytes of the segment that is not finished. What the journal says beyond them was lost with the
    /// machine, and is forgotten: those pages are fetched again.
    pub(super) fn open(folder: &Path, archived: (u32, u64)) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let path = folder.join("crawl.journal");
        let mut options = OpenOptions::new();
        let journal = options.read(true).append(true).create(true).open(&path);
        let journal = journal.map_err(Error::io("open", &path))?;
        let mut frontier = Self {
            journal,
            path,
            seen: HashSet::new(),
            hosts: Vec::new(),
            index: HashMap::new(),
            progress: Progress::default(),
            archived: None,
        };
        frontier.replay(archived)?;
        Ok(frontier)
    }

    fn replay(&mut self, archived: (u32, u64)) -> Result<()> {
        let path = self.path.clone();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut reader = BufReader::new(file);
        let (mut done, mut items, mut line, mut whole) =
            (HashSet::new(), Vec::new(), Vec::new(), 0);
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line).map_err(Error::io("read", &path))?;
            if n == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let entry: Value = serde_json::from_slice(&line).map_err(|error| Error::Format {
                path: path.clone(),
                why: format!("byte {whole} starts no entry of a journal: {error}"),
                hint: "remove the folder to crawl anew".to_owned(),
            })?;
            let number = |index: usize| entry[index].as_u64().unwrap_or(0);
            let small = |index: usize| u32::try_from(number(index)).unwrap_or(u32::MAX);
            let end = match entry[0].as_str() {
                Some("=") => Some((small(2), number(3))),
                Some("-") if entry.get(4).is_some() => Some((small(3), number(4))),
                _ => None,
            };
            if end.is_some_and(|end| end > archived) {
                break;
            }
            self.archived = end.or(self.archived);
            whole += n as u64;
            let Some(url) = entry[1].as_str().and_then(|url| Url::parse(url).ok()) else {
                continue;
            };
            match entry[0].as_str() {
                Some("+") => {
                    self.seen.insert(hash(&url));
                    items.push(Item { url, depth: small(2), redirects: small(3), tries: 0 });
                }
                Some("=") => {
                    self.progress.fetched += 1;
                    self.progress.bytes += number(4);
                    done.insert(hash(&url));
                }
                _ => {
                    let reason = entry[2].as_str().unwrap_or("unknown").to_owned();
                    *self.progress.errors.entry(reason).or_default() += 1;
                    done.insert(hash(&url));
                }
            }
        }
        // A line that a kill cut short tells nothing.
        self.journal.set_len(whole).map_err(Error::io("cut", &path))?;
        for item in items.into_iter().filter(|item| !done.contains(&hash(&item.url))) {
            self.queue(item, false);
        }
        Ok(())
    }

    /// Adds a URL unless it was ever found before.
    pub(super) fn add(&mut self, item: Item) -> Result<()> {
        if self.seen.insert(hash(&item.url)) {
            self.write(&json!(["+", item.url.as_str(), item.depth, item.redirects]))?;
            self.queue(item, false);
        }
        Ok(())
    }

    /// Puts an item back at the head of its host's queue.
    pub(super) fn retry(&mut self, item: Item) {
        self.queue(item, true);
    }

    fn queue(&mut self, item: Item, is_first: bool) {
        self.progress.queued += 1;
        let host = item.url.origin().ascii_serialization();
        let index = *self.index.entry(host.clone()).or_insert_with(|| {
            self.hosts.push((host, VecDeque::new()));
            self.hosts.len() - 1
        });
        let queue = &mut self.hosts[index].1;
        if is_first { queue.push_front(item) } else { queue.push_back(item) }
    }

    /// The hosts, by number: scheme, name and port.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        self.hosts
            .iter()
            .enumerate()
            .map(|(index, (host, queue))| (index, host.as_str(), queue.len()))
    }

    pub(super) fn take(&mut self, host: usize) -> Option<Item> {
        let item = self.hosts[host].1.pop_front();
        self.progress.queued -= u64::from(item.is_some());
        item
    }

    /// Notes that `url` is fetched and archived.
    pub(super) fn done(&mut self, url: &Url, archived: (u32, u64), bytes: u64) -> Result<()> {
        self.progress.fetched += 1;
        self.progress.bytes += bytes;
        self.archived = Some(archived);
        self.write(&json!(["=", url.as_str(), archived.0, archived.1, bytes]))
    }

    /// Notes that `url` gave no page; its answer may be archived all the same.
    pub(super) fn failed(
        &mut self,
        url: &Url,
        reason: &str,
        archived: Option<(u32, u64)>,
    ) -> Result<()> {
        *self.progress.errors.entry(reason.to_owned()).or_default() += 1;
        match archived {
            Some((segment, end)) => {
                self.archived = archived;
                self.write(&json!(["-", url.as_str(), reason, segment, end]))
            }
            None => self.write(&json!(["-", url.as_str(), reason])),
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.journal.sync_all().map_err(Error::io("sync", &self.path))
    }

    fn write(&mut self, entry: &Value) -> Result<()> {
        let line = format!("{entry}\n");
        self.journal.write_all(line.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

fn hash(url: &Url) -> u128 {
    xxhash_rust::xxh3::xxh3_128(url.as_str().as_bytes())
}
