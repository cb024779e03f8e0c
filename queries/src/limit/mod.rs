//! What a question may cost, in one place: its shape, memory, time, rows and bytes.
//!
//! | limit | watched | where |
//! |---|---|---|
//! | shape | before the statement is parsed | [`statement`](crate::statement) |
//! | memory | by the pool of the session's operators; single values by `function` | [`session`](crate::session) |
//! | time, rows | while rows come | [`Bounded`] |
//! | bytes | while rows are written | [`Sink`] |
//!
//! A question is cancelled by dropping its stream: operators stop at the next batch.

pub(crate) mod function;

use std::io;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::{Error, Result};

/// What was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The statement is too large to be planned.
    Statement,
    /// Memory of operators and values.
    Memory,
    /// Time from the question to its last row.
    Time,
    /// Rows of the answer.
    Rows,
    /// Bytes of the answer.
    Bytes,
    /// Questions at once.
    Queue,
}

impl Limit {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::Memory => "memory",
            Self::Time => "time",
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Queue => "queue",
        }
    }
}

/// Limits of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionLimits {
    /// From the question to its last row.
    pub time: Duration,
    /// Rows of the answer.
    pub rows: u64,
    /// Bytes of the answer as it is sent.
    pub bytes: u64,
}

impl Default for QuestionLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), rows: 100_000, bytes: 64 << 20 }
    }
}

/// The rows of a question until a limit.
pub struct Bounded {
    stream: SendableRecordBatchStream,
    limits: QuestionLimits,
    end: Instant,
    n_rows: u64,
}

impl std::fmt::Debug for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").field("n_rows", &self.n_rows).finish_non_exhaustive()
    }
}

impl Bounded {
    /// Bounds the rows of `stream`; the time ends at `end`.
    #[must_use]
    pub fn new(stream: SendableRecordBatchStream, limits: QuestionLimits, end: Instant) -> Self {
        Self { stream, limits, end, n_rows: 0 }
    }

    /// Returns the next rows, nothing behind the last.
    ///
    /// # Errors
    /// When the query fails, and at a limit.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = timeout_at(self.end, self.stream.next());
        let Some(batch) = next.await.map_err(|_| out_of_time(self.limits.time))? else {
            return Ok(None);
        };
        let batch = batch.map_err(of_engine)?;
        self.n_rows += batch.num_rows() as u64;
        if self.n_rows > self.limits.rows {
            return Err(Error::Limit {
                limit: Limit::Rows,
                message: format!("the answer has more than {} rows", self.limits.rows),
                hint: format!("add `limit {}`, aggregate, or raise `--max-rows`", self.limits.rows),
            });
        }
        Ok(Some(batch))
    }
}

/// The error of a question that took longer than `time`.
#[must_use]
pub fn out_of_time(time: Duration) -> Error {
    Error::Limit {
        limit: Limit::Time,
        message: format!("the question was stopped after {} seconds", time.as_secs_f64()),
        hint: "ask for fewer rows or sources, or raise `--max-seconds`".to_owned(),
    }
}

/// Names the limit where the engine ran out of memory.
#[must_use]
pub fn of_engine(error: DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => Error::Limit {
            limit: Limit::Memory,
            message: format!(
                "the question needs more memory than it may have: {}",
                message.lines().next().unwrap_or_default()
            ),
            hint: "select fewer columns, aggregate before joining, or raise `--memory`".to_owned(),
        },
        _ => Error::Engine(error),
    }
}

/// Returns how many bytes the values of `columns` take at least when they are written as text, counting no further than `max`.
#[must_use]
pub fn least_bytes(columns: &[ArrayRef], max: u64) -> u64 {
    let mut sum = 0_u64;
    for column in columns {
        if sum > max {
            break;
        }
        sum = sum.saturating_add(match column.data_type() {
            DataType::Utf8View => column.as_string_view().lengths().map(u64::from).sum::<u64>(),
            DataType::Utf8 | DataType::Binary => {
                let data = column.to_data();
                let ends = data.buffers()[0].typed_data::<i32>();
                let ends = &ends[data.offset()..=data.offset() + data.len()];
                u64::try_from(ends[ends.len() - 1] - ends[0]).unwrap_or(0)
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                let ends = list.offsets();
                let first = usize::try_from(ends[0]).unwrap_or(0);
                let last = usize::try_from(ends[ends.len() - 1]).unwrap_or(0);
                let values = list.values().slice(first, last - first);
                least_bytes(&[values], max - sum)
            }
            DataType::Struct(_) => least_bytes(column.as_struct().columns(), max - sum),
            _ => column.len() as u64,
        });
    }
    sum
}

/// The error of an answer of more than `max` bytes.
#[must_use]
pub fn too_many_bytes(max: u64) -> Error {
    Error::Limit {
        limit: Limit::Bytes,
        message: format!("the answer has more than {max} bytes"),
        hint: "select fewer columns, cut texts with `left(text, 1000)`, or raise `--max-bytes`"
            .to_owned(),
    }
}

/// Bytes of an answer, refused beyond a limit.
#[derive(Debug)]
pub struct Sink {
    bytes: Vec<u8>,
    max: u64,
    /// Whether a write was refused.
    is_full: bool,
}

impl Sink {
    /// Takes at most `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self { bytes: Vec::new(), max, is_full: false }
    }

    /// Returns what was written; the limit's error instead of `result`'s when it was the reason.
    ///
    /// # Errors
    /// As `result`, and for the limit.
    pub fn checked<T>(&self, result: Result<T>) -> Result<T> {
        match self.is_full {
            true => Err(too_many_bytes(self.max)),
            false => result,
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.max {
            self.is_full = true;
            return Err(io::Error::other("the answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
