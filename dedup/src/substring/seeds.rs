//! Which seeds are worth comparing windows for.

use super::record::Run;
use crate::mix::finalise;

/// Which seeds come at least twice: two bits for each of many slots. Seeds that share a slot count as repeated, which costs
/// time and changes nothing.
pub(super) struct Seeds {
    once: Vec<u64>,
    twice: Vec<u64>,
    mask: u64,
}

/// Bytes of a run, at least: one slot for each.
const RUN_BYTES: u64 = 32;
/// Slots for each run, so that few of them meet by accident.
const SLOTS_PER_RUN: u64 = 8;

impl Seeds {
    pub(super) fn new(run_bytes: u64, bytes: u64) -> Self {
        let allowed = (bytes * 4 + 1).next_power_of_two() / 2;
        let n_slots = (run_bytes / RUN_BYTES * SLOTS_PER_RUN + 1).next_power_of_two();
        let n_slots = n_slots.min(allowed).max(1 << 10);
        let words = usize::try_from(n_slots / 64).expect("memory is addressed by it");
        Self { once: vec![0; words], twice: vec![0; words], mask: n_slots - 1 }
    }

    pub(super) fn add(&mut self, run: &Run<'_>) {
        let (word, bit) = self.slot(run.seed);
        let before = if run.is_repeated { bit } else { self.once[word] & bit };
        self.twice[word] |= before;
        self.once[word] |= bit;
    }

    pub(super) fn is_repeated(&self, seed: u64) -> bool {
        let (word, bit) = self.slot(seed);
        self.twice[word] & bit != 0
    }

    /// The high bits of a seed are those of its partition, and small: others are taken.
    fn slot(&self, seed: u64) -> (usize, u64) {
        let slot = finalise(seed) & self.mask;
        (usize::try_from(slot / 64).expect("memory is addressed by it"), 1 << (slot % 64))
    }
}
