//! From a text to its words and shingles, as 64-bit hashes.
//!
//! A *word* is a run of letters, digits and combining marks, in lower case and composed form (NFC).
//! Everything else separates: punctuation, symbols, white space. Soft hyphens and zero-width joiners inside a word
//! are skipped. In scripts written without spaces (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) each character is a
//! word. So reformatted, re-punctuated and re-encoded copies have the same words.
//!
//! A *shingle* is `ngram` words in a row; a text with fewer words has one shingle, all of its words, and a
//! text without words has none.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::mix::{K0, K1, K2, finalise, fold};

/// Gives the hashes of words and shingles; keeps its buffers from text to text.
#[derive(Debug)]
pub struct Shingler {
    ngram: usize,
    /// Hashes of words, or of characters.
    words: Vec<u64>,
    word: String,
    is_of_characters: bool,
}

impl Shingler {
    /// Makes shingles of `ngram` words, at least one.
    #[must_use]
    pub fn new(ngram: usize) -> Self {
        assert!(ngram > 0, "a shingle has at least one word");
        Self { ngram, words: Vec::new(), word: String::new(), is_of_characters: false }
    }

    /// Makes shingles of `ngram` characters of the words of a text, a space between them; none between letters of scripts
    /// that are written without spaces.
    #[must_use]
    pub fn of_characters(ngram: usize) -> Self {
        Self { is_of_characters: true, ..Self::new(ngram) }
    }

    /// Replaces `shingles` by the hash of every shingle of `text`, in the order of the text, repeats included.
    pub fn shingles(&mut self, text: &str, shingles: &mut Vec<u64>) {
        shingles.clear();
        self.words.clear();
        match self.is_of_characters {
            true => character_hashes(text, &mut self.words, &mut self.word),
            false => word_hashes(text, &mut self.words, &mut self.word),
        }
        roll(&self.words, self.ngram, shingles);
    }

    /// Whether the text of the last call was shorter than a shingle.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.words.len() < self.ngram
    }

    /// Returns the sorted set of shingles of `text`: what [`jaccard`] compares.
    #[must_use]
    pub fn set(&mut self, text: &str) -> Vec<u64> {
        let mut shingles = Vec::new();
        self.shingles(text, &mut shingles);
        shingles.sort_unstable();
        shingles.dedup();
        shingles
    }
}

/// Returns the Jaccard index of two sets, each sorted and without repeats: shared members over all members.
///
/// Two empty sets are equal: 1.
#[must_use]
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let shared = intersection(a, b);
    let all = a.len() + b.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// Counts the shared members of two sorted sets. The cursors move without branches: the merge of
/// unequal sets is unpredictable, and a mispredicted branch costs more than the whole step.
fn intersection(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        shared += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    shared
}

/// Shingles from word hashes: a polynomial in an odd constant, moved along by one multiplication per word, then mixed.
pub(crate) fn roll(words: &[u64], ngram: usize, shingles: &mut Vec<u64>) {
    let ngram = ngram.min(words.len());
    if ngram == 0 {
        return;
    }
    let mut state = 0u64;
    let mut leaving_factor = 1u64;
    for &word in &words[..ngram] {
        state = state.wrapping_mul(K2).wrapping_add(word);
        leaving_factor = leaving_factor.wrapping_mul(K2);
    }
    shingles.reserve(words.len() - ngram + 1);
    shingles.push(finalise(state));
    for (&leaving, &entering) in words.iter().zip(&words[ngram..]) {
        state = state
            .wrapping_mul(K2)
            .wrapping_add(entering)
            .wrapping_sub(leaving.wrapping_mul(leaving_factor));
        shingles.push(finalise(state));
    }
}

/// Appends the hash of each word of `text`; `word` is scratch space.
///
/// ASCII words are found and hashed eight bytes at a time; a word that touches anything else takes the slow path.
fn word_hashes(text: &str, words: &mut Vec<u64>, word: &mut String) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut state = K0;
        let (block, n) = loop {
            let raw = load(bytes, at);
            let n = leading_alphanumerics(raw);
            // Letters differ from their capitals in this bit, and digits have it set.
            let block = (raw | 0x2020_2020_2020_2020) & low_bytes(n);
            at += n;
            if n < 8 {
                break (block, n);
            }
            state = fold(state ^ block, K1);
        };
        if bytes.get(at).is_some_and(|byte| !byte.is_ascii()) {
            at = start + unicode_word(&text[start..], words, word);
            continue;
        }
        if at > start {
            words.push(finish(state, block, at - start));
        }
        debug_assert!(n < 8);
        at += 1; // The separator, or the end.
    }
}

