//! MinHash signatures and their bands: which texts are similar enough to be looked at.
//!
//! ```
//! use arrow::array::{Array, StringViewArray};
//! use dedup::{MinHash, minhash};
//!
//! let minhash = MinHash::new(minhash::Config::default())?;
//! let texts = StringViewArray::from(vec!["the same words in another order?", "The same words, in another order!"]);
//! let signatures = minhash.signatures(&texts);
//! assert_eq!(signatures.value(0).as_ref(), signatures.value(1).as_ref());
//! # Ok::<(), dedup::Error>(())
//! ```

mod config;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, StringViewArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, UInt64Type};

pub use self::config::{Config, Profile, Unit};
use crate::datatrove::{self, Datatrove};
use crate::mix::{K2, K3, SplitMix, fold};
use crate::nemo::Nemo;
use crate::shingle::Shingler;
use crate::text_dedup::TextDedup;
use crate::{Error, MethodKind, Result};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const KIND: MethodKind = MethodKind {
    name: "minhash",
    summary: "documents whose word shingles are mostly the same, verified by their exact Jaccard index",
    source: "Broder 1997; bands as in Lee et al. 2021",
    finds: crate::Finds::Documents,
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("minhash", table)?.check(),
};

/// Gives the words of a text that [`datatrove::simplify`] has simplified.
pub type SplitWords = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// Signatures, bands and shingle sets of texts for one [`Config`].
#[derive(Clone)]
pub struct MinHash {
    config: Config,
    family: Family,
}

/// The signatures of a batch of texts.
#[derive(Clone, Debug)]
pub struct Signed {
    /// See [`MinHash::signatures`].
    pub signatures: ListArray,
    /// Texts that are shorter than a shingle: they meet texts of the same words and no others.
    pub n_short: u64,
}

#[derive(Clone)]
enum Family {
    Gristmill(Lanes),
    Wide(WideLanes),
    Datatrove(Datatrove, SplitWords),
    Nemo(Nemo),
    TextDedup(TextDedup),
}

impl fmt::Debug for MinHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MinHash").field("config", &self.config).finish_non_exhaustive()
    }
}

