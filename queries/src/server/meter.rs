//! What the server counts of itself, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of seconds.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];

/// Counters since the server started.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// By protocol and outcome.
    questions: BTreeMap<(&'static str, &'static str), u64>,
    /// Of [`SECONDS`], and above.
    buckets: [u64; SECONDS.len() + 1],
    seconds: f64,
    rows: u64,
    bytes: u64,
    denied: u64,
}

/// What is true at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// Questions that run.
    pub running: usize,
    /// Questions that wait for their turn.
    pub waiting: usize,
    /// Bytes that operators hold.
    pub memory: usize,
}

impl Meter {
    /// Counts a question that ended.
    pub(super) fn question(
        &self,
        protocol: &'static str,
        outcome: &'static str,
        took: Duration,
        rows: u64,
        bytes: u64,
    ) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.questions.entry((protocol, outcome)).or_default() += 1;
        let seconds = took.as_secs_f64();
        counts.buckets[SECONDS.partition_point(|end| *end < seconds)] += 1;
        counts.seconds += seconds;
        counts.rows += rows;
        counts.bytes += bytes;
    }

    /// Counts a request without a valid token.
    pub(super) fn denied(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).denied += 1;
    }

    /// Returns everything in Prometheus' text format.
    pub(super) fn text(&self, now: Now) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut put = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string takes all that is written");
            text.push('\n');
        };
        put(format_args!(
            "# HELP gristmill_questions_total Questions that ended.\n# TYPE gristmill_questions_total counter"
        ));
        for ((protocol, outcome), n) in &counts.questions {
            put(format_args!(
                "gristmill_questions_total{{protocol=\"{protocol}\",outcome=\"{outcome}\"}} {n}"
            ));
        }
        put(format_args!(
            "# HELP gristmill_question_seconds From a question to its last row.\n# TYPE gristmill_question_seconds histogram"
        ));
        let mut n = 0;
        for (end, bucket) in SECONDS.iter().zip(counts.buckets) {
            n += bucket;
            put(format_args!("gristmill_question_seconds_bucket{{le=\"{end}\"}} {n}"));
        }
        n += counts.buckets[SECONDS.len()];
        put(format_args!("gristmill_question_seconds_bucket{{le=\"+Inf\"}} {n}"));
        put(format_args!("gristmill_question_seconds_sum {}", counts.seconds));
        put(format_args!("gristmill_question_seconds_count {n}"));
        for (name, kind, help, value) in [
            ("rows_total", "counter", "Rows of answers.", counts.rows),
            ("bytes_total", "counter", "Bytes of answers.", counts.bytes),
            ("denied_total", "counter", "Requests without a valid token.", counts.denied),
            ("running", "gauge", "Questions that run.", now.running as u64),
            ("waiting", "gauge", "Questions that wait for their turn.", now.waiting as u64),
            ("memory_bytes", "gauge", "Bytes that operators hold.", now.memory as u64),
        ] {
            put(format_args!(
                "# HELP gristmill_{name} {help}\n# TYPE gristmill_{name} {kind}\ngristmill_{name} {value}"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_everything_below_their_end() {
        let meter = Meter::default();
        for (outcome, milliseconds) in [("ok", 5), ("ok", 6), ("time", 30_001)] {
            meter.question("http", outcome, Duration::from_millis(milliseconds), 2, 10);
        }
        let text = meter.text(Now { running: 1, ..Now::default() });
        for line in [
            "gristmill_questions_total{protocol=\"http\",outcome=\"ok\"} 2",
            "gristmill_questions_total{protocol=\"http\",outcome=\"time\"} 1",
            "gristmill_question_seconds_bucket{le=\"0.005\"} 1",
            "gristmill_question_seconds_bucket{le=\"0.01\"} 2",
            "gristmill_question_seconds_bucket{le=\"30\"} 2",
            "gristmill_question_seconds_bucket{le=\"+Inf\"} 3",
            "gristmill_question_seconds_count 3",
            "gristmill_rows_total 6",
            "gristmill_running 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
