use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::dataset::Dataset;
use crate::dataset::tests::write;
use crate::manifest::TokenizerInfo;
use crate::packing::Packing;
use crate::reader::{BatchPlan, Batches};

fn config(seq_len: usize) -> ReaderConfig {
    ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len,
        seed: 7,
        verify: true,
        packing: Packing::Stream,
        mask_documents: false,
    }
}

/// A dataset of `n` tokens that count up from `first`.
fn dataset(first: u32, n: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let rows = vec![(u128::from(first), (first..first + n).collect())];
    dataset.commit(0, write(&dataset, "train", &[rows])).unwrap();
    folder
}

fn component(name: &str, folder: &tempfile::TempDir, weight: f64) -> Component {
    Component {
        name: name.to_owned(),
        dataset: folder.path().to_owned(),
        version: None,
        weight,
        epochs_max: None,
        partition: None,
        repeats: None,
    }
}

fn first_tokens(reader: &mut MixtureReader, samples: std::ops::Range<u64>) -> Vec<u32> {
    let mut sequence = Sequence::default();
    let mut firsts = Vec::new();
    for sample in samples {
        reader.read_sequence(sample, &mut sequence).unwrap();
        firsts.push(sequence.tokens[0]);
    }
    firsts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn each_component_is_read_in_proportion_and_misses_no_sample(
        weights in prop::collection::vec(0.01..10_f64, 1..9),
        seed: u64,
    ) {
        let n = 40 * BLOCK;
        let schedule = Schedule::new(&vec![None; weights.len()], &[(0, weights.clone())], seed);
        prop_assert_eq!(schedule.n_samples(), None);
        let sum: f64 = weights.iter().sum();
        let mut seen = vec![Vec::new(); weights.len()];
        for sample in 0..n {
            let (component, local) = schedule.locate(sample);
            prop_assert_eq!(schedule.sample_of(component, local), Some(sample));
            seen[component].push(local);
            if (sample + 1) % BLOCK == 0 {
                for (locals, weight) in seen.iter().zip(&weights) {
                    // Each of up to three halvings is off by less than one.
                    let wanted = weight / sum * (sample + 1) as f64;
                    prop_assert!((locals.len() as f64 - wanted).abs() < 3.0);
                }
            }
        }
        for mut locals in seen {
            locals.sort_unstable();
            prop_assert_eq!(&locals, &(0..locals.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn limits_and_phases_lose_and_double_no_sample(
        limits in prop::collection::vec(prop::option::of(1..900_u64), 1..6),
        phases in prop::collection::vec((1..700_u64, prop::collection::vec(0..5_u32, 6)), 0..4),
        seed: u64,
    ) {
        let n = limits.len();
        let mut weights = vec![(0, vec![1.0; n])];
        for (gap, weigh) in phases {
            let mut weigh: Vec<f64> = weigh.into_iter().map(f64::from).take(n).collect();
            weigh[0] = weigh[0].max(1.0);
            weights.push((weights.last().unwrap().0 + gap, weigh));
        }
        let schedule = Schedule::new(&limits, &weights, seed);
        let end = schedule.n_samples().unwrap_or(9000).min(9000);
        let mut seen = vec![Vec::new(); n];
        for sample in 0..end {
            let (component, local) = schedule.locate(sample);
            let weigh = &weights[weights.partition_point(|(first, _)| *first <= sample) - 1].1;
            prop_assert!(weigh[component] > 0.0);
            seen[component].push(local);
        }
        for (mut locals, limit) in seen.into_iter().zip(&limits) {
            locals.sort_unstable();
            let n = locals.len() as u64;
            locals.dedup();
            prop_assert_eq!(locals.len() as u64, n, "some sample came twice");
            prop_assert!(limit.is_none_or(|limit| n <= limit));
            // The last block may be read in part.
            let last = locals.last().map_or(0, |last| last + 1);
            prop_assert!(last < n + BLOCK);
            if schedule.n_samples() == Some(end) {
                prop_assert_eq!(last, n);
            }
        }
    }
}

#[test]
fn weights_are_shared_out_anew_where_a_component_is_exhausted() {
    // By hand: with halves, the 50 samples of the first are used up within 99 to 101 samples; then 1 : 2 of the
    // others is 1/3 and 2/3, and the second, with 100, lasts for the 25 or so before and 3 · 75 more.
    let limits = [Some(50), Some(100), None];
    let schedule = Schedule::new(&limits, &[(0, vec![2.0, 1.0, 1.0])], 3);
    let changes: Vec<_> = schedule.changes().collect();
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert_eq!(changes[0], (0, vec![0, 1, 2]));
    assert_eq!(changes[1].1, [1, 2]);
    assert!((98..=101).contains(&changes[1].0), "{changes:?}");
    assert_eq!(changes[2].1, [2]);
    assert!((245..=253).contains(&changes[2].0), "{changes:?}");
    let counts = (0..changes[2].0).fold([0; 3], |mut counts, sample| {
        counts[schedule.locate(sample).0] += 1;
        counts
    });
    assert_eq!(counts[..2], [50, 100]);
}

#[test]
fn a_mixture_of_limited_datasets_ends_after_the_last_sample() {
    let schedule = Schedule::new(&[Some(30), Some(7)], &[(0, vec![1.0, 1.0])], 1);
    assert_eq!(schedule.n_samples(), Some(37));
}

#[test]
fn no_rank_gets_one_dataset_alone() {
    // Two halves and two ranks with one sample each: strict turns would give each rank a dataset of its own.
    let schedule = Schedule::new(&[None, None], &[(0, vec![1.0, 1.0])], 5);
    let firsts = (0..1000).filter(|step| schedule.locate(step * 2).0 == 0).count();
    // Binomial with n = 1000, p = 1/2 would be within four standard deviations of 63.
    assert!((437..=563).contains(&firsts), "{firsts}");
}

#[test]
fn reads_each_component_in_its_own_order() {
    let (a, b) = (dataset(0, 901), dataset(10_000, 301));
    let components = [component("a", &a, 3.0), component("b", &b, 1.0)];
    let mut mixture = MixtureReader::open(&components, &[], &config(10)).unwrap();
    let read = first_tokens(&mut mixture, 0..BLOCK);
    let mut alone = SequenceReader::open(a.path(), None, config(10)).unwrap();
    let mut of_a: Vec<_> = read.iter().copied().filter(|token| *token < 10_000).collect();
    assert!((191..=193).contains(&of_a.len()), "{}", of_a.len());
    let mut wanted = Vec::new();
    for sample in 0..of_a.len() as u64 {
        let mut out = vec![0; 11];
        alone.read(sample, &mut out).unwrap();
        wanted.push(out[0]);
    }
    of_a.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(of_a, wanted);
}

/// A dataset with the partitions `1` and `3`, whose tokens count up from 0 and from 10,000.
fn parted() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let row = |first: u32, n: u32| vec![(u128::from(first), (first..first + n).collect())];
    let mut manifest =
        write(&dataset, "train", &[row(0, 300), row(300, 301), row(10_000, 200), row(10_200, 101)]);
    for (shard, partition) in manifest.shards.iter_mut().zip(["1", "1", "3", "3"]) {
        shard.partition = Some(partition.to_owned());
    }
    dataset.commit(0, manifest).unwrap();
    folder
}

#[test]
fn a_partition_is_read_as_if_there_were_no_other() {
    let folder = parted();
    let partition = |name: &str| ReaderConfig { partition: Some(name.to_owned()), ..config(10) };
    let open = |name| SequenceReader::open(folder.path(), None, partition(name));
    for (name, n, first) in [("1", 60, 0), ("3", 30, 10_000)] {
        let mut reader = open(name).unwrap();
        assert_eq!(reader.n_sequences(), n);
        let (mut out, mut firsts) = (vec![0; 11], Vec::new());
        for sample in 0..n {
            reader.read(sample, &mut out).unwrap();
            firsts.push(u64::from(out[0]));
            let parts = reader.documents(sample).unwrap();
            assert_eq!(parts.iter().map(|part| part.n_tokens).sum::<u32>(), 11);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, (0..n).map(|i| first + 10 * i).collect::<Vec<_>>());
    }
    let whole = SequenceReader::open(folder.path(), None, config(10)).unwrap();
    assert_eq!(whole.n_sequences(), 90);
    let error = open("2").unwrap_err().to_string();
    assert!(error.contains("no partition `2`") && error.contains("`1`, `3`"), "{error}");
}

#[test]
fn partitions_are_repeated_as_often_as_the_component_says() {
    let folder = parted();
    let repeats = |pairs: &[(&str, f64)]| {
        Some(pairs.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect())
    };
    let of = |pairs| Component {
        epochs_max: Some(2),
        repeats: repeats(pairs),
        ..component("web", &folder, 1.0)
    };
    // By hand: 60 sequences once and 30 three times are 150; two rounds are 300 samples.
    let mut mixture =
        MixtureReader::open(&[of(&[("1", 1.0), ("3", 3.0)])], &[], &config(10)).unwrap();
    assert_eq!(mixture.n_samples(), Some(300));
    let names: Vec<_> = mixture.components().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["web/1", "web/3"]);
    let mut counts = BTreeMap::<u32, u32>::new();
    for first in first_tokens(&mut mixture, 0..300) {
        *counts.entry(first).or_default() += 1;
    }
    assert_eq!(counts.len(), 90);
    for (first, n) in counts {
        assert_eq!(n, if first < 10_000 { 2 } else { 6 }, "the sequence of token {first}");
    }
    // Other repeats are another order.
    let state = mixture.state(0);
    let other = [of(&[("1", 1.0), ("3", 2.0)])];
    let other = MixtureReader::open(&other, &[], &config(10)).unwrap();
    other.resume(&state).unwrap_err();
    let alone = [of(&[("1", 0.0), ("3", 1.5)])];
    let alone = MixtureReader::open(&alone, &[], &config(10)).unwrap();
    assert_eq!(alone.n_samples(), Some(90));
    for (pairs, says) in [
        (&[("1", 1.0)][..], "it names the partitions `1`, the dataset has `1`, `3`"),
        (&[("1", 0.0), ("3", 0.0)], "no partition is read"),
        (&[("1", -1.0), ("3", 1.0)], "`1` is read -1 times"),
    ] {
        let error = MixtureReader::open(&[of(pairs)], &[], &config(10)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let both = Component { partition: Some("1".to_owned()), ..of(&[("1", 1.0), ("3", 1.0)]) };
    let error = MixtureReader::open(&[both], &[], &config(10)).unwrap_err().to_string();
    assert!(error.contains("`partition` reads `1` alone"), "{error}");
}

#[test]
fn the_order_is_the_same_for_any_world_and_reading_ahead() {
    let (a, b) = (dataset(0, 901), dataset(10_000, 301));
    let components = [component("a", &a, 3.0), component("b", &b, 2.0)];
    let phase = Phase { first_sample: 100, weights: BTreeMap::from([("a".to_owned(), 0.5)]) };
    let open =
        || MixtureReader::open(&components, std::slice::from_ref(&phase), &config(10)).unwrap();
    let wanted = first_tokens(&mut open(), 0..360);
    for (world, ahead) in [(1, 2), (2, 0), (4, 8), (3, 2)] {
        let mut ranks: Vec<_> = (0..world)
            .map(|rank| {
                let plan = BatchPlan { batch: 10, rank, world, next_sample: 0 };
                Batches::start(Box::new(open()), plan, ahead)
            })
            .collect();
        let mut read = Vec::new();
        for _ in 0..36 {
            for rank in &mut ranks {
                let batch = rank.next().unwrap().unwrap();
                read.extend(batch.tokens.chunks(11).map(|row| row[0]));
            }
        }
        assert_eq!(read, wanted, "{world} ranks, {ahead} ahead");
    }
}

#[test]
fn resumes_with_the_same_mixture_only() {
    let (a, b) = (dataset(0, 901), dataset(10_000, 301));
    let mut components = [component("a", &a, 3.0), component("b", &b, 2.0)];
    let mixture = MixtureReader::open(&components, &[], &config(10)).unwrap();
    let state = mixture.state(77);
    assert_eq!(mixture.resume(&state).unwrap(), 77);
    components[1].weight = 2.5;
    let other = MixtureReader::open(&components, &[], &config(10)).unwrap();
    let error = other.resume(&state).unwrap_err().to_string();
    assert!(error.contains("`a` version 1, `b` version 1"), "{error}");
    assert!(error.contains(&state.manifest_hash), "{error}");
}

#[test]
fn different_tokenizers_are_refused_by_name() {
    let tokens_of = |fingerprint: &str| {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::at(folder.path());
        let mut manifest = write(&dataset, "train", &[vec![(1, vec![1; 50])]]);
        manifest.tokenizer = Some(TokenizerInfo {
            path: "tokenizer.json".to_owned(),
            fingerprint: fingerprint.to_owned(),
            n_vocabulary: 10,
            special: BTreeMap::new(),
            end_of_document: None,
        });
        dataset.commit(0, manifest).unwrap();
        folder
    };
    let (a, b, c) = (tokens_of("aaa"), tokens_of("bbb"), dataset(0, 50));
    for (other, says) in [(&b, "tokenizer bbb"), (&c, "no tokenizer")] {
        let components = [component("web", &a, 1.0), component("code", other, 1.0)];
        let error = MixtureReader::open(&components, &[], &config(10)).unwrap_err().to_string();
        assert!(error.contains("`web` has tokenizer aaa"), "{error}");
        assert!(error.contains(&format!("`code` has {says}")), "{error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let a = dataset(0, 50);
    let phase = |first_sample, name: &str, weight| Phase {
        first_sample,
        weights: BTreeMap::from([(name.to_owned(), weight)]),
    };
    let twice = [component("a", &a, 1.0), component("a", &a, 1.0)];
    let once = [component("a", &a, 1.0)];
    let negative = [component("a", &a, -1.0)];
    let never = [Component { epochs_max: Some(0), ..component("a", &a, 1.0) }];
    for (components, phases, says) in [
        (&twice[..], vec![], "two datasets are called `a`"),
        (&negative[..], vec![], "the weight of `a` from sample 0 on is -1"),
        (&never[..], vec![], "`a` is read 0 times"),
        (&[], vec![], "no dataset has a weight from sample 0 on"),
        (&once[..], vec![phase(0, "a", 1.0)], "a phase begins at sample 0"),
        (&once[..], vec![phase(5, "b", 1.0)], "a phase weighs `b`"),
        (&once[..], vec![phase(5, "a", 0.0)], "no dataset has a weight from sample 5 on"),
    ] {
        let error = MixtureReader::open(components, &phases, &config(10)).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}