impl MinHash {
    /// Makes the hash functions of `config`.
    ///
    /// # Errors
    /// See [`Config::check`]; and for profile `datatrove`, which needs [`Self::with_words`].
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        let family = match config.profile {
            Profile::Datatrove => {
                return Err(Error::Config {
                    method: "minhash",
                    message: "profile `datatrove` needs the words of its tokenizer".to_owned(),
                    hint: "build it with a word tokenizer equal to spaCy's".to_owned(),
                });
            }
            Profile::Gristmill if config.bits == 64 => {
                Family::Wide(WideLanes::new(config.n_hashes(), config.seed))
            }
            Profile::Gristmill => Family::Gristmill(Lanes::new(config.n_hashes(), config.seed)),
            Profile::Nemo => Family::Nemo(Nemo::new(&config)?),
            Profile::TextDedup => Family::TextDedup(TextDedup::new(&config)?),
        };
        Ok(Self { config, family })
    }

    /// Makes the hash functions of datatrove, over the words that `words` finds in a simplified text (spaCy's, to equal it).
    ///
    /// # Errors
    /// See [`Config::check`]; and for a seed beyond 32 bits, which numpy refuses.
    pub fn with_words(config: Config, words: SplitWords) -> Result<Self> {
        config.check()?;
        let family = Family::Datatrove(Datatrove::new(&config)?, words);
        Ok(Self { config, family })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the signature of each text: `List<UInt64>` with `bands * rows` values, the rows of a band side by side.
    ///
    /// A text without words has an empty list, and a null stays null: neither meets another document.
    /// Deterministic for a seed, on every processor; O(words · hashes).
    #[must_use]
    pub fn signatures(&self, texts: &StringViewArray) -> ListArray {
        self.sign(texts).signatures
    }

    /// Returns [`Self::signatures`], and how many of the texts are shorter than a shingle.
    #[must_use]
    pub fn sign(&self, texts: &StringViewArray) -> Signed {
        let mut shingler = self.shingler();
        let mut shingles = Vec::new();
        let mut minima = Vec::new();
        let mut n_short = 0;
        let ngram = self.config.ngram;
        let signatures = lists(texts.iter(), self.config.n_hashes(), |text, values| {
            let is_short = match &self.family {
                Family::Gristmill(lanes) => {
                    shingler.shingles(text, &mut shingles);
                    if !shingles.is_empty() {
                        lanes.minima(&shingles, &mut minima);
                        values.extend(minima.iter().map(|&minimum| u64::from(minimum)));
                    }
                    shingler.is_short()
                }
                Family::Wide(lanes) => {
                    shingler.shingles(text, &mut shingles);
                    lanes.minima(&shingles, values);
                    shingler.is_short()
                }
                Family::Datatrove(datatrove, words) => {
                    let words = words(&datatrove::simplify(text));
                    datatrove.shingles(&words, &mut shingles);
                    datatrove.signature(&shingles, values);
                    words.len() < ngram
                }
                Family::Nemo(nemo) => {
                    nemo.signature(text, values);
                    text.chars().take(ngram).count() < ngram
                }
                Family::TextDedup(text_dedup) => {
                    text_dedup.signature(text, values);
                    text_dedup.is_short(text)
                }
            };
            n_short += u64::from(is_short);
        });
        Signed { signatures, n_short }
    }

    /// Returns the keys of each signature's bands: `List<UInt64>` with `bands` values, or as empty or null as the signature.
    ///
    /// The number of the band is part of the key, so documents that share a key share a bucket, whichever list it stands in.
    ///
    /// # Errors
    /// [`Error::Column`] for lists of another type or length than [`Self::signatures`] makes.
    pub fn band_keys(&self, signatures: &ListArray) -> Result<ListArray> {
        let column = |why: String| Error::Column { name: "signature", why };
        let values = signatures.values().as_primitive_opt::<UInt64Type>().ok_or_else(|| {
            column(format!("holds {}, signatures are UInt64", signatures.value_type()))
        })?;
        let values = values.values();
        let offsets = signatures.value_offsets();
        let n_hashes = self.config.n_hashes();
        for row in (0..signatures.len()).filter(|&row| signatures.is_valid(row)) {
            let n = offsets[row + 1] - offsets[row];
            if n != 0 && usize::try_from(n) != Ok(n_hashes) {
                return Err(column(format!(
                    "has {n} hashes in row {row}, {} bands of {} rows make {n_hashes}",
                    self.config.bands, self.config.rows
                )));
            }
        }
        let slices = (0..signatures.len()).map(|row| {
            signatures
                .is_valid(row)
                .then(|| &values[offset(offsets[row])..offset(offsets[row + 1])])
        });
        Ok(lists(slices, self.config.bands, |signature: &[u64], keys| {
            keys.extend(signature.chunks_exact(self.config.rows).zip(1u64..).map(
                |(rows, band)| {
                    let seed = K3.wrapping_mul(2 * band + 1);
                    rows.iter().fold(seed, |key, &row| fold(key ^ row, K2).wrapping_add(seed))
                },
            ));
        }))
    }

    /// Returns the sorted set of shingle hashes of a text, for [`crate::jaccard`] and [`crate::Verifier`].
    #[must_use]
    pub fn shingle_hashes(&self, text: &str) -> Vec<u64> {
        let mut shingler = self.shingler();
        let mut set = Vec::new();
        self.shingle_set(&mut shingler, text, &mut set);
        set
    }

    /// Returns [`Self::shingle_hashes`] of each text as `List<UInt64>`; a null stays null.
    #[must_use]
    pub fn shingle_sets(&self, texts: &StringViewArray) -> ListArray {
        let mut shingler = self.shingler();
        let mut set = Vec::new();
        lists(texts.iter(), 0, |text, values| {
            self.shingle_set(&mut shingler, text, &mut set);
            values.extend_from_slice(&set);
        })
    }

    fn shingler(&self) -> Shingler {
        match self.config.shingle {
            Unit::Words => Shingler::new(self.config.ngram),
            Unit::Chars => Shingler::of_characters(self.config.ngram),
        }
    }

    fn shingle_set(&self, shingler: &mut Shingler, text: &str, set: &mut Vec<u64>) {
        match &self.family {
            Family::Gristmill(_) | Family::Wide(_) => shingler.shingles(text, set),
            Family::Datatrove(datatrove, words) => {
                datatrove.shingles(&words(&datatrove::simplify(text)), set);
            }
            // Their hashes have 32 bits: too few to tell the shingles of a long text apart.
            Family::Nemo(nemo) => {
                set.clear();
                nemo.shingles(text, |shingle| set.push(xxh3_64(shingle.as_bytes())));
            }
            Family::TextDedup(text_dedup) => {
                set.clear();
                text_dedup.shingles(text, |shingle| set.push(xxh3_64(shingle.as_bytes())));
            }
        }
        set.sort_unstable();
        set.dedup();
    }
}

