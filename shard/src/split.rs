//! Which documents are for training and which for measuring: decided by a document's id alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Error, Result};

/// The split that every dataset has.
pub const TRAIN: &str = "train";
/// Weights are written in decimal; their sum may be this far from one.
const SUM_TOLERANCE: f64 = 1e-9;
/// Keeps the split independent of the training order, which hashes the same ids.
const SALT: u64 = u64::from_be_bytes(*b"splits\0\0");

/// The shares of a dataset, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, f64>", into = "BTreeMap<String, f64>")]
pub struct Splits {
    weights: BTreeMap<String, f64>,
    /// Names with the hash below which a document is theirs; `train` is last and takes the rest.
    bounds: Vec<(String, u64)>,
}

impl Splits {
    /// Checks `weights`: each from 0 to 1, their sum 1, `train` among them.
    ///
    /// # Errors
    /// [`Error::Config`] that names the sum or the name that is wrong.
    pub fn new(weights: BTreeMap<String, f64>) -> Result<Self> {
        let refuse = |message: String, hint: &str| Error::Config {
            place: "split".to_owned(),
            message,
            hint: Some(hint.to_owned()),
        };
        if !weights.contains_key(TRAIN) {
            let names: Vec<_> = weights.keys().map(String::as_str).collect();
            return Err(refuse(
                format!("there is no `train` among `{}`", names.join("`, `")),
                "name the split that models learn from `train`",
            ));
        }
        for (name, weight) in &weights {
            if !(0.0..=1.0).contains(weight) {
                return Err(refuse(
                    format!("the weight of `{name}` is {weight}, not between 0 and 1"),
                    "weights are shares of the documents",
                ));
            }
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_word) {
                return Err(refuse(
                    format!("`{name}` cannot name a split"),
                    "use letters, digits and `_`: the name is part of file names",
                ));
            }
        }
        let sum: f64 = weights.values().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(refuse(
                format!("the weights sum to {sum}, not 1"),
                "write { train = 0.99, validation = 0.01 }",
            ));
        }
        let mut bounds = Vec::with_capacity(weights.len());
        let mut share = 0.0;
        for (name, weight) in weights.iter().filter(|(name, _)| *name != TRAIN) {
            share += weight;
            bounds.push((name.clone(), bound(share)));
        }
        bounds.push((TRAIN.to_owned(), u64::MAX));
        Ok(Self { weights, bounds })
    }

    /// Returns the split of a document: the same for every run, order and machine with this `seed`.
    #[must_use]
    pub fn of(&self, document_id: &[u8], seed: u64) -> &str {
        let hash = xxh3_64_with_seed(document_id, seed ^ SALT);
        let found = self.bounds.iter().find(|(_, bound)| hash < *bound);
        found.map_or(TRAIN, |(name, _)| name)
    }

    /// The names, `train` last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.bounds.iter().map(|(name, _)| name.as_str())
    }
}

/// Everything is for training.
impl Default for Splits {
    fn default() -> Self {
        Self::new(BTreeMap::from([(TRAIN.to_owned(), 1.0)])).expect("one split of weight 1")
    }
}

impl TryFrom<BTreeMap<String, f64>> for Splits {
    type Error = Error;

    fn try_from(weights: BTreeMap<String, f64>) -> Result<Self> {
        Self::new(weights)
    }
}

impl From<Splits> for BTreeMap<String, f64> {
    fn from(splits: Splits) -> Self {
        splits.weights
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share from 0 to 1 times 2^64; the cast saturates at the top"
)]
fn bound(share: f64) -> u64 {
    (share * 18_446_744_073_709_551_616.0) as u64
}

#[cfg(test)]
mod tests;
