pub(crate) mod golden;

use std::io::Read;
use std::path::PathBuf;

use super::*;
use crate::shingle::jaccard;

/// FineWeb's bands.
fn fineweb() -> Config {
    Config { bands: 14, rows: 8, ..Config::default() }
}

fn minhash() -> MinHash {
    MinHash::new(fineweb()).unwrap()
}

fn signature(minhash: &MinHash, text: &str) -> Vec<u64> {
    let signatures = minhash.signatures(&StringViewArray::from(vec![text]));
    signatures.value(0).as_primitive::<UInt64Type>().values().to_vec()
}

fn check_refused(toml: &str, expected: &str) {
    let error = (KIND.check)(&toml.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains(expected), "{toml}: {error}");
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    check_refused("ngram = 0", "`ngram` is 0");
    check_refused("bands = 0", "`bands` is 0");
    check_refused("rows = 0", "`rows` is 0");
    check_refused("rows = -1", "-1");
    check_refused("verify = 1.5", "`verify` is 1.5");
    check_refused("verify = nan", "`verify` is NaN");
    check_refused(
        "bands = 1\nrows = 112",
        "find a pair of similarity 0.75 with probability 1.0e-14",
    );
    check_refused("bands = 4096\nrows = 4096", "hashes, at most 65536");
    check_refused("profile = 'none'", "none");
    (KIND.check)(&"bands = 450\nrows = 20".parse().unwrap()).unwrap();
    (KIND.check)(&"bands = 1\nrows = 112\nverify = 0.0".parse().unwrap()).unwrap();
    let datatrove: Config = toml::from_str("profile = 'datatrove'").unwrap();
    assert!(MinHash::new(datatrove).unwrap_err().to_string().contains("words"));
}

