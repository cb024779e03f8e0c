use std::fs;
use std::process::Command;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;

use super::super::tests::{TINY_SHAKESPEARE, data};
use super::*;

/// Some 3 MB of plain text: plays, web pages of many languages, sentences.
const TEXTS: [&str; 4] = [
    TINY_SHAKESPEARE,
    "html-truth/article-extraction-benchmark/ground-truth.json",
    "toxicity/hatecheck-en/test_suite_cases.csv",
    "eval/crows-pairs/crows_pairs_anonymized.csv",
];
/// Names the file that a child process writes its vocabulary to.
const CHILD: &str = "SHARD_BPE_CHILD";

fn texts() -> Option<Vec<String>> {
    let paths: Option<Vec<_>> = TEXTS.iter().map(|name| data(name)).collect();
    let read = |path| fs::read_to_string(path).unwrap();
    Some(paths?.into_iter().map(read).flat_map(|text| documents(&text)).collect())
}

fn documents(text: &str) -> Vec<String> {
    text.split_inclusive("\n\n").map(str::to_owned).collect()
}

fn train(texts: &[&str], n_vocabulary: usize) -> Value {
    let bytes = train_bpe(texts.iter().map(|text| (*text).to_owned()), n_vocabulary).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn merges(json: &Value) -> Vec<(String, String)> {
    serde_json::from_value(json["model"]["merges"].clone()).unwrap()
}

fn owned(merges: &[(&str, &str)]) -> Vec<(String, String)> {
    merges.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned())).collect()
}

/// What the stable trainer of `tokenizers` makes of the same texts.
fn reference(texts: Vec<String>, n_vocabulary: usize) -> Value {
    use stable::decoders::byte_level::ByteLevel;
    use stable::models::bpe::{BPE, BpeTrainer};
    let mut tokenizer = stable::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
    let mut trainer = stable::models::TrainerWrapper::BpeTrainer(
        BpeTrainer::builder()
            .vocab_size(n_vocabulary)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![stable::AddedToken::from(END_OF_TEXT, true)])
            .build(),
    );
    tokenizer.train(&mut trainer, texts.into_iter()).unwrap();
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

#[test]
fn merges_the_most_frequent_pair_first() {
    // Sennrich et al. 2016, figure 1, with its counts and without its mark of a word's end. By hand:
    // es 9, est 9, lo 7, low 7, then ne, ew and `w est` 6 each: ids of letters are Unicode's order, `e` < `n` < `w`.
    let words = [("low", 5_u64), ("lower", 2), ("newest", 6), ("widest", 3)];
    let words: Vec<_> = words.iter().map(|(word, n)| (Box::from(*word), *n)).collect();
    let learned = merge(&words, 257 + 6);
    let text = |id: u32| learned.tokens[id as usize].clone();
    let found: Vec<_> = learned.merges.iter().map(|pair| (text(pair.0), text(pair.1))).collect();
    let expected = [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w"), ("e", "w"), ("n", "ew")];
    assert_eq!(found, owned(&expected));
}

#[test]
fn runs_of_one_letter_merge_from_the_left() {
    // `aaaaa` once: aa twice (four overlapping pairs), then `aa a` and `aa aa` once each; `a` has the smaller id
    // but stands on the right, so pairs compare as (aa, a) < (aa, aa). `aa aa a` -> `aa aaa` -> one token.
    let json = train(&["aaaaa"], 300);
    assert_eq!(merges(&json), owned(&[("a", "a"), ("aa", "a"), ("aa", "aaa")]));
}

#[test]
fn stops_when_no_pair_is_left() {
    let json = train(&["ab ab"], 1000);
    assert_eq!(merges(&json), owned(&[("a", "b"), ("Ġ", "ab")]));
    assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 259);
    assert_eq!(merges(&train(&[], 1000)), []);
}

#[test]
fn does_not_learn_from_words_longer_than_the_limit() {
    let long = "x".repeat(words::WORD_BYTES_MAX + 1);
    assert_eq!(merges(&train(&[&long], 300)), []);
    assert_ne!(merges(&train(&[&long[1..]], 300)), []);
}

