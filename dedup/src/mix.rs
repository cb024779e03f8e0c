//! Mixing of 64-bit words. Part of the format: stored signatures depend on every constant here.

use std::hash::Hasher;

/// Constants without structure: the fractional digits of π, in hexadecimal.
pub(crate) const K0: u64 = 0x243f_6a88_85a3_08d3;
pub(crate) const K1: u64 = 0x1319_8a2e_0370_7345;
pub(crate) const K2: u64 = 0xa409_3822_299f_31d1;
pub(crate) const K3: u64 = 0x082e_fa98_ec4e_6c89;

/// Multiplies to 128 bits and folds the halves together.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of the product are what is wanted")]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A bijection of 64-bit words in which every input bit moves every output bit (the finaliser of MurmurHash3).
#[inline(always)]
pub(crate) fn finalise(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// SplitMix64, the generator that turns a seed into constants.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Hashes row numbers and shingle hashes in tables: one multiplication. Affects speed only, never a result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowHasher(u64);

impl Hasher for RowHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, row: u64) {
        self.0 = fold(row ^ K0, K1);
    }

    fn write(&mut self, bytes: &[u8]) {
        unreachable!("only 64-bit keys are hashed, not {} bytes", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_published_sequence() {
        // First outputs for seed 1234567 as published with the reference implementation (Vigna, 2015).
        let mut random = SplitMix(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected, std::array::from_fn(|_| random.next()));
    }

    #[test]
    fn finalise_gives_the_published_value() {
        // MurmurHash3 fmix64: zero is a fixed point, and 1 maps to this value.
        assert_eq!(finalise(0), 0);
        assert_eq!(finalise(1), 0xb456_bcfc_34c2_cb2c);
    }
}