#[test]
fn settings_that_find_few_pairs_at_their_threshold_are_told_with_their_curve() {
    let warning = |toml: &str| toml::from_str::<Config>(toml).unwrap().warning();
    // By hand: 1 - (1 - 0.75^20)^10 = 0.0313; and at 1.0 every band agrees.
    let told = warning("bands = 10\nrows = 20").unwrap();
    for part in ["10 bands of 20 rows", "3.1 %", "0.9: 72.6 %", "1: 100.0 %"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for fine in ["", "bands = 14\nrows = 8", "bands = 10\nrows = 20\nverify = 0.0", "verify = 0.5"]
    {
        assert_eq!(warning(fine), None, "{fine}");
    }
    check_refused("bands = 0", "1: 100.0 %");
    check_refused("bands = 1\nrows = 112", "0.9: 0.0 %");
}

#[test]
fn texts_shorter_than_a_shingle_are_counted_by_every_profile() {
    // Of 0, 1, 4, 5 and 6 words; and of 24 and 23 characters.
    let texts = StringViewArray::from(vec![
        "",
        "one",
        "a b c d",
        "a b c d e",
        "a b c d e f",
        "abcdefghijklmnopqrstuvwx",
        "abcdefghijklmnopqrstuvw",
    ]);
    let n_short =
        |toml: &str| MinHash::new(toml::from_str(toml).unwrap()).unwrap().sign(&texts).n_short;
    assert_eq!(n_short(""), 5);
    assert_eq!(n_short("bits = 64"), 5);
    assert_eq!(n_short("ngram = 1"), 1);
    assert_eq!(n_short("profile = 'text_dedup'"), 5);
    assert_eq!(n_short("profile = 'nemo'"), 6);
    let datatrove: Config = toml::from_str("profile = 'datatrove'").unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let datatrove = MinHash::with_words(datatrove, Arc::new(words)).unwrap();
    assert_eq!(datatrove.sign(&texts).n_short, 5);
    let config = Config::default();
    let told = config.warning_of_short(50, 100).unwrap();
    assert!(told.contains("50 of 100 documents have fewer than 5 words"), "{told}");
    assert!(told.contains("0.75: 97.1 %"), "{told}");
    assert_eq!(config.warning_of_short(49, 100), None);
    assert_eq!(config.warning_of_short(0, 0), None);
}

#[test]
fn what_a_reference_does_not_know_is_refused() {
    check_refused("bits = 16", "`bits` is 16");
    check_refused("profile = 'datatrove'\nbits = 32", "profile `datatrove` has 64");
    check_refused("profile = 'text_dedup'\nshingle = 'chars'", "shingles of words");
    check_refused("profile = 'nemo'\nshingle = 'words'", "not 24 words");
    check_refused("profile = 'nemo'\nngram = 1", "not 1 chars");
    check_refused("permutations = 107", "`permutations` is 107, `bands` x `rows` is 108");
    check_refused("profile = 'text_dedup'\npermutations = 0", "`permutations` is 0");
    let config: Config = toml::from_str("profile = 'nemo'\nseed = 4294967296").unwrap();
    let message = MinHash::new(config).unwrap_err().to_string();
    assert!(message.contains("`seed` is 4294967296"), "{message}");
}

#[test]
fn shingles_of_characters_are_those_of_the_words_with_one_space_between() {
    let config = |toml: &str| MinHash::new(toml::from_str(toml).unwrap()).unwrap();
    // "abc de" and "abd de" have the trigrams abc "bc " "c d" " de" and abd "bd " "d d" " de": 1 of 7.
    let chars = config("shingle = 'chars'\nngram = 3");
    let similarity = |a: &str, b: &str| jaccard(&chars.shingle_hashes(a), &chars.shingle_hashes(b));
    assert_eq!(similarity("abc de", "abd de"), 1.0 / 7.0);
    assert_eq!(similarity("  Abc -- DE!", "abc de"), 1.0);
    assert_eq!(similarity("E\u{301}te\u{301} 日本", "été, 日本."), 1.0);
    // abc of abc, bcd, cde and four others.
    assert_eq!(similarity("abcde", "abc de"), 1.0 / 6.0);
    assert_eq!(chars.shingle_hashes("a").len(), 1);
    assert!(chars.shingle_hashes("...").is_empty());
    for bits in [32, 64] {
        let minhash = config(&format!("shingle = 'chars'\nngram = 3\nbits = {bits}"));
        assert_eq!(signature(&minhash, "Abc, de"), signature(&minhash, "abc de"));
        assert_ne!(signature(&minhash, "abc de"), signature(&minhash, "xyz uv"));
    }
}

#[test]
fn shares_of_equal_wide_hashes_estimate_the_jaccard_index() {
    let minhash = |bits: u32| {
        let config = format!("ngram = 1\nbits = {bits}\nbands = 128\nrows = 32\nverify = 0.0");
        MinHash::new(toml::from_str(&config).unwrap()).unwrap()
    };
    let words = |from: u32| (from..from + 300).map(|n| format!("w{n} ")).collect::<String>();
    // 200 words of 400 are shared; four standard errors of 4096 hashes are 4 sqrt(0.25 / 4096) = 0.031.
    for bits in [32, 64] {
        let minhash = minhash(bits);
        let [a, b] = [0, 100].map(|from| signature(&minhash, &words(from)));
        assert!((estimate(&a, &b) - 0.5).abs() < 0.031, "{bits}: {}", estimate(&a, &b));
        assert_eq!(a.iter().all(|hash| *hash <= u64::from(u32::MAX)), bits == 32);
    }
}

#[test]
fn bands_that_are_not_given_find_the_threshold_with_few_candidates_more() {
    let bands = |toml: &str| {
        let config: Config = toml::from_str(toml).unwrap();
        (config.bands, config.rows)
    };
    // By hand: 1 - (1 - 0.75^6)^18 = 0.970, with 7 rows 1 - (1 - 0.75^7)^16 = 0.899.
    assert_eq!(bands(""), (18, 6));
    // 1 - (1 - 0.9^11)^10 = 0.977, with 12 rows 1 - (1 - 0.9^12)^9 = 0.950 (0.9496).
    assert_eq!(bands("verify = 0.9"), (10, 11));
    // 1 - (1 - 0.5^3)^37 = 0.993, with 4 rows 0.836.
    assert_eq!(bands("verify = 0.5"), (37, 3));
    assert_eq!(bands("verify = 1.0"), (1, 112));
    assert_eq!(bands("verify = 0.0"), (18, 6));
    assert_eq!(bands("bands = 20"), (20, 5));
    assert_eq!(bands("rows = 8"), (14, 8));
    assert_eq!(bands("bands = 450\nrows = 20"), (450, 20));
    assert_eq!(bands("profile = 'datatrove'\nverify = 0.0"), (14, 8));
    // The published settings of both.
    assert_eq!(bands("profile = 'nemo'"), (20, 13));
    assert_eq!(bands("profile = 'text_dedup'"), (25, 10));
    assert_eq!(bands("profile = 'text_dedup'\nverify = 0.0"), (25, 10));
}

#[test]
fn the_probability_is_the_published_one() {
    // FineWeb, Penedo et al. 2024: 14 buckets of 8 hashes match at 0.7, 0.75, 0.8, 0.85 with 56 %, 77 %, 92 %, 98.8 %.
    let config = fineweb();
    for (similarity, expected, tolerance) in
        [(0.7, 0.56, 0.01), (0.75, 0.77, 0.01), (0.8, 0.92, 0.01), (0.85, 0.988, 0.001)]
    {
        let probability = config.probability(similarity);
        assert!((probability - expected).abs() < tolerance, "{similarity}: {probability}");
    }
    // (1/14)^(1/8) = exp(-ln 14 / 8) = exp(-0.32988).
    assert!((config.threshold() - 0.7190).abs() < 1e-4, "{}", config.threshold());
}

#[test]
fn texts_without_words_have_empty_signatures_and_nulls_none() {
    let minhash = minhash();
    let texts = StringViewArray::from(vec![Some("..."), None, Some("one"), Some("")]);
    let signatures = minhash.signatures(&texts);
    let keys = minhash.band_keys(&signatures).unwrap();
    let shape = |lists: &ListArray| -> Vec<Option<usize>> {
        lists.iter().map(|list| list.map(|list| list.len())).collect()
    };
    assert_eq!(shape(&signatures), [Some(0), None, Some(112), Some(0)]);
    assert_eq!(shape(&keys), [Some(0), None, Some(14), Some(0)]);
    assert_eq!(shape(&minhash.shingle_sets(&texts)), [Some(0), None, Some(1), Some(0)]);
}

#[test]
fn signatures_do_not_depend_on_the_batch() {
    let minhash = minhash();
    let texts = ["a b c d e f g", "", "one two", "A, b! c d e f g"];
    let signatures = minhash.signatures(&StringViewArray::from(texts.to_vec()));
    for (row, text) in texts.iter().enumerate() {
        let alone = signature(&minhash, text);
        assert_eq!(signatures.value(row).as_primitive::<UInt64Type>().values(), &alone[..]);
    }
    let sliced = minhash.band_keys(&signatures.slice(2, 2)).unwrap();
    let whole = minhash.band_keys(&signatures).unwrap();
    assert_eq!(sliced.value(1).as_ref(), whole.value(3).as_ref());
    assert_eq!(signature(&minhash, texts[0]), signature(&minhash, texts[3]));
}

#[test]
fn the_vector_kernel_equals_the_definition() {
    let lanes = Lanes::new(37, 9);
    let mut random = SplitMix(3);
    let shingles: Vec<u64> = (0..1000).map(|_| random.next()).collect();
    let mut minima = Vec::new();
    lanes.minima(&shingles, &mut minima);
    let expected: Vec<u32> = (0..37)
        .map(|i| {
            let block = &lanes.blocks[i / WIDTH];
            let permuted = |x: &u64| {
                high_half(*x)
                    .wrapping_mul(block.factors[i % WIDTH])
                    .wrapping_add(block.terms[i % WIDTH])
            };
            shingles.iter().map(permuted).min().unwrap()
        })
        .collect();
    assert_eq!(minima, expected);
}

#[test]
fn equal_rows_in_different_bands_have_different_keys() {
    let config = Config { bands: 2, rows: 2, verify: 0.0, ..Config::default() };
    let minhash = MinHash::new(config).unwrap();
    let signatures = ListArray::from_iter_primitive::<UInt64Type, _, _>([
        Some([1, 2, 1, 2].map(Some)),
        Some([1, 2, 2, 1].map(Some)),
    ]);
    let keys = minhash.band_keys(&signatures).unwrap();
    let keys: Vec<Vec<u64>> = keys
        .iter()
        .map(|keys| keys.unwrap().as_primitive::<UInt64Type>().values().to_vec())
        .collect();
    assert_eq!(keys[0][0], keys[1][0]);
    assert_ne!(keys[0][1], keys[1][1]);
    assert_ne!(keys[0][0], keys[0][1]);
}

#[test]
fn signatures_of_another_length_are_refused() {
    let short = ListArray::from_iter_primitive::<UInt64Type, _, _>([Some([Some(1)])]);
    let error = minhash().band_keys(&short).unwrap_err().to_string();
    assert!(error.contains("1 hashes in row 0") && error.contains("make 112"), "{error}");
}

/// Two sets of shingles with `shared` of `2 * own + shared` in common.
fn sets(random: &mut SplitMix, own: usize, shared: usize) -> (Vec<u64>, Vec<u64>) {
    let mut draw = |n: usize| -> Vec<u64> { (0..n).map(|_| random.next()).collect() };
    let common = draw(shared);
    let (mut a, mut b) = (draw(own), draw(own));
    a.extend(&common);
    b.extend(&common);
    (a, b)
}

#[test]
fn estimates_are_unbiased_and_as_precise_as_independent_hashes() {
    // Mean and variance over many pairs and many seeds, for short and long documents: J = shared / (2 own + shared).
    for (own, shared) in [(2, 4), (10, 80), (50, 100), (500, 1000), (100, 1800)] {
        let exact = shared as f64 / (2 * own + shared) as f64;
        let (n, k) = (400u32, 112);
        let mut random = SplitMix(7);
        let (mut sum, mut sum_of_squares) = (0.0, 0.0);
        let (mut minima_a, mut minima_b) = (Vec::new(), Vec::new());
        for seed in 0..u64::from(n) {
            let lanes = Lanes::new(k, seed % 8);
            let (a, b) = sets(&mut random, own, shared);
            lanes.minima(&a, &mut minima_a);
            lanes.minima(&b, &mut minima_b);
            let equal = minima_a.iter().zip(&minima_b).filter(|(a, b)| a == b).count();
            let estimate = equal as f64 / k as f64;
            sum += estimate;
            sum_of_squares += (estimate - exact).powi(2);
        }
        let mean = sum / f64::from(n);
        let variance = sum_of_squares / f64::from(n);
        let expected_variance = exact * (1.0 - exact) / k as f64;
        let z = (mean - exact) / (expected_variance / f64::from(n)).sqrt();
        let ratio = variance / expected_variance;
        println!("J {exact:.3}: mean {mean:.4} (z {z:+.2}), variance {ratio:.2} of independent");
        assert!(z.abs() < 3.5, "J {exact}: mean {mean}");
        // The relative standard error of a variance over 400 samples is √(2/400) = 0.07.
        assert!((0.75..1.3).contains(&ratio), "J {exact}: variance ratio {ratio}");
    }
}

#[test]
fn bands_find_pairs_with_the_probability_of_the_s_curve() {
    let config = fineweb();
    let minhash = minhash();
    let Family::Gristmill(lanes) = &minhash.family else { unreachable!() };
    let mut random = SplitMix(11);
    let (mut minima_a, mut minima_b) = (Vec::new(), Vec::new());
    for shared in [40, 60, 70, 75, 80, 85, 90] {
        let n = 1500;
        let mut found = 0;
        let (mut own, mut total) = (0, 0.0);
        for _ in 0..n {
            // |A| = |B| = m and `shared` percent of the union in both.
            own = 100 - shared;
            let (a, b) = sets(&mut random, own, 2 * shared);
            total += 2.0 * shared as f64 / (2 * own + 2 * shared) as f64;
            lanes.minima(&a, &mut minima_a);
            lanes.minima(&b, &mut minima_b);
            let bands = minima_a.chunks(config.rows).zip(minima_b.chunks(config.rows));
            found += usize::from(bands.into_iter().any(|(a, b)| a == b));
        }
        assert!(own > 0);
        let similarity = total / f64::from(n);
        let expected = config.probability(similarity);
        let share = found as f64 / f64::from(n);
        let sigma = (expected * (1.0 - expected) / f64::from(n)).sqrt();
        println!("J {similarity:.2}: found {share:.3}, S-curve {expected:.3} ± {sigma:.3}");
        assert!((share - expected).abs() < 4.0 * sigma + 1e-3, "{similarity}: {share} {expected}");
    }
}

fn data(path: &str) -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("GRISTMILL_DATA").map_or_else(default, PathBuf::from).join(path)
}

