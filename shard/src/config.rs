//! Configuration files: TOML in, checked values out, and errors that lead to the line.
//!
//! ```
//! # #[derive(serde::Deserialize)] #[serde(deny_unknown_fields)] struct Job { seed: u64 }
//! let overrides = ["seed=7".to_owned()];
//! let job = shard::config::from_str::<Job>("seed = 42\n", "job.toml", &overrides).unwrap();
//! assert_eq!(job.value.seed, 7);
//! ```

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};
use toml::{Table, Value};

use crate::{Error, Result};

/// Keys further apart than this are not offered as what was meant.
const EDITS_MAX: usize = 3;

/// A configuration as a checked value, and as written: what fingerprints and manifests are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<T> {
    /// The checked value.
    pub value: T,
    /// The file's table, with the overrides in place.
    pub table: Table,
}

/// Loads the TOML file at `path`; each override is `a.b.c=value` and wins over the file.
///
/// The value of an override is TOML; what is not TOML is taken as a string.
///
/// # Errors
/// [`Error::Config`] with file, line and column for anything that is not as `T` wants it.
pub fn load<T: DeserializeOwned>(path: &Path, overrides: &[String]) -> Result<Loaded<T>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    from_str(&text, &path.display().to_string(), overrides)
}

/// Like [`load`], for text from elsewhere; `place` names it in errors.
///
/// # Errors
/// As [`load`].
pub fn from_str<T: DeserializeOwned>(
    text: &str,
    place: &str,
    overrides: &[String],
) -> Result<Loaded<T>> {
    let mut table: Table =
        toml::from_str(text).map_err(|error| located(text, place, &error, None))?;
    for text in overrides {
        set(&mut table, text)?;
    }
    match T::deserialize(table.clone()) {
        Ok(value) => Ok(Loaded { value, table }),
        Err(error) => Err(explain::<T>(text, place, overrides, &error)),
    }
}

/// Reads a part of a configuration that was loaded as a table; `place` names it in errors.
///
/// # Errors
/// [`Error::Config`] that names the key which is unknown, missing or of the wrong type.
pub fn from_table<T: DeserializeOwned>(table: &Table, place: &str) -> Result<T> {
    T::deserialize(table.clone()).map_err(|error| {
        let (message, hint) = worded(error.message(), key_of(&error).as_deref());
        Error::Config { place: place.to_owned(), message, hint }
    })
}

/// Returns `table` as JSON with sorted keys, so that equal configurations have equal bytes.
///
/// Dates become strings, as do the floats that JSON does not have (`nan`, `inf`).
#[must_use]
pub fn canonical_json(table: &Table) -> Json {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_str());
    let entries = entries.into_iter().map(|(key, value)| (key.clone(), canonical_value(value)));
    Json::Object(entries.collect::<Map<_, _>>())
}

fn canonical_value(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::String(text.clone()),
        Value::Integer(n) => Json::from(*n),
        Value::Float(x) => {
            Number::from_f64(*x).map_or_else(|| Json::String(x.to_string()), Json::Number)
        }
        Value::Boolean(is) => Json::Bool(*is),
        Value::Datetime(date) => Json::String(date.to_string()),
        Value::Array(values) => Json::Array(values.iter().map(canonical_value).collect()),
        Value::Table(table) => canonical_json(table),
    }
}

/// Applies one override.
fn set(table: &mut Table, text: &str) -> Result<()> {
    let refuse = |message: String| Error::Config {
        place: format!("override `{text}`"),
        message,
        hint: Some("write `key=value` or `table.key=value`".to_owned()),
    };
    let (keys, value) = text.split_once('=').ok_or_else(|| refuse("it has no `=`".to_owned()))?;
    let value = value.trim();
    let value = match toml::from_str::<Table>(&format!("value = {value}\n")) {
        // More than one key means that the text is not one value but lines of TOML.
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").expect("its only key"),
        _ => Value::String(value.to_owned()),
    };
    let keys: Vec<_> = keys.split('.').map(str::trim).collect();
    let (last, above) = keys.split_last().expect("split gives at least one part");
    if keys.iter().any(|key| key.is_empty()) {
        return Err(refuse("a part of its key is empty".to_owned()));
    }
    let mut at = table;
    for key in above {
        let next = at.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        at = match next {
            Value::Table(table) => table,
            other => {
                let is = other.type_str();
                return Err(refuse(format!("`{key}` is a value of type {is}, not a table")));
            }
        };
    }
    at.insert((*last).to_owned(), value);
    Ok(())
}

