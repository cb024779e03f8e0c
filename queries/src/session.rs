//! The one way to a DataFusion session, for jobs, the shell and servers alike.

use std::sync::Arc;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::{Result, function};

/// Rows of a batch. Documents are wide: with DataFusion's 8,192 a sort fails under limits that 1,024 gets by with.
const BATCH_ROWS: usize = 1024;

/// What a session may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory of its operators together, in bytes; beyond it they spill.
    pub memory: u64,
    /// Threads of a query.
    pub threads: usize,
}

impl Limits {
    /// The job's default memory and all cores.
    #[must_use]
    pub fn standard() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory: crate::job::MEMORY.0, threads }
    }
}

/// Which files a question may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Files {
    /// Any: the question is the user's own.
    Any,
    /// None but the datasets of its corpora: the question came through a server.
    Corpus,
}

impl Files {
    /// What the session of `ctx` allows.
    pub(crate) fn of(ctx: &SessionContext) -> Self {
        ctx.state().config().get_extension::<Self>().map_or(Self::Any, |files| *files)
    }
}

/// The error of something that reads `what` and may not.
pub(crate) fn no_file(what: &str) -> crate::Error {
    crate::Error::Refused {
        message: format!(
            "{what} would read a file, and questions to a server read the corpus alone"
        ),
        hint: "ask in `gristmill sql`, where the files are".to_owned(),
    }
}

/// Returns memory and spill folders that sessions share.
///
/// # Errors
/// When the engine refuses its own configuration.
pub fn runtime(limits: Limits) -> Result<Arc<RuntimeEnv>> {
    let memory = usize::try_from(limits.memory).unwrap_or(usize::MAX);
    let pool = Arc::new(FairSpillPool::new(memory));
    Ok(RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?)
}

/// Returns a session of `partitions` partitions with all our functions.
///
/// # Errors
/// When a function cannot be registered.
pub fn session(runtime: &Arc<RuntimeEnv>, partitions: usize) -> Result<SessionContext> {
    session_with(runtime, partitions, Files::Any)
}

/// As [`session`], for questions that may name `files`.
///
/// # Errors
/// As [`session`].
pub fn session_with(
    runtime: &Arc<RuntimeEnv>,
    partitions: usize,
    files: Files,
) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(partitions)
        .with_information_schema(true)
        .with_extension(Arc::new(files));
    // Hash joins do not spill the side they build; merge joins do.
    config.options_mut().optimizer.prefer_hash_join = false;
    let ctx = SessionContext::new_with_config_rt(config, Arc::clone(runtime));
    function::register(&ctx)?;
    Ok(ctx)
}
