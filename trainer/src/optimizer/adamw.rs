//! Adam with weight decay apart from the gradient: all parameters of a group in one kernel call.

use tch::Tensor;

use super::{Group, OptimizerKind, Rule, Update};
use crate::error::Result;
use crate::recipe;
use crate::torch::{self, Adam, AdamTensors};

pub(super) const KIND: OptimizerKind = OptimizerKind {
    name: "adamw",
    summary: "Adam with decoupled weight decay, fused",
    source: "Loshchilov and Hutter 2019; checked against torch.optim.AdamW",
    keys: &["betas", "eps"],
    state_per_parameter: 2,
    build: |group, config| vec![Box::new(Moments::new(group, config, true))],
};

/// Parameters with their two moments.
#[derive(Debug)]
pub(super) struct Moments {
    group: Group,
    betas: [f64; 2],
    eps: f64,
    is_decoupled: bool,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl Moments {
    pub(super) fn new(group: Group, config: &recipe::Optimizer, is_decoupled: bool) -> Self {
        let (first, second) = (group.zeros(), group.zeros());
        let recipe::Optimizer { betas, eps, .. } = *config;
        Self { group, betas, eps, is_decoupled, first, second }
    }
}

impl Rule for Moments {
    fn group(&self) -> &Group {
        &self.group
    }

    fn update(&mut self, gradients: &[Tensor], by: &Update<'_>) -> Result<()> {
        let tensors = AdamTensors {
            parameters: &self.group.parameters,
            gradients,
            first: &self.first,
            second: &self.second,
            step: by.step,
            skip: by.skip,
        };
        let with = Adam {
            lr: by.lr * self.group.lr_scale,
            betas: self.betas,
            eps: self.eps,
            weight_decay: self.group.weight_decay,
            is_decoupled: self.is_decoupled,
        };
        torch::fused_adam(&tensors, with)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = self.group.named("exp_avg", &self.first);
        state.extend(self.group.named("exp_avg_sq", &self.second));
        state
    }
}
