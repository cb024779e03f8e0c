//! A job on several machines: the units of its stages are handed out to workers, one at a time.
//!
//! ```text
//! gristmill run --cluster ─ stage, then units ─▶ gristmill cluster worker ─ shards ─▶ the folder that all see
//!        ◀──────── a line each second, then the record of the unit ────────┘
//! ```
//!
//! The coordinator cuts, checks, accounts and commits as it does without workers; a worker makes the same plan of the same job
//! and runs units of it. Units are idempotent, so one whose worker is lost is handed out again, at worst twice.

mod client;
mod wire;
pub mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use shard::manifest::hash;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use url::Url;

use self::client::{Remote, Trouble};
use self::wire::{StageRequest, build};
pub use self::worker::WorkerArguments;
use crate::job::LoadedJob;
use crate::progress::Talk;
use crate::server::tls;
use crate::stage::Run;
use crate::stage::unit::{Ended, Output as _, StagedFile, Work};
use crate::{Error, Result};

/// Times that a unit may fail before its job does, on different workers where there are so many.
const FAILURES_MAX: usize = 3;
/// Pauses before a lost worker is asked again: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];
/// How long a file of another machine may take to appear in the folder that both see.
const APPEARS: Duration = Duration::from_secs(5);

/// Which workers run the units of a job, and how they are reached.
#[derive(Clone, Debug, Args)]
pub struct ClusterArguments {
    /// Workers that run the units of the job: `http://host:port`, divided by commas.
    #[arg(long = "cluster", value_name = "URL", value_delimiter = ',')]
    workers: Vec<String>,
    /// A file with the token of the workers; without it, the variable `GRISTMILL_TOKEN`.
    #[arg(long, requires = "workers")]
    token_file: Option<PathBuf>,
    /// Certificates in PEM that have signed those of the workers, for `https://`.
    #[arg(long, requires = "workers")]
    tls_authorities: Option<PathBuf>,
    /// Certificates in PEM that the coordinator shows to the workers.
    #[arg(long, requires_all = ["tls_key", "tls_authorities"])]
    tls_certificate: Option<PathBuf>,
    /// The key of the first certificate in PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Seconds that the job waits while no worker answers.
    #[arg(long, requires = "workers", default_value_t = 60.0)]
    patience: f64,
}

/// The workers of a job.
pub struct Cluster {
    workers: Vec<Arc<Member>>,
    talk: Talk,
    patience: Duration,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.workers.iter().map(|it| it.remote.url.as_str())).finish()
    }
}

struct Member {
    remote: Remote,
    /// Why it is left out; nothing while it is not.
    trouble: Mutex<Option<String>>,
}

