//! Trains Unigram vocabularies: many pieces at first, of which those that matter least are taken away.
//!
//! `tokenizers`' own trainer sums in an order that depends on the number of threads and ends with the order of a hash
//! map. This one follows its steps on one thread in a fixed order.
//!
//! Source: Kudo 2018; `UnigramTrainer` of tokenizers 0.23, which follows SentencePiece.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::END_OF_TEXT;
use super::pattern::added_tokens;
use super::sentencepiece::SPACE;
use super::words::{Words, count_words};

/// Pieces at first, at most.
const SEEDS_MAX: usize = 1_000_000;
/// Characters of a piece, at most.
const PIECE_CHARS_MAX: usize = 16;
/// Characters of all different words that are learned from: the most frequent words. A suffix array takes 40 bytes each.
const CHARS_MAX: usize = 8 << 20;
/// Part of all characters that get a piece of their own, as in SentencePiece; bytes stand in for the others.
const COVERAGE: f64 = 0.9995;
/// Part of the pieces that stays each time.
const SHRINKING: f64 = 0.75;
/// Rounds of expectation and maximisation between two prunings.
const ROUNDS: usize = 2;
/// Pieces that are expected less often are dropped.
const EXPECTED_MIN: f64 = 0.5;
/// What an unknown character scores below the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Each required character without a piece scores a little better than the one before.
const REQUIRED_STEP: f64 = 0.0001;
/// Spell the names of bytes, which must never be pieces of a text.
const BYTE_LETTERS: &str = "<0x123456789ABCDEF>";
const UNKNOWN: &str = "<unk>";
/// Special tokens, bytes and the letters of their names.
pub(super) const VOCABULARY_MIN: usize = 2 + 256 + 18;

/// A piece and the logarithm of its probability.
type Piece = (String, f64);

/// Trains a Unigram vocabulary and returns its `tokenizer.json`.
///
/// Text is not normalised, so decoding gives it back (but for U+2581, which stands for a space). Lines and digits
/// stand alone, and no piece crosses a space. Characters without a piece are spelled in bytes.
pub(super) fn train(
    texts: impl Iterator<Item = String>,
    n_vocabulary: usize,
) -> Result<Value, String> {
    let words = count_words(&to_json(&[(UNKNOWN.to_owned(), 0.0)]), texts)?;
    let required = required(&words);
    let n_pieces = n_vocabulary.saturating_sub(2 + 256);
    if required.len() > n_pieces {
        return Err(format!(
            "{n_vocabulary} tokens are too few: special tokens, bytes and characters of the texts are {}",
            required.len() + 2 + 256
        ));
    }
    let words = frequent(words, &required);
    if words.is_empty() {
        return Err("the texts have no words".to_owned());
    }
    let pieces = fit(&words, n_pieces)?;
    Ok(to_json(&finish(&pieces, &required, n_pieces)))
}

/// Characters that get a piece: the most frequent ones, and what names of bytes are written with.
fn required(words: &Words) -> BTreeSet<char> {
    let mut counts = BTreeMap::<char, u64>::new();
    for (word, count) in words {
        word.chars().for_each(|letter| *counts.entry(letter).or_default() += count);
    }
    let total: u64 = counts.values().sum();
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(letter, count)| (Reverse(*count), *letter));
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let wanted = total as f64 * COVERAGE;
    let mut covered = 0;
    let mut required: BTreeSet<char> = BYTE_LETTERS.chars().collect();
    for (letter, count) in counts {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        if covered as f64 >= wanted {
            break;
        }
        covered += count;
        required.insert(letter);
    }
    required
}

/// The most frequent words of required characters, sorted.
fn frequent(mut words: Words, required: &BTreeSet<char>) -> Words {
    words.retain(|(word, _)| word.chars().all(|letter| required.contains(&letter)));
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut n_chars = 0;
    words.retain(|(word, _)| {
        n_chars += word.chars().count() + 1;
        n_chars <= CHARS_MAX
    });
    words.sort_unstable();
    words
}

