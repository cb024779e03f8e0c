//! Orders that are functions of a seed: computed for one index at a time, stored nowhere.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Four rounds make a Feistel network a strong pseudorandom permutation (Luby and Rackoff 1988).
const ROUNDS: usize = 4;

/// Returns the key that puts documents in training order when shards are made: by `(key, id)`.
#[must_use]
pub fn shuffle_key(seed: u64, document_id: &[u8]) -> u64 {
    xxh3_64_with_seed(document_id, seed)
}

/// Returns a seed that depends on each of `parts`, in their order.
#[must_use]
pub fn seed_from(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |seed, part| mix(seed ^ mix(*part)))
}

/// A permutation of `0..n` that is decided by a seed.
///
/// A balanced Feistel network over the next even number of bits; values at or above `n` are sent through it
/// again until they fall below (cycle walking, Black and Rogaway 2002): fewer than four passes on average.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// Returns the permutation of `0..n` that belongs to `seed`.
    #[must_use]
    pub fn new(n: u64, seed: u64) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let mut keys = [0; ROUNDS];
        let mut state = seed;
        for key in &mut keys {
            state = state.wrapping_add(GOLDEN);
            *key = mix(state);
        }
        Self { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Returns where `i` goes.
    ///
    /// # Panics
    /// When `i` is not below `n`.
    #[must_use]
    pub fn apply(&self, i: u64) -> u64 {
        self.walk(i, |left, right| {
            self.keys.iter().fold((left, right), |(left, right), key| {
                (right, left ^ (mix(right ^ key) & self.mask()))
            })
        })
    }

    /// Returns what goes to `i`: the inverse of [`Permutation::apply`].
    ///
    /// # Panics
    /// When `i` is not below `n`.
    #[must_use]
    pub fn invert(&self, i: u64) -> u64 {
        self.walk(i, |left, right| {
            self.keys.iter().rev().fold((left, right), |(left, right), key| {
                (right ^ (mix(left ^ key) & self.mask()), left)
            })
        })
    }

    fn walk(&self, i: u64, network: impl Fn(u64, u64) -> (u64, u64)) -> u64 {
        assert!(i < self.n, "index {i} is outside a permutation of {}", self.n);
        let mut at = i;
        loop {
            let (left, right) = network(at >> self.half_bits, at & self.mask());
            at = (left << self.half_bits) | right;
            if at < self.n {
                return at;
            }
        }
    }

    fn mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }
}

/// The increment of SplitMix64: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
