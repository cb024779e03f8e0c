//! Units: bounded, idempotent pieces of a stage. A finished one is recorded in the dataset's staging folder, so a
//! run that was killed goes on behind it; the commit of the stage's manifest makes them all visible at once.
//!
//! A record holds the hash of every file of its unit and ends with its own. What does not agree with its record when a run
//! goes on is made again.

use std::fs;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::dataset::Snapshot;
use shard::manifest::{Parent, hash};
use shard::schema::DatasetKind;
use shard::{Dataset, store};

use super::{Run, for_each};
use crate::run::Plan;
use crate::{Error, Result};

/// What the units of a stage share, and how one of them is run: the same on this machine and on a worker of a cluster.
pub trait Work: Sized + Send + Sync + 'static {
    /// One unit.
    type Unit: Serialize + DeserializeOwned + Send + 'static;
    /// What it leaves behind.
    type Output: Output;
    /// The stage's name, in records and between machines.
    const STAGE: &'static str;

    /// What another machine needs beside the job to run these units.
    fn inputs(&self) -> Inputs;

    /// Makes the same of a job's plan and [`Work::inputs`].
    ///
    /// # Errors
    /// When this machine finds other settings, files or versions than the inputs say, or cannot read them.
    fn open(plan: &Plan, inputs: Inputs) -> Result<Self>;

    /// Compares what a unit reads beside datasets with what is found on this machine.
    ///
    /// # Errors
    /// When both differ.
    fn check(&self, _unit: &Self::Unit) -> Result<()> {
        Ok(())
    }

    /// Runs a unit. Running it twice, even at the same time, leaves the same files.
    fn run(
        self: Arc<Self>,
        index: usize,
        unit: Self::Unit,
    ) -> impl Future<Output = Result<Self::Output>> + Send + 'static;
}

/// What decides the content of a stage beside the job file, in a form that goes to other machines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// The settings, and hashes of the files that they name, as the stage's fingerprint has them.
    pub config: Value,
    /// The datasets that are read.
    pub parents: Vec<Parent>,
    /// What else the stage needs.
    pub more: Value,
}

impl Inputs {
    /// Fails unless this machine made the same of the job.
    ///
    /// # Errors
    /// With both values.
    pub fn check(&self, stage: &str, own: &Value) -> Result<()> {
        match self.config == *own {
            true => Ok(()),
            false => Err(Error::Job {
                place: format!("stage `{stage}`"),
                message: format!(
                    "settings and files differ between machines: wanted {}, found here {own}",
                    self.config
                ),
                hint: Some("both must see the same job, models, lists and tokenizers".to_owned()),
            }),
        }
    }

    /// The version of a dataset that is read; none where the stage reads none of that name.
    ///
    /// # Errors
    /// When it is not there, or is another.
    pub fn snapshot(&self, run: &Run, kind: DatasetKind) -> Result<Option<Snapshot>> {
        let parent = self.parents.iter().find(|parent| parent.dataset == kind.name());
        let Some(parent) = parent else { return Ok(None) };
        let snapshot = run.dataset(kind).open(Some(parent.version))?;
        if snapshot.manifest_hash == parent.manifest {
            return Ok(Some(snapshot));
        }
        Err(Error::Job {
            place: snapshot.path.display().to_string(),
            message: format!(
                "version {} has the manifest {} here, wanted is {}",
                parent.version, snapshot.manifest_hash, parent.manifest
            ),
            hint: Some("all machines must see one folder".to_owned()),
        })
    }

    /// As [`Inputs::snapshot`], of `documents`.
    ///
    /// # Errors
    /// As there.
    pub fn documents(&self, run: &Run) -> Result<Snapshot> {
        Ok(self.snapshot(run, DatasetKind::Documents)?.expect("the stage reads documents"))
    }

    /// Takes `more` apart.
    ///
    /// # Errors
    /// When it is of another form.
    pub fn more<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.more).map_err(|error| Error::Job {
            place: "stage".to_owned(),
            message: format!("its inputs cannot be read: {error}"),
            hint: Some("run the same program on all machines".to_owned()),
        })
    }
}

