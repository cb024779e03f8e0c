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
    /// A file of intermediate results could not be written or read.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was done: `create`, `write`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
