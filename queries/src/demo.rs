//! The whole way in one command: a site is served on loopback, crawled, milled, trained on and asked about.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use clap::Args;
use serde_json::json;

use crate::job::LoadedJob;
use crate::output::Format;
use crate::progress::Talk;
use crate::run::{self, Options, program};
use crate::session::Limits;
use crate::{Error, Result, catalog, command, shell};

/// Where the pages are served, unless another program has the port: then the system chooses one.
const PORT: u16 = 8707;

/// What the demo works on.
#[derive(Clone, Debug, Args)]
pub struct DemoArguments {
    /// The job; its first crawl seed is served from the folder `site` beside it.
    #[arg(long, default_value = "examples/demo/job.toml")]
    job: PathBuf,
    /// Threads of the engine [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Override a key of the job.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl DemoArguments {
    pub(crate) fn threads(&self) -> Option<usize> {
        self.threads
    }
}

/// Questions worth asking, in the order of the way through.
const QUESTIONS: [(&str, &str); 5] = [
    (
        "Where do the documents come from?",
        "select source, kind, count(*) as documents, sum(octet_length(text)) as bytes \
         from documents group by source, kind order by bytes desc",
    ),
    (
        "Why were records dropped?",
        "select step, reason, count(*) as records, min(coalesce(url, locator)) as example \
         from dropped group by step, reason order by records desc, step, reason limit 10",
    ),
    (
        "Which documents are copies, and of what?",
        "select d.method, round(d.similarity, 3) as similarity, coalesce(a.url, a.locator) as document, \
         coalesce(b.url, b.locator) as kept from duplicates d join documents a on a.id = d.id \
         join documents b on b.id = d.kept_id order by d.method, document limit 8",
    ),
    (
        "How did the model learn?",
        "select step, round(value, 3) as nats_per_token, round(exp(value), 1) as held_out_perplexity \
         from metrics where name = 'validation/loss' order by step",
    ),
    (
        "Which documents did steps 10 to 12 see?",
        "select step, count(*) as parts, sum(n_tokens) as tokens, min(coalesce(url, locator)) as example \
         from trained_on('runs/gpt-tiny', 10, 12) group by step order by step",
    ),
];

/// Runs the demo.
///
/// # Errors
/// When the input is not there, or the first error of a stage.
pub async fn run(arguments: &DemoArguments, options: Options, is_json: bool) -> Result<ExitCode> {
    let folder = arguments.job.parent().unwrap_or(Path::new("."));
    let site = folder.join("site");
    if !site.is_dir() {
        return Err(Error::Shard(shard::Error::Missing {
            what: format!("the demo's pages in `{}`", site.display()),
            hint: "run it in a clone of the repository, or name a job with `--job`".to_owned(),
        }));
    }
    let talk = options.talk;
    let address = serve(site).await?;
    let mut overrides = arguments.set.clone();
    overrides.push(format!("crawl.seeds=[\"http://{address}/index.html\"]"));
    let job = LoadedJob::load(&arguments.job, &overrides)?;
    let corpus = job.corpus();
    let summary = run::run(job, options).await?;
    talk.say(summary.show());
    let model = summary.run.clone();
    let sample = match &model {
        Some(run) => Some(generate(run)?),
        None => None,
    };
    if let Some(sample) = &sample {
        talk.say(format!("\nA sample of the model:\n{sample}"));
    }
    let ctx = catalog::open(&corpus, Limits::standard()).await?;
    let mut answers = Vec::new();
    for (question, query) in QUESTIONS {
        if is_json {
            let rows: Vec<serde_json::Value> = shell::rows(&ctx, query).await?;
            answers.push(json!({ "question": question, "sql": query, "rows": rows }));
        } else {
            command::print(&format!("\n-- {question}\n{query};\n"))?;
            shell::execute(&ctx, query, Format::Table, &mut io::stdout()).await?;
        }
    }
    if is_json {
        return command::print_json(
            &json!({ "summary": summary, "sample": sample, "answers": answers }),
        );
    }
    next_steps(talk, &corpus, model.as_deref());
    Ok(ExitCode::SUCCESS)
}

fn next_steps(talk: Talk, corpus: &Path, model: Option<&Path>) {
    let corpus = corpus.display();
    talk.say(format!("\nAsk more:      gristmill sql --corpus {corpus}"));
    if let Some(model) = model {
        let model = model.display();
        talk.say(format!(
            "Write more:    gristmill generate {model} --prompt \"The database file is\""
        ));
    }
    talk.say("Your own data: copy examples/demo/job.toml and run it with `gristmill run`");
}

fn generate(run: &Path) -> Result<String> {
    let program = program("gristmill-train")?;
    let output = Command::new(&program)
        .arg("generate")
        .arg(run)
        .args(["--prompt", "The database file is", "--tokens", "60"])
        .output()
        .map_err(shard::Error::io("run", &program))?;
    if !output.status.success() {
        return Err(Error::Program {
            program: format!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr)),
            status: output.status,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Serves `site` on loopback until the process ends.
async fn serve(site: PathBuf) -> Result<SocketAddr> {
    let listen = |port| tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match listen(PORT).await {
        Ok(listener) => listener,
        Err(_) => listen(0).await.map_err(shard::Error::io("listen on", "127.0.0.1"))?,
    };
    let address = listener.local_addr().map_err(shard::Error::io("listen on", "127.0.0.1"))?;
    let app = Router::new().fallback(page).with_state(site);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// Answers with a file of the site; nothing outside of it has a name here.
async fn page(State(site): State<PathBuf>, uri: Uri) -> Response {
    let name = uri.path().trim_start_matches('/');
    let is_plain = name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if !is_plain {
        return StatusCode::NOT_FOUND.into_response();
    }
    let content_type = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "txt")) => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let path = site.join(name);
    match tokio::task::spawn_blocking(move || std::fs::read(path)).await {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, content_type)], bytes).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
