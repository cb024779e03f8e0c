//! Paths, folders and patterns of a job to the files they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use shard::store;
use walkdir::{DirEntry, WalkDir};

use super::{SourceFile, SourceKind, git};
use crate::{Error, Result};

/// Folders of code that nobody wrote for the repository they lie in.
const IGNORED_FOLDERS: [&str; 2] = ["target", "node_modules"];
/// Names that an error about a pattern lists.
const NEAR_MISSES: usize = 5;

/// Returns the files that `patterns` name, sorted by name, each once.
///
/// A pattern is a file, a folder (searched for [`SourceKind::patterns`], everything below it) or a glob (`raw/*.warc.gz`, `**`,
/// `{a,b}`), relative to `base`. Hidden files and folders are passed over in folders and globs, build output too where
/// the kind is `code`. A name is the path relative to `base`; of a file elsewhere it is the last folder that the pattern
/// names and what is below it, so that moving the data does not change a document's id. A pattern that begins with `s3://`,
/// `gs://` or `az://` names objects of a store in the same ways, one with `https://` a file on the web.
///
/// # Errors
/// When a pattern is no glob, names nothing (the message says where it was looked for, and what lies there), or two files get one name.
pub fn files(
    kind: &SourceKind,
    patterns: &[impl AsRef<str>],
    base: &Path,
) -> Result<Vec<SourceFile>> {
    let mut found: BTreeMap<String, SourceFile> = BTreeMap::new();
    for pattern in patterns {
        let pattern = pattern.as_ref();
        if store::is_object(Path::new(pattern)) {
            for file in objects(kind, pattern)? {
                add(&mut found, kind, file)?;
            }
            continue;
        }
        let (root, glob) = split(pattern, base);
        let files = if glob.is_empty() {
            list(&root, kind, None)?
        } else {
            list(&root, kind, Some(&globs(kind.name, &[&glob])?))?
        };
        if files.is_empty() {
            return Err(nothing(kind, pattern, &root));
        }
        for path in files {
            let name = name(&path, &root, base);
            let bytes = if path.is_dir() {
                git::bytes(&path)?
            } else {
                fs::metadata(&path).map_err(Error::io("look at", &path))?.len()
            };
            add(&mut found, kind, SourceFile { path, name, bytes })?;
        }
    }
    Ok(found.into_values().collect())
}

fn add(
    found: &mut BTreeMap<String, SourceFile>,
    kind: &SourceKind,
    file: SourceFile,
) -> Result<()> {
    if let Some(other) = found.get(&file.name).filter(|other| other.path != file.path) {
        return Err(Error::Config {
            name: kind.name.to_owned(),
            message: format!(
                "`{}` and `{}` would both be called `{}`\nhint: make them two sources, or move them below the job",
                other.path.display(),
                file.path.display(),
                file.name
            ),
        });
    }
    found.insert(file.name.clone(), file);
    Ok(())
}

/// Returns the objects that `pattern` names in a store: one, those below a folder, or those that a glob matches.
///
/// They are named as files elsewhere are, so that moving data into a store changes no document's id.
fn objects(kind: &SourceKind, pattern: &str) -> Result<Vec<SourceFile>> {
    let pattern = pattern.trim_end_matches('/');
    let refuse = |message: String| Error::Config { name: kind.name.to_owned(), message };
    if kind.name == git::KIND.name {
        let hint = "clone it to a folder, or read an archive of it with the source `code`";
        return Err(refuse(format!("`{pattern}` is no folder with a repository\nhint: {hint}")));
    }
    let is_glob = |part: &str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<&str> = pattern.split('/').collect();
    let n = parts.iter().position(|part| is_glob(part)).unwrap_or(parts.len());
    let (root, glob) = (PathBuf::from(parts[..n].join("/")), parts[n..].join("/"));
    let stored = |error: shard::Error| refuse(error.to_string());
    let mut found = Vec::new();
    if glob.is_empty()
        && let Some(bytes) = store::size(&root).map_err(stored)?
    {
        found.push((root.clone(), bytes));
    } else if store::is_web(&root) {
        let hint = "name the file itself: servers on the web list no folders";
        return Err(refuse(format!("nothing is at `{pattern}`\nhint: {hint}")));
    } else {
        let is_code = kind.document_kind == "code";
        let set = match glob.is_empty() {
            true => globs(kind.name, kind.patterns)?,
            false => globs(kind.name, &[&glob])?,
        };
        for (name, bytes) in store::list_objects(&root).map_err(stored)? {
            let mut folders = name.split('/');
            let last = folders.next_back().unwrap_or_default();
            let is_passed = name.split('/').any(|part| part.starts_with('.'))
                || is_code && folders.any(|part| IGNORED_FOLDERS.contains(&part));
            if !is_passed && set.is_match(if glob.is_empty() { last } else { name.as_str() }) {
                found.push((root.join(&name), bytes));
            }
        }
    }
    if found.is_empty() {
        let hint = "look at the prefix with the store's own tools";
        return Err(refuse(format!("`path` names nothing: `{pattern}`\nhint: {hint}")));
    }
    // Nothing in a store is below it.
    let base = Path::new("/");
    let named = found.into_iter().map(|(path, bytes)| {
        let name = name(&path, &root, base);
        SourceFile { path, name, bytes }
    });
    Ok(named.collect())
}

