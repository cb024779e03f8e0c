//! From a text to the hashes of its words and where they stand.

use std::fmt;
use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use crate::datatrove::{simplify, simplify_mapped};
use crate::minhash::SplitWords;
use crate::mix::{K0, K1, K2, fold};

/// How a profile splits a text.
#[derive(Clone)]
pub(super) enum Splitter {
    /// Runs between white space, in lower case, of their letters, digits and marks; runs without one are no words.
    Letters,
    /// Runs between white space, ASCII letters in lower case, without ASCII punctuation.
    Janitor,
    /// The words that the function finds in the simplified text.
    Datatrove(SplitWords),
}

impl fmt::Debug for Splitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Letters => "Letters",
            Self::Janitor => "Janitor",
            Self::Datatrove(_) => "Datatrove",
        })
    }
}

/// The words of a text.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) hashes: Vec<u64>,
    /// Bytes of the text; of profile `datatrove` only after [`Splitter::spans`].
    pub(super) spans: Vec<Range<usize>>,
}

impl Splitter {
    /// Replaces `words` by those of a document.
    pub(super) fn words(&self, text: &str, words: &mut Words) {
        words.hashes.clear();
        words.spans.clear();
        match self {
            Self::Letters => split::<false>(text, words),
            // The Janitor joins what stands between white space and deletes punctuation later, so a lone dash keeps
            // its place as an empty word: no n-gram of an item goes across it.
            Self::Janitor => split::<true>(text, words),
            Self::Datatrove(split) => {
                let found = split(&simplify(text));
                words.hashes.extend(found.iter().map(|word| hash(word)));
            }
        }
    }

    /// Returns the words of an item of a benchmark.
    pub(super) fn item_words(&self, text: &str) -> Vec<u64> {
        let mut words = Words::default();
        self.words(text, &mut words);
        words.hashes.retain(|word| *word != hash(""));
        words.hashes
    }

    /// Fills in where the words stand: what [`Splitter::words`] leaves out because it is asked for contaminated documents only.
    pub(super) fn spans(&self, text: &str, words: &mut Words) {
        let Self::Datatrove(split) = self else { return };
        let (simple, sources) = simplify_mapped(text);
        let mut end = 0;
        words.spans.clear();
        words.spans.extend(split(&simple).iter().map(|word| {
            let start = end + simple[end..].find(word.as_str()).expect("a word stands in its text");
            end = start + word.len();
            sources[start].start..sources[end - 1].end
        }));
    }
}

/// Hash of a word as it grows, eight bytes at a time.
struct WordHash {
    state: u64,
    block: u64,
    n_bytes: u64,
}

impl WordHash {
    fn new() -> Self {
        Self { state: K0, block: 0, n_bytes: 0 }
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) {
        self.block |= u64::from(byte) << (8 * (self.n_bytes % 8));
        self.n_bytes += 1;
        if self.n_bytes.is_multiple_of(8) {
            self.state = fold(self.state ^ self.block, K1);
            self.block = 0;
        }
    }

    fn push_char(&mut self, c: char) {
        let mut utf8 = [0; 4];
        for byte in c.encode_utf8(&mut utf8).bytes() {
            self.push(byte);
        }
    }

    #[inline(always)]
    fn finish(&self) -> u64 {
        fold(self.state ^ self.block, K2 ^ self.n_bytes)
    }
}

fn hash(word: &str) -> u64 {
    let mut hash = WordHash::new();
    for byte in word.bytes() {
        hash.push(byte);
    }
    hash.finish()
}

/// What an ASCII byte is to a word: itself in lower case, [`SPACE`], or nothing.
const FOLDED: [u8; 128] = {
    let mut table = [NOTHING; 128];
    let mut c = 0_u8;
    while c < 128 {
        table[c as usize] = match c {
            b' ' | b'\t'..=b'\r' | 0x1c..=0x1f => SPACE,
            _ if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            _ => NOTHING,
        };
        c += 1;
    }
    table
};
const SPACE: u8 = b' ';
const NOTHING: u8 = 0;

/// Splits at white space as Python does, which counts the four separators of ASCII to it.
///
/// `JANITOR` keeps empty words, ASCII control characters and everything beyond ASCII.
fn split<const JANITOR: bool>(text: &str, words: &mut Words) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut word = WordHash::new();
        let mut space = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte.is_ascii() {
                match FOLDED[usize::from(byte)] {
                    SPACE => {
                        space = 1;
                        break;
                    }
                    NOTHING if JANITOR && byte.is_ascii_control() => word.push(byte),
                    NOTHING => {}
                    folded => word.push(folded),
                }
                at += 1;
                continue;
            }
            let c = text[at..].chars().next().expect("a character begins here");
            if c.is_whitespace() {
                space = c.len_utf8();
                break;
            }
            if JANITOR {
                word.push_char(c);
            } else if c.is_alphanumeric() || is_combining_mark(c) {
                c.to_lowercase().for_each(|c| word.push_char(c));
            }
            at += c.len_utf8();
        }
        if word.n_bytes > 0 || (JANITOR && at > start) {
            words.hashes.push(word.finish());
            words.spans.push(start..at);
        }
        at += space;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(splitter: &Splitter, text: &str, expected: &[(&str, &str)]) {
        let mut words = Words::default();
        splitter.words(text, &mut words);
        splitter.spans(text, &mut words);
        let found: Vec<(u64, &str)> = words
            .hashes
            .iter()
            .copied()
            .zip(words.spans.iter().map(|s| &text[s.clone()]))
            .collect();
        let expected: Vec<(u64, &str)> =
            expected.iter().map(|(word, span)| (hash(word), *span)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn letters_are_lower_cased_and_lose_their_punctuation() {
        check(&Splitter::Letters, "", &[]);
        check(&Splitter::Letters, " -- \n", &[]);
        check(
            &Splitter::Letters,
            "The (state-of-the-art) Don't -- 3.14!",
            &[
                ("the", "The"),
                ("stateoftheart", "(state-of-the-art)"),
                ("dont", "Don't"),
                ("314", "3.14!"),
            ],
        );
        check(
            &Splitter::Letters,
            "„ÄRGER“\u{a0}naïve\u{2003}internationalisation",
            &[
                ("ärger", "„ÄRGER“"),
                ("naïve", "naïve"),
                ("internationalisation", "internationalisation"),
            ],
        );
    }

    #[test]
    fn the_janitor_keeps_empty_words_and_what_is_beyond_ascii() {
        check(
            &Splitter::Janitor,
            "A -- „Ä“ b,c\u{1c}d",
            &[("a", "A"), ("", "--"), ("„Ä“", "„Ä“"), ("bc", "b,c"), ("d", "d")],
        );
        assert_eq!(Splitter::Janitor.item_words("a -- b"), [hash("a"), hash("b")]);
    }

    #[test]
    fn words_of_a_simplified_text_lead_back_to_the_text() {
        let words: SplitWords = std::sync::Arc::new(|text: &str| {
            text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        });
        check(
            &Splitter::Datatrove(words),
            "  Été, in 1,234.5 İstanbul—now!",
            &[
                ("ete", "Été"),
                ("in", "in"),
                ("0", "1,234"),
                ("0", "5"),
                ("istanbul", "İstanbul"),
                ("now", "now"),
            ],
        );
    }
}