/// Expectation and maximisation, then pruning, until about `n_pieces` are left.
fn fit(words: &Words, n_pieces: usize) -> Result<Vec<Piece>, String> {
    let n_wanted = n_pieces * 11 / 10;
    let mut pieces = seeds(words)?;
    loop {
        for _ in 0..ROUNDS {
            let expected = expect(&Lexicon::new(&pieces), words);
            pieces = maximise(&pieces, &expected);
        }
        if pieces.len() <= n_wanted {
            return Ok(pieces);
        }
        pieces = prune(&pieces, words, n_wanted);
    }
}

/// Every character, then the repeated parts of words that are longest times most frequent.
fn seeds(words: &Words) -> Result<Vec<Piece>, String> {
    let mut flat = String::new();
    let mut letters = BTreeMap::<char, u64>::new();
    for (word, count) in words {
        flat.push_str(word);
        flat.push('\0');
        word.chars().for_each(|letter| *letters.entry(letter).or_default() += count);
    }
    let suffixes = esaxx_rs::suffix_rs(&flat).map_err(|error| format!("{error:?}"))?;
    let mut parts: Vec<(u64, &[char])> = suffixes
        .iter()
        .filter(|(part, _)| (2..=PIECE_CHARS_MAX).contains(&part.len()) && !part.contains(&'\0'))
        .map(|(part, count)| (u64::from(count) * part.len() as u64, part))
        .collect();
    parts.sort_unstable_by(|a, b| b.cmp(a));
    let mut letters: Vec<_> = letters.into_iter().map(|(letter, count)| (count, letter)).collect();
    letters.sort_unstable_by(|a, b| b.cmp(a));
    let letters = letters.into_iter().map(|(count, letter)| (letter.to_string(), count));
    let parts = parts.into_iter().map(|(score, part)| (part.iter().collect(), score));
    let counted: Vec<(String, u64)> = letters.chain(parts).take(SEEDS_MAX).collect();
    #[expect(clippy::cast_precision_loss, reason = "a logarithm of it is taken")]
    let log = |count: u64| (count as f64).ln();
    let total = log(counted.iter().map(|(_, count)| count).sum());
    Ok(counted.into_iter().map(|(piece, count)| (piece, log(count) - total)).collect())
}

/// Pieces as a tree of their characters.
struct Lexicon {
    children: Vec<BTreeMap<char, u32>>,
    /// The piece that ends at a node.
    ends: Vec<Option<u32>>,
    scores: Vec<f64>,
    unknown_score: f64,
}

/// A piece in a word, from character to character; no piece for one that is unknown.
#[derive(Clone, Copy)]
struct Arc {
    start: usize,
    end: usize,
    piece: Option<u32>,
    score: f64,
}

impl Lexicon {
    fn new(pieces: &[Piece]) -> Self {
        let scores: Vec<f64> = pieces.iter().map(|(_, score)| *score).collect();
        let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let mut lexicon = Self {
            children: vec![BTreeMap::new()],
            ends: vec![None],
            scores,
            unknown_score: worst - UNKNOWN_PENALTY,
        };
        for ((piece, _), id) in pieces.iter().zip(0..) {
            let mut node = 0;
            for letter in piece.chars() {
                let next = u32::try_from(lexicon.children.len()).expect("fewer than 2^32 nodes");
                let child = *lexicon.children[node].entry(letter).or_insert(next);
                if child == next {
                    lexicon.children.push(BTreeMap::new());
                    lexicon.ends.push(None);
                }
                node = child as usize;
            }
            lexicon.ends[node] = Some(id);
        }
        lexicon
    }

