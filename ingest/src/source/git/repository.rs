//! A repository on disk: its names, commits, trees and blobs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::objects::{Id, Kind, Objects, Refusal};
use super::unreadable;
use crate::{Error, Result};

/// Files of a commit, at most: trees that name each other can make a billion of some kilobytes.
const FILES_MAX: usize = 2_000_000;
/// Folders below each other, at most.
const DEPTH_MAX: usize = 512;
/// Tags and names that lead to the next one, at most.
const LINKS_MAX: usize = 8;
/// Bytes of a commit or tree, at most: the largest folders have some 100,000 entries.
const NODE_BYTES_MAX: u64 = 64 << 20;

/// Whether a folder is a repository: a clone or a bare one.
pub(in crate::source) fn is_repository(path: &Path) -> bool {
    let git = path.join(".git");
    git.is_file() || is_git_folder(&git) || is_git_folder(path)
}

fn is_git_folder(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

/// Bytes of the objects of the repository at `path`.
pub(in crate::source) fn bytes(path: &Path) -> Result<u64> {
    let objects = Folders::find(path)?.common.join("objects");
    let files = WalkDir::new(&objects).into_iter().filter_map(|entry| entry.ok()?.metadata().ok());
    Ok(files.filter(fs::Metadata::is_file).map(|file| file.len()).sum())
}

/// Where a repository keeps what.
struct Folders {
    /// `HEAD`.
    own: PathBuf,
    /// Objects and branches, which work trees share.
    common: PathBuf,
}

impl Folders {
    fn find(path: &Path) -> Result<Self> {
        let git = path.join(".git");
        let own = if git.is_file() {
            let text = fs::read_to_string(&git).map_err(Error::io("read", &git))?;
            let target = text.trim().strip_prefix("gitdir:").map(str::trim).unwrap_or_default();
            path.join(target)
        } else if is_git_folder(&git) {
            git
        } else {
            path.to_owned()
        };
        if !own.join("HEAD").is_file() {
            return Err(unreadable(
                path,
                "it is no git repository",
                "clone it, or name the folder that holds `.git`",
            ));
        }
        let common = match fs::read_to_string(own.join("commondir")) {
            Ok(text) => own.join(text.trim()),
            Err(_) => own.clone(),
        };
        Ok(Self { own, common })
    }
}

/// An open repository.
pub(super) struct Repository {
    path: PathBuf,
    folders: Folders,
    objects: Objects,
}

/// A commit that a name leads to.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) id: Id,
    tree: Id,
    /// When it was made, seconds since 1970.
    pub(super) seconds: i64,
}

/// All commits that one has behind it.
pub(super) struct History {
    pub(super) commits: HashSet<Id>,
    /// Trees of the commits.
    trees: Vec<Id>,
    /// Those without parents.
    pub(super) roots: Vec<Id>,
}

/// A file of a commit.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) path: String,
    pub(super) id: Id,
}

/// What a blob holds.
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// Why it is not read, and its size as far as it is known.
    Refused(&'static str, u64),
}

