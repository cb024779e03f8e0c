//! The tokens of a run: both splits, and what the manifest says of them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shard::Dataset;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, SequenceReader};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::run::{TRAIN_SPLIT, VALIDATION_SPLIT};
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
    /// The newest version that there is.
    pub newest_version: u64,
    /// BLAKE3 of the manifest.
    pub manifest_hash: String,
    /// Ids are below this.
    pub n_vocabulary: u64,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<PathBuf>,
    /// Bytes of text behind each id, where the tokenizer tells.
    pub token_bytes: Option<Vec<u32>>,
}

impl Data {
    /// Opens a version of the recipe's dataset, the newest without one.
    ///
    /// # Errors
    /// [`Error::Shard`] when it cannot be read, [`Error::Unusable`] when it does not say how text became tokens.
    pub fn open(recipe: &Recipe, version: Option<u64>) -> Result<Self> {
        let dataset = Dataset::at(&recipe.data);
        let snapshot = dataset.open(version)?;
        let newest_version = dataset.versions()?.last().copied().unwrap_or(snapshot.version);
        let seq_len = usize::try_from(recipe.model.seq_len).expect("checked with the recipe");
        let packing = packing(recipe);
        let open = |split: &str| {
            let (split, seed) = (split.to_owned(), recipe.train.seed);
            let config = ReaderConfig {
                split,
                seq_len,
                seed,
                verify: recipe.train.verify,
                packing,
                mask_documents: recipe.objective.masks_documents(),
            };
            SequenceReader::open(&recipe.data, Some(snapshot.version), config)
        };
        let manifest = &snapshot.manifest;
        let info = manifest.tokenizer.as_ref().ok_or_else(|| Error::Unusable {
            action: "train on",
            what: format!("`{}`", recipe.data.display()),
            why: format!("its manifest says `{}` and nothing of a tokenizer", manifest.kind),
            hint: "set `data` to the `tokens` folder of a corpus".to_owned(),
        })?;
        let train: Box<dyn SequenceSource> = Box::new(open(TRAIN_SPLIT)?);
        let has_held_out = manifest.n_tokens(VALIDATION_SPLIT) > recipe.model.seq_len;
        let validation = has_held_out.then(|| open(VALIDATION_SPLIT)).transpose()?;
        let tokenizer = recipe.data.join(&info.path);
        Ok(Self {
            train,
            validation: validation.map(|reader| Box::new(reader) as Box<dyn SequenceSource>),
            path: recipe.data.clone(),
            version: snapshot.version,
            newest_version,
            manifest_hash: snapshot.manifest_hash.clone(),
            n_vocabulary: u64::from(info.n_vocabulary),
            token_bytes: token_bytes(&tokenizer, info.n_vocabulary)?,
            tokenizer: Some(tokenizer),
        })
    }
}

/// How documents fill the sequences of a run: a dialogue that is cut in two teaches half an answer.
pub(crate) fn packing(recipe: &Recipe) -> Packing {
    if recipe.objective.kind == "supervised" { Packing::BestFit } else { Packing::Stream }
}

/// Bytes of text behind each id of a byte-level vocabulary, zero for special tokens and ids that are not used.
///
/// Nothing where tokens are not runs of bytes: then the same ids can stand for texts of several lengths.
fn token_bytes(tokenizer: &Path, n_vocabulary: u32) -> Result<Option<Vec<u32>>> {
    let text = std::fs::read_to_string(tokenizer).map_err(Error::io("read", tokenizer))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| Error::Unusable {
        action: "use",
        what: format!("tokenizer `{}`", tokenizer.display()),
        why: error.to_string(),
        hint: "shard the corpus again".to_owned(),
    })?;
    Ok(byte_lengths(&json, n_vocabulary))
}

fn byte_lengths(json: &Value, n_vocabulary: u32) -> Option<Vec<u32>> {
    let alone = std::slice::from_ref(&json["decoder"]);
    let decoders = json["decoder"]["decoders"].as_array().map_or(alone, Vec::as_slice);
    if !decoders.iter().any(|decoder| decoder["type"] == "ByteLevel") {
        return None;
    }
    let mut bytes = vec![0; n_vocabulary as usize];
    let mut set = |id: &Value, n: usize| {
        let id = usize::try_from(id.as_u64()?).ok()?;
        *bytes.get_mut(id)? = u32::try_from(n).ok()?;
        Some(())
    };
    for (token, id) in json["model"]["vocab"].as_object()? {
        // In a byte-level vocabulary each character stands for one byte.
        set(id, token.chars().count())?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let is_special = added["special"].as_bool().unwrap_or(false);
        set(&added["id"], if is_special { 0 } else { added["content"].as_str()?.len() })?;
    }
    Some(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_level_token_is_as_long_as_its_characters() {
        let mut json = serde_json::json!({
            "decoder": { "type": "ByteLevel" },
            // `Ġthe` is a space and three letters; `Ã©` are the two bytes of é.
            "model": { "vocab": { "a": 0, "Ġthe": 1, "Ã©": 2, "<|endoftext|>": 3 } },
            "added_tokens": [
                { "id": 3, "content": "<|endoftext|>", "special": true },
                { "id": 5, "content": "é!", "special": false },
            ],
        });
        assert_eq!(byte_lengths(&json, 6), Some(vec![1, 4, 2, 0, 0, 3]));
        json["decoder"]["type"] = "WordPiece".into();
        assert_eq!(byte_lengths(&json, 6), None);
    }
}
