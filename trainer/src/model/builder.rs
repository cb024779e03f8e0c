//! Where a model's parameters come from: files, a seed, or nowhere.

use std::collections::BTreeSet;

use tch::{Device, Kind, Tensor};

use super::Parameter;
use crate::adapter::{self, Variant};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::weights::Tensors;

/// Gives a model its parameters, and keeps them by name.
pub(super) struct Builder<'a> {
    origin: Origin<'a>,
    pub(super) device: Device,
    parameters: Vec<Parameter>,
    /// Names in the files that are accounted for.
    taken: BTreeSet<String>,
    /// Adapters that freeze everything else.
    adapters: Option<Adapters<'a>>,
}

/// Which layers get an adapter, and where its matrices come from.
pub(super) struct Adapters<'a> {
    config: &'a adapter::Config,
    origin: Origin<'a>,
    /// Targets that named a layer.
    used: BTreeSet<String>,
    taken: BTreeSet<String>,
}

/// The small matrices beside one weight.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `[rank, in]`
    pub(super) a: Tensor,
    /// `[out, rank]`
    pub(super) b: Tensor,
    /// `[out]`, of DoRA.
    pub(super) magnitude: Option<Tensor>,
    pub(super) scale: f64,
    pub(super) dropout: f64,
}

pub(super) enum Origin<'a> {
    Seed(u64),
    Files(&'a dyn Tensors),
    /// One zero that looks like all of them.
    Nothing,
}

impl LowRank {
    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            a: self.a.shallow_clone(),
            b: self.b.shallow_clone(),
            magnitude: self.magnitude.as_ref().map(Tensor::shallow_clone),
            scale: self.scale,
            dropout: self.dropout,
        }
    }
}

/// How a fresh parameter begins.
pub(super) enum Init {
    Zeros,
    Ones,
    /// Around zero, with this standard deviation.
    Normal(f64),
    /// Evenly between minus and plus this.
    Uniform(f64),
    /// These numbers.
    Given(Tensor),
}

