//! `jaccard`: how similar two texts are.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, UInt64Type};

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "jaccard",
    summary: "the Jaccard index of the shingles of two texts, word 5-grams unless settings of `[dedup.minhash]` say otherwise: \
              what `duplicates.similarity` holds",
    arguments: "(text, text [, settings])",
    returns: "float, 0 to 1",
    // {abcde, bcdef} and {abcde, bcdeg}: 1 shared of 3.
    example: ("round(jaccard('a b c d e f', 'A, b c d e g!'), 4)", "0.3333"),
    build: || {
        let arguments = vec![vec![DataType::Utf8View; 2], vec![DataType::Utf8View; 3]];
        Plain::udf("jaccard", arguments, DataType::Float64, |arguments| {
            let minhash = super::minhash::of("jaccard", arguments.get(2))?;
            let left = minhash.shingle_sets(arguments[0].as_string_view());
            let right = minhash.shingle_sets(arguments[1].as_string_view());
            let set = |lists: &arrow::array::ListArray, row: usize| -> UInt64Array {
                lists.value(row).as_primitive::<UInt64Type>().clone()
            };
            let similarities: Float64Array = (0..left.len())
                .map(|row| {
                    let is_known = left.is_valid(row) && right.is_valid(row);
                    is_known.then(|| {
                        dedup::jaccard(set(&left, row).values(), set(&right, row).values())
                    })
                })
                .collect();
            Ok(Arc::new(similarities))
        })
    },
};
