//! `id_of`: the id that a hexadecimal text spells.

use std::sync::Arc;

use arrow::array::{AsArray, FixedSizeBinaryBuilder};
use arrow::datatypes::DataType;
use datafusion::common::exec_datafusion_err;
use shard::schema::ID_BYTES;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "id_of",
    summary: "the id that 32 hexadecimal digits spell, to look a document up: `where id = id_of('…')`",
    arguments: "(text)",
    returns: "id (16 bytes)",
    example: ("hex(id_of('A0000000000000000000000000000001'))", "a0000000000000000000000000000001"),
    build: || {
        let returns = DataType::FixedSizeBinary(ID_BYTES);
        Plain::udf("id_of", vec![vec![DataType::Utf8View]], returns, |arguments| {
            let mut ids = FixedSizeBinaryBuilder::new(ID_BYTES);
            for text in arguments[0].as_string_view() {
                match text {
                    None => ids.append_null(),
                    Some(text) => {
                        let id = decode(text).ok_or_else(|| {
                            exec_datafusion_err!(
                                "`{text}` is no id: an id is 32 hexadecimal digits"
                            )
                        })?;
                        ids.append_value(id)?;
                    }
                }
            }
            Ok(Arc::new(ids.finish()))
        })
    },
};

/// Returns the id that `text` spells, nothing unless it is exactly two digits per byte.
pub(crate) fn decode(text: &str) -> Option<[u8; ID_BYTES as usize]> {
    let mut id = [0; ID_BYTES as usize];
    if text.len() != 2 * id.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in id.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).ok()?;
    }
    Some(id)
}
