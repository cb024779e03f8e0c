//! LLaMA: rotary positions, RMS norm before each half of a block, grouped key heads, SwiGLU.
//!
//! Shapes: `B` batch, `T` time, `C` channels, `H` query heads, `G` key and value heads, `D` head size,
//! `F` width of the feed-forward part, `V` vocabulary.

use std::f64::consts::PI;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::builder::{Builder, Init};
use super::linear::{Layout, Linear, Spec};
use super::{Model, ModelKind, Parameter, Pass, Shape, TokenHead};
use super::{again, bad_config, divides, n_scores, number, size, switch, unsigned};
use crate::attention::{Memory, Sight, attend};
use crate::error::Result;
use crate::recipe;

pub(super) const KIND: ModelKind = ModelKind {
    name: "llama",
    summary: "decoder with rotary positions, RMS norm, grouped key heads and SwiGLU",
    source: "Touvron et al. 2023; checked against transformers 5.23",
    adapter_targets: &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    fan_in_fan_out: false,
    configure,
    build: |config, builder| Ok(Box::new(Llama::new(config, builder)?)),
};

fn configure(recipe: &recipe::Model, vocab_size: u64) -> Value {
    // Two thirds of four times the width, as in the paper, up to a multiple that suits the kernels.
    let n_ffn =
        recipe.n_ffn.unwrap_or_else(|| (8 * recipe.n_embd).div_ceil(3).next_multiple_of(32));
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": recipe.dropout,
        "head_dim": recipe.n_embd / recipe.n_head.max(1),
        "hidden_act": "silu",
        "hidden_size": recipe.n_embd,
        "initializer_range": 0.02,
        "intermediate_size": n_ffn,
        "max_position_embeddings": recipe.seq_len,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": recipe.n_head,
        "num_hidden_layers": recipe.n_layer,
        "num_key_value_heads": recipe.n_kv_head.unwrap_or(recipe.n_head),
        "rms_norm_eps": 1e-5,
        "rope_parameters": { "rope_theta": recipe.rope_theta, "rope_type": "default" },
        "tie_word_embeddings": recipe.tie_embeddings.unwrap_or(false),
        "vocab_size": vocab_size,
    })
}

#[derive(Debug)]
struct Block {
    norm_1: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    attention_out: Linear,
    norm_2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    head_size: i64,
}

#[derive(Debug)]
struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    fn new(from: &mut Builder<'_>, name: &str, c: i64, epsilon: f64) -> Result<Self> {
        let weight = from.parameter(&format!("{name}.weight"), &[c], Init::Ones)?;
        Ok(Self { weight, epsilon })
    }

    fn shallow_clone(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    fn apply(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)
    }
}

#[derive(Debug)]
struct Llama {
    token_embedding_vc: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Head,
    cos_td: Tensor,
    sin_td: Tensor,
    attention_dropout: f64,
    parameters: Vec<Parameter>,
    shape: Shape,
}

#[derive(Debug)]
enum Head {
    /// Logits of tokens, `[V, C]`: the token embedding where they are tied.
    Tokens(Tensor),
    /// Scores of the last token of a sequence, `[N, C]`.
    Scores(Tensor),
}

