//! A running average of the weights, which often scores better than the weights themselves.

use tch::{Tensor, no_grad};

use crate::model::Parameter;

/// An exponential moving average of all parameters: `average = decay · average + (1 - decay) · weight` after each update.
///
/// It starts as the weights before the first step.
///
/// Source: Polyak and Juditsky 1992; as `torch.optim.swa_utils.get_ema_multi_avg_fn`.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    tensors: Vec<Tensor>,
}

impl Average {
    pub(super) fn new(parameters: &[Parameter], decay: f64) -> Self {
        let names = parameters.iter().map(|p| p.name.clone()).collect();
        let of = |p: &Parameter| p.tensor.shallow_clone();
        let tensors = parameters.iter().map(|p| p.tensor.detach().copy()).collect();
        Self { decay, names, parameters: parameters.iter().map(of).collect(), tensors }
    }

    pub(super) fn update(&mut self, skip: &Tensor) {
        let share = (1.0 - skip) * (1.0 - self.decay);
        no_grad(|| {
            for (average, parameter) in self.tensors.iter_mut().zip(&self.parameters) {
                let _ = average.lerp_tensor_(parameter, &share);
            }
        });
    }

    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let pairs = self.names.iter().zip(&self.tensors);
        pairs.map(|(name, tensor)| (format!("average.{name}"), tensor.shallow_clone())).collect()
    }

    /// Puts the average in the place of the weights while `body` runs.
    pub fn in_place<T>(&self, body: impl FnOnce() -> T) -> T {
        let swap = || {
            no_grad(|| {
                for (average, parameter) in self.tensors.iter().zip(&self.parameters) {
                    let weights = parameter.detach().copy();
                    parameter.detach().copy_(average);
                    average.shallow_clone().copy_(&weights);
                }
            });
        };
        swap();
        let out = body();
        swap();
        out
    }
}
