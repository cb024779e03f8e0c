//! How the learning rate moves with the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The form of the fall after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine wave from the highest to the lowest rate.
    Cosine,
    /// A straight line from the highest to the lowest rate.
    Linear,
    /// No fall.
    Constant,
}

/// Learning rates of a run: a rise over `warmup_steps`, then a fall to `min_lr` at `steps`.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Form of the fall.
    pub shape: Shape,
    /// The highest rate.
    pub lr: f64,
    /// The rate at the end.
    pub min_lr: f64,
    /// Steps of the rise.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// Returns the learning rate of the update that makes step `step` into `step + 1`.
    ///
    /// The first update has `lr / (warmup_steps + 1)`, never zero; update `warmup_steps` has `lr`.
    ///
    /// Source: the rule of nanoGPT.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
        let [step_f64, warmup, steps] = [step, self.warmup_steps, self.steps].map(|n| n as f64);
        if step < self.warmup_steps {
            return self.lr * (step_f64 + 1.0) / (warmup + 1.0);
        }
        let progress = ((step_f64 - warmup) / (steps - warmup).max(1.0)).min(1.0);
        let share = match self.shape {
            Shape::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Shape::Linear => 1.0 - progress,
            Shape::Constant => return self.lr,
        };
        self.min_lr + share * (self.lr - self.min_lr)
    }
}
