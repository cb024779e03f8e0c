use std::fmt::Write as _;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

pub(super) const TINY_SHAKESPEARE: &str = "parity/corpora/tinyshakespeare.txt";
const BPE: &str = "parity/tokenizers/bpe/tokenizer.json";
const WORD_PIECE: &str = "parity/tokenizers/wordpiece/tokenizer.json";
const BERT: &str = "tokenizers/bert-uncased-minilm/tokenizer.json";

/// The path of a file of the shared test data; says so when it is not there.
pub(super) fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: there is no `{}`", path.display());
    None
}

/// The same `tokenizer.json` in the stable implementation, set to the same behaviour. A Unigram model finds special
/// tokens and bytes among its pieces even so: it is given the form that hides them.
fn oracle(tokenizer: &Tokenizer) -> stable::Tokenizer {
    let mut json: Value = serde_json::from_slice(tokenizer.to_bytes()).unwrap();
    if json["model"]["type"] == "Unigram" {
        plain::hide_special(&mut json, tokenizer.special(), tokenizer.fingerprint());
    }
    let mut oracle = stable::Tokenizer::from_bytes(json.to_string()).unwrap();
    oracle.set_encode_special_tokens(true);
    oracle.with_truncation(None).unwrap();
    oracle.with_padding(None);
    oracle
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

/// A small vocabulary of tests that need no data.
fn trained() -> Tokenizer {
    let text = "the cat sat on the mat, the cats sat on the mats";
    let json = train_bpe(std::iter::once(text.to_owned()), 290).unwrap();
    Tokenizer::from_bytes(&json, "trained").unwrap()
}

#[derive(Deserialize)]
struct Encoding {
    text: String,
    bpe: Vec<u32>,
    bpe_decoded: String,
    wordpiece: Vec<u32>,
}

fn encodings() -> Option<Vec<Encoding>> {
    let path = data("parity/tokenizers/encodings.json")?;
    Some(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

#[derive(Deserialize)]
struct Injection {
    text: String,
}

fn injections() -> Option<Vec<String>> {
    let path = data("conformance/hostile/tokenizer/special_token_injection.jsonl")?;
    let text = fs::read_to_string(path).unwrap();
    let parse = |line| serde_json::from_str::<Injection>(line).unwrap().text;
    Some(text.lines().map(parse).collect())
}

#[test]
fn byte_level_ids_are_those_of_the_reference() {
    let (Some(path), Some(cases)) = (data(BPE), encodings()) else { return };
    let tokenizer = Tokenizer::load(&path).unwrap();
    let mut n = 0;
    for case in &cases {
        let ids = encode(&tokenizer, &case.text);
        assert_eq!(tokenizer.decode(&ids).unwrap(), case.text);
        assert_eq!(tokenizer.decode(&case.bpe).unwrap(), case.bpe_decoded);
        // The reference parses special tokens, which documents never may.
        if tokenizer.special().keys().any(|special| case.text.contains(special.as_str())) {
            assert_ne!(ids, case.bpe);
            continue;
        }
        assert_eq!(ids, case.bpe, "{:?}", case.text);
        n += 1;
    }
    println!("judged {n} of {} texts", cases.len());
    assert!(n > 50);
}

#[test]
fn word_piece_ids_are_those_of_the_reference_without_its_frame() {
    let (Some(path), Some(cases)) = (data(WORD_PIECE), encodings()) else { return };
    let tokenizer = Tokenizer::load(&path).unwrap();
    let mut n = 0;
    for case in &cases {
        let [first, ids @ .., last] = &case.wordpiece[..] else { panic!("no frame") };
        assert_eq!((*first, *last), (tokenizer.special()["[CLS]"], tokenizer.special()["[SEP]"]));
        if tokenizer.special().keys().any(|special| case.text.contains(special.as_str())) {
            continue;
        }
        assert_eq!(encode(&tokenizer, &case.text), ids, "{:?}", case.text);
        n += 1;
    }
    println!("judged {n} of {} texts", cases.len());
    assert!(n > 50);
}

#[test]
fn encodes_as_the_stable_implementation_does() {
    let Some(shakespeare) = data(TINY_SHAKESPEARE) else { return };
    let text = fs::read_to_string(shakespeare).unwrap();
    let fresh = train_bpe(text.split_inclusive("\n\n").map(str::to_owned), 2048).unwrap();
    let mut tokenizers = vec![Tokenizer::from_bytes(&fresh, "fresh").unwrap()];
    tokenizers.extend(reference::all().into_iter().map(|(_, tokenizer)| tokenizer));
    let mut hostile = injections().unwrap_or_default();
    hostile.extend(encodings().unwrap_or_default().into_iter().map(|case| case.text));
    if let Some(path) = data("conformance/strings/blns.json") {
        let strings: Vec<String> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        hostile.extend(strings);
    }
    for tokenizer in &tokenizers {
        let oracle = oracle(tokenizer);
        // The stable implementation is slow: a twentieth of the plays will do for it.
        let plays = text.split_inclusive("\n\n").step_by(20);
        let mut n = 0;
        for text in plays.chain(hostile.iter().map(String::as_str)) {
            let expected = oracle.encode_fast(text, false).unwrap();
            assert_eq!(encode(tokenizer, text), expected.get_ids(), "{tokenizer:?}: {text:?}");
            n += 1;
        }
        println!("{n} texts agree, {} tokens in the vocabulary", tokenizer.n_vocabulary());
    }
    let ids = encode(&tokenizers[0], &text);
    assert_eq!(tokenizers[0].decode(&ids).unwrap(), text);
}

#[test]
fn text_that_spells_a_special_token_gives_none() {
    let Some(texts) = injections() else { return };
    for (name, tokenizer) in reference::all() {
        let json: Value = serde_json::from_slice(tokenizer.to_bytes()).unwrap();
        let is_byte_level = json["decoder"]["type"] == "ByteLevel";
        let has_bytes = json["model"]["byte_fallback"] == true;
        // Normalisation changes texts for good.
        let is_exact = is_byte_level && json["normalizer"] == Value::Null
            || has_bytes && !json.to_string().contains("Precompiled");
        let special: Vec<u32> = tokenizer
            .special()
            .iter()
            // What a vocabulary without bytes does not know, it says.
            .filter(|(content, _)| is_byte_level || has_bytes || !matches!(content.as_str(), "[UNK]" | "<unk>"))
            .map(|(_, id)| *id)
            .collect();
        let mut n_equal = 0;
        for text in &texts {
            let ids = encode(&tokenizer, text);
            assert!(ids.iter().all(|id| !special.contains(id)), "{name}: {text:?}: {ids:?}");
            let is_equal = tokenizer.decode(&ids).unwrap() == *text;
            // SentencePiece's mark of a space is one; the name of a byte is that byte where a Unigram model has no
            // pieces to write it with.
            let is_spelled = !is_byte_level
                && (text.contains('\u{2581}')
                    || name.starts_with("unigram") && text.contains("<0x"));
            assert!(
                is_equal || is_spelled || !is_exact,
                "{name}: {text:?}: {:?}",
                tokenizer.decode(&ids)
            );
            n_equal += usize::from(is_equal);
        }
        println!("{name}: {} texts, {n_equal} come back equal, exact: {is_exact}", texts.len());
    }
}

#[test]
fn a_literal_end_of_text_is_text() {
    let tokenizer = trained();
    assert_eq!(tokenizer.end_of_document(), Some(0));
    assert_eq!(tokenizer.special()[END_OF_TEXT], 0);
    for text in ["<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>"] {
        let ids = encode(&tokenizer, text);
        assert!(!ids.contains(&0), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.decode(&[0]).unwrap(), END_OF_TEXT);
}

#[test]
fn appends_to_what_is_there() {
    let tokenizer = trained();
    let mut ids = vec![7];
    tokenizer.encode("the", &mut ids).unwrap();
    tokenizer.encode("", &mut ids).unwrap();
    assert_eq!(ids[0], 7);
    assert_eq!(ids[1..], encode(&tokenizer, "the"));
}

/// The ends of tokens, checked for tiling `text`.
fn ends(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    tokenizer.encode_with_ends(text, &mut ids, &mut ends).unwrap();
    assert_eq!(ids, encode(tokenizer, text), "{tokenizer:?}: {text:?}");
    assert_eq!(ids.len(), ends.len());
    assert!(ends.is_sorted());
    if !ids.is_empty() {
        assert_eq!(ends.last().copied(), u32::try_from(text.len()).ok());
    }
    ends
}

#[test]
fn tokens_end_where_the_stable_implementation_says() {
    let Some(shakespeare) = data(TINY_SHAKESPEARE) else { return };
    let text = fs::read_to_string(shakespeare).unwrap();
    let mut hostile = injections().unwrap_or_default();
    hostile.extend(encodings().unwrap_or_default().into_iter().map(|case| case.text));
    if let Some(path) = data("conformance/strings/blns.json") {
        hostile.extend(serde_json::from_slice::<Vec<String>>(&fs::read(path).unwrap()).unwrap());
    }
    for (name, tokenizer) in reference::all() {
        let oracle = oracle(&tokenizer);
        let mut n = 0;
        for text in text.split_inclusive("\n\n").step_by(40) {
            let ends = ends(&tokenizer, text);
            let expected = oracle.encode(text, false).unwrap();
            for (end, offsets) in ends.iter().zip(expected.get_offsets().iter().skip(1)) {
                // A blank that a token begins with counts or does not: that is a setting of offsets.
                let (end, start) = (*end as usize, offsets.0);
                let between = text[start.min(end)..start.max(end)].trim();
                assert_eq!(between, "", "{name}: {text:?} {end} {offsets:?}");
                n += 1;
            }
        }
        // No oracle: in letters of several bytes the offsets of its tokens overlap.
        hostile.iter().for_each(|text| drop(ends(&tokenizer, text)));
        println!("{name}: {n} ends agree, {} hostile texts are tiled", hostile.len());
    }
}

#[test]
fn a_text_that_is_normalised_is_tiled_too() {
    // NFC joins the letter and its accent: 3 bytes become 2, and no token spells the text.
    let mut json: Value = serde_json::from_slice(trained().to_bytes()).unwrap();
    json["normalizer"] = json!({ "type": "NFC" });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "nfc").unwrap();
    assert_eq!(ends(&tokenizer, "a\u{e9}b"), [1, 2, 3, 4]);
    let ends = ends(&tokenizer, "ae\u{301}b");
    assert_eq!((ends[0], ends[ends.len() - 2], ends[ends.len() - 1]), (1, 4, 5));
}

#[test]
fn threads_agree() {
    let tokenizer = trained();
    let texts: Vec<String> =
        (0..400).map(|i| format!("the cat {i} sat on {} mats", i * i)).collect();
    let alone: Vec<_> = texts.iter().map(|text| encode(&tokenizer, text)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let found: Vec<_> = texts.iter().map(|text| encode(&tokenizer, text)).collect();
                assert_eq!(found, alone);
            });
        }
    });
}

