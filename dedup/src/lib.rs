//! Who is a copy of whom: pure kernels, which the engine strings together as SQL plans.
//!
//! | step | kernel | in the engine |
//! |---|---|---|
//! | same page | [`url::keys`] | a column of `signatures` |
//! | same text | [`exact::hashes`] | a column of `signatures` |
//! | similar text | [`MinHash::signatures`], [`MinHash::band_keys`] | columns of `signatures` |
//! | equal keys to clusters | [`Buckets`], [`UnionFind`] | keys by partition on disk, then one table per partition |
//! | clusters to duplicates | [`ClusterSets`], [`Verifier`] | shingle sets of members on disk, by groups of clusters |
//! | same meaning | [`semantic::KMeans`], [`semantic::compare`] | embeddings on disk by cluster, one cluster after the other |
//! | same spans | [`SpanMethod`] of [`paragraph`], [`sentence_span`], [`substring`] | spilled by key, a partition at a time: by a table, or by [`Bloom`] filters |
//! | evaluation sets | [`contamination::Scanner`] | a pass over the texts, then one over those with an n-gram |
//!
//! All of them depend on nothing but their input and configuration: not on the size of batches,
//! their order, the number of threads, or the processor.
//!
//! Banding finds candidates with a probability that rises with their similarity
//! ([`minhash::Config::probability`]). A bucket says nothing certain, and a chain of buckets joins documents
//! that share nothing: on templated text, methods that stop at the clusters have been measured to
//! credit half of what they remove to a document that is not half as similar. Hence the [`Verifier`]:
//! a document is removed only when the exact Jaccard index with the document kept in its place
//! reaches [`minhash::Config::verify`].

pub mod bloom;
pub mod buckets;
pub mod cluster;
pub mod contamination;
pub mod datatrove;
pub mod error;
pub mod exact;
mod mersenne_twister;
pub mod minhash;
mod mix;
mod murmur3;
pub mod nemo;
pub mod paragraph;
pub mod semantic;
pub mod sentence_span;
pub mod sets;
pub mod shingle;
pub mod span;
pub mod spill;
pub mod substring;
pub mod text_dedup;
pub mod url;
pub mod verify;

pub use bloom::Bloom;
pub use buckets::Buckets;
pub use cluster::UnionFind;
pub use error::{Error, Result};
pub use minhash::MinHash;
pub use sets::ClusterSets;
pub use shingle::jaccard;
pub use span::{Repeat, SpanMethod};
pub use spill::{Spill, SpillWriter};
pub use verify::{Removed, Verifier};

use std::sync::Arc;

use shard::tokenizer::Tokenizer;

/// What is registered of a method.
#[derive(Clone, Copy, Debug)]
pub struct MethodKind {
    /// Its name in a job's `[dedup] methods`, its key for settings there, and `duplicates.method`.
    pub name: &'static str,
    /// What it finds, in one line.
    pub summary: &'static str,
    /// Paper or implementation that it follows.
    pub source: &'static str,
    /// What it finds to be a copy.
    pub finds: Finds,
    /// The keys it takes in a job with their default values, as TOML.
    pub default_config: fn() -> toml::Table,
    /// Checks the keys that a job sets.
    pub check: fn(config: &toml::Table) -> Result<()>,
}

/// What a method finds to be a copy.
#[derive(Clone, Copy, Debug)]
pub enum Finds {
    /// Whole documents.
    Documents,
    /// Spans of their text: made from the keys that a job sets.
    Spans(fn(config: &toml::Table, load: LoadTokenizer<'_>) -> Result<Box<dyn SpanMethod>>),
}

/// Loads the tokenizer that a method names, or that of the job where it names none.
pub type LoadTokenizer<'a> = &'a dyn Fn(Option<&str>) -> Result<Arc<Tokenizer>>;

impl MethodKind {
    /// Whether the method finds whole documents, and not spans of them.
    #[must_use]
    pub fn finds_documents(&self) -> bool {
        matches!(self.finds, Finds::Documents)
    }
}

/// Every method, sorted by name.
pub const KINDS: &[MethodKind] = &[
    exact::KIND,
    minhash::KIND,
    paragraph::KIND,
    semantic::KIND,
    sentence_span::KIND,
    substring::KIND,
    url::KIND,
];

/// Returns the method called `name`.
#[must_use]
pub fn kind(name: &str) -> Option<&'static MethodKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn default_table<C: Default + serde::Serialize>() -> toml::Table {
    toml::Table::try_from(C::default()).expect("defaults are plain values")
}

fn parse_table<C: serde::de::DeserializeOwned>(
    method: &'static str,
    table: &toml::Table,
) -> Result<C> {
    table.clone().try_into().map_err(|error: toml::de::Error| Error::Config {
        method,
        message: error.message().to_owned(),
        hint: format!("`gristmill list dedup` shows the keys of `{method}` and their defaults"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_sorted_and_their_defaults_pass_their_own_check() {
        assert!(KINDS.is_sorted_by_key(|kind| kind.name));
        for kind in KINDS {
            (kind.check)(&(kind.default_config)()).unwrap();
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for kind in KINDS {
            let table = "no_such_key = 1".parse().unwrap();
            let message = (kind.check)(&table).unwrap_err().to_string();
            assert!(message.contains("no_such_key") && message.contains(kind.name), "{message}");
        }
    }
}