    /// All pieces in `word`, by their starts.
    fn arcs(&self, word: &[char], arcs: &mut Vec<Arc>) {
        arcs.clear();
        for start in 0..word.len() {
            let mut node = 0;
            let mut is_known = false;
            for (end, letter) in word.iter().enumerate().skip(start) {
                let Some(child) = self.children[node].get(letter) else { break };
                node = *child as usize;
                if let Some(piece) = self.ends[node] {
                    is_known |= end == start;
                    let score = self.scores[piece as usize];
                    arcs.push(Arc { start, end: end + 1, piece: Some(piece), score });
                }
            }
            if !is_known {
                let score = self.unknown_score;
                arcs.push(Arc { start, end: start + 1, piece: None, score });
            }
        }
    }
}

/// `ln(exp(a) + exp(b))`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// How often each piece is expected over all ways to cut all words.
fn expect(lexicon: &Lexicon, words: &Words) -> Vec<f64> {
    let mut expected = vec![0.0; lexicon.scores.len()];
    let (mut letters, mut arcs) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (word, count) in words {
        letters.clear();
        letters.extend(word.chars());
        lexicon.arcs(&letters, &mut arcs);
        let n = letters.len();
        for sums in [&mut before, &mut after] {
            sums.clear();
            sums.resize(n + 1, f64::NEG_INFINITY);
        }
        before[0] = 0.0;
        for arc in &arcs {
            before[arc.end] = log_add(before[arc.end], before[arc.start] + arc.score);
        }
        after[n] = 0.0;
        for arc in arcs.iter().rev() {
            after[arc.start] = log_add(after[arc.start], after[arc.end] + arc.score);
        }
        #[expect(clippy::cast_precision_loss, reason = "a weight")]
        let count = *count as f64;
        for arc in &arcs {
            if let Some(piece) = arc.piece {
                let share = (before[arc.start] + arc.score + after[arc.end] - before[n]).exp();
                expected[piece as usize] += count * share;
            }
        }
    }
    expected
}

/// New probabilities, with a prior that favours few pieces (Liang and Klein 2007).
fn maximise(pieces: &[Piece], expected: &[f64]) -> Vec<Piece> {
    let kept = pieces.iter().zip(expected).filter(|(_, expected)| **expected >= EXPECTED_MIN);
    let total = digamma(kept.clone().map(|(_, expected)| expected).sum());
    kept.map(|((piece, _), expected)| (piece.clone(), digamma(*expected) - total)).collect()
}

/// The derivative of the logarithm of the gamma function, with the series and coefficients of SentencePiece.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    x -= 0.5;
    let square = (1.0 / x).powi(2);
    let fourth = square * square;
    result + x.ln() + (1.0 / 24.0) * square - 7.0 / 960.0 * fourth
        + (31.0 / 8064.0) * fourth * square
        - (127.0 / 30720.0) * fourth * fourth
}

/// The likeliest pieces of a word, from the last to the first; `banned` is not used.
fn best(arcs: &[Arc], n: usize, banned: Option<u32>) -> Option<Vec<Option<u32>>> {
    let mut paths: Vec<Option<(f64, Arc)>> = vec![None; n + 1];
    for arc in arcs {
        let before = match arc.start {
            0 => 0.0,
            start => match paths[start] {
                Some((score, _)) => score,
                None => continue,
            },
        };
        let score = before + arc.score;
        let is_better = paths[arc.end].is_none_or(|(best, _)| score > best);
        if is_better && (banned.is_none() || arc.piece != banned) {
            paths[arc.end] = Some((score, *arc));
        }
    }
    let (mut end, mut found) = (n, Vec::new());
    while end > 0 {
        let (_, arc) = paths[end]?;
        found.push(arc.piece);
        end = arc.start;
    }
    Some(found)
}

