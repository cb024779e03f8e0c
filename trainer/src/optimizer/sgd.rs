//! Stochastic gradient descent with momentum.

use tch::Tensor;

use super::{Group, OptimizerKind, Rule, Update};
use crate::error::Result;
use crate::torch::{self, Sgd};

pub(super) const KIND: OptimizerKind = OptimizerKind {
    name: "sgd",
    summary: "gradient descent with Nesterov momentum, weight decay as a part of the gradient, fused",
    source: "Sutskever et al. 2013; checked against torch.optim.SGD",
    keys: &["momentum", "nesterov"],
    state_per_parameter: 1,
    build: |group, config| {
        let buffers = group.zeros();
        // 0.9 as in Sutskever et al. 2013.
        let momentum = config.momentum.unwrap_or(0.9);
        let is_nesterov = config.nesterov.unwrap_or(momentum > 0.0);
        vec![Box::new(Momentum { group, momentum, is_nesterov, buffers })]
    },
};

#[derive(Debug)]
struct Momentum {
    group: Group,
    momentum: f64,
    is_nesterov: bool,
    buffers: Vec<Tensor>,
}

impl Rule for Momentum {
    fn group(&self) -> &Group {
        &self.group
    }

    fn update(&mut self, gradients: &[Tensor], by: &Update<'_>) -> Result<()> {
        let with = Sgd {
            lr: by.lr * self.group.lr_scale,
            momentum: self.momentum,
            is_nesterov: self.is_nesterov,
            weight_decay: self.group.weight_decay,
        };
        torch::fused_sgd([&self.group.parameters, gradients, &self.buffers], with, by.skip)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.group.named("momentum", &self.buffers)
    }
}
