//! From text to rows: words, n-grams of their characters, n-grams of words.

use super::file::{Entries, Header, LABEL_PREFIX};

/// What stands for the end of a line.
const END: &[u8] = b"</s>";
/// Factor of the hash of word n-grams in the reference.
const NGRAM_FACTOR: u64 = 116_049_371;
const EMPTY: u32 = u32::MAX;

/// Words, buckets and the lengths of n-grams.
#[derive(Debug)]
pub(super) struct Tokens {
    entries: Entries,
    n_words: usize,
    /// Open addressing by the hash of a word: twice as many places as entries at least.
    table: Vec<u32>,
    buckets: Buckets,
    word_ngrams: usize,
    min_chars: usize,
    max_chars: usize,
}

/// Which row an n-gram has.
#[derive(Debug)]
struct Buckets {
    n: u32,
    /// `2^64 / n`, rounded up: a remainder is then two multiplications (Lemire et al. 2019).
    inverse: u64,
    kept: Option<Kept>,
}

/// The buckets that were kept: a bit each, and how many bits come before each word of bits.
#[derive(Debug)]
struct Kept {
    bits: Vec<u64>,
    ranks: Vec<u32>,
    rows: Vec<u32>,
}

impl Kept {
    fn new(mut kept: Vec<(u32, u32)>, n: u32) -> Self {
        kept.sort_unstable();
        let mut bits = vec![0_u64; (n as usize).div_ceil(64)];
        for (bucket, _) in &kept {
            bits[*bucket as usize / 64] |= 1 << (bucket % 64);
        }
        let ranks = bits
            .iter()
            .scan(0, |sum, word| {
                let before = *sum;
                *sum += word.count_ones();
                Some(before)
            })
            .collect();
        Self { bits, ranks, rows: kept.into_iter().map(|(_, row)| row).collect() }
    }

    #[inline]
    fn row(&self, bucket: u32) -> Option<u32> {
        let place = bucket as usize / 64;
        let bits = self.bits[place];
        let bit = 1_u64 << (bucket % 64);
        if bits & bit == 0 {
            return None;
        }
        let rank = self.ranks[place] + (bits & (bit - 1)).count_ones();
        Some(self.rows[rank as usize])
    }
}

impl Buckets {
    fn new(n: u32, kept: Option<Vec<(u32, u32)>>) -> Self {
        let inverse = if n == 0 { 0 } else { (u64::MAX / u64::from(n)).wrapping_add(1) };
        Self { n, inverse, kept: kept.map(|kept| Kept::new(kept, n)) }
    }

    /// `hash % n`.
    #[inline]
    fn bucket(&self, hash: u32) -> u32 {
        let fraction = self.inverse.wrapping_mul(u64::from(hash));
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32")]
        let bucket = ((u128::from(fraction) * u128::from(self.n)) >> 64) as u32;
        bucket
    }

    #[inline]
    fn row(&self, bucket: u32) -> Option<u32> {
        match &self.kept {
            None => Some(bucket),
            Some(kept) => kept.row(bucket),
        }
    }
}

impl Tokens {
    pub(super) fn new(
        header: &Header,
        entries: Entries,
        n_words: usize,
        kept: Option<Vec<(u32, u32)>>,
    ) -> Self {
        let mut table = vec![EMPTY; (entries.len() * 2).next_power_of_two()];
        for index in 0..entries.len() {
            let word = entries.get(index);
            let place = find(&table, &entries, word, hash(word));
            table[place] = u32::try_from(index).expect("entries were counted in an i32");
        }
        let buckets = Buckets::new(header.buckets, kept);
        let &Header { word_ngrams, min_chars, max_chars, .. } = header;
        Self { entries, n_words, table, buckets, word_ngrams, min_chars, max_chars }
    }

    /// Calls `each` with the row of every feature of `text`, in the reference's order.
    ///
    /// Ends of lines are blanks; the end of the text is the end of a line. Labels in the text do not count.
    /// `word` and `hashes` are memory to work in.
    #[inline]
    pub(super) fn rows(
        &self,
        text: &str,
        word: &mut Vec<u8>,
        hashes: &mut Vec<u32>,
        mut each: impl FnMut(usize),
    ) {
        hashes.clear();
        let bytes = text.as_bytes();
        let mut at = 0;
        loop {
            while at < bytes.len() && is_blank(bytes[at]) {
                at += 1;
            }
            let start = at;
            let mut hash = BASIS;
            while at < bytes.len() && !is_blank(bytes[at]) {
                hash = step(hash, bytes[at]);
                at += 1;
            }
            if start == at {
                break;
            }
            if &bytes[start..at] == END {
                break;
            }
            self.add_word(&bytes[start..at], hash, word, hashes, &mut each);
        }
        self.add_word(END, hash(END), word, hashes, &mut each);
        if self.word_ngrams > 1 {
            self.add_word_ngrams(hashes, &mut each);
        }
    }

