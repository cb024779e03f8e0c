//! What the coordinator and the workers of a cluster say to each other: JSON over HTTP.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::store;

use crate::Result;
use crate::stage::unit::{Inputs, StagedFile};

/// How often a worker says that it is at work.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// A worker that says nothing for so long is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// What a worker is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    /// See [`build`].
    pub build: String,
    /// Units that it runs at a time.
    pub threads: usize,
}

/// A stage whose units are to be run. Its hash is its name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StageRequest {
    /// See [`build`].
    pub build: String,
    /// The job in TOML, overrides and all.
    pub job: String,
    /// Its file: where its paths begin.
    pub path: PathBuf,
    /// Name of the stage.
    pub stage: String,
    /// What decides its content.
    pub inputs: Inputs,
}

/// A unit of a stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnitRequest {
    pub index: usize,
    pub unit: Value,
}

/// A line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Still at work.
    Working,
    /// What a unit left behind; of a stage that was opened, nothing.
    Done { output: Value, files: Vec<StagedFile> },
    /// Why it could not be done.
    Failed { message: String },
}

/// Version and hash of this program: bytes are promised to be equal for one program only.
///
/// # Errors
/// When its file cannot be read.
pub(super) fn build() -> Result<&'static str> {
    static BUILD: OnceLock<String> = OnceLock::new();
    if let Some(build) = BUILD.get() {
        return Ok(build);
    }
    // By this name it can be read when its file was replaced meanwhile.
    let own = PathBuf::from("/proc/self/exe");
    let own = match own.is_file() {
        true => own,
        false => std::env::current_exe().map_err(shard::Error::io("find", "gristmill"))?,
    };
    let hash = store::hash_file(&own)?;
    Ok(BUILD.get_or_init(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), &hash[..16])))
}
