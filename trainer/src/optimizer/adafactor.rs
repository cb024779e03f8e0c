//! Adam's second moments as the product of a row and a column, and no first ones: little memory.

use tch::{Kind, Tensor};

use super::{Group, OptimizerKind, Rule, Update};
use crate::error::Result;

pub(super) const KIND: OptimizerKind = OptimizerKind {
    name: "adafactor",
    summary: "second moments from rows and columns, steps relative to the weights: hardly any memory",
    source: "Shazeer and Stern 2018; checked against torch.optim.Adafactor",
    keys: &[],
    state_per_parameter: 0,
    build: |group, _| {
        let moments = group.parameters.iter().map(Moment::new).collect();
        vec![Box::new(Factored { group, moments })]
    },
};

/// How fast the memory of squared gradients fades: `1 - step^-0.8`. Shazeer and Stern 2018, section 7.2.
const DECAY: f64 = -0.8;
/// Weights whose root mean square is below this move as if it were this. Ibid., section 8.
const RMS_MIN: f64 = 1e-3;
/// The root mean square of an update at most, before it is scaled. Ibid., section 6.
const UPDATE_RMS_MAX: f64 = 1.0;

#[derive(Debug)]
struct Factored {
    group: Group,
    moments: Vec<Moment>,
}

/// Mean squared gradients of one parameter.
#[derive(Debug)]
enum Moment {
    /// Of each row and of each column of a matrix.
    Factors { row: Tensor, column: Tensor },
    /// Of each number of a vector.
    Whole(Tensor),
}

impl Moment {
    fn new(parameter: &Tensor) -> Self {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, parameter.device()));
        let size = parameter.size();
        let Some(n) = size.len().checked_sub(2) else { return Self::Whole(zeros(&size)) };
        let mut row = size.clone();
        row[n + 1] = 1;
        let mut column = size;
        column[n] = 1;
        Self::Factors { row: zeros(&row), column: zeros(&column) }
    }

    /// Takes in a gradient with the weight `share`; returns the estimate for each number of the parameter.
    fn estimate(&mut self, gradient: &Tensor, share: &Tensor) -> Tensor {
        let square = gradient * gradient;
        match self {
            Self::Whole(whole) => {
                let _ = whole.lerp_tensor_(&square, share);
                whole.copy()
            }
            Self::Factors { row, column } => {
                let mean = |dim: i64| square.mean_dim(dim, true, Kind::Float);
                let _ = row.lerp_tensor_(&mean(-1), share);
                let _ = column.lerp_tensor_(&mean(-2), share);
                let all = row.mean_dim(-2, true, Kind::Float).clamp_min(f64::from(f32::EPSILON));
                row.matmul(column) / all
            }
        }
    }
}

impl Rule for Factored {
    fn group(&self) -> &Group {
        &self.group
    }

    fn update(&mut self, gradients: &[Tensor], by: &Update<'_>) -> Result<()> {
        let lr = by.lr * self.group.lr_scale;
        let share = by.step.clamp_min(1.0).pow_tensor_scalar(DECAY) * by.keep;
        let rho = by.step.clamp_min(1.0).rsqrt().clamp_max(lr);
        let eps = f64::from(f32::EPSILON);
        let parameters = self.group.parameters.iter_mut();
        for ((parameter, moment), gradient) in parameters.zip(&mut self.moments).zip(gradients) {
            let gradient = super::finite(gradient, by.skip);
            let alpha = rms(parameter).clamp_min(RMS_MIN) * &rho;
            *parameter *= 1.0 - by.keep * (lr * self.group.weight_decay);
            let update =
                moment.estimate(&gradient, &share).clamp_min(eps * eps).rsqrt() * &gradient;
            let denominator = (rms(&update) / UPDATE_RMS_MAX).clamp_min(1.0);
            *parameter -= update * (by.keep * alpha / denominator);
        }
        Ok(())
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let named = self.group.names.iter().zip(&self.moments).flat_map(|(name, moment)| {
            let name = |part: &str| format!("{part}.{name}");
            match moment {
                Moment::Whole(whole) => vec![(name("variance"), whole.shallow_clone())],
                Moment::Factors { row, column } => vec![
                    (name("row_var"), row.shallow_clone()),
                    (name("col_var"), column.shallow_clone()),
                ],
            }
        });
        named.collect()
    }
}

/// Root of the mean square.
#[expect(clippy::cast_precision_loss, reason = "sizes of parameters")]
fn rms(tensor: &Tensor) -> Tensor {
    tensor.norm() / (tensor.numel() as f64).sqrt()
}
