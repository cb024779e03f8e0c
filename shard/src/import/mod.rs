//! Tokens of other libraries' files as a dataset.
//!
//! [`import`] streams the documents of a file or folder into shards and commits them. Each format is a file of this
//! folder, listed in [`KINDS`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, ListBuilder, UInt32Array, UInt32Builder};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dataset::{Dataset, Snapshot};
use crate::manifest::{Counts, Manifest, SourceRead, hash};
use crate::schema::{DatasetKind, ID_BYTES, document_id};
use crate::tokenizer::Tokenizer;
use crate::writer::{ShardWriter, number_tokens};
use crate::{Error, Result, store};

mod mds;
mod megatron;
mod nanogpt;

/// Every format, sorted by name.
pub const KINDS: &[&ImportKind] = &[&mds::KIND, &megatron::KIND, &nanogpt::KIND];

/// Tokens per shard, about: 256 MiB before they are compressed.
const SHARD_TOKENS: u64 = 64 << 20;
/// Tokens that are collected before they go to the shard.
const BATCH_TOKENS: usize = 1 << 20;
/// Tokens of a document, at most: a row group is read whole.
const DOCUMENT_TOKENS_MAX: usize = 64 << 20;

/// A format of another library.
#[derive(Debug)]
pub struct ImportKind {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the files are.
    pub summary: &'static str,
    /// The implementation that it follows.
    pub source: &'static str,
    /// The splits in a file or folder: their names, each with what `open` takes.
    splits: fn(&Path) -> Result<Splits>,
    open: fn(&Path, &Settings) -> Result<Opened>,
}

/// What is imported, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name of a kind in [`KINDS`].
    pub format: String,
    /// `tokenizer.json`, or another file that [`Tokenizer::load`] reads: the tokenizer that made the tokens.
    pub tokenizer: PathBuf,
    /// Bytes per token in files that do not say: 2 or 4. Where an export of ours says it, that holds.
    pub token_bytes: Option<usize>,
}

/// Names of splits, each with the file or folder that holds it.
type Splits = Vec<(String, PathBuf)>;

/// What a format needs to know beside its file.
#[derive(Clone, Copy, Debug)]
struct Settings {
    end_of_document: Option<u32>,
    token_bytes: Option<usize>,
}

/// A document of another library's file.
#[derive(Debug)]
struct Document {
    tokens: Vec<u32>,
    /// Where the file says so itself.
    id: Option<[u8; ID_BYTES as usize]>,
}

/// The documents of a split and the files they are in.
struct Opened {
    files: Vec<PathBuf>,
    documents: Box<dyn Iterator<Item = Result<Document>>>,
}

/// Reads all splits in `path` and commits them as a version of `dataset`.
///
/// Documents keep their order; those without tokens are counted as dropped. Memory is that of a batch and of the
/// largest document.
///
/// # Errors
/// When the files are not of the format, hold ids beyond the tokenizer's vocabulary, or the dataset has a version.
pub fn import(path: &Path, config: &Config, dataset: &Dataset) -> Result<Snapshot> {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let kind = KINDS.iter().find(|kind| kind.name == config.format);
    let kind = kind.ok_or_else(|| Error::Config {
        place: "--format".to_owned(),
        message: format!("unknown format `{}`", config.format),
        hint: crate::config::nearest(&config.format, &known),
    })?;
    if let Some(newest) = dataset.newest()? {
        return Err(Error::Config {
            place: format!("import to `{}`", dataset.path().display()),
            message: format!("it has version {} already", newest.version),
            hint: Some("name a folder that is no dataset yet".to_owned()),
        });
    }
    let tokenizer = Tokenizer::load(&config.tokenizer)?;
    let settings =
        Settings { end_of_document: tokenizer.end_of_document(), token_bytes: config.token_bytes };
    let mut imported = Imported::default();
    for (split, path) in (kind.splits)(path)? {
        let opened = (kind.open)(&path, &settings)?;
        let n_vocabulary = tokenizer.n_vocabulary();
        imported.split(dataset, kind.name, &split, opened, n_vocabulary)?;
    }
    number_tokens(&mut imported.shards);
    let says = json!({ "import": kind.name, "tokenizer": tokenizer.fingerprint() });
    let all = json!({ "config": says, "sources": imported.sources });
    let fingerprint = hash(all.to_string().as_bytes());
    let mut manifest =
        Manifest::new(DatasetKind::Tokens, &DatasetKind::Tokens.schema(), fingerprint, says);
    manifest.counts = imported.counts;
    manifest.sources = imported.sources;
    manifest.shards = imported.shards;
    let name = format!("tokenizer-{}.json", &tokenizer.fingerprint()[..12]);
    store::put_if_absent(&dataset.path().join(&name), tokenizer.to_bytes())?;
    manifest.tokenizer = Some(tokenizer.info(&name));
    dataset.commit(0, manifest)
}

#[derive(Default)]
struct Imported {
    shards: Vec<crate::manifest::Shard>,
    sources: Vec<SourceRead>,
    counts: Counts,
}

