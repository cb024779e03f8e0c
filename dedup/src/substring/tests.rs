use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::span::tests::{LAYOUTS, run, run_method};

/// Bytes (row, position) of every window that stood before, by comparing all windows.
fn brute_force(texts: &[&str], min_bytes: usize, keep_first: bool) -> BTreeSet<(u32, u32)> {
    let mut places = BTreeMap::<&[u8], Vec<(u32, u32)>>::new();
    for (row, text) in (0..).zip(texts) {
        for (start, window) in (0..).zip(text.as_bytes().windows(min_bytes)) {
            places.entry(window).or_default().push((row, start));
        }
    }
    let mut covered = BTreeSet::new();
    for places in places.values() {
        let is_shared = places.iter().any(|place| place.0 != places[0].0);
        let n_kept = usize::from(keep_first || !is_shared);
        for (row, start) in &places[n_kept..] {
            covered.extend((*start..start + offset(min_bytes)).map(|at| (*row, at)));
        }
    }
    covered
}

fn covered(repeats: &[Repeat]) -> BTreeSet<(u32, u32)> {
    repeats.iter().flat_map(|r| (r.start..r.end).map(|at| (r.row, at))).collect()
}

fn check(texts: &[&str], min_bytes: usize) {
    for keep_first in [true, false] {
        let config = format!("min_bytes = {min_bytes}\nkeep_first = {keep_first}");
        let expected = brute_force(texts, min_bytes, keep_first);
        let first = run("substring", &config, texts, LAYOUTS[0]);
        assert_eq!(covered(&first), expected, "{texts:?}");
        for repeat in &first {
            let bytes = |row: u32, start, end| {
                &texts[row as usize].as_bytes()[start as usize..end as usize]
            };
            let copy = bytes(repeat.row, repeat.start, repeat.end);
            assert!(copy.len() >= min_bytes);
            if let Some((row, start)) = repeat.kept {
                let length = repeat.end - repeat.start;
                assert_eq!(bytes(row, start, start + length), copy, "{repeat:?}");
            }
        }
        for layout in &LAYOUTS[1..] {
            assert_eq!(run("substring", &config, texts, *layout), first);
        }
    }
}

#[test]
fn planted_spans_are_found_to_the_byte() {
    // Noise without a repeat of eight bytes, and a span in three places.
    let noise = |seed: u64, n: u64| -> String {
        (0..n).map(|i| format!("{:016x}", finalise(seed << 32 | i))).collect()
    };
    let span = "The quick brown fox jumps over the lazy dog, and the dog does not mind: it has seen many foxes, many jumps.";
    assert!(span.len() > 100);
    let texts = [
        format!("{}{span}{}", noise(1, 20), noise(2, 5)),
        format!("{}{span}{}{span}", noise(3, 7), noise(4, 9)),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let length = offset(span.len());
    let kept = Some((0, 320));
    let (first, second) = (112, 112 + length + 144);
    let expected = vec![
        Repeat { row: 1, start: first, end: first + length, kept },
        Repeat { row: 1, start: second, end: second + length, kept },
    ];
    for layout in LAYOUTS {
        assert_eq!(run("substring", "", &texts, layout), expected);
    }
    check(&texts, 8);
    let shorter = format!("min_bytes = {}", span.len() + 1);
    assert_eq!(run("substring", &shorter, &texts, LAYOUTS[0]), [], "one byte short");
}

#[test]
fn one_character_over_and_over_is_its_own_copy() {
    let long = " ".repeat(20_000);
    let found = run("substring", "", &[&long], LAYOUTS[0]);
    // The first window stays; the second begins one byte behind it.
    assert_eq!(found.iter().map(|repeat| (repeat.start, repeat.end)).min(), Some((1, 101)));
    assert_eq!(covered(&found).len(), 19_999);
    check(&["abababababababababababab", "babababababab"], 8);
}

#[test]
fn copies_of_two_places_lie_across_each_other() {
    let copy = "ijklmnopijklmnopabcdefghijklmnopqé";
    check(&["abcdefghijklmnopabcdefghabcdefgh", copy, copy], 15);
}

proptest! {
    #[test]
    fn what_is_found_is_what_comparing_all_windows_finds(
        texts in prop::collection::vec("[ab]{0,60}|(abcdefgh|ijklmnop|qé){0,8}", 0..6),
        min_bytes in 8usize..20,
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&texts, min_bytes);
    }
}

/// A byte-level vocabulary whose tokens are words, parts of words and bytes.
fn tokenizer() -> Arc<Tokenizer> {
    let text = "the cat sat on the mat, the cats sat on the mats: abcdefgh ijklmnop qé qé";
    let json = shard::tokenizer::train_bpe(std::iter::repeat_n(text.to_owned(), 4), 320).unwrap();
    Arc::new(Tokenizer::from_bytes(&json, "trained").unwrap())
}

fn of_tokens(config: &str, tokenizer: &Arc<Tokenizer>) -> Box<dyn SpanMethod> {
    let Finds::Spans(build) = KIND.finds else { unreachable!() };
    build(&config.parse().unwrap(), &|_| Ok(Arc::clone(tokenizer))).unwrap()
}