impl Repository {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let folders = Folders::find(path)?;
        let objects = folders.common.join("objects");
        let config = fs::read_to_string(folders.common.join("config")).unwrap_or_default();
        if config
            .lines()
            .any(|line| line.trim().to_ascii_lowercase().replace(' ', "") == "objectformat=sha256")
        {
            return Err(unreadable(
                path,
                "its objects are named by SHA-256",
                "only repositories with SHA-1 names are read",
            ));
        }
        let objects = Objects::open(&objects)?;
        Ok(Self { path: path.to_owned(), folders, objects })
    }

    /// Returns the commit that `name` stands for.
    ///
    /// # Errors
    /// When there is no such name, or no such commit.
    pub(super) fn resolve(&self, name: &str) -> Result<Commit> {
        let id = self.find_name(name)?.ok_or_else(|| {
            unreadable(
                &self.path,
                format!("it has no commit, branch or tag `{name}`"),
                "`git log --all --oneline` lists commits",
            )
        })?;
        self.peel(id, name)
    }

    fn find_name(&self, name: &str) -> Result<Option<Id>> {
        let mut name = name.to_owned();
        for _ in 0..LINKS_MAX {
            if let Some(id) = Id::from_hex(&name) {
                return Ok(Some(id));
            }
            let prefixes = ["", "refs/heads/", "refs/tags/", "refs/remotes/origin/", "refs/"];
            let found =
                prefixes.iter().find_map(|prefix| self.value_of(&format!("{prefix}{name}")));
            match found {
                None => return Ok(None),
                Some(value) => {
                    name = value.strip_prefix("ref:").map_or(value.as_str(), str::trim).to_owned();
                }
            }
        }
        Ok(None)
    }

    /// Reads a reference, loose or packed.
    fn value_of(&self, name: &str) -> Option<String> {
        // A name is a path below the repository, and stays there.
        if name.split('/').any(|part| part.is_empty() || part == "..") {
            return None;
        }
        let folders = [&self.folders.own, &self.folders.common];
        let loose = folders.iter().find_map(|folder| fs::read_to_string(folder.join(name)).ok());
        if let Some(value) = loose.map(|value| value.trim().to_owned()) {
            let is_value = value.starts_with("ref:") || Id::from_hex(&value).is_some();
            return is_value.then_some(value);
        }
        let packed = fs::read_to_string(self.folders.common.join("packed-refs")).ok()?;
        let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(_, packed)| *packed == name).map(|(id, _)| id.to_owned())
    }

    /// Follows tags to their commit.
    fn peel(&self, id: Id, name: &str) -> Result<Commit> {
        let mut id = id;
        for _ in 0..LINKS_MAX {
            let (kind, bytes) = self.node(id)?;
            let refuse = |what: &str| {
                let why = format!("`{name}` is {what}, not a commit");
                unreadable(&self.path, why, "`git log --all --oneline` lists commits")
            };
            match kind {
                Kind::Commit => {
                    let read = RawCommit::parse(&bytes).ok_or_else(|| self.damaged(id))?;
                    return Ok(Commit { id, tree: read.tree, seconds: read.seconds });
                }
                Kind::Tag => {
                    let text = String::from_utf8_lossy(&bytes);
                    let target = text.lines().next().and_then(|line| line.strip_prefix("object "));
                    id = target.and_then(Id::from_hex).ok_or_else(|| self.damaged(id))?;
                }
                Kind::Tree => return Err(refuse("a folder")),
                Kind::Blob => return Err(refuse("a file")),
            }
        }
        Err(unreadable(&self.path, format!("`{name}` leads from tag to tag"), "name a commit"))
    }

    /// Reads a commit, tag or tree.
    fn node(&self, id: Id) -> Result<(Kind, Vec<u8>)> {
        self.objects.read(id, NODE_BYTES_MAX).map_err(|refusal| match refusal {
            Refusal::Missing => unreadable(
                &self.path,
                format!("object {id} is missing"),
                "fetch all of it: `git fetch --unshallow --refetch --filter=blob:none` and without the filter",
            ),
            Refusal::Damaged => self.damaged(id),
            Refusal::TooLarge(bytes) => {
                let why = format!("object {id} has {bytes} bytes, {NODE_BYTES_MAX} are read");
                unreadable(&self.path, why, "no commit or folder has as many")
            }
        })
    }

    fn damaged(&self, id: Id) -> Error {
        unreadable(&self.path, format!("object {id} is damaged"), "`git fsck` says what else is")
    }

    fn tree(&self, id: Id) -> Result<Vec<TreeEntry>> {
        let (kind, bytes) = self.node(id)?;
        let entries = if kind == Kind::Tree { tree_entries(&bytes) } else { None };
        entries.ok_or_else(|| self.damaged(id))
    }

    /// Returns the files of a commit, of a folder before those of the folders in it; `Err` with the reason when they are too many.
    pub(super) fn files(&self, commit: &Commit) -> Result<Result<Vec<Blob>, &'static str>> {
        let mut files = Vec::new();
        // Folders that are still to be read, the next one last.
        let mut open = vec![(String::new(), commit.tree, 0)];
        while let Some((folder, tree, depth)) = open.pop() {
            let entries = self.tree(tree)?;
            if depth > DEPTH_MAX || files.len() + open.len() + entries.len() > FILES_MAX {
                return Ok(Err("too_many_entries"));
            }
            let mut below = Vec::new();
            for TreeEntry { kind, name, id } in entries {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                match kind {
                    EntryKind::Folder => below.push((path, id, depth + 1)),
                    EntryKind::File => files.push(Blob { path, id }),
                    EntryKind::Other => {}
                }
            }
            open.extend(below.into_iter().rev());
        }
        Ok(Ok(files))
    }

    /// Reads a blob of at most `bytes_max` bytes.
    pub(super) fn read(&self, id: Id, bytes_max: u64) -> Content {
        match self.objects.read(id, bytes_max) {
            Ok((Kind::Blob, bytes)) => Content::Bytes(bytes),
            Ok(_) | Err(Refusal::Damaged) => Content::Refused("bad_object", 0),
            Err(Refusal::Missing) => Content::Refused("missing_object", 0),
            Err(Refusal::TooLarge(bytes)) => Content::Refused("too_large", bytes),
        }
    }

    /// Walks the commits behind `commit`. A shallow clone ends where it was cut.
    pub(super) fn history(&self, commit: Id) -> Result<History> {
        let mut history = History { commits: HashSet::new(), trees: Vec::new(), roots: Vec::new() };
        let mut open = vec![commit];
        while let Some(id) = open.pop() {
            if history.commits.contains(&id) || (id != commit && !self.objects.has(id)) {
                continue;
            }
            history.commits.insert(id);
            let (_, bytes) = self.node(id)?;
            let read = RawCommit::parse(&bytes).ok_or_else(|| self.damaged(id))?;
            history.trees.push(read.tree);
            if read.parents.is_empty() {
                history.roots.push(id);
            }
            open.extend(read.parents);
        }
        Ok(history)
    }

    /// Returns the ids of all blobs that the history of `commit` ever held.
    pub(super) fn all_blobs(&self, commit: Id) -> Result<HashSet<Id>> {
        let mut seen = HashSet::new();
        let mut blobs = HashSet::new();
        let mut open = self.history(commit)?.trees;
        while let Some(tree) = open.pop() {
            if !seen.insert(tree) {
                continue;
            }
            for entry in self.tree(tree)? {
                match entry.kind {
                    EntryKind::Folder => open.push(entry.id),
                    EntryKind::File => {
                        blobs.insert(entry.id);
                    }
                    EntryKind::Other => {}
                }
            }
        }
        Ok(blobs)
    }
}

