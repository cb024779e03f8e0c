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
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(partitions)
        .with_information_schema(true);
    // Hash joins do not spill the side they build; merge joins do.
    config.options_mut().optimizer.prefer_hash_join = false;
    let ctx = SessionContext::new_with_config_rt(config, Arc::clone(runtime));
    function::register(&ctx)?;
    Ok(ctx)
}
