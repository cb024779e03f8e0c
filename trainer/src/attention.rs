//! Causal attention as every decoder here uses it, with the memory of earlier positions for generation.
//!
//! Shapes: `B` batch, `T` time, `H` query heads, `G` key and value heads, `D` head size.

use tch::{Kind, Tensor};

/// What a pass through a decoder looks at besides its tokens.
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// Position of each token, `[B, T]`; by default they count from the cache's end.
    pub positions_bt: Option<Tensor>,
    /// Which keys each query may attend to, true for yes, `[B, 1, T, T]`; by default all before and itself.
    pub mask_b1tt: Option<Tensor>,
    /// Keys and values of earlier tokens; the pass adds its own.
    pub cache: Option<&'a mut Cache>,
    /// Whether dropout drops.
    pub is_training: bool,
    /// Whether only the logits of the last position are wanted, `[B, 1, V]`.
    pub only_last: bool,
}

impl Pass<'_> {
    /// A pass of the training loop.
    #[must_use]
    pub fn training() -> Self {
        Self { is_training: true, ..Self::default() }
    }

    /// How many tokens came before this pass.
    pub(crate) fn n_past(&self) -> i64 {
        self.cache.as_ref().map_or(0, |cache| cache.n_tokens)
    }

    /// Marks the tokens of the pass as cached, once all layers have added them.
    pub(crate) fn finish(&mut self, n_tokens: i64) {
        if let Some(cache) = &mut self.cache {
            cache.n_tokens += n_tokens;
        }
    }
}

/// Keys and values of the tokens that a decoder has seen, per layer `[B, G, T, D]`.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Option<(Tensor, Tensor)>>,
    n_tokens: i64,
    n_tokens_max: i64,
}

impl Cache {
    /// Makes room for `n_tokens_max` tokens, taken when the first token comes.
    #[must_use]
    pub fn new(n_layers: usize, n_tokens_max: i64) -> Self {
        Self { layers: (0..n_layers).map(|_| None).collect(), n_tokens: 0, n_tokens_max }
    }

    /// Tokens held.
    #[must_use]
    pub fn n_tokens(&self) -> i64 {
        self.n_tokens
    }

    /// Keys and values of one layer, `[B, G, T, D]` each, or nothing before the first token.
    #[must_use]
    pub fn layer(&self, index: usize) -> Option<(Tensor, Tensor)> {
        let (keys, values) = self.layers[index].as_ref()?;
        Some((keys.narrow(2, 0, self.n_tokens), values.narrow(2, 0, self.n_tokens)))
    }

    fn extend(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> (Tensor, Tensor) {
        let (b, g, t, d) = keys.size4().expect("keys have four dimensions");
        let end = self.n_tokens + t;
        assert!(end <= self.n_tokens_max, "{end} tokens in a cache of {}", self.n_tokens_max);
        let room = || Tensor::empty([b, g, self.n_tokens_max, d], (keys.kind(), keys.device()));
        let (all_keys, all_values) = self.layers[layer].get_or_insert_with(|| (room(), room()));
        all_keys.narrow(2, self.n_tokens, t).copy_(keys);
        all_values.narrow(2, self.n_tokens, t).copy_(values);
        (all_keys.narrow(2, 0, end), all_values.narrow(2, 0, end))
    }
}

/// Returns what each query gathers from the values, `[B, H, T, D]`.
///
/// `H` is a multiple of `G`: query heads in a row share a key head. `dropout` counts only in training.
pub(crate) fn attend(
    q_bhtd: &Tensor,
    k_bgtd: Tensor,
    v_bgtd: Tensor,
    layer: usize,
    dropout: f64,
    pass: &mut Pass<'_>,
) -> Tensor {
    let n_past = pass.n_past();
    let (k, v) = match &mut pass.cache {
        Some(cache) => cache.extend(layer, &k_bgtd, &v_bgtd),
        None => (k_bgtd, v_bgtd),
    };
    let (_, n_heads, t, _) = q_bhtd.size4().expect("queries have four dimensions");
    let is_grouped = n_heads != k.size()[1];
    let dropout = if pass.is_training { dropout } else { 0.0 };
    // Only a batch of tokens after cached ones needs a mask of its own: the kernel's causal rule starts at 0.
    let built = (pass.mask_b1tt.is_none() && n_past > 0 && t > 1)
        .then(|| Tensor::ones([t, n_past + t], (Kind::Bool, q_bhtd.device())).tril(n_past));
    let mask = pass.mask_b1tt.as_ref().or(built.as_ref());
    let is_causal = mask.is_none() && n_past == 0;
    Tensor::scaled_dot_product_attention(q_bhtd, &k, &v, mask, dropout, is_causal, None, is_grouped)
}