/// What a commit says, as far as it is needed.
struct RawCommit {
    tree: Id,
    parents: Vec<Id>,
    seconds: i64,
}

impl RawCommit {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let head = || text.lines().take_while(|line| !line.is_empty());
        let value = |name: &str| head().find_map(|line| line.strip_prefix(name));
        let parents = head().filter_map(|line| line.strip_prefix("parent "));
        // `A U Thor <a@b> 1714979289 +0200`
        let seconds = value("committer ").and_then(|line| line.rsplit(' ').nth(1)?.parse().ok());
        Some(Self {
            tree: Id::from_hex(value("tree ")?)?,
            parents: parents.map(Id::from_hex).collect::<Option<_>>()?,
            seconds: seconds.unwrap_or(0),
        })
    }
}

/// An entry of a folder.
struct TreeEntry {
    kind: EntryKind,
    name: String,
    id: Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    Folder,
    File,
    /// A link is a path, and a submodule is another repository's.
    Other,
}

/// Reads a folder: `100644 name\0` and an id, again and again.
fn tree_entries(bytes: &[u8]) -> Option<Vec<TreeEntry>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = memchr::memchr(0, rest)?;
        let (head, after) = (&rest[..end], &rest[end + 1..]);
        let space = memchr::memchr(b' ', head)?;
        let kind = match &head[..space] {
            b"40000" | b"040000" => EntryKind::Folder,
            mode if mode.starts_with(b"100") => EntryKind::File,
            _ => EntryKind::Other,
        };
        let name = String::from_utf8_lossy(&head[space + 1..]).into_owned();
        entries.push(TreeEntry { kind, name, id: Id::from_bytes(after)? });
        rest = after.get(20..)?;
    }
    Some(entries)
}
