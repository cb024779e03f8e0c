//! What the steps of a job have cost. Times are no part of a dataset, whose bytes depend on its inputs alone: they lie in `runs/`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shard::dataset::Snapshot;
use shard::store;

use crate::Result;
use crate::exec::filter_chain::StepCost;
use crate::job::LoadedJob;

/// The costs of making one version of `documents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// The manifest that was committed.
    pub manifest: String,
    /// Each step, in order.
    pub steps: Vec<StepCost>,
}

fn path(corpus: &Path, version: u64) -> PathBuf {
    corpus.join("runs").join("documents").join(format!("{version:08}.json"))
}

/// Writes down what a version has cost.
///
/// # Errors
/// When the file system refuses.
pub(super) fn write(job: &LoadedJob, snapshot: &Snapshot, steps: Vec<StepCost>) -> Result<()> {
    let path = path(&job.corpus(), snapshot.version);
    store::create_folder(path.parent().expect("it has a folder"))?;
    let costs = Costs { manifest: snapshot.manifest_hash.clone(), steps };
    let text = serde_json::to_vec_pretty(&costs).expect("names and numbers");
    store::replace(&path, &text)?;
    match job.origin() {
        Some(origin) => Ok(store::replace(&self::path(&origin, snapshot.version), &text)?),
        None => Ok(()),
    }
}

/// Returns what a version has cost, if this corpus knows.
///
/// # Errors
/// When the file cannot be read.
pub fn read(corpus: &Path, snapshot: &Snapshot) -> Result<Option<Costs>> {
    let path = path(corpus, snapshot.version);
    let Some(text) = store::read(&path)? else { return Ok(None) };
    let costs: Option<Costs> = serde_json::from_slice(&text).ok();
    // Of another version, in a folder that was copied together: better none than wrong ones.
    Ok(costs.filter(|costs| costs.manifest == snapshot.manifest_hash))
}
