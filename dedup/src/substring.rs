//! Spans of bytes or tokens that stood somewhere before, wherever they begin.
//!
//! Every window of [`Config::min_bytes`] bytes, or of [`Config::min_tokens`] tokens, is compared with every other one, exactly,
//! in linear time and without a suffix array. Windows are brought together by the smallest hash among the short pieces in them,
//! their *seed*: equal windows have equal seeds, and neighbours mostly share one, so a run of them is written as one string of
//! little more than a window's length. In a partition, runs whose seed comes once hold no copy; only the windows of the others are
//! compared, by a hash of 128 bits. (Partitioning by minimum substring, Li et al. 2013, as counters of k-mers do.)
//!
//! Tokens are written with the bytes that each one stands for, so what is found is a range of bytes either way.

mod record;
mod runs;
mod seeds;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shard::tokenizer::Tokenizer;
use xxhash_rust::xxh3::xxh3_128;

use self::record::{Run, lengths, put_length};
use self::runs::{Found, runs};
use self::seeds::Seeds;
use crate::mix::finalise;
use crate::span::{Emit, Piece, Pieces, find, offset, partition};
use crate::{Error, Finds, LoadTokenizer, MethodKind, Repeat, Result, SpanMethod, SpillWriter};

pub(crate) const KIND: MethodKind = MethodKind {
    name: "substring",
    summary: "spans of at least 100 bytes, or of `min_tokens` tokens, that stood before",
    source: "Lee et al. 2021, exact substring deduplication",
    finds: Finds::Spans(|table, load| Ok(Box::new(Finder::new(Config::read(table)?, load)?))),
    default_config: crate::default_table::<Config>,
    check: |table| Config::read(table).map(drop),
};

/// Settings of the search for repeated spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes that a span has at least, 8 to 65,536; none where tokens are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<usize>,
    /// Tokens that a span has at least, 4 to 16,384, in the place of `min_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<usize>,
    /// Whose tokens: a file; that of `[shard]` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Whether the first occurrence stays; if not, it goes too as soon as a second document has it.
    pub keep_first: bool,
}

impl Default for Config {
    fn default() -> Self {
        // About the 50 tokens of Lee et al.
        Self { min_bytes: Some(100), min_tokens: None, tokenizer: None, keep_first: true }
    }
}

impl Config {
    fn read(table: &toml::Table) -> Result<Self> {
        let mut config: Self = crate::parse_table("substring", table)?;
        if config.min_tokens.is_some() && !table.contains_key("min_bytes") {
            config.min_bytes = None;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: String, hint: &str| {
            Err(Error::Config { method: "substring", message, hint: hint.to_owned() })
        };
        match (self.min_bytes, self.min_tokens) {
            (Some(bytes), Some(tokens)) => refuse(
                format!("`min_bytes` is {bytes} and `min_tokens` is {tokens}"),
                "a span is as long in bytes or in tokens: remove one of them",
            ),
            (Some(bytes), None) if !(8..=1 << 16).contains(&bytes) => refuse(
                format!("`min_bytes` is {bytes}, it must be 8 to 65536"),
                "Lee et al. took 50 tokens, about 100 bytes with their coding; the default is 100",
            ),
            (None, Some(tokens)) if !(4..=1 << 14).contains(&tokens) => refuse(
                format!("`min_tokens` is {tokens}, it must be 4 to 16384"),
                "Lee et al. took 50 tokens",
            ),
            (Some(bytes), None) if self.tokenizer.is_some() => refuse(
                format!("`tokenizer` is set, and spans have {bytes} bytes, whatever the tokens"),
                "set `min_tokens = 50` beside it",
            ),
            _ => Ok(()),
        }
    }
}

/// The search as settings say it.
struct Finder {
    config: Config,
    /// Symbols of a window.
    window: usize,
    symbols: Symbols,
}

/// What a text is a sequence of.
enum Symbols {
    Bytes,
    Tokens {
        tokenizer: Arc<Tokenizer>,
        /// Bytes of a token as it is written.
        width: usize,
    },
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl Finder {
    fn new(config: Config, load: LoadTokenizer<'_>) -> Result<Self> {
        let (window, symbols) = match config.min_tokens {
            None => (config.min_bytes.unwrap_or_default(), Symbols::Bytes),
            Some(window) => {
                let tokenizer = load(config.tokenizer.as_deref())?;
                let width = if tokenizer.n_vocabulary() <= 1 << 16 { 2 } else { 4 };
                (window, Symbols::Tokens { tokenizer, width })
            }
        };
        Ok(Self { config, window, symbols })
    }

    fn width(&self) -> usize {
        match self.symbols {
            Symbols::Bytes => 1,
            Symbols::Tokens { width, .. } => width,
        }
    }

    /// Symbols of a seed: long ones come once more often, short ones make longer runs.
    fn n_seed(&self) -> usize {
        self.window.div_ceil(3)
    }

    fn spill_bytes(&self, row: u32, text: &[u8], writer: &mut SpillWriter) -> Result<()> {
        runs(text, self.window, self.n_seed(), |found| {
            let bytes = &text[found.start..found.start + found.n_windows + self.window - 1];
            push(&found, row, offset(found.start), writer, |buffer| {
                buffer.extend(bytes);
                0
            })
        })
    }

    /// `ends` are the bytes of the text behind each token.
    fn spill_tokens(
        &self,
        row: u32,
        (ids, ends): (&[u32], &[u32]),
        width: usize,
        writer: &mut SpillWriter,
    ) -> Result<()> {
        let start = |token: usize| if token == 0 { 0 } else { ends[token - 1] };
        runs(ids, self.window, self.n_seed(), |found| {
            let tokens = found.start..found.start + found.n_windows + self.window - 1;
            push(&found, row, start(found.start), writer, |buffer| {
                for id in &ids[tokens.clone()] {
                    buffer.extend(&id.to_le_bytes()[..width]);
                }
                let before = buffer.len();
                tokens.for_each(|token| put_length(ends[token] - start(token), buffer));
                buffer.len() - before
            })
        })
    }

    fn n_windows(&self, run: &Run<'_>) -> usize {
        run.symbols.len() / self.width() + 1 - self.window
    }

    /// Hands the windows of a run to `take`.
    fn windows(&self, run: &Run<'_>, take: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let (row, width) = (run.row, self.width());
        let windows = run.symbols.windows(self.window * width).step_by(width);
        match self.symbols {
            Symbols::Bytes => (run.start..).zip(windows).try_for_each(|(start, window)| {
                let end = start + offset(self.window);
                take(Piece { key: xxh3_128(window), row, start, end })
            }),
            Symbols::Tokens { .. } => {
                // Where each token begins, and the last one ends.
                let mut at = run.start;
                let mut starts = vec![at];
                starts.extend(lengths(run.lengths).map(|length| {
                    at += length;
                    at
                }));
                windows.enumerate().try_for_each(|(first, window)| {
                    let (start, end) = (starts[first], starts[first + self.window]);
                    take(Piece { key: xxh3_128(window), row, start, end })
                })
            }
        }
    }
}

/// Writes a run of windows into the partition of its seed.
fn push(
    found: &Found,
    row: u32,
    start: u32,
    writer: &mut SpillWriter,
    put: impl FnOnce(&mut Vec<u8>) -> usize,
) -> Result<()> {
    let seed = spread(found.seed);
    let is_repeated = found.is_repeated;
    let run = Run { seed, row, start, is_repeated, symbols: &[], lengths: &[] };
    writer.push(partition(seed, writer.n_partitions()), |buffer| run.write(buffer, put))
}

/// The smallest of many hashes is small; partitions are chosen by high bits.
fn spread(seed: u64) -> u64 {
    finalise(seed ^ crate::mix::K1)
}

impl SpanMethod for Finder {
    fn config(&self) -> toml::Table {
        let mut table = toml::Table::try_from(&self.config).expect("settings are plain values");
        if let Symbols::Tokens { tokenizer, .. } = &self.symbols {
            let fingerprint = tokenizer.fingerprint().to_owned();
            table.insert("tokenizer_blake3".to_owned(), fingerprint.into());
        }
        table
    }

