//! What a recipe reads: one dataset of tokens, or several in proportion.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use shard::mixture::{self, Component};

/// The `data` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Sources {
    /// The folder of one dataset.
    One(PathBuf),
    /// Several datasets, a table `[[data]]` each.
    Mixture(Vec<Component>),
}

/// Weights of a mixture that hold from a step on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// They hold for the batches after so many.
    pub after_step: u64,
    /// By name; a dataset that is not named keeps its weight of the phase before.
    pub weights: BTreeMap<String, f64>,
}

impl Phase {
    /// The same in samples.
    #[must_use]
    pub fn in_samples(&self, batch_sequences: u64) -> mixture::Phase {
        mixture::Phase {
            first_sample: self.after_step.saturating_mul(batch_sequences),
            weights: self.weights.clone(),
        }
    }
}

impl Sources {
    /// Turns every folder into `resolve(folder)`.
    pub(crate) fn resolve(&mut self, resolve: impl Fn(&Path) -> PathBuf) {
        match self {
            Self::One(folder) => *folder = resolve(folder),
            Self::Mixture(components) => {
                for component in components {
                    component.dataset = resolve(&component.dataset);
                }
            }
        }
    }
}

impl From<PathBuf> for Sources {
    fn from(folder: PathBuf) -> Self {
        Self::One(folder)
    }
}

// By hand: of an untagged enum, serde says only that no variant fits.
impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the folder of a dataset, or tables `[[data]]`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sources, E> {
                Ok(Sources::One(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, tables: A) -> Result<Sources, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(tables)).map(Sources::Mixture)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
