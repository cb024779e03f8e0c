//! Trains byte-level BPE vocabularies: counts words, then merges the most frequent pair of tokens again and again.
//!
//! `tokenizers`' own trainer depends on the order of a hash map where two of its candidates are equal, and counts
//! in 32 bits. This one gives the same merges where that one is exact (a test compares them), and the same bytes
//! always.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel as Bytes;
use tokenizers_stable as stable;

use super::words;
use super::{END_OF_TEXT, VOCABULARY_MIN};
use crate::{Error, Result};

/// Trains a byte-level BPE vocabulary and returns its `tokenizer.json`.
///
/// GPT-2's scheme (Radford et al. 2019): its pre-tokenizer without a leading space, all 256 bytes in the
/// alphabet, one special token [`END_OF_TEXT`]. The vocabulary is smaller than `n_vocabulary` when `texts` have
/// no more pairs to merge. Of pairs that are equally frequent, the one with the smaller ids is merged first, so
/// the same texts give the same bytes, in whatever order they come and whatever the number of threads.
///
/// Memory grows with the number of different words in `texts`, up to eight million: beyond, the rarest are forgotten
/// as the texts come. Runs of more than 4 KiB without a boundary of words are left out.
///
/// # Errors
/// When the library refuses.
///
/// # Panics
/// When `n_vocabulary` is below 257: [`TokenizerSpec::parse`](super::TokenizerSpec::parse) checks that.
///
/// Source: Sennrich et al. 2016; Radford et al. 2019.
pub fn train_bpe(
    texts: impl Iterator<Item = String> + Send,
    n_vocabulary: usize,
) -> Result<Vec<u8>> {
    assert!(n_vocabulary >= VOCABULARY_MIN, "{n_vocabulary} tokens, needs {VOCABULARY_MIN}");
    let refuse =
        |why: String| Error::Tokenizer { what: format!("`train:bpe:{n_vocabulary}`"), why };
    let words = count_words(texts).map_err(refuse)?;
    let learned = merge(&words, n_vocabulary);
    drop(words);
    to_json(learned).map_err(|error| refuse(error.to_string()))
}

/// Returns each word with its count, sorted.
fn count_words(texts: impl Iterator<Item = String>) -> Result<words::Words, String> {
    let pre_tokenizer = json!({
        "version": "1.0",
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE",
            "vocab": Bytes::alphabet().iter().zip(0..).collect::<HashMap<&char, u32>>(),
            "merges": [],
        },
    });
    words::count_words(&pre_tokenizer, texts)
}

/// What a training has learned.
pub(super) struct Learned {
    /// Tokens by id, bytes spelled as in GPT-2's alphabet.
    pub(super) tokens: Vec<String>,
    /// Pairs of ids in the order in which they were learned.
    merges: Vec<Pair>,
}

type Pair = (u32, u32);

/// How often a pair occurs, and the words that it was found in: maybe no longer, maybe twice.
#[derive(Default)]
struct Occurrences {
    count: u64,
    words: Vec<u32>,
}

/// Words as ids, one after the other; each shrinks in place.
pub(super) struct Words {
    ids: Vec<u32>,
    /// Where each word begins, and its length.
    places: Vec<(usize, usize)>,
    counts: Vec<u64>,
}

impl Words {
    /// `words` are ids of the first tokens, with their counts.
    pub(super) fn new<I: Iterator<Item = u32>>(words: impl Iterator<Item = (I, u64)>) -> Self {
        let (mut ids, mut places, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (word, count) in words {
            let start = ids.len();
            ids.extend(word);
            places.push((start, ids.len() - start));
            counts.push(count);
        }
        Self { ids, places, counts }
    }

    fn get(&self, word: usize) -> &[u32] {
        let (start, n) = self.places[word];
        &self.ids[start..start + n]
    }

    /// Replaces `pair` by `id` from left to right.
    fn replace(&mut self, word: usize, pair: Pair, id: u32) {
        let (start, n) = self.places[word];
        let ids = &mut self.ids[start..start + n];
        let (mut from, mut to) = (0, 0);
        while from < n {
            let is_pair = from + 1 < n && (ids[from], ids[from + 1]) == pair;
            ids[to] = if is_pair { id } else { ids[from] };
            from += if is_pair { 2 } else { 1 };
            to += 1;
        }
        self.places[word].1 = to;
    }
}

fn pairs(ids: &[u32]) -> impl Iterator<Item = Pair> {
    ids.windows(2).map(|pair| (pair[0], pair[1]))
}

fn merge(words: &[(Box<str>, u64)], n_vocabulary: usize) -> Learned {
    let tokens = alphabet();
    let id_of_byte = id_of_byte(&tokens);
    let words = words
        .iter()
        .map(|(word, count)| (word.bytes().map(|byte| id_of_byte[usize::from(byte)]), *count));
    learn(tokens, Words::new(words), &Limits { n_vocabulary, count_min: 1, prefix: "" })
}

/// When to stop merging, and how a merge is spelled.
pub(super) struct Limits<'a> {
    pub(super) n_vocabulary: usize,
    /// Pairs that are rarer are not merged.
    pub(super) count_min: u64,
    /// What tokens that do not begin a word begin with.
    pub(super) prefix: &'a str,
}

