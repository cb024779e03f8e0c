//! `gristmill serve sql`: questions over HTTP and Arrow Flight SQL, on one port, read-only and bounded.
//!
//! ```text
//! connection ─ TLS ─▶ guard (token) ─▶ http │ flight ─▶ service (turn, tables, limits) ─▶ statement ─▶ engine
//! ```
//!
//! Questions run on threads of their own, so a heavy one never keeps the connections waiting.

mod audit;
mod dashboard;
mod flight;
mod guard;
mod http;
mod meter;
mod openapi;
mod service;
pub(crate) mod tls;
pub(crate) mod token;

use std::collections::BTreeSet;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use clap::Args;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use serde_json::json;
use tokio::sync::watch;

use self::audit::Audit;
use self::guard::Peer;
use self::service::{Corpus, Parts, Service};
use self::token::Tokens;
use crate::job::Bytes;
use crate::limit::QuestionLimits;
use crate::progress::Talk;
use crate::{Error, Result, command};

/// Where `--token` may be instead: arguments are seen by every user of the machine.
pub(crate) const TOKEN_VARIABLE: &str = "GRISTMILL_TOKEN";
/// Stack of the threads that questions run on. It bounds, with the shape of statements, how deep a plan can be.
pub(crate) const STACK_BYTES: usize = 64 << 20;
/// Bytes that operators may spill to disk.
const SPILL_BYTES: u64 = 16 << 30;

/// Arguments of `gristmill serve sql`.
#[derive(Clone, Debug, Args)]
pub struct ServeArguments {
    /// Folders of corpora, `PATH` or `NAME=PATH`; tables without a schema are those of the first.
    #[arg(required = true)]
    corpora: Vec<String>,
    /// Address and port; port 0 takes a free one. Beyond loopback a token is needed.
    #[arg(long, default_value = "127.0.0.1:7780")]
    listen: SocketAddr,
    /// A token that opens everything; better given by the environment as `GRISTMILL_TOKEN`.
    #[arg(long)]
    token: Option<String>,
    /// A TOML file of `[[token]]` with `name`, `blake3`, and if wanted `expires` and `corpora`.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Certificates in PEM: serve TLS.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of the first certificate in PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Memory of all questions together; beyond it operators spill, or the question is stopped.
    #[arg(long, default_value = "512MiB")]
    memory: String,
    /// Seconds of a question.
    #[arg(long, default_value_t = 30.0)]
    max_seconds: f64,
    /// Rows of an answer.
    #[arg(long, default_value_t = 100_000)]
    max_rows: u64,
    /// Bytes of an answer.
    #[arg(long, default_value = "64MiB")]
    max_bytes: String,
    /// Questions that run at once; others wait for their turn [default: four per core].
    #[arg(long)]
    max_questions: Option<usize>,
    /// A file that a line of JSON is appended to for every question.
    #[arg(long)]
    audit: Option<PathBuf>,
}

/// What every request finds.
#[derive(Debug)]
struct Server {
    service: Arc<Service>,
    tokens: Tokens,
    address: SocketAddr,
    /// Whether connections are encrypted.
    is_secure: bool,
}

/// Serves until `stop` says so, then lets the questions that run end.
///
/// # Errors
/// When the server may not or cannot listen there, a corpus is not there, or a file cannot be read.
pub async fn serve(
    arguments: &ServeArguments,
    threads: usize,
    stop: watch::Receiver<bool>,
    talk: Talk,
    is_json: bool,
) -> Result<ExitCode> {
    let corpora = arguments.corpora.iter().map(|it| corpus(it)).collect::<Result<Vec<_>>>()?;
    let names: BTreeSet<String> = corpora.iter().map(|corpus| corpus.name.clone()).collect();
    if names.len() < corpora.len() {
        return Err(wrong(
            "CORPORA",
            "two corpora have one name",
            "name them: `new=path/to/corpus`",
        ));
    }
    let tokens = arguments.read_tokens(&names)?;
    if tokens.is_empty() && !arguments.listen.ip().is_loopback() {
        return Err(wrong(
            "--listen",
            format!(
                "`{}` can be reached from other machines, and there is no token",
                arguments.listen
            ),
            "set GRISTMILL_TOKEN or `--tokens`, or listen on 127.0.0.1",
        ));
    }
    let tls = match (&arguments.tls_certificate, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key, None)?),
        _ => None,
    };
    let is_secure = tls.is_some();
    let workers = tokio::runtime::Builder::new_multi_thread()
        .thread_name("question")
        // More than cores: the system shares them between light and heavy questions.
        .worker_threads(2 * threads + 4)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(shard::Error::io("start", "the threads of questions"))?;
    let limits = arguments.limits()?;
    let service = Service::new(arguments.parts(corpora, threads, limits, &workers)?);
    let service = Arc::new(service);
    // What cannot be asked is told before anybody can.
    service.context(&token::Asker::anyone()).await?;
    let failed = || shard::Error::io("listen on", arguments.listen.to_string());
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    let server = Arc::new(Server { service: Arc::clone(&service), tokens, address, is_secure });
    let url = format!("{}://{address}", if is_secure { "https" } else { "http" });
    let flight = format!("{}://{address}", if is_secure { "grpc+tls" } else { "grpc" });
    match is_json {
        true => command::print_json(&json!({ "url": url, "flight": flight }))?,
        false => command::print(&format!("{url}\n"))?,
    };
    talk.say(format!("serving {names:?}; Flight SQL: {flight}; Ctrl-C stops"));
    let patience = http::patience(limits);
    match tls {
        None => run(listener, server, stop, patience).await?,
        Some(acceptor) => {
            let listener = tls::TlsListener::new(listener, acceptor).map_err(failed())?;
            run(listener, server, stop, patience).await?;
        }
    }
    talk.say("stopped");
    workers.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn run<L>(
    listener: L,
    server: Arc<Server>,
    stop: watch::Receiver<bool>,
    patience: Duration,
) -> Result<()>
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let flight = flight::routes(Arc::clone(&server.service));
    let app = http::routes(server, flight);
    let app = app.into_make_service_with_connect_info::<Peer>();
    let stopped = asked_to_stop(stop.clone());
    let serving = axum::serve(listener, app).with_graceful_shutdown(stopped);
    let out_of_patience = async {
        asked_to_stop(stop).await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        result = serving.into_future() => Ok(result.map_err(shard::Error::io("serve", "questions"))?),
        // Connections that nobody closes.
        () = out_of_patience => Ok(()),
    }
}

