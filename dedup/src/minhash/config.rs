//! Settings of the near-duplicate search, and what they find.

use serde::{Deserialize, Serialize};

use crate::text_dedup::optimal_bands;
use crate::{Error, Result};

/// Settings of the near-duplicate search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
pub struct Config {
    /// Words or characters in a shingle, 1 to 1,000; unless it is given 5, and 24 for `nemo`.
    pub ngram: usize,
    /// What a shingle is made of: words, and characters for `nemo`, unless it is given.
    pub shingle: Unit,
    /// Slices of a signature; two documents that agree in one of them are candidates. Solved from `verify` unless it is given.
    pub bands: usize,
    /// Hashes in a band. More rows ask for more similarity, more bands find more. Solved from `verify` unless it is given.
    pub rows: usize,
    /// Permutations that are drawn, of which a signature takes the first `bands` x `rows`: as many, unless it is given.
    /// `text_dedup` draws 256, and which ones depends on their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permutations: Option<usize>,
    /// Bits of a hash, 32 or 64: that of the profile unless it is given.
    pub bits: u32,
    /// Seed of the hash functions: 1, and 42 for `text_dedup` and `nemo`, unless it is given. Signatures of different seeds cannot be compared.
    pub seed: u64,
    /// Jaccard index, 0 to 1, that a removed document has with the one kept in its place: 0.75, for `text_dedup` 0.7 and for
    /// `nemo` 0.8, unless it is given. 0 switches verification off: the first document of each cluster is kept.
    pub verify: f64,
    /// Whose words, hashes and permutations.
    pub profile: Profile,
}

/// What a shingle is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Words.
    #[default]
    Words,
    /// Characters: code points.
    Chars,
}

/// Whose words, hashes and permutations make a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Words and characters as in [`crate::shingle`]; texts shorter than a shingle take part.
    #[default]
    Gristmill,
    /// Signatures equal to those of datatrove; needs its words, see [`MinHash::with_words`](crate::MinHash::with_words).
    Datatrove,
    /// Signatures equal to those of NeMo Curator, see [`crate::nemo`].
    Nemo,
    /// Signatures equal to those of text-dedup, see [`crate::text_dedup`].
    TextDedup,
}

impl Profile {
    /// What the reference has, where a job says nothing else.
    fn defaults(self) -> Defaults {
        let words = Unit::Words;
        match self {
            // A pair of 0.75 is what FineWeb's bands are about to find: they find it with probability 0.77.
            Self::Gristmill => {
                Defaults { ngram: 5, shingle: words, bits: 32, seed: 1, verify: 0.75 }
            }
            Self::Datatrove => {
                Defaults { ngram: 5, shingle: words, bits: 64, seed: 1, verify: 0.75 }
            }
            Self::Nemo => {
                Defaults { ngram: 24, shingle: Unit::Chars, bits: 32, seed: 42, verify: 0.8 }
            }
            Self::TextDedup => {
                Defaults { ngram: 5, shingle: words, bits: 64, seed: 42, verify: 0.7 }
            }
        }
    }
}

struct Defaults {
    ngram: usize,
    shingle: Unit,
    bits: u32,
    seed: u64,
    verify: f64,
}

/// [`Config`] as a job says it: what is not given is that of the profile, bands and rows are solved.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    ngram: Option<usize>,
    shingle: Option<Unit>,
    bands: Option<usize>,
    rows: Option<usize>,
    permutations: Option<usize>,
    bits: Option<u32>,
    seed: Option<u64>,
    verify: Option<f64>,
    profile: Profile,
}

