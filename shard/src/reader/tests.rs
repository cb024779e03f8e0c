use std::fs;

use proptest::prelude::*;

use super::*;
use crate::dataset::tests::write;
use crate::manifest::TokenizerInfo;

fn config(seq_len: usize) -> ReaderConfig {
    ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len,
        seed: 42,
        verify: true,
        packing: Packing::Stream,
        mask_documents: false,
    }
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
    fn occurrences_are_what_samples_say_of_their_documents(
        lengths in prop::collection::vec(0..40_usize, 1..60),
        per_shard in 1..30_usize,
        seq_len in 1..50_usize,
        packing in prop::sample::select(vec![Packing::Stream, Packing::BestFit]),
    ) {
        prop_assume!(lengths.iter().sum::<usize>() > seq_len);
        let (folder, _) = dataset(&lengths, per_shard);
        let config = ReaderConfig { packing, ..config(seq_len) };
        let mut reader = SequenceReader::open(folder.path(), None, config).unwrap();
        let n = reader.n_sequences();
        let wanted: BTreeSet<_> = (0..lengths.len() as u128).step_by(3).map(u128::to_be_bytes).collect();
        let mut from_samples = Vec::new();
        for epoch in 0..2 {
            for sample in epoch * n..(epoch + 1) * n {
                let mut offset = 0;
                for part in reader.documents(sample).unwrap() {
                    let n_tokens = part.n_tokens;
                    if wanted.contains(&part.document_id) {
                        from_samples.push((sample, offset, part));
                    }
                    offset += n_tokens;
                }
            }
        }
        let mut found = Vec::new();
        for occurrence in reader.occurrences(&wanted).unwrap() {
            for sample in reader.samples_of(occurrence.sequence).take(2) {
                found.push((sample, occurrence.offset, occurrence.part.clone()));
            }
        }
        found.sort();
        prop_assert_eq!(found, from_samples);
    }

    #[test]
    fn an_epoch_reads_every_sequence_once(
        n in 1..5000_u64, block in 1..700_u64, seed: u64, index in 0..9_u64,
    ) {
        let blocks = Blocks::Even { first: 0, n, block };
        let epoch = Epoch::new(&blocks, seed, index);
        let mut seen: Vec<u64> = (0..n).map(|position| epoch.sequence(&blocks, position)).collect();
        let back: Vec<u64> = seen.iter().map(|sequence| epoch.position(&blocks, *sequence)).collect();
        prop_assert_eq!(back, (0..n).collect::<Vec<_>>());
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

fn best_fit_config(seq_len: usize) -> ReaderConfig {
    ReaderConfig { packing: Packing::BestFit, mask_documents: true, ..config(seq_len) }
}

fn sequence(reader: &mut impl Samples, sample: u64) -> Sequence {
    let mut out = Sequence::default();
    reader.read_sequence(sample, &mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn best_fit_shows_each_document_whole_and_each_target_once(
        lengths in prop::collection::vec(0..40_usize, 1..60),
        per_shard in 1..30_usize,
        seq_len in 1..50_usize,
    ) {
        let total: usize = lengths.iter().sum();
        prop_assume!(total > 0);
        let (folder, tokens) = dataset(&lengths, per_shard);
        let mut reader =
            SequenceReader::open(folder.path(), None, best_fit_config(seq_len)).unwrap();
        let mut targets = Vec::new();
        for i in 0..reader.n_sequences() {
            let found = sequence(&mut reader, i);
            let mut from_parts = Vec::new();
            for part in reader.documents(i).unwrap() {
                let id = usize::try_from(u128::from_be_bytes(part.document_id)).unwrap();
                let first = part.first_token_in_document as usize;
                let n = part.n_tokens as usize;
                prop_assert!(lengths[id] > seq_len + 1 || n == lengths[id]);
                prop_assert!(found.boundaries.contains(&u32::try_from(from_parts.len()).unwrap()));
                let start = lengths[..id].iter().sum::<usize>() + first;
                from_parts.extend_from_slice(&tokens[start..start + n]);
            }
            let end = *found.boundaries.last().unwrap() as usize;
            prop_assert_eq!(&from_parts[..], &found.tokens[..end]);
            for (i, counts) in found.loss_mask.iter().enumerate() {
                if *counts {
                    targets.push(found.tokens[i + 1]);
                }
            }
        }
        targets.sort_unstable();
        // Every token but the first of each document.
        let mut wanted = tokens;
        let mut at = 0;
        for n in &lengths {
            if *n > 0 {
                wanted[at] = u32::MAX;
            }
            at += n;
        }
        wanted.retain(|token| *token != u32::MAX);
        prop_assert_eq!(targets, wanted);
    }
}

#[test]
fn documents_of_a_stream_are_told_apart_when_asked() {
    // Tokens 0..4, 4..6, 6..13; six inputs a sequence.
    let (folder, _) = dataset(&[4, 0, 2, 7], 2);
    let masked = ReaderConfig { mask_documents: true, ..config(6) };
    let mut reader = SequenceReader::open(folder.path(), None, masked).unwrap();
    let sample = (0..2).find(|sample| reader.sequence_of(*sample) == 0).unwrap();
    let found = sequence(&mut reader, sample);
    assert_eq!(found.tokens, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(found.boundaries, [0, 4, 6, 7]);
    assert_eq!(found.positions().collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1]);
    assert_eq!(found.loss_mask, [true, true, true, false, true, false]);
    let mut plain = SequenceReader::open(folder.path(), None, config(6)).unwrap();
    let found = sequence(&mut plain, sample);
    assert_eq!(found.boundaries, [0, 7]);
    assert_eq!(found.loss_mask, [true; 6]);
}

#[test]
fn a_loss_mask_in_the_dataset_reaches_the_targets() {
    use arrow::array::{BooleanArray, ListArray};
    use arrow::buffer::{OffsetBuffer, ScalarBuffer};
    use arrow::datatypes::Schema;
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let batch = crate::dataset::tests::batch(&[(1, vec![5, 6, 7]), (2, vec![8, 9])]);
    let field = crate::schema::loss_mask_field();
    let arrow::datatypes::DataType::List(item) = field.data_type() else { unreachable!() };
    let mask = ListArray::new(
        Arc::clone(item),
        OffsetBuffer::new(ScalarBuffer::from(vec![0, 3, 5])),
        Arc::new(BooleanArray::from(vec![false, false, true, true, true])),
        None,
    );
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(field));
    let schema = Arc::new(Schema::new(fields));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(mask));
    let batch = arrow::record_batch::RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer =
        crate::writer::ShardWriter::create(&dataset, "train-00000", "train", &schema).unwrap();
    writer.write(&batch).unwrap();
    let mut manifest =
        Manifest::new(DatasetKind::Tokens, &schema, "t".to_owned(), serde_json::json!({}));
    manifest.shards.push(writer.finish().unwrap());
    dataset.commit(0, manifest).unwrap();
    assert!(dataset.verify(true).unwrap().failures.is_empty());
    let mut reader = SequenceReader::open(folder.path(), None, best_fit_config(7)).unwrap();
    let found = sequence(&mut reader, 0);
    assert_eq!(found.tokens, [5, 6, 7, 8, 9, 0, 0, 0]);
    assert_eq!(found.boundaries, [0, 3, 5]);
    assert_eq!(found.loss_mask, [false, true, false, true, false, false, false]);
    let mut reader = SequenceReader::open(folder.path(), None, config(4)).unwrap();
    assert_eq!(sequence(&mut reader, 0).loss_mask, [false, true, true, true]);
}

