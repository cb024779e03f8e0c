//! Items of evaluation sets, from the files that a job names, and the index of their n-grams.
//!
//! Every source of documents reads them: JSON lines, CSV and TSV, Parquet, Arrow, compressed or not. A `*.json` file is a list of objects,
//! the whole file or what the pointer `items` leads to. A field is a column, or a JSON pointer into one (`/answer_info/ans0/0`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;
use dedup::contamination::{Config, Index, Item};
use dedup::minhash::SplitWords;
use ingest::source::{Source, SourceFile, SourceKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::{config, store};

use crate::job::OneOrMany;
use crate::{Error, Result};

/// `[decontaminate]` of a job, or a file of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DecontaminateConfig {
    /// The evaluation sets; a document that several of them share is credited to the first.
    pub benchmarks: Vec<BenchmarkConfig>,
    /// Profile, action and whatever else [`Config`] takes.
    #[serde(flatten)]
    pub config: toml::Table,
}

/// One evaluation set.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BenchmarkConfig {
    /// Its name in `contamination` and in reasons.
    pub name: String,
    /// Files, folders or patterns, relative to the job file.
    pub path: OneOrMany,
    /// The kind of source that reads them; by the ending of `path`, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The fields of what is asked; the texts of several are one, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<OneOrMany>,
    /// The fields of right answers: each, and each entry of a list, is an answer by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<OneOrMany>,
    /// JSON pointer to the list of items of a `*.json` file; the file itself, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,
    /// Keys of the source itself.
    #[serde(flatten)]
    pub config: toml::Table,
}

