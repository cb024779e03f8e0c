//! GPT-2: learned positions, layer norm before each half of a block, GELU, tied head.
//!
//! Shapes: `B` batch, `T` time, `C` channels, `H` heads, `D` head size, `F` width of the feed-forward part, `V` vocabulary.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Builder, Init, Model, ModelKind, Parameter, Pass, Shape};
use super::{bad_config, divides, number, size, switch, unsigned};
use crate::attention::attend;
use crate::error::Result;
use crate::recipe;

pub(super) const KIND: ModelKind = ModelKind {
    name: "gpt2",
    summary: "decoder with learned positions, layer norm and GELU",
    source: "Radford et al. 2019; checked against transformers 5.23",
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

/// A weight `[in, out]`, as this checkpoint stores them, with a bias.
#[derive(Debug)]
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    fn apply(&self, x_btc: &Tensor) -> Tensor {
        let (b, t, c) = x_btc.size3().expect("activations have three dimensions");
        self.bias.addmm(&x_btc.view([b * t, c]), &self.weight).view([b, t, -1])
    }
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Block {
    norm_1: Norm,
    qkv: Affine,
    attention_out: Affine,
    norm_2: Norm,
    up: Affine,
    down: Affine,
}

#[derive(Debug)]
struct Gpt2 {
    token_embedding_vc: Tensor,
    position_embedding_tc: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    /// The token embedding where they are tied.
    head_vc: Tensor,
    n_heads: i64,
    gelu: &'static str,
    epsilon: f64,
    dropout: Dropout,
    parameters: Vec<Parameter>,
    shape: Shape,
}

#[derive(Debug)]
struct Dropout {
    embedding: f64,
    attention: f64,
    residual: f64,
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
        let mut blocks = Vec::new();
        for layer in 0..n_layers {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            blocks.push(Block {
                norm_1: norm(from, &name("ln_1"), c)?,
                qkv: affine(from, &name("attn.c_attn"), c, 3 * c, deviation)?,
                attention_out: affine(from, &name("attn.c_proj"), c, c, residual)?,
                norm_2: norm(from, &name("ln_2"), c)?,
                up: affine(from, &name("mlp.c_fc"), c, f, deviation)?,
                down: affine(from, &name("mlp.c_proj"), f, c, residual)?,
            });
        }
        let norm = norm(from, "transformer.ln_f", c)?;
        let head_vc = if switch(config, "tie_word_embeddings", true)? {
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
            n_heads,
            gelu,
            epsilon: number(config, "layer_norm_epsilon", 1e-5)?,
            // The defaults of the reference where config.json is silent.
            dropout: Dropout {
                embedding: number(config, "embd_pdrop", 0.1)?,
                attention: number(config, "attn_pdrop", 0.1)?,
                residual: number(config, "resid_pdrop", 0.1)?,
            },
            parameters: std::mem::take(&mut from.parameters),
            shape: Shape {
                n_layers: unsigned(n_layers),
                n_heads: unsigned(n_heads),
                head_size: unsigned(c / n_heads),
                vocab_size: unsigned(v),
                seq_len_max: unsigned(t),
                n_position_parameters: unsigned(t * c),
            },
        })
    }

    fn norm(&self, norm: &Norm, x_btc: &Tensor) -> Tensor {
        let c = x_btc.size()[2];
        x_btc.layer_norm([c], Some(&norm.weight), Some(&norm.bias), self.epsilon, true)
    }

    fn attention(
        &self,
        block: &Block,
        layer: usize,
        x_btc: &Tensor,
        pass: &mut Pass<'_>,
    ) -> Tensor {
        let (b, t, c) = x_btc.size3().expect("activations have three dimensions");
        // Split, not select: the backward of select makes a full tensor of zeros for each part.
        let qkv = block.qkv.apply(x_btc).split(c, 2);
        let heads =
            |part: &Tensor| part.view([b, t, self.n_heads, c / self.n_heads]).transpose(1, 2);
        let (q, k, v) = (heads(&qkv[0]), heads(&qkv[1]), heads(&qkv[2]));
        let y_bhtd = attend(&q, k, v, layer, self.dropout.attention, pass);
        let y_btc = y_bhtd.transpose(1, 2).reshape([b, t, c]);
        block.attention_out.apply(&y_btc)
    }

    fn feed_forward(&self, block: &Block, x_btc: &Tensor) -> Tensor {
        block.down.apply(&block.up.apply(x_btc).gelu(self.gelu))
    }
}

impl Model for Gpt2 {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn logits(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let (_, t) = tokens_bt.size2().expect("tokens have two dimensions");
        let training = pass.is_training;
        let drop = |x: Tensor, p: f64| if training && p > 0.0 { x.dropout(p, true) } else { x };
        let positions_tc = match &pass.positions_bt {
            Some(positions) => lookup(&self.position_embedding_tc, positions),
            // The same rows for every sequence: added by broadcasting, no lookup.
            None => self.position_embedding_tc.narrow(0, pass.n_past(), t),
        };
        let x = lookup(&self.token_embedding_vc, tokens_bt) + positions_tc;
        let mut x_btc = drop(x, self.dropout.embedding);
        for (layer, block) in self.blocks.iter().enumerate() {
            // Never `+=`: it works in place, and the backward pass of the norm needs what was there.
            let y = self.attention(block, layer, &self.norm(&block.norm_1, &x_btc), pass);
            x_btc = &x_btc + drop(y, self.dropout.residual);
            let y = self.feed_forward(block, &self.norm(&block.norm_2, &x_btc));
            x_btc = &x_btc + drop(y, self.dropout.residual);
        }
        pass.finish(t);
        if pass.only_last {
            x_btc = x_btc.narrow(1, t - 1, 1);
        }
        self.norm(&self.norm, &x_btc).linear::<Tensor>(&self.head_vc, None)
    }
}

fn lookup(embedding: &Tensor, ids: &Tensor) -> Tensor {
    debug_assert_eq!(ids.kind(), Kind::Int64);
    Tensor::embedding(embedding, ids, -1, false, false)
}

fn norm(from: &mut Builder<'_>, name: &str, c: i64) -> Result<Norm> {
    Ok(Norm {
        weight: from.parameter(&format!("{name}.weight"), &[c], Init::Ones)?,
        bias: from.parameter(&format!("{name}.bias"), &[c], Init::Zeros)?,
    })
}

fn affine(
    from: &mut Builder<'_>,
    name: &str,
    n_in: i64,
    n_out: i64,
    deviation: f64,
) -> Result<Affine> {
    Ok(Affine {
        weight: from.parameter(
            &format!("{name}.weight"),
            &[n_in, n_out],
            Init::Normal(deviation),
        )?,
        bias: from.parameter(&format!("{name}.bias"), &[n_out], Init::Zeros)?,
    })
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