/// Appends the hash of each character of the words of `text`, and of one space for each stretch between them.
fn character_hashes(text: &str, characters: &mut Vec<u64>, word: &mut String) {
    let hash = |c: char| fold(u64::from(u32::from(c)) ^ K0, K1);
    let mut take = |word: &mut String| {
        if word.is_empty() {
            return;
        }
        if !characters.is_empty() {
            characters.push(hash(' '));
        }
        characters.extend(word.nfc().map(hash));
        word.clear();
    };
    word.clear();
    for c in text.chars().filter(|c| !is_ignored(*c)) {
        match is_word_character(c) {
            true => word.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c })),
            false => take(word),
        }
    }
    take(word);
}

/// The eight bytes at `at`, the first in the lowest place, zeros past the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8) {
        Some(eight) => u64::from_le_bytes(eight.try_into().expect("eight bytes were taken")),
        None => {
            let rest = bytes.get(at..).unwrap_or_default();
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(eight)
        }
    }
}

#[inline(always)]
fn low_bytes(n: usize) -> u64 {
    if n >= 8 { u64::MAX } else { (1 << (8 * n)) - 1 }
}

/// Counts how many of eight bytes, from the lowest, are ASCII letters or digits, before the first that is not.
#[inline(always)]
fn leading_alphanumerics(block: u64) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // In a byte of at most 0x7f, adding `0x80 - low` sets the top bit from `low` on, and nothing carries over.
    let within = |bytes: u64, low: u64, high: u64| {
        bytes.wrapping_add(ONES * (0x80 - low)) & !bytes.wrapping_add(ONES * (0x7f - high))
    };
    let seven_bits = block & !TOPS;
    let letter = within(seven_bits | (ONES * 0x20), u64::from(b'a'), u64::from(b'z'));
    let digit = within(seven_bits, u64::from(b'0'), u64::from(b'9'));
    let alphanumeric = (letter | digit) & !block & TOPS;
    ((alphanumeric ^ TOPS).trailing_zeros() / 8) as usize
}

/// Hash of a word, the plain form of what [`word_hashes`] does on the fly.
fn hash_word(word: &[u8]) -> u64 {
    let mut state = K0;
    let mut at = 0;
    while word.len() - at >= 8 {
        state = fold(state ^ load(word, at), K1);
        at += 8;
    }
    finish(state, load(word, at), word.len())
}

#[inline(always)]
fn finish(state: u64, block: u64, n_bytes: usize) -> u64 {
    fold(state ^ block, K2 ^ n_bytes as u64)
}

/// Takes the word at the start of `text`, which has a character beyond ASCII in it or behind it, and
/// that character when it is a separator or a word of its own. Returns the bytes taken.
fn unicode_word(text: &str, words: &mut Vec<u64>, word: &mut String) -> usize {
    word.clear();
    let mut must_compose = false;
    let mut taken = 0;
    for c in text.chars() {
        if is_ignored(c) {
        } else if !is_word_character(c) {
            taken += c.len_utf8();
            break;
        } else if is_word_alone(c) {
            if word.is_empty() {
                taken += c.len_utf8();
                let mut utf8 = [0; 4];
                words.push(hash_word(c.encode_utf8(&mut utf8).as_bytes()));
                return taken;
            }
            break;
        } else {
            must_compose |= is_combining_mark(c) || ('\u{1100}'..='\u{11ff}').contains(&c);
            // A final sigma is a sigma: lower-casing by character cannot know where a word ends.
            word.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }));
        }
        taken += c.len_utf8();
    }
    if must_compose {
        *word = word.nfc().collect();
    }
    if !word.is_empty() {
        words.push(hash_word(word.as_bytes()));
    }
    taken
}

fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c)
}

/// Soft hyphen, zero-width space's joining cousins and the byte order mark: invisible, so not part of a word and not a border of it.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}')
}

