//! GPT-2: learned positions, layer norm before each half of a block, GELU, tied head.
//!
//! Shapes: `B` batch, `T` time, `C` channels, `H` heads, `D` head size, `F` width of the feed-forward part, `V` vocabulary.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::builder::{Builder, Init};
use super::linear::{LayerNorm, Layout, Linear, Spec};
use super::{Model, ModelKind, Parameter, Pass, Shape, TokenHead};
use super::{again, bad_config, divides, number, size, switch, unsigned};
use crate::attention::{Memory, Sight, attend};
use crate::error::Result;
use crate::recipe;

pub(super) const KIND: ModelKind = ModelKind {
    name: "gpt2",
    summary: "decoder with learned positions, layer norm and GELU",
    source: "Radford et al. 2019; checked against transformers 5.23",
    adapter_targets: &["c_attn", "c_fc", "c_proj"],
    fan_in_fan_out: true,
    configure,
    build: |config, builder| Ok(Box::new(Gpt2::new(config, builder)?)),
};

fn configure(recipe: &recipe::Model, vocab_size: u64) -> Value {
    json!({
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": recipe.dropout,
        "embd_pdrop": recipe.dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_embd": recipe.n_embd,
        "n_head": recipe.n_head,
        "n_inner": recipe.n_ffn,
        "n_layer": recipe.n_layer,
        "n_positions": recipe.seq_len,
        "resid_pdrop": recipe.dropout,
        "scale_attn_weights": true,
        "tie_word_embeddings": recipe.tie_embeddings.unwrap_or(true),
        "vocab_size": vocab_size,
    })
}

#[derive(Debug)]
struct Block {
    norm_1: LayerNorm,
    qkv: Linear,
    attention_out: Linear,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
    n_heads: i64,
    gelu: &'static str,
    dropout: f64,
}

#[derive(Debug)]
struct Gpt2 {
    token_embedding_vc: Tensor,
    position_embedding_tc: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// The token embedding where they are tied.
    head_vc: Tensor,
    dropout: Dropout,
    parameters: Vec<Parameter>,
    shape: Shape,
}

#[derive(Debug)]
struct Dropout {
    embedding: f64,
    attention: f64,
}

impl Gpt2 {
    fn new(config: &Value, from: &mut Builder<'_>) -> Result<Self> {
        let (v, t, c) =
            (size(config, "vocab_size")?, size(config, "n_positions")?, size(config, "n_embd")?);
        let n_layers = size(config, "n_layer")?;
        let n_heads = divides(config, "n_embd", c, "n_head")?;
        let f = if config["n_inner"].is_null() { 4 * c } else { size(config, "n_inner")? };
        refuse_variants(config)?;
        let gelu = match config["activation_function"].as_str() {
            None | Some("gelu_new" | "gelu_pytorch_tanh") => "tanh",
            Some("gelu") => "none",
            Some(other) => {
                return Err(bad_config("activation_function", other, "`gelu_new` or `gelu`"));
            }
        };
        let deviation = number(config, "initializer_range", 0.02)?;
        // Every block adds twice to the residual stream: this keeps its size independent of depth.
        #[expect(clippy::cast_precision_loss, reason = "a count of layers")]
        let residual = deviation / (2.0 * n_layers as f64).sqrt();

        let weight = "transformer.wte.weight";
        let token_embedding_vc = from.parameter(weight, &[v, c], Init::Normal(deviation))?;
        let weight = "transformer.wpe.weight";
        let position_embedding_tc = from.parameter(weight, &[t, c], Init::Normal(deviation))?;
        let epsilon = number(config, "layer_norm_epsilon", 1e-5)?;
        // The default of the reference where config.json is silent.
        let dropout = number(config, "resid_pdrop", 0.1)?;
        let linear = |n_in, n_out, deviation| Spec {
            n_in,
            n_out,
            has_bias: true,
            layout: Layout::InOut,
            deviation,
        };
        let mut blocks = Vec::new();
        for layer in 0..n_layers {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            let mut affine = |part: &str, spec: Spec| Linear::new(from, &name(part), spec);
            let qkv = affine("attn.c_attn", linear(c, 3 * c, deviation))?;
            let attention_out = affine("attn.c_proj", linear(c, c, residual))?;
            let up = affine("mlp.c_fc", linear(c, f, deviation))?;
            let down = affine("mlp.c_proj", linear(f, c, residual))?;
            let norm_1 = LayerNorm::new(from, &name("ln_1"), c, epsilon)?;
            let norm_2 = LayerNorm::new(from, &name("ln_2"), c, epsilon)?;
            blocks.push(Block {
                norm_1,
                qkv,
                attention_out,
                norm_2,
                up,
                down,
                n_heads,
                gelu,
                dropout,
            });
        }
        let norm = LayerNorm::new(from, "transformer.ln_f", c, epsilon)?;
        let head_vc = if switch(config, "tie_word_embeddings", true)? {
            from.tied("lm_head.weight");
            token_embedding_vc.shallow_clone()
        } else {
            from.parameter("lm_head.weight", &[v, c], Init::Normal(deviation))?
        };
        Ok(Self {
            token_embedding_vc,
            position_embedding_tc,
            blocks,
            norm,
            head_vc,
            // The defaults of the reference where config.json is silent.
            dropout: Dropout {
                embedding: number(config, "embd_pdrop", 0.1)?,
                attention: number(config, "attn_pdrop", 0.1)?,
            },
            parameters: from.finish()?,
            shape: Shape {
                n_layers: unsigned(n_layers),
                n_heads: unsigned(n_heads),
                head_size: unsigned(c / n_heads),
                vocab_size: unsigned(v),
                seq_len_max: unsigned(t),
                n_position_parameters: unsigned(t * c),
                is_causal: true,
                has_token_head: true,
                n_scores: 0,
            },
        })
    }
}

