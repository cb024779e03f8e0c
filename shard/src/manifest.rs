//! What makes shards a dataset: the list of them, where they come from, and counts that add up.
//!
//! A manifest holds no clock, host or absolute path, so the same inputs, job and seed give the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::DatasetKind;
use crate::{Error, Result};

mod parse;

/// The format that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// One version of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// What its rows are.
    pub kind: DatasetKind,
    /// Columns of every shard.
    pub schema: Vec<Column>,
    /// BLAKE3 of everything that decides the content: stage, configuration, parents and sources.
    pub fingerprint: String,
    /// The resolved configuration of the stage that wrote it.
    pub config: Value,
    /// Datasets it was made from.
    pub parents: Vec<Parent>,
    /// Files it was made from, in the order in which they were read.
    pub sources: Vec<SourceRead>,
    /// What went in and what came out.
    pub counts: Counts,
    /// How text became tokens; only in datasets of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerInfo>,
    /// Shards in reading order; splits one after the other.
    pub shards: Vec<Shard>,
}

/// A column of a dataset, with its Arrow type as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Arrow's name of its type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// A dataset that another was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its folder's name beside this dataset.
    pub dataset: String,
    /// Its version.
    pub version: u64,
    /// BLAKE3 of that version's manifest.
    pub manifest: String,
}

/// A file that a dataset was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRead {
    /// The source's name in the job.
    pub source: String,
    /// The file as locators name it.
    pub file: String,
    /// Its size, all of which was read.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// How many versions with fewer files came before: later files are read behind all earlier ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub arrival: u64,
}

/// Rows in, kept and dropped by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that came in.
    pub n_in: u64,
    /// Rows that stayed.
    pub n_kept: u64,
    /// Rows that went, by `step/reason`.
    pub dropped: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds the counts of another part of the same stage.
    pub fn add(&mut self, other: &Self) {
        self.n_in += other.n_in;
        self.n_kept += other.n_kept;
        for (reason, n) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += n;
        }
    }

    /// The rows that went, whatever the reason.
    #[must_use]
    pub fn n_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Panics unless every row that came in either stayed or went with a reason.
    ///
    /// # Panics
    /// When rows appeared or vanished: a broken promise of the stage.
    pub fn assert_complete(&self, stage: &str) {
        assert_eq!(
            self.n_in,
            self.n_kept + self.n_dropped(),
            "{stage}: rows in ({}) are not rows kept ({}) and dropped ({:?})",
            self.n_in,
            self.n_kept,
            self.dropped
        );
    }
}

/// How text became tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerInfo {
    /// `tokenizer.json`, relative to the dataset.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub fingerprint: String,
    /// Ids it can produce are below this.
    pub n_vocabulary: u32,
    /// Special tokens by content.
    pub special: BTreeMap<String, u32>,
    /// The token after each document, where there is one.
    pub end_of_document: Option<u32>,
}

/// One Parquet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Relative to the dataset's folder, with `/`.
    pub path: String,
    /// `train` unless the dataset is split.
    pub split: String,
    /// What its documents have in common, where the job says what documents are parted by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// Its row groups, in file order.
    pub row_groups: Vec<RowGroup>,
}

impl Shard {
    /// Tokens of all its row groups; zero in datasets that hold none.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.row_groups.iter().map(|group| group.n_tokens).sum()
    }
}

