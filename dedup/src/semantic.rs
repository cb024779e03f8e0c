//! Documents that mean the same, by embeddings that come with them.
//!
//! Embeddings are gathered in clusters ([`KMeans`]); inside of one, the documents are compared with those that stay
//! ([`compare`]). A document goes only when its cosine similarity with a document that stays reaches [`Config::threshold`];
//! two documents in different clusters are not compared.
//!
//! Source: Abbas et al. 2023, SemDeDup. There, a document goes when any document of its cluster is similar, also one that goes
//! itself; here the similarity is always that with the document kept.

mod compare;
mod kmeans;
mod vector;

use serde::{Deserialize, Serialize};

pub use self::compare::{Compared, compare};
pub use self::kmeans::KMeans;
pub use self::vector::{Refusal, Vector, cosine, parse, unit};
use crate::{Error, MethodKind, Result};

pub(crate) const KIND: MethodKind = MethodKind {
    name: "semantic",
    summary: "documents whose embeddings are nearly the same, compared in clusters of k-means",
    source: "Abbas et al. 2023, SemDeDup",
    finds: crate::Finds::Documents,
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("semantic", table)?.check(),
};

/// Settings of the search for documents that mean the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The key of `documents.metadata` that holds the embedding, a list of numbers.
    pub embedding: String,
    /// Cosine similarity with a kept document from which on a document goes, above 0, up to 1.
    pub threshold: f64,
    /// Clusters, 1 to 65,536; without it one up to 4,096 documents, above as many as the square root of their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// Rounds of k-means, at most.
    pub iterations: usize,
    /// Decides which documents begin clusters, and which of many documents clusters are learned from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        // 0.95 lies between the two that NeMo Curator's SemDeDup configuration offers, `eps` 0.1 and 0.01. Faiss' k-means,
        // which SemDeDup uses, stops after 25 rounds; most documents change their cluster in the first ones.
        Self {
            embedding: "embedding".to_owned(),
            threshold: 0.95,
            clusters: None,
            iterations: 25,
            seed: 42,
        }
    }
}

/// Documents that are all compared with each other where a job gives no number of clusters.
const ONE_CLUSTER_MAX: u64 = 4096;
/// Clusters, at most.
const CLUSTERS_MAX: usize = 1 << 16;

impl Config {
    fn check(&self) -> Result<()> {
        let refuse = |message: String, hint: &str| {
            Err(Error::Config { method: "semantic", message, hint: hint.to_owned() })
        };
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return refuse(
                format!("`threshold` is {}, it must be above 0 and at most 1", self.threshold),
                "it is a cosine similarity: 0.95 is SemDeDup's `eps` of 0.05",
            );
        }
        match self.clusters {
            Some(clusters) if !(1..=CLUSTERS_MAX).contains(&clusters) => refuse(
                format!("`clusters` is {clusters}, it must be 1 to {CLUSTERS_MAX}"),
                "without it there are as many as the square root of the number of documents",
            ),
            _ => Ok(()),
        }
    }

    /// The number of clusters of `n` documents.
    #[must_use]
    pub fn n_clusters(&self, n: u64) -> usize {
        let asked = match self.clusters {
            Some(clusters) => clusters as u64,
            None if n <= ONE_CLUSTER_MAX => 1,
            None => n.isqrt(),
        };
        let n = usize::try_from(asked.min(n)).unwrap_or(CLUSTERS_MAX);
        n.clamp(1, CLUSTERS_MAX)
    }
}

#[cfg(test)]
mod tests;
