//! Promises across crates, in one binary: a link with the engine costs seconds and 0.3 GB.

// `cfg(test)` tells clippy that helper functions are tests as well.
#[cfg(test)]
mod tidy;
