//! Settings of the near-duplicate search, and what they find.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of the near-duplicate search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
pub struct Config {
    /// Words in a shingle, 1 to 1,000.
    pub ngram: usize,
    /// Slices of a signature; two documents that agree in one of them are candidates. Solved from `verify` unless it is given.
    pub bands: usize,
    /// Hashes in a band. More rows ask for more similarity, more bands find more. Solved from `verify` unless it is given.
    pub rows: usize,
    /// Seed of the hash functions. Signatures of different seeds cannot be compared.
    pub seed: u64,
    /// Jaccard index, 0 to 1, that a removed document has with the one kept in its place.
    /// 0 switches verification off: the first document of each cluster is kept.
    pub verify: f64,
    /// Whose words, hashes and permutations.
    pub profile: Profile,
}

/// Whose words, hashes and permutations make a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Words as in [`crate::shingle`]; texts shorter than a shingle take part.
    #[default]
    Gristmill,
    /// Signatures equal to those of datatrove; needs its words, see [`MinHash::with_words`].
    Datatrove,
}

/// [`Config`] as a job says it: bands and rows may be left to be solved.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    ngram: usize,
    bands: Option<usize>,
    rows: Option<usize>,
    seed: u64,
    verify: f64,
    profile: Profile,
}

impl Default for Settings {
    fn default() -> Self {
        // A pair of 0.75 is what FineWeb's bands are about to find: they find it with probability 0.77.
        let verify = 0.75;
        Self { ngram: 5, bands: None, rows: None, seed: 1, verify, profile: Profile::default() }
    }
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        let Settings { ngram, bands, rows, seed, verify, profile } = settings;
        let solved = match profile {
            Profile::Gristmill => solve(verify),
            // `num_buckets` and `hashes_per_bucket` of datatrove, and of FineWeb.
            Profile::Datatrove => (14, 8),
        };
        let (bands, rows) = match (bands, rows) {
            (Some(bands), Some(rows)) => (bands, rows),
            (Some(bands), None) => (bands, (HASHES / bands.max(1)).max(1)),
            (None, Some(rows)) => ((HASHES / rows.max(1)).max(1), rows),
            (None, None) => solved,
        };
        Self { ngram, bands, rows, seed, verify, profile }
    }
}

impl Default for Config {
    /// 18 bands of 6 rows over shingles of 5 words, for pairs of Jaccard index 0.75.
    fn default() -> Self {
        Settings::default().into()
    }
}

/// Hashes of a signature whose bands are solved: FineWeb's 14 x 8.
const HASHES: usize = 112;
/// Probability with which solved bands find a pair at the threshold. Candidates that they bring along are verified.
const RECALL: f64 = 0.95;

/// Returns bands and rows that find a pair of Jaccard index `threshold` with probability [`RECALL`] and as few others as possible.
fn solve(threshold: f64) -> (usize, usize) {
    // Without verification nothing says what to look for.
    let threshold = if threshold > 0.0 { threshold } else { Settings::default().verify };
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

impl Config {
    /// Hashes in a signature.
    #[must_use]
    pub fn n_hashes(&self) -> usize {
        self.bands * self.rows
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
                    "the defaults are ngram = 5, bands = 18, rows = 6",
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
                    "these bands find pairs from about {:.2} on: use fewer rows, more bands, or a higher `verify`",
                    self.threshold()
                ),
            );
        }
        Ok(())
    }
}
