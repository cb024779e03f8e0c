//! Records of Common Crawl chosen by an SQL condition over its columnar index.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::json::LineDelimitedWriter;
use clap::Args;
use datafusion::logical_expr::col;
use datafusion::prelude::ParquetReadOptions;
use futures::StreamExt as _;
use ingest::crawl::{CancelFlag, CommonCrawlConfig, CommonCrawlProgress, fetch_records};
use shard::manifest::hash;
use shard::store;

use crate::progress::Unit;
use crate::run::Options;
use crate::session::{self, Limits};
use crate::{Error, Result};

/// What is asked of `gristmill commoncrawl`.
#[derive(Debug, Args)]
pub struct CommonCrawlArguments {
    /// Files of the index: CDXJ, JSON lines, or Parquet of the columnar index.
    #[arg(required = true)]
    index: Vec<PathBuf>,
    /// Records are fetched where this is true: SQL over the columns of the Parquet index.
    #[arg(long = "where")]
    condition: Option<String>,
    /// Name of the crawl (`CC-MAIN-2024-22`); records of others are passed over.
    #[arg(long, default_value = "")]
    crawl: String,
    /// What stands before the names of archives: a URL, or a folder [default: `https://data.commoncrawl.org/`].
    #[arg(long)]
    base: Option<String>,
    /// Folder of the WARC segments and the state.
    #[arg(long, default_value = "raw")]
    output: PathBuf,
    /// A host whose pages are fetched, with its subdomains.
    #[arg(long = "host")]
    hosts: Vec<String>,
    /// A language whose pages are fetched, as the index has it (`eng`).
    #[arg(long = "language")]
    languages: Vec<String>,
    /// Records, at most.
    #[arg(long)]
    max_records: Option<u64>,
    /// Let the base have an address that is not public.
    #[arg(long)]
    allow_private: bool,
}

/// Columns of the index that say what a record is and where it lies.
const COLUMNS: [&str; 9] = [
    "url",
    "fetch_time",
    "fetch_status",
    "content_mime_type",
    "content_mime_detected",
    "content_languages",
    "warc_filename",
    "warc_record_offset",
    "warc_record_length",
];

/// Fetches the records, or goes on where an earlier run was stopped.
///
/// # Errors
/// When the condition is none over the index, or the records cannot be written.
pub async fn run(
    arguments: &CommonCrawlArguments,
    options: &Options,
) -> Result<CommonCrawlProgress> {
    let index = match &arguments.condition {
        Some(condition) => {
            vec![select(&arguments.index, condition, &arguments.output, options).await?]
        }
        None => arguments.index.clone(),
    };
    let default = CommonCrawlConfig::default();
    let config = CommonCrawlConfig {
        crawl: arguments.crawl.clone(),
        index,
        base: arguments.base.clone().unwrap_or(default.base.clone()),
        output: arguments.output.clone(),
        hosts: arguments.hosts.clone(),
        languages: arguments.languages.clone(),
        max_records: arguments.max_records.unwrap_or(default.max_records),
        allow_private: arguments.allow_private,
        ..default
    };
    let flag = CancelFlag::new();
    let task = options.talk.task("fetch", config.max_records, Unit::Count("records"));
    let mut stop = options.stop.clone();
    let fetch_flag = flag.clone();
    let (sender, mut progress) = tokio::sync::watch::channel((0, 0));
    let mut fetch = tokio::task::spawn_blocking(move || {
        let told = |progress: &CommonCrawlProgress| {
            sender.send_replace((progress.fetched, progress.entries - progress.passed_over));
        };
        fetch_records(&config, told, &fetch_flag)
    });
    let ended = loop {
        tokio::select! {
            ended = &mut fetch => break ended,
            Ok(()) = progress.changed() => {
                let (done, of) = *progress.borrow_and_update();
                task.set(done, of);
            }
            Ok(_) = stop.wait_for(|stop| *stop), if !flag.is_cancelled() => flag.cancel(),
        }
    };
    let progress = ended.expect("fetching does not panic")?;
    let errors: u64 = progress.errors.values().sum();
    task.finish(format!(
        "{} records, {} bytes, {errors} not to be had",
        progress.fetched, progress.bytes
    ));
    if flag.is_cancelled() { Err(Error::Interrupted) } else { Ok(progress) }
}

/// Writes the lines of the index that fulfil `condition`, in the order of their archives, into a file that is an index itself.
///
/// The file is named by the condition and the index: a run that goes on reads the same lines again.
async fn select(
    index: &[PathBuf],
    condition: &str,
    output: &Path,
    options: &Options,
) -> Result<PathBuf> {
    let paths: Vec<String> = index.iter().map(|path| path.display().to_string()).collect();
    let name = hash(format!("{condition}\n{}", paths.join("\n")).as_bytes());
    let path = output.join(format!("commoncrawl-index-{}.jsonl", &name[..16]));
    if path.try_exists().map_err(shard::Error::io("look at", &path))? {
        return Ok(path);
    }
    let limits = Limits { threads: options.threads, ..Limits::standard() };
    let ctx = session::session(&session::runtime(limits)?, options.threads)?;
    let frame = ctx.read_parquet(paths, ParquetReadOptions::default()).await?;
    let schema = frame.schema().clone();
    let refuse = |message: String| {
        Error::Job {
        place: "--where".to_owned(),
        message,
        hint: Some("it is a condition over the columns of the columnar index: \"content_languages = 'eng'\"".to_owned()),
    }
    };
    let expr = ctx.parse_sql_expr(condition, &schema).map_err(|error| refuse(error.to_string()))?;
    let known = |name: &&str| schema.has_column_with_unqualified_name(name);
    let columns: Vec<&str> = COLUMNS.into_iter().filter(known).collect();
    if let Some(missing) = COLUMNS[6..].iter().find(|name| !columns.contains(name)) {
        return Err(refuse(format!("the index has no column `{missing}`")));
    }
    let order = ["warc_filename", "warc_record_offset"].map(|name| col(name).sort(true, false));
    let frame = frame.filter(expr).map_err(|error| refuse(error.to_string()))?;
    let mut batches =
        frame.select_columns(&columns)?.sort(order.to_vec())?.execute_stream().await?;
    store::create_folder(output)?;
    let temporary = store::aside(output);
    let file = fs::File::create(&temporary).map_err(shard::Error::io("create", &temporary))?;
    let mut writer = LineDelimitedWriter::new(std::io::BufWriter::new(file));
    while let Some(batch) = batches.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    let file = writer.into_inner().into_inner().map_err(|error| error.into_error());
    file.and_then(|file| file.sync_all()).map_err(shard::Error::io("write", &temporary))?;
    store::publish(&temporary, &path)?;
    Ok(path)
}
