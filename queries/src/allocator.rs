//! What the process gives back of its memory.
//!
//! glibc keeps a heap for every thread, and in each of them what was freed there: under `memory = "128MiB"` nearly as much
//! again as is in use. It reads its settings when a program starts, and the call that changes them later is unsafe: so a job
//! of little memory starts its own program anew, once, in its own place.

use std::process::Command;

use crate::session::Limits;

/// The variable that glibc reads.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// From this much memory of a job on, what glibc keeps is a small part, and giving it back costs more time than it is worth.
const MEMORY_LARGE: u64 = 1 << 30;
/// Blocks of this size and more are given back as soon as they are freed, and so is the end of a heap.
const BLOCK_BYTES: usize = 1 << 20;
/// Variables by which a user sets the allocator: what they say stays.
const OF_USERS: [&str; 5] = [
    TUNABLES,
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
];

/// Starts this program anew with as many heaps as it has threads, which give back what is freed, if its memory is little.
///
/// It returns when that was done before, when the environment sets the allocator, and when it cannot be done.
pub fn settle(limits: Limits) {
    let is_set = OF_USERS.iter().any(|name| std::env::var_os(name).is_some());
    if !is_set && limits.memory < MEMORY_LARGE {
        start_anew(&tunables(limits.threads));
    }
}

/// Keeps these settings from a program that this one starts.
pub(crate) fn unsettle(command: &mut Command) {
    let is_ours = |value: &String| value.ends_with(&tunables_of_blocks());
    if std::env::var(TUNABLES).ok().as_ref().is_some_and(is_ours) {
        command.env_remove(TUNABLES);
    }
}

fn tunables(threads: usize) -> String {
    format!("glibc.malloc.arena_max={}:{}", threads.max(1), tunables_of_blocks())
}

fn tunables_of_blocks() -> String {
    format!("glibc.malloc.mmap_threshold={BLOCK_BYTES}:glibc.malloc.trim_threshold={BLOCK_BYTES}")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn start_anew(tunables: &str) {
    use std::os::unix::process::CommandExt;

    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).env(TUNABLES, tunables).exec();
    // The job runs as well, with more memory.
    tracing::debug!(%error, "cannot start anew with settings of the allocator");
}

/// Other allocators have settings of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn start_anew(_tunables: &str) {}
