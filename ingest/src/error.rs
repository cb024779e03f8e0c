//! What can go wrong outside a single document; a bad document is a row with a reason instead.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of sources, steps and the crawl.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
    /// A file is not what its source reads.
    #[error("cannot read `{}`: {why}\nhint: {hint}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// A source or step is configured in a way that cannot work.
    #[error("`{name}`: {message}")]
    Config {
        /// The source or step.
        name: String,
        /// Which key, which value, what is allowed.
        message: String,
    },
    /// A batch lacks a column or has it in another type: a mistake of the caller.
    #[error("column `{name}` {why}")]
    Column {
        /// The column.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Arrow refused to build a batch.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The crawl could not go on.
    #[error("cannot crawl {what}: {why}")]
    Crawl {
        /// The URL, file or listener.
        what: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Returns a closure that wraps an [`io::Error`] with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}