proptest! {
    #[test]
    fn decode_gives_back_what_was_encoded(text in any::<String>()) {
        thread_local! {
            static TOKENIZER: Tokenizer = trained();
        }
        TOKENIZER.with(|tokenizer| {
            let ids = encode(tokenizer, &text);
            prop_assert!(ids.iter().all(|id| *id < tokenizer.n_vocabulary() && *id != 0));
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            Ok(())
        })?;
    }
}

#[test]
fn a_manifest_says_what_the_tokenizer_is() {
    let tokenizer = trained();
    let info = tokenizer.info("tokenizer-x.json");
    assert_eq!(info.path, "tokenizer-x.json");
    assert_eq!(info.fingerprint, blake3::hash(tokenizer.to_bytes()).to_hex().to_string());
    assert_eq!(info.n_vocabulary, tokenizer.n_vocabulary());
    assert_eq!(info.end_of_document, Some(0));
}

#[test]
fn the_vocabulary_ends_after_the_largest_id() {
    let json = json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 9, "content": "</s>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        }],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 4}, "unk_token": "a"},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "t").unwrap();
    assert_eq!(tokenizer.n_vocabulary(), 10);
    assert_eq!(tokenizer.end_of_document(), Some(9));
    let error = tokenizer.decode(&[10]).unwrap_err().to_string();
    assert!(error.contains("token 10 is not below its 10 tokens"), "{error}");
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused_by_name() {
    let check = |json: &str, why: &str| {
        let error = Tokenizer::from_bytes(json.as_bytes(), "`x/tokenizer.json`").unwrap_err();
        assert!(matches!(error, Error::Tokenizer { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("`x/tokenizer.json`") && text.contains(why), "{text}");
    };
    check("{", "EOF");
    check("{}", "it has no `model.vocab`");
    check(r#"{"model": {"vocab": {}}}"#, "its vocabulary is empty");
    check(r#"{"model": {"vocab": {"a": "x"}}}"#, "the id of `a` is \"x\", not a number");
    check(r#"{"model": {"vocab": {"a": 4294967296}}}"#, "more than 32 bits");
    check(r#"{"added_tokens": [{"id": 1}], "model": {"vocab": {}}}"#, "no content or no id");
    check(
        r#"{"model": {"type": "Magic", "vocab": {"a": 0}}}"#,
        "its model is `Magic`, known are `BPE`, `Unigram`",
    );
    assert!(matches!(Tokenizer::load(Path::new("/no/such")), Err(Error::Io { .. })));
}

#[test]
fn half_a_tokenizer_is_refused() {
    let json = trained().to_bytes().to_vec();
    for end in (0..json.len() - 1).step_by(97) {
        assert!(Tokenizer::from_bytes(&json[..end], "x").is_err(), "{end} bytes");
    }
}

#[test]
fn reads_where_a_tokenizer_comes_from() {
    let trains = |training, n_vocabulary| TokenizerSpec::Train { training, n_vocabulary };
    for (spec, training) in [
        ("train:bpe:32000", Training::Bpe),
        ("train:wordpiece:32_000", Training::WordPiece),
        ("train:unigram:32000", Training::Unigram),
    ] {
        assert_eq!(TokenizerSpec::parse(spec).unwrap(), trains(training, 32_000));
    }
    assert_eq!(TokenizerSpec::parse("a/b.json").unwrap(), TokenizerSpec::Path("a/b.json".into()));
    let mut errors = String::new();
    for spec in ["", "train:words:9", "train:bpe:", "train:bpe:256", "train:unigram:9"] {
        writeln!(errors, "{}", TokenizerSpec::parse(spec).unwrap_err()).unwrap();
    }
    for why in [
        "it is empty",
        "there is no training called `words`",
        "9 tokens are too few: 256 bytes, the letters of their names",
        "`` is not a number of tokens",
        "256 tokens are too few: 256 bytes and `<|endoftext|>` need 257",
        "hint: write `train:bpe:32000`",
    ] {
        assert!(errors.contains(why), "{why}: {errors}");
    }
}

mod reference;
