//! The tokens of a run: both splits, and what the manifest says of them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shard::Dataset;
use shard::mixture::{Component, MixtureReader};
use shard::reader::{ReaderConfig, SequenceReader};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::run::{TRAIN_SPLIT, VALIDATION_SPLIT};
use crate::source::SequenceSource;
use crate::sources::Sources;

/// The sequences of a run, opened.
pub struct Data {
    /// What is trained on.
    pub train: Box<dyn SequenceSource>,
    /// What is held out, where a dataset has such a split.
    pub validation: Option<Box<dyn SequenceSource>>,
    /// The datasets, in the recipe's order.
    pub datasets: Vec<Identity>,
    /// BLAKE3 of what decides which sequence a sample is: the manifest, or all that a mixture is made of.
    pub manifest_hash: String,
    /// Ids are below this.
    pub n_vocabulary: u64,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<PathBuf>,
    /// Bytes of text behind each id, where the tokenizer tells.
    pub token_bytes: Option<Vec<u32>>,
}

/// A version of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name in a mixture.
    pub name: Option<String>,
    /// Its folder.
    pub path: PathBuf,
    /// Version of the manifest.
    pub version: u64,
    /// The newest version that there is.
    pub newest_version: u64,
    /// BLAKE3 of the manifest.
    pub manifest_hash: String,
}

impl Data {
    /// Opens the recipe's datasets: in the `versions` that a run began with, else those of the recipe, else the newest.
    ///
    /// # Errors
    /// [`Error::Shard`] when one cannot be read or a mixture makes no sense, [`Error::Unusable`] when one does not say how
    /// text became tokens.
    pub fn open(recipe: &Recipe, versions: &[u64]) -> Result<Self> {
        let mut components = match &recipe.data {
            Sources::Mixture(components) => components.clone(),
            Sources::One(folder) => vec![Component {
                name: String::new(),
                dataset: folder.clone(),
                version: recipe.data_version,
                weight: 1.0,
                epochs_max: None,
                partition: None,
                repeats: None,
            }],
        };
        let is_mixture = matches!(recipe.data, Sources::Mixture(_));
        let (mut snapshots, mut datasets) = (Vec::new(), Vec::new());
        for (i, component) in components.iter_mut().enumerate() {
            let dataset = Dataset::at(&component.dataset);
            let snapshot = dataset.open(component.version.or(versions.get(i).copied()))?;
            component.version = Some(snapshot.version);
            datasets.push(Identity {
                name: is_mixture.then(|| component.name.clone()),
                path: component.dataset.clone(),
                version: snapshot.version,
                newest_version: dataset.versions()?.last().copied().unwrap_or(snapshot.version),
                manifest_hash: snapshot.manifest_hash.clone(),
            });
            snapshots.push(snapshot);
        }
        let (folder, manifest) = (&components[0].dataset, &snapshots[0].manifest);
        let info = manifest.tokenizer.as_ref().ok_or_else(|| Error::Unusable {
            action: "train on",
            what: format!("`{}`", folder.display()),
            why: format!("its manifest says `{}` and nothing of a tokenizer", manifest.kind),
            hint: "set `data` to the `tokens` folder of a corpus".to_owned(),
        })?;
        let config = |split: &str| ReaderConfig {
            split: split.to_owned(),
            partition: None,
            seq_len: usize::try_from(recipe.model.seq_len).expect("checked with the recipe"),
            seed: recipe.train.seed,
            verify: recipe.train.verify,
            packing: recipe.packing(),
            mask_documents: recipe.objective.masks_documents(),
        };
        let (train, manifest_hash): (Box<dyn SequenceSource>, _) = if is_mixture {
            let batch = recipe.train.batch_sequences;
            let phases: Vec<_> = recipe.phase.iter().map(|it| it.in_samples(batch)).collect();
            let reader = MixtureReader::open(&components, &phases, &config(TRAIN_SPLIT))?;
            let hash = reader.state(0).manifest_hash;
            (Box::new(reader), hash)
        } else {
            let reader = SequenceReader::open(folder, components[0].version, config(TRAIN_SPLIT))?;
            (Box::new(reader), datasets[0].manifest_hash.clone())
        };
        // Held out is the same in every phase: what has such a split, in proportion to the weights at the beginning.
        let mut has_held_out = snapshots.iter().zip(&components).map(|(snapshot, component)| {
            let partition = component.partition.as_deref();
            snapshot.manifest.n_tokens(VALIDATION_SPLIT, partition) > recipe.model.seq_len
        });
        let mut held_out = components.clone();
        held_out.retain(|it| has_held_out.next().unwrap_or(false) && it.weight > 0.0);
        // What is measured is the text as it is: nothing of it is repeated.
        held_out.iter_mut().for_each(|it| it.repeats = None);
        let held_out: Option<Box<dyn SequenceSource>> = match held_out.as_slice() {
            [] => None,
            [one] => {
                let partition = one.partition.clone();
                let config = ReaderConfig { partition, ..config(VALIDATION_SPLIT) };
                Some(Box::new(SequenceReader::open(&one.dataset, one.version, config)?))
            }
            several => {
                Some(Box::new(MixtureReader::open(several, &[], &config(VALIDATION_SPLIT))?))
            }
        };
        let tokenizer = snapshots[0].local_tokenizer()?.expect("the manifest names it");
        Ok(Self {
            train,
            validation: held_out,
            manifest_hash,
            n_vocabulary: u64::from(info.n_vocabulary),
            token_bytes: token_bytes(&tokenizer, info.n_vocabulary)?,
            tokenizer: Some(tokenizer),
            datasets,
        })
    }

    /// The datasets, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let one = |it: &Identity| format!("version {} of `{}`", it.version, it.path.display());
        self.datasets.iter().map(one).collect::<Vec<_>>().join(", ")
    }
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
            .field("datasets", &self.datasets)
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
