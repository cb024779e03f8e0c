//! The blocks of numbers in GGUF files, each with a scale of its own.
//!
//! Source: `ggml-quants.c` of ggml; checked against the Python package `gguf`.

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, non_camel_case_types, reason = "the names of ggml say it all")]
pub enum Encoding {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    BF16,
}

/// ggml's number, numbers per block, bytes per block.
const TABLE: [(Encoding, u32, usize, usize); 13] = [
    (Encoding::F32, 0, 1, 4),
    (Encoding::F16, 1, 1, 2),
    (Encoding::Q4_0, 2, 32, 18),
    (Encoding::Q4_1, 3, 32, 20),
    (Encoding::Q5_0, 6, 32, 22),
    (Encoding::Q5_1, 7, 32, 24),
    (Encoding::Q8_0, 8, 32, 34),
    (Encoding::Q2_K, 10, 256, 84),
    (Encoding::Q3_K, 11, 256, 110),
    (Encoding::Q4_K, 12, 256, 144),
    (Encoding::Q5_K, 13, 256, 176),
    (Encoding::Q6_K, 14, 256, 210),
    (Encoding::BF16, 30, 1, 2),
];

impl Encoding {
    /// The encoding that ggml gives this number, where it is read here.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    fn sizes(self) -> (usize, usize) {
        let row = TABLE.iter().find(|row| row.0 == self).expect("every encoding is listed");
        (row.2, row.3)
    }

    /// Bytes of a tensor, where its rows are whole blocks.
    #[must_use]
    pub fn n_bytes(self, shape: &[i64]) -> Option<u64> {
        let (numbers, bytes) = self.sizes();
        let n = shape.iter().try_fold(1u64, |n, &size| n.checked_mul(u64::try_from(size).ok()?))?;
        let row = u64::try_from(*shape.last()?).ok()?;
        (row % numbers as u64 == 0).then_some(())?;
        (n / numbers as u64).checked_mul(bytes as u64)
    }

    /// Writes the numbers of whole blocks to `out`, as float32 in the machine's order.
    ///
    /// # Panics
    /// When the lengths do not belong together.
    pub fn decode(self, blocks: &[u8], out: &mut [u8]) {
        let (numbers, bytes) = self.sizes();
        assert_eq!(blocks.len() / bytes * numbers * 4, out.len(), "a place for each number");
        let mut values = [0f32; 256];
        let values = &mut values[..numbers];
        for (block, out) in blocks.chunks_exact(bytes).zip(out.chunks_exact_mut(numbers * 4)) {
            self.decode_block(block, values);
            for (value, out) in values.iter().zip(out.chunks_exact_mut(4)) {
                out.copy_from_slice(&value.to_ne_bytes());
            }
        }
    }

    fn decode_block(self, b: &[u8], y: &mut [f32]) {
        match self {
            Self::F32 => y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => y[0] = half(b, 0),
            Self::BF16 => y[0] = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
            Self::Q8_0 => {
                let d = half(b, 0);
                for (y, &q) in y.iter_mut().zip(&b[2..]) {
                    *y = d * f32::from(q.cast_signed());
                }
            }
            Self::Q4_0 => nibbles(&b[2..], y, |q, _| half(b, 0) * (f32::from(q) - 8.0)),
            Self::Q4_1 => nibbles(&b[4..], y, |q, _| half(b, 0) * f32::from(q) + half(b, 2)),
            Self::Q5_0 => {
                let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                nibbles(&b[6..], y, |q, i| half(b, 0) * (fifth(q, high, i) - 16.0));
            }
            Self::Q5_1 => {
                let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
                nibbles(&b[8..], y, |q, i| half(b, 0) * fifth(q, high, i) + half(b, 2));
            }
            Self::Q2_K => q2_k(b, y),
            Self::Q3_K => q3_k(b, y),
            Self::Q4_K | Self::Q5_K => q4_or_5_k(b, y, self == Self::Q5_K),
            Self::Q6_K => q6_k(b, y),
        }
    }
}

/// The low halves of 16 bytes, then the high ones, with the index of each.
fn nibbles(q: &[u8], y: &mut [f32], value: impl Fn(u8, usize) -> f32) {
    for j in 0..16 {
        y[j] = value(q[j] & 15, j);
        y[j + 16] = value(q[j] >> 4, j + 16);
    }
}

fn fifth(q: u8, high: u32, i: usize) -> f32 {
    f32::from(q) + if high >> i & 1 == 1 { 16.0 } else { 0.0 }
}

/// Sixteen groups of 16 numbers of 2 bits, each with a scale and a minimum of 4 bits.
fn q2_k(b: &[u8], y: &mut [f32]) {
    let (scales, q) = (&b[..16], &b[16..80]);
    let (d, d_min) = (half(b, 80), half(b, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let q = two_bits(q, i);
        *y = d * f32::from(scale & 15) * f32::from(q) - d_min * f32::from(scale >> 4);
    }
}

/// Number `i` of 256 with 2 bits: four lie in a byte, 32 bytes apart from the next four times 32.
fn two_bits(q: &[u8], i: usize) -> u8 {
    q[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// As [`q2_k`] with a third bit from a mask and scales of 6 bits.
fn q3_k(b: &[u8], y: &mut [f32]) {
    let (mask, q, packed) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half(b, 108);
    for (i, y) in y.iter_mut().enumerate() {
        let group = i / 16;
        let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = f32::from(low | high << 4) - 32.0;
        let is_high = mask[i % 32] >> (i / 32) & 1 == 1;
        let q = f32::from(two_bits(q, i)) - if is_high { 0.0 } else { 4.0 };
        *y = d * scale * q;
    }
}

/// Eight groups of 32 numbers of 4 or 5 bits, each with a scale and a minimum of 6 bits.
fn q4_or_5_k(b: &[u8], y: &mut [f32], has_fifth: bool) {
    let (d, d_min, packed) = (half(b, 0), half(b, 2), &b[4..16]);
    let (high, q) = if has_fifth { (&b[16..48], &b[48..]) } else { (&b[..0], &b[16..]) };
    for (i, y) in y.iter_mut().enumerate() {
        let group = i / 32;
        let (scale, min) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            (
                packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
                packed[group + 4] >> 4 | packed[group] >> 6 << 4,
            )
        };
        let byte = q[group / 2 * 32 + i % 32];
        let mut value = f32::from(if group % 2 == 0 { byte & 15 } else { byte >> 4 });
        if has_fifth && high[i % 32] >> group & 1 == 1 {
            value += 16.0;
        }
        *y = d * f32::from(scale) * value - d_min * f32::from(min);
    }
}

/// Sixteen groups of 16 numbers of 6 bits, each with a scale of 8 bits.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half(b, 208);
    for (i, y) in y.iter_mut().enumerate() {
        let (part, j) = (i / 128, i % 128);
        let byte = low[part * 64 + j % 64];
        let low = if j < 64 { byte & 15 } else { byte >> 4 };
        let high = high[part * 32 + j % 32] >> (2 * (j / 32)) & 3;
        let q = f32::from(low | high << 4) - 32.0;
        *y = d * f32::from(scales[i / 16].cast_signed()) * q;
    }
}

/// The half-precision number at `at`.
fn half(b: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([b[at], b[at + 1]]));
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 31, bits & 1023);
    match exponent {
        31 => f32::from_bits(sign | 255 << 23 | fraction << 13),
        0 => {
            #[expect(clippy::cast_precision_loss, reason = "ten bits")]
            let small = fraction as f32 / 16_777_216.0; // 2^-24 per unit
            if sign == 0 { small } else { -small }
        }
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
