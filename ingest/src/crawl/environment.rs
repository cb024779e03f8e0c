//! What a crawl takes from the machine it runs on: the time, and the addresses of names.

use std::fmt;
use std::io;
use std::net::IpAddr;
#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use tokio::time::Instant;

/// The machine, or what a test puts in its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) clock: Clock,
    pub(super) names: Names,
}

/// A clock that never goes back.
#[derive(Clone, Debug, Default)]
pub(super) enum Clock {
    #[default]
    Machine,
    /// Runs so many microseconds ahead of the machine's, and ahead to whatever is waited for while no request is open.
    #[cfg(test)]
    Simulated(Arc<AtomicU64>),
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        match self {
            Self::Machine => Instant::now(),
            #[cfg(test)]
            Self::Simulated(ahead) => {
                Instant::now() + Duration::from_micros(ahead.load(Ordering::SeqCst))
            }
        }
    }

    /// Waits until `at`, or for `interval` when that is sooner. `is_idle`: nothing else can happen before `at`.
    #[cfg_attr(not(test), expect(unused_variables, reason = "a machine's clock waits in any case"))]
    pub(super) async fn wait(&self, at: Option<Instant>, interval: Duration, is_idle: bool) {
        let left = at.map_or(interval, |at| at.saturating_duration_since(self.now()));
        match self {
            #[cfg(test)]
            Self::Simulated(_) if is_idle && at.is_some() => self.advance(left),
            _ => tokio::time::sleep(left.min(interval)).await,
        }
    }

    /// Moves a simulated clock ahead.
    #[cfg(test)]
    pub(super) fn advance(&self, by: Duration) {
        if let Self::Simulated(ahead) = self {
            let micros = u64::try_from(by.as_nanos().div_ceil(1000)).unwrap();
            ahead.fetch_add(micros, Ordering::SeqCst);
        }
    }
}

/// Gives the addresses of a name.
#[cfg(test)]
type Lookup = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// Where the addresses of names come from.
#[derive(Clone, Default)]
pub(super) enum Names {
    #[default]
    System,
    #[cfg(test)]
    Fixed(Arc<Lookup>),
}

impl Names {
    /// Returns the addresses of `name`, public or not.
    pub(super) async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            #[cfg(test)]
            Self::Fixed(lookup) => Ok(lookup(name)),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