/// Splits `pattern` into the folder (or file) that it names literally and the glob below it.
fn split(pattern: &str, base: &Path) -> (PathBuf, String) {
    let literal = base.join(pattern);
    if literal.symlink_metadata().is_ok() {
        return (literal, String::new());
    }
    let is_glob = |part: &str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<&str> = pattern.split('/').collect();
    let n = parts.iter().position(|part| is_glob(part)).unwrap_or(parts.len());
    let folder = parts[..n].join("/");
    let root = match (folder.is_empty(), pattern.starts_with('/')) {
        (true, true) => PathBuf::from("/"),
        (true, false) => base.to_owned(),
        (false, _) => base.join(&folder),
    };
    (root, parts[n..].join("/"))
}

fn globs(kind: &str, patterns: &[&str]) -> Result<GlobSet> {
    let refuse = |error: globset::Error| Error::Config {
        name: kind.to_owned(),
        message: format!("path: {error}"),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(refuse)?);
    }
    set.build().map_err(refuse)
}

/// Returns the files below `root` that match `glob` by their path, or the kind's patterns by their name.
///
/// Of the kind `git` the files are folders: repositories, which are not searched any further.
fn list(root: &Path, kind: &SourceKind, glob: Option<&GlobSet>) -> Result<Vec<PathBuf>> {
    let takes_folders = kind.name == git::KIND.name;
    let is_repository = |path: &Path| takes_folders && git::is_repository(path);
    if is_repository(root) {
        return Ok(if glob.is_none() { vec![root.to_owned()] } else { Vec::new() });
    }
    let metadata = match fs::metadata(root) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("look at", root)(error)),
    };
    if metadata.is_file() {
        return Ok(if glob.is_none() && !takes_folders {
            vec![root.to_owned()]
        } else {
            Vec::new()
        });
    }
    let by_name = globs(kind.name, kind.patterns)?;
    let is_code = kind.document_kind == "code";
    let mut files = Vec::new();
    let mut entries = WalkDir::new(root).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(root).to_owned();
            Error::io("search", path)(error.into())
        })?;
        let is_folder = entry.file_type().is_dir();
        let is_unit = is_folder && is_repository(entry.path());
        let is_passed = entry.depth() > 0 && !is_visible(&entry, is_code);
        if is_folder && (is_unit || is_passed) {
            entries.skip_current_dir();
        }
        // A link to a file is read; a link to a folder is not followed, it may lead back.
        let is_file = entry.file_type().is_file() || entry.path().is_file();
        if is_passed || if takes_folders { !is_unit } else { !is_file } {
            continue;
        }
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let is_match = match glob {
            Some(glob) => glob.is_match(below),
            None => by_name.is_match(entry.file_name()),
        };
        if is_match {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn is_visible(entry: &DirEntry, is_code: bool) -> bool {
    let name = entry.file_name().to_string_lossy();
    let is_ignored =
        is_code && entry.file_type().is_dir() && IGNORED_FOLDERS.contains(&name.as_ref());
    !name.starts_with('.') && !is_ignored
}

/// Names `path` without the part that differs between machines.
fn name(path: &Path, root: &Path, base: &Path) -> String {
    let relative = path
        .strip_prefix(base)
        .ok()
        .filter(|relative| relative.components().all(|part| !matches!(part, Component::ParentDir)));
    let relative = relative.or_else(|| {
        let folder = if path == root { root.parent()? } else { root };
        path.strip_prefix(folder.parent()?).ok()
    });
    let parts = relative.unwrap_or(path).components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn nothing(kind: &SourceKind, pattern: &str, root: &Path) -> Error {
    // The nearest folder that is there.
    let place = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let mut names: Vec<String> = fs::read_dir(place)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    let n_names = names.len();
    names.truncate(NEAR_MISSES);
    let hint = match names.as_slice() {
        [] => "that folder is empty".to_owned(),
        names => format!("that folder has {n_names} entries: `{}`", names.join("`, `")),
    };
    let looked_for = match kind.patterns {
        _ if kind.name == git::KIND.name => ", and it holds no repository".to_owned(),
        [] => String::new(),
        patterns => format!(" (a folder is searched for `{}`)", patterns.join("`, `")),
    };
    Error::Config {
        name: kind.name.to_owned(),
        message: format!(
            "no file matches `{pattern}`, looked in `{}`{looked_for}\nhint: {hint}",
            place.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::{kind, testing};
    use super::files;

    fn names(kind_name: &str, pattern: &str, base: &Path) -> Vec<String> {
        let found = files(kind(kind_name).unwrap(), &[pattern], base).unwrap();
        found.into_iter().map(|file| file.name).collect()
    }

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn expands_files_folders_and_globs_in_order_of_name() {
        let folder = tree(&["raw/b.warc.gz", "raw/a.warc", "raw/deep/c.warc.gz", "raw/n.txt"]);
        let base = folder.path();
        assert_eq!(names("warc", "raw/a.warc", base), ["raw/a.warc"]);
        assert_eq!(names("warc", "raw/*.warc.gz", base), ["raw/b.warc.gz"]);
        let all = ["raw/a.warc", "raw/b.warc.gz", "raw/deep/c.warc.gz"];
        assert_eq!(names("warc", "raw", base), all);
        assert_eq!(names("warc", "raw/**/*.warc*", base), all);
        assert_eq!(names("warc", "**/{a,b}.warc*", base), all[..2]);
        assert_eq!(names("text", "raw/*", base), ["raw/a.warc", "raw/b.warc.gz", "raw/n.txt"]);
    }

    #[test]
    fn takes_the_shards_of_a_hugging_face_dataset_all_or_by_split() {
        let folder = tree(&[
            "d/.gitattributes",
            "d/.cache/huggingface/x.parquet",
            "d/README.md",
            "d/data/test-00000-of-00001.parquet",
            "d/data/train-00000-of-00002.parquet",
            "d/data/train-00001-of-00002.parquet",
            "d/en/validation/0000.parquet",
        ]);
        let all = names("parquet", "d", folder.path());
        let shards = [
            "d/data/test-00000-of-00001.parquet",
            "d/data/train-00000-of-00002.parquet",
            "d/data/train-00001-of-00002.parquet",
            "d/en/validation/0000.parquet",
        ];
        assert_eq!(all, shards);
        assert_eq!(names("parquet", "d/**/train*.parquet", folder.path()), shards[1..3]);
        assert_eq!(names("parquet", "d/**/{train,test}-*", folder.path()), shards[..3]);
    }

    #[test]
    fn passes_over_hidden_files_and_build_output() {
        let folder = tree(&["r/.git/x.rs", "r/target/y.rs", "r/src/z.rs", "r/node_modules/m.js"]);
        assert_eq!(names("code", "r", folder.path()), ["r/src/z.rs"]);
    }

    #[test]
    fn names_files_elsewhere_by_the_folder_that_was_given() {
        let folder = tree(&["jobs/x", "raw/deep/a.warc"]);
        let elsewhere = folder.path().join("raw");
        let base = folder.path().join("jobs");
        let pattern = elsewhere.to_str().unwrap();
        assert_eq!(names("warc", pattern, &base), ["raw/deep/a.warc"]);
        assert_eq!(names("warc", &format!("{pattern}/**/*.warc"), &base), ["raw/deep/a.warc"]);
        assert_eq!(names("warc", "../raw/**", &base), ["raw/deep/a.warc"]);
        assert_eq!(names("warc", &format!("{pattern}/deep/a.warc"), &base), ["deep/a.warc"]);
    }

    #[test]
    fn says_where_it_looked_for_a_pattern_that_matches_nothing() {
        let folder = tree(&["raw/a.warc"]);
        let error = files(kind("warc").unwrap(), &["raw/*.warc.gz"], folder.path());
        let message = error.unwrap_err().to_string();
        assert!(message.contains("`raw/*.warc.gz`"), "{message}");
        assert!(message.contains("1 entries: `a.warc`"), "{message}");
        let message =
            files(kind("warc").unwrap(), &["rew"], folder.path()).unwrap_err().to_string();
        assert!(message.contains("`raw`"), "{message}");
    }

    #[test]
    fn every_kind_is_listed_once_in_order() {
        let names: Vec<&str> = super::super::KINDS.iter().map(|kind| kind.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for kind in super::super::KINDS {
            testing::build(kind, "");
            testing::build(kind, &(kind.default_config)().to_string());
        }
    }
}