/// `num_perm` that text-dedup is published with.
const TEXT_DEDUP_PERMUTATIONS: usize = 256;

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        let profile = settings.profile;
        let defaults = profile.defaults();
        let verify = settings.verify.unwrap_or(defaults.verify);
        // Without verification nothing says what to look for.
        let threshold = if verify > 0.0 { verify } else { defaults.verify };
        let drawn = settings.permutations.unwrap_or(TEXT_DEDUP_PERMUTATIONS);
        let (bands, rows) = match (settings.bands, settings.rows) {
            (Some(bands), Some(rows)) => (bands, rows),
            (Some(bands), None) => (bands, (HASHES / bands.max(1)).max(1)),
            (None, Some(rows)) => ((HASHES / rows.max(1)).max(1), rows),
            (None, None) => match profile {
                Profile::Gristmill => solve(threshold),
                // `num_buckets` and `hashes_per_bucket` of datatrove, and of FineWeb.
                Profile::Datatrove => (14, 8),
                // `num_bands` and `minhashes_per_band`.
                Profile::Nemo => (20, 13),
                Profile::TextDedup => optimal_bands(threshold, drawn.clamp(1, DRAWN_MAX)),
            },
        };
        Self {
            ngram: settings.ngram.unwrap_or(defaults.ngram),
            shingle: settings.shingle.unwrap_or(defaults.shingle),
            bands,
            rows,
            permutations: settings.permutations,
            bits: settings.bits.unwrap_or(defaults.bits),
            seed: settings.seed.unwrap_or(defaults.seed),
            verify,
            profile,
        }
    }
}

impl Default for Config {
    /// 18 bands of 6 rows over shingles of 5 words, for pairs of Jaccard index 0.75.
    fn default() -> Self {
        Settings::default().into()
    }
}

/// Permutations for which text-dedup's bands are solved, at most: the time is their number times its logarithm.
const DRAWN_MAX: usize = 4096;
/// Hashes of a signature whose bands are solved: FineWeb's 14 x 8.
const HASHES: usize = 112;
/// Probability with which solved bands find a pair at the threshold. Candidates that they bring along are verified.
const RECALL: f64 = 0.95;

/// Returns bands and rows that find a pair of Jaccard index `threshold` with probability [`RECALL`] and as few others as possible.
fn solve(threshold: f64) -> (usize, usize) {
    (1..=HASHES)
        .rev()
        .map(|rows| (HASHES / rows, rows))
        .find(|&(bands, rows)| probability(bands, rows, threshold) >= RECALL)
        .unwrap_or((HASHES, 1))
}

/// Returns the probability that two documents of Jaccard index `similarity` agree in one of `bands`.
fn probability(bands: usize, rows: usize, similarity: f64) -> f64 {
    1.0 - (1.0 - similarity.powf(rows as f64)).powf(bands as f64)
}

/// Below this chance of meeting at all, a pair at the threshold counts as not findable.
const PROBABILITY_MIN: f64 = 0.01;
/// Below this chance a job is told: most pairs at its threshold will not be found.
const PROBABILITY_LOW: f64 = 0.5;
/// From this share of the documents on, a job is told that they are shorter than its shingles.
const SHORT_SHARE: f64 = 0.5;

impl Config {
    /// Hashes in a signature.
    #[must_use]
    pub fn n_hashes(&self) -> usize {
        self.bands * self.rows
    }

    /// Permutations that are drawn.
    #[must_use]
    pub fn n_permutations(&self) -> usize {
        self.permutations.unwrap_or(match self.profile {
            Profile::TextDedup => TEXT_DEDUP_PERMUTATIONS,
            Profile::Gristmill | Profile::Datatrove | Profile::Nemo => self.n_hashes(),
        })
    }

    /// Returns the similarity around which pairs begin to be found, (1/bands)^(1/rows).
    #[must_use]
    pub fn threshold(&self) -> f64 {
        (1.0 / self.bands as f64).powf(1.0 / self.rows as f64)
    }

    /// Returns the probability that two documents of Jaccard index `similarity` share a bucket.
    #[must_use]
    pub fn probability(&self, similarity: f64) -> f64 {
        probability(self.bands, self.rows, similarity)
    }

