//! How the learning rate moves with the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The form of the fall after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// No fall.
    Constant,
    /// Half a cosine wave from the highest to the lowest rate.
    Cosine,
    /// `lr · sqrt(warmup_steps / step)`, without regard to the run's length (Vaswani et al. 2017).
    InverseSqrt,
    /// A straight line from the highest to the lowest rate.
    Linear,
    /// `(1 - progress)^power` of the way from the lowest to the highest rate.
    Polynomial,
    /// Warm-up, stable, decay: the highest rate until `decay_steps` before the end, then a fall (Hu et al. 2024).
    Wsd,
}

/// The form of the fall at the end of [`Shape::Wsd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine wave.
    Cosine,
    /// A straight line.
    #[default]
    Linear,
    /// `1 - sqrt(progress)` (Hägele et al. 2024).
    OneMinusSqrt,
}

/// Learning rates of a run: a rise over `warmup_steps`, then a fall to `min_lr` at `steps`.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Form of the fall.
    pub shape: Shape,
    /// The highest rate.
    pub lr: f64,
    /// The rate at the end; [`Shape::Constant`] and [`Shape::InverseSqrt`] have none.
    pub min_lr: f64,
    /// Steps of the rise.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Steps of the fall of [`Shape::Wsd`].
    pub decay_steps: u64,
    /// Form of the fall of [`Shape::Wsd`].
    pub decay: Decay,
    /// Exponent of [`Shape::Polynomial`].
    pub power: f64,
}

impl Schedule {
    /// Returns the learning rate of the update that makes step `step` into `step + 1`.
    ///
    /// The first update has `lr / (warmup_steps + 1)`, never zero; update `warmup_steps` has `lr`.
    ///
    /// Source: the rise as in nanoGPT, the falls as in `transformers.get_scheduler`.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
        let [step_f64, warmup, steps, decay_steps] =
            [step, self.warmup_steps, self.steps, self.decay_steps].map(|n| n as f64);
        if step < self.warmup_steps {
            return self.lr * (step_f64 + 1.0) / (warmup + 1.0);
        }
        let progress = ((step_f64 - warmup) / (steps - warmup).max(1.0)).min(1.0);
        let share = match self.shape {
            Shape::Constant => return self.lr,
            Shape::Cosine => cosine(progress),
            Shape::InverseSqrt => {
                let rise = warmup.max(1.0);
                return self.lr * (rise / step_f64.max(rise)).sqrt();
            }
            Shape::Linear => 1.0 - progress,
            Shape::Polynomial => (1.0 - progress).powf(self.power),
            Shape::Wsd => {
                let first = (steps - decay_steps).max(warmup);
                let progress = ((step_f64 - first) / (steps - first).max(1.0)).clamp(0.0, 1.0);
                match self.decay {
                    Decay::Cosine => cosine(progress),
                    Decay::Linear => 1.0 - progress,
                    Decay::OneMinusSqrt => 1.0 - progress.sqrt(),
                }
            }
        };
        self.min_lr + share * (self.lr - self.min_lr)
    }
}

/// Falls from 1 to 0.
fn cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}
