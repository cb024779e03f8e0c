//! `sample_key`: a random number that is always the same.

use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::exec_err;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "sample_key",
    summary: "a number at random that only the id and the seed decide (XXH3): `order by sample_key(id, 7) limit 100` is a sample, the same every time; `where sample_key(id, 7) < 184467440737095516` is one percent",
    arguments: "(id, seed)",
    returns: "unsigned integer",
    // xxhash 4.1.0 for Python: xxh3_64_intdigest(bytes.fromhex('000102030405060708090a0b0c0d0eff'), seed=7)
    example: ("sample_key(id_of('000102030405060708090a0b0c0d0eff'), 7)", "16620906918695589289"),
    build: || {
        let id = DataType::FixedSizeBinary(shard::schema::ID_BYTES);
        let arguments =
            vec![vec![id, DataType::Int64], vec![DataType::BinaryView, DataType::Int64]];
        Plain::udf("sample_key", arguments, DataType::UInt64, |arguments| {
            let seeds = arguments[1].as_primitive::<Int64Type>();
            let ids: Vec<Option<&[u8]>> = match arguments[0].data_type() {
                DataType::FixedSizeBinary(_) => {
                    arguments[0].as_fixed_size_binary().iter().collect()
                }
                DataType::BinaryView => arguments[0].as_binary_view().iter().collect(),
                other => return exec_err!("`sample_key` takes an id, this is {other}"),
            };
            let keys = ids.into_iter().zip(seeds);
            let keys = keys.map(|(id, seed)| Some(xxh3_64_with_seed(id?, seed?.cast_unsigned())));
            Ok(Arc::new(keys.collect::<UInt64Array>()))
        })
    },
};
