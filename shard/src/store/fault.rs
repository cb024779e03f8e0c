//! Faults at every operation of the store, for tests: each operation has a point before and a point after it.
//!
//! Points are numbered in the order in which a thread reaches them. [`arm`] chooses the one where something happens;
//! [`disarm`] tells which points were reached.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

/// What happens at the chosen point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation is refused, or is said to have failed after it was done.
    Error,
    /// The thread unwinds.
    Panic,
    /// The process dies: no destructor runs, nothing is flushed.
    Abort,
    /// A write stops half way with a full disk; other operations fail as with [`Fault::Error`].
    Partial,
    /// The thread sleeps, so that others overtake it.
    Delay,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(usize, Fault)>,
    reached: Vec<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Counts points from zero, and lets `fault` happen at point `index`.
pub(crate) fn arm(index: usize, fault: Fault) {
    STATE.set(State { armed: Some((index, fault)), reached: Vec::new() });
}

/// Counts points from zero; nothing happens at any of them.
pub(crate) fn record() {
    STATE.set(State::default());
}

/// Lets nothing happen any more; returns the points that were reached, in order.
pub(crate) fn disarm() -> Vec<String> {
    STATE.take().reached
}

pub(super) fn around<T>(operation: &str, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    reach(&format!("before {operation}"))?;
    let done = run()?;
    reach(&format!("after {operation}"))?;
    Ok(done)
}

pub(super) fn write(bytes: &[u8], run: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
    match reach("before write") {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            run(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        result => result?,
    }
    run(bytes)?;
    reach("after write")
}

fn reach(point: &str) -> io::Result<()> {
    let fault = STATE.with_borrow_mut(|state| {
        let index = state.reached.len();
        state.reached.push(point.to_owned());
        state.armed.filter(|(armed, _)| *armed == index).map(|(_, fault)| fault)
    });
    match fault {
        None => Ok(()),
        Some(Fault::Error) => Err(io::Error::other(format!("injected {point}"))),
        Some(Fault::Panic) => panic!("injected {point}"),
        Some(Fault::Abort) => std::process::abort(),
        Some(Fault::Partial) => Err(io::ErrorKind::StorageFull.into()),
        Some(Fault::Delay) => {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        }
    }
}