#[test]
fn any_reading_ahead_and_world_gives_the_same_order_also_when_changed_in_mid_epoch() {
    let (folder, _) = dataset(&[33; 60], 9);
    for config in [config(16), best_fit_config(16)] {
        let open = || SequenceReader::open(folder.path(), None, config.clone()).unwrap();
        let n = open().n_sequences();
        let wanted: Vec<_> = (0..240).map(|sample| sequence(&mut open(), sample)).collect();
        assert!(n > 36 && n < 240, "{n}: a change in mid-epoch, more than one epoch");
        for ahead in [0, 2, 8] {
            let mut next_sample = 0;
            let mut read = Vec::new();
            // Three steps with each world, then another takes over from the state.
            for world in [1, 2, 4, 3, 1, 3, 4] {
                let start = |rank| {
                    let plan = BatchPlan { batch: 12, rank, world, next_sample };
                    Batches::start(Box::new(open()), plan, ahead)
                };
                let mut ranks: Vec<_> = (0..world).map(start).collect();
                for _ in 0..3 {
                    for rank in &mut ranks {
                        let batch = rank.next().unwrap().unwrap();
                        next_sample = batch.next_sample;
                        for (i, boundaries) in batch.boundaries.into_iter().enumerate() {
                            read.push(Sequence {
                                tokens: batch.tokens[17 * i..17 * (i + 1)].to_vec(),
                                boundaries,
                                loss_mask: batch.loss_mask[16 * i..16 * (i + 1)].to_vec(),
                            });
                        }
                    }
                }
            }
            assert_eq!(read[..240], wanted[..], "{ahead} ahead");
        }
    }
}

