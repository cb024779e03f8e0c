//! `cosine`: how similar two embeddings are.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result as EngineResult, exec_err};
use dedup::semantic;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "cosine",
    summary: "the cosine of the angle between two embeddings, lists of numbers as text such as `metadata['embedding']`: what \
              `duplicates.similarity` holds for `semantic`",
    arguments: "(text, text)",
    returns: "float, -1 to 1",
    // (3, 4) and (4, 3): 24 of 25.
    example: ("round(cosine('[3, 4]', '[4, 3]'), 4)", "0.96"),
    build: || {
        let arguments = vec![vec![DataType::Utf8View; 2]];
        Plain::udf("cosine", arguments, DataType::Float64, |arguments| {
            let pairs = arguments[0].as_string_view().iter().zip(arguments[1].as_string_view());
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let cosines = pairs.map(|pair| {
                let (Some(a), Some(b)) = pair else { return Ok(None) };
                for (text, numbers) in [(a, &mut left), (b, &mut right)] {
                    if let Err(why) = semantic::parse(text, numbers) {
                        return exec_err!(
                            "`cosine` takes lists of numbers that are not all 0: {why}"
                        );
                    }
                }
                if left.len() != right.len() {
                    let (a, b) = (left.len(), right.len());
                    return exec_err!("`cosine` takes two lists of one length, not of {a} and {b}");
                }
                Ok(Some(semantic::cosine(&left, &right)))
            });
            Ok(Arc::new(cosines.collect::<EngineResult<Float64Array>>()?))
        })
    },
};
