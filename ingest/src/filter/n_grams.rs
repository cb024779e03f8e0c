//! N-grams of words, counted by their hashes: what rules about repetition share.

use super::words::Word;

/// Buffers that are kept from row to row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Characters of the words before each word.
    chars_before: Vec<u64>,
    /// Hash of each word, and what a hash is multiplied with when the word is put behind it.
    hashes: Vec<(u64, u64)>,
    /// Hash of the n-gram that begins at each word.
    n_grams: Vec<u64>,
    table: Table,
}

impl Scratch {
    pub(super) fn load(&mut self, text: &str, words: &[Word]) {
        self.chars_before.clear();
        self.hashes.clear();
        self.n_grams.clear();
        let mut n_chars = 0;
        for word in words {
            self.chars_before.push(n_chars);
            n_chars += u64::from(word.chars);
            let start = (0, 1);
            self.hashes.push(text.as_bytes()[word.range()].iter().fold(
                start,
                |(hash, power), &b| {
                    // No byte counts as 0, so that no two strings differ in leading zeros only.
                    (modulo(multiply(hash, BASE) + u64::from(b) + 1), multiply(power, BASE))
                },
            ));
        }
        self.chars_before.push(n_chars);
    }

    /// Begins again with n-grams of one word.
    pub(super) fn restart(&mut self) {
        self.n_grams.clear();
    }

    /// Characters of all words.
    pub(super) fn all_chars(&self) -> u64 {
        self.chars_before.last().copied().unwrap_or_default()
    }

    /// Makes the n-grams of `n - 1` words those of `n`; those of one word where there are none yet.
    pub(super) fn extend(&mut self, n: usize, with_spaces: bool) {
        if self.n_grams.is_empty() {
            self.n_grams.extend(self.hashes.iter().map(|(hash, _)| hash));
        }
        self.n_grams.truncate((self.hashes.len() + 1).saturating_sub(n));
        for (hash, (next, power)) in
            self.n_grams.iter_mut().zip(&self.hashes[n.min(self.hashes.len() + 1) - 1..])
        {
            if with_spaces {
                *hash = modulo(multiply(*hash, BASE) + u64::from(b' ') + 1);
            }
            *hash = modulo(multiply(*hash, *power) + next);
        }
    }

    /// Characters of the words of the n-gram that begins at `first`.
    fn chars(&self, first: usize, n: usize) -> u64 {
        self.chars_before[first + n] - self.chars_before[first]
    }

    /// Characters of the commonest n-gram, and of `n_spaces` more, times its copies; of equals the one that came first counts.
    pub(super) fn top_n_gram(&mut self, n: usize, n_spaces: u64) -> Option<u64> {
        self.table.clear(self.n_grams.len());
        for (first, &hash) in self.n_grams.iter().enumerate() {
            let entry = self.table.entry(hash, first);
            entry.count += 1;
        }
        let (count, first) = self.table.commonest()?;
        Some(count * (self.chars(first, n) + n_spaces))
    }

    /// Characters of the words of the commonest n-gram times its copies; of equals the one that came first counts, and one alone is
    /// none.
    pub(super) fn first_top_n_gram(&mut self, n: usize) -> u64 {
        self.count_n_grams();
        match self.table.commonest() {
            Some((count, first)) if count > 1 => count * self.chars(first, n),
            _ => 0,
        }
    }

    /// Characters of the words of the commonest n-gram times its copies; of equals the longest counts, and one alone is none.
    pub(super) fn longest_top_n_gram(&mut self, n: usize) -> Option<u64> {
        self.count_n_grams();
        let (count, _) = self.table.commonest()?;
        if count == 1 {
            return Some(0);
        }
        let equals = self.table.live().filter(|entry| entry.count == count);
        equals.map(|entry| count * self.chars(entry.first as usize, n)).max()
    }

