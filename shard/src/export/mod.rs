//! A dataset of tokens in the files of other libraries, without anything of ours in between.
//!
//! [`export`] streams the rows of one version: a sample is a document, or with [`Config::seq_len`] a cut of the stream
//! of all documents. Each format is a file of this folder, listed in [`KINDS`]. Same version, same settings, same bytes.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Snapshot;
use crate::manifest::TokenizerInfo;
use crate::reader::decode::{self, Decoded};
use crate::schema::{DatasetKind, ID_BYTES};
use crate::store::{self, NewFile};
use crate::{Error, Result};

mod litdata;
mod mds;
mod megatron;
mod nanogpt;
mod tfrecord;
mod webdataset;

/// Every format, sorted by name.
pub const KINDS: &[&ExportKind] = &[
    &litdata::KIND,
    &mds::KIND,
    &megatron::KIND,
    &nanogpt::KIND,
    &tfrecord::KIND,
    &webdataset::KIND,
];

pub(crate) use megatron::{MAGIC as MEGATRON_MAGIC, VERSION as MEGATRON_VERSION};

/// Bytes of a file after which formats of many files begin the next: what their own writers do.
pub const FILE_BYTES: u64 = 1 << 26;
/// What [`export`] leaves beside the files: where they come from.
const RECORD: &str = "export.json";

/// A format of another library.
#[derive(Debug)]
pub struct ExportKind {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the files are.
    pub summary: &'static str,
    /// The implementation that it follows.
    pub source: &'static str,
    /// Whether samples have named parts, so that a document's id and loss mask go with it.
    pub has_columns: bool,
    /// The type of a token, where ids are below the number; without it, nothing is known of them.
    width: fn(Option<u32>) -> Width,
    start: fn(&Target) -> Result<Box<dyn Sink>>,
}

/// What is exported, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name of a kind in [`KINDS`].
    pub format: String,
    /// Tokens per sample; a sample is a document without it. What is left at the end of a split is left out.
    pub seq_len: Option<usize>,
    /// Bytes after which formats of many files begin the next one.
    pub file_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The format.
    pub format: String,
    /// NumPy's name of the type of a token: `uint16`, `uint32`, `int32` or `int64`.
    pub token_type: String,
    /// Version of the dataset, and its manifest's hash.
    pub version: u64,
    /// BLAKE3 of the manifest.
    pub manifest_hash: String,
    /// The tokenizer that the tokens are of, as the file `tokenizer.json` beside this.
    pub tokenizer: Option<TokenizerInfo>,
    /// What each split became.
    pub splits: Vec<ExportedSplit>,
}

/// What a split became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSplit {
    /// Its name in the dataset.
    pub split: String,
    /// Samples written.
    pub samples: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Tokens at the end that do not fill a sample.
    pub tokens_left_out: u64,
    /// The files, relative to the output.
    pub files: Vec<String>,
}

/// The type of a token in a file; bytes are in little-endian order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    U16,
    U32,
    I32,
    I64,
}

impl Width {
    /// Two bytes where every id fits, four otherwise.
    fn smallest(n_vocabulary: Option<u32>) -> Self {
        if n_vocabulary.is_some_and(|n| n <= 1 << 16) { Self::U16 } else { Self::U32 }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::I64 => "int64",
        }
    }

    fn put(self, tokens: &[u32], out: &mut Vec<u8>) {
        for token in tokens {
            let bytes = u64::from(*token).to_le_bytes();
            out.extend_from_slice(&bytes[..self.bytes()]);
        }
    }

    /// The largest id that fits.
    fn max(self) -> u32 {
        match self {
            Self::U16 => u32::from(u16::MAX),
            Self::I32 => i32::MAX.unsigned_abs(),
            Self::U32 | Self::I64 => u32::MAX,
        }
    }
}

/// Where a split goes.
#[derive(Debug)]
struct Target {
    folder: PathBuf,
    split: String,
    width: Width,
    file_bytes: u64,
    has_ids: bool,
    has_masks: bool,
}

impl Target {
    /// Creates `name` in the folder.
    fn create(&self, name: &str) -> Result<OutFile> {
        OutFile::create(self.folder.join(name))
    }
}

/// A row of the output.
#[derive(Clone, Copy, Debug)]
struct Sample<'a> {
    /// At least one.
    tokens: &'a [u32],
    /// In hexadecimal; of samples that are documents.
    document_id: Option<&'a str>,
    /// One for each token, where the dataset has them.
    loss_mask: Option<&'a [bool]>,
}