impl Llama {
    fn new(config: &Value, from: &mut Builder<'_>) -> Result<Self> {
        let (v, c) = (size(config, "vocab_size")?, size(config, "hidden_size")?);
        let (f, t) = (size(config, "intermediate_size")?, size(config, "max_position_embeddings")?);
        let n_layers = size(config, "num_hidden_layers")?;
        let h = size(config, "num_attention_heads")?;
        let g = if config["num_key_value_heads"].is_null() {
            h
        } else {
            divides(config, "num_attention_heads", h, "num_key_value_heads")?
        };
        let d = if config["head_dim"].is_null() {
            c / divides(config, "hidden_size", c, "num_attention_heads")?
        } else {
            size(config, "head_dim")?
        };
        if d % 2 != 0 {
            return Err(bad_config(
                "head_dim",
                &d.to_string(),
                "an even number: positions rotate pairs",
            ));
        }
        if let Some(other) = config["hidden_act"].as_str().filter(|name| *name != "silu") {
            return Err(bad_config("hidden_act", other, "`silu`"));
        }
        let bias = switch(config, "attention_bias", false)?;
        let ffn_bias = switch(config, "mlp_bias", false)?;
        let deviation = number(config, "initializer_range", 0.02)?;
        // Every block adds twice to the residual stream: this keeps its size independent of depth.
        #[expect(clippy::cast_precision_loss, reason = "a count of layers")]
        let residual = deviation / (2.0 * n_layers as f64).sqrt();

        let weight = "model.embed_tokens.weight";
        let token_embedding_vc = from.parameter(weight, &[v, c], Init::Normal(deviation))?;
        let epsilon = number(config, "rms_norm_eps", 1e-6)?;
        let mut blocks = Vec::new();
        for layer in 0..n_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let mut linear = |part: &str, n_in: i64, n_out: i64, has_bias: bool, deviation: f64| {
                let layout = Layout::OutIn;
                let spec = Spec { n_in, n_out, has_bias, layout, deviation };
                Linear::new(from, &name(part), spec)
            };
            let q = linear("self_attn.q_proj", c, h * d, bias, deviation)?;
            let k = linear("self_attn.k_proj", c, g * d, bias, deviation)?;
            let v = linear("self_attn.v_proj", c, g * d, bias, deviation)?;
            let attention_out = linear("self_attn.o_proj", h * d, c, bias, residual)?;
            let gate = linear("mlp.gate_proj", c, f, ffn_bias, deviation)?;
            let up = linear("mlp.up_proj", c, f, ffn_bias, deviation)?;
            let down = linear("mlp.down_proj", f, c, ffn_bias, residual)?;
            let norm_1 = RmsNorm::new(from, &name("input_layernorm"), c, epsilon)?;
            let norm_2 = RmsNorm::new(from, &name("post_attention_layernorm"), c, epsilon)?;
            let head_size = d;
            blocks.push(Block {
                norm_1,
                q,
                k,
                v,
                attention_out,
                norm_2,
                gate,
                up,
                down,
                head_size,
            });
        }
        let norm = RmsNorm::new(from, "model.norm", c, epsilon)?;
        let n_scores = n_scores(config)?;
        let head = if n_scores > 0 {
            Head::Scores(from.parameter("score.weight", &[n_scores, c], Init::Normal(deviation))?)
        } else if switch(config, "tie_word_embeddings", false)? {
            from.tied("lm_head.weight");
            Head::Tokens(token_embedding_vc.shallow_clone())
        } else {
            Head::Tokens(from.parameter("lm_head.weight", &[v, c], Init::Normal(deviation))?)
        };
        let (cos_td, sin_td) = rotations(config, d, t, from.device)?;
        Ok(Self {
            token_embedding_vc,
            blocks,
            norm,
            head,
            cos_td,
            sin_td,
            attention_dropout: number(config, "attention_dropout", 0.0)?,
            parameters: from.finish()?,
            shape: Shape {
                n_layers: unsigned(n_layers),
                n_heads: unsigned(h),
                head_size: unsigned(d),
                vocab_size: unsigned(v),
                seq_len_max: unsigned(t),
                n_position_parameters: 0,
                is_causal: true,
                has_token_head: n_scores == 0,
                n_scores: unsigned(n_scores),
            },
        })
    }
}

impl Block {
    fn shallow_clone(&self) -> Self {
        Self {
            norm_1: self.norm_1.shallow_clone(),
            q: self.q.shallow_clone(),
            k: self.k.shallow_clone(),
            v: self.v.shallow_clone(),
            attention_out: self.attention_out.shallow_clone(),
            norm_2: self.norm_2.shallow_clone(),
            gate: self.gate.shallow_clone(),
            up: self.up.shallow_clone(),
            down: self.down.shallow_clone(),
            head_size: self.head_size,
        }
    }

