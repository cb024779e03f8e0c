//! What can go wrong outside a single document.

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
    /// Arrow refused to build an array.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}
