//! Units: bounded, idempotent pieces of a stage. A finished one is recorded in the dataset's staging folder, so a
//! run that was killed goes on behind it; the commit of the stage's manifest makes them all visible at once.

use std::fs;
use std::future::Future;
use std::io;
use std::path::PathBuf;

use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shard::manifest::hash;
use shard::{Dataset, store};

use super::Run;
use crate::{Error, Result};

/// What a unit leaves behind.
pub trait Output: Serialize + DeserializeOwned + Send + 'static {
    /// The files it wrote and their sizes, to see whether they are still there.
    fn files(&self) -> Vec<(PathBuf, u64)>;
}

/// Where the units of one stage are recorded.
#[derive(Clone, Debug)]
pub struct Staging {
    folder: PathBuf,
    stage: &'static str,
    fingerprint: String,
}

impl Staging {
    /// The records of `stage` under `fingerprint`, kept with `dataset`.
    #[must_use]
    pub fn new(dataset: &Dataset, stage: &'static str, fingerprint: &str) -> Self {
        let folder = dataset.staging().join(format!("{stage}-{}", &fingerprint[..16]));
        Self { folder, stage, fingerprint: fingerprint.to_owned() }
    }

    /// A folder for files that only this stage reads.
    #[must_use]
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Runs every unit that has no record yet, `run.limits.threads` at a time, and returns all outputs in order.
    ///
    /// `key` of a unit names everything beyond the stage's fingerprint that decides its output; `done` is told of each
    /// unit that is finished, also of those from earlier runs.
    ///
    /// # Errors
    /// The first error of a unit, or [`Error::Interrupted`]; finished units stay recorded.
    pub async fn run<U, O, F>(
        &self,
        run: &Run,
        units: Vec<(String, U)>,
        work: impl Fn(usize, U) -> F,
        mut done: impl FnMut(usize, &O),
    ) -> Result<Vec<O>>
    where
        U: Send + 'static,
        O: Output,
        F: Future<Output = Result<O>> + Send + 'static,
    {
        store::create_folder(&self.folder)?;
        let mut outputs: Vec<Option<O>> = units.iter().map(|_| None).collect();
        let mut open = Vec::new();
        for (index, (key, unit)) in units.into_iter().enumerate() {
            let key = hash(format!("{}/{key}", self.fingerprint).as_bytes());
            match self.read::<O>(index, &key)? {
                Some(output) => {
                    done(index, &output);
                    outputs[index] = Some(output);
                }
                None => open.push((index, key, unit)),
            }
        }
        let mut running = futures::stream::iter(open.into_iter().map(|(index, key, unit)| {
            // A task of its own: the plan runs on any worker thread, and is aborted when the stage fails.
            let task = AbortOnDrop(tokio::spawn(work(index, unit)));
            async move { (index, key, task.join().await) }
        }))
        .buffer_unordered(run.limits.threads.max(1));
        let mut stop = run.stop.clone();
        loop {
            let ended = tokio::select! {
                ended = running.next() => ended,
                Ok(_) = stop.wait_for(|stop| *stop) => return Err(Error::Interrupted),
            };
            let Some((index, key, output)) = ended else { break };
            let output = output?;
            self.write(index, &key, &output)?;
            done(index, &output);
            outputs[index] = Some(output);
        }
        Ok(outputs.into_iter().map(|output| output.expect("every unit ended")).collect())
    }

    /// Removes the records: their stage is committed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(shard::Error::io("remove", &self.folder)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Removes the records that this stage left under other fingerprints.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_others(&self) -> Result<()> {
        let parent = self.folder.parent().expect("a folder of the dataset");
        for name in store::list(parent)? {
            let folder = parent.join(&name);
            if name.starts_with(&format!("{}-", self.stage)) && folder != self.folder {
                fs::remove_dir_all(&folder).map_err(shard::Error::io("remove", &folder))?;
            }
        }
        Ok(())
    }

    fn read<O: Output>(&self, index: usize, key: &str) -> Result<Option<O>> {
        let path = self.path(index);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(shard::Error::io("read", &path)(error).into()),
        };
        // A record of another build or job is not ours to trust: the unit runs again.
        let Ok(record) = serde_json::from_slice::<Record<O>>(&bytes) else { return Ok(None) };
        let is_there = |(path, bytes): (PathBuf, u64)| {
            fs::metadata(path).is_ok_and(|found| found.len() == bytes)
        };
        let is_whole = record.key == key && record.output.files().into_iter().all(is_there);
        Ok(is_whole.then_some(record.output))
    }

    fn write<O: Output>(&self, index: usize, key: &str, output: &O) -> Result<()> {
        let record = serde_json::json!({ "stage": self.stage, "key": key, "output": output });
        Ok(store::replace(&self.path(index), record.to_string().as_bytes())?)
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("unit-{index:06}.json"))
    }
}

#[derive(serde::Deserialize)]
struct Record<O> {
    key: String,
    output: O,
}

/// Ends its task when the stage that waits for it is gone.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<Result<T>> {
    async fn join(mut self) -> Result<T> {
        match (&mut self.0).await {
            Ok(output) => output,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::Interrupted),
        }
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
