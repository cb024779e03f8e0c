//! Checkpoints: folders that are either whole or not there.
//!
//! `checkpoints/step-00000050/` holds `config.json` and `model.safetensors` (a Hugging Face folder), `optimizer.safetensors`
//! and `state.json`, which names the hash of each. It is written aside, synced, renamed, and its parent synced;
//! a process may die at any moment. [`newest`] verifies what it loads and goes back to an older one if it must.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shard::reader::ReaderState;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::model::{self, Loaded};
use crate::recipe::Recipe;
use crate::weights;

/// The format that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 3;
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Unfinished folders begin so, and are removed at the next save.
const ASIDE: &str = ".tmp-";
/// Formats that can run code when they are read.
const PICKLES: [&str; 6] = ["bin", "ckpt", "pickle", "pkl", "pt", "pth"];

/// What a run needs to go on, besides weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Updates made.
    pub step: u64,
    /// Steps whose update was skipped, in all and in a row at the end.
    pub skipped: [u64; 2],
    /// Loss and gradient norm of the last steps, bit for bit: what is a spike depends on them.
    pub recent: Vec<[u64; 2]>,
    /// Times that the run went back to a checkpoint.
    pub rollbacks: Vec<Rollback>,
    /// Where the reader stopped.
    pub reader: ReaderState,
    /// Version of each dataset's manifest, in the recipe's order.
    pub data_versions: Vec<u64>,
    /// The recipe that the run began with.
    pub recipe: Recipe,
    /// BLAKE3 of the other files.
    pub files: BTreeMap<String, String>,
}

/// A run that went back to a checkpoint, and on with the data that came next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The step that was skipped last.
    pub from_step: u64,
    /// The step of the checkpoint.
    pub to_step: u64,
    /// The first sample that was read after it.
    pub next_sample: u64,
}

/// `state.json`: the state with a hash of itself.
#[derive(Serialize, Deserialize)]
struct Sealed {
    blake3: String,
    state: State,
}

/// Where checkpoints of the run in folder `run` lie.
#[must_use]
pub fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Writes a checkpoint and removes all but the `kept` newest; returns its folder.
///
/// `moments` is what the optimizer remembers of all parameters. `state.files` is filled in here.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written or synced: then nothing visible has changed.
pub fn save(
    run: &Path,
    mut state: State,
    loaded: &Loaded,
    moments: &[(String, Tensor)],
    kept: usize,
) -> Result<PathBuf> {
    let parent = folder(run);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    remove_unfinished(&parent)?;
    let name = format!("step-{:08}", state.step);
    let aside = parent.join(format!("{ASIDE}{name}"));
    fs::create_dir(&aside).map_err(Error::io("create", &aside))?;
    let mut files = model::save(loaded, &aside)?;
    files.push(OPTIMIZER);
    weights::write(&aside.join(OPTIMIZER), moments)?;
    for name in files {
        state.files.insert(name.to_owned(), hash_file(&aside.join(name))?);
    }
    let sealed = Sealed { blake3: seal(&state), state };
    let mut bytes = serde_json::to_vec_pretty(&sealed).expect("a state holds no map but by text");
    bytes.push(b'\n');
    write_synced(&aside.join(STATE), &bytes)?;
    sync_folder(&aside)?;
    let path = parent.join(name);
    if fs::symlink_metadata(&path).is_ok() {
        // The same step again, after a fall back over a damaged one.
        fs::remove_dir_all(&path).map_err(Error::io("replace", &path))?;
    }
    fs::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
    sync_folder(&parent)?;
    for (_, old) in steps(&parent)?.into_iter().rev().skip(kept.max(2)) {
        fs::remove_dir_all(&old).map_err(Error::io("remove", &old))?;
    }
    Ok(path)
}

/// Finds the newest checkpoint that is whole, after verifying every file.
///
/// `note` gets one line for each newer one that is damaged.
///
/// # Errors
/// [`Error::Unusable`] when there are checkpoints and none is whole.
pub fn newest(run: &Path, note: &mut dyn FnMut(&str)) -> Result<Option<(PathBuf, State)>> {
    newest_where(run, note, |_| true)
}

