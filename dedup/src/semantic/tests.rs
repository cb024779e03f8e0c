use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::SpillWriter;
use crate::span::Pieces;

/// Embeddings by rank, written to `n_files` files in the order given, compared with memory of `bytes`.
fn run(vectors: &[(u32, Vec<f32>)], threshold: f64, n_files: usize, bytes: u64) -> Vec<Compared> {
    let n = vectors.first().map_or(1, |vector| vector.1.len());
    let folder = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (index, vectors) in vectors.chunks(vectors.len().div_ceil(n_files).max(1)).enumerate() {
        let path = folder.path().join(format!("{index}"));
        let mut writer = SpillWriter::create(&path, 2, 1 << 8).unwrap();
        for (rank, numbers) in vectors {
            writer.push(1, |buffer| Vector::write(*rank, 0, numbers, buffer)).unwrap();
        }
        writer.finish().unwrap();
        paths.push(path);
    }
    let mut found = Vec::new();
    let pieces = Pieces { paths: &paths, partition: 1 };
    let scratch = folder.path().join("kept");
    compare(pieces, n, threshold, bytes, &scratch, |compared| found.push(compared)).unwrap();
    assert!(!scratch.is_file());
    found.sort_unstable_by_key(|compared| compared.rank);
    found
}

/// The rule in its plainest form: everything against everything kept, in the order of preference.
fn plain(vectors: &[(u32, Vec<f32>)], threshold: f64) -> Vec<(u32, u32)> {
    let mut vectors = vectors.to_vec();
    vectors.sort_unstable_by_key(|vector| vector.0);
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    let (mut kept, mut gone): (Vec<(u32, Vec<f32>)>, Vec<_>) = (Vec::new(), Vec::new());
    for (rank, vector) in vectors {
        let first = kept.iter().find(|(_, other)| {
            let product: f64 =
                vector.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            product / norm(&vector) / norm(other) >= threshold
        });
        match first {
            Some((kept, _)) => gone.push((rank, *kept)),
            None => kept.push((rank, vector)),
        }
    }
    gone
}

fn pairs(found: &[Compared]) -> Vec<(u32, u32)> {
    found.iter().map(|compared| (compared.rank, compared.kept_rank)).collect()
}

#[test]
fn lists_of_numbers_are_read_and_everything_else_is_refused_with_its_value() {
    let mut numbers = Vec::new();
    parse(" [0.5,-1e-3 , 2] ", &mut numbers).unwrap();
    assert_eq!(numbers, [0.5, -0.001, 2.0]);
    for (text, reason, shown) in [
        ("0.5, 1", "not_numbers", "`0.5, 1`"),
        ("[0.5, \"x\"]", "not_numbers", "`\"x\"`"),
        ("[]", "not_numbers", "``"),
        ("[1, null]", "not_numbers", "`null`"),
        ("[1, NaN]", "not_finite", "number 1 is NaN"),
        ("[1e39]", "not_finite", "number 0 is inf"),
        ("[0, -0.0]", "zero_norm", "all 2 numbers are 0"),
    ] {
        let refusal = parse(text, &mut numbers).unwrap_err();
        assert_eq!(refusal.reason(), reason, "{text}");
        assert!(refusal.to_string().contains(shown), "{refusal}");
    }
    assert_eq!(Refusal::Length(3, 4).to_string(), "it has 3 numbers, the first one 4");
}

#[test]
fn cosines_are_those_of_a_hand_calculation() {
    assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 24.0 / 25.0).abs() < 1e-15);
    assert_eq!(cosine(&[1.0, 2.0, 3.0], &[-1.0, -2.0, -3.0]), -1.0);
    assert_eq!(cosine(&[1e30, 3e29], &[1e30, 3e29]), 1.0);
    assert_eq!(cosine(&[1e-38, 0.0], &[0.0, 1e-38]), 0.0);
}

/// A direction in the plane.
fn at(degrees: f64) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded")]
    let [x, y] = [degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32];
    vec![x, y]
}

#[test]
fn a_chain_is_not_removed_link_by_link() {
    // Neighbours are 15 degrees apart; SemDeDup would remove the last three, two of them for one that goes.
    let chain: Vec<(u32, Vec<f32>)> = (0..4).map(|i| (i, at(15.0 * f64::from(i)))).collect();
    let found = run(&chain, 16_f64.to_radians().cos(), 1, 1 << 20);
    assert_eq!(pairs(&found), [(1, 0), (3, 2)]);
    for compared in found {
        assert!((compared.similarity - 15_f64.to_radians().cos()).abs() < 1e-6);
        assert_eq!(compared.first_rank, 0);
    }
}