/// Writes the samples of a split.
trait Sink {
    fn write(&mut self, sample: Sample<'_>) -> Result<()>;

    /// Makes what is written durable; returns the names of the files.
    fn finish(self: Box<Self>) -> Result<Vec<String>>;
}

/// Writes every split of `snapshot` to the folder `output`, which appears when all of it is on disk.
///
/// Shards are compared with their hashes first. Documents without tokens are left out. Memory is that of a row group
/// and of a file of the output.
///
/// # Errors
/// When `output` is there already, the dataset holds no tokens or more than the format can say, or a shard is damaged.
pub fn export(snapshot: &Snapshot, config: &Config, output: &Path) -> Result<Exported> {
    let kind = kind_of(config)?;
    let manifest = &snapshot.manifest;
    let has_masks = check(snapshot, config, kind, output)?;
    let n_vocabulary = manifest.tokenizer.as_ref().map(|info| info.n_vocabulary);
    let width = (kind.width)(n_vocabulary);
    let part = part_of(output)?;
    let mut exported = Exported {
        format: config.format.clone(),
        token_type: width.name().to_owned(),
        version: snapshot.version,
        manifest_hash: snapshot.manifest_hash.clone(),
        tokenizer: manifest.tokenizer.clone(),
        splits: Vec::new(),
    };
    let mut names: Vec<&str> = manifest.shards.iter().map(|shard| shard.split.as_str()).collect();
    names.dedup();
    for split in names {
        let target = Target {
            folder: part.clone(),
            split: split.to_owned(),
            width,
            file_bytes: config.file_bytes.max(1),
            has_ids: config.seq_len.is_none(),
            has_masks,
        };
        let mut writer = SplitWriter::new(config.seq_len, (kind.start)(&target)?);
        let largest = width.max().min(n_vocabulary.map_or(u32::MAX, |n| n.saturating_sub(1)));
        for_each_group(snapshot, split, |rows| {
            check_ids(rows, largest, split, snapshot)?;
            writer.write(rows)
        })?;
        exported.splits.push(writer.finish(split)?);
    }
    if let Some(tokenizer) = &mut exported.tokenizer {
        let path = snapshot.local_tokenizer()?.expect("the manifest names it");
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        "tokenizer.json".clone_into(&mut tokenizer.path);
        store::replace(&part.join(&tokenizer.path), &bytes)?;
    }
    let record = serde_json::to_vec_pretty(&exported).expect("its keys are text");
    store::replace(&part.join(RECORD), &record)?;
    store::publish(&part, output)?;
    Ok(exported)
}

fn kind_of(config: &Config) -> Result<&'static ExportKind> {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    KINDS.iter().copied().find(|kind| kind.name == config.format).ok_or_else(|| Error::Config {
        place: "--format".to_owned(),
        message: format!("unknown format `{}`", config.format),
        hint: crate::config::nearest(&config.format, &known),
    })
}

/// Returns whether the rows have loss masks.
fn check(snapshot: &Snapshot, config: &Config, kind: &ExportKind, output: &Path) -> Result<bool> {
    let manifest = &snapshot.manifest;
    let refuse = |message: String, hint: &str| Error::Config {
        place: format!("export of `{}`", snapshot.path.display()),
        message,
        hint: Some(hint.to_owned()),
    };
    if manifest.kind != DatasetKind::Tokens {
        let message = format!("it holds {}, not tokens", manifest.kind);
        return Err(refuse(message, "name the folder of the tokens"));
    }
    if config.seq_len == Some(0) {
        return Err(refuse("samples of 0 tokens".to_owned(), "give at least 1"));
    }
    let has_masks = manifest.schema.iter().any(|it| it.name == crate::schema::LOSS_MASK);
    if has_masks && !kind.has_columns {
        let with: Vec<&str> =
            KINDS.iter().filter(|kind| kind.has_columns).map(|kind| kind.name).collect();
        let message = format!("its tokens have loss masks, `{}` has no place for them", kind.name);
        return Err(refuse(message, &format!("use one of `{}`", with.join("`, `"))));
    }
    if store::is_object(output) {
        let message = format!("`{}` is in an object store", output.display());
        return Err(refuse(message, "name a folder, and copy it to the store"));
    }
    if output.try_exists().map_err(Error::io("find", output))? {
        let message = format!("`{}` is there already", output.display());
        return Err(refuse(message, "name a folder that is not there yet"));
    }
    Ok(has_masks)
}

/// Returns the empty folder that will be `output`, under a name that says it is not whole.
fn part_of(output: &Path) -> Result<PathBuf> {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let part = output.with_file_name(format!("{}{name}", store::ASIDE));
    if part.is_dir() {
        fs::remove_dir_all(&part).map_err(Error::io("remove", &part))?;
    }
    store::create_folder(&part)?;
    Ok(part)
}