    fn forward(
        &self,
        x_btc: &Tensor,
        rotation: &Rotation,
        sight: &Sight,
        memory: Option<Memory<'_>>,
        is_training: bool,
    ) -> Tensor {
        // Never `+=`: it works in place, and the backward pass of the norm needs what was there.
        let y = self.norm_1.apply(x_btc);
        let x_btc = x_btc + self.attention(&y, rotation, sight, memory, is_training);
        let y = self.norm_2.apply(&x_btc);
        let gated = self.gate.apply(&y, is_training).silu() * self.up.apply(&y, is_training);
        &x_btc + self.down.apply(&gated, is_training)
    }

    fn attention(
        &self,
        x_btc: &Tensor,
        rotation: &Rotation,
        sight: &Sight,
        memory: Option<Memory<'_>>,
        is_training: bool,
    ) -> Tensor {
        let (b, t, _) = x_btc.size3().expect("activations have three dimensions");
        let heads = |linear: &Linear| {
            linear.apply(x_btc, is_training).view([b, t, -1, self.head_size]).transpose(1, 2)
        };
        let q_bhtd = rotation.apply(&heads(&self.q));
        let k_bgtd = rotation.apply(&heads(&self.k));
        let y_bhtd = attend(&q_bhtd, k_bgtd, heads(&self.v), sight, memory);
        self.attention_out.apply(&y_bhtd.transpose(1, 2).reshape([b, t, -1]), is_training)
    }
}

