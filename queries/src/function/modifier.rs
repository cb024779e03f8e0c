//! A modifier of a job as a function of SQL.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::{is_not_null, nullif};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use ingest::modifier::{Modifier, ModifierKind};

use super::settings::{self, Built};
use super::{engine, over_text, text_and_settings};
use crate::Result;
use crate::session::Files;

/// Returns the function of a modifier, see [the table](super).
pub(super) fn function(kind: &'static ModifierKind, files: Files) -> Result<ScalarUDF> {
    let (signature, built) = (text_and_settings(), Built::new(kind.build, files)?);
    Ok(ScalarUDF::new_from_impl(ModifierFunction { kind, signature, built }))
}

#[derive(Debug)]
struct ModifierFunction {
    kind: &'static ModifierKind,
    signature: Signature,
    built: Built<dyn Modifier>,
}

impl PartialEq for ModifierFunction {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name
    }
}

impl Eq for ModifierFunction {}

impl Hash for ModifierFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.name.hash(state);
    }
}

impl ScalarUDFImpl for ModifierFunction {
    fn name(&self) -> &str {
        self.kind.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        let settings = settings::planned(self.kind.name, &arguments)?;
        self.built.get(self.kind.name, settings).map_err(engine)?;
        Ok(Arc::new(Field::new(self.kind.name, DataType::Utf8View, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let settings = settings::given(self.kind.name, &arguments.args)?;
        let modifier = self.built.get(self.kind.name, settings).map_err(engine)?;
        over_text(&arguments.args[0], |documents| {
            let modified = modifier.modify(documents)?;
            match modified.reasons {
                Some(reasons) if reasons.null_count() < reasons.len() => {
                    Ok(nullif(&modified.text, &is_not_null(&reasons)?)?)
                }
                _ => Ok(Arc::new(modified.text)),
            }
        })
    }
}
