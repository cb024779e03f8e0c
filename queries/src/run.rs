//! Runs a job from its crawl to its model, going on where an earlier run stopped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use ingest::crawl::{CancelFlag, CrawlConfig};
use serde::Serialize;
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;
use shard::{Dataset, store};

use crate::cluster::Cluster;
use crate::job::LoadedJob;
use crate::progress::{Talk, Unit};
use crate::session::{self, Limits};
use crate::stage::takedowns::TAKEDOWNS;
use crate::stage::{
    self, Run, Stop, contamination, conversations, documents, duplicates, repeats, tokens,
};
use crate::{Error, Result, takedown};

/// The trainer's program, beside ours.
const TRAINER: &str = "gristmill-train";
/// The file of a working copy that says what it is a copy of.
pub(crate) const ORIGIN: &str = ".origin";

/// What a run left behind; its counts add up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// The job's name.
    pub job: String,
    /// Its corpus folder.
    pub corpus: PathBuf,
    /// Records read from all sources.
    pub records: u64,
    /// Records that steps dropped, by `step/reason`.
    pub dropped: BTreeMap<String, u64>,
    /// Documents that are left.
    pub documents: u64,
    /// Documents that deduplication left out, by `dedup/method`.
    pub duplicates: BTreeMap<String, u64>,
    /// Spans that stood before, by `dedup/method`.
    pub repeats: BTreeMap<String, u64>,
    /// Documents that evaluation sets left out, by `decontaminate/benchmark`.
    pub contaminated: BTreeMap<String, u64>,
    /// Documents that lost what they share with evaluation sets, and stay.
    pub cut: u64,
    /// Conversations that the chat template left out, by `chat/reason`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Rows of `conversations` and of `preferences`; none when the job makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations: Option<[u64; 2]>,
    /// Documents in the token shards; none when the job makes none.
    pub tokenized: Option<u64>,
    /// Tokens, all splits together.
    pub tokens: Option<u64>,
    /// What the settings or the texts made of a stage, and the user may not expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// BLAKE3 of the last dataset's manifest.
    pub manifest: String,
    /// The training run's folder.
    pub run: Option<PathBuf>,
    /// Wall seconds.
    pub seconds: f64,
}

/// How to run a job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the engine.
    pub threads: usize,
    /// How progress is told.
    pub talk: Talk,
    /// Turns true when the user asks to stop.
    pub stop: Stop,
    /// Whether `[train]` is run.
    pub train: bool,
    /// The workers that run units; without them, this process does.
    pub cluster: Option<Arc<Cluster>>,
    /// Memory of the operators; without it, the job's.
    pub memory: Option<u64>,
}

/// A job whose sources, steps, methods and tokenizer are found and built.
#[derive(Debug)]
pub struct Plan {
    pub(crate) run: Run,
    pub(crate) documents: documents::Plan,
    pub(crate) duplicates: Option<duplicates::Methods>,
    pub(crate) repeats: Option<repeats::Methods>,
    pub(crate) contamination: Option<contamination::Plan>,
    pub(crate) tokens: Option<tokens::Plan>,
}

/// Share of a job's memory that the operators' pool leaves to the program, its readers and its writers.
const BESIDE_SHARE: u64 = 4;

