//! MurmurHash3 (Appleby 2011), in the two variants that cuDF hashes text with.

use crate::mix::finalise;

/// MurmurHash3_x86_32.
pub(crate) fn murmur3_32(bytes: &[u8], seed: u32) -> u32 {
    let mix = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = words.iter().fold(seed, |hash, word| {
        let hash = (hash ^ mix(u32::from_le_bytes(*word))).rotate_left(13);
        hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    hash ^= mix(u32::from_le_bytes(tail));
    hash ^= low_half(bytes.len() as u64);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The first half of MurmurHash3_x64_128, with a seed of 64 bits for both halves of its state.
pub(crate) fn murmur3_64(bytes: &[u8], seed: u64) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |word: u64| word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |word: u64| word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let halves = |block: &[u8; 16]| {
        let both = u128::from_le_bytes(*block);
        let high = u64::try_from(both >> 64).expect("64 bits are left");
        (u64::try_from(both & u128::from(u64::MAX)).expect("64 bits are left"), high)
    };
    let (mut h1, mut h2) = (seed, seed);
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(block);
        h1 = (h1 ^ mix1(k1)).rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(k2)).rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut tail = [0; 16];
    tail[..rest.len()].copy_from_slice(rest);
    let (k1, k2) = halves(&tail);
    h2 ^= mix2(k2) ^ bytes.len() as u64;
    h1 ^= mix1(k1) ^ bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finalise(h1).wrapping_add(finalise(h2))
}

fn low_half(x: u64) -> u32 {
    u32::try_from(x & u64::from(u32::MAX)).expect("32 bits are left")
}
