//! What can go wrong outside a single document.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the deduplication methods.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A method is configured in a way that cannot work.
    #[error("`{method}`: {message}\nhint: {hint}")]
    Config {
        /// The method.
        method: &'static str,
        /// Which key, which value, what is allowed.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A column has another type or shape than the kernel takes: a mistake of the caller.
    #[error("column `{name}` {why}")]
    Column {
        /// The column.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused an operation on a file of intermediate records.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
    /// A file of intermediate records is not what was written.
    #[error("cannot read `{}`: {why}\nhint: remove it and run the job again, it is made anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tokenizer cannot be loaded, or has no tokens for a text.
    #[error(transparent)]
    Tokenizer(#[from] shard::Error),
    /// Arrow refused to build an array.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl Error {
    /// Returns what turns the failure of `action` on `path` into an error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