    #[inline]
    fn add_word(
        &self,
        bytes: &[u8],
        hash: u32,
        word: &mut Vec<u8>,
        hashes: &mut Vec<u32>,
        each: &mut impl FnMut(usize),
    ) {
        let found = self.table[find(&self.table, &self.entries, bytes, hash)];
        if found == EMPTY {
            if bytes.starts_with(LABEL_PREFIX.as_bytes()) {
                return;
            }
        } else if found as usize >= self.n_words {
            return;
        } else {
            each(found as usize);
        }
        if self.word_ngrams > 1 {
            hashes.push(hash);
        }
        if self.max_chars > 0 && bytes != END {
            word.clear();
            word.push(b'<');
            word.extend_from_slice(bytes);
            word.push(b'>');
            self.add_char_ngrams(word, each);
        }
    }

    /// Adds the n-grams of the characters of `word`, which stands between its marks.
    #[inline]
    fn add_char_ngrams(&self, word: &[u8], each: &mut impl FnMut(usize)) {
        for start in 0..word.len() {
            if is_continuation(word[start]) {
                continue;
            }
            let mut hash = BASIS;
            let mut at = start;
            for n in 1..=self.max_chars {
                if at == word.len() {
                    break;
                }
                hash = step(hash, word[at]);
                at += 1;
                while at < word.len() && is_continuation(word[at]) {
                    hash = step(hash, word[at]);
                    at += 1;
                }
                // A mark alone says nothing.
                if n >= self.min_chars && !(n == 1 && (start == 0 || at == word.len())) {
                    self.add_bucket(self.buckets.bucket(hash), each);
                }
            }
        }
    }

    fn add_word_ngrams(&self, hashes: &[u32], each: &mut impl FnMut(usize)) {
        // The reference keeps hashes of words in signed numbers and widens them.
        #[expect(
            clippy::cast_possible_wrap,
            clippy::cast_sign_loss,
            reason = "bits count, not numbers"
        )]
        let wide = |hash: u32| i64::from(hash as i32) as u64;
        let n_buckets = u64::from(self.buckets.n);
        for (first, &start) in hashes.iter().enumerate() {
            let mut hash = wide(start);
            for &next in hashes[first + 1..].iter().take(self.word_ngrams - 1) {
                hash = hash.wrapping_mul(NGRAM_FACTOR).wrapping_add(wide(next));
                let bucket = u32::try_from(hash % n_buckets).expect("below a u32");
                self.add_bucket(bucket, each);
            }
        }
    }

    #[inline]
    fn add_bucket(&self, bucket: u32, each: &mut impl FnMut(usize)) {
        if let Some(row) = self.buckets.row(bucket) {
            each(self.n_words + row as usize);
        }
    }
}

/// The place of `word` in the table, or the empty one where it would go.
#[inline]
fn find(table: &[u32], entries: &Entries, word: &[u8], hash: u32) -> usize {
    let mask = table.len() - 1;
    let mut place = hash as usize & mask;
    while table[place] != EMPTY && entries.get(table[place] as usize) != word {
        place = (place + 1) & mask;
    }
    place
}

/// FNV-1a with bytes widened as signed numbers, as the reference has always done.
pub(super) fn hash(word: &[u8]) -> u32 {
    word.iter().fold(BASIS, |hash, &byte| step(hash, byte))
}

const BASIS: u32 = 2_166_136_261;

#[inline]
fn step(hash: u32, byte: u8) -> u32 {
    #[expect(clippy::cast_sign_loss, reason = "bits count, not numbers")]
    let wide = i32::from(byte.cast_signed()) as u32;
    (hash ^ wide).wrapping_mul(16_777_619)
}

/// What separates words in the reference.
#[inline]
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0b | 0x0c | 0)
}

#[inline]
fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}