/// Turns the error of the merged table into one that leads to the file's line, or to the override.
fn explain<T: DeserializeOwned>(
    text: &str,
    place: &str,
    overrides: &[String],
    error: &toml::de::Error,
) -> Error {
    let key = key_of(error);
    if let Err(in_file) = toml::from_str::<T>(text)
        && in_file.message() == error.message()
    {
        return located(text, place, &in_file, key.as_deref());
    }
    let names = |text: &&String| {
        let set = text.split_once('=').map_or("", |(key, _)| key.trim());
        let name = quoted(error.message()).next().unwrap_or_default();
        key.as_deref() == Some(set) || set.rsplit('.').next() == Some(name)
    };
    let place = match overrides.iter().find(names) {
        Some(text) => format!("override `{text}`"),
        None => place.to_owned(),
    };
    let (message, hint) = worded(error.message(), key.as_deref());
    Error::Config { place, message, hint }
}

fn located(text: &str, place: &str, error: &toml::de::Error, key: Option<&str>) -> Error {
    let (message, hint) = worded(error.message(), key);
    let Some(span) = error.span() else {
        return Error::Config { place: place.to_owned(), message, hint };
    };
    let (line, column, quote) = quote(text, &span);
    Error::Config {
        place: format!("{place}:{line}:{column}"),
        message: format!("{message}\n{quote}"),
        hint,
    }
}

/// Returns line and column from 1, and the line with a mark under what is wrong.
fn quote(text: &str, span: &Range<usize>) -> (usize, usize, String) {
    let start = text.floor_char_boundary(span.start);
    let before = &text[..start];
    let line = before.matches('\n').count() + 1;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let content = text[line_start..].lines().next().unwrap_or_default();
    let column = before[line_start..].chars().count() + 1;
    let end = text.floor_char_boundary(span.end.min(line_start + content.len())).max(start);
    let width = text[start..end].chars().count().max(1);
    let gutter = line.to_string();
    let blank = " ".repeat(gutter.len());
    let indent = " ".repeat(column - 1);
    let mark = "^".repeat(width);
    (line, column, format!("{gutter} | {content}\n{blank} | {indent}{mark}"))
}

/// Says serde's message in our words; `key` is the path of the value that was refused.
fn worded(message: &str, key: Option<&str>) -> (String, Option<String>) {
    let mut names = quoted(message);
    if message.starts_with("unknown field ") || message.starts_with("unknown variant ") {
        let name = names.next().unwrap_or_default();
        let known: Vec<_> = names.collect();
        let what = if message.starts_with("unknown field ") { "key" } else { "value" };
        let place = match key {
            Some(key) if what == "value" => format!(" of `{key}`"),
            Some(key) => match key.rsplit_once('.') {
                Some((table, last)) if last == name => format!(" in `{table}`"),
                _ if key == name => String::new(),
                _ => format!(" in `{key}`"),
            },
            None => String::new(),
        };
        return (format!("unknown {what} `{name}`{place}"), nearest(name, &known));
    }
    if message.starts_with("missing field ") {
        let name = names.next().unwrap_or_default();
        let place = key.map(|key| format!(" in `{key}`")).unwrap_or_default();
        return (format!("key `{name}` is missing{place}"), None);
    }
    match key {
        Some(key) if !message.contains(&format!("`{key}`")) => {
            (format!("`{key}`: {message}"), None)
        }
        _ => (message.to_owned(), None),
    }
}

/// The texts between backticks.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

/// The path that an error without a place in a file carries.
fn key_of(error: &toml::de::Error) -> Option<String> {
    let shown = error.to_string();
    let key = shown.rsplit_once("\nin `")?.1.trim_end().strip_suffix('`')?;
    Some(key.to_owned())
}

/// Returns a hint about a name that is not known: the nearest known one, or all of them. None when nothing is known.
#[must_use]
pub fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let best = known.iter().map(|known| (edits(name, known), known)).min();
    match best {
        None => None,
        Some((n, best)) if n <= EDITS_MAX && n < name.chars().count() => {
            Some(format!("did you mean `{best}`?"))
        }
        Some(_) => Some(format!("known are `{}`", known.join("`, `"))),
    }
}

/// Levenshtein's distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
