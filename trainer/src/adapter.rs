//! Low-rank adapters: small matrices beside frozen weights, in PEFT's format, and their merge.
//!
//! `y = x W + b + s · dropout(x) A B`, with `s = alpha / r` (LoRA) or `alpha / sqrt(r)` (rsLoRA). DoRA scales each output's
//! column of `W + s A B` to a length that is trained.
//!
//! Sources: LoRA: Hu et al. 2022; rsLoRA: Kalajdzievski 2023; DoRA: Liu et al. 2024. Checked against peft 0.21.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::model::Parameter;

/// The file beside an adapter's weights.
pub const CONFIG: &str = "adapter_config.json";
/// An adapter's weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a model's modules.
pub(crate) const PREFIX: &str = "base_model.model.";

/// How adapters scale and what they train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Scaled by `alpha / rank`.
    #[default]
    Lora,
    /// Scaled by `alpha / sqrt(rank)`.
    Rslora,
    /// As LoRA, and the length of each output's weights is trained.
    Dora,
}

/// Adapters as a recipe asks for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `lora`, `rslora` or `dora`.
    pub kind: Variant,
    /// Rows of the small matrices.
    pub rank: u64,
    /// The scale, together with the rank.
    pub alpha: f64,
    /// Share of an adapter's inputs that dropout zeroes in training.
    pub dropout: f64,
    /// Ends of the names of the layers that get one; by default every matrix of every block.
    pub targets: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        // As peft: rank 8, alpha 8; every layer as Dettmers et al. 2023 recommend.
        Self { kind: Variant::Lora, rank: 8, alpha: 8.0, dropout: 0.0, targets: Vec::new() }
    }
}

/// The adapters of a model, and the folder of the model that they were made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What they are.
    pub config: Config,
    /// The folder of the model beneath.
    pub base: PathBuf,
    /// Whether weights lie as `[in, out]`, as GPT-2's.
    pub fan_in_fan_out: bool,
}

impl Config {
    /// What an adapter's product is multiplied with.
    #[must_use]
    pub fn scale(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let rank = self.rank as f64;
        if self.kind == Variant::Rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// Which target names the module, if any does.
    pub(crate) fn target_of(&self, module: &str) -> Option<&str> {
        let names = |target: &&String| {
            module
                .strip_suffix(target.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.targets.iter().find(names).map(String::as_str)
    }

    /// Refuses numbers that no adapter can have.
    ///
    /// # Errors
    /// [`Error::Unusable`] naming the value.
    pub fn check(&self) -> Result<()> {
        let why = if self.rank == 0 || self.rank > 1 << 16 {
            format!("its rank is {}, it must be in 1..=65536", self.rank)
        } else if !(self.alpha.is_finite() && self.alpha > 0.0) {
            format!("its alpha is {}, it must be above 0", self.alpha)
        } else if !(0.0..1.0).contains(&self.dropout) {
            format!("its dropout is {}, it must be in 0..1", self.dropout)
        } else {
            return Ok(());
        };
        Err(refuse("the adapter", why, "rank 8 with alpha 16 is a usual choice"))
    }
}

impl Adapter {
    /// Reads `adapter_config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::Unusable`] naming the setting that is not supported, with its value.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let place = format!("`{}`", path.display());
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| refuse(&place, error.to_string(), "fetch the adapter again"))?;
        let unsupported = |key: &str, wanted: &str| {
            let why = format!("`{key}` is {}, this reads {wanted}", json[key]);
            refuse(&place, why, "merge the adapter with peft, and load the merged model")
        };
        if json["peft_type"] != "LORA" {
            return Err(unsupported("peft_type", "\"LORA\""));
        }
        if !matches!(json["bias"].as_str(), None | Some("none")) {
            return Err(unsupported("bias", "\"none\""));
        }
        for key in [
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
            "layers_to_transform",
            "layer_replication",
            "exclude_modules",
            "target_parameters",
            "trainable_token_indices",
        ] {
            let is_empty = match &json[key] {
                Value::Null => true,
                Value::Object(map) => map.is_empty(),
                Value::Array(list) => list.is_empty(),
                _ => false,
            };
            if !is_empty {
                return Err(unsupported(key, "nothing there"));
            }
        }
        for key in ["lora_bias", "use_qalora", "use_bdlora"] {
            if json[key] == true {
                return Err(unsupported(key, "false"));
            }
        }
        let (is_dora, is_rs) = (json["use_dora"] == true, json["use_rslora"] == true);
        let kind = match (is_dora, is_rs) {
            (true, true) => return Err(unsupported("use_rslora", "false beside `use_dora`")),
            (true, false) => Variant::Dora,
            (false, true) => Variant::Rslora,
            (false, false) => Variant::Lora,
        };
        let targets = json["target_modules"].as_array().and_then(|list| {
            list.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        let config = Config {
            kind,
            rank: json["r"].as_u64().ok_or_else(|| unsupported("r", "a whole number"))?,
            alpha: json["lora_alpha"]
                .as_f64()
                .ok_or_else(|| unsupported("lora_alpha", "a number"))?,
            dropout: json["lora_dropout"].as_f64().unwrap_or(0.0),
            targets: targets.ok_or_else(|| unsupported("target_modules", "a list of names"))?,
        };
        config.check()?;
        let base = json["base_model_name_or_path"].as_str().unwrap_or_default();
        // Beside the adapter, as it is stored here; else as peft means it, from the working folder.
        let beside = folder.join(base);
        let base = if beside.is_dir() { beside } else { PathBuf::from(base) };
        let fan_in_fan_out = json["fan_in_fan_out"] == true;
        Ok(Self { config, base, fan_in_fan_out })
    }

    /// Returns `adapter_config.json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.config.rank,
            "target_modules": self.config.targets,
            "task_type": "CAUSAL_LM",
            "use_dora": self.config.kind == Variant::Dora,
            "use_rslora": self.config.kind == Variant::Rslora,
        })
    }

