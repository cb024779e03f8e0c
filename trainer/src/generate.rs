//! Text from a model: one token after the other, over cached keys and values.

use shard::tokenizer::Tokenizer;
use tch::{Device, Kind, Tensor, no_grad};

use crate::attention::{Cache, Pass};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::random::Random;

/// How the next token is chosen. The rules apply in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Makes tokens that are in the text already less likely: positive logits are divided by it, negative ones multiplied;
    /// 1 changes nothing.
    pub repetition_penalty: f64,
    /// No run of so many tokens comes twice; 0 allows all.
    pub no_repeat_ngram: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only this many of the likeliest tokens, and those as likely as the last of them; 0 takes all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 takes all.
    pub top_p: f64,
    /// Only tokens with at least this share of the likeliest one's probability; 0 takes all.
    pub min_p: f64,
    /// Only the tokens whose information is nearest to the expected one, that together have this probability; 1 takes all.
    pub typical_p: f64,
    /// Seeds the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self { temperature: 0.0, ..Self::PLAIN };
    /// As likely as the model says.
    pub const PLAIN: Self = Self {
        repetition_penalty: 1.0,
        no_repeat_ngram: 0,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        seed: 0,
    };
}

/// Continues `prompt` by up to `n_tokens`, or until one of `stop` comes, which is the last returned.
///
/// Where model and text outgrow the longest sequence, the later half of the text is read again and the rest forgotten.
/// `on_token` sees each token as it comes; `false` ends the text.
///
/// # Errors
/// [`Error::Unusable`] when the prompt is empty or holds an id beyond the vocabulary.
pub fn generate(
    model: &dyn Model,
    prompt: &[u32],
    n_tokens: usize,
    stop: &[u32],
    sampling: Sampling,
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    check_prompt(model, prompt)?;
    let shape = model.shape();
    let longest = usize::try_from(shape.seq_len_max).expect("a sequence length");
    let n_layers = usize::try_from(shape.n_layers).expect("a count of layers");
    let device = model.parameters()[0].tensor.device();
    let mut random = Random::new(sampling.seed, "generate");
    let mut text = prompt.to_vec();
    let mut cache = None;
    let mut pending = text.len().min(longest);
    for _ in 0..n_tokens {
        if cache.as_ref().is_none_or(|cache: &Cache| full(cache, pending, longest)) {
            let room = (text.len() + n_tokens).min(longest);
            pending = if cache.is_none() { pending } else { (longest / 2).max(1) };
            cache = Some(Cache::new(n_layers, i64::try_from(room).expect("a sequence length")));
        }
        let mut logits = next_logits(model, &text[text.len() - pending..], cache.as_mut(), device)?;
        adjust(&mut logits, &text, &sampling);
        let token = if sampling.temperature > 0.0 {
            draw(&logits, random.uniform())
        } else {
            likeliest(&logits)
        };
        text.push(token);
        pending = 1;
        if !on_token(token) || stop.contains(&token) {
            break;
        }
    }
    Ok(text.split_off(prompt.len()))
}

/// Turns tokens into text as they come.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    shown: usize,
}

impl<'a> TextStream<'a> {
    /// Starts a text.
    #[must_use]
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), shown: 0 }
    }

    /// Returns the text that `id` adds: none while it ends inside a character.
    ///
    /// # Errors
    /// [`Error::Shard`] when the tokenizer cannot decode it.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let whole = text.trim_end_matches('\u{fffd}');
        let Some(new) = whole.get(self.shown..) else { return Ok(String::new()) };
        self.shown = whole.len();
        Ok(new.to_owned())
    }
}

fn full(cache: &Cache, pending: usize, longest: usize) -> bool {
    usize::try_from(cache.n_tokens()).expect("a count") + pending > longest
}

fn check_prompt(model: &dyn Model, prompt: &[u32]) -> Result<()> {
    let n = model.shape().vocab_size;
    let why = match prompt.iter().find(|&&id| u64::from(id) >= n) {
        _ if prompt.is_empty() => "it has no tokens".to_owned(),
        Some(id) => format!("it holds the token id {id}, the model's vocabulary has {n} entries"),
        None => return Ok(()),
    };
    let hint = "give some text, and the tokenizer that the model was made with".to_owned();
    Err(Error::Unusable { action: "continue", what: "the prompt".to_owned(), why, hint })
}

fn next_logits(
    model: &dyn Model,
    tokens: &[u32],
    cache: Option<&mut Cache>,
    device: Device,
) -> Result<Vec<f32>> {
    let ids: Vec<i64> = tokens.iter().map(|&id| i64::from(id)).collect();
    let tokens_bt = Tensor::from_slice(&ids).view([1, -1]).to_device(device);
    let mut pass = Pass { cache, only_last: true, ..Pass::default() };
    let logits = no_grad(|| model.logits(&tokens_bt, &mut pass)).view([-1]).to_kind(Kind::Float);
    Vec::<f32>::try_from(logits).map_err(Error::torch("read logits"))
}

