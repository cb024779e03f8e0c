use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{FixedSizeBinaryArray, ListArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::*;
use crate::schema::DatasetKind;
use crate::writer::{ShardWriter, number_tokens};

/// Rows of tokens: `(id, tokens)`.
pub(crate) fn batch(rows: &[(u128, Vec<u32>)]) -> RecordBatch {
    let ids = rows.iter().map(|(id, _)| id.to_be_bytes());
    let ids = FixedSizeBinaryArray::try_from_iter(ids).unwrap();
    let lists =
        rows.iter().map(|(_, tokens)| Some(tokens.iter().map(|t| Some(*t)).collect::<Vec<_>>()));
    let (_, offsets, values, nulls) =
        ListArray::from_iter_primitive::<UInt32Type, _, _>(lists).into_parts();
    let schema = DatasetKind::Tokens.schema();
    let arrow::datatypes::DataType::List(item) = schema.field(1).data_type() else {
        unreachable!()
    };
    assert!(nulls.is_none());
    let lists = ListArray::new(Arc::clone(item), offsets, values, None);
    let lengths = rows.iter().map(|(_, tokens)| u32::try_from(tokens.len()).unwrap());
    let lengths = UInt32Array::from_iter_values(lengths);
    RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(lists), Arc::new(lengths)]).unwrap()
}

/// Writes one shard per item of `shards` and returns the manifest, not committed yet.
pub(crate) fn write(dataset: &Dataset, split: &str, shards: &[Vec<(u128, Vec<u32>)>]) -> Manifest {
    let schema = DatasetKind::Tokens.schema();
    let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, "test".to_owned(), json!({}));
    for (i, rows) in shards.iter().enumerate() {
        let name = format!("{split}-{i:05}");
        let mut writer = ShardWriter::create(dataset, &name, split, &schema).unwrap();
        if !rows.is_empty() {
            writer.write(&batch(rows)).unwrap();
        }
        manifest.shards.push(writer.finish().unwrap());
    }
    number_tokens(&mut manifest.shards);
    let n = manifest.n_rows();
    manifest.counts.n_in = n;
    manifest.counts.n_kept = n;
    manifest
}

fn rows(n: u128) -> Vec<(u128, Vec<u32>)> {
    (0..n).map(|id| (id, vec![u32::try_from(id).unwrap(); 3])).collect()
}

#[test]
fn the_second_writer_of_a_version_gets_a_conflict_and_wins_on_top() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let first = dataset.commit(0, write(&dataset, "train", &[rows(2)])).unwrap();
    assert_eq!(first.version, 1);
    let other = write(&dataset, "train", &[rows(3)]);
    let error = dataset.commit(0, other.clone()).unwrap_err();
    assert!(matches!(error, Error::Conflict { version: 1, .. }), "{error}");
    assert!(error.is_retryable());
    assert_eq!(dataset.commit(1, other).unwrap().version, 2);
    assert_eq!(dataset.versions().unwrap(), [1, 2]);
    assert_eq!(dataset.open(Some(1)).unwrap(), first);
}

#[test]
fn committing_the_same_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let manifest = write(&dataset, "train", &[rows(2)]);
    let first = dataset.commit(0, manifest.clone()).unwrap();
    assert_eq!(dataset.commit(0, manifest.clone()).unwrap(), first);
    assert_eq!(dataset.commit(1, manifest).unwrap(), first);
    assert_eq!(dataset.versions().unwrap(), [1]);
}

#[test]
fn clean_removes_what_no_version_names_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[rows(2), rows(5)])).unwrap();
    dataset.commit(1, write(&dataset, "train", &[rows(4)])).unwrap();
    let named: Vec<_> = store::list(&folder.path().join(DATA)).unwrap();
    write(&dataset, "train", &[rows(9)]);
    store::create_folder(&dataset.staging()).unwrap();
    fs::write(dataset.staging().join("part"), b"x").unwrap();
    fs::write(folder.path().join(DATA).join(".tmp-1-2"), b"x").unwrap();
    fs::write(folder.path().join(".tmp-1-2"), b"x").unwrap();
    fs::write(folder.path().join("README.md"), b"mine").unwrap();
    let removed = dataset.clean().unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(store::list(&folder.path().join(DATA)).unwrap(), named);
    assert_eq!(store::list(folder.path()).unwrap(), ["README.md", DATA, MANIFESTS]);
    assert!(dataset.clean().unwrap().is_empty());
}

