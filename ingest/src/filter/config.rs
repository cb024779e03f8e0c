//! Reads the configuration of a step, with errors that name the key and the nearest one it takes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Returns the configuration that `table` sets for the step `name`, defaults where it is silent.
///
/// # Errors
/// [`Error::Config`] for a key that the step does not take, or a value of the wrong type.
pub(crate) fn from_table<C>(name: &str, table: &toml::Table) -> Result<C>
where
    C: Default + DeserializeOwned + Serialize,
{
    let known = defaults::<C>();
    if let Some(key) = table.keys().find(|key| !known.contains_key(*key)) {
        return Err(invalid(name, unknown_key(key, &known)));
    }
    table.clone().try_into().map_err(|error: toml::de::Error| {
        invalid(name, error.message().lines().collect::<Vec<_>>().join(", "))
    })
}

/// Returns the default configuration as TOML: every key that the step takes.
pub(crate) fn defaults<C: Default + Serialize>() -> toml::Table {
    toml::Table::try_from(C::default()).expect("a configuration of numbers, strings and lists")
}

/// Returns the error of a configuration that the step `name` cannot work with.
pub(crate) fn invalid(name: &str, message: impl Into<String>) -> Error {
    Error::Config { name: name.to_owned(), message: message.into() }
}

fn unknown_key(key: &str, known: &toml::Table) -> String {
    let nearest = known.keys().min_by_key(|candidate| edit_distance(key, candidate));
    let all: Vec<String> = known.keys().map(|known| format!("`{known}`")).collect();
    let all = all.join(", ");
    match nearest {
        Some(nearest) => {
            format!("there is no key `{key}`\nhint: did you mean `{nearest}`? it takes {all}")
        }
        None => format!("there is no key `{key}`\nhint: it takes no keys"),
    }
}

/// Levenshtein distance in bytes: keys are ASCII and short.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        min_words: u64,
        keep: Vec<String>,
    }

    fn check(toml: &str, expected: &str) {
        let table: toml::Table = toml.parse().unwrap();
        let error = from_table::<Config>("length", &table).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }

    #[test]
    fn names_the_unknown_key_and_the_nearest_one() {
        check("min_wrds = 3", "no key `min_wrds`\nhint: did you mean `min_words`?");
    }

    #[test]
    fn names_what_a_value_should_be() {
        check("min_words = 'three'", "`length`: invalid type: string \"three\", expected u64");
    }

    #[test]
    fn counts_edits_as_levenshtein_did() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
