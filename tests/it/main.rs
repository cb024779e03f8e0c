//! Promises across crates, in one binary: a link with the engine costs seconds and 0.3 GB.

// `cfg(test)` tells clippy that helper functions are tests as well.
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bounded;
#[cfg(test)]
mod classifier;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod contamination;
#[cfg(test)]
mod conversations;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod damaged;
#[cfg(test)]
mod deterministic;
#[cfg(test)]
mod duplicates;
#[cfg(test)]
mod fertility;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod interchange;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod lineage;
#[cfg(test)]
mod mill;
#[cfg(test)]
mod object_store;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod report;
#[cfg(test)]
mod resumed;
#[cfg(test)]
mod semantic;
#[cfg(test)]
mod server;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod takedown;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod verify;