#[test]
fn a_version_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    assert!(matches!(dataset.open(None), Err(Error::Missing { .. })));
    assert_eq!(dataset.newest().unwrap(), None);
    dataset.commit(0, write(&dataset, "train", &[rows(2)])).unwrap();
    let error = dataset.open(Some(7)).unwrap_err().to_string();
    assert!(error.contains("version 7") && error.contains("[1]"), "{error}");
}

#[test]
fn each_of_1000_flipped_bits_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[rows(300), rows(200)])).unwrap();
    let snapshot = dataset.open(None).unwrap();
    let mut files: Vec<_> =
        snapshot.manifest.shards.iter().map(|shard| snapshot.shard_path(shard)).collect();
    files.push(dataset.manifest_path(1));
    let whole: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut found = [0; 3];
    for i in 0..1000_u64 {
        let which = usize::try_from(i % 3).unwrap();
        let at = crate::order::seed_from(&[i]) % (whole[which].len() as u64 * 8);
        let mut bytes = whole[which].clone();
        bytes[usize::try_from(at / 8).unwrap()] ^= 1 << (at % 8);
        fs::write(&files[which], bytes).unwrap();
        let failures = dataset.verify(false).unwrap().failures;
        assert_eq!(failures.len(), 1, "bit {at} of `{}`", files[which].display());
        assert_eq!(failures[0].path, files[which]);
        fs::write(&files[which], &whole[which]).unwrap();
        found[which] += 1;
    }
    println!("flipped bits found: {found:?} in two shards and a manifest");
    assert_eq!(found.iter().sum::<u32>(), 1000);
    assert!(dataset.verify(true).unwrap().failures.is_empty());
}

#[test]
fn cut_and_swapped_shards_are_found_and_the_swap_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    // Of the same size: only the hash tells.
    let shards = [rows(40), (100..140_u128).map(|id| (id, vec![7; 3])).collect()];
    let snapshot = dataset.commit(0, write(&dataset, "train", &shards)).unwrap();
    let paths: Vec<_> =
        snapshot.manifest.shards.iter().map(|shard| snapshot.shard_path(shard)).collect();
    let whole: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    fs::write(&paths[0], &whole[1]).unwrap();
    fs::write(&paths[1], &whole[0]).unwrap();
    assert_eq!(dataset.verify(false).unwrap().failures.len(), 2);
    dataset.repair().unwrap();
    assert_eq!(dataset.verify(true).unwrap().failures, []);
    assert_eq!(fs::read(&paths[0]).unwrap(), whole[0]);

    fs::write(&paths[0], &whole[0][..whole[0].len() - 1]).unwrap();
    let failures = dataset.verify(false).unwrap().failures;
    let (cut, all) = (whole[0].len() - 1, whole[0].len());
    let says = format!("it has {cut} bytes, manifest says {all}");
    assert!(failures[0].message.contains(&says), "{failures:?}");
    // The swap left a copy aside.
    dataset.repair().unwrap();
    assert_eq!(dataset.verify(true).unwrap().failures, []);
}

#[test]
fn what_cannot_be_put_right_is_set_aside_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[rows(2)])).unwrap();
    let second = write(&dataset, "train", &[rows(30)]);
    dataset.commit(1, second.clone()).unwrap();
    let shard = folder.path().join(&second.shards[0].path);
    let manifest = dataset.manifest_path(2);
    for path in [&shard, &manifest] {
        let mut bytes = fs::read(path).unwrap();
        bytes[30] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(dataset.verify(false).unwrap().failures.len(), 1, "the manifest");
    let moved = dataset.repair().unwrap();
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].0, manifest);
    assert_eq!(dataset.versions().unwrap(), [1]);
    // The job runs again.
    write(&dataset, "train", &[rows(30)]);
    dataset.commit(1, second).unwrap();
    assert_eq!(dataset.verify(true).unwrap().failures, []);
    fs::write(&shard, b"nothing").unwrap();
    assert!(!dataset.open(None).unwrap().is_present().unwrap());
    dataset.repair().unwrap();
    let failures = dataset.verify(false).unwrap().failures;
    assert!(failures[0].message.contains("cannot read"), "{failures:?}");
}

