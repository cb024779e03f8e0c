//! Where a model's parameters come from: files, a seed, or nowhere.

use std::collections::BTreeSet;

use tch::{Device, Kind, Tensor};

use super::Parameter;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::weights::WeightFiles;

/// Gives a model its parameters, and keeps them by name.
pub(super) struct Builder<'a> {
    origin: Origin<'a>,
    pub(super) device: Device,
    parameters: Vec<Parameter>,
    /// Names in the files that are accounted for.
    taken: BTreeSet<String>,
}

pub(super) enum Origin<'a> {
    Seed(u64),
    Files(&'a WeightFiles),
    /// One zero that looks like all of them.
    Nothing,
}

/// How a fresh parameter begins.
#[derive(Clone, Copy)]
pub(super) enum Init {
    Zeros,
    Ones,
    /// Around zero, with this standard deviation.
    Normal(f64),
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
        Self { origin, device, parameters: Vec::new(), taken: BTreeSet::new() }
    }

    pub(super) fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let tensor = match self.origin {
            Origin::Seed(seed) => draw(seed, name, shape, init)?,
            Origin::Nothing => Tensor::zeros([1], (Kind::Float, self.device)).expand(shape, false),
            Origin::Files(files) => {
                let stored = stored_name(files, name);
                if files.shape(&stored).is_some_and(|found| found != shape) {
                    let found = files.shape(&stored).expect("just found");
                    return Err(mismatch(
                        files,
                        format!("`{stored}` has the shape {found:?}, config.json says {shape:?}"),
                    ));
                }
                let tensor = files.tensor(&stored)?;
                self.taken.insert(stored);
                refuse_non_finite(files, name, &tensor)?;
                tensor
            }
        };
        let tensor = tensor.to_kind(Kind::Float).to_device(self.device).set_requires_grad(true);
        self.parameters.push(Parameter { name: name.to_owned(), tensor: tensor.shallow_clone() });
        Ok(tensor)
    }

    /// Says that `name` is another parameter under a second name: files may hold it, and it is not read.
    pub(super) fn tied(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Returns every parameter, in the order in which they were asked for.
    pub(super) fn finish(&mut self) -> Result<Vec<Parameter>> {
        if let Origin::Files(files) = self.origin {
            let is_computed = |name: &str| COMPUTED.iter().any(|suffix| name.ends_with(suffix));
            let unused =
                files.names().find(|&name| !self.taken.contains(name) && !is_computed(name));
            if let Some(name) = unused {
                let why = format!("the architecture in config.json has no parameter `{name}`");
                return Err(mismatch(files, why));
            }
        }
        Ok(std::mem::take(&mut self.parameters))
    }
}

fn stored_name(files: &WeightFiles, name: &str) -> String {
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
    candidates.into_iter().find(|candidate| files.has(candidate)).unwrap_or_else(|| name.to_owned())
}

fn mismatch(files: &WeightFiles, why: String) -> Error {
    Error::Unusable {
        action: "load",
        what: format!("`{}`", files.place()),
        why,
        hint: "config.json and weights must come from the same model".to_owned(),
    }
}

/// One number that is none makes every output none.
fn refuse_non_finite(files: &WeightFiles, name: &str, tensor: &Tensor) -> Result<()> {
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
        Init::Normal(deviation) => {
            let n = usize::try_from(shape.iter().product::<i64>()).expect("sizes are positive");
            let draws = Random::new(seed, name).normals(n, deviation);
            Tensor::f_from_slice(&draws).and_then(|flat| flat.f_view(shape))
        }
    };
    made.map_err(Error::torch("make a parameter"))
}