/// Takes away the pieces without which the words would lose least likelihood.
fn prune(pieces: &[Piece], words: &Words, n_wanted: usize) -> Vec<Piece> {
    let lexicon = Lexicon::new(pieces);
    let (mut letters, mut arcs) = (Vec::new(), Vec::new());
    let mut counts = vec![0.0; pieces.len()];
    let mut n_words = 0.0;
    for (word, count) in words {
        letters.clear();
        letters.extend(word.chars());
        lexicon.arcs(&letters, &mut arcs);
        #[expect(clippy::cast_precision_loss, reason = "a weight")]
        let count = *count as f64;
        n_words += count;
        for piece in best(&arcs, letters.len(), None).into_iter().flatten().flatten() {
            counts[piece as usize] += count;
        }
    }
    let total: f64 = counts.iter().sum();
    let mut kept = Vec::new();
    let mut candidates = Vec::new();
    for ((piece, score), id) in pieces.iter().zip(0_u32..) {
        let count = counts[id as usize];
        letters.clear();
        letters.extend(piece.chars());
        lexicon.arcs(&letters, &mut arcs);
        let n = letters.len();
        let is_best = best(&arcs, n, None).is_some_and(|path| path == [Some(id)]);
        let instead = if is_best { best(&arcs, n, Some(id)) } else { None };
        match instead {
            // One that is never the best way to write itself is not used.
            None if !is_best && count == 0.0 => {}
            None => kept.push((piece.clone(), *score)),
            Some(_) if count == 0.0 => {}
            Some(instead) => {
                // Its count goes to those that would be in its place.
                #[expect(clippy::cast_precision_loss, reason = "a handful")]
                let total_after = (total + count * (instead.len() as f64 - 1.0)).ln();
                let after: f64 = instead
                    .iter()
                    .map(|piece| piece.map_or(0.0, |piece| counts[piece as usize]))
                    .map(|other| (other + count).ln() - total_after)
                    .sum();
                let loss = count / n_words * (count.ln() - total.ln() - after);
                candidates.push((loss, id as usize));
            }
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "three quarters of a number of pieces"
    )]
    let n_kept = n_wanted.max((pieces.len() as f64 * SHRINKING) as usize);
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let room = n_kept.saturating_sub(kept.len());
    kept.extend(candidates.into_iter().take(room).map(|(_, id)| pieces[id].clone()));
    kept
}

/// Required characters and the best of the other pieces, the best first.
fn finish(pieces: &[Piece], required: &BTreeSet<char>, n_pieces: usize) -> Vec<Piece> {
    let found: BTreeMap<&str, f64> =
        pieces.iter().map(|(piece, score)| (piece.as_str(), *score)).collect();
    let mut score = found.values().copied().fold(0.0, f64::min);
    let mut finished: Vec<Piece> = Vec::with_capacity(n_pieces);
    for letter in required {
        let letter = letter.to_string();
        let known = found.get(letter.as_str()).copied().unwrap_or_else(|| {
            score += REQUIRED_STEP;
            score - REQUIRED_STEP
        });
        finished.push((letter, known));
    }
    let mut others: Vec<&Piece> = pieces
        .iter()
        .filter(|(piece, _)| {
            !(piece.chars().count() == 1 && piece.chars().all(|c| required.contains(&c)))
        })
        .collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let room = n_pieces.saturating_sub(finished.len());
    finished.extend(others.into_iter().take(room).cloned());
    finished.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    finished
}

fn to_json(pieces: &[Piece]) -> Value {
    let worst = pieces.iter().map(|(_, score)| *score).fold(0.0, f64::min);
    let special = [UNKNOWN, END_OF_TEXT].map(|token| (token.to_owned(), 0.0));
    let bytes = (0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), worst));
    let all: Vec<Piece> = special.into_iter().chain(bytes).chain(pieces.iter().cloned()).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&[
            (UNKNOWN.to_owned(), 0, true), (END_OF_TEXT.to_owned(), 1, true),
        ]),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"String": SPACE}, "behavior": "MergedWithNext", "invert": false},
                {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": false},
                {"type": "Digits", "individual_digits": true},
            ],
        },
        "post_processor": null,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": all},
    })
}

#[cfg(test)]
mod tests;