impl Model for Llama {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn hidden(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let (_, t) = tokens_bt.size2().expect("tokens have two dimensions");
        let rotation = match &pass.positions_bt {
            Some(positions) => {
                let at = |table: &Tensor| {
                    Tensor::embedding(table, positions, -1, false, false).unsqueeze(1)
                };
                Rotation { cos: at(&self.cos_td), sin: at(&self.sin_td) }
            }
            None => {
                let at = |table: &Tensor| table.narrow(0, pass.n_past(), t);
                Rotation { cos: at(&self.cos_td), sin: at(&self.sin_td) }
            }
        };
        let mut x_btc = Tensor::embedding(&self.token_embedding_vc, tokens_bt, -1, false, false);
        let sight = pass.sight(t, true, self.attention_dropout, tokens_bt.device());
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.keep(&x_btc);
            let is_training = pass.is_training;
            x_btc = if pass.recomputes {
                let (block, sight) = (block.shallow_clone(), sight.shallow_clone());
                let rotation = rotation.shallow_clone();
                again(&x_btc, move |x| block.forward(x, &rotation, &sight, None, is_training))
            } else {
                block.forward(&x_btc, &rotation, &sight, pass.memory(layer), is_training)
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
        let Head::Tokens(weight_vc) = &self.head else { panic!("this model scores sequences") };
        let weight_vc = weight_vc.shallow_clone();
        Box::new(move |hidden| hidden.linear::<Tensor>(&weight_vc, None))
    }

    fn scores(&self, hidden_btc: &Tensor, last_b: Option<&Tensor>, _: bool) -> Tensor {
        let Head::Scores(weight_nc) = &self.head else { panic!("this model predicts tokens") };
        let (b, t, c) = hidden_btc.size3().expect("activations have three dimensions");
        let last_bc = match last_b {
            Some(last) => hidden_btc
                .gather(1, &last.view([b, 1, 1]).expand([b, 1, c], false), false)
                .squeeze_dim(1),
            None => hidden_btc.select(1, t - 1),
        };
        last_bc.linear::<Tensor>(weight_nc, None)
    }
}

/// Turns each pair of channels `i`, `i + D/2` by an angle that grows with the position.
struct Rotation {
    /// `[T, D]` or `[B, 1, T, D]`
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    fn shallow_clone(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    fn apply(&self, x_bhtd: &Tensor) -> Tensor {
        let halves = x_bhtd.chunk(2, 3);
        let turned = Tensor::cat(&[&halves[1].neg(), &halves[0]], 3);
        // The tables are float32: under autocast the product is rounded once, at the end.
        (x_bhtd * &self.cos + turned * &self.sin).to_kind(x_bhtd.kind())
    }
}

/// Returns cosines and sines of every position and channel, `[T, D]` each, in float32.
///
/// Sources: Su et al. 2021; linear: Chen et al. 2023; YaRN: Peng et al. 2023; llama3: Grattafiori et al. 2024.
fn rotations(config: &Value, d: i64, t: i64, device: Device) -> Result<(Tensor, Tensor)> {
    let (frequencies, scale) = frequencies(config, d, t)?;
    #[expect(clippy::cast_possible_truncation, reason = "the reference computes in float32")]
    let frequencies: Vec<f32> = frequencies.iter().map(|&f| f as f32).collect();
    let positions_t1 = Tensor::arange(t, (Kind::Float, Device::Cpu)).unsqueeze(1);
    let angles_te = positions_t1 * Tensor::from_slice(&frequencies);
    let angles_td = Tensor::cat(&[&angles_te, &angles_te], 1);
    let table = |values: Tensor| (values * scale).to_device(device);
    Ok((table(angles_td.cos()), table(angles_td.sin())))
}

/// Returns the angle per position of each of the `D/2` pairs, and a factor on cosines and sines.
fn frequencies(config: &Value, d: i64, t: i64) -> Result<(Vec<f64>, f64)> {
    // transformers 5 writes `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`.
    let scaling = [&config["rope_parameters"], &config["rope_scaling"]];
    let rope = scaling.into_iter().find(|value| value.is_object()).unwrap_or(&Value::Null);
    let outer = number(config, "rope_theta", 10_000.0)?;
    let theta = number(rope, "rope_theta", outer)?;
    #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
    let d_f64 = d as f64;
    #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
    let plain: Vec<f64> = (0..d / 2).map(|i| theta.powf(-2.0 * i as f64 / d_f64)).collect();
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
    #[expect(clippy::cast_precision_loss, reason = "sequence lengths are small")]
    let original = number(rope, "original_max_position_embeddings", t as f64)?;
    match kind.unwrap_or("default") {
        "default" => Ok((plain, 1.0)),
        "linear" => {
            let factor = factor(rope)?;
            Ok((plain.iter().map(|f| f / factor).collect(), 1.0))
        }
        "llama3" => {
            let factor = factor(rope)?;
            let low = number(rope, "low_freq_factor", 1.0)?;
            let high = number(rope, "high_freq_factor", 4.0)?;
            Ok((plain.iter().map(|&f| llama3(f, factor, low, high, original)).collect(), 1.0))
        }
        "yarn" => yarn(rope, &plain, theta, original),
        other => Err(bad_config("rope_type", other, "`default`, `linear`, `llama3` or `yarn`")),
    }
}

fn factor(rope: &Value) -> Result<f64> {
    let factor = number(rope, "factor", f64::NAN)?;
    if factor >= 1.0 {
        Ok(factor)
    } else {
        Err(bad_config("factor", &factor.to_string(), "at least 1"))
    }
}

/// Stretches waves longer than the original context, keeps short ones, and blends between.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// Stretches by how often a pair turns within the original context, and sharpens attention.
fn yarn(rope: &Value, plain: &[f64], theta: f64, original: f64) -> Result<(Vec<f64>, f64)> {
    let factor = factor(rope)?;
    let fast = number(rope, "beta_fast", 32.0)?;
    let slow = number(rope, "beta_slow", 1.0)?;
    let mscale =
        |factor: f64, m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let (m, m_all) = (number(rope, "mscale", 0.0)?, number(rope, "mscale_all_dim", 0.0)?);
    let inferred = if m != 0.0 && m_all != 0.0 {
        mscale(factor, m) / mscale(factor, m_all)
    } else {
        mscale(factor, 1.0)
    };
    let scale = number(rope, "attention_factor", inferred)?;
    #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
    let d = 2.0 * plain.len() as f64;
    // The pair that turns `turns` times within the original context.
    let pair = |turns: f64| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let truncate = switch(rope, "truncate", true)?;
    let (mut first, mut last) = (pair(fast), pair(slow));
    if truncate {
        (first, last) = (first.floor(), last.ceil());
    }
    let (first, mut last) = (first.max(0.0), last.min(d - 1.0));
    if first == last {
        last += 0.001; // As the reference: no division by zero.
    }
    let mut out = Vec::with_capacity(plain.len());
    for (i, &f) in plain.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
        let ramp = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
        out.push(f / factor * ramp + f * (1.0 - ramp));
    }
    Ok((out, scale))
}