impl Plan {
    /// Resolves everything that can fail before work begins.
    ///
    /// # Errors
    /// When a source finds no file, a step is unknown, a setting cannot work.
    pub fn resolve(job: LoadedJob, options: &Options) -> Result<Self> {
        let limits = Limits { memory: job.job.memory.0, threads: options.threads };
        let memory = options.memory.unwrap_or(limits.memory);
        let pool = memory - memory / BESIDE_SHARE;
        let runtime = session::runtime(Limits { memory: pool, ..limits })?;
        let ctx = session::session(&runtime, 1)?;
        let documents = documents::Plan::resolve(&job, &ctx)?;
        let repeats = repeats::Methods::resolve(&job)?;
        let duplicates = match &job.job.dedup {
            // A job for spans alone compares no documents.
            Some(dedup) if repeats.is_none() || finds_documents(&dedup.methods) => {
                Some(duplicates::Methods::resolve(&job, &ctx, documents.columns())?)
            }
            _ => None,
        };
        let contamination = job.job.decontaminate.as_ref();
        let contamination =
            contamination.map(|config| contamination::Plan::resolve(&job, config)).transpose()?;
        let is_chat = job.job.shard.as_ref().is_some_and(|shard| shard.chat.is_some());
        let cuts_spans = contamination.as_ref().is_some_and(contamination::Plan::cuts)
            || repeats.as_ref().is_some_and(|repeats| !repeats.is_report_only());
        if (is_chat || job.job.conversations) && cuts_spans {
            let key = if is_chat { "shard.chat" } else { "conversations" };
            let message = "spans are cut from texts, and conversations would keep them";
            let hint =
                "use `action = \"drop\"` in `[decontaminate]`, `report_only = true` in `[dedup]`";
            return Err(job.error(key, message, Some(hint.to_owned())));
        }
        let tokens = job
            .job
            .shard
            .as_ref()
            .map(|shard| tokens::Plan::resolve(&job, &ctx, documents.columns(), shard));
        let tokens = tokens.transpose()?;
        if job.job.train.is_some() && tokens.is_none() {
            let hint = "add `[shard]` with a `tokenizer`".to_owned();
            return Err(job.error("train", "a model needs tokens", Some(hint)));
        }
        let run = Run {
            job: Arc::new(job),
            limits,
            runtime,
            talk: options.talk,
            stop: options.stop.clone(),
            cluster: options.cluster.clone(),
        };
        Ok(Self { run, documents, duplicates, repeats, contamination, tokens })
    }

    /// The plans of all stages, as text.
    ///
    /// # Errors
    /// When a plan cannot be built.
    pub fn show(&self) -> Result<String> {
        let mut text = self.documents.show(&self.run)?;
        if let Some(duplicates) = &self.duplicates {
            text.push_str(&duplicates.show());
        }
        if let Some(repeats) = &self.repeats {
            text.push_str(&repeats.show());
        }
        if let Some(contamination) = &self.contamination {
            text.push_str(&contamination.show());
        }
        if let Some(tokens) = &self.tokens {
            text.push_str(&tokens.show());
        }
        if let Some(train) = &self.run.job.job.train {
            text.push_str(&format!("train: {TRAINER} train {}\n", train.recipe));
        }
        Ok(text)
    }
}