/// An index and what was read for it.
#[derive(Clone, Debug)]
pub struct Benchmarks {
    /// The n-grams.
    pub index: Arc<Index>,
    /// What decides the index beyond its configuration: fields and settings of each benchmark, names and hashes of its files.
    pub files: Value,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

/// Reads the benchmarks of `config`, whose paths begin in `folder`; `place` names the section in errors.
///
/// # Errors
/// When a file is not there or has no item, a field is in no row, a setting cannot work, or a benchmark has no item as
/// long as an n-gram.
pub fn load(config: &DecontaminateConfig, folder: &Path, place: &str) -> Result<Benchmarks> {
    let settings: Config = config::from_table(&config.config, place)?;
    let refuse = |message: String, hint: &str| Error::Job {
        place: place.to_owned(),
        message,
        hint: Some(hint.to_owned()),
    };
    if config.benchmarks.is_empty() {
        let hint = "add `{ name = \"…\", path = \"…\", query = \"…\", answer = \"…\" }`";
        return Err(refuse("`benchmarks` is empty: nothing is looked for".to_owned(), hint));
    }
    let mut index = Index::new(settings, Some(english_words()))?;
    let (mut files, mut notes, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for benchmark in &config.benchmarks {
        if !names.insert(&benchmark.name) {
            let message = format!("two benchmarks are called `{}`", benchmark.name);
            return Err(refuse(message, "give one of them another `name`"));
        }
        let number = index.benchmark(&benchmark.name);
        let place = format!("{place} benchmark `{}`", benchmark.name);
        let read = read(benchmark, folder, &place, |item| {
            index.push(number, &item);
        })?;
        files.push(serde_json::json!({
            "name": benchmark.name,
            "query": benchmark.query,
            "answer": benchmark.answer,
            "items": benchmark.items,
            "kind": benchmark.kind,
            "settings": config::canonical_json(&benchmark.config),
            "files": read.files,
        }));
        let known = &index.benchmarks()[number];
        let ngram = index.config().ngram;
        if known.n_items_indexed == 0 {
            let message = format!(
                "none of {} items has {ngram} words in {}: nothing of it can be found",
                known.n_items,
                field_names(index.config())
            );
            let hint = "lower `ngram`, name more `fields`, or take another profile: palm looks for 8 words";
            return Err(Error::Job { place, message, hint: Some(hint.to_owned()) });
        }
        notes.push(note(known, read.n_unreadable, ngram));
    }
    Ok(Benchmarks { index: Arc::new(index.finish()), files: Value::from(files), notes })
}

/// Splits simplified texts as spaCy's English tokenizer does: the words of datatrove's profiles.
pub(crate) fn english_words() -> SplitWords {
    Arc::new(|text: &str| {
        ingest::filter::english_words(text).into_iter().map(str::to_owned).collect()
    })
}

fn field_names(config: &Config) -> String {
    config.fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(" or ")
}

fn note(known: &dedup::contamination::Benchmark, n_unreadable: u64, ngram: usize) -> String {
    let mut note = format!("{}: {} items", known.name, known.n_items);
    let n_short = known.n_items - known.n_items_indexed;
    if n_short > 0 {
        note.push_str(&format!(", {n_short} shorter than {ngram} words are never found"));
    }
    if n_unreadable > 0 {
        note.push_str(&format!(", {n_unreadable} rows without a text were passed over"));
    }
    note
}

/// What was read of one benchmark.
#[derive(Debug, Default)]
struct Read {
    files: Vec<(String, String)>,
    n_unreadable: u64,
}

/// The fields of a row by name; lists and objects as JSON.
type Row = BTreeMap<String, String>;

fn read(
    benchmark: &BenchmarkConfig,
    folder: &Path,
    place: &str,
    mut push: impl FnMut(Item),
) -> Result<Read> {
    let refuse = |message: String, hint: Option<String>| Error::Job {
        place: place.to_owned(),
        message,
        hint,
    };
    let names = |fields: &Option<OneOrMany>| -> Vec<String> {
        fields.as_ref().map(|fields| fields.as_slice().to_vec()).unwrap_or_default()
    };
    let (query, answer) = (names(&benchmark.query), names(&benchmark.answer));
    if query.is_empty() && answer.is_empty() {
        let hint = "name the columns: `query = \"question\"`, `answer = \"answer\"`";
        return Err(refuse("it has neither `query` nor `answer`".to_owned(), Some(hint.into())));
    }
    let kind = source_kind(benchmark, place)?;
    let source = source(benchmark, kind, query.iter().chain(&answer))?;
    let mut read = Read::default();
    let mut unseen: BTreeSet<&String> = query.iter().chain(&answer).collect();
    let mut columns = BTreeSet::new();
    let mut number = 0;
    for file in ingest::source::files(kind, benchmark.path.as_slice(), folder)? {
        let mut take = |row: Option<Row>| {
            let Some(row) = row else {
                read.n_unreadable += 1;
                return;
            };
            unseen.retain(|name| texts(&row, name).is_empty());
            let item = Item {
                number,
                query: query
                    .iter()
                    .flat_map(|name| texts(&row, name))
                    .collect::<Vec<_>>()
                    .join("\n"),
                answers: answer.iter().flat_map(|name| texts(&row, name)).collect(),
            };
            number += 1;
            columns.extend(row.into_keys());
            push(item);
        };
        match file.name.ends_with(".json") {
            true => read_json(&file, benchmark.items.as_deref(), place, &mut take)?,
            false => read_source(&*source, &file, text_column(&query, &answer), &mut take)?,
        }
        read.files.push((file.name, store::hash_file(&file.path)?));
    }
    if number == 0 {
        let message = format!(
            "none of {} rows has a text in `{}`",
            read.n_unreadable,
            text_column(&query, &answer)
        );
        let hint = "name a column that every row has first in `query`".to_owned();
        return Err(refuse(message, Some(hint)));
    }
    if let Some(name) = unseen.first() {
        let known: Vec<&str> = columns.iter().map(String::as_str).collect();
        let hint = config::nearest(name, &known)
            .unwrap_or_else(|| format!("the rows have {}", known.join(", ")));
        return Err(refuse(format!("no row has a text in `{name}`"), Some(hint)));
    }
    Ok(read)
}

/// The source that reads a benchmark's files.
fn source_kind(benchmark: &BenchmarkConfig, place: &str) -> Result<&'static SourceKind> {
    let known: Vec<&str> = ingest::source::KINDS.iter().map(|kind| kind.name).collect();
    let name = match &benchmark.kind {
        Some(kind) => kind.as_str(),
        None => {
            let path = benchmark.path.as_slice().first().map_or("", String::as_str);
            let path = [".gz", ".zst", ".bz2"]
                .iter()
                .find_map(|end| path.strip_suffix(end))
                .unwrap_or(path);
            match path.rsplit('.').next() {
                Some("json" | "jsonl" | "ndjson") => "jsonl",
                Some("csv" | "tsv") => "csv",
                Some("parquet") => "parquet",
                Some("arrow") => "arrow",
                _ => "",
            }
        }
    };
    ingest::source::kind(name).ok_or_else(|| Error::Job {
        place: place.to_owned(),
        message: match &benchmark.kind {
            Some(kind) => format!("unknown kind `{kind}`"),
            None => {
                format!("the ending of {:?} says nothing of its format", benchmark.path.as_slice())
            }
        },
        hint: match name {
            "" => Some("add `kind = \"jsonl\"`, `\"csv\"` or `\"parquet\"`".to_owned()),
            name => config::nearest(name, &known),
        },
    })
}

/// The column of a field: a pointer's first part.
fn column(field: &str) -> &str {
    match field.strip_prefix('/') {
        Some(pointer) => pointer.split('/').next().unwrap_or(pointer),
        None => field,
    }
}

/// The column that a source takes for the text of its documents; every other one comes as metadata.
fn text_column<'a>(query: &'a [String], answer: &'a [String]) -> &'a str {
    let mut fields = query.iter().chain(answer);
    // A pointer leads into an object, which is no text.
    let plain = fields.clone().find(|field| !field.starts_with('/'));
    plain.or_else(|| fields.next()).map_or("", |field| column(field))
}

fn source<'a>(
    benchmark: &BenchmarkConfig,
    kind: &SourceKind,
    fields: impl Iterator<Item = &'a String>,
) -> Result<Box<dyn Source>> {
    let mut table = benchmark.config.clone();
    let fields: Vec<String> = fields.cloned().collect();
    if (kind.default_config)().contains_key("text") {
        table.insert("text".to_owned(), text_column(&fields, &[]).into());
    }
    Ok((kind.build)(&benchmark.name, kind.document_kind, &table)?)
}

