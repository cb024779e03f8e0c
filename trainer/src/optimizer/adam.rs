//! Adam with weight decay as a part of the gradient.

use super::OptimizerKind;
use super::adamw::Moments;

pub(super) const KIND: OptimizerKind = OptimizerKind {
    name: "adam",
    summary: "Adam with weight decay as a part of the gradient, fused",
    source: "Kingma and Ba 2015; checked against torch.optim.Adam",
    keys: &["betas", "eps"],
    state_per_parameter: 2,
    build: |group, config| vec![Box::new(Moments::new(group, config, false))],
};
