//! The commit protocol when every operation fails, dies or is cut short, one after the other.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::{batch, write};
use super::*;
use crate::manifest::SourceRead;
use crate::store::fault::{self, Fault};

fn rows(first: u128, n: u128) -> Vec<(u128, Vec<u32>)> {
    (first..first + n).map(|id| (id, vec![u32::try_from(id).unwrap(); 5])).collect()
}

/// The version that is there before anything goes wrong.
fn prepare(folder: &Path) {
    let dataset = Dataset::at(folder);
    dataset.commit(0, write(&dataset, "train", &[rows(0, 40)])).unwrap();
}

/// What a stage does: shards, a manifest, a card.
fn work(folder: &Path) -> Result<()> {
    let dataset = Dataset::at(folder);
    let manifest = try_write(&dataset)?;
    let snapshot = dataset.commit(1, manifest)?;
    store::replace(&folder.join("README.md"), snapshot.manifest_hash.as_bytes())
}

fn try_write(dataset: &Dataset) -> Result<Manifest> {
    use crate::schema::DatasetKind;
    use crate::writer::{ShardWriter, number_tokens};
    let schema = DatasetKind::Tokens.schema();
    let config = serde_json::json!({});
    let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, "second".to_owned(), config);
    for i in 0..2 {
        let name = format!("train-{i:05}");
        let mut writer = ShardWriter::create(dataset, &name, "train", &schema)?;
        writer.write(&batch(&rows(100 * (i + 1), 60)))?;
        manifest.shards.push(writer.finish()?);
    }
    number_tokens(&mut manifest.shards);
    manifest.counts.n_in = 120;
    manifest.counts.n_kept = 120;
    Ok(manifest)
}

/// Every file by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for part in [".", MANIFESTS, DATA] {
        for name in store::list(&folder.join(part)).unwrap() {
            let path = folder.join(part).join(&name);
            if path.is_file() {
                found.insert(format!("{part}/{name}"), fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Readers see whole versions only, and no torn file has a final name.
fn assert_whole(folder: &Path, point: &str) {
    let dataset = Dataset::at(folder);
    let versions = dataset.versions().unwrap();
    assert!(versions == [1] || versions == [1, 2], "{point}: {versions:?}");
    assert_eq!(dataset.verify(true).unwrap().failures, [], "{point}");
    for name in store::list(&folder.join(DATA)).unwrap() {
        if !name.starts_with(store::ASIDE) {
            let hash = store::hash_file(&folder.join(DATA).join(&name)).unwrap();
            assert!(name.contains(&hash[..12]), "{point}: torn `{name}`");
        }
    }
}

fn undisturbed() -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    fault::record();
    work(folder.path()).unwrap();
    let points = fault::disarm();
    (points, files(folder.path()))
}

#[test]
fn a_fault_at_any_point_leaves_whole_versions_and_the_rerun_ends_the_same() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let (points, expected) = undisturbed();
    let mut hits = BTreeMap::<String, u32>::new();
    for (index, point) in points.iter().enumerate() {
        for kind in [Fault::Error, Fault::Panic, Fault::Partial, Fault::Delay] {
            let place = format!("{kind:?} at {index}, {point}");
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            fault::arm(index, kind);
            let result = panic::catch_unwind(AssertUnwindSafe(|| work(folder.path())));
            let reached = fault::disarm();
            assert_eq!(reached.get(index), Some(point), "{place}");
            match kind {
                Fault::Panic => assert!(result.is_err(), "{place}"),
                Fault::Delay => result.unwrap().unwrap(),
                // A failure is never success, and is not tried again in secret.
                _ => {
                    let error = result.unwrap().unwrap_err().to_string();
                    assert!(error.starts_with("cannot "), "{place}: {error}");
                }
            }
            assert_whole(folder.path(), &place);
            work(folder.path()).unwrap();
            Dataset::at(folder.path()).clean().unwrap();
            Dataset::at(folder.path()).remove_half_written().unwrap();
            assert_eq!(files(folder.path()), expected, "{place}");
            *hits.entry(format!("{kind:?} {point}")).or_default() += 1;
        }
    }
    panic::set_hook(hook);
    let operations = ["create", "write", "sync", "rename", "sync_folder", "link", "remove"];
    for operation in operations {
        for when in ["before", "after"] {
            for kind in ["Error", "Panic", "Partial", "Delay"] {
                assert!(hits[&format!("{kind} {when} {operation}")] > 0);
            }
        }
    }
    println!("{} points, {} faults: {hits:?}", points.len(), hits.values().sum::<u32>());
}

const ABORT_AT: &str = "GRISTMILL_ABORT_AT";

#[test]
fn a_process_that_dies_at_any_point_leaves_whole_versions() {
    if let Ok(at) = env::var(ABORT_AT) {
        let (index, folder) = at.split_once(' ').unwrap();
        fault::arm(index.parse().unwrap(), Fault::Abort);
        work(Path::new(folder)).unwrap();
        unreachable!("the point is reached");
    }
    let (points, expected) = undisturbed();
    for (index, point) in points.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let status = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "dataset::faults::a_process_that_dies_at_any_point_leaves_whole_versions",
            ])
            .env(ABORT_AT, format!("{index} {}", folder.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), None, "{index}, {point}: killed by a signal, not {status}");
        assert_whole(folder.path(), point);
        work(folder.path()).unwrap();
        Dataset::at(folder.path()).clean().unwrap();
        Dataset::at(folder.path()).remove_half_written().unwrap();
        assert_eq!(files(folder.path()), expected, "{index}, {point}");
    }
    println!("{} processes died, each at another point", points.len());
}

