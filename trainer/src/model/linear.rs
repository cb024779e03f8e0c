//! A matrix product with an optional bias and an optional adapter, as every model here uses it.

use tch::{Tensor, no_grad};

use super::builder::{Builder, Init, LowRank};
use crate::adapter::{lengths, summed};
use crate::error::Result;

/// In which order a checkpoint stores a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[out, in]`, as `torch.nn.Linear`.
    OutIn,
    /// `[in, out]`, as GPT-2's `Conv1D`.
    InOut,
}

/// `y = x W + b` over the last dimension.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    layout: Layout,
    adapter: Option<LowRank>,
}

/// What a [`Linear`] begins as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) n_in: i64,
    pub(super) n_out: i64,
    pub(super) has_bias: bool,
    pub(super) layout: Layout,
    /// Of the fresh weight, around zero.
    pub(super) deviation: f64,
}

impl Linear {
    /// Takes `name.weight` and, where the spec has one, `name.bias`.
    pub(super) fn new(from: &mut Builder<'_>, name: &str, spec: Spec) -> Result<Self> {
        let Spec { n_in, n_out, has_bias, layout, deviation } = spec;
        let shape = match layout {
            Layout::OutIn => [n_out, n_in],
            Layout::InOut => [n_in, n_out],
        };
        let weight = from.parameter(&format!("{name}.weight"), &shape, Init::Normal(deviation))?;
        let bias = has_bias
            .then(|| from.parameter(&format!("{name}.bias"), &[n_out], Init::Zeros))
            .transpose()?;
        let adapter = from.low_rank(name, &out_in(&weight, layout))?;
        Ok(Self { weight, bias, layout, adapter })
    }

    /// Returns the same layer over the same tensors.
    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            layout: self.layout,
            adapter: self.adapter.as_ref().map(LowRank::shallow_clone),
        }
    }

    /// Dropout before an adapter drops only in training.
    pub(super) fn apply(&self, x: &Tensor, is_training: bool) -> Tensor {
        let y = self.product(x, self.bias.as_ref());
        let Some(adapter) = &self.adapter else { return y };
        let is_dropping = is_training && adapter.dropout > 0.0;
        let dropped = is_dropping.then(|| x.dropout(adapter.dropout, true));
        let x = dropped.as_ref().unwrap_or(x);
        let added = x.linear::<Tensor>(&adapter.a, None).linear::<Tensor>(&adapter.b, None);
        let added = added * adapter.scale;
        let Some(magnitude) = &adapter.magnitude else { return y + added };
        // The length of the sum counts as a constant, as in the paper's section 4.3.
        let lengths = no_grad(|| {
            let weight = out_in(&self.weight, self.layout);
            lengths(&summed(&weight, &adapter.a, &adapter.b, adapter.scale))
        });
        let ratio = magnitude / lengths;
        y + (&ratio - 1.0) * self.product(x, None) + ratio * added
    }

    fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self.layout {
            Layout::OutIn => x.linear(&self.weight, bias),
            Layout::InOut => {
                let size = x.size();
                let n_in = *size.last().expect("activations have dimensions");
                let flat = x.reshape([-1, n_in]);
                let flat = match bias {
                    Some(bias) => bias.addmm(&flat, &self.weight),
                    None => flat.matmul(&self.weight),
                };
                let mut out = size;
                *out.last_mut().expect("as above") = -1;
                flat.view(out.as_slice())
            }
        }
    }
}

fn out_in(weight: &Tensor, layout: Layout) -> Tensor {
    if layout == Layout::InOut { weight.tr() } else { weight.shallow_clone() }
}

/// The gain and bias of a layer norm.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Takes `name.weight` and `name.bias`, `[c]` each.
    pub(super) fn new(from: &mut Builder<'_>, name: &str, c: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: from.parameter(&format!("{name}.weight"), &[c], Init::Ones)?,
            bias: from.parameter(&format!("{name}.bias"), &[c], Init::Zeros)?,
            epsilon,
        })
    }

    /// Returns the same layer over the same tensors.
    pub(super) fn shallow_clone(&self) -> Self {
        let (weight, bias) = (self.weight.shallow_clone(), self.bias.shallow_clone());
        Self { weight, bias, epsilon: self.epsilon }
    }

    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}
