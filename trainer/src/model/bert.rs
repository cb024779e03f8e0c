//! BERT: an encoder whose tokens see the whole sequence, with heads for hidden tokens, for whether one sentence follows
//! another, and for classes or a number.
//!
//! Shapes: `B` batch, `T` time, `C` channels, `H` heads, `D` head size, `F` width of the feed-forward part, `N` scores,
//! `V` vocabulary.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::builder::{Builder, Init};
use super::linear::{LayerNorm, Layout, Linear, Spec};
use super::{Model, ModelKind, Parameter, Pass, Shape, TokenHead};
use super::{again, bad_config, divides, n_scores, number, size, switch, unsigned};
use crate::attention::{Sight, attend};
use crate::error::Result;
use crate::recipe;

pub(super) const KIND: ModelKind = ModelKind {
    name: "bert",
    summary: "encoder with learned positions and segments; predicts hidden tokens or scores sequences",
    source: "Devlin et al. 2019; checked against transformers 5.23",
    // No end of a name that the heads share.
    adapter_targets: &[
        "query",
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    fan_in_fan_out: false,
    configure,
    build: |config, builder| Ok(Box::new(Bert::new(config, builder)?)),
};

fn configure(recipe: &recipe::Model, vocab_size: u64) -> Value {
    json!({
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": recipe.dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": recipe.dropout,
        "hidden_size": recipe.n_embd,
        "initializer_range": 0.02,
        "intermediate_size": recipe.n_ffn.unwrap_or(4 * recipe.n_embd),
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": recipe.seq_len,
        "model_type": "bert",
        "num_attention_heads": recipe.n_head,
        "num_hidden_layers": recipe.n_layer,
        "tie_word_embeddings": recipe.tie_embeddings.unwrap_or(true),
        "type_vocab_size": 2,
        "vocab_size": vocab_size,
    })
}

#[derive(Debug)]
struct Block {
    q: Linear,
    k: Linear,
    v: Linear,
    attention_out: Linear,
    norm_1: LayerNorm,
    up: Linear,
    down: Linear,
    norm_2: LayerNorm,
    n_heads: i64,
    gelu: &'static str,
    dropout: f64,
}

/// Logits of the tokens that were hidden.
#[derive(Debug)]
struct Decoder {
    dense: Linear,
    norm: LayerNorm,
    /// The token embedding where they are tied.
    decoder_vc: Tensor,
    bias_v: Tensor,
}

/// Scores of the first token, which stands for the sequence.
#[derive(Debug)]
struct SequenceHead {
    pooler: Linear,
    scores: Linear,
    dropout: f64,
}

#[derive(Debug)]
struct Bert {
    token_embedding_vc: Tensor,
    position_embedding_tc: Tensor,
    segment_embedding: Tensor,
    norm: LayerNorm,
    blocks: Vec<Block>,
    token_head: Option<Decoder>,
    sequence_head: Option<SequenceHead>,
    gelu: &'static str,
    dropout: f64,
    attention_dropout: f64,
    parameters: Vec<Parameter>,
    shape: Shape,
}

impl Bert {
    fn new(config: &Value, from: &mut Builder<'_>) -> Result<Self> {
        let (v, c) = (size(config, "vocab_size")?, size(config, "hidden_size")?);
        let (f, t) = (size(config, "intermediate_size")?, size(config, "max_position_embeddings")?);
        let n_layers = size(config, "num_hidden_layers")?;
        let n_heads = divides(config, "hidden_size", c, "num_attention_heads")?;
        if switch(config, "is_decoder", false)? {
            return Err(bad_config("is_decoder", "true", "false"));
        }
        if let Some(kind) = config["position_embedding_type"].as_str().filter(|k| *k != "absolute")
        {
            return Err(bad_config("position_embedding_type", kind, "`absolute`"));
        }
        let gelu = match config["hidden_act"].as_str() {
            None | Some("gelu") => "none",
            Some("gelu_new" | "gelu_pytorch_tanh") => "tanh",
            Some(other) => return Err(bad_config("hidden_act", other, "`gelu` or `gelu_new`")),
        };
        let deviation = number(config, "initializer_range", 0.02)?;
        let epsilon = number(config, "layer_norm_eps", 1e-12)?;
        // The default of the reference where config.json is silent.
        let dropout = number(config, "hidden_dropout_prob", 0.1)?;
        let linear =
            |n_in, n_out| Spec { n_in, n_out, has_bias: true, layout: Layout::OutIn, deviation };
        let normal = || Init::Normal(deviation);
        let at = |part: &str| format!("bert.embeddings.{part}");
        let token_embedding_vc =
            from.parameter(&at("word_embeddings.weight"), &[v, c], normal())?;
        let position_embedding_tc =
            from.parameter(&at("position_embeddings.weight"), &[t, c], normal())?;
        let n_segments = size(config, "type_vocab_size")?;
        let segment_embedding =
            from.parameter(&at("token_type_embeddings.weight"), &[n_segments, c], normal())?;
        let norm = LayerNorm::new(from, &at("LayerNorm"), c, epsilon)?;
        let mut blocks = Vec::new();
        for layer in 0..n_layers {
            let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
            blocks.push(Block {
                q: Linear::new(from, &name("attention.self.query"), linear(c, c))?,
                k: Linear::new(from, &name("attention.self.key"), linear(c, c))?,
                v: Linear::new(from, &name("attention.self.value"), linear(c, c))?,
                attention_out: Linear::new(from, &name("attention.output.dense"), linear(c, c))?,
                norm_1: LayerNorm::new(from, &name("attention.output.LayerNorm"), c, epsilon)?,
                up: Linear::new(from, &name("intermediate.dense"), linear(c, f))?,
                down: Linear::new(from, &name("output.dense"), linear(f, c))?,
                norm_2: LayerNorm::new(from, &name("output.LayerNorm"), c, epsilon)?,
                n_heads,
                gelu,
                dropout,
            });
        }
        let architecture = config["architectures"][0].as_str().unwrap_or("BertForMaskedLM");
        let (scores, n_scores) = match architecture {
            "BertForMaskedLM" => (None, 0),
            "BertForPreTraining" => (Some("cls.seq_relationship"), 2),
            "BertForSequenceClassification" => (Some("classifier"), n_scores(config)?),
            other => {
                let known =
                    "`BertForMaskedLM`, `BertForPreTraining` or `BertForSequenceClassification`";
                return Err(bad_config("architectures", other, known));
            }
        };
        let sequence_head = scores.map(|name| -> Result<SequenceHead> {
            let own = number(config, "classifier_dropout", dropout)?;
            Ok(SequenceHead {
                pooler: Linear::new(from, "bert.pooler.dense", linear(c, c))?,
                scores: Linear::new(from, name, linear(c, n_scores))?,
                dropout: if name == "classifier" { own } else { 0.0 },
            })
        });
        let sequence_head = sequence_head.transpose()?;
        let has_token_head = architecture != "BertForSequenceClassification";
        let token_head = has_token_head.then(|| -> Result<Decoder> {
            let name = |part: &str| format!("cls.predictions.{part}");
            from.tied(&name("decoder.bias"));
            let decoder_vc = if switch(config, "tie_word_embeddings", true)? {
                from.tied(&name("decoder.weight"));
                token_embedding_vc.shallow_clone()
            } else {
                from.parameter(&name("decoder.weight"), &[v, c], normal())?
            };
            Ok(Decoder {
                dense: Linear::new(from, &name("transform.dense"), linear(c, c))?,
                norm: LayerNorm::new(from, &name("transform.LayerNorm"), c, epsilon)?,
                decoder_vc,
                bias_v: from.parameter(&name("bias"), &[v], Init::Zeros)?,
            })
        });
        Ok(Self {
            token_embedding_vc,
            position_embedding_tc,
            segment_embedding,
            norm,
            blocks,
            token_head: token_head.transpose()?,
            sequence_head,
            gelu,
            dropout,
            attention_dropout: number(config, "attention_probs_dropout_prob", 0.1)?,
            parameters: from.finish()?,
            shape: Shape {
                n_layers: unsigned(n_layers),
                n_heads: unsigned(n_heads),
                head_size: unsigned(c / n_heads),
                vocab_size: unsigned(v),
                seq_len_max: unsigned(t),
                n_position_parameters: unsigned((t + n_segments) * c),
                is_causal: false,
                has_token_head,
                n_scores: unsigned(n_scores),
            },
        })
    }
}

impl Block {
    fn shallow_clone(&self) -> Self {
        Self {
            q: self.q.shallow_clone(),
            k: self.k.shallow_clone(),
            v: self.v.shallow_clone(),
            attention_out: self.attention_out.shallow_clone(),
            norm_1: self.norm_1.shallow_clone(),
            up: self.up.shallow_clone(),
            down: self.down.shallow_clone(),
            norm_2: self.norm_2.shallow_clone(),
            ..*self
        }
    }

    fn forward(&self, x_btc: &Tensor, sight: &Sight, is_training: bool) -> Tensor {
        let (b, t, c) = x_btc.size3().expect("activations have three dimensions");
        let heads = |linear: &Linear| {
            let y = linear.apply(x_btc, is_training);
            y.view([b, t, self.n_heads, c / self.n_heads]).transpose(1, 2)
        };
        let y_bhtd = attend(&heads(&self.q), heads(&self.k), heads(&self.v), sight, None);
        let y = y_bhtd.transpose(1, 2).reshape([b, t, c]);
        let y = self.attention_out.apply(&y, is_training);
        let x_btc = self.norm_1.apply(&(x_btc + drop(y, self.dropout, is_training)));
        let y = self.up.apply(&x_btc, is_training).gelu(self.gelu);
        let y = self.down.apply(&y, is_training);
        self.norm_2.apply(&(&x_btc + drop(y, self.dropout, is_training)))
    }
}

impl Model for Bert {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn hidden(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        assert!(pass.cache.is_none(), "an encoder sees the whole sequence at once");
        let (_, t) = tokens_bt.size2().expect("tokens have two dimensions");
        let positions = match &pass.positions_bt {
            Some(positions) => lookup(&self.position_embedding_tc, positions),
            None => self.position_embedding_tc.narrow(0, 0, t),
        };
        let segments = match &pass.token_types_bt {
            Some(types) => lookup(&self.segment_embedding, types),
            None => self.segment_embedding.narrow(0, 0, 1),
        };
        let x = lookup(&self.token_embedding_vc, tokens_bt) + segments + positions;
        let mut x_btc = drop(self.norm.apply(&x), self.dropout, pass.is_training);
        let sight = pass.sight(t, false, self.attention_dropout, tokens_bt.device());
        for block in &self.blocks {
            pass.keep(&x_btc);
            let is_training = pass.is_training;
            x_btc = if pass.recomputes {
                let (block, sight) = (block.shallow_clone(), sight.shallow_clone());
                again(&x_btc, move |x| block.forward(x, &sight, is_training))
            } else {
                block.forward(&x_btc, &sight, is_training)
            };
        }
        pass.keep(&x_btc);
        x_btc
    }

    fn token_head(&self) -> TokenHead {
        let head = self.token_head.as_ref().expect("a model that predicts tokens");
        let (dense, norm) = (head.dense.shallow_clone(), head.norm.shallow_clone());
        let (decoder_vc, bias_v) = (head.decoder_vc.shallow_clone(), head.bias_v.shallow_clone());
        let gelu = self.gelu;
        Box::new(move |hidden| {
            let x = norm.apply(&dense.apply(hidden, false).gelu(gelu));
            x.linear(&decoder_vc, Some(&bias_v))
        })
    }

    fn scores(&self, hidden_btc: &Tensor, _: Option<&Tensor>, is_training: bool) -> Tensor {
        let head = self.sequence_head.as_ref().expect("a model that scores sequences");
        let pooled_bc = head.pooler.apply(&hidden_btc.select(1, 0), is_training).tanh();
        head.scores.apply(&drop(pooled_bc, head.dropout, is_training), is_training)
    }
}

fn drop(x: Tensor, p: f64, is_training: bool) -> Tensor {
    if is_training && p > 0.0 { x.dropout(p, true) } else { x }
}

fn lookup(embedding: &Tensor, ids: &Tensor) -> Tensor {
    debug_assert_eq!(ids.kind(), Kind::Int64);
    Tensor::embedding(embedding, ids, -1, false, false)
}
