//! Embeddings: read, compared, written.

use std::fmt;

/// Why a document has no embedding to compare.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It is no list of numbers; the part that is none.
    NotNumbers(String),
    /// A number is not finite: its position and value.
    NotFinite(usize, f32),
    /// It has no direction; its length.
    ZeroNorm(usize),
    /// It has another length than the first one: both.
    Length(usize, usize),
}

impl Refusal {
    /// Its name in counts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotNumbers(_) => "not_numbers",
            Self::NotFinite(..) => "not_finite",
            Self::ZeroNorm(_) => "zero_norm",
            Self::Length(..) => "other_length",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNumbers(part) => write!(f, "`{part}` is no number of a list"),
            Self::NotFinite(index, value) => write!(f, "number {index} is {value}"),
            Self::ZeroNorm(length) => write!(f, "all {length} numbers are 0"),
            Self::Length(own, first) => write!(f, "it has {own} numbers, the first one {first}"),
        }
    }
}

/// Characters of a part that is no number that are shown.
const SHOWN: usize = 20;

/// Reads a list of numbers, `[0.25, -1e-3]`; `numbers` is emptied first.
///
/// # Errors
/// When it is no such list, a number is not finite as a 32-bit float, or none differs from 0.
pub fn parse(text: &str, numbers: &mut Vec<f32>) -> Result<(), Refusal> {
    numbers.clear();
    let shown = |part: &str| Refusal::NotNumbers(part.trim().chars().take(SHOWN).collect());
    let text = text.trim();
    let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let list = list.ok_or_else(|| shown(text))?;
    for part in list.split(',') {
        numbers.push(part.trim().parse().map_err(|_| shown(part))?);
    }
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(Refusal::NotFinite(index, numbers[index])),
        None if numbers.iter().all(|number| *number == 0.0) => {
            Err(Refusal::ZeroNorm(numbers.len()))
        }
        None => Ok(()),
    }
}

/// Returns the cosine of the angle between two embeddings of one length, -1 to 1: summed up in 64 bits, in order.
///
/// # Panics
/// When their lengths differ.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths of embeddings");
    let [mut product, mut of_a, mut of_b] = [0.0_f64; 3];
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        product += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    // One root: equal embeddings give 1.
    (product / (of_a * of_b).sqrt()).clamp(-1.0, 1.0)
}

/// Appends an embedding of length 1 and the direction of `vector`, which is finite and not zero.
pub fn unit(vector: &[f32], out: &mut Vec<f32>) {
    let square: f64 = vector.iter().map(|number| f64::from(*number).powi(2)).sum();
    let scale = square.sqrt().recip();
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest, at most 1")]
    out.extend(vector.iter().map(|number| (f64::from(*number) * scale) as f32));
}

/// Sums that [`dot`] keeps apart: enough for the widest registers.
const LANES: usize = 16;

/// The product of two vectors, always summed up in the same order.
#[inline]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// A document's embedding in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector<'a> {
    /// Position in the order of preference.
    pub rank: u32,
    /// Spread evenly, and the same in every run: of the id.
    pub hash: u64,
    /// The numbers, as bytes.
    bytes: &'a [u8],
}

/// Bytes before the numbers.
const HEADER_BYTES: usize = 12;

impl<'a> Vector<'a> {
    /// Appends a document's embedding to `buffer`.
    pub fn write(rank: u32, hash: u64, numbers: &[f32], buffer: &mut Vec<u8>) {
        buffer.extend(rank.to_le_bytes());
        buffer.extend(hash.to_le_bytes());
        numbers.iter().for_each(|number| buffer.extend(number.to_le_bytes()));
    }

    /// Appends it again.
    pub fn copy(&self, buffer: &mut Vec<u8>) {
        buffer.extend(self.rank.to_le_bytes());
        buffer.extend(self.hash.to_le_bytes());
        buffer.extend(self.bytes);
    }

    /// The embeddings of `n` numbers in a block of records.
    pub fn all(bytes: &'a [u8], n: usize) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(HEADER_BYTES + 4 * n).map(|record| {
            let (rank, rest) = record.split_first_chunk().expect("records are written whole");
            let (hash, bytes) = rest.split_first_chunk().expect("records are written whole");
            Self { rank: u32::from_le_bytes(*rank), hash: u64::from_le_bytes(*hash), bytes }
        })
    }

    /// The numbers.
    pub fn numbers(&self) -> impl Iterator<Item = f32> {
        self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}