/// One row group of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowGroup {
    /// Rows.
    pub rows: u64,
    /// Tokens in it; zero in datasets that hold none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_tokens: u64,
    /// Index of its first token in the split.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_token: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Manifest {
    /// Returns a manifest of no shards, to be filled by a stage.
    #[must_use]
    pub fn new(kind: DatasetKind, schema: &Schema, fingerprint: String, config: Value) -> Self {
        let schema = schema
            .fields()
            .iter()
            .map(|field| Column {
                name: field.name().clone(),
                data_type: field.data_type().to_string(),
                nullable: field.is_nullable(),
            })
            .collect();
        Self {
            format_version: FORMAT_VERSION,
            kind,
            schema,
            fingerprint,
            config,
            parents: Vec::new(),
            sources: Vec::new(),
            counts: Counts::default(),
            tokenizer: None,
            shards: Vec::new(),
        }
    }

    /// Rows of all shards.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Tokens of the shards of `split`, of one partition of it where one is named.
    #[must_use]
    pub fn n_tokens(&self, split: &str, partition: Option<&str>) -> u64 {
        self.part(split, partition).map(Shard::n_tokens).sum()
    }

    /// The shards of `split`, in reading order.
    pub fn split<'a>(&'a self, split: &'a str) -> impl Iterator<Item = &'a Shard> {
        self.shards.iter().filter(move |shard| shard.split == split)
    }

    /// The shards of `split`, of one partition of it where one is named, in reading order.
    pub fn part<'a>(
        &'a self,
        split: &'a str,
        partition: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Shard> {
        let is_wanted =
            move |shard: &&Shard| partition.is_none() || shard.partition.as_deref() == partition;
        self.split(split).filter(is_wanted)
    }

    /// The partitions of `split`, by name.
    #[must_use]
    pub fn partitions<'a>(&'a self, split: &'a str) -> BTreeSet<&'a str> {
        self.split(split).filter_map(|shard| shard.partition.as_deref()).collect()
    }

    /// The bytes that are stored and hashed; the last key is the BLAKE3 of all bytes before it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a manifest holds no map but by text");
        bytes.truncate(bytes.len() - "\n}".len());
        let seal = seal_of(&blake3::hash(&bytes));
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// Reads what [`Manifest::to_bytes`] wrote; `place` names it in errors.
    ///
    /// # Errors
    /// When the bytes are not a manifest, or one of a newer format.
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Self> {
        Self::from_bytes_hashed(bytes, place).map(|(manifest, _)| manifest)
    }

    /// The same, and the hash of all bytes: what [`hash`] returns.
    ///
    /// One thread hashes while others parse; nothing is believed before both are done.
    pub(crate) fn from_bytes_hashed(bytes: &[u8], place: &str) -> Result<(Self, String)> {
        let (checked, parsed) = std::thread::scope(|scope| {
            let checked = scope.spawn(|| check_seal(bytes));
            let parsed = parse::manifest(bytes);
            (checked.join().expect("hashing does not panic"), parsed)
        });
        let parsed = checked.and_then(|hash| Ok((parsed?, hash)));
        let why = match parsed {
            Ok((manifest, hash)) if manifest.format_version == FORMAT_VERSION => {
                return Ok((manifest, hash));
            }
            Ok((other, _)) => {
                format!(
                    "it has format version {}, this build reads {FORMAT_VERSION}",
                    other.format_version
                )
            }
            Err(why) => why,
        };
        // Another format may say everything but its version in another way.
        match serde_json::from_slice::<Head>(bytes).map(|head| head.format_version) {
            Ok(found) if found > u64::from(FORMAT_VERSION) => {
                Err(Error::Format { manifest: place.to_owned(), found, known: FORMAT_VERSION })
            }
            _ => Err(Error::Corrupt {
                what: format!("manifest `{place}`"),
                why,
                hint: "remove it and run the job again".to_owned(),
            }),
        }
    }
}

/// What every format version says in the same way.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format_version: u64,
}

/// Bytes of what [`seal_of`] returns: 64 hexadecimal digits and what is around them.
const SEAL_BYTES: usize = ",\n  \"blake3\": \"\"\n}\n".len() + 64;

/// Returns the hash of all bytes, or what is wrong when the last key is not the hash of what is before it.
fn check_seal(bytes: &[u8]) -> Result<String, String> {
    let (body, found) = bytes.split_at(bytes.len().saturating_sub(SEAL_BYTES));
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    let wanted = seal_of(&hasher.finalize());
    if found == wanted.as_bytes() {
        return Ok(hasher.update(found).finalize().to_hex().to_string());
    }
    let found = String::from_utf8_lossy(found);
    Err(format!(
        "it ends in `{}`, the bytes before that want `{}`",
        found.escape_debug(),
        wanted.escape_debug()
    ))
}

/// Returns the end of a manifest whose other bytes have this hash.
fn seal_of(body: &blake3::Hash) -> String {
    format!(",\n  \"blake3\": \"{}\"\n}}\n", body.to_hex())
}

/// Returns the BLAKE3 hash of `bytes` in hexadecimal: how manifests and configurations are named.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests;