    fn spill(&self, row: u32, text: &str, writer: &mut SpillWriter) -> Result<()> {
        thread_local! {
            static TOKENS: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        match &self.symbols {
            Symbols::Bytes => self.spill_bytes(row, text.as_bytes(), writer),
            Symbols::Tokens { tokenizer, width } => TOKENS.with_borrow_mut(|(ids, ends)| {
                ids.clear();
                ends.clear();
                tokenizer.encode_with_ends(text, ids, ends)?;
                self.spill_tokens(row, (ids, ends), *width, writer)?;
                // One huge document must not keep its memory for the life of the thread.
                ids.shrink_to(SCRATCH_TOKENS_MAX);
                ends.shrink_to(SCRATCH_TOKENS_MAX);
                Ok(())
            }),
        }
    }

    fn find(&self, pieces: Pieces<'_>, table_bytes: u64, emit: Emit<'_>) -> Result<()> {
        let mut seeds = Seeds::new(pieces.bytes()?, table_bytes / 8);
        pieces.read(|bytes| {
            Run::all(bytes).for_each(|run| seeds.add(&run));
            Ok(())
        })?;
        let mut n = 0;
        pieces.read(|bytes| {
            let repeated = Run::all(bytes).filter(|run| seeds.is_repeated(run.seed));
            n += repeated.map(|run| self.n_windows(&run) as u64).sum::<u64>();
            Ok(())
        })?;
        let visit = |take: &mut dyn FnMut(Piece) -> Result<()>| {
            pieces.read(|bytes| {
                Run::all(bytes)
                    .filter(|run| seeds.is_repeated(run.seed))
                    .try_for_each(|run| self.windows(&run, take))
            })
        };
        // Windows of one run come one after the other: they are joined before they are handed on.
        let mut last: Option<Repeat> = None;
        find(n, table_bytes, self.config.keep_first, visit, &mut |next| match &mut last {
            Some(last) if joins(last, &next) => {
                last.end = last.end.max(next.end);
                Ok(())
            }
            last => last.replace(next).map_or(Ok(()), &mut *emit),
        })?;
        last.map_or(Ok(()), emit)
    }

    fn merge(&self, repeats: &mut Vec<Repeat>) {
        // Copies of several places lie across each other: those of one longer copy are not neighbours by their start.
        repeats.sort_unstable_by_key(|repeat| (repeat.row, source(repeat), repeat.start));
        repeats.dedup_by(|next, last| {
            let is_joined = joins(last, next);
            if is_joined {
                last.end = last.end.max(next.end);
            }
            is_joined
        });
        repeats.sort_unstable();
    }
}

/// Tokens that a thread keeps room for between two texts.
const SCRATCH_TOKENS_MAX: usize = 1 << 20;

/// Row of the first occurrence, and how far from a copy it stands: the same for all windows of one longer copy.
fn source(repeat: &Repeat) -> Option<(u32, i64)> {
    repeat.kept.map(|(row, start)| (row, i64::from(start) - i64::from(repeat.start)))
}

/// Whether `next` goes on with the text that `last` is a copy of.
fn joins(last: &Repeat, next: &Repeat) -> bool {
    last.row == next.row
        && source(last) == source(next)
        && (last.start..=last.end).contains(&next.start)
}

#[cfg(test)]
mod tests;
