//! Promises of the trainer that are checked against the public Python stack or across processes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the lints know `#[test]` functions, not those they call"
)]

mod adapters;
mod distributed;
mod encoder;
mod examples;
mod faults;
mod files;
mod generation;
mod gguf;
mod memory;
mod mixture;
mod objective;
mod optimizer;
mod parity;
mod process;
mod resume;

use std::path::PathBuf;

/// The shared test data, or nothing with a printed reason.
fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no test data at {}, set GRISTMILL_DATA", path.display());
    None
}
