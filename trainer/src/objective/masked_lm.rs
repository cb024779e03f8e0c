//! Tokens that are hidden, told from those around them.

use serde::{Deserialize, Serialize};
use shard::reader::Sequence;

use super::{Config, IGNORED, Objective, ObjectiveKind, Vocabulary, misfit, need};
use crate::error::Result;
use crate::model::Shape;
use crate::random::Random;

pub(super) const KIND: ObjectiveKind = ObjectiveKind {
    name: "masked_lm",
    summary: "tells hidden tokens, words or spans from those around them",
    source: "Devlin et al. 2019; spans: Joshi et al. 2020; checked against transformers 5.23",
    build,
};

/// What is hidden as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Masking {
    /// Each token on its own.
    #[default]
    Token,
    /// All tokens of a word.
    Word,
    /// Up to ten words in a row, replaced in one way.
    Span,
}

/// Words of a span are drawn from a geometric distribution with this chance of ending, and are at most so many.
const SPAN_ENDS: f64 = 0.2;
const SPAN_WORDS_MAX: usize = 10;

#[derive(Debug)]
struct MaskedLm {
    masks_documents: bool,
    share: f64,
    masking: Masking,
    mask: u32,
    vocabulary: Vocabulary,
    is_special: Vec<bool>,
}

fn build(config: &Config, vocabulary: &Vocabulary, shape: Shape) -> Result<Box<dyn Objective>> {
    let has_it = !shape.is_causal && shape.has_token_head;
    need(has_it, "masked_lm", "an encoder with logits of tokens", "take `bert` or `causal_lm`")?;
    if !(config.mask_share > 0.0 && config.mask_share < 1.0) {
        return Err(misfit(
            format!("`objective.mask_share` is {}, it must be between 0 and 1", config.mask_share),
            "the paper's is 0.15",
        ));
    }
    let names = match &config.mask_token {
        Some(name) => vec![name.as_str()],
        None => vec!["[MASK]", "<mask>"],
    };
    let mask = names.iter().find_map(|name| vocabulary.special.get(*name)).ok_or_else(|| {
        misfit(
            format!("the vocabulary has no special token `{}`", names.join("` or `")),
            "name the one that stands for a hidden token with `objective.mask_token`",
        )
    })?;
    let mut is_special = vec![false; vocabulary.n as usize];
    for &id in vocabulary.special.values() {
        if let Some(slot) = is_special.get_mut(id as usize) {
            *slot = true;
        }
    }
    Ok(Box::new(MaskedLm {
        masks_documents: config.masks_documents(),
        share: config.mask_share,
        masking: config.masking,
        mask: *mask,
        vocabulary: vocabulary.clone(),
        is_special,
    }))
}

impl Objective for MaskedLm {
    fn masks_documents(&self) -> bool {
        self.masks_documents
    }

    /// What is hidden is drawn anew for each sample, and so in each epoch.
    fn fill(
        &self,
        sequence: &Sequence,
        sample: u64,
        inputs: &mut Vec<i64>,
        targets: &mut Vec<i64>,
    ) {
        let t = sequence.loss_mask.len();
        let tokens = &sequence.tokens[..t];
        let end = sequence.boundaries.last().map_or(t, |&end| end as usize).min(t);
        let mut random = Random::new(self.vocabulary.seed, &format!("masked_lm {sample}"));
        let start = inputs.len();
        inputs.extend(tokens.iter().map(|&id| i64::from(id)));
        targets.resize(targets.len() + t, IGNORED);
        let targets = &mut targets[start..];
        let inputs = &mut inputs[start..];
        let words = self.words(&tokens[..end]);
        for (words, is_one) in self.choose(&words, &mut random) {
            let shared = random.uniform();
            for i in words {
                let draw = if is_one { shared } else { random.uniform() };
                let other = draw_below(self.vocabulary.n, &mut random);
                targets[i] = inputs[i];
                inputs[i] = i64::from(hide(tokens[i], draw, self.mask, other));
            }
        }
    }
}

/// Returns what stands for a token that is a target: `mask` in 80 % of cases, `other` in 10 %, else itself.
///
/// `draw` is uniform in `[0, 1)`.
#[must_use]
pub fn hide(token: u32, draw: f64, mask: u32, other: u32) -> u32 {
    if draw < 0.8 {
        mask
    } else if draw < 0.9 {
        other
    } else {
        token
    }
}

