//! Progress on stderr: bars on a terminal, plain lines otherwise, nothing when asked to be quiet.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// Seconds between plain lines of one task.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// A bar that moves.
    Bars,
    /// A line at the start, one every ten seconds, one at the end.
    Lines,
    /// Nothing.
    Quiet,
}

impl Talk {
    /// Bars on a terminal, lines otherwise; nothing if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// Says a line.
    pub fn say(self, line: impl AsRef<str>) {
        if self != Self::Quiet {
            // A closed stderr is no reason to stop the work.
            drop(writeln!(std::io::stderr(), "{}", line.as_ref()));
        }
    }

    /// Begins a task of `n` parts.
    #[must_use]
    pub fn task(self, name: &str, n: u64, unit: Unit) -> Task {
        let bar = match self {
            Self::Bars => {
                let bar = ProgressBar::new(n);
                let template = match unit {
                    Unit::Count(unit) => {
                        format!(
                            "{{prefix:>12}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}  {{eta}}"
                        )
                    }
                    Unit::Bytes => {
                        "{prefix:>12} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}"
                            .into()
                    }
                };
                let style = ProgressStyle::with_template(&template).expect("the template is ours");
                bar.set_style(style);
                bar.set_prefix(name.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            }
            Self::Lines | Self::Quiet => {
                let bar = ProgressBar::hidden();
                bar.set_length(n);
                bar
            }
        };
        let task = Task {
            talk: self,
            name: name.to_owned(),
            unit,
            bar,
            started: Instant::now(),
            last_line: Mutex::new(Instant::now()),
        };
        if self == Self::Lines {
            task.talk.say(format!("{name}: {} to do", unit.show(n)));
        }
        task
    }
}

/// What a task counts.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Things of this name.
    Count(&'static str),
    /// Bytes.
    Bytes,
}

impl Unit {
    fn show(self, n: u64) -> String {
        match self {
            Self::Count(unit) => format!("{} {unit}", HumanCount(n)),
            Self::Bytes => HumanBytes(n).to_string(),
        }
    }
}

/// A piece of long work.
#[derive(Debug)]
pub struct Task {
    talk: Talk,
    name: String,
    unit: Unit,
    bar: ProgressBar,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl Task {
    /// Adds `n` finished parts.
    pub fn advance(&self, n: u64) {
        self.bar.inc(n);
        self.line();
    }

    /// Says how much is done, of how much.
    pub fn set(&self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.line();
    }

    fn line(&self) {
        if self.talk != Talk::Lines {
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= LINE_INTERVAL {
            *last = Instant::now();
            let (done, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
            self.talk.say(format!(
                "{}: {} of {}",
                self.name,
                self.unit.show(done),
                self.unit.show(of)
            ));
        }
    }

    /// Ends the task with a line about what it gave.
    pub fn finish(self, result: impl AsRef<str>) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        self.talk.say(format!("{:>12}  {}  ({seconds:.1} s)", self.name, result.as_ref()));
    }
}