/// Runs a job to its end.
///
/// # Errors
/// The first error of a stage. What is finished stays, and the next run goes on behind it.
pub async fn run(job: LoadedJob, options: Options) -> Result<Summary> {
    let started = Instant::now();
    let corpus = job.corpus();
    store::create_folder(&corpus)?;
    let _lock = lock(&corpus)?;
    pull(&job, options.talk)?;
    takedown::finish(&corpus)?;
    for kind in DatasetKind::ALL {
        Dataset::at(corpus.join(kind.name())).remove_half_written()?;
    }
    let mut summary = Summary { job: job.job.name.clone(), ..Summary::default() };
    summary.corpus = job.origin().unwrap_or_else(|| corpus.clone());
    if let Some(config) = &job.job.crawl {
        let mut config = config.clone();
        config.output = job.resolve(&config.output);
        config.certificates = config.certificates.map(|path| job.resolve(&path));
        crawl(&config, &options).await?;
    }
    let train = job.job.train.clone().filter(|_| options.train);
    let plan = Plan::resolve(job, &options)?;
    let run = plan.run;
    let documents = plan.documents.execute(&run).await?;
    summary.records = documents.manifest.counts.n_in;
    summary.dropped = documents.manifest.counts.dropped.clone();
    summary.documents = documents.manifest.counts.n_kept;
    summary.manifest = documents.manifest_hash.clone();
    let mut duplicates = None;
    if let Some(methods) = &plan.duplicates {
        let (snapshot, warnings) = methods.execute(&run, &documents).await?;
        summary.warnings = warnings;
        summary.manifest = snapshot.manifest_hash.clone();
        summary.duplicates = tokens::duplicate_counts(&snapshot)?;
        duplicates = Some(snapshot);
    }
    let mut cuts = None;
    if let Some(methods) = &plan.repeats {
        let snapshot = methods.execute(&run, &documents, duplicates.as_ref()).await?;
        summary.manifest = snapshot.manifest_hash.clone();
        let found = repeats::summary(&snapshot)?;
        summary.duplicates.extend(found.documents);
        summary.repeats = found.spans;
        cuts = Some(snapshot).filter(|_| !methods.is_report_only());
    }
    let mut contaminated = None;
    if let Some(plan) = &plan.contamination {
        let snapshot = plan.execute(&run, &documents, duplicates.as_ref(), cuts.as_ref()).await?;
        summary.manifest = snapshot.manifest_hash.clone();
        let outcome = contamination::Outcome::read(&snapshot, plan)?;
        summary.contaminated = outcome.counts();
        summary.cut = outcome.n_cut();
        contaminated = Some((snapshot, Arc::new(outcome)));
    }
    let left =
        || tokens::Left::new(&documents, duplicates.as_ref(), cuts.as_ref(), contaminated.as_ref());
    if run.job.job.conversations {
        let snapshots = conversations::execute(&run, &left()?).await?;
        summary.manifest = snapshots[1].manifest_hash.clone();
        summary.conversations = Some(snapshots.map(|it| it.manifest.counts.n_kept));
    }
    if let Some(tokens) = &plan.tokens {
        let left = left()?;
        let snapshot = tokens.execute(&run, left).await?;
        summary.manifest = snapshot.manifest_hash.clone();
        summary.refused = conversations::refused(&snapshot.manifest.counts);
        summary.tokenized = Some(snapshot.manifest.counts.n_kept);
        summary.tokens =
            Some(snapshot.manifest.shards.iter().map(shard::manifest::Shard::n_tokens).sum());
        if let Some(train) = train {
            let recipe = run.job.resolve(&train.recipe);
            let folder = run_folder(&corpus, &recipe);
            self::train(&recipe, &snapshot, &folder, &options)?;
            summary.run = Some(folder);
        }
    }
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

fn finds_documents(methods: &[String]) -> bool {
    methods.iter().filter_map(|name| dedup::kind(name)).any(dedup::MethodKind::finds_documents)
}

/// Where the run of a recipe lies in a corpus.
fn run_folder(corpus: &Path, recipe: &Path) -> PathBuf {
    corpus.join("runs").join(recipe.file_stem().unwrap_or_default())
}

/// Brings the working copy of a corpus in a store up to date, and notes in it what it is a copy of.
fn pull(job: &LoadedJob, talk: Talk) -> Result<()> {
    let Some(origin) = job.origin() else { return Ok(()) };
    let note = job.corpus().join(ORIGIN);
    let text = format!("{}\n", origin.display());
    let found = store::read(&note)?;
    if found.as_ref().is_some_and(|found| *found != text.as_bytes()) {
        let found = String::from_utf8_lossy(&found.unwrap_or_default()).trim().to_owned();
        let message = format!("`{}` is the working copy of `{found}`", job.corpus().display());
        let hint = "give each output a `scratch` of its own".to_owned();
        return Err(job.error("scratch", message, Some(hint)));
    }
    store::replace(&note, text.as_bytes())?;
    let names = DatasetKind::ALL.into_iter().map(DatasetKind::name).chain([TAKEDOWNS]);
    let mut came = 0;
    for name in names {
        came += stage::dataset_of(job, name).pull()?;
    }
    if came > 0 {
        talk.say(format!("{:>12}  {came} files from {}", "store", origin.display()));
    }
    Ok(())
}

/// Takes the corpus for this process, until it ends.
pub(crate) fn lock(corpus: &Path) -> Result<File> {
    let path = corpus.join(".lock");
    let file = File::create(&path).map_err(shard::Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Job {
            place: corpus.display().to_string(),
            message: "another run is writing to this corpus".to_owned(),
            hint: Some("wait for it, or stop it: nothing that it finished is lost".to_owned()),
        }),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(shard::Error::io("lock", &path)(error).into())
        }
    }
}

/// Crawls into WARC segments, or goes on with a crawl that was stopped.
///
/// # Errors
/// When the crawl cannot go on, or the user asked to stop.
pub async fn crawl(config: &CrawlConfig, options: &Options) -> Result<ingest::crawl::CrawlSummary> {
    if store::is_object(&config.output) {
        return Err(Error::Job {
            place: "crawl.output".to_owned(),
            message: format!("`{}` is in an object store", config.output.display()),
            hint: Some("crawl into a folder: its journal is written all the time".to_owned()),
        });
    }
    let flag = CancelFlag::new();
    let task = options.talk.task("crawl", config.max_pages, Unit::Count("pages"));
    let mut stop = options.stop.clone();
    let (config, crawl_flag) = (config.clone(), flag.clone());
    let (sender, mut progress) = tokio::sync::watch::channel((0, 0));
    let mut crawl = tokio::task::spawn_blocking(move || {
        let told = |progress: &ingest::crawl::Progress| {
            sender.send_replace((progress.fetched, progress.fetched + progress.queued));
        };
        ingest::crawl::run(&config, told, crawl_flag)
    });
    let ended = loop {
        tokio::select! {
            ended = &mut crawl => break ended,
            Ok(()) = progress.changed() => {
                let (done, of) = *progress.borrow_and_update();
                task.set(done, of);
            }
            Ok(_) = stop.wait_for(|stop| *stop), if !flag.is_cancelled() => flag.cancel(),
        }
    };
    let summary = ended.expect("the crawl does not panic")?;
    let errors: u64 = summary.progress.errors.values().sum();
    task.finish(format!(
        "{} pages, {errors} URLs without one, {} segments",
        summary.progress.fetched,
        summary.segments.len()
    ));
    if flag.is_cancelled() { Err(Error::Interrupted) } else { Ok(summary) }
}