fn read_source(
    source: &dyn Source,
    file: &SourceFile,
    text: &str,
    take: &mut impl FnMut(Option<Row>),
) -> Result<()> {
    for batch in source.open(file, None)? {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            take(batch_row(&batch, row, text));
        }
    }
    Ok(())
}

/// A row of a source; none where it gave no document.
fn batch_row(batch: &RecordBatch, row: usize, text: &str) -> Option<Row> {
    let column = |name: &str| batch.column_by_name(name).expect("sources have it");
    if column(shard::schema::REJECT).is_valid(row) {
        return None;
    }
    let mut fields = Row::new();
    let metadata = column("metadata").as_map();
    if metadata.is_valid(row) {
        let entries = metadata.value(row);
        let (keys, values) =
            (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        for index in (0..entries.len()).filter(|index| values.is_valid(*index)) {
            fields.insert(keys.value(index).to_owned(), values.value(index).to_owned());
        }
    }
    for name in ["url", "language", "license"] {
        let values = column(name).as_string_view();
        if values.is_valid(row) {
            fields.insert(name.to_owned(), values.value(row).to_owned());
        }
    }
    fields.insert(text.to_owned(), column("text").as_string_view().value(row).to_owned());
    Some(fields)
}

/// Reads a file that is one JSON value, or JSON lines under the wrong name.
fn read_json(
    file: &SourceFile,
    items: Option<&str>,
    place: &str,
    take: &mut impl FnMut(Option<Row>),
) -> Result<()> {
    let refuse = |message: String, hint: &str| Error::Job {
        place: place.to_owned(),
        message: format!("`{}` {message}", file.path.display()),
        hint: Some(hint.to_owned()),
    };
    let bytes = std::fs::read(&file.path).map_err(shard::Error::io("read", &file.path))?;
    let whole: Value = serde_json::from_slice(&bytes).map_err(|error| {
        refuse(format!("is not JSON: {error}"), "for JSON lines call it `*.jsonl`")
    })?;
    let list = whole.pointer(items.unwrap_or("")).and_then(Value::as_array).ok_or_else(|| {
        let message = format!("has no list at {:?}", items.unwrap_or(""));
        refuse(message, "say with `items` where it is, such as \"/examples\"")
    })?;
    for item in list {
        take(item.as_object().map(|object| {
            object.iter().filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect()
        }));
    }
    Ok(())
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    }
}

