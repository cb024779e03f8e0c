//! What can go wrong with a dataset, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of datasets, shards, tokenizers and configuration files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `create`, `sync`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
    /// An object store refused a request, or did not answer it however often it was made.
    #[error("cannot {action} `{url}`: {why}\nhint: {hint}")]
    Store {
        /// What was tried, as a verb.
        action: &'static str,
        /// The object, as `scheme://bucket/key`.
        url: String,
        /// The store's answer, or what became of the connection.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A dataset, manifest or shard breaks its own promises.
    #[error("cannot read {what}: {why}\nhint: {hint}")]
    Corrupt {
        /// The thing, with its path.
        what: String,
        /// The two values that disagree.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// A manifest of another format than this build reads: nothing is wrong with it.
    #[error(
        "cannot read manifest `{manifest}`: it has format version {found}, this build reads {known}\n\
         hint: use the version of Gristmill that wrote it, or a newer one"
    )]
    Format {
        /// The manifest.
        manifest: String,
        /// The format version that it names.
        found: u64,
        /// The one that this build writes and reads.
        known: u32,
    },
    /// Another writer committed this version first: read the newest version and commit on top of it.
    #[error("cannot commit version {version} of `{}`: another writer was first", dataset.display())]
    Conflict {
        /// The dataset's folder.
        dataset: PathBuf,
        /// The version that both wanted.
        version: u64,
    },
    /// A configuration cannot be used as it is written.
    #[error("{place}: {message}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Config {
        /// File, line and column, or the flag, that holds the mistake.
        place: String,
        /// What is wrong.
        message: String,
        /// A remedy, where there is one.
        hint: Option<String>,
    },
    /// A thing that was asked for is not there.
    #[error("cannot find {what}\nhint: {hint}")]
    Missing {
        /// The thing, with the place where it was looked for.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A tokenizer could not be trained, loaded or used.
    #[error("cannot use tokenizer {what}: {why}")]
    Tokenizer {
        /// Its file, or how it was asked for.
        what: String,
        /// The library's reason.
        why: String,
    },
    /// A chat template cannot be used, or refuses a conversation.
    #[error("cannot render by chat template {what}: {why}")]
    Template {
        /// Its file.
        what: String,
        /// The line, and what the template or the engine says.
        why: String,
    },
    /// Arrow or Parquet data could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Arrow {
        /// What was tried, as a verb.
        action: &'static str,
        /// The shard.
        path: PathBuf,
        /// Arrow's reason.
        source: ArrowError,
    },
}

impl Error {
    /// Whether the same call may succeed when it is made again on top of the newest state.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Returns a closure that wraps an [`io::Error`] with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns a closure that wraps Arrow's or Parquet's error with what was tried on which path.
    pub fn arrow<E: Into<ArrowError>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Arrow { action, path, source: source.into() }
    }
}