/// Applies every rule of `sampling` to the logits of the token after `text`; what is ruled out becomes minus infinity.
///
/// Sources: Keskar et al. 2019 (repetition), Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Meister et al. 2023
/// (typical), Nguyen et al. 2024 (min-p); checked against transformers 5.23, whose order this is.
pub fn adjust(logits: &mut [f32], text: &[u32], sampling: &Sampling) {
    penalize(logits, text, sampling.repetition_penalty);
    forbid_repeats(logits, text, sampling.no_repeat_ngram);
    if sampling.temperature > 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "logits are float32")]
        let temperature = sampling.temperature as f32;
        logits.iter_mut().for_each(|logit| *logit /= temperature);
    }
    if sampling.top_k > 0 && sampling.top_k < logits.len() {
        let mut sorted = logits.to_vec();
        let (_, last, _) = sorted.select_nth_unstable_by(sampling.top_k - 1, |a, b| b.total_cmp(a));
        let last = *last;
        keep(logits, |logit| logit >= last);
    }
    if sampling.top_p < 1.0 {
        keep_likeliest(logits, sampling.top_p);
    }
    if sampling.min_p > 0.0 {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        #[expect(clippy::cast_possible_truncation, reason = "logits are float32")]
        let lowest = highest + sampling.min_p.ln() as f32;
        keep(logits, |logit| logit >= lowest);
    }
    if sampling.typical_p < 1.0 {
        keep_typical(logits, sampling.typical_p);
    }
}

fn keep(logits: &mut [f32], is_kept: impl Fn(f32) -> bool) {
    for logit in logits.iter_mut().filter(|logit| !is_kept(**logit)) {
        *logit = f32::NEG_INFINITY;
    }
}

fn penalize(logits: &mut [f32], text: &[u32], penalty: f64) {
    #[expect(clippy::float_cmp, reason = "the value that changes nothing")]
    if penalty == 1.0 {
        return;
    }
    #[expect(clippy::cast_possible_truncation, reason = "logits are float32")]
    let penalty = penalty as f32;
    let mut seen = text.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

fn forbid_repeats(logits: &mut [f32], text: &[u32], n: usize) {
    if n == 0 || text.len() < n {
        return;
    }
    let end = &text[text.len() + 1 - n..];
    for run in text.windows(n).filter(|run| run[..n - 1] == *end) {
        if let Some(logit) = logits.get_mut(run[n - 1] as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Keeps the smallest set of likeliest tokens that reaches `share`. Of tokens that are as likely, higher ids come first.
fn keep_likeliest(logits: &mut [f32], share: f64) {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let mut below = 0.0;
    for &id in &order[..order.len() - 1] {
        below += f64::from(probabilities[id]);
        // As the reference: summed in float64, compared in float32.
        #[expect(clippy::cast_possible_truncation, reason = "compared in float32")]
        if below as f32 > (1.0 - share) as f32 {
            break;
        }
        logits[id] = f32::NEG_INFINITY;
    }
}

fn keep_typical(logits: &mut [f32], share: f64) {
    let probabilities = softmax(logits);
    let information = |p: f32| -f64::from(p).ln();
    let entropy: f64 =
        probabilities.iter().filter(|p| **p > 0.0).map(|&p| f64::from(p) * information(p)).sum();
    let distance = |id: usize| (information(probabilities[id]) - entropy).abs();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    let mut reached = 0.0;
    let n = order.iter().position(|&id| {
        reached += f64::from(probabilities[id]);
        reached >= share
    });
    // The token that reaches the share stays, and so do those just as far.
    let last = n.map_or(f64::INFINITY, |n| distance(order[n]));
    for &id in order.iter().filter(|&&id| distance(id) > last) {
        logits[id] = f32::NEG_INFINITY;
    }
}

/// Returns the probability of each token, in float32.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "probabilities are float32")]
    weights.into_iter().map(|w| (f64::from(w) / total) as f32).collect()
}

/// Returns the first token, by id, at which the probabilities of all up to it exceed `uniform` in `[0, 1)`.
#[must_use]
pub fn draw(logits: &[f32], uniform: f64) -> u32 {
    let probabilities = softmax(logits);
    let mut reached = 0.0;
    let drawn = probabilities.iter().position(|&p| {
        reached += f64::from(p);
        reached > uniform
    });
    // Rounding may leave the sum a little below one.
    let last = || probabilities.iter().rposition(|&p| p > 0.0).expect("one token is possible");
    u32::try_from(drawn.unwrap_or_else(last)).expect("a vocabulary fits")
}

/// Returns the token with the highest logit, of several the one with the lowest id.
#[must_use]
pub fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    u32::try_from(best.expect("a vocabulary is not empty")).expect("a vocabulary fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(logits: &[f32], sampling: Sampling) -> Vec<usize> {
        let mut random = Random::new(1, "test");
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            let mut logits = logits.to_vec();
            adjust(&mut logits, &[], &sampling);
            let greedy = sampling.temperature <= 0.0;
            let id = if greedy { likeliest(&logits) } else { draw(&logits, random.uniform()) };
            counts[id as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Probabilities 1/2, 1/4, 1/8, 1/8 as logits; five standard errors of 20000 draws are at most 354.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec();
        let plain = Sampling::PLAIN;
        let check = |sampling: Sampling, expected: [f64; 4]| {
            for (count, p) in draws(&logits, sampling).into_iter().zip(expected) {
                let off = (count as f64 - 20_000.0 * p).abs();
                assert!(off < 354.0 && (p > 0.0 || count == 0), "{sampling:?}: {count} for {p}");
            }
        };
        check(plain, [0.5, 0.25, 0.125, 0.125]);
        check(Sampling { top_k: 2, ..plain }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // 1/2 does not reach 0.6, so the second stays.
        check(Sampling { top_p: 0.6, ..plain }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // Half the temperature squares the probabilities: 16 : 4 : 1 : 1.
        check(Sampling { temperature: 0.5, ..plain }, [16.0, 4.0, 1.0, 1.0].map(|w| w / 22.0));
        check(Sampling::GREEDY, [1.0, 0.0, 0.0, 0.0]);
    }
}