#[test]
fn the_length_of_an_embedding_does_not_count() {
    let scaled = [(0, vec![1.0, 2.0]), (1, vec![1e20, 2e20]), (2, vec![-1.0, -2.0])];
    assert_eq!(pairs(&run(&scaled, 1.0 - 1e-12, 1, 1 << 20)), [(1, 0)]);
}

#[test]
fn as_many_clusters_as_the_root_of_many_documents() {
    let n_clusters = |n| Config::default().n_clusters(n);
    assert_eq!([0, 1, 4096, 10_000, 1_000_000].map(n_clusters), [1, 1, 1, 100, 1000]);
    assert_eq!(n_clusters(u64::MAX), CLUSTERS_MAX);
    let asked = Config { clusters: Some(20), ..Config::default() };
    assert_eq!([5, 20, 1000].map(|n| asked.n_clusters(n)), [5, 20, 20]);
}

fn learn(vectors: &[Vec<f32>], order: &[usize], k: usize) -> (KMeans, Vec<usize>) {
    let n = vectors[0].len();
    let directions: Vec<Vec<f32>> = vectors
        .iter()
        .map(|vector| {
            let mut direction = Vec::new();
            unit(vector, &mut direction);
            direction
        })
        .collect();
    let mut bytes = Vec::new();
    for index in order {
        let rank = u32::try_from(*index).unwrap();
        let hash = crate::mix::finalise(*index as u64);
        Vector::write(rank, hash, &vectors[*index], &mut bytes);
    }
    let beginning = KMeans::begin(k);
    Vector::all(&bytes, n).for_each(|vector| beginning.push(&vector));
    let mut centres = beginning.finish(n);
    for _ in 0..25 {
        std::thread::scope(|scope| {
            for order in order.chunks(order.len().div_ceil(3)) {
                let (centres, directions) = (&centres, &directions);
                scope.spawn(move || order.iter().for_each(|i| centres.add(&directions[*i])));
            }
        });
        if !centres.advance() {
            break;
        }
    }
    let clusters = directions.iter().map(|direction| centres.nearest(direction)).collect();
    (centres, clusters)
}

#[test]
fn clusters_that_lie_apart_are_found_whatever_the_order_and_the_threads() {
    // Five directions 72 degrees apart, forty documents within 5 degrees of each.
    let vectors: Vec<Vec<f32>> = (0..200)
        .map(|i| at(72.0 * f64::from(i % 5) + f64::from(i * 37 % 101) / 10.0 - 5.0))
        .collect();
    let forwards: Vec<usize> = (0..200).collect();
    let (_, clusters) = learn(&vectors, &forwards, 30);
    for (i, own) in clusters.iter().enumerate() {
        for (j, other) in clusters.iter().enumerate() {
            assert!(own != other || i % 5 == j % 5, "{i} and {j} are far apart");
        }
    }
    let backwards: Vec<usize> = (0..200).rev().collect();
    assert_eq!(learn(&vectors, &backwards, 30).1, clusters);
    let odd_first: Vec<usize> = (0..200).map(|i| i * 3 % 200).collect();
    assert_eq!(learn(&vectors, &odd_first, 30).1, clusters);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for (config, words) in [
        ("threshold = 0", "above 0"),
        ("threshold = 1.01", "at most 1"),
        ("threshold = nan", "NaN"),
        ("clusters = 0", "1 to 65536"),
    ] {
        let message = (KIND.check)(&config.parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

proptest! {
    #[test]
    fn what_goes_is_what_the_plain_rule_removes_whatever_the_files_and_the_memory(
        // Small whole numbers: many equal directions, and similarities on both sides of the threshold.
        numbers in prop::collection::vec(prop::collection::vec(-2i8..3, 4), 0..60),
        threshold in prop::sample::select(vec![0.5000001, 0.8000001, 0.94, 0.999]),
    ) {
        let vectors: Vec<(u32, Vec<f32>)> = (0..)
            .zip(&numbers)
            .filter(|(_, numbers)| numbers.iter().any(|number| *number != 0))
            // Ranks in another order than the rows'.
            .map(|(row, numbers)| (row * 37 % 61, numbers.iter().map(|n| f32::from(*n)).collect()))
            .collect();
        let found = run(&vectors, threshold, 1, 1 << 20);
        prop_assert_eq!(pairs(&found), plain(&vectors, threshold));
        for compared in &found {
            prop_assert!(compared.similarity >= threshold && compared.kept_rank < compared.rank);
        }
        // 48 bytes for a document: one, three and five at a time.
        for (n_files, bytes) in [(3, 0), (1, 150), (2, 250)] {
            prop_assert_eq!(&run(&vectors, threshold, n_files, bytes), &found);
        }
    }
}