    /// The probabilities by similarity in words.
    #[must_use]
    pub fn curve(&self) -> String {
        let points = [0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0].map(|similarity| {
            format!("{similarity}: {:.1} %", 100.0 * self.probability(similarity))
        });
        points.join(", ")
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] for a zero, a number out of range, or bands that would practically never find a pair at `verify`.
    pub fn check(&self) -> Result<()> {
        let error = |message: String, hint: &str| {
            Err(Error::Config { method: "minhash", message, hint: hint.to_owned() })
        };
        for (key, value, max) in
            [("ngram", self.ngram, 1000), ("bands", self.bands, 4096), ("rows", self.rows, 4096)]
        {
            if !(1..=max).contains(&value) {
                return error(
                    format!("`{key}` is {value}, it must be 1 to {max}"),
                    &format!(
                        "the defaults are ngram = 5, bands = 18, rows = 6, which find {}",
                        Self::default().curve()
                    ),
                );
            }
        }
        if self.n_hashes() > 1 << 16 {
            return error(
                format!(
                    "`bands` x `rows` is {} x {} = {} hashes, at most 65536 are possible",
                    self.bands,
                    self.rows,
                    self.n_hashes()
                ),
                "RefinedWeb's 450 x 20 = 9000 is the largest published setting",
            );
        }
        let permutations = self.n_permutations();
        if permutations < self.n_hashes() || permutations > 1 << 16 {
            return error(
                format!(
                    "`permutations` is {permutations}, `bands` x `rows` is {}",
                    self.n_hashes()
                ),
                "draw as many as the bands take, at most 65536, or leave it out",
            );
        }
        self.check_profile()?;
        if !(0.0..=1.0).contains(&self.verify) {
            return error(
                format!("`verify` is {}, a Jaccard index is 0 to 1", self.verify),
                "0.75 is the default, 0 switches verification off",
            );
        }
        let chance = self.probability(self.verify);
        if self.verify > 0.0 && chance < PROBABILITY_MIN {
            return error(
                format!(
                    "{} bands of {} rows find a pair of similarity {} with probability {chance:.1e}",
                    self.bands, self.rows, self.verify
                ),
                &format!(
                    "these bands find pairs from about {:.2} on ({}): use fewer rows, more bands, or a higher `verify`",
                    self.threshold(),
                    self.curve()
                ),
            );
        }
        Ok(())
    }

    /// What a user should know of settings that work, but not as they seem to be meant.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let chance = self.probability(self.verify);
        (self.verify > 0.0 && chance < PROBABILITY_LOW).then(|| {
            format!(
                "minhash: {} bands of {} rows find {:.1} % of the pairs of similarity {} that `verify` asks \
                 for; expected recall by similarity: {}; without `bands` and `rows` they are solved",
                self.bands,
                self.rows,
                100.0 * chance,
                self.verify,
                self.curve()
            )
        })
    }

    /// What a user should know when `n_short` of `n` documents are shorter than a shingle.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn warning_of_short(&self, n_short: u64, n: u64) -> Option<String> {
        (n_short > 0 && n_short as f64 >= SHORT_SHARE * n as f64).then(|| {
            format!(
                "minhash: {n_short} of {n} documents have fewer than {} {}: they meet documents of the same \
                 {} and no others, whatever `verify` says; a smaller `ngram` compares their parts; \
                 expected recall of longer ones by similarity: {}",
                self.ngram,
                self.shingle.name(),
                self.shingle.name(),
                self.curve()
            )
        })
    }

    /// Refuses what the profile's reference does not know.
    fn check_profile(&self) -> Result<()> {
        let error = |message: String, hint: &str| {
            Err(Error::Config { method: "minhash", message, hint: hint.to_owned() })
        };
        if !matches!(self.bits, 32 | 64) {
            return error(format!("`bits` is {}, it must be 32 or 64", self.bits), "leave it out");
        }
        match self.profile {
            Profile::Datatrove if self.bits != 64 => error(
                "`bits` is 32, profile `datatrove` has 64".to_owned(),
                "leave it out, or use another profile",
            ),
            Profile::Datatrove | Profile::TextDedup if self.shingle != Unit::Words => error(
                "`shingle` is chars, this profile has shingles of words".to_owned(),
                "profiles `gristmill` and `nemo` have shingles of characters",
            ),
            Profile::Nemo if self.shingle != Unit::Chars || self.ngram < 2 => error(
                format!(
                    "profile `nemo` has shingles of at least 2 characters, not {} {}",
                    self.ngram,
                    self.shingle.name()
                ),
                "its default is 24 characters",
            ),
            _ => Ok(()),
        }
    }

    /// The seed as numpy's legacy generator takes it.
    pub(crate) fn numpy_seed(&self) -> Result<u32> {
        u32::try_from(self.seed).map_err(|_| Error::Config {
            method: "minhash",
            message: format!("`seed` is {}, this profile takes 0 to {}", self.seed, u32::MAX),
            hint: "leave it out to have that of the reference".to_owned(),
        })
    }
}

impl Unit {
    /// Its name in a job.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Chars => "chars",
        }
    }
}
