//! `minhash`: the signature that near-duplicates are searched by.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result as EngineResult, plan_err};
use dedup::MinHash;

use super::{FunctionKind, Plain, engine, parse_settings};
use crate::Result;
use crate::stage::duplicates::hash_functions;

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "minhash",
    summary: "the signature of a text, empty for a text without words; settings are those of `[dedup.minhash]` in a job, \
              without any 18 bands of 6 hashes over word 5-grams: `minhash(text, 'profile = \"nemo\"')`",
    arguments: "(text [, settings])",
    returns: "list of unsigned integers",
    example: ("minhash('The same words.') = minhash('the same words')", "true"),
    build: || {
        let item = Field::new_list_field(DataType::UInt64, false);
        let returns = DataType::List(Arc::new(item));
        let text = DataType::Utf8View;
        let arguments = vec![vec![text.clone()], vec![text.clone(), text]];
        Plain::udf("minhash", arguments, returns, |arguments| {
            let minhash = of("minhash", arguments.get(1))?;
            Ok(Arc::new(minhash.signatures(arguments[0].as_string_view())))
        })
    },
};

/// The hash functions that were asked for last: settings rarely change from batch to batch.
static LAST: Mutex<Option<(String, Arc<MinHash>)>> = Mutex::new(None);

/// The hash functions of the settings that the call `name` was given, if it was.
pub(super) fn of(name: &str, settings: Option<&ArrayRef>) -> EngineResult<Arc<MinHash>> {
    let settings = match settings.map(|settings| settings.as_string_view()) {
        None => "",
        Some(settings) if settings.is_empty() => "",
        Some(settings) => {
            let first = settings.value(0);
            if settings.iter().any(|other| other != Some(first)) {
                return plan_err!("`{name}` takes its settings as a literal, not as a column");
            }
            first
        }
    };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, minhash)) = &*last
        && known == settings
    {
        return Ok(Arc::clone(minhash));
    }
    let minhash = Arc::new(build(name, settings).map_err(engine)?);
    *last = Some((settings.to_owned(), Arc::clone(&minhash)));
    Ok(minhash)
}

fn build(name: &str, settings: &str) -> Result<MinHash> {
    let table = parse_settings(name, settings)?;
    let kind = dedup::kind("minhash").expect("it is registered");
    (kind.check)(&table)?;
    let config = shard::config::from_table(&table, &format!("settings of `{name}`"))?;
    Ok(hash_functions(config)?)
}
