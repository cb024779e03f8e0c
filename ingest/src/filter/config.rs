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
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        let hint = shard::config::nearest(key, &known).unwrap_or("it takes no keys".to_owned());
        return Err(invalid(name, format!("there is no key `{key}`\nhint: {hint}")));
    }
    shard::config::from_table(table, name).map_err(|error| match error {
        shard::Error::Config { message, .. } => invalid(name, message),
        other => invalid(name, other.to_string()),
    })
}

/// Returns the configuration that `table` sets for the step `name`, where it is silent that of the profile it names: `of_profile`
/// gives it, from a configuration of which only the profile counts.
///
/// # Errors
/// [`Error::Config`] for a key that the step does not take, or a value of the wrong type.
pub(crate) fn from_profile<C>(
    name: &str,
    table: &toml::Table,
    of_profile: impl FnOnce(&C) -> C,
) -> Result<C>
where
    C: Default + DeserializeOwned + Serialize,
{
    let base = of_profile(&from_table(name, table)?);
    let mut merged = toml::Table::try_from(base).expect("a configuration, as in `defaults`");
    merged.extend(table.clone());
    from_table(name, &merged)
}

/// Returns the default configuration as TOML: every key that the step takes.
pub(crate) fn defaults<C: Default + Serialize>() -> toml::Table {
    toml::Table::try_from(C::default()).expect("a configuration of numbers, strings and lists")
}

/// Returns the error of a configuration that the step `name` cannot work with.
pub(crate) fn invalid(name: &str, message: impl Into<String>) -> Error {
    Error::Config { name: name.to_owned(), message: message.into() }
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
        check(
            "min_words = 'three'",
            "`length`: `min_words`: invalid type: string \"three\", expected u64",
        );
    }
}
