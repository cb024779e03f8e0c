//! `contains_any`: whether one of several texts stands in a text.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field};

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "contains_any",
    summary: "whether any text of a list stands in a text, letter by letter; lower both for a search without case",
    arguments: "(text, list of texts)",
    returns: "boolean",
    example: ("contains_any('the quick fox', ['slow', 'quick'])", "true"),
    build: || {
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        let arguments = vec![
            vec![DataType::Utf8View, list(DataType::Utf8)],
            vec![DataType::Utf8View, list(DataType::Utf8View)],
        ];
        Plain::udf("contains_any", arguments, DataType::Boolean, |arguments| {
            let (texts, lists) = (arguments[0].as_string_view(), arguments[1].as_list::<i32>());
            let needles = arrow::compute::cast(lists.values(), &DataType::Utf8View)?;
            let needles = needles.as_string_view();
            let found: BooleanArray = (0..texts.len())
                .map(|row| {
                    let is_known = texts.is_valid(row) && lists.is_valid(row);
                    let ends = lists.offsets();
                    let range =
                        usize::try_from(ends[row]).ok()?..usize::try_from(ends[row + 1]).ok()?;
                    is_known.then(|| {
                        let text = texts.value(row);
                        range.into_iter().any(|at| {
                            needles.is_valid(at)
                                && memchr::memmem::find(
                                    text.as_bytes(),
                                    needles.value(at).as_bytes(),
                                )
                                .is_some()
                        })
                    })
                })
                .collect();
            Ok(Arc::new(found))
        })
    },
};
