//! Random numbers that depend on a seed and a name alone: not on libtorch's version, the device or the order
//! in which parameters are made.

use std::f64::consts::TAU;

/// xoshiro256++, seeded from a hash of a seed and a name.
///
/// Source: Blackman and Vigna 2021.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// Returns the stream of numbers that belongs to `name` under `seed`.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let hash = hasher.finalize();
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        // All zeros is the one state that the generator never leaves; no hash is known to be zero.
        Self { state }
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Returns a number in `[0, 1)`, with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let bits = (self.next_u64() >> 11) as f64;
        bits / 9_007_199_254_740_992.0 // 2^53
    }

    /// Returns `n` draws from a normal distribution around 0.
    ///
    /// Source: Box and Muller 1958.
    pub fn normals(&mut self, n: usize, standard_deviation: f64) -> Vec<f32> {
        let mut out = Vec::with_capacity(n + 1);
        while out.len() < n {
            // 1 - u is in (0, 1], so the logarithm is finite.
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * standard_deviation;
            let (sin, cos) = (TAU * self.uniform()).sin_cos();
            #[expect(clippy::cast_possible_truncation, reason = "weights are float32")]
            out.extend([(radius * cos) as f32, (radius * sin) as f32]);
        }
        out.truncate(n);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_generator() {
        // First outputs of xoshiro256++ from the state 1, 2, 3, 4, as in the reference C code.
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([(); 4].map(|()| random.next_u64()), expected);
    }

    #[test]
    fn draws_have_the_moments_of_a_normal_distribution() {
        let draws = Random::new(7, "moments").normals(1_000_000, 0.02);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e6;
        let moment =
            |power| draws.iter().map(|&x| (f64::from(x) / 0.02).powi(power)).sum::<f64>() / 1e6;
        // Five standard errors of a million draws.
        assert!(mean.abs() < 5.0 * 0.02 / 1e3, "{mean}");
        assert!((moment(2) - 1.0).abs() < 5.0 * 2f64.sqrt() / 1e3, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 5.0 * 96f64.sqrt() / 1e3, "{}", moment(4));
    }
}
