//! The tokens of a run: both splits, and what the manifest says of them.

use std::fmt;
use std::path::PathBuf;

use crate::source::SequenceSource;

/// The sequences of a run, opened.
pub struct Data {
    /// What is trained on.
    pub train: Box<dyn SequenceSource>,
    /// What is held out, where the dataset has such a split.
    pub validation: Option<Box<dyn SequenceSource>>,
    /// The dataset's folder.
    pub path: PathBuf,
    /// Version of the manifest.
    pub version: u64,
    /// BLAKE3 of the manifest.
    pub manifest_hash: String,
    /// Ids are below this.
    pub n_vocabulary: u64,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<PathBuf>,
    /// Bytes of text behind each id, where the tokenizer tells.
    pub token_bytes: Option<Vec<u32>>,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("manifest_hash", &self.manifest_hash)
            .finish_non_exhaustive()
    }
}