/// Calls `visit` with each row group of `split`, in order.
fn for_each_group(
    snapshot: &Snapshot,
    split: &str,
    mut visit: impl FnMut(&Decoded) -> Result<()>,
) -> Result<()> {
    for shard in snapshot.manifest.split(split) {
        let path = snapshot.verified_shard(shard)?;
        let metadata = decode::footer(&path, shard)?;
        for (index, entry) in shard.row_groups.iter().enumerate() {
            visit(&decode::decode(&path, metadata.clone(), index, entry)?)?;
        }
    }
    Ok(())
}

fn check_ids(rows: &Decoded, largest: u32, split: &str, snapshot: &Snapshot) -> Result<()> {
    match rows.tokens.iter().max() {
        Some(found) if *found > largest => Err(Error::Corrupt {
            what: format!("split `{split}` of `{}`", snapshot.path.display()),
            why: format!("it has token {found}, the largest of its vocabulary is {largest}"),
            hint: "tokenize again with the tokenizer that the manifest names".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Cuts rows into samples.
struct SplitWriter {
    seq_len: Option<usize>,
    sink: Box<dyn Sink>,
    samples: u64,
    tokens: u64,
    /// The begin of a sample that is not full yet.
    rest: Vec<u32>,
    rest_mask: Vec<bool>,
}

impl SplitWriter {
    fn new(seq_len: Option<usize>, sink: Box<dyn Sink>) -> Self {
        Self { seq_len, sink, samples: 0, tokens: 0, rest: Vec::new(), rest_mask: Vec::new() }
    }

    fn write(&mut self, rows: &Decoded) -> Result<()> {
        match self.seq_len {
            Some(seq_len) => self.write_cuts(rows, seq_len),
            None => self.write_documents(rows),
        }
    }

    fn write_documents(&mut self, rows: &Decoded) -> Result<()> {
        for (id, range) in rows.ids.iter().zip(rows.offsets.windows(2)) {
            let range = range[0]..range[1];
            if range.is_empty() {
                continue;
            }
            let id = hexadecimal(id);
            let loss_mask = rows.loss_mask.as_ref().map(|mask| &mask[range.clone()]);
            let tokens = &rows.tokens[range];
            self.put(Sample { tokens, document_id: Some(&id), loss_mask })?;
        }
        Ok(())
    }

    fn write_cuts(&mut self, rows: &Decoded, seq_len: usize) -> Result<()> {
        self.rest.extend_from_slice(&rows.tokens);
        self.rest_mask.extend_from_slice(rows.loss_mask.as_deref().unwrap_or_default());
        let (rest, mask) = (std::mem::take(&mut self.rest), std::mem::take(&mut self.rest_mask));
        let mut masks = mask.chunks_exact(seq_len);
        let mut cuts = rest.chunks_exact(seq_len);
        for tokens in &mut cuts {
            self.put(Sample { tokens, document_id: None, loss_mask: masks.next() })?;
        }
        cuts.remainder().clone_into(&mut self.rest);
        masks.remainder().clone_into(&mut self.rest_mask);
        Ok(())
    }

    fn put(&mut self, sample: Sample<'_>) -> Result<()> {
        self.samples += 1;
        self.tokens += sample.tokens.len() as u64;
        self.sink.write(sample)
    }

    fn finish(self, split: &str) -> Result<ExportedSplit> {
        Ok(ExportedSplit {
            split: split.to_owned(),
            samples: self.samples,
            tokens: self.tokens,
            tokens_left_out: self.rest.len() as u64,
            files: self.sink.finish()?,
        })
    }
}

fn hexadecimal(id: &[u8; ID_BYTES as usize]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// A file of the output.
struct OutFile {
    path: PathBuf,
    file: BufWriter<NewFile>,
    bytes: u64,
}

impl OutFile {
    fn create(path: PathBuf) -> Result<Self> {
        if let Some(folder) = path.parent() {
            store::create_folder(folder)?;
        }
        let file = BufWriter::with_capacity(1 << 20, NewFile::create(&path)?);
        Ok(Self { path, file, bytes: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Waits until the bytes are on disk; returns how many there are.
    fn finish(self) -> Result<u64> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.map_err(Error::io("write", &self.path))?.sync()?;
        Ok(self.bytes)
    }
}

/// An offset in a file of a format that counts in 32 bits.
fn offset(n: usize, path: &str) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Config {
        place: format!("export to `{path}`"),
        message: format!("a file of {n} bytes, its format counts to {}", u32::MAX),
        hint: Some("give a smaller `--file-size`, or `--seq-len`".to_owned()),
    })
}

#[cfg(test)]
mod tests;