/// Runs the trainer on a version of `tokens`.
fn train(recipe: &Path, tokens: &Snapshot, folder: &Path, options: &Options) -> Result<()> {
    let mut command = Command::new(program(TRAINER)?);
    command.arg("train").arg(recipe);
    command.arg("--set").arg(format!("data={}", toml_string(&tokens.path)));
    command.arg("--set").arg(format!("run={}", toml_string(folder)));
    if options.talk == Talk::Quiet {
        command.arg("--quiet");
    }
    crate::allocator::unsettle(&mut command);
    // Standard output is for the job's own summary.
    command.stdout(Stdio::null());
    let status = command.status().map_err(shard::Error::io("run", TRAINER))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(130 | 143) => Err(Error::Interrupted),
        _ => Err(Error::Program { program: TRAINER.to_owned(), status }),
    }
}

fn toml_string(path: &Path) -> String {
    toml::Value::from(path.display().to_string()).to_string()
}

/// Finds a program of ours beside this one.
///
/// # Errors
/// When it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(shard::Error::io("find", "gristmill"))?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::NoProgram {
            program: name.to_owned(),
            folder: folder.to_owned(),
            hint: "build it with `cargo build --workspace`, or install it with `make install`"
                .into(),
        }),
    }
}

impl Summary {
    /// The summary as one line per question; every document is in exactly one of the counts.
    #[must_use]
    pub fn show(&self) -> String {
        let n_dropped: u64 = self.dropped.values().sum();
        let mut text = format!(
            "{}: {} records = {} documents + {n_dropped} dropped",
            self.job, self.records, self.documents
        );
        text.push_str(&list(&self.dropped));
        let n_duplicates: u64 = self.duplicates.values().sum();
        let n_contaminated: u64 = self.contaminated.values().sum();
        let left = match (self.tokenized, self.tokens) {
            (Some(tokenized), Some(tokens)) => {
                Some(format!("{tokenized} in shards ({tokens} tokens)"))
            }
            _ if n_duplicates + n_contaminated > 0 => {
                Some(format!("{} kept", self.documents - n_duplicates - n_contaminated))
            }
            _ => None,
        };
        if let Some(left) = left {
            let n = self.documents;
            text.push_str(&format!("\n{n} documents = {left} + {n_duplicates} duplicates"));
            text.push_str(&list(&self.duplicates));
            if n_contaminated > 0 {
                text.push_str(&format!(" + {n_contaminated} contaminated"));
                text.push_str(&list(&self.contaminated));
            }
        }
        let n_refused: u64 = self.refused.values().sum();
        if n_refused > 0 {
            text.push_str(&format!(" + {n_refused} refused"));
            text.push_str(&list(&self.refused));
        }
        if let Some([conversations, preferences]) = self.conversations {
            text.push_str(&format!("\n{conversations} conversations, {preferences} preferences"));
        }
        if self.cut > 0 {
            text.push_str(&format!("\n{} documents lost what evaluation sets hold", self.cut));
        }
        let n_repeats: u64 = self.repeats.values().sum();
        if n_repeats > 0 {
            text.push_str(&format!("\n{n_repeats} spans stood before{}", list(&self.repeats)));
        }
        for warning in &self.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text.push_str(&format!(
            "\n{} in {:.1} s, manifest {}",
            self.corpus.display(),
            self.seconds,
            &self.manifest[..16.min(self.manifest.len())]
        ));
        text
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(reason, n)| (std::cmp::Reverse(**n), (*reason).clone()));
    let shown: Vec<String> = counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    format!(" ({})", shown.join(", "))
}