/// Letters of scripts that are written without spaces between words.
fn is_word_alone(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'        // Thai, Lao
        | '\u{1000}'..='\u{109f}'      // Myanmar
        | '\u{1780}'..='\u{17ff}'      // Khmer
        | '\u{3005}'..='\u{3007}'      // iteration marks, zero
        | '\u{3040}'..='\u{30ff}'      // Hiragana, Katakana
        | '\u{31f0}'..='\u{31ff}'      // Katakana extensions
        | '\u{3400}'..='\u{4dbf}'      // Han
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(text: &str) -> Vec<u64> {
        let mut words = Vec::new();
        word_hashes(text, &mut words, &mut String::new());
        words
    }

    fn check(text: &str, expected_words: &[&str]) {
        let expected: Vec<u64> =
            expected_words.iter().map(|word| hash_word(word.as_bytes())).collect();
        assert_eq!(hashes(text), expected, "{text:?}");
    }

    #[test]
    fn words_are_lower_cased_runs_of_letters_and_digits() {
        check("", &[]);
        check(" ...\n", &[]);
        check("The quick, brown FOX!", &["the", "quick", "brown", "fox"]);
        check("don't 3.14 x", &["don", "t", "3", "14", "x"]);
        check(
            "eightlet eightlets internationalisation",
            &["eightlet", "eightlets", "internationalisation"],
        );
        check("@[`{/:", &[]);
        check("a\0b", &["a", "b"]);
    }

    #[test]
    fn words_beyond_ascii_are_folded_alike() {
        check("naïve Ärger—ÉTÉ", &["naïve", "ärger", "été"]);
        check("nai\u{308}ve E\u{301}te\u{301}", &["naïve", "été"]);
        check("exam\u{ad}ple", &["example"]);
        check("ΟΔΟΣ οδός", &["οδοσ", "οδόσ"]);
        check("हिन्दी भाषा", &["हिन्दी", "भाषा"]);
        check("日本語text です", &["日", "本", "語", "text", "で", "す"]);
        check("text日", &["text", "日"]);
        check("“quoted”…", &["quoted"]);
        check("\u{1112}\u{1161}\u{11ab}글", &["한글"]);
    }

    #[test]
    fn shingles_depend_on_order_and_number_of_words() {
        let mut shingler = Shingler::new(3);
        assert_eq!(shingler.set("a b c d").len(), 2);
        assert_eq!(shingler.set("a b c d a b c d").len(), 4);
        assert_ne!(shingler.set("a b c"), shingler.set("c b a"));
        assert_ne!(shingler.set("a b"), shingler.set("a"));
        assert_eq!(shingler.set("a b").len(), 1);
        assert!(shingler.set("").is_empty());
    }

    #[test]
    fn a_shingle_is_the_same_wherever_it_stands() {
        let mut shingler = Shingler::new(3);
        let (mut long, mut short) = (Vec::new(), Vec::new());
        shingler.shingles("p q r one two three four", &mut long);
        shingler.shingles("One, two: three", &mut short);
        assert_eq!(short, [long[3]]);
    }

    #[test]
    fn jaccard_is_shared_over_all() {
        // Bigrams {ab, bc, cd} and {ab, bc, ce}: 2 shared of 4.
        let mut shingler = Shingler::new(2);
        assert_eq!(jaccard(&shingler.set("a b c d"), &shingler.set("a b c e")), 0.5);
        // "the cat sat on the mat" {the cat, cat sat, sat on, on the, the mat}
        // and "the cat sat on a mat" {the cat, cat sat, sat on, on a, a mat}: 3 of 7.
        let a = shingler.set("the cat sat on the mat");
        let b = shingler.set("the cat sat on a mat");
        assert_eq!(jaccard(&a, &b), 3.0 / 7.0);
        assert_eq!(jaccard(&a, &a), 1.0);
        assert_eq!(jaccard(&a, &[]), 0.0);
        assert_eq!(jaccard(&[], &[]), 1.0);
    }

    /// The words by the definition, one character at a time.
    fn plain_words(text: &str) -> Vec<u64> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut close = |word: &mut String| {
            if !word.is_empty() {
                let composed: String = if word.is_ascii() {
                    word.clone()
                } else if word
                    .chars()
                    .any(|c| is_combining_mark(c) || ('\u{1100}'..='\u{11ff}').contains(&c))
                {
                    word.nfc().collect()
                } else {
                    word.clone()
                };
                words.push(hash_word(composed.as_bytes()));
                word.clear();
            }
        };
        for c in text.chars().filter(|&c| !is_ignored(c)) {
            if !is_word_character(c) {
                close(&mut word);
            } else if is_word_alone(c) {
                close(&mut word);
                word.push(c);
                close(&mut word);
            } else {
                word.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }));
            }
        }
        close(&mut word);
        words
    }

    proptest! {
        #[test]
        fn the_fast_path_finds_the_words_of_the_definition(
            text in "([a-zA-Z0-9 ,.\n'@é日ßΣ\u{301}\u{ad}]{0,60}|\\PC{0,40})"
        ) {
            prop_assert_eq!(hashes(&text), plain_words(&text));
        }

        #[test]
        fn rolling_equals_hashing_each_window(
            words in proptest::collection::vec(any::<u64>(), 0..30), ngram in 1usize..8
        ) {
            let mut rolled = Vec::new();
            roll(&words, ngram, &mut rolled);
            let windows: Vec<u64> = words
                .windows(ngram.min(words.len()).max(1))
                .map(|window| {
                    finalise(window.iter().fold(0u64, |h, w| h.wrapping_mul(K2).wrapping_add(*w)))
                })
                .collect();
            prop_assert_eq!(rolled, windows);
        }
    }
}