#[test]
fn data_is_durable_before_its_name_and_names_before_the_manifest() {
    let (points, _) = undisturbed();
    let after: Vec<&str> = points.iter().filter_map(|it| it.strip_prefix("after ")).collect();
    let shard = ["create", "write", "sync", "rename", "sync_folder"];
    let manifest = ["create", "write", "sync", "link", "remove", "sync_folder"];
    let wanted: Vec<&str> = [&shard[..], &shard, &manifest, &shard].concat();
    assert_eq!(after, wanted);
}

#[test]
fn a_full_disk_is_named_with_the_bytes_that_need_room() {
    let (points, _) = undisturbed();
    let writes: Vec<usize> =
        (0..points.len()).filter(|index| points[*index] == "before write").collect();
    assert_eq!(writes.len(), 4);
    for index in writes {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        fault::arm(index, Fault::Partial);
        let error = work(folder.path()).unwrap_err().to_string();
        fault::disarm();
        assert!(error.starts_with("cannot write `"), "{error}");
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
        assert!(error.contains("more bytes after 0 need room"), "{error}");
    }
}

const WRITER: &str = "GRISTMILL_WRITER";

/// Commits of `n_writers` processes, which all want the next version of the dataset in `folder`.
fn race(folder: &Path, n_writers: u64, n_commits: u64) {
    prepare(folder);
    let children: Vec<_> = (0..n_writers)
        .map(|writer| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "dataset::faults::no_commit_of_racing_processes_is_lost"])
                .env(WRITER, format!("{writer} {n_commits} {}", folder.display()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let dataset = Dataset::at(folder);
    let versions = dataset.versions().unwrap();
    let n = n_writers * n_commits;
    assert_eq!(versions, (1..=n + 1).collect::<Vec<_>>());
    let newest = dataset.open(None).unwrap().manifest;
    let mut names: Vec<_> = newest.sources.iter().map(|source| source.file.clone()).collect();
    // Each version is the one before it and one commit more.
    for version in [2, n / 2, n] {
        let sources = dataset.open(Some(version)).unwrap().manifest.sources;
        assert_eq!(sources[..], newest.sources[..usize::try_from(version - 1).unwrap()]);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len() as u64, n, "commits are lost or doubled");
    println!("{n_writers} processes, {n} commits, 0 lost");
}

pub(super) fn commit_often(writer: &str, n_commits: u64, folder: &Path) {
    let dataset = Dataset::at(folder);
    for commit in 0..n_commits {
        loop {
            let newest = dataset.open(None).unwrap();
            let mut manifest = newest.manifest;
            manifest.sources.push(SourceRead {
                source: writer.to_owned(),
                file: format!("{writer}-{commit}"),
                bytes: 0,
                blake3: String::new(),
                arrival: 0,
            });
            match dataset.commit(newest.version, manifest) {
                Ok(_) => break,
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn no_commit_of_racing_processes_is_lost() {
    if let Ok(job) = env::var(WRITER) {
        let parts: Vec<_> = job.splitn(3, ' ').collect();
        return commit_often(parts[0], parts[1].parse().unwrap(), Path::new(parts[2]));
    }
    let n_commits = env::var("GRISTMILL_COMMITS").map_or(10, |n| n.parse().unwrap());
    for n_writers in [2, 8] {
        race(tempfile::tempdir().unwrap().path(), n_writers, n_commits);
    }
}

#[test]
fn no_commit_of_racing_processes_is_lost_in_an_object_store() {
    let Ok(bucket) = env::var("GRISTMILL_S3") else {
        println!("skipped: GRISTMILL_S3 names no bucket, `make s3` starts a server with one");
        return;
    };
    let n_commits = env::var("GRISTMILL_COMMITS").map_or(10, |n| n.parse().unwrap());
    for n_writers in [2, 8] {
        let id = std::process::id();
        let folder = format!("{bucket}/race-{id}/{n_writers}");
        race(Path::new(&folder), n_writers, n_commits);
    }
}
