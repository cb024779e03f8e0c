//! Text from a model: one token after the other, over cached keys and values.

use tch::{Device, Kind, Tensor, no_grad};

use crate::attention::{Cache, Pass};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::random::Random;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only this many of the likeliest tokens; 0 takes all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 takes all.
    pub top_p: f64,
    /// Seeds the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
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
        let logits = next_logits(model, &text[text.len() - pending..], cache.as_mut(), device)?;
        let token = choose(logits, sampling, &mut random);
        text.push(token);
        pending = 1;
        if !on_token(token) || stop.contains(&token) {
            break;
        }
    }
    Ok(text.split_off(prompt.len()))
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

/// Chooses one token. Ties go to the lower id.
fn choose(logits: Vec<f32>, sampling: Sampling, random: &mut Random) -> u32 {
    let id = |index: usize| u32::try_from(index).expect("a vocabulary fits");
    let mut order: Vec<u32> = (0..id(logits.len())).collect();
    let by_logit = |a: &u32, b: &u32| {
        logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
    };
    if sampling.temperature <= 0.0 {
        return order.into_iter().min_by(by_logit).expect("a vocabulary is not empty");
    }
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        order.select_nth_unstable_by(sampling.top_k - 1, by_logit);
        order.truncate(sampling.top_k);
    }
    order.sort_unstable_by(by_logit);
    let highest = f64::from(logits[order[0] as usize]);
    let weight =
        |id: &u32| ((f64::from(logits[*id as usize]) - highest) / sampling.temperature).exp();
    let mut weights: Vec<f64> = order.iter().map(weight).collect();
    let total: f64 = weights.iter().sum();
    // The smallest set that reaches `top_p`: the token that crosses it stays.
    let mut kept = 0.0;
    let reached = weights.iter().position(|w| {
        kept += w;
        kept >= sampling.top_p * total
    });
    weights.truncate(reached.map_or(weights.len(), |index| index + 1));
    let mut left = random.uniform() * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|w| {
        left -= w;
        left < 0.0
    });
    order[drawn.unwrap_or(weights.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(logits: &[f32], sampling: Sampling) -> Vec<usize> {
        let mut random = Random::new(1, "test");
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[choose(logits.to_vec(), sampling, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Probabilities 1/2, 1/4, 1/8, 1/8 as logits; five standard errors of 20000 draws are at most 354.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec();
        let plain = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };
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