impl Member {
    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn noted(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClusterArguments {
    /// Asks the workers of these arguments who they are; nothing without any. Paths of the job become absolute.
    ///
    /// # Errors
    /// When an address is none, a worker refuses to answer or is another program, or none can be reached.
    pub async fn connect(&self, job: &mut LoadedJob, talk: Talk) -> Result<Option<Arc<Cluster>>> {
        if self.workers.is_empty() {
            return Ok(None);
        }
        if job.origin().is_some() && job.job.scratch.is_none() {
            let message = "the workers write to a folder, and the output is in a store";
            let hint = "add `scratch`, a folder that all machines see: the store gets every commit";
            return Err(job.error("output", message, Some(hint.to_owned())));
        }
        job.path = std::path::absolute(&job.path).map_err(shard::Error::io("find", &job.path))?;
        let token = worker::token(self.token_file.as_deref())?;
        let own = self.tls_certificate.as_deref().zip(self.tls_key.as_deref());
        let connector =
            self.tls_authorities.as_deref().map(|it| tls::connector(it, own)).transpose()?;
        let mut workers = Vec::new();
        for address in &self.workers {
            let url: Url = address
                .parse()
                .map_err(|error| wrong(address, format!("{error}"), "write `http://host:port`"))?;
            let tls = match (url.scheme(), &connector) {
                ("http", _) => None,
                ("https", Some(connector)) => Some(connector.clone()),
                ("https", None) => {
                    let hint = "name the certificates that signed the worker's";
                    return Err(wrong(address, "`--tls-authorities` is missing".to_owned(), hint));
                }
                _ => {
                    let message = "it is no address of a worker".to_owned();
                    return Err(wrong(address, message, "write `http://host:port`"));
                }
            };
            let remote = Remote { url, tls, token: token.clone() };
            workers.push(Arc::new(Member { remote, trouble: Mutex::default() }));
        }
        let patience = Duration::from_secs_f64(self.patience.clamp(0.0, 86_400.0));
        let cluster = Cluster { workers, talk, patience };
        cluster.greet().await?;
        Ok(Some(Arc::new(cluster)))
    }
}

fn wrong(place: &str, message: String, hint: &str) -> Error {
    Error::Job { place: place.to_owned(), message, hint: Some(hint.to_owned()) }
}

impl Cluster {
    async fn greet(&self) -> Result<()> {
        let own = build()?;
        let started = Instant::now();
        loop {
            let answers = self.workers.iter().map(|worker| worker.remote.about());
            let answers = futures::future::join_all(answers).await;
            let mut n_threads = 0;
            for (worker, answer) in self.workers.iter().zip(answers) {
                let url = worker.remote.url.as_str();
                match answer {
                    Ok(about) if about.build == own => {
                        n_threads += about.threads;
                        worker.note(None);
                    }
                    Ok(about) => {
                        let message =
                            format!("the worker is {}, this program is {own}", about.build);
                        return Err(wrong(url, message, "run the same program on all machines"));
                    }
                    Err(Trouble::Lost(why)) => worker.note(Some(why)),
                    Err(Trouble::Refused(why) | Trouble::Failed(why)) => {
                        let hint = "check the token and the certificates of both sides";
                        return Err(wrong(url, why, hint));
                    }
                    Err(Trouble::Forgotten) => {
                        let message = "nothing there knows `/v1/worker`".to_owned();
                        return Err(wrong(url, message, "start `gristmill cluster worker` there"));
                    }
                }
            }
            if n_threads > 0 {
                let n = self.workers.iter().filter(|worker| worker.noted().is_none()).count();
                let line = format!("{n} of {} workers, {n_threads} units", self.workers.len());
                self.talk.say(format!("{:>12}  {line} at a time", "cluster"));
                return Ok(());
            }
            if started.elapsed() >= self.patience {
                return Err(self.nobody());
            }
            tokio::time::sleep(PAUSES[0]).await;
        }
    }

    /// The error of a cluster in which no worker is left.
    fn nobody(&self) -> Error {
        let workers = self.workers.iter().map(|worker| {
            let why = worker.noted().unwrap_or_else(|| "it was lost".to_owned());
            format!("{}: {why}", worker.remote.url)
        });
        let message = format!("no worker is left; {}", workers.collect::<Vec<_>>().join("; "));
        wrong(
            "--cluster",
            message,
            "start workers and run the same command: finished units are kept",
        )
    }

    /// Hands units out to the workers; they come back as they end.
    ///
    /// # Errors
    /// When the stage cannot be told to others.
    pub(crate) fn run<W: Work>(
        self: &Arc<Self>,
        run: &Run,
        work: &W,
        units: Vec<(usize, W::Unit)>,
    ) -> Result<Ended<W::Output>> {
        let job = toml::to_string(&run.job.job)
            .map_err(|error| run.job.error("", format!("it cannot be told: {error}"), None))?;
        let request = StageRequest {
            build: build()?.to_owned(),
            job,
            path: run.job.path.clone(),
            stage: W::STAGE.to_owned(),
            inputs: work.inputs(),
        };
        let body = Bytes::from(json!(request).to_string());
        let n_left = units.len();
        let tasks = units.into_iter().map(|(index, unit)| Task {
            index,
            unit: json!(unit),
            failed: Vec::new(),
        });
        let (sender, ended) = mpsc::channel(self.workers.len());
        let stage = Arc::new(Stage::<W> {
            cluster: Arc::clone(self),
            name: hash(&body),
            body,
            tasks: Mutex::new(tasks.collect()),
            n_left: AtomicUsize::new(n_left),
            n_alive: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
            changed: Notify::new(),
            sender,
        });
        let mut members = JoinSet::new();
        for worker in &self.workers {
            members.spawn(Arc::clone(&stage).serve(Arc::clone(worker)));
        }
        drop(stage);
        let cluster = Arc::clone(self);
        // The members end with the stream: units that nobody waits for are given up.
        let state = (ended, members, n_left);
        let stream = futures::stream::unfold(state, move |(mut ended, members, n_left)| {
            let cluster = Arc::clone(&cluster);
            async move {
                if n_left == 0 {
                    return None;
                }
                let next = ended.recv().await.unwrap_or_else(|| Err(cluster.nobody()));
                Some((next, (ended, members, n_left - 1)))
            }
        });
        Ok(stream.boxed())
    }
}

/// A unit that is open.
struct Task {
    index: usize,
    unit: Value,
    /// The workers on which it failed.
    failed: Vec<String>,
}

type One<O> = Result<(usize, O, Vec<StagedFile>)>;

/// A stage at work.
struct Stage<W: Work> {
    cluster: Arc<Cluster>,
    name: String,
    body: Bytes,
    tasks: Mutex<VecDeque<Task>>,
    /// Units that have not ended.
    n_left: AtomicUsize,
    /// Workers that have the stage open.
    n_alive: AtomicUsize,
    /// When the last worker was lost.
    quiet_since: Mutex<Instant>,
    /// Told when a unit came back or was the last.
    changed: Notify,
    sender: mpsc::Sender<One<W::Output>>,
}

impl<W: Work> Stage<W> {
    /// Keeps a worker busy until all units ended, or it refuses.
    async fn serve(self: Arc<Self>, worker: Arc<Member>) {
        let mut pause = PAUSES[0];
        while !self.is_over() {
            let trouble = match self.prepare(&worker).await {
                Ok(threads) => {
                    if worker.noted().is_some() {
                        worker.note(None);
                        self.say(&worker, "is back");
                    }
                    pause = PAUSES[0];
                    self.n_alive.fetch_add(1, Ordering::Relaxed);
                    let trouble = self.feed(&worker, threads).await;
                    self.n_alive.fetch_sub(1, Ordering::Relaxed);
                    *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) =
                        Instant::now();
                    self.changed.notify_waiters();
                    match trouble {
                        Some(trouble) => trouble,
                        None => return,
                    }
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Forgotten => continue,
                Trouble::Lost(why) => {
                    if worker.noted().is_none() {
                        self.say(&worker, &format!("is lost: {why}"));
                    }
                    worker.note(Some(why));
                }
                Trouble::Refused(why) | Trouble::Failed(why) => {
                    self.say(&worker, &format!("is left out: {why}"));
                    worker.note(Some(why));
                    return;
                }
            }
            let since = *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner);
            if self.n_alive.load(Ordering::Relaxed) == 0 && since.elapsed() > self.cluster.patience
            {
                // Nobody listens when another has said it.
                drop(self.sender.send(Err(self.cluster.nobody())).await);
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSES[1]).min(self.cluster.patience.max(PAUSES[0]));
        }
    }

    /// Opens the stage on a worker, and returns how many units it takes at a time.
    async fn prepare(&self, worker: &Member) -> Result<usize, Trouble> {
        let about = worker.remote.about().await?;
        worker.remote.open(&self.name, self.body.clone()).await?;
        Ok(about.threads.max(1))
    }

    /// Runs units on a worker until none is left, or there is trouble.
    async fn feed(&self, worker: &Member, threads: usize) -> Option<Trouble> {
        let turns = (0..threads).map(|_| self.turn(worker));
        // The first trouble ends the other turns: their units go to others.
        let mut turns: futures::stream::FuturesUnordered<_> = turns.collect();
        while let Some(ended) = turns.next().await {
            if let Err(trouble) = ended {
                return Some(trouble);
            }
        }
        None
    }

    async fn turn(&self, worker: &Member) -> Result<(), Trouble> {
        let url = worker.remote.url.as_str();
        while let Some(task) = self.take(url).await {
            // Comes back when this turn is given up.
            let mut borrowed = Borrowed { stage: self, task: Some(task) };
            let task = borrowed.task.as_ref().expect("it was just put there");
            let (index, unit) = (task.index, task.unit.clone());
            let why = match worker.remote.run(&self.name, index, unit).await {
                Ok((output, files)) => match account::<W>(output, files).await {
                    Ok((output, files)) => {
                        borrowed.task = None;
                        drop(self.sender.send(Ok((index, output, files))).await);
                        self.n_left.fetch_sub(1, Ordering::Relaxed);
                        self.changed.notify_waiters();
                        continue;
                    }
                    Err(why) => why,
                },
                Err(Trouble::Failed(why)) => why,
                Err(trouble) => return Err(trouble),
            };
            let task = borrowed.task.as_mut().expect("it did not end");
            task.failed.push(url.to_owned());
            let stage = W::STAGE;
            if task.failed.len() >= FAILURES_MAX {
                let place = format!("unit {index} of `{stage}`");
                let message = format!("it failed on {}: {why}", task.failed.join(", "));
                let hint = "run the same command again when it is mended: finished units are kept";
                drop(self.sender.send(Err(wrong(&place, message, hint))).await);
                return Ok(());
            }
            self.say(worker, &format!("failed at unit {index} of `{stage}`: {why}"));
        }
        Ok(())
    }

    /// The next unit for a worker, one that did not fail there if there is another worker; nothing when all have ended.
    async fn take(&self, url: &str) -> Option<Task> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_over() {
                return None;
            }
            {
                let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                let is_alone = self.n_alive.load(Ordering::Relaxed) <= 1;
                let is_fresh = |task: &Task| is_alone || !task.failed.iter().any(|it| it == url);
                let all_failed =
                    |task: &Task| task.failed.len() >= self.n_alive.load(Ordering::Relaxed);
                let at = tasks.iter().position(|task| is_fresh(task) || all_failed(task));
                if let Some(task) = at.and_then(|at| tasks.remove(at)) {
                    return Some(task);
                }
            }
            changed.await;
        }
    }

    fn is_over(&self) -> bool {
        self.n_left.load(Ordering::Relaxed) == 0 || self.sender.is_closed()
    }

    fn say(&self, worker: &Member, what: &str) {
        self.cluster.talk.say(format!("{:>12}  worker {} {what}", "cluster", worker.remote.url));
    }
}