impl Imported {
    fn split(
        &mut self,
        dataset: &Dataset,
        format: &str,
        split: &str,
        opened: Opened,
        n_vocabulary: u32,
    ) -> Result<()> {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in &opened.files {
            self.sources.push(SourceRead {
                source: format.to_owned(),
                file: format!("{split}/{}", name(path)),
                bytes: fs::metadata(path).map_err(Error::io("read", path))?.len(),
                blake3: store::hash_file(path)?,
                arrival: 0,
            });
        }
        let first = opened.files.first().cloned().unwrap_or_default();
        let schema = DatasetKind::Tokens.schema();
        let mut writer: Option<(ShardWriter, u64)> = None;
        let mut rows = Rows::default();
        let mut n_shards = 0;
        for (index, document) in opened.documents.enumerate() {
            let Document { tokens, id } = document?;
            self.counts.n_in += 1;
            if tokens.is_empty() {
                *self.counts.dropped.entry("import/empty".to_owned()).or_default() += 1;
                continue;
            }
            self.counts.n_kept += 1;
            let locator = format!("{split}#{index}");
            if let Some(found) = tokens.iter().find(|token| **token >= n_vocabulary) {
                return Err(refused(
                    &first,
                    format!(
                        "document {index} has token {found}, the tokenizer has {n_vocabulary} tokens"
                    ),
                    "give the tokenizer that made the tokens, or another `--token-bytes`",
                ));
            }
            rows.push(&id.unwrap_or_else(|| document_id(format, &locator)), &tokens);
            if rows.n_tokens < BATCH_TOKENS {
                continue;
            }
            let (shard, n) = match &mut writer {
                Some(writer) => writer,
                none => {
                    let name = format!("{split}-{n_shards:05}");
                    n_shards += 1;
                    none.insert((ShardWriter::create(dataset, &name, split, &schema)?, 0))
                }
            };
            *n += rows.n_tokens as u64;
            shard.write(&rows.take())?;
            if *n >= SHARD_TOKENS
                && let Some((shard, _)) = writer.take()
            {
                self.shards.push(shard.finish()?);
            }
        }
        if rows.n_tokens > 0 || writer.is_some() {
            let mut shard = match writer {
                Some((shard, _)) => shard,
                None => {
                    let name = format!("{split}-{n_shards:05}");
                    ShardWriter::create(dataset, &name, split, &schema)?
                }
            };
            shard.write(&rows.take())?;
            self.shards.push(shard.finish()?);
        }
        Ok(())
    }
}

/// Rows of `tokens` that are not written yet.
struct Rows {
    ids: FixedSizeBinaryBuilder,
    tokens: ListBuilder<UInt32Builder>,
    lengths: Vec<u32>,
    n_tokens: usize,
}

impl Default for Rows {
    fn default() -> Self {
        let schema = DatasetKind::Tokens.schema();
        let DataType::List(item) = schema.field(1).data_type() else {
            unreachable!("tokens are lists")
        };
        Self {
            ids: FixedSizeBinaryBuilder::new(ID_BYTES),
            tokens: ListBuilder::new(UInt32Builder::new()).with_field(Arc::clone(item)),
            lengths: Vec::new(),
            n_tokens: 0,
        }
    }
}

impl Rows {
    fn push(&mut self, id: &[u8; ID_BYTES as usize], tokens: &[u32]) {
        self.ids.append_value(id).expect("an id has 16 bytes");
        self.tokens.values().append_slice(tokens);
        self.tokens.append(true);
        self.lengths.push(u32::try_from(tokens.len()).expect("documents have a limit"));
        self.n_tokens += tokens.len();
    }

    fn take(&mut self) -> RecordBatch {
        let mut rows = std::mem::take(self);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.ids.finish()),
            Arc::new(rows.tokens.finish()),
            Arc::new(UInt32Array::from(rows.lengths)),
        ];
        RecordBatch::try_new(DatasetKind::Tokens.schema(), columns).expect("columns of one length")
    }
}

fn refused(path: &Path, why: String, hint: &str) -> Error {
    Error::Corrupt { what: format!("`{}`", path.display()), why, hint: hint.to_owned() }
}

/// The files of `path` with an extension, each as the split that its name says; `path` itself when it is a file.
fn by_extension(path: &Path, extension: &str) -> Result<Splits> {
    let paths: Vec<PathBuf> = match path.is_dir() {
        true => store::list(path)?.into_iter().map(|name| path.join(name)).collect(),
        false => vec![path.to_owned()],
    };
    let mut found = BTreeMap::new();
    for path in paths {
        if path.extension().is_some_and(|it| it == extension) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let split = if stem == "val" { "validation".to_owned() } else { stem };
            found.insert((split != "train", split), path);
        }
    }
    if found.is_empty() {
        return Err(Error::Missing {
            what: format!("files `*.{extension}` in `{}`", path.display()),
            hint: "name the folder that holds them, or one of them".to_owned(),
        });
    }
    // `train` first: it is what readers open.
    Ok(found.into_iter().map(|((_, split), path)| (split, path)).collect())
}

/// Numbers of `width` bytes each, in little-endian order.
fn numbers(bytes: &[u8], width: usize) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(width).map(|chunk| {
        let mut number = [0; 8];
        number[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(number)
    })
}

/// Tokens of `width` bytes each; negative or larger ones are refused.
fn tokens(bytes: &[u8], width: usize, path: &Path) -> Result<Vec<u32>> {
    let token = |number: u64| {
        u32::try_from(number).map_err(|_| {
            refused(path, format!("{number} is no token"), "check the type of its tokens")
        })
    };
    numbers(bytes, width).map(token).collect()
}

#[cfg(test)]
mod tests;
