//! `minhash`: the signature that near-duplicates are searched by.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result as EngineResult;
use dedup::MinHash;

use super::{FunctionKind, Plain, engine};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "minhash",
    summary: "the signature of a text with the default settings of `[dedup]`: 18 bands of 6 hashes over word 5-grams, empty for a text without words",
    arguments: "(text)",
    returns: "list of unsigned integers",
    example: ("minhash('The same words.') = minhash('the same words')", "true"),
    build: || {
        let item = Field::new_list_field(DataType::UInt64, false);
        let returns = DataType::List(Arc::new(item));
        Plain::udf("minhash", vec![vec![DataType::Utf8View]], returns, |arguments| {
            Ok(Arc::new(default()?.signatures(arguments[0].as_string_view())))
        })
    },
};

/// The hash functions of the default settings.
pub(super) fn default() -> EngineResult<MinHash> {
    MinHash::new(dedup::minhash::Config::default()).map_err(engine)
}