/// The texts of a field: one, or the entries of a list; none when they are empty or not there.
fn texts(row: &Row, field: &str) -> Vec<String> {
    let Some(text) = row.get(column(field)) else { return Vec::new() };
    let inner =
        field.strip_prefix('/').map(|pointer| pointer.split_once('/').map_or("", |(_, rest)| rest));
    let value = match inner {
        // A text that looks like a list stays a text, unless it is one: sources write lists as JSON.
        None if text.starts_with('[') => serde_json::from_str(text).ok(),
        None | Some("") => None,
        Some(rest) => {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            Some(value.pointer(&format!("/{rest}")).cloned().unwrap_or_default())
        }
    };
    let texts = match value {
        None => vec![text.clone()],
        Some(Value::Array(values)) => values.iter().filter_map(plain).collect(),
        Some(value) => plain(&value).into_iter().collect(),
    };
    texts.into_iter().filter(|text| !text.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(files: &[(&str, &str)], benchmark: &str) -> Result<Vec<Item>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let benchmark: BenchmarkConfig = toml::from_str(benchmark).unwrap();
        let mut items = Vec::new();
        read(&benchmark, folder.path(), "job.toml", |item| items.push(item))?;
        Ok(items)
    }

    fn item(number: u64, query: &str, answers: &[&str]) -> Item {
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        Item { number, query: query.to_owned(), answers }
    }

    #[test]
    fn items_are_read_from_lines_tables_and_lists() {
        let lines = "{\"q\":\"one?\",\"a\":[\"1\",\"i\"],\"n\":{\"x\":[\"un\"]}}\n{\"q\":\"two?\",\"a\":2}\n";
        let read = items(
            &[("a.jsonl", lines)],
            "name='a'\npath='a.jsonl'\nquery='q'\nanswer=['a','/n/x/0']",
        );
        assert_eq!(read.unwrap(), [item(0, "one?", &["1", "i", "un"]), item(1, "two?", &["2"])]);
        let table = "question,c0,c1\nWhich?,red,\"blue, or\"\n";
        let read = items(
            &[("a.csv", table)],
            "name='a'\npath='*.csv'\nquery=['question','c0']\nanswer='c1'",
        );
        assert_eq!(read.unwrap(), [item(0, "Which?\nred", &["blue, or"])]);
        let tabs = "x\tfirst text\ny\tsecond\n";
        let read = items(&[("a.tsv", tabs)], "name='a'\npath='a.tsv'\nhas_header=false\nquery='2'");
        assert_eq!(read.unwrap(), [item(0, "first text", &[]), item(1, "second", &[])]);
        let list = "{\"canary\":\"x\",\"examples\":[{\"input\":\"in\",\"target\":\"out\"}]}";
        let config = "name='a'\npath='a.json'\nitems='/examples'\nquery='input'\nanswer='target'";
        assert_eq!(items(&[("a.json", list)], config).unwrap(), [item(0, "in", &["out"])]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_hint() {
        let lines = ("a.jsonl", "{\"question\":\"one?\"}\n");
        for (files, config, words) in [
            (vec![lines], "name='a'\npath='a.jsonl'", "neither `query` nor `answer`"),
            (vec![lines], "name='a'\npath='b.jsonl'\nquery='question'", "b.jsonl"),
            (
                vec![lines],
                "name='a'\npath='a.jsonl'\nquery='qestion'",
                "none of 1 rows has a text in `qestion`",
            ),
            (
                vec![("a.xyz", "")],
                "name='a'\npath='a.xyz'\nquery='q'",
                "says nothing of its format",
            ),
            (vec![("a.json", "{}")], "name='a'\npath='a.json'\nquery='q'", "has no list"),
            (vec![lines], "name='a'\npath='a.jsonl'\nquery='question'\nno_key=1", "no_key"),
        ] {
            let message = items(&files, config).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