#[test]
fn a_special_token_in_a_text_is_text() {
    let json = train(&["<|endoftext|> <|endoftext|>"], 400);
    assert_eq!(json["model"]["vocab"][END_OF_TEXT], 0);
    assert!(merges(&json).iter().all(|(left, right)| format!("{left}{right}") != END_OF_TEXT));
}

#[test]
fn merges_as_the_reference_does() {
    let Some(texts) = texts() else { return };
    let bytes: usize = texts.iter().map(String::len).sum();
    let start = Instant::now();
    let ours = train_bpe(texts.clone().into_iter(), 8000).unwrap();
    let ours_s = start.elapsed().as_secs_f64();
    let ours: Value = serde_json::from_slice(&ours).unwrap();
    let start = Instant::now();
    let reference = reference(texts, 8000);
    let reference_s = start.elapsed().as_secs_f64();
    let (found, expected) = (merges(&ours), merges(&reference));
    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    println!(
        "{bytes} bytes, {same} of {} merges: {ours_s:.2} s, reference {reference_s:.2} s",
        found.len()
    );
    assert_eq!(found, expected);
    assert_eq!(ours["model"]["vocab"], reference["model"]["vocab"]);
    assert_eq!(ours["pre_tokenizer"], reference["pre_tokenizer"]);
}

#[test]
fn bytes_are_the_same_in_processes_of_one_and_two_threads() {
    let Some(texts) = texts() else { return };
    let trained = train_bpe(texts.clone().into_iter(), 4000).unwrap();
    if let Some(path) = std::env::var_os(CHILD) {
        fs::write(path, trained).unwrap();
        return;
    }
    assert_eq!(
        train_bpe(texts.into_iter().rev(), 4000).unwrap(),
        trained,
        "texts in another order"
    );
    let folder = tempfile::tempdir().unwrap();
    let name = "tokenizer::bpe::tests::bytes_are_the_same_in_processes_of_one_and_two_threads";
    for threads in ["1", "2"] {
        let path = folder.path().join(threads);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, &path)
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert_eq!(fs::read(&path).unwrap(), trained, "{threads} threads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn counts_stay_exact(texts in prop::collection::vec("[ab]{0,12}( [abc]{1,9}){0,6}", 1..8)) {
        let trained = train_bpe(texts.clone().into_iter(), 300).unwrap();
        let trained: Value = serde_json::from_slice(&trained).unwrap();
        prop_assert_eq!(merges(&trained), naive(&texts, 300 - 257));
    }
}

/// Counts all pairs anew before each merge; a pair that was learned is applied and not learned twice.
fn naive(texts: &[String], n_max: usize) -> Vec<(String, String)> {
    let words = count_words(texts.iter().cloned()).unwrap();
    let tokens = alphabet();
    let id_of_byte = id_of_byte(&tokens);
    let mut tokens = tokens;
    let mut words: Vec<(Vec<u32>, u64)> = words
        .into_iter()
        .map(|(word, n)| (word.bytes().map(|b| id_of_byte[usize::from(b)]).collect(), n))
        .collect();
    let mut learned = Vec::new();
    while tokens.len() < 257 + n_max {
        let mut counts = HashMap::<Pair, u64>::new();
        for (ids, n) in &words {
            pairs(ids).for_each(|pair| *counts.entry(pair).or_default() += n);
        }
        let best = counts.into_iter().max_by_key(|(pair, n)| (*n, Reverse(*pair)));
        let Some((pair, _)) = best else { break };
        let token = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        let id = tokens.iter().position(|known| *known == token).unwrap_or_else(|| {
            tokens.push(token);
            tokens.len() - 1
        });
        if !learned.contains(&pair) {
            learned.push(pair);
        }
        for (ids, _) in &mut words {
            let mut at = 0;
            while at + 1 < ids.len() {
                if (ids[at], ids[at + 1]) == pair {
                    ids.splice(at..at + 2, [u32::try_from(id).unwrap()]);
                }
                at += 1;
            }
        }
    }
    let text = |id: u32| tokens[id as usize].clone();
    learned.into_iter().map(|(left, right)| (text(left), text(right))).collect()
}
