//! Steps that give documents new text: one file per modifier.
//!
//! A modifier is a pure function of a batch. It says which spans it changed, may reject a row (a page without text),
//! and may fill metadata that it found on the way. In SQL `name(text)` returns the new text.

mod c4_lines;
pub mod extract_html;
mod fix_mojibake;
mod mask_pii;
mod normalize;
mod refinedweb_lines;
mod remove_citations;

pub(crate) mod html;

use std::fmt;

use arrow::array::{StringArray, StringViewArray};
use arrow::record_batch::RecordBatch;

use crate::Result;

/// A span that a modifier replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Row of the batch.
    pub row: usize,
    /// Byte range in the row's text before the change.
    pub start: usize,
    /// End of the range, exclusive.
    pub end: usize,
    /// Which rule found it.
    pub rule: &'static str,
    /// What stands there now.
    pub replacement: String,
}

/// What a modifier makes of a batch.
#[derive(Clone, Debug)]
pub struct Modified {
    /// The new text per row; the old one where nothing changed.
    pub text: StringViewArray,
    /// Null keeps the row, a `snake_case` reason drops it. `None` keeps all.
    pub reasons: Option<StringArray>,
    /// Changed spans, ordered by row and start; empty for modifiers that replace the whole text.
    pub edits: Vec<Edit>,
    /// Values found on the way, `(row, key, value)`. A key called like a text column of `documents` fills it
    /// where it is null, any other goes to `metadata`.
    pub found: Vec<(usize, &'static str, String)>,
}

/// Rewrites batches of documents.
pub trait Modifier: fmt::Debug + Send + Sync {
    /// Returns the new text per row of `documents`, which has at least the column `text` (`Utf8View`, not null).
    ///
    /// Depends on nothing but the row and the configuration.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    fn modify(&self, documents: &RecordBatch) -> Result<Modified>;
}

/// What is registered of a modifier.
#[derive(Clone, Copy, Debug)]
pub struct ModifierKind {
    /// `use` in a job's `[[step]]` and name of the SQL function.
    pub name: &'static str,
    /// What it changes, in one line.
    pub summary: &'static str,
    /// Paper or implementation that it follows.
    pub source: &'static str,
    /// Every reason it can drop a row for.
    pub reasons: &'static [&'static str],
    /// The keys it takes in a job with their default values, as TOML.
    pub default_config: fn() -> toml::Table,
    /// Builds it from the keys that the job sets.
    pub build: fn(config: &toml::Table) -> Result<Box<dyn Modifier>>,
}

/// Every modifier, sorted by name. Adding one is a file here and a line in this list.
pub const KINDS: &[ModifierKind] = &[
    c4_lines::KIND,
    extract_html::KIND,
    fix_mojibake::KIND,
    mask_pii::KIND,
    normalize::KIND,
    refinedweb_lines::KIND,
    remove_citations::KIND,
];

/// Returns the modifier called `name`.
#[must_use]
pub fn kind(name: &str) -> Option<&'static ModifierKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