/// Returns the share of equal hashes of two signatures, an unbiased estimate of the Jaccard index.
///
/// Its standard error is √(J(1−J)/n). Signatures of different lengths, or empty, have nothing in common: 0.
#[must_use]
pub fn estimate(a: &[u64], b: &[u64]) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return 0.0;
    }
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Builds a list per item, null for none, with room for `n_each` values in every list.
fn lists<T>(
    items: impl ExactSizeIterator<Item = Option<T>>,
    n_each: usize,
    mut append: impl FnMut(T, &mut Vec<u64>),
) -> ListArray {
    let mut values = Vec::with_capacity(items.len() * n_each);
    let mut lengths = Vec::with_capacity(items.len());
    let mut valid = Vec::with_capacity(items.len());
    for item in items {
        let before = values.len();
        valid.push(item.is_some());
        if let Some(item) = item {
            append(item, &mut values);
        }
        lengths.push(values.len() - before);
    }
    ListArray::new(
        Arc::new(Field::new_list_field(DataType::UInt64, false)),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(UInt64Array::from(values)),
        Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0),
    )
}

fn offset(offset: i32) -> usize {
    usize::try_from(offset).expect("list offsets are not negative")
}

/// Lanes that are computed together: one AVX-512 register, two of AVX2, four of SSE.
const WIDTH: usize = 16;

/// The permutations x → a·x + b mod 2³², `a` odd, side by side in blocks of [`WIDTH`].
///
/// Shingle hashes are well mixed, so each permutation, being a bijection, orders them uniformly; different odd factors order
/// them independently. 32 bits are enough: among the shingles of two documents of 10⁵ words, one or two pairs agree by accident.
#[derive(Clone)]
struct Lanes {
    n_hashes: usize,
    blocks: Vec<LaneBlock>,
}

#[derive(Clone)]
struct LaneBlock {
    factors: [u32; WIDTH],
    terms: [u32; WIDTH],
}

impl Lanes {
    fn new(n_hashes: usize, seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let blocks = (0..n_hashes.div_ceil(WIDTH))
            .map(|_| LaneBlock {
                factors: std::array::from_fn(|_| high_half(random.next()) | 1),
                terms: std::array::from_fn(|_| high_half(random.next())),
            })
            .collect();
        Self { n_hashes, blocks }
    }

    /// Replaces `minima` by the least value of each permutation over `shingles`.
    fn minima(&self, shingles: &[u64], minima: &mut Vec<u32>) {
        let narrow: Vec<u32> = shingles.iter().map(|&shingle| high_half(shingle)).collect();
        minima.clear();
        minima.resize(self.blocks.len() * WIDTH, u32::MAX);
        // Picks the widest vector instructions of this processor; the result is the same on all.
        pulp::Arch::new().dispatch(|| self.lower(&narrow, minima));
        minima.truncate(self.n_hashes);
    }

    /// Keeps a block of minima in registers while all shingles pass by.
    #[inline(always)]
    fn lower(&self, shingles: &[u32], minima: &mut [u32]) {
        for (block, slot) in self.blocks.iter().zip(minima.chunks_exact_mut(WIDTH)) {
            let mut least = [u32::MAX; WIDTH];
            for &shingle in shingles {
                let lanes = least.iter_mut().zip(&block.factors).zip(&block.terms);
                for ((least, &factor), &term) in lanes {
                    *least = (*least).min(shingle.wrapping_mul(factor).wrapping_add(term));
                }
            }
            slot.copy_from_slice(&least);
        }
    }
}

/// The permutations x → a·x + b mod 2⁶⁴, `a` odd: for `bits = 64`.
#[derive(Clone)]
struct WideLanes(Vec<(u64, u64)>);

impl WideLanes {
    fn new(n_hashes: usize, seed: u64) -> Self {
        let mut random = SplitMix(seed);
        Self((0..n_hashes).map(|_| (random.next() | 1, random.next())).collect())
    }

    /// Appends the least value of each permutation over `shingles`; nothing when there are none.
    fn minima(&self, shingles: &[u64], minima: &mut Vec<u64>) {
        if shingles.is_empty() {
            return;
        }
        minima.extend(self.0.iter().map(|&(factor, term)| {
            let permuted = |shingle: &u64| shingle.wrapping_mul(factor).wrapping_add(term);
            shingles.iter().map(permuted).min().expect("there is a shingle")
        }));
    }
}

fn high_half(x: u64) -> u32 {
    u32::try_from(x >> 32).expect("32 bits are left")
}

#[cfg(test)]
pub(crate) mod tests;
