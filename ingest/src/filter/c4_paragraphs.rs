//! Drops pages without three long lines, as mC4 does.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Filter, FilterKind, Signal, Verdicts, chars, config, text_column};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "c4_paragraphs",
    summary: "pages without several long lines",
    source: "Xue et al. 2021, mC4; datatrove 0.10.1, C4ParagraphFilter",
    signals: &[Signal {
        name: "long_lines",
        data_type: DataType::UInt64,
        summary: "lines of at least `min_chars` characters",
    }],
    reasons: &["too_few_long_lines"],
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(C4Paragraphs { config: config::from_table("c4_paragraphs", table)? }))
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Characters of a line that counts.
    min_chars: u64,
    min_lines: u64,
}

impl Default for Config {
    fn default() -> Self {
        // `paragraph_filter` of C4's own code.
        Self { min_chars: 200, min_lines: 3 }
    }
}

#[derive(Debug)]
struct C4Paragraphs {
    config: Config,
}

impl Filter for C4Paragraphs {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let is_long = |line: &&str| {
            line.len() as u64 >= self.config.min_chars && chars(line) >= self.config.min_chars
        };
        let counts: UInt64Array = text_column(documents)?
            .iter()
            .map(|text| Some(text.unwrap_or_default().split('\n').filter(is_long).count() as u64))
            .collect();
        let reasons: StringArray = counts
            .values()
            .iter()
            .map(|&n| (n < self.config.min_lines).then_some("too_few_long_lines"))
            .collect();
        let signals: Vec<ArrayRef> = vec![Arc::new(counts)];
        Ok(Verdicts { reasons, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::reasons;

    #[test]
    fn wants_three_lines_of_two_hundred_characters() {
        let line = "ä".repeat(200);
        let dropped = Some("too_few_long_lines".to_owned());
        let check = |text: &str| reasons(&KIND, "", &[text])[0].clone();
        assert_eq!(check(&format!("{line}\nx\n{line}\n{line}")), None);
        assert_eq!(check(&format!("{line}\nx\n{line}")), dropped);
        assert_eq!(check(&format!("{line}\r{line}\r{line}")), dropped);
    }
}
