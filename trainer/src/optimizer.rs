//! AdamW over all parameters in two kernel calls, with moments that are plain tensors.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::model::Parameter;
use crate::torch::{self, AdamW, AdamWTensors};
use crate::weights::WeightFiles;

/// Hyper-parameters that stay the same over a run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Decoupled weight decay of parameters with two or more dimensions.
    pub weight_decay: f64,
    /// Decay rates of both moments.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero.
    pub eps: f64,
    /// The highest gradient norm, if any.
    pub clip: Option<f64>,
}

/// Parameters with their moments.
///
/// Matrices and embeddings decay, vectors (biases, norm gains) do not.
#[derive(Debug)]
pub struct Optimizer {
    config: Config,
    groups: [Group; 2],
    /// Updates made, a float scalar on the parameters' device.
    step: Tensor,
    /// Order of the parameters in the model: names of all.
    names: Vec<String>,
}

#[derive(Debug, Default)]
struct Group {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl Optimizer {
    /// Starts with moments of zero.
    ///
    /// # Panics
    /// When there are no parameters.
    #[must_use]
    pub fn new(parameters: &[Parameter], config: Config) -> Self {
        let device = parameters.first().expect("a model has parameters").tensor.device();
        let mut groups = [Group::default(), Group::default()];
        // Frozen ones, beneath adapters, stay as they are.
        for parameter in parameters.iter().filter(|p| p.tensor.requires_grad()) {
            let group = &mut groups[usize::from(parameter.tensor.dim() < 2)];
            group.names.push(parameter.name.clone());
            group.parameters.push(parameter.tensor.shallow_clone());
            group.first.push(parameter.tensor.detach().zeros_like());
            group.second.push(parameter.tensor.detach().zeros_like());
        }
        let step = Tensor::zeros([], (Kind::Float, device));
        let names = parameters.iter().map(|p| p.name.clone()).collect();
        Self { config, groups, step, names }
    }

    /// Clips the gradients, updates every parameter and forgets the gradients; returns the gradient norm before
    /// clipping, a scalar tensor.
    ///
    /// Where the norm is no finite number, nothing is updated. Nothing waits for the device.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch refuses.
    ///
    /// # Panics
    /// When a parameter has no gradient: the model did not use it.
    pub fn update(&mut self, lr: f64) -> Result<Tensor> {
        let gradients = self.groups.each_ref().map(Group::gradients);
        let all: Vec<Tensor> = gradients.iter().flatten().map(Tensor::shallow_clone).collect();
        let norm = torch::clip_gradients(&all, self.config.clip)?;
        let found_inf = norm.isfinite().logical_not().to_kind(Kind::Float);
        // Counts the update only where it is made.
        self.step += 1.0 - &found_inf;
        for (group, gradients) in self.groups.iter().zip(&gradients) {
            if group.parameters.is_empty() {
                continue;
            }
            let decays = group.parameters[0].dim() >= 2;
            let tensors = AdamWTensors {
                parameters: &group.parameters,
                gradients,
                first: &group.first,
                second: &group.second,
                step: &self.step,
                found_inf: &found_inf,
            };
            let with = AdamW {
                lr,
                betas: self.config.betas,
                weight_decay: if decays { self.config.weight_decay } else { 0.0 },
                eps: self.config.eps,
            };
            torch::fused_adamw(&tensors, with)?;
            torch::clear_gradients(&group.parameters)?;
        }
        Ok(norm)
    }

    /// The state by name: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>` and `step`.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("step".to_owned(), self.step.shallow_clone())];
        for group in &self.groups {
            for (name, (m, v)) in group.names.iter().zip(group.first.iter().zip(&group.second)) {
                state.push((format!("exp_avg.{name}"), m.shallow_clone()));
                state.push((format!("exp_avg_sq.{name}"), v.shallow_clone()));
            }
        }
        state
    }

    /// Takes over a state that [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// [`Error::Unusable`] when a tensor is absent or has another shape.
    pub fn restore(&mut self, state: &WeightFiles) -> Result<()> {
        for (name, mut tensor) in self.state() {
            let stored = state.tensor(&name)?;
            if stored.size() != tensor.size() {
                return Err(Error::Unusable {
                    action: "resume",
                    what: format!("`{}`", state.place()),
                    why: format!(
                        "`{name}` has the shape {:?}, the model needs {:?}",
                        stored.size(),
                        tensor.size()
                    ),
                    hint: "resume with the recipe that the run began with".to_owned(),
                });
            }
            tensor.f_copy_(&stored).map_err(Error::torch("restore the optimizer"))?;
        }
        Ok(())
    }

    /// Names of all parameters, in the model's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Group {
    fn gradients(&self) -> Vec<Tensor> {
        let pairs = self.names.iter().zip(&self.parameters);
        let gradient = |(name, parameter): (&String, &Tensor)| {
            let gradient = parameter.grad();
            assert!(gradient.defined(), "`{name}` has no gradient");
            gradient
        };
        pairs.map(gradient).collect()
    }
}
