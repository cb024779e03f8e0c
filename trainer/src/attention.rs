//! Attention as every model here uses it, with the memory of earlier positions for generation.
//!
//! Shapes: `B` batch, `T` time, `H` query heads, `G` key and value heads, `D` head size.

use tch::{Device, Kind, Tensor};

/// What a pass through a model looks at besides its tokens.
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// Position of each token, `[B, T]`; by default they count from the cache's end.
    pub positions_bt: Option<Tensor>,
    /// Segment of each token, `[B, T]`, for models that tell the two texts of a pair apart; by default all 0.
    pub token_types_bt: Option<Tensor>,
    /// Which document each token belongs to, `[B, T]`: no token sees one of another document. Padding is a document
    /// of its own.
    pub documents_bt: Option<Tensor>,
    /// Which keys each query may attend to, true for yes, `[B, 1, T, T]` or broadcast to it; replaces every other rule.
    pub mask_b1tt: Option<Tensor>,
    /// Keys and values of earlier tokens; the pass adds its own.
    pub cache: Option<&'a mut Cache>,
    /// Whether dropout drops.
    pub is_training: bool,
    /// Whether each block keeps its input alone, and computes the rest again for its gradients.
    pub recomputes: bool,
    /// Rows whose logits exist at a time in a loss; by default all.
    pub loss_rows: Option<i64>,
    /// Whether only the last position is wanted, `[B, 1, C]`.
    pub only_last: bool,
    /// Filled with the input of every block and what the head reads, `[B, T, C]` each, where there is a list.
    pub hidden_states: Option<Vec<Tensor>>,
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

    /// Keeps a copy of what goes into a block, where somebody asked for it.
    pub(crate) fn keep(&mut self, x_btc: &Tensor) {
        if let Some(states) = &mut self.hidden_states {
            states.push(x_btc.shallow_clone());
        }
    }

    /// The cache of one layer, where the pass has one.
    pub(crate) fn memory(&mut self, layer: usize) -> Option<Memory<'_>> {
        self.cache.as_deref_mut().map(|cache| Memory { cache, layer })
    }

    /// Marks the tokens of the pass as cached, once all layers have added them.
    pub(crate) fn finish(&mut self, n_tokens: i64) {
        if let Some(cache) = &mut self.cache {
            cache.n_tokens += n_tokens;
        }
    }

    /// Says who sees whom among the `t` tokens of this pass; built once, used by every layer.
    ///
    /// `dropout` counts only in training.
    pub(crate) fn sight(&self, t: i64, is_causal: bool, dropout: f64, device: Device) -> Sight {
        let dropout = if self.is_training { dropout } else { 0.0 };
        let n_past = self.n_past();
        let causal = || Tensor::ones([t, n_past + t], (Kind::Bool, device)).tril(n_past);
        let mask = match (&self.mask_b1tt, &self.documents_bt) {
            (Some(mask), _) => Some(mask.shallow_clone()),
            (None, Some(documents_bt)) => {
                assert_eq!(n_past, 0, "a cache holds one document");
                let same_btt = documents_bt.unsqueeze(2).eq_tensor(&documents_bt.unsqueeze(1));
                let same_b1tt = same_btt.unsqueeze(1);
                Some(if is_causal { same_b1tt.logical_and(&causal()) } else { same_b1tt })
            }
            // Only several tokens after cached ones need a mask of their own: the kernel's causal rule starts at 0.
            (None, None) => (is_causal && n_past > 0 && t > 1).then(causal),
        };
        let is_causal = is_causal && mask.is_none() && n_past == 0;
        Sight { mask, is_causal, dropout }
    }
}

/// Who sees whom in one pass.
#[derive(Debug)]
pub(crate) struct Sight {
    mask: Option<Tensor>,
    /// Each token sees those before it and itself; only without a mask.
    is_causal: bool,
    dropout: f64,
}

impl Sight {
    pub(crate) fn shallow_clone(&self) -> Self {
        let mask = self.mask.as_ref().map(Tensor::shallow_clone);
        Self { mask, is_causal: self.is_causal, dropout: self.dropout }
    }
}

/// The keys and values of one layer.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    cache: &'a mut Cache,
    layer: usize,
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
/// `H` is a multiple of `G`: query heads in a row share a key head.
pub(crate) fn attend(
    q_bhtd: &Tensor,
    k_bgtd: Tensor,
    v_bgtd: Tensor,
    sight: &Sight,
    memory: Option<Memory<'_>>,
) -> Tensor {
    let (k, v) = match memory {
        Some(Memory { cache, layer }) => cache.extend(layer, &k_bgtd, &v_bgtd),
        None => (k_bgtd, v_bgtd),
    };
    let is_grouped = q_bhtd.size()[1] != k.size()[1];
    let Sight { mask, is_causal, dropout } = sight;
    let mask = mask.as_ref();
    Tensor::scaled_dot_product_attention(
        q_bhtd, &k, &v, mask, *dropout, *is_causal, None, is_grouped,
    )
}