    /// Characters of the words that are in some n-gram that is not alone.
    pub(super) fn repeated_words(&mut self, n: usize) -> u64 {
        self.count_n_grams();
        let (mut chars, mut at) = (0, 0);
        for first in 0..self.n_grams.len() {
            let hash = self.n_grams[first];
            if self.table.entry(hash, first).count > 1 {
                let from = at.max(first);
                chars += self.chars(from, first + n - from);
                at = first + n;
            }
        }
        chars
    }

    fn count_n_grams(&mut self) {
        self.table.clear(self.n_grams.len());
        for (first, &hash) in self.n_grams.iter().enumerate() {
            self.table.entry(hash, first).count += 1;
        }
    }

    /// Characters of n-grams that are not alone, and of all; none where there is no n-gram.
    pub(super) fn copied_n_grams(&mut self, n: usize) -> Option<(u64, u64)> {
        self.count_n_grams();
        let (mut copied, mut all) = (0, 0);
        for entry in self.table.live() {
            let chars = entry.count * self.chars(entry.first as usize, n);
            all += chars;
            copied += if entry.count > 1 { chars } else { 0 };
        }
        (all > 0).then_some((copied, all))
    }

    /// Characters of n-grams that stood before, words joined without spaces, jumping over each one that is found.
    pub(super) fn duplicate_n_grams(&mut self, n: usize) -> u64 {
        self.table.clear(self.n_grams.len());
        let (mut repeated, mut first) = (0, 0);
        while let Some(&hash) = self.n_grams.get(first) {
            let entry = self.table.entry(hash, first);
            entry.count += 1;
            if entry.count == 1 {
                first += 1;
            } else {
                repeated += self.chars(first, n);
                first += n;
            }
        }
        repeated
    }
}

/// The polynomial of the hash is evaluated here, modulo 2^61 - 1: a number without structure.
const BASE: u64 = 0x0F3A_91C4_5B7D_26E9;
const MODULUS: u64 = (1 << 61) - 1;

/// `sum` is below 2^62.
fn modulo(sum: u64) -> u64 {
    if sum >= MODULUS { sum - MODULUS } else { sum }
}

fn multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    #[expect(clippy::cast_possible_truncation, reason = "61 bits, and the 61 above them")]
    let (low, high) = (product as u64 & MODULUS, (product >> 61) as u64);
    modulo(low + high)
}

/// Counts of hashes: open addressing, emptied by moving on to the next round.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    mask: usize,
    round: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u64,
    /// Of an older round: the place is free.
    round: u32,
    first: u32,
    count: u64,
}

impl Table {
    /// Empties the table and makes room for `n` hashes.
    fn clear(&mut self, n: usize) {
        let size = (2 * n).next_power_of_two();
        if size > self.entries.len() || self.round == u32::MAX {
            self.entries = vec![Entry::default(); size.max(self.entries.len())];
            self.round = 0;
        }
        // Short texts use the first part only, which stays in the cache.
        self.mask = size - 1;
        self.round += 1;
    }

    /// Returns the entry of `hash`, a new one with count 0 where there is none.
    fn entry(&mut self, hash: u64, first: usize) -> &mut Entry {
        #[expect(clippy::cast_possible_truncation, reason = "the mask keeps fewer bits")]
        let mut place = (hash ^ (hash >> 32)) as usize & self.mask;
        while self.entries[place].round == self.round && self.entries[place].hash != hash {
            place = (place + 1) & self.mask;
        }
        let entry = &mut self.entries[place];
        if entry.round != self.round {
            let first = u32::try_from(first).expect("a text is below 4 GiB");
            *entry = Entry { hash, round: self.round, first, count: 0 };
        }
        entry
    }

    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries[..=self.mask].iter().filter(|entry| entry.round == self.round)
    }

    /// Returns the highest count and the first place of its hash; of equal counts, the one that came first.
    fn commonest(&self) -> Option<(u64, usize)> {
        let best = self.live().max_by_key(|entry| (entry.count, std::cmp::Reverse(entry.first)))?;
        Some((best.count, best.first as usize))
    }
}