impl MaskedLm {
    /// Runs of tokens that are hidden together, special tokens left out.
    fn words(&self, tokens: &[u32]) -> Vec<std::ops::Range<usize>> {
        let mut words: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, &id) in tokens.iter().enumerate() {
            let has = |list: &[bool]| list.get(id as usize).copied().unwrap_or(true);
            if has(&self.is_special) {
                continue;
            }
            let goes_on = self.masking != Masking::Token && !has(&self.vocabulary.begins_word);
            match words.last_mut().filter(|word| goes_on && word.end == i) {
                Some(word) => word.end += 1,
                None => words.push(i..i + 1),
            }
        }
        words
    }

    /// Chooses what is hidden: runs of tokens, and whether all of a run are replaced in one way.
    ///
    /// Tokens and words are chosen each with the chance `share`; spans until they hold that share of the tokens.
    fn choose(
        &self,
        words: &[std::ops::Range<usize>],
        random: &mut Random,
    ) -> Vec<(std::ops::Range<usize>, bool)> {
        if self.masking != Masking::Span {
            let chosen = words.iter().filter(|_| random.uniform() < self.share);
            return chosen.map(|word| (word.clone(), false)).collect();
        }
        let n_tokens: usize = words.iter().map(ExactSizeIterator::len).sum();
        #[expect(clippy::cast_precision_loss, reason = "a sequence has far fewer than 2^52 tokens")]
        let budget = self.share * n_tokens as f64;
        let mut is_hidden = vec![false; words.len()];
        let mut spans = Vec::new();
        let mut left = budget;
        // The part behind the decimal point is a chance, so that the share is right on average.
        while left >= 1.0 || (left > 0.0 && random.uniform() < left) {
            let mut n = 1;
            while n < SPAN_WORDS_MAX && random.uniform() >= SPAN_ENDS {
                n += 1;
            }
            let first =
                draw_below(u32::try_from(words.len()).expect("a sequence"), random) as usize;
            let last = (first + n).min(words.len());
            let mut end = first;
            for word in first..last {
                #[expect(clippy::cast_precision_loss, reason = "as above")]
                let n_tokens = words[word].len() as f64;
                // A special token between two words ends the span.
                let is_split = word > first && words[word].start != words[word - 1].end;
                if is_hidden[word] || is_split || (word > first && n_tokens > left) {
                    break;
                }
                (is_hidden[word], end) = (true, word + 1);
                left -= n_tokens;
            }
            if end > first {
                spans.push((words[first].start..words[end - 1].end, true));
            }
            if is_hidden.iter().all(|&hidden| hidden) {
                break;
            }
        }
        spans
    }
}

/// Returns a number below `n`, each with the same chance.
fn draw_below(n: u32, random: &mut Random) -> u32 {
    let scaled = (u128::from(random.next_u64()) * u128::from(n)) >> 64;
    u32::try_from(scaled).expect("it is below `n`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids 0 to 4 are special, ids from 300 go on with a word.
    fn objective(masking: Masking) -> MaskedLm {
        let n = 512;
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let special = special.iter().map(ToString::to_string).zip(0..).collect();
        let begins_word = (0..n).map(|id| id < 300).collect();
        MaskedLm {
            masks_documents: false,
            share: 0.15,
            masking,
            mask: 4,
            vocabulary: Vocabulary { n, special, begins_word, seed: 7 },
            is_special: (0..n).map(|id| id < 5).collect(),
        }
    }

    fn sequence(sample: u32, t: usize) -> Sequence {
        let mut random = Random::new(u64::from(sample), "tokens");
        let mut tokens: Vec<u32> = (0..=t).map(|_| 5 + draw_below(507, &mut random)).collect();
        tokens[0] = 2;
        tokens[t / 2] = 3;
        let end = u32::try_from(t - 8).unwrap();
        Sequence { tokens, boundaries: vec![0, end], loss_mask: vec![true; t] }
    }

    #[test]
    fn hides_the_published_shares_of_tokens_words_and_spans() {
        for masking in [Masking::Token, Masking::Word, Masking::Span] {
            let objective = objective(masking);
            let (mut n, mut chosen, mut masked, mut other, mut kept) =
                (0f64, 0f64, 0f64, 0f64, 0f64);
            for sample in 0..2000 {
                let sequence = sequence(sample, 128);
                let (mut inputs, mut targets) = (Vec::new(), Vec::new());
                objective.fill(&sequence, u64::from(sample), &mut inputs, &mut targets);
                n += 118.0;
                for i in 0..128 {
                    let original = i64::from(sequence.tokens[i]);
                    if targets[i] == IGNORED {
                        assert_eq!(inputs[i], original);
                        continue;
                    }
                    assert!(original >= 5 && i < 120, "special tokens and filling are no targets");
                    assert_eq!(targets[i], original);
                    chosen += 1.0;
                    match inputs[i] {
                        4 => masked += 1.0,
                        x if x == original => kept += 1.0,
                        _ => other += 1.0,
                    }
                    let whole = masking != Masking::Token;
                    let inside = |j: usize| {
                        let id = sequence.tokens[j];
                        j < 120 && id >= 300 && sequence.tokens[j - 1] >= 5
                    };
                    if whole && inside(i + 1) {
                        assert_ne!(targets[i + 1], IGNORED, "a word is hidden as a whole");
                    }
                }
            }
            // Five standard errors; draws of one word or span go together, so those count as fewer.
            let together = match masking {
                Masking::Token => 1.0,
                Masking::Word => 4.0,
                Masking::Span => 16.0,
            };
            let near = |name: &str, found: f64, p: f64, n: f64| {
                let bound = 5.0 * (p * (1.0 - p) * together / n).sqrt();
                println!("{masking:?} {name}: {found:.4}, {p:.4} +- {bound:.4}");
                assert!((found - p).abs() < bound, "{masking:?} {name}: {found}, {p} +- {bound}");
            };
            near("chosen", chosen / n, 0.15, n);
            near("masked", masked / chosen, 0.8, chosen);
            near("kept", kept / chosen, 0.1, chosen);
            near("other", other / chosen, 0.1, chosen);
        }
    }

    #[test]
    fn a_sample_decides_what_is_hidden() {
        let objective = objective(Masking::Span);
        let fill = |sample| {
            let (mut inputs, mut targets) = (vec![9], vec![9]);
            objective.fill(&sequence(1, 64), sample, &mut inputs, &mut targets);
            assert_eq!((inputs[0], targets[0], inputs.len()), (9, 9, 65), "rows follow each other");
            (inputs, targets)
        };
        assert_eq!(fill(3), fill(3));
        assert_ne!(fill(3), fill(4));
    }
}
