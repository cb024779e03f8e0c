//! `gristmill cluster worker`: runs units of other processes' jobs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::ORIGIN;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use clap::Args;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use shard::manifest::hash;
use tokio::sync::{Semaphore, watch};

use super::wire::{About, HEARTBEAT, Line, StageRequest, UnitRequest, build};
use crate::job::LoadedJob;
use crate::progress::Talk;
use crate::run::{Options, Plan};
use crate::server::{STACK_BYTES, TOKEN_VARIABLE, tls, token::Tokens};
use crate::stage::contamination::work::{Judging, Scanning};
use crate::stage::conversations::Turning;
use crate::stage::documents::Reading;
use crate::stage::duplicates::signatures::Signing;
use crate::stage::repeats::work::{Searching, Spilling, Writing};
use crate::stage::tokens::work::{Encoding, Learning, Sorting};
use crate::stage::unit::{AbortOnDrop, Inputs, StagedFile, Work, staged_files};
use crate::{Error, Result, command};

/// Bytes of a request, at most: a stage's inputs name all its runs.
const REQUEST_BYTES: usize = 1 << 30;
/// Stages that are kept open: those at work of a few jobs.
const STAGES: usize = 8;

/// Arguments of `gristmill cluster worker`.
#[derive(Clone, Debug, Args)]
pub struct WorkerArguments {
    /// Address and port; port 0 takes a free one. Beyond loopback a token is needed.
    #[arg(long, default_value = "127.0.0.1:7790")]
    listen: SocketAddr,
    /// A file with the token that coordinators send; without it, the variable `GRISTMILL_TOKEN`.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A TOML file of `[[token]]` with `name`, `blake3`, and if wanted `expires`.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Certificates in PEM: serve TLS.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of the first certificate in PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Certificates in PEM that have signed those of coordinators: nobody else is let in.
    #[arg(long, requires = "tls_certificate")]
    tls_clients: Option<PathBuf>,
    /// Memory of the operators [default: what the job says].
    #[arg(long)]
    memory: Option<String>,
    /// Units that run at a time [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
}

/// The token in a file, or in the environment.
///
/// # Errors
/// When the file cannot be read or is empty.
pub(super) fn token(file: Option<&std::path::Path>) -> Result<Option<String>> {
    let Some(path) = file else {
        let variable = std::env::var(TOKEN_VARIABLE).ok();
        return Ok(variable.map(|it| it.trim().to_owned()).filter(|token| !token.is_empty()));
    };
    let text = std::fs::read_to_string(path).map_err(shard::Error::io("read", path))?;
    match text.trim() {
        "" => Err(Error::Job {
            place: path.display().to_string(),
            message: "the file holds no token".to_owned(),
            hint: Some("make one with `openssl rand -hex 32`".to_owned()),
        }),
        token => Ok(Some(token.to_owned())),
    }
}

/// What every request finds.
struct Worker {
    tokens: Tokens,
    threads: usize,
    memory: Option<u64>,
    talk: Talk,
    stop: watch::Receiver<bool>,
    /// Where units run: their threads are not those that answer.
    units: tokio::runtime::Handle,
    turns: Arc<Semaphore>,
    /// The newest jobs and stages, last used last.
    plans: Mutex<VecDeque<(String, Arc<Plan>)>>,
    stages: Mutex<VecDeque<(String, Arc<dyn Stage>)>>,
}

