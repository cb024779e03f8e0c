//! The engine: sessions, SQL functions, operators, jobs, and the `gristmill` command.
//!
//! A [`job`] is resolved into [`stage`]s; each stage is cut into bounded units, each unit is a DataFusion plan
//! made of our operators ([`exec`]), and a stage ends with the commit of one manifest per dataset.
//! The same [`session`] serves jobs, the shell and every SQL question.

pub mod allocator;
pub mod benchmark;
pub mod catalog;
pub mod classifier;
pub mod cluster;
pub mod command;
pub mod commoncrawl;
pub mod decontaminate;
pub mod demo;
pub mod error;
pub mod exec;
pub mod function;
mod interchange;
pub mod job;
pub mod limit;
pub mod lineage;
pub mod output;
pub mod progress;
pub mod record;
pub mod report;
pub mod run;
mod sequences;
pub mod server;
pub mod session;
pub mod shell;
pub mod stage;
pub mod statement;
mod takedown;
pub mod verify;

pub use error::{Error, Result};