/// As [`newest`], of those for whose state `is_good` says so.
///
/// # Errors
/// As [`newest`].
pub fn newest_where(
    run: &Path,
    note: &mut dyn FnMut(&str),
    is_good: impl Fn(&State) -> bool,
) -> Result<Option<(PathBuf, State)>> {
    let parent = folder(run);
    let found = steps(&parent)?;
    let mut last_reason = None;
    for (_, path) in found.into_iter().rev() {
        match verify(&path) {
            Ok(state) if is_good(&state) => return Ok(Some((path, state))),
            Ok(_) => {}
            Err(why) => {
                note(&format!(
                    "checkpoint `{}` is damaged: {why}; trying the one before",
                    path.display()
                ));
                last_reason = Some(why);
            }
        }
    }
    let Some(why) = last_reason else { return Ok(None) };
    Err(Error::Unusable {
        action: "resume",
        what: format!("`{}`", run.display()),
        why: format!("no checkpoint is whole; of the oldest, {why}"),
        hint: "restore one from a copy, or give the run another folder".to_owned(),
    })
}

/// Removes the checkpoints of later steps than `step`.
///
/// # Errors
/// [`Error::Io`] when one cannot be removed.
pub fn remove_after(run: &Path, step: u64) -> Result<()> {
    let parent = folder(run);
    for (_, path) in steps(&parent)?.range(step + 1..) {
        fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
    }
    sync_folder(&parent)
}

/// Reads `state.json` and compares the hash of every file; `Err` is the reason for which it cannot be used.
fn verify(path: &Path) -> std::result::Result<State, String> {
    let text =
        fs::read_to_string(path.join(STATE)).map_err(|error| format!("`{STATE}`: {error}"))?;
    let Sealed { blake3, state } =
        serde_json::from_str(&text).map_err(|error| format!("`{STATE}`: {error}"))?;
    if state.format_version != FORMAT_VERSION {
        let found = state.format_version;
        return Err(format!("it has format version {found}, this build reads {FORMAT_VERSION}"));
    }
    let wanted = seal(&state);
    if blake3 != wanted {
        return Err(format!("`{STATE}` says it has the hash {blake3}, it has {wanted}"));
    }
    for entry in fs::read_dir(path).map_err(|error| error.to_string())? {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        let extension = Path::new(&name).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if PICKLES.contains(&extension) {
            return Err(format!(
                "`{}` is a pickle, which can run code when it is read",
                name.display()
            ));
        }
    }
    for name in ["config.json", OPTIMIZER] {
        if !state.files.contains_key(name) {
            return Err(format!("`{STATE}` has no hash of `{name}`"));
        }
    }
    for (name, wanted) in &state.files {
        let found = hash_file(&path.join(name)).map_err(|error| error.to_string())?;
        if found != *wanted {
            return Err(format!("`{name}` has the hash {found}, `{STATE}` says {wanted}"));
        }
    }
    Ok(state)
}

fn seal(state: &State) -> String {
    let bytes = serde_json::to_vec(state).expect("a state holds no map but by text");
    blake3::hash(&bytes).to_hex().to_string()
}

/// Finished checkpoints by step, oldest first.
fn steps(parent: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in entries(parent)? {
        let name = entry.file_name();
        let step = name.and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-"));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            found.insert(step, entry);
        }
    }
    Ok(found)
}

fn remove_unfinished(parent: &Path) -> Result<()> {
    for entry in entries(parent)? {
        let is_aside =
            entry.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(ASIDE));
        if is_aside {
            fs::remove_dir_all(&entry).map_err(Error::io("remove", &entry))?;
        }
    }
    Ok(())
}

fn entries(parent: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(parent) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", parent)(error)),
    };
    read.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("read", parent))).collect()
}

fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes a new file and syncs it.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Replaces a file as a whole: written aside, synced, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    let aside = path.with_file_name(format!("{ASIDE}{name}"));
    write_synced(&aside, bytes)?;
    fs::rename(&aside, path).map_err(Error::io("rename", &aside))
}

/// Makes renames inside a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", path))
}
