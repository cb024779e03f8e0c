//! From sequences to a measured model: recipes, models, the training loop, checkpoints and generation.
//!
//! A [`recipe::Recipe`] names a dataset of tokens, a model and an optimizer; [`run::train`] makes or resumes
//! the run. Same recipe, same data, same threads: same weights, bit for bit, however often it was stopped.

pub mod adapter;
pub mod attention;
pub mod chat;
pub mod checkpoint;
pub mod data;
pub mod distributed;
pub mod error;
pub mod generate;
pub mod gguf;
pub mod metrics;
pub mod model;
pub mod objective;
pub mod optimizer;
pub mod plot;
pub mod random;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod source;
pub mod sources;
pub mod spike;
pub mod tensorboard;
pub mod torch;
pub mod weights;

pub use error::{Error, Result};