/// A unit that a worker has; it goes back to the others unless it ends.
struct Borrowed<'a, W: Work> {
    stage: &'a Stage<W>,
    task: Option<Task>,
}

impl<W: Work> Drop for Borrowed<'_, W> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let mut tasks = self.stage.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.push_front(task);
            drop(tasks);
            self.stage.changed.notify_waiters();
        }
    }
}

/// Checks what a worker says that it did: rows against each other, files against their hashes.
async fn account<W: Work>(
    output: Value,
    files: Vec<StagedFile>,
) -> Result<(W::Output, Vec<StagedFile>), String> {
    let output: W::Output = serde_json::from_value(output)
        .map_err(|error| format!("its record cannot be read: {error}"))?;
    if let Some(why) = output.imbalance() {
        return Err(format!("its rows do not add up: {why}"));
    }
    let named = output.files();
    let is_named = |file: &StagedFile| named.iter().any(|(path, _)| *path == file.path);
    if named.len() != files.len() || !files.iter().all(is_named) {
        return Err("its record names other files than its shards".to_owned());
    }
    let started = Instant::now();
    let mut files = files;
    loop {
        let look = move || (files.iter().find_map(StagedFile::damage), files);
        let looked = tokio::task::spawn_blocking(look).await;
        let (damage, back) = looked.expect("reading files does not panic");
        match damage {
            None => return Ok((output, back)),
            Some(why) if started.elapsed() > APPEARS => {
                return Err(format!("{why}; do both machines see one folder?"));
            }
            // Names may take a moment to cross a network's file system.
            Some(_) => tokio::time::sleep(PAUSES[0]).await,
        }
        files = back;
    }
}
