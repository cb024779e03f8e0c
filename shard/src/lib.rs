//! The contract between every part of Gristmill: what a dataset is on disk, and how it is read back.
//!
//! A [`Dataset`] is a folder of Parquet shards plus one [`Manifest`] per version. Writers stage shards,
//! then [`Dataset::commit`] makes them visible at once; what no manifest names does not exist.
//! A dataset of tokens is read as sequences by [`reader::SequenceReader`], in an order that is a pure
//! function of the manifest, the seed and the sequence's index.

pub mod chat;
pub mod config;
pub mod dataset;
pub mod error;
pub mod export;
pub mod format;
pub mod import;
pub mod manifest;
pub mod mixture;
pub mod order;
pub mod packing;
pub mod reader;
pub mod schema;
pub mod split;
pub mod store;
pub mod tokenizer;
pub mod writer;

pub use dataset::Dataset;
pub use error::{Error, Result};
pub use manifest::Manifest;
