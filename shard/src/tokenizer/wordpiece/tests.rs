use std::collections::HashSet;
use std::fs;

use tokenizers_stable as stable;

use super::super::tests::{TINY_SHAKESPEARE, data};
use super::super::{Tokenizer, Training, train as train_any};
use super::*;

fn vocabulary(json: &Value) -> Vec<String> {
    let ids = json["model"]["vocab"].as_object().unwrap();
    let mut ids: Vec<(u64, String)> =
        ids.iter().map(|(token, id)| (id.as_u64().unwrap(), token.clone())).collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, token)| token).collect()
}

#[test]
fn merges_pieces_of_words_by_hand() {
    // hug 10, pug 5, hugs 5. Letters g h p s u, inner g s u. ##u ##g is in all three: 20, then h ##ug 15, p ##ug 5,
    // hug ##s 5: the ids of `p` and `##ug` are smaller than those of `hug` and `##s`.
    let texts = [("hug", 10), ("pug", 5), ("hugs", 5)];
    let texts = texts.iter().map(|(word, n)| format!("{word} ").repeat(*n));
    let found = vocabulary(&train(texts, 17).unwrap());
    let expected = ["g", "h", "p", "s", "u", "##g", "##s", "##u", "##ug", "hug", "pug", "hugs"];
    assert_eq!(found[..5], SPECIAL);
    assert_eq!(found[5..], expected);
}

#[test]
fn learns_what_the_stable_trainer_learns() {
    use stable::models::wordpiece::{WordPiece, WordPieceTrainer};
    let Some(path) = data(TINY_SHAKESPEARE) else { return };
    let text = fs::read_to_string(path).unwrap();
    let texts = || text.split_inclusive("\n\n").map(str::to_owned);
    let bytes = train_any(Training::WordPiece, 2000, texts()).unwrap();
    assert_eq!(bytes, train_any(Training::WordPiece, 2000, texts()).unwrap());
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    let mut oracle = stable::Tokenizer::new(WordPiece::default());
    oracle.with_normalizer(Some(stable::normalizers::BertNormalizer::default())).unwrap();
    oracle.with_pre_tokenizer(Some(stable::pre_tokenizers::bert::BertPreTokenizer));
    let special = SPECIAL.iter().map(|token| stable::AddedToken::from(*token, true)).collect();
    let mut trainer: stable::models::TrainerWrapper = WordPieceTrainer::builder()
        .vocab_size(2000)
        .min_frequency(COUNT_MIN)
        .limit_alphabet(LETTERS_MAX)
        .show_progress(false)
        .special_tokens(special)
        .build()
        .into();
    oracle.train(&mut trainer, texts()).unwrap();
    let found: HashSet<String> = vocabulary(&json).into_iter().collect();
    let expected: HashSet<String> = oracle.get_vocab(false).into_keys().collect();
    let common = found.intersection(&expected).count();
    println!("{common} of {} tokens are in both", expected.len());
    assert_eq!(found.len(), expected.len());
    assert!(common * 100 >= expected.len() * 99, "{common} of {}", expected.len());
    let tokenizer = Tokenizer::from_bytes(&bytes, "trained").unwrap();
    let mut ids = Vec::new();
    tokenizer.encode("What say you, my lord?", &mut ids).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "what say you, my lord?");
    assert_eq!(tokenizer.end_of_document(), Some(3));
}

#[test]
fn more_letters_than_tokens_are_refused() {
    let error = train_any(Training::WordPiece, 8, ["abcdef".to_owned()].into_iter()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`train:wordpiece:8`") && text.contains("of the texts are 16"), "{text}");
}
