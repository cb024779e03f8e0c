//! The verbs of the command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use ingest::crawl::{CrawlConfig, Scope};
use serde_json::json;
use shard::schema::DatasetKind;
use shard::{Dataset, store};

use crate::classifier::{self, TrainArguments};
use crate::cluster::{ClusterArguments, WorkerArguments, worker};
use crate::commoncrawl::{self, CommonCrawlArguments};
use crate::job::LoadedJob;
use crate::output::Format;
use crate::progress::Talk;
use crate::run::{self, Options, Plan};
use crate::server::{self, ServeArguments};
use crate::session::Limits;
use crate::stage::takedowns::Takedowns;
use crate::{
    Error, Result, catalog, decontaminate, demo, function, interchange, record, report, sequences,
    shell, takedown, verify,
};

/// Mills raw text into datasets of tokens, and answers SQL about every document on the way.
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Print no progress.
    #[arg(long, global = true)]
    quiet: bool,
    /// Print results as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Crawl a site that ships with Gristmill, make a corpus of it, train a small model and ask SQL about both.
    Demo(demo::DemoArguments),
    /// Run a job file, or go on with it where it was stopped.
    ///
    /// Example: gristmill run job.toml --set memory='"4GiB"'
    Run {
        #[command(flatten)]
        job: JobArguments,
        /// Show the plan and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Stop before `[train]`.
        #[arg(long)]
        no_train: bool,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Show the plan of a job file.
    Explain {
        #[command(flatten)]
        job: JobArguments,
    },
    /// Fetch pages into WARC files, politely, or go on with a crawl that was stopped.
    ///
    /// Example: gristmill crawl https://www.example.org/ --output raw --max-pages 100
    Crawl(CrawlArguments),
    /// Fetch records of Common Crawl that an index names into WARC files, or go on with them.
    ///
    /// Example: gristmill commoncrawl cdx-00000.parquet --where "content_languages = 'fin'" --max-records 1000
    #[command(name = "commoncrawl")]
    CommonCrawl(CommonCrawlArguments),
    /// Read PDF files for another process: what the source `pdf` starts.
    #[command(name = "pdf-worker", hide = true)]
    PdfWorker,
    /// Ask SQL about a corpus; without `--command` or `--file`, in a shell.
    ///
    /// Example: gristmill sql --corpus demo/corpus -c "select reason, count(*) from dropped group by reason"
    Sql(SqlArguments),
    /// Answer questions of other programs.
    Serve {
        #[command(subcommand)]
        what: Served,
    },
    /// Run jobs on several machines.
    Cluster {
        #[command(subcommand)]
        what: Clustered,
    },
    /// Show a dataset's manifest, or everything known of one document.
    ///
    /// Example: gristmill inspect demo/corpus/tokens; gristmill inspect --corpus demo/corpus 0f3a…
    Inspect {
        /// A dataset's folder, or a document's id in hexadecimal.
        what: String,
        /// The corpus that is searched for the document.
        #[arg(long, default_value = "corpus")]
        corpus: PathBuf,
        /// Print the document's record as it stands in its file, inflated; with `--json` also the text that its source read.
        #[arg(long)]
        raw: bool,
        /// The job that made the corpus, for `--raw`: its paths begin in its folder [default: the folder of the corpus].
        #[arg(long)]
        job: Option<PathBuf>,
    },
    /// Show what each step of a job dropped, why, at what cost, with samples, as a page of HTML.
    Report {
        /// The corpus.
        #[arg(default_value = "corpus")]
        corpus: PathBuf,
        /// Where the page goes [default: report.html in the corpus].
        #[arg(long)]
        output: Option<PathBuf>,
        /// Dropped documents shown per step.
        #[arg(long, default_value_t = 20)]
        samples: usize,
    },
    /// Say which items of evaluation sets a dataset holds, in which documents, and which steps of a run saw them.
    ///
    /// Exit code 1 when there are any. Example: gristmill decontaminate corpus/tokens --benchmarks benchmarks.toml --run runs/gpt
    Decontaminate {
        /// A dataset of documents or tokens.
        dataset: PathBuf,
        /// A TOML file with the keys of a job's `[decontaminate]`.
        #[arg(long)]
        benchmarks: PathBuf,
        /// A training run on the dataset of tokens.
        #[arg(long)]
        run: Option<String>,
        /// Threads [default: all cores].
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Check every file that the versions of a corpus, or of one dataset, name: manifests, shards, tokenizers.
    ///
    /// Exit code 1 when one is not what it should be. Example: gristmill verify demo/corpus --deep
    Verify {
        /// A corpus or dataset.
        path: PathBuf,
        /// Decode every row, too: columns, counts, lengths, ids, parents.
        #[arg(long)]
        deep: bool,
        /// First put right what can be: shards under each other's names change back; other damaged files go to the
        /// folder `damaged`, so that running the job again makes them anew.
        #[arg(long)]
        repair: bool,
    },
    /// Remove files that no version of a dataset names: what killed runs left behind.
    Clean {
        /// A corpus or dataset.
        path: PathBuf,
    },
    /// Take documents out of a corpus for good, and say which shards, steps and checkpoints saw them.
    ///
    /// Exit code 1 when an id is unknown. Example: gristmill takedown corpus --ids ids.txt --reason "letter of 3 May"
    Takedown(takedown::TakedownArguments),
    /// Print the sequences of a dataset of tokens as a trainer sees them, one JSON object per line.
    ///
    /// Example: gristmill read demo/corpus/tokens --seq-len 256 --batches 1 --batch 8
    Read(sequences::ReadArguments),
    /// Write a dataset of tokens as the files of another library.
    ///
    /// Example: gristmill export demo/corpus/tokens --format megatron --output megatron
    Export(interchange::ExportArguments),
    /// Make a dataset of the tokens in another library's files.
    ///
    /// Example: gristmill import openwebtext --format nanogpt --tokenizer gpt2/tokenizer.json --output tokens
    Import(interchange::ImportArguments),
    /// Make a filter of your own.
    Classifier {
        #[command(subcommand)]
        what: Classified,
    },
    /// List what can be named in a job, in SQL, or as another library's format.
    List {
        /// `sources`, `steps`, `dedup`, `functions`, `exports` or `imports`; all of them, without it.
        what: Option<String>,
        /// Print the reference page in Markdown.
        #[arg(long)]
        reference: bool,
        /// Print the page about the format of datasets in Markdown.
        #[arg(long)]
        format: bool,
    },
    /// Train a model: `gristmill-train train`.
    #[command(disable_help_flag = true)]
    Train(Passed),
    /// Continue a text with a trained model: `gristmill-train generate`.
    #[command(disable_help_flag = true)]
    Generate(Passed),
    /// Talk with a tuned model by its own chat template: `gristmill-train chat`.
    #[command(disable_help_flag = true)]
    Chat(Passed),
    /// Write a model with its adapter merged into it: `gristmill-train merge`.
    #[command(disable_help_flag = true)]
    Merge(Passed),
}

#[derive(Debug, Subcommand)]
enum Served {
    /// SQL over HTTP and Arrow Flight SQL, read-only and bounded, with a dashboard, on one port.
    ///
    /// Prints its address. Example: gristmill serve sql demo/corpus; curl 127.0.0.1:7780/query -d 'select count(*) from documents'
    Sql(ServeArguments),
}

#[derive(Debug, Subcommand)]
enum Clustered {
    /// Run units of jobs that `gristmill run --cluster` hands out, until it is stopped.
    ///
    /// Prints its address. Example: gristmill cluster worker --listen 0.0.0.0:7790 --token-file token
    Worker(WorkerArguments),
}

#[derive(Debug, Subcommand)]
enum Classified {
    /// Train a fastText classifier from the texts of two queries; the step `classifier` takes it as `model`.
    ///
    /// Example: gristmill classifier train --positive "select text from documents where kind = 'book'"
    /// --negative "select text from documents where kind = 'web'" --output books.bin
    Train(Box<TrainArguments>),
}

#[derive(Debug, Args)]
struct JobArguments {
    /// The job file.
    job: PathBuf,
    /// Override a key of the job: `memory='"4GiB"'`, `shard.tokenizer='"train:bpe:8000"'`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads of the engine [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, Args)]
struct CrawlArguments {
    /// Where to start.
    #[arg(required = true)]
    seeds: Vec<String>,
    /// Folder of the WARC segments and the journal.
    #[arg(long, default_value = "raw")]
    output: PathBuf,
    /// Which links are followed: `host`, `prefix` or `hosts` (those of `--host`).
    #[arg(long, default_value = "host")]
    scope: String,
    /// A host to follow links to, with its subdomains.
    #[arg(long = "host")]
    hosts: Vec<String>,
    /// Pages, at most [default: 10000].
    #[arg(long)]
    max_pages: Option<u64>,
    /// Links from a seed, at most [default: 20].
    #[arg(long)]
    max_depth: Option<u32>,
    /// Seconds between requests to one host [default: 1].
    #[arg(long)]
    delay: Option<f64>,
    /// Fetch from addresses that are not public, too.
    #[arg(long)]
    allow_private: bool,
}

#[derive(Debug, Args)]
struct SqlArguments {
    /// The corpus.
    #[arg(long, default_value = "corpus")]
    corpus: PathBuf,
    /// Statements to run, divided by `;`.
    #[arg(short, long)]
    command: Option<String>,
    /// A file of statements to run.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, default_value = "table")]
    format: Format,
    /// A file that results go to instead of standard output; it is there when all of them are.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Memory of the engine.
    #[arg(long, default_value = "2GiB")]
    memory: String,
}

#[derive(Debug, Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Arguments {
    /// What the job that is to be run may use; none for every other verb, and for a job that cannot be read.
    #[must_use]
    pub fn job_limits(&self) -> Option<Limits> {
        let Verb::Run { job, dry_run: false, .. } = &self.verb else { return None };
        let memory = LoadedJob::load(&job.job, &job.set).ok()?.job.memory.0;
        let threads = job.threads.unwrap_or_else(|| Limits::standard().threads);
        Some(Limits { memory, threads })
    }
}

/// Threads for waiting on files beside one for each unit that is running: each keeps memory that it freed.
const BLOCKING_THREADS: usize = 4;

/// Runs a verb to its end and returns the process's exit code.
///
/// # Errors
/// What the verb could not do.
pub fn execute(arguments: Arguments) -> Result<ExitCode> {
    let talk = Talk::new(arguments.quiet);
    let is_json = arguments.json;
    match arguments.verb {
        Verb::Train(passed) => return pass_on("train", &passed, is_json),
        Verb::Generate(passed) => return pass_on("generate", &passed, is_json),
        Verb::Chat(passed) => return pass_on("chat", &passed, is_json),
        Verb::Merge(passed) => return pass_on("merge", &passed, is_json),
        Verb::PdfWorker => {
            let served = ingest::source::pdf_worker();
            served.map_err(shard::Error::io("write", "standard output"))?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::List { format: true, .. } => return print(&shard::format::page()),
        Verb::List { what, reference, .. } => return list(what.as_deref(), reference, is_json),
        Verb::Read(arguments) => return sequences::read(&arguments),
        Verb::Export(arguments) => return interchange::export(&arguments, talk, is_json),
        Verb::Import(arguments) => return interchange::import(&arguments, talk, is_json),
        Verb::Verify { path, deep, repair } => {
            let report = verify::verify(&path, deep, repair, talk)?;
            if is_json {
                print_json(&report)?;
            }
            return Ok(ExitCode::from(u8::from(!report.failures.is_empty())));
        }
        Verb::Clean { path } => return clean(&path, is_json),
        Verb::Decontaminate { dataset, benchmarks, run, threads } => {
            let threads = threads.unwrap_or_else(|| Limits::standard().threads);
            let run = run.as_deref();
            let report = decontaminate::report(&dataset, &benchmarks, run, threads, talk)?;
            match is_json {
                true => print_json(&report)?,
                false => print(&report.show())?,
            };
            return Ok(ExitCode::from(u8::from(report.n_contaminated > 0)));
        }
        _ => {}
    }
    let threads = match &arguments.verb {
        Verb::Run { job, .. } | Verb::Explain { job } => job.threads,
        Verb::Demo(demo) => demo.threads(),
        _ => None,
    };
    let threads = threads.unwrap_or_else(|| Limits::standard().threads).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One more than are ever busy, so that a signal is seen at once.
        .worker_threads(threads + 1)
        .thread_stack_size(server::STACK_BYTES)
        .max_blocking_threads(threads + BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(shard::Error::io("start", "the runtime"))?;
    runtime.block_on(async {
        let (sender, stop) = tokio::sync::watch::channel(false);
        let is_shell = matches!(&arguments.verb, Verb::Sql(_));
        if !is_shell {
            tokio::spawn(watch_signals(sender, talk));
        }
        let options = Options { threads, talk, stop, train: true, cluster: None, memory: None };
        match arguments.verb {
            Verb::Demo(arguments) => demo::run(&arguments, options, is_json).await,
            Verb::Run { job, dry_run: true, .. } | Verb::Explain { job } => {
                let plan = Plan::resolve(LoadedJob::load(&job.job, &job.set)?, &options)?;
                let shown = plan.show()?;
                match is_json {
                    true => print_json(&json!({ "plan": shown })),
                    false => print(&shown),
                }
            }
            Verb::Run { job, no_train, cluster, .. } => {
                let mut loaded = LoadedJob::load(&job.job, &job.set)?;
                let cluster = cluster.connect(&mut loaded, talk).await?;
                let options = Options { train: !no_train, cluster, ..options };
                let summary = run::run(loaded, options).await?;
                talk.say(summary.show());
                match is_json {
                    true => print_json(&summary),
                    false => Ok(ExitCode::SUCCESS),
                }
            }
            Verb::Crawl(arguments) => {
                let summary = run::crawl(&crawl_config(&arguments)?, &options).await?;
                match is_json {
                    true => print_json(&summary),
                    false => Ok(ExitCode::SUCCESS),
                }
            }
            Verb::CommonCrawl(arguments) => {
                let progress = commoncrawl::run(&arguments, &options).await?;
                match is_json {
                    true => print_json(&progress),
                    false => Ok(ExitCode::SUCCESS),
                }
            }
            Verb::Serve { what: Served::Sql(arguments) } => {
                server::serve(&arguments, threads, options.stop, talk, is_json).await
            }
            Verb::Cluster { what: Clustered::Worker(arguments) } => {
                worker::serve(&arguments, options.stop, talk, is_json).await
            }
            Verb::Takedown(arguments) => takedown::takedown(&arguments, threads, is_json).await,
            Verb::Sql(arguments) => sql(&arguments, threads, is_json).await,
            Verb::Inspect { what, corpus, raw: true, job } => {
                raw(&what, &corpus, job.as_deref(), threads, is_json).await
            }
            Verb::Inspect { what, corpus, .. } => inspect(&what, &corpus, threads, is_json).await,
            Verb::Report { corpus, output, samples } => {
                let output = output.unwrap_or_else(|| corpus.join("report.html"));
                report(&corpus, &output, samples, threads, is_json).await
            }
            Verb::Classifier { what: Classified::Train(arguments) } => {
                let report = classifier::train_from(&arguments, threads).await?;
                match is_json {
                    true => print_json(&report),
                    false => print(&report.show()),
                }
            }
            _ => unreachable!("the other verbs have returned"),
        }
    })
}

/// Asks to stop at the first signal, and stops at the second.
async fn watch_signals(stop: tokio::sync::watch::Sender<bool>, talk: Talk) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    for count in 0.. {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if count > 0 {
            // The user insists: what is on disk is consistent at any moment.
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(130);
        }
        talk.say("stopping: finished parts are kept, press Ctrl-C again to stop at once");
        stop.send_replace(true);
    }
}

fn crawl_config(arguments: &CrawlArguments) -> Result<CrawlConfig> {
    let scope = match arguments.scope.as_str() {
        "host" => Scope::Host,
        "prefix" => Scope::Prefix,
        "hosts" => Scope::Hosts,
        other => {
            return Err(Error::Job {
                place: "--scope".to_owned(),
                message: format!("unknown scope `{other}`"),
                hint: Some("known are host, prefix and hosts".to_owned()),
            });
        }
    };
    let default = CrawlConfig::default();
    Ok(CrawlConfig {
        seeds: arguments.seeds.clone(),
        output: arguments.output.clone(),
        scope,
        hosts: arguments.hosts.clone(),
        max_pages: arguments.max_pages.unwrap_or(default.max_pages),
        max_depth: arguments.max_depth.unwrap_or(default.max_depth),
        delay_seconds: arguments.delay.unwrap_or(default.delay_seconds),
        allow_private: arguments.allow_private,
        ..default
    })
}

async fn sql(arguments: &SqlArguments, threads: usize, is_json: bool) -> Result<ExitCode> {
    let memory: crate::job::Bytes = arguments.memory.parse().map_err(|message| Error::Job {
        place: "--memory".to_owned(),
        message,
        hint: None,
    })?;
    let limits = Limits { memory: memory.0, threads };
    let ctx = catalog::open(&arguments.corpus, limits).await?;
    let statements = match (&arguments.command, &arguments.file) {
        (Some(command), _) => Some(command.clone()),
        (None, Some(file)) => {
            Some(std::fs::read_to_string(file).map_err(shard::Error::io("read", file))?)
        }
        (None, None) => None,
    };
    let format = if is_json { Format::Json } else { arguments.format };
    match statements {
        Some(statements) => match &arguments.output {
            None => {
                shell::execute(&ctx, &statements, format, &mut io::stdout()).await?;
            }
            Some(path) => {
                let mut rows = Vec::new();
                shell::execute(&ctx, &statements, format, &mut rows).await?;
                store::replace(path, &rows)?;
            }
        },
        None if arguments.output.is_some() => {
            return Err(Error::Job {
                place: "--output".to_owned(),
                message: "a shell has no results to keep".to_owned(),
                hint: Some("give the statements with `-c` or `-f`".to_owned()),
            });
        }
        None => shell::interact(&ctx, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn inspect(what: &str, corpus: &Path, threads: usize, is_json: bool) -> Result<ExitCode> {
    let dataset = Dataset::at(what);
    if let Some(snapshot) = dataset.newest()? {
        return print_json(&json!({
            "dataset": what,
            "version": snapshot.version,
            "versions": dataset.versions()?,
            "manifest_hash": snapshot.manifest_hash,
            "rows": snapshot.manifest.n_rows(),
            "manifest": snapshot.manifest,
        }));
    }
    let is_id = what.len() == 32 && what.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(Error::Shard(shard::Error::Missing {
            what: format!("a dataset in `{what}`"),
            hint: "name a dataset's folder, or a document's id of 32 hexadecimal digits".into(),
        }));
    }
    let ctx = catalog::open(corpus, Limits { threads, ..Limits::standard() }).await?;
    let format = if is_json { Format::Json } else { Format::Table };
    for table in ["documents", "dropped", "duplicates"] {
        let query = format!("select * from {table} where id = id_of('{what}')");
        if !is_json {
            print(&format!("{table}:\n"))?;
        }
        shell::execute(&ctx, &query, format, &mut io::stdout()).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn raw(
    id: &str,
    corpus: &Path,
    job: Option<&Path>,
    threads: usize,
    is_json: bool,
) -> Result<ExitCode> {
    let (corpus, folder) = match job {
        Some(job) => {
            let job = LoadedJob::load(job, &[])?;
            (job.origin().unwrap_or_else(|| job.corpus()), job.folder().to_owned())
        }
        None => {
            let above = corpus.parent().filter(|above| !above.as_os_str().is_empty());
            (corpus.to_owned(), above.unwrap_or(Path::new(".")).to_owned())
        }
    };
    let ctx = catalog::open(&corpus, Limits { threads, ..Limits::standard() }).await?;
    let record = record::read(&ctx, &corpus, &folder, id).await?;
    if is_json {
        return print_json(&record);
    }
    match record.raw {
        Some(bytes) => print_bytes(&bytes),
        None => Err(Error::Shard(shard::Error::Missing {
            what: format!("the bytes of `{}`", record.locator),
            hint: match record.reject {
                Some(reason) => format!("it was not read to its end: `{reason}`"),
                None => "`--json` shows what was read".to_owned(),
            },
        })),
    }
}

async fn report(
    corpus: &Path,
    output: &Path,
    samples: usize,
    threads: usize,
    is_json: bool,
) -> Result<ExitCode> {
    let ctx = catalog::open(corpus, Limits { threads, ..Limits::standard() }).await?;
    let report = report::make(&ctx, corpus, samples).await?;
    store::replace(output, report.html(&corpus.display().to_string()).as_bytes())?;
    match is_json {
        true => print_json(&report),
        false => print(&format!("{}{}\n", report.show(), output.display())),
    }
}

/// The datasets of a corpus, or the one that `path` is.
pub(crate) fn datasets(path: &Path) -> Result<Vec<Dataset>> {
    let own = Dataset::at(path);
    if !own.versions()?.is_empty() {
        return Ok(vec![own]);
    }
    let mut found: Vec<Dataset> =
        DatasetKind::ALL.into_iter().map(|kind| Dataset::at(path.join(kind.name()))).collect();
    found.push(Takedowns::dataset(path));
    for run in store::list(&path.join("runs"))? {
        found.push(Dataset::at(path.join("runs").join(run).join(DatasetKind::Metrics.name())));
    }
    let mut with_versions = Vec::new();
    for dataset in found {
        if !dataset.versions()?.is_empty() {
            with_versions.push(dataset);
        }
    }
    if with_versions.is_empty() {
        return Err(Error::Shard(shard::Error::Missing {
            what: format!("a dataset in `{}`", path.display()),
            hint: "name a corpus or a dataset, or run a job first".to_owned(),
        }));
    }
    Ok(with_versions)
}

fn clean(path: &Path, is_json: bool) -> Result<ExitCode> {
    // Shards of a takedown that was killed are named by its manifests alone.
    if !store::is_object(path) {
        takedown::finish(path)?;
    }
    let mut removed = Vec::new();
    for dataset in datasets(path)? {
        removed.extend(dataset.clean()?);
    }
    match is_json {
        true => print_json(&removed),
        false => {
            for path in removed {
                print(&format!("{}\n", path.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(what: Option<&str>, reference: bool, is_json: bool) -> Result<ExitCode> {
    if reference {
        return print(&function::reference());
    }
    let sources = ingest::source::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let filters = ingest::filter::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let modifiers = ingest::modifier::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let methods = dedup::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let functions = function::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let exports = shard::export::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let imports = shard::import::KINDS.iter().map(|kind| (kind.name, kind.summary));
    let all: [(&str, Vec<(&str, &str)>); 6] = [
        ("sources", sources.collect()),
        ("steps", filters.chain(modifiers).collect()),
        ("dedup", methods.collect()),
        ("functions", functions.collect()),
        ("exports", exports.collect()),
        ("imports", imports.collect()),
    ];
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    if let Some(what) = what
        && !names.contains(&what)
    {
        return Err(Error::Job {
            place: "list".to_owned(),
            message: format!("unknown list `{what}`"),
            hint: shard::config::nearest(what, &names),
        });
    }
    let wanted = all.iter().filter(|(name, _)| what.is_none_or(|what| what == *name));
    if is_json {
        let lists = wanted.map(|(name, kinds)| {
            let kinds =
                kinds.iter().map(|(name, summary)| json!({ "name": name, "summary": summary }));
            ((*name).to_owned(), kinds.collect())
        });
        return print_json(&lists.collect::<serde_json::Map<_, _>>());
    }
    let mut text = String::new();
    for (name, kinds) in wanted {
        text.push_str(&format!("{name}\n"));
        for (name, summary) in kinds {
            text.push_str(&format!("  {name:<22} {summary}\n"));
        }
    }
    print(&text)
}

fn pass_on(verb: &str, passed: &Passed, is_json: bool) -> Result<ExitCode> {
    let program = run::program("gristmill-train")?;
    let mut command = Command::new(&program);
    command.arg(verb).args(&passed.arguments);
    if is_json {
        command.arg("--json");
    }
    let status = command.status().map_err(shard::Error::io("run", &program))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
    Ok(ExitCode::from(code))
}

/// Prints data; a pipe that was closed is success.
pub(crate) fn print(text: &str) -> Result<ExitCode> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<ExitCode> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(shard::Error::io("write", "standard output")(error).into())
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(value).expect("values of ours have text keys");
    print(&format!("{text}\n"))
}
