//! Counts the words that vocabularies are trained on.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::pipeline::{Normalizer, PipelineTokenizer, PreTokenizer, PreTokenizerScratch};

/// Longer words are not learned from: they are no language, and each merge costs a walk over the word.
pub(super) const WORD_BYTES_MAX: usize = 4096;
/// Different words that are counted at a time, some 1 GiB. The rarest are forgotten when there are more.
const WORDS_MAX: usize = 8 << 20;

/// Words with their counts, sorted.
pub(super) type Words = Vec<(Box<str>, u64)>;

/// Returns each word of `texts`, as `tokenizer_json` normalises and cuts it, with its count.
///
/// Memory is bounded: beyond eight million different words, the rarest half is forgotten and counted anew. The order
/// of `texts` makes no difference below that.
pub(super) fn count_words(
    tokenizer_json: &Value,
    texts: impl Iterator<Item = String>,
) -> Result<Words, String> {
    count_up_to(tokenizer_json, texts, WORDS_MAX)
}

fn count_up_to(
    tokenizer_json: &Value,
    texts: impl Iterator<Item = String>,
    words_max: usize,
) -> Result<Words, String> {
    let canonical = tokenizers::canonicalize_str(&tokenizer_json.to_string());
    let pipeline: PipelineTokenizer =
        tokenizers::from_json(&canonical.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
    let mut counts = HashMap::<Box<str>, u64>::new();
    let mut scratch = PreTokenizerScratch::default();
    let mut spans = Vec::new();
    for mut text in texts {
        for normalizer in pipeline.get_normalizers() {
            text = normalizer.normalize(&text, 0).map_err(|error| error.to_string())?.into_owned();
        }
        spans.clear();
        pipeline
            .get_pre_tokenizer()
            .pre_tokenize(&text, &mut scratch, &mut spans)
            .map_err(|error| error.to_string())?;
        for word in spans.iter().map(|span| &text[span.range()]) {
            if !(1..=WORD_BYTES_MAX).contains(&word.len()) {
                continue;
            }
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(Box::from(word), 1);
                }
            }
        }
        forget(&mut counts, words_max);
    }
    let mut words: Words = counts.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// Leaves at most half of `words_max` words when there are more than that, the most frequent ones.
fn forget(counts: &mut HashMap<Box<str>, u64>, words_max: usize) {
    let mut rarest = 1;
    if counts.len() > words_max {
        while counts.len() > words_max / 2 {
            counts.retain(|_, count| *count > rarest);
            rarest *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forgets_the_rarest_words_when_there_are_too_many() {
        let json = json!({
            "version": "1.0",
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        });
        let texts = ["The the cat", "the cat sat", "on a mat the"].map(str::to_owned);
        let all = count_up_to(&json, texts.clone().into_iter(), 100).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(all[5], (Box::from("the"), 4));
        // After the third text there are five words and `sat` was forgotten before: of a, cat, mat, on, the with
        // 1, 2, 1, 1, 4 only those above 1 stay.
        let few = count_up_to(&json, texts.into_iter(), 4).unwrap();
        assert_eq!(few, [(Box::from("cat"), 2), (Box::from("the"), 4)]);
    }
}
