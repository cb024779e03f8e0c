//! Promises across crates, in one binary: a link with the engine costs seconds and 0.3 GB.

mod tidy;