impl Block {
    fn shallow_clone(&self) -> Self {
        Self {
            norm_1: self.norm_1.shallow_clone(),
            qkv: self.qkv.shallow_clone(),
            attention_out: self.attention_out.shallow_clone(),
            norm_2: self.norm_2.shallow_clone(),
            up: self.up.shallow_clone(),
            down: self.down.shallow_clone(),
            ..*self
        }
    }

    fn forward(
        &self,
        x_btc: &Tensor,
        sight: &Sight,
        memory: Option<Memory<'_>>,
        is_training: bool,
    ) -> Tensor {
        let y = self.attention(&self.norm_1.apply(x_btc), sight, memory, is_training);
        // Never `+=`: it works in place, and the backward pass of the norm needs what was there.
        let x_btc = x_btc + drop(y, self.dropout, is_training);
        let y = self.up.apply(&self.norm_2.apply(&x_btc), is_training).gelu(self.gelu);
        let y = self.down.apply(&y, is_training);
        &x_btc + drop(y, self.dropout, is_training)
    }

    fn attention(
        &self,
        x_btc: &Tensor,
        sight: &Sight,
        memory: Option<Memory<'_>>,
        is_training: bool,
    ) -> Tensor {
        let (b, t, c) = x_btc.size3().expect("activations have three dimensions");
        // Split, not select: the backward of select makes a full tensor of zeros for each part.
        let qkv = self.qkv.apply(x_btc, is_training).split(c, 2);
        let heads =
            |part: &Tensor| part.view([b, t, self.n_heads, c / self.n_heads]).transpose(1, 2);
        let (q, k, v) = (heads(&qkv[0]), heads(&qkv[1]), heads(&qkv[2]));
        let y_bhtd = attend(&q, k, v, sight, memory);
        self.attention_out.apply(&y_bhtd.transpose(1, 2).reshape([b, t, c]), is_training)
    }
}

impl Model for Gpt2 {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn hidden(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let (_, t) = tokens_bt.size2().expect("tokens have two dimensions");
        let positions_tc = match &pass.positions_bt {
            Some(positions) => lookup(&self.position_embedding_tc, positions),
            // The same rows for every sequence: added by broadcasting, no lookup.
            None => self.position_embedding_tc.narrow(0, pass.n_past(), t),
        };
        let x = lookup(&self.token_embedding_vc, tokens_bt) + positions_tc;
        let mut x_btc = drop(x, self.dropout.embedding, pass.is_training);
        let sight = pass.sight(t, true, self.dropout.attention, tokens_bt.device());
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.keep(&x_btc);
            let is_training = pass.is_training;
            x_btc = if pass.recomputes {
                let (block, sight) = (block.shallow_clone(), sight.shallow_clone());
                again(&x_btc, move |x| block.forward(x, &sight, None, is_training))
            } else {
                block.forward(&x_btc, &sight, pass.memory(layer), is_training)
            };
        }
        pass.finish(t);
        if pass.only_last {
            x_btc = x_btc.narrow(1, t - 1, 1);
        }
        let hidden_btc = self.norm.apply(&x_btc);
        pass.keep(&hidden_btc);
        hidden_btc
    }

    fn token_head(&self) -> TokenHead {
        let head_vc = self.head_vc.shallow_clone();
        Box::new(move |hidden| hidden.linear::<Tensor>(&head_vc, None))
    }

    fn scores(&self, _: &Tensor, _: Option<&Tensor>, _: bool) -> Tensor {
        panic!("this model has no scores of sequences")
    }
}

fn drop(x: Tensor, p: f64, is_training: bool) -> Tensor {
    if is_training && p > 0.0 { x.dropout(p, true) } else { x }
}

fn lookup(embedding: &Tensor, ids: &Tensor) -> Tensor {
    debug_assert_eq!(ids.kind(), Kind::Int64);
    Tensor::embedding(embedding, ids, -1, false, false)
}

/// Settings of the reference that change the numbers and that nobody trains with.
fn refuse_variants(config: &Value) -> Result<()> {
    for (key, wanted) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ] {
        if switch(config, key, wanted)? != wanted {
            return Err(bad_config(key, &(!wanted).to_string(), &wanted.to_string()));
        }
    }
    Ok(())
}