/// Merges the most frequent pair in `words` again and again; `tokens` are the first ones.
pub(super) fn learn(mut tokens: Vec<String>, mut words: Words, limits: &Limits<'_>) -> Learned {
    let mut id_of: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut found = HashMap::<Pair, Occurrences>::new();
    for (index, count) in words.counts.iter().enumerate() {
        for pair in pairs(words.get(index)) {
            found.entry(pair).or_default().add(index, *count);
        }
    }
    let mut queue: BinaryHeap<_> =
        found.iter().map(|(pair, at)| (at.count, Reverse(*pair))).collect();
    let mut merges = Vec::new();
    let mut learned = BTreeSet::new();
    // The pairs whose count grew or shrank in the words of one merge.
    let mut changed = BTreeSet::new();
    while tokens.len() < limits.n_vocabulary
        && let Some((count, Reverse(pair))) = queue.pop()
    {
        // Counts change after they are queued; each change queues the pair again.
        let Some(at) =
            found.get_mut(&pair).filter(|at| at.count == count && count >= limits.count_min)
        else {
            continue;
        };
        let mut places = std::mem::take(&mut at.words);
        places.sort_unstable();
        places.dedup();
        let right = &tokens[pair.1 as usize];
        let right = right.strip_prefix(limits.prefix).unwrap_or(right);
        let token = format!("{}{right}", tokens[pair.0 as usize]);
        let id = *id_of.entry(token).or_insert_with_key(|token| {
            tokens.push(token.clone());
            u32::try_from(tokens.len() - 1).expect("ids are 32 bits wide")
        });
        // A pair comes back when another merge spells one of its halves anew; its rule is there already.
        if learned.insert(pair) {
            merges.push(pair);
        }
        for index in places.into_iter().map(|index| index as usize) {
            let count = words.counts[index];
            if !pairs(words.get(index)).any(|found| found == pair) {
                continue;
            }
            for pair in pairs(words.get(index)) {
                found.get_mut(&pair).expect("every pair is counted").count -= count;
                changed.insert(pair);
            }
            words.replace(index, pair, id);
            for pair in pairs(words.get(index)) {
                // Where the pair was before, its word is known.
                let is_known = pair.0 != id && pair.1 != id;
                let at = found.entry(pair).or_default();
                if is_known {
                    at.count += count
                } else {
                    at.add(index, count)
                }
                changed.insert(pair);
            }
        }
        for pair in std::mem::take(&mut changed) {
            let count = found[&pair].count;
            if count == 0 {
                found.remove(&pair);
            } else {
                queue.push((count, Reverse(pair)));
            }
        }
    }
    Learned { tokens, merges }
}

impl Occurrences {
    fn add(&mut self, word: usize, count: u64) {
        let word = u32::try_from(word).expect("fewer than 2^32 different words");
        self.count += count;
        if self.words.last() != Some(&word) {
            self.words.push(word);
        }
    }
}

/// The first tokens: the special one, then the letters of GPT-2's alphabet in the order of Unicode.
fn alphabet() -> Vec<String> {
    let mut letters = Bytes::alphabet();
    letters.sort_unstable();
    let letters = letters.iter().map(char::to_string);
    std::iter::once(END_OF_TEXT.to_owned()).chain(letters).collect()
}

fn id_of_byte(tokens: &[String]) -> [u32; 256] {
    Bytes::alphabet().map(|letter| {
        let letter = letter.to_string();
        let id = tokens.iter().position(|token| *token == letter).expect("it is a letter of it");
        u32::try_from(id).expect("below 257")
    })
}

fn to_json(learned: Learned) -> Result<Vec<u8>, stable::Error> {
    use stable::decoders::byte_level::ByteLevel;
    use stable::models::bpe::{BPE, Vocab};
    use stable::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper};
    use stable::{PreTokenizerWrapper, TokenizerBuilder};

    let Learned { tokens, merges } = learned;
    let text = |id: u32| tokens[id as usize].clone();
    let merges = merges.into_iter().map(|(left, right)| (text(left), text(right))).collect();
    let vocabulary: Vocab = tokens.iter().cloned().zip(0..).collect();
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::builder().vocab_and_merges(vocabulary, merges).build()?)
    .with_normalizer(None)
    .with_pre_tokenizer(Some(byte_level.into()))
    .with_post_processor(None)
    .with_decoder(Some(byte_level.into()))
    .build()?;
    tokenizer.add_special_tokens([AddedToken::from(END_OF_TEXT, true)])?;
    Ok(tokenizer.to_string(true)?.into_bytes())
}

#[cfg(test)]
mod tests;
