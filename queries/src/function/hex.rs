//! `hex`: bytes as text.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "hex",
    summary: "the bytes of an id in lower-case hexadecimal",
    arguments: "(id)",
    returns: "text",
    example: ("hex(id_of('000102030405060708090a0b0c0d0eff'))", "000102030405060708090a0b0c0d0eff"),
    build: || {
        let arguments = vec![
            vec![DataType::FixedSizeBinary(shard::schema::ID_BYTES)],
            vec![DataType::BinaryView],
            vec![DataType::Binary],
        ];
        Plain::udf("hex", arguments, DataType::Utf8, |arguments| {
            let mut texts = StringBuilder::new();
            let mut text = String::new();
            let mut append = |bytes: Option<&[u8]>| match bytes {
                Some(bytes) => {
                    text.clear();
                    encode(bytes, &mut text);
                    texts.append_value(&text);
                }
                None => texts.append_null(),
            };
            let bytes = &arguments[0];
            match bytes.data_type() {
                DataType::FixedSizeBinary(_) => {
                    bytes.as_fixed_size_binary().iter().for_each(append);
                }
                DataType::Binary => bytes.as_binary::<i32>().iter().for_each(&mut append),
                DataType::BinaryView => bytes.as_binary_view().iter().for_each(&mut append),
                other => return exec_err!("`hex` takes bytes, this is {other}"),
            }
            Ok(Arc::new(texts.finish()))
        })
    },
};

/// Appends two digits per byte.
pub(crate) fn encode(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}
