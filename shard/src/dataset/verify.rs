//! Whether a dataset is what its manifests say, and what can be put right without running a job.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use super::{DATA, Dataset, Snapshot};
use crate::manifest::{Manifest, Parent, Shard};
use crate::schema::{DatasetKind, LOSS_MASK};
use crate::{Error, Result, store};

/// Where [`Dataset::repair`] puts files that are not what a manifest says.
const DAMAGED: &str = "damaged";

/// What was looked at and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Manifests that were read.
    pub n_versions: u64,
    /// Shards that were read; one that several versions name counts once.
    pub n_shards: u64,
    /// Rows that were decoded; none unless the check is deep.
    pub n_rows: u64,
    /// What is wrong, in the order of versions and shards.
    pub failures: Vec<Failure>,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The file.
    pub path: PathBuf,
    /// What it should be and what it is.
    pub message: String,
}

impl Dataset {
    /// Compares every file that a version names with its manifest: size and hash, of tokenizers too.
    ///
    /// `deep` decodes every row besides: columns, rows and tokens per row group, `n_tokens` and loss masks row by row, ids
    /// against the vocabulary, counts that add up, and parents that are beside the dataset and the same as when it was
    /// made. Memory is that of 1,024 rows, and one short line per shard.
    ///
    /// # Errors
    /// When a folder cannot be listed; what is wrong with files is in the result.
    pub fn verify(&self, deep: bool) -> Result<Verification> {
        let mut found = Verification::default();
        let mut seen = BTreeMap::<String, String>::new();
        for version in self.versions()? {
            found.n_versions += 1;
            let snapshot = match self.open(Some(version)) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    found.fail(self.manifest_path(version), error);
                    continue;
                }
            };
            for shard in &snapshot.manifest.shards {
                if seen.insert(shard.path.clone(), shard.blake3.clone()).as_ref()
                    == Some(&shard.blake3)
                {
                    continue;
                }
                found.n_shards += 1;
                let path = snapshot.shard_path(shard);
                match snapshot.verify(shard) {
                    Err(error) => found.fail(path, error),
                    Ok(()) if deep => {
                        let decoded = snapshot.local_shard(shard);
                        match decoded.and_then(|path| decode(&path, shard, &snapshot.manifest)) {
                            Ok(n_rows) => found.n_rows += n_rows,
                            Err(error) => found.fail(path, error),
                        }
                    }
                    Ok(()) => {}
                }
            }
            self.verify_tokenizer(&snapshot, &mut found);
            if deep {
                self.verify_origin(&snapshot, &mut found);
            }
        }
        Ok(found)
    }

    /// Puts right what can be put right, and returns every file that was moved, with its new name.
    ///
    /// A shard whose bytes are under another name in `data` gets its own name back (two that were swapped, a rename that
    /// was lost). Other damaged shards, tokenizers and manifests go to the folder `damaged`: what is gone is then missing, and
    /// running the job again makes it anew. Half-written files are removed. Nothing that a sound version names is touched,
    /// nor a manifest of another format.
    ///
    /// Must not run while another process writes to the dataset.
    ///
    /// # Errors
    /// When the file system refuses, and [`Error::Format`] before anything is changed.
    pub fn repair(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        if store::is_object(&self.path) {
            return Err(Error::Store {
                action: "repair",
                url: self.path.display().to_string(),
                why: "objects are not moved: only folders are repaired".to_owned(),
                hint: "remove the objects that `verify` names, and run the job again",
            });
        }
        let (mut wanted, mut unreadable) = (BTreeMap::new(), Vec::new());
        for version in self.versions()? {
            match self.open(Some(version)) {
                Ok(Snapshot { manifest: Manifest { shards, tokenizer, .. }, .. }) => {
                    for shard in shards {
                        wanted.insert(shard.path, (shard.blake3, Some(shard.bytes)));
                    }
                    wanted.extend(tokenizer.map(|info| (info.path, (info.fingerprint, None))));
                }
                Err(Error::Corrupt { .. }) => unreadable.push(self.manifest_path(version)),
                Err(error) => return Err(error),
            }
        }
        self.remove_half_written()?;
        let mut moved = Vec::new();
        for manifest in unreadable {
            self.set_aside(&manifest, &mut moved)?;
        }
        let mut damaged = Vec::new();
        for (path, (blake3, bytes)) in &wanted {
            if !is_whole(&self.path.join(path), blake3, *bytes)? {
                damaged.push((path, blake3));
            }
        }
        if damaged.is_empty() {
            return Ok(moved);
        }
        // First everything that is wrong leaves its name, then bytes go where they belong.
        for (path, _) in &damaged {
            self.set_aside(&self.path.join(path), &mut moved)?;
        }
        let mut by_hash = BTreeMap::new();
        for folder in [DATA, DAMAGED] {
            for name in store::list(&self.path.join(folder))? {
                let path = self.path.join(folder).join(name);
                by_hash.insert(store::hash_file(&path)?, path);
            }
        }
        for (path, blake3) in damaged {
            if let Some(from) = by_hash.get(blake3) {
                let to = self.path.join(path);
                store::replace(&to, &fs::read(from).map_err(Error::io("read", from))?)?;
                moved.push((from.clone(), to));
            }
        }
        Ok(moved)
    }

    fn set_aside(&self, path: &Path, moved: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
        if !path.try_exists().map_err(Error::io("find", path))? {
            return Ok(());
        }
        let folder = self.path.join(DAMAGED);
        store::create_folder(&folder)?;
        // Under its hash, so that a second damaged file of the same name does not replace it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = folder.join(format!("{}-{name}", &store::hash_file(path)?[..12]));
        store::publish(path, &to)?;
        moved.push((path.to_owned(), to));
        Ok(())
    }

    fn verify_tokenizer(&self, snapshot: &Snapshot, found: &mut Verification) {
        let Some(tokenizer) = &snapshot.manifest.tokenizer else { return };
        let path = self.path.join(&tokenizer.path);
        let wanted = &tokenizer.fingerprint;
        match store::hash_file(&path) {
            Ok(hash) if hash == *wanted => {}
            Ok(hash) => found.failures.push(Failure {
                message: format!(
                    "tokenizer `{}`: its blake3 is {hash}, manifest says {wanted}",
                    path.display()
                ),
                path,
            }),
            Err(error) => found.fail(path, error),
        }
    }

    /// Checks what a manifest says of other datasets and of itself.
    fn verify_origin(&self, snapshot: &Snapshot, found: &mut Verification) {
        let path = self.manifest_path(snapshot.version);
        let counts = &snapshot.manifest.counts;
        if counts.n_in != counts.n_kept + counts.n_dropped() {
            found.failures.push(Failure {
                message: format!(
                    "manifest `{}`: {} rows came in, {} stayed and {} went",
                    path.display(),
                    counts.n_in,
                    counts.n_kept,
                    counts.n_dropped()
                ),
                path: path.clone(),
            });
        }
        for parent in &snapshot.manifest.parents {
            if let Err(why) = self.parent_is_there(parent) {
                found.failures.push(Failure {
                    message: format!("manifest `{}`: {why}", path.display()),
                    path: path.clone(),
                });
            }
        }
    }

    fn parent_is_there(&self, parent: &Parent) -> Result<(), String> {
        let Parent { dataset, version, manifest } = parent;
        let folder = self.path.parent().unwrap_or(Path::new(".")).join(dataset);
        let says =
            format!("its parent is version {version} of `{dataset}` with manifest {manifest}");
        match Self::at(&folder).open(Some(*version)) {
            Ok(found) if found.manifest_hash == *manifest => Ok(()),
            Ok(found) => Err(format!("{says}, `{}` has {}", folder.display(), found.manifest_hash)),
            Err(error) => Err(format!("{says}: {error}")),
        }
    }
}