#[test]
fn a_manifest_of_a_newer_format_is_not_taken_for_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[rows(2)])).unwrap();
    let newer = br#"{"format_version": 2, "and": "all else in another way"}"#;
    fs::write(dataset.manifest_path(2), newer).unwrap();
    let failures = dataset.verify(false).unwrap().failures;
    let says = "00000002.json`: it has format version 2, this build reads 1";
    assert!(failures[0].message.contains(says), "{failures:?}");
    assert!(matches!(dataset.repair(), Err(Error::Format { found: 2, known: 1, .. })));
    assert_eq!(fs::read(dataset.manifest_path(2)).unwrap(), newer);
}

#[test]
fn a_deep_look_finds_what_hashes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path().join("tokens"));
    let mut manifest = write(&dataset, "train", &[rows(3)]);
    let wrong = |manifest: &Manifest, says: &str| {
        let base = dataset.versions().unwrap().len() as u64;
        dataset.commit(base, manifest.clone()).unwrap();
        assert_eq!(dataset.verify(false).unwrap().failures, []);
        let failures = dataset.verify(true).unwrap().failures;
        assert_eq!(failures.len(), 1, "{says}: {failures:?}");
        assert!(failures[0].message.contains(says), "{says}: {failures:?}");
        fs::remove_file(dataset.manifest_path(base + 1)).unwrap();
    };
    manifest.shards[0].row_groups[0].n_tokens = 8;
    wrong(&manifest, "9 tokens in 3 rows, manifest says 8 in 3");
    manifest.shards[0].row_groups[0].n_tokens = 9;
    manifest.shards[0].rows = 4;
    wrong(&manifest, "it has 3 rows, manifest says 4");
    manifest.shards[0].rows = 3;
    let column = manifest.schema.pop().unwrap();
    wrong(&manifest, "manifest says [\"document_id\", \"tokens\"]");
    manifest.schema.push(column);
    manifest.parents.push(crate::manifest::Parent {
        dataset: "documents".to_owned(),
        version: 3,
        manifest: "abc".to_owned(),
    });
    wrong(&manifest, "version 3 of `documents` with manifest abc");
}

#[test]
fn half_written_files_go_and_staged_and_committed_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let snapshot = dataset.commit(0, write(&dataset, "train", &[rows(2)])).unwrap();
    let staged = dataset.staging().join("unit.json");
    store::replace(&staged, b"{}").unwrap();
    let torn = ["data", "manifest", "."].map(|name| store::aside(&folder.path().join(name)));
    for path in &torn {
        fs::write(path, b"half").unwrap();
    }
    dataset.remove_half_written().unwrap();
    assert!(torn.iter().all(|path| !path.is_file()));
    assert!(staged.is_file());
    snapshot.verify(&snapshot.manifest.shards[0]).unwrap();
}

#[test]
fn clean_takes_nothing_from_readers_of_any_version() {
    const N_VERSIONS: u64 = 20;
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[rows(10)])).unwrap();
    let is_done = AtomicBool::new(false);
    let (n_removed, n_read) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut n_read = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        let found = dataset.verify(true).unwrap();
                        assert_eq!(found.failures, []);
                        n_read += found.n_shards;
                    }
                    n_read
                })
            })
            .collect();
        let mut n_removed = 0;
        for version in 1..N_VERSIONS {
            // A part of what the version before has, something new, and what a writer that died left behind.
            let shards = [rows(10), rows(20 + u128::from(version))];
            let mut manifest = write(&dataset, "train", &shards);
            manifest.fingerprint = format!("version {version}");
            dataset.commit(version, manifest).unwrap();
            write(&dataset, "lost", &[rows(1000 + u128::from(version))]);
            n_removed += dataset.clean().unwrap().len();
        }
        is_done.store(true, Ordering::Relaxed);
        (n_removed, readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>())
    });
    assert_eq!(n_removed as u64, N_VERSIONS - 1, "the lost shards and nothing else");
    let found = dataset.verify(true).unwrap();
    assert_eq!((found.n_versions, found.failures), (N_VERSIONS, vec![]));
    println!(
        "{n_removed} files removed beside {N_VERSIONS} versions, {n_read} shards read whole meanwhile"
    );
    assert!(n_read > 0);
}
