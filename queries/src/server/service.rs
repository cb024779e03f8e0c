//! Questions of all protocols: whose turn it is, what they see, what they may use, and what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::common::ParamValues;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{DataFrame, SessionContext};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::audit::{Audit, Entry};
use super::meter::{Meter, Now};
use super::token::Asker;
use crate::limit::{Limit, QuestionLimits, function, of_engine, out_of_time};
use crate::session::{Files, session_with};
use crate::{Error, Result, catalog, statement};

/// How long tables are used before new versions are looked for.
const FRESH: Duration = Duration::from_secs(1);
/// Questions that wait for a turn; more are told to come back.
const WAITING_MAX: usize = 256;
/// What a question has beyond its time to say that it had not enough.
const GRACE: Duration = Duration::from_millis(250);

/// A corpus and the schema that its tables are in.
#[derive(Clone, Debug)]
pub(super) struct Corpus {
    pub name: String,
    pub path: PathBuf,
}

/// A question and who asked it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub asker: Asker,
    pub peer: Option<SocketAddr>,
    pub protocol: &'static str,
    pub sql: String,
    /// Values of `$1`, `$2`…
    pub parameters: Option<ParamValues>,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub rows: u64,
    pub bytes: u64,
}

/// What a question may use while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub limits: QuestionLimits,
    pub end: Instant,
}

/// The state of a server.
#[derive(Debug)]
pub(super) struct Service {
    corpora: Vec<Corpus>,
    pub engine: Arc<RuntimeEnv>,
    threads: usize,
    pub limits: QuestionLimits,
    value_bytes: u64,
    turns: Semaphore,
    waiting: AtomicUsize,
    running: AtomicUsize,
    /// Where questions run, so that those who only wait are never behind them.
    workers: Handle,
    catalogs: AsyncMutex<BTreeMap<Option<BTreeSet<String>>, Catalog>>,
    pub meter: Meter,
    audit: Option<Audit>,
}

struct Catalog {
    ctx: SessionContext,
    versions: Vec<(PathBuf, Vec<u64>)>,
    checked: Instant,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// What a service is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub corpora: Vec<Corpus>,
    pub engine: Arc<RuntimeEnv>,
    pub threads: usize,
    pub limits: QuestionLimits,
    /// Bytes of the values of a batch that one function gives.
    pub value_bytes: u64,
    /// Questions that run at once.
    pub turns: usize,
    pub workers: Handle,
    pub audit: Option<Audit>,
}

