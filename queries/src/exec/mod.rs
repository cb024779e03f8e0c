//! Our operators: sources as file scans, the chain of steps, sinks that write shards.

pub mod document_sink;
pub mod filter_chain;
pub mod run_sink;
pub mod shard_scan;
pub mod signature_sink;
pub mod source_scan;
