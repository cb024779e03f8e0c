//! Momentum whose direction is made orthogonal, for the matrices inside a model; AdamW for everything else.

use tch::{Kind, Tensor};

use super::adamw::Moments;
use super::{Group, OptimizerKind, Rule, Update};
use crate::error::Result;
use crate::recipe::MuonScale;
use crate::torch;

pub(super) const KIND: OptimizerKind = OptimizerKind {
    name: "muon",
    summary: "orthogonalised momentum for hidden matrices, AdamW for embeddings, heads and vectors",
    source: "Jordan et al. 2024, Liu et al. 2025; checked against torch.optim.Muon",
    keys: &["betas", "eps", "momentum", "muon_scale", "nesterov"],
    state_per_parameter: 1,
    build: |mut group, config| {
        let matrices = group.split_off(|name, parameter| parameter.dim() == 2 && is_hidden(name));
        let buffers = matrices.zeros();
        let muon = Orthogonal {
            group: matrices,
            // 0.95 as in Jordan et al. 2024.
            momentum: config.momentum.unwrap_or(0.95),
            is_nesterov: config.nesterov.unwrap_or(true),
            scale: config.muon_scale.unwrap_or(MuonScale::MatchRmsAdamw),
            buffers,
        };
        vec![Box::new(muon), Box::new(Moments::new(group, config, true))]
    },
};

/// Whether a matrix is inside the model: embeddings and heads look up or spread single tokens.
fn is_hidden(name: &str) -> bool {
    !["embed", "lm_head", "wpe", "wte"].iter().any(|part| name.contains(part))
}

#[derive(Debug)]
struct Orthogonal {
    group: Group,
    momentum: f64,
    is_nesterov: bool,
    scale: MuonScale,
    buffers: Vec<Tensor>,
}

impl Rule for Orthogonal {
    fn group(&self) -> &Group {
        &self.group
    }

    fn update(&mut self, gradients: &[Tensor], by: &Update<'_>) -> Result<()> {
        let lr = by.lr * self.group.lr_scale;
        let parameters = self.group.parameters.iter_mut();
        for ((parameter, buffer), gradient) in parameters.zip(&mut self.buffers).zip(gradients) {
            let gradient = super::finite(gradient, by.skip);
            let _ = buffer.lerp_tensor_(&gradient, &(by.keep * (1.0 - self.momentum)));
            let direction =
                if self.is_nesterov { gradient.lerp(buffer, self.momentum) } else { buffer.copy() };
            // A scalar tensor would leave the product in bfloat16.
            let direction = torch::orthogonal(&direction)?.to_kind(Kind::Float);
            let scaled = by.keep * (lr * self.scale.of(parameter.size()[0], parameter.size()[1]));
            *parameter *= 1.0 - by.keep * (lr * self.group.weight_decay);
            *parameter -= direction * scaled;
        }
        Ok(())
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.group.named("momentum", &self.buffers)
    }
}

impl MuonScale {
    /// What the learning rate of an `[a, b]` matrix is multiplied with.
    #[expect(clippy::cast_precision_loss, reason = "sizes of matrices")]
    fn of(self, a: i64, b: i64) -> f64 {
        match self {
            Self::Original => (a as f64 / b as f64).max(1.0).sqrt(),
            Self::MatchRmsAdamw => 0.2 * (a.max(b) as f64).sqrt(),
        }
    }
}
