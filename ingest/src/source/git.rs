//! Git repositories: the files of a commit, each a document; a fork gives what its origin never had.

mod objects;
mod repository;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::code::{LICENSE_BYTES_MAX, Licenses, Module, Rules, is_license_file};
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config, raw};
use crate::{Error, Result};

use objects::Id;
use repository::{Blob, Commit, Content, Repository};
pub(super) use repository::{bytes, is_repository};

pub(super) const KIND: SourceKind = SourceKind {
    name: "git",
    summary: "git repositories, cloned or bare: the files of a commit as `code` reads them, without what a fork shares with its origin's history",
    source: "git's object database and packs, formats 1 and 2",
    document_kind: "code",
    patterns: &["*"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Git {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("git", table)?,
            origins: BTreeMap::new(),
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(flatten)]
    rules: Rules,
    /// The commit: `HEAD`, a branch, a tag, or an id.
    commit: String,
    /// Whether a fork's files are documents also where a repository that it shares its first commit with has, or had, the same.
    keep_forked: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { rules: Rules::default(), commit: "HEAD".to_owned(), keep_forked: false }
    }
}

#[derive(Clone, Debug)]
struct Git {
    name: String,
    kind: String,
    config: Config,
    /// By name of a fork, the repositories that come before it.
    origins: BTreeMap<String, Arc<[Origin]>>,
}

/// A repository that has a commit in common with a later one.
#[derive(Clone, Debug)]
struct Origin {
    file: SourceFile,
    commit: Id,
}

impl Source for Git {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    /// Finds forks: repositories with a first commit in common. Of these the one with the longest history is the origin.
    fn prepare(&mut self, files: &[SourceFile]) -> Result<()> {
        if self.config.keep_forked || files.len() < 2 {
            return Ok(());
        }
        let mut families: BTreeMap<Id, Vec<(usize, &SourceFile, Id)>> = BTreeMap::new();
        for file in files {
            let repository = Repository::open(&file.path)?;
            let commit = repository.resolve(&self.config.commit)?;
            let history = repository.history(commit.id)?;
            // One first commit is enough to tell a family: merged histories have several.
            if let Some(&root) = history.roots.iter().min() {
                families.entry(root).or_default().push((history.commits.len(), file, commit.id));
            }
        }
        for mut family in families.into_values() {
            family.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
            let members: Vec<Origin> = family
                .iter()
                .map(|&(_, file, commit)| Origin { file: file.clone(), commit })
                .collect();
            for (index, member) in members.iter().enumerate().skip(1) {
                self.origins.insert(member.file.name.clone(), members[..index].into());
            }
        }
        Ok(())
    }

    /// The commit, and those of the repositories whose files are left out here.
    fn content_id(&self, file: &SourceFile) -> Result<Option<String>> {
        let commit = Repository::open(&file.path)?.resolve(&self.config.commit)?;
        let mut id = commit.id.to_string();
        for origin in self.origins.get(&file.name).into_iter().flat_map(|origins| origins.iter()) {
            id.push_str(&format!(" {}@{}", origin.file.name, origin.commit));
        }
        Ok(Some(id))
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let repository = Repository::open(&file.path)?;
        let commit = repository.resolve(&self.config.commit)?;
        let is_mine = super::has_first_byte(range.as_ref());
        let tree = Tree {
            file: file.clone(),
            rules: self.config.rules.clone(),
            repository,
            commit,
            origins: self.origins.get(&file.name).cloned().unwrap_or_else(|| Arc::new([])),
            state: if is_mine { State::Unopened } else { State::Done },
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), tree))
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, _bytes: u64) -> Result<Option<Raw>> {
        let id = place.and_then(|place| Id::from_hex(place.split(':').next()?));
        let Some(id) = id else { return Ok(None) };
        let content = Repository::open(&file.path)?.read(id, raw::BYTES_MAX);
        Ok(match content {
            Content::Bytes(bytes) => Some(Raw::Bytes(bytes)),
            Content::Refused(..) => None,
        })
    }
}

/// The tree of a commit that is being read.
struct Tree {
    file: SourceFile,
    rules: Rules,
    repository: Repository,
    commit: Commit,
    origins: Arc<[Origin]>,
    state: State,
}

enum State {
    Unopened,
    Open { blobs: std::vec::IntoIter<Blob>, licenses: Licenses, known: Vec<Id> },
    Done,
}

impl Tree {
    /// Lists the files, reads the licences and what the origins ever had.
    fn begin(&self) -> Result<Result<State, &'static str>> {
        let blobs = match self.repository.files(&self.commit)? {
            Ok(blobs) => blobs,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut licenses = Licenses::default();
        for blob in blobs.iter().filter(|blob| is_license_file(&blob.path)) {
            if let Content::Bytes(bytes) = self.repository.read(blob.id, LICENSE_BYTES_MAX) {
                licenses.add(&blob.path, &bytes);
            }
        }
        let mut known = Vec::new();
        for origin in self.origins.iter() {
            let repository = Repository::open(&origin.file.path)?;
            known.extend(repository.all_blobs(origin.commit)?);
        }
        known.sort_unstable();
        known.dedup();
        Ok(Ok(State::Open { blobs: blobs.into_iter(), licenses, known }))
    }
}

impl Rows for Tree {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        if matches!(self.state, State::Unopened) {
            self.state = match self.begin()? {
                Ok(open) => open,
                Err(reason) => {
                    rows.reject(&Record { locator: &self.file.name, ..Record::default() }, reason);
                    State::Done
                }
            };
            return Ok(true);
        }
        let State::Open { blobs, licenses, known } = &mut self.state else { return Ok(false) };
        let Some(blob) = blobs.next() else { return Ok(false) };
        // `git cat-file -p` prints it by this id, whatever becomes of the branch.
        let id = blob.id.to_string();
        let locator = format!("{}#{id}:{}", self.file.name, blob.path);
        let commit = self.commit.id.to_string();
        let content = match known.binary_search(&blob.id) {
            Ok(_) => Content::Refused("forked", 0),
            Err(_) => self.repository.read(blob.id, self.rules.file_bytes_max),
        };
        match content {
            Content::Bytes(bytes) => {
                let license = licenses.of(&blob.path);
                let module = Module {
                    path: &blob.path,
                    locator: &locator,
                    bytes: &bytes,
                    license: license.as_ref(),
                    date: Some(self.commit.seconds),
                    metadata: &[("git_blob", &id), ("git_commit", &commit)],
                };
                self.rules.push(&module, rows);
            }
            Content::Refused(reason, bytes_raw) => {
                let metadata =
                    [("path", blob.path.as_str()), ("git_blob", &id), ("git_commit", &commit)];
                let record = Record {
                    locator: &locator,
                    bytes_raw,
                    metadata: &metadata,
                    ..Record::default()
                };
                rows.reject(&record, reason);
            }
        }
        Ok(true)
    }
}

fn unreadable(path: &Path, why: impl Into<String>, hint: &str) -> Error {
    Error::Format { path: path.to_owned(), why: why.into(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