    /// Returns the parameters of the model with its adapters added in: no adapter is left.
    #[must_use]
    pub fn merge(&self, parameters: &[Parameter]) -> Vec<(String, Tensor)> {
        let find = |name: &str| parameters.iter().find(|p| p.name == name).map(|p| &p.tensor);
        let plain = parameters.iter().filter(|p| !is_adapter(&p.name));
        let merged = plain.map(|parameter| {
            let own = || (parameter.name.clone(), parameter.tensor.detach());
            let Some(module) = parameter.name.strip_suffix(".weight") else { return own() };
            let Some(a) = find(&format!("{module}.lora_A.weight")) else { return own() };
            let b = find(&format!("{module}.lora_B.weight")).expect("adapters have two matrices");
            let magnitude = find(&format!("{module}.lora_magnitude_vector"));
            let out_in = |weight: &Tensor| {
                if self.fan_in_fan_out { weight.tr() } else { weight.shallow_clone() }
            };
            let weight = no_grad(|| {
                let sum = summed(&out_in(&parameter.tensor), a, b, self.config.scale());
                let scaled = match magnitude {
                    Some(magnitude) => (magnitude / lengths(&sum)).unsqueeze(1) * sum,
                    None => sum,
                };
                out_in(&scaled).contiguous()
            });
            (parameter.name.clone(), weight)
        });
        merged.collect()
    }
}

/// Whether a parameter belongs to an adapter.
#[must_use]
pub fn is_adapter(name: &str) -> bool {
    [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// Returns `W + s B A`, `[out, in]`.
pub(crate) fn summed(weight_oi: &Tensor, a_ri: &Tensor, b_or: &Tensor, scale: f64) -> Tensor {
    weight_oi + b_or.matmul(a_ri) * scale
}

/// Returns the length of each row.
pub(crate) fn lengths(weight_oi: &Tensor) -> Tensor {
    weight_oi.linalg_norm(2.0, [1].as_slice(), false, Kind::Float)
}

fn refuse(what: &str, why: String, hint: &str) -> Error {
    Error::Unusable { action: "load", what: what.to_owned(), why, hint: hint.to_owned() }
}
