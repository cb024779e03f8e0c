//! `ngrams`: the runs of words of a text.

use std::sync::Arc;

use arrow::array::{AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::exec_err;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "ngrams",
    summary: "every run of that many words between blanks, in order; count them with `select g, count(*) from (select unnest(ngrams(lower(text), 2)) as g from documents) group by g`",
    arguments: "(text, n)",
    returns: "list of texts",
    example: (
        "array_to_string(ngrams('to be or not to be', 2), '|')",
        "to be|be or|or not|not to|to be",
    ),
    build: || {
        let returns = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let arguments = vec![vec![DataType::Utf8View, DataType::Int64]];
        Plain::udf("ngrams", arguments, returns, |arguments| {
            let lengths = arguments[1].as_primitive::<Int64Type>();
            let mut lists = ListBuilder::new(StringBuilder::new());
            for (text, n) in arguments[0].as_string_view().iter().zip(lengths) {
                let (Some(text), Some(n)) = (text, n) else {
                    lists.append_null();
                    continue;
                };
                let Some(n) = usize::try_from(n).ok().filter(|n| (1..=MAX).contains(n)) else {
                    return exec_err!("`ngrams` takes 1 to {MAX} words, not {n}");
                };
                let words: Vec<&str> = text.split_whitespace().collect();
                for run in words.windows(n) {
                    lists.values().append_value(run.join(" "));
                }
                lists.append(true);
            }
            Ok(Arc::new(lists.finish()))
        })
    },
};

/// Words of a run: the list is that many times as long as the text.
const MAX: usize = 100;
