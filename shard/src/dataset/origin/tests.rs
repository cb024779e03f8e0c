use std::collections::BTreeMap;

use super::super::tests::write;
use super::*;
use crate::reader::{ReaderConfig, SequenceReader};

fn rows(first: u128, n: u128) -> Vec<(u128, Vec<u32>)> {
    (first..first + n).map(|id| (id, vec![u32::try_from(id).unwrap(); 7])).collect()
}

/// Every object or file of a dataset by name.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for part in ["", "manifest", "data"] {
        let folder = path.join(part);
        for name in store::list(&folder).unwrap() {
            if !["manifest", "data"].contains(&name.as_str()) {
                let bytes = store::read(&folder.join(&name)).unwrap().unwrap();
                found.insert(format!("{part}/{name}"), bytes);
            }
        }
    }
    found
}

#[test]
fn a_dataset_in_a_store_has_the_bytes_of_a_local_one() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (Dataset::at(folder.path()), Dataset::at("memory://same/corpus/tokens"));
    for dataset in [&here, &there] {
        dataset.commit(0, write(dataset, "train", &[rows(0, 40), rows(100, 20)])).unwrap();
        dataset.commit(1, write(dataset, "train", &[rows(0, 40), rows(200, 30)])).unwrap();
    }
    assert_eq!(files(here.path()), files(there.path()));
    assert_eq!(there.versions().unwrap(), [1, 2]);
    let (local, stored) = (here.open(None).unwrap(), there.open(None).unwrap());
    assert_eq!(local.manifest_hash, stored.manifest_hash);
    assert!(stored.is_present().unwrap());
    let verified = there.verify(true).unwrap();
    assert_eq!((verified.n_versions, verified.n_shards, verified.n_rows), (2, 3, 90));
    assert_eq!(verified.failures, []);
    let refused = there.commit(1, write(&there, "train", &[rows(0, 3)])).unwrap_err();
    assert!(matches!(refused, Error::Conflict { version: 2, .. }), "{refused}");
    // The shard of that try is all that no version names.
    let removed = there.clean().unwrap();
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!(files(here.path()), files(there.path()));
    assert!(there.clean().unwrap().is_empty());
}

#[test]
fn a_reader_gives_the_same_sequences_from_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (Dataset::at(folder.path()), Dataset::at("memory://read/tokens"));
    for dataset in [&here, &there] {
        dataset.commit(0, write(dataset, "train", &[rows(0, 90), rows(100, 50)])).unwrap();
    }
    let config = ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len: 16,
        seed: 3,
        verify: true,
        packing: crate::packing::Packing::Stream,
        mask_documents: false,
    };
    let open = |path: &Path| SequenceReader::open(path, None, config.clone()).unwrap();
    let (mut a, mut b) = (open(here.path()), open(there.path()));
    assert_eq!(a.state(5), b.state(5));
    let (mut wanted, mut found) = (vec![0; 17], vec![0; 17]);
    for sample in (0..2 * a.n_sequences()).rev() {
        a.read(sample, &mut wanted).unwrap();
        b.read(sample, &mut found).unwrap();
        assert_eq!(wanted, found, "sample {sample}");
    }
}

#[test]
fn a_damaged_object_is_named_with_both_hashes() {
    let there = Dataset::at("memory://damaged/tokens");
    let snapshot = there.commit(0, write(&there, "train", &[rows(0, 90)])).unwrap();
    let shard = &snapshot.manifest.shards[0];
    let path = snapshot.shard_path(shard);
    let mut bytes = store::read(&path).unwrap().unwrap();
    bytes[40] ^= 1;
    store::replace(&path, &bytes).unwrap();
    store::forget(&shard.blake3).unwrap();
    let found = blake3::hash(&bytes).to_hex().to_string();
    let failures = there.verify(false).unwrap().failures;
    let errors =
        [failures[0].message.clone(), snapshot.local_shard(shard).unwrap_err().to_string()];
    for error in errors {
        for wanted in [path.to_str().unwrap(), &shard.blake3, &found] {
            assert!(error.contains(wanted), "{error}");
        }
    }
    store::remove(&path).unwrap();
    assert!(!snapshot.is_present().unwrap());
}

#[test]
fn a_commit_in_a_working_copy_is_one_in_the_store_and_another_folder_can_go_on() {
    let origin = "memory://copy/corpus/tokens";
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|it| Dataset::working_copy(it.path(), origin));
    assert_eq!(first.pull().unwrap(), 0, "nothing is there yet");
    store::replace(&first.path().join("README.md"), b"a card").unwrap();
    let made = first.commit(0, write(&first, "train", &[rows(0, 40)])).unwrap();
    assert_eq!(made.path, first.path());
    assert_eq!(files(first.path()), files(Path::new(origin)));
    assert_eq!(second.pull().unwrap(), 3, "a shard, a card and a manifest");
    assert_eq!(files(second.path()), files(first.path()));
    assert_eq!(second.pull().unwrap(), 0);
    second.commit(1, write(&second, "train", &[rows(0, 40), rows(50, 9)])).unwrap();
    // The one that has not seen it loses, and keeps what it wrote for its next try.
    let late = write(&first, "train", &[rows(0, 40), rows(70, 5)]);
    let error = first.commit(1, late.clone()).unwrap_err();
    assert!(matches!(error, Error::Conflict { version: 2, .. }), "{error}");
    assert_eq!(first.versions().unwrap(), [1]);
    first.pull().unwrap();
    assert_eq!(first.open(None).unwrap().manifest, second.open(None).unwrap().manifest);
    assert_eq!(first.commit(2, late).unwrap().version, 3);
    assert_eq!(Dataset::at(origin).versions().unwrap(), [1, 2, 3]);
}

#[test]
fn versions_that_the_store_does_not_have_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let alone = Dataset::at(folder.path());
    alone.commit(0, write(&alone, "train", &[rows(0, 4)])).unwrap();
    let copy = Dataset::working_copy(folder.path(), "memory://none/tokens");
    copy.pull().unwrap();
    assert!(copy.versions().unwrap().is_empty());
}

#[test]
fn threads_that_commit_to_a_store_lose_nothing() {
    let dataset = Dataset::at("memory://threads/tokens");
    dataset.commit(0, write(&dataset, "train", &[rows(0, 4)])).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = dataset.path();
            scope.spawn(move || super::super::faults::commit_often(&writer.to_string(), 200, path));
        }
    });
    assert_eq!(dataset.versions().unwrap(), (1..=1601).collect::<Vec<_>>());
    let sources = dataset.open(None).unwrap().manifest.sources;
    let names: std::collections::BTreeSet<_> = sources.iter().map(|it| &it.file).collect();
    assert_eq!((sources.len(), names.len()), (1600, 1600), "commits are lost or doubled");
}