/// The editions of one novel that lie in the shared data; some are Latin-1.
fn editions() -> Vec<(String, String)> {
    let folder = data("neardup/pride-and-prejudice-editions");
    let names = ["1342-0", "1342", "old/pandp09", "old/pandp10", "old/pandp11", "old/pandp12"];
    names
        .iter()
        .filter_map(|name| {
            let file = std::fs::File::open(folder.join(format!("{name}.txt.gz"))).ok()?;
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            let text = String::from_utf8(bytes)
                .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
            Some(((*name).to_owned(), text))
        })
        .collect()
}

#[test]
fn estimates_of_real_editions_lie_within_three_sigma_of_the_exact_index() {
    let editions = editions();
    if editions.is_empty() {
        println!("skipped: no editions of a novel under {}", data("neardup").display());
        return;
    }
    let config = Config { bands: 64, rows: 16, verify: 0.0, ..Config::default() };
    let minhash = MinHash::new(config).unwrap();
    let prepared: Vec<_> = editions
        .iter()
        .map(|(name, text)| (name, signature(&minhash, text), minhash.shingle_hashes(text)))
        .collect();
    let mut n_pairs = 0;
    for (i, (name_a, signature_a, set_a)) in prepared.iter().enumerate() {
        for (name_b, signature_b, set_b) in &prepared[..i] {
            let exact = jaccard(set_a, set_b);
            let estimated = estimate(signature_a, signature_b);
            let sigma = (exact * (1.0 - exact) / 1024.0).sqrt().max(1.0 / 1024.0);
            let z = (estimated - exact) / sigma;
            println!(
                "{name_b:12} {name_a:12} exact {exact:.4} estimated {estimated:.4} ({z:+.1} sigma)"
            );
            assert!(z.abs() <= 3.0, "{name_a} {name_b}: {estimated}, exactly {exact}");
            n_pairs += 1;
        }
    }
    println!("{n_pairs} pairs");
}