impl Verification {
    fn fail(&mut self, path: PathBuf, error: Error) {
        self.failures.push(Failure { path, message: error.to_string() });
    }
}

fn is_whole(path: &Path, blake3: &str, bytes: Option<u64>) -> Result<bool> {
    match fs::metadata(path) {
        Ok(found) if bytes.is_none_or(|bytes| bytes == found.len()) => {
            Ok(store::hash_file(path)? == blake3)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Reads every row of the shard at `path` and compares them with the manifest; returns how many there are.
fn decode(path: &Path, shard: &Shard, manifest: &Manifest) -> Result<u64> {
    let corrupt = |why: String| Error::Corrupt {
        what: format!("shard `{}`", path.display()),
        why,
        hint: "remove it and run the job again: complete shards are kept".to_owned(),
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&file, options).map_err(Error::arrow("read", path))?;
    let fields = metadata.schema().fields();
    let columns: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let wanted: Vec<&str> = manifest.schema.iter().map(|column| column.name.as_str()).collect();
    if columns != wanted {
        return Err(corrupt(format!("its columns are {columns:?}, manifest says {wanted:?}")));
    }
    let (n, wanted) = (metadata.metadata().num_row_groups(), shard.row_groups.len());
    if n != wanted {
        return Err(corrupt(format!("it has {n} row groups, manifest says {wanted}")));
    }
    let n_vocabulary = manifest.tokenizer.as_ref().map(|info| info.n_vocabulary);
    for (index, entry) in shard.row_groups.iter().enumerate() {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_row_groups(vec![index])
            .build()
            .map_err(Error::arrow("read", path))?;
        let (mut n_rows, mut n_tokens) = (0, 0);
        for batch in batches {
            let batch = batch.map_err(|error| Error::arrow("read", path)(error))?;
            n_rows += batch.num_rows() as u64;
            if manifest.kind == DatasetKind::Tokens {
                n_tokens += check_tokens(&batch, n_vocabulary).map_err(&corrupt)?;
            }
        }
        if (n_rows, n_tokens) != (entry.rows, entry.n_tokens) {
            return Err(corrupt(format!(
                "row group {index} has {n_tokens} tokens in {n_rows} rows, manifest says {} in {}",
                entry.n_tokens, entry.rows
            )));
        }
    }
    let rows = shard.row_groups.iter().map(|group| group.rows).sum::<u64>();
    match rows == shard.rows {
        true => Ok(rows),
        false => Err(corrupt(format!("it has {rows} rows, manifest says {}", shard.rows))),
    }
}

/// Returns the tokens of `batch`, or what does not fit together in it.
fn check_tokens(batch: &RecordBatch, n_vocabulary: Option<u32>) -> Result<u64, String> {
    let list = |name: &str| batch.column_by_name(name).and_then(|it| it.as_list_opt::<i32>());
    let tokens = list("tokens").ok_or("it has no list `tokens`")?;
    let lengths = batch.column_by_name("n_tokens").and_then(|it| it.as_primitive_opt());
    let lengths: &arrow::array::PrimitiveArray<UInt32Type> =
        lengths.ok_or("it has no column `n_tokens`")?;
    for (row, (n, wanted)) in tokens.offsets().lengths().zip(lengths.values()).enumerate() {
        if n as u64 != u64::from(*wanted) {
            return Err(format!("row {row} of a batch has {n} tokens, its `n_tokens` is {wanted}"));
        }
    }
    if let Some(masks) = list(LOSS_MASK) {
        let mut both = tokens.offsets().lengths().zip(masks.offsets().lengths());
        if let Some((n, n_mask)) = both.find(|(a, b)| a != b) {
            return Err(format!("a row has {n} tokens and {n_mask} values in `{LOSS_MASK}`"));
        }
    }
    let values = tokens.values().as_primitive_opt::<UInt32Type>().ok_or("tokens are not u32")?;
    let largest = arrow::compute::max(values);
    match (largest, n_vocabulary) {
        (Some(largest), Some(n)) if largest >= n => {
            Err(format!("it has token {largest}, the tokenizer has {n} tokens"))
        }
        _ => Ok(values.len() as u64 - values.null_count() as u64),
    }
}