/// Serves until `stop` says so. Units that run then are lost, and run elsewhere.
///
/// # Errors
/// When the worker may not or cannot listen there, or a file cannot be read.
pub async fn serve(
    arguments: &WorkerArguments,
    stop: watch::Receiver<bool>,
    talk: Talk,
    is_json: bool,
) -> Result<ExitCode> {
    let mut tokens = Tokens::default();
    if let Some(token) = token(arguments.token_file.as_deref())? {
        tokens.add(&token)?;
    }
    if let Some(path) = &arguments.tokens {
        tokens.read(path, &std::collections::BTreeSet::new())?;
    }
    if tokens.is_empty() && !arguments.listen.ip().is_loopback() {
        return Err(Error::Job {
            place: "--listen".to_owned(),
            message: format!(
                "`{}` can be reached from other machines, and there is no token",
                arguments.listen
            ),
            hint: Some("set GRISTMILL_TOKEN or `--token-file`".to_owned()),
        });
    }
    let memory = arguments.memory.as_ref().map(|text| {
        let bytes = text.parse::<crate::job::Bytes>();
        bytes.map(|bytes| bytes.0).map_err(|message| Error::Job {
            place: "--memory".to_owned(),
            message,
            hint: None,
        })
    });
    let acceptor = match (&arguments.tls_certificate, &arguments.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(tls::acceptor(certificate, key, arguments.tls_clients.as_deref())?)
        }
        _ => None,
    };
    let threads = arguments.threads.unwrap_or_else(|| crate::session::Limits::standard().threads);
    let threads = threads.max(1);
    let units = tokio::runtime::Builder::new_multi_thread()
        .thread_name("unit")
        .worker_threads(threads + 1)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(shard::Error::io("start", "the threads of units"))?;
    let worker = Arc::new(Worker {
        tokens,
        threads,
        memory: memory.transpose()?,
        talk,
        stop: stop.clone(),
        units: units.handle().clone(),
        turns: Arc::new(Semaphore::new(threads)),
        plans: Mutex::default(),
        stages: Mutex::default(),
    });
    let build = build()?;
    let failed = || shard::Error::io("listen on", arguments.listen.to_string());
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    let url = format!("{}://{address}", if acceptor.is_some() { "https" } else { "http" });
    match is_json {
        true => command::print_json(&json!({ "url": url, "build": build, "threads": threads }))?,
        false => command::print(&format!("{url}\n"))?,
    };
    talk.say(format!("worker {build}, {threads} units at a time; Ctrl-C stops"));
    let app = routes(worker);
    let mut stop = stop;
    let stopped = async move {
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let serving = async {
        match acceptor {
            None => axum::serve(listener, app).into_future().await,
            Some(acceptor) => {
                axum::serve(tls::TlsListener::new(listener, acceptor)?, app).into_future().await
            }
        }
    };
    tokio::select! {
        result = serving => result.map_err(shard::Error::io("serve", "units"))?,
        () = stopped => {}
    }
    talk.say("stopped");
    units.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn routes(worker: Arc<Worker>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/worker", get(about))
        .route("/v1/stages/{stage}", put(open))
        .route("/v1/stages/{stage}/units", post(run))
        .layer(middleware::from_fn_with_state(Arc::clone(&worker), let_in))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state(worker)
}

async fn let_in(State(worker): State<Arc<Worker>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/healthz" {
        return next.run(request).await;
    }
    if request.headers().contains_key(ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "pages of the web cannot ask a worker");
    }
    match worker.tokens.asker(request.headers()) {
        Ok(_) => next.run(request).await,
        Err(denied) => refuse(StatusCode::UNAUTHORIZED, denied.message()),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

async fn about(State(worker): State<Arc<Worker>>) -> Response {
    match build() {
        Ok(build) => {
            let about = About { build: build.to_owned(), threads: worker.threads };
            json!(about).to_string().into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Makes a stage ready for its units, unless it is.
async fn open(
    State(worker): State<Arc<Worker>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    if hash(&body) != name {
        return refuse(StatusCode::BAD_REQUEST, "the stage came damaged: its hash is another");
    }
    let request: StageRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match build() {
        Ok(own) if own == request.build => {}
        Ok(own) => {
            let message = format!("this worker is {own}, the coordinator is {}", request.build);
            return refuse(StatusCode::CONFLICT, &message);
        }
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
    let at = Arc::clone(&worker);
    let open = move || {
        if kept(&at.stages, &name).is_none() {
            let stage = at.open(request)?;
            keep(&at.stages, name, stage);
        }
        Ok((Value::Null, Vec::new()))
    };
    let opened = worker.units.spawn_blocking(open);
    answer(AbortOnDrop(opened))
}

async fn run(State(worker): State<Arc<Worker>>, Path(name): Path<String>, body: Bytes) -> Response {
    let Some(stage) = kept(&worker.stages, &name) else {
        return refuse(StatusCode::NOT_FOUND, "the stage is not open here");
    };
    let request: UnitRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let turns = Arc::clone(&worker.turns);
    answer(AbortOnDrop(worker.units.spawn(async move {
        let _turn = turns.acquire_owned().await.expect("it is never closed");
        stage.run(request.index, request.unit).await
    })))
}

type Answer = (Value, Vec<StagedFile>);

/// A line each second while a task runs, and one of what it gave. A client that goes ends the task.
fn answer(task: AbortOnDrop<Result<Answer>>) -> Response {
    let lines = futures::stream::unfold(Some(task), |task| async {
        let mut task = task?;
        let (line, rest) = match tokio::time::timeout(HEARTBEAT, &mut task.0).await {
            Err(_) => (Line::Working, Some(task)),
            Ok(Ok(Ok((output, files)))) => (Line::Done { output, files }, None),
            Ok(Ok(Err(error))) => (Line::Failed { message: error.to_string() }, None),
            Ok(Err(error)) => (Line::Failed { message: format!("a unit broke: {error}") }, None),
        };
        let line = format!("{}\n", json!(line));
        Some((Ok::<_, Infallible>(line), rest))
    });
    Body::from_stream(lines.boxed()).into_response()
}

/// A stage whose units can be run here.
trait Stage: Send + Sync {
    fn run(&self, index: usize, unit: Value) -> BoxFuture<'static, Result<Answer>>;
}

struct Opened<W>(Arc<W>);

impl<W: Work> Stage for Opened<W> {
    fn run(&self, index: usize, unit: Value) -> BoxFuture<'static, Result<Answer>> {
        let work = Arc::clone(&self.0);
        async move {
            let unit: W::Unit = serde_json::from_value(unit).map_err(|error| Error::Job {
                place: format!("unit {index} of `{}`", W::STAGE),
                message: error.to_string(),
                hint: None,
            })?;
            work.check(&unit)?;
            let output = work.run(index, unit).await?;
            let files = staged_files(&output)?;
            Ok((json!(output), files))
        }
        .boxed()
    }
}

impl Worker {
    fn open(&self, request: StageRequest) -> Result<Arc<dyn Stage>> {
        let name = hash(format!("{}\n{}", request.path.display(), request.job).as_bytes());
        let plan = match kept(&self.plans, &name) {
            Some(plan) => plan,
            None => {
                let wrong = |error: toml::de::Error| Error::Job {
                    place: request.path.display().to_string(),
                    message: error.to_string(),
                    hint: None,
                };
                let job = toml::from_str(&request.job).map_err(wrong)?;
                let job = LoadedJob { path: request.path.clone(), job };
                let options = Options {
                    threads: self.threads,
                    talk: Talk::Quiet,
                    stop: self.stop.clone(),
                    train: false,
                    cluster: None,
                    memory: self.memory,
                };
                let plan = Arc::new(Plan::resolve(job, &options)?);
                keep(&self.plans, name, Arc::clone(&plan));
                plan
            }
        };
        self.talk.say(format!("{:>12}  {}", request.stage, request.path.display()));
        open_stage(&request.stage, &plan, request.inputs)
    }
}

fn open_stage(stage: &str, plan: &Plan, inputs: Inputs) -> Result<Arc<dyn Stage>> {
    fn opened<W: Work>(plan: &Plan, inputs: Inputs) -> Result<Arc<dyn Stage>> {
        Ok(Arc::new(Opened(Arc::new(W::open(plan, inputs)?))))
    }
    let open = match stage {
        Reading::STAGE => opened::<Reading>,
        Signing::STAGE => opened::<Signing>,
        Spilling::STAGE => opened::<Spilling>,
        Searching::STAGE => opened::<Searching>,
        Writing::STAGE => opened::<Writing>,
        Scanning::STAGE => opened::<Scanning>,
        Judging::STAGE => opened::<Judging>,
        Turning::STAGE => opened::<Turning>,
        Learning::STAGE => opened::<Learning>,
        Encoding::STAGE => opened::<Encoding>,
        Sorting::STAGE => opened::<Sorting>,
        other => {
            return Err(Error::Job {
                place: "stage".to_owned(),
                message: format!("this program has no stage `{other}`"),
                hint: Some("run the same program on all machines".to_owned()),
            });
        }
    };
    open(plan, inputs)
}

type Newest<T> = Mutex<VecDeque<(String, Arc<T>)>>;

fn kept<T: ?Sized>(newest: &Newest<T>, name: &str) -> Option<Arc<T>> {
    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
    let at = newest.iter().position(|(known, _)| known == name)?;
    let found = newest.remove(at)?;
    let value = Arc::clone(&found.1);
    newest.push_back(found);
    Some(value)
}

fn keep<T: ?Sized>(newest: &Newest<T>, name: String, value: Arc<T>) {
    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
    newest.push_back((name, value));
    if newest.len() > STAGES {
        newest.pop_front();
    }
}
