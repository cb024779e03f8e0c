use std::sync::Arc;

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
fn verify_finds_each_of_200_flipped_bits_and_cut_and_swapped_shards() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let snapshot = dataset.commit(0, write(&dataset, "train", &[rows(300), rows(300)])).unwrap();
    let shard = &snapshot.manifest.shards[0];
    let path = snapshot.shard_path(shard);
    let whole = fs::read(&path).unwrap();
    snapshot.verify(shard).unwrap();
    let mut found = 0;
    for i in 0..200_u64 {
        let at = crate::order::seed_from(&[i]) % (whole.len() as u64 * 8);
        let mut bytes = whole.clone();
        bytes[usize::try_from(at / 8).unwrap()] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        found += u32::from(matches!(snapshot.verify(shard), Err(Error::Corrupt { .. })));
    }
    assert_eq!(found, 200);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = snapshot.verify(shard).unwrap_err().to_string();
    assert!(error.contains(&format!("{} bytes", whole.len() - 1)), "{error}");
    // Same size, same kind, another shard's rows.
    let other = write(&dataset, "other", &[(1000..1300_u128).map(|id| (id, vec![7; 3])).collect()]);
    fs::copy(folder.path().join(&other.shards[0].path), &path).unwrap();
    assert!(snapshot.verify(shard).is_err());
    fs::remove_file(&path).unwrap();
    assert!(matches!(snapshot.verify(shard), Err(Error::Io { .. })));
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