/// What a unit leaves behind.
pub trait Output: Serialize + DeserializeOwned + Send + 'static {
    /// The files it wrote and their sizes.
    fn files(&self) -> Vec<(PathBuf, u64)>;

    /// BLAKE3 of a file of [`Self::files`], by its position there, where it was taken while the file was written. The other
    /// files are read once more before they are recorded.
    fn hash(&self, _file: usize) -> Option<&str> {
        None
    }

    /// What does not add up; none when all rows are accounted for.
    fn imbalance(&self) -> Option<String> {
        None
    }
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
    /// unit that is finished, also of those from earlier runs. Files that an earlier run left are read and compared with their
    /// hashes; a unit with one that differs runs again, and the log says so.
    ///
    /// # Errors
    /// The first error of a unit, or [`Error::Interrupted`]; finished units stay recorded.
    pub async fn run<W: Work>(
        &self,
        run: &Run,
        work: W,
        units: Vec<(String, W::Unit)>,
        mut done: impl FnMut(usize, &W::Output),
    ) -> Result<Vec<W::Output>> {
        assert_eq!(self.stage, W::STAGE, "records and work are of one stage");
        store::create_folder(&self.folder)?;
        let key = |key: &String| hash(format!("{}/{key}", self.fingerprint).as_bytes());
        let keys: Vec<String> = units.iter().map(|(of_unit, _)| key(of_unit)).collect();
        let mut outputs = tokio::task::block_in_place(|| self.recorded::<W::Output>(run, &keys))?;
        for (index, output) in outputs.iter().enumerate() {
            output.iter().for_each(|output| done(index, output));
        }
        let open: Vec<(usize, W::Unit)> = units
            .into_iter()
            .enumerate()
            .filter(|(index, _)| outputs[*index].is_none())
            .map(|(index, (_, unit))| (index, unit))
            .collect();
        let mut running = match &run.cluster {
            Some(cluster) if !open.is_empty() => cluster.run(run, &work, open)?,
            _ => here(Arc::new(work), open, run.limits.threads.max(1)),
        };
        let mut stop = run.stop.clone();
        loop {
            let ended = tokio::select! {
                ended = running.next() => ended,
                Ok(_) = stop.wait_for(|stop| *stop) => return Err(Error::Interrupted),
            };
            let Some(ended) = ended else { break };
            let (index, output, files) = ended?;
            self.write(index, &keys[index], &output, &files)?;
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

    /// The outputs that earlier runs left, by unit. Those that are damaged are told.
    fn recorded<O: Output>(&self, run: &Run, keys: &[String]) -> Result<Vec<Option<O>>> {
        let outputs: Vec<Mutex<Option<O>>> = keys.iter().map(|_| Mutex::new(None)).collect();
        for_each(run, keys.len(), |index| {
            match self.read(index, &keys[index])? {
                Found::Whole(output) => {
                    *outputs[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
                }
                Found::Nothing => {}
                Found::Damaged(why) => {
                    run.talk.say(format!("{:>12}  {DAMAGED}: {why}", self.stage));
                }
            }
            Ok(())
        })?;
        let output = |output: Mutex<_>| output.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(outputs.into_iter().map(output).collect())
    }

    fn read<O: Output>(&self, index: usize, key: &str) -> Result<Found<O>> {
        let path = self.path(index);
        let Some(bytes) = store::read(&path)? else { return Ok(Found::Nothing) };
        let record = match unseal(&bytes) {
            Ok(record) => record,
            Err(found) => {
                let why = format!("`{}` {found}", path.display());
                return Ok(Found::Damaged(why));
            }
        };
        // A record of another build or job is not ours to trust: the unit runs again.
        let Ok(record) = serde_json::from_slice::<Record<O>>(record) else {
            return Ok(Found::Nothing);
        };
        if record.key != key {
            return Ok(Found::Nothing);
        }
        match record.files.iter().find_map(StagedFile::damage) {
            Some(why) => Ok(Found::Damaged(why)),
            None => Ok(Found::Whole(record.output)),
        }
    }

    fn write<O: Output>(
        &self,
        index: usize,
        key: &str,
        output: &O,
        files: &[StagedFile],
    ) -> Result<()> {
        let record = serde_json::json!({
            "stage": self.stage, "key": key, "output": output, "files": files,
        });
        Ok(store::replace(&self.path(index), seal(&record.to_string()).as_bytes())?)
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("unit-{index:06}.json"))
    }
}

/// The units of a stage as they end, each with its files.
pub(crate) type Ended<O> = futures::stream::BoxStream<'static, Result<(usize, O, Vec<StagedFile>)>>;

/// Runs units on this machine, `n` at a time.
fn here<W: Work>(work: Arc<W>, units: Vec<(usize, W::Unit)>, n: usize) -> Ended<W::Output> {
    futures::stream::iter(units.into_iter().map(move |(index, unit)| {
        let output = Arc::clone(&work).run(index, unit);
        // A task of its own: the plan runs on any worker thread, and is aborted when the stage fails.
        let task = AbortOnDrop(tokio::spawn(async move {
            let output = output.await?;
            let files = staged_files(&output)?;
            Ok((index, output, files))
        }));
        task.join()
    }))
    .buffer_unordered(n)
    .boxed()
}

/// How lines about files begin that do not agree with their record.
const DAMAGED: &str = "made again";

/// What an earlier run left of a unit.
enum Found<O> {
    Nothing,
    Whole(O),
    /// Which file, what was found and what was wanted.
    Damaged(String),
}

#[derive(Deserialize)]
struct Record<O> {
    key: String,
    output: O,
    files: Vec<StagedFile>,
}

/// A file of a unit, as its record names it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    bytes: u64,
    blake3: String,
}

