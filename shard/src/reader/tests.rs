use std::fs;

use proptest::prelude::*;

use super::*;
use crate::dataset::tests::write;
use crate::manifest::TokenizerInfo;

fn config(seq_len: usize) -> ReaderConfig {
    ReaderConfig { split: "train".to_owned(), seq_len, seed: 42, verify: true }
}

/// Documents of the given lengths, in shards of `per_shard`; tokens count up over the split.
fn dataset(lengths: &[usize], per_shard: usize) -> (tempfile::TempDir, Vec<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let mut next = 0;
    let mut rows = Vec::new();
    for (i, n) in lengths.iter().enumerate() {
        let end = next + u32::try_from(*n).unwrap();
        rows.push((i as u128, (next..end).collect::<Vec<_>>()));
        next = end;
    }
    let shards: Vec<_> = rows.chunks(per_shard).map(<[_]>::to_vec).collect();
    dataset.commit(0, write(&dataset, "train", &shards)).unwrap();
    (folder, (0..next).collect())
}

fn read(reader: &mut SequenceReader, sample: u64) -> Vec<u32> {
    let mut out = vec![0; reader.config().seq_len + 1];
    reader.read(sample, &mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sequences_of_an_epoch_are_the_tokens_of_the_split(
        lengths in prop::collection::vec(0..40_usize, 1..60),
        per_shard in 1..30_usize,
        seq_len in 1..50_usize,
    ) {
        prop_assume!(lengths.iter().sum::<usize>() > seq_len);
        let (folder, tokens) = dataset(&lengths, per_shard);
        let mut reader = SequenceReader::open(folder.path(), None, config(seq_len)).unwrap();
        prop_assert_eq!(reader.n_sequences(), (tokens.len() as u64 - 1) / seq_len as u64);
        for i in 0..reader.n_sequences() {
            let at = usize::try_from(reader.sequence_of(i)).unwrap() * seq_len;
            prop_assert_eq!(&read(&mut reader, i)[..], &tokens[at..=at + seq_len]);
            let mut from_parts = Vec::new();
            for part in reader.documents(i).unwrap() {
                let id = usize::try_from(u128::from_be_bytes(part.document_id)).unwrap();
                prop_assert_eq!(part.row, (id % per_shard) as u64);
                let first = lengths[..id].iter().sum::<usize>() + part.first_token_in_document as usize;
                from_parts.extend_from_slice(&tokens[first..first + part.n_tokens as usize]);
            }
            prop_assert_eq!(&from_parts[..], &tokens[at..=at + seq_len]);
        }
    }

    #[test]
    fn an_epoch_reads_every_sequence_once(
        n in 1..5000_u64, block in 1..700_u64, seed: u64, index in 0..9_u64,
    ) {
        let epoch = Epoch::new(n, block, seed, index);
        let mut seen: Vec<u64> = (0..n).map(|position| epoch.sequence(position)).collect();
        // Sequences of one block stay together.
        let changes = seen.windows(2).filter(|pair| pair[0] / block != pair[1] / block).count();
        prop_assert_eq!(changes as u64, n.div_ceil(block) - 1);
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
    }
}

#[test]
fn every_epoch_has_its_own_order_and_the_seed_decides_which() {
    let (folder, _) = dataset(&[50; 40], 7);
    let epoch = |seed: u64, epoch: u64| {
        let config = ReaderConfig { seed, ..config(8) };
        let mut reader = SequenceReader::open(folder.path(), None, config).unwrap();
        let n = reader.n_sequences();
        (epoch * n..(epoch + 1) * n).map(|sample| read(&mut reader, sample)).collect::<Vec<_>>()
    };
    let sorted = |mut sequences: Vec<Vec<u32>>| {
        sequences.sort();
        sequences
    };
    assert_ne!(epoch(1, 0), epoch(2, 0));
    assert_ne!(epoch(1, 1), epoch(1, 0));
    assert_ne!(epoch(1, 1), epoch(1, 2));
    assert_ne!(epoch(1, 1), epoch(2, 1));
    assert_eq!(epoch(1, 1), epoch(1, 1));
    assert_eq!(sorted(epoch(1, 1)), sorted(epoch(1, 0)));
}

#[test]
fn the_order_does_not_depend_on_the_worlds_size() {
    let (folder, _) = dataset(&[33; 40], 9);
    let order = |world: u64| {
        let mut readers: Vec<_> = (0..world)
            .map(|_| SequenceReader::open(folder.path(), None, config(16)).unwrap())
            .collect();
        let mut order = Vec::new();
        for step in 0..30 {
            for rank in 0..world {
                for sample in rank_samples(step * 12, 12, rank, world) {
                    order.push(read(&mut readers[usize::try_from(rank).unwrap()], sample));
                }
            }
        }
        order
    };
    let alone = order(1);
    assert!(alone.len() as u64 > 2 * 82, "three epochs are begun");
    for world in [2, 3, 4, 5, 7] {
        assert_eq!(order(world), alone, "{world} ranks");
    }
}

#[test]
fn resumes_from_any_sample() {
    let (folder, _) = dataset(&[10, 0, 25, 3, 70, 41], 2);
    let mut reader = SequenceReader::open(folder.path(), None, config(7)).unwrap();
    let n = reader.n_sequences();
    let whole: Vec<_> = (0..3 * n).map(|sample| read(&mut reader, sample)).collect();
    for from in 0..3 * n {
        let text = serde_json::to_string(&reader.state(from)).unwrap();
        let state: ReaderState = serde_json::from_str(&text).unwrap();
        let mut resumed = SequenceReader::open(folder.path(), Some(1), config(7)).unwrap();
        let next = resumed.resume(&state).unwrap();
        let sample = usize::try_from(next).unwrap();
        assert_eq!(read(&mut resumed, next), whole[sample]);
    }
    let other = ReaderState { manifest_hash: "other".to_owned(), next_sample: 1 };
    assert!(reader.resume(&other).unwrap_err().to_string().contains("other"));
}

#[test]
fn too_few_tokens_and_unknown_splits_are_named() {
    let (folder, _) = dataset(&[4, 4], 1);
    let open = |config| SequenceReader::open(folder.path(), None, config).unwrap_err().to_string();
    let error = open(config(8));
    assert!(error.contains("it has 8 tokens, a sequence needs 9"), "{error}");
    let error = open(config(0));
    assert!(error.contains("`seq_len` is 0"), "{error}");
    let error = open(ReaderConfig { split: "test".to_owned(), ..config(2) });
    assert!(error.contains("`test`") && error.contains("`train`"), "{error}");
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let mut manifest = write(&dataset, "train", &[vec![(1, vec![1, 9, 10])]]);
    manifest.tokenizer = Some(TokenizerInfo {
        path: "tokenizer.json".to_owned(),
        fingerprint: String::new(),
        n_vocabulary: 10,
        special: std::collections::BTreeMap::new(),
        end_of_document: None,
    });
    dataset.commit(0, manifest).unwrap();
    let mut reader = SequenceReader::open(folder.path(), None, config(2)).unwrap();
    let error = reader.read(0, &mut [0; 3]).unwrap_err().to_string();
    assert!(error.contains("token 10, the tokenizer has 10 tokens"), "{error}");
}

#[test]
fn a_shard_that_disagrees_with_the_manifest_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let mut manifest = write(&dataset, "train", &[vec![(1, vec![1, 2, 3]), (2, vec![4])]]);
    manifest.shards[0].row_groups[0].n_tokens = 5;
    dataset.commit(0, manifest.clone()).unwrap();
    let mut reader = SequenceReader::open(folder.path(), None, config(2)).unwrap();
    let error = reader.read(0, &mut [0; 3]).unwrap_err().to_string();
    assert!(error.contains("4 tokens in 2 rows, manifest says 5 in 2"), "{error}");

    manifest.shards[0].row_groups[0].rows = 3;
    dataset.commit(1, manifest.clone()).unwrap();
    let mut reader = SequenceReader::open(folder.path(), None, config(2)).unwrap();
    let error = reader.read(0, &mut [0; 3]).unwrap_err().to_string();
    assert!(error.contains("row group 0 has 2 rows, manifest says 3"), "{error}");

    manifest.shards[0].row_groups[0].first_token = 1;
    dataset.commit(2, manifest).unwrap();
    assert!(SequenceReader::open(folder.path(), None, config(2)).is_err());
}

#[test]
fn a_damaged_shard_is_found_before_it_is_read() {
    let (folder, _) = dataset(&[30; 10], 5);
    let snapshot = Dataset::at(folder.path()).open(None).unwrap();
    let path = snapshot.shard_path(&snapshot.manifest.shards[0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 4;
    fs::write(&path, bytes).unwrap();
    let mut reader = SequenceReader::open(folder.path(), None, config(4)).unwrap();
    let error = reader.read(0, &mut [0; 5]).unwrap_err().to_string();
    assert!(error.contains("blake3") && error.contains("manifest says"), "{error}");
}
