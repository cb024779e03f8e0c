//! Conversations and preferences as datasets for instruction tuning store them: JSON lines or one JSON array.
//!
//! The text is a transcript; `messages` in the metadata is the conversation itself, so that later stages need not parse the
//! transcript. Every row is told by its keys which shape it has, so a file may mix them and any range of it reads the same.
//! Preference data has both conversations whole, as `chosen` and `rejected`, and in `messages` what they have in common.

mod shape;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::shape::{Chat, Paths, Shape};
use super::array::{Array, Element};
use super::batch::{self, BatchBuilder, Record, Rows};
use super::lines::{Line, Lines};
use super::{DocumentStream, Source, SourceFile, SourceKind, config};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "chat",
    summary: "instruction, conversation and preference data as JSON or JSON lines, plain, gzip, Zstandard or bzip2",
    source: "Alpaca, ShareGPT, OpenAI messages, OpenAssistant trees, HH-RLHF, DPO and KTO as their data cards describe them",
    document_kind: "conversation",
    patterns: &[
        "*.json",
        "*.jsonl",
        "*.json.gz",
        "*.jsonl.gz",
        "*.json.zst",
        "*.jsonl.zst",
        "*.json.bz2",
        "*.jsonl.bz2",
    ],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(ChatSource {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("chat", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// `auto` (by each row's keys), `alpaca`, `sharegpt`, `messages`, `tree`, `hh_rlhf`, `dpo`, `kto`, `question_answer` or `turns`.
    shape: Shape,
    /// Which conversations of a tree: `best` (the first by rank at each turn) or `all` (one per leaf).
    paths: Paths,
    /// The licence of every row.
    license: String,
    /// Bytes of a row, at most.
    row_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shape: Shape::Auto,
            paths: Paths::Best,
            license: String::new(),
            row_bytes_max: 16 << 20,
        }
    }
}

#[derive(Clone, Debug)]
struct ChatSource {
    name: String,
    kind: String,
    config: Config,
}

impl Source for ChatSource {
    fn is_splittable(&self, name: &str) -> bool {
        // A place inside an array does not say whether it is inside a string.
        name.ends_with(".jsonl")
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let open = || File::open(&file.path).map_err(Error::io("open", &file.path));
        let range = range.unwrap_or(0..u64::MAX);
        let io = || Error::io("read", &file.path);
        let items = match Array::open(open()?, &range).map_err(io())? {
            Some(array) => Items::Array(array),
            None => Items::Lines(Lines::open(open()?, &range).map_err(io())?),
        };
        let reader =
            Reader { file: file.clone(), config: self.config.clone(), items, row: Vec::new() };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }

    /// Rows of an array have no range of their own, whatever the file is called.
    fn range_of(&self, file: &SourceFile, place: &str) -> Option<Range<u64>> {
        let array = Array::open(File::open(&file.path).ok()?, &(0..u64::MAX)).ok()?;
        let at = place.split('/').next()?.parse().ok()?;
        (array.is_none() && self.is_splittable(&file.name)).then_some(at..at + 1)
    }
}

enum Items {
    Lines(Lines),
    Array(Array),
}

struct Reader {
    file: SourceFile,
    config: Config,
    items: Items,
    row: Vec<u8>,
}

impl Rows for Reader {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let limit = self.config.row_bytes_max;
        let (read, offset, bytes_raw) = match &mut self.items {
            Items::Lines(lines) => {
                let offset = lines.offset();
                let line = lines.read(&mut self.row, limit);
                let read = line.map(|line| match line {
                    Line::Whole => Element::Whole,
                    Line::TooLong => Element::TooLong,
                    Line::Damaged(reason) => Element::Damaged(reason),
                    Line::End => Element::End,
                });
                (read, offset, lines.offset() - offset)
            }
            Items::Array(array) => {
                let read = array.read(&mut self.row, limit);
                // Blanks behind an element are not its own.
                let bytes = match &read {
                    Ok(Element::Whole) => self.row.trim_ascii_end().len() as u64,
                    _ => array.offset() - array.start(),
                };
                (read, array.start(), bytes)
            }
        };
        let locator = format!("{}#{offset}", self.file.name);
        let record = Record { locator: &locator, bytes_raw, ..Record::default() };
        match read.map_err(Error::io("read", &self.file.path))? {
            Element::End => return Ok(false),
            Element::TooLong => rows.reject(&record, "too_large"),
            Element::Damaged(reason) => rows.reject(&record, reason),
            Element::Whole => self.push(&record, offset, rows),
        }
        Ok(true)
    }
}

impl Reader {
    fn push(&self, record: &Record<'_>, offset: u64, rows: &mut BatchBuilder) {
        let mut row = self.row.as_slice();
        if offset == 0 {
            row = row.strip_prefix(b"\xef\xbb\xbf").unwrap_or(row);
        }
        if row.trim_ascii().is_empty() {
            return;
        }
        let Ok(text) = std::str::from_utf8(row) else {
            return rows.reject(record, "bad_utf8");
        };
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return rows.reject(record, "bad_json");
        };
        let shape = match self.config.shape {
            Shape::Auto => Shape::of(&object),
            shape => Some(shape),
        };
        let Some(shape) = shape else { return rows.reject(record, "unknown_shape") };
        let chats = shape.read(&object, self.config.paths);
        let n_chats = chats.len();
        for (index, chat) in chats.into_iter().enumerate() {
            // A tree or a task with several instances gives several.
            let locator = if n_chats == 1 {
                record.locator.to_owned()
            } else {
                format!("{}/{index}", record.locator)
            };
            let record = Record { locator: &locator, ..*record };
            match chat {
                Ok(chat) => self.document(&record, shape, &chat, &object, rows),
                Err(reason) => rows.reject(&record, reason),
            }
        }
    }

    fn document(
        &self,
        record: &Record<'_>,
        shape: Shape,
        chat: &Chat,
        object: &serde_json::Map<String, Value>,
        rows: &mut BatchBuilder,
    ) {
        let mut values: Vec<(&str, String)> = vec![("shape", shape.name().to_owned())];
        values.push(("messages", shape::json(&chat.messages)));
        if let Some((chosen, rejected)) = &chat.preference {
            values.push(("chosen", shape::json(chosen)));
            values.push(("rejected", shape::json(rejected)));
        }
        values.extend(chat.label.map(|label| ("label", label.to_string())));
        values.extend(chat.tools.clone().map(|tools| ("tools", tools)));
        // What else the row says of itself, where it is short: its id, its topic, where it is from.
        let taken: Vec<&str> = values.iter().map(|(key, _)| *key).collect();
        let others = object.iter().filter(|(key, _)| {
            !taken.contains(&key.as_str()) && !shape::CONTENT_KEYS.contains(&key.as_str())
        });
        let others: Vec<(&str, String)> =
            others.filter_map(|(key, value)| Some((key.as_str(), shape::scalar(value)?))).collect();
        values.extend(others);
        let metadata: Vec<(&str, &str)> =
            values.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let license = Some(self.config.license.as_str()).filter(|license| !license.is_empty());
        let shown = chat.preference.as_ref().map_or(&chat.messages, |(chosen, _)| chosen);
        rows.push(
            &Record { license, metadata: &metadata, ..*record },
            &shard::chat::transcript(shown),
        );
    }
}
