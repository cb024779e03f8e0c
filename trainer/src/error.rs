//! What can go wrong with a run, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of recipes, models, checkpoints and runs.
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
    /// A recipe cannot be used as it is written.
    #[error("{place}: {message}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Recipe {
        /// File, line and column, or the flag, that holds the mistake.
        place: String,
        /// What is wrong.
        message: String,
        /// A remedy, where there is one.
        hint: Option<String>,
    },
    /// A model, checkpoint or weight file cannot be used.
    #[error("cannot {action} {what}: {why}\nhint: {hint}")]
    Unusable {
        /// What was tried, as a verb: `load`, `resume`.
        action: &'static str,
        /// The thing, with its path.
        what: String,
        /// The values that disagree.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The loss or the gradient left the range of numbers too often in a row.
    #[error(
        "cannot go on training: loss {loss}, gradient norm {grad_norm} at step {step}, the {skipped}th such step in a row\nhint: lower `optimizer.lr`, lengthen `optimizer.warmup_steps`, or raise `train.skips_max`; the newest checkpoint is kept"
    )]
    Diverged {
        /// The step that was skipped last.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradient norm.
        grad_norm: f64,
        /// Steps skipped in a row.
        skipped: u64,
    },
    /// libtorch refused an operation.
    #[error("cannot {action}: {why}")]
    Torch {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// libtorch's reason.
        why: String,
    },
    /// A recipe, a dataset or a tokenizer could not be read.
    #[error(transparent)]
    Shard(#[from] shard::Error),
}

impl Error {
    /// Returns a closure that wraps an [`io::Error`] with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns a closure that wraps libtorch's reason with what was tried.
    pub(crate) fn torch(action: &'static str) -> impl FnOnce(tch::TchError) -> Self {
        move |error| {
            let why = error.to_string();
            // The rest is a C++ backtrace.
            let why = why.lines().next().unwrap_or(&why).to_owned();
            Self::Torch { action, why }
        }
    }
}
