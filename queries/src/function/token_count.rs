//! `token_count`: the length of a text as a model sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arrow::array::{Array, AsArray, UInt64Builder};
use arrow::datatypes::DataType;
use datafusion::common::Result as EngineResult;
use shard::tokenizer::Tokenizer;

use super::{FunctionKind, Plain, engine};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "token_count",
    summary: "the number of tokens of a text, without special tokens, for the `tokenizer.json` at a path",
    arguments: "(text, path)",
    returns: "unsigned integer",
    example: ("token_count(null, 'tokenizer.json') is null", "true"),
    build: || {
        let arguments = vec![vec![DataType::Utf8View, DataType::Utf8View]];
        Plain::udf("token_count", arguments, DataType::UInt64, |arguments| {
            let (texts, paths) = (arguments[0].as_string_view(), arguments[1].as_string_view());
            let mut counts = UInt64Builder::with_capacity(texts.len());
            let mut ids = Vec::new();
            let mut current: Option<(&str, Arc<Tokenizer>)> = None;
            for (text, path) in texts.iter().zip(paths) {
                let (Some(text), Some(path)) = (text, path) else {
                    counts.append_null();
                    continue;
                };
                let tokenizer = match &current {
                    Some((loaded, tokenizer)) if *loaded == path => Arc::clone(tokenizer),
                    _ => load(path)?,
                };
                ids.clear();
                tokenizer.encode(text, &mut ids).map_err(engine)?;
                counts.append_value(ids.len() as u64);
                current = Some((path, tokenizer));
            }
            Ok(Arc::new(counts.finish()))
        })
    },
};

/// Tokenizers that stay loaded.
const N_LOADED_MAX: usize = 8;

/// Loads the tokenizer at `path` once, and again when the file has changed.
fn load(path: &str) -> EngineResult<Arc<Tokenizer>> {
    static LOADED: Mutex<BTreeMap<(String, SystemTime), Arc<Tokenizer>>> =
        Mutex::new(BTreeMap::new());
    let changed = std::fs::metadata(path)
        .and_then(|file| file.modified())
        .map_err(|error| engine(shard::Error::io("read", path)(error)))?;
    // A panic while loading leaves the map as it was.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (path.to_owned(), changed);
    if let Some(tokenizer) = loaded.get(&key) {
        return Ok(Arc::clone(tokenizer));
    }
    let tokenizer = Arc::new(Tokenizer::load(Path::new(path)).map_err(engine)?);
    if loaded.len() == N_LOADED_MAX {
        loaded.clear();
    }
    loaded.insert(key, Arc::clone(&tokenizer));
    Ok(tokenizer)
}
