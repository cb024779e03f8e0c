//! A field that holds any JSON as its text: the order of keys, which templates write out, is kept.

use minijinja::value::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Writes JSON without blanks and with its keys in order; `None` when it is none.
#[must_use]
pub fn compact(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    serde_json::to_string(&value).ok()
}

pub(super) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    let value: Option<Value> =
        text.as_deref().map(serde_json::from_str).transpose().map_err(ser::Error::custom)?;
    value.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    value.map(|value| serde_json::to_string(&value).map_err(de::Error::custom)).transpose()
}
