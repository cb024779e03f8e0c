//! What can go wrong while a job is resolved, planned or run.

use std::path::PathBuf;

use datafusion::error::DataFusionError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of jobs, plans and the catalog.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A dataset, tokenizer or configuration file.
    #[error(transparent)]
    Shard(#[from] shard::Error),
    /// A source, step or the crawl.
    #[error(transparent)]
    Ingest(#[from] ingest::Error),
    /// A deduplication method.
    #[error(transparent)]
    Dedup(#[from] dedup::Error),
    /// The engine.
    #[error("{}", engine_message(.0))]
    Engine(#[from] DataFusionError),
    /// Arrow refused to build a batch.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// A job asks for something that cannot work.
    #[error("{place}: {message}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Job {
        /// The file and key.
        place: String,
        /// What is wrong.
        message: String,
        /// A remedy, where there is one.
        hint: Option<String>,
    },
    /// A question that would do more than ask.
    #[error("SQL: {message}\nhint: {hint}")]
    Refused {
        /// What is refused and why.
        message: String,
        /// What is allowed.
        hint: String,
    },
    /// A question that needs more than it may have.
    #[error("{message}\nhint: {hint}")]
    Limit {
        /// Which limit.
        limit: crate::limit::Limit,
        /// What was exceeded, and the limit's value.
        message: String,
        /// How to ask for less, or how to allow more.
        hint: String,
    },
    /// Nothing is left to go on with.
    #[error("{stage} kept none of {n_in} documents: {reasons}\nhint: {hint}")]
    Empty {
        /// The stage that removed the last ones.
        stage: &'static str,
        /// Documents that went in.
        n_in: u64,
        /// How many went for which reason.
        reasons: String,
        /// What to do about it.
        hint: String,
    },
    /// Another program of ours failed; it has said why.
    #[error("`{program}` ended with {status}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A program of ours is not where it should be.
    #[error("cannot find `{program}` in `{}`\nhint: {hint}", folder.display())]
    NoProgram {
        /// The program.
        program: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// How to get it.
        hint: String,
    },
    /// The user asked to stop; everything finished so far is kept.
    #[error("interrupted: finished parts are kept\nhint: run the same command again to go on")]
    Interrupted,
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error,
            error => Self::External(Box::new(error)),
        }
    }
}

/// The innermost message of an engine error: the layers above it only repeat "External error".
fn engine_message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::External(inner) => inner.to_string(),
        root => root.strip_backtrace(),
    }
}