/// What older checkpoints call the parts of a layer norm.
const RENAMED: [(&str, &str); 2] =
    [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
/// Buffers that older checkpoints carry and that are computed here.
const COMPUTED: [&str; 4] =
    [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", "embeddings.position_ids"];
/// First parts of names that checkpoints of a bare base model lack.
const PREFIXES: [&str; 3] = ["transformer.", "model.", "bert."];

impl<'a> Builder<'a> {
    pub(super) fn new(origin: Origin<'a>, device: Device) -> Self {
        let (parameters, taken) = (Vec::new(), BTreeSet::new());
        Self { origin, device, parameters, taken, adapters: None }
    }

    /// Freezes the model, and gives adapters to the layers that `config` names.
    pub(super) fn adapt(mut self, config: &'a adapter::Config, origin: Origin<'a>) -> Self {
        let (used, taken) = (BTreeSet::new(), BTreeSet::new());
        self.adapters = Some(Adapters { config, origin, used, taken });
        self
    }

    pub(super) fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let tensor = match self.origin {
            Origin::Seed(seed) => draw(seed, name, shape, init)?,
            Origin::Nothing => Tensor::zeros([1], (Kind::Float, self.device)).expand(shape, false),
            Origin::Files(files) => {
                let stored = stored_name(files, name);
                self.taken.insert(stored.clone());
                read(files, &stored, shape, "config.json")?
            }
        };
        Ok(self.keep(name, &tensor, self.adapters.is_none()))
    }

    fn keep(&mut self, name: &str, tensor: &Tensor, is_trained: bool) -> Tensor {
        let tensor = tensor.to_kind(Kind::Float).to_device(self.device);
        let tensor = tensor.set_requires_grad(is_trained);
        self.parameters.push(Parameter { name: name.to_owned(), tensor: tensor.shallow_clone() });
        tensor
    }

    /// Returns the adapter of the layer `module`, where it gets one, for its weight as `[out, in]`.
    pub(super) fn low_rank(&mut self, module: &str, weight_oi: &Tensor) -> Result<Option<LowRank>> {
        let Some(adapters) = &mut self.adapters else { return Ok(None) };
        let config = adapters.config;
        let Some(target) = config.target_of(module) else { return Ok(None) };
        adapters.used.insert(target.to_owned());
        let (n_out, n_in) = weight_oi.size2().expect("weights have two dimensions");
        let rank = i64::try_from(config.rank).expect("checked with the adapter");
        #[expect(clippy::cast_precision_loss, reason = "widths are small")]
        // As peft: Kaiming's rule with the slope sqrt(5).
        let init = Init::Uniform(1.0 / (n_in as f64).sqrt());
        let a = self.adapter_part(&format!("{module}.lora_A.weight"), &[rank, n_in], init)?;
        let b =
            self.adapter_part(&format!("{module}.lora_B.weight"), &[n_out, rank], Init::Zeros)?;
        let magnitude = (config.kind == Variant::Dora).then(|| {
            let name = format!("{module}.lora_magnitude_vector");
            self.adapter_part(&name, &[n_out], Init::Given(adapter::lengths(weight_oi)))
        });
        let magnitude = magnitude.transpose()?;
        Ok(Some(LowRank { a, b, magnitude, scale: config.scale(), dropout: config.dropout }))
    }

    fn adapter_part(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let adapters = self.adapters.as_mut().expect("only asked for with adapters");
        let tensor = match adapters.origin {
            Origin::Seed(seed) => draw(seed, name, shape, init)?,
            Origin::Nothing => Tensor::zeros([1], (Kind::Float, self.device)).expand(shape, false),
            Origin::Files(files) => {
                let stored = format!("{}{name}", adapter::PREFIX);
                adapters.taken.insert(stored.clone());
                read(files, &stored, shape, adapter::CONFIG)?
            }
        };
        Ok(self.keep(name, &tensor, true))
    }

    /// Says that `name` is another parameter under a second name: files may hold it, and it is not read.
    pub(super) fn tied(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Returns every parameter, in the order in which they were asked for.
    pub(super) fn finish(&mut self) -> Result<Vec<Parameter>> {
        if let Origin::Files(files) = self.origin {
            let is_computed = |name: &str| COMPUTED.iter().any(|suffix| name.ends_with(suffix));
            let unused = files
                .names()
                .into_iter()
                .find(|&name| !self.taken.contains(name) && !is_computed(name));
            if let Some(name) = unused {
                let why = format!("the architecture in config.json has no parameter `{name}`");
                return Err(mismatch(files, why));
            }
        }
        if let Some(adapters) = &self.adapters {
            adapters.finish()?;
        }
        Ok(std::mem::take(&mut self.parameters))
    }
}

impl Adapters<'_> {
    fn finish(&self) -> Result<()> {
        let idle = self.config.targets.iter().find(|target| !self.used.contains(*target));
        if let Some(target) = idle {
            return Err(Error::Unusable {
                action: "load",
                what: "the adapter".to_owned(),
                why: format!("its target `{target}` names no layer of the model"),
                hint: "targets are ends of names such as `q_proj` (llama) or `c_attn` (gpt2)"
                    .to_owned(),
            });
        }
        let Origin::Files(files) = self.origin else { return Ok(()) };
        match files.names().into_iter().find(|&name| !self.taken.contains(name)) {
            None => Ok(()),
            Some(name) => {
                Err(mismatch(files, format!("the model beneath has no place for `{name}`")))
            }
        }
    }
}

fn read(files: &dyn Tensors, stored: &str, shape: &[i64], config: &str) -> Result<Tensor> {
    if let Some(found) = files.shape(stored).filter(|found| *found != shape) {
        let why = format!("`{stored}` has the shape {found:?}, {config} says {shape:?}");
        return Err(mismatch(files, why));
    }
    let tensor = files.tensor(stored)?;
    refuse_non_finite(files, stored, &tensor)?;
    Ok(tensor)
}

fn stored_name(files: &dyn Tensors, name: &str) -> String {
    let bare = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let mut candidates = vec![name.to_owned(), bare.to_owned()];
    for (new, old) in RENAMED {
        if let Some(stem) = name.strip_suffix(new) {
            candidates.push(format!("{stem}{old}"));
        }
        if let Some(stem) = bare.strip_suffix(new) {
            candidates.push(format!("{stem}{old}"));
        }
    }
    candidates
        .into_iter()
        .find(|candidate| files.shape(candidate).is_some())
        .unwrap_or_else(|| name.to_owned())
}

fn mismatch(files: &dyn Tensors, why: String) -> Error {
    Error::Unusable {
        action: "load",
        what: format!("`{}`", files.place()),
        why,
        hint: "config.json and weights must come from the same model".to_owned(),
    }
}

/// One number that is none makes every output none.
fn refuse_non_finite(files: &dyn Tensors, name: &str, tensor: &Tensor) -> Result<()> {
    let n_bad = tensor.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    if n_bad == 0 {
        return Ok(());
    }
    Err(Error::Unusable {
        action: "load",
        what: format!("`{}`", files.place()),
        why: format!("{n_bad} of the {} numbers of `{name}` are infinite or none", tensor.numel()),
        hint: "take a checkpoint from before the run diverged, or fetch the file again".to_owned(),
    })
}

fn draw(seed: u64, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let made = match init {
        Init::Zeros => Tensor::f_zeros(shape, options),
        Init::Ones => Tensor::f_ones(shape, options),
        Init::Given(tensor) => Ok(tensor.detach()),
        Init::Uniform(bound) => {
            let n = usize::try_from(shape.iter().product::<i64>()).expect("sizes are positive");
            let mut random = Random::new(seed, name);
            let draws: Vec<f64> = (0..n).map(|_| (2.0 * random.uniform() - 1.0) * bound).collect();
            Tensor::f_from_slice(&draws).and_then(|flat| flat.to_kind(Kind::Float).f_view(shape))
        }
        Init::Normal(deviation) => {
            let n = usize::try_from(shape.iter().product::<i64>()).expect("sizes are positive");
            let draws = Random::new(seed, name).normals(n, deviation);
            Tensor::f_from_slice(&draws).and_then(|flat| flat.f_view(shape))
        }
    };
    made.map_err(Error::torch("make a parameter"))
}
