//! What a test costs, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set in the process that runs one test.
const CHILD: &str = "GRISTMILL_MEASURED";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Runs `test` again in a process of its own and returns true, or false in that process.
pub(crate) fn elsewhere(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        std::panic::set_hook(Box::new(|panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            eprintln!("{panic}");
        }));
        return false;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .status();
    assert!(status.unwrap().success(), "{test}");
    true
}

/// Panics of this process so far, also those that a thread or a task kept to itself.
pub(crate) fn n_panics() -> usize {
    PANICS.load(Ordering::SeqCst)
}

/// Runs `work`; returns what it gave and by how many bytes the memory of this process grew at its peak, 0 where
/// the system does not say.
pub(crate) fn memory<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let status = Path::new("/proc/self/status");
    let kib = |name: &str| {
        let text = std::fs::read_to_string(status).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    // Sets the peak to what there is now.
    let is_known = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = kib("VmRSS");
    let done = work();
    let growth = kib("VmHWM").zip(before).filter(|_| is_known);
    (done, growth.map_or(0, |(peak, before)| peak.saturating_sub(before) << 10))
}
