//! Promises across crates are tests of this package; it has nothing to link against.
