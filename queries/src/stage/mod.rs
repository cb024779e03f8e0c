//! The stages of a job, in the order in which they run, and the units that they are cut into.

pub(crate) mod card;
mod chat;
pub mod contamination;
pub mod conversations;
pub mod costs;
mod croissant;
pub mod documents;
pub mod duplicates;
pub mod repeats;
pub(crate) mod takedowns;
pub mod tokens;
pub mod unit;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::runtime_env::RuntimeEnv;
use serde_json::Value;
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Manifest, Parent, hash};
use shard::schema::DatasetKind;

use crate::cluster::Cluster;
use crate::job::LoadedJob;
use crate::progress::Talk;
use crate::session::Limits;
use crate::{Error, Result};

/// What every stage of a run shares.
#[derive(Clone, Debug)]
pub struct Run {
    /// The job.
    pub job: Arc<LoadedJob>,
    /// Memory and threads.
    pub limits: Limits,
    /// Memory pool and spill folders.
    pub runtime: Arc<RuntimeEnv>,
    /// Where progress goes.
    pub talk: Talk,
    /// Whether the user asked to stop.
    pub stop: Stop,
    /// The workers that run the units; without them, this process does.
    pub cluster: Option<Arc<Cluster>>,
}

/// Turns true when the user asked to stop.
pub type Stop = tokio::sync::watch::Receiver<bool>;

impl Run {
    /// The dataset of `kind` in the job's corpus.
    #[must_use]
    pub fn dataset(&self, kind: DatasetKind) -> Dataset {
        dataset_of(&self.job, kind.name())
    }

    /// The corpus folder.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        self.job.corpus()
    }

    /// Fails when the user asked to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`] then.
    pub fn check_stop(&self) -> Result<()> {
        match *self.stop.borrow() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// The dataset `name` of a job's corpus; one in a store is made in a local folder.
pub(crate) fn dataset_of(job: &LoadedJob, name: &str) -> Dataset {
    let folder = job.corpus().join(name);
    match job.origin() {
        None => Dataset::at(folder),
        Some(origin) => Dataset::working_copy(folder, origin.join(name)),
    }
}

/// Calls `work` with every index below `n`, on as many threads as the run may use, and returns the first error.
///
/// # Errors
/// The first error of a call, or [`Error::Interrupted`] when the user asked to stop; no further call begins then.
fn for_each(run: &Run, n: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            run.check_stop()?;
            match next.fetch_add(1, Ordering::Relaxed) {
                index if index < n => {
                    work(index).inspect_err(|_| next.store(n, Ordering::Relaxed))?;
                }
                _ => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..run.limits.threads.clamp(1, n.max(1))).map(|_| scope.spawn(worker)).collect();
        let ended: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        ended.into_iter().collect()
    })
}

/// The name of what a stage makes of its inputs: BLAKE3 over all that decides its content.
#[must_use]
pub fn fingerprint(stage: &str, config: &Value, parents: &[Parent], sources: &Value) -> String {
    let all = serde_json::json!({
        "format": shard::manifest::FORMAT_VERSION,
        "stage": stage,
        "version": env!("CARGO_PKG_VERSION"),
        "config": config,
        "parents": parents,
        "sources": sources,
    });
    hash(all.to_string().as_bytes())
}

/// The newest version of `dataset` if it is what `fingerprint` names and none of its files is gone.
///
/// # Errors
/// When the newest manifest cannot be read.
pub fn finished(dataset: &Dataset, fingerprint: &str) -> Result<Option<Snapshot>> {
    match dataset.newest()? {
        Some(newest) if newest.manifest.fingerprint == fingerprint => {
            Ok(newest.is_present()?.then_some(newest))
        }
        _ => Ok(None),
    }
}

/// Commits `manifest` on top of the newest version, and writes its card.
///
/// # Errors
/// When another writer was first, or the file system refuses.
pub fn commit(dataset: &Dataset, manifest: Manifest) -> Result<Snapshot> {
    let base = dataset.newest()?.map_or(0, |newest| newest.version);
    let snapshot = dataset.commit(base, manifest)?;
    card::write(&snapshot)?;
    dataset.send_pages()?;
    Ok(snapshot)
}

/// A version as the parent of what is made from it.
#[must_use]
pub fn parent(snapshot: &Snapshot) -> Parent {
    let dataset = snapshot.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Parent { dataset, version: snapshot.version, manifest: snapshot.manifest_hash.clone() }
}

/// The counts of a manifest as a sentence: `3 too_short, 1 bad_json`.
#[must_use]
pub fn reasons(manifest: &Manifest) -> String {
    let mut reasons: Vec<_> = manifest.counts.dropped.iter().collect();
    reasons.sort_by_key(|(reason, n)| (std::cmp::Reverse(**n), (*reason).clone()));
    match reasons.is_empty() {
        true => "no document came in".to_owned(),
        false => reasons
            .iter()
            .take(5)
            .map(|(reason, n)| format!("{n} {reason}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}