/// Bytes of every window of tokens that stood before, by comparing each with every other one: Lee et al.'s spans, of
/// which deduplicate-text-datasets reports every occurrence, without the first.
fn token_brute_force(
    texts: &[&str],
    min_tokens: usize,
    keep_first: bool,
    tokenizer: &Tokenizer,
) -> BTreeSet<(u32, u32)> {
    let mut windows = Vec::new();
    for (row, text) in (0..).zip(texts) {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).unwrap();
        // Bytes of each token, one by one, from the tables of the vocabulary itself.
        let json: serde_json::Value = serde_json::from_slice(tokenizer.to_bytes()).unwrap();
        let vocabulary = json["model"]["vocab"].as_object().unwrap();
        let length = |id: &u32| {
            let token = vocabulary.iter().find(|token| token.1 == id).unwrap();
            u32::try_from(token.0.chars().count()).unwrap()
        };
        let mut starts = vec![0];
        ids.iter().for_each(|id| starts.push(starts.last().unwrap() + length(id)));
        for (at, window) in ids.windows(min_tokens).enumerate() {
            windows.push((window.to_vec(), row, starts[at]..starts[at + min_tokens]));
        }
    }
    let mut covered = BTreeSet::new();
    for (at, (window, row, bytes)) in windows.iter().enumerate() {
        let equal = || windows.iter().enumerate().filter(|(_, other)| other.0 == *window);
        let is_first = equal().all(|(other, _)| other >= at);
        let is_shared = equal().any(|(_, other)| other.1 != *row);
        let goes = !is_first || (!keep_first && is_shared);
        // A first one inside one document stays, its copies there go; with another document all go.
        if goes {
            covered.extend(bytes.clone().map(|byte| (*row, byte)));
        }
    }
    covered
}

fn check_tokens(texts: &[&str], min_tokens: usize, tokenizer: &Arc<Tokenizer>) {
    for keep_first in [true, false] {
        let config = format!("min_tokens = {min_tokens}\nkeep_first = {keep_first}");
        let method = of_tokens(&config, tokenizer);
        let expected = token_brute_force(texts, min_tokens, keep_first, tokenizer);
        let first = run_method(&*method, texts, LAYOUTS[0]);
        assert_eq!(covered(&first), expected, "{texts:?}");
        for repeat in &first {
            let bytes = |row: u32, start: u32, end: u32| {
                &texts[row as usize].as_bytes()[start as usize..end as usize]
            };
            if let Some((row, start)) = repeat.kept {
                let copy = bytes(repeat.row, repeat.start, repeat.end);
                assert_eq!(bytes(row, start, start + offset(copy.len())), copy, "{repeat:?}");
            }
        }
        for layout in &LAYOUTS[1..] {
            assert_eq!(run_method(&*method, texts, *layout), first);
        }
    }
}

#[test]
fn planted_spans_of_tokens_are_found_and_shorter_ones_are_not() {
    let tokenizer = tokenizer();
    // Words of one byte each, none twice: a span of 50 tokens is 50 letters and no letter more.
    let letters = |from: u32, n: u32| -> String {
        (from..from + n).map(|i| char::from_u32(0x4e00 + i).unwrap()).collect()
    };
    // A character of three bytes is three tokens of a vocabulary that does not know it.
    let (span, long) = (letters(0, 16), letters(0, 17));
    let texts = [
        format!("{}{long}{}", letters(100, 30), letters(200, 9)),
        format!("{}{span}{}", letters(300, 12), letters(400, 30)),
        format!("{}{long}{}", letters(500, 7), letters(600, 30)),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut ids = Vec::new();
    tokenizer.encode(&long, &mut ids).unwrap();
    assert_eq!(ids.len(), 51);
    let found = run_method(&*of_tokens("min_tokens = 50", &tokenizer), &texts, LAYOUTS[0]);
    // 48 tokens of the shorter one and the first bytes of a letter behind it: not 50 unless those agree.
    let of_long: Vec<&Repeat> = found.iter().filter(|repeat| repeat.row == 2).collect();
    assert!(of_long.iter().any(|r| r.start <= 21 && r.end >= 72 && r.kept.unwrap().0 == 0));
    check_tokens(&texts, 50, &tokenizer);
    check_tokens(&texts, 8, &tokenizer);
}

#[test]
fn bytes_and_tokens_are_not_counted_at_once() {
    for (config, words) in [
        ("min_bytes = 100\nmin_tokens = 50", "remove one"),
        ("min_tokens = 3", "4 to 16384"),
        ("tokenizer = \"x.json\"", "min_tokens = 50"),
    ] {
        let message = (KIND.check)(&config.parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let method = of_tokens("min_tokens = 50", &tokenizer());
    let config = method.config();
    assert!(!config.contains_key("min_bytes"), "{config}");
    assert_eq!(config["tokenizer_blake3"].as_str().unwrap(), tokenizer().fingerprint());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_found_of_tokens_is_what_comparing_all_windows_finds(
        texts in prop::collection::vec("[ab ]{0,40}|(the cat|sat on| the mats|qé|é){0,12}", 0..5),
        min_tokens in 4usize..9,
    ) {
        thread_local! {
            static TOKENIZER: Arc<Tokenizer> = tokenizer();
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        TOKENIZER.with(|tokenizer| check_tokens(&texts, min_tokens, tokenizer));
    }
}
