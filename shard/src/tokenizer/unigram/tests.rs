use std::collections::HashSet;
use std::fs;

use tokenizers_stable as stable;

use super::super::tests::{TINY_SHAKESPEARE, data};
use super::super::{Tokenizer, Training, train as train_any};
use super::*;

const TOKENS: usize = 1500;

fn texts(text: &str) -> impl Iterator<Item = String> + Send {
    text.split_inclusive("\n\n").map(str::to_owned)
}

/// Nats per character of the likeliest way to cut the words.
fn loss(pieces: &[Piece], words: &Words) -> f64 {
    let lexicon = Lexicon::new(pieces);
    let (mut total, mut n, mut arcs) = (0.0, 0.0, Vec::new());
    for (word, count) in words {
        let letters: Vec<char> = word.chars().collect();
        lexicon.arcs(&letters, &mut arcs);
        let path = best(&arcs, letters.len(), None).unwrap();
        let score: f64 = path
            .iter()
            .map(|id| id.map_or(lexicon.unknown_score, |id| lexicon.scores[id as usize]))
            .sum();
        total -= score * *count as f64;
        n += (letters.len() as u64 * count) as f64;
    }
    total / n
}

#[test]
fn learns_what_the_stable_trainer_learns() {
    use stable::models::unigram::{Unigram, UnigramTrainer};
    let Some(path) = data(TINY_SHAKESPEARE) else { return };
    let text = fs::read_to_string(path).unwrap();
    let words = count_words(&to_json(&[(UNKNOWN.to_owned(), 0.0)]), texts(&text)).unwrap();
    let required = required(&words);
    let words = frequent(words, &required);
    let fitted = fit(&words, TOKENS).unwrap();
    let found = finish(&fitted, &required, TOKENS);
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(u32::try_from(TOKENS).unwrap())
        .initial_alphabet(required.iter().copied().collect())
        .build()
        .unwrap();
    let sentences =
        words.iter().map(|(word, n)| (word.to_string(), u32::try_from(*n).unwrap())).collect();
    let mut oracle = Unigram::default();
    trainer.do_train(sentences, &mut oracle).unwrap();
    let expected: Vec<Piece> = oracle.iter().cloned().collect();
    let names = |pieces: &[Piece]| -> HashSet<String> {
        pieces.iter().map(|(piece, _)| piece.clone()).collect()
    };
    // The last cut differs: here the best scores stay, as in SentencePiece, there the first in the order of pruning.
    // That explains 77 of the 106 pieces that are not in both; why 29 are gone before it is not known. What counts is
    // that the words are as likely: the bound on the pieces only notices a change.
    let mut before = names(&fitted);
    before.extend(required.iter().map(char::to_string));
    let n_fitted = names(&expected).intersection(&before).count();
    let common = names(&found).intersection(&names(&expected)).count();
    let losses = [loss(&found, &words), loss(&expected, &words)];
    println!(
        "{common} of {} pieces are in both, {n_fitted} before the last cut, nats per character {losses:?}",
        expected.len()
    );
    assert_eq!(found.len(), expected.len());
    assert!(common * 100 >= expected.len() * 90, "{common} of {}", expected.len());
    assert!((losses[0] / losses[1] - 1.0).abs() < 0.005, "{losses:?}");
}

#[test]
fn a_trained_vocabulary_gives_every_text_back() {
    let Some(path) = data(TINY_SHAKESPEARE) else { return };
    let text = fs::read_to_string(path).unwrap();
    let text = &text[..200_000];
    let bytes = train_any(Training::Unigram, TOKENS, texts(text)).unwrap();
    assert_eq!(bytes, train_any(Training::Unigram, TOKENS, texts(text)).unwrap());
    let tokenizer = Tokenizer::from_bytes(&bytes, "trained").unwrap();
    assert_eq!(tokenizer.n_vocabulary() as usize, TOKENS);
    assert_eq!(tokenizer.end_of_document(), Some(1));
    let mut ids = Vec::new();
    let others =
        ["", "  a\n\n\tb 2026 ", "日本語 🦙", "<0x41> <unk> <|endoftext|></s>", "\u{0}\u{7f}"];
    for text in others.into_iter().chain(text.split_inclusive("\n\n")) {
        ids.clear();
        tokenizer.encode(text, &mut ids).unwrap();
        assert!(ids.iter().all(|id| *id > 1), "{text:?}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn more_characters_than_tokens_are_refused() {
    let letters: String = ('a'..='z').chain('α'..='ω').collect();
    let error = train_any(Training::Unigram, 290, [letters].into_iter()).unwrap_err().to_string();
    assert!(
        error.contains("`train:unigram:290`") && error.contains("290 tokens are too few"),
        "{error}"
    );
}
