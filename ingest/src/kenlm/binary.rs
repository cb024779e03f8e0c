//! The binary file of KenLM's hash tables, `build_binary probing`, which is also what CCNet's models are.

use super::{
    LONGEST_BYTES, MAX_ORDER, MIDDLE_BYTES, Model, Table, UNIGRAM_BYTES, UNKNOWN, VOCABULARY_BYTES,
    f32_at, u32_at, u64_at,
};

/// What every version begins with.
pub(super) const FAMILY: &[u8] = b"mmap lm http://kheafield.com/code";
/// What the version that is read begins with, filled up with zeros to eight bytes.
pub(super) const MAGIC: &[u8; 56] =
    b"mmap lm http://kheafield.com/code format version 5\n\0\0\0\0\0";
/// Behind the magic bytes: 0, 1 and -0.5, 1 and the largest number of four bytes, nothing, and 1 in eight bytes.
const SANITY: [u8; 32] = [
    0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1,
    0, 0, 0, 0, 0, 0, 0,
];
/// Where the order, the share of empty places, the kind, and the counts lie.
const ORDER: usize = MAGIC.len() + SANITY.len();
const COUNTS: usize = ORDER + 20;
const KINDS: [&str; 6] = [
    "hash tables",
    "hash tables with rest costs",
    "a trie",
    "a quantised trie",
    "a trie with compressed pointers",
    "a quantised trie with compressed pointers",
];

pub(super) fn read(bytes: Vec<u8>) -> Result<Model, String> {
    if !bytes.starts_with(MAGIC) {
        let line = bytes[FAMILY.len()..].split(|&byte| byte == b'\n').next().unwrap_or_default();
        return Err(format!(
            "it is `{}`, `format version 5` is understood",
            String::from_utf8_lossy(&line[..line.len().min(40)]).trim()
        ));
    }
    let needs = |n: usize| match bytes.len() < n {
        true => Err(format!("it has {} bytes, its header says at least {n}", bytes.len())),
        false => Ok(()),
    };
    needs(COUNTS)?;
    if bytes[MAGIC.len()..ORDER] != SANITY {
        return Err("it was written on a machine of another kind".to_owned());
    }
    let order = usize::from(bytes[ORDER]);
    if !(2..=MAX_ORDER).contains(&order) {
        return Err(format!("its order is {order}, allowed is 2 to {MAX_ORDER}"));
    }
    let multiplier = f32_at(&bytes, ORDER + 4);
    if !(1.0..=1e4).contains(&multiplier) {
        return Err(format!("its share of empty places is {multiplier}, allowed is 1 to 10000"));
    }
    let kind = u32_at(&bytes, ORDER + 8);
    if kind != 0 {
        let kind = KINDS.get(kind as usize).copied().unwrap_or("of an unknown kind");
        return Err(format!("it is {kind}, {} are understood", KINDS[0]));
    }
    needs(COUNTS + 8 * order)?;
    let counts: Vec<u64> = (0..order).map(|n| u64_at(&bytes, COUNTS + 8 * n)).collect();
    // No n-gram takes less than eight bytes: beyond this, sizes could not be added.
    if let Some(count) = counts.iter().find(|&&count| count > bytes.len() as u64 / 8) {
        return Err(format!("it has {} bytes, its header says {count} n-grams", bytes.len()));
    }
    let mut layout = Layout { at: (COUNTS + 8 * order).next_multiple_of(8), multiplier };
    layout.at += 8;
    let vocabulary = layout.table(counts[0], VOCABULARY_BYTES);
    let unigrams = layout.at;
    let n_words = usize::try_from(counts[0]).expect("below the length of the file") + 1;
    layout.at += n_words * UNIGRAM_BYTES;
    let middle =
        counts[1..order - 1].iter().map(|&count| layout.table(count, MIDDLE_BYTES)).collect();
    let longest = layout.table(counts[order - 1], LONGEST_BYTES);
    needs(layout.at)?;
    for bucket in 0..vocabulary.buckets {
        let at = vocabulary.start + usize::try_from(bucket).expect("checked") * VOCABULARY_BYTES;
        let word = u32_at(&bytes, at + 8);
        if u64_at(&bytes, at) != 0 && word as usize >= n_words {
            return Err(format!("it has a word of the number {word}, there are {n_words}"));
        }
    }
    let mut model = Model { bytes, vocabulary, unigrams, middle, longest, begin: 0, end: 0 };
    model.find_marks()?;
    Ok(model)
}

/// Says where tables lie behind each other.
pub(super) struct Layout {
    pub at: usize,
    pub multiplier: f32,
}

impl Layout {
    /// Returns the next table, as large as KenLM makes it for `count` entries.
    pub(super) fn table(&mut self, count: u64, entry_bytes: usize) -> Table {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "the reference multiplies as a float of 32 bits and cuts"
        )]
        let wanted = (self.multiplier * count as f32) as u64;
        let table = Table { start: self.at, buckets: wanted.max(count + 1), entry_bytes };
        self.at +=
            usize::try_from(table.buckets).expect("a count and a share were checked") * entry_bytes;
        table
    }
}

impl Model {
    /// Looks up the beginning and the end of a sentence.
    pub(super) fn find_marks(&mut self) -> Result<(), String> {
        (self.begin, self.end) = (self.word(b"<s>"), self.word(b"</s>"));
        match (self.begin, self.end) {
            (UNKNOWN, _) => Err("it has no word `<s>`".to_owned()),
            (_, UNKNOWN) => Err("it has no word `</s>`".to_owned()),
            _ => Ok(()),
        }
    }
}
