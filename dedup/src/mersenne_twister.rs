//! The generator of numpy's legacy random numbers, which draws the permutations of others' signatures.

/// 2⁶¹ − 1, by which others reduce their permutations.
pub(crate) const MERSENNE_PRIME: u64 = (1 << 61) - 1;

/// MT19937 (Matsumoto and Nishimura 1998) with numpy's bounded integers: mask, then reject.
pub(crate) struct MersenneTwister {
    state: [u32; 624],
    next: usize,
}

impl MersenneTwister {
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624u32 {
            let at = i as usize;
            let before: u32 = state[at - 1];
            state[at] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i);
        }
        Self { state, next: 624 }
    }

    /// A number from `low` up to and without `end`.
    pub(crate) fn below(&mut self, low: u64, end: u64) -> u64 {
        let range = end - 1 - low;
        let mask = u64::MAX >> range.leading_zeros();
        loop {
            let high = u64::from(self.word());
            let value = ((high << 32) | u64::from(self.word())) & mask;
            if value <= range {
                return low + value;
            }
        }
    }

    /// A number from `low` up to and without `end`, from one word where [`Self::below`] takes two.
    pub(crate) fn below_32(&mut self, low: u32, end: u32) -> u32 {
        let range = end - 1 - low;
        let mask = u32::MAX >> range.leading_zeros();
        loop {
            let value = self.word() & mask;
            if value <= range {
                return low + value;
            }
        }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
}