async fn asked_to_stop(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process watches for signals.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl ServeArguments {
    fn limits(&self) -> Result<QuestionLimits> {
        if !(self.max_seconds > 0.0 && self.max_seconds <= 86_400.0) {
            let message = format!("{} is no number of seconds of a day", self.max_seconds);
            return Err(wrong("--max-seconds", message, "30 is the default"));
        }
        Ok(QuestionLimits {
            time: Duration::from_secs_f64(self.max_seconds),
            rows: self.max_rows,
            bytes: bytes("--max-bytes", &self.max_bytes)?,
        })
    }

    fn parts(
        &self,
        corpora: Vec<Corpus>,
        threads: usize,
        limits: QuestionLimits,
        workers: &tokio::runtime::Runtime,
    ) -> Result<Parts> {
        let memory = bytes("--memory", &self.memory)?;
        let pool = FairSpillPool::new(usize::try_from(memory).unwrap_or(usize::MAX));
        let engine = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_max_temp_directory_size(SPILL_BYTES)
            .build_arc()?;
        Ok(Parts {
            corpora,
            engine,
            threads,
            limits,
            value_bytes: memory / 8,
            turns: self.max_questions.unwrap_or(4 * threads).max(1),
            workers: workers.handle().clone(),
            audit: self.audit.as_deref().map(Audit::open).transpose()?,
        })
    }

    fn read_tokens(&self, corpora: &BTreeSet<String>) -> Result<Tokens> {
        let mut tokens = Tokens::default();
        let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        if let Some(token) = self.token.clone().or(variable) {
            tokens.add(token.trim())?;
        }
        if let Some(path) = &self.tokens {
            tokens.read(path, corpora)?;
        }
        Ok(tokens)
    }
}

fn wrong(place: &str, message: impl Into<String>, hint: &str) -> Error {
    Error::Job { place: place.to_owned(), message: message.into(), hint: Some(hint.to_owned()) }
}

fn bytes(place: &str, text: &str) -> Result<u64> {
    let bytes: Bytes =
        text.parse().map_err(|message: String| wrong(place, message, "write 512MiB"))?;
    Ok(bytes.0)
}

/// `NAME=PATH`, or a path whose last folder is the name.
fn corpus(argument: &str) -> Result<Corpus> {
    let named = argument.split_once('=');
    let path = PathBuf::from(named.map_or(argument, |(_, path)| path));
    if !shard::store::is_object(&path) && !path.is_dir() {
        return Err(Error::Shard(shard::Error::Missing {
            what: format!("the corpus `{}`", path.display()),
            hint: "name the `output` folder of a job".to_owned(),
        }));
    }
    let name = match named {
        Some((name, _)) => name.to_owned(),
        None => folder_name(&path)?,
    };
    let is_plain =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let is_taken = matches!(name.as_str(), "" | "public" | "information_schema");
    if !is_plain || is_taken {
        return Err(wrong(
            "CORPORA",
            format!("`{name}` is no name of a schema"),
            "name it in lower-case letters, digits and `_`: `name=path/to/corpus`",
        ));
    }
    Ok(Corpus { name, path })
}

fn folder_name(path: &Path) -> Result<String> {
    let whole = match shard::store::is_object(path) {
        true => path.to_owned(),
        false => path.canonicalize().map_err(shard::Error::io("find", path))?,
    };
    let name = whole.file_name().map(|name| name.to_string_lossy().to_lowercase());
    Ok(name.unwrap_or_default().replace(['-', '.', ' '], "_"))
}
