//! Losses and gradient norms that are too far from the last ones to learn from.

use std::collections::VecDeque;

/// Steps that the mean and deviation are taken over.
///
/// Source: OLMo-core's `SkipStepOptimizer` (Allen Institute for AI, 2025), as is the rule.
pub const WINDOW: usize = 128;

/// Remembers loss and gradient norm of the last steps that were made.
#[derive(Clone, Debug)]
pub struct Spikes {
    sigmas: f64,
    recent: VecDeque<[f64; 2]>,
}

impl Spikes {
    /// Remembers nothing yet, or what [`Spikes::bits`] gave; `sigmas` of 0 allows everything.
    #[must_use]
    pub fn new(sigmas: f64, bits: &[[u64; 2]]) -> Self {
        let recent = bits.iter().map(|pair| pair.map(f64::from_bits)).collect();
        Self { sigmas, recent }
    }

    /// The highest loss and gradient norm of the next step: `sigmas` standard deviations above the mean of the last
    /// [`WINDOW`] steps, once half of them are known.
    #[must_use]
    pub fn limits(&self) -> [f64; 2] {
        if self.sigmas <= 0.0 || self.recent.len() < WINDOW / 2 {
            return [f64::INFINITY; 2];
        }
        #[expect(clippy::cast_precision_loss, reason = "a window of 128")]
        let n = self.recent.len() as f64;
        [0, 1].map(|i| {
            let mean = self.recent.iter().map(|pair| pair[i]).sum::<f64>() / n;
            let squares = self.recent.iter().map(|pair| (pair[i] - mean).powi(2)).sum::<f64>();
            mean + self.sigmas * (squares / (n - 1.0)).sqrt()
        })
    }

    /// Takes in a step that was made.
    pub fn add(&mut self, loss: f64, grad_norm: f64) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back([loss, grad_norm]);
    }

    /// What is remembered, bit for bit: a limit must be the same after a restart.
    #[must_use]
    pub fn bits(&self) -> Vec<[u64; 2]> {
        self.recent.iter().map(|pair| pair.map(f64::to_bits)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_deviations_above_the_mean_of_the_last_steps() {
        let mut spikes = Spikes::new(6.0, &[]);
        for i in 0..WINDOW / 2 {
            assert_eq!(spikes.limits(), [f64::INFINITY; 2]);
            spikes.add(if i % 2 == 0 { 1.0 } else { 3.0 }, 5.0);
        }
        // By hand: 64 values around 2 at a distance of 1; variance 64 / 63.
        let [loss, norm] = spikes.limits();
        assert!((loss - (2.0 + 6.0 * (64f64 / 63.0).sqrt())).abs() < 1e-12, "{loss}");
        assert_eq!(norm, 5.0);
        for _ in 0..WINDOW {
            spikes.add(7.0, 1.0);
        }
        assert_eq!(spikes.limits(), [7.0, 1.0], "older steps are forgotten");
        assert_eq!(Spikes::new(6.0, &spikes.bits()).limits(), spikes.limits());
        assert_eq!(Spikes::new(0.0, &spikes.bits()).limits(), [f64::INFINITY; 2]);
    }
}
