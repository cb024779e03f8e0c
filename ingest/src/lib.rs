//! From the world to clean documents.
//!
//! A [`source`] turns files into batches of documents, a [`filter`] keeps or drops them with a reason,
//! a [`modifier`] gives them new text, and [`crawl`] fetches the web into WARC files that a source then reads.
//! All but the crawl are pure functions of a batch and a configuration.

#[cfg(feature = "crawl")]
pub mod crawl;
pub mod error;
pub mod fasttext;
pub mod filter;
pub mod kenlm;
#[cfg(test)]
mod measure;
pub mod modifier;
mod prose;
pub mod source;

pub use error::{Error, Result};