impl StagedFile {
    /// In what the file differs from what was recorded; none when it does not.
    pub(crate) fn damage(&self) -> Option<String> {
        let wanted = format!("its record says {} bytes of blake3 {}", self.bytes, self.blake3);
        let found = match self.found() {
            Ok((bytes, blake3)) if (bytes, &blake3) == (self.bytes, &self.blake3) => return None,
            Ok((bytes, blake3)) => format!("has {bytes} bytes of blake3 {blake3}"),
            Err(error) => format!("cannot be read ({error})"),
        };
        Some(format!("`{}` {found}, {wanted}", self.path.display()))
    }

    fn found(&self) -> shard::Result<(u64, String)> {
        let size = fs::metadata(&self.path).map_err(shard::Error::io("read", &self.path))?.len();
        Ok((size, store::hash_file(&self.path)?))
    }
}

/// The files of a unit with their hashes.
pub(crate) fn staged_files<O: Output>(output: &O) -> Result<Vec<StagedFile>> {
    let files = output.files().into_iter().enumerate().map(|(index, (path, bytes))| {
        let blake3 = match output.hash(index) {
            Some(blake3) => blake3.to_owned(),
            None => store::hash_file(&path)?,
        };
        Ok(StagedFile { path, bytes, blake3 })
    });
    files.collect()
}

/// A record with a last line that is its hash.
fn seal(record: &str) -> String {
    format!("{record}\n{}\n", hash(record.as_bytes()))
}

/// Takes the record out of what [`seal`] made, or says what is wrong with it.
fn unseal(sealed: &[u8]) -> Result<&[u8], String> {
    let lines = sealed.strip_suffix(b"\n").unwrap_or(sealed);
    let end = lines.iter().rposition(|byte| *byte == b'\n').unwrap_or(lines.len());
    let (record, wanted) = lines.split_at(end);
    let wanted = String::from_utf8_lossy(wanted.strip_prefix(b"\n").unwrap_or(wanted));
    let found = hash(record);
    match found == wanted {
        true => Ok(record),
        false => Err(format!("has blake3 {found}, it ends with {wanted:?}")),
    }
}

/// Ends its task when the stage that waits for it is gone.
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<Result<T>> {
    pub(crate) async fn join(mut self) -> Result<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_changed_anywhere_is_not_read() {
        let sealed = seal("{\"key\": \"a\"}").into_bytes();
        assert_eq!(unseal(&sealed), Ok(&b"{\"key\": \"a\"}"[..]));
        for at in 0..sealed.len() - 1 {
            let mut changed = sealed.clone();
            changed[at] ^= 4;
            assert!(unseal(&changed).is_err(), "byte {at}");
            assert!(unseal(&sealed[..at]).is_err(), "cut off at {at}");
        }
    }

    #[test]
    fn a_file_that_is_not_what_was_recorded_is_named_with_both_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pieces");
        fs::write(&path, b"abc").unwrap();
        // BLAKE3 of "abc", from the b3sum of its authors.
        let blake3 = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85".to_owned();
        let file = StagedFile { path: path.clone(), bytes: 3, blake3: blake3.clone() };
        assert_eq!(file.damage(), None);
        for damaged in [&b"abd"[..], b"ab", b""] {
            fs::write(&path, damaged).unwrap();
            let why = file.damage().expect("it differs");
            assert!(why.contains("pieces") && why.contains(&blake3), "{why}");
            assert!(why.contains(&hash(damaged)), "{why}");
        }
        fs::remove_file(&path).unwrap();
        assert!(file.damage().expect("it is gone").contains("cannot be read"));
    }
}