impl Service {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { corpora, engine, threads, limits, value_bytes, turns, workers, audit } = parts;
        Self {
            corpora,
            engine,
            threads,
            limits,
            value_bytes,
            turns: Semaphore::new(turns),
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            workers,
            catalogs: AsyncMutex::default(),
            meter: Meter::default(),
            audit,
        }
    }

    /// Begins a question: `work` gets its plan when its turn has come.
    ///
    /// Dropping what is returned cancels it.
    pub(super) fn start<T, Work, Working>(
        self: &Arc<Self>,
        question: Question,
        work: Work,
    ) -> Started<T>
    where
        T: Send + 'static,
        Work: FnOnce(DataFrame, Turn) -> Working + Send + 'static,
        Working: Future<Output = Result<(T, Size)>> + Send,
    {
        let end = Instant::now() + self.limits.time;
        let turn = Turn { limits: self.limits, end };
        let service = Arc::clone(self);
        let task = self.workers.spawn(async move {
            let mut record = Record::new(Arc::clone(&service), question);
            let result = service.answer(&record.question, turn, work).await;
            record.outcome = match &result {
                Ok((_, size)) => {
                    record.size = *size;
                    "ok"
                }
                Err(error) => code(error),
            };
            result.map(|(value, _)| value)
        });
        Started { task, turn }
    }

    async fn answer<T, Work, Working>(
        self: &Arc<Self>,
        question: &Question,
        turn: Turn,
        work: Work,
    ) -> Result<(T, Size)>
    where
        Work: FnOnce(DataFrame, Turn) -> Working,
        Working: Future<Output = Result<(T, Size)>>,
    {
        let _turn = self.turn(turn).await?;
        let _running = Counted::new(&self.running);
        let frame = self.plan(question).await?;
        work(frame, turn).await
    }

    /// Waits until one of the questions that run has ended.
    async fn turn(&self, turn: Turn) -> Result<tokio::sync::SemaphorePermit<'_>> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let _waiting = Counted::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > WAITING_MAX {
            return Err(Error::Limit {
                limit: Limit::Queue,
                message: format!("{WAITING_MAX} questions wait already"),
                hint: "ask again in a few seconds".to_owned(),
            });
        }
        let permit = timeout_at(turn.end, self.turns.acquire()).await;
        let permit = permit.map_err(|_| out_of_time(turn.limits.time))?;
        Ok(permit.expect("turns are never closed"))
    }

    async fn plan(&self, question: &Question) -> Result<DataFrame> {
        let mut statements = statement::parse(&question.sql)?.into_iter();
        let (Some(first), None) = (statements.next(), statements.next()) else {
            return Err(Error::Job {
                place: "SQL".to_owned(),
                message: "a question is one statement".to_owned(),
                hint: Some("send each statement as a question of its own".to_owned()),
            });
        };
        let ctx = self.context(&question.asker).await?;
        let frame = statement::plan(&ctx, &question.sql, first).await?;
        match &question.parameters {
            None => Ok(frame),
            Some(parameters) => Ok(frame.with_param_values(parameters.clone())?),
        }
    }

    /// Returns the tables that `asker` sees, with the versions that are committed now.
    pub(super) async fn context(&self, asker: &Asker) -> Result<SessionContext> {
        let mut catalogs = self.catalogs.lock().await;
        let known = catalogs.get_mut(&asker.corpora);
        if let Some(known) = &known
            && known.checked.elapsed() < FRESH
        {
            return Ok(known.ctx.clone());
        }
        let corpora: Vec<&Corpus> = self.visible(asker).collect();
        let mut versions = Vec::new();
        for corpus in &corpora {
            versions.extend(catalog::versions(&corpus.path)?);
        }
        if let Some(known) = known
            && known.versions == versions
        {
            known.checked = Instant::now();
            return Ok(known.ctx.clone());
        }
        let ctx = session_with(&self.engine, self.threads, Files::Corpus)?;
        function::bound(&ctx, self.value_bytes)?;
        for (place, corpus) in corpora.iter().enumerate() {
            if place == 0 {
                catalog::register(&ctx, &corpus.path).await?;
            }
            if self.corpora.len() > 1 {
                catalog::register_as(&ctx, &corpus.path, Some(&corpus.name)).await?;
            }
        }
        let checked = Instant::now();
        catalogs.insert(asker.corpora.clone(), Catalog { ctx: ctx.clone(), versions, checked });
        Ok(ctx)
    }

    /// The corpora that `asker` may ask; the first is meant where none is named.
    fn visible<'a>(&'a self, asker: &'a Asker) -> impl Iterator<Item = &'a Corpus> {
        let opens = |corpus: &&Corpus| {
            asker.corpora.as_ref().is_none_or(|corpora| corpora.contains(&corpus.name))
        };
        self.corpora.iter().filter(opens)
    }

    /// What is true at this moment.
    pub(super) fn now(&self) -> Now {
        Now {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            memory: self.engine.memory_pool.reserved(),
        }
    }
}

/// The name of what went wrong, in answers, the log and the metrics.
pub(super) fn code(error: &Error) -> &'static str {
    match error {
        Error::Refused { .. } => "refused",
        Error::Limit { limit, .. } => limit.name(),
        Error::Job { .. } | Error::Arrow(_) => "sql",
        Error::Engine(error) => match error.find_root() {
            DataFusionError::Internal(_) | DataFusionError::IoError(_) => "internal",
            DataFusionError::External(_) => "sql",
            DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => "internal",
            _ => "sql",
        },
        _ => "internal",
    }
}

/// A question that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Started<T> {
    task: JoinHandle<Result<T>>,
    turn: Turn,
}

impl<T> Started<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As the question, and when its time is over: planning cannot be interrupted, waiting for it can.
    pub(super) async fn finish(mut self) -> Result<T> {
        match timeout_at(self.turn.end + GRACE, &mut self.task).await {
            Err(_) => Err(out_of_time(self.turn.limits.time)),
            Ok(Ok(result)) => result.map_err(|error| match error {
                Error::Engine(error) => of_engine(error),
                error => error,
            }),
            Ok(Err(error)) => {
                tracing::error!(%error, "a question ended its task");
                let message = "the question met a defect of the server".to_owned();
                Err(Error::Engine(DataFusionError::Internal(message)))
            }
        }
    }
}

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One more while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts and logs a question when its task ends, however it does.
struct Record {
    service: Arc<Service>,
    question: Question,
    outcome: &'static str,
    size: Size,
    began: Instant,
}

impl Record {
    fn new(service: Arc<Service>, question: Question) -> Self {
        let (size, began) = (Size::default(), Instant::now());
        Self { service, question, outcome: "cancelled", size, began }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Question { asker, peer, protocol, sql, .. } = &self.question;
        let (took, Size { rows, bytes }) = (self.began.elapsed(), self.size);
        self.service.meter.question(protocol, self.outcome, took, rows, bytes);
        if let Some(audit) = &self.service.audit {
            audit.write(&Entry {
                asker: &asker.name,
                peer: *peer,
                protocol,
                sql,
                outcome: self.outcome,
                rows,
                bytes,
                took,
            });
        }
    }
}