#[test]
fn an_error_behind_the_thread_reaches_the_trainer_and_ends_the_batches() {
    let (folder, _) = dataset(&[30; 10], 5);
    let snapshot = Dataset::at(folder.path()).open(None).unwrap();
    fs::write(snapshot.shard_path(&snapshot.manifest.shards[1]), b"torn").unwrap();
    for ahead in [0, 3] {
        let reader = SequenceReader::open(folder.path(), None, config(4)).unwrap();
        let plan = BatchPlan { batch: 80, rank: 0, world: 1, next_sample: 0 };
        let mut batches = Batches::start(Box::new(reader), plan, ahead);
        let error = batches.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("4 bytes, manifest says"), "{error}");
        assert!(batches.stalled() > std::time::Duration::ZERO);
    }
}

#[test]
fn a_growing_dataset_is_read_once_and_a_replay_is_exact() {
    for config in [config(7), best_fit_config(7)] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::at(folder.path());
        let shard = |i: u32| -> Vec<(u128, Vec<u32>)> {
            let row =
                |j: u32| (u128::from(10 * i + j), (100 * i + 9 * j..100 * i + 9 * j + 9).collect());
            (0..10).map(row).collect()
        };
        let grow = |n: u32| {
            let shards: Vec<_> = (0..n).map(shard).collect();
            dataset.commit(u64::from(n) - 1, write(&dataset, "train", &shards)).unwrap();
        };
        grow(1);
        let mut reader = FollowReader::open(folder.path(), config.clone()).unwrap();
        let mut read = Vec::new();
        let mut read_all = |reader: &mut FollowReader| {
            for sample in read.len() as u64..reader.n_samples().unwrap() {
                read.push(sequence(reader, sample));
            }
        };
        read_all(&mut reader);
        assert!(!reader.extend().unwrap());
        // Version 2 is taken up while samples wait; version 3 is never seen, because version 4 is there by then.
        grow(2);
        assert!(reader.extend().unwrap());
        grow(3);
        grow(4);
        assert!(reader.extend().unwrap());
        read_all(&mut reader);
        let state = reader.state(read.len() as u64);
        assert_eq!(state.versions.iter().map(|v| v.version).collect::<Vec<_>>(), [1, 2, 4]);
        // Each sequence once.
        let mut alone = SequenceReader::open(folder.path(), None, config.clone()).unwrap();
        let n = alone.n_sequences();
        let mut once: Vec<_> = (0..n).map(|sample| sequence(&mut alone, sample).tokens).collect();
        let mut followed: Vec<_> = read.iter().map(|it| it.tokens.clone()).collect();
        once.sort_unstable();
        followed.sort_unstable();
        assert_eq!(followed, once);
        // A newer version changes nothing for a replay.
        grow(5);
        let text = serde_json::to_string(&state).unwrap();
        let state: FollowState = serde_json::from_str(&text).unwrap();
        let mut again = FollowReader::resume(folder.path(), config, &state).unwrap();
        assert_eq!(again.n_samples(), Some(n));
        for (sample, wanted) in read.iter().enumerate() {
            assert_eq!(&sequence(&mut again, sample as u64), wanted);
        }
        assert!(again.extend().unwrap());
    }
}

#[test]
fn a_version_that_replaces_shards_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    dataset.commit(0, write(&dataset, "train", &[vec![(1, vec![1; 20])]])).unwrap();
    let mut reader = FollowReader::open(folder.path(), config(4)).unwrap();
    dataset.commit(1, write(&dataset, "train", &[vec![(1, vec![2; 40])]])).unwrap();
    let error = reader.extend().unwrap_err().to_string();
    assert!(error.contains("version 1 has `data/train-00000-"), "{error}");
}
