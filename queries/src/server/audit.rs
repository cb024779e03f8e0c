//! One line of JSON per question: who asked what, and what came of it. Tokens and rows are never in it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::Result;

/// Characters of a statement that are kept.
const SQL_CHARS: usize = 4096;

/// The log.
#[derive(Debug)]
pub(super) struct Audit(Mutex<File>);

/// What is logged of a question.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    pub asker: &'a str,
    pub peer: Option<SocketAddr>,
    pub protocol: &'static str,
    pub sql: &'a str,
    /// `ok`, or the code of the error.
    pub outcome: &'static str,
    pub rows: u64,
    pub bytes: u64,
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970.
    time_ms: u128,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 1e6).round() / 1e6)
}

impl Audit {
    /// Appends to the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.map_err(shard::Error::io("open", path))?)))
    }

    /// Writes a line. A log that cannot be written is told to the server's own log: questions are still answered.
    pub(super) fn write(&self, entry: &Entry<'_>) {
        let cut =
            entry.sql.char_indices().nth(SQL_CHARS).map_or(entry.sql, |(at, _)| &entry.sql[..at]);
        let entry = Entry { sql: cut, ..*entry };
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis());
        let line = Line { time_ms, entry: &entry };
        let mut line = serde_json::to_vec(&line).expect("values of ours have text keys");
        line.push(b'\n');
        // One call per line: lines of several questions do not mix.
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        if let Err(error) = written {
            tracing::error!(%error, "cannot write the audit log");
        }
    }
}
